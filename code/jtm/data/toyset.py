"""The dataset of a run that names none: MusicNet where it lies, or a toy set."""

import os
import subprocess
import sys
from pathlib import Path

from jtm.data.musicnet import METADATA_FILE
from jtm.files import ROOT, InputError, locked


def default_data(preset):
    """
    Choose the dataset of a run that names none.

    Parameters
    ----------
    preset : str
        One of the presets; `tiny` and `transcriber` have toy sets of their own.

    Returns
    -------
    str
        MusicNet in ``data/musicnet`` if it is there, else the toy set.
    """
    if Path("data/musicnet").is_dir():
        return "data/musicnet"
    return toy_data(preset if preset in ("tiny", "transcriber") else "small")


def toy_data(preset, progress=True):
    """
    Return a toy set, making it on first use.

    Parameters
    ----------
    preset : {"tiny", "small", "full", "transcriber"}
        Which.
    progress : bool
        Show progress bars.

    Returns
    -------
    str
        Its folder.

    Raises
    ------
    InputError
        If it cannot be made here.
    """
    folder = Path(os.path.relpath(ROOT / "toy" / "data" / preset))
    if (folder / METADATA_FILE).exists():
        return folder.as_posix()
    generator = ROOT / "toy" / "generate.py"
    if not generator.exists():
        raise InputError("no dataset given; name one with --data")
    with locked(folder.with_name(f".{preset}.lock")):
        if (folder / METADATA_FILE).exists():  # another process has made it
            return folder.as_posix()
        print(f"making the toy set in {folder} first", flush=True)
        command = [sys.executable, generator, "--preset", preset, "--out", folder]
        done = subprocess.run(command, capture_output=not progress, text=True)
        if done.returncode:
            reason = "see above" if progress else done.stderr.strip()
            raise InputError(f"{folder}: the toy set could not be made; {reason}")
    return folder.as_posix()
