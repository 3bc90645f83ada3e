"""
Reading labels off z and c: a trunk that tasks share, and a linear reader of each.

The trunk gives features of each pitch and frame, whatever the network gives: from a
pitch map by blocks that share their weights across pitch (:class:`PitchTrunk`), from
anything else by convolutions over time (:class:`FlatTrunk`). Readers take such maps
``(batch, frames, 88, channels)`` and give logits.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import N_PITCHES
from jtm.models.pitchmap import PitchBlock, normed, to_maps

RARE = -4.0
"""Logit at the start of what is mostly false."""

TRUNK = ((1, 2), (19, 4))
"""Dilations, in semitones and in frames, of the blocks of a trunk."""

WIDTH = 32
"""Channels of a trunk on a pitch map, unless another width is asked for."""

AROUND = 128
"""Frames on either side that :class:`Surroundings` averages: 2.56 s of 20 ms each."""


class PitchTrunk(nn.Module):
    """
    Join z and c for reading labels off them, with some of what follows heard.

    Parameters
    ----------
    sizes : tuple of int
        Sizes of z, or of z and of c.
    channels : int
        Features of each pitch.
    around : bool
        Hear what sounds in the seconds around; see :class:`Surroundings`.

    Attributes
    ----------
    reach : int
        Frames on either side that a frame of the trunk hears.
    """

    def __init__(self, sizes, channels=WIDTH, around=False):
        super().__init__()
        self.sizes = list(sizes)
        self.channels = channels
        self.join = nn.Conv2d(sum(sizes) // N_PITCHES, channels, 1)
        self.blocks = nn.Sequential(*(PitchBlock(channels, d) for d in TRUNK))
        self.around = Surroundings(channels) if around else nn.Identity()
        self.norm = nn.LayerNorm(channels)
        self.reach = sum(frames for _, frames in TRUNK) + around * AROUND

    def forward(self, features):
        """Join z and c, side by side, as ``(batch, frames, 88, channels)``."""
        parts = features.split(self.sizes, dim=2)
        maps = self.join(torch.cat([to_maps(part) for part in parts], dim=1))
        first, *others = self.blocks
        maps = self.around(first(maps))
        for block in others:
            maps = block(maps)
        return normed(self.norm, maps).permute(0, 3, 2, 1)


class Surroundings(nn.Module):
    """
    Tell each pitch what sounds in the seconds around it, averaged over pitch and time.

    Who plays is the same for a whole piece, and heard better in many notes than in one
    (after squeeze and excitation, Hu et al. 2018, with a window that moves).

    Parameters
    ----------
    channels : int
        Channels in and out.
    """

    def __init__(self, channels):
        super().__init__()
        self.squeeze = nn.Conv1d(2 * channels, channels, 1)
        self.tell = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, maps):
        """Add to maps ``(batch, channels, pitches, frames)``; at an end, of fewer."""
        found = functional.relu(
            self.squeeze(torch.cat((maps.mean(2), maps.amax(2)), 1))
        )
        mean = functional.avg_pool1d(
            found, 2 * AROUND + 1, 1, AROUND, count_include_pad=False
        )
        return maps + self.tell(mean)[:, :, None]


class FlatTrunk(nn.Module):
    """
    Make a pitch map of features that have no pitch axis, such as spectra.

    Parameters
    ----------
    dim : int
        Size of the features.
    hidden, kernel : int
        Channels inside, and frames that the first convolution hears.
    channels : int
        Features of each pitch.
    """

    def __init__(self, dim, hidden=256, kernel=9, channels=8):
        super().__init__()
        self.channels, self.reach = channels, kernel // 2
        self.layers = nn.Sequential(
            nn.BatchNorm1d(dim),
            nn.Conv1d(dim, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(hidden, N_PITCHES * channels, 1),
        )

    def forward(self, features):
        """Lay features ``(..., dim)`` out as ``(batch, frames, 88, channels)``."""
        maps = self.layers(features.transpose(1, 2)).transpose(1, 2)
        return maps.unflatten(2, (N_PITCHES, self.channels))


class Heads(nn.Module):
    """
    A trunk that tasks share and, for each of them, a linear layer that reads it.

    Parameters
    ----------
    trunk : nn.Module
        Gives ``(batch, frames, 88, channels)`` from features, and has ``channels``.
    tasks : dict of str to tuple
        By name, what is read: one of :data:`READERS` and the number of classes.
    stride : int
        Frames of 10 ms in a frame that the trunk reads.
    """

    def __init__(self, trunk, tasks, stride=1):
        super().__init__()
        self.trunk = trunk
        self.stride = stride
        self.readers = nn.ModuleDict(
            {t: READERS[k](trunk.channels, n, stride) for t, (k, n) in tasks.items()}
        )

    def forward(self, features):
        """Read logits by task, in float32, off features ``(batch, frames, dim)``."""
        maps = self.trunk(features)
        return {name: reader(maps).float() for name, reader in self.readers.items()}


class _MapReader(nn.Module):
    """
    Read rows of each pitch, such as what sounds and what starts, every 10 ms.

    Of rows several may be true; a frame that is read has `stride` frames of 10 ms.
    """

    def __init__(self, channels, n_rows, stride=1):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(channels, n_rows * stride)
        self.own = nn.Parameter(torch.zeros(n_rows, N_PITCHES))
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, RARE)

    def forward(self, maps):
        """Read ``(batch, stride * frames, n_rows, 88)`` off maps."""
        logits = self.linear(maps).unflatten(3, (-1, self.stride))
        return logits.permute(0, 1, 4, 3, 2).flatten(1, 2) + self.own


class _FrameReader(nn.Module):
    """Read classes, of which several may be true, off mean and maximum over pitch."""

    def __init__(self, channels, n_classes, stride=1):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(2 * channels, n_classes * stride)
        nn.init.constant_(self.linear.bias, -2.0)

    def forward(self, maps):
        """Read ``(batch, stride * frames, n_classes)`` off maps."""
        logits = self.linear(_over_pitch(maps)).unflatten(2, (self.stride, -1))
        return logits.flatten(1, 2)


class _WindowReader(nn.Module):
    """Read the class of a window off means and deviations over its frames."""

    def __init__(self, channels, n_classes, stride=1):
        super().__init__()
        self.linear = nn.Linear(4 * channels, n_classes)

    def forward(self, maps):
        """Read ``(batch, n_classes)`` off maps."""
        frames = _over_pitch(maps).float()
        return self.linear(torch.cat((frames.mean(1), frames.std(1)), dim=1))


class _PitchReader(nn.Module):
    """Read which pitch a window holds off means and deviations over its frames."""

    def __init__(self, channels, n_classes=N_PITCHES, stride=1):
        super().__init__()
        self.linear = nn.Linear(2 * channels, 1)
        self.own = nn.Parameter(torch.zeros(n_classes))

    def forward(self, maps):
        """Read ``(batch, 88)`` off maps."""
        maps = maps.float()
        pooled = torch.cat((maps.mean(1), maps.std(1)), dim=2)
        return self.linear(pooled)[..., 0] + self.own


def _over_pitch(maps):
    """Pool maps over pitch: means, then maxima ``(batch, frames, 2 * channels)``."""
    return torch.cat((maps.mean(2), maps.amax(2)), dim=2)


READERS = {
    "map": _MapReader,
    "frames": _FrameReader,
    "windows": _WindowReader,
    "pitch": _PitchReader,
}
"""Kinds of readers by what they tell."""
