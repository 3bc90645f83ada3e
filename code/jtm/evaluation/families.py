"""
Families of tasks that share a network: their inputs, targets and predictions.

A family's targets are for frames, windows or clips. The network's inputs are cached log
magnitudes if its front end is a fixed filter bank, and waveforms otherwise.
"""

import functools

import numpy as np
import torch

from jtm.constants import HOP
from jtm.data.rolls import WINDOW, frame_numbers, played
from jtm.data.splits import split_recordings
from jtm.evaluation import metrics, transcription
from jtm.evaluation.labelled import evenly
from jtm.evaluation.tasks import CLIP, CLIP_LEAD, TASKS
from jtm.files import InputError
from jtm.training import labels
from jtm.training.processes import computes_bf16
from jtm.training.spectra import Spectra

EDGE = 16
"""Input frames of 10 ms on either side of a training window, without labels."""

VALIDATED, VALIDATED_FRAMES = 24, 1000
"""Number of validation recordings scored during training, and 10 ms frames of each."""

VALIDATED_STEP = 8
"""Step between frames scored during training, since ranking all takes seconds."""


def unlabelled_spans(store):
    """
    List the spans of recordings without labels, as :meth:`Family.spans` does.

    Parameters
    ----------
    store : jtm.data.store.Store
        The recordings.

    Returns
    -------
    list of tuple
        Index, first frame and last frame + 1 of each.
    """
    indices = split_recordings(store.recordings, store.lengths)["unlabelled"]
    return [(i, 0, int(store.lengths[i]) // HOP) for i in indices]


class Family:
    """
    Tasks that share a network, and their labelled recordings.

    Methods take `tasks`, a dict of str to Labelled: all of the family, or some.

    Parameters
    ----------
    labelled : dict of str to Labelled
        The tasks of the family.
    stride : int
        Number of 10 ms frames per frame of the network.
    read : callable, optional
        Returns the network's input from index, first frame and number of frames, as
        :meth:`reader` makes it; may be set later, before training or prediction.

    Attributes
    ----------
    name : {"frames", "windows", "clips"}
        What the targets are for.
    """

    def __init__(self, labelled, stride=1, read=None):
        self.first = next(iter(labelled.values()))
        self.name, self.store = self.first.task.family, self.first.store
        self.labelled, self.stride, self.read = labelled, stride, read
        self.window = CLIP_LEAD + CLIP if self.name == "clips" else WINDOW
        self.edge = EDGE if self.name == "frames" else 0

    def spans(self, split):
        """
        List the spans of a split's recordings that the tasks use.

        Return index, first frame and last frame + 1 of each.
        """
        if self.name == "clips":
            starts = {i: self.first.clip_start(i) for i in self.first.splits[split]}
            return [(i, a, a + self.window) for i, a in starts.items()]
        indices = {i for task in self.labelled.values() for i in task.splits[split]}
        return [(i, 0, int(self.store.lengths[i]) // HOP) for i in sorted(indices)]

    def read_labels(self, indices):
        """Read the labels of recordings; refuse malformed ones, and splits without."""
        if self.name != "frames":
            return
        for index in sorted(indices):
            self.first.notes(index)
        for labelled in self.labelled.values():
            _refuse_empty(labelled)

    def reader(self, front_end=None, folder=None):
        """
        Return a function that reads inputs; see :class:`Family`.

        They are waveforms ``(1, samples)``, or log magnitudes ``(frames, bins)`` by a
        front end, cached in a folder. Those of clips are computed from their frames
        alone, and cached in memory.
        """
        if front_end and self.name != "clips":
            return Spectra(self.store, front_end, folder).read
        read_wave = functools.partial(_read_wave, self.store)
        if not front_end:
            return read_wave

        @functools.cache
        def compute(*window):
            (wave,) = read_wave(*window)
            return front_end.analyse(wave).astype(np.float16)  # as on disk

        return lambda *window: compute(*window).astype(np.float32)

    def targets(self, tasks):
        """Return a function of index, first frame and number of frames for targets."""
        return lambda *window: {t: tasks[t].target(*window) for t in tasks}

    def predict(self, network, split, tasks):
        """
        Predict the targets of a split by a network in evaluation mode.

        Return the logits by task that :meth:`jtm.evaluation.tasks.Task.score` takes.
        """
        logits = {task: {} for task in tasks}
        for index, first, _ in self.spans(split):
            lengths = {
                task: labelled.length(split, index)
                for task, labelled in tasks.items()
                if index in labelled.splits[split]
            }
            for task, rows in self._predict(network, index, first, lengths).items():
                logits[task][index] = rows.reshape(len(rows), *tasks[task].shape)
        return {t: [logits[t][i] for i in tasks[t].splits[split]] for t in tasks}

    def _predict(self, network, index, first, lengths):
        """Compute logits of the frames of one recording that the tasks evaluate."""
        if self.name == "frames":
            inputs = self.read(index, 0, max(lengths.values()))[None]
            logits = self.logits(network, inputs)
            return {
                task: logits[task][0][frame_numbers(n, TASKS[task].step)]
                for task, n in lengths.items()
            }
        n_windows = {t: n // self.window for t, n in lengths.items()}
        if self.name == "clips":
            n_windows = dict.fromkeys(n_windows, 1)
        stop = first + max(n_windows.values()) * self.window
        starts = range(first, stop, self.window)
        windows = np.stack([self.read(index, a, self.window) for a in starts])
        logits = self.logits(network, windows)
        return {task: logits[task][:n] for task, n in n_windows.items()}

    @torch.no_grad()
    def logits(self, network, inputs):
        """
        Compute logits by task, by a network in evaluation mode.

        Features are computed in bfloat16 if the device has instructions for it; the
        logits in float32, as ties among them would change rankings. `inputs` are those
        of :meth:`jtm.models.heads.Body.encode`. Return logits ``(batch, frames of 10
        ms, ...)``, or ``(batch, classes)`` for windows.
        """
        device = next(network.heads.parameters()).device
        axis, hop = (2, HOP) if inputs.shape[1] == 1 else (1, 1)
        n_frames = inputs.shape[axis] // hop
        pad = [(0, 0)] * 3
        pad[axis] = 0, -n_frames % self.stride * hop
        x = torch.from_numpy(np.pad(inputs, pad)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(device)):
            maps = network.heads.trunk(network.body(x))
        logits = network.heads.read(maps.float())
        logits = {t: x.cpu().numpy() for t, x in logits.items()}
        return {t: x if x.ndim < 3 else x[:, :n_frames] for t, x in logits.items()}

    def module(self, network, plan, spans, n_batches, rates, batches, **chosen):
        """
        Build the module that trains a network on windows of these tasks.

        `batches` are options of :class:`jtm.training.labels.Windows`, by default with
        windows of :attr:`window` frames; the others are those of
        :class:`jtm.training.labels.Labelled`. Epochs are compared by :meth:`validate`.
        """
        heads = network.heads.readers
        tasks = {t: task for t, task in self.labelled.items() if t in heads}
        fixed = {"seed": plan.seed, "stride": self.stride, "edge": self.edge}
        batches = {"size": self.window} | batches | fixed
        windows = labels.Windows(
            self.read, spans, self.targets(tasks), n_batches, **batches
        )
        chosen["score"] = lambda module: self.validate(module.network, tasks)
        return labels.Labelled(network, plan, windows, rates, **chosen)

    def evaluate(self, network, tasks, families):
        """
        Score a network on splits, with thresholds chosen on validation.

        `families` has, by split, the family of its recordings: this one or one of other
        recordings. Yield task, split, thresholds and the task's scores.
        """
        logits = {
            split: own.predict(network, split, {t: own.labelled[t] for t in tasks})
            for split, own in {"validation": self, **families}.items()
            if any(own.labelled[task].splits.get(split) for task in tasks)
        }
        for task, labelled in tasks.items():
            thresholds = labelled.task.choose(labelled, logits["validation"][task])
            for split, own in families.items():
                if predicted := logits.get(split, {}).get(task):
                    given = own.labelled[task], split, predicted, thresholds
                    yield task, split, thresholds, labelled.task.score(*given)

    def validate(self, network, tasks):
        """Compute the mean score over tasks on part of validation, during training."""
        spans, size = self.spans("validation"), self.window
        if self.name == "frames":
            spans = evenly(np.array(spans), VALIDATED).tolist()
        pairs = {name: [] for name in tasks}
        for index, first, last in spans:
            if self.name == "frames":
                size = min(last, VALIDATED_FRAMES) // self.stride * self.stride
            logits = self.logits(network, self.read(index, first, size)[None])
            for name, own in tasks.items():
                truth = own.target(index, first, size)
                if own.task.metric == "note_f1":
                    truth = own.notes_until(index, size)
                if not np.array_equal(truth, labels.UNKNOWN):
                    pairs[name].append((logits[name][0], truth))
        scores = [
            _quick_score(own.task, *zip(*pairs[name], strict=True))
            for name, own in tasks.items()
        ]
        return float(np.mean(scores))


def _refuse_empty(labelled):
    """Raise InputError if a split has no note of those that a task predicts."""
    task, of = labelled.task, ""
    for split, indices in labelled.splits.items():
        notes = map(labelled.notes, indices)
        if task.instruments:
            notes, of = (played(x)[0] for x in notes), " of MusicNet's instruments"
        if indices and not any(map(len, notes)):
            raise InputError(
                f"the labels of the {split} split have no note{of}, so there is "
                f"nothing to predict for {task.name}; `jtm check-data` shows them"
            )


def _read_wave(store, index, first, n_frames):
    """Read samples ``(1, samples)`` in [-1, 1]; zero outside of the recording."""
    start, stop = first * HOP, (first + n_frames) * HOP
    length = int(store.lengths[index])
    wave = store.read(index, min(max(0, start), length), min(stop, length))
    wave = np.pad(wave.astype(np.float32) / 32768, (max(0, -start), 0))
    return np.pad(wave, (0, stop - start - len(wave)))[None]


def _quick_score(task, logits, truths):
    """
    Score predictions during training: note F1, average precision or accuracy.

    `logits` and `truths` have an item per window: frames ``(frames, ...)``, or classes;
    for note F1, truths are notes.
    """
    if task.metric == "note_f1":
        return transcription.best_onset(logits, truths)[0]
    if np.ndim(truths[0]) == 0:
        return np.mean([x.argmax() == y for x, y in zip(logits, truths, strict=True)])
    scores, truth = (
        np.concatenate([x[::VALIDATED_STEP].reshape(-1, x[0].size) for x in frames])
        for frames in (logits, truths)
    )
    return metrics.average_precision(truth > 0, scores)
