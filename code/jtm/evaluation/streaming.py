"""
Frozen networks over whole recordings, piece by piece, in bounded memory.

Frame ``i`` is centred on the middle of samples ``[hop * i, hop * (i + 1))``, the hop
being the encoder's. A piece is read with a margin on both sides, which covers what
the encoder sees around a frame; the context network's state is carried from piece to
piece. The result is that of the whole recording at once, with two exceptions: a
transformer looks back no further than :data:`LOOK_BACK` before its piece, and a norm
over time (instance norm) sees its piece alone.
"""

import hashlib

import numpy as np
import torch

from jtm.constants import HOP, N_PITCHES, SAMPLE_RATE
from jtm.models.context import TransformerContext
from jtm.models.encoder import HarmonicStack

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
        """
        Make a recording of an array.

        Parameters
        ----------
        wave : numpy.ndarray
            Samples ``(samples,)`` in int16 at 16 kHz.

        Returns
        -------
        Audio
            The recording.
        """
        return cls(lambda start, stop: wave[start:stop], len(wave))

    def n_frames(self, hop=HOP):
        """
        Count the frames that are wanted.

        Parameters
        ----------
        hop : int
            Samples from one frame to the next.

        Returns
        -------
        int
            Number of whole frames.
        """
        return self.wanted // hop

    def piece(self, first, size, margin, hop=HOP):
        """
        Read one piece and what lies around it.

        Parameters
        ----------
        first : int
            First frame of the piece.
        size : int
            Maximum number of frames in it.
        margin : int
            Frames read on each side, where the recording has them.
        hop : int
            Samples from one frame to the next.

        Returns
        -------
        wave : numpy.ndarray
            Samples ``(samples,)`` in [-1, 1], float32, of the piece and its margins.
        lead : int
            Frames of `wave` before the piece.
        n_frames : int
            Frames in the piece.
        """
        lead = min(first, margin)
        n_frames = min(self.n_frames(hop) - first, size)
        stop = min((first + n_frames + margin) * hop, self.length)
        wave = self.read((first - lead) * hop, stop)
        return wave.astype(np.float32) * np.float32(self.scale), lead, n_frames


class Source:
    """
    What turns recordings into frames of one or more layers, piece by piece.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers.
    hop : int
        Samples at 16 kHz from one frame to the next.
    margin : int
        Frames read on each side of a piece.
    """

    layers = ()
    hop = HOP
    margin = 0

    def batches(self, recordings):
        """
        Sort recordings into batches that :meth:`stream_together` takes.

        Parameters
        ----------
        recordings : dict of object to Audio
            Recordings by any key.

        Yields
        ------
        keys : tuple
            Keys of a batch.
        batch : tuple of Audio
            The recordings.
        """
        alike = {}
        for key, recording in recordings.items():
            n_frames = recording.n_frames(self.hop)
            heard = min((n_frames + self.margin) * self.hop, recording.length)
            alike.setdefault((n_frames, heard), []).append((key, recording))
        for (n_frames, _), group in alike.items():
            # As many frames at once as a short piece of four recordings.
            size = max(1, 4 * SHORT_PIECE // max(1, min(n_frames, SHORT_PIECE)))
            for first in range(0, len(group), size):
                yield zip(*group[first : first + size], strict=True)

    def stream(self, recording):
        """
        Compute the frames of a recording.

        Parameters
        ----------
        recording : Audio
            The recording.

        Yields
        ------
        first : int
            First frame of the piece; pieces may come in any order.
        layers : numpy.ndarray
            For each layer, features ``(frames, dim)``, float32.
        """
        for first, *layers in self.stream_together([recording]):
            yield first, *(layer[0] for layer in layers)

    def stream_together(self, recordings):
        """
        Compute the frames of recordings side by side, which is faster than in turn.

        Parameters
        ----------
        recordings : sequence of Audio
            Recordings of the same length, and as much of each wanted.

        Yields
        ------
        first : int
            First frame of the piece.
        layers : numpy.ndarray
            For each layer, features ``(recordings, frames, dim)``, float32.
        """
        raise NotImplementedError

    def whole(self, recording):
        """
        Compute the frames of a recording at once.

        Parameters
        ----------
        recording : Audio
            The recording.

        Returns
        -------
        dict of str to numpy.ndarray
            Features ``(frames, dim)`` by layer, float32.
        """
        pieces = sorted(self.stream(recording), key=lambda piece: piece[0])
        parts = list(zip(*pieces, strict=True))[1:]
        return dict(zip(self.layers, map(np.concatenate, parts), strict=True))


class NetworkSource(Source):
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

    @property
    def fingerprint(self):
        """What the network is, as text: a hash of its weights and of an output."""
        hashed = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            hashed.update(name.encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
        # What it makes of a second of fixed noise tells settings and code apart
        # that no weight shows.
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, SAMPLE_RATE)
        for _, *parts in self.stream(Audio.of((32768 * noise).astype(np.int16))):
            for part in parts:
                hashed.update(np.round(part, 3).tobytes())
        return hashed.hexdigest()

    def stream_together(self, recordings):
        """
        Compute z and c; see :meth:`Source.stream_together`.

        Parameters
        ----------
        recordings : sequence of Audio
            Recordings of the same length, and as much of each wanted.

        Yields
        ------
        first : int
            First frame of the piece.
        z, c : numpy.ndarray
            Latents ``(recordings, frames, z_dim)`` and contexts ``(recordings,
            frames, c_dim)``, float32.
        """
        for first, *layers in self.tensors(recordings):
            yield first, *(layer.float().cpu().numpy() for layer in layers)

    def encode(self, waves):
        """
        Compute z of a piece with its margins.

        Parameters
        ----------
        waves : torch.Tensor
            Waveforms ``(recordings, 1, samples)``.

        Returns
        -------
        torch.Tensor
            Latents ``(recordings, frames, z_dim)``.
        """
        return self.model.encoder(waves)

    @torch.no_grad()
    def tensors(self, recordings, size=None):
        """
        Compute z and c, and leave them on the network's device.

        Parameters
        ----------
        recordings : sequence of Audio
            Recordings of the same length, and as much of each wanted.
        size : int, optional
            Frames of a piece; as many as are fastest by default.

        Yields
        ------
        first : int
            First frame of the piece.
        z, c : torch.Tensor
            As :meth:`stream_together` yields them.
        """
        model = self.model
        device = next(model.parameters()).device
        # A transformer reads again, for each piece, what it looks back on.
        lasting = isinstance(model.context, TransformerContext)
        size = size or (PIECE if lasting else SHORT_PIECE)
        starts = range(0, recordings[0].n_frames(self.hop), size)
        state = None
        for first in reversed(starts) if model.reverse else starts:
            waves, (lead, *_), (n, *_) = zip(
                *(r.piece(first, size, self.margin, self.hop) for r in recordings),
                strict=True,
            )
            waves = torch.from_numpy(np.stack(waves)).to(device)
            z = self.encode(waves[:, None])[:, lead : lead + n]
            if model.reverse:  # the future is read first
                c, state = model.context(z.flip(1), state)
                c = c.flip(1)
            else:
                c, state = model.context(z, state)
            if lasting:
                state = state[:, -LOOK_BACK:]
            yield first, z, c


def pitch_parts(model):
    """
    Return how z and c of a network, side by side, lie on the axis of pitch.

    Parameters
    ----------
    model : Network
        The network.

    Returns
    -------
    tuple of tuple of int
        Semitones, from A0 up, and features of each, of z and of c; empty unless both
        have one part for each of the 88 pitches.
    """
    on_axis = getattr(model.context, "groups", 1) == N_PITCHES
    if not (on_axis and isinstance(model.encoder, HarmonicStack)):
        return ()
    return tuple((N_PITCHES, dim // N_PITCHES) for dim in (model.z_dim, model.c_dim))
