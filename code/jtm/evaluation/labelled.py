"""
Labelled recordings of a store for a task, and the choice of labels for training.

Experiments with few labels use those of a few whole recordings, as annotators produce
them; see :func:`labelled_recordings`.
"""

import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from jtm.constants import (
    FRAME_RATE,
    HOP,
    INSTRUMENTS,
    LABEL_RATE,
    N_PITCHES,
    SAMPLE_RATE,
)
from jtm.data import rolls
from jtm.data.clips import CLIP_SPLITS, CLIPS_FILE, CLIPS_FOLDER, read_clips
from jtm.data.musicnet import Dataset, Recording
from jtm.data.rolls import WINDOW, frame_numbers
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation.tasks import (
    CLIP,
    CLIP_LEAD,
    DECODED,
    EVALUATED,
    MINIMUM,
    PITCH_NAMES,
    TASKS,
    Task,
)
from jtm.files import InputError
from jtm.training.labels import UNKNOWN

SECONDS = 30.0
"""Labelled seconds per training recording, when the number of recordings is limited."""


def clip_store(root, progress=True):
    """
    Open the single-note clips of a dataset at 16 kHz.

    Parameters
    ----------
    root : str or Path
        Folder of the dataset.
    progress : bool
        Whether to show a progress bar while the store is built.

    Returns
    -------
    Store
        The clips; the metadata of each hold its ``pitch``, ``instrument`` and ``onset``
        in seconds.

    Raises
    ------
    InputError
        If the dataset has no single-note clips, or one's note starts after its end.
    """
    recordings, folder = [], Path(root) / CLIPS_FOLDER
    for clip in read_clips(root):
        name = clip.audio.relative_to(folder).with_suffix("").as_posix()
        metadata = {
            "pitch": f"{clip.pitch:03}",
            "instrument": INSTRUMENTS[clip.program],
            "onset": clip.start / LABEL_RATE,
        }
        recordings.append(Recording(name, clip.audio, None, clip.split, metadata))
    dataset = Dataset(Path(root), tuple(recordings))
    store = build_store(dataset, progress=progress, part="notes")
    for recording, length in zip(recordings, store.lengths, strict=True):
        if recording.metadata["onset"] * SAMPLE_RATE >= length:
            raise InputError(
                f"{recording.audio}: its note starts after the end of the audio; "
                f"expected the notes of these files in {CLIPS_FILE}"
            )
    return store


def note_cache(store):
    """
    Return a cached function that reads the notes of a recording.

    Parameters
    ----------
    store : Store
        The recordings.

    Returns
    -------
    callable
        Maps the index of a recording to its notes ``(notes,)`` of
        :data:`jtm.data.rolls.PLAYED_DTYPE`.
    """
    return functools.cache(
        lambda i: rolls.read_notes(store.recordings[i], int(store.lengths[i]))
    )


def evenly(rows, maximum):
    """
    Select evenly spaced rows.

    Parameters
    ----------
    rows : numpy.ndarray
        Rows in the order of recordings.
    maximum : int
        Maximum number of rows.

    Returns
    -------
    numpy.ndarray
        At most `maximum` rows, in their order.
    """
    n = min(maximum, len(rows))
    return rows[np.arange(n) * len(rows) // max(n, 1)]


@dataclass(frozen=True)
class Labelled:
    """
    The labelled recordings, or clips, of a store, and their targets for a task.

    Methods take the name of a split, or the index of a recording in the store; frames
    are 10 ms.

    Parameters
    ----------
    store : Store
        The recordings.
    splits : dict of str to list of int
        Indices of the labelled recordings, by split.
    task : Task
        The task.
    classes : tuple of str
        Class names; empty if the task is not a classification.
    names : dict of int to str
        Class of each recording, for classification.
    groups : dict of int to str
        Bootstrap group of each recording: its tune family if known, else the recording
        itself; for clips, the note.
    lengths : dict of str to int
        Number of 10 ms frames evaluated from the start of a recording, by split.
    notes : callable
        Maps the index of a recording to its notes ``(notes,)`` of
        :data:`jtm.data.rolls.PLAYED_DTYPE`.
    """

    store: object
    splits: dict
    task: Task
    classes: tuple = ()
    names: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)
    lengths: dict = field(default_factory=dict)
    notes: object = None

    @classmethod
    def of(cls, store, name, notes=None):
        """
        Collect a store's labelled recordings for a task.

        Parameters
        ----------
        store : Store
            The recordings, or the clips for single-note tasks.
        name : str
            Name of the task.
        notes : callable, optional
            Function from :func:`note_cache`; tasks that share one read each label file
            only once.

        Returns
        -------
        Labelled
            The recordings, checked for what the task needs; those whose class is
            empty in the metadata are excluded.

        Raises
        ------
        InputError
            If a split is empty, or a class is missing or occurs in no training
            recording.
        """
        notes = notes or note_cache(store)
        task, recordings = TASKS[name], store.recordings
        names, groups, lengths = {}, {}, {}
        if task.unit == "clips":
            splits = {s: [] for s in CLIP_SPLITS}
            for index, recording in enumerate(recordings):
                splits[recording.split].append(index)
        else:
            splits = labelled_splits(recordings, store.lengths)
            windows = DECODED if task.unit == "notes" else EVALUATED
            for split, n in windows.items():
                n_windows = n // max(1, len(splits.get(split, ())))
                lengths[split] = WINDOW * max(MINIMUM[task.unit], n_windows)
        for index in itertools.chain(*splits.values()):
            recording, metadata = recordings[index], recordings[index].metadata
            groups[index] = metadata.get("tune_family") or f"recording {index}"
            if task.unit == "clips":
                groups[index] = f"{metadata['instrument']} {metadata['pitch']}"
            names[index] = task.class_of(recording, functools.partial(notes, index))
        # A cell may be empty, such as the composer of an exercise; a missing column is
        # an error.
        splits = {
            split: [index for index in indices if names[index] != ""]
            for split, indices in splits.items()
        }
        classes = ()
        if not task.shape:
            known = {names[index] for index in splits["train"]}
            classes = task.classes(known)
            for split, index in ((s, i) for s in splits for i in splits[s]):
                if names[index] not in known:
                    raise InputError(
                        f"{recordings[index].audio}: {name} '{names[index]}' occurs in "
                        f"the {split} split but in no training recording, so it can't "
                        "be learned; move a recording of it to training or exclude "
                        "this one"
                    )
        for split in ("validation", "test"):
            if not splits[split]:
                raise InputError(
                    f"no {task.unit} in the {split} split with a label of {name}"
                )
        return cls(store, splits, task, classes, names, groups, lengths, notes)

    @property
    def shape(self):
        """Shape of the logits of a frame, window or clip."""
        return self.task.shape or (len(self.classes),)

    @property
    def head(self):
        """Kind and size of the task's head; see :func:`jtm.models.heads.add_heads`."""
        if self.classes:
            on_axis = self.classes == PITCH_NAMES
            return "pitch" if on_axis else "windows", len(self.classes)
        if self.shape[-1] == N_PITCHES:
            return "map", int(np.prod(self.shape[:-1]))
        return "frames", self.shape[0]

    def length(self, split, index):
        """Return the number of frames used of a recording: all of them in training."""
        n_frames = int(self.store.lengths[index]) // HOP
        return min(n_frames, self.lengths.get(split, n_frames))

    def classes_of(self, indices):
        """Return the class indices of recordings ``(recordings,)``."""
        return np.searchsorted(self.classes, [self.names[i] for i in indices])

    def groups_of(self, split):
        """Return the bootstrap group of each recording of a split."""
        return [self.groups[index] for index in self.splits[split]]

    def clip_start(self, index):
        """Return the first frame used of a clip, `CLIP_LEAD` before its onset."""
        onset = self.store.recordings[index].metadata["onset"]
        return max(0, round(onset * FRAME_RATE) - CLIP_LEAD)

    def rolls(self, index, n_frames, start=0):
        """Compute the targets of frames of a recording ``(n_frames, *shape)``."""
        return self.task.targets(self.notes(index), n_frames, start)

    def target(self, index, first, n_frames):
        """Return the target of a window: its class, or its frame-wise targets."""
        if self.classes:
            name = self.names[index]
            return np.int64(self.classes_of([index])[0] if name else UNKNOWN)
        target = self.rolls(index, n_frames, first)
        return target[:, None] if self.shape == (N_PITCHES,) else target

    @functools.cached_property
    def _targets(self):
        """Cached function that computes the targets of every `step`-th frame."""
        return functools.cache(
            lambda index, n, step: self.rolls(index, n)[frame_numbers(n, step)]
        )

    def truths(self, split, step=None):
        """
        List frame targets ``(frames, *shape)`` of the recordings of a split.

        They cover the evaluated frames, or every `step`-th frame.
        """
        return [
            self._targets(index, self.length(split, index), step or self.task.step)
            for index in self.splits[split]
        ]

    def references(self, split):
        """List the reference notes in the evaluated excerpt of each recording."""
        return [self.notes_until(i, self.length(split, i)) for i in self.splits[split]]

    def notes_until(self, index, n_frames):
        """Return the notes in the first `n_frames` frames of a recording."""
        end = n_frames / FRAME_RATE
        notes = self.notes(index)
        notes = notes[notes["start"] < end]
        notes["end"] = np.minimum(notes["end"], end)
        return notes


def labelled_recordings(labelled, n=0, seed=0):
    """
    Draw the training recordings whose labels are used, and the labelled span of each.

    Recordings are chosen greedily to cover instruments (for tasks about instruments) or
    classes (for classification) within their labelled spans; once no recording adds
    any, the others are drawn at random. The beginning of each is labelled.

    Parameters
    ----------
    labelled : Labelled
        The recordings of a task. For single-note clips, as many clips are drawn as add
        up to the labelled duration of `n` recordings, or all if they are fewer.
    n : int
        Number of recordings; 0 uses all, each as a whole.
    seed : int
        Random seed of the order; with the same seed, a smaller `n` gives a subset.

    Returns
    -------
    numpy.ndarray
        Rows ``(recordings, 3)`` in the order drawn: index, first labelled frame, and
        last labelled frame + 1.

    Raises
    ------
    InputError
        If there are fewer than `n` recordings, other than clips.
    """
    indices = labelled.splits["train"]
    if labelled.task.unit == "clips":
        n_clips = round(n * SECONDS * FRAME_RATE / CLIP) if n else len(indices)
        order = np.random.default_rng(seed).permutation(indices)
        names = pd.Series([labelled.names[i] for i in order])
        # Alternate between classes.
        order = order[np.argsort(names.groupby(names).cumcount(), kind="stable")]
        starts = [labelled.clip_start(i) for i in order[:n_clips]]
        return np.array([order[:n_clips], starts, starts]).T + (0, 0, CLIP_LEAD + CLIP)
    if n and n > len(indices):
        raise InputError(
            f"{n} labelled recordings; the training split has {len(indices)}"
        )
    spans = [(i, 0, labelled.length("train", i)) for i in indices]
    if not n:
        return np.array(spans, np.int64)
    maximum = round(SECONDS * FRAME_RATE)
    spans = [(index, first, min(stop, maximum)) for index, first, stop in spans]
    content = [_content(labelled, *span) for span in spans]
    remaining = np.random.default_rng(seed).permutation(len(spans)).tolist()
    drawn, covered = [], set()
    for _ in range(n):  # of equals the first, so at random if none adds any
        best = max(remaining, key=lambda row: len(content[row] - covered))
        covered |= content[best]
        remaining.remove(best)
        drawn.append(spans[best])
    return np.array(drawn, np.int64)


def _content(labelled, index, first, stop):
    """Return the set of instruments, or the class, that a labelled span contains."""
    if labelled.classes:
        return {labelled.names[index]}
    if not labelled.task.instruments:
        return set()
    roll = rolls.instrument_roll(labelled.notes(index), stop - first, first)
    return set(np.flatnonzero(roll.any(axis=0)).tolist())
