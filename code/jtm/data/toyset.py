"""The toy sets, generated on first use."""

import os
import subprocess
import sys
from pathlib import Path

from jtm.data.musicnet import METADATA_FILE
from jtm.files import ROOT, InputError, locked


def toy_data(preset, progress=True):
    """
    Return the folder of a toy set, generating it on first use.

    Parameters
    ----------
    preset : {"tiny", "small", "full", "transcriber"}
        Preset of the toy set.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    str
        Path to its folder.

    Raises
    ------
    InputError
        If it cannot be generated.
    """
    folder = Path(os.path.relpath(ROOT / "toy" / "data" / preset))
    if (folder / METADATA_FILE).exists():
        return folder.as_posix()
    generator = ROOT / "toy" / "generate.py"
    if not generator.exists():
        raise InputError("no dataset given; name one with --data")
    with locked(folder.with_name(f".{preset}.lock")):
        if (folder / METADATA_FILE).exists():  # another process has generated it
            return folder.as_posix()
        print(f"generating the toy set in {folder} first", flush=True)
        command = [sys.executable, generator, "--preset", preset, "--out", folder]
        done = subprocess.run(command, capture_output=not progress, text=True)
        if done.returncode:
            reason = "see above" if progress else done.stderr.strip()
            raise InputError(f"{folder}: the toy set could not be generated; {reason}")
    return folder.as_posix()
