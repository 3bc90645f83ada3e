"""
Running times of the commands that users type.

``python code/benchmarks/commands.py [WORD...]`` runs each command of the README that
contains one of the words, or every one, in order, prints its time and adds it to
``report/results/commands.json``. Outputs go to a folder that is deleted, except those
of `make` and the examples, which are written in the checkout. Time these in a fresh
clone, where ``make lint`` has installed everything, so that no output exists before.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time

from cpc_step import RESULTS, machine

from jtm.files import read_json, write_json

TIMES = RESULTS / "commands.json"
"""Path to the recorded times."""

COMMANDS = (
    "python toy/generate.py --preset tiny --out OUT/tiny",
    "python toy/generate.py --preset small --out OUT/small",
    "python -m jtm check-data OUT/small",
    "python -m jtm embed OUT/small/test_data --out OUT/embedded",
    "python main.py --samplingType samesequence --useSincNet --maxChunksInMem 5 "
    "--data OUT/small --pathCheckpoint OUT/logs",
    "python main.py --supervised --load OUT/logs/checkpoint3.pt --maxChunksInMem 5 "
    "--data OUT/small --pathCheckpoint OUT/supervised",
    "python -m jtm export --out OUT/mine.safetensors",
    "python -m jtm inside --data OUT/small --load code/jtm/weights/jtm.safetensors "
    "--out OUT/inside.json --work OUT/work",
    "python code/examples/listen.py",
    "python code/examples/pretrain.py",
    "python code/examples/embed.py",
    "python code/examples/probe.py",
    "python code/examples/transcribe.py",
    "python code/examples/look_inside.py",
    "python -m jtm report",
    "make demo",
    "make notebook",
    "make report",
    'make submission NAMES="A B C"',
    "make test",
)
"""Commands to time; OUT is a folder, where later ones read outputs of earlier ones."""


def timed(command, folder):
    """
    Run a command as a user would.

    Parameters
    ----------
    command : str
        One of :data:`COMMANDS`.
    folder : str
        Path that OUT stands for.

    Returns
    -------
    float
        Elapsed seconds.

    Raises
    ------
    subprocess.CalledProcessError
        If the command failed.
    """
    arguments = shlex.split(command.replace("OUT", folder))
    if arguments[0] == "python":
        arguments[0] = sys.executable
    root = RESULTS.parents[1]
    start = time.monotonic()
    subprocess.run(
        arguments,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "code")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - start


def main():
    """Time the selected commands, and run those whose outputs they read."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("word", nargs="*", help="time only commands that contain it")
    words = parser.parse_args().word or [""]
    times = read_json(TIMES)["seconds"] if TIMES.exists() else {}
    selected = [command for command in COMMANDS if any(w in command for w in words)]
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            *_, option, output = command.split()
            writes = option in ("--out", "--pathCheckpoint")
            needed = writes and any(output in each for each in selected)
            if command not in selected and not needed:
                continue
            seconds = timed(command, folder)
            if command in selected:
                times[command] = seconds
                ordered = {each: times[each] for each in COMMANDS if each in times}
                write_json(TIMES, {"machine": machine(), "seconds": ordered})
                print(f"{seconds:8.1f} s  {command}", flush=True)


if __name__ == "__main__":
    main()
