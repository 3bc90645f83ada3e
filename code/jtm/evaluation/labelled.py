"""
Labelled recordings of a store, sorted for a task, and which labels may be seen.

Labels are given out as whole recordings, as people label them
(:func:`labelled_recordings`).
"""

import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from jtm.constants import FRAME_RATE, HOP, INSTRUMENTS, LABEL_RATE, N_PITCHES
from jtm.data import rolls
from jtm.data.clips import read_clips
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
"""Seconds of each recording that are labelled, where not all are."""


def clip_store(root, progress=True):
    """
    Open the single notes of a dataset at 16 kHz.

    Parameters
    ----------
    root : str or Path
        The dataset's folder.
    progress : bool
        Show a progress bar where they are read first.

    Returns
    -------
    Store
        The clips; each one's metadata holds its ``pitch``, ``instrument`` and
        ``onset``, in seconds.

    Raises
    ------
    InputError
        If the dataset has no single notes.
    """
    recordings = [
        Recording(
            clip.audio.stem,
            clip.audio,
            None,
            clip.split,
            {
                "pitch": f"{clip.pitch:03}",
                "instrument": INSTRUMENTS[clip.program],
                "onset": clip.start / LABEL_RATE,
            },
        )
        for clip in read_clips(root)
    ]
    dataset = Dataset(Path(root), tuple(recordings))
    return build_store(dataset, progress=progress, part="notes")


def reader(store):
    """
    Return what reads the notes of each recording once.

    Parameters
    ----------
    store : Store
        The recordings.

    Returns
    -------
    callable
        Returns notes of :data:`jtm.data.rolls.PLAYED_DTYPE` of an index.
    """

    @functools.cache
    def read(index):
        return rolls.read_notes(store.recordings[index], int(store.lengths[index]))

    return read


def evenly(rows, most):
    """
    Choose rows spread evenly over all, so that those at the end count too.

    Parameters
    ----------
    rows : numpy.ndarray
        Rows in the order of recordings.
    most : int
        Maximum number of them.

    Returns
    -------
    numpy.ndarray
        All, or `most` of them in their order.
    """
    n = min(most, len(rows))
    return rows[np.arange(n) * len(rows) // max(n, 1)]


@dataclass(frozen=True)
class Labelled:
    """
    The labelled recordings, or clips, of a store, and their targets for a task.

    Methods take the name of a split, and the index of a recording of the store; frames
    are of 10 ms.

    Parameters
    ----------
    store : Store
        The recordings.
    splits : dict of str to list of int
        Indices of the labelled ones, by split.
    task : Task
        The task.
    classes : tuple of str
        The classes; empty where the task has none.
    names : dict of int to str
        Class of each recording, where there are classes.
    groups : dict of int to str
        What each recording is a sample of, for intervals: its tune family or
        itself, or for clips the note.
    lengths : dict of str to int
        Frames of 10 ms from the start of a recording that are evaluated, by split.
    notes : callable
        Returns the notes of a recording, ``(notes,)`` of
        :data:`jtm.data.rolls.PLAYED_DTYPE`, from its index.
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
        Sort a store's recordings for a task.

        Parameters
        ----------
        store : Store
            The recordings, or for tasks of single notes the clips.
        name : str
            The task.
        notes : callable, optional
            Returns the notes of a recording; tasks that share it read each
            label file once. See :func:`reader`.

        Returns
        -------
        Labelled
            The recordings, checked to have what the task needs; those whose
            class is left empty in the metadata are left out.

        Raises
        ------
        InputError
            If a split is empty, a class is missing, or occurs in no training
            recording.
        """
        notes, task, recordings = notes or reader(store), TASKS[name], store.recordings
        names, groups, lengths = {}, {}, {}
        if task.unit == "clips":
            splits = {s: [] for s in ("train", "validation", "test", "test_timbre")}
            for index, recording in enumerate(recordings):
                splits[recording.split].append(index)
        else:
            splits = labelled_splits(recordings, store.lengths)
            windows = DECODED if task.unit == "notes" else EVALUATED
            for split, n in windows.items():
                each = n // max(1, len(splits.get(split, ())))
                lengths[split] = WINDOW * max(MINIMUM[task.unit], each)
        for index in itertools.chain(*splits.values()):
            recording = recordings[index]
            row = recording.metadata
            groups[index] = row.get("tune_family") or f"recording {index}"
            if task.unit == "clips":
                groups[index] = f"{row['instrument']} {row['pitch']}"
            names[index] = task.class_of(recording, functools.partial(notes, index))
        # An exercise, say, is in no composer's hand: a cell left empty on purpose,
        # unlike a column that is missing.
        splits = {
            split: [index for index in indices if names[index] != ""]
            for split, indices in splits.items()
        }
        classes = ()
        if not task.shape:
            known = {names[index] for index in splits["train"]}
            classes = task.classes(known)
            _check_classes(recordings, splits, names, known, name)
        for split in ("validation", "test"):
            if not splits[split]:
                raise InputError(
                    f"no {task.unit} in the {split} split with a label of {name}"
                )
        return cls(store, splits, task, classes, names, groups, lengths, notes)

    @property
    def shape(self):
        """Shape of the answer about a frame, a window or a clip."""
        return self.task.shape or (len(self.classes),)

    @property
    def head(self):
        """Kind of its head, see :func:`jtm.models.heads.add_heads`, and its size."""
        if self.classes:
            on_axis = self.classes == PITCH_NAMES
            return "pitch" if on_axis else "windows", len(self.classes)
        if self.shape[-1] == N_PITCHES:
            return "map", int(np.prod(self.shape[:-1]))
        return "frames", self.shape[0]

    def length(self, split, index):
        """Count the frames of a recording that are used, in training all."""
        whole = int(self.store.lengths[index]) // HOP
        return min(whole, self.lengths.get(split, whole))

    def classes_of(self, indices):
        """Return the classes of recordings, as indices ``(recordings,)``."""
        return np.searchsorted(self.classes, [self.names[i] for i in indices])

    def groups_of(self, split):
        """Return what each recording of a split is a sample of, in its order."""
        return [self.groups[index] for index in self.splits[split]]

    def clip_start(self, index):
        """
        Return the first frame of a clip that is read.

        The onset is :data:`CLIP_LEAD` frames later.
        """
        onset = self.store.recordings[index].metadata["onset"]
        return max(0, round(onset * FRAME_RATE) - CLIP_LEAD)

    def rolls(self, index, n_frames, start=0):
        """Compute the targets of frames of a recording ``(n_frames, *shape)``."""
        return self.task.targets(self.notes(index), n_frames, start)

    def target(self, index, first, n_frames):
        """Make the target of a window: its class, or what is true of its frames."""
        if self.classes:
            known = self.names[index]
            return np.int64(self.classes_of([index])[0] if known else UNKNOWN)
        target = self.rolls(index, n_frames, first).astype(np.float32)
        return target[:, None] if self.shape == (N_PITCHES,) else target

    @functools.cached_property
    def _truth(self):
        """What computes the targets of every so many frames, and keeps them."""

        @functools.cache
        def compute(index, n_frames, step):
            return self.rolls(index, n_frames)[frame_numbers(n_frames, step)]

        return compute

    def truths(self, split, step=None):
        """
        List targets ``(frames, *shape)`` of the recordings of a split.

        They are of the frames that are evaluated, or of every `step`-th.
        """
        return [
            self._truth(index, self.length(split, index), step or self.task.step)
            for index in self.splits[split]
        ]

    def references(self, split):
        """List the notes of the evaluated part of each recording of a split."""
        return [self.beginning(i, self.length(split, i)) for i in self.splits[split]]

    def beginning(self, index, n_frames):
        """List the notes of the first frames of a recording."""
        end = n_frames / FRAME_RATE
        notes = self.notes(index)
        notes = notes[notes["start"] < end]
        notes["end"] = np.minimum(notes["end"], end)
        return notes


def _check_classes(recordings, splits, names, known, task):
    """Refuse a class that has a label and can't be learned."""
    for split, indices in splits.items():
        for index in indices:
            if names[index] not in known:
                raise InputError(
                    f"{recordings[index].audio}: {task} '{names[index]}' occurs in the "
                    f"{split} split but in no training recording, so it can't be "
                    "learned; move a recording of it to training or leave this one out"
                )


def labelled_recordings(labelled, n=0, seed=0):
    """
    Draw the training recordings whose labels may be seen, and how much of each.

    First come recordings that show, within what is labelled of them, as many new
    instruments (of tasks about instruments) or a new class (of tasks of classes) as
    can be, until nothing new is left; then any others. Of each the beginning is
    labelled.

    Parameters
    ----------
    labelled : Labelled
        The recordings of a task. Of single notes, as many are drawn as last, with
        what is read of each, as long as `n` recordings.
    n : int
        Number of recordings; 0 takes all, each as a whole.
    seed : int
        Draws the order: with one seed, fewer recordings are among more.

    Returns
    -------
    numpy.ndarray
        Rows ``(recordings, 3)``: index, first labelled frame and the one after the
        last, in the order drawn.

    Raises
    ------
    InputError
        If there are fewer recordings.
    """
    indices = labelled.splits["train"]
    if labelled.task.unit == "clips":
        n_clips = round(n * SECONDS * FRAME_RATE / CLIP) if n else len(indices)
        order = np.random.default_rng(seed).permutation(indices)
        names = pd.Series([labelled.names[i] for i in order])
        # The classes take turns.
        order = order[np.argsort(names.groupby(names).cumcount(), kind="stable")]
        starts = [labelled.clip_start(i) for i in order[:n_clips]]
        return np.array([order[:n_clips], starts, starts]).T + (0, 0, CLIP_LEAD + CLIP)
    if n and n > len(indices):
        raise InputError(
            f"{n} labelled recordings; there are {len(indices)} to train on"
        )
    spans = [(i, 0, labelled.length("train", i)) for i in indices]
    if not n:
        return np.array(spans, np.int64)
    most = round(SECONDS * FRAME_RATE)
    spans = [(index, first, min(stop, most)) for index, first, stop in spans]
    shown = [_shown(labelled, *span) for span in spans]
    rest = np.random.default_rng(seed).permutation(len(spans)).tolist()
    order, seen = [], set()
    while rest and len(order) < n:
        best = max(rest, key=lambda row: len(shown[row] - seen))  # the first of equals
        if not shown[best] - seen:
            break
        seen |= shown[best]
        order.append(best)
        rest.remove(best)
    return np.array([spans[row] for row in (order + rest)[:n]], np.int64)


def _shown(labelled, index, first, stop):
    """Return the instruments, or the class, that a labelled span shows."""
    if labelled.classes:
        return {labelled.names[index]}
    if not labelled.task.instruments:
        return set()
    roll = rolls.instrument_roll(labelled.notes(index), stop - first, first)
    return set(np.flatnonzero(roll.any(axis=0)).tolist())
