"""
The folder of a run: which run it belongs to, and how far that run has got.

A run is identified by its settings, and by the checksums of the recordings that it is
trained on and of the checkpoint that it starts from, not by their paths.
"""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, locked, read_json, sweep, warn, write_json
from jtm.training.checkpoints import read_checkpoint
from jtm.training.config import RunConfig, flag
from jtm.training.processes import process_info

# Files of a run, next to the checkpoints of its epochs.
CONFIG_FILE = "config.json"  # its settings
LAST = "last.pt"  # the checkpoint that it resumes from
BEST = "best.pt"  # the checkpoint of the best epoch, by score or loss
RECORD = RunConfig.record  # scores and thresholds of training with labels

# Settings that are paths; the content of these is compared instead.
PATHS = ("data", "also", "path_checkpoint", "load", "teacher")


def newest(folder):
    """
    Find the newest undamaged checkpoint of a run.

    Parameters
    ----------
    folder : str or Path
        Path to the run's folder.

    Returns
    -------
    path : Path or None
        Path to the checkpoint; None if there is none.
    content : dict or None
        Content of the checkpoint.

    Raises
    ------
    InputError
        If there are checkpoints, and all are damaged.
    """
    folder = Path(folder)
    paths = ((path.stem[10:], path) for path in folder.glob("checkpoint*.pt"))
    by_epoch = {int(number): path for number, path in paths if number.isdecimal()}
    path, content, damaged = None, None, []
    if (folder / LAST).exists():
        try:
            path, content = folder / LAST, read_checkpoint(folder / LAST)
        except InputError:
            damaged.append(LAST)
    history = content.get("history", []) if content else []
    done = len({row["epoch"] for row in history})
    for epoch in sorted(by_epoch, reverse=True):
        if epoch < done:
            break  # the last checkpoint is at least as new
        try:
            path, content = by_epoch[epoch], read_checkpoint(by_epoch[epoch])
            break
        except InputError:
            damaged.append(by_epoch[epoch].name)
    if damaged and not path:
        raise InputError(
            f"{folder}: {', '.join(damaged)} damaged, and the run has no undamaged "
            "checkpoint; choose another --pathCheckpoint"
        )
    if damaged:
        warn(f"{folder}: {', '.join(damaged)} damaged; {path.name} is the newest")
    return path, content


def check(config):
    """
    Refuse an unsuitable folder, before any data is read or anything is written.

    Parameters
    ----------
    config : RunConfig
        The run's settings.

    Returns
    -------
    bool
        Whether the folder already belongs to this run, with the same number of epochs.

    Raises
    ------
    InputError
        If the folder holds a run with other settings, the first of which is named, or
        cannot be written.
    """
    folder = Path(config.path_checkpoint)
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(
            f"{folder}: cannot be written; choose another --pathCheckpoint"
        )
    if not any(folder.glob("[!.]*.pt")) and not (folder / config.record).exists():
        return False  # stopped before its first checkpoint: nothing would be lost
    if (folder / CONFIG_FILE).exists():
        saved = read_json(folder / CONFIG_FILE)
        if not isinstance(saved, dict):
            raise InputError(f"{folder / CONFIG_FILE}: not the settings of a run")
    else:  # without that file, the run is identified by its newest checkpoint
        content = newest(folder)[1]
        if not content:
            return False
        saved = content["config"]
    # Settings introduced after the run was written get their defaults; those abolished
    # since are of no account if they were off.
    requested = asdict(config)
    saved = {name: x for name, x in saved.items() if x or name in requested}
    saved = asdict(type(config)()) | saved
    extended = config.may_grow and saved["n_epoch"] < config.n_epoch
    ignored = {*config.idle, *PATHS} | ({"n_epoch"} if extended else set())
    for name in sorted((requested.keys() | saved.keys()) - ignored):
        if saved.get(name) != requested.get(name):
            raise InputError(
                f"{folder} holds a run with --{flag(name)} {saved.get(name)!r}, not "
                f"{requested.get(name)!r}; choose another --pathCheckpoint"
            )
    return (folder / CONFIG_FILE).exists() and not extended


@contextlib.contextmanager
def claim(config, data=None, origin=""):
    """
    Lock a run's folder for the duration of the run, and write its settings there.

    If a run has several processes, the first locks the folder for all.

    Parameters
    ----------
    config : RunConfig
        The run's settings.
    data : dict, optional
        Summary of the training data, from :meth:`jtm.data.store.Store.summary`.
    origin : str
        Hash of the checkpoint that the run starts from; empty if there is none.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        If another process uses the folder, it holds another run, or it cannot be
        written; nothing has been written then.
    """
    folder = Path(config.path_checkpoint)
    rank, world_size, _ = process_info()
    check(config)
    content = newest(folder)[1]
    record = folder / config.record
    if not content and record.exists():  # a finished run without checkpoints
        content = read_json(record)
        if not isinstance(content, dict):
            raise InputError(f"{record}: not the record of a run")
    if content:
        _check_origin(config, content, data, origin)
        if content.get("world", 1) != world_size:
            raise InputError(
                f"{folder} holds a run of {content.get('world', 1)} processes, not "
                f"{world_size}; start as many, or choose another --pathCheckpoint"
            )
    if rank:
        yield
        return
    busy = f"{folder}: another process is running it; wait until it ends, or choose "
    with locked(folder / ".lock", busy + "another --pathCheckpoint"):
        sweep(folder, deep=False)  # subfolders may be of other runs
        if not check(config):  # again, now that no other process can change it
            write_json(folder / CONFIG_FILE, asdict(config))
        yield


def _check_origin(config, content, data, origin):
    """Refuse to resume with other recordings or another initial checkpoint."""
    folder, saved = config.path_checkpoint, content.get("data")
    if content.get("origin", origin) != origin:
        raise InputError(
            f"{folder} holds a run from another checkpoint: {config.load or 'none'} is "
            "not the one it started from; choose another --pathCheckpoint"
        )
    if not data or not saved:
        return
    if saved["sha256"] == data["sha256"]:
        if saved.get("labels", data.get("labels")) != data.get("labels"):
            raise InputError(
                f"{folder} holds a run on other labels or test recordings than "
                f"{config.data} now has; choose another --pathCheckpoint"
            )
        return
    minute = 60 * SAMPLE_RATE
    before, now = (
        f"{n[0]} ({samples[0] / minute:.1f} min) for training and "
        f"{n[1]} ({samples[1] / minute:.1f} min) for validation"
        for n, samples in ((s["recordings"], s["samples"]) for s in (saved, data))
    )
    same = ", of other content or names" * (before == now)
    raise InputError(
        f"{folder} holds a run on other recordings: {before}, where {config.data} now "
        f"has {now}{same}; choose another --pathCheckpoint, or restore the recordings"
    )
