"""Notes check themselves, and durations have MusicNet's names."""

import unittest

from jtm.music.score import Note, Score, note_value


class TestNote(unittest.TestCase):
    def test_bounds(self):
        Note(0, 0.1, 1, 0, 1)
        Note(0, 0.1, 128, 127, 127)
        for wrong in (
            (0.1, 0.1, 1, 60),
            (-0.1, 0.1, 1, 60),
            (0, 1, 0, 60),
            (0, 1, 129, 60),
            (0, 1, 1, -1),
            (0, 1, 1, 128),
            (0, 1, 1, 60, 0),
            (0, 1, 1, 60, 128),
        ):
            with self.assertRaises(ValueError, msg=wrong):
                Note(*wrong)


class TestScore(unittest.TestCase):
    def test_empty(self):
        score = Score(())
        self.assertEqual((score.seconds, score.programs), (0, ()))

    def test_sorted_by_onset(self):
        late, early = Note(1, 2, 41, 60), Note(0, 3, 1, 60)
        score = Score((late, early))
        self.assertEqual(score.notes, (early, late))
        self.assertEqual((score.seconds, score.programs), (3, (1, 41)))


class TestNoteValue(unittest.TestCase):
    def test_names(self):
        for beats, name in (
            (4, "Whole"),
            (3, "Dotted Half"),
            (1.5, "Dotted Quarter"),
            (0.25, "Sixteenth"),
            (0.125, "Thirty Second"),
            (1 / 3, "Triplet Eighth"),
            (0.33333, "Triplet Eighth"),
            (2.5, "Tied Half-Eighth"),
            (10.5, "Unknown"),
        ):
            self.assertEqual(note_value(beats), name)


if __name__ == "__main__":
    unittest.main()
