"""
Encoders: waveform ``(batch, 1, samples)`` to latents z ``(batch, frames, dim)``.

Each encoder derives its hop from its strides and gives one latent for each
whole hop of the input, whatever its length. Frame ``i`` is centred on the
middle of its hop, so that z, c and the labels share one frame grid.

Three of them, in the order of what they assume about sound: a plain stack of
convolutions (nothing), band-pass filters with learned cut-offs (that sound has
a spectrum), and stacked harmonics on a pitch axis (that a transposed note is
the same note elsewhere).
"""

import abc
import math

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import (
    HOP,
    N_PITCHES,
    PITCH_MAX,
    PITCH_MIN,
    SAMPLE_RATE,
)

KERNELS = (10, 8, 4, 4, 4)
"""Kernel lengths of the CPC stack (van den Oord et al. 2018, section 3.1)."""

STRIDES = (5, 4, 2, 2, 2)
"""Strides of the CPC stack; their product is the hop."""

PADDINGS = (3, 2, 1, 1, 1)
"""Zeros on either side before each layer, so that frames = samples // hop."""

HARMONICS = (-12.0, 0.0, 12.0, 19.02, 24.0, 27.86, 31.02, 33.69, 36.0)
"""Semitones from a pitch to its octave below and its harmonics 1 to 8."""


class _AcrossFrames(nn.Module):
    """Apply a norm over ``(batch, channels, frames)`` to channels-last activations."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        """Normalise activations ``(batch, ..., channels)``."""
        y = self.norm(x.flatten(1, -2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)


NORMS = {
    # Over the channels of each frame (Riviere et al. 2020, section 3.1): no
    # statistic of other frames or recordings leaks into a latent.
    "channelNorm": nn.LayerNorm,
    "batchNorm": lambda channels: _AcrossFrames(nn.BatchNorm1d(channels)),
    "instanceNorm": lambda channels: _AcrossFrames(
        nn.InstanceNorm1d(channels, affine=True)
    ),
    "none": lambda channels: nn.Identity(),
}
"""
What ``--normMode`` may name: a layer for ``(batch, ..., channels)``, made from its
number of channels.
"""


class FrameConv(nn.Conv1d):
    """
    Convolve over time with the channels last, by one matrix product.

    On a CPU this takes half the time of a convolution with channels first.
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
    Encode with the convolutional stack of CPC (van den Oord et al. 2018).

    Parameters
    ----------
    dim : int
        Channels of every layer and of z.
    norm : str
        One of :data:`NORMS`.
    """

    def __init__(self, dim=512, norm="channelNorm"):
        super().__init__()
        self.dim = dim
        self.hop = math.prod(STRIDES)
        self.layers = _stack(1, dim, norm, first=0)

    def forward(self, wave):
        """Encode waves ``(batch, 1, samples)`` to ``(batch, samples // hop, dim)``."""
        z = self.layers(wave.transpose(1, 2))  # (batch, frames, dim)
        return z[:, : wave.shape[-1] // self.hop]


def _stack(channels, dim, norm, first):
    """Stack the layers of CPC from number `first` on, each normed and rectified."""
    layers = []
    shapes = list(zip(KERNELS, STRIDES, PADDINGS, strict=True))
    for shape in shapes[first:]:
        conv = FrameConv(channels, dim, *shape)
        layers += [conv, NORMS[norm](dim), nn.ReLU(inplace=True)]
        channels = dim
    return nn.Sequential(*layers)


class SincFilters(nn.Module):
    """
    Filter with a bank of band-passes of learned pitch and width.

    Each filter is the windowed sinc band-pass of SincNet (Ravanelli and Bengio
    2018, equation 4), written as a low-pass of the band's width moved to the
    band's centre; it is learned by two numbers, the centre as a MIDI pitch and
    the width in semitones, both kept in range. As a quadrature pair, cosine and
    sine, it gives a magnitude that forgets the phase of the wave.

    Parameters
    ----------
    n_filters : int
        Number of filters.
    kernel : int
        Taps of each filter; two sines of ``df`` Hz apart need about
        ``16000 / df`` of them to be told apart.
    stride : int
        Samples between outputs.
    spacing : {"semitone", "mel"}
        Where the centres start: evenly in pitch or evenly in mel.
    quadrature : bool
        Give log magnitudes of quadrature pairs instead of filtered waves.
    learned : bool
        Learn centres and widths; otherwise they stay where they start.
    low, high : float
        MIDI pitches of the lowest and highest centre at the start.
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
            bounds = torch.tensor([_mel(low), _mel(high)])
            mels = torch.linspace(*bounds.tolist(), n_filters)
            centre = 69 + 12 * torch.log2(700 * (10 ** (mels / 2595) - 1) / 440)
        width = torch.diff(centre, append=(2 * centre[-1] - centre[-2])[None])
        if learned:
            self.centre = nn.Parameter(centre)
            self.width = nn.Parameter(width)
        else:
            self.register_buffer("centre", centre)
            self.register_buffer("width", width)
        time = (torch.arange(kernel) - (kernel - 1) / 2) / SAMPLE_RATE
        self.register_buffer("time", time, persistent=False)
        window = torch.hamming_window(kernel, periodic=False)
        self.register_buffer("window", window, persistent=False)

    def bands(self, tuning=0.0):
        """
        Compute centres and widths in Hz, each ``(filters,)``, so many semitones higher.

        Centres are kept between a semitone below the piano and the Nyquist frequency,
        widths no narrower than the window can resolve.
        """
        top = 69 + 12 * math.log2(SAMPLE_RATE / 2 / 440)
        centre = (self.centre + tuning).clamp(PITCH_MIN - 1, top)
        centre = 440 * 2 ** ((centre - 69) / 12)
        width = centre * (2 ** (self.width.abs() / 24) - 2 ** (-self.width.abs() / 24))
        width = width.clamp(min=SAMPLE_RATE / self.kernel)
        return centre, torch.minimum(width, 2 * centre)

    def kernels(self, tuning=0.0):
        """
        Make the filters' impulse responses, of unit energy, so many semitones higher.

        Taps ``(filters, kernel)``, or as quadrature pairs ``(2 * filters, kernel)``,
        all cosines followed by all sines.
        """
        centre, width = self.bands(tuning)
        envelope = torch.sinc(width[:, None] * self.time) * self.window
        phase = 2 * math.pi * centre[:, None] * self.time
        envelope = envelope / envelope.norm(dim=1, keepdim=True)
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
        # On a CPU several times faster than a convolution with long kernels.
        frames = frames.unfold(1, self.kernel, self.stride)  # (batch, frames, kernel)
        y = frames @ self.kernels(tuning).T
        if self.quadrature:
            real, imaginary = y.float().chunk(2, dim=2)
            y = log_magnitude(real, imaginary)
        return y


def log_magnitude(real, imaginary):
    """
    Compress the magnitude of quadrature outputs to a range of about 0 to 1.

    Parameters
    ----------
    real, imaginary : torch.Tensor
        Outputs of a quadrature pair, same shape.

    Returns
    -------
    torch.Tensor
        Logarithm of the power over a floor 80 dB below a sine of full scale
        in a 2048-sample filter; 0 at silence.
    """
    power = real.square() + imaginary.square()
    return torch.log1p(power * 1e5) / 18.0


def _mel(pitch):
    """Convert a MIDI pitch to mel (O'Shaughnessy 1987)."""
    return 2595 * math.log10(1 + 440 * 2 ** ((pitch - 69) / 12) / 700)


class SincEncoder(nn.Module):
    """
    Encode with learned band-pass filters, then convolutions.

    As published in the original project the filters replace the first layer of
    the CPC stack and keep the wave; as quadrature pairs they stride by the hop
    at once, forget phase, and two short layers in time follow.

    Parameters
    ----------
    dim : int
        Number of filters, channels of every layer and of z.
    norm : str
        One of :data:`NORMS`.
    quadrature : bool
        Take log magnitudes of quadrature pairs instead of filtered waves.
    kernel : int
        Taps of each filter.
    spacing : {"semitone", "mel"}
        Where the filters start.
    """

    def __init__(
        self, dim, norm="channelNorm", quadrature=True, kernel=2048, spacing="semitone"
    ):
        super().__init__()
        self.dim = dim
        self.hop = math.prod(STRIDES)
        stride = self.hop if quadrature else STRIDES[0]
        self.filters = SincFilters(dim, kernel, stride, spacing, quadrature)
        if quadrature:
            self.layers = nn.Sequential(
                FrameConv(dim, dim, 3, padding=1),
                NORMS[norm](dim),
                nn.ReLU(inplace=True),
                FrameConv(dim, dim, 1),
            )
        else:
            self.layers = nn.Sequential(
                NORMS[norm](dim),
                nn.ReLU(inplace=True),
                _stack(dim, dim, norm, first=1),
            )

    def forward(self, wave):
        """Encode waves ``(batch, 1, samples)`` to ``(batch, samples // hop, dim)``."""
        z = self.layers(self.filters(wave))  # (batch, frames, dim)
        return z[:, : wave.shape[-1] // self.hop]


class HarmonicStack(nn.Module, abc.ABC):
    """
    Stack the harmonics of each pitch (Bittner et al. 2017) on a log-frequency axis.

    Quadrature band-passes, two a semitone from a semitone below the piano up to the
    Nyquist frequency, forget phase; each bin is stacked with the bins of its
    harmonics, so that a transposed note is the same stack elsewhere.

    Parameters
    ----------
    kernel : int
        Taps of each filter.
    learned : bool
        Learn the centres and widths of the filters.
    """

    passed = 2
    """Bins a semitone; encoders pass the log magnitudes of a pitch's own bins on."""

    def __init__(self, kernel=2048, learned=False):
        super().__init__()
        low, high = PITCH_MIN - 1.0, 119.0
        n_filters = round((high - low) * self.passed) + 1
        self.filters = SincFilters(
            n_filters, kernel, HOP, learned=learned, low=low, high=high
        )
        # Row p of the stack for a harmonic is bin p + harmonic; bins outside
        # the bank read the silent row appended at the end.
        rows = torch.arange(low, PITCH_MAX + 1.5, 1 / self.passed)
        bins = (rows + torch.tensor(HARMONICS)[:, None] - low) * self.passed
        bins = bins.round().long()
        bins[(bins < 0) | (bins >= n_filters)] = n_filters
        self.register_buffer("bins", bins, persistent=False)  # (harmonics, rows)
        self.first = round((PITCH_MIN - low) * self.passed)  # bin of A0

    def magnitudes(self, wave, tuning=0.0):
        """
        Compute log magnitudes ``(batch, frames, bins)``, about 0 to 1, of waves.

        The filters are as many semitones higher as the waves are tuned above 440 Hz.
        """
        return self.filters(wave, tuning)

    def forward(self, wave):
        """Encode waves ``(batch, 1, samples)`` to ``(batch, samples // hop, dim)``."""
        wave = wave[..., : wave.shape[-1] // self.hop * self.hop]
        return self.encode(self.magnitudes(wave))

    @abc.abstractmethod
    def encode(self, magnitudes):
        """Encode log magnitudes ``(batch, frames of 10 ms, bins)``, maybe kept ones."""

    def stack_harmonics(self, magnitudes):
        """
        Stack log magnitudes ``(batch, frames, bins)`` by harmonics.

        Stacks ``(batch, harmonics, rows, frames)`` have channels last in memory, which
        is twice as fast; rows are half semitones from a semitone below the piano to one
        above.
        """
        padded = functional.pad(magnitudes.transpose(1, 2), (0, 0, 0, 1))
        return padded[:, self.bins].contiguous(memory_format=torch.channels_last)


class HarmonicEncoder(HarmonicStack):
    """
    Encode onto a pitch axis with weights shared across pitch.

    Two-dimensional convolutions over log-frequency and time turn the stacked
    harmonics into a map of 88 pitches. A transposed note gives the same latent at
    another pitch. Behind the learned features of a pitch stand the log magnitudes of
    its own two bins.

    Parameters
    ----------
    channels : int
        Learned features of each pitch; z has ``88 * (channels + 2)``,
        pitch-major.
    norm : str
        One of :data:`NORMS`, applied to the stacked harmonics.
    width : int
        Channels of the layers inside.
    kernel : int
        Taps of each filter.
    """

    def __init__(self, channels=8, norm="channelNorm", width=24, kernel=2048):
        super().__init__(kernel)
        self.dim = N_PITCHES * (channels + self.passed)
        self.hop = HOP
        self.stack = nn.Conv2d(len(HARMONICS), width, (5, 3), (2, 1), (0, 1))
        self.norm = NORMS[norm](width)
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 1),
        )

    def encode(self, magnitudes):
        """Encode log magnitudes as ``(batch, frames, 88 * (channels + 2))``."""
        maps = self.stack(self.stack_harmonics(magnitudes))
        maps = self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        maps = self.layers(maps)  # (batch, channels, pitches, frames)
        own = magnitudes[..., self.first :][..., : N_PITCHES * self.passed]
        own = own.unflatten(2, (N_PITCHES, -1))  # (batch, frames, pitches, 2)
        return torch.cat((maps.permute(0, 3, 2, 1), own), dim=3).flatten(2)
