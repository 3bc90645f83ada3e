"""Pages hold what the results say, whatever has run, and so does the PDF."""

import re
import shutil
import tempfile
import unittest
from pathlib import Path

from jtm.cli import ROOT
from jtm.files import InputError
from jtm.results import figures, render
from jtm.tests.results import synthetic

REPORT = ROOT / "report"
SOURCE = (REPORT / "main.tex").read_text(encoding="utf-8")


def names(numbers):
    """List the macros of a file of numbers."""
    return re.findall(r"^\\newcommand\*\{\\(.+?)\}", numbers, re.MULTILINE)


class WithFacts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.facts = render._facts_of(ROOT)

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))


class TestFill(WithFacts):
    def setUp(self):
        super().setUp()
        self.page = self.folder / "page.md"

    def test_only_the_block_changes(self):
        self.page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
        render._fill(self.page, {"x": "new"})
        self.assertEqual(
            self.page.read_text(), "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
        )

    def test_a_missing_block_is_refused(self):
        self.page.write_text("a\n<!-- x -->\n")
        with self.assertRaisesRegex(InputError, "no block '<!-- x -->'"):
            render._fill(self.page, {"x": "new"})
        self.assertEqual(self.page.read_text(), "a\n<!-- x -->\n")

    def test_prose_flows_and_tables_stay(self):
        long = "word " * 30
        text = f"{long}\n{long}\n\n\n| {long}|\n| - |\n\n- {long}\n- b"
        made = render._flow(text).split("\n\n")
        self.assertEqual(len(made), 3)
        self.assertLessEqual(max(map(len, made[0].splitlines())), render.WIDTH)
        self.assertEqual(made[1], f"| {long}|\n| - |")
        first, second, *_, last = made[2].splitlines()
        self.assertTrue(first.startswith("- word") and second.startswith("  word"))
        self.assertEqual(last, "- b")


class TestPages(WithFacts):
    def test_the_committed_pages_say_what_the_results_say(self):
        for page, file in render.PAGES.items():
            said = (ROOT / page).read_text(encoding="utf-8")
            copy = self.folder / "page.md"
            copy.write_text(said, encoding="utf-8")
            render._fill(copy, render._blocks(file, self.facts))
            self.assertEqual(copy.read_text(encoding="utf-8"), said, "jtm report")
        run = (REPORT / "results" / "benchmark.csv.gz").exists()
        for path in ("results/BENCHMARK.md", "figures/benchmark-labels.svg"):
            self.assertEqual((REPORT / path).exists(), run, path)

    def test_a_benchmark_that_has_run_in_part(self):
        bench = synthetic.bench(
            ("transcription", "composer"), lambda cell: cell[2] == 30 or cell[3] == 1
        )
        facts = self.facts | {"bench": bench}
        missing = len(bench.missing)
        self.assertGreater(missing, 0)
        said = render._blocks("README.md.j2", facts)["benchmark"]
        planned = len(bench.header["plan"])
        self.assertIn(
            f"So far {planned - missing} of {planned} planned cells have run.", said
        )
        self.assertRegex(said, r"recordings, little \(CPC \+\d\.\d \[")
        page = render._template("BENCHMARK.md.j2").render(facts)
        self.assertRegex(page, r"Of 18 contrasts .* 18 have run; .* 1\d of them show a")
        self.assertIn("| transcription | 1 | **+", page)
        self.assertIn("## What has not run", page)
        self.assertIn("| method | 1 rec. | 3 rec. | 10 rec. | 294 rec. |", page)
        self.assertIn("### Composer, real recordings: accuracy", page)
        self.assertIn("do not cover the pretraining", page)
        about = (
            r"CPC, fine-tuned − from scratch \| 4 \| \+\d\.\d \[.*\] \| 0\.0\d* \| 0\."
        )
        self.assertRegex(page, rf"\| transcription \| 1 \| seen SoundFont \| {about}")
        said = render._blocks("benchmarks.md.j2", facts)["times"]
        self.assertIn("| the benchmark, as far as it has run | ", said)

    def test_nothing_of_a_benchmark_but_its_plan(self):
        bench = synthetic.bench(without=lambda cell: True)
        facts = self.facts | {"bench": bench}
        for file in render.PAGES.values():
            render._blocks(file, facts)
        page = render._template("BENCHMARK.md.j2").render(facts)
        self.assertIn(f"and {len(synthetic.plan()) - 50} more", page)
        self.assertEqual(figures.benchmark_figures(bench), {})
        render._numbers(ROOT, facts)

    def test_the_card_shows_scores_of_its_own_network_alone(self):
        bench = synthetic.bench(("transcription",))
        facts = self.facts | {"bench": bench}
        said = render._blocks("card.md.j2", facts)["scores"]
        self.assertIn("of other weights", said)
        bench.header["checkpoint"] = self.facts["network"]["sha256"]
        said = render._blocks("card.md.j2", facts)["scores"]
        self.assertIn("| transcription | 10 | CPC, frozen |", said)
        self.assertIn("All 152 planned cells have run.", said)

    def test_the_card_tells_the_run(self):
        rows = [
            {"epoch": e, "step": 100 * (e + 1), "split": split, "windows": 5625}
            | {"loss": 4 - e, "audio_seconds_per_second": 4.0}
            for e in range(3)
            for split in ("train", "validation")
        ]
        network = self.facts["network"] | {"history": rows}
        network["config"] = network["config"] | {"data": "set", "size_window": 64_000}
        facts = self.facts | {"network": network, "training": render._training(network)}
        said = render._blocks("card.md.j2", facts)["training"]
        self.assertIn("`set`: 6.2 hours, 3 passes in 300 steps of 8 windows", said)
        self.assertIn("of 4.00 s, which took 281 minutes", said)
        self.assertIn("ended at 2.000", said)

    def test_a_report_of_a_copy(self):
        copied = {f"report/results/{path.name}" for path in
                  (REPORT / "results").iterdir() if path.is_file()}  # fmt: skip
        for name in (*copied, *render.PAGES, "code/jtm/weights/jtm.json"):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        results = self.folder / "report" / "results"
        for path in results.glob("benchmark*"):  # that of the checkout
            path.unlink()
        out = synthetic.run(results, ("composer",), n_draws=50)
        render.report(self.folder)
        drawn = {path.name for path in (self.folder / "report" / "figures").iterdir()}
        made = {
            f"benchmark-{name}.{ending}"
            for name in ("labels", "gains", "sounds")
            for ending in ("svg", "pdf")
        }
        self.assertEqual(drawn, made)
        page = out.with_name("BENCHMARK.md").read_text(encoding="utf-8")
        self.assertIn("All 73 planned cells have run.", page)
        numbers = (self.folder / "report" / "numbers.tex").read_text(encoding="utf-8")
        self.assertIn("\\newcommand*{\\benchPlanned}{73}", numbers)

    def test_the_committed_faults_lost_nothing(self):
        rows, tried = self.facts["faults"], {"killed": 0, "damaged": 0, "hostile": 0}
        for row in rows:
            kind = row["fault"].split()[0].strip(":")
            if kind in ("killed", "damaged", "hostile", "disk"):
                self.assertEqual(row["lost"], 0, row)
            self.assertEqual(row["survived"] + row["lost"], row["tried"], row)
            tried[kind] = tried.get(kind, 0) + row["tried"]
        self.assertGreaterEqual(tried["killed"], 50)
        self.assertGreaterEqual(tried["damaged"], 2000)
        self.assertGreaterEqual(tried["hostile"], 10)

    def test_the_committed_speed_keeps_its_promises(self):
        speed, memory = self.facts["speed"], self.facts["memory"]
        self.assertGreaterEqual(speed["speedup_float32"], 5)
        self.assertGreaterEqual(speed["speedup_bf16"], 9)
        self.assertLessEqual(speed["memory_ratio"], 0.2)
        self.assertGreaterEqual(speed["small_audio_seconds_per_second"], 60)
        self.assertGreaterEqual(speed["embed_times_real_time"], 100)
        self.assertLess(speed["loader_share"], 0.03)
        self.assertLessEqual(memory["peak_over_bound"], 1.15)
        self.assertLessEqual(memory["step_time_ratio"], 1.05)


class TestNumbers(WithFacts):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.said = (REPORT / "numbers.tex").read_text(encoding="utf-8")

    def test_the_numbers_are_those_of_the_results(self):
        self.assertEqual(render._numbers(ROOT, self.facts), self.said, "jtm report")

    def test_the_pdf_is_of_these_numbers(self):
        sources = re.search(r"\\sources\}\{(\w+)\}", self.said)[1]
        found = sources.encode() in (REPORT / "main.pdf").read_bytes()
        self.assertTrue(found, "main.pdf is of other sources; run `make report`")

    def test_every_number_is_shown_and_every_shown_one_is_there(self):
        made = names(self.said)
        self.assertEqual(len(made), len(set(made)))
        used = set(re.findall(r"\\([A-Za-z]+)", SOURCE))
        self.assertEqual(set(made) - used, set())
        # Only the macros of numbers have a capital within.
        named = {name for name in used if re.fullmatch("[a-z]+[A-Z][A-Za-z]*", name)}
        self.assertEqual(named - set(made), set())

    def test_a_macro_exists_whatever_has_run(self):
        bench = synthetic.bench(("transcription",))
        full = render._numbers(ROOT, self.facts | {"bench": bench})
        parts = ("bench", "transcribers", "retrieval", "trials")
        other = render._numbers(ROOT, self.facts | dict.fromkeys(parts))
        self.assertEqual(names(full), names(other))
        self.assertIn("\\newcommand*{\\benchMissing}{}", full)
        self.assertIn("\\newcommand*{\\tableContrasts}{\\fit", full)
        for name in ("tableContrasts", "tableTranscribers", "tableTrials"):
            self.assertIn(f"\\newcommand*{{\\{name}}}{{}}", other)

    def test_the_hash_is_of_all_that_the_report_is_made_from(self):
        (self.folder / "report" / "results").mkdir(parents=True)
        seen = {render._numbers(self.folder, self.facts).splitlines()[-1]}
        for name in ("main.tex", "references.bib", "results/benchmark_draws.npz"):
            (self.folder / "report" / name).write_text("something")
            seen.add(render._numbers(self.folder, self.facts).splitlines()[-1])
        facts = self.facts | {"speed": self.facts["speed"] | {"memory_ratio": 0.5}}
        seen.add(render._numbers(self.folder, facts).splitlines()[-1])
        self.assertEqual(len(seen), 5)

    def test_references_are_cited_and_there(self):
        listed = re.findall(
            r"@\w+\{(\w+),", (REPORT / "references.bib").read_text(encoding="utf-8")
        )
        cited = re.findall(r"\\cite\{(\w+)\}", SOURCE)
        self.assertEqual(set(cited), set(listed))


if __name__ == "__main__":
    unittest.main()
