"""
``main.py --supervised``: one task, learned from labels and scored on test.

With ``--load`` the network of a checkpoint stays frozen: its features are
computed once, and a head learns on them. Without, the same network is trained
from scratch, end to end. The epoch that is best on validation is scored.
"""

import time
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from jtm.constants import FRAME_RATE, HOP, N_PITCHES
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.data.targets import WINDOW, frame_roll
from jtm.evaluation import tasks, transcription
from jtm.evaluation.features import Audio, Features, NetworkSource
from jtm.files import InputError, digest
from jtm.models.heads import FrameHead, TranscriptionHead, WindowHead
from jtm.results import records
from jtm.results.records import Record
from jtm.training.checkpoints import build_model, load_model, read_checkpoint
from jtm.training.config import NetworkConfig, RunConfig, settle

RECORD_FILE = "record.json"
"""Name of the file in a run's folder that holds its scores."""

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
    from jtm.training.supervised import Batches, SupervisedModule, fit

    start = time.monotonic()
    folder = Path(config.path_checkpoint)
    network, origin = config, ""
    if config.load:
        model, network = load_model(config.load)
        origin = digest(config.load)
    else:
        model = build_model(config)
    store = build_store(open_dataset(config.data), progress=progress)
    labelled = tasks.Labelled.of(store, config.task)
    size = WINDOW
    if config.task == "transcription":
        size = round(config.transcription_window / 1000 * FRAME_RATE)
    windows = labelled.windows("train", size=size)
    judged = labelled.windows("validation", size=size)[:VALIDATION_WINDOWS]
    if not (len(windows) and len(judged)):
        raise InputError(
            f"{config.data}: no labelled recording to train or validate on is as long "
            f"as a window of {size / FRAME_RATE:g} s; use a smaller "
            "--transcriptionWindow"
        )
    if labelled.classes and min(config.batch_size, len(windows)) < 2:
        raise InputError(
            f"--task {config.task} standardises over the windows of a batch; "
            "expected a --batchSize of at least 2, and two windows to learn from"
        )
    settle(folder, config)
    if (folder / RECORD_FILE).exists():
        made = records.read(folder / RECORD_FILE)
        _check_origin(config, origin, made[0].config["checkpoint"])
        print(f"{folder}: finished, {config.n_epoch} epochs; nothing left to do")
        _tell(made)
        return made
    if (folder / "last.pt").exists():
        there = read_checkpoint(folder / "last.pt")["origin"]
        _check_origin(config, origin, there)

    if origin:
        features = Features(store, folder / "features", {"cpc": model})
        name = "cpc-z" if config.on_encoder else "cpc-c"
        indices = [
            i for s in ("train", "validation", "test") for i in labelled.splits[s]
        ]
        features.compute((name,), indices, progress)
        represent = partial(features.rows, name)
    else:
        name = "supervised"
        represent = partial(_represent, store, model, config.on_encoder)
    notes_of = cache(labelled.notes)

    def read(index, first):
        """Give the input and the target of a window."""
        if labelled.classes:
            target = labelled.classes_of([index])[0]
        else:
            target = _roll(notes_of(index), first, size, config.task)
        if origin:
            return represent(index, slice(first, first + size)), target
        wave = store.read(index, first * HOP, (first + size) * HOP)
        return wave[None].astype(np.float32) / 32768, target  # (1, samples)

    head = _head(config, model, len(labelled.classes))
    batches = (
        Batches(windows, read, config.batch_size, config.random_seed),
        Batches(judged, read, config.batch_size),
    )
    fit(SupervisedModule(config, model, head, *batches, origin), progress)

    @torch.no_grad()
    def answer(index):
        """Give the head's answer for a recording."""
        x = represent(index)
        if labelled.classes:
            return head(torch.from_numpy(tasks.cut(x))).argmax(dim=1).numpy()
        return head(torch.from_numpy(x)[None])[0].numpy()

    scores, chosen = _score(labelled, answer)
    settings = asdict(config) | {"checkpoint": origin} | chosen
    # With a checkpoint, the network is the one it was trained with.
    settings |= {
        k: getattr(network, k)
        for k in NetworkConfig.__dataclass_fields__
        if k not in RunConfig.__dataclass_fields__
    }
    common = {
        "task": config.task,
        "representation": name,
        "probe": "head" if config.task == "transcription" else "linear",
        "fraction": 1.0,
        "labelled": len(windows) * size / FRAME_RATE,
        "seed": config.random_seed,
        "split": "test",
        "seconds": round(time.monotonic() - start, 2),
        "revision": records.revision(),
        "config": settings,
    }
    made = [Record(**common, **fields) for fields in scores]
    records.write(folder / RECORD_FILE, made)
    _tell(made)
    return made


def _check_origin(config, origin, there):
    """Refuse a folder whose run began from another checkpoint than this one."""
    if origin != there:
        raise InputError(
            f"{config.path_checkpoint} holds a run on another network: {config.load} "
            "has changed since; choose another --pathCheckpoint, or remove the folder "
            "to start anew"
        )


def _represent(store, model, on_encoder, index):
    """Stream a recording through a network; give its z or c ``(frames, dim)``."""
    audio = Audio(lambda a, b: store.read(index, a, b), store.lengths[index])
    pieces = sorted(NetworkSource(model).stream(audio), key=lambda piece: piece[0])
    return np.concatenate([z if on_encoder else c for _, z, c in pieces])


def _score(labelled, answer):
    """Score a task on test; give the scores, and what validation chose."""
    if labelled.classes:
        return tasks.score_windows(labelled, "test", answer), {}
    if labelled.task == "multipitch":
        return tasks.score_frames(labelled, "test", answer), {}
    held_out = labelled.splits["validation"]
    thresholds = transcription.choose_thresholds(
        [answer(index) for index in held_out],
        [labelled.notes(index) for index in held_out],
    )
    scores = tasks.score_notes(labelled, "test", answer, thresholds)
    return scores, {"frame_threshold": thresholds[0], "onset_threshold": thresholds[1]}


def _head(config, model, n_classes):
    """Make the head of a task; the seed draws its weights."""
    dim = model.z_dim if config.on_encoder else model.c_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed)
        if config.task == "transcription":
            return TranscriptionHead(dim)
        if config.task == "multipitch":
            return FrameHead(dim, N_PITCHES)
        return WindowHead(dim, n_classes)


def _roll(notes, first, size, task):
    """Give what sounds in a window, and for transcription also what starts."""
    roll = frame_roll(notes, size, first)
    if task == "transcription":
        onsets = transcription.onset_targets(notes, size, first)
        roll = np.stack((roll, onsets), axis=1)  # (frames, 2, 88)
    return roll.astype(np.float32)


def _tell(made):
    """Print scores with their intervals, one a line."""
    for record in made:
        name = record.metric.replace("_", " ").replace("f1", "F1")
        between = ""
        if record.low is not None:
            between = f" (95 % interval {record.low:.3f} to {record.high:.3f})"
        print(f"{record.task}, {record.split}: {name} {record.value:.3f}{between}")
