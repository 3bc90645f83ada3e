"""
Streaming inference: frozen networks over long recordings in bounded memory.

A recording is processed in chunks. Frame ``i`` is centred on the middle of samples
``[hop * i, hop * (i + 1))``, where `hop` is the encoder's. A chunk is read with a
margin on both sides that covers the encoder's receptive field; the context network's
state is carried from chunk to chunk. The result equals that of the whole recording at
once, with two exceptions: a transformer attends to no more than :data:`LOOK_BACK`
frames before its chunk, and counts absolute positions from the first of them; and a
norm over time (instance norm) uses statistics of its chunk alone.
"""

import numpy as np
import torch

from jtm.models.context import TransformerContext

CHUNK = 2048
"""Frames per chunk; like :data:`SHORT_CHUNK` a whole number of windows of 1.28 s."""

SHORT_CHUNK = 256
"""Frames per chunk for networks other than transformers: activations fit the cache."""

LOOK_BACK = 1024
"""Number of frames before its chunk that a transformer attends to."""


class Audio:
    """
    The samples of one recording, read in chunks with margins.

    Parameters
    ----------
    read : callable
        Returns samples ``[start, stop)`` at 16 kHz, int16 or float32.
    length : int
        Number of samples.
    n_samples : int, optional
        Number of samples from the start to compute frames for; all by default.
    scale : float
        Factor applied to the samples; by default it scales int16 to [-1, 1].
    """

    def __init__(self, read, length, n_samples=None, scale=1 / 32768):
        self.read, self.length, self.scale = read, int(length), scale
        n_samples = length if n_samples is None else n_samples
        self.n_samples = min(int(n_samples), self.length)

    @classmethod
    def of(cls, wave):
        """Wrap an array of int16 samples ``(samples,)`` at 16 kHz."""
        return cls(lambda start, stop: wave[start:stop], len(wave))

    def n_frames(self, hop):
        """Return the number of complete frames to compute."""
        return self.n_samples // hop

    def chunk(self, first, size, margin, hop):
        """
        Read a chunk of at most `size` frames, with `margin` frames on either side.

        Return samples ``(samples,)`` in [-1, 1], float32, the number of margin frames
        before the chunk, and the number of frames in the chunk.
        """
        lead = min(first, margin)
        n_frames = min(self.n_frames(hop) - first, size)
        stop = min((first + n_frames + margin) * hop, self.length)
        wave = self.read((first - lead) * hop, stop)
        return wave.astype(np.float32) * np.float32(self.scale), lead, n_frames


class NetworkSource:
    """
    Compute latents z and contexts c with a frozen network.

    Parameters
    ----------
    model : Network
        The network; it is put into evaluation mode. Its encoder has an attribute
        ``hop``, and optionally ``reach``, its receptive field in frames on either side
        of a frame.
    """

    layers = ("z", "c")

    def __init__(self, model):
        self.model = model.eval()
        self.hop = model.encoder.hop
        self.margin = getattr(model.encoder, "reach", 16)

    def stream(self, recording):
        """
        Compute z and c ``(frames, dim)``, float32, chunk by chunk.

        Yield the first frame of each chunk, z and c; chunks may come in any order.
        """
        for first, *layers in self.tensors(recording):
            yield first, *(layer[0].float().cpu().numpy() for layer in layers)

    def whole(self, recording):
        """Compute z and c ``(frames, dim)`` of a recording, float32, by name."""
        chunks = sorted(self.stream(recording), key=lambda chunk: chunk[0])
        _, *layers = zip(*chunks, strict=True)
        return dict(zip(self.layers, map(np.concatenate, layers), strict=True))

    def encode(self, waves):
        """Compute z of a chunk with its margins ``(1, 1, samples)``."""
        return self.model.encoder(waves)

    @torch.no_grad()
    def tensors(self, recording, size=None):
        """
        Yield each chunk's first frame, z and c ``(1, frames, dim)``, on the device.

        Chunks have `size` frames; by default the fastest size for the network.
        """
        model = self.model
        device = next(model.parameters()).device
        # For each chunk, a transformer recomputes the frames before it in its context.
        is_transformer = isinstance(model.context, TransformerContext)
        size = size or (CHUNK if is_transformer else SHORT_CHUNK)
        starts = range(0, recording.n_frames(self.hop), size)
        state = None
        for first in reversed(starts) if model.reverse else starts:
            wave, lead, n = recording.chunk(first, size, self.margin, self.hop)
            wave = torch.from_numpy(wave).to(device)
            z = self.encode(wave[None, None])[:, lead : lead + n]
            c, state = model.context(z.flip(1) if model.reverse else z, state)
            if model.reverse:  # the future comes first
                c = c.flip(1)
            if is_transformer:
                state = state[:, -LOOK_BACK:]
            yield first, z, c
