"""Tables and sentences about hand-made results."""

import unittest

import numpy as np

from jtm.results import readings
from jtm.results.compare import Estimate, Grid, Row
from jtm.tests.results.test_compare import CPC, CQT, draws, score


def grid_of(rows, splits=("test", "validation", "test_timbre"), curves=None):
    """Make a grid of rows that are sure of their scores, in three seeds."""
    records, beside = [], {}
    for row, value in rows.items():
        for seed in range(3):
            for split in splits:
                shown = value - (0.1 if split == "test_timbre" else 0)
                seconds = 100 * row.fraction
                records.append(score(row, seed, shown, split, labelled=seconds))
                # A narrow spread, alike for all but the untrained.
                own = row.representation.startswith("random")
                spread = np.random.default_rng(own).integers(-50, 51, 200)
                beside |= draws(
                    row, seed, (spread + round(1e4 * shown)).tolist(), split
                )
            if row.probe == "network":
                beside[(*row, seed, "validation")] = {"curve": curves[row][seed]}
    return Grid(records, beside)


class TestWords(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual(readings.percent(0.003), "0.3 %")
        self.assertEqual(readings.percent(1.0), "100 %")
        self.assertEqual(readings.duration(5.25), "5.2 s")
        self.assertEqual(readings.duration(119), "119 s")
        self.assertEqual(readings.duration(125), "2.1 min")
        self.assertEqual(readings.duration(36_000), "10 h")
        self.assertEqual(readings.metric_text("note_offset_f1"), "note offset F1")
        found = Estimate(-0.0312, -0.05, 0.004, 3)
        self.assertEqual(readings.difference_text(found), "−3.1 [−5.0, 0.4]")
        self.assertEqual(
            readings.score_text(Estimate(0.5, 0.4, 0.61, 3)), "50.0 [40.0, 61.0]"
        )
        self.assertEqual(
            readings.score_text(Estimate(0.5, None, None, 1), True), "**50.0**"
        )

    def test_a_sentence(self):
        found = {
            0.001: Estimate(0.1, 0.05, 0.15, 3),
            0.01: None,
            0.1: Estimate(0.02, -0.01, 0.05, 3),
            1.0: Estimate(-0.1, -0.2, -0.05, 3),
        }
        self.assertEqual(
            readings.sentence("It is", found),
            "It is ahead with 0.1 % (+10.0 [5.0, 15.0]); not significantly different "
            "with 10 % (+2.0 [−1.0, 5.0]); behind with 100 % (−10.0 [−20.0, −5.0]) "
            "of the labels.",
        )
        self.assertEqual(readings.sentence("It is", {0.1: None}), "")


class TestGrid(unittest.TestCase):
    def setUp(self):
        supervised = Row("multipitch", "supervised", "network", 0.1)
        tuned = supervised._replace(representation="cpc-finetuned")
        self.whole = supervised._replace(fraction=1.0)
        slow = {
            "step": [10, 20, 30],
            "seconds": [1.0, 2.0, 3.0],
            "score": [0.1, 0.3, 0.4],
        }
        fast = slow | {"score": [0.39, 0.5, 0.5]}
        never = slow | {"score": [0.1, 0.1, 0.1]}
        self.grid = grid_of(
            {
                CPC: 0.6,
                CPC._replace(representation="cpc-c"): 0.62,
                CQT: 0.7,
                CQT._replace(representation="logmel"): 0.4,
                CQT._replace(representation="random-z"): 0.621,
                supervised: 0.5,
                tuned: 0.55,
                self.whole: 0.8,
            },
            curves={
                supervised: [slow] * 3,
                tuned: [fast, fast, never],
                self.whole: [slow] * 3,
            },
        )

    def test_sentences_say_who_wins(self):
        said = readings.sentences(self.grid, "multipitch")
        self.assertEqual(
            said[0],
            "Validation scores highest `cqt` with the linear probe with 10 %; "
            "`supervised` with 100 % of the labels.",
        )
        # cpc-c stands for CPC: 62 against 70, 40, 62.1, 50, and 80 with all labels.
        for sentence, expected in zip(
            said[1:], ("−8.0", "+22.0", "−0.1", "+12.0", "−18.0"), strict=True
        ):
            self.assertIn(f"10 % ({expected} [", sentence)
        self.assertIn("Compared with constant-Q, CPC is behind with", said[1])
        self.assertIn("Compared with log-mel, CPC is ahead with", said[2])
        self.assertIn("supervised network with 100 %, CPC is behind", said[5])

    def test_nothing_is_chosen_on_test(self):
        values = {CPC: 0.6, CPC._replace(representation="cpc-c"): 0.62, CQT: 0.7}
        grid = grid_of(values)
        # On test the other is better; what is compared stays.
        records = [r for r in grid.records if r.split == "validation"]
        records += [
            score(row, seed, 0.9 if row is CPC else 0.5)
            for row in values
            for seed in range(3)
        ]
        found = readings.compare_lines(Grid(records), "multipitch", "constant-Q", 0.1)
        self.assertAlmostEqual(found.value, 0.0)

    def test_the_table_of_a_task(self):
        lines = readings.score_table(self.grid, "multipitch").splitlines()
        self.assertEqual(
            lines[0], "| representation | probe | 10 % (10 s) | 100 % (100 s) |"
        )
        row = next(line for line in lines if "| cqt |" in line)
        self.assertRegex(
            row, r"\| cqt \| linear \| \*\*70\.0\*\* \[69\.\d, 70\.\d\] \|  \|"
        )
        self.assertEqual(sum("**" in line for line in lines), 2)
        row = next(line for line in lines if "| supervised |" in line)
        self.assertRegex(row, r"network \| 50\.0 \[.*\*\*80\.0\*\*")

    def test_the_overview(self):
        row = readings.overview(self.grid).splitlines()[-1]
        self.assertEqual(row, "| multipitch | − · | + · | = · | + · |")
        said = readings.tally(self.grid)
        self.assertEqual(
            said[0],
            "Of 1 comparisons with constant-Q, CPC is ahead in 0, behind in 1 "
            "(multipitch) and not significantly different in 0.",
        )

    def test_what_a_lead_is_owed_to(self):
        few = (0.1,)
        self.assertEqual(
            readings.short(self.grid, few),
            "With at most 10 % of the labels, CPC is ahead of the same network trained "
            "from scratch in 1 of 1 comparisons and behind in 0. The same network "
            "untrained, under the same probes, is ahead of it in 1 and behind in 0; "
            "fine-tuned from CPC's weights, it is ahead in 1 and behind in 0. Of the "
            "untrained network CPC is ahead in 0 of 1 and behind in 0.",
        )
        self.assertEqual(readings.short(self.grid, (0.01,)), "")
        said = readings.tally(self.grid)
        self.assertEqual(len(said), 7)
        self.assertIn("the network fine-tuned from CPC, which differs in", said[4])
        # Slow features alone are ahead: without them there is no lead.
        names = ("cpc-z", "cpc-s", "supervised")
        rows = {CPC._replace(representation=name): 0.5 for name in names}
        rows[CPC._replace(representation="cpc-s")] = 0.6
        found = [
            readings.compare_lines(
                grid_of(rows), "multipitch", "supervised", 0.1, slow=slow
            )
            for slow in (True, False)
        ]
        self.assertAlmostEqual(found[0].value, 0.1)
        self.assertAlmostEqual(found[1].value, 0.0)

    def test_equal_labels_are_compared_once(self):
        rows = {}
        for fraction, seconds in ((0.001, 3), (0.01, 3), (0.1, 9)):
            for row, value in ((CPC, 0.6), (CQT, 0.5)):
                rows[row._replace(fraction=fraction)] = value, seconds
        records = [
            score(row, 0, value, split, labelled=seconds)
            for row, (value, seconds) in rows.items()
            for split in ("validation", "test")
        ]
        grid = Grid(records)
        self.assertEqual(grid.distinct("multipitch"), [0.01, 0.1])
        self.assertEqual(len(readings.verdicts(grid, "constant-Q")[0]), 2)
        self.assertIn("| · = = |", readings.overview(grid))

    def test_another_soundfont(self):
        row = readings.timbre_table(self.grid, 0.1).splitlines()[-1]
        self.assertTrue(row.startswith("| multipitch | 62.0 → 52.0 | 55.0 → 45.0 |"))
        seen = grid_of({CPC: 0.5}, ("test", "validation"))
        self.assertEqual(readings.timbre_table(seen, 0.1), "")

    def test_slow_features(self):
        self.assertEqual(readings.slow_table(self.grid), "")
        slow, other = (
            row._replace(representation=f"{name}-s")
            for row, name in ((CPC, "cpc"), (CQT, "cqt"))
        )
        grid = grid_of({CPC: 0.6, slow: 0.7, CQT: 0.8, other: 0.75})
        table = readings.slow_table(grid).splitlines()
        self.assertIn("| CPC, frozen |", table[0])
        self.assertNotIn("fine-tuned", table[0])
        self.assertEqual(
            table[2], "| multipitch | 10 % | 60.0 → 70.0 |  |  | 80.0 → 75.0 |"
        )
        self.assertEqual(readings.slow_table(grid, (0.01,)), "")

    def test_another_pretraining(self):
        other = CPC._replace(fraction=0.01)
        grid = grid_of({CPC: 0.6, other: 0.5})
        again = grid_of({CPC: 0.6, other: 0.45, CQT: 0.9})
        rows = readings.again_table(grid, again).splitlines()[2:]
        self.assertEqual(len(rows), 2)
        self.assertRegex(rows[0], r"multipitch \| 1 % \| `cpc-z` with .*\| −5\.0 \[")
        self.assertRegex(rows[1], r"\| 60\.0 \[.* \| \+0\.0 \[")
        self.assertEqual(readings.again_table(grid, grid_of({CQT: 0.9})), "")

    def test_lines_differences_and_choices(self):
        rows = readings.line_table(self.grid, 0.1).splitlines()
        self.assertTrue(rows[0].startswith("| task | CPC, frozen | CPC, fine-tuned |"))
        for part in ("| 62.0 [", "| 55.0 [", "| **70.0** [", "| 40.0 ["):
            self.assertIn(part, rows[-1])
        rows = readings.difference_table(self.grid, "supervised").splitlines()
        self.assertRegex(rows[-1], r"\| multipitch \| \*\*\+12\.0\*\* \[.*\] \|  \|")
        rows = readings.difference_table(self.grid, "untrained").splitlines()
        self.assertRegex(rows[-1], r"\| multipitch \| −0\.1 \[")  # open, so not bold
        rows = readings.choice_table(self.grid).splitlines()
        self.assertEqual(rows[-1], "| multipitch | c, linear |  |")
        tuned = CPC._replace(representation="cpc-finetuned", probe="network")
        rows = readings.choice_table(grid_of({tuned: 0.5}, curves={tuned: [None] * 3}))
        self.assertIn("| multipitch | fine-tuned |", rows)
        nothing = grid_of({CQT: 0.5})
        self.assertEqual(readings.difference_table(nothing, "supervised"), "")
        self.assertEqual(readings.choice_table(nothing), "")
        self.assertEqual(readings.line_table(nothing, 1.0), "")

    def test_a_favoured_share(self):
        rows = [CPC._replace(fraction=share) for share in (0.01, 0.1, 1.0)]
        grid = grid_of(dict.fromkeys(rows, 0.5) | {CQT._replace(fraction=1.0): 0.5})
        self.assertEqual(readings.common_fraction(grid, 0.01), 1.0)  # has more lines
        grid = grid_of(dict.fromkeys(rows, 0.5))
        self.assertEqual(readings.common_fraction(grid, 0.01), 0.01)
        self.assertEqual(readings.common_fraction(grid), 1.0)

    def test_how_soon(self):
        # 95 % of 0.4 is 0.38: fine-tuned at the first look, in two seeds of three.
        lines = readings.speed_table(self.grid).splitlines()
        self.assertEqual(lines[0], "| task | 10 % |")
        self.assertEqual(lines[-1], "| multipitch | 1.0 s (10) / 3.0 s (30) |")
        self.assertEqual(readings.curves_fraction(self.grid), 0.1)
        self.assertEqual(readings.speed_table(grid_of({CPC: 0.5})), "")

    def test_what_is_kept_of_training(self):
        name = "supervised"
        row = CPC._replace(representation=name, probe="network")
        made = [
            score(row, seed, 0.5, split, config={"state": state})
            for seed, state in enumerate(("trained", "start", "trained"))
            for split in ("validation", "test")
        ]
        said = readings.settled(Grid(made), name)
        self.assertIn("the state of training that was best in 2, that", said)
        self.assertIn("anew in 0 and the start, untouched by training in 1 of 3", said)
        self.assertEqual(readings.settled(Grid([]), name), "")

    def test_never_reached(self):
        self.assertIsNone(readings._middle([None, (1.0, 5), None]))
        self.assertEqual(readings._soon(None), "never")

    def test_what_is_missing(self):
        said = readings.missing(self.grid)
        # 24 of 7 kinds of row x 5 shares x 3 seeds.
        self.assertEqual(said[0], "`multipitch`: 24 of 105 cells of its rows have run.")
        self.assertIn("`ensemble` has not run.", said)
        self.assertEqual(
            readings.missing(grid_of({CPC: 0.5}))[0],
            "`multipitch` has no row of CPC, fine-tuned, supervised, untrained, "
            "log-mel and constant-Q yet.",
        )

    def test_the_page(self):
        text = readings.page(self.grid, {"timbre": "figures/timbre.svg"})
        for part in (
            "# What the grid says",
            "## Missing",
            "(figures/timbre.svg)",
            "Compared with constant-Q, CPC is behind with",
            "pitches that sound, frame by frame",
        ):
            self.assertIn(part.lower(), text.lower())
        self.assertNotIn("learning", text.replace("learns", ""))
        self.assertIn("`multipitch` has not run.", readings.page(Grid([]), {}))


if __name__ == "__main__":
    unittest.main()
