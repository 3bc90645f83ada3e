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

import numpy as np
import torch

from jtm.constants import FRAME_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW
from jtm.data.store import build_store
from jtm.evaluation import networks, tasks
from jtm.evaluation.features import Features, FrameSelection
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError, digest
from jtm.models.heads import PitchHead, PooledHead
from jtm.results import records
from jtm.results.records import Record
from jtm.training.checkpoints import build_model, load_model, read_checkpoint
from jtm.training.config import NetworkConfig, RunConfig, settle

RECORD_FILE = "record.json"
"""Name of the file in a run's folder that holds its scores."""

FEATURES = "features"
"""Name of the folder in a run's folder for features, until it is finished."""

VALIDATION_WINDOWS = 256
"""Most windows that the loss of an epoch is judged on."""


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
    from jtm.training.supervised import Batches, SupervisedModule, features_of, fit

    start = time.monotonic()
    folder = Path(config.path_checkpoint)
    network, origin = config, ""
    if config.load:
        model, network = load_model(config.load)
        origin = digest(config.load)
    else:
        model = build_model(config)
    task = config.task
    clips = TASKS[task].unit == "clips"
    if clips:
        store = tasks.clip_store(config.data, progress)
    else:
        store = build_store(open_dataset(config.data), progress=progress)
    labelled = tasks.Labelled.of(store, task)
    size, edge = WINDOW, 0 if origin else networks.EDGE[TASKS[task].family]
    if clips:
        size = networks.CLIP_FRAMES
    elif task == "transcription":
        size = round(config.transcription_window / 1000 * FRAME_RATE)
    windows = labelled.subset(1.0, 0, size)
    judged = labelled.units("validation", size)
    spread = np.linspace(0, len(judged) - 1, min(VALIDATION_WINDOWS, len(judged)))
    judged = judged[spread.astype(int)]
    for split, units in (("train", windows), ("validation", judged)):
        if not len(units):
            longest = max(labelled.length(split, i) for i in labelled.splits[split])
            raise InputError(
                f"{config.data}: of a {split} recording {longest / FRAME_RATE:g} s at "
                f"most are used, less than a window of {size / FRAME_RATE:g} s; use a "
                "smaller --transcriptionWindow"
            )
    if labelled.classes and min(config.batch_size, len(windows)) < 2:
        raise InputError(
            f"--task {task} standardises over the windows of a batch; "
            "expected a --batchSize of at least 2, and two windows to learn from"
        )
    settle(folder, config)
    if (folder / RECORD_FILE).exists():
        made = records.read(folder / RECORD_FILE)
        _check_origin(config, origin, made[0].config["checkpoint"])
        shutil.rmtree(folder / FEATURES, ignore_errors=True)  # of a run cut off here
        print(f"{folder}: finished, {config.n_epoch} epochs; nothing left to do")
        _tell(made)
        return made
    if (folder / "last.pt").exists():
        there = read_checkpoint(folder / "last.pt")["origin"]
        _check_origin(config, origin, there)

    name = ("cpc-z" if config.on_encoder else "cpc-zc") if origin else "supervised"
    if origin and not clips:
        # All frames, once: windows of an epoch are read from them.
        features = Features(folder / FEATURES, {"cpc": model})
        wanted = {
            index: [_whole(labelled, index)]
            for split in ("train", "validation")
            for index in labelled.splits[split]
        }
        features.compute(store, (name,), wanted, progress)

    def read(index, first):
        """Give the input and the target of a window."""
        target = {task: networks.targets_of(labelled, index, first, size=size)}
        if origin and not clips:
            rows = slice(first, first + size)
            take = _whole(labelled, index)
            return features.rows(name, store, index, take, rows), target
        wave = networks.read_wave(store, index, first, size, edge)
        if not origin:
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
    least = 2 if labelled.classes else 1
    batches = (
        Batches(windows, read, config.batch_size, config.random_seed, least=least),
        Batches(judged, read, config.batch_size),
    )
    module = SupervisedModule(
        config,
        model,
        heads,
        *batches,
        origin,
        bool(origin),
        edge=edge,
        data=store.summary(np.unique(windows[:, 0]), np.unique(judged[:, 0])),
    )
    fit(module, progress)

    splits = [s for s in ("test", "test_timbre") if labelled.splits[s]]
    answer = partial(networks.answers, model, heads, {task: labelled})
    answers = {}
    for split in ("validation", *splits):
        answers |= answer(split, config.on_encoder)
    thresholds = tasks.choose(labelled, answers[task, "validation"])
    settings = asdict(config) | {"checkpoint": origin} | thresholds
    # With a checkpoint, the network is the one it was trained with.
    settings |= {
        k: getattr(network, k)
        for k in NetworkConfig.__dataclass_fields__
        if k not in RunConfig.__dataclass_fields__
    }
    common = {
        "task": task,
        "representation": name,
        "probe": _kind(heads[task]) if origin else "network",
        "fraction": 1.0,
        "labelled": labelled.seconds(windows, size),
        "seed": config.random_seed,
        "seconds": round(time.monotonic() - start, 2),
        "revision": records.revision(),
        "config": settings,
    }
    made = [
        Record(split=split, **common, **fields)
        for split in splits
        for fields in tasks.score(labelled, split, answers[task, split], thresholds)[0]
    ]
    records.write(folder / RECORD_FILE, made)
    shutil.rmtree(folder / FEATURES, ignore_errors=True)
    _tell(made)
    return made


def _whole(labelled, index):
    """Take all frames of a recording."""
    return FrameSelection(1, labelled.length("train", index))


def _kind(head):
    """Name what reads the features, as a probe."""
    head = head.head if isinstance(head, PooledHead) else head
    if getattr(head, "time", None) is not None:
        return "head"
    return "shared" if isinstance(head, PitchHead) else "linear"


def _check_origin(config, origin, there):
    """Refuse a folder whose run began from another checkpoint than this one."""
    if origin != there:
        raise InputError(
            f"{config.path_checkpoint} holds a run on another network: {config.load} "
            "has changed since; choose another --pathCheckpoint, or remove the folder "
            "to start anew"
        )


def _tell(made):
    """Print scores with their intervals, one a line."""
    for record in made:
        name = record.metric.replace("_", " ").replace("f1", "F1")
        between = ""
        if record.low is not None:
            between = f" (95 % interval {record.low:.3f} to {record.high:.3f})"
        print(f"{record.task}, {record.split}: {name} {record.value:.3f}{between}")
