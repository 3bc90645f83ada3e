"""
Features that no network learned: log-mel spectra, cepstra, constant-Q spectra.

All lie on the grid of 10 ms: frame ``i`` is centred on the middle of samples
``[160 i, 160 (i + 1))``. Recordings are analysed in pieces with a margin on both
sides that is longer than half of any window or filter.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np

from jtm.constants import HOP, PITCH_MIN, SAMPLE_RATE
from jtm.evaluation.streaming import PIECE, Source

FFT = 2048
"""Samples in a window of ``logmel`` and ``mfcc``: 128 ms."""

N_MELS = 229
"""Mel bands of ``logmel``, as in Onsets and Frames (Hawthorne et al. 2018)."""

MEL_MIN = 30.0
"""Lower edge of the lowest mel band in Hz."""

MEL_FLOOR = 1e-5
"""Magnitude added to ``logmel`` before the logarithm."""

MFCC_FLOOR = 1e-8
"""Power added to that of ``mfcc`` before the logarithm."""

N_MFCC = 20
"""Cepstral coefficients of ``mfcc``, beside their first differences."""

CQT_BINS = 2
"""Bins a semitone of ``cqt``."""

CQT_SEMITONES = 97
"""Semitones of ``cqt`` from A0 up, as far as a filter fits below 8 kHz."""

MARGIN = 128
"""Frames read on each side of a piece, more than any filter reaches: 1.28 s."""


class HandMadeSource(Source):
    """
    Features that no network learned, piece by piece.

    Parameters
    ----------
    name : {"logmel", "mfcc", "cqt"}
        Log-mel spectra, the usual input of deep audio models; cepstral coefficients
        with their first differences; or constant-Q spectra ``(frames, 97 * 2)`` in
        order of pitch from A0 up.
    """

    margin = MARGIN

    def __init__(self, name):
        self.name = name
        self.layers = (name,)

    @property
    def fingerprint(self):
        """What the features are, as text: a hash of this file and its constants."""
        hashed = hashlib.sha256(Path(__file__).read_bytes())
        settings = {
            name: value
            for name, value in globals().items()
            if name.isupper() and isinstance(value, (int, float))
        }
        hashed.update(repr((self.name, sorted(settings.items()))).encode())
        return hashed.hexdigest()

    def stream_together(self, recordings):
        """
        Compute the features; see :meth:`Source.stream_together`.

        Parameters
        ----------
        recordings : sequence of Audio
            Recordings of the same length, and as much of each wanted.

        Yields
        ------
        first : int
            First frame of the piece.
        features : numpy.ndarray
            Features ``(recordings, frames, dim)``, float32.
        """
        analyse = HAND_MADE[self.name]
        for first in range(0, recordings[0].n_frames(), PIECE):
            waves, (lead, *_), (n, *_) = zip(
                *(each.piece(first, PIECE, MARGIN) for each in recordings), strict=True
            )
            yield first, analyse(np.stack(waves))[:, lead : lead + n]


def _mel_power(wave, power):
    """Compute the mel spectrum ``(bands, frames)``, each on the middle of its frame."""
    import librosa

    return librosa.feature.melspectrogram(
        # Zeros on both sides put the middle of a window on the middle of its frame.
        y=np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [((FFT - HOP) // 2,) * 2]),
        sr=SAMPLE_RATE,
        n_fft=FFT,
        hop_length=HOP,
        center=False,
        power=power,
        n_mels=N_MELS,
        fmin=MEL_MIN,
    )


def _log_mel(wave):
    """Compute log-mel magnitudes ``(..., frames, 229)`` of waves ``(..., samples)``."""
    return np.log(_mel_power(wave, 1.0).swapaxes(-1, -2) + MEL_FLOOR)


def _mfcc(wave):
    """Compute coefficients, then how fast they change ``(..., frames, 2 * 20)``."""
    import librosa

    decibels = 10 * np.log10(_mel_power(wave, 2.0) + MFCC_FLOOR)
    cepstrum = librosa.feature.mfcc(S=decibels, n_mfcc=N_MFCC)
    delta = librosa.feature.delta(cepstrum, mode="nearest")
    return np.concatenate((cepstrum, delta), axis=-2).swapaxes(-1, -2)


def cqt(wave):
    """
    Compute a constant-Q spectrum (Brown 1991).

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
        # A single note is shorter than the longest filters, which see silence.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        spectrum = librosa.cqt(
            # librosa centres frame i on sample 160 i; half a hop less at the start
            # puts it on the middle of the frame.
            np.concatenate((wave[..., HOP // 2 :], silence), axis=-1),
            sr=SAMPLE_RATE,
            hop_length=HOP,
            fmin=440 * 2 ** ((PITCH_MIN - 69) / 12),
            n_bins=CQT_SEMITONES * CQT_BINS,
            bins_per_octave=12 * CQT_BINS,
            dtype=np.complex64,
        )[..., : wave.shape[-1] // HOP]
    return np.log1p(1e5 * np.abs(spectrum.swapaxes(-1, -2)) ** 2) / 18


HAND_MADE = {"logmel": _log_mel, "mfcc": _mfcc, "cqt": cqt}
"""Features that no network learned, by name."""
