"""
Time of a search through many scores and of naming a piece; accuracy in other keys.

    python code/benchmarks/naming.py --data toy/data/full --real DIR

A query is compared with the passages of 10 000 scores by NumPy, in one thread. The
passages are random vectors, as many per score as in the shipped index. Then excerpts
of the toy set, most of them transposed and some reduced to a few of their voices, are
named in any key, with their piece in the index and without. The threshold
:data:`jtm.retrieval.search.KEY_THRESHOLD` is what 95 % of the latter stay below on
validation, and :data:`jtm.retrieval.search.KEY_CONFIDENCE` is fitted to both. The same
is done with works mixed from recorded notes, in ``mixes/`` of the folder of ``--real``.
It writes ``report/results/naming.json``.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "code"))

import numpy as np  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from tqdm import tqdm  # noqa: E402

from jtm.data.musicnet import open_dataset  # noqa: E402
from jtm.files import write_json  # noqa: E402
from jtm.music import audio  # noqa: E402
from jtm.retrieval import search  # noqa: E402

PIECES = 10_000
"""Number of scores that are searched."""

SECONDS = 20
"""Duration of the recording that is named, in seconds."""

REPEATS = 5
"""Number of measurements, of which the fastest counts."""

MIXES = {
    "7007": "bach/bwv293.mxl",
    "7014": "monteverdi/madrigal.4.15.mxl",
    "7017": "beethoven/opus59no1/movement2.mxl",
    "7020": "haydn/opus1no1/movement5.mxl",
}
"""
Works of the mixes that are in the shipped index, found by the melodic intervals that
their labels share with its scores. Their numbers are those of an earlier toy set.
"""


def fastest(function):
    """
    Measure the processor time of a call.

    Parameters
    ----------
    function : callable
        The function to call.

    Returns
    -------
    float
        Processor seconds of the fastest of :data:`REPEATS` calls.
    """
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def in_any_key(name, recordings, index, towers):
    """
    Name excerpts of recordings: their start, their middle and their end.

    Parameters
    ----------
    name : str
        Name of the set, for the progress bar.
    recordings : list of tuple
        Path to the audio, and the number of its piece in the index; None if it is not
        there.
    index : Index
        The index to search.
    towers : Towers
        The encoders.

    Returns
    -------
    dict
        Numbers of recordings and of excerpts of pieces in the index, numbers of these
        excerpts named correctly and wrongly, fraction of false alarms of all excerpts
        without their piece in the index, the relative margin that 5 % of the latter
        exceed, and, if any is correct, the coefficients of a logistic regression of
        correctness on the relative margin.
    """
    rows = []  # whether the piece is in the index, relative margin, whether correct
    for path, own in tqdm(recordings, name):
        for windows in excerpts(path):
            if own is not None:
                margin, best = relative_margin(towers, index, *windows)
                rows.append((True, margin, best == own))
            without = index if own is None else index.without(own)
            rows.append((False, relative_margin(towers, without, *windows)[0], False))
    known, margins, correct = map(np.array, zip(*rows, strict=True))
    named = margins >= search.KEY_THRESHOLD
    measured = {
        "recordings": sum(own is not None for _, own in recordings),
        "excerpts": int(known.sum()),
        "right": int((named & correct).sum()),
        "wrong": int((named & known & ~correct).sum()),
        "false_alarms": float(named[~known].mean()),
        "margin": round(float(np.quantile(margins[~known], 0.95)), 3),
    }
    if correct.any():
        fitted = LogisticRegression().fit(margins[:, None], correct)
        coefficients = float(fitted.intercept_[0]), float(fitted.coef_[0, 0])
        measured["confidence"] = [round(each, 3) for each in coefficients]
    return measured


def relative_margin(towers, index, starts, magnitudes):
    """Return the margin in the best key relative to the median, and its piece."""
    searched = list(search.search_in_keys(towers, index, starts, magnitudes))
    margins = [search.margin(ranked, len(starts)) for ranked in searched]
    best = int(np.argmax(margins))
    return margins[best] / np.median(margins), searched[best][0][0]


def excerpts(path):
    """
    Cut the start, the middle and the end of a recording into windows.

    Parameters
    ----------
    path : str or Path
        Path to the audio.

    Yields
    ------
    tuple
        Start times and log magnitudes of the windows of an excerpt.
    """
    wave = audio.read(path)
    size = SECONDS * audio.SAMPLE_RATE
    for place in (0.0, 0.5, 1.0):
        excerpt = wave[int(place * max(0, len(wave) - size)) :][:size]
        yield search.cut_windows(audio.normalise(excerpt))


def main():
    """Measure, print and write the results."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--data", required=True, help="toy set of --preset full")
    parser.add_argument("--real", type=Path, help="folder with mixes/")
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    torch.set_num_threads(1)
    shipped = search.Index.load(search.INDEX)
    rng = np.random.default_rng(0)
    per_piece = round(len(shipped.vectors) / len(shipped.pieces))
    count, dim = PIECES * per_piece, shipped.vectors.shape[1]
    index = search.Index(
        [], rng.integers(-127, 128, (count, dim), np.int8), *np.zeros((2, count)), ""
    )
    assert index.unit.dtype == np.float32
    query = rng.standard_normal((1, dim)).astype(np.float32)
    wave = audio.read(dataset.split("test")[0].audio, seconds=SECONDS)
    search.find(wave)  # start-up apart
    measured = {
        "pieces": PIECES,
        "passages": count,
        "search_seconds": round(fastest(lambda: index.nearest(query)), 4),
        "identify_seconds": round(fastest(lambda: search.find(wave)), 3),
        "shipped_pieces": len(shipped.pieces),
        "recording_seconds": SECONDS,
    }
    towers = search.model.load(search.WEIGHTS)[0]
    numbers = {piece["file"]: i for i, piece in enumerate(shipped.pieces)}
    sets = {
        split: [
            (recording.audio, numbers[work])
            for recording in dataset.split(split)
            if (work := recording.metadata.get("corpus_path")) in numbers
        ]
        for split in ("validation", "test")
    }
    if options.real:
        mixes = sorted(options.real.glob("mixes/*.flac"))
        sets["mixes"] = [(path, numbers.get(MIXES.get(path.stem))) for path in mixes]
    for name, recordings in sets.items():
        measured[name] = in_any_key(name, recordings, shipped, towers)
    print(measured)
    write_json(ROOT / "report" / "results" / "naming.json", measured)


if __name__ == "__main__":
    main()
