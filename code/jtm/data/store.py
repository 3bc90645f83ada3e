"""
A 16 kHz, 16-bit copy of a dataset on disk, built once and read piece by piece.

Every recording becomes one file of raw little-endian samples beside an
``index.json`` that knows its source, length and checksum. What is unchanged is
never built again, and what is read is checked once against its checksum.

The copy lies in the dataset. Where that is read-only it lies in the user's cache
folder, and where the flag ``--store`` or :data:`CACHE_VARIABLE` names a folder, in
that.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jtm.constants import SAMPLE_RATE
from jtm.files import (
    InputError,
    NoSpaceError,
    atomic,
    describe,
    digest,
    inside,
    locked,
    read_json,
    sweep,
    write_json,
)
from jtm.music import audio

STORE_FOLDER = ".jtm-store"
"""Name of the store's folder inside the dataset that it copies."""

CACHE_VARIABLE = "JTM_CACHE"
"""Environment variable that names a folder for the copies of all datasets."""

_INDEX_FILE = "index.json"
_SAVE_SECONDS = 5  # between two writes of the index while building
_MAX_NAME = 240  # bytes of a file name that every file system takes


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

    @functools.cached_property
    def fingerprint(self):
        """
        Hash of the content: samples, labels, splits and metadata, in order.

        The same wherever the dataset lies and whatever its folder is called.
        """
        return self._hash(range(len(self.files)), labels=True)

    def summary(self, train, validation):
        """
        Sum up what a run is made on, the same wherever the dataset lies.

        Parameters
        ----------
        train, validation : sequence of int
            Recordings that it learns from, and that it is validated on.

        Returns
        -------
        dict
            ``recordings`` and ``samples`` of both, and ``sha256`` of the names,
            splits and samples of all, in order.
        """
        parts = (list(train), list(validation))
        return {
            "recordings": [len(part) for part in parts],
            "samples": [int(self.lengths[part].sum()) for part in parts],
            "sha256": self._hash([*parts[0], -1, *parts[1]]),
        }

    def _hash(self, indices, labels=False):
        """Hash recordings by content; -1 separates the two sides of a run."""
        told = hashlib.sha256()
        for i in indices:
            parts = [i]
            if i >= 0:
                recording = self.recordings[i]
                parts = [recording.split, recording.id, self.checksums[i]]
                if labels:
                    # A row with too many cells has them under None.
                    parts.append(sorted(recording.metadata.items(), key=str))
                    parts.append(recording.labels and digest(recording.labels))
            told.update(json.dumps(parts).encode())
        return told.hexdigest()

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
                        "delete it and run again, and it is built again"
                    )
                self._verified[index] = True
            stop = self.lengths[index] if stop is None else stop
            return np.fromfile(file, "<i2", count=int(stop - start), offset=2 * start)
        except OSError as error:
            raise InputError(
                f"{file}: cannot be read ({error.strerror}); run again"
            ) from error


def build_store(dataset, folder=None, progress=True, part=""):
    """
    Copy a dataset to 16 kHz and 16 bits, or open the copy that is there.

    Parameters
    ----------
    dataset : Dataset
        What to copy.
    folder : str or Path, optional
        Folder for the copies of several datasets; see :func:`store_folder`.
    progress : bool
        Show a progress bar.
    part : str
        Keep a copy of its own, of this name, for a part of the dataset.

    Returns
    -------
    Store
        The copy; all recordings of the dataset, in its order.

    Raises
    ------
    InputError
        If sound files cannot be read, all of which are counted and the first ten
        named, or the copy cannot be written; what was done is kept, and the next
        call goes on from there.
    """
    place = store_folder(dataset.root, folder) / part
    files, old, entries, missing = _compare(dataset, place)
    exists = next(each for each in (place, *place.absolute().parents) if each.exists())
    if missing and not os.access(exists, os.W_OK):
        # What a read-only dataset brings along is not the whole of it.
        place = store_folder(dataset.root, folder, beside=False) / part
        files, old, entries, missing = _compare(dataset, place)
    if missing:
        with locked(place / ".lock"):  # another process may be at it
            files, old, entries, missing = _compare(dataset, place)
            if missing:
                sweep(place)
                _build(dataset, missing, entries, place / _INDEX_FILE, progress)
    elif entries != old:  # recordings are gone
        with contextlib.suppress(InputError, OSError):  # of a read-only copy
            write_json(place / _INDEX_FILE, entries)
            for key in old.keys() - entries.keys():
                inside(place, _file_name(key)).unlink(missing_ok=True)
    return Store(
        dataset.recordings,
        files.values(),
        [entries[key]["samples"] for key in files],
        [entries[key]["sha256"] for key in files],
    )


def store_folder(root, cache=None, beside=True):
    """
    Choose where the copy of a dataset is kept.

    Parameters
    ----------
    root : str or Path
        The dataset's folder.
    cache : str or Path, optional
        Folder for the copies of several datasets; :data:`CACHE_VARIABLE` by
        default.
    beside : bool
        Whether a copy in the dataset will do.

    Returns
    -------
    Path
        A folder of the dataset's own: in `cache` if one is named, else in the
        dataset if that can be written or holds a copy, else in the user's cache.

    Raises
    ------
    InputError
        If the user's cache folder is needed and unknown.
    """
    root = Path(root)
    cache = cache or os.environ.get(CACHE_VARIABLE)
    own = root / STORE_FOLDER
    if not cache:
        if beside and (own.exists() or os.access(root, os.W_OK)):
            return own
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError as error:  # no home
            raise InputError(
                f"{root}: read-only, and there is no cache folder for its copy at "
                f"16 kHz; name one with --store, or in {CACHE_VARIABLE}"
            ) from error
        cache = Path(home) / "jtm"
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return Path(cache) / f"{root.resolve().name[:40]}-{place}"


def _file_name(key):
    """Name the file of samples of a recording, by a hash if its id is long."""
    split, _, name = key.partition("/")
    if len(os.fsencode(Path(name).name)) > _MAX_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f"{split}/{name}.s16"


def _compare(dataset, folder):
    """
    Compare a dataset with a copy of it.

    Returns the file of samples of each recording by its key, the index of the copy,
    what of that still holds, and what is to be built.
    """
    keys = (f"{recording.split}/{recording.id}" for recording in dataset.recordings)
    files = {key: inside(folder, _file_name(key)) for key in keys}
    old = _read_index(folder / _INDEX_FILE)
    entries, missing = {}, []
    for recording, (key, file) in zip(dataset.recordings, files.items(), strict=True):
        entry = old.get(key)
        if entry and entry["source"] == _stamp(recording.audio):
            if file.exists() and file.stat().st_size == 2 * entry["samples"]:
                entries[key] = entry
                continue
        missing.append((key, recording.audio, file))
    return files, old, entries, missing


def _read_index(path):
    """Read an index; of one that is missing or damaged, what can be used."""
    try:
        found = read_json(path)
        return {key: entry for key, entry in found.items() if _is_entry(entry)}
    except (InputError, AttributeError):  # all of it can be built again
        return {}


def _is_entry(entry):
    """Return whether an entry of an index is of the form that is written."""
    return (
        isinstance(entry, dict)
        and entry.keys() == {"source", "samples", "sha256"}
        and isinstance(entry["samples"], int)
        and isinstance(entry["sha256"], str)
    )


def _build(dataset, missing, entries, index_file, progress):
    """Convert what is missing on all cores, saving the index as it goes."""
    saved, failed = time.monotonic(), []
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
            for key, made in pool.map(_convert, missing):
                if isinstance(made, InputError):
                    failed.append(str(made))
                else:
                    entries[key] = made
                bar.update()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    write_json(index_file, entries)
                    saved = time.monotonic()
    finally:
        write_json(index_file, entries)
    if failed:
        more = [f"and {len(failed) - 10} more files"] * (len(failed) > 10)
        advice = (
            f"{len(failed)} of {len(dataset.recordings)} sound files cannot be read; "
            f"replace or remove them (`jtm check-data {dataset.root} --all` lists all)"
        )
        raise InputError("\njtm: ".join([*failed[:10], *more, advice]))


def _convert(job):
    """Write the samples of one recording; return its key and entry, or mistake."""
    key, source, file = job
    samples = 0
    try:
        with atomic(file) as part, open(part, "wb") as out:
            for block in audio.blocks(source, SAMPLE_RATE):
                pcm = audio.to_pcm(block)
                out.write(pcm.tobytes())
                samples += pcm.size
        entry = {"source": _stamp(source), "samples": samples, "sha256": digest(file)}
    except NoSpaceError:
        raise
    except Exception as error:  # whatever a library makes of a file
        return key, InputError(describe(error, source))
    return key, entry


def _stamp(source):
    """Return the size and time of a source, by which a change is told."""
    with contextlib.suppress(OSError):  # such as a link to what is gone
        stat = Path(source).stat()
        return [stat.st_size, stat.st_mtime_ns]
    return []
