"""The README holds what the results say, and blocks are found or refused."""

import tempfile
import unittest
from pathlib import Path

from jtm.cli import ROOT, readme_blocks
from jtm.files import InputError
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

    def test_the_readme_says_what_the_results_say(self):
        said = (ROOT / "README.md").read_text(encoding="utf-8")
        self.page.write_text(said, encoding="utf-8")
        fill(self.page, readme_blocks())
        self.assertEqual(self.page.read_text(encoding="utf-8"), said)


if __name__ == "__main__":
    unittest.main()
