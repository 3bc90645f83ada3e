"""
A 16 kHz, 16-bit copy of a dataset on disk, built once and read piece by piece.

Every recording becomes one file of raw little-endian samples beside an
``index.json`` that knows its source, length and checksum. What is unchanged is
never built again, and what is read is checked once against its checksum.
"""

import concurrent.futures
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, atomic, digest, inside, locked, read_json, write_json
from jtm.music import audio

STORE_FOLDER = ".jtm-store"
"""Name of the store's folder inside the dataset that it copies."""

_SAVE_SECONDS = 5  # between two writes of the index while building


class Store:
    """
    The samples of a dataset, ready to be read from disk.

    Parameters
    ----------
    recordings : tuple of Recording
        The recordings, in the order of the dataset.
    files : list of Path
        File of samples of each.
    lengths : numpy.ndarray
        Samples at 16 kHz of each, int64 ``(recordings,)``.
    checksums : list of str
        SHA-256 of each file.
    """

    def __init__(self, recordings, files, lengths, checksums):
        self.recordings = tuple(recordings)
        self.files = list(files)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.checksums = list(checksums)
        self._verified = [False] * len(self.files)

    def summary(self, train, validation):
        """
        Sum up what a run is made on, the same wherever the dataset lies.

        Parameters
        ----------
        train, validation : sequence of int
            Recordings that it learns from, and that it is judged on.

        Returns
        -------
        dict
            ``recordings`` and ``samples`` of both, and ``sha256`` of the names and
            lengths of all, in order.
        """
        parts = [
            [
                (self.recordings[i].split, self.recordings[i].id, int(self.lengths[i]))
                for i in part
            ]
            for part in (train, validation)
        ]
        return {
            "recordings": [len(part) for part in parts],
            "samples": [sum(length for *_, length in part) for part in parts],
            "sha256": hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
        }

    def read(self, index, start=0, stop=None):
        """
        Read samples of one recording.

        Parameters
        ----------
        index : int
            Which recording.
        start, stop : int
            First sample and the one after the last, at 16 kHz; to the end
            where `stop` is None.

        Returns
        -------
        numpy.ndarray
            Samples in int16 ``(stop - start,)``.

        Raises
        ------
        InputError
            If the file is missing, or is not what was written.
        """
        file = self.files[index]
        try:
            if not self._verified[index]:
                if digest(file) != self.checksums[index]:
                    raise InputError(
                        f"{file}: damaged (its checksum differs); "
                        "delete it and run again, and it is built anew"
                    )
                self._verified[index] = True
            stop = self.lengths[index] if stop is None else stop
            return np.fromfile(file, "<i2", count=int(stop - start), offset=2 * start)
        except OSError as error:
            raise InputError(
                f"{file}: cannot be read ({error.strerror}); run again to build it anew"
            ) from error


def build_store(dataset, folder=None, progress=True):
    """
    Copy a dataset to 16 kHz and 16 bits, or open the copy that is there.

    Parameters
    ----------
    dataset : Dataset
        What to copy.
    folder : str or Path, optional
        Where to keep the copy; ``.jtm-store`` in the dataset by default.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Store
        The copy; all recordings of the dataset, in its order.

    Raises
    ------
    InputError
        If a sound file cannot be read or the copy cannot be written; what was
        done is kept, and the next call goes on from there.
    """
    folder = Path(folder or dataset.root / STORE_FOLDER)
    index_file = folder / "index.json"
    old, entries, missing = _compare(dataset, folder, index_file)
    if missing:
        with locked(folder / ".lock"):  # another process may be at it
            old, entries, missing = _compare(dataset, folder, index_file)
            if missing:
                _build(missing, entries, index_file, progress)
    elif entries != old:
        write_json(index_file, entries)
    for key in old.keys() - entries.keys():  # recordings that are gone
        inside(folder, f"{key}.s16").unlink(missing_ok=True)
    keys = [f"{r.split}/{r.id}" for r in dataset.recordings]
    return Store(
        dataset.recordings,
        [inside(folder, f"{key}.s16") for key in keys],
        [entries[key]["samples"] for key in keys],
        [entries[key]["sha256"] for key in keys],
    )


def _compare(dataset, folder, index_file):
    """Give the old index, what of it still holds, and what is to be built."""
    old = read_json(index_file) if index_file.exists() else {}
    entries, missing = {}, []
    for recording in dataset.recordings:
        key = f"{recording.split}/{recording.id}"
        file = inside(folder, f"{key}.s16")
        entry = old.get(key)
        if entry and entry["source"] == _fingerprint(recording.audio):
            if file.exists() and file.stat().st_size == 2 * entry["samples"]:
                entries[key] = entry
                continue
        missing.append((key, recording.audio, file))
    return old, entries, missing


def _build(missing, entries, index_file, progress):
    """Convert what is missing on all cores, saving the index as it goes."""
    saved = time.monotonic()
    bar = tqdm(
        total=len(missing),
        desc="Reading audio at 16 kHz",
        unit="file",
        disable=not progress,
    )
    # Threads, as decoding, resampling and hashing all run outside Python's lock;
    # processes would ask every script for a guard around its main part.
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        with bar, pool:
            for key, entry in pool.map(_convert, missing):
                entries[key] = entry
                bar.update()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    write_json(index_file, entries)
                    saved = time.monotonic()
    finally:
        write_json(index_file, entries)


def _convert(job):
    """Write the samples of one recording; give its key and index entry."""
    key, source, file = job
    samples = 0
    with atomic(file) as part, open(part, "wb") as out:
        for block in audio.blocks(source, SAMPLE_RATE):
            pcm = audio.to_pcm(block)
            out.write(pcm.tobytes())
            samples += pcm.size
    return key, {
        "source": _fingerprint(source),
        "samples": samples,
        "sha256": digest(file),
    }


def _fingerprint(source):
    """Tell whether a source has changed, without reading it."""
    try:
        stat = Path(source).stat()
    except OSError as error:  # such as a link to what is gone
        raise InputError(
            f"{source}: cannot be read ({error.strerror}); "
            "put it back, or remove it from the dataset"
        ) from error
    return [stat.st_size, stat.st_mtime_ns]
