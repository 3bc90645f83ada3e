"""Temporary files: only those that killed processes left are removed."""

import tempfile
import unittest
from pathlib import Path

from jtm.files import atomic, locked, sweep


class TestSweep(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def leave(self, name):
        """Write a file as a killed process leaves it; return its path."""
        with atomic(self.folder / name) as part:
            part.touch()
            left = part.with_name(part.name.replace(".part", "0.part", 1))
            left.touch()
        return left

    def test_files_of_killed_processes_are_removed(self):
        left = [
            self.leave(name) for name in ("a.pt", "b", "c." + 40 * "d", "sub/e.s16")
        ]
        sweep(self.folder, deep=False)
        self.assertEqual([path.exists() for path in left], [False, False, False, True])
        sweep(self.folder)
        self.assertFalse(left[-1].exists())
        self.assertTrue((self.folder / "sub" / "e.s16").exists())
        sweep(self.folder / "missing")

    def test_files_of_a_user_are_kept(self):
        for name in (".song.partition.txt", "sub/.backup.part1.rar", ".a.1.part.wav"):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
            sweep(self.folder)
            self.assertTrue(path.exists(), name)

    def test_subfolder_in_use_is_left_alone(self):
        sub = self.folder / "sub"
        with locked(sub / ".lock"), atomic(sub / "last.pt") as part:
            part.touch()
            sweep(self.folder)
        self.assertTrue((sub / "last.pt").exists())
        left = self.leave("sub/first.pt")
        sweep(self.folder)
        self.assertFalse(left.exists())


if __name__ == "__main__":
    unittest.main()
