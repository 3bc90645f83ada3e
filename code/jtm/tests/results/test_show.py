"""Output of the notebook, with and without results."""

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

    def test_players_hold_only_the_beginnings(self):
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

    def test_missing_results_are_reported(self):
        bench = Benchmark.read(self.folder / "benchmark.csv.gz")
        self.assertEqual((bench.missing, len(bench.contrasts())), ([], 0))
        drawings = figures.benchmark_figures(bench)
        for item in (drawings.get("labels"), tables.contrasts(bench)):
            self.assertIn("No results yet", show.result(item).data)

    def test_existing_results_are_shown(self):
        drawings = figures.benchmark_figures(synthetic.bench(("composer",)))
        figure = show.result(drawings["labels"])
        self.assertEqual(figure.axes[0].get_title(), "composer, seen SoundFont")
        self.assertIn("| 1 |", show.result(pd.DataFrame({"a": [1]})).data)


if __name__ == "__main__":
    unittest.main()
