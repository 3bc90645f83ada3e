"""
Memory and time of training from a store that is larger than the memory allowed.

``python code/benchmarks/memory.py`` prints a table and writes
``report/results/memory.json``. It measures the peak of resident memory over a whole
epoch from a store several times the bound, in excess of what the process needs without
it; the time of a step relative to one with everything in memory, in turns in one
process; and the time to plan an epoch per window, for corpora of 1 to 100 hours.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from cpc_step import RESULTS, Step, machine, make_corpus, peak_memory

from jtm.constants import SAMPLE_RATE
from jtm.cpc.config import PretrainConfig
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.data.windows import WindowLoader
from jtm.files import write_json
from jtm.training.config import make_config

CHUNKS = 5
"""Number of chunks in memory, the default of ``--maxChunksInMem``."""

WINDOW = make_config(PretrainConfig, "small", {}).size_window
"""Number of samples in a window."""


class Silence:
    """
    Pretend to be a store of recordings of four minutes.

    Parameters
    ----------
    hours : float
        Total duration in hours.
    """

    def __init__(self, hours):
        self.lengths = np.full(round(hours * 15), 240 * SAMPLE_RATE)


def loader(store, chunk_bytes, max_chunks=CHUNKS):
    """
    Return a loader of a store's windows, in batches of eight.

    Parameters
    ----------
    store : Store
        The recordings.
    chunk_bytes, max_chunks : int
        Size of a chunk, and maximum number of chunks in memory.

    Returns
    -------
    WindowLoader
        The loader.
    """
    return WindowLoader(
        store,
        range(len(store.lengths)),
        WINDOW,
        batch_size=8,
        chunk_bytes=chunk_bytes,
        max_chunks=max_chunks,
    )


def peak(chunk_bytes):
    """
    Measure the memory of an epoch from a store five times the bound.

    Parameters
    ----------
    chunk_bytes : int
        Size of a chunk.

    Returns
    -------
    dict
        Bytes of the bound, of the store, and of the peak over the baseline.
    """
    bound = CHUNKS * chunk_bytes
    seconds = 120
    recordings = -(-5 * bound // (2 * SAMPLE_RATE * seconds))
    with tempfile.TemporaryDirectory() as folder:
        store = make_corpus(folder, recordings, seconds)
        # In its own process, which cannot reuse memory freed by making the corpus.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found = pool.submit(_epoch, folder, chunk_bytes).result()
    return {
        "bound_bytes": bound,
        "store_bytes": 2 * int(store.lengths.sum()),
        "peak_bytes": found,
        "peak_over_bound": found and found / bound,
    }


def _epoch(folder, chunk_bytes):
    """Read an epoch; return the peak of memory over the baseline."""
    windows = loader(build_store(open_dataset(folder)), chunk_bytes)
    memory = {}
    with peak_memory("cpu", memory):
        for batch in windows:
            del batch
    return memory["bytes"]


def step_time(chunk_bytes, steps=60):
    """
    Time training steps from chunks and from memory, in turns.

    Parameters
    ----------
    chunk_bytes : int
        Size of a chunk; the store is five times what may be in memory.
    steps : int
        Number of steps of each that are timed.

    Returns
    -------
    float
        Time per window from chunks relative to memory, median of turns.
    """
    seconds = 60
    recordings = -(-5 * CHUNKS * chunk_bytes // (2 * SAMPLE_RATE * seconds))
    with tempfile.TemporaryDirectory() as folder:
        store = make_corpus(folder, recordings, seconds)
        step = Step("small", "cpu", "float32")
        readers = {
            "chunks": _endless(loader(store, chunk_bytes)),
            "memory": _endless(loader(store, 10**9)),
        }
        times = {name: [] for name in readers}
        for turn in range(steps + 1):
            for name in sorted(readers, reverse=turn % 2):  # each goes first
                start = time.perf_counter()
                batch = next(readers[name])
                step(batch.waves[:, None].float() / 32768, batch.recordings)
                elapsed = time.perf_counter() - start
                times[name].append(elapsed / len(batch.waves))
    ratios = np.array(times["chunks"][1:]) / np.array(times["memory"][1:])
    return float(np.median(ratios))


def _endless(windows):
    """Iterate over one epoch after the other."""
    while True:
        yield from windows
        windows.epoch += 1


def planning(hours):
    """
    Time the planning of an epoch.

    Parameters
    ----------
    hours : float
        Duration of the corpus in hours.

    Returns
    -------
    float
        Microseconds per window.
    """
    windows = loader(Silence(hours), chunk_bytes=10**8)
    start = time.perf_counter()
    batches = len(windows)
    return (time.perf_counter() - start) / (8 * batches) * 1e6


def main():
    """Measure, print and write the results."""
    result = {
        **peak(chunk_bytes=32 * 10**6),
        "step_time_ratio": step_time(chunk_bytes=2 * 10**6),
        "planning_microseconds_per_window": {
            f"{hours} h": planning(hours) for hours in (1, 10, 100)
        },
        "machine": machine(),
    }
    for name, value in result.items():
        print(f"{name:34}{value}")
    write_json(RESULTS / "memory.json", result)


if __name__ == "__main__":
    main()
