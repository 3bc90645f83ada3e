"""
Encoders: waveform ``(batch, 1, samples)`` to latents z ``(batch, frames, dim)``.

Each encoder derives its hop from its strides and returns one latent per
complete hop of the input, whatever its length. Frame ``i`` is centred on the
middle of its hop, so that z, c and the labels share one frame grid.

The encoders, by increasing inductive bias: a plain stack of convolutions
(none), band-pass filters with learned cut-offs (sound has a spectrum), and stacked
harmonics on a pitch axis (transposing a note only shifts its representation).
"""

import abc
import math

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import HOP, N_PITCHES, PITCH_MAX, PITCH_MIN, SAMPLE_RATE

# The CPC encoder (van den Oord et al. 2018, section 3.1), and the zero padding on
# either side of each layer with which frames = samples // hop.
KERNELS = (10, 8, 4, 4, 4)
STRIDES = (5, 4, 2, 2, 2)  # their product is the hop
PADDINGS = (3, 2, 1, 1, 1)

# From a pitch to its sub-octave and harmonics 1 to 8, in semitones.
HARMONICS = (-12.0, 0.0, 12.0, 19.02, 24.0, 27.86, 31.02, 33.69, 36.0)


class _AcrossFrames(nn.Module):
    """Apply a channels-first norm to channels-last activations."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        """Normalise activations ``(batch, ..., channels)``."""
        y = self.norm(x.flatten(1, -2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)


NORMS = {
    # Over the channels of each frame (Riviere et al. 2020, section 3.1), so that no
    # statistics of other frames or recordings leak into a latent.
    "channelNorm": nn.LayerNorm,
    "batchNorm": lambda channels: _AcrossFrames(nn.BatchNorm1d(channels)),
    "instanceNorm": lambda channels: _AcrossFrames(
        nn.InstanceNorm1d(channels, affine=True)
    ),
    "none": lambda channels: nn.Identity(),
}
"""Layers for ``(batch, ..., channels)``, by their names for ``--normMode``."""


def normed(norm, maps):
    """
    Normalise maps ``(batch, channels, pitches, frames)`` over their channels.

    Parameters
    ----------
    norm : nn.Module
        Layer for ``(..., channels)``.
    maps : torch.Tensor
        The maps.

    Returns
    -------
    torch.Tensor
        Normalised maps of the same shape, channels last in memory.
    """
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _FrameConv(nn.Conv1d):
    """
    Convolve channels-last activations over time, as one matrix product.

    On a CPU this takes half the time of a channels-first convolution.
    """

    def forward(self, x):
        """Convolve activations ``(batch, frames, channels)``."""
        (kernel,), (stride,), (padding,) = self.kernel_size, self.stride, self.padding
        x = functional.pad(x, (0, 0, padding, padding))
        x = x.unfold(1, kernel, stride).transpose(2, 3)  # (batch, frames, kernel, in)
        weight = self.weight.transpose(1, 2).flatten(1)  # (out, kernel * in)
        return functional.linear(x.flatten(2), weight, self.bias)


class ConvEncoder(nn.Module):
    """
    Encode with the convolutional encoder of CPC (van den Oord et al. 2018).

    Parameters
    ----------
    dim : int
        Number of channels of every layer and of z.
    norm : str
        Key in :data:`NORMS`.
    """

    def __init__(self, dim=512, norm="channelNorm"):
        super().__init__()
        self.dim = dim
        self.hop = math.prod(STRIDES)
        self.layers = _stack(1, dim, norm)

    def forward(self, wave):
        """Encode ``(batch, 1, samples)`` as z ``(batch, samples // hop, dim)``."""
        z = self.layers(wave.transpose(1, 2))  # (batch, frames, dim)
        return z[:, : wave.shape[-1] // self.hop]


def _stack(channels, dim, norm, first=0):
    """Build the layers of the CPC encoder from number `first` on."""
    layers = []
    for shape in [*zip(KERNELS, STRIDES, PADDINGS, strict=True)][first:]:
        conv = _FrameConv(channels, dim, *shape)
        layers += [conv, NORMS[norm](dim), nn.ReLU(inplace=True)]
        channels = dim
    return nn.Sequential(*layers)


class _SincFilters(nn.Module):
    """
    Filter with a bank of band-passes of learned centre and width.

    Each filter is the windowed sinc band-pass of SincNet (Ravanelli and Bengio 2018,
    equation 4), written as a low-pass of the band's width shifted to the band's centre.
    It has two parameters, the centre as a MIDI pitch and the width in semitones, both
    clamped. Initial centres, from `low` to `high`, are evenly spaced in pitch or in
    mel. As a quadrature pair of cosine and sine, a filter yields a log magnitude that
    is invariant to the phase of the waveform; otherwise, the filtered waveform. To
    resolve two sines ``df`` Hz apart takes a kernel of about ``16000 / df`` samples.
    """

    def __init__(
        self,
        n_filters,
        kernel,
        stride,
        spacing="semitone",
        quadrature=True,
        learned=True,
        low=float(PITCH_MIN),
        high=119.0,
    ):
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.quadrature = quadrature
        if spacing == "semitone":
            centre = torch.linspace(low, high, n_filters)
        else:
            mels = torch.linspace(_mel(low), _mel(high), n_filters)
            centre = 69 + 12 * torch.log2(700 * (10 ** (mels / 2595) - 1) / 440)
        width = torch.diff(centre, append=(2 * centre[-1] - centre[-2])[None])
        tensor = nn.Parameter if learned else nn.Buffer
        self.centre, self.width = tensor(centre), tensor(width)
        time = (torch.arange(kernel) - (kernel - 1) / 2) / SAMPLE_RATE
        self.time = nn.Buffer(time, persistent=False)
        window = torch.hamming_window(kernel, periodic=False)
        self.window = nn.Buffer(window, persistent=False)

    def bands(self, tuning=0.0):
        """
        Compute centres and widths in Hz ``(filters,)``, raised by `tuning` semitones.

        Centres are clamped between a semitone below the piano and the Nyquist
        frequency, widths to no less than the window can resolve.
        """
        top = 69 + 12 * math.log2(SAMPLE_RATE / 2 / 440)
        centre = (self.centre + tuning).clamp(PITCH_MIN - 1, top)
        centre = 440 * 2 ** ((centre - 69) / 12)
        width = centre * (2 ** (self.width.abs() / 24) - 2 ** (-self.width.abs() / 24))
        width = width.clamp(min=SAMPLE_RATE / self.kernel)
        return centre, torch.minimum(width, 2 * centre)

    def kernels(self, tuning=0.0):
        """
        Compute impulse responses of unit energy, raised by `tuning` semitones.

        Return taps ``(filters, kernel)``, or for quadrature pairs ``(2 * filters,
        kernel)``, all cosines followed by all sines.
        """
        centre, width = self.bands(tuning)
        envelope = torch.sinc(width[:, None] * self.time) * self.window
        envelope = envelope / envelope.norm(dim=1, keepdim=True)
        phase = 2 * math.pi * centre[:, None] * self.time
        cosines = envelope * torch.cos(phase)
        if not self.quadrature:
            return cosines
        return torch.cat((cosines, envelope * torch.sin(phase)))

    def forward(self, wave, tuning=0.0):
        """Filter waveforms ``(batch, 1, samples)`` to ``(batch, frames, filters)``."""
        wave = wave[..., : wave.shape[-1] // self.stride * self.stride]
        # Each output is centred on the middle of its stride.
        before = (self.kernel - self.stride) // 2
        after = self.kernel - self.stride - before
        frames = functional.pad(wave[:, 0], (before, after))
        # On a CPU, several times faster than a convolution with long kernels.
        frames = frames.unfold(1, self.kernel, self.stride)  # (batch, frames, kernel)
        y = frames @ self.kernels(tuning).T
        return log_magnitude(*y.float().chunk(2, dim=2)) if self.quadrature else y


def log_magnitude(real, imaginary):
    """
    Compute log magnitudes of quadrature outputs, scaled to a range of about 0 to 1.

    Parameters
    ----------
    real, imaginary : torch.Tensor
        Outputs of a quadrature pair, of the same shape.

    Returns
    -------
    torch.Tensor
        Log power relative to a floor 75 dB below a full-scale sine in a narrow filter
        of 2048 samples; 0 for silence.
    """
    return torch.log1p((real.square() + imaginary.square()) * 1e5) / 18.0


def _reach(kernel, hop):
    """Return the frames on either side that a frame depends on, at least 16."""
    return max(16, -(-kernel // (2 * hop)) + 8)  # up to 8 for the layers above


def _mel(pitch):
    """Convert a MIDI pitch to mel (O'Shaughnessy 1987)."""
    return 2595 * math.log10(1 + 440 * 2 ** ((pitch - 69) / 12) / 700)


class SincEncoder(nn.Module):
    """
    Encode with learned band-pass filters, then convolutions.

    As in the original project, the filters can replace the first layer of the CPC
    encoder and output filtered waveforms. As quadrature pairs, they stride by the full
    hop and output magnitudes without phase; two short convolutions over time follow.

    Parameters
    ----------
    dim : int
        Number of filters, and of channels of every layer and of z.
    norm : str
        Key in :data:`NORMS`.
    quadrature : bool
        Whether to take log magnitudes of quadrature pairs, not filtered waveforms.
    kernel : int
        Filter length in samples.
    spacing : {"semitone", "mel"}
        Initial spacing of the filters' centres: even in pitch or even in mel.
    """

    def __init__(
        self, dim, norm="channelNorm", quadrature=True, kernel=2048, spacing="semitone"
    ):
        super().__init__()
        self.dim = dim
        self.hop = math.prod(STRIDES)
        self.reach = _reach(kernel, self.hop)
        stride = self.hop if quadrature else STRIDES[0]
        self.filters = _SincFilters(dim, kernel, stride, spacing, quadrature)
        layers = [NORMS[norm](dim), nn.ReLU(inplace=True)]
        if quadrature:
            layers.insert(0, _FrameConv(dim, dim, 3, padding=1))
            layers.append(_FrameConv(dim, dim, 1))
        else:
            layers.append(_stack(dim, dim, norm, first=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, wave):
        """Encode ``(batch, 1, samples)`` as z ``(batch, samples // hop, dim)``."""
        z = self.layers(self.filters(wave))  # (batch, frames, dim)
        return z[:, : wave.shape[-1] // self.hop]


class HarmonicStack(nn.Module, abc.ABC):
    """
    Stack the harmonics of each pitch (Bittner et al. 2017) on a log-frequency axis.

    Quadrature band-passes, two per semitone from a semitone below the piano to the
    Nyquist frequency, yield phase-invariant magnitudes. Each bin is stacked with the
    bins of its harmonics, so that transposing a note only shifts its stack. A subclass
    maps the stacks to learned features of 88 pitches, which z holds in pitch-major
    order; those of a pitch are followed by the log magnitudes of its own two bins, the
    maximum of the 10 ms frames of a hop.

    Parameters
    ----------
    channels : int
        Learned features per pitch; z has ``88 * (channels + 2)``.
    hop : int
        Hop in samples, a multiple of 10 ms.
    kernel : int
        Filter length in samples.
    learned : bool
        Whether to learn the filters, as SincNet does (Ravanelli and Bengio 2018):
        centres and widths of quadrature pairs, initially two per semitone.
    """

    passed = 2
    """Bins per semitone; a pitch's own bins are passed through to z."""

    def __init__(self, channels, hop, kernel, learned=False):
        super().__init__()
        self.dim = N_PITCHES * (channels + self.passed)
        self.hop = hop
        self.reach = _reach(kernel, hop)
        low, high = PITCH_MIN - 1.0, 119.0
        n_filters = round((high - low) * self.passed) + 1
        self.filters = _SincFilters(
            n_filters, kernel, HOP, learned=learned, low=low, high=high
        )
        # Row p of the stack for a harmonic is bin p + harmonic; bins outside
        # the filter bank take the silent row appended at the end.
        rows = torch.arange(low, PITCH_MAX + 1.5, 1 / self.passed)
        bins = (rows + torch.tensor(HARMONICS)[:, None] - low) * self.passed
        bins = bins.round().long()
        bins[(bins < 0) | (bins >= n_filters)] = n_filters
        self.bins = nn.Buffer(bins, persistent=False)  # (harmonics, rows)
        self.first = round((PITCH_MIN - low) * self.passed)  # bin of A0

    def forward(self, wave):
        """Encode ``(batch, 1, samples)`` as z ``(batch, samples // hop, dim)``."""
        wave = wave[..., : wave.shape[-1] // self.hop * self.hop]
        return self.encode(self.filters(wave))

    def encode(self, magnitudes):
        """Encode log magnitudes ``(batch, frames of 10 ms, bins)``, whole hops."""
        padded = functional.pad(magnitudes.transpose(1, 2), (0, 0, 0, 1))
        stacks = padded[:, self.bins].contiguous(memory_format=torch.channels_last)
        own = magnitudes[..., self.first :][..., : N_PITCHES * self.passed]
        own = own.unflatten(1, (-1, self.hop // HOP)).amax(2)
        own = own.unflatten(2, (N_PITCHES, -1))  # (batch, frames, pitches, 2)
        learned = self._convolve(stacks).permute(0, 3, 2, 1)
        return torch.cat((learned, own.to(learned.dtype)), dim=3).flatten(2)

    @abc.abstractmethod
    def _convolve(self, stacks):
        """
        Map stacks ``(batch, harmonics, rows, frames of 10 ms)`` to learned features.

        Rows are half-semitones from a semitone below the piano to one above; stacks are
        channels last in memory, which is twice as fast. Features are ``(batch,
        channels, 88, frames)``.
        """


class HarmonicEncoder(HarmonicStack):
    """
    Encode onto a pitch axis with weights shared across pitch.

    Two-dimensional convolutions over log-frequency and time map the stacked harmonics
    to features of 88 pitches. A transposed note has the same features at another pitch.

    Parameters
    ----------
    channels : int
        Learned features per pitch.
    norm : str
        Key in :data:`NORMS`, for the norm after the first convolution.
    kernel : int
        Filter length in samples.
    """

    def __init__(self, channels=8, norm="channelNorm", kernel=2048):
        super().__init__(channels, HOP, kernel)
        width = 24  # hidden channels
        self.stack = nn.Conv2d(len(HARMONICS), width, (5, 3), (2, 1), (0, 1))
        self.norm = NORMS[norm](width)
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 1),
        )

    def _convolve(self, stacks):
        maps = self.layers(normed(self.norm, self.stack(stacks)))
        return maps.float()  # so that magnitudes keep their precision in bfloat16
