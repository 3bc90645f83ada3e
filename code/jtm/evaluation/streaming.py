"""
Frozen networks over whole recordings, piece by piece, in bounded memory.

Frame ``i`` is centred on the middle of samples ``[hop * i, hop * (i + 1))``, the hop
being the encoder's. A piece is read with a margin on both sides, which covers what
the encoder sees around a frame; the context network's state is carried from piece to
piece. The result is that of the whole recording at once, with two exceptions: a
transformer looks back no further than :data:`LOOK_BACK` before its piece, and a norm
over time (instance norm) sees its piece alone.
"""

import numpy as np
import torch

from jtm.models.context import TransformerContext

PIECE = 2048
"""Frames of a piece; like :data:`SHORT_PIECE` a whole number of windows of 1.28 s."""

SHORT_PIECE = 256
"""The same for recurrent networks: what layers hand on stays in the cache."""

LOOK_BACK = 1024
"""Frames before its piece that a transformer looks back on."""


class Audio:
    """
    The samples of one recording, read in pieces with margins.

    Parameters
    ----------
    read : callable
        Returns samples at 16 kHz, in int16 or float32, from a start up to a stop.
    length : int
        Number of samples.
    wanted : int, optional
        Samples, from the start, whose frames are wanted; all by default.
    scale : float
        What samples are multiplied by; brings int16 to [-1, 1] by default.
    """

    def __init__(self, read, length, wanted=None, scale=1 / 32768):
        self.read = read
        self.scale = scale
        self.length = int(length)
        self.wanted = self.length if wanted is None else min(int(wanted), self.length)

    @classmethod
    def of(cls, wave):
        """Make a recording of samples ``(samples,)`` in int16 at 16 kHz."""
        return cls(lambda start, stop: wave[start:stop], len(wave))

    def n_frames(self, hop):
        """Count the whole frames that are wanted."""
        return self.wanted // hop

    def piece(self, first, size, margin, hop):
        """
        Read a piece of at most `size` frames, and `margin` frames on either side.

        Give samples ``(samples,)`` in [-1, 1], float32, the number of frames in them
        before the piece, and that in the piece.
        """
        lead = min(first, margin)
        n_frames = min(self.n_frames(hop) - first, size)
        stop = min((first + n_frames + margin) * hop, self.length)
        wave = self.read((first - lead) * hop, stop)
        return wave.astype(np.float32) * np.float32(self.scale), lead, n_frames


class NetworkSource:
    """
    Latents z and contexts c of a frozen network.

    Parameters
    ----------
    model : Network
        The network; it is put into evaluation mode. Its encoder's `hop` is taken,
        and its `reach`, the frames that it sees on either side of one, if it has it.
    """

    layers = ("z", "c")

    def __init__(self, model):
        self.model = model.eval()
        self.hop = model.encoder.hop
        self.margin = getattr(model.encoder, "reach", 16)

    def stream(self, recording):
        """
        Compute z and c ``(frames, dim)``, float32, by pieces.

        Yield the first frame of a piece, and both; pieces may come in any order.
        """
        for first, *layers in self.tensors(recording):
            yield first, *(layer[0].float().cpu().numpy() for layer in layers)

    def whole(self, recording):
        """Compute z and c ``(frames, dim)`` by name, float32, at once."""
        pieces = sorted(self.stream(recording), key=lambda piece: piece[0])
        _, *parts = zip(*pieces, strict=True)
        return dict(zip(self.layers, map(np.concatenate, parts), strict=True))

    def encode(self, waves):
        """Compute z of a piece with its margins ``(1, 1, samples)``."""
        return self.model.encoder(waves)

    @torch.no_grad()
    def tensors(self, recording, size=None):
        """
        Compute z and c ``(1, frames, dim)``, left on the network's device, by pieces.

        Pieces have `size` frames; as many as are fastest by default.
        """
        model = self.model
        device = next(model.parameters()).device
        # A transformer reads again, for each piece, what it looks back on.
        lasting = isinstance(model.context, TransformerContext)
        size = size or (PIECE if lasting else SHORT_PIECE)
        starts = range(0, recording.n_frames(self.hop), size)
        state = None
        for first in reversed(starts) if model.reverse else starts:
            wave, lead, n = recording.piece(first, size, self.margin, self.hop)
            wave = torch.from_numpy(wave).to(device)
            z = self.encode(wave[None, None])[:, lead : lead + n]
            if model.reverse:  # the future is read first
                c, state = model.context(z.flip(1), state)
                c = c.flip(1)
            else:
                c, state = model.context(z, state)
            if lasting:
                state = state[:, -LOOK_BACK:]
            yield first, z, c
