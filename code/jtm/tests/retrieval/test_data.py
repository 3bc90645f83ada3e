"""Pairs of audio and score are of the same passage, at any tempo."""

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
    def test_beats_follow_the_tempo(self):
        notes = tune(0)
        for tempo in (60.0, 150.0):
            piece = data._Aligned(play(notes, tempo)[1])
            np.testing.assert_array_equal(piece.notes["pitch"], notes["pitch"])
            time = np.array((1.0, 4.5))
            np.testing.assert_allclose(piece.beats(time), time * tempo / 60, atol=1e-3)

    def test_beats_follow_a_fermata(self):
        labels = play(tune(0), 60.0)[1]
        late = labels["start_beat"] >= 4
        labels["start"][late] += 2 * LABEL_RATE  # a fermata before beat 4
        labels["end"] = np.maximum(labels["end"], labels["start"] + 1)
        aligned = data._Aligned(labels)
        self.assertAlmostEqual(float(aligned.beats(10.0)), 8.0, places=3)
        last = max(b for b in np.unique(labels["start_beat"]) if b < 4)
        middle = (last + 6.0) / 2
        self.assertAlmostEqual(float(aligned.beats(middle)), (last + 4) / 2, places=3)


class TestRecordings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        write_dataset(Path(cls.folder) / "set")
        cls.recordings = data.Recordings(
            Path(cls.folder) / "set", Path(cls.folder) / "work", progress=False
        )

    def test_sizes_of_splits(self):
        sizes = {split: len(own) for split, own in self.recordings.splits.items()}
        expected = {"train": 4, "validation": 2, "test": 2, "test_timbre": 2}
        self.assertEqual(sizes, expected)

    def test_windows_contain_the_notes_of_their_passage(self):
        places = self.recordings.windows("train")
        spectra, rolls, cells = self.recordings.pairs(places)
        self.assertEqual(spectra.shape[1], FRAMES)
        right = 0
        for window, roll, width in zip(spectra, rolls, cells, strict=True):
            # The first quarter of the window against each quarter of the passage.
            loudest = window[:5, 2:178].mean(0).reshape(88, 2).mean(1)[20:60].argmax()
            first = roll[0, :, : max(1, round(width / 10))].sum(1)[20:60]
            right += bool(first[loudest])
        self.assertGreaterEqual(right, 0.7 * len(places))

    def test_batches_are_reproducible_by_seed_and_epoch(self):
        train = self.recordings.splits["train"]
        pairs = data.Pairs(self.recordings, train, 8, seed=1, n_batches=3)
        first = [each[0].numpy() for each in pairs]
        pairs.first_batch = 2
        np.testing.assert_array_equal(next(iter(pairs))[0], first[2])
        pairs.epoch = 1
        self.assertFalse(np.array_equal(next(iter(pairs))[0], first[0]))
        self.assertEqual(len(first[0]), 8)
        self.assertEqual(len(pairs), 3)
        self.assertLess(PER_WORK, 8)

    def test_transposition_pads_with_silence(self):
        spectra = np.array([[[1, 0, 0, 0, 2, 0, 0, 0, 3]]], np.float32)
        for steps, expected in (
            (-4, [2, 0, 0, 0, 3, 0, 0, 0, 0]),
            (4, [0, 0, 0, 0, 1, 0, 0, 0, 2]),
            (0, [1, 0, 0, 0, 2, 0, 0, 0, 3]),
        ):
            self.assertEqual(data.transpose(spectra, steps, 2)[0, 0].tolist(), expected)
            moved = data.transpose(spectra.transpose(0, 2, 1), steps, 1)
            self.assertEqual(moved[0, :, 0].tolist(), expected)

    def test_audio_and_score_are_transposed_equally(self):
        (index, *_), shift = self.recordings.splits["train"], 3
        pairs, rng = data.Pairs(self.recordings, [index], 8), mock.Mock()
        rng.uniform.side_effect = lambda low, high, n=None: np.zeros(n) if n else 1.0
        pair_of = {}
        for semitones in (0, shift):
            rng.integers.return_value = semitones
            pair_of[semitones] = pairs._pair(index, rng)
        (spectra, roll, _), (moved, higher, _) = pair_of[0], pair_of[shift]
        np.testing.assert_array_equal(moved[:, 2 * shift :], spectra[:, : -2 * shift])
        np.testing.assert_array_equal(higher[:, shift:], roll[:, :-shift])

    def test_missing_beats_or_too_short_recordings_are_refused(self):
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
