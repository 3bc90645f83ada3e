"""
Which objective of pretraining pays: recipes that differ in one thing.

``python code/benchmarks/trials.py --data DIR`` pretrains each recipe for the same
processor time, fine-tunes from it on few labelled recordings as the benchmark does
(three seeds, learning rates chosen on validation, as for training from scratch), and
scores the validation recordings; test is not read. The trials, those that failed among
them, are added to ``report/results/trials.json``; one that is there with the same
settings is not run again.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpc_step import RESULTS, machine

from jtm.cpc import benchmark
from jtm.files import read_json, write_json
from jtm.results import records
from jtm.training.checkpoints import read_checkpoint

TRIALS = RESULTS / "trials.json"
"""Where the trials are recorded."""

PITCH = ("--contrast", "pitch")
"""Each pitch by itself, with negatives of the same pitch at other moments."""

RECIPES = {
    "scratch": ((), "scratch"),
    "pitches": (PITCH, "cpc-finetuned"),
    "pitches, temperature 0.3": ((*PITCH, "--temperature", "0.3"), "cpc-finetuned"),
    "frames": (("--contrast", "frame"), "cpc-finetuned"),
    "pitches and frames": (("--contrast", "both"), "cpc-finetuned"),
    "pitches, the past augmented": (
        (*PITCH, "--augmentPast", "noise,reverb,equaliser,level"),
        "cpc-finetuned",
    ),
    "pitches, 8 steps of 40 ms": ((*PITCH, "--stepFrames", "4"), "cpc-finetuned"),
    "pitches, negatives of the same recording": (
        (*PITCH, "--samplingType", "samesequence"),
        "cpc-finetuned",
    ),
    "pitches, and InfoNCE beside the labels": (PITCH, "cpc-joint"),
}
"""By name, flags of pretraining and the method of the benchmark that follows it."""

AMOUNTS = (3, 10)
"""Labelled recordings."""

STEPS = 800
"""Optimiser steps of fine-tuning, a half or a third of the benchmark's."""

SEEDS = (0, 1, 2)
"""Random seeds of labels, weights and order; the first chooses learning rates."""


def pretrain(flags, data, minutes, folder):
    """
    Pretrain for so long, then stop as a user would.

    Parameters
    ----------
    flags : sequence of str
        Flags of ``main.py``.
    data : str
        The dataset.
    minutes : float
        Processor time.
    folder : Path
        Receives the checkpoints; what is there goes on.

    Returns
    -------
    Path
        The last checkpoint.
    """
    command = [sys.executable, "-m", "jtm", "train", "--data", data, *flags]
    command += ["--nEpoch", "1000", "--pathCheckpoint", str(folder)]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while run.poll() is None and spent(run.pid) < 60 * minutes:
        time.sleep(1)
    run.send_signal(signal.SIGTERM)
    run.wait()
    return folder / "last.pt"


def spent(pid):
    """
    Read the processor time of a process, which other work does not change.

    Parameters
    ----------
    pid : int
        The process.

    Returns
    -------
    float
        Seconds over all its threads, in user and system mode.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def judge(checkpoint, data, method, work):
    """
    Score a method of the benchmark on the validation recordings.

    Parameters
    ----------
    checkpoint : Path
        The pretrained network.
    data : str
        A dataset with labels.
    method : str
        One of :data:`jtm.cpc.benchmark.METHODS`.
    work : Path
        For log magnitudes, which all trials share.

    Returns
    -------
    dict
        By amount, task and metric, the score of each seed.
    """
    scores = {}
    only = {"family": ["frames"], "method": [method]}
    only |= {"amount": list(AMOUNTS), "seed": list(SEEDS)}
    benchmark.STEPS.update(dict.fromkeys(AMOUNTS, STEPS))
    with tempfile.TemporaryDirectory(dir=work) as out:
        benchmark.run(data, checkpoint, out, only, work, splits=("validation",))
        table = records.read(Path(out) / "benchmark.csv.gz")
    of_method = table[(table["method"] == method) & (table["split"] == "validation")]
    for row in of_method.sort_values("seed").itertuples():
        key = f"{row.labelled_recordings:g} {row.task} {row.metric}"
        scores.setdefault(key, []).append(round(row.value, 4))
    return scores


def main():
    """Try what has not been tried, print the scores and record the trials."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", required=True, help="a dataset with labels")
    parser.add_argument(
        "--minutes", type=float, default=12.0, help="processor time of pretraining"
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, nargs="+", default=list(RECIPES), help="which"
    )
    parser.add_argument(
        "--work",
        default="logs/trials",
        type=Path,
        help="folder for checkpoints and log magnitudes, from which a stopped command "
        "goes on",
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    known = read_json(TRIALS) if TRIALS.exists() else []
    revision = records.revision()  # before the results change the checkout
    for name in options.recipe:
        flags, method = RECIPES[name]
        about = {"name": name, "flags": list(flags), "method": method}
        about |= {
            "labelled_steps": STEPS,
            "data": Path(options.data).name,
            "minutes": options.minutes,
        }
        if any(about.items() <= each.items() for each in known):
            continue
        print(name, flush=True)
        # Methods that start at random need a network's settings alone.
        minutes = options.minutes if method.startswith("cpc") else 0.1
        folder = options.work / "-".join(["run", f"{minutes:g}", *flags])
        checkpoint = folder / "last.pt"
        if not checkpoint.exists():
            pretrain(flags, options.data, minutes, folder)
        scores = judge(checkpoint, options.data, method, options.work)
        steps = read_checkpoint(checkpoint)["global_step"]
        steps = steps if method.startswith("cpc") else 0
        cost = {"steps": steps, "revision": revision, "machine": machine()}
        known.append(about | cost | {"validation": scores})
        write_json(TRIALS, known)  # kept if the next is stopped
        for key, values in scores.items():
            shown = "  ".join(f"{100 * value:5.1f}" for value in values)
            print(f"    {key:44}{shown}", flush=True)


if __name__ == "__main__":
    main()
