"""
Augmentations that preserve notes, instruments and timing.

The context network takes the augmented copy of a window, while the latents that it
predicts come from the original (past-only augmentation, Kharitonov et al.
2020). Recording conditions change; pitch and tempo do not. All
filters are causal, so that no future to be predicted leaks into the past; only the
level of the noise depends on the whole window.
"""

import math

import torch
from torch.nn import functional

from jtm.constants import SAMPLE_RATE

# Ranges from which each window's augmentation is drawn.
SIGNAL_TO_NOISE = (5.0, 40.0)  # dB
NOISE_SLOPE = (0.0, 2.0)  # a of noise power ~ 1 / frequency^a: white to brown
REVERB_SECONDS = (0.1, 1.0)  # reverberation time (RT60)
DIRECT_TO_REVERB = (0.0, 20.0)  # energy ratio in dB
BAND_CENTRES = (60.0, 6000.0)  # of the equaliser, in Hz
BAND_OCTAVES = (1.0, 2.0)  # widths of its bands
BAND_GAINS = (-12.0, 12.0)  # dB
LEVELS = (-12.0, 12.0)  # gain in dB

BANDS = 3  # of the equaliser


def augment(wave, kinds, generator):
    """
    Augment each waveform of a batch independently.

    Parameters
    ----------
    wave : torch.Tensor
        Waveforms ``(batch, 1, samples)`` at 16 kHz.
    kinds : sequence of str
        Names in :data:`jtm.models.AUGMENTATIONS`. Equaliser and reverberation are
        applied first, then noise, then gain, whatever the order in the list.
    generator : torch.Generator
        Random number generator on the CPU.

    Returns
    -------
    torch.Tensor
        Waveforms of the same shape, not clipped to [-1, 1]. Silence stays silent.
    """
    batch, _, samples = wave.shape

    def draw(bounds, *shape):
        low, high = bounds
        uniform = torch.rand(batch, *shape, generator=generator)
        return (low + (high - low) * uniform).to(wave.device)

    # Padded by the longest reverberation, so that none wraps around to the start.
    n_tail = int(REVERB_SECONDS[1] * SAMPLE_RATE)
    size = samples + n_tail
    size = -(-size // 4096) * 4096  # lengths with small prime factors are fastest
    spectrum = torch.fft.rfft(wave[:, 0].float(), size)  # (batch, frequencies)
    if "equaliser" in kinds:
        octaves = math.log2(BAND_CENTRES[1] / BAND_CENTRES[0])
        centres = BAND_CENTRES[0] * 2 ** draw((0, octaves), BANDS)
        gains, widths = draw(BAND_GAINS, BANDS), draw(BAND_OCTAVES, BANDS)
        spectrum = spectrum * _equaliser(centres, gains, widths, size)
    if "reverb" in kinds:
        # Tails of constant length, each with its own decay.
        tail = torch.randn(batch, n_tail, generator=generator).to(wave.device)
        responses = _reverberation(tail, draw(REVERB_SECONDS), draw(DIRECT_TO_REVERB))
        spectrum = spectrum * torch.fft.rfft(responses, size)
    if "noise" in kinds:
        white = torch.randn(batch, spectrum.shape[1], 2, generator=generator)
        white = torch.view_as_complex(white).to(wave.device)
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
    under the bilinear transform, which is causal. It has its full gain in dB at the
    centre in Hz, and half of it at either end of the width in octaves.
    """
    half = torch.arange(1, size // 2, device=centres.device) * (math.pi / size)
    ratio = half.tan() / (math.pi * centres[..., None] / SAMPLE_RATE).tan()
    detuning = 1j * (ratio - 1 / ratio)  # s + 1 / s: the fraction is reduced by s
    a = 10 ** (gains / 40)[..., None]  # A, square root of the gain at the centre
    inverse_q = (2 * torch.sinh(math.log(2) / 2 * widths))[..., None]
    response = (detuning + inverse_q * a) / (detuning + inverse_q / a)
    # DC and the Nyquist frequency are unchanged.
    return functional.pad(response, (1, 1), value=1.0).prod(1)


def _reverberation(tail, seconds, ratio):
    """
    Compute room impulse responses of unit energy: direct sound and decaying tail.

    The white noise `tail` ``(batch, samples)`` decays by 60 dB in `seconds`; `ratio` is
    the direct-to-reverberant ratio in dB. The direct sound is the first sample, so that
    onsets stay in place.
    """
    time = torch.arange(tail.shape[1], device=tail.device) / SAMPLE_RATE
    response = tail * 10 ** (-3 * time / seconds[:, None])
    response[:, 0] = 0
    gain = 10 ** (-ratio / 20)[:, None]
    response = gain * response / response.norm(dim=1, keepdim=True)
    response[:, 0] = 1
    return response / response.norm(dim=1, keepdim=True)


def _coloured_noise(white, spectrum, slope, ratio, samples):
    """
    Colour the spectrum of white noise and scale it to a signal-to-noise ratio in dB.

    Above 20 Hz, power falls as ``1 / frequency ** slope``. The signal has `samples`;
    the noise fills the whole transform.
    """
    n = white.shape[1]
    frequency = torch.linspace(0, SAMPLE_RATE / 2, n, device=white.device)
    noise = white * frequency.clamp(min=20.0) ** (-slope[:, None] / 2)
    noise[:, [0, -1]] = 0  # no DC
    length = 2 * (n - 1) / samples  # of the transform, relative to the signal's
    energy_ratio = spectrum.abs().square().sum(1) / noise.abs().square().sum(1)
    scale = (length * energy_ratio * 10 ** (-ratio / 10)).sqrt()
    return noise * scale[:, None]


def augment_waves(waves):
    """
    Augment waveforms by random gain and white noise.

    Random numbers are drawn on the CPU, so that they do not depend on the device.

    Parameters
    ----------
    waves : torch.Tensor
        Waveforms ``(batch, 1, samples)``.

    Returns
    -------
    torch.Tensor
        Waveforms of the same shape, each with a gain of -12 to 6 dB and white noise 20
        to 60 dB below its level.
    """
    draw = torch.rand(2, len(waves), 1, 1).to(waves)
    white = torch.randn(waves.shape).to(waves)
    gain, noise = 10 ** ((18 * draw[0] - 12) / 20), 10 ** ((-40 * draw[1] - 20) / 20)
    level = waves.square().mean(dim=2, keepdim=True).sqrt()
    return gain * (waves + noise * level * white)


def augment_magnitudes(magnitudes):
    """
    Augment log magnitudes by random gain, equalisation and noise.

    Parameters
    ----------
    magnitudes : torch.Tensor
        Log magnitudes ``(batch, frames, bins)``.

    Returns
    -------
    torch.Tensor
        Log magnitudes of the same shape, each window with a gain of -12 to 6 dB, random
        equalisation of about 3 dB, and noise 10 to 50 dB below its mean power.
    """
    batch, _, bins = magnitudes.shape
    uniform = torch.rand(2, batch, 1, 1)
    curve = 3 * torch.randn(batch, 1, 7)
    noise = torch.rand_like(magnitudes).clamp_min(1e-6)
    curve = functional.interpolate(curve, size=bins, mode="linear", align_corners=True)
    gain = 18 * uniform[0] - 12 + curve
    power = torch.expm1(18 * magnitudes) * 10 ** (gain / 10).to(magnitudes)
    level = power.mean((1, 2), keepdim=True) * 10 ** (-4 * uniform[1] - 1).to(power)
    # The power of Gaussian noise in a band is exponentially distributed.
    return torch.log1p(power - level * noise.log()) / 18
