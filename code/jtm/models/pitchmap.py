"""
Pitch maps: residual convolutions over pitch and time, with weights shared across pitch.

The default network. :class:`PitchMapEncoder` maps stacked harmonics to features of 88
pitches every 20 ms; :class:`PitchMapContext` summarises their past by dilated causal
convolutions, all frames at once. Heads take both through non-causal blocks; see
:mod:`jtm.models.heads`. Every convolution combines a pitch with two others, a
semitone, an octave or a twelfth away, and a frame with its neighbours; none depends on
the absolute pitch. Channels-last layout and plain 3 x 3 convolutions are fast on CPUs;
depthwise convolutions and loops over frames are not.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import HOP, MAP_STRIDE, N_PITCHES
from jtm.models.encoder import HARMONICS, NORMS, HarmonicStack, normed

# Dilations of the blocks, in semitones and in frames of 20 ms; the receptive field of
# the context is the last 0.56 s.
ENCODER = ((1, 1), (12, 1), (1, 1))
CONTEXT = ((1, 2), (12, 4), (1, 8))
RESIDUAL = 0.3  # initial scale of residual branches; deep stacks begin near identity


def to_maps(features):
    """
    Reshape pitch-major features to maps.

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
    """Invert :func:`to_maps`."""
    return maps.permute(0, 3, 2, 1).flatten(2)


class PitchBlock(nn.Module):
    """
    Apply a residual block: a dilated 3 x 3 convolution over pitch and time.

    Parameters
    ----------
    channels : int
        Number of input and output channels.
    dilation : tuple of int
        Dilation in semitones and in frames.
    causal : bool
        Whether the convolution covers only the present, and one and two dilations back.
    """

    def __init__(self, channels, dilation, causal=False):
        super().__init__()
        pitch, time = dilation
        self.n_past = 2 * time if causal else 0
        padding = pitch, 0 if causal else time
        self.conv = nn.Conv2d(channels, channels, 3, padding=padding, dilation=dilation)
        self.mix = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            self.mix.weight.mul_(RESIDUAL)

    def forward(self, maps, past=None):
        """
        Convolve maps ``(batch, channels, pitches, frames)``.

        If causal, `past` holds the `n_past` frames that precede them; zeros by default.
        """
        padded = maps
        if past is not None:
            padded = torch.cat((past, maps), dim=3)
        elif self.n_past:
            padded = functional.pad(maps, (self.n_past, 0))
        hidden = functional.relu(self.conv(padded), inplace=True)
        return maps + self.mix(hidden)


class PitchMapEncoder(HarmonicStack):
    """
    Encode a waveform as features of 88 pitches with a frame every 20 ms.

    z is local: its receptive field is 80 ms to either side, plus 64 ms of filters.

    Parameters
    ----------
    channels : int
        Learned features per pitch.
    norm : str
        Key in :data:`jtm.models.encoder.NORMS`.
    learned : bool
        Whether to learn the filters.
    kernel : int
        Filter length in samples.
    """

    def __init__(self, channels=32, norm="channelNorm", learned=False, kernel=2048):
        super().__init__(channels, MAP_STRIDE * HOP, kernel, learned)
        self.stem = nn.Conv2d(len(HARMONICS), channels, (5, 4), (2, MAP_STRIDE), (0, 1))
        self.norm_stem = NORMS[norm](channels)
        self.blocks = nn.Sequential(*(PitchBlock(channels, d) for d in ENCODER))
        self.norm = NORMS[norm](channels)

    def _convolve(self, stacks):
        maps = functional.relu(normed(self.norm_stem, self.stem(stacks)))
        return normed(self.norm, self.blocks(maps))


class PitchMapContext(nn.Module):
    """
    Summarise the past of a pitch map with causal convolutions, all frames at once.

    Parameters
    ----------
    z_dim : int
        Dimension of z.
    channels : int
        Number of features per pitch; c has ``88 * channels``, pitch-major.
    """

    groups = N_PITCHES
    """Number of groups of features in z and c, one per pitch."""

    def __init__(self, z_dim, channels=32):
        super().__init__()
        self.dim = N_PITCHES * channels
        self.project = nn.Conv2d(z_dim // N_PITCHES, channels, 1)
        self.blocks = nn.ModuleList(PitchBlock(channels, d, True) for d in CONTEXT)
        self.norm = nn.LayerNorm(channels)

    def forward(self, z, state=None):
        """
        Summarise latents ``(batch, frames, z_dim)`` to ``(batch, frames, dim)``.

        Return c and a state to pass on with the frames that follow: for each block
        its last input frames ``(frames, batch, dim)``. `state` is None at the start.
        """
        maps, states = self.project(to_maps(z)), []
        for number, block in enumerate(self.blocks):
            past = None if state is None else to_maps(state[number].transpose(0, 1))
            before = past
            if past is None:
                before = maps.new_zeros(*maps.shape[:3], block.n_past)
            last = torch.cat((before, maps), dim=3)[..., -block.n_past :]
            states.append(_to_features(last).transpose(0, 1))
            maps = block(maps, past)
        return _to_features(normed(self.norm, maps)), tuple(states)
