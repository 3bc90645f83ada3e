"""Reading of audio files as mono at a given sample rate; their level and tuning."""

import numbers

import numpy as np
import soundfile
import soxr

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, atomic, warn
from jtm.music import containers

ABSURD_PEAK = 16.0  # from here, samples are not loud but of another scale
LOUD_PEAK = 10 ** (1 / 20)  # above it, warn of clipping; lossy codecs overshoot by 1 dB
RATES = 1e3, 1e7  # in Hz, lowest and highest of an array; 44.1 is in kHz
MAX_CHANNELS = 64  # of an array; a longer axis holds samples
CANCELLED = 1e-3  # of the channels' mean power; below it, their mean has cancelled out
AGREEMENT = 0.3  # minimum length of the peaks' mean vector for a tuning estimate
LEVEL = 10 ** (-17.5 / 20)  # of a normalised recording; see `gain`
SILENT = 1e-8  # mean power up to which audio counts as silent: -80 dB

A4 = 440.0  # Hz
LEVEL_BLOCK = SAMPLE_RATE // 10  # samples of a block for `moments`: 0.1 s


def blocks(path, sample_rate=SAMPLE_RATE, clipped=True):
    """
    Read an audio file in chunks, as mono at a given sample rate.

    Parameters
    ----------
    path : str or Path
        Path to an audio file of any sample rate, number of channels and length; its
        format is recognised by its content, see :data:`containers.FORMATS`.
    sample_rate : int
        Sample rate of the result in Hz; resampled with soxr if the file's differs.
    clipped : bool
        Whether the caller clips samples beyond full scale, so that a warning is due.

    Yields
    ------
    numpy.ndarray
        Consecutive chunks ``(samples,)`` in float32, the mean of the channels,
        nominally within [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, is not an audio file, has no samples, or has samples
        that are not finite or of another scale; see :func:`check_level`.

    Warns
    -----
    InputWarning
        If the file is truncated, not all of it can be read, its channels cancel each
        other, or samples beyond full scale will be clipped.
    """
    frames, peak, powers, yielded = 0, 0.0, np.zeros(2), False
    with containers.opened(path) as file:
        resampler = soxr.ResampleStream(file.rate, sample_rate, 1)
        for block in file.chunks():
            check_level(path, np.abs(block).max())
            frames += len(block)
            wave = block.mean(axis=1)
            powers += np.square(wave).sum(), np.square(block).sum() / block.shape[1]
            peak = max(peak, np.abs(wave).max())
            if file.rate != sample_rate:
                wave = resampler.resample_chunk(wave)
            if wave.size:
                yielded = True
                yield wave
        if file.rate != sample_rate:
            wave = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if frames and not (wave.size or yielded):  # less than half a sample
                wave = np.zeros(1, np.float32)
            if wave.size:
                yield wave
        if not frames:
            raise InputError(f"{path}: is empty; expected audio")
        file.check_end(frames / file.rate)
    check_level(path, peak, clipped)
    _check_mix(path, *powers)


def _check_mix(name, mixed, total):
    """Warn if the mean of the channels has almost none of their power."""
    if mixed < CANCELLED * total:
        warn(
            f"{name}: its channels cancel each other when they are averaged, as in "
            "opposite phase; invert one of them, or take one alone"
        )


def check_level(name, peak, clipped=False):
    """
    Raise an error if samples are not finite or of another scale; warn of clipping.

    Parameters
    ----------
    name : str or Path
        Name of the source, for the message.
    peak : float
        Largest absolute value of the samples.
    clipped : bool
        Whether to warn of samples beyond full scale, which the caller clips.

    Raises
    ------
    InputError
        If the peak is not finite, or at least :data:`ABSURD_PEAK`.
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


def read(path, sample_rate=SAMPLE_RATE, seconds=np.inf, clipped=True, skip=False):
    """
    Read an audio file, or its beginning, as mono at a given sample rate.

    Parameters
    ----------
    path : str or Path
        Path to the file, in a format as for :func:`blocks`.
    sample_rate : int
        Sample rate of the result in Hz.
    seconds : float
        Maximum duration to read; memory use is bounded by it.
    clipped : bool
        As for :func:`blocks`.
    skip : bool
        Whether to skip chunks of silence at the beginning.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32, nominally within [-1, 1].

    Raises
    ------
    InputError
        If the file is missing, is not an audio file or has no samples.

    See Also
    --------
    blocks : The same in chunks, for long files.
    """
    parts, remaining = [], seconds * sample_rate
    for part in blocks(path, sample_rate, clipped):
        if skip and not parts and moments(part)[1].max() <= SILENT:
            continue
        parts.append(part)
        remaining -= len(part)
        if remaining <= 0:
            break
    wave = np.concatenate([*parts, np.zeros(0, np.float32)])
    return wave[: len(wave) + int(min(remaining, 0))]


def to_wave(array, sample_rate):
    """
    Convert an array to mono at 16 kHz; raise an error if it is not audio.

    Parameters
    ----------
    array : array
        Samples ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``
        with at most 64 channels; floats within [-1, 1], or signed integers of at most
        32 bits, whose full scale is that of their type.
    sample_rate : int
        Its sample rate in Hz.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32, the mean of the channels.

    Raises
    ------
    InputError
        If the array is of another shape, type or scale, or the sample rate is invalid.
    """
    try:
        wave = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # lists, tensors of PyTorch
        raise InputError(f"no array can be made of the samples: {error}") from error
    low, high = RATES
    if not (isinstance(sample_rate, numbers.Real) and low <= sample_rate <= high):
        raise InputError("an array needs its sample_rate in Hz, such as 44100")
    channels = [axis for axis, n in enumerate(wave.shape) if n <= MAX_CHANNELS]
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and len(channels) != 1):
        raise InputError(
            f"an array of shape {wave.shape}; expected (samples,), (channels, samples) "
            f"or (samples, channels) with at most {MAX_CHANNELS} channels and more "
            "samples"
        )
    if wave.dtype == np.int64:  # as of a list; its full scale is not 2^63
        raise InputError(
            "an array of int64; convert it to the integers of its file, such as int16, "
            "or to floats within [-1, 1]"
        )
    if np.issubdtype(wave.dtype, np.signedinteger):
        wave = wave / -float(np.iinfo(wave.dtype).min)
    elif not np.issubdtype(wave.dtype, np.floating):
        raise InputError(
            f"an array of {wave.dtype}; expected floats within [-1, 1] or signed "
            "integers"
        )
    if wave.ndim == 2:
        unmixed, wave = wave, wave.mean(axis=channels[0])
        _check_mix("the array", np.square(wave).mean(), np.square(unmixed).mean())
    wave = wave.astype(np.float32)
    check_level("the array", np.abs(wave).max(initial=0))
    return soxr.resample(wave, sample_rate, SAMPLE_RATE) if wave.size else wave


def moments(wave):
    """
    Compute the mean, and the power as variance, of each block of 0.1 s.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 16 kHz; the last block is padded with zeros.

    Returns
    -------
    numpy.ndarray
        Means, then powers ``(2, blocks)``, float64.
    """
    wave = np.asarray(wave, np.float64)
    wave = np.pad(wave, (0, -len(wave) % LEVEL_BLOCK)).reshape(-1, LEVEL_BLOCK)
    return np.stack((wave.mean(axis=1), wave.var(axis=1)))


def _sounding(power):
    """Return which blocks are within 40 dB of the loudest; none of a silent one."""
    return power > 1e-4 * np.max(power, initial=0)


def offset(means, power):
    """
    Estimate the DC offset of a recording.

    Parameters
    ----------
    means, power : numpy.ndarray
        The recording's :func:`moments`.

    Returns
    -------
    float
        Mean of the blocks that sound; 0 for silence.
    """
    means = means[_sounding(power)]
    return float(means.mean()) if len(means) else 0.0


def gain(power):
    """
    Compute the gain that normalises a recording to :data:`LEVEL`.

    The level is the square root of the mean power, where each block is weighted by its
    power, so that neither silence nor a click counts for much. The transcriber
    is trained and used with the same gain.

    Parameters
    ----------
    power : numpy.ndarray
        Power of each block ``(blocks,)`` of the recording, from :func:`moments`.

    Returns
    -------
    float
        Factor for the samples; 1 for silence. Products may leave [-1, 1].

    Examples
    --------
    >>> wave = 0.001 * np.sin(np.arange(16000.0))
    >>> level = np.sqrt(np.mean((gain(moments(wave)[1]) * wave) ** 2))
    >>> round(float(level / LEVEL), 2)
    1.0
    """
    power = np.asarray(power, np.float64)
    level = np.square(power).sum() / max(power.sum(), SILENT)
    return 1.0 if level <= SILENT else float(LEVEL / np.sqrt(level))


def normalise(wave):
    """
    Remove the :func:`offset` of a whole recording, and normalise its level.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 16 kHz.

    Returns
    -------
    numpy.ndarray
        The waveform without offset, times its :func:`gain`.
    """
    means, power = moments(wave)
    return (wave - wave.dtype.type(offset(means, power))) * gain(power)


def middle(power, n_samples):
    """
    Return the bounds of a minute of a recording, used to estimate tuning.

    Its centre is the median of the blocks that sound, within 40 dB of the loudest, so
    that it is not silent.

    Parameters
    ----------
    power : numpy.ndarray
        Power of each block ``(blocks,)`` of the recording, from :func:`moments`.
    n_samples : int
        Length of the recording at 16 kHz.

    Returns
    -------
    tuple of int
        First sample of the minute, and the one after its last; those of the whole
        recording if it is shorter.

    Examples
    --------
    >>> middle(np.ones(10), 16000), middle(np.ones(1800), 180 * 16000)
    ((0, 16000), (960000, 1920000))
    """
    sounding = np.flatnonzero(_sounding(power))
    centre = int((np.median(sounding) + 0.5) * LEVEL_BLOCK) if len(sounding) else 0
    minute = 60 * SAMPLE_RATE
    start = max(0, min(centre - minute // 2, n_samples - minute))
    return start, min(start + minute, n_samples)


def tuning(wave):
    """
    Estimate the deviation of a recording's tuning from A4 = 440 Hz.

    The estimate is the circular mean of the deviations of spectral peaks from the
    nearest semitone, weighted by magnitude.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 16 kHz.

    Returns
    -------
    float
        Deviation in semitones, -0.5..0.5; 0 if the peaks do not agree, as in noise.

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
    before, centre, after = levels[:, k - 1], levels[:, k], levels[:, k + 1]
    loud = centre > centre.max(axis=1, keepdims=True) - 3  # 26 dB
    peak = (centre > before) & (centre >= after) & loud
    # Vertex of the parabola through three points.
    curve = np.where(peak, before - 2 * centre + after, 1)
    position = k + np.where(peak, (before - after) / (2 * curve), 0)
    pitch = 12 * np.log2(position * SAMPLE_RATE / size / A4)
    weight = np.where(peak, np.exp(centre), 0)
    total = (weight * np.exp(2j * np.pi * pitch)).sum()
    if abs(total) <= AGREEMENT * weight.sum():
        return 0.0
    return float(np.angle(total) / (2 * np.pi))


def to_pcm(wave):
    """
    Round a waveform to 16 bits, the input resolution of the models.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples, nominally within [-1, 1]; values beyond are clipped.

    Returns
    -------
    numpy.ndarray
        Little-endian int16 of the same shape.
    """
    return np.clip(np.round(wave * 32768), -32768, 32767).astype("<i2")


def rate(path):
    """
    Return the sample rate of an audio file.

    Parameters
    ----------
    path : str or Path
        Path to the audio file.

    Returns
    -------
    int
        Rate in Hz.

    Raises
    ------
    InputError
        If the file is missing or is not an audio file.
    """
    with containers.opened(path) as file:
        return file.rate


def duration(path):
    """
    Compute the duration of an audio file.

    The file is decoded only if its header states no duration.

    Parameters
    ----------
    path : str or Path
        Path to the audio file.

    Returns
    -------
    float
        Duration in seconds.

    Raises
    ------
    InputError
        If the file is missing, is not an audio file or has no samples.
    """
    with containers.opened(path) as file:
        seconds = file.stated or sum(map(len, file.chunks())) / file.rate
        if not seconds:
            raise InputError(f"{path}: is empty; expected audio")
        return seconds


def write(path, wave, sample_rate):
    """
    Write a waveform as 16-bit WAV, atomically.

    Parameters
    ----------
    path : str or Path
        Path to the file to write, ending in ``.wav``.
    wave : numpy.ndarray
        Waveform ``(samples,)``, float in [-1, 1] or int16.
    sample_rate : int
        Sample rate in Hz.

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
