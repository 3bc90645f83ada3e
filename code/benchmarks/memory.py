"""
Memory and time of training from a store that is larger than the memory allowed.

``python code/benchmarks/memory.py`` prints a table and writes
``report/results/memory.json``. It measures the peak of resident memory over a whole
epoch from a store several times the bound, in excess of what the process needs without
it; the time of a step relative to one with everything in memory, in turns in one
process; and the time to plan an epoch per window, for corpora of 1 to 100 hours.

``--minutes 60 --work DIR`` instead pretrains for an hour from a store of 20 GB, made in
DIR beside as much audio, and adds how much more memory it takes than a short run with a
tenth of the bound from a small store.
"""

import argparse
import contextlib
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from cpc_step import RESULTS, Step, machine, make_corpus, peak_memory, resources

from jtm.constants import SAMPLE_RATE
from jtm.cpc.config import PretrainConfig
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.data.windows import WindowLoader
from jtm.files import read_json, write_json
from jtm.training.checkpoints import read_checkpoint
from jtm.training.config import make_config
from jtm.training.folder import LAST

MEMORY = RESULTS / "memory.json"
"""Path to the results."""

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


def long_run(work, minutes, gigabytes=20, chunk_bytes=40 * 10**6):
    """
    Pretrain from a store a hundred times larger than the bound, by the command line.

    Parameters
    ----------
    work : str
        Folder for the audio, its store and the run; what is there is used again.
    minutes : float
        Duration of the run.
    gigabytes : float
        Size of the store.
    chunk_bytes : int
        Size of a chunk.

    Returns
    -------
    dict
        Bytes of the store, of the bound, and of the peak over that of a run of three
        minutes from a small store; minutes and steps of the run.
    """
    peaks, train = [], [sys.executable, "-m", "jtm", "train", "--preset", "small"]
    train += ["--nEpoch", "1000", "--maxChunksInMem", str(CHUNKS)]
    large = round(gigabytes / 0.23), chunk_bytes, minutes
    # Neither ends an epoch; both have whole batches of one recording.
    runs = {"small": (3, chunk_bytes // 10, 3), "large": large}
    for name, (recordings, chunk, duration) in runs.items():
        folder, run = Path(work) / name, Path(work) / f"{name}-run"
        if not folder.exists():
            folder.mkdir(parents=True)
            make_corpus(folder, recordings, 7200)
        paths = ["--data", str(folder), "--pathCheckpoint", str(run)]
        command = [*train, "--chunkSize", str(chunk), *paths]
        peaks.append(_peak(command, 60 * duration))
    return {
        "store_bytes": 2 * int(build_store(open_dataset(folder)).lengths.sum()),
        "bound_bytes": CHUNKS * chunk_bytes,
        "peak_bytes": peaks[1] - peaks[0],
        "minutes": minutes,
        "steps": read_checkpoint(run / LAST)["global_step"],
    }


def _peak(command, seconds):
    """Run a command for some time, and measure the peak of its resident memory."""
    child = subprocess.Popen(command)
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise SystemExit(f"ended with status {child.wait(seconds)}: {command}")
    child.send_signal(signal.SIGINT)
    return resources(child)[1]


def main():
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--minutes", type=float, help="duration of a long run")
    parser.add_argument("--work", default="logs/memory", help="folder for a long run")
    options = parser.parse_args()
    result = read_json(MEMORY) if MEMORY.exists() else {}
    if options.minutes:
        long = long_run(options.work, options.minutes) | {"machine": machine()}
        result |= {"long": long}
    else:
        result |= {
            **peak(chunk_bytes=32 * 10**6),
            "step_time_ratio": step_time(chunk_bytes=2 * 10**6),
            "planning_microseconds_per_window": {
                f"{hours} h": planning(hours) for hours in (1, 10, 100)
            },
            "machine": machine(),
        }
    for name, value in result.items():
        print(f"{name:34}{value}")
    write_json(MEMORY, result)


if __name__ == "__main__":
    main()
