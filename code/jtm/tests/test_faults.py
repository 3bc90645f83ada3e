"""Fault injection: a short run loses nothing, and losses are detected and counted."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from jtm.files import ROOT, InputError

sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code" / "faults")]

import damaged  # noqa: E402
import isolated  # noqa: E402
import stopped  # noqa: E402
import suite  # noqa: E402


def busy(path):
    """Exceed the time limit."""
    return sum(range(10**7))


def greedy(path):
    """Exceed the memory limit."""
    return bytes(10**9)


@unittest.skipUnless(sys.platform == "linux", "needs Linux's clocks and limits")
class TestSuite(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.rng = np.random.default_rng(0)

    def test_short_suite_loses_nothing(self):
        script = ROOT / "code" / "faults" / "suite.py"
        done = subprocess.run(
            [sys.executable, script, "--short", "--work", self.folder],
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("killed at a random moment: store: 1 of 1", done.stdout)
        self.assertIn("damaged: FLAC: 10 of 10", done.stdout)

    def test_losses_are_counted_and_repeated(self):
        trials = []

        def trial(rng, folder):
            trials.append(rng.integers(1000))
            if len(trials) == 2:
                raise isolated.LostError("two")

        faults = [suite.Fault("a", trial, 3, 0, 10)]
        with mock.patch("suite.faults", return_value=faults):
            first, second = (
                suite.run(self.folder, progress=False)[0] for _ in range(2)
            )
        self.assertEqual(first["lost"], 1)
        self.assertEqual(first["survived"], 29)
        self.assertEqual(first["reasons"], ["two"])
        self.assertEqual((second["survived"], second["lost"]), (30, 0))
        self.assertEqual(len(trials), 4)
        self.assertEqual(trials[3], trials[1])  # the same random draws

    def test_rows_of_other_faults_are_retained(self):
        path, zero = self.folder / "faults.json", {"survived": 0, "lost": 0}
        faults = [suite.Fault(name, None, 1) for name in "abc"]
        with mock.patch("suite.faults", return_value=faults):
            suite.record(path, [{"fault": "b", "tried": 1, "survived": 1, "lost": 0}])
            suite.record(path, [{"fault": "c", "tried": 2, "survived": 1, "lost": 1}])
            suite.record(path, [{"fault": "b", "tried": 0} | zero])
        tried = [row["tried"] for row in json.loads(path.read_text())]
        self.assertEqual(tried, [0, 1, 2])

    def test_readers_that_crash_hang_or_exhaust_memory_are_detected(self):
        def refuse(path):
            raise InputError("no")

        for read, message in (
            (lambda path: 1 // 0, "ZeroDivisionError"),
            (busy, "_SlowError"),
            (greedy, "MemoryError"),
            (refuse, "InputError"),  # the first file is undamaged
            (lambda path: Path(path.parents[1], "x").touch(), "outside its folder"),
        ):
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            with (
                mock.patch.dict(damaged.READERS, wrong=("labels.csv", read)),
                mock.patch.object(damaged, "SECONDS", 0.05),
                mock.patch.object(damaged, "MEMORY", 5e8),
                self.assertRaisesRegex(isolated.LostError, message),
            ):
                damaged.mutate("wrong", self.rng, folder)

    def test_difference_after_a_stop_is_detected(self):
        def forgetful(out):
            resumed = (out / "a").exists()
            (out / "a").write_text("half" if resumed else "whole")
            return sum(range(3 * 10**6)) and 0

        with mock.patch.dict(stopped.JOBS, forgetful=forgetful):
            with self.assertRaisesRegex(isolated.LostError, "these differ: a"):
                for _ in range(20):
                    folder = Path(tempfile.mkdtemp(dir=self.folder))
                    stopped.kill("forgetful", self.rng, folder)


if __name__ == "__main__":
    unittest.main()
