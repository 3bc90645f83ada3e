import tempfile
import unittest
from pathlib import Path

import numpy as np

from jtm.data.musicnet import LABEL_DTYPE, Recording, write_labels
from jtm.data.rolls import (
    NOTE_DTYPE,
    PLAYED_DTYPE,
    frame_numbers,
    frame_roll,
    instrument_roll,
    onset_roll,
    part_roll,
    read_notes,
    rolls_to_notes,
)
from jtm.files import InputError


def notes(*rows):
    return np.array(list(rows), NOTE_DTYPE)


def recording(name="a", split="train", labels=None, **metadata):
    audio = Path("train_data") / f"{name}.wav"
    return Recording(name, audio, labels, split, metadata)


class TestRolls(unittest.TestCase):
    def test_frame_is_labelled_by_its_centre(self):
        # Centres lie at 5, 15, 25 ms ...; the interval is half-open.
        roll = frame_roll(notes((0.005, 0.015, 60), (0.0051, 0.0251, 61)), 4)
        np.testing.assert_array_equal(roll[:, 60 - 21], [1, 0, 0, 0])
        np.testing.assert_array_equal(roll[:, 61 - 21], [0, 1, 1, 0])
        self.assertEqual(roll.sum(), 3)

    def test_excerpt_equals_slice_of_the_whole_roll(self):
        truth = notes((0.1, 0.5, 60), (0.305, 0.6, 70), (0.4, 0.41, 80))
        for roll in (frame_roll, onset_roll):
            whole = roll(truth, 100)
            for start in (0, 10, 30, 31, 45, 99):
                part = roll(truth, 20, start)[: 100 - start]
                np.testing.assert_array_equal(part, whole[start : start + 20])

    def test_overlapping_notes_of_one_pitch_are_merged(self):
        roll = frame_roll(notes((0.0, 0.03, 60), (0.01, 0.02, 60)), 5)
        np.testing.assert_array_equal(roll[:, 60 - 21], [1, 1, 1, 0, 0])

    def test_notes_beyond_the_piano_or_the_end_are_excluded(self):
        edges = notes((0, 1, 20), (0, 1, 21), (0, 1, 108), (0, 1, 109), (5, 6, 60))
        roll = frame_roll(edges, 100)
        np.testing.assert_array_equal(np.flatnonzero(roll.any(axis=0)), [0, 87])
        np.testing.assert_array_equal(onset_roll(edges, 100).sum(axis=0)[[0, 87]], 1)
        self.assertEqual(onset_roll(edges, 100).sum(), 2)

    def test_empty_notes_and_empty_rolls(self):
        self.assertFalse(frame_roll(notes(), 10).any())
        self.assertEqual(frame_roll(notes((0, 1, 60)), 0).shape, (0, 88))
        empty = np.zeros((10, 88), bool)
        self.assertEqual(len(rolls_to_notes(empty, empty)), 0)

    def test_notes_round_trip(self):
        truth = notes(
            (0.0, 0.5, 21),
            (0.104, 0.203, 60),
            (0.203, 0.4, 60),  # repeated without a gap
            (0.3, 1.0, 108),  # up to the last frame
            (0.311, 0.777, 64),
        )
        found = rolls_to_notes(frame_roll(truth, 100), onset_roll(truth, 100))
        np.testing.assert_array_equal(found["pitch"], truth["pitch"])
        np.testing.assert_allclose(found["start"], truth["start"], atol=0.005)
        np.testing.assert_allclose(found["end"], truth["end"], atol=0.005)

    def test_random_notes_round_trip(self):
        rng = np.random.default_rng(0)
        rows = []
        for pitch in range(21, 109):
            times = np.sort(rng.choice(2000, 20, replace=False)) / 100
            rows += [(a, b, pitch) for a, b in times.reshape(-1, 2)]
        truth = np.sort(notes(*rows), order=("start", "pitch"))
        found = rolls_to_notes(frame_roll(truth, 2000), onset_roll(truth, 2000))
        np.testing.assert_array_equal(found["pitch"], truth["pitch"])
        np.testing.assert_allclose(found["start"], truth["start"], atol=1e-9)
        np.testing.assert_allclose(found["end"], truth["end"], atol=1e-9)

    def test_onset_without_active_frame_lasts_one_frame(self):
        onsets = np.zeros((4, 88), bool)
        onsets[3, 5] = True
        found = rolls_to_notes(np.zeros((4, 88), bool), onsets)
        self.assertEqual(found.tolist(), [(0.03, 0.04, 26)])


class TestReadNotes(unittest.TestCase):
    def read(self, start, end, samples):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.csv"
            row = (start, end, 1, 60, 0, 1, "Quarter")
            write_labels(path, np.array([row], LABEL_DTYPE))
            return read_notes(recording(labels=path), samples)

    def test_label_times_are_at_44100_hz_at_any_audio_rate(self):
        found = self.read(44_100, 66_150, 32_000)
        self.assertEqual(found.tolist(), [(1.0, 1.5, 60, 1)])

    def test_note_beyond_the_end_is_clipped_or_refused(self):
        self.assertEqual(self.read(44_100, 66_150, 20_000)["end"][0], 1.25)
        with self.assertRaisesRegex(InputError, "a.csv.*sample 44100.*a.wav"):
            self.read(44_100, 66_150, 16_000)

    def test_recording_without_labels_is_refused(self):
        with self.assertRaisesRegex(InputError, "a.wav.*no label file"):
            read_notes(recording(), 16_000)


class TestInstruments(unittest.TestCase):
    def test_hand_computed_instrument_roll(self):
        # Violin from 20 to 50 ms, a second violin note to 60 ms, and a celesta,
        # which is not among the eleven instruments.
        rows = [(0.02, 0.05, 60, 41), (0.03, 0.06, 90, 41), (0.0, 0.1, 60, 9)]
        roll = instrument_roll(np.array(rows, PLAYED_DTYPE), 8)
        self.assertEqual(roll.shape, (8, 11))
        self.assertEqual(np.argwhere(roll).tolist(), [[i, 2] for i in range(2, 6)])
        later = instrument_roll(np.array(rows, PLAYED_DTYPE), 3, start=4)
        np.testing.assert_array_equal(later, roll[4:7])


class TestParts(unittest.TestCase):
    def setUp(self):
        self.notes = np.array(
            [
                (0.0, 0.03, 60, 1),
                (0.02, 0.04, 60, 41),  # unison with the piano for one frame
                (0.02, 0.04, 20, 41),  # below the piano's range
                (0.02, 0.04, 62, 13),  # not among the eleven instruments
            ],
            PLAYED_DTYPE,
        )

    def test_hand_computed_part_roll(self):
        roll = part_roll(self.notes, 5)
        self.assertEqual((roll.shape, roll.dtype), ((5, 88, 11), bool))
        expected = [[0, 39, 0], [1, 39, 0], [2, 39, 0], [2, 39, 2], [3, 39, 2]]
        self.assertEqual(np.argwhere(roll).tolist(), expected)
        np.testing.assert_array_equal(part_roll(self.notes, 3, 2), roll[2:])
        self.assertEqual(part_roll(self.notes[:0], 3).sum(), 0)

    def test_projections_equal_pitch_and_instrument_rolls(self):
        rng = np.random.default_rng(0)
        notes = np.zeros(80, PLAYED_DTYPE)
        notes["start"] = rng.uniform(0, 3, 80)
        notes["end"] = notes["start"] + rng.uniform(0, 0.5, 80)
        notes["pitch"] = rng.integers(21, 109, 80)
        notes["program"] = rng.choice((1, 41, 42, 74), 80)
        for hop in (160, 320):
            roll = part_roll(notes, 150, 7, hop)
            np.testing.assert_array_equal(
                roll.any(axis=2), frame_roll(notes, 150, 7, hop)
            )
            np.testing.assert_array_equal(
                roll.any(axis=1), instrument_roll(notes, 150, 7, hop)
            )


class TestHops(unittest.TestCase):
    def test_20_ms_frame_is_labelled_by_its_centre(self):
        # Centres lie at 10, 30, 50 ms ...; the interval is half-open.
        truth = notes((0.01, 0.03, 60), (0.0101, 0.0501, 61))
        roll = frame_roll(truth, 4, hop=320)
        np.testing.assert_array_equal(roll[:, 60 - 21], [1, 0, 0, 0])
        np.testing.assert_array_equal(roll[:, 61 - 21], [0, 1, 1, 0])
        onsets = onset_roll(truth, 4, hop=320)
        self.assertEqual(np.argwhere(onsets).tolist(), [[0, 39], [1, 40]])
        found = rolls_to_notes(roll, onsets, 320)
        self.assertEqual(found["start"].tolist(), [0.0, 0.02])
        self.assertEqual(found["end"].tolist(), [0.02, 0.06])


class TestWindows(unittest.TestCase):
    def test_frame_numbers_are_centres_of_their_steps(self):
        self.assertEqual(frame_numbers(128, 32).tolist(), [16, 48, 80, 112])
        self.assertEqual(frame_numbers(3, 1).tolist(), [0, 1, 2])
        self.assertEqual(len(frame_numbers(3, 8)), 0)


if __name__ == "__main__":
    unittest.main()
