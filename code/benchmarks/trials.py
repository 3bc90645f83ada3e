"""
Trials of recipes of pretraining, each evaluated by fine-tuning.

``python code/benchmarks/trials.py --data DIR`` pretrains each recipe, fine-tunes from
it on few labelled recordings as the benchmark does (three seeds, learning rates chosen
on validation), and scores the validation recordings; test is not read. Two trials have
no pretraining of their own: one adds InfoNCE to the fine-tuning of the shipped network;
one, a control of self-training, takes no other audio than that of the labels.
Trials, including failed ones, are added to ``report/results/trials.json``; the
benchmark has the same scores of training from scratch and of the shipped network. A
stopped command resumes, and recorded trials with the same settings are not repeated.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from cpc_step import RESULTS, machine

from jtm.constants import SAMPLE_RATE
from jtm.cpc import benchmark
from jtm.embedding import WEIGHTS
from jtm.files import read_json, write_json
from jtm.results import records
from jtm.training.checkpoints import read_checkpoint
from jtm.training.folder import BEST

TRIALS = RESULTS / "trials.json"
"""Path to the recorded trials."""

LONG = ("--nEpoch", "16", "--batchSize", "32", "--learningRate", "3e-3")
LONG = (*LONG, "--schedulerStep", "6")
"""Five times as many epochs; hours on a CPU, minutes on a GPU."""

AUGMENTED = ("--augmentPast", "noise,reverb,equaliser,level")
"""Augment the past alone, as if it were in another room than the future."""

RECIPES = {
    "at length": LONG,
    "at length, the past augmented": (*LONG, *AUGMENTED),
    "the past augmented": AUGMENTED,
    "frames": ("--contrast", "frame"),
    "pitches and frames": ("--contrast", "both"),
    "8 steps of 40 ms": ("--stepFrames", "4"),
    "negatives of the same recording": ("--samplingType", "samesequence"),
    "temperature 0.1": ("--temperature", "0.1"),
}
"""Options added to ``main.py --preset best``, the shipped network's recipe, by name."""

JOINT = "InfoNCE (temperature 0.1) and labels jointly"
"""Fine-tuning of the shipped network, with InfoNCE on unlabelled audio in each step."""

DISTILLED = "self-training on the labelled audio alone"
"""Self-training of a network from scratch, without the audio that has no labels."""

AMOUNTS = (3, 10)
"""Numbers of labelled recordings."""

METHODS = {JOINT: ("cpc-joint", AMOUNTS), DISTILLED: ("scratch-distilled", (3,))}
"""Methods of the trials without pretraining of their own, and their amounts."""

SEEDS = (0, 1, 2)
"""Random seeds of labels, heads and order; the first chooses learning rates."""


def pretrain(folder, data, flags):
    """Pretrain with some options in `folder`; return the steps and hours of audio."""
    command = [sys.executable, "-m", "jtm", "train", "--preset", "best"]
    command += ["--precision", "bf16", "--data", data, *flags]
    subprocess.run([*command, "--pathCheckpoint", str(folder)], check=True)
    content = read_checkpoint(folder / BEST)
    rows = [row for row in content["history"] if row["split"] == "train"]
    n_windows = sum(row["windows"] for row in rows)
    hours = n_windows * content["config"]["size_window"] / SAMPLE_RATE / 3600
    return {"steps": content["global_step"], "hours_heard": round(hours, 1)}


def evaluate(checkpoint, data, out, work, method="cpc-finetuned", amounts=AMOUNTS):
    """
    Fine-tune from a network and score the validation recordings.

    Parameters
    ----------
    checkpoint : Path
        Path to the pretrained network.
    data : str
        Path to a dataset with labels.
    out : Path
        Folder of the runs; finished runs are not repeated.
    work : Path
        Folder of log magnitudes, which all trials share.
    method : str
        Method of the benchmark by which to train on the labels.
    amounts : sequence of int
        Numbers of labelled recordings.

    Returns
    -------
    dict
        By task and amount of labels, the primary score of each seed.
    """
    scores, only = {}, {"family": ["frames"], "method": [method]}
    only |= {"amount": list(amounts), "seed": list(SEEDS)}
    bench = benchmark.Benchmark(data, checkpoint, out, work, splits=("validation",))
    bench.run(only)
    table = records.read(out / "benchmark.csv.gz")
    table = table[table["primary"] & (table["split"] == "validation")]
    table = table[table["method"] == method]  # not its teacher
    for row in table.sort_values("seed").itertuples():
        key = f"{row.task} {row.labelled_recordings:g}"
        scores.setdefault(key, []).append(round(row.value, 4))
    return scores


def _known():
    """Read the recorded trials."""
    return read_json(TRIALS) if TRIALS.exists() else []


def main():
    """Run the new trials, print their scores and record them."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled dataset")
    parser.add_argument(
        "--recipe",
        choices=[*RECIPES, *METHODS],
        nargs="+",
        default=[*RECIPES, *METHODS],
        help="recipes to try",
    )
    parser.add_argument(
        "--work",
        default="logs/trials",
        type=Path,
        help="folder for checkpoints and log magnitudes; the same command resumes",
    )
    options = parser.parse_args()
    revision = records.revision()  # before the results change the checkout
    for name in options.recipe:
        about = {"name": name, "flags": [*RECIPES.get(name, ())]}
        about["data"] = Path(options.data).name
        if any(about.items() <= each.items() for each in _known()):
            continue
        print(name, flush=True)
        folder = options.work / name.replace(" ", "-")
        places = folder / "evaluated", options.work / "magnitudes"
        if name in METHODS:
            cost = {"steps": 0, "hours_heard": 0.0}  # no pretraining of its own
            scores = evaluate(WEIGHTS, options.data, *places, *METHODS[name])
        else:
            cost = pretrain(folder, options.data, about["flags"])
            scores = evaluate(folder / BEST, options.data, *places)
        cost |= {"revision": revision, "machine": machine()}
        # Saved even if the next is stopped; another process may have added some.
        write_json(TRIALS, [*_known(), about | cost | {"validation": scores}])
        for key, values in scores.items():
            line = "  ".join(f"{100 * value:5.1f}" for value in values)
            print(f"    {key:28}{line}", flush=True)


if __name__ == "__main__":
    main()
