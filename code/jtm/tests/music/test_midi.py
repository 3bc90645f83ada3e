"""MIDI files store performances with sample accuracy."""

import tempfile
import unittest
import unittest.mock
from pathlib import Path

from jtm.constants import LABEL_RATE
from jtm.files import InputError
from jtm.music import midi
from jtm.music.score import Note, Score


class TestMidi(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "a.mid"

    def test_round_trip_is_exact(self):
        spans = ((0, 1), (64, 44099), (44101, 5_000_001), (5_000_001, 5_000_065))
        notes = tuple(
            Note(start / LABEL_RATE, end / LABEL_RATE, program, 60 + i, 30 + i)
            for program in (1, 74)
            for i, (start, end) in enumerate(spans)
        )
        midi.write(self.path, Score(notes))
        back = midi.read(self.path).notes

        def facts(note):
            times = (round(t * LABEL_RATE, 6) for t in (note.start, note.end))
            return (*times, note.program, note.pitch, note.velocity)

        self.assertEqual(sorted(map(facts, back)), sorted(map(facts, notes)))

    def test_scores_of_hours_can_be_read(self):
        for start, delta in ((201.0, 0.0011), (10_801.234, 0.0011), (40_000.0, 0.0021)):
            midi.write(self.path, Score((Note(start, start + 0.5, 1, 60),)))
            (note,) = midi.read(self.path).notes
            self.assertAlmostEqual(note.start, start, delta=delta)
            self.assertAlmostEqual(note.end, start + 0.5, delta=delta)

    def test_empty_score_round_trips(self):
        midi.write(self.path, Score(()))
        self.assertEqual(midi.read(self.path), Score(()))

    def test_files_that_are_not_midi_are_refused(self):
        self.path.write_bytes(b"RIFF, not MIDI")
        with self.assertRaisesRegex(InputError, "a.mid.*MIDI"):
            midi.read(self.path)
        with self.assertRaisesRegex(InputError, "missing.mid"):
            midi.read(self.path.with_name("missing.mid"))
        midi.write(self.path, Score(()))
        with (  # as with a chunk length of four gigabytes
            unittest.mock.patch("mido.MidiFile", side_effect=MemoryError),
            self.assertRaisesRegex(InputError, "a.mid: .*MemoryError"),
        ):
            midi.read(self.path)


if __name__ == "__main__":
    unittest.main()
