"""
Tasks: what is asked about labelled recordings, and how answers are scored.

By the names that ``--task`` takes:

- ``multipitch``: which of the 88 pitches sound in each frame of 10 ms; main
  metric average precision, over all frames of a split;
- ``ensemble``: which ensemble plays in a window of 1.28 s; main metric accuracy,
  over all windows of a split, beside macro-F1;
- ``transcription``: the notes; main metric note F1 by pitch and onset, beside
  note F1 with offset and the average precision of the frames.

Only labelled recordings of at least a window take part. Whoever answers, a
probe or a network, does so by a function of a recording's index, and is scored
by the same code.
"""

from dataclasses import dataclass

import numpy as np

from jtm.constants import HOP
from jtm.data import targets
from jtm.data.targets import WINDOW
from jtm.evaluation import metrics, transcription
from jtm.files import InputError

COLUMNS = {"ensemble": "ensemble"}
"""Column of the metadata that names the class, for tasks of whole windows."""


@dataclass(frozen=True)
class Labelled:
    """
    The labelled recordings of a store, and what is asked about them.

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
    """

    store: object
    splits: dict
    task: str
    classes: tuple = ()

    @classmethod
    def of(cls, store, task):
        """
        Sort a store's recordings for a task.

        Parameters
        ----------
        store : Store
            The recordings.
        task : str
            What is asked.

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
        splits = targets.labelled_splits(store.recordings, store.lengths)
        if task not in COLUMNS:
            return cls(store, splits, task)
        column = COLUMNS[task]
        # An exercise, say, is in no composer's hand: a cell left empty on
        # purpose, unlike a column that is missing.
        splits = {
            split: [
                i for i in indices if store.recordings[i].metadata.get(column) != ""
            ]
            for split, indices in splits.items()
        }
        training = [store.recordings[i] for i in splits["train"]]
        classes = targets.class_list(training, column)
        if len(classes) < 2:
            raise InputError(
                f"the training recordings name {classes or 'nothing'} as their "
                f"{column}; expected two or more to tell apart"
            )
        labelled = cls(store, splits, task, classes)
        for indices in splits.values():
            labelled.classes_of(indices)
        return labelled

    def frames(self, index):
        """
        Count the frames of a recording.

        Parameters
        ----------
        index : int
            Which recording of the store.

        Returns
        -------
        int
            Frames.
        """
        return int(self.store.lengths[index]) // HOP

    def notes(self, index):
        """
        Read the notes of a recording.

        Parameters
        ----------
        index : int
            Which recording of the store.

        Returns
        -------
        numpy.ndarray
            Notes ``(notes,)`` of :data:`jtm.data.targets.NOTE_DTYPE`.
        """
        recording = self.store.recordings[index]
        return targets.read_notes(recording, int(self.store.lengths[index]))

    def roll(self, index):
        """
        Tell which pitches sound in each frame of a recording.

        Parameters
        ----------
        index : int
            Which recording of the store.

        Returns
        -------
        numpy.ndarray
            Booleans ``(frames, 88)``.
        """
        return targets.frame_roll(self.notes(index), self.frames(index))

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
        recordings = [self.store.recordings[i] for i in indices]
        return targets.class_targets(recordings, COLUMNS[self.task], self.classes)

    def windows(self, split, fraction=1.0, seed=0, size=WINDOW):
        """
        Give the windows of a split whose labels may be seen.

        Parameters
        ----------
        split : str
            Which split.
        fraction : float
            Share of its windows.
        seed : int
            Draws the share.
        size : int
            Frames in a window.

        Returns
        -------
        numpy.ndarray
            Windows ``(windows, 2)``: index of the recording and first frame, in
            the order of :func:`jtm.data.targets.label_subset`.
        """
        windows = targets.cut_windows(self.store.lengths, self.splits[split], size)
        classes = self.classes_of(windows[:, 0]) if self.classes else None
        return windows[targets.label_subset(windows, fraction, seed, classes)]


def cut(frames):
    """
    Cut the frames of a recording into whole windows.

    Parameters
    ----------
    frames : numpy.ndarray
        Features ``(frames, dim)``.

    Returns
    -------
    numpy.ndarray
        Windows ``(windows, 128, dim)``; what is left at the end is dropped.
    """
    n_windows = len(frames) // WINDOW
    return frames[: n_windows * WINDOW].reshape(n_windows, WINDOW, -1)


def _score(metric, value, parts, of_sum, primary=False):
    """Give a score and its interval as a record's fields."""
    low, high = metrics.interval(parts, of_sum)
    return {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "primary": primary,
    }


def score_frames(labelled, split, answer):
    """
    Score the pitches of all frames of a split.

    Parameters
    ----------
    labelled : Labelled
        The recordings.
    split : str
        Which of them to score.
    answer : callable
        Gives logits ``(frames, 88)`` of a recording, from its index.

    Returns
    -------
    list of dict
        Fields of a record for each metric.
    """
    indices = labelled.splits[split]
    truths = [labelled.roll(index) for index in indices]
    scores = [answer(index) for index in indices]
    value = metrics.average_precision(np.concatenate(truths), np.concatenate(scores))
    parts = metrics.precision_counts(truths, scores)
    return [
        _score("average_precision", value, parts, metrics.precision_score, primary=True)
    ]


def score_windows(labelled, split, answer):
    """
    Score the classes of all windows of a split.

    Parameters
    ----------
    labelled : Labelled
        The recordings.
    split : str
        Which of them to score.
    answer : callable
        Gives the classes ``(windows,)`` of a recording's windows, from its
        index.

    Returns
    -------
    list of dict
        Fields of a record for each metric.
    """
    indices = labelled.splits[split]
    parts = []
    for index, truth in zip(indices, labelled.classes_of(indices), strict=True):
        found = answer(index)
        n_classes = len(labelled.classes)
        parts.append(metrics.confusion(np.full(len(found), truth), found, n_classes))
    parts = np.stack(parts)
    return [
        _score(
            of_sum.__name__,
            of_sum(parts.sum(axis=0)),
            parts,
            of_sum,
            primary=of_sum is metrics.accuracy,
        )
        for of_sum in (metrics.accuracy, metrics.macro_f1)
    ]


def score_notes(labelled, split, answer, thresholds):
    """
    Score the notes, and the frames, of a split.

    Parameters
    ----------
    labelled : Labelled
        The recordings.
    split : str
        Which of them to score.
    answer : callable
        Gives logits ``(frames, 2, 88)`` of a recording, from its index:
        sounding, then starting.
    thresholds : tuple of float
        Probabilities above which a pitch sounds, and starts.

    Returns
    -------
    list of dict
        Fields of a record for each metric.
    """
    posteriors = {index: answer(index) for index in labelled.splits[split]}
    made = []
    for metric, offsets in (("note_f1", False), ("note_offset_f1", True)):
        scores = [
            metrics.note_f1(
                labelled.notes(index), transcription.decode(logits, thresholds), offsets
            )
            for index, logits in posteriors.items()
        ]
        parts = np.stack((scores, np.ones(len(scores))), axis=1)
        value = float(np.mean(scores))
        made.append(_score(metric, value, parts, metrics.mean, primary=not offsets))
    (frames,) = score_frames(labelled, split, lambda index: posteriors[index][:, 0])
    return [*made, frames | {"primary": False}]
