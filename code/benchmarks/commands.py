"""
How long the commands take that a user types.

``python code/benchmarks/commands.py [WORD...]`` runs each command of the README that
has one of the words in it, or every one, in order, prints its time and adds it to
``report/results/commands.json``. What comes of a command goes to a folder that is
deleted, but for what `make` and the examples write in the checkout: time those in a
fresh clone, where ``make lint`` has installed everything, lest they find it done.
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
"""Where the times are recorded."""

COMMANDS = (
    "python toy/generate.py --preset tiny --out OUT/tiny",
    "python toy/generate.py --preset small --out OUT/small",
    "python -m jtm check-data OUT/small",
    "python -m jtm embed OUT/small/test_data --out OUT/embedded",
    "python main.py --samplingType samesequence --useSincNet --maxChunksInMem 5 "
    "--data OUT/small --pathCheckpoint OUT/logs",
    "python main.py --supervised --load OUT/logs/checkpoint3.pt --maxChunksInMem 5 "
    "--data OUT/small --pathCheckpoint OUT/supervised",
    "python -m jtm export --data OUT/small --out OUT/mine.safetensors",
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
"""What is timed; OUT is a folder, and what earlier ones wrote there is read."""


def timed(command, folder):
    """
    Run a command as a user would.

    Parameters
    ----------
    command : str
        One of :data:`COMMANDS`.
    folder : str
        What OUT stands for.

    Returns
    -------
    float
        Seconds that it took.

    Raises
    ------
    subprocess.CalledProcessError
        If it failed.
    """
    words = shlex.split(command.replace("OUT", folder))
    if words[0] == "python":
        words[0] = sys.executable
    root = RESULTS.parents[1]
    start = time.monotonic()
    subprocess.run(
        words,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "code")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - start


def main():
    """Time what is asked for, and what it reads."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("word", nargs="*", help="time the commands that have it")
    words = parser.parse_args().word or [""]
    known = read_json(TIMES)["seconds"] if TIMES.exists() else {}
    wanted = [command for command in COMMANDS if any(w in command for w in words)]
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            *_, option, made = command.split()
            writes = option in ("--out", "--pathCheckpoint")
            read = writes and any(made in each for each in wanted)
            if command not in wanted and not read:
                continue
            seconds = timed(command, folder)
            if command in wanted:
                known[command] = seconds
                kept = {each: known[each] for each in COMMANDS if each in known}
                write_json(TIMES, {"machine": machine(), "seconds": kept})
                print(f"{seconds:8.1f} s  {command}", flush=True)


if __name__ == "__main__":
    main()
