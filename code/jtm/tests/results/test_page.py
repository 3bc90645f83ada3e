"""The README holds what the results say, and blocks are found or refused."""

import tempfile
import unittest
from pathlib import Path

from jtm.cli import ROOT, page_blocks
from jtm.files import InputError, read_json
from jtm.results.page import fill


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
