"""
Augmentations that leave notes, instruments and their times as they are.

The context network reads the augmented copy of a window, while the latents that it
predicts come from the window as it is (augmenting the past only, Kharitonov et al.
2020). What changes is how the music was recorded; pitch and tempo never do. All
filters are causal, so that no sound to be predicted leaks into the past.
"""

import math

import torch
from torch.nn import functional

from jtm.constants import SAMPLE_RATE

SIGNAL_TO_NOISE = (5.0, 40.0)
"""Range of the signal-to-noise ratio in dB."""

NOISE_SLOPE = (0.0, 2.0)
"""Power of the noise falls with this power of frequency: white to brown."""

REVERB_SECONDS = (0.1, 1.0)
"""Range of the time in which the reverberation falls by 60 dB."""

DIRECT_TO_REVERB = (0.0, 20.0)
"""Range of the energy of direct sound over that of reverberation in dB."""

BANDS = 3
"""Number of bands that the equaliser changes."""

BAND_CENTRES = (60.0, 6000.0)
"""Range of their centres in Hz; they are one to two octaves wide."""

BAND_GAINS = (-12.0, 12.0)
"""Range of their gains in dB."""

LEVELS = (-12.0, 12.0)
"""Range of the change of level in dB."""


def augment(wave, kinds, generator):
    """
    Augment each waveform of a batch in its own way.

    Parameters
    ----------
    wave : torch.Tensor
        Waveforms ``(batch, 1, samples)`` at 16 kHz.
    kinds : sequence of str
        What to do, of :data:`jtm.models.AUGMENTATIONS`; reverberation and
        equaliser first, then noise, then the level, in whatever order they are listed.
    generator : torch.Generator
        Random number generator, on the CPU.

    Returns
    -------
    torch.Tensor
        Waveforms of the same shape; nothing is clipped, so that they may leave
        [-1, 1]. Silence stays silent.
    """
    batch, _, samples = wave.shape

    def draw(bounds, *shape):
        low, high = bounds
        uniform = torch.rand(batch, *shape, generator=generator)
        return (low + (high - low) * uniform).to(wave.device)

    # Room for the longest reverberation, which would wrap around to the start.
    size = samples + int(REVERB_SECONDS[1] * SAMPLE_RATE)
    size = -(-size // 4096) * 4096  # lengths of few prime factors are fastest
    spectrum = torch.fft.rfft(wave[:, 0].float(), size)  # (batch, frequencies)
    if "equaliser" in kinds:
        octaves = math.log2(BAND_CENTRES[1] / BAND_CENTRES[0])
        centres = BAND_CENTRES[0] * 2 ** draw((0, octaves), BANDS)
        gains, widths = draw(BAND_GAINS, BANDS), draw((1.0, 2.0), BANDS)
        spectrum = spectrum * _equaliser(centres, gains, widths, size)
    if "reverb" in kinds:
        # Tails of a constant length, in each of which the decay is its own.
        size_tail = int(REVERB_SECONDS[1] * SAMPLE_RATE)
        tail = torch.randn(batch, size_tail, generator=generator).to(wave.device)
        responses = _reverberation(tail, draw(REVERB_SECONDS), draw(DIRECT_TO_REVERB))
        spectrum = spectrum * torch.fft.rfft(responses, size)
    if "noise" in kinds:
        parts = torch.randn(batch, spectrum.shape[1], 2, generator=generator)
        white = torch.view_as_complex(parts).to(wave.device)
        spectrum = spectrum + _coloured_noise(
            white, spectrum, draw(NOISE_SLOPE), draw(SIGNAL_TO_NOISE), samples
        )
    augmented = torch.fft.irfft(spectrum, size)[:, None, :samples]
    if "level" in kinds:
        augmented = augmented * 10 ** (draw(LEVELS, 1, 1) / 20)
    return augmented.to(wave.dtype)


def _equaliser(centres, gains, widths, size):
    """
    Compute the frequency response ``(batch, size // 2 + 1)`` of peaking filters.

    Each is the second-order filter ``(s^2 + s A / Q + 1) / (s^2 + s / (A Q) + 1)``
    under the bilinear transform, which is causal; its gain in dB is reached at the
    centre in Hz, and half of it at either end of the width in octaves.
    """
    half = torch.arange(1, size // 2, device=centres.device) * (math.pi / size)
    ratio = half.tan() / (math.pi * centres[..., None] / SAMPLE_RATE).tan()
    detuning = 1j * (ratio - 1 / ratio)  # s + 1 / s, since both halves are over s
    root = 10 ** (gains / 40)[..., None]  # A, square root of the gain at the centre
    inverse_q = (2 * torch.sinh(math.log(2) / 2 * widths))[..., None]
    response = (detuning + inverse_q * root) / (detuning + inverse_q / root)
    # Neither a constant nor the Nyquist frequency is changed.
    return functional.pad(response, (1, 1), value=1.0).prod(1)


def _reverberation(tail, seconds, ratio):
    """
    Compute impulse responses of rooms, of unit energy: direct sound, decaying tail.

    White noise ``(batch, samples)`` falls by 60 dB in `seconds`; `ratio` is the energy
    of the direct sound, at the first sample so that onsets stay, over it in dB.
    """
    time = torch.arange(tail.shape[1], device=tail.device) / SAMPLE_RATE
    decay = 10 ** (-3 * time / seconds[:, None])
    response = tail * decay
    response[:, 0] = 0
    gain = 10 ** (-ratio / 20)[:, None]
    response = gain * response / response.norm(dim=1, keepdim=True)
    response[:, 0] = 1
    return response / response.norm(dim=1, keepdim=True)


def _coloured_noise(white, spectrum, slope, ratio, samples):
    """
    Colour white noise, a spectrum, and scale it to a signal-to-noise ratio in dB.

    The power falls with the power `slope` of frequency above 20 Hz. The signal has
    `samples`, the noise fills the whole transform.
    """
    n = white.shape[1]
    frequency = torch.linspace(0, SAMPLE_RATE / 2, n, device=white.device)
    frequency = frequency.clamp(min=20.0)
    noise = white * frequency ** (-slope[:, None] / 2)
    noise[:, 0] = 0  # no constant
    noise[:, -1] = 0
    share = 2 * (n - 1) / samples  # of the noise's energy falls on the signal
    energy = spectrum.abs().square().sum(1) / noise.abs().square().sum(1)
    scale = (share * energy * 10 ** (-ratio / 10)).sqrt()
    return noise * scale[:, None]


def vary_waves(waves):
    """
    Play waves at other levels, and with noise, drawn from torch's generator.

    The draws are the processor's, so that they are the same wherever the waves are.

    Parameters
    ----------
    waves : torch.Tensor
        Waveforms ``(batch, 1, samples)``.

    Returns
    -------
    torch.Tensor
        Same shape; each 12 dB softer to 6 dB louder, with white noise 20 to
        60 dB below its level.
    """
    draw = torch.rand(2, len(waves), 1, 1).to(waves)
    white = torch.randn(waves.shape).to(waves)
    gain, noise = 10 ** ((18 * draw[0] - 12) / 20), 10 ** ((-40 * draw[1] - 20) / 20)
    level = waves.square().mean(dim=2, keepdim=True).sqrt()
    return gain * (waves + noise * level * white)


def vary_magnitudes(magnitudes):
    """
    Play log magnitudes at other levels, through an equaliser, and with noise.

    What is drawn comes from torch's generator, on the processor.

    Parameters
    ----------
    magnitudes : torch.Tensor
        Log magnitudes ``(batch, frames, bins)``.

    Returns
    -------
    torch.Tensor
        Same shape. Each window 12 dB softer to 6 dB louder, its bands raised and
        lowered by about 3 dB along a random curve, with noise 10 to 50 dB below its
        mean power.
    """
    batch, _, bins = magnitudes.shape
    uniform = torch.rand(2, batch, 1, 1)
    curve = 3 * torch.randn(batch, 1, 7)
    noise = torch.rand(magnitudes.shape).clamp_min(1e-6)
    curve = functional.interpolate(curve, size=bins, mode="linear", align_corners=True)
    gain = 18 * uniform[0] - 12 + curve
    power = torch.expm1(18 * magnitudes) * 10 ** (gain / 10).to(magnitudes)
    level = power.mean((1, 2), keepdim=True) * 10 ** (-4 * uniform[1] - 1).to(power)
    # The power of Gaussian noise in a band is exponentially distributed.
    return torch.log1p(power - level * noise.log().to(power)) / 18
