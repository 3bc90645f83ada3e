"""What the notebook shows, where results are missing too."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pandas as pd

from jtm.data.musicnet import Recording
from jtm.music import audio
from jtm.results import figures, show, tables
from jtm.results.compare import Benchmark
from jtm.tests.results import synthetic


class TestShow(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_players_hold_the_beginnings_alone(self):
        recordings = []
        for number in range(2):
            path = self.folder / f"{number}.wav"
            audio.write(path, np.sin(np.arange(32_000)) / 2, 16_000)
            row = {"composition": f"Piece {number}", "ensemble": "", "other": "unsaid"}
            recordings.append(Recording(f"{number}", path, None, "test", row))
        page = show.players(recordings, 0.5).data
        self.assertEqual(page.count("<audio"), 2)
        self.assertIn("test, 0, Piece 0<br>", page)
        self.assertNotIn("unsaid", page)
        # Half a second of 16 bits at 16 kHz in base64, and a header.
        self.assertLess(abs(len(page) / 2 - 8_000 * 2 * 4 / 3), 500)

    def test_what_has_not_run_is_named(self):
        bench = Benchmark.read(self.folder / "benchmark.csv.gz")
        self.assertEqual((bench.missing, len(bench.contrasts())), ([], 0))
        drawings = figures.benchmark_figures(bench)
        for made in (drawings.get("labels"), tables.contrasts(bench)):
            self.assertIn("No results yet", show.result(made).data)

    def test_what_has_run_is_shown(self):
        drawings = figures.benchmark_figures(synthetic.bench(("composer",)))
        figure = show.result(drawings["labels"])
        self.assertEqual(figure.axes[0].get_title(), "composer, seen SoundFont")
        self.assertIn("| 1 |", show.result(pd.DataFrame({"a": [1]})).data)


if __name__ == "__main__":
    unittest.main()
