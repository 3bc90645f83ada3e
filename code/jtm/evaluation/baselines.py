"""
Hand-crafted features: log-mel and constant-Q spectrograms.

All share the 10 ms frame grid: frame ``i`` is centred on the middle of samples
``[160 i, 160 (i + 1))``. Recordings are analysed in chunks with a margin on both
sides that is longer than half of any window or filter.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np

from jtm.constants import HOP, PITCH_MIN, SAMPLE_RATE

FFT = 2048
"""Window length of ``logmel`` in samples: 128 ms."""

N_MELS = 229
"""Number of mel bands, as in Onsets and Frames (Hawthorne et al. 2018)."""

MEL_MIN = 30.0
"""Lower edge of the lowest mel band in Hz."""

MEL_FLOOR = 1e-5
"""Magnitude added to ``logmel`` before the logarithm."""

CQT_BINS = 2
"""Bins per semitone of ``cqt``."""

CQT_SEMITONES = 97
"""Range of ``cqt`` in semitones from A0 up, as far as filters fit below 8 kHz."""

MARGIN = 128
"""Frames read on each side of a chunk, more than any filter reaches: 1.28 s."""


def fingerprint(name):
    """
    Hash a feature's name, this file and its constants, for use as a cache key.

    Parameters
    ----------
    name : str
        Key in :data:`HAND_MADE`.

    Returns
    -------
    str
        The first 16 hexadecimal digits of the hash.
    """
    hashed = hashlib.sha256(Path(__file__).read_bytes())
    settings = {
        name: value
        for name, value in globals().items()
        if name.isupper() and isinstance(value, (int, float))
    }
    hashed.update(repr((name, sorted(settings.items()))).encode())
    return hashed.hexdigest()[:16]


def _log_mel(wave):
    """Compute log-mel magnitudes ``(..., frames, 229)`` of ``(..., samples)``."""
    import librosa

    # Zero padding on both sides centres each window on its frame.
    margins = [(0, 0)] * (wave.ndim - 1) + [((FFT - HOP) // 2,) * 2]
    spectrum = librosa.feature.melspectrogram(
        y=np.pad(wave, margins),
        sr=SAMPLE_RATE,
        n_fft=FFT,
        hop_length=HOP,
        center=False,
        power=1.0,
        n_mels=N_MELS,
        fmin=MEL_MIN,
    )
    return np.log(spectrum.swapaxes(-1, -2) + MEL_FLOOR)


def cqt(wave):
    """
    Compute a constant-Q spectrogram (Brown 1991).

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(..., samples)`` at 16 kHz, float32.

    Returns
    -------
    numpy.ndarray
        Magnitudes ``(..., frames, 97 * 2)``, two bins a semitone from A0 up, on a
        logarithmic scale of about 0 to 1 as in
        :func:`jtm.models.encoder.log_magnitude`.
    """
    import librosa

    silence = np.zeros_like(wave[..., : HOP // 2])
    with warnings.catch_warnings():
        # A single note is shorter than the longest filters; it is padded with zeros.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        spectrum = librosa.cqt(
            # librosa centres frame i on sample 160 i; dropping half a hop at the
            # start centres it on the middle of the frame.
            np.concatenate((wave[..., HOP // 2 :], silence), axis=-1),
            sr=SAMPLE_RATE,
            hop_length=HOP,
            fmin=440 * 2 ** ((PITCH_MIN - 69) / 12),
            n_bins=CQT_SEMITONES * CQT_BINS,
            bins_per_octave=12 * CQT_BINS,
            dtype=np.complex64,
        )[..., : wave.shape[-1] // HOP]
    return np.log1p(1e5 * np.abs(spectrum.swapaxes(-1, -2)) ** 2) / 18


HAND_MADE = {"logmel": _log_mel, "cqt": cqt}
"""Hand-crafted features by name."""
