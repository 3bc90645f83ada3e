"""What is handed in works by itself, where nothing is installed."""

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
    """Run Python in a folder, where no other copy of the package is at hand."""
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

    def test_all_of_it_in_one_folder(self):
        there = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(there, [self.root.name, self.archive.name])
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

    def test_the_same_bytes_and_from_the_unpacked_tree_too(self):
        done = python(self.root, "report/pack.py", *NAMES.split())
        self.assertEqual(done.returncode, 0, done.stderr)
        again = self.root / self.archive.name
        self.assertEqual(again.read_bytes(), self.archive.read_bytes())

    def test_the_sample_is_a_dataset_that_may_be_passed_on(self):
        sample = open_dataset(self.root / "toy" / "sample")
        sizes = {split: len(sample.split(split)) for split in pack.SAMPLED}
        self.assertEqual(sizes, pack.SAMPLED)
        for recording in sample.recordings:
            self.assertIsNotNone(recording.labels)
            self.assertNotIn("palestrina", recording.metadata["corpus_path"])
        everything = open_dataset(toy_data("tiny")).split("train")
        composers = {recording.metadata["composer"] for recording in everything}
        self.assertIn("Palestrina", composers)  # else there was nothing to avoid

    def test_the_commands_run(self):
        # The set that is here spares its making; whether it is whole is asked there.
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
            # Of the tests, those that read what lies outside the package.
            *(
                ("-m", "unittest", "discover", "code", "-p", f"test_{name}.py")
                for name in ("house", "tables", "render", "works", "score")
            ),
        ):
            done = python(self.root, *command)
            self.assertEqual(done.returncode, 0, (command, done.stderr[-2000:]))
        record = self.root / "logs" / "supervised-transcription" / "record.json"
        self.assertTrue(record.exists())

    def test_mistakes_end_in_one_line(self):
        for names in ("", "A/../B"):
            done = python(ROOT, "report/pack.py", names)
            self.assertEqual(done.returncode, 2, names)
            self.assertRegex(done.stderr, r"\Ajtm: NAMES is .*\n\Z")


class TestTracked(unittest.TestCase):
    def test_a_tree_that_tells_no_files_is_refused(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with mock.patch.object(pack, "ROOT", folder):
            with self.assertRaisesRegex(InputError, "neither .git nor MANIFEST tells"):
                pack.tracked()


if __name__ == "__main__":
    unittest.main()
