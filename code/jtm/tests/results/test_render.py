"""Pages, numbers and PDF agree with the results, complete or not."""

import re
import shutil
import tempfile
import unittest
from pathlib import Path

from jtm.cli import ROOT, _tables
from jtm.files import InputError
from jtm.results import figures, render
from jtm.tests.results import synthetic

REPORT = ROOT / "report"
SOURCE = (REPORT / "main.tex").read_text(encoding="utf-8")


def names(numbers):
    """List the macros of a file of numbers."""
    return re.findall(r"^\\newcommand\*\{\\(.+?)\}", numbers, re.MULTILINE)


class FactsTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.facts = render._facts_of(ROOT) | _tables()

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))


class TestFill(FactsTestCase):
    def setUp(self):
        super().setUp()
        self.page = self.folder / "page.md"

    def test_only_the_block_is_replaced(self):
        self.page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
        render._fill(self.page, {"x": "new"})
        self.assertEqual(
            self.page.read_text(), "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
        )

    def test_missing_block_is_refused(self):
        self.page.write_text("a\n<!-- x -->\n")
        with self.assertRaisesRegex(InputError, "no block '<!-- x -->'"):
            render._fill(self.page, {"x": "new"})
        self.assertEqual(self.page.read_text(), "a\n<!-- x -->\n")

    def test_prose_is_wrapped_and_tables_are_not(self):
        long = "word " * 30
        text = f"{long}\n{long}\n\n\n| {long}|\n| - |\n\n- {long}\n- b"
        parts = render._flow(text).split("\n\n")
        self.assertEqual(len(parts), 3)
        self.assertLessEqual(max(map(len, parts[0].splitlines())), render.WIDTH)
        self.assertEqual(parts[1], f"| {long}|\n| - |")
        first, second, *_, last = parts[2].splitlines()
        self.assertTrue(first.startswith("- word") and second.startswith("  word"))
        self.assertEqual(last, "- b")


class TestPages(FactsTestCase):
    def test_committed_pages_agree_with_the_results(self):
        for page, file in render.PAGES.items():
            text = (ROOT / page).read_text(encoding="utf-8")
            copy = self.folder / "page.md"
            copy.write_text(text, encoding="utf-8")
            render._fill(copy, render._blocks(file, self.facts))
            self.assertEqual(copy.read_text(encoding="utf-8"), text, "jtm report")
        run = (REPORT / "results" / "benchmark.csv.gz").exists()
        for path in ("results/BENCHMARK.md", "figures/benchmark-labels.svg"):
            self.assertEqual((REPORT / path).exists(), run, path)

    def test_page_of_a_partial_benchmark(self):
        bench = synthetic.bench(
            ("transcription", "composer"), lambda cell: cell[2] == 30 or cell[3] == 1
        )
        facts = self.facts | {"bench": bench}
        missing = len(bench.missing)
        self.assertGreater(missing, 0)
        text = render._blocks("README.md.j2", facts)["benchmark"]
        planned = len(bench.header["plan"])
        self.assertIn(
            f"So far {planned - missing} of {planned} planned cells have run.", text
        )
        self.assertRegex(text, r"recordings, CPC \+\d\.\d \[")
        page = render._template("BENCHMARK.md.j2").render(facts)
        self.assertRegex(page, r"Of 18 contrasts .* 18 have run\. .* gains, 7;")
        self.assertIn("| transcription | 1 | **+", page)
        self.assertIn("## What has not run", page)
        self.assertIn("| method | 1 rec. | 3 rec. | 10 rec. | 294 rec. |", page)
        self.assertIn("### Composer, real recordings: accuracy", page)
        self.assertIn("do not cover the pretraining", page)
        about = (
            r"CPC, fine-tuned − from scratch \| 4 \| \+\d\.\d \[.*\] \| 0\.0\d* \| 0\."
        )
        self.assertRegex(page, rf"\| transcription \| 1 \| seen SoundFont \| {about}")
        text = render._blocks("benchmarks.md.j2", facts)["times"]
        self.assertIn("| the benchmark, as far as it has run | ", text)

    def test_page_of_a_benchmark_without_results(self):
        bench = synthetic.bench(without=lambda cell: True)
        facts = self.facts | {"bench": bench}
        for file in render.PAGES.values():
            render._blocks(file, facts)
        page = render._template("BENCHMARK.md.j2").render(facts)
        self.assertIn(f"and {len(synthetic.plan()) - 50} more", page)
        self.assertEqual(figures.benchmark_figures(bench), {})
        render._numbers(ROOT, facts)

    def test_model_card_shows_scores_of_its_own_network_only(self):
        bench = synthetic.bench(("transcription",))
        facts = self.facts | {"bench": bench}
        text = render._blocks("card.md.j2", facts)["scores"]
        self.assertIn("of other weights", text)
        bench.header["checkpoint"] = self.facts["network"]["sha256"]
        text = render._blocks("card.md.j2", facts)["scores"]
        self.assertIn("| transcription | 10 | CPC, frozen |", text)
        self.assertIn("All 152 planned cells have run.", text)

    def test_model_card_describes_the_training(self):
        rows = [
            {"epoch": e, "step": 100 * (e + 1), "split": split, "windows": 5625}
            | {"loss": 4 - e, "audio_seconds_per_second": 4.0}
            for e in range(3)
            for split in ("train", "validation")
        ]
        network = self.facts["network"] | {"history": rows}
        network["config"] = network["config"] | {"data": "set", "size_window": 64_000}
        facts = self.facts | {"network": network, "training": render._training(network)}
        text = render._blocks("card.md.j2", facts)["training"]
        self.assertIn("`set`: 6.2 hours, 3 passes in 300 steps of 8 windows", text)
        self.assertIn("of 4.00 s, which took 281 minutes", text)
        self.assertIn("ended at 2.000", text)

    def test_report_of_a_copied_project(self):
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
        render.report(self.folder, _tables())
        written = {path.name for path in (self.folder / "report" / "figures").iterdir()}
        expected = {
            f"benchmark-{name}.{ending}"
            for name in ("labels", "gains", "sounds")
            for ending in ("svg", "pdf")
        }
        self.assertEqual(written, expected)
        page = out.with_name("BENCHMARK.md").read_text(encoding="utf-8")
        self.assertIn("All 73 planned cells have run.", page)
        numbers = (self.folder / "report" / "numbers.tex").read_text(encoding="utf-8")
        self.assertIn("\\newcommand*{\\benchPlanned}{73}", numbers)

    def test_committed_fault_injection_lost_nothing(self):
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

    def test_committed_speed_reaches_its_targets(self):
        speed, memory = self.facts["speed"], self.facts["memory"]
        self.assertGreaterEqual(speed["speedup_float32"], 5)
        self.assertGreaterEqual(speed["speedup_bf16"], 9)
        self.assertLessEqual(speed["memory_ratio"], 0.2)
        self.assertGreaterEqual(speed["small_audio_seconds_per_second"], 40)
        self.assertGreaterEqual(speed["embed_times_real_time"], 100)
        self.assertLess(speed["loader_share"], 0.03)
        self.assertLessEqual(memory["peak_over_bound"], 1.15)
        self.assertLessEqual(memory["step_time_ratio"], 1.05)


class TestNumbers(FactsTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = (REPORT / "numbers.tex").read_text(encoding="utf-8")

    def test_committed_numbers_agree_with_the_results(self):
        self.assertEqual(render._numbers(ROOT, self.facts), self.text, "jtm report")

    def test_pdf_is_built_from_these_numbers(self):
        sources = re.search(r"\\sources\}\{(\w+)\}", self.text)[1]
        is_current = sources.encode() in (REPORT / "main.pdf").read_bytes()
        self.assertTrue(is_current, "main.pdf is of other sources; run `make report`")

    def test_every_macro_is_used_and_every_used_one_is_defined(self):
        defined = names(self.text)
        self.assertEqual(len(defined), len(set(defined)))
        used = set(re.findall(r"\\([A-Za-z]+)", SOURCE))
        self.assertEqual(set(defined) - used, set())
        # Only the macros of numbers have a capital within.
        numeric = {name for name in used if re.fullmatch("[a-z]+[A-Z][A-Za-z]*", name)}
        self.assertEqual(numeric - set(defined), set())

    def test_macros_exist_with_and_without_results(self):
        bench = synthetic.bench(("transcription",))
        full = render._numbers(ROOT, self.facts | {"bench": bench})
        parts = ("bench", "transcribers", "retrieval", "trials")
        other = render._numbers(ROOT, self.facts | dict.fromkeys(parts))
        self.assertEqual(names(full), names(other))
        self.assertIn("\\newcommand*{\\benchMissing}{}", full)
        self.assertIn("\\newcommand*{\\tableContrasts}{\\fit", full)
        for name in ("tableContrasts", "tableTranscribers", "tableTrials"):
            self.assertIn(f"\\newcommand*{{\\{name}}}{{}}", other)

    def test_source_hash_covers_all_inputs_of_the_report(self):
        (self.folder / "report" / "results").mkdir(parents=True)
        seen = {render._numbers(self.folder, self.facts).splitlines()[-1]}
        for name in ("main.tex", "references.bib", "results/benchmark_draws.npz"):
            (self.folder / "report" / name).write_text("something")
            seen.add(render._numbers(self.folder, self.facts).splitlines()[-1])
        facts = self.facts | {"speed": self.facts["speed"] | {"memory_ratio": 0.5}}
        seen.add(render._numbers(self.folder, facts).splitlines()[-1])
        self.assertEqual(len(seen), 5)

    def test_all_references_are_cited_and_listed(self):
        listed = re.findall(
            r"@\w+\{(\w+),", (REPORT / "references.bib").read_text(encoding="utf-8")
        )
        cited = re.findall(r"\\cite\{(\w+)\}", SOURCE)
        self.assertEqual(set(cited), set(listed))


if __name__ == "__main__":
    unittest.main()
