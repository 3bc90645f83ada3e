"""
What to train, and how: recipes that differ in one thing, after equal time.

``python code/benchmarks/trials.py --data DIR`` pretrains the networks of each study
for the same processor time, then reads multi-pitch, the ensemble and the instrument
of single notes off the frozen features by linear probes on few labels, on the
validation recordings; test stays untouched. It prints the scores and adds the
trials to ``report/results/trials.json``, with settings, cost and scores. A trial
that is there with the same settings is not run again, also where it belongs to
several studies.
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

from jtm.evaluation.probing import probe_features
from jtm.files import read_json, write_json
from jtm.results.records import revision
from jtm.training.checkpoints import load_model, read_checkpoint

TRIALS = RESULTS / "trials.json"
"""Where the trials are recorded."""

STUDIES = {
    "network": {
        "harmonic, pitchwise GRU": (),
        "harmonic, joint GRU": ("--garMode", "joint"),
        "harmonic, transformer": ("--arMode", "transformer"),
        "sinc, quadrature": ("--encoderType", "sinc"),
        "sinc, plain": ("--encoderType", "sinc", "--sincMode", "plain"),
        "convolutions": ("--encoderType", "conv"),
    },
    "what is told apart": {
        "frames": ("--contrast", "frame"),
        "pitches": ("--contrast", "pitch"),
        "both": (),
    },
    "negatives": {
        "any recording's": ("--sameShare", "0"),
        "half the same recording's": (),
        "the same recording's": ("--samplingType", "samesequence"),
        "the same ensemble's": ("--samplingType", "samecategory"),
        "the same composer's": (
            *("--samplingType", "samecategory"),
            *("--labelsBy", "composer"),
        ),
    },
    "past": {
        "as it was": (),
        "augmented": ("--augmentPast", "noise,reverb,equaliser,level"),
    },
    "predictions": {
        "one a step": (),
        "aligned, 8 to 12 steps": ("--aligned", "12"),
        "nearer, 8 steps of 50 ms": ("--stepFrames", "5"),
        "nearest, 8 steps of 10 ms": ("--stepFrames", "1"),
        "transformer predictor": ("--predictor", "transformer"),
    },
}
"""Flags of each trial, by study and name; all else is the default recipe."""

TASKS = ("multipitch", "ensemble", "note_instrument")
"""What features are judged by."""

FRACTIONS = (0.01, 0.1)
"""Shares of the training labels that the probes see."""


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
        Receives the checkpoints.

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
    Give the processor time of a process, which other work does not change.

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


def trial(flags, data, minutes, folder):
    """
    Try one recipe.

    Parameters
    ----------
    flags : sequence of str
        Flags of ``main.py``.
    data : str
        The dataset.
    minutes : float
        Processor time of its pretraining.
    folder : Path
        For the run and for features.

    Returns
    -------
    dict
        What was tried, what it cost, and its scores on validation.
    """
    with tempfile.TemporaryDirectory(dir=folder) as run:
        checkpoint = pretrain(flags, data, minutes, Path(run) / "run")
        model, _ = load_model(checkpoint)
        steps = read_checkpoint(checkpoint)["global_step"]
        scores = {}
        for fraction in FRACTIONS:
            made = probe_features(
                checkpoint,
                data,
                TASKS,
                ("cpc-z", "cpc-c", "random-z", "random-c"),
                # Beside the features, which an untrained network has once for all.
                out=folder / f"{Path(run).name}.jsonl",
                fraction=fraction,
                splits=("validation",),
                progress=False,
            )
            for row in made[made["primary"]].itertuples():
                scores[f"{row.task} {row.representation} {fraction:g}"] = row.value
    return {
        "flags": list(flags),
        "data": Path(data).name,
        "processor_minutes": minutes,
        "steps": steps,
        "weights": sum(p.numel() for p in model.parameters()),
        "validation": scores,
        "machine": machine(),
    }


def main():
    """Try what has not been tried, print the scores and record the trials."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", required=True, help="a dataset with labels")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="processor time of each"
    )
    parser.add_argument(
        "--study", choices=STUDIES, nargs="+", default=list(STUDIES), help="which"
    )
    options = parser.parse_args()
    known = read_json(TRIALS) if TRIALS.exists() else []
    code = {"revision": revision()}  # before the results change the checkout

    def about(flags):
        return list(flags), Path(options.data).name, options.minutes

    with tempfile.TemporaryDirectory() as folder:
        for study in options.study:
            for name, flags in STUDIES[study].items():
                same = [
                    each
                    for each in known
                    if (each["flags"], each["data"], each["processor_minutes"])
                    == about(flags)
                ]
                if any(each["study"] == study for each in same):
                    continue
                print(f"{study}: {name}", flush=True)
                found = (
                    same[0]
                    if same
                    else trial(flags, options.data, options.minutes, Path(folder))
                )
                known.append(code | found | {"study": study, "name": name})
                write_json(TRIALS, known)  # kept if the next is stopped
                print(f"    {found['weights']} weights, {found['steps']} steps")
                for key, value in found["validation"].items():
                    print(f"    {key:36}{100 * value:6.1f}", flush=True)


if __name__ == "__main__":
    main()
