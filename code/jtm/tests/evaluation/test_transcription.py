import unittest

import numpy as np

from jtm.data.rolls import (
    NOTE_DTYPE,
    PLAYED_DTYPE,
    frame_roll,
    onset_roll,
    part_roll,
)
from jtm.evaluation.metrics import note_f1
from jtm.evaluation.transcription import (
    _onset_f1,
    by_instrument,
    choose_thresholds,
    decode,
    peaks,
)

TRUTH = np.array(
    [(0.1, 0.5, 60), (0.5, 0.9, 60), (0.3, 0.8, 64), (0.3, 1.2, 21)], NOTE_DTYPE
)


def logits(notes, n_frames, height=3.0):
    """Return logits of a perfect prediction, of magnitude `height`."""
    rolls = np.stack((frame_roll(notes, n_frames), onset_roll(notes, n_frames)), 1)
    return height * np.where(rolls, 1.0, -1.0)


class TestDecoding(unittest.TestCase):
    def test_decoded_notes_equal_the_reference(self):
        found = decode(logits(TRUTH, 150), 0.5, 0.5)
        expected = np.sort(TRUTH, order=("start", "pitch"))
        np.testing.assert_array_equal(found["pitch"], expected["pitch"])
        for edge in ("start", "end"):
            np.testing.assert_allclose(found[edge], expected[edge], atol=0.005)

    def test_wide_onset_is_one_note(self):
        predictions = logits(TRUTH[:1], 150)
        predictions[8:13, 1, 60 - 21] = [1.0, 2.0, 4.0, 4.0, 1.0]
        self.assertEqual(decode(predictions, 0.5, 0.5)["start"].tolist(), [0.1])

    def test_hand_computed_peaks(self):
        onsets = np.array([1.0, 0.5, 0.4, 0.9, 2.0, 2.0, -1.0, -0.5, -2.0, 0.2])
        found = peaks(onsets[:, None], 0.5)
        # 0.2 is the maximum of its 30 ms; -0.5 is a peak below the threshold.
        self.assertEqual(np.flatnonzero(found).tolist(), [0, 4, 9])
        self.assertEqual(np.flatnonzero(peaks(onsets[:, None], 0.8)).tolist(), [4])

    def test_nothing_above_the_threshold_gives_no_notes(self):
        self.assertEqual(len(decode(np.full((50, 2, 88), -5.0), 0.5, 0.5)), 0)
        self.assertEqual(len(decode(np.zeros((0, 2, 88)), 0.5, 0.5)), 0)

    def test_no_note_without_an_onset(self):
        predictions = logits(TRUTH, 150)
        predictions[:, 1] = -5.0
        self.assertEqual(len(decode(predictions, 0.5, 0.5)), 0)


class TestInstruments(unittest.TestCase):
    def test_instruments_have_separate_pitch_ranges(self):
        notes = np.array(
            [(0, 1, 60, 1), (0, 1, 60, 41), (0, 1, 61, 74), (0, 1, 60, 13)],
            PLAYED_DTYPE,
        )
        found = by_instrument(notes)
        self.assertEqual(found["pitch"].tolist(), [60, 460, 2061])
        self.assertEqual(note_f1(found, found), 1.0)
        self.assertEqual(note_f1(found[:1], found[1:2]), 0.0)

    def test_unison_gives_one_note_per_instrument(self):
        notes = np.array([(0.1, 0.5, 60, 1), (0.1, 0.3, 60, 41)], PLAYED_DTYPE)
        rolls = part_roll(notes, 60).transpose(0, 2, 1)
        onsets = onset_roll(notes, 60)[:, None]
        predictions = np.where(np.concatenate((rolls, onsets), 1), 3.0, -3.0)
        found = decode(predictions, 0.5, 0.5)
        self.assertEqual(found.dtype, notes.dtype)
        self.assertEqual(found["program"].tolist(), [1, 41])
        np.testing.assert_allclose(found["end"], notes["end"])


class TestOnsets(unittest.TestCase):
    def test_onset_f1_equals_note_f1(self):
        rng = np.random.default_rng(0)
        for n in (0, 1, 30, 200):
            sides = []
            for _ in range(2):
                notes = np.zeros(n, NOTE_DTYPE)
                notes["start"] = rng.integers(0, 300, n) / 100
                notes["end"] = notes["start"] + 0.1
                notes["pitch"] = rng.integers(60, 64, n)
                sides.append(np.sort(notes, order=("start", "pitch")))
            self.assertAlmostEqual(_onset_f1(*sides), note_f1(*sides), msg=n)

    def test_hand_computed_onset_f1(self):
        notes = np.array([(1, 2, 60), (3, 4, 64)], NOTE_DTYPE)
        late = notes.copy()
        late["start"] += (0.05, 0.06)
        self.assertEqual(_onset_f1(notes, late), 0.5)
        self.assertEqual(_onset_f1(notes[:0], notes[:0]), 1.0)
        self.assertEqual(_onset_f1(notes, notes[:0]), 0.0)
        self.assertEqual(_onset_f1(notes[:0], notes), 0.0)


class TestThresholds(unittest.TestCase):
    def test_thresholds_maximise_the_scores(self):
        # An unconfident network: its onsets rise from a probability of
        # 0.18 to 0.29, and its frames from 0.57 to 0.71.
        predictions = logits(TRUTH, 150, height=0.3)
        predictions[:, 0] += 0.6
        predictions[:, 1] -= 1.2
        predictions += 0.01 * np.random.default_rng(0).normal(size=predictions.shape)
        chosen = choose_thresholds([predictions], [TRUTH])
        self.assertIn(chosen["onset_threshold"], (0.2, 0.25))
        self.assertIn(chosen["frame_threshold"], (0.6, 0.7))
        self.assertEqual(note_f1(TRUTH, decode(predictions, **chosen), True), 1.0)


if __name__ == "__main__":
    unittest.main()
