"""The datasheet counts right, and is one text as Markdown and as LaTeX."""

import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import datasheet

from jtm.data.musicnet import LABEL_DTYPE
from jtm.files import InputError, read_json

TOY = datasheet.TOY
SHEET = datasheet.SHEET.read_text(encoding="utf-8")


class TestCounting(unittest.TestCase):
    def test_polyphony_by_hand(self):
        rows = [
            (0, 44_100, 1, 60, 0, 1, ""),
            (22_050, 66_150, 1, 64, 0, 1, ""),
            (88_200, 132_300, 1, 60, 0, 1, ""),
        ]
        seconds = datasheet._polyphony(np.array(rows, LABEL_DTYPE))
        self.assertEqual(dict(seconds), {1: 2.0, 2: 0.5, 0: 0.5})

    def test_no_toy_set(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(InputError, "no sound file"):
                datasheet.statistics(folder)


class TestLatex(unittest.TestCase):
    def test_by_hand(self):
        markdown = (
            "# A & B\n\nSome `x_y` and **bold**, 5 %.\n\n"
            "| a | b |\n| --- | ---: |\n| x | 1 |\n\n![what](figures/f.png)\n"
        )
        latex = datasheet.to_latex(markdown)
        for piece in (
            r"\LARGE\bfseries A \& B",
            r"Some \texttt{x\_y} and \textbf{bold}, 5 \%.",
            "\\begin{tabular}{lr}\\toprule\na & b \\\\\\midrule\nx & 1 \\\\\n",
            r"\includegraphics[width=\linewidth]{figures/f.pdf}",
        ):
            self.assertIn(piece, latex)

    def test_nothing_of_the_datasheet_is_lost(self):
        latex = datasheet.to_latex(SHEET)
        plain = re.sub(r"[^A-Za-z]+", " ", latex)
        for heading in re.findall(r"^## (.+)$", SHEET, re.MULTILINE):
            self.assertIn(heading, plain)
        words = set(re.findall(r"[a-z]{9,}", re.sub(r"\(.*?\)|<.*?>", "", SHEET)))
        self.assertEqual(words - set(re.findall(r"[a-z]{9,}", latex)), set())

    @unittest.skipUnless(shutil.which("pdflatex"), "needs LaTeX")
    def test_it_builds(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.pdf"
            self.assertTrue(datasheet.build_pdf(SHEET, path))
            self.assertTrue(path.read_bytes().startswith(b"%PDF"))


class TestCommitted(unittest.TestCase):
    def test_statistics_and_figures_are_there(self):
        between = SHEET.split(datasheet.MARKS[0])[1].split(datasheet.MARKS[1])[0]
        self.assertIn("Preset `full`", between)
        facts = read_json(datasheet.FACTS)
        for split, row in facts["splits"].items():
            counts = [row["recordings"], f"{row['hours']:.2f}", row["movements"]]
            counts += [row["tune families"], row["notes"] or ""]
            self.assertIn(f"| {split} | {' | '.join(map(str, counts))} |", between)
        self.assertIn(f"{facts['works']} distinct works", between)
        self.assertIn(f"lasts {facts['hours']:.1f} hours", between)
        figures = re.findall(r"!\[.*\]\((.+)\)", SHEET)
        self.assertEqual(len(figures), 2)
        for name in (*figures, "datasheet.pdf"):
            self.assertTrue((TOY / name).exists(), name)


if __name__ == "__main__":
    unittest.main()
