"""
A 16 kHz, 16-bit copy of a dataset on disk, built once and read in chunks.

Every recording becomes one file of raw little-endian samples next to an
``index.json`` with its source, length and checksum. Unchanged recordings are never
built again, and each file is verified against its checksum when first read.

The copy is stored in the dataset's folder; if that is read-only, in the user's cache
folder; and if the flag ``--store`` or :data:`CACHE_VARIABLE` names a folder, there.
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
    stamp,
    sweep,
    write_json,
)
from jtm.music import audio

STORE_FOLDER = ".jtm-store"  # in the dataset that it copies
CACHE_VARIABLE = "JTM_CACHE"  # may name a folder for the copies of all datasets
_INDEX_FILE = "index.json"
_SAVE_SECONDS = 5  # between two writes of the index during a build
_MAX_NAME = 240  # bytes of a file name that every file system accepts


class Store:
    """
    The 16 kHz samples of a dataset, read from disk on demand.

    Parameters
    ----------
    recordings : tuple of Recording
        The recordings, in the order of the dataset.
    files : list of Path
        File of samples of each recording.
    lengths : numpy.ndarray
        Number of samples of each at 16 kHz, int64 ``(recordings,)``.
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

        Independent of the path and name of the dataset's folder.
        """
        return self._hash(range(len(self.files)), labels=True)

    def summary(self, train, validation, test=None):
        """
        Summarise the data of a run, independently of the dataset's path.

        Parameters
        ----------
        train, validation : sequence of int
            Indices of the recordings used for training and for validation.
        test : sequence of int, optional
            Recordings used for testing, of a run that is trained on labels.

        Returns
        -------
        dict
            Number of ``recordings`` and ``samples`` of both, and ``sha256`` of the
            ids, splits and samples of all recordings, in order; with `test`, also
            ``labels``, the hash of labels, metadata and test recordings.
        """
        parts = (list(train), list(validation))
        labelled = [*parts[0], -1, *parts[1], -1, *(test or ())]
        return {
            "recordings": [len(part) for part in parts],
            "samples": [int(self.lengths[part].sum()) for part in parts],
            "sha256": self._hash([*parts[0], -1, *parts[1]]),
        } | ({} if test is None else {"labels": self._hash(labelled, labels=True)})

    def _hash(self, indices, labels=False):
        """Hash recordings by content; -1 separates training and validation."""
        hasher = hashlib.sha256()
        for i in indices:
            parts = [i]
            if i >= 0:
                recording = self.recordings[i]
                parts = [recording.split, recording.id, self.checksums[i]]
                if labels:
                    # In this order, since hashes of it are recorded.
                    parts.append(sorted(recording.metadata.items(), key=str))
                    parts.append(recording.labels and digest(recording.labels))
            hasher.update(json.dumps(parts).encode())
        return hasher.hexdigest()

    def read(self, index, start=0, stop=None):
        """
        Read samples of one recording.

        Parameters
        ----------
        index : int
            Index of the recording.
        start, stop : int
            First sample and the one after the last, at 16 kHz; None reads to the end.

        Returns
        -------
        numpy.ndarray
            Samples in int16 ``(stop - start,)``.

        Raises
        ------
        InputError
            If the file is missing, or its checksum differs.
        """
        file = self.files[index]
        try:
            if not self._verified[index]:
                if digest(file) != self.checksums[index]:
                    raise InputError(
                        f"{file}: damaged (its checksum differs); "
                        "delete it and run again to rebuild it"
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
    Copy a dataset at 16 kHz and 16 bits, or open an existing copy.

    Parameters
    ----------
    dataset : Dataset
        Dataset to copy.
    folder : str or Path, optional
        Folder for the copies of several datasets; :data:`CACHE_VARIABLE` by default.
    progress : bool
        Whether to show a progress bar.
    part : str
        Name of a separate copy for a part of the dataset; none by default.

    Returns
    -------
    Store
        The copy; all recordings of the dataset, in its order.

    Raises
    ------
    InputError
        If audio files cannot be read (the message counts them and names the first
        ten), or the copy cannot be written. Finished files are kept, and the next
        call resumes from there.
    """
    place = _place(dataset.root, folder) / part
    files, old, entries, missing = _compare(dataset, place)
    exists = next(each for each in (place, *place.absolute().parents) if each.exists())
    if missing and not os.access(exists, os.W_OK):
        # The copy in a read-only dataset is incomplete.
        place = _place(dataset.root, folder, in_dataset=False) / part
        files, old, entries, missing = _compare(dataset, place)
    if missing:
        with locked(place / ".lock"):  # another process may be building it
            files, old, entries, missing = _compare(dataset, place)
            if missing:
                sweep(place)
                _remove(place, old.keys() - files.keys())  # of other names, say
                _build(dataset, missing, entries, place / _INDEX_FILE, progress)
    elif entries != old:  # recordings were removed
        with contextlib.suppress(InputError, OSError):  # the copy may be read-only
            write_json(place / _INDEX_FILE, entries)
            _remove(place, old.keys() - files.keys())
    return Store(
        dataset.recordings,
        files.values(),
        [entries[key]["samples"] for key in files],
        [entries[key]["sha256"] for key in files],
    )


def _place(root, cache, in_dataset=True):
    """Choose the folder for the copy of a dataset, which it shares with no other."""
    root = Path(root)
    cache = cache or os.environ.get(CACHE_VARIABLE)
    own = root / STORE_FOLDER
    if not cache:
        if in_dataset and (own.exists() or os.access(root, os.W_OK)):
            return own
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError as error:  # no home folder
            raise InputError(
                f"{root}: read-only, and there is no cache folder for its copy at "
                f"16 kHz; name one with --store, or in {CACHE_VARIABLE}"
            ) from error
        cache = Path(home) / "jtm"
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return Path(cache) / f"{root.resolve().name[:40]}-{place}"


def _file_name(key):
    """Return the name of a recording's file of samples; long ids are hashed."""
    split, _, name = key.partition("/")
    if len(os.fsencode(Path(name).name)) > _MAX_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f"{split}/{name}.s16"


def _remove(folder, keys):
    """Remove the samples of recordings that the dataset no longer has."""
    for key in keys:
        with contextlib.suppress(InputError, OSError):
            inside(folder, _file_name(key)).unlink(missing_ok=True)


def _compare(dataset, folder):
    """List files by key, the old index, its valid entries, and what is to build."""
    keys = (f"{recording.split}/{recording.id}" for recording in dataset.recordings)
    files = {key: inside(folder, _file_name(key)) for key in keys}
    old = _read_index(folder / _INDEX_FILE)
    entries, missing = {}, []
    for recording, (key, file) in zip(dataset.recordings, files.items(), strict=True):
        entry = old.get(key)
        if entry and entry["source"] == stamp(recording.audio):
            if file.exists() and file.stat().st_size == 2 * entry["samples"]:
                entries[key] = entry
                continue
        missing.append((key, recording.audio, file))
    return files, old, entries, missing


def _read_index(path):
    """Read the valid entries of an index, none if it is missing or damaged."""
    form = {"source": list, "samples": int, "sha256": str}
    try:
        return {
            key: entry
            for key, entry in read_json(path).items()
            if isinstance(entry, dict)
            and {name: type(value) for name, value in entry.items()} == form
        }
    except (InputError, AttributeError):  # everything can be rebuilt
        return {}


def _build(dataset, missing, entries, index_file, progress):
    """Convert the missing recordings on all cores; save the index on the way."""
    saved, failed = time.monotonic(), []
    # Threads, since decoding, resampling and hashing all release the GIL; processes
    # would require an `if __name__ == "__main__"` guard in every script.
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    shown = {"total": len(missing), "unit": "file", "disable": not progress}
    try:
        with tqdm(desc="Reading audio at 16 kHz", **shown) as bar, pool:
            for key, result in pool.map(_convert, missing):
                if isinstance(result, InputError):
                    failed.append(str(result))
                else:
                    entries[key] = result
                bar.update()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    write_json(index_file, entries)
                    saved = time.monotonic()
    finally:
        write_json(index_file, entries)
    if failed:
        more = [f"and {len(failed) - 10} more files"] * (len(failed) > 10)
        advice = (
            f"{len(failed)} of {len(dataset.recordings)} audio files cannot be read; "
            f"replace or remove them (`jtm check-data {dataset.root} --all` lists all)"
        )
        raise InputError("\njtm: ".join([*failed[:10], *more, advice]))


def _convert(job):
    """Write the samples of one recording; return its key, and its entry or error."""
    key, source, file = job
    samples, state = 0, stamp(source)  # before it is read, to notice a later change
    try:
        with atomic(file) as part, open(part, "wb") as out:
            for block in audio.blocks(source, SAMPLE_RATE):
                pcm = audio.to_pcm(block)
                out.write(pcm.tobytes())
                samples += pcm.size
        entry = {"source": state, "samples": samples, "sha256": digest(file)}
    except NoSpaceError:
        raise
    except Exception as error:  # libraries raise anything on a damaged file
        return key, InputError(describe(error, source))
    return key, entry
