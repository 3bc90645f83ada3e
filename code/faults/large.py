"""Large inputs: many files, a very long file, a store larger than the memory."""

import re
import time
from pathlib import Path

import numpy as np
import soundfile
from isolated import LostError, last_line, limit_memory, run

from jtm import cli
from jtm.data.musicnet import Recording, open_dataset
from jtm.data.store import Store, build_store
from jtm.data.windows import WindowLoader
from jtm.music import audio

N_FILES = 40_000
"""Number of recordings in the folder of many files."""

MINUTES = 1.0
"""Minutes for which windows are read from a store larger than the memory."""


def _memory():
    """Measure the anonymous memory of this process in bytes, without mapped code."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s*(\d+)", status)[1])


def _in_process(action, folder, memory=2e9):
    """Run an action with limited memory in bytes; LostError if it fails."""

    def act():
        limit_memory(memory)
        return action()

    code, output, _ = run(lambda: cli.run(act), folder / "log", budget=1e4)
    if code or code is None:
        raise LostError(last_line(output))


def many_files(rng, folder):
    """Build a store of a folder of 40 000 recordings, and plan an epoch."""
    sounds = folder / "sounds"
    for i in range(N_FILES):
        path = sounds / f"{i % 200}" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * rng.standard_normal(1_600)
        soundfile.write(path, noise, 16_000)

    def act():
        dataset = open_dataset(sounds)
        store = build_store(dataset, folder / "store", progress=False)
        loader = WindowLoader(store, list(range(N_FILES)), 1_600, 8)
        before = time.process_time()
        if len(store.files) != N_FILES or loader.count(0) < N_FILES // 8:
            print(f"{len(store.files)} recordings, {loader.count(0)} batches")
            return 1
        build_store(dataset, folder / "store", progress=False)
        seconds = time.process_time() - before
        if seconds > 60:
            print(f"opening the existing store takes {seconds:.0f} s")
            return 1

    _in_process(act, folder)


def long_file(rng, folder):
    """Read from a sparse WAV file of 50 GB."""
    path = folder / "a.wav"
    with soundfile.SoundFile(path, "w", 44_100, 2, format="RF64") as file:
        file.write(np.zeros((1, 2)))
    content = bytearray(path.read_bytes())
    size = 50 * 10**9
    start = content.index(b"ds64") + 8
    for number, offset in ((size + 100, 0), (size, 8), (size // 4, 16)):
        content[start + offset : start + offset + 8] = number.to_bytes(8, "little")
    path.write_bytes(content)
    with open(path, "r+b") as file:
        file.truncate(len(content) - 4 + size)

    def act():
        seconds = audio.duration(path)
        for _, block in zip(range(200), audio.blocks(path), strict=False):
            if np.any(block):
                return 1
        print(f"{seconds:.0f} s")
        return int(abs(seconds - size / 4 / 44_100) > 1)

    _in_process(act, folder)


def large_store(rng, folder):
    """Read windows for minutes from a store of 20 GB, with a bound of 200 MB."""
    n, size, chunk = 40, 500_000_000, 20_000_000
    files = [folder / f"{i}.s16" for i in range(n)]
    for path in files:
        with open(path, "wb") as file:
            file.truncate(size)
    recordings = [Recording(f"{i}", f, None, "unlabelled") for i, f in enumerate(files)]
    store = Store(recordings, files, [size // 2] * n, [""] * n)
    store._verified = [True] * n  # else all of it would be read first

    def act():
        loader = WindowLoader(
            store, range(n), 20_480, 8, chunk_bytes=chunk, max_chunks=10
        )
        planned, start, maximum = _memory(), time.monotonic(), 0
        for _ in loader:
            maximum = max(maximum, _memory())
            if time.monotonic() - start > 60 * MINUTES:
                break
        more = maximum - planned
        print(f"{more / 1e6:.0f} MB")
        return int(more > 1.25 * 10 * chunk)

    _in_process(act, folder, 4e9)


LARGE = {
    "40 000 recordings": many_files,
    "a WAV of 50 GB": long_file,
    "a store of 20 GB, read within 200 MB": large_store,
}
"""Trials by name."""
