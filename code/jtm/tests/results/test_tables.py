"""Tables: one writer, in Markdown and LaTeX, and pivots by hand."""

import unittest

import pandas as pd

from jtm.cli import ROOT
from jtm.results import tables
from jtm.results.tables import Score, escape, write
from jtm.tests.results import synthetic


class TestWriter(unittest.TestCase):
    def test_words_in_latex(self):
        for words, expected in {
            "50 % of A & B_c": r"50\,\% of A \& B\_c",
            "−0.1 → x": r"$-$0.1 $\to$ x",
            "in 3 seconds, 3 s or 4.08 GB": r"in 3 seconds, 3\,s or 4.08\,GB",
            r"a\b": r"a\textbackslash{}b",
        }.items():
            self.assertEqual(escape(words), expected)

    def test_cells(self):
        for cell, markdown, latex in (
            (
                Score(0.813, 0.78, 0.842),
                "81.3 [78.0, 84.2]",
                r"81.3\interval{78.0, 84.2}",
            ),
            (Score(0.5, bold=True), "**50.0**", r"\textbf{50.0}"),
            (Score(-0.01, -0.02, 0.003, signed=True), "−1.0 [−2.0, 0.3]", None),
            (Score(0.01, signed=True), "+1.0", "+1.0"),
            (Score(0.5, float("nan"), float("nan")), "50.0", "50.0"),
            (
                Score(0.5, 0.4, 0.6, bold=True),
                "**50.0** [40.0, 60.0]",
                r"\textbf{50.0}\interval{40.0, 60.0}",
            ),
            (Score(0.5, before=0.4), "50.0 (40.0)", "50.0 (40.0)"),
            (None, "", ""),
            (float("nan"), "", ""),
            ("a|b", r"a\|b", "a|b"),
            (7, "7", "7"),
        ):
            self.assertEqual(tables.write_cell(cell), markdown)
            if latex is not None:
                self.assertEqual(tables.write_cell(cell, "latex"), latex)

    def test_a_table(self):
        table = pd.DataFrame({"a": ["x_y"], "far too long a head": [Score(0.1)]})
        self.assertEqual(
            write(table), "| a | far too long a head |\n| --- | --- |\n| x_y | 10.0 |"
        )
        self.assertEqual(
            write(table, "latex"),
            "\\fit{\\begin{tabular}{@{}lr@{}}\\toprule\n"
            "\\shortstack[l]{a} & \\shortstack[r]{far too long a\\\\head} "
            "\\\\\\midrule\n"
            "x\\_y & 10.0 \\\\\n"
            "\\bottomrule\\end{tabular}}",
        )
        self.assertEqual(write(table[:0]), "")
        self.assertEqual(write(table[:0], "latex"), "")
        sparse = table.assign(b=[None])
        self.assertIn("| b |", write(sparse))
        self.assertNotIn("{b}", write(sparse, "latex"))


class TestBenchmark(unittest.TestCase):
    def setUp(self):
        self.bench = synthetic.bench(
            ("transcription", "ensemble"),
            lambda cell: cell[1] == "scratch" and cell[2] == 30,
        )

    def test_scores(self):
        found = tables.scores(self.bench, "transcription").set_index("method")
        heads = [f"{amount} rec." for amount in (1, 3, 10, 30, 294)]
        self.assertEqual(found.columns.tolist(), heads)
        self.assertIsNone(found.loc["from scratch", "30 rec."])  # has not run
        column = [cell for cell in found["30 rec."] if cell]
        top = max(column, key=lambda cell: cell.value)
        self.assertEqual([cell for cell in column if cell.bold], [top])
        self.assertNotIn("largest class", found.index)

    def test_contrasts(self):
        found = tables.contrasts(self.bench)
        self.assertEqual(found["task"].tolist(), ["transcription"] * 3)
        cell = found["CPC, fine-tuned − from scratch; unseen SoundFont"][0]
        self.assertTrue(cell.signed and cell.bold)
        self.assertRegex(str(cell), r"^\+\d\.\d$")
        self.assertEqual(len(tables.contrasts(synthetic.bench(()))), 0)

    def test_sounds(self):
        found = tables.sounds(self.bench).set_index(["task", "method"])
        columns = ["labelled recordings", "seen SoundFont", "unseen SoundFont"]
        self.assertEqual(found.columns.tolist(), [*columns, "real recordings"])
        row = found.loc["ensemble", "log-mel"]
        self.assertEqual(row["labelled recordings"], "10")
        self.assertGreater(row["seen SoundFont"].value, row["real recordings"].value)


class TestGrid(unittest.TestCase):
    def setUp(self):
        rows = [
            ("multipitch", name, "linear", 0.01, seed, split, "m", score + seed / 50)
            for name, value in (("cpc-z", 0.5), ("cpc-c", 0.6), ("supervised", 0.4))
            for seed in (0, 1)
            for split, score in (
                ("validation", value),
                ("test", 0.9 - value),
                ("test_timbre", 0.1),
            )
        ]
        columns = ["task", "representation", "probe", "fraction", "seed", "split"]
        self.grid = pd.DataFrame(rows, columns=[*columns, "metric", "value"])

    def test_validation_chooses_and_seeds_are_averaged(self):
        found = tables.grid_lines(self.grid)["test"]
        self.assertAlmostEqual(found["multipitch", "CPC, frozen", 0.01], 0.31)
        self.assertAlmostEqual(found["multipitch", "from scratch", 0.01], 0.51)

    def test_the_committed_one(self):
        grid = pd.read_csv(ROOT / "report" / "results" / "grid.csv.gz")
        found = tables.grid_scores(grid, 0.01).set_index("task")
        self.assertEqual(str(found.loc["instrument activity", "CPC, frozen"]), "83.3")
        found = tables.grid_scores(grid, 0.01, unseen=True).set_index("task")
        self.assertEqual(found.loc["multipitch", "log-mel"], "82.8 → 75.8")


class TestOthers(unittest.TestCase):
    def test_a_run(self):
        row = {"task": "multipitch", "representation": "cpc-z", "probe": "linear"}
        row |= {"fraction": 0.1, "seed": 0, "split": "test", "primary": True}
        row |= {"metric": "average_precision", "value": 0.5, "low": 0.4, "high": 0.6}
        rows = [
            row,
            row | {"representation": "logmel", "value": 0.75, "low": None},
            row | {"task": "ensemble", "metric": "accuracy", "value": 0.25},
            row | {"metric": "minor", "primary": False},
            row | {"split": "validation", "value": 0.9},
        ]
        text = write(tables.run_scores(pd.DataFrame(rows)))
        self.assertEqual(
            text.splitlines()[::2],
            [
                "| representation | multipitch, average precision (%) | "
                "ensemble, accuracy (%) |",
                "| cpc-z | 50.0 [40.0, 60.0] | **25.0** [40.0, 60.0] |",
            ],
        )
        self.assertEqual(text.splitlines()[3], "| logmel | **75.0** |  |")
        more = pd.DataFrame([row, row | {"fraction": 1.0, "value": 0.6}])
        self.assertEqual(tables.run_scores(more).shape, (2, 3))  # told apart

    def test_trials(self):
        trial = {"study": "network", "name": "wide", "flags": [], "data": "small"}
        trial |= {"weights": 7000, "steps": 9, "processor_minutes": 5.0}
        trial["validation"] = {"multipitch cpc-z 0.1": 0.5, "ensemble cpc-z 0.1": 0.1}
        both = {"multipitch random-z 0.1": 0.4, "multipitch cpc-z 0.1": 0.3}
        other = trial | {"study": "past", "name": "other", "flags": ["--a"]}
        other["validation"] = both
        old = trial | {"study": "old", "flags": None}
        first = write(tables.trials([trial, trial | {"name": "b"}]))
        self.assertIn("| trial | weights | steps | multipitch, z | ensemble, z", first)
        self.assertIn("| wide | 7,000 | 9 | **50.0** | **10.0** |\n| b |", first)
        second = write(tables.trials([other]))
        self.assertIn("| other | 7,000 | 9 | **30.0** (40.0) |", second)
        both = write(tables.studies([trial, other, old]), "latex")
        self.assertIn("\nPast: &  & ", both)
        self.assertEqual(both.count("toprule"), 1)
        self.assertNotIn("Old", both)  # of code that has changed
        # The first stands in two studies and counts once.
        again = other | {"study": "again"}
        self.assertEqual(tables.gained([other, again]), {"multipitch": (0, 1)})


if __name__ == "__main__":
    unittest.main()
