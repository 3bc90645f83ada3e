"""
Sound files and the time grids of the project.

Three units of time meet here: seconds, samples at some rate, and frames. Frame
``i`` covers samples ``[i * hop, (i + 1) * hop)`` at 16 kHz and is labelled by
what sounds at its centre, so audio and labels are cut with the same indices.
"""

import os

import numpy as np
import soundfile
import soxr

from jtm.constants import FRAME_RATE, SAMPLE_RATE
from jtm.files import InputError, atomic

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Endings of the sound files that are read, in lower case."""


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
        If the file is missing, is not a sound file or holds no sample.
    """
    empty = True
    try:
        with soundfile.SoundFile(_named(path)) as file:
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1)
            while True:
                block = file.read(1 << 18, dtype="float32", always_2d=True)
                if not np.isfinite(block).all():
                    raise InputError(f"{path}: holds samples that are not numbers")
                last = not len(block)
                wave = block.mean(axis=1)
                if file.samplerate != sample_rate:
                    wave = resampler.resample_chunk(wave, last=last)
                if wave.size:
                    empty = False
                    yield wave
                if last:
                    break
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(_unreadable(path)) from error
    if empty:
        raise InputError(_unreadable(path))


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
    Tell the length of a sound file from its header.

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
        info = soundfile.info(_named(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(_unreadable(path)) from error
    if not info.frames:
        raise InputError(_unreadable(path))
    return info.frames / info.samplerate


def _named(path):
    """Name a file as soundfile takes it, whose names need not be valid UTF-8."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


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
    Give the time of the centre of each frame.

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
    Give the frame that each time falls in.

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
