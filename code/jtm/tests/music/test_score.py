"""Notes validate themselves, and scores are sorted."""

import unittest

from jtm.music.score import Note, Score


class TestNote(unittest.TestCase):
    def test_values_out_of_bounds_are_refused(self):
        Note(0, 0.1, 1, 0, 1)
        Note(0, 0.1, 128, 127, 127)
        for invalid in (
            (0.1, 0.1, 1, 60),
            (-0.1, 0.1, 1, 60),
            (0, 1, 0, 60),
            (0, 1, 129, 60),
            (0, 1, 1, -1),
            (0, 1, 1, 128),
            (0, 1, 1, 60, 0),
            (0, 1, 1, 60, 128),
        ):
            with self.assertRaises(ValueError, msg=invalid):
                Note(*invalid)


class TestScore(unittest.TestCase):
    def test_empty_score(self):
        score = Score(())
        self.assertEqual((score.seconds, score.programs), (0, ()))

    def test_notes_are_sorted_by_onset(self):
        late, early = Note(1, 2, 41, 60), Note(0, 3, 1, 60)
        score = Score((late, early))
        self.assertEqual(score.notes, (early, late))
        self.assertEqual((score.seconds, score.programs), (3, (1, 41)))


if __name__ == "__main__":
    unittest.main()
