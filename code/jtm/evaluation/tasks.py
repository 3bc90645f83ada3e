"""
Tasks: what is asked about labelled recordings, and how answers are scored.

By the names that ``--task`` takes, with the main metric of each first:

- ``multipitch``: which of the 88 pitches sound in a frame of 10 ms; average
  precision over all frames x pitches, beside F1 at a threshold;
- ``instrument_activity``: which of MusicNet's eleven instruments sound in a
  frame, by the labels; the same metrics;
- ``transcription``: the notes; note F1 by pitch and onset (50 ms), beside note F1
  with offset and the average precision of the frames;
- ``ensemble``, ``composer``: who plays, and whose work it is, in a window of
  1.28 s; accuracy over windows, beside macro-F1, and accuracy of 5 and 30 s by
  adding up the log posteriors of their windows;
- ``instrument``: the same of who plays, where by the labels it is one instrument;
- ``note_pitch``, ``note_instrument``: the pitch, and the instrument, of a single
  note, read from its first 0.4 s, the length of the shortest, so that long ones
  are no easier; accuracy over clips, beside macro-F1.

Recordings of at least a window take part. Probes learn from every
:data:`TRAIN_STEP`-th frame of a labelled window. A recording is judged on its
beginning, of equal length for all of a split: what :data:`JUDGED` windows (or, for
notes, :data:`DECODED`) allow each labelled recording of it, counting those too that
a task has no class for, and no less than :data:`LEAST`; of that, frames are judged
at every :data:`JUDGED_STEP`-th, notes and windows all. Intervals are over
recordings; over notes (instrument and pitch) where clips are asked about, since clips
of one note differ but in loudness and length.

Thresholds are those that score best on validation. Whoever answers, a probe or a
network, is scored by the same code.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jtm.constants import (
    FRAME_RATE,
    HOP,
    INSTRUMENTS,
    LABEL_RATE,
    N_PITCHES,
    PITCH_MAX,
    PITCH_MIN,
)
from jtm.data import rolls
from jtm.data.clips import read_clips
from jtm.data.musicnet import Dataset, Recording
from jtm.data.rolls import WINDOW, frame_numbers
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation import metrics, transcription
from jtm.evaluation.features import FrameSelection
from jtm.files import InputError

TRAIN_STEP = 8
"""Frames from one that a probe may learn from to the next: 80 ms."""

JUDGED_STEP = 16
"""Frames from one that is judged to the next: 160 ms."""

JUDGED = {"validation": 1000, "test": 1800, "test_timbre": 1800}
"""Windows of a split that are judged, if a task asks about all of its recordings."""

DECODED = {"validation": 300, "test": 600, "test_timbre": 600}
"""Windows of a split whose notes are judged."""

LEAST = {"frames": 24, "windows": 24, "notes": 8}
"""Least windows of a recording that are judged, where it has so many."""

POOLED = {"accuracy_5s": 4, "accuracy_30s": 23}
"""Windows whose log posteriors are added up: 5.12 s and 29.44 s."""

CLIP_LEAD, CLIP = 10, 40
"""Frames of a clip before the onset, and those that are read: 0.1 s and 0.4 s."""


class Task(NamedTuple):
    """
    One task.

    Parameters
    ----------
    unit : {"frames", "notes", "windows", "clips"}
        What is answered about.
    metric : str
        The main metric.
    family : str
        Tasks of one family may share one network: 'frames', 'windows', 'clips'.
    pitched : bool
        Whether each of the 88 pitches is asked about, so that a probe may be
        shared across them.
    """

    unit: str
    metric: str
    family: str
    pitched: bool


TASKS = {
    "multipitch": Task("frames", "average_precision", "frames", True),
    "ensemble": Task("windows", "accuracy", "windows", False),
    "note_pitch": Task("clips", "accuracy", "clips", True),
    "note_instrument": Task("clips", "accuracy", "clips", False),
    "instrument": Task("windows", "accuracy", "windows", False),
    "composer": Task("windows", "accuracy", "windows", False),
    "instrument_activity": Task("frames", "average_precision", "frames", False),
    "transcription": Task("notes", "note_f1", "frames", True),
}
"""The tasks by name, the most telling first."""


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
    from pathlib import Path

    recordings = [
        Recording(
            clip.audio.stem,
            clip.audio,
            None,
            clip.split,
            {
                "pitch": _pitch_name(clip.pitch),
                "instrument": INSTRUMENTS[clip.program],
                "onset": clip.start / LABEL_RATE,
            },
        )
        for clip in read_clips(root)
    ]
    dataset = Dataset(Path(root), tuple(recordings))
    return build_store(dataset, progress=progress, part="notes")


@dataclass(frozen=True)
class Labelled:
    """
    The labelled recordings, or clips, of a store, and what is asked about them.

    Parameters
    ----------
    store : Store
        The recordings.
    splits : dict of str to list of int
        Indices of the labelled ones, by split.
    task : str
        What is asked.
    classes : tuple of str
        The classes; empty where the task has none.
    names : dict of int to str
        Class of each recording, where there are classes.
    groups : dict of int to str
        What each recording is a sample of, for intervals and for spreading
        labels: itself, or for clips the note.
    lengths : dict of str to int
        Frames from the start of a recording that are judged, by split.
    notes : callable
        Gives the notes of a recording, ``(notes,)`` of
        :data:`jtm.data.rolls.PLAYED_DTYPE`, from its index.
    """

    store: object
    splits: dict
    task: str
    classes: tuple = ()
    names: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)
    lengths: dict = field(default_factory=dict)
    notes: object = None

    @classmethod
    def of(cls, store, task, notes=None):
        """
        Sort a store's recordings for a task.

        Parameters
        ----------
        store : Store
            The recordings, or for tasks of single notes the clips.
        task : str
            What is asked.
        notes : callable, optional
            Gives the notes of a recording; tasks that share it read each
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
        notes = notes or reader(store)
        recordings, unit = store.recordings, TASKS[task].unit
        if unit == "clips":
            splits = {s: [] for s in ("train", "validation", "test", "test_timbre")}
            for index, recording in enumerate(recordings):
                splits[recording.split].append(index)
            key = task.removeprefix("note_")
            names = {i: r.metadata[key] for i, r in enumerate(recordings)}
            groups = {
                i: f"{r.metadata['instrument']} {r.metadata['pitch']}"
                for i, r in enumerate(recordings)
            }
            lengths = dict.fromkeys(splits, CLIP_LEAD + CLIP)
        else:
            splits = labelled_splits(recordings, store.lengths)
            kind = "notes" if unit == "notes" else "frames"
            budget = DECODED if unit == "notes" else JUDGED
            lengths = {
                split: WINDOW * max(LEAST[kind], windows // max(1, len(splits[split])))
                for split, windows in budget.items()
            }
            groups = {i: f"{i}" for indices in splits.values() for i in indices}
            names = {}
            if unit == "windows":
                names = {
                    index: _class_of(recordings[index], task, notes, index)
                    for indices in splits.values()
                    for index in indices
                }
            # An exercise, say, is in no composer's hand: a cell left empty on
            # purpose, unlike a column that is missing.
            splits = {
                split: [i for i in indices if names.get(i, "...") != ""]
                for split, indices in splits.items()
            }
        classes = ()
        if names:
            classes = tuple(sorted({names[i] for i in splits["train"]}))
            if len(classes) < 2:
                raise InputError(
                    f"the training recordings name {classes or 'nothing'} as their "
                    f"{task}; expected two or more to tell apart"
                )
            _check_classes(recordings, splits, names, classes, task)
            if TASKS[task].pitched:  # all of the axis of pitch, occurring or not
                classes = tuple(map(_pitch_name, range(PITCH_MIN, PITCH_MAX + 1)))
        for split in ("validation", "test"):
            if not splits[split]:
                raise InputError(
                    f"no {unit} in the {split} split with a label of {task}"
                )
        return cls(store, splits, task, classes, names, groups, lengths, notes)

    @property
    def n_outputs(self):
        """Number of answers: pitches, instruments or classes."""
        if self.classes:
            return len(self.classes)
        return N_PITCHES if TASKS[self.task].pitched else len(INSTRUMENTS)

    def length(self, split, index):
        """
        Count the frames of a recording that are used.

        Parameters
        ----------
        split : str
            The split it is in.
        index : int
            Which recording of the store.

        Returns
        -------
        int
            Frames from the start: of a training recording all.
        """
        whole = int(self.store.lengths[index]) // HOP
        return min(whole, self.lengths.get(split, whole))

    def classes_of(self, indices):
        """
        Give the classes of recordings.

        Parameters
        ----------
        indices : sequence of int
            Which recordings of the store.

        Returns
        -------
        numpy.ndarray
            Indices ``(recordings,)`` into the classes.
        """
        return np.searchsorted(self.classes, [self.names[i] for i in indices])

    def units(self, split, size=WINDOW):
        """
        Give the windows, or clips, of a split that are used.

        Parameters
        ----------
        split : str
            Which split.
        size : int
            Frames in a window.

        Returns
        -------
        numpy.ndarray
            Rows ``(units, 2)``: index of the recording and first frame.
        """
        indices = self.splits[split]
        if TASKS[self.task].unit == "clips":
            rows = [(i, self.clip_start(i)) for i in indices]
            return np.array(rows, np.int64).reshape(-1, 2)
        lengths = {i: self.length(split, i) * HOP for i in indices}
        return rolls.cut_windows(lengths, indices, size)

    def clip_start(self, index):
        """
        Give the first frame of a clip that is read.

        Parameters
        ----------
        index : int
            Which clip of the store.

        Returns
        -------
        int
            The frame; the onset is :data:`CLIP_LEAD` frames later.
        """
        onset = self.store.recordings[index].metadata["onset"]
        return max(0, round(onset * FRAME_RATE) - CLIP_LEAD)

    def subset(self, fraction, seed, size=WINDOW):
        """
        Give the training windows, or clips, whose labels may be seen.

        Parameters
        ----------
        fraction : float
            Share of them.
        seed : int
            Draws the share.
        size : int
            Frames in a window.

        Returns
        -------
        numpy.ndarray
            Rows of :meth:`units`, in the order of
            :func:`jtm.data.rolls.label_subset`: at least one of each class;
            where several answers may be true at once, of each set of
            instruments that plays.
        """
        units = self.units("train", size)
        if self.classes:
            classes = self.classes_of(units[:, 0])
        else:
            sets = {
                i: str(np.unique(self.notes(i)["program"]))
                for i in self.splits["train"]
            }
            _, classes = np.unique([sets[i] for i in units[:, 0]], return_inverse=True)
        _, groups = np.unique(
            [self.groups[i] for i in units[:, 0]], return_inverse=True
        )
        rows = np.stack((groups, units[:, 1]), axis=1)
        return units[rolls.label_subset(rows, fraction, seed, classes)]

    def seconds(self, units, size=WINDOW):
        """
        Tell how much labelled sound units are.

        Parameters
        ----------
        units : numpy.ndarray
            Rows of :meth:`units`.
        size : int
            Frames in a window.

        Returns
        -------
        float
            Seconds; of a clip the part that is read.
        """
        size = CLIP if TASKS[self.task].unit == "clips" else size
        return round(len(units) * size / FRAME_RATE, 2)

    def rolls(self, index, n_frames, start=0):
        """
        Tell what is asked about frames of a recording.

        Parameters
        ----------
        index : int
            Which recording of the store.
        n_frames : int
            Number of frames.
        start : int
            First of them.

        Returns
        -------
        numpy.ndarray
            Booleans ``(n_frames, outputs)``; of a transcription ``(n_frames, 2,
            88)``: what sounds, and what starts.
        """
        notes = self.notes(index)
        if self.task == "instrument_activity":
            return rolls.instrument_roll(notes, n_frames, start)
        roll = rolls.frame_roll(notes, n_frames, start)
        if self.task == "transcription":
            onsets = transcription.onset_targets(notes, n_frames, start)
            roll = np.stack((roll, onsets), axis=1)
        return roll

    def selections(self, split, index):
        """
        Tell which features of a recording answers are read from.

        Parameters
        ----------
        split : str
            The split it is in.
        index : int
            Which recording of the store.

        Returns
        -------
        list of FrameSelection
            First what probes learn from or are tuned by; last what is judged.
        """
        unit, length = TASKS[self.task].unit, self.length(split, index)
        if unit == "windows":
            return [FrameSelection(0, length)]
        if unit == "clips":
            start = self.clip_start(index)
            return [FrameSelection(0, CLIP_LEAD + CLIP, CLIP, CLIP_LEAD, start)]
        if split == "train":
            return [FrameSelection(TRAIN_STEP, length)]
        if unit == "notes":
            whole = int(self.store.lengths[index]) // HOP
            tuned = min(whole, max(length, WINDOW * LEAST["frames"]))
            return [FrameSelection(JUDGED_STEP, tuned), FrameSelection(1, length)]
        return [FrameSelection(JUDGED_STEP, length)]

    @functools.cached_property
    def _frames(self):
        """Rolls of the frames that are taken, by recording and take."""
        return {}

    def frames(self, index, take):
        """
        Tell what is asked about the frames that are taken of a recording.

        Parameters
        ----------
        index : int
            Which recording of the store.
        take : FrameSelection
            What is taken.

        Returns
        -------
        numpy.ndarray
            Booleans as of :meth:`rolls`, a row for each that is taken.
        """
        if (index, take) not in self._frames:
            numbers = frame_numbers(take.n_frames, take.step)
            self._frames[index, take] = self.rolls(index, take.n_frames)[numbers]
        return self._frames[index, take]


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


def reader(store):
    """
    Give what reads the notes of each recording once.

    Parameters
    ----------
    store : Store
        The recordings.

    Returns
    -------
    callable
        Gives notes of :data:`jtm.data.rolls.PLAYED_DTYPE` from an index.
    """

    @functools.cache
    def read(index):
        return rolls.read_notes(store.recordings[index], int(store.lengths[index]))

    return read


def _pitch_name(pitch):
    """Name a pitch so that names sort as pitches do."""
    return f"{pitch:03}"


def _class_of(recording, task, notes, index):
    """Name the class of a recording; empty where it is asked nothing."""
    if task != "instrument":
        return rolls.class_name(recording, task)
    programs = np.unique(notes(index)["program"])
    if len(programs) != 1:
        return ""
    return INSTRUMENTS.get(int(programs[0]), f"program {programs[0]}")


def _check_classes(recordings, splits, names, classes, task):
    """Refuse a class that is asked for and can't be learned."""
    for split, indices in splits.items():
        for index in indices:
            if names[index] not in classes:
                raise InputError(
                    f"{recordings[index].audio}: {task} '{names[index]}' occurs in the "
                    f"{split} split but in no training recording, so it can't be "
                    "learned; move a recording of it to training or leave this one out"
                )


def choose(labelled, answers):
    """
    Choose on validation what scoring needs.

    Parameters
    ----------
    labelled : Labelled
        The recordings.
    answers : list of numpy.ndarray
        What was answered about each validation recording; see :func:`score`.

    Returns
    -------
    dict
        Thresholds, on logits; empty where classes are asked for.
    """
    if labelled.classes:
        return {}
    indices = labelled.splits["validation"]
    if TASKS[labelled.task].unit == "notes":
        references = [_excerpt(labelled, "validation", index) for index in indices]
        frame, onset = transcription.choose_thresholds(answers, references)
        return {"frame_threshold": frame, "onset_threshold": onset}
    counts, levels = metrics.precision_counts(_truths(labelled, "validation"), answers)
    return {"threshold": metrics.best_threshold(counts.sum(axis=0), levels)}


def score(labelled, split, answers, chosen):
    """
    Score the answers about a split.

    Parameters
    ----------
    labelled : Labelled
        The recordings.
    split : str
        Which of them.
    answers : list of numpy.ndarray
        Logits about each recording of the split, in its order: of the judged
        frames ``(frames, outputs)``, of windows ``(windows, classes)``, of a
        clip ``(1, classes)``, of notes ``(frames, 2, 88)``.
    chosen : dict
        Thresholds from :func:`choose`.

    Returns
    -------
    scores : list of dict
        Fields of a record for each metric.
    beside : dict
        ``draws`` of the main metric, and of classes the ``confusion`` matrix.
    """
    unit = TASKS[labelled.task].unit
    if labelled.classes:
        return _score_classes(labelled, split, answers)
    if unit == "notes":
        return _score_notes(labelled, split, answers, chosen)
    truths = _truths(labelled, split)
    made = [_precision(truths, answers)]
    found = [logits >= chosen["threshold"] for logits in answers]
    parts = map(metrics.frame_counts, truths, found)
    made.append(_summary("frame_f1", np.stack(list(parts)), metrics.f1))
    return _finish(labelled, made)


def _truths(labelled, split):
    """Give what is true of the judged frames of each recording."""
    return [
        labelled.frames(index, labelled.selections(split, index)[-1])
        for index in labelled.splits[split]
    ]


def _summary(metric, parts, of_sum, value=None):
    """Give a score with its interval and draws."""
    draws = metrics.bootstrap(parts, of_sum)
    low, high = metrics.interval(draws)
    value = of_sum(parts.sum(axis=0)) if value is None else value
    return {
        "metric": metric,
        "value": float(value),
        "low": low,
        "high": high,
        "draws": draws,
    }


def _precision(truths, scores):
    """Score rolls by average precision."""
    value = metrics.average_precision(np.concatenate(truths), np.concatenate(scores))
    counts, _ = metrics.precision_counts(truths, scores)
    return _summary("average_precision", counts, metrics.precision_score, value)


def _finish(labelled, made, **beside):
    """Mark the main metric, and set its draws beside the scores."""
    scores = []
    for each in made:
        draws = each.pop("draws")
        primary = each["metric"] == TASKS[labelled.task].metric
        if primary:
            beside["draws"] = draws
        scores.append(each | {"primary": primary})
    return scores, beside


def _score_classes(labelled, split, answers):
    """Score the classes of windows or clips."""
    indices = labelled.splits[split]
    n_classes = len(labelled.classes)
    sizes = {"accuracy": 1}
    if TASKS[labelled.task].unit == "windows":  # a part each, in their order
        sizes |= POOLED
        n_parts, part = len(indices), range(len(indices))
    else:
        groups = [labelled.groups[index] for index in indices]
        names, part = np.unique(groups, return_inverse=True)
        n_parts = len(names)
    made = []
    for metric, size in sizes.items():
        parts = np.zeros((n_parts, n_classes, n_classes), np.int64)
        of_each = zip(part, labelled.classes_of(indices), answers, strict=True)
        for row, truth, logits in of_each:
            found = add_up(logits, size).argmax(axis=1)
            truths = np.full(len(found), truth)
            parts[row] += metrics.confusion(truths, found, n_classes)
        made.append(_summary(metric, parts, metrics.accuracy))
        if size == 1:
            made.append(_summary("macro_f1", parts, metrics.macro_f1))
            counts = parts.sum(axis=0)
    return _finish(labelled, made, confusion=counts)


def add_up(logits, size):
    """
    Add up the log posteriors of windows that follow each other.

    Parameters
    ----------
    logits : numpy.ndarray
        Logits ``(windows, classes)``.
    size : int
        Windows that are taken together.

    Returns
    -------
    numpy.ndarray
        Log posteriors ``(windows // size, classes)``, unnormalised; a
        recording of fewer windows is taken as a whole.
    """
    logits = logits.astype(np.float64)
    peak = logits.max(axis=1, keepdims=True)
    logits = logits - peak
    posteriors = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    size = min(size, len(posteriors))
    n = len(posteriors) // size
    return posteriors[: n * size].reshape(n, size, -1).sum(axis=1)


def _excerpt(labelled, split, index):
    """Give the notes of the part of a recording that is judged."""
    end = labelled.length(split, index) / FRAME_RATE
    notes = labelled.notes(index)
    notes = notes[notes["start"] < end]
    notes["end"] = np.minimum(notes["end"], end)
    return notes


def _score_notes(labelled, split, answers, chosen):
    """Score the notes, and the frames, of the judged parts."""
    thresholds = chosen["frame_threshold"], chosen["onset_threshold"]
    indices = labelled.splits[split]
    references = [_excerpt(labelled, split, index) for index in indices]
    found = [transcription.decode(logits, thresholds) for logits in answers]
    made = []
    for metric, offsets in (("note_f1", False), ("note_offset_f1", True)):
        values = [
            metrics.note_f1(truth, notes, offsets)
            for truth, notes in zip(references, found, strict=True)
        ]
        parts = np.stack((values, np.ones(len(values))), axis=1)
        made.append(_summary(metric, parts, metrics.mean))
    truths = [truth[:, 0] for truth in _truths(labelled, split)]
    made.append(_precision(truths, [logits[:, 0] for logits in answers]))
    return _finish(labelled, made)
