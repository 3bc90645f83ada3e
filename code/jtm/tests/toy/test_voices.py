"""Durations are named as in MusicNet."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

from voices import from_music21, note_value


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


class TestMusic21(unittest.TestCase):
    def test_transposing_instruments_sound_at_concert_pitch(self):
        from music21 import instrument, note, stream

        part = stream.Part([instrument.Clarinet()])  # in B flat
        part.append([note.Note(60 + k) for k in range(8)])
        part.atSoundingPitch = False
        music = from_music21(stream.Score([part]))
        self.assertEqual(music.melody[:2], [58, 59])


if __name__ == "__main__":
    unittest.main()
