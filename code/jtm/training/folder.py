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
from jtm.training.config import flag
from jtm.training.processes import place

CONFIG_FILE = "config.json"
"""Name of the file with a run's settings, next to its checkpoints."""

LAST = "last.pt"
"""Name of the checkpoint that a run resumes from."""

BEST = "best.pt"
"""Name of the checkpoint of the best epoch, by score or loss."""

RECORD = "record.json"
"""Name of the file with the scores and the thresholds of training with labels."""

LOCK = ".lock"
"""Name of the lock file of a run's folder, locked while a process uses the folder."""

MINUTE = 60 * SAMPLE_RATE
"""Number of samples in a minute."""

PATHS = ("data", "path_checkpoint", "load")
"""Settings that are paths; the content of these is compared instead."""


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
    found = ((path.stem[10:], path) for path in folder.glob("checkpoint*.pt"))
    numbered = {int(number): path for number, path in found if number.isdecimal()}
    found, damaged = (None, None), []
    if (folder / LAST).exists():
        try:
            found = folder / LAST, read_checkpoint(folder / LAST)
        except InputError:
            damaged.append(LAST)
    history = found[1].get("history", []) if found[1] else []
    done = len({row["epoch"] for row in history})
    for number in sorted(numbered, reverse=True):
        if number < done or (number + 1 == done and found[0]):
            break  # the one already found is at least as new
        try:
            found = numbered[number], read_checkpoint(numbered[number])
            break
        except InputError:
            damaged.append(numbered[number].name)
    if damaged and not found[0]:
        raise InputError(
            f"{folder}: {', '.join(damaged)} damaged, and no whole checkpoint of the "
            "run is left; choose another --pathCheckpoint"
        )
    if damaged:
        warn(f"{folder}: {', '.join(damaged)} damaged; {found[0].name} is the newest")
    return found


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
    above = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(
            f"{folder}: cannot be written; choose another --pathCheckpoint"
        )
    if (folder / CONFIG_FILE).exists():
        there = read_json(folder / CONFIG_FILE)
    else:  # without that file, the run is identified by its newest checkpoint
        content = newest(folder)[1]
        if not content:
            return False
        there = content["config"]
    # Settings introduced after the run was written get their defaults.
    there = asdict(type(config)()) | there
    here = asdict(config)
    more = config.may_grow and there["n_epoch"] < config.n_epoch
    grown = {"n_epoch"} if more else set()
    for name in sorted((here.keys() | there.keys()) - {*config.idle, *PATHS} - grown):
        if there.get(name) != here.get(name):
            raise InputError(
                f"{folder} holds a run with --{flag(name)} {there.get(name)!r}, not "
                f"{here.get(name)!r}; choose another --pathCheckpoint"
            )
    return (folder / CONFIG_FILE).exists() and not more


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
    folder, here = Path(config.path_checkpoint), place()
    check(config)
    content = newest(folder)[1]
    if content:
        _check_origin(config, content, data, origin)
        if content.get("world", 1) != here.world:
            raise InputError(
                f"{folder} holds a run of {content.get('world', 1)} processes, not "
                f"{here.world}; start as many, or choose another --pathCheckpoint"
            )
    if here.rank:
        yield
        return
    busy = f"{folder}: another process is at this run; let it end, or choose another "
    with locked(folder / LOCK, busy + "--pathCheckpoint"):
        sweep(folder)
        if not check(config):  # again, now that no other process can change it
            write_json(folder / CONFIG_FILE, asdict(config))
        yield


def _check_origin(config, content, data, origin):
    """Refuse to resume with other recordings, or from another start, than before."""
    folder, before = config.path_checkpoint, content.get("data")
    if content.get("origin", origin) != origin:
        raise InputError(
            f"{folder} holds a run from another checkpoint: {config.load or 'none'} is "
            "not what it started from; choose another --pathCheckpoint"
        )
    if not data or not before or before["sha256"] == data["sha256"]:
        return
    there, here = (
        f"{n[0]} ({samples[0] / MINUTE:.1f} min) for training and "
        f"{n[1]} ({samples[1] / MINUTE:.1f} min) for validation"
        for n, samples in ((s["recordings"], s["samples"]) for s in (before, data))
    )
    same = ", of other content or names" * (there == here)
    raise InputError(
        f"{folder} holds a run on other recordings: {there}, where {config.data} now "
        f"has {here}{same}; choose another --pathCheckpoint, or bring the recordings "
        "back"
    )
