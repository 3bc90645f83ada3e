"""The table of single notes: round trip, and refusal of invalid rows."""

import tempfile
import unittest
from pathlib import Path

from jtm.data.clips import CLIP_COLUMNS, CLIPS_FILE, Clip, read_clips, write_clips
from jtm.files import InputError

HEADING = ",".join(CLIP_COLUMNS)


class TestNotes(unittest.TestCase):
    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def read(self, *lines):
        (self.root / CLIPS_FILE).write_text("\n".join((HEADING, *lines)) + "\n")
        return read_clips(self.root)

    def test_round_trip(self):
        clips = (
            Clip(self.root / "notes" / "a.wav", 41, 60, 72, 4416, 22080, "train", "x"),
            Clip(self.root / "notes" / "b.wav", 1, 21, 40, 0, 9, "test_timbre", "y"),
        )
        write_clips(self.root, clips)
        self.assertEqual(read_clips(self.root), clips)

    def test_empty_table(self):
        self.assertEqual(self.read(), ())

    def test_invalid_rows_are_refused(self):
        for line, message in (
            ("a.wav,41,sixty,72,1,0,9,train,x", "line 2.*whole numbers"),
            ("a.wav,41,60", "line 2.*whole numbers"),
            ("a.wav,40,60,72,1,0,9,train,x", "line 2: instrument 40"),
            ("a.wav,41,60,72,1,0,9,dev,x", "line 2.*split dev"),
            ("a.wav,41,20,72,1,0,9,train,x", "line 2: note 20; expected .* 21 to 108"),
            ("a.wav,41,109,72,1,0,9,train,x", "line 2: note 109"),
            ("a.wav,41,60,72,1,9,9,train,x", "line 2: note from sample 9 to 9; expec"),
            ("a.wav,41,60,72,1,-1,9,train,x", "line 2: note from sample -1 to 9"),
            ("../a.wav,41,60,72,1,0,9,train,x", "leads outside"),
            ("a\0.wav,41,60,72,1,0,9,train,x", "not a file name"),
        ):
            with self.assertRaisesRegex(InputError, message, msg=line):
                self.read(line)
        line = "a.wav,41,60,72,1,0,9,train,x"
        for other in (line, line.replace(".wav", ".flac")):
            with self.assertRaisesRegex(InputError, "line 3: a second note named a"):
                self.read(line, other)
        self.assertEqual(len(self.read(line, f"flute/{line}")), 2)
        with self.assertRaisesRegex(InputError, "notes.csv"):
            read_clips(self.root / "nowhere")


if __name__ == "__main__":
    unittest.main()
