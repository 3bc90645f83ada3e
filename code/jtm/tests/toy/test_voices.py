"""Durations are named as in MusicNet."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

from voices import note_value


class TestNoteValue(unittest.TestCase):
    def test_names_of_durations(self):
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
