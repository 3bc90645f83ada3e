"""
Which network learns most from a minute of a processor.

``python code/benchmarks/encoders.py --data DIR`` pretrains each of a few networks
with the same recipe for the same processor time, then reads multi-pitch and
ensemble off the frozen features by linear probes on few labels, on the validation
recordings; test stays untouched. It prints a table and adds the trials to
``report/results/trials.json``, with settings, cost and scores. A trial that is
there with the same settings is not run again.
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

from jtm.evaluation.protocol import judge
from jtm.files import read_json, write_json
from jtm.training.checkpoints import load_model, read_checkpoint

TRIALS = RESULTS / "trials.json"
"""Where the trials are recorded."""

NETWORKS = {
    "harmonic, pitchwise GRU": (),
    "harmonic, joint GRU": ("--garMode", "joint"),
    "sinc, quadrature": ("--encoderType", "sinc"),
    "sinc, plain": ("--encoderType", "sinc", "--sincMode", "plain"),
    "convolutions": ("--encoderType", "conv"),
}
"""Flags of each network; all else is the default recipe."""

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


def trial(name, data, minutes):
    """
    Try one network.

    Parameters
    ----------
    name : str
        One of :data:`NETWORKS`.
    data : str
        The dataset.
    minutes : float
        Processor time of its pretraining.

    Returns
    -------
    dict
        What was tried, what it cost, and its scores on validation.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pretrain(NETWORKS[name], data, minutes, Path(folder) / "run")
        model, _ = load_model(checkpoint)
        steps = read_checkpoint(checkpoint)["global_step"]
        scores = {}
        for fraction in FRACTIONS:
            made = judge(
                checkpoint,
                data,
                representations=("cpc-z", "cpc-c", "random-z", "random-c"),
                out=Path(folder) / "records.jsonl",
                fraction=fraction,
                splits=("validation",),
                progress=False,
            )
            for record in made:
                if record.primary:
                    key = f"{record.task} {record.representation} {fraction:g}"
                    scores[key] = record.value
    return {
        "study": "network by equal processor time",
        "name": name,
        "flags": list(NETWORKS[name]),
        "data": Path(data).name,
        "processor_minutes": minutes,
        "steps": steps,
        "weights": sum(p.numel() for p in model.parameters()),
        "validation": scores,
        "machine": machine(),
    }


def main():
    """Try every network, print the table and record the trials."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", required=True, help="a dataset with labels")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="processor time of each"
    )
    options = parser.parse_args()
    known = read_json(TRIALS) if TRIALS.exists() else []
    for name, flags in NETWORKS.items():
        about = (list(flags), Path(options.data).name, options.minutes)
        if about in [
            (t["flags"], t["data"], t.get("processor_minutes")) for t in known
        ]:
            continue
        known.append(trial(name, options.data, options.minutes))
        write_json(TRIALS, known)  # what was tried is kept if the next is stopped
        found = known[-1]
        print(f"{name}: {found['weights']} weights, {found['steps']} steps")
        for key, value in found["validation"].items():
            print(f"    {key:36}{100 * value:6.1f}")


if __name__ == "__main__":
    main()
