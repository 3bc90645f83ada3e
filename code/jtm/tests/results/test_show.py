"""What the notebook shows, where results are there and where they are not."""

import tempfile
import unittest
from pathlib import Path

import numpy as np

from jtm.data.musicnet import Recording
from jtm.music import audio
from jtm.results import readings, records, show
from jtm.results.figures import grid_figures
from jtm.tests.results.test_compare import CPC, CQT, score


class TestShow(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

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
        grid = show.read_grid(self.folder / "grid.jsonl")
        self.assertIn("- `ensemble` has not run.", show.missing(grid).data)
        drawings = grid_figures(grid)
        said = show.picture(drawings, "label-efficiency").data
        self.assertIn("*label-efficiency* is not here yet", said)
        self.assertIn("Nothing is here yet", show.text(readings.wins(grid)).data)

    def test_what_has_run_is_shown(self):
        path = self.folder / "grid.jsonl"
        records.append(
            path,
            [
                score(row, 0, value, split)
                for row, value in ((CPC, 0.6), (CQT, 0.5))
                for split in ("validation", "test")
            ],
        )
        grid = show.read_grid(path)
        figure = show.picture(grid_figures(grid), "label-efficiency")
        self.assertEqual(figure.axes[0].get_title(), "multipitch")
        self.assertIn("| multipitch | = |", show.text(readings.wins(grid)).data)
        self.assertNotIn("`multipitch` has not run", show.missing(grid).data)


if __name__ == "__main__":
    unittest.main()
