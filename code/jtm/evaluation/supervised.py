"""
``main.py --supervised``: one task, learned from labels and scored on test.

With ``--load`` the network of a checkpoint stays frozen, and a head learns on its
features. Without, the same network is trained from scratch, end to end. The head
is shared across pitch where pitches are asked about and the features have that
axis. The epoch that is best on validation is scored.

Features of all training and validation frames are kept in the run's folder until
it is finished, so that it can go on where it stopped: two bytes a number, with the
pretrained network 1.65 GB an hour of sound (z alone 0.63 GB). Single notes need none.
"""

import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from jtm.constants import FRAME_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW
from jtm.data.store import build_store
from jtm.evaluation import cells as records
from jtm.evaluation import networks
from jtm.evaluation.cells import Record
from jtm.evaluation.features import Features, FrameSelection
from jtm.evaluation.labelled import Labelled, clip_store
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError, digest
from jtm.models.heads import PitchHead, PooledHead
from jtm.results.records import revision
from jtm.training.checkpoints import build_model, load_model
from jtm.training.config import NetworkConfig, RunConfig
from jtm.training.finetune import Batches, SupervisedModule, features_of
from jtm.training.folder import check, claim
from jtm.training.loop import Plan, fit

RECORD_FILE = "record.json"
"""Name of the file in a run's folder that holds its scores."""

FEATURES = "features"
"""Name of the folder in a run's folder for features, until it is finished."""

VALIDATION_WINDOWS = 256
"""Maximum number of windows of the validation loss."""


def run(config, progress=True):
    """
    Train and score one task, or take up its run where it stopped.

    Parameters
    ----------
    config : SupervisedConfig
        The settings; ``data`` and ``path_checkpoint`` are set.
    progress : bool
        Show progress bars.

    Returns
    -------
    list of Record
        The scores on test, which also stand in ``record.json`` of the folder.

    Raises
    ------
    InputError
        If the data or a checkpoint is not fit for it.
    StoppedError
        If the user stopped it; everything is saved.
    """
    start, folder, task = time.monotonic(), Path(config.path_checkpoint), config.task
    check(config)  # what takes no time first, and all before anything is written
    network, origin = config, ""
    if config.load:
        model, network = load_model(config.load)
        origin = digest(config.load)
    else:
        model = build_model(config)
    if TASKS[task].unit == "clips":
        store = clip_store(config.data, progress)
    else:
        store = build_store(open_dataset(config.data), progress=progress)
    labelled = Labelled.of(store, task)
    cut = _cut(config, labelled, origin)
    data = store.summary(np.unique(cut.train[:, 0]), np.unique(cut.validation[:, 0]))
    with claim(config, data, origin):
        file = folder / RECORD_FILE
        if file.exists():
            made = records.read(file)
            print(f"{folder}: finished, {config.n_epoch} epochs; nothing left to do")
        else:
            module = _module(config, model, labelled, cut, progress)
            module.facts |= {"config": asdict(config), "data": data, "origin": origin}
            fit(module, progress)
            settings = asdict(config) | {"checkpoint": origin}
            # With a checkpoint, the network is the one it was trained with.
            names = NetworkConfig.__dataclass_fields__.keys()
            names -= RunConfig.__dataclass_fields__.keys()
            settings |= {name: getattr(network, name) for name in sorted(names)}
            made = _score(module, labelled, cut, config, settings, start)
            records.write(file, made)
        shutil.rmtree(folder / FEATURES, ignore_errors=True)
    _tell(made)
    return made


class _Cut(NamedTuple):
    """Windows ``(windows, 2)`` of a run, their frames, and frames heard around them."""

    train: np.ndarray
    validation: np.ndarray
    size: int
    edge: int


def _cut(config, labelled, origin):
    """Cut the labelled recordings into windows; refuse what leaves too few."""
    task, size = config.task, WINDOW
    edge = 0 if origin else networks.EDGE[TASKS[task].family]
    if TASKS[task].unit == "clips":
        size = networks.CLIP_FRAMES
    elif TASKS[task].unit == "notes":
        size = round(config.transcription_window / 1000 * FRAME_RATE)
    train = labelled.subset(1.0, 0, size)
    validation = labelled.units("validation", size)
    n_validation = min(VALIDATION_WINDOWS, len(validation))
    spread = np.linspace(0, len(validation) - 1, n_validation)
    validation = validation[spread.astype(int)]
    for split, units in (("train", train), ("validation", validation)):
        if not len(units):
            longest = max(labelled.length(split, i) for i in labelled.splits[split])
            raise InputError(
                f"{config.data}: of a {split} recording {longest / FRAME_RATE:g} s at "
                f"most are used, less than a window of {size / FRAME_RATE:g} s; use a "
                "smaller --transcriptionWindow"
            )
    if labelled.classes and min(config.batch_size, len(train)) < 2:
        raise InputError(
            f"--task {task} standardises over the windows of a batch; "
            "expected a --batchSize of at least 2, and two training windows"
        )
    return _Cut(train, validation, size, edge)


def _name(config):
    """Name what the head reads, as the records do."""
    frozen = "cpc-z" if config.on_encoder else "cpc-zc"
    return frozen if config.load else "supervised"


def _module(config, model, labelled, cut, progress):
    """Make the module of a run, and the features of a frozen network."""
    task, store, frozen = config.task, labelled.store, bool(config.load)
    clips = TASKS[task].unit == "clips"
    if frozen and not clips:
        # All frames, once: windows of an epoch are read from them.
        features = Features(Path(config.path_checkpoint) / FEATURES, {"cpc": model})
        wanted = {
            index: [_whole(labelled, index)]
            for split in ("train", "validation")
            for index in labelled.splits[split]
        }
        features.compute(store, (_name(config),), wanted, progress)

    def read(index, first):
        """Read the input and the target of a window."""
        target = networks.targets_of(labelled, index, first, size=cut.size)
        target = {task: target}
        if frozen and not clips:
            rows, take = slice(first, first + cut.size), _whole(labelled, index)
            return features.rows(_name(config), store, index, take, rows), target
        wave = networks.read_wave(store, index, first, cut.size, cut.edge)
        if not frozen:
            return wave, target
        wave = torch.from_numpy(wave)[None].to(next(model.parameters()))
        with torch.no_grad():
            x = features_of(model, wave, config.on_encoder)
        return x[0].cpu().numpy(), target

    heads = networks.make_heads(
        {task: labelled},
        model,
        config.random_seed,
        on_encoder=config.on_encoder,
        tuned=True,
    )
    # One window has no deviation for a head of classes to standardise by.
    least, size = 2 if labelled.classes else 1, config.batch_size
    return SupervisedModule(
        Plan(config.n_epoch, config.random_seed, config.path_checkpoint),
        model,
        heads,
        Batches(cut.train, read, size, config.random_seed, least=least),
        Batches(cut.validation, read, size),
        config.learning_rate,
        frozen=frozen,
        on_encoder=config.on_encoder,
        edge=cut.edge,
    )


def _score(module, labelled, cut, config, settings, start):
    """Score a trained module on test."""
    task = config.task
    splits = [s for s in ("test", "test_timbre") if labelled.splits[s]]
    answer = partial(networks.answers, module.model, module.head, {task: labelled})
    answers = {}
    for split in ("validation", *splits):
        answers |= answer(split, config.on_encoder)
    thresholds = labelled.task.choose(labelled, answers[task, "validation"])
    common = {
        "task": task,
        "representation": _name(config),
        "probe": _kind(module.head[task]) if config.load else "network",
        "fraction": 1.0,
        "labelled": labelled.seconds(cut.train, cut.size),
        "seed": config.random_seed,
        "seconds": round(time.monotonic() - start, 2),
        "revision": revision(),
        "config": settings | thresholds,
    }
    return [
        Record(split=split, **common, **fields)
        for split in splits
        for fields in labelled.task.score(
            labelled, split, answers[task, split], thresholds
        )[0]
    ]


def _whole(labelled, index):
    """Take all frames of a recording."""
    return FrameSelection(1, labelled.length("train", index))


def _kind(head):
    """Name what reads the features, as a probe."""
    head = head.head if isinstance(head, PooledHead) else head
    if getattr(head, "time", None) is not None:
        return "head"
    return "shared" if isinstance(head, PitchHead) else "linear"


def _tell(made):
    """Print scores with their intervals, one a line."""
    for record in made:
        name = record.metric.replace("_", " ").replace("f1", "F1")
        between = ""
        if record.low is not None:
            between = f" (95 % interval {record.low:.3f} to {record.high:.3f})"
        print(f"{record.task}, {record.split}: {name} {record.value:.3f}{between}")
