"""
Gain from each ingredient of the transcriber's training.

``python code/benchmarks/ingredients.py --data toy/data/full --also DIR --two DIR --real
DIR`` trains transcribers for one epoch of small batches, each with one ingredient more
than another, transcribes the sets of ``transcribers.py``, and writes
``report/results/ingredients.json``: note F1, and the paired difference to the other
transcriber over recordings. ``--also`` is the set `transcriber` without instruments
that MusicNet lacks (generated with ``OTHERS_SHARE = 0`` in ``toy/acoustics.py``),
``--two`` the same with only the first two SoundFonts of ``toy/README.md``. ``--whole
FILE FILE FILE`` adds three transcribers trained at length, which takes hours: on the
latter from scratch, and from CPC weights; and one that went on from the first and from
which the shipped one went on. There is one seed. Run again, it resumes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from cpc_step import RESULTS, machine
from transcribers import CODE, OURS, SETS, System, estimate, read_sets, score

from jtm.files import read_json, write_json
from jtm.transcriber.tables import count_steps

WEIGHTS = CODE / "jtm" / "weights"

LENGTH = ["--nEpoch", 1, "--batchSize", 4]
"""Options of the short runs: 1000 steps of 4 windows of 4.48 s."""

LABELS, VARIED = "labels of full", "level, spectrum and noise varied"
PLAYERS, FONTS = "sounds of players varied", "five SoundFonts instead of two"
WHOLE, CPC = "the whole recipe with two SoundFonts", "start from CPC"
TAUGHT = "self-training on the unlabelled audio of full"
OTHERS = "then noise, five SoundFonts, other instruments"
SHIPPED = "then figures and modal pianos: the shipped transcriber"


def arms(also, two, teacher):
    """
    List the transcribers to train.

    Parameters
    ----------
    also, two : Path
        Paths to labelled audio in which the sound of each player varies, with five
        SoundFonts and with two.
    teacher : Path
        Path to the weights of the second transcriber, once it is trained.

    Returns
    -------
    dict of str to tuple
        By added ingredient: the transcriber that it is added to, and options.
    """
    return {
        LABELS: (None, ["--plain"]),
        VARIED: (LABELS, []),
        CPC: (VARIED, ["--load", WEIGHTS / "jtm.safetensors"]),
        TAUGHT: (VARIED, ["--teacher", teacher, "--batchSize", 8]),  # half unlabelled
        PLAYERS: (VARIED, ["--also", two]),
        FONTS: (PLAYERS, ["--also", also]),
    }


def weights_of(name, work):
    """Return the path to the weights of a transcriber in the folder of all runs."""
    return work / name.replace(" ", "-") / "transcriber.safetensors"


def train(name, options, data, work):
    """
    Train a transcriber, or resume its training.

    Parameters
    ----------
    name : str
        Name of the transcriber and of its folder.
    options : list of str
        Options of training.
    data, work : Path
        Paths to the dataset and to the folder of all runs.

    Returns
    -------
    Path
        Path to its weights.
    """
    weights = weights_of(name, work)
    command = [sys.executable, CODE.parent / "main.py", "--preset", "transcriber"]
    command += ["--data", data, "--pathCheckpoint", weights.parent, *LENGTH]
    if not weights.exists():
        if subprocess.run(map(str, [*command, *options])).returncode:
            raise SystemExit(f"{name}: stopped; run the same command to resume")
    return weights


def main():
    """Read the command line, train, transcribe, score, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    default = RESULTS.parents[1] / "logs" / "ingredients"
    add = parser.add_argument
    add("--data", type=Path, required=True, help="toy set of --preset full")
    add("--also", type=Path, required=True, help="toy set of --preset transcriber")
    add("--two", type=Path, required=True, help="the same with two SoundFonts")
    add("--real", type=Path, help="folder with mixes/, piano/ and notes/")
    add("--work", type=Path, default=default, help="folder for runs and predictions")
    add("--recordings", type=int, default=16, help="recordings per toy split")
    text = "transcribers trained at length: from scratch, from CPC, on from the first"
    add("--whole", nargs=3, type=Path, metavar="FILE", help=text)
    options = parser.parse_args()
    cut = options.work / "cut"
    sets = read_sets(options.data, options.real, options.recordings, cut)
    named = {name: title for name, title in SETS.items() if name in sets}
    rows, onset_f1 = [], {}
    paths = options.also, options.two, weights_of(VARIED, options.work)
    runs = [
        (name, other, train(name, chosen, options.data, options.work))
        for name, (other, chosen) in arms(*paths).items()
    ]
    if options.whole:
        scratch, cpc, others = options.whole
        shipped = WEIGHTS / "transcriber.safetensors"
        runs += [(WHOLE, None, scratch), (f"{CPC}, at length", WHOLE, cpc)]
        runs += [(OTHERS, WHOLE, others), (SHIPPED, OTHERS, shipped)]
    for name, other, weights in runs:
        log = weights.with_suffix(".json")
        log = read_json(log if log.exists() else RESULTS / "transcriber.json")
        continued = name in (OTHERS, SHIPPED)
        steps = count_steps(log) if continued else log["history"][-1]["step"]
        system = System(OURS, options.work, weights)
        for each, title in named.items():
            predicted = system.notes(sets[each], [{}], title)
            pairs = zip(sets[each], predicted, strict=True)
            values = [score(piece, notes)["onset"] for piece, (notes,) in pairs]
            groups = [piece.group for piece in sets[each]]
            onset_f1[name, each] = np.array(values)
            row = {"with": name, "beside": other, "steps": steps, "set": each}
            row |= estimate(values, groups)
            if other:
                gain = onset_f1[name, each] - onset_f1[other, each]
                row["difference"] = estimate(gain, groups)
            rows.append(row)
            print(row, flush=True)
    results = {"sets": named, "scores": rows, "machine": machine()}
    write_json(RESULTS / "ingredients.json", results)


if __name__ == "__main__":
    main()
