"""
Time of a search through many scores and of naming a piece; accuracy in other keys.

    python code/benchmarks/naming.py --data toy/data/full --real DIR

A query is compared with the passages of 10 000 scores by NumPy, in one thread. The
passages are random vectors, as many per score as in the shipped index. Then recordings
of the toy set, most of them transposed and some reduced to a few of their voices, are
named in any key, with their piece in the index and without. The threshold
:data:`jtm.retrieval.search.KEY_THRESHOLD` is based on the margin that 95 % of the
latter stay below on validation. Test works that are mixed from recorded notes, in
``mixes/`` of the folder of ``--real``, are named as well. It writes
``report/results/naming.json``.
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


def in_any_key(recordings, index, towers):
    """
    Name recordings from their middle.

    Parameters
    ----------
    recordings : sequence of tuple
        Path to the audio, and the number of its piece in the index.
    index : Index
        The index to search.
    towers : Towers
        The encoders.

    Returns
    -------
    dict
        Number of recordings, numbers named correctly and wrongly, fraction of false
        alarms without the piece in the index, and the margin that 5 % of these exceed.
    """
    n_wrong, n_right, alarms = 0, 0, []
    for path, own in recordings:
        wave = audio.read(path)
        size = SECONDS * audio.SAMPLE_RATE
        wave = wave[max(0, len(wave) - size) // 2 :][:size]
        windows = search.cut_windows(wave * audio.gain(audio.powers(wave)))
        matches, found = search.find(wave, index=index)
        n_right += found and matches[0].file == index.pieces[own]["file"]
        n_wrong += found and matches[0].file != index.pieces[own]["file"]
        query = towers, index.without(own), *windows
        margins = (search.search_in_key(*query, key)[0] for key in search.KEYS)
        alarms.append(max(margins))
    return {
        "recordings": len(recordings),
        "right": int(n_right),
        "wrong": int(n_wrong),
        "false_alarms": float(np.mean(np.array(alarms) >= search.KEY_THRESHOLD)),
        "margin": round(float(np.quantile(alarms, 0.95)), 3),
    }


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
        split: [(r.audio, r.metadata.get("corpus_path")) for r in dataset.split(split)]
        for split in ("validation", "test")
    }
    if options.real:
        works = {Path(path).stem: work for path, work in sets["test"]}
        mixes = sorted(options.real.glob("mixes/*.flac"))
        sets["mixes"] = [(path, works.get(path.stem)) for path in mixes]
    for name, recordings in sets.items():
        known = [(path, numbers[work]) for path, work in recordings if work in numbers]
        measured[name] = in_any_key(tqdm(known, name), shipped, towers)
    print(measured)
    write_json(ROOT / "report" / "results" / "naming.json", measured)


if __name__ == "__main__":
    main()
