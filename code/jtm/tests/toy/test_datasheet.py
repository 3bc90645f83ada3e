"""The datasheet: statistics, and a PDF built from its numbers and template."""

import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import jinja2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import datasheet

from jtm.data.musicnet import LABEL_DTYPE
from jtm.files import InputError, digest, read_json, write_json
from jtm.music import audio

FACTS = read_json(datasheet.FACTS)


class TestCounting(unittest.TestCase):
    def test_hand_computed_polyphony(self):
        rows = [
            (0, 44_100, 1, 60, 0, 1, ""),
            (22_050, 66_150, 1, 64, 0, 1, ""),
            (88_200, 132_300, 1, 60, 0, 1, ""),
        ]
        seconds = datasheet._polyphony(np.array(rows, LABEL_DTYPE))
        self.assertEqual(dict(seconds), {1: 2.0, 2: 0.5, 0: 0.5})

    def test_missing_dataset_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(InputError, "no audio file"):
                datasheet.statistics(folder)


class TestStatistics(unittest.TestCase):
    def test_unfinished_set_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "train_data").mkdir()
            audio.write(root / "train_data" / "1.wav", np.zeros(4000), 16_000)
            write_json(root / "toy.json", {})
            with self.assertRaisesRegex(InputError, "not a finished toy set"):
                datasheet.statistics(root)


class TestLatex(unittest.TestCase):
    def test_numbers_are_filled_in(self):
        latex = datasheet._to_latex(FACTS)
        for split, row in FACTS["splits"].items():
            counts = [row["recordings"], f"{row['hours']:.2f}", row["movements"]]
            counts += [row["tune families"], row["notes"] or ""]
            line = " & ".join(map(str, [split.replace("_", r"\_"), *counts]))
            self.assertIn(line, re.sub(r"\s+&", " &", latex))
        self.assertIn(f"{FACTS['works']} distinct works", latex)
        self.assertIn(f"comprises {FACTS['hours']:.1f} hours", latex)
        self.assertIn("piano & 10.87 & 372, 78, 78, 78", latex)
        self.assertIn("Palestrina & 63 & 10 & 13 & 120", latex)
        self.assertFalse(re.findall(r"<<|>>|<%|%>", latex))

    def test_missing_number_is_named(self):
        facts = {name: FACTS[name] for name in FACTS if name != "works"}
        with self.assertRaisesRegex(jinja2.UndefinedError, "works"):
            datasheet._to_latex(facts)

    @unittest.skipUnless(shutil.which("pdflatex"), "needs LaTeX")
    def test_pdf_is_reproducible(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("a.pdf", "b.pdf")]
            for path in paths:
                self.assertTrue(datasheet._build_pdf(FACTS, path))
                self.assertTrue(path.read_bytes().startswith(b"%PDF"))
            self.assertEqual(*map(digest, paths))


class TestCommitted(unittest.TestCase):
    def test_figures_and_pdf_exist(self):
        self.assertEqual(FACTS["preset"], "full")
        template = datasheet.TEMPLATE.read_text(encoding="utf-8")
        figures = re.findall(r"\\includegraphics\[.*?\]\{(.+?)\}", template)
        self.assertEqual(len(figures), 2)
        for name in (*figures, "datasheet.pdf"):
            self.assertTrue((datasheet.TOY / name).exists(), name)


if __name__ == "__main__":
    unittest.main()
