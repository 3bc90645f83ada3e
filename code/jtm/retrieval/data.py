"""
Pairs: windows of audio and the passages of the score that are played in them.

The dataset is in MusicNet's layout with beats in its labels, as in MusicNet itself and
the output of ``toy/pairs.py``. Audio time is in seconds, score time in quarter notes.
"""

import numpy as np
import torch

from jtm.constants import FRAME_RATE, LABEL_RATE
from jtm.data.musicnet import open_dataset, read_labels
from jtm.data.store import build_store
from jtm.data.windows import Draws
from jtm.files import InputError
from jtm.models.pitchmap import PitchMapEncoder
from jtm.music import notation
from jtm.results.records import TESTS
from jtm.retrieval.config import BATCHES, FRAMES, JITTER, PER_WORK, POOL, SHIFT
from jtm.training.spectra import Spectra, harmonic_front_end

SECONDS = FRAMES * POOL / FRAME_RATE  # length of a window: 2 s
GRID = POOL / FRAME_RATE  # seconds between averaged frames; windows start on one
BINS_PER_SEMITONE = PitchMapEncoder.passed  # of log magnitudes
MIN_ONSETS = 3  # minimum number of onsets in a passage


class _Aligned:
    """
    The alignment of a recording with its score, from its labels.

    Attributes are its `notes`, of :data:`jtm.music.notation.NOTE`, and the times of the
    `first` and the `last` onset in seconds.
    """

    def __init__(self, labels):
        self.notes = np.zeros(len(labels), notation.NOTE)
        self.notes["beat"] = labels["start_beat"]
        self.notes["beats"] = labels["beats"]
        self.notes["pitch"] = labels["pitch"]
        self._beats, beat = np.unique(labels["start_beat"], return_inverse=True)
        seconds = np.bincount(beat, labels["start"] / LABEL_RATE) / np.bincount(beat)
        self._seconds = np.maximum.accumulate(seconds)
        self.first, self.last = self._seconds[[0, -1]]

    def beats(self, seconds):
        """Convert time in seconds to score time in quarter notes."""
        return np.interp(seconds, self._seconds, self._beats)

    def passage(self, start):
        """Return both ends of the passage in the window that starts at `start`."""
        return self.beats((start, start + SECONDS))

    def has_onsets(self, first, last):
        """Check whether enough notes start in a passage."""
        beat = self.notes["beat"]
        return np.count_nonzero((beat >= first) & (beat < last)) >= MIN_ONSETS


class Recordings:
    """
    The recordings of a dataset, with their scores and log magnitudes.

    Parameters
    ----------
    data : str or Path
        Folder of the dataset.
    work : str or Path
        Folder for cached log magnitudes.
    progress : bool
        Whether to show progress bars.

    Raises
    ------
    InputError
        If the dataset is missing or damaged, or a split has no labels with beats.
    """

    def __init__(self, data, work, progress=True):
        dataset = open_dataset(data)
        self._pooled = {}
        self.aligned, self.splits = {}, {}
        for index, recording in enumerate(dataset.recordings):
            if recording.labels is None:
                continue
            labels = read_labels(recording.labels)
            if len(np.unique(labels["start_beat"])) < MIN_ONSETS:
                continue
            self.aligned[index] = _Aligned(labels)
            self.splits.setdefault(recording.split, []).append(index)
        if missing := [
            s for s in ("train", "validation", *TESTS) if s not in self.splits
        ]:
            raise InputError(
                f"{data}: no labels with beats in {', '.join(missing)}; "
                "generate a set by `python toy/pairs.py --out DIR`"
            )
        self.store = build_store(dataset, progress=progress)
        front_end = harmonic_front_end(PitchMapEncoder())
        self.spectra = Spectra(self.store, front_end, work)

    def window(self, index, seconds):
        """Read the averaged log magnitudes of a window."""
        if index not in self._pooled:  # 36 MB an hour
            self._pooled[index] = pool(self.spectra.read(index)).astype(np.float16)
        first = round(seconds / GRID)
        window = self._pooled[index][first:][:FRAMES].astype(np.float32)
        return np.pad(window, ((0, FRAMES - len(window)), (0, 0)))

    def windows(self, split, step=SECONDS):
        """List windows of a split, `step` seconds apart, with enough onsets."""
        windows = []
        for index in self.splits[split]:
            aligned = self.aligned[index]
            first = np.ceil(aligned.first / GRID) * GRID
            for start in np.arange(first, aligned.last - SECONDS, step):
                if aligned.has_onsets(*aligned.passage(start)):
                    windows.append((index, float(start)))
        return windows

    def pairs(self, windows):
        """Read log magnitudes, rolls and cells of windows."""
        magnitudes = np.stack([self.window(*window) for window in windows])
        scores = [(self.aligned[index], start) for index, start in windows]
        rolls = [notation.roll(a.notes, *a.passage(start)) for a, start in scores]
        return magnitudes, *map(np.stack, zip(*rolls, strict=True))


def pool(magnitudes):
    """
    Average log magnitudes over :data:`jtm.retrieval.config.POOL` frames.

    Parameters
    ----------
    magnitudes : numpy.ndarray
        Log magnitudes ``(frames of 10 ms, bins)``.

    Returns
    -------
    numpy.ndarray
        Averaged log magnitudes ``(frames // POOL, bins)``, of the same type.
    """
    whole = len(magnitudes) // POOL * POOL
    return magnitudes[:whole].reshape(-1, POOL, magnitudes.shape[1]).mean(1)


def transpose(array, steps, axis, fill=0.0):
    """
    Transpose log magnitudes, features or rolls by shifting them along the pitch axis.

    Parameters
    ----------
    array : numpy.ndarray
        Log magnitudes, features or rolls.
    steps : int
        Shift in bins; negative for down.
    axis : int
        Pitch axis.
    fill : float or numpy.ndarray
        Values for the gap, broadcast to the shape of the array.

    Returns
    -------
    numpy.ndarray
        Shifted array of the same shape.
    """
    shifted = np.roll(array, steps, axis)
    gap = slice(steps) if steps >= 0 else slice(steps, None)
    fill = np.broadcast_to(fill, array.shape)
    np.moveaxis(shifted, axis, 0)[gap] = np.moveaxis(fill, axis, 0)[gap]
    return shifted


class Pairs(Draws):
    """
    Draw batches of pairs: several windows of each of several works.

    Parameters
    ----------
    recordings : Recordings
        The dataset.
    indices : sequence of int
        Indices of the recordings to draw from.
    batch_size : int
        Number of pairs per batch.
    seed : int
        Random seed.
    n_batches : int
        Number of batches per epoch.

    Raises
    ------
    InputError
        If every recording is shorter than a window.
    """

    def __init__(self, recordings, indices, batch_size, seed=0, n_batches=BATCHES):
        super().__init__(n_batches, seed)
        self.recordings, self.batch_size = recordings, batch_size
        aligned = recordings.aligned
        self.indices = [
            i for i in indices if aligned[i].last - aligned[i].first > SECONDS
        ]
        if not self.indices:
            raise InputError(f"no training recording with beats lasts {SECONDS:g} s")

    def draw(self, rng):
        """Draw a batch: log magnitudes, rolls and cells."""
        works = -(-self.batch_size // PER_WORK)
        again = works > len(self.indices)
        chosen = rng.choice(self.indices, works, replace=again)
        drawn = [
            self._pair(int(index), rng)
            for index in np.repeat(chosen, PER_WORK)[: self.batch_size]
        ]
        return tuple(torch.from_numpy(np.stack(x)) for x in zip(*drawn, strict=True))

    def _pair(self, index, rng):
        """Draw a pair from a recording: log magnitudes, roll and cells."""
        aligned = self.recordings.aligned[index]
        for _ in range(8):
            start = rng.uniform(aligned.first, aligned.last - SECONDS)
            start = GRID * round(start / GRID)
            ends = aligned.passage(start)
            if aligned.has_onsets(*ends):
                break
        ends = ends + rng.uniform(-JITTER, JITTER, 2) * (ends[1] - ends[0])
        roll, cells = notation.roll(aligned.notes, *ends)
        semitones = int(rng.integers(-SHIFT, SHIFT + 1))
        magnitudes = self.recordings.window(index, start)
        magnitudes = transpose(magnitudes, semitones * BINS_PER_SEMITONE, 1)
        return magnitudes, transpose(roll, semitones, 1), cells
