"""
Tasks that share a network: what is read of recordings, asked of them, and answered.

A family is of frames, of windows or of clips. What the network hears are log
magnitudes, which are kept, where its front end is a fixed filter bank, and else
waveforms.
"""

import numpy as np

from jtm.constants import HOP, N_PITCHES
from jtm.data.rolls import frame_numbers
from jtm.evaluation import metrics, transcription
from jtm.evaluation.baselines import HAND_MADE, MARGIN, fingerprint
from jtm.evaluation.labelled import evenly
from jtm.evaluation.tasks import CLIP, CLIP_LEAD
from jtm.models.heads import add_heads
from jtm.training import labels
from jtm.training.spectra import FrontEnd

VALIDATED = 24
"""Validation recordings, 10 s of each, that are scored in training."""

VALIDATED_STEP = 8
"""Frames from one that is scored in training to the next; ranking all takes seconds."""


class Family:
    """
    Tasks that share a network, and the recordings that they are about.

    Its methods take tasks by name, `chosen`.

    Parameters
    ----------
    labelled : dict of str to Labelled
        Its tasks.
    read : callable
        Gives what the network hears from index, first frame and number of frames.
    stride : int
        Frames of 10 ms in a frame of the network.

    Attributes
    ----------
    name : {"frames", "windows", "clips"}
        What is answered about.
    """

    def __init__(self, labelled, read, stride=1):
        self.name = next(iter(labelled.values())).task.family
        self.labelled = labelled
        self.read = read
        self.stride = stride
        self.store = next(iter(labelled.values())).store
        self.window = CLIP_LEAD + CLIP if self.name == "clips" else labels.WINDOW
        self.edge = labels.EDGE if self.name == "frames" else 0

    def spans(self, split, seconds=None):
        """
        List what is labelled, or heard, of the recordings of a split.

        Of each its index, the first frame, which is 0, and the one after the last, of
        so many seconds or of all.
        """
        first = next(iter(self.labelled.values()))
        if self.name == "clips":
            starts = {i: first.clip_start(i) for i in first.splits[split]}
            return [(i, a, a + self.window) for i, a in starts.items()]
        most = round(seconds * 100) if seconds else None
        return [
            (i, 0, min(int(self.store.lengths[i]) // HOP, most or 10**9))
            for i in sorted(
                {i for e in self.labelled.values() for i in e.splits[split]}
            )
        ]

    def targets(self, chosen):
        """Make what gives targets by task from index, first frame, number of frames."""

        def targets(index, first, n_frames):
            return {
                task: _target(each, index, first, n_frames)
                for task, each in chosen.items()
            }

        return targets

    def answers(self, network, split, chosen):
        """
        Answer for the recordings of a split by a network in evaluation mode.

        Give, by task, what :meth:`jtm.evaluation.tasks.Task.score` takes.
        """
        found = {task: {} for task in chosen}
        of_task = {task: set(each.splits[split]) for task, each in chosen.items()}
        for index, first, _ in self.spans(split):
            judged = {
                task: chosen[task].selection(split, index)
                for task in chosen
                if index in of_task[task]
            }
            for task, rows in self._answers(network, index, first, judged).items():
                found[task][index] = rows.reshape(len(rows), *chosen[task].shape)
        return {
            task: [found[task][index] for index in each.splits[split]]
            for task, each in chosen.items()
        }

    def _answers(self, network, index, first, judged):
        """Answer for what is evaluated of one recording, and for no more."""
        if self.name == "frames":
            length = max(kept.n_frames for kept in judged.values())
            inputs = self.read(index, 0, length)[None]
            logits = labels.answer(network, inputs, self.stride)
            return {
                task: logits[task][0][frame_numbers(kept.n_frames, kept.step)]
                for task, kept in judged.items()
            }
        n_windows = max(kept.rows for kept in judged.values())
        starts = range(first, first + n_windows * self.window, self.window)
        windows = np.stack([self.read(index, a, self.window) for a in starts])
        logits = labels.answer(network, windows, self.stride)
        return {task: logits[task][: kept.rows] for task, kept in judged.items()}

    def module(self, network, plan, spans, n_batches, rates, **chosen):
        """
        Make the module that trains a network on windows of these tasks.

        Parameters
        ----------
        network : jtm.models.heads.Network
            Body, and a head for each task that is learned.
        plan : jtm.training.loop.Plan
            How it is trained.
        spans : list of tuple
            What is labelled; see :class:`jtm.training.labels.Windows`.
        n_batches : int
            Batches in an epoch.
        rates : tuple of float
            Learning rates of the body and of the heads.
        **chosen
            ``batch_size``, ``size``, ``unlabelled`` and ``n_unlabelled`` of the
            windows; the rest is passed on to :class:`jtm.training.labels.Labelled`.

        Returns
        -------
        jtm.training.labels.Labelled
            The module, which is scored on validation.
        """
        asked = {t: each for t, each in self.labelled.items() if t in network.tasks}
        names = ("batch_size", "size", "unlabelled", "n_unlabelled")
        of_windows = {name: chosen.pop(name) for name in names if name in chosen}
        windows = labels.Windows(
            self.read,
            spans,
            self.targets(asked),
            n_batches,
            seed=plan.seed,
            stride=self.stride,
            edge=self.edge,
            **{"size": self.window} | of_windows,
        )
        return labels.Labelled(
            network,
            plan,
            windows,
            rates,
            score=lambda module: self.validate(module.network, asked),
            **chosen,
        )

    def validate(self, network, chosen):
        """Score a network in training on a part of validation: the mean over tasks."""
        spans = self.spans("validation", 10.0)
        if self.name == "frames":
            spans = evenly(np.array(spans), VALIDATED).tolist()
        targets, seen = self.targets(chosen), {task: [] for task in chosen}
        for index, first, last in spans:
            size = (last - first) // self.stride * self.stride
            if self.name != "frames":
                size = self.window
            logits = labels.answer(
                network, self.read(index, first, size)[None], self.stride
            )
            truth = targets(index, first, size)
            for task in chosen:
                if chosen[task].task.metric == "note_f1":
                    truth[task] = chosen[task].beginning(index, size)
                elif not np.ndim(truth[task]) and truth[task] == labels.UNKNOWN:
                    continue
                seen[task].append((logits[task][0], truth[task]))
        scores = [
            _quick_score(chosen[task].task, *zip(*each, strict=True))
            for task, each in seen.items()
        ]
        return float(np.mean(scores))


def _target(labelled, index, first, n_frames):
    """Make the target of a window: its class, or what is true of its frames."""
    if labelled.classes and not labelled.names[index]:
        return np.int64(labels.UNKNOWN)
    if labelled.classes:
        return np.int64(labelled.classes_of([index])[0])
    target = labelled.rolls(index, n_frames, first).astype(np.float32)
    return target[:, None] if labelled.shape == (N_PITCHES,) else target


class Clips:
    """
    Log magnitudes of what is heard of single notes, kept in memory.

    Parameters
    ----------
    store : Store
        The clips.
    front_end : FrontEnd
        What computes them.
    """

    def __init__(self, store, front_end):
        self.store = store
        self.front_end = front_end
        self.kept = {}

    def read(self, index, first, n_frames):
        """Read log magnitudes ``(n_frames, bins)`` of a clip, heard alone."""
        if index not in self.kept:
            wave = self.store.read(index, first * HOP, (first + n_frames) * HOP)
            wave = np.pad(wave, (0, n_frames * HOP - len(wave)))
            found = self.front_end.analyse(wave.astype(np.float32) / 32768)
            self.kept[index] = found.astype(np.float16)  # as on disk
        return self.kept[index].astype(np.float32)


def hand_made(name):
    """
    Make the front end of features that no network learned.

    Parameters
    ----------
    name : str
        One of :data:`jtm.evaluation.baselines.HAND_MADE`.

    Returns
    -------
    FrontEnd
        It, on the scale of :func:`jtm.models.encoder.log_magnitude`, so that all are
        varied alike.
    """

    def analyse(wave):
        found = HAND_MADE[name](wave)
        return np.log1p(1e5 * np.exp(2 * found)) / 18 if name == "logmel" else found

    key = f"{name}-{fingerprint(name)}"
    return FrontEnd(analyse, MARGIN, key)


def _reader(labelled):
    """Choose the reader of a task, and what it counts; see `jtm.models.readers`."""
    if labelled.classes:
        return "pitch" if labelled.task.pitched else "windows", len(labelled.classes)
    if labelled.shape[-1] == N_PITCHES:
        return "map", int(np.prod(labelled.shape[:-1]))
    return "frames", labelled.shape[0]


def reader_of(store):
    """
    Make what reads waveforms, for networks whose front end is learned.

    Parameters
    ----------
    store : Store
        The recordings.

    Returns
    -------
    callable
        Gives samples ``(1, samples)``, in [-1, 1], from index, first frame and number
        of frames; silence before the start and after the end.
    """

    def read(index, first, n_frames):
        start, stop = first * HOP, (first + n_frames) * HOP
        length = int(store.lengths[index])
        wave = store.read(index, min(max(0, start), length), min(stop, length))
        wave = np.pad(wave.astype(np.float32) / 32768, (max(0, -start), 0))
        return np.pad(wave, (0, stop - start - len(wave)))[None]

    return read


def make_network(model, labelled, seed, on_encoder=False):
    """
    Put heads for tasks on a network.

    Parameters
    ----------
    model : jtm.models.network.Network or int
        The network; or the number of bins of hand-made features, read as they are.
    labelled : dict of str to Labelled
        The tasks.
    seed : int
        Draws the weights of the heads.
    on_encoder : bool
        Read z alone, without c.

    Returns
    -------
    jtm.models.heads.Network
        Body and heads.
    """
    asked = {task: _reader(each) for task, each in labelled.items()}
    return add_heads(model, asked, seed, on_encoder)


def _quick_score(task, logits, truths):
    """
    Score answers while training: note F1, average precision, or accuracy of classes.

    Logits and truths are of windows: of frames ``(frames, ...)``, for note F1 with the
    notes as truths, or of classes.
    """
    if task.metric == "note_f1":
        return transcription.best_onset(logits, truths)[0]
    if np.ndim(truths[0]) == 0:
        return np.mean([x.argmax() == y for x, y in zip(logits, truths, strict=True)])
    found, true = (
        np.concatenate(
            [each[::VALIDATED_STEP].reshape(-1, each[0].size) for each in part]
        )
        for part in (logits, truths)
    )
    return metrics.average_precision(true > 0, found)
