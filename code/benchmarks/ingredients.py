"""
Gain from each ingredient of the transcriber's training.

``python code/benchmarks/ingredients.py --data toy/data/full --also DIR --two DIR --real
DIR`` trains transcribers for one epoch of small batches, each with one ingredient more
than another, with three seeds, transcribes the sets of ``transcribers.py``, and writes
``report/results/ingredients.json``: note F1, and the difference to the other
transcriber, paired over recordings and seeds. ``--also`` is the set `transcriber`
without instruments that MusicNet lacks, modal pianos and figures (generated with
``OTHERS_SHARE``, ``MODAL_SHARE`` in ``toy/acoustics.py`` and all shares of ``figurate``
in ``toy/arrange.py`` zero), ``--two`` the same with ``PLAYER_SOUNDFONTS`` in
``toy/synth.py`` empty, so that there are two SoundFonts. ``--whole FILE FILE FILE``
adds three transcribers trained at length, which takes hours: on the latter from
scratch, and from CPC weights; and one that went on from the first and from which the
shipped one went on; these have one seed. Run again, it resumes.
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

SEEDS = range(3)

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
        Path to the weights of the second transcriber of the same seed.

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


def weights_of(name, seed, work):
    """Return the path to the weights of a transcriber in the folder of all runs."""
    return work / f"{name.replace(' ', '-')}-{seed}" / "transcriber.safetensors"


def train(weights, options, data):
    """
    Train a transcriber, or resume its training.

    Parameters
    ----------
    weights : Path
        Path to its weights.
    options : list of str
        Options of training.
    data : Path
        Path to the dataset.
    """
    command = [sys.executable, CODE.parent / "main.py", "--preset", "transcriber"]
    command += ["--data", data, "--pathCheckpoint", weights.parent, *LENGTH]
    if not weights.exists():
        if subprocess.run(map(str, [*command, *options])).returncode:
            folder = weights.parent.name
            raise SystemExit(f"{folder}: stopped; run the same command to resume")


def rows_of(name, other, steps, onset_f1, sets):
    """
    List the scores of a transcriber by set, and its gains over another.

    Parameters
    ----------
    name, other : str
        Names of both; the other is None if there is none.
    steps : int
        Number of steps of training.
    onset_f1 : dict of tuple to list of numpy.ndarray
        By transcriber and set, for each seed, note F1 of each recording.
    sets : dict of str to list of Piece
        The recordings of each set.

    Returns
    -------
    list of dict
        The rows of ``ingredients.json``.
    """
    rows = []
    for each, pieces in sets.items():
        groups = [piece.group for piece in pieces]
        values = onset_f1[name, each]
        row = {"with": name, "beside": other, "steps": steps, "seeds": len(values)}
        row |= {"set": each} | estimate(values, groups)
        if other:
            pairs = zip(values, onset_f1[other, each], strict=True)
            row["difference"] = estimate([a - b for a, b in pairs], groups)
        rows.append(row)
    return rows


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
    sets = {name: sets[name] for name in SETS if name in sets}
    runs = {}  # by name: what it is compared with, and weights by seed
    for seed in SEEDS:
        teacher = weights_of(VARIED, seed, options.work)
        table = arms(options.also, options.two, teacher)
        for name, (other, chosen) in table.items():
            weights = weights_of(name, seed, options.work)
            train(weights, [*chosen, "--randomSeed", seed], options.data)
            runs.setdefault(name, (other, []))[1].append(weights)
    if options.whole:
        scratch, cpc, others = options.whole
        shipped = WEIGHTS / "transcriber.safetensors"
        runs |= {WHOLE: (None, [scratch]), f"{CPC}, at length": (WHOLE, [cpc])}
        runs |= {OTHERS: (WHOLE, [others]), SHIPPED: (OTHERS, [shipped])}
    rows, onset_f1 = [], {}
    for name, (other, files) in runs.items():
        for weights in files:
            system = System(OURS, options.work, weights)
            for each, pieces in sets.items():
                predicted = system.notes(pieces, [{}], SETS[each])
                pairs = zip(pieces, predicted, strict=True)
                values = [score(piece, notes)["onset"] for piece, (notes,) in pairs]
                onset_f1.setdefault((name, each), []).append(np.array(values))
        log = files[0].with_suffix(".json")
        log = read_json(log if log.exists() else RESULTS / "transcriber.json")
        continued = name in (OTHERS, SHIPPED)
        steps = count_steps(log) if continued else log["history"][-1]["step"]
        rows += rows_of(name, other, steps, onset_f1, sets)
    titles = {name: SETS[name] for name in sets}
    results = {"sets": titles, "recordings": {n: len(of) for n, of in sets.items()}}
    results |= {"scores": rows, "machine": machine()}
    write_json(RESULTS / "ingredients.json", results)


if __name__ == "__main__":
    main()
