"""
Maps of pitch and time: residual convolutions, the weights shared across pitch.

The default network. Stacked harmonics become a map of 88 pitches every 20 ms
(:class:`PitchMapEncoder`); dilated causal convolutions summarise its past
(:class:`PitchMapContext`), all frames at once. Labels are read off both by blocks that
look either way; see :mod:`jtm.models.readers`. Every convolution mixes a pitch with
two others, a semitone, an octave or a twelfth away, and a frame with its neighbours;
none knows which pitch it is at. Channels last and plain 3 x 3 convolutions are what
processors are fast at: depthwise ones and loops over frames are not.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import HOP, MAP_STRIDE, N_PITCHES
from jtm.models.encoder import HARMONICS, NORMS, HarmonicStack

ENCODER = ((1, 1), (12, 1), (1, 1))
"""Dilations, in semitones and in frames of 20 ms, of the encoder's blocks."""

CONTEXT = ((1, 2), (12, 4), (1, 8))
"""Dilations of the context's blocks, which together hear 0.56 s of the past."""

RESIDUAL = 0.3
"""Scale of what a block adds at the start, so that deep stacks begin near identity."""


def normed(norm, maps):
    """
    Normalise maps ``(batch, channels, pitches, frames)`` over their channels.

    Parameters
    ----------
    norm : nn.Module
        Takes ``(..., channels)``.
    maps : torch.Tensor
        The maps.

    Returns
    -------
    torch.Tensor
        Same shape, channels last in memory.
    """
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def to_maps(features):
    """
    Lay pitch-major features out as maps.

    Parameters
    ----------
    features : torch.Tensor
        Features ``(batch, frames, 88 * channels)``.

    Returns
    -------
    torch.Tensor
        Maps ``(batch, channels, 88, frames)``, channels last in memory.
    """
    maps = features.unflatten(2, (N_PITCHES, -1)).permute(0, 3, 2, 1)
    return maps.contiguous(memory_format=torch.channels_last)


def _to_features(maps):
    """Undo :func:`to_maps`."""
    return maps.permute(0, 3, 2, 1).flatten(2)


class PitchBlock(nn.Module):
    """
    Add to each pitch and frame what a dilated 3 x 3 convolution finds around it.

    Parameters
    ----------
    channels : int
        Channels in and out.
    dilation : tuple of int
        Distance of the neighbours in semitones and in frames.
    causal : bool
        Look at past frames alone, at one and two dilations back.
    """

    def __init__(self, channels, dilation, causal=False):
        super().__init__()
        pitch, time = dilation
        self.before = 2 * time if causal else 0
        self.conv = nn.Conv2d(
            channels,
            channels,
            3,
            padding=(pitch, 0 if causal else time),
            dilation=dilation,
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            self.mix.weight.mul_(RESIDUAL)

    def forward(self, maps, past=None):
        """
        Convolve maps ``(batch, channels, pitches, frames)``.

        Where it is causal, `past` holds the last `before` frames before these; silence
        by default.
        """
        heard = maps
        if past is not None:
            heard = torch.cat((past, maps), dim=3)
        elif self.before:
            heard = functional.pad(maps, (self.before, 0))
        found = functional.relu(self.conv(heard), inplace=True)
        return maps + self.mix(found)


class PitchMapEncoder(HarmonicStack):
    """
    Encode onto a map of 88 pitches with a frame every 20 ms.

    z is local: besides the 64 ms on either side that the filters reach, it hears
    80 ms. Behind the learned features of a pitch stand the log magnitudes of its own
    two bins, the louder of two frames.

    Parameters
    ----------
    channels : int
        Learned features of each pitch; z has ``88 * (channels + 2)``, pitch-major.
    norm : str
        One of :data:`jtm.models.encoder.NORMS`.
    learned : bool
        Learn the filters, as SincNet does (Ravanelli and Bengio 2018): centres and
        widths of quadrature pairs that start two a semitone.
    kernel : int
        Taps of each filter.
    """

    def __init__(self, channels=32, norm="channelNorm", learned=False, kernel=2048):
        super().__init__(kernel, learned)
        self.dim = N_PITCHES * (channels + self.passed)
        self.hop = MAP_STRIDE * HOP
        self.stem = nn.Conv2d(len(HARMONICS), channels, (5, 4), (2, MAP_STRIDE), (0, 1))
        self.norm_stem = NORMS[norm](channels)
        self.blocks = nn.Sequential(*(PitchBlock(channels, d) for d in ENCODER))
        self.norm = NORMS[norm](channels)

    def encode(self, magnitudes):
        """Encode log magnitudes ``(batch, 2 * frames, bins)``, maybe kept ones."""
        maps = self.stem(self.stack_harmonics(magnitudes))
        maps = functional.relu(normed(self.norm_stem, maps))
        maps = normed(self.norm, self.blocks(maps))
        own = magnitudes[..., self.first :][..., : N_PITCHES * self.passed]
        own = own.unflatten(1, (-1, MAP_STRIDE)).amax(2).unflatten(2, (N_PITCHES, -1))
        z = torch.cat((maps.permute(0, 3, 2, 1), own.to(maps.dtype)), dim=3)
        return z.flatten(2)  # (batch, frames, 88 * (channels + 2))


class PitchMapContext(nn.Module):
    """
    Summarise the past of a pitch map, all frames at once.

    Parameters
    ----------
    z_dim : int
        Size of z.
    channels : int
        Features of each pitch; c has ``88 * channels``, pitch-major.
    """

    groups = N_PITCHES
    """Parts of z and c that belong to each other."""

    def __init__(self, z_dim, channels=32):
        super().__init__()
        self.dim = N_PITCHES * channels
        self.project = nn.Conv2d(z_dim // N_PITCHES, channels, 1)
        self.blocks = nn.ModuleList(PitchBlock(channels, d, True) for d in CONTEXT)
        self.norm = nn.LayerNorm(channels)

    def forward(self, z, state=None):
        """
        Summarise latents ``(batch, frames, z_dim)`` to ``(batch, frames, dim)``.

        Give back, and take for the frames that follow, a state: of each block the last
        frames that it heard ``(frames, batch, dim)``; None at the start.
        """
        maps = self.project(to_maps(z))
        past = [None] * len(self.blocks)
        if state is not None:
            past = [to_maps(part.transpose(0, 1)) for part in state]
        states = []
        for block, before in zip(self.blocks, past, strict=True):
            states.append(_last(maps, before, block.before))
            maps = block(maps, before)
        c = _to_features(normed(self.norm, maps))
        return c, tuple(_to_features(part).transpose(0, 1) for part in states)


def _last(maps, before, frames):
    """Return the last frames of maps that went before and of these, or silence."""
    if before is None:
        before = maps.new_zeros(*maps.shape[:3], frames)
    return torch.cat((before, maps), dim=3)[..., -frames:]
