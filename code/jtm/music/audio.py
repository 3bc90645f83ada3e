"""
Sound files and the time grids of the project.

Three units of time meet here: seconds, samples at some rate, and frames. Frame
``i`` covers samples ``[i * hop, (i + 1) * hop)`` at 16 kHz and is labelled by
what sounds at its centre, so audio and labels are cut with the same indices.
"""

import numpy as np
import soundfile
import soxr

from jtm.constants import FRAME_RATE, SAMPLE_RATE
from jtm.files import InputError, atomic, warn
from jtm.music import containers

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Endings of the sound files that are read, in lower case."""

ABSURD_PEAK = 16.0
"""Peak from which samples are not a loud recording but of another scale."""

LOUD_PEAK = 10 ** (1 / 20)
"""Peak above which clipping is warned of; lossy decoders overshoot by up to 1 dB."""


def blocks(path, sample_rate=SAMPLE_RATE):
    """
    Read a sound file piece by piece, as one channel at the rate asked for.

    Parameters
    ----------
    path : str or Path
        WAV, FLAC, OGG or MP3, any rate, any number of channels, any length.
    sample_rate : int
        Rate of the result in Hz; resampled with soxr where the file differs.

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
        If the file is cut off or longer than its header states, or samples
        beyond full scale will be clipped.
    """
    frames, peak = 0, 0.0
    try:
        with containers.opened(path) as (file, stated):
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1)
            for block in containers.pieces(path, file):
                check_level(path, np.abs(block).max())
                frames += len(block)
                wave = block.mean(axis=1)
                peak = max(peak, np.abs(wave).max())
                if file.samplerate != sample_rate:
                    wave = resampler.resample_chunk(wave)
                if wave.size:
                    yield wave
            if file.samplerate != sample_rate:
                wave = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                if wave.size:
                    yield wave
            if frames:
                seconds = frames / file.samplerate
                containers.tell_end(path, file, seconds, stated)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(_unreadable(path)) from error
    if not frames:
        raise InputError(_unreadable(path))
    if peak > LOUD_PEAK:
        decibels = 20 * np.log10(peak)
        warn(f"{path}: up to {decibels:.1f} dB beyond full scale, where it is clipped")


def check_level(name, peak):
    """
    Refuse samples that are not finite or of another scale.

    Parameters
    ----------
    name : str or Path
        What holds them, for the message.
    peak : float
        The largest absolute sample.

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


def read(path, sample_rate=SAMPLE_RATE):
    """
    Read a sound file whole, as one channel at the rate asked for.

    Parameters
    ----------
    path : str or Path
        WAV, FLAC, OGG or MP3, any rate, any number of channels.
    sample_rate : int
        Rate of the result in Hz.

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
    return np.concatenate(list(blocks(path, sample_rate)))


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
    try:
        seconds = containers.seconds(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(_unreadable(path)) from error
    if not seconds:
        raise InputError(_unreadable(path))
    return seconds


def _unreadable(path):
    return (
        f"{path}: empty, missing or not a readable sound file "
        f"(expected {', '.join(AUDIO_SUFFIXES)}); replace or remove it"
    )


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


def frames_to_seconds(frames):
    """
    Compute the time of the centre of each frame.

    Parameters
    ----------
    frames : int or numpy.ndarray
        Frame indices from the start of a recording.

    Returns
    -------
    float or numpy.ndarray
        Seconds from the start of the recording.

    See Also
    --------
    seconds_to_frames : The inverse.

    Examples
    --------
    >>> frames_to_seconds(0)
    0.005
    """
    return (frames + 0.5) / FRAME_RATE


def seconds_to_frames(seconds):
    """
    Compute the frame that each time falls in.

    Parameters
    ----------
    seconds : float or numpy.ndarray
        Seconds from the start of a recording.

    Returns
    -------
    numpy.ndarray
        Frame indices, int64.

    See Also
    --------
    frames_to_seconds : The inverse, at the centre of the frame.

    Examples
    --------
    >>> int(seconds_to_frames(0.019))
    1
    """
    return np.floor(np.asarray(seconds) * FRAME_RATE).astype(np.int64)
