"""The submitted archive is complete and runs without installation."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "report"))

import pack

from jtm.data.musicnet import open_dataset
from jtm.data.toyset import toy_data
from jtm.files import ROOT, InputError

NAMES = "Ada Byron, Élise d'Arc"


def python(folder, *arguments):
    """Run Python in a folder without another copy of the package on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


class TestSubmission(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.archive = pack.pack(NAMES, cls.folder)
        with zipfile.ZipFile(cls.archive) as archive:
            archive.extractall(cls.folder)
        cls.root = cls.folder / f"[ATIAM][ML2017] ({NAMES})"

    def test_archive_is_one_folder_with_all_parts(self):
        unpacked = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(unpacked, [self.root.name, self.archive.name])
        for name in (
            *("README.md", "main.py", "hubconf.py", "Makefile", "pyproject.toml"),
            *("requirements.txt", "environment.yml", "setup.sh"),
            *("code/jtm/cli.py", "code/examples/listen.py", "toy/datasheet.pdf"),
            *("report/results/inside.json", "report/figures/inside-memory.svg"),
            "notebooks/JTM progress report.ipynb",
        ):
            self.assertTrue((self.root / name).is_file(), name)
        self.assertTrue((self.root / "report" / "main.pdf").is_file())
        self.assertFalse(any(path.name == ".git" for path in self.root.rglob("*")))

    def test_repacking_the_unpacked_archive_gives_the_same_bytes(self):
        done = python(self.root, "report/pack.py", *NAMES.split())
        self.assertEqual(done.returncode, 0, done.stderr)
        again = self.root / self.archive.name
        self.assertEqual(again.read_bytes(), self.archive.read_bytes())

    def test_sample_is_a_labelled_dataset_of_free_works(self):
        sample = open_dataset(self.root / "toy" / "sample")
        sizes = {split: len(sample.split(split)) for split in pack.SAMPLED}
        self.assertEqual(sizes, pack.SAMPLED)
        for recording in sample.recordings:
            self.assertIsNotNone(recording.labels)
            self.assertNotIn("palestrina", recording.metadata["corpus_path"])
        everything = open_dataset(toy_data("tiny")).split("train")
        composers = {recording.metadata["composer"] for recording in everything}
        self.assertIn("Palestrina", composers)  # else the check above is vacuous

    def test_commands_run_in_the_unpacked_archive(self):
        # A copy of the generated set saves time; the first command checks it.
        shutil.copytree(
            toy_data("tiny"),
            self.root / "toy" / "data" / "tiny",
            ignore=shutil.ignore_patterns(".jtm-store"),
        )
        tiny = ("--preset", "tiny", "--nEpoch", "1", "--maxChunksInMem", "5")
        for command in (
            ("toy/generate.py", "--preset", "tiny"),
            ("main.py", "--samplingType", "samesequence", "--useSincNet", *tiny),
            ("main.py", "--supervised", "--load", "logs/checkpoint0.pt", *tiny),
            # Of the tests, those that read files outside the package.
            *(
                ("-m", "unittest", "discover", "code", "-p", f"test_{name}.py")
                for name in ("house", "tables", "render", "works", "score")
            ),
        ):
            done = python(self.root, *command)
            self.assertEqual(done.returncode, 0, (command, done.stderr[-2000:]))
        record = self.root / "logs" / "supervised-transcription" / "record.json"
        self.assertTrue(record.exists())

    def test_invalid_names_are_refused_in_one_line(self):
        for names in ("", "A/../B"):
            done = python(ROOT, "report/pack.py", names)
            self.assertEqual(done.returncode, 2, names)
            self.assertRegex(done.stderr, r"\Ajtm: NAMES is .*\n\Z")


class TestTracked(unittest.TestCase):
    def test_tree_without_git_or_manifest_is_refused(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with mock.patch.object(pack, "ROOT", folder):
            with self.assertRaisesRegex(InputError, "neither .git nor MANIFEST tells"):
                pack.tracked()


if __name__ == "__main__":
    unittest.main()
