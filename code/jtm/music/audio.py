"""Sound files as one channel at the rate asked for; their level and tuning."""

import contextlib
import numbers
from pathlib import Path

import numpy as np
import soundfile
import soxr

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, atomic, warn
from jtm.music import containers

AUDIO_SUFFIXES = tuple(".wav .aif .aiff .au .flac .ogg .opus .mp3".split())
"""Endings of the sound files that are read, in lower case."""

FOREIGN_SUFFIXES = tuple(".m4a .mp4 .aac .caf .wma .ape .wv .mka .webm".split())
"""Endings of sound files that are not read, in lower case."""

NOT_READ = "{0}, which is not read; convert by 'ffmpeg -i NAME{0} NAME.flac'"
"""What is said of a file with such an ending."""

ABSURD_PEAK = 16.0  # from which samples are not a loud recording but of another scale
LOUD_PEAK = 10 ** (1 / 20)  # clipping is warned of; lossy decoders overshoot by 1 dB
MAX_CHANNELS = 64  # of an array; a longer axis holds samples
CANCELLED = 1e-3  # share of the channels' mean power, of which their mean has less
AGREEMENT = 0.3  # length of the peaks' mean vector from which they agree on a tuning

LEVEL = 10 ** (-17.5 / 20)
"""Level that recordings are brought to before they are transcribed; see `gain`."""

SILENT = 1e-8
"""Mean power of what counts as silence: 80 dB below full scale."""

A4 = 440.0
"""Hz of A4 that recordings are held against."""

LEVEL_BLOCK = SAMPLE_RATE // 10
"""Samples over which :func:`powers` averages: 0.1 s."""


def blocks(path, sample_rate=SAMPLE_RATE, clipped=True):
    """
    Read a sound file piece by piece, as one channel at the rate asked for.

    Parameters
    ----------
    path : str or Path
        WAV, AIFF, AU, FLAC, OGG, Opus or MP3, any rate, channels and length.
    sample_rate : int
        Rate of the result in Hz; resampled with soxr where the file differs.
    clipped : bool
        Whether samples beyond full scale will be clipped, and to warn of it.

    Yields
    ------
    numpy.ndarray
        Consecutive pieces ``(samples,)`` in float32, the mean of the channels,
        nominally within [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, is not a sound file, holds no sample, or holds
        samples that are not finite or of another scale; see :func:`check_level`.

    Warns
    -----
    InputWarning
        If the file is cut off or longer than its header states, its channels cancel
        each other, or samples beyond full scale are to be clipped.
    """
    frames, peak, powers, some = 0, 0.0, np.zeros(2), False
    with _opened(path) as (file, stated):
        resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1)
        for block in containers.pieces(path, file):
            check_level(path, np.abs(block).max())
            frames += len(block)
            wave = block.mean(axis=1)
            powers += np.square(wave).sum(), np.square(block).sum() / block.shape[1]
            peak = max(peak, np.abs(wave).max())
            if file.samplerate != sample_rate:
                wave = resampler.resample_chunk(wave)
            if wave.size:
                some = True
                yield wave
        if file.samplerate != sample_rate:
            wave = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if frames and not (wave.size or some):  # less than half a sample
                wave = np.zeros(1, np.float32)
            if wave.size:
                yield wave
        if not frames:
            raise InputError(f"{path}: is empty: no sound in it")
        containers.tell_end(path, file, frames / file.samplerate, stated)
    check_level(path, peak, clipped)
    _check_mix(path, *powers)


@contextlib.contextmanager
def _opened(path):
    """Open a sound file as :func:`containers.opened` does; name what is unreadable."""
    try:
        with containers.opened(path) as opened:
            yield opened
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: {_fault(Path(path))}") from error


def _fault(path):
    """Say why a file cannot be opened as a sound file."""
    try:
        if path.is_dir():
            return "is a folder; expected a sound file"
        if not path.stat().st_size:
            return "is empty: no sound in it"
        path.open("rb").close()
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    suffix = path.suffix.lower()
    if suffix in FOREIGN_SUFFIXES:
        return NOT_READ.format(suffix)
    return (
        "not a readable sound file "
        f"(expected {', '.join(AUDIO_SUFFIXES)}); replace or remove it"
    )


def _check_mix(name, mixed, whole):
    """Warn where the mean of the channels has next to nothing of their power."""
    if mixed < CANCELLED * whole:
        warn(
            f"{name}: its channels cancel each other when they are averaged, as in "
            "opposite phase; invert one of them, or take one alone"
        )


def check_level(name, peak, clipped=False):
    """
    Refuse samples that are not finite or of another scale, or warn of clipping.

    Parameters
    ----------
    name : str or Path
        What holds them, for the message.
    peak : float
        The largest absolute sample.
    clipped : bool
        Whether what is beyond full scale will be clipped, and to warn of it.

    Raises
    ------
    InputError
        If the peak is not finite, or is :data:`ABSURD_PEAK` or more.
    """
    if not np.isfinite(peak):
        raise InputError(f"{name}: holds samples that are not finite numbers")
    if peak >= ABSURD_PEAK:
        raise InputError(
            f"{name}: a sample of {peak:.0f}, where full scale is 1; likely integers "
            "saved as floats: divide them by their full scale, such as 32768"
        )
    if clipped and peak > LOUD_PEAK:
        decibels = 20 * np.log10(peak)
        warn(f"{name}: up to {decibels:.1f} dB beyond full scale, where it is clipped")


def read(path, sample_rate=SAMPLE_RATE, seconds=np.inf, clipped=True):
    """
    Read a sound file, or its start, as one channel at the rate asked for.

    Parameters
    ----------
    path : str or Path
        WAV, AIFF, AU, FLAC, OGG, Opus or MP3, any rate, any number of channels.
    sample_rate : int
        Rate of the result in Hz.
    seconds : float
        How much is read of a longer one, in memory that is bounded.
    clipped : bool
        As for :func:`blocks`.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32, nominally within [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, is not a sound file or holds no sample.

    See Also
    --------
    blocks : The same piece by piece, for long files.
    """
    parts, most = [], seconds * sample_rate
    for part in blocks(path, sample_rate, clipped):
        parts.append(part)
        most -= len(part)
        if most <= 0:
            break
    wave = np.concatenate(parts)
    return wave[: len(wave) + int(min(most, 0))]


def to_wave(array, sample_rate):
    """
    Convert an array to one channel at 16 kHz; refuse what is no sound.

    Parameters
    ----------
    array : array
        Samples ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``
        with at most 64 channels, floats within [-1, 1] or signed integers of full
        scale.
    sample_rate : int
        Its rate in Hz.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32, the mean of the channels.

    Raises
    ------
    InputError
        If the array is of another shape, type or scale, or has no rate.
    """
    wave = np.asarray(array)
    if not (isinstance(sample_rate, numbers.Real) and sample_rate > 0):
        raise InputError("an array needs its sample_rate in Hz, such as 44100")
    channels = [axis for axis, n in enumerate(wave.shape) if n <= MAX_CHANNELS]
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and len(channels) != 1):
        raise InputError(
            f"an array of shape {wave.shape}; expected (samples,), (channels, samples) "
            f"or (samples, channels) with at most {MAX_CHANNELS} channels and more "
            "samples"
        )
    if np.issubdtype(wave.dtype, np.signedinteger):
        wave = wave / -float(np.iinfo(wave.dtype).min)
    elif not np.issubdtype(wave.dtype, np.floating):
        raise InputError(
            f"an array of {wave.dtype}; expected floats within [-1, 1] or signed "
            "integers"
        )
    if wave.ndim == 2:
        whole, wave = wave, wave.mean(axis=channels[0])
        _check_mix("the array", np.square(wave).mean(), np.square(whole).mean())
    wave = wave.astype(np.float32)
    check_level("the array", np.abs(wave).max(initial=0))
    return soxr.resample(wave, sample_rate, SAMPLE_RATE) if wave.size else wave


def powers(wave):
    """
    Compute the power of each tenth of a second.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 16 kHz; what is left at its end counts by its length.

    Returns
    -------
    numpy.ndarray
        Mean squares ``(blocks,)``, float64.
    """
    wave = np.asarray(wave, np.float64)
    wave = np.pad(wave, (0, -len(wave) % LEVEL_BLOCK)).reshape(-1, LEVEL_BLOCK)
    return np.square(wave).mean(axis=1)


def gain(power):
    """
    Choose the gain that brings a recording to :data:`LEVEL`.

    Its level is the root of the mean power, each block weighted by its power, so that
    neither silence nor a click counts for much. Training and use of the transcriber
    share it: a recording's level says nothing of its notes.

    Parameters
    ----------
    power : numpy.ndarray
        Mean squares ``(blocks,)`` of the whole recording, from :func:`powers`.

    Returns
    -------
    float
        What to multiply samples by; 1 for silence. Products may leave [-1, 1].

    Examples
    --------
    >>> wave = 0.001 * np.sin(np.arange(16000.0))
    >>> level = np.sqrt(np.mean((gain(powers(wave)) * wave) ** 2))
    >>> round(float(level / LEVEL), 2)
    1.0
    """
    power = np.asarray(power, np.float64)
    total = power.sum()
    if total <= len(power) * SILENT:
        return 1.0
    return float(LEVEL / np.sqrt(np.square(power).sum() / total))


def middle(first, last):
    """
    Return the ends of the middle minute of a recording, which tells its tuning.

    Parameters
    ----------
    first, last : int
        First sample of the recording at 16 kHz, and the one after its last.

    Returns
    -------
    tuple of int
        The same of the minute; all of a shorter recording.

    Examples
    --------
    >>> middle(0, 16000), middle(0, 180 * 16000)
    ((0, 16000), (960000, 1920000))
    """
    start = max(first, (first + last - 60 * SAMPLE_RATE) // 2)
    return start, min(start + 60 * SAMPLE_RATE, last)


def tuning(wave):
    """
    Estimate how far a recording is tuned from A4 at 440 Hz.

    Spectral peaks vote for where they lie between semitones, by their magnitude: the
    estimate is their circular mean.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 16 kHz.

    Returns
    -------
    float
        Semitones in -0.5..0.5; 0 where the peaks do not agree, as those of noise.

    Examples
    --------
    >>> wave = np.sin(2 * np.pi * 446 * np.arange(32000) / 16000)
    >>> round(tuning(wave), 1)
    0.2
    """
    size, low, high = 8192, 110, 1760  # samples, and Hz
    frames = np.asarray(wave[: len(wave) // size * size], np.float64)
    magnitude = np.abs(np.fft.rfft(frames.reshape(-1, size) * np.hanning(size)))
    levels = np.log(magnitude + 1e-9)
    k = np.arange(round(low * size / SAMPLE_RATE), round(high * size / SAMPLE_RATE))
    before, here, after = levels[:, k - 1], levels[:, k], levels[:, k + 1]
    loud = here > here.max(axis=1, keepdims=True) - 3  # 26 dB
    peak = (here > before) & (here >= after) & loud
    # The top of a parabola through three points.
    curve = np.where(peak, before - 2 * here + after, 1)
    at = k + np.where(peak, (before - after) / (2 * curve), 0)
    pitch = 12 * np.log2(at * SAMPLE_RATE / size / A4)
    weight = np.where(peak, np.exp(here), 0)
    total = (weight * np.exp(2j * np.pi * pitch)).sum()
    if abs(total) <= AGREEMENT * weight.sum():
        return 0.0
    return float(np.angle(total) / (2 * np.pi))


def to_pcm(wave):
    """
    Round a waveform to 16 bits, as the models hear it.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples, nominally within [-1, 1]; what is beyond is clipped.

    Returns
    -------
    numpy.ndarray
        Little-endian int16 of the same shape.
    """
    return np.clip(np.round(wave * 32768), -32768, 32767).astype("<i2")


def rate(path):
    """
    Return the sample rate of a sound file.

    Parameters
    ----------
    path : str or Path
        The sound file.

    Returns
    -------
    int
        Rate in Hz.

    Raises
    ------
    InputError
        If the file is missing or is not a sound file.
    """
    with _opened(path) as (file, _):
        return file.samplerate


def duration(path):
    """
    Compute the length of a sound file.

    It is read to its end only where its header states no length or a wrong one.

    Parameters
    ----------
    path : str or Path
        The sound file.

    Returns
    -------
    float
        Length in seconds.

    Raises
    ------
    InputError
        If the file is missing, is not a sound file or holds no sample.
    """
    with _opened(path) as (file, seconds):
        if seconds is None or file.frames >= containers.UNSTATED:
            seconds = sum(map(len, containers.pieces(path, file))) / file.samplerate
        if not seconds:
            raise InputError(f"{path}: is empty: no sound in it")
        return seconds


def write(path, wave, sample_rate):
    """
    Write a waveform as 16-bit WAV, at once or not at all.

    Parameters
    ----------
    path : str or Path
        The file to write, ending in ``.wav``.
    wave : numpy.ndarray
        Waveform ``(samples,)``, float in [-1, 1] or int16.
    sample_rate : int
        Rate in Hz.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with atomic(path) as part:
        try:
            soundfile.write(part, wave, sample_rate, subtype="PCM_16")
        except soundfile.SoundFileError as error:
            raise OSError(str(error)) from error
