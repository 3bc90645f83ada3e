"""
How long a search through many scores takes, and naming a piece.

    python code/benchmarks/naming.py

A query of 20 s is compared with the passages of 10 000 scores, random vectors in the
numbers of the shipped index, by NumPy, in one thread. Writes
``report/results/naming.json``.
"""

import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "code"))

import numpy as np  # noqa: E402

from jtm.files import write_json  # noqa: E402
from jtm.retrieval import search  # noqa: E402
from jtm.retrieval.config import DIM  # noqa: E402

PIECES = 10_000
"""Scores that are searched."""

SECONDS = 20
"""Length of the recording that is named."""

REPEATS = 5
"""Of as many measurements the fastest counts."""


def fastest(function):
    """
    Measure how long a call takes.

    Parameters
    ----------
    function : callable
        The call.

    Returns
    -------
    float
        Seconds of the fastest of :data:`REPEATS`, of the processor.
    """
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def main():
    """Measure, print and write."""
    import torch

    torch.set_num_threads(1)
    shipped = search.Index.load(search.INDEX)
    rng = np.random.default_rng(0)
    per_piece = round(len(shipped.vectors) / len(shipped.pieces))
    count = PIECES * per_piece
    index = search.Index(
        [], rng.integers(-127, 128, (count, DIM), np.int8), *np.zeros((2, count)), ""
    )
    assert index.unit.dtype == np.float32
    query = rng.standard_normal((1, DIM)).astype(np.float32)
    wave = 0.1 * rng.standard_normal(16_000 * SECONDS)
    search.find(wave)  # start-up apart
    measured = {
        "pieces": PIECES,
        "passages": count,
        "search_seconds": round(fastest(lambda: index.nearest(query)), 4),
        "identify_seconds": round(fastest(lambda: search.find(wave)), 3),
        "shipped_pieces": len(shipped.pieces),
        "recording_seconds": SECONDS,
    }
    print(measured)
    write_json(ROOT / "report" / "results" / "naming.json", measured)


if __name__ == "__main__":
    main()
