"""
Tasks: targets of labelled recordings, and how answers are scored.

By the names that ``--task`` takes, with the primary metric of each first:

- ``transcription``: the notes; note F1 by pitch and onset (50 ms), beside note F1
  with offset and the average precision of the frames;
- ``who_plays_what``: which instrument plays which pitch in a frame; average precision
  over frames x 88 x 11, beside note F1 by pitch, onset and instrument;
- ``instrument_activity``: which of MusicNet's eleven instruments sound in a frame, by
  the labels; average precision, beside F1 at a threshold;
- ``multipitch``: which of the 88 pitches sound in a frame; the same metrics;
- ``unison``: which of the 88 pitches several instruments sound at once; the same;
- ``ensemble``, ``composer``: the ensemble, and the composer, of a window of 1.28 s;
  accuracy over windows, beside macro-F1, and accuracy of 5 and 30 s by adding up the
  log posteriors of their windows;
- ``instrument``: the instrument of a window, of recordings with one by the labels;
- ``note_pitch``, ``note_instrument``: the pitch, and the instrument, of a single
  note, read from its first 0.4 s, the length of the shortest, so that long ones
  are no easier; accuracy over clips, beside macro-F1.

A task is an object of one of the classes below, which hold what it needs: targets,
the frames that are read, thresholds chosen on validation, and scores. A new task is
an entry of :data:`TASKS`, and a class where it is of a new kind.

A recording is evaluated on its beginning, of equal length for all of a split: what
:data:`EVALUATED` windows (or, for notes, :data:`DECODED`) allow each labelled
recording of it, and at least :data:`MINIMUM`; of that, frames are evaluated at every
:data:`EVALUATED_STEP`-th, notes and windows all. Frames are of 10 ms.

Intervals are over tune families, or recordings where families are not known; over
notes (instrument and pitch) for clips, since clips of one note differ but in loudness
and length.
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
"""Frames from one that is evaluated to the next: 160 ms."""

EVALUATED = {"validation": 1000, "test": 1800, "test_timbre": 1800}
"""Windows of a split that are evaluated, if all of its recordings have a target."""

DECODED = {"validation": 300, "test": 600, "test_timbre": 600}
"""Windows of a split whose notes are evaluated."""

MINIMUM = {"frames": 24, "windows": 24, "notes": 8}
"""Minimum windows of a recording that are evaluated, where it has so many."""

POOLED = {"accuracy_5s": 4, "accuracy_30s": 23}
"""Windows whose log posteriors are added up: 5.12 s and 29.44 s."""

CLIP_LEAD, CLIP = 10, 40
"""Frames of a clip before the onset, and those that are read: 0.1 s and 0.4 s."""


@dataclass(frozen=True)
class Task:
    """
    One task; its methods take the recordings that it is of.

    Parameters
    ----------
    name : str
        Its name.
    metric : str
        The primary metric.
    shape : tuple of int
        Shape of the targets of a frame; empty where there are classes.
    roll : callable, optional
        Computes the targets of frames, as :func:`jtm.data.rolls.frame_roll` does.
    instruments : bool
        Whether targets name instruments, each of which labels should show.
    """

    name: str
    metric: str
    shape: tuple = ()
    roll: object = None
    instruments: bool = False

    unit = "frames"
    """What is scored: 'frames', 'notes', 'windows' or 'clips'."""

    family = "frames"
    """Tasks of one family may share one network: 'frames', 'windows', 'clips'."""

    step = EVALUATED_STEP
    """Frames from one that is evaluated to the next, where frames have targets."""

    def class_of(self, recording, notes):
        """
        Name the class of a recording, whose notes `notes` returns.

        It is empty where the recording has no target, None where the task has no
        classes.
        """
        return None

    def targets(self, notes, n_frames, start):
        """
        Compute the targets of frames from notes.

        Booleans ``(n_frames, *shape)``, from frame `start` on, of notes of
        :data:`jtm.data.rolls.PLAYED_DTYPE`.
        """
        return self.roll(notes, n_frames, start)

    def choose(self, labelled, answers):
        """
        Choose thresholds on validation.

        Parameters
        ----------
        labelled : Labelled
            The recordings.
        answers : list of numpy.ndarray
            Logits about each validation recording; see :meth:`score`.

        Returns
        -------
        dict
            Thresholds by name; empty where there are classes.
        """
        counts, levels = metrics.precision_counts(
            labelled.truths("validation"), answers
        )
        return {"threshold": metrics.best_threshold(counts.sum(axis=0), levels)}

    def score(self, labelled, split, answers, chosen):
        """
        Score the answers about a split.

        Parameters
        ----------
        labelled : Labelled
            The recordings.
        split : str
            Which of them.
        answers : list of numpy.ndarray
            Logits about each recording of the split, in its order: of the evaluated
            frames ``(frames, *shape)``, of windows ``(windows, classes)``, of a
            clip ``(1, classes)``.
        chosen : dict
            Thresholds from :meth:`choose`.

        Returns
        -------
        list of dict
            For each metric ``metric``, ``value``, the ends of its interval ``low``
            and ``high``, its bootstrap ``draws`` and whether it is ``primary``.
        """
        groups, truths = labelled.groups_of(split), labelled.truths(split)
        found = [logits >= chosen["threshold"] for logits in answers]
        parts = np.stack(list(map(metrics.frame_counts, truths, found)))
        return [
            self._precision(truths, answers, groups),
            self._score("frame_f1", parts, groups, metrics.f1),
        ]

    def _score(self, metric, parts, groups, statistic, value=None):
        """Return a score with its interval and draws."""
        draws = metrics.bootstrap(parts, groups, statistic)
        low, high = metrics.interval(draws)
        value = statistic(parts.sum(axis=0)) if value is None else value
        return {
            "metric": metric,
            "value": float(value),
            "low": low,
            "high": high,
            "draws": draws,
            "primary": metric == self.metric,
        }

    def _precision(self, truths, logits, groups):
        """Score rolls by average precision."""
        whole = map(np.concatenate, (truths, logits))
        value = metrics.average_precision(*whole)
        counts, _ = metrics.precision_counts(truths, logits)
        name, of_sum = "average_precision", metrics.precision_score
        return self._score(name, counts, groups, of_sum, value)

    def _note_f1(self, metric, references, found, groups, **how):
        """Score notes by the mean F1 of recordings."""
        pairs = zip(references, found, strict=True)
        values = [metrics.note_f1(*pair, **how) for pair in pairs]
        parts = np.stack((values, np.ones(len(values))), axis=1)
        return self._score(metric, parts, groups, metrics.mean)


class _Transcription(Task):
    """Which notes are played: what sounds, then what starts ``(2, 88)``."""

    unit, step = "notes", 1

    def targets(self, notes, n_frames, start):
        roll = rolls.frame_roll(notes, n_frames, start)
        onsets = transcription.onset_targets(notes, n_frames, start)
        return np.stack((roll, onsets), axis=1)

    def choose(self, labelled, answers):
        frame, onset = transcription.choose_thresholds(
            answers, labelled.references("validation")
        )
        return {"frame_threshold": frame, "onset_threshold": onset}

    def score(self, labelled, split, answers, chosen):
        groups, references = labelled.groups_of(split), labelled.references(split)
        thresholds = chosen["frame_threshold"], chosen["onset_threshold"]
        found = [transcription.decode(x, thresholds) for x in answers]
        truths = [truth[:, 0] for truth in labelled.truths(split)]
        return [
            self._note_f1("note_f1", references, found, groups),
            self._note_f1("note_offset_f1", references, found, groups, offsets=True),
            self._precision(truths, [logits[:, 0] for logits in answers], groups),
        ]


class _WhoPlaysWhat(_Transcription):
    """Which instrument plays which note: 11 of what sounds, one of what starts."""

    def targets(self, notes, n_frames, start):
        parts = rolls.part_roll(notes, n_frames, start).transpose(0, 2, 1)
        notes, _ = rolls.played(notes)
        onsets = transcription.onset_targets(notes, n_frames, start)
        return np.concatenate((parts, onsets[:, None]), axis=1)

    def score(self, labelled, split, answers, chosen):
        groups, references = labelled.groups_of(split), labelled.references(split)
        thresholds = chosen["frame_threshold"], chosen["onset_threshold"]
        found = [transcription.decode(x, thresholds) for x in answers]
        # All frames x 88 x 11 would be many: average precision is of every 160 ms.
        truths = [x[:, :-1] for x in labelled.truths(split, EVALUATED_STEP)]
        logits = [x[frame_numbers(len(x), EVALUATED_STEP), :-1] for x in answers]
        parts = [map(transcription.by_instrument, x) for x in (references, found)]
        return [
            self._precision(truths, logits, groups),
            self._note_f1("note_instrument_f1", *parts, groups),
        ]


class _Category(Task):
    """What the metadata name a recording's class, of its windows."""

    unit = family = "windows"

    def class_of(self, recording, notes):
        if self.name not in recording.metadata:
            raise InputError(
                f"{recording.audio}: no '{self.name}' in {METADATA_FILE}, which this "
                "task needs; add the column, or choose another task"
            )
        return recording.metadata[self.name]

    def classes(self, names):
        """List the classes of the training recordings, of which there must be two."""
        classes = tuple(sorted(set(names)))
        if len(classes) < 2:
            raise InputError(
                f"the training recordings name {classes or 'nothing'} as their "
                f"{self.name}; expected two or more to tell apart"
            )
        return classes

    def choose(self, labelled, answers):
        return {}

    pooled = POOLED
    """Metrics of several windows together, with their number."""

    def score(self, labelled, split, answers, chosen):
        indices, n_classes = labelled.splits[split], len(labelled.classes)
        truths, groups = labelled.classes_of(indices), labelled.groups_of(split)
        scores = []
        for metric, size in {"accuracy": 1, **self.pooled}.items():
            parts = np.zeros((len(indices), n_classes, n_classes), np.int64)
            for part, truth, logits in zip(parts, truths, answers, strict=True):
                found = _add_up(logits, size).argmax(axis=1)
                part[truth] = np.bincount(found, minlength=n_classes)
            scores.append(self._score(metric, parts, groups, metrics.accuracy))
            if size == 1:
                of_classes = metrics.macro_f1
                scores.append(self._score("macro_f1", parts, groups, of_classes))
        return scores


class _Instrument(_Category):
    """Which instrument plays, of recordings where by the labels it is one."""

    def class_of(self, recording, notes):
        programs = np.unique(notes()["program"])
        if len(programs) != 1:
            return ""
        return INSTRUMENTS.get(int(programs[0]), f"program {programs[0]}")


class _SingleNote(_Category):
    """What the table of single notes says of a clip."""

    unit = family = "clips"
    pooled = {}

    def class_of(self, recording, notes):
        return recording.metadata[self.name.removeprefix("note_")]

    def classes(self, names):
        names = super().classes(names)
        return PITCH_NAMES if self.name == "note_pitch" else names  # all on the axis


PITCH_NAMES = tuple(f"{pitch:03}" for pitch in range(PITCH_MIN, PITCH_MAX + 1))
"""Names of the pitches, which sort as pitches do."""

TASKS = {
    task.name: task
    for task in (
        Task("multipitch", "average_precision", (N_PITCHES,), rolls.frame_roll),
        Task("unison", "average_precision", (N_PITCHES,), rolls.unison_roll),
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


def _add_up(logits, size):
    """
    Add up the log posteriors of `size` windows that follow each other.

    From logits ``(windows, classes)`` to ``(windows // size, classes)``, unnormalised;
    a recording of fewer windows is taken as a whole.
    """
    from scipy.special import log_softmax

    posteriors = log_softmax(logits.astype(np.float64), axis=1)
    size = min(size, len(posteriors))
    n = len(posteriors) // size
    return posteriors[: n * size].reshape(n, size, -1).sum(axis=1)
