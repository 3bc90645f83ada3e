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
    onset_targets,
    peaks,
)

TRUTH = np.array(
    [(0.1, 0.5, 60), (0.5, 0.9, 60), (0.3, 0.8, 64), (0.3, 1.2, 21)], NOTE_DTYPE
)


def logits(notes, n_frames, height=3.0):
    """Posteriors of a network that is right, and sure by `height`."""
    rolls = np.stack((frame_roll(notes, n_frames), onset_roll(notes, n_frames)), 1)
    return height * np.where(rolls, 1.0, -1.0)


class Decoding(unittest.TestCase):
    def test_notes_to_posteriors_to_notes(self):
        found = decode(logits(TRUTH, 150), (0.5, 0.5))
        expected = np.sort(TRUTH, order=("start", "pitch"))
        np.testing.assert_array_equal(found["pitch"], expected["pitch"])
        for edge in ("start", "end"):
            np.testing.assert_allclose(found[edge], expected[edge], atol=0.005)

    def test_a_wide_onset_is_one_note(self):
        posteriors = logits(TRUTH[:1], 150)
        posteriors[8:13, 1, 60 - 21] = [1.0, 2.0, 4.0, 4.0, 1.0]
        self.assertEqual(decode(posteriors, (0.5, 0.5))["start"].tolist(), [0.1])

    def test_peaks_by_hand(self):
        onsets = np.array([1.0, 0.5, 0.4, 0.9, 2.0, 2.0, -1.0, -0.5, -2.0, 0.2])
        found = peaks(onsets[:, None], 0.5)
        # 0.2 is the highest of its 30 ms; -0.5 is a peak below the threshold.
        self.assertEqual(np.flatnonzero(found).tolist(), [0, 4, 9])
        self.assertEqual(np.flatnonzero(peaks(onsets[:, None], 0.8)).tolist(), [4])

    def test_nothing_above_the_threshold(self):
        self.assertEqual(len(decode(np.full((50, 2, 88), -5.0), (0.5, 0.5))), 0)
        self.assertEqual(len(decode(np.zeros((0, 2, 88)), (0.5, 0.5))), 0)

    def test_no_note_without_an_onset(self):
        posteriors = logits(TRUTH, 150)
        posteriors[:, 1] = -5.0
        self.assertEqual(len(decode(posteriors, (0.5, 0.5))), 0)


class Instruments(unittest.TestCase):
    def test_each_has_pitches_of_its_own(self):
        notes = np.array(
            [(0, 1, 60, 1), (0, 1, 60, 41), (0, 1, 61, 74), (0, 1, 60, 13)],
            PLAYED_DTYPE,
        )
        found = by_instrument(notes)
        self.assertEqual(found["pitch"].tolist(), [60, 460, 2061])
        self.assertEqual(note_f1(found, found), 1.0)
        self.assertEqual(note_f1(found[:1], found[1:2]), 0.0)

    def test_unison_is_two_notes_where_both_sound(self):
        notes = np.array([(0.1, 0.5, 60, 1), (0.1, 0.3, 60, 41)], PLAYED_DTYPE)
        rolls = part_roll(notes, 60).transpose(0, 2, 1)
        onsets = onset_roll(notes, 60)[:, None]
        posteriors = np.where(np.concatenate((rolls, onsets), 1), 3.0, -3.0)
        found = decode(posteriors, (0.5, 0.5))
        self.assertEqual(found.dtype, notes.dtype)
        self.assertEqual(found["program"].tolist(), [1, 41])
        np.testing.assert_allclose(found["end"], notes["end"])


class Targets(unittest.TestCase):
    def test_an_onset_is_widened_also_across_the_edge(self):
        column = onset_targets(TRUTH[:1], 150)[:, 60 - 21]
        self.assertEqual(np.flatnonzero(column).tolist(), [9, 10, 11])
        whole = onset_targets(TRUTH, 150)
        for start in (9, 10, 11, 12, 28):
            part = onset_targets(TRUTH, 30, start)
            np.testing.assert_array_equal(part, whole[start : start + 30])


class Onsets(unittest.TestCase):
    def test_against_mir_eval(self):
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

    def test_by_hand(self):
        notes = np.array([(1, 2, 60), (3, 4, 64)], NOTE_DTYPE)
        late = notes.copy()
        late["start"] += (0.05, 0.06)
        self.assertEqual(_onset_f1(notes, late), 0.5)
        self.assertEqual(_onset_f1(notes[:0], notes[:0]), 1.0)
        self.assertEqual(_onset_f1(notes, notes[:0]), 0.0)
        self.assertEqual(_onset_f1(notes[:0], notes), 0.0)


class Thresholds(unittest.TestCase):
    def test_they_are_chosen_by_the_scores(self):
        # A network that is never sure: its onsets rise from a probability of
        # 0.18 to 0.29, and its frames from 0.57 to 0.71.
        posteriors = logits(TRUTH, 150, height=0.3)
        posteriors[:, 0] += 0.6
        posteriors[:, 1] -= 1.2
        posteriors += 0.01 * np.random.default_rng(0).normal(size=posteriors.shape)
        frame, onset = choose_thresholds([posteriors], [TRUTH])
        self.assertIn(onset, (0.2, 0.25))
        self.assertIn(frame, (0.6, 0.7))
        self.assertEqual(note_f1(TRUTH, decode(posteriors, (frame, onset)), True), 1.0)


if __name__ == "__main__":
    unittest.main()
