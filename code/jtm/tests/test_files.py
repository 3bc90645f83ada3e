"""Outputs that cannot be written, and temporary files that killed processes left."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from jtm.files import InputError, NoSpaceError, atomic, check_output, locked, sweep


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


class TestOutput(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_folder_in_place_of_a_file_is_refused(self):
        folder = self.folder / "a"
        folder.mkdir()
        with self.assertRaisesRegex(InputError, "is a folder; expected a file"):
            check_output(folder)
        with self.assertRaisesRegex(InputError, "is a folder; expected a file"):
            with atomic(folder) as part:
                part.touch()
        self.assertEqual(list(self.folder.iterdir()), [folder])
        check_output(folder, is_folder=True)

    def test_file_in_place_of_a_folder_is_refused(self):
        file = self.folder / "file"
        file.touch()
        check_output(file)
        for out, is_folder in ((file, True), (file / "a", False), (file / "b/c", True)):
            with self.assertRaisesRegex(NoSpaceError, "is a file, or lies in one"):
                check_output(out, is_folder)

    def test_missing_folders_are_accepted_if_they_can_be_made(self):
        new = self.folder / "new" / "deeper"
        check_output(new)
        check_output(new, is_folder=True)
        self.assertEqual(list(self.folder.iterdir()), [])
        with mock.patch.object(os, "access", lambda path, mode: path != self.folder):
            with self.assertRaisesRegex(NoSpaceError, "new: cannot be written; choose"):
                check_output(new)


if __name__ == "__main__":
    unittest.main()
