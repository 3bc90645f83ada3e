"""The example scripts run to their end, from a checkout that is not installed."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from jtm.files import STOPPED

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

RUN = """
import matplotlib, runpy, sys, time
matplotlib.use("Agg")
for path in sys.argv[1:]:
    start = time.monotonic()
    print("BEGIN", path)
    runpy.run_path(path, run_name="__main__")
    print("END", path, f"{time.monotonic() - start:.1f} s", flush=True)
"""


class TestExamples(unittest.TestCase):
    def test_examples_run_and_write_their_figures(self):
        paths = sorted(EXAMPLES.glob("*.py"))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", RUN, *map(str, paths)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            written = {path.name for path in Path(folder, "logs", "examples").iterdir()}
        self.assertEqual(done.stdout.count("END"), len(paths))
        figures = {"listen", "pretrain", "probe", "transcribe", "look_inside"}
        self.assertLessEqual({f"{name}.png" for name in figures}, written)
        self.assertLessEqual({"remembers.png", "transcribe.mid"}, written)
        for text in (
            "50 frames of",
            "notes found",
            "multipitch, test: average precision",
        ):
            self.assertIn(text, done.stdout)

    def test_ctrl_c_ends_examples_in_one_line(self):
        path = EXAMPLES / "pretrain.py"
        begin, call, _ = path.read_text("utf-8").partition("stop_in_one_line()\n")
        for error in ("KeyboardInterrupt", "StoppedError", "ValueError"):
            script = f"{begin}{call}from jtm.files import StoppedError\nraise {error}\n"
            script = script.replace("__file__", repr(str(path)))
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True
            )
            if error == "ValueError":
                self.assertIn("Traceback", done.stderr)
            else:
                self.assertEqual((done.returncode, done.stderr), (130, STOPPED + "\n"))
        for path in EXAMPLES.glob("*.py"):
            self.assertIn("\nstop_in_one_line()\n", path.read_text("utf-8"))


if __name__ == "__main__":
    unittest.main()
