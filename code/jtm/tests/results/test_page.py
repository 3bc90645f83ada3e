"""The README holds what the results say, and blocks are found or refused."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from jtm.cli import ROOT, page_blocks
from jtm.files import InputError, read_json
from jtm.results import records
from jtm.results.page import (
    PRINTED,
    card_blocks,
    fill,
    grid_page,
    grid_summary,
    inside_page,
    studies,
    times_table,
    write_grid,
)
from jtm.tests.results.test_compare import CPC, CQT, score
from jtm.tests.results.test_records import RECORD


class TestPage(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.page = Path(folder.name) / "page.md"

    def test_only_the_block_changes(self):
        self.page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
        fill(self.page, {"x": "new"})
        self.assertEqual(
            self.page.read_text(), "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
        )

    def test_a_missing_block_is_refused(self):
        self.page.write_text("a\n<!-- x -->\n")
        with self.assertRaisesRegex(InputError, "no block '<!-- x -->'"):
            fill(self.page, {"x": "new"})
        self.assertEqual(self.page.read_text(), "a\n<!-- x -->\n")

    def test_the_pages_say_what_the_results_say(self):
        for name, blocks in page_blocks().items():
            said = (ROOT / name).read_text(encoding="utf-8")
            self.page.write_text(said, encoding="utf-8")
            fill(self.page, blocks)
            self.assertEqual(self.page.read_text(encoding="utf-8"), said)

    def test_the_card_shows_scores_of_its_own_network_alone(self):
        facts = read_json(ROOT / "code" / "jtm" / "weights" / "jtm.json")
        ours = replace(RECORD, config={"checkpoint": facts["checkpoint"]})
        chosen = replace(ours, split="validation")
        other = replace(ours, representation="cpc-c", value=0.9)
        unchosen = replace(other, split="validation", value=0.1)
        found = [ours, chosen, other, unchosen]
        scores = card_blocks(facts, found)["scores"]
        self.assertIn("| CPC, frozen |", scores)
        self.assertIn("| **50.0** |", scores)  # as validation chooses
        other = replace(RECORD, config={"checkpoint": "0" * 64})
        rest = [replace(ours, fraction=1.0), replace(ours, representation="logmel")]
        scores = card_blocks(facts, [other, *rest])["scores"]
        self.assertIn("has no scores of these weights", scores)

    def test_the_card_tells_the_run(self):
        rows = [
            {"epoch": e, "step": 100 * (e + 1), "split": split, "windows": 5625}
            | {"loss": 4 - e, "audio_seconds_per_second": 4.0}
            for e in range(3)
            for split in ("train", "validation")
        ]
        config = {"data": "set", "size_window": 64_000, "batch_size": 8}
        config |= {"encoder_type": "sinc", "ar_mode": "LSTM", "gar_mode": "joint"}
        facts = {"sha256": "ab", "checkpoint": "cd", "bytes": 1e6, "parameters": 7}
        facts |= {"z_dim": 1, "c_dim": 2, "config": config, "history": rows}
        said = card_blocks(facts, [])["training"]
        self.assertIn("`set`: 6.2 hours, 3 passes in 300 steps of 8 windows", said)
        self.assertIn("of 4.00 s, which took 281 minutes", said)
        self.assertIn("ended at 2.000", said)

    def test_times_of_commands(self):
        run = {"windows": 1000, "split": "train", "audio_seconds_per_second": 10}
        rows = [run | {"step": 1}, {"split": "validation", "loss": 1}]
        facts = {"config": {"data": "set", "size_window": 16_000}, "history": rows}
        machine = {"gpu": None, "cores": 2, "processor": "P", "bf16_instructions": True}
        times = {"machine": machine, "seconds": {"make x": 200}}
        pretraining = {"command": "main.py", "machine": {"threads": 1}}
        data = {"preset": "full", "seconds": 1030.5}
        said = times_table(times, facts, pretraining, data, 40_000)
        self.assertIn("| `make x` | 3.3 min |", said)
        self.assertIn("| `main.py` | 100 s, on one of the cores |", said)
        self.assertIn("| `python toy/generate.py --preset full` | 17 min |", said)
        self.assertIn("--load code/jtm/weights/jtm.safetensors` | 11 h of one", said)
        self.assertIn("Measured on 2 cores of P, with", said)

    def test_the_grid_in_short(self):
        self.assertIn("not run", grid_summary(self.page.with_name("grid.jsonl")))
        path = self.page.with_name("some.jsonl")
        for split in ("validation", "test"):
            records.append(path, [score(CPC, 0, 0.5, split), score(CQT, 0, 0.4, split)])
        said = grid_summary(path)
        self.assertIn("Of 1 comparisons with constant-Q, CPC is", said)
        self.assertIn("with a single seed of labels", said)

    def test_the_committed_pages_say_what_the_results_say(self):
        for name, compose in (("grid.jsonl", grid_page), ("inside.json", inside_page)):
            path = ROOT / "report" / "results" / name
            said = path.with_name(f"{path.stem.upper()}.md")
            self.assertEqual(said.exists(), path.exists())
            if path.exists():
                text, drawings = compose(path)
                self.assertEqual(said.read_text(encoding="utf-8"), text)
                for each in drawings:
                    picture = ROOT / "report" / "figures" / f"{path.stem}-{each}.svg"
                    self.assertTrue(picture.exists(), picture)
                    printed = picture.with_suffix(".pdf").exists()
                    self.assertEqual(printed, each in PRINTED, picture)

    def test_each_study_has_its_table(self):
        trial = {"study": "network", "name": "wide", "flags": [], "data": "small"}
        trial |= {"weights": 7, "steps": 9, "processor_minutes": 5.0}
        trial["validation"] = {"multipitch cpc-z 0.1": 0.5, "ensemble cpc-z 0.1": 0.1}
        both = {"multipitch random-z 0.1": 0.4, "multipitch cpc-c 0.1": 0.3}
        other = trial | {"study": "past", "name": "old", "flags": None}
        other["validation"] = trial["validation"] | both
        first, second = studies([trial, trial | {"name": "b"}, other]).split("**Past**")
        self.assertIn("| trial | weights | steps | multipitch, z | ensemble, z", first)
        self.assertIn("| wide | 7 | 9 | **50.0** | **10.0** |\n| b |", first)
        self.assertIn("| old | 7 | 9 | **50.0** (40.0) | **30.0** | **10.0** |", second)
        self.assertNotIn("has changed", first)
        self.assertIn("has changed", second)

    def test_the_page_of_a_grid(self):
        folder = self.page.parent
        write_grid(folder)  # nothing has run, nothing is written
        self.assertEqual(list(folder.iterdir()), [])
        path = folder / "results" / "grid.jsonl"
        made = [
            score(row, 0, 0.5, s) for row in (CPC, CQT) for s in ("validation", "test")
        ]
        records.append(path, made)  # and no file beside
        write_grid(folder)
        text = path.with_name("GRID.md").read_text(encoding="utf-8")
        self.assertIn("](../figures/grid-label-efficiency.svg)", text)
        drawn = [each.name for each in (folder / "figures").iterdir()]
        names = [f"grid-label-efficiency.{ending}" for ending in ("pdf", "svg")]
        self.assertEqual(sorted(drawn), names)

    def test_the_committed_speed_keeps_its_promises(self):
        results = ROOT / "report" / "results"
        speed = read_json(results / "speed.json")
        self.assertGreaterEqual(speed["speedup_float32"], 5)
        self.assertGreaterEqual(speed["speedup_bf16"], 9)
        self.assertLessEqual(speed["memory_ratio"], 0.2)
        self.assertGreaterEqual(speed["small_audio_seconds_per_second"], 60)
        self.assertGreaterEqual(speed["embed_times_real_time"], 100)
        self.assertLess(speed["loader_share"], 0.03)
        memory = read_json(results / "memory.json")
        self.assertLessEqual(memory["peak_over_bound"], 1.15)
        self.assertLessEqual(memory["step_time_ratio"], 1.05)


if __name__ == "__main__":
    unittest.main()
