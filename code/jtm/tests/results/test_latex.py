"""The LaTeX report holds what the results say, and its PDF is of those results."""

import re
import shutil
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from jtm.cli import ROOT, report_facts
from jtm.files import read_json, write_json
from jtm.results import latex, records
from jtm.results.compare import Grid, Row
from jtm.tests.results.test_compare import CPC, CQT, score
from jtm.tests.results.test_readings import grid_of

REPORT = ROOT / "report"
FACTS = read_json(ROOT / "code" / "jtm" / "weights" / "jtm.json")
SOURCE = (REPORT / "main.tex").read_text(encoding="utf-8")


def names(numbers):
    """List the macros of a file of numbers."""
    return re.findall(r"^\\newcommand\*\{\\(.+?)\}", numbers, re.MULTILINE)


class TestSetting(unittest.TestCase):
    def test_words(self):
        for words, expected in {
            "50 % of A & B_c": r"50\,\% of A \& B c",
            "−0.1 [−0.3, 0.2] → `x`": r"$-$0.1\interval{$-$0.3, 0.2} $\to$ \texttt{x}",
            "**81.3** [78.0, 84.2]": r"\textbf{81.3}\interval{78.0, 84.2}",
            "in 3 seconds, 3 s or 4.08 GB": r"in 3 seconds, 3\,s or 4.08\,GB",
            r"a\b": r"a\textbackslash{}b",
        }.items():
            self.assertEqual(latex.text(words), expected)

    def test_a_table(self):
        table = "| a | far too long a head |\n|---|---|\n| x_y | **1** |\n\nAnd words."
        self.assertEqual(
            latex.tabular(table),
            "\\fit{\\begin{tabular}{@{}lr@{}}\\toprule\n"
            "\\shortstack[l]{a} & \\shortstack[r]{far too long a\\\\head} "
            "\\\\\\midrule\n"
            "x y & \\textbf{1} \\\\\n"
            "\\bottomrule\\end{tabular}}",
        )
        self.assertEqual(latex.tabular("no table"), "")
        sparse = latex.tabular(
            "| a | b | c |\n|---|---|---|\n| x |  | 1 |\n| y |  |  |"
        )
        self.assertNotIn("{b}", sparse)
        self.assertIn("y &  \\\\", sparse)


class TestGrid(unittest.TestCase):
    def setUp(self):
        network = Row("multipitch", "supervised", "network", 0.1)
        curve = {"step": [10, 20], "seconds": [1.0, 2.0], "score": [0.5, 0.6]}
        sooner = curve | {"score": [0.6, 0.6]}
        tuned = network._replace(representation="cpc-finetuned")
        self.rows = {
            CPC._replace(fraction=0.01): 0.55,
            CPC: 0.6,
            CQT: 0.7,
            network: 0.5,
            tuned: 0.58,
        }
        curves = {network: [curve] * 3, tuned: [sooner] * 3}
        self.made = latex.grid_macros(grid_of(self.rows, curves=curves))

    def test_another_pretraining(self):
        self.assertEqual(self.made["again"], "")
        grid = grid_of({CPC: 0.6, CPC._replace(task="ensemble"): 0.5})
        again = grid_of({CPC: 0.6, CPC._replace(task="ensemble"): 0.4})
        self.assertEqual(
            latex.grid_macros(grid, again)["again"],
            r"With 10\,\% of the labels it is not significantly different "
            "from it in multipitch, "
            "behind it in ensemble",
        )

    def test_comparisons_are_counted(self):
        self.assertEqual(
            self.made["allConstantQ"],
            "ahead in 0 of 1 comparisons, behind in 1 (multipitch) and not "
            "significantly different in 0",
        )
        self.assertIn("ahead in 1 of 1 comparisons", self.made["unseenSupervised"])
        self.assertEqual(self.made["allUntrained"], "")  # not run
        self.assertIn(
            "CPC beside constant-Q & 0 / 0 / 1 & 0 / 0 / 1", self.made["tableTally"]
        )
        self.assertIn(
            "fine-tuned beside supervised & 1 / 0 / 0", self.made["tableTally"]
        )

    def test_few_labels_against_ten_times_as_many(self):
        told = "ahead in 1 (multipitch), behind in 0 and not significantly"
        self.assertIn(told, self.made["tenth"])  # 55 against 50
        self.rows[Row("multipitch", "supervised", "network", 0.1)] = 0.65
        curves = {row: [None] * 3 for row in self.rows}
        made = latex.grid_macros(grid_of(self.rows, curves=curves))
        self.assertIn("ahead in 0, behind in 1 (multipitch)", made["tenth"])
        self.assertEqual(made["tenthUntrained"], "")  # not run

    def test_time_and_an_unseen_sound(self):
        # 95 % of 0.6 is reached at step 10 of one, 20 of the other.
        self.assertEqual(
            self.made["soon"], "first in 1 of 1 pairs, last in 0 and level in 0"
        )
        # Both lose 10 points; the share is the one that most lines have run with.
        self.assertEqual(self.made["gridShare"], r"10\,\%")
        self.assertEqual(
            self.made["unseenLoss"],
            "significantly larger in 0 of 1 comparisons and smaller in 0",
        )
        self.assertEqual(latex.grid_macros(grid_of({CPC: 0.6}))["unseenLoss"], "")

    def test_nothing_has_run(self):
        empty = latex.grid_macros(Grid([]))
        self.assertEqual(empty.keys(), self.made.keys())
        for name in ("tableScores", "tableTally", "allSupervised", "soon", "tenth"):
            self.assertEqual(empty[name], "", name)

    def test_every_study_has_its_table(self):
        scores = {"multipitch cpc-z 0.1": 0.5, "multipitch random-z 0.1": 0.4}
        scores |= {"multipitch cpc-z 0.01": 0.1, "multipitch random-z 0.01": 0.2}
        trial = {"study": "network", "name": "wide", "flags": [], "data": "small"}
        trial |= {"weights": 7, "steps": 9, "processor_minutes": 5.0}
        trial["validation"] = scores
        joint = {"study": "negatives", "flags": ["--garMode", "joint"]}
        joint["validation"] = scores | {"multipitch cpc-z 0.1": 0.3}
        more = [trial, trial | {"study": "negatives"}, trial | joint]
        made = latex.trials_macros([*more, trial | {"study": "old", "flags": None}])
        self.assertIn("\nNegatives: &  & ", made["tableTrials"])
        self.assertEqual(made["tableTrials"].count("toprule"), 1)
        self.assertNotIn("Old", made["tableTrials"])  # of code that has changed
        # The first stands in two studies and counts once.
        self.assertEqual(made["trialsGained"], "1 of 2 of multipitch")

    def test_nothing_was_found_inside(self):
        path = REPORT / "results" / "inside.json"
        found = read_json(path)
        made = latex.inside_macros(found)
        empty = latex.inside_macros(found | dict.fromkeys(latex.inside.QUESTIONS))
        self.assertEqual(empty.keys(), made.keys())
        self.assertEqual(empty["tableCarried"] + empty["memoryLeadZ"], "")


class TestNumbers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        results = self.folder / "results"
        results.mkdir()
        for name in ("data", "trials", "speed", "memory", "inside"):
            shutil.copy(REPORT / "results" / f"{name}.json", results)
        shutil.copy(REPORT / "results" / "inside.npz", results)

    def numbers(self, facts=FACTS):
        return latex.numbers(self.folder, facts, {})

    def test_results_of_another_network_have_not_run(self):
        path = self.folder / "results" / "grid.jsonl"
        for origin, expected in ((FACTS["sha256"], True), ("0" * 64, False)):
            rows = [score(CPC, 0, 0.5, s) for s in ("validation", "test")]
            path.unlink(missing_ok=True)
            config = {"checkpoint": origin}
            records.append(path, [replace(r, config=config) for r in rows])
            run = "\\newcommand*{\\tableScores}{}" not in self.numbers()
            self.assertEqual(run, expected)
        self.assertIn("\\newcommand*{\\tableCarried}{\\fit", self.numbers())
        other = self.numbers(FACTS | {"checkpoint": "0" * 64, "sha256": "1" * 64})
        self.assertIn("\\newcommand*{\\tableCarried}{}", other)

    def test_the_hash_is_of_all_that_the_report_is_made_from(self):
        seen = {self.numbers().splitlines()[-1]}
        for name in ("main.tex", "references.bib", "results/grid_draws.jsonl"):
            (self.folder / name).write_text("something")
            seen.add(self.numbers().splitlines()[-1])
        speed = self.folder / "results" / "speed.json"
        found = read_json(speed)
        found["steps"][0]["seconds"] *= 2
        write_json(speed, found)
        seen.add(self.numbers().splitlines()[-1])
        self.assertEqual(len(seen), 5)


class TestCommitted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.said = (REPORT / "numbers.tex").read_text(encoding="utf-8")

    def test_the_numbers_are_those_of_the_results(self):
        self.assertEqual(latex.numbers(REPORT, *report_facts()), self.said)

    def test_the_pdf_is_of_these_numbers(self):
        path, run = REPORT / "main.pdf", (REPORT / "results" / "grid.jsonl").exists()
        self.assertEqual(path.exists(), run, "run `make report`")
        if run:
            sources = re.search(r"\\sources\}\{(\w+)\}", self.said)[1]
            found = sources.encode() in path.read_bytes()
            self.assertTrue(found, "main.pdf is of other sources; run `make report`")

    def test_every_number_is_shown_and_every_shown_one_is_there(self):
        made = names(self.said)
        self.assertEqual(len(made), len(set(made)))
        used = set(re.findall(r"\\([A-Za-z]+)", SOURCE))
        self.assertEqual(set(made) - used, set())
        # Only the macros of numbers have a capital within.
        named = {name for name in used if re.fullmatch("[a-z]+[A-Z][A-Za-z]*", name)}
        self.assertEqual(named - set(made), set())

    def test_references_are_cited_and_there(self):
        listed = re.findall(
            r"@\w+\{(\w+),", (REPORT / "references.bib").read_text(encoding="utf-8")
        )
        cited = re.findall(r"\\cite\{(\w+)\}", SOURCE)
        self.assertEqual(set(cited), set(listed))


if __name__ == "__main__":
    unittest.main()
