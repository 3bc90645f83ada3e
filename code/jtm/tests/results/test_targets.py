"""Targets are reached where all of their comparisons hold, and not else."""

import unittest

from jtm.results import targets
from jtm.results.compare import Grid, Row
from jtm.tests.results.test_compare import draws, score
from jtm.tests.results.test_readings import grid_of

CPC = Row("ensemble", "cpc-z", "linear", 0.01)
SUPERVISED = CPC._replace(representation="supervised", probe="network")


def grid(**values):
    """Make a grid of 1 % and 10 %, of values by representation in percent."""
    rows = {}
    for name, value in values.items():
        network = name in ("supervised", "finetuned")
        for fraction in (0.01, 0.1):
            row = Row(
                "ensemble",
                "cpc-finetuned" if name == "finetuned" else name.replace("_", "-"),
                "network" if network else "linear",
                fraction,
            )
            rows[row] = (value + (10 if fraction == 0.1 else 0)) / 100
    curves = {row: [None] * 3 for row in rows}
    return grid_of(rows, curves=curves)


class TestTargets(unittest.TestCase):
    def judged(self, **values):
        return [target.reached for target in targets.targets(grid(**values))]

    def test_ahead_of_all(self):
        found = self.judged(cpc_z=50, supervised=30, logmel=40, cqt=45)
        # Constant-Q with any probe is asked about in tasks of pitch alone.
        self.assertEqual(found, [True, True, True, True, True, None, True])

    def test_behind(self):
        found = self.judged(cpc_z=30, supervised=40, logmel=40, cqt=29)
        self.assertEqual(found, [False, False, False, False, True, None, True])

    def test_level_with_ten_times_the_labels_is_more_than_ahead(self):
        found = self.judged(cpc_z=46, supervised=40)
        self.assertEqual(found[:3], [True, False, True])
        found = self.judged(cpc_z=44, supervised=40)  # 5 points are asked for
        self.assertEqual(found[:3], [True, False, False])

    def test_nothing_has_run(self):
        found = targets.targets(Grid([]))
        self.assertEqual({target.reached for target in found}, {None})
        self.assertEqual(targets.page(Grid([])).count("**not run**"), len(found))
        self.assertEqual(targets.table(Grid([])), "")

    def test_what_is_lost_through_another_soundfont(self):
        records, beside = [], {}
        for row, here, there in ((CPC, 0.5, 0.4), (SUPERVISED, 0.45, 0.3)):
            for split, value in (("test", here), ("test_timbre", there)):
                records.append(score(row, 0, value, split))
                beside |= draws(row, 0, [round(1e4 * value)] * 10, split)
            records.append(score(row, 0, here, "validation"))
        last = targets.targets(Grid(records, beside))[-1]
        self.assertTrue(last.reached)
        self.assertAlmostEqual(last.compared[0].found.value, 0.05)
        self.assertAlmostEqual(last.compared[0].found.low, 0.05)

    def test_what_is_said(self):
        made = grid(cpc_z=50, supervised=45, finetuned=48, logmel=55, cqt=40)
        said = targets.page(made).splitlines()
        self.assertRegex(said[0], r"^1\. .*\*\*reached\*\*, in 1 of 1\. Found: ens")
        self.assertIn("1 % against 10 % (−5.0 [", said[1])
        rows = targets.table(made).splitlines()[2:]
        self.assertIn(" | 1 of 1 | yes |", rows[0])
        self.assertIn(" | 0 of 1 | no |", rows[1])
        self.assertIn(" | 0 of 0 | not run |", rows[5])
        self.assertRegex(said[3], r"\*\*not reached\*\*, in 0 of 2\. Found: .*10 % \(")

    def test_many_are_told_where_they_fail(self):
        compared = [
            targets.Comparison("ensemble", "1 %", grid(cpc_z=1).score(CPC), holds)
            for holds in (True, True, True, False)
        ]
        said = targets.verdict(targets.Target("", "", compared))
        self.assertRegex(said, r"in 3 of 4\. Not: ensemble 1 % \(\+1\.0 \[[^;]*\)\.$")


if __name__ == "__main__":
    unittest.main()
