"""
Tasks: their targets, and how predictions are scored.

The names accepted by ``--task``, with the primary metric of each first:

- ``transcription``: the notes; note F1 by pitch and onset (50 ms), then note F1
  with offset and frame-wise average precision;
- ``who_plays_what``: which instrument plays which pitch in each frame; average
  precision over frames x 88 x 11, then note F1 by pitch, onset and instrument;
- ``instrument_activity``: which of MusicNet's eleven instruments are active in each
  frame; average precision, then F1 at a threshold;
- ``multipitch``: which of the 88 pitches are active in each frame; the same metrics;
- ``ensemble``, ``composer``: the ensemble or composer of a window of 1.28 s;
  accuracy over windows, then macro-F1, and accuracy over 5 s and 30 s from the summed
  log posteriors of their windows;
- ``instrument``: the instrument of a window, for recordings labelled with only one;
- ``note_pitch``, ``note_instrument``: the pitch or instrument of a single note,
  predicted from its first 0.4 s, the length of the shortest note, so that long notes
  are no easier; accuracy over clips, then macro-F1.

A task is an instance of one of the classes below, which define its targets, the frames
it is evaluated on, thresholds chosen on validation, and scores. To add a task, add an
entry to :data:`TASKS`, and a class if it is of a new kind.

Each recording is evaluated on an excerpt from its start. All excerpts of a split are
equally long: :data:`EVALUATED` windows (:data:`DECODED` for notes) divided by the
number of labelled recordings, but at least :data:`MINIMUM`. Every
:data:`EVALUATED_STEP`-th frame of it, or every note or window, is evaluated. Frames
are 10 ms.

Intervals are over tune families, or over recordings if families are unknown; for clips
they are over notes (instrument and pitch), since clips of one note differ only in
loudness and length.
"""

from dataclasses import dataclass

import numpy as np

from jtm.constants import INSTRUMENTS, N_PITCHES, PITCH_MAX, PITCH_MIN
from jtm.data import rolls
from jtm.data.musicnet import METADATA_FILE
from jtm.data.rolls import frame_numbers
from jtm.evaluation import metrics, transcription
from jtm.files import InputError

EVALUATED_STEP = 16
"""Step between evaluated frames, in frames: 160 ms."""

EVALUATED = {"validation": 1000, "test": 1800, "test_timbre": 1800}
"""Number of windows evaluated in each split, if all of its recordings have a target."""

DECODED = {"validation": 300, "test": 600, "test_timbre": 600}
"""Number of windows in each split whose notes are evaluated."""

MINIMUM = {"frames": 24, "windows": 24, "notes": 8}
"""Minimum number of windows evaluated per recording, if it is long enough."""

CLIP_LEAD, CLIP = 10, 40
"""Frames of a clip used before and after the onset: 0.1 s and 0.4 s."""


@dataclass(frozen=True)
class Task:
    """
    A task: its targets, thresholds and scores.

    Parameters
    ----------
    name : str
        Name of the task.
    metric : str
        Primary metric.
    shape : tuple of int
        Shape of the targets of a frame; empty for classification.
    roll : callable, optional
        Computes frame targets, as :func:`jtm.data.rolls.frame_roll` does.
    instruments : bool
        Whether targets involve instruments, so that the labelled recordings should
        cover all of them.
    """

    name: str
    metric: str
    shape: tuple = ()
    roll: object = None
    instruments: bool = False

    unit = "frames"
    """Unit of evaluation: 'frames', 'notes', 'windows' or 'clips'."""

    family = "frames"
    """Family of tasks that can share a network: 'frames', 'windows' or 'clips'."""

    step = EVALUATED_STEP
    """Step between evaluated frames, for frame targets."""

    def class_of(self, recording, notes):
        """
        Return the class of a recording; `notes` is a callable that returns its notes.

        The class is empty if the recording has no target, and None if the task is not
        a classification.
        """
        return None

    def targets(self, notes, n_frames, start):
        """
        Compute targets of `n_frames` frames from `start` on.

        Return booleans ``(n_frames, *shape)``; notes are of
        :data:`jtm.data.rolls.PLAYED_DTYPE`.
        """
        return self.roll(notes, n_frames, start)

    def choose(self, labelled, logits):
        """
        Choose thresholds on validation; for frames, that of the highest F1.

        Parameters
        ----------
        labelled : Labelled
            The recordings.
        logits : list of numpy.ndarray
            Logits of each validation recording; see :meth:`score`.

        Returns
        -------
        dict
            Thresholds by name; empty for classification.
        """
        truths = labelled.truths("validation")
        counts, levels = metrics.precision_counts(truths, logits)
        if not len(levels):  # no positives: even odds
            return {"threshold": 0.0}
        correct, predicted = counts.sum(axis=0)
        f1 = 2 * correct / np.maximum(predicted + correct[-1], 1)
        return {"threshold": float(levels[np.argmax(f1)])}

    def score(self, labelled, split, logits, thresholds):
        """
        Score the predictions for a split.

        Parameters
        ----------
        labelled : Labelled
            The recordings.
        split : str
            Split to score.
        logits : list of numpy.ndarray
            Logits of each recording in the order of the split: evaluated frames
            ``(frames, *shape)``, windows ``(windows, classes)``, or a clip
            ``(1, classes)``.
        thresholds : dict
            Thresholds from :meth:`choose`.

        Returns
        -------
        list of dict
            For each metric: its name ``metric``, ``value``, interval ``low`` to
            ``high``, bootstrap ``draws``, and whether it is ``primary``.
        """
        groups, truths = labelled.groups_of(split), labelled.truths(split)
        estimates = [x >= thresholds["threshold"] for x in logits]
        counts = np.stack(list(map(metrics.frame_counts, truths, estimates)))
        return [
            self._precision(truths, logits, groups),
            self._score("frame_f1", counts, groups, metrics.f1),
        ]

    def _score(self, metric, counts, groups, statistic, value=None):
        """Return a score with its bootstrap draws and interval."""
        draws = metrics.bootstrap(counts, groups, statistic)
        low, high = metrics.interval(draws)
        value = statistic(counts.sum(axis=0)) if value is None else value
        return {
            "metric": metric,
            "value": float(value),
            "low": low,
            "high": high,
            "draws": draws,
            "primary": metric == self.metric,
        }

    def _precision(self, truths, logits, groups):
        """Score piano rolls by average precision."""
        value = metrics.average_precision(*map(np.concatenate, (truths, logits)))
        counts, _ = metrics.precision_counts(truths, logits)
        name, statistic = "average_precision", metrics.precision_score
        return self._score(name, counts, groups, statistic, value)

    def _note_f1(self, metric, references, estimates, groups, offsets=False):
        """Score notes by note F1 averaged over recordings."""
        pairs = zip(references, estimates, strict=True)
        values = [metrics.note_f1(*pair, offsets) for pair in pairs]
        sums = np.stack((values, np.ones(len(values))), axis=1)
        return self._score(metric, sums, groups, metrics.mean)


class _Transcription(Task):
    """Predict notes: pitch activation, then onset ``(2, 88)``."""

    unit, step = "notes", 1

    def targets(self, notes, n_frames, start):
        roll = rolls.frame_roll(notes, n_frames, start)
        return np.stack((roll, _wide_onsets(notes, n_frames, start)), axis=1)

    def choose(self, labelled, logits):
        references = labelled.references("validation")
        return transcription.choose_thresholds(logits, references)

    def score(self, labelled, split, logits, thresholds):
        groups, references = labelled.groups_of(split), labelled.references(split)
        estimates = [transcription.decode(x, **thresholds) for x in logits]
        truths = [x[:, 0] for x in labelled.truths(split)]
        return [
            self._note_f1("note_f1", references, estimates, groups),
            self._note_f1("note_offset_f1", references, estimates, groups, True),
            self._precision(truths, [x[:, 0] for x in logits], groups),
        ]


class _WhoPlaysWhat(_Transcription):
    """Predict notes with instruments: 11 rows of pitch activation, one of onsets."""

    def targets(self, notes, n_frames, start):
        roll = rolls.part_roll(notes, n_frames, start).transpose(0, 2, 1)
        notes, _ = rolls.played(notes)
        onsets = _wide_onsets(notes, n_frames, start)
        return np.concatenate((roll, onsets[:, None]), axis=1)

    def score(self, labelled, split, logits, thresholds):
        groups, references = labelled.groups_of(split), labelled.references(split)
        estimates = [transcription.decode(x, **thresholds) for x in logits]
        # Average precision uses a frame every 160 ms: frames x 88 x 11 is large.
        truths = [x[:, :-1] for x in labelled.truths(split, EVALUATED_STEP)]
        logits = [x[frame_numbers(len(x), EVALUATED_STEP), :-1] for x in logits]
        notes = [map(transcription.by_instrument, x) for x in (references, estimates)]
        return [
            self._precision(truths, logits, groups),
            self._note_f1("note_instrument_f1", *notes, groups),
        ]


class _Category(Task):
    """Classify windows by a metadata column of their recording."""

    unit = family = "windows"

    def class_of(self, recording, notes):
        if self.name not in recording.metadata:
            raise InputError(
                f"{recording.audio}: no '{self.name}' in {METADATA_FILE}, which this "
                "task needs; add the column, or choose another task"
            )
        return recording.metadata[self.name]

    def classes(self, names):
        """Return the classes of the training recordings; raise unless two or more."""
        classes = tuple(sorted(set(names)))
        if len(classes) < 2:
            raise InputError(
                f"the training recordings have {classes or 'no class'} as their "
                f"{self.name}; expected two or more classes"
            )
        return classes

    def choose(self, labelled, logits):
        return {}

    pooled = {"accuracy_5s": 4, "accuracy_30s": 23}
    """Number of windows whose log posteriors are summed: 5.12 s and 29.44 s."""

    def score(self, labelled, split, logits, thresholds):
        indices, n_classes = labelled.splits[split], len(labelled.classes)
        truths, groups = labelled.classes_of(indices), labelled.groups_of(split)
        scores = []
        for metric, size in {"accuracy": 1, **self.pooled}.items():
            confusion = np.zeros((len(indices), n_classes, n_classes), np.int64)
            for counts, truth, x in zip(confusion, truths, logits, strict=True):
                predicted = _pool(x, size).argmax(axis=1)
                counts[truth] = np.bincount(predicted, minlength=n_classes)
            scores.append(self._score(metric, confusion, groups, metrics.accuracy))
            if size == 1:
                f1 = self._score("macro_f1", confusion, groups, metrics.macro_f1)
                scores.append(f1)
        return scores


class _Instrument(_Category):
    """Classify the instrument of recordings that are labelled with only one."""

    def class_of(self, recording, notes):
        programs = np.unique(notes()["program"])
        if len(programs) != 1:
            return ""
        return INSTRUMENTS.get(int(programs[0]), f"program {programs[0]}")


class _SingleNote(_Category):
    """Classify clips of single notes."""

    unit = family = "clips"
    pooled = {}

    def class_of(self, recording, notes):
        return recording.metadata[self.name.removeprefix("note_")]

    def classes(self, names):
        names = super().classes(names)
        return PITCH_NAMES if self.name == "note_pitch" else names  # all 88 pitches


PITCH_NAMES = tuple(f"{pitch:03}" for pitch in range(PITCH_MIN, PITCH_MAX + 1))
"""Class names of the pitches, zero-padded so that they sort in pitch order."""

TASKS = {
    task.name: task
    for task in (
        Task("multipitch", "average_precision", (N_PITCHES,), rolls.frame_roll),
        _Category("ensemble", "accuracy"),
        _SingleNote("note_pitch", "accuracy"),
        _SingleNote("note_instrument", "accuracy", instruments=True),
        _Instrument("instrument", "accuracy", instruments=True),
        _Category("composer", "accuracy"),
        Task(
            "instrument_activity",
            "average_precision",
            (len(INSTRUMENTS),),
            rolls.instrument_roll,
            instruments=True,
        ),
        _Transcription("transcription", "note_f1", (2, N_PITCHES)),
        _WhoPlaysWhat(
            "who_plays_what",
            "average_precision",
            (len(INSTRUMENTS) + 1, N_PITCHES),
            instruments=True,
        ),
    )
}
"""The tasks by name."""


def _wide_onsets(notes, n_frames, start):
    """
    Mark onsets, and the frame on each side of each ``(n_frames, 88)``.

    Annotated onsets are accurate to one or two frames.
    """
    onsets = rolls.onset_roll(notes, n_frames + 2, start - 1)
    return onsets[:-2] | onsets[1:-1] | onsets[2:]


def _pool(logits, size):
    """
    Sum the log posteriors of each `size` consecutive windows.

    Map logits ``(windows, classes)`` to ``(windows // size, classes)``, unnormalised;
    if there are fewer than `size` windows, all are summed.
    """
    from scipy.special import log_softmax

    posteriors = log_softmax(logits.astype(np.float64), axis=1)
    size = min(size, len(posteriors))
    n = len(posteriors) // size
    return posteriors[: n * size].reshape(n, size, -1).sum(axis=1)
