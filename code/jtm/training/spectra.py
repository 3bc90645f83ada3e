"""
Log magnitudes of recordings, computed once and cached on disk.

The front end of an encoder with a pitch axis is fixed unless its filters are learned,
so its output need not be computed again in each epoch.
"""

import contextlib
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import HOP
from jtm.files import atomic
from jtm.music.audio import A4, gain, middle, moments, offset, tuning

BLOCK = 4096  # frames computed at a time: 41 s


class FrontEnd(NamedTuple):
    """
    A fixed transform of audio into log magnitudes.

    Parameters
    ----------
    analyse : callable
        Returns log magnitudes ``(frames, bins)``, one frame for each hop of 10 ms, from
        samples ``(samples,)`` at 16 kHz, float32 in [-1, 1], and, if it has a pitch
        axis, from their tuning in semitones relative to A4 at 440 Hz.
    margin : int
        Maximum number of frames on either side that a frame depends on.
    key : str
        Identifies the transform.
    """

    analyse: object
    margin: int
    key: str


def harmonic_front_end(encoder):
    """
    Make a front end from an encoder with a pitch axis and fixed filters.

    Parameters
    ----------
    encoder : jtm.models.encoder.HarmonicStack
        The encoder.

    Returns
    -------
    FrontEnd
        Its log magnitudes.
    """
    filters = encoder.filters
    kernels = filters.kernels().detach().cpu().numpy()

    @torch.no_grad()
    def analyse(wave, tuning=0.0):
        wave = torch.from_numpy(wave).to(filters.time.device)
        return filters(wave[None, None], tuning)[0].cpu().numpy()

    hasher = hashlib.sha256(kernels.tobytes())
    noise = np.random.default_rng(0).standard_normal(16 * HOP).astype(np.float32)
    for level in (0.001, 0.1):  # rounded, as other machines compute other last digits
        hasher.update(np.round(1e3 * analyse(level * noise).mean(0)).tobytes())
    key = hasher.hexdigest()[:16]
    return FrontEnd(analyse, -(-filters.kernel // HOP), key)


class Spectra:
    """
    Log magnitudes of the recordings of a store.

    Parameters
    ----------
    store : Store
        The recordings.
    front_end : FrontEnd
        Front end that computes them.
    folder : str or Path
        Path to the cache: 40 kB for each second of audio, one file per recording, named
        by the recording's checksum and annotated tuning, in a subfolder for the front
        end.
    tuned : bool
        Whether to normalise each recording in level and tuning first, by
        :func:`jtm.music.audio.gain` and :func:`jtm.music.audio.tuning`. Tuning is
        estimated modulo one semitone; the metadata column ``tuning`` (A4 in Hz)
        resolves the semitone if it is given.
    """

    def __init__(self, store, front_end, folder, tuned=False):
        self.store = store
        self.front_end = front_end
        self.tuned = tuned
        kind = "tuned" if tuned else "magnitudes"
        self.folder = Path(folder) / f"{kind}-{front_end.key}"

    def prepare(self, indices, progress=True):
        """Compute and cache the magnitudes of recordings that are not yet cached."""
        missing = [i for i in indices if not self._path(i).exists()]
        hide = not (progress and missing)
        for index in tqdm(missing, "Magnitudes", unit="recording", disable=hide):
            with atomic(self._path(index)) as part, open(part, "wb") as file:
                np.save(file, self._compute(index))

    def _path(self, index):
        """Return the path to the cached magnitudes of a recording."""
        cents = self._annotated(index) if self.tuned else None
        suffix = "" if cents is None else f"{cents:+}"
        return self.folder / f"{self.store.checksums[index]}{suffix}.npy"

    def _compute(self, index):
        """Compute the magnitudes ``(frames, bins)`` of a recording in blocks."""
        n_frames = int(self.store.lengths[index]) // HOP
        blocks, margin = [], self.front_end.margin
        scale, shift, tuned = 1 / 32768, 0.0, ()
        if self.tuned:
            wave = self.store.read(index).astype(np.float32) / 32768
            means, power = moments(wave)
            scale, shift = scale * gain(power), 32768 * offset(means, power)
            tuned = (self._tuning(index, wave, power),)
        for first in range(0, n_frames, BLOCK):
            last = min(first + BLOCK, n_frames)
            start, stop = max(0, first - margin), min(last + margin, n_frames)
            wave = self.store.read(index, HOP * start, HOP * stop)
            wave = (wave.astype(np.float32) - np.float32(shift)) * np.float32(scale)
            block = self.front_end.analyse(wave, *tuned)
            blocks.append(block[first - start :][: last - first].astype(np.float16))
        return np.concatenate(blocks)

    def _tuning(self, index, wave, power):
        """Return the tuning of a recording in semitones relative to A4 at 440 Hz."""
        estimate = tuning(wave[slice(*middle(power, len(wave)))])
        cents = self._annotated(index)
        return estimate if cents is None else estimate + round(cents / 100 - estimate)

    def _annotated(self, index):
        """Return the tuning in the metadata in cents relative to 440 Hz, or None."""
        annotated = self.store.recordings[index].metadata.get("tuning")
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # no number
            return round(1200 * math.log2(float(annotated) / A4))
        return None

    def read(self, index, first=0, n_frames=None):
        """
        Read magnitudes ``(n_frames, bins)``, float32, of a recording of the store.

        Frames before its start or after its end are 0, which is silence.
        """
        self.prepare([index], progress=False)
        # Opened each time, since the system limits the number of open files.
        cached = np.load(self._path(index), mmap_mode="r")
        last = len(cached) if n_frames is None else first + n_frames
        rows = cached[max(0, first) : max(0, last)].astype(np.float32)
        before = min(max(0, -first), last - first)
        return np.pad(rows, ((before, last - first - before - len(rows)), (0, 0)))
