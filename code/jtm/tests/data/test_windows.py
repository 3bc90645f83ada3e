"""Windows: composition of batches, one visit per epoch, and the memory bound."""

import time
import unittest
from collections import Counter
from typing import get_args

import numpy as np
import torch

from jtm.cpc.config import PretrainConfig
from jtm.data.windows import WindowLoader
from jtm.files import InputError

SCHEMES = get_args(PretrainConfig.__pydantic_fields__["sampling_type"].annotation)


class RampStore:
    """A store whose samples encode their recording and position."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths)
        self.read_bytes = 0

    def read(self, index, start=0, stop=None):
        stop = self.lengths[index] if stop is None else stop
        self.read_bytes += 2 * (stop - start)
        return ((np.arange(start, stop) + 1000 * index) % 32768).astype(np.int16)


LENGTHS = [1050, 320, 700, 100, 99, 510, 830]
"""Windows of 100 samples: 10, 3, 7, 1, 0, 5 and 8, so 34 in all."""


def loader(lengths=LENGTHS, scheme="uniform", **options):
    """Make a loader of windows of 100 samples in batches of 4."""
    options = {"categories": [i % 2 for i in range(len(lengths))]} | options
    return WindowLoader(
        RampStore(lengths), range(len(lengths)), 100, 4, scheme, **options
    )


def windows(batches):
    """List (recording, start) of every window."""
    return [
        (int(r), int(s))
        for batch in batches
        for r, s in zip(batch.recordings, batch.starts, strict=True)
    ]


class TestWindows(unittest.TestCase):
    def test_samples_equal_the_recording_at_the_start(self):
        for scheme in SCHEMES:
            for batch in loader(scheme=scheme, chunk_bytes=1600, max_chunks=2):
                for wave, r, s in zip(
                    batch.waves, batch.recordings, batch.starts, strict=True
                ):
                    expected = (np.arange(int(s), int(s) + 100) + 1000 * int(r)) % 32768
                    np.testing.assert_array_equal(wave.numpy(), expected)
                    self.assertLessEqual(int(s) + 100, LENGTHS[r])

    def test_every_window_is_visited_once_per_epoch(self):
        expected = {r: n // 100 for r, n in enumerate(LENGTHS) if n >= 100}
        for scheme in SCHEMES:
            for chunk_bytes in (10**6, 1600, 200):
                visited = windows(loader(scheme=scheme, chunk_bytes=chunk_bytes))
                self.assertEqual(len(set(visited)), 34)
                self.assertEqual(len(visited), 34)
                self.assertEqual(Counter(r for r, _ in visited), expected)
                by_recording = {}
                for r, s in sorted(visited):
                    self.assertGreaterEqual(s - by_recording.get(r, -100), 100)
                    by_recording[r] = s

    def test_samesequence_and_samecategory_batches_are_homogeneous(self):
        for batch in loader(scheme="samesequence"):
            self.assertEqual(len(batch.recordings.unique()), 1)
        for batch in loader(scheme="samecategory"):
            self.assertEqual(len((batch.recordings % 2).unique()), 1)
        mixed = [len(batch.recordings.unique()) for batch in loader()]
        self.assertGreater(max(mixed), 1)

    def test_sequential_streams_continue_in_time(self):
        last = {}
        n_resets = 0
        for batch in loader(scheme="sequential"):
            for stream, r, s, is_reset in zip(
                batch.streams, batch.recordings, batch.starts, batch.reset, strict=True
            ):
                if is_reset:
                    n_resets += 1
                else:
                    self.assertEqual(last[int(stream)], (int(r), int(s) - 100))
                last[int(stream)] = (int(r), int(s))
        self.assertEqual(n_resets, 6)  # one for each recording of a window or more

    def test_batches_of_one_window_are_avoided(self):
        sizes = [len(b.waves) for b in loader(lengths=[900])]
        self.assertEqual(sorted(sizes), [3, 3, 3])

    def test_order_depends_on_seed_and_epoch(self):
        one, same, other = loader(), loader(), loader(seed=1)
        self.assertEqual(windows(one), windows(same))
        self.assertNotEqual(windows(one), windows(other))
        same.epoch = 1
        self.assertNotEqual(windows(one), windows(same))

    def test_offset_is_redrawn_each_epoch_from_all_that_fit(self):
        one, starts = loader(lengths=[103]), set()
        for epoch in range(40):
            one.epoch = epoch
            starts |= {start for _, start in windows(one)}
        self.assertEqual(starts, {0, 1, 2, 3})

    def test_epoch_can_be_resumed_at_any_batch(self):
        for scheme in SCHEMES:
            one = loader(scheme=scheme, chunk_bytes=1600, max_chunks=2)
            whole = list(one)
            self.assertEqual(len(one), len(whole))
            for first in range(len(whole)):
                one.first_batch = first
                self.assertEqual(windows(one), windows(whole[first:]))
            self.assertEqual(windows(one), windows(whole))  # and from the start again

    def test_processes_get_disjoint_windows_in_equally_many_steps(self):
        for scheme in SCHEMES:
            for chunk_bytes in (10**6, 1600, 200):
                common = {"scheme": scheme, "chunk_bytes": chunk_bytes, "world": 2}
                parts = [list(loader(rank=rank, **common)) for rank in range(2)]
                self.assertEqual(len(parts[0]), len(parts[1]))
                one, other = (windows(part) for part in parts)
                self.assertEqual(len(one) + len(other), len(set(one + other)))
                if chunk_bytes == 10**6:  # with all in one round, few are excluded
                    self.assertGreaterEqual(len(one) + len(other), 20)

    def test_sequential_streams_of_each_process_continue_in_time(self):
        for rank in range(2):
            last = {}
            for batch in loader(scheme="sequential", rank=rank, world=2):
                for stream, r, s, is_reset in zip(
                    batch.streams,
                    batch.recordings,
                    batch.starts,
                    batch.reset,
                    strict=True,
                ):
                    self.assertLess(int(stream), 4)
                    if not is_reset:
                        self.assertEqual(last[int(stream)], (int(r), int(s) - 100))
                    last[int(stream)] = (int(r), int(s))
            self.assertTrue(last)

    def test_memory_stays_within_the_maximum_number_of_chunks(self):
        # Twenty recordings of 10 windows in chunks of 16: 13 chunks or more.
        one = loader(lengths=[1000] * 20, chunk_bytes=3200, max_chunks=4)
        self.assertGreaterEqual(len(one._chunks), 13)
        self.assertEqual(one._n_active, 2)  # and two more being read
        for chunk in one._chunks:
            self.assertLessEqual(sum(2 * (e - s) for _, s, e in chunk), 3200)
        list(one)
        self.assertFalse(one._cached)
        all_in = loader(lengths=[1000] * 20, chunk_bytes=3200, max_chunks=20)
        list(all_in)
        read = all_in.store.read_bytes
        list(all_in)
        self.assertEqual(all_in.store.read_bytes, read)  # nothing is read twice

    def test_without_chunks_each_window_is_read_separately(self):
        lengths = [99, *LENGTHS]
        for scheme in SCHEMES:
            for chunk_bytes in (10**6, 1600):
                options = {"chunk_bytes": chunk_bytes, "pad": True, "scheme": scheme}
                chunked = loader(lengths, max_chunks=50, **options)
                read = loader(lengths, max_chunks=0, **options)
                for one, other in zip(chunked, read, strict=True):
                    for part, same in zip(one, other, strict=True):
                        self.assertTrue(torch.equal(part, same))
        unchunked = loader(max_chunks=0, chunk_bytes=1600)
        expected = 0
        for batch in unchunked:
            expected += 2 * batch.waves.numel()
            self.assertEqual(unchunked.store.read_bytes, expected)

    def test_chunks_and_windows_are_int16_on_the_device(self):
        one = loader()
        one.device = torch.device("meta")  # a device that every machine has
        for batch in one:
            self.assertEqual(batch.waves.device.type, "meta")
            self.assertEqual(batch.waves.dtype, torch.int16)
        cached = [piece for chunk in one._cached.values() for piece in chunk]
        self.assertTrue(cached)
        for piece in cached:
            self.assertEqual((piece.device.type, piece.dtype), ("meta", torch.int16))

    def test_chunk_order_differs_between_epochs(self):
        one = loader(lengths=[1000] * 20, chunk_bytes=3200, max_chunks=4)
        orders = [
            [int(chunk) for chunks, _ in one._rounds(epoch) for chunk in chunks]
            for epoch in range(3)
        ]
        for order in orders:
            self.assertEqual(sorted(order), list(range(len(one._chunks))))
        self.assertEqual(len({tuple(order) for order in orders}), 3)

    def test_chunks_mix_recordings(self):
        one = loader(lengths=[10_000] * 4, chunk_bytes=6400, max_chunks=1)
        for chunk in one._chunks[:-1]:
            self.assertGreater(len({recording for recording, *_ in chunk}), 1)

    def test_short_recordings_are_excluded_or_padded(self):
        excluded, padded = loader(), loader(pad=True)
        self.assertEqual(excluded.left_out, 1)
        self.assertEqual(padded.left_out, 0)
        short = [
            wave
            for batch in padded
            for wave, r in zip(batch.waves, batch.recordings, strict=True)
            if r == 4
        ]
        self.assertEqual(len(short), 1)
        self.assertEqual(short[0].tolist(), [*range(4000, 4099), 0])

    def test_planning_time_is_not_quadratic_in_recordings(self):
        times = []
        for n in (5_000, 40_000):
            start = time.process_time()
            loader([100, 20] * (n // 2))
            times.append(time.process_time() - start)
        self.assertLess(times[1], 30 * times[0] + 1)  # quadratic: 64 times

    def test_too_short_recordings_and_too_small_chunks_are_refused(self):
        with self.assertRaisesRegex(
            InputError, "the 2 rec.*, or --shortRecordings pad"
        ):
            loader(lengths=[99, 20])
        with self.assertRaisesRegex(InputError, "--chunkSize of at least 200"):
            loader(chunk_bytes=199)


if __name__ == "__main__":
    unittest.main()
