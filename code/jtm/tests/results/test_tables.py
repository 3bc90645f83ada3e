"""Tables in Markdown and LaTeX, and their contents."""

import unittest

import pandas as pd

from jtm.results import tables
from jtm.results.compare import Score
from jtm.results.records import METHODS
from jtm.results.tables import escape, write
from jtm.tests.results import synthetic


class TestWriter(unittest.TestCase):
    def test_latex_escapes(self):
        for words, expected in {
            "50 % of A & B_c": r"50\,\% of A \& B\_c",
            "−0.1 → x": r"$-$0.1 $\to$ x",
            "in 3 seconds, 3 s or 4.08 GB": r"in 3 seconds, 3\,s or 4.08\,GB",
            r"a\b": r"a\textbackslash{}b",
        }.items():
            self.assertEqual(escape(words), expected)

    def test_cell_formats(self):
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
            (None, "", ""),
            (float("nan"), "", ""),
            ("a|b", r"a\|b", "a|b"),
            (7, "7", "7"),
        ):
            self.assertEqual(tables.write_cell(cell), markdown)
            if latex is not None:
                self.assertEqual(tables.write_cell(cell, "latex"), latex)

    def test_table_formats(self):
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

    def test_scores_table(self):
        table = tables.scores(self.bench, "transcription").set_index("method")
        headings = [f"{amount} rec." for amount in (1, 3, 10, 30, 294)]
        self.assertEqual(table.columns.tolist(), headings)
        self.assertIsNone(table.loc["from scratch", "30 rec."])  # has not run
        column = [cell for cell in table["30 rec."] if cell]
        top = max(column, key=lambda cell: cell.value)
        self.assertEqual([cell for cell in column if cell.bold], [top])
        self.assertNotIn("largest class", table.index)

    def test_contrasts_table(self):
        table = tables.contrasts(self.bench)
        self.assertEqual(table["task"].tolist(), ["transcription"] * 3)
        cell = table["CPC, fine-tuned − from scratch; unseen SoundFont"][0]
        self.assertTrue(cell.signed and cell.bold)
        self.assertRegex(str(cell), r"^\+\d\.\d$")
        self.assertEqual(len(tables.contrasts(synthetic.bench(()))), 0)

    def test_few_labels_table(self):
        table = tables.few(self.bench).set_index("method")
        headings = [f"transcription, {amount} rec." for amount in (1, 3, 10)]
        self.assertEqual(table.columns.tolist(), headings)
        shown = [METHODS[each] for each in self.bench.methods("transcription")]
        self.assertEqual(table.index.tolist(), shown)  # the largest class has not run
        shown = table.loc["from scratch", headings[0]]
        scores = [
            self.bench.score("transcription", "scratch", 1, split).value
            for split in ("test", "test_timbre")
        ]
        self.assertEqual(shown, " / ".join(f"{100 * each:.1f}" for each in scores))
        one = tables.few(self.bench, [("ensemble", 294)]).set_index("method")
        self.assertEqual(one.columns.tolist(), ["ensemble, 294 rec."])
        self.assertEqual(one.index[-1], "largest class")

    def test_secondary_table_has_means_on_both_soundfonts(self):
        scores = self.bench.table
        minor = ~scores["primary"] & scores["method"].eq("scratch")
        for split, seeds in (("test", (0.2, 0.3, 0.4)), ("test_timbre", (0.1,) * 3)):
            chosen = minor & scores["split"].eq(split) & scores["task"].eq("ensemble")
            scores.loc[chosen & scores["labelled_recordings"].eq(10), "value"] = seeds
        table = tables.secondary(self.bench, "ensemble", "minor")
        cell = table.set_index("method").loc["from scratch", "10 rec."]
        self.assertEqual(cell, "30.0 / 10.0")
        self.assertTrue(tables.secondary(self.bench, "ensemble", "other").empty)

    def test_sounds_table(self):
        table = tables.sounds(self.bench).set_index(["task", "method"])
        columns = ["labelled recordings", "seen SoundFont", "unseen SoundFont"]
        self.assertEqual(table.columns.tolist(), [*columns, "real recordings"])
        row = table.loc["ensemble", "log-mel"]
        self.assertEqual(row["labelled recordings"], "10")
        self.assertGreater(row["seen SoundFont"].value, row["real recordings"].value)


class TestOthers(unittest.TestCase):
    def test_run_scores_table(self):
        row = {"task": "multipitch", "method": "CPC, frozen", "split": "test"}
        row |= {"primary": True, "metric": "average_precision"}
        row |= {"value": 0.5, "low": 0.4, "high": 0.6}
        rows = [
            row,
            row | {"method": "from scratch", "value": 0.75, "low": None},
            row | {"split": "test_timbre", "value": 0.25},
            row | {"metric": "minor", "primary": False},
        ]
        text = write(tables.run_scores(pd.DataFrame(rows))).splitlines()
        self.assertEqual(
            text[0],
            "| method | multipitch, seen SoundFont: average precision (%) | "
            "multipitch, unseen SoundFont: average precision (%) |",
        )
        self.assertEqual(
            text[2], "| CPC, frozen | 50.0 [40.0, 60.0] | **25.0** [40.0, 60.0] |"
        )
        self.assertEqual(text[3], "| from scratch | **75.0** |  |")


if __name__ == "__main__":
    unittest.main()
