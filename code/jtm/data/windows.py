"""
Training windows from a store, in the order of one of four sampling schemes.

Recordings are cut into pieces, the pieces are packed into chunks that mix recordings,
and a limited number of chunks is in memory at a time. Adjacent, non-overlapping windows
are cut from each piece, from an offset redrawn each epoch where the piece leaves room;
no window crosses a recording boundary. The order of the chunks, and of the windows
across the chunks in memory, is shuffled each epoch. Seed, epoch and rank determine all
of it, so that a run can resume at any batch.
"""

import concurrent.futures
import mmap
import os
from typing import NamedTuple

import numpy as np
import torch

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError

PIECES_PER_CHUNK = 16  # at minimum, so that a chunk mixes recordings

MAX_WORKERS = 6  # processes that draw batches, enough for a step of 20 ms

PRIVATE = {}  # options of mmap for memory that no other process shares
if hasattr(mmap, "MAP_ANONYMOUS"):  # not on Windows
    PRIVATE["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Batch(NamedTuple):
    """
    Windows of one training step.

    Parameters
    ----------
    waves : torch.Tensor
        Samples in int16 ``(batch, samples)``.
    recordings : torch.Tensor
        Index of each window's recording in the store, int64 ``(batch,)``.
    starts : torch.Tensor
        First sample of each window in its recording, int64 ``(batch,)``.
    streams : torch.Tensor
        For the scheme `sequential`, index of the parallel stream that each window
        continues, int64 ``(batch,)``; otherwise counts up from 0.
    reset : torch.Tensor
        Whether the window does not continue a previous one, so that the hidden
        state is reset, bool ``(batch,)``.
    """

    waves: torch.Tensor
    recordings: torch.Tensor
    starts: torch.Tensor
    streams: torch.Tensor
    reset: torch.Tensor


class WindowLoader:
    """
    Iterate over the batches of one epoch.

    Parameters
    ----------
    store : Store
        Store to read the samples from.
    indices : sequence of int
        Recordings of the store to take windows from.
    window : int
        Number of samples in a window, at 16 kHz.
    batch_size : int
        Maximum number of windows in a batch; sizes in a group differ by at most one.
    scheme : {"uniform", "samesequence", "samecategory", "sequential"}
        Whether each batch has windows of any recordings, of one recording or of
        one category, or continues ``batch_size`` parallel streams in time order.
    categories : sequence of str, optional
        Category of each recording in `indices`, for `samecategory`.
    seed : int
        Random seed.
    chunk_bytes, max_chunks : int
        Maximum number of bytes in a chunk, and of chunks in memory, prefetched ones
        included; with 0 chunks, each window is read from disk as its batch is built.
    pad : bool
        Whether recordings shorter than a window are padded with silence, not left out.
    rank, world : int
        Index of this process among the `world` processes that share the batches.

    Attributes
    ----------
    epoch, first_batch : int
        Epoch and batch that the next iteration starts from.
    device : torch.device
        Device of the chunks in memory, as int16, and of the windows cut from them.
    indices : list of int
        Recordings that windows are taken from.
    left_out : int
        Number of recordings left out as shorter than a window.

    Raises
    ------
    InputError
        If no recording is as long as a window, or a chunk holds no window.
    """

    def __init__(
        self,
        store,
        indices,
        window,
        batch_size,
        scheme="uniform",
        categories=None,
        seed=0,
        chunk_bytes=10**9,
        max_chunks=5,
        pad=False,
        rank=0,
        world=1,
    ):
        self.store = store
        self.window = window
        self.batch_size = batch_size
        self.scheme = scheme
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = self.first_batch = 0
        self.device = torch.device("cpu")
        self._category = dict(zip(indices, categories or indices, strict=True))
        self.indices = [i for i in indices if pad or store.lengths[i] >= window]
        self.left_out = len(indices) - len(self.indices)
        if not self.indices:
            longest = max((store.lengths[i] for i in indices), default=0) / SAMPLE_RATE
            raise InputError(
                f"none of the {len(indices)} recordings for training, or for "
                f"validation, is as long as a window of {window / SAMPLE_RATE:.2f} s "
                f"(the longest has {longest:.2f} s); use a smaller --sizeWindow, or "
                "--shortRecordings pad"
            )
        per_chunk = chunk_bytes // (2 * window)
        if not per_chunk:
            raise InputError(
                f"a chunk of {chunk_bytes} bytes holds no window of {window} samples; "
                f"use a --chunkSize of at least {2 * window}"
            )
        self._chunks = self._pack(per_chunk)
        self._n_active = len(self._chunks)
        self._in_memory = max_chunks > 0
        if self._in_memory and self._n_active > max_chunks:
            # Half of the chunks in memory are prefetched ones.
            self._n_active = max(1, max_chunks // 2)
        self._prefetch = max_chunks > 1
        self._cached = {}  # chunk number -> samples, if all fit

    def _pack(self, per_chunk):
        """Cut recordings into pieces and pack these into chunks, by the seed."""
        total = sum(max(1, self.store.lengths[i] // self.window) for i in self.indices)
        per_piece = per_chunk
        if total > per_chunk:
            per_piece = max(1, per_chunk // PIECES_PER_CHUNK)
        pieces = []  # (recording, start, stop), in samples
        for i in self.indices:
            length = int(self.store.lengths[i])
            n_windows = max(1, length // self.window)
            starts = [k * self.window for k in range(0, n_windows, per_piece)]
            for start, stop in zip(starts, [*starts[1:], length], strict=True):
                pieces.append((i, start, stop))
        order = np.random.default_rng((self.seed, 0)).permutation(len(pieces))
        chunks, space = [], 0
        for piece in (pieces[k] for k in order):
            size = -(-(piece[2] - piece[1]) // self.window)
            if not chunks or size > space:
                chunks.append([])
                space = per_chunk
            chunks[-1].append(piece)
            space -= size
        return chunks

    def _rounds(self, epoch):
        """Plan an epoch: the chunks in memory together, and their batches."""
        rng = np.random.default_rng((self.seed, 1, epoch))
        order = rng.permutation(len(self._chunks))
        for first in range(0, len(order), self._n_active):
            chunks = order[first : first + self._n_active]
            runs = []  # windows of each piece: (chunk, piece, recording, start)
            for chunk in chunks:
                for piece, (recording, start, stop) in enumerate(self._chunks[chunk]):
                    n_windows = max(1, (stop - start) // self.window)
                    slack = max(0, stop - start - n_windows * self.window)
                    offset = int(rng.integers(slack + 1))
                    starts = start + offset + np.arange(n_windows) * self.window
                    runs.append([(chunk, piece, recording, s) for s in starts])
            batches = self._batches(runs, rng)
            if self.scheme != "sequential":  # as many steps on each process
                batches = batches[: len(batches) // self.world * self.world]
                batches = batches[self.rank :: self.world]
            if batches:
                yield chunks, batches

    def _batches(self, runs, rng):
        """Group windows into batches: lists of (stream, reset, window)."""
        if self.scheme == "sequential":
            return self._streams(runs, rng)
        groups = {}
        for run in runs:
            recording = run[0][2]
            key = {
                "uniform": None,
                "samesequence": recording,
                "samecategory": self._category[recording],
            }[self.scheme]
            groups.setdefault(key, []).extend(run)
        batches = []
        for group in groups.values():
            order = rng.permutation(len(group))
            for part in np.array_split(order, -(-len(group) // self.batch_size)):
                batches.append(
                    [(stream, True, group[k]) for stream, k in enumerate(part)]
                )
        return [batches[k] for k in rng.permutation(len(batches))]

    def _streams(self, runs, rng):
        """Distribute runs over parallel streams; return one batch per step."""
        streams = [[] for _ in range(self.batch_size * self.world)]
        for k in rng.permutation(len(runs)):
            shortest = min(streams, key=len)
            shortest += [(j == 0, window) for j, window in enumerate(runs[k])]
        # A stream stays on one process; every process takes the same number of steps.
        shares = [streams[rank :: self.world] for rank in range(self.world)]
        n_steps = min(max(map(len, share)) for share in shares)
        return [
            [
                (n, *stream[i])
                for n, stream in enumerate(shares[self.rank])
                if i < len(stream)
            ]
            for i in range(n_steps)
        ]

    def count(self, epoch):
        """Count the batches of an epoch."""
        return sum(len(batches) for _, batches in self._rounds(epoch))

    def __len__(self):
        """Count the batches of the current epoch."""
        return self.count(self.epoch)

    def __iter__(self):
        """
        Iterate over the batches of the epoch, from `first_batch` on.

        Yields
        ------
        Batch
            Windows of one training step.
        """
        skip, self.first_batch = self.first_batch, 0
        rounds = self._rounds(self.epoch)
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            following = next(rounds, None)
            prefetched = None
            while following:
                (chunks, batches), following = following, next(rounds, None)
                if skip >= len(batches):  # trained on before the run stopped
                    skip -= len(batches)
                    continue
                samples = prefetched.result() if prefetched else self._read(chunks)
                prefetched = None
                if self._prefetch and following:
                    prefetched = reader.submit(self._read, following[0])
                for batch in batches[skip:]:
                    yield self._gather(samples, batch)
                skip = 0
                del samples

    def _read(self, chunks):
        """Read chunks from disk; cache them across epochs if all fit in memory."""
        if not self._in_memory:
            return {}
        samples = {k: self._cached.get(k) or self._read_chunk(k) for k in chunks}
        if self._n_active == len(self._chunks):
            self._cached = samples
        return samples

    def _read_chunk(self, chunk):
        """Read the pieces of a chunk into memory that is returned to the system."""
        pieces = self._chunks[chunk]
        ends = np.cumsum([stop - start for _, start, stop in pieces])
        # With malloc, up to half as much again would stay allocated when freed.
        block = np.frombuffer(mmap.mmap(-1, 2 * int(ends[-1]), **PRIVATE), np.int16)
        parts = np.split(block, ends[:-1])
        for part, piece in zip(parts, pieces, strict=True):
            part[:] = self.store.read(*piece)
        return [torch.from_numpy(part).to(self.device) for part in parts]

    def _gather(self, samples, batch):
        """Copy the windows of a batch out of the chunks in memory, or read them."""
        shape = (len(batch), self.window)
        waves = torch.zeros(shape, dtype=torch.int16, device=self.device)
        for row, (_, _, (chunk, piece, recording, start)) in enumerate(batch):
            if self._in_memory:
                first = start - self._chunks[chunk][piece][1]
                wave = samples[chunk][piece][first : first + self.window]
            else:
                stop = min(start + self.window, self.store.lengths[recording])
                wave = torch.from_numpy(self.store.read(recording, start, stop))
            waves[row, : len(wave)] = wave
        streams, reset, windows = zip(*batch, strict=True)
        return Batch(
            waves,
            torch.tensor([w[2] for w in windows]),
            torch.tensor([int(w[3]) for w in windows]),
            torch.tensor(streams),
            torch.tensor(reset),
        )


class Draws:
    """
    Iterate over random batches, each drawn by a random generator of its own.

    Training can therefore resume at any batch as if it had never stopped, and worker
    processes can draw batches for a GPU, which would otherwise wait for them.
    Subclasses define ``draw(rng)``, which returns a batch for the module's loss.

    Parameters
    ----------
    n_batches : int
        Number of batches in an epoch.
    seed : int
        Random seed.

    Attributes
    ----------
    epoch, first_batch : int
        Epoch and batch that the next iteration starts from.
    device : torch.device
        Device of the network; batches are on the CPU.
    """

    def __init__(self, n_batches, seed):
        self.n_batches, self.seed = n_batches, seed
        self.epoch = self.first_batch = 0
        self.device = torch.device("cpu")

    def count(self, epoch):
        """Count the batches of an epoch, the same for all epochs."""
        return self.n_batches

    def __len__(self):
        """Count the batches of an epoch."""
        return self.n_batches

    def __iter__(self):
        """Yield the batches of the epoch, from `first_batch` on."""
        # Only now, as Lightning asks for several iterators and uses the last.
        numbers, self.first_batch = range(self.first_batch, self.n_batches), 0
        if self.device.type != "cuda" or not hasattr(os, "fork"):
            yield from map(self.__getitem__, numbers)
            return
        loader = torch.utils.data.DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=min(MAX_WORKERS, len(os.sched_getaffinity(0))),
            multiprocessing_context="fork",  # others cannot send the functions
            generator=torch.Generator(),  # so that the global one does not advance
        )
        yield from loader

    def __getitem__(self, number):
        """Draw a batch of the epoch."""
        return self.draw(np.random.default_rng((self.seed, self.epoch, number)))
