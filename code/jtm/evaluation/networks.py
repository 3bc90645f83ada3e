"""
Networks in the grid: trained with labels end to end, from scratch or from CPC.

``supervised`` is the network of the checkpoint from fresh weights,
``cpc-finetuned`` the same from the checkpoint's. Both are trained alike: the same
heads on z and c side by side (linear; on an axis of pitch shared as in probes; on
mean and deviation of a window or clip), the same number of steps, and of
learning rates to choose from, levels and noise drawn anew for every window, and
the state kept that is best on validation. Linear heads start as probes of what the
network gives before any step, so that training need not first undo what chance put
there (Kumar et al. 2022). In the end each task takes what validation has best: the
state kept; the same with the head fitted once more, as a probe; or the start, lest a
network be worse than a probe of itself only for having been trained.

A budget is stated in steps of :data:`BATCH` windows of 1.28 s (clips: 0.5 s):
:func:`steps`. One run serves the tasks of a family, which share the network and
have a head each: those of frames, of windows, and of single notes. Each task sees
the same labels as its probes; the state counts that is best on the mean of them.
"""

import copy
import itertools
import time
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from jtm.constants import HOP
from jtm.data.rolls import WINDOW, frame_numbers
from jtm.evaluation import probes
from jtm.evaluation.streaming import Audio, NetworkSource, pitch_parts
from jtm.evaluation.tasks import CLIP, CLIP_LEAD, TASKS
from jtm.models.heads import (
    FrameHead,
    OctaveHead,
    PitchHead,
    PooledHead,
    TranscriptionHead,
)
from jtm.training.checkpoints import build_model, load_part, read_checkpoint
from jtm.training.config import NetworkConfig, RunConfig, SupervisedConfig, make_config
from jtm.training.finetune import Batches, SupervisedModule, features_of
from jtm.training.loop import Plan, fit

NETWORKS = ("supervised", "cpc-finetuned")
"""Names of the networks that are trained end to end."""

RATES = (2e-3, 3e-4)
"""Learning rates of the network; the first seed's validation chooses."""

HEAD_RATE = 1e-3
"""Learning rate of the heads."""

PROBED = {"frames": 600, "windows": 2000, "clips": 2000}
"""Most labelled windows, or clips, of a task that its head is fitted to as a probe."""

PROBED_STEP = 16
"""Every how many frames of a window it is fitted to one."""

BATCH = {"frames": 8, "windows": 8, "clips": 16}
"""Windows, or clips, in a batch."""

LOOKS = 6
"""Times that validation is looked at, evenly spaced; a state of each is kept."""

LOOKED_AT = {"frames": 64, "windows": 384, "clips": 256}
"""Windows, or clips, of validation that are looked at while training, about; tasks
of windows share them."""

EDGE = {"frames": 16, "windows": 16, "clips": 0}
"""Frames on either side of a window that a network hears too, so that filters which
reach over its edges find there what they find in a recording; clips have their own."""

CLIP_FRAMES = CLIP_LEAD + CLIP
"""Frames of a clip that a network hears: nothing after those that it is read from."""


def steps(fraction):
    """
    Give the number of steps that a network is trained for.

    Parameters
    ----------
    fraction : float
        Share of the labels that it may see.

    Returns
    -------
    int
        600 at all of them, else 300: fewer left networks from scratch, which start
        with nothing, still improving at the end.
    """
    return 600 if fraction == 1 else 300


def make_head(task, shape, model, on_encoder=False, tuned=False):
    """
    Make the head of a task.

    Parameters
    ----------
    task : str
        What is asked.
    shape : tuple of int
        Shape of an answer.
    model : Network
        The network that it reads.
    on_encoder : bool
        Read z alone, not z and c side by side.
    tuned : bool
        For transcription: with hidden layers, one of them over time.

    Returns
    -------
    nn.Module
        Gives logits from ``(batch, frames, dim)``; shared across pitch where
        pitches are asked about and z and c have that axis.
    """
    dim = model.z_dim + (0 if on_encoder else model.c_dim)
    parts = pitch_parts(model, "z" if on_encoder else "zc")
    pitched = TASKS[task].pitched
    n_outputs = shape[-1]
    if len(shape) > 1:  # of notes
        if not parts:
            return TranscriptionHead(dim, shape[0])
        if tuned:
            return PitchHead(parts, shape[0], hidden=16, time=9, dropout=0.1)
        return PitchHead(parts, shape[0])
    whole = TASKS[task].family != "frames"  # means, then deviations
    if not parts:
        head = FrameHead(dim * (1 + whole), n_outputs)
    elif pitched:
        head = PitchHead(parts * (1 + whole))
    else:
        head = OctaveHead(parts * (1 + whole), n_outputs)
    if not whole:
        return head
    if TASKS[task].family == "clips":
        return PooledHead(head, CLIP_LEAD, CLIP_LEAD + CLIP)
    return PooledHead(head)


class Family:
    """
    The tasks that one network serves, and the labels that it sees.

    Parameters
    ----------
    labelled : dict of str to Labelled
        The tasks, all of one family.
    fraction : float
        Share of the labels.
    seed : int
        Draws the share.
    """

    def __init__(self, labelled, fraction, seed):
        self.labelled = labelled
        self.kind = TASKS[next(iter(labelled))].family
        self.store = next(iter(labelled.values())).store
        self.subsets = {t: each.subset(fraction, seed) for t, each in labelled.items()}
        held_out = {t: self._spread(each) for t, each in labelled.items()}
        self.windows, self._train = self._join(self.subsets)
        self.held_out, self._validation = self._join(held_out)

    def _spread(self, labelled):
        """Choose validation windows evenly, this task's share of them."""
        units = labelled.units("validation")
        wanted = LOOKED_AT[self.kind] // (
            len(self.labelled) if self.kind == "windows" else 1
        )
        rows = np.linspace(0, len(units) - 1, min(wanted, len(units)))
        return units[rows.round().astype(int)]

    @staticmethod
    def _join(units):
        """Join the units of all tasks; tell which of them each may see."""
        joined = np.unique(np.concatenate(list(units.values())), axis=0)
        seen = {task: set(map(tuple, rows.tolist())) for task, rows in units.items()}
        return joined, seen

    def read(self, index, first, held_out=False):
        """
        Read a window.

        Parameters
        ----------
        index, first : int
            Recording and first frame.
        held_out : bool
            Read one of validation instead of one to learn from.

        Returns
        -------
        wave : numpy.ndarray
            Samples ``(1, samples)`` of the window and its :data:`EDGE`.
        targets : dict of str to numpy.ndarray
            What each task asks of it; -1 for a class that may not be seen, or
            is not asked for.
        """
        seen = self._validation if held_out else self._train
        size = CLIP_FRAMES if self.kind == "clips" else WINDOW
        wave = read_wave(self.store, index, first, size, EDGE[self.kind])
        unit = int(index), int(first)
        asked = {
            task: targets_of(each, *unit, unit in seen[task])
            for task, each in self.labelled.items()
        }
        return wave, asked


def read_wave(store, index, first, size, edge=0):
    """
    Read the samples of a window.

    Parameters
    ----------
    store : Store
        The recordings.
    index, first : int
        Recording and first frame.
    size : int
        Frames.
    edge : int
        Frames more on either side.

    Returns
    -------
    numpy.ndarray
        Samples ``(1, (size + 2 * edge) * 160)`` in [-1, 1], float32; silence before the
        start and after the end.
    """
    start = (first - edge) * HOP
    stop = min((first + size + edge) * HOP, int(store.lengths[index]))
    wave = store.read(index, max(0, start), stop).astype(np.float32) / 32768
    wave = np.pad(wave, (max(0, -start), 0))
    return np.pad(wave, (0, (size + 2 * edge) * HOP - len(wave)))[None]


def targets_of(labelled, index, first, known=True, size=WINDOW):
    """
    Give what a network is asked about a window.

    Parameters
    ----------
    labelled : Labelled
        The task.
    index, first : int
        Recording and first frame.
    known : bool
        Whether its class may be seen.
    size : int
        Frames in the window.

    Returns
    -------
    numpy.ndarray
        The class, -1 where it is not known; or floats of
        :meth:`jtm.evaluation.labelled.Labelled.rolls`.
    """
    if not labelled.classes:
        return labelled.rolls(index, size, first).astype(np.float32)
    return np.int64(labelled.classes_of([index])[0] if known else -1)


class Start(NamedTuple):
    """
    A network and heads as they are before training.

    Parameters
    ----------
    model : Network
        The network.
    heads : nn.ModuleDict
        The heads by task, fitted as probes.
    look : dict
        Their look at validation, as :attr:`_Watched.curve` has them.
    """

    model: object
    heads: object
    look: dict


def start(family, network, config, seed):
    """
    Make a network and heads as they are before training.

    Parameters
    ----------
    family : Family
        The tasks and their labels.
    network : Network or None
        The pretrained network to start from; None starts from chance.
    config : NetworkConfig
        Settings of the network.
    seed : int
        Draws weights.

    Returns
    -------
    Start
        The start.
    """
    clock = time.monotonic()
    model = build_model(replace(config, random_seed=seed)).eval()
    if network is not None:
        model.load_state_dict(network.state_dict())
    heads = make_heads(family.labelled, model, seed)
    scores = fit_heads(family, model, heads)
    seconds = round(time.monotonic() - clock, 1)
    return Start(model, heads, {"step": 0, "seconds": seconds, "score": scores})


def fit_heads(family, model, heads):
    """
    Fit linear heads as probes of what a network gives; score all on validation.

    Parameters
    ----------
    family : Family
        The tasks and their labels.
    model : Network
        The network, in evaluation mode.
    heads : nn.ModuleDict
        The heads by task; they end in evaluation mode.

    Returns
    -------
    dict of str to float
        Score of each task on the windows that a look is of.
    """
    read_held_out = partial(family.read, held_out=True)
    edge = EDGE[family.kind]
    held_out = _embed(model, family.held_out, read_held_out, edge)
    held_out = [*itertools.chain(*held_out)]
    # A head with layers of its own to learn is not a probe.
    linear = [t for t in heads if not isinstance(heads[t], TranscriptionHead)]
    learned = {task: [] for task in linear}
    units = [each[: PROBED[family.kind]] for each in family.subsets.values()]
    units = np.unique(np.concatenate(units), axis=0)
    for some in _embed(model, units, family.read, edge):
        for task in linear:
            known = _known(task, some)
            if known:
                learned[task].append(_samples(heads[task], known))
    scores = {}
    for task, head in heads.items():
        known = _known(task, held_out)
        if task in linear:
            probes.fit_head(
                head.head if isinstance(head, PooledHead) else head,
                [np.concatenate(part) for part in zip(*learned[task], strict=True)],
                _samples(head, known),
            )
        scores[task] = _look(head.eval(), known)
    return scores


@torch.no_grad()
def _look(head, known):
    """Score a head on windows, as a look while training does."""
    logits = [head(x[None])[0].numpy() for x, _ in known]
    return score(np.stack(logits), np.stack([truth for _, truth in known]))


def _known(task, embedded):
    """Give features and truth of the windows that a task asks about."""
    return [(x, asked[task]) for x, asked in embedded if np.min(asked[task]) >= 0]


@torch.no_grad()
def _embed(model, units, read, edge):
    """Give z and c of windows, and what is asked about each, some at a time."""
    for rows in np.array_split(units, -(-len(units) // 16)):
        waves, asked = zip(*(read(*row) for row in rows), strict=True)
        x = features_of(model, torch.from_numpy(np.stack(waves)), edge=edge)
        yield [*zip(x, asked, strict=True)]


def _samples(head, known):
    """Give what a head learns from as a probe: features and truth."""
    x = torch.stack([features for features, _ in known])
    truths = np.stack([truth for _, truth in known])
    if isinstance(head, PooledHead):
        return head.summarise(x).numpy(), truths
    numbers = frame_numbers(x.shape[1], PROBED_STEP)
    truths = truths[:, numbers] > 0
    return x[:, numbers].flatten(0, 1).numpy(), truths.reshape(-1, *truths.shape[2:])


def train(folder, family, begun, origin, config, plan):
    """
    Train a network for a family of tasks, or take up its run where it stopped.

    Parameters
    ----------
    folder : Path
        Where the run is kept.
    family : Family
        The tasks and their labels.
    begun : Start
        The start; left as it is.
    origin : str
        Hash of the checkpoint that the network is from; empty where it is
        from chance.
    config : NetworkConfig
        Settings of the network.
    plan : dict
        ``fraction``, ``seed`` and ``rate`` of the run.

    Returns
    -------
    SupervisedModule
        The run, finished; its `curve` tells the score of each look, the start
        first.
    """
    seed, n_steps = plan["seed"], steps(plan["fraction"])
    size, rate = BATCH[family.kind], plan["rate"]
    settings = {
        name: getattr(config, name)
        for name in NetworkConfig.__dataclass_fields__
        if name not in RunConfig.__dataclass_fields__
    }
    settings |= {"path_checkpoint": str(folder), "random_seed": seed, "n_epoch": LOOKS}
    settings |= {"learning_rate": rate, "batch_size": size}
    config = make_config(SupervisedConfig, "small", settings)
    held_out = partial(family.read, held_out=True)
    module = _Watched(
        Plan(LOOKS, seed, folder),
        copy.deepcopy(begun.model),
        copy.deepcopy(begun.heads),
        Batches(family.windows, family.read, size, seed, n_steps // LOOKS),
        Batches(family.held_out, held_out, 2 * size),
        rate,
        HEAD_RATE,
        edge=EDGE[family.kind],
        facts={"config": asdict(config), "origin": origin},
    )
    # What it starts from is in evaluation mode; what is fixed stays so.
    module.train()
    fit(module, quiet=True)
    for look in module.curve:
        look["seconds"] = round(look["seconds"] + begun.look["seconds"], 1)
    module.curve.insert(0, begun.look)
    return module


class _Watched(SupervisedModule):
    """
    Networks and heads in training, whose tasks are scored on validation.

    Attributes
    ----------
    curve : list of dict
        For each epoch the `step` it ended at, the `seconds` of training so far, and
        the `score` on validation by task.
    """

    curve = ()

    def forward(self, x):
        """Keep the logits."""
        self.latest = super().forward(x)
        return self.latest

    def loss(self, batch, split, step):
        """Keep the logits and targets of validation."""
        named = super().loss(batch, split, step)
        if split == "validation":
            self.seen.append((self.latest, batch[1]))
        return named

    def on_validation_epoch_start(self):
        """Forget those of the last validation."""
        super().on_validation_epoch_start()
        self.seen = []

    def close_epoch(self):
        """Score the tasks."""
        scores = {}
        for task in self.head:
            pairs = [(x[task], y[task]) for x, y in self.seen if task in y]
            logits, targets = (
                torch.cat(part).cpu() for part in zip(*pairs, strict=True)
            )
            known = targets.reshape(len(targets), -1)[:, 0] >= 0
            scores[task] = score(logits[known].numpy(), targets[known].numpy())
        look = {"step": self.global_step, "seconds": round(self.seconds, 1)}
        self.curve = [*self.curve, look | {"score": scores}]
        super().close_epoch()

    def on_save_checkpoint(self, checkpoint):
        """Keep the curve."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint):
        """Take the curve back."""
        super().on_load_checkpoint(checkpoint)
        self.curve = checkpoint["curve"]


def score(logits, truth):
    """
    Score answers about windows of validation.

    Parameters
    ----------
    logits : numpy.ndarray
        Logits ``(windows, frames, ...)``, or of classes ``(windows, classes)``.
    truth : numpy.ndarray
        Floats of the same shape, or classes ``(windows,)``.

    Returns
    -------
    float
        As :func:`jtm.evaluation.probes.score`, over all frames together.
    """
    if truth.ndim == 1:
        return probes.score(logits, truth)
    frames = (each.reshape(-1, *each.shape[2:]) for each in (logits, truth > 0))
    return probes.score(*frames)


def make_heads(labelled, model, seed, **chosen):
    """
    Make the heads of tasks; the seed draws their weights.

    Parameters
    ----------
    labelled : dict of str to Labelled
        The tasks.
    model : Network
        The network that they read.
    seed : int
        The seed.
    **chosen
        Passed on to :func:`make_head`.

    Returns
    -------
    nn.ModuleDict
        The heads by task.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.ModuleDict(
            {
                task: make_head(task, each.shape, model, **chosen)
                for task, each in labelled.items()
            }
        )


def best_look(module):
    """
    Tell after which look a run was best on validation.

    Parameters
    ----------
    module : SupervisedModule
        A finished run.

    Returns
    -------
    score : float
        Mean score of its tasks.
    look : int
        Its place in the curve; the start, at 0, does not count, and of equals the
        first is taken.
    """
    scores = [float(np.mean([*look["score"].values()])) for look in module.curve[1:]]
    return max(scores), 1 + scores.index(max(scores))


class Settled(NamedTuple):
    """
    What answers a task in the end.

    Parameters
    ----------
    kind : {"trained", "anew", "start"}
        The state that was best as it is, with its head fitted anew, or the start.
    model : Network
        The network.
    head : nn.Module
        The head.
    step : int
        The step that the network is of.
    """

    kind: str
    model: object
    head: object
    step: int


def settle(module, begun, family, seed):
    """
    Settle on the network and the head that validation has best for each task.

    Parameters
    ----------
    module : SupervisedModule
        A finished run; it takes the state that was best.
    begun : Start
        What the run started from.
    family : Family
        The tasks and their labels.
    seed : int
        Draws the weights of heads that are fitted anew.

    Returns
    -------
    dict of str to Settled
        By task; of equals the first kind.
    """
    number = best_look(module)[1]
    path = module.plan.folder / f"checkpoint{number - 1}.pt"
    content = read_checkpoint(path)
    for part in ("model", "head"):
        load_part(path, content, part, getattr(module, part))
    module.eval()
    model, look = module.model, module.curve[number]
    anew = make_heads(family.labelled, model, seed)
    scores = fit_heads(family, model, anew)
    found = {}
    for task in family.labelled:
        states = {
            Settled("trained", model, module.head[task], look["step"]): look["score"],
            Settled("anew", model, anew[task], look["step"]): scores,
            Settled("start", begun.model, begun.heads[task], 0): begun.look["score"],
        }
        found[task] = max(states, key=lambda state: states[state][task])
    return found


def answer(settled, labelled, splits):
    """
    Answer tasks by what was settled on.

    Parameters
    ----------
    settled : dict of str to Settled
        What answers each task.
    labelled : dict of str to Labelled
        The tasks to answer, of one family.
    splits : sequence of str
        Where.

    Returns
    -------
    dict of tuple to list of numpy.ndarray
        By task and split, answers as :meth:`jtm.evaluation.tasks.Task.score` takes
        them.
    """
    found = {}
    for model in {settled[task].model for task in labelled}:
        alike = {t: each for t, each in labelled.items() if settled[t].model is model}
        heads = {task: settled[task].head for task in alike}
        for split in splits:
            found |= answers(model, heads, alike, split)
    return found


@torch.no_grad()
def answers(model, heads, labelled, split, on_encoder=False):
    """
    Answer by a network and its heads.

    Parameters
    ----------
    model : Network
        The network, in evaluation mode.
    heads : dict of str to nn.Module
        Heads by task, in evaluation mode.
    labelled : dict of str to Labelled
        The tasks to answer, of one family.
    split : str
        Where.
    on_encoder : bool
        Give the heads z alone.

    Returns
    -------
    dict of tuple to list of numpy.ndarray
        By task and split, answers as :meth:`jtm.evaluation.tasks.Task.score` takes
        them.
    """
    first = next(iter(labelled.values()))
    if first.task.unit == "clips":
        units = first.units(split)
        found = {task: [] for task in labelled}
        for rows in np.array_split(units, -(-len(units) // 64)) if len(units) else ():
            waves = [read_wave(first.store, *row, CLIP_FRAMES) for row in rows]
            x = features_of(model, torch.from_numpy(np.stack(waves)), on_encoder)
            for task in labelled:
                found[task] += list(heads[task](x)[:, None].numpy())
        return {(task, split): made for task, made in found.items()}
    found = {task: {} for task in labelled}
    indices = sorted({i for each in labelled.values() for i in each.splits[split]})
    lengths = [
        max(e.length(split, i) for e in labelled.values() if i in e.splits[split])
        for i in indices
    ]
    for index, x in represent(first.store, indices, model, on_encoder, lengths):
        for task, each in labelled.items():
            if index in each.splits[split]:
                take = each.selections(split, index)[-1]
                found[task][index] = read_off(heads[task], x, take)
    return {
        (task, split): [found[task][index] for index in each.splits[split]]
        for task, each in labelled.items()
    }


def represent(store, indices, model, on_encoder=False, lengths=None):
    """
    Stream recordings through a network, those of one length side by side.

    Parameters
    ----------
    store : Store
        The recordings.
    indices : sequence of int
        Which of them.
    model : Network
        The network.
    on_encoder : bool
        Give z alone, not z and c side by side.
    lengths : sequence of int, optional
        Frames of each, from its start; all by default.

    Yields
    ------
    index : int
        The recording.
    features : numpy.ndarray
        Its features ``(frames, dim)``.
    """
    source, recordings = NetworkSource(model), {}
    for index, n_frames in zip(indices, lengths or [None] * len(indices), strict=True):
        read = partial(store.read, index)
        wanted = None if n_frames is None else n_frames * source.hop
        recordings[index] = Audio(read, int(store.lengths[index]), wanted)
    for numbers, batch in source.batches(recordings):
        pieces = sorted(source.stream_together(batch), key=lambda piece: piece[0])
        parts = [z if on_encoder else np.concatenate((z, c), 2) for _, z, c in pieces]
        yield from zip(numbers, np.concatenate(parts, axis=1), strict=True)


@torch.no_grad()
def read_off(head, x, take):
    """
    Answer about one recording.

    Parameters
    ----------
    head : nn.Module
        What answers.
    x : numpy.ndarray
        Features ``(frames, dim)``.
    take : FrameSelection
        What is judged.

    Returns
    -------
    numpy.ndarray
        Logits: of frames ``(frames, ...)``, of windows ``(windows, classes)``.
    """
    x = torch.from_numpy(x[: take.n_frames])
    if take.step:
        return head(x[frame_numbers(take.n_frames, take.step)][None])[0].numpy()
    n_windows = len(x) // WINDOW
    return head(x[: n_windows * WINDOW].unflatten(0, (n_windows, WINDOW))).numpy()
