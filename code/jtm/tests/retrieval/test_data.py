"""Pairs are of the same passage, at whatever tempo it is played."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.files import InputError
from jtm.retrieval import data
from jtm.retrieval.config import FRAMES, PER_WORK
from jtm.tests.retrieval.little import play, tune, write_dataset


class TestAlignment(unittest.TestCase):
    def test_beats_follow_the_performance(self):
        notes = tune(0)
        for tempo in (60.0, 150.0):
            own = data.Aligned(play(notes, tempo)[1])
            np.testing.assert_array_equal(own.notes["pitch"], notes["pitch"])
            at = np.array((1.0, 4.5))
            np.testing.assert_allclose(own.beats(at), at * tempo / 60, atol=1e-3)

    def test_rubato(self):
        labels = play(tune(0), 60.0)[1]
        late = labels["start_beat"] >= 4
        labels["start"][late] += 2 * LABEL_RATE  # a fermata on what is before beat 4
        labels["end"] = np.maximum(labels["end"], labels["start"] + 1)
        own = data.Aligned(labels)
        self.assertAlmostEqual(float(own.beats(10.0)), 8.0, places=3)
        last = max(b for b in np.unique(labels["start_beat"]) if b < 4)
        middle = (last + 6.0) / 2
        self.assertAlmostEqual(float(own.beats(middle)), (last + 4) / 2, places=3)


class TestRecordings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        write_dataset(Path(cls.folder) / "set")
        cls.recordings = data.Recordings(
            Path(cls.folder) / "set", Path(cls.folder) / "work", progress=False
        )

    def test_splits(self):
        sizes = {split: len(own) for split, own in self.recordings.splits.items()}
        told = {"train": 4, "validation": 2, "test": 2, "test_timbre": 2}
        self.assertEqual(sizes, told)

    def test_windows_hear_the_notes_of_their_passage(self):
        places = self.recordings.windows("train")
        heard, rolls, cells = self.recordings.pairs(places)
        self.assertEqual(heard.shape[1], FRAMES)
        right = 0
        for sound, roll, width in zip(heard, rolls, cells, strict=True):
            # The first quarter of the window against each quarter of the passage.
            loudest = sound[:5, 2:178].mean(0).reshape(88, 2).mean(1)[20:60].argmax()
            first = roll[0, :, : max(1, round(width / 10))].sum(1)[20:60]
            right += bool(first[loudest])
        self.assertGreaterEqual(right, 0.7 * len(places))

    def test_batches_repeat_by_seed_and_hold_several_windows_of_a_work(self):
        heard = self.recordings.splits["train"]
        pairs = data.Pairs(self.recordings, heard, 8, seed=1, n_batches=3)
        first = [each[0].numpy() for each in pairs]
        pairs.first_batch = 2
        np.testing.assert_array_equal(next(iter(pairs))[0], first[2])
        pairs.epoch = 1
        self.assertFalse(np.array_equal(next(iter(pairs))[0], first[0]))
        self.assertEqual(len(first[0]), 8)
        self.assertEqual(len(pairs), 3)
        self.assertLess(PER_WORK, 8)

    def test_transposition_leaves_silence(self):
        heard = np.array([[[1, 0, 0, 0, 2, 0, 0, 0, 3]]], np.float32)
        for steps, expected in (
            (-4, [2, 0, 0, 0, 3, 0, 0, 0, 0]),
            (4, [0, 0, 0, 0, 1, 0, 0, 0, 2]),
            (0, [1, 0, 0, 0, 2, 0, 0, 0, 3]),
        ):
            self.assertEqual(data.transpose(heard, steps, 2)[0, 0].tolist(), expected)
            moved = data.transpose(heard.transpose(0, 2, 1), steps, 1)
            self.assertEqual(moved[0, :, 0].tolist(), expected)

    def test_sound_and_score_are_transposed_alike(self):
        (index, *_), shift = self.recordings.splits["train"], 3
        pairs, rng = data.Pairs(self.recordings, [index], 8), mock.Mock()
        rng.uniform.side_effect = lambda low, high, n=None: np.zeros(n) if n else 1.0
        found = {}
        for semitones in (0, shift):
            rng.integers.return_value = semitones
            found[semitones] = pairs._pair(index, rng)
        (heard, roll, _), (moved, higher, _) = found[0], found[shift]
        np.testing.assert_array_equal(moved[:, 2 * shift :], heard[:, : -2 * shift])
        np.testing.assert_array_equal(higher[:, shift:], roll[:, :-shift])

    def test_without_beats_or_length_it_says_what_to_do(self):
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(Path(folder) / "set", counts=(("train", 1),))
            path = Path(folder) / "set" / "train_labels" / "train0.csv"
            text = path.read_text().splitlines()
            rows = [
                ",".join([*r.split(",")[:4], "0.0", *r.split(",")[5:]])
                for r in text[1:]
            ]
            path.write_text("\n".join([text[0], *rows]) + "\n")
            lacking = "in train, validation, test, test_timbre; .*toy/pairs.py --out"
            with self.assertRaisesRegex(InputError, lacking):
                data.Recordings(Path(folder) / "set", Path(folder) / "w", False)
            write_dataset(Path(folder) / "two", counts=(("train", 1), ("test", 1)))
            with self.assertRaisesRegex(InputError, "with beats in validation; "):
                data.Recordings(Path(folder) / "two", Path(folder) / "w", False)
        with self.assertRaisesRegex(InputError, "lasts 2 s"):
            data.Pairs(self.recordings, [], 8)


if __name__ == "__main__":
    unittest.main()
