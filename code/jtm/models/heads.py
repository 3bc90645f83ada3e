"""
Heads for predicting labels from z and c: a shared trunk, and a linear reader per task.

The trunk computes features of each pitch and frame: from features on a pitch axis by
blocks that share their weights across pitch (:class:`PitchTrunk`), from any others by
convolutions over time. Each reader maps these features ``(batch, frames, 88,
channels)`` to the logits of its task.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import HOP, N_PITCHES
from jtm.models.encoder import HarmonicStack, normed
from jtm.models.pitchmap import PitchBlock, to_maps

RARE = -4.0  # initial bias of logits whose targets are mostly false
TRUNK = ((1, 2), (19, 4))  # dilations of the blocks, in semitones and in frames
WIDTH = 32  # default number of channels of a trunk on the pitch axis
AROUND = 128  # frames of 20 ms on either side for features of the surroundings


class PitchTrunk(nn.Module):
    """
    Combine z and c on the pitch axis, with a receptive field that includes the future.

    Parameters
    ----------
    sizes : tuple of int
        Dimension of z, or of z and of c.
    channels : int
        Number of features per pitch.
    around : bool
        Whether to add features averaged over :data:`AROUND` frames on either side.

    Attributes
    ----------
    reaches : tuple of int
        Receptive fields in frames on either side: of :meth:`begin`, and of
        :meth:`finish` in each of its inputs.
    """

    def __init__(self, sizes, channels=WIDTH, around=False):
        super().__init__()
        self.sizes = list(sizes)
        self.channels = channels
        self.join = nn.Conv2d(sum(sizes) // N_PITCHES, channels, 1)
        self.blocks = nn.Sequential(*(PitchBlock(channels, d) for d in TRUNK))
        self.around = _Surroundings(channels) if around else None
        self.norm = nn.LayerNorm(channels)
        (_, first), (_, second) = TRUNK
        self.reaches = (first, second, second + AROUND)[: 2 + around]

    def forward(self, features):
        """Map concatenated z and c to features ``(batch, frames, 88, channels)``."""
        return self.finish(*self.begin(*features.split(self.sizes, dim=2)))

    def begin(self, *inputs):
        """
        Map z and c to maps ``(batch, channels, 88, frames)``.

        With surroundings, also return a summary of them ``(batch, channels, frames)``.
        """
        maps = self.join(torch.cat([to_maps(x) for x in inputs], dim=1))
        maps = self.blocks[0](maps)
        return (maps, self.around.summarise(maps)) if self.around else (maps,)

    def finish(self, maps, summary=None, lead=0):
        """
        Map the results of :meth:`begin` to features ``(batch, frames, 88, channels)``.

        The summary begins `lead` frames before the maps.
        """
        if self.around:
            maps = self.around(maps, summary, lead)
        maps = self.blocks[1](maps)
        return normed(self.norm, maps).permute(0, 3, 2, 1)


class _Surroundings(nn.Module):
    """
    Add features averaged over pitch and a moving window of some seconds to every pitch.

    Instruments rarely change within a piece, and are identified better from many notes
    than from one (after squeeze-and-excitation, Hu et al. 2018).
    """

    def __init__(self, channels):
        super().__init__()
        self.squeeze = nn.Conv1d(2 * channels, channels, 1)
        self.tell = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def summarise(self, maps):
        """Pool maps ``(batch, channels, pitches, frames)`` over all pitches."""
        kernel = maps.shape[2], 1
        pools = functional.avg_pool2d, functional.max_pool2d  # fast, channels last
        pooled = torch.cat([pool(maps, kernel)[:, :, 0] for pool in pools], 1)
        return functional.relu(self.squeeze(pooled))

    def forward(self, maps, summary, lead):
        """Add averages of the summary to maps, which begin `lead` frames after it."""
        averages = functional.avg_pool1d(
            summary, 2 * AROUND + 1, 1, AROUND, count_include_pad=False
        )
        update = self.tell(averages[..., lead : lead + maps.shape[3]])[:, :, None]
        return maps + update.contiguous(memory_format=torch.channels_last)


class _FlatTrunk(nn.Module):
    """
    Map features ``(..., dim)`` without a pitch axis, such as spectra, onto one.

    Its methods are those of :class:`PitchTrunk`.
    """

    def __init__(self, dim, hidden=256, channels=8):
        super().__init__()
        self.channels, reach = channels, 4
        self.reaches = 0, reach
        self.layers = nn.Sequential(
            nn.BatchNorm1d(dim),
            nn.Conv1d(dim, hidden, 2 * reach + 1, padding=reach),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(hidden, N_PITCHES * channels, 1),
        )

    def forward(self, features):
        """Map features to ``(batch, frames, 88, channels)``."""
        return self.finish(*self.begin(features))

    def begin(self, *inputs):
        """Concatenate inputs to features ``(batch, dim, frames)``."""
        return (torch.cat(inputs, dim=2).transpose(1, 2),)

    def finish(self, features):
        """Map the result of :meth:`begin` to ``(batch, frames, 88, channels)``."""
        maps = self.layers(features).transpose(1, 2)
        return maps.unflatten(2, (N_PITCHES, self.channels))


class _MapReader(nn.Module):
    """Predict multi-label rows of 88 pitches, such as onsets, every 10 ms."""

    def __init__(self, channels, n_rows, stride=1):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(channels, n_rows * stride)
        self.own = nn.Parameter(torch.zeros(n_rows, N_PITCHES))
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, RARE)

    def forward(self, maps):
        """Compute logits ``(batch, stride * frames, n_rows, 88)``."""
        logits = self.linear(maps).unflatten(3, (-1, self.stride))
        return logits.permute(0, 1, 4, 3, 2).flatten(1, 2) + self.own


class _FrameReader(nn.Module):
    """Predict multi-label classes of frames from mean and maximum over pitch."""

    def __init__(self, channels, n_classes, stride=1):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(2 * channels, n_classes * stride)
        nn.init.constant_(self.linear.bias, -2.0)

    def forward(self, maps):
        """Compute logits ``(batch, stride * frames, n_classes)``."""
        logits = self.linear(_over_pitch(maps))
        return logits.unflatten(2, (self.stride, -1)).flatten(1, 2)


class _WindowReader(nn.Module):
    """Predict the class of a window from means and standard deviations over time."""

    def __init__(self, channels, n_classes, stride=1):
        super().__init__()
        self.linear = nn.Linear(4 * channels, n_classes)

    def forward(self, maps):
        """Compute logits ``(batch, n_classes)``."""
        return self.linear(_over_time(_over_pitch(maps)))


class _PitchReader(nn.Module):
    """Predict the pitch of a window from means and standard deviations over time."""

    def __init__(self, channels, n_classes, stride=1):
        super().__init__()
        self.linear = nn.Linear(2 * channels, 1)
        self.own = nn.Parameter(torch.zeros(n_classes))

    def forward(self, maps):
        """Compute logits ``(batch, 88)``."""
        return self.linear(_over_time(maps))[..., 0] + self.own


def _over_pitch(maps):
    """Pool over pitch: mean, then maximum ``(batch, frames, 2 * channels)``."""
    return torch.cat((maps.mean(2), maps.amax(2)), dim=2)


def _over_time(features):
    """Pool over time, in float32: mean, then standard deviation ``(batch, ...)``."""
    features = features.float()
    return torch.cat((features.mean(1), features.std(1)), dim=-1)


READERS = {
    "map": _MapReader,
    "frames": _FrameReader,
    "windows": _WindowReader,
    "pitch": _PitchReader,
}
"""Readers by the kind of target that they predict."""


class _Heads(nn.Module):
    """
    Combine a trunk, such as :class:`PitchTrunk`, with a linear reader for each task.

    `tasks` are as in :func:`add_heads`; a trunk's frame has `stride` frames of 10 ms.
    """

    def __init__(self, trunk, tasks, stride=1):
        super().__init__()
        self.trunk = trunk
        self.stride = stride
        self.readers = nn.ModuleDict(
            {t: READERS[k](trunk.channels, n, stride) for t, (k, n) in tasks.items()}
        )

    def forward(self, features):
        """Compute float32 logits by task from features ``(batch, frames, dim)``."""
        return self.read(self.trunk(features))

    def read(self, maps):
        """Compute the same from features ``(batch, frames, 88, channels)``."""
        return {name: reader(maps).float() for name, reader in self.readers.items()}


class NetworkWithHeads(nn.Module):
    """
    Combine a body with task heads.

    Parameters
    ----------
    body : nn.Module
        Maps log magnitudes or waveforms to features; see :class:`Body`.
    heads : nn.Module
        Maps features to logits by task.
    """

    def __init__(self, body, heads):
        super().__init__()
        self.body = body
        self.heads = heads

    def forward(self, inputs, edge=0):
        """
        Compute logits by task; see :meth:`Body.encode` for the inputs.

        Frame-wise logits are ``(batch, frames of 10 ms, ...)``, without `edge` frames
        on each side that are input only; logits of windows are ``(batch, classes)``.
        """
        logits = self.heads(self.body(inputs))
        inside = slice(edge, -edge or None)
        return {t: x[:, inside] if x.ndim > 2 else x for t, x in logits.items()}


class Body(nn.Module):
    """
    Compute the features that heads take: z, or z and c concatenated.

    Parameters
    ----------
    model : jtm.models.network.Network
        The network.
    on_encoder : bool
        Whether to return z alone.
    """

    def __init__(self, model, on_encoder=False):
        super().__init__()
        self.model = model
        self.on_encoder = on_encoder

    def encode(self, inputs):
        """
        Compute latents ``(batch, frames, z_dim)``.

        Inputs are waveforms ``(batch, 1, samples)``, or log magnitudes ``(batch, frames
        of 10 ms, bins)``.
        """
        encoder = self.model.encoder
        return encoder(inputs) if inputs.shape[1] == 1 else encoder.encode(inputs)

    def forward(self, inputs):
        """Compute features ``(batch, frames, dim)`` of the inputs of :meth:`encode`."""
        z = self.encode(inputs)
        return z if self.on_encoder else torch.cat((z, self.model.summarise(z)), dim=2)


def add_heads(model, tasks, seed=0, on_encoder=False, width=WIDTH, around=False):
    """
    Add untrained task heads to a network.

    Parameters
    ----------
    model : jtm.models.network.Network or int
        The network; or the number of bins of hand-crafted features, taken as they are.
    tasks : dict of str to tuple
        Key in :data:`READERS` and number of classes, by task.
    seed : int
        Random seed of the heads' initial weights.
    on_encoder : bool
        Whether the heads take z alone.
    width : int
        Number of channels of a :class:`PitchTrunk`.
    around : bool
        Whether such a trunk adds features averaged over its surroundings.

    Returns
    -------
    NetworkWithHeads
        Body and heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, int):
            heads = _Heads(_FlatTrunk(model), tasks)
            return NetworkWithHeads(nn.Identity(), heads)
        sizes = (model.z_dim,) if on_encoder else (model.z_dim, model.c_dim)
        on_axis = isinstance(model.encoder, HarmonicStack)
        on_axis &= on_encoder or getattr(model.context, "groups", 1) == N_PITCHES
        trunk = PitchTrunk(sizes, width, around) if on_axis else _FlatTrunk(sum(sizes))
        heads = _Heads(trunk, tasks, model.encoder.hop // HOP)
        return NetworkWithHeads(Body(model, on_encoder), heads)
