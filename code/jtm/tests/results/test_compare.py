"""Rows compared on hand-made draws, and intervals that hold what was planted."""

import unittest
from dataclasses import replace

import numpy as np

from jtm.evaluation import protocol, tasks
from jtm.results import compare
from jtm.results.compare import Estimate, Grid, Row, draw_seeds, seconds_to
from jtm.tests.results.test_records import RECORD

CPC = Row("multipitch", "cpc-z", "linear", 0.1)
CQT = Row("multipitch", "cqt", "linear", 0.1)


def score(row, seed, value, split="test", **changes):
    """Give the record of a row."""
    return replace(
        RECORD, **row._asdict(), seed=seed, split=split, value=value, **changes
    )


def draws(row, seed, values, split="test"):
    """Give an entry of what stands beside the scores; draws in 1e-4."""
    return {(*row, seed, split): {"draws": values}}


class TestScores(unittest.TestCase):
    def test_the_mean_over_seeds_and_its_interval(self):
        beside = {}
        for seed, value in enumerate((0.3, 0.5)):
            beside |= draws(CPC, seed, [round(1e4 * value)] * 400)
        grid = Grid([score(CPC, 0, 0.3), score(CPC, 1, 0.5)], beside)
        found = grid.score(CPC)
        self.assertAlmostEqual(found.value, 0.4)
        self.assertEqual(found.n_seeds, 2)
        self.assertEqual(Grid([score(CQT, 0, 0.5), *grid.records]).n_seeds, (1, 2))
        # Two drawn of two: the mean is 0.3, 0.4 or 0.5, scaled by root two.
        self.assertAlmostEqual(found.low, 0.4 - 0.1 * np.sqrt(2))
        self.assertAlmostEqual(found.high, 0.4 + 0.1 * np.sqrt(2))

    def test_an_interval_ends_where_scores_do(self):
        beside = draws(CPC, 0, [9800] * 400) | draws(CPC, 1, [10_000] * 400)
        beside |= draws(CQT, 0, [0] * 400) | draws(CQT, 1, [0] * 400)
        values = (CPC, 0.98), (CPC, 1.0), (CQT, 0.0), (CQT, 0.0)
        grid = Grid([score(row, i % 2, v) for i, (row, v) in enumerate(values)], beside)
        self.assertEqual(grid.score(CPC).high, 1.0)
        self.assertGreater(grid.difference(CPC, CQT).high, 1.0)

    def test_the_largest_class(self):
        beside = {(*CPC, 0, "test"): {"confusion": [[1, 2], [0, 1]]}}
        grid = Grid([score(CPC, 0, 0.5)], beside)
        self.assertEqual(grid.largest_class("multipitch"), 0.75)
        self.assertIsNone(grid.largest_class("multipitch", "validation"))

    def test_one_seed_has_its_recordings_alone(self):
        grid = Grid([score(CPC, 0, 0.5)], draws(CPC, 0, list(range(4000, 6001))))
        found = grid.score(CPC)
        np.testing.assert_allclose((found.low, found.high), (0.405, 0.595))

    def test_what_was_not_run_or_has_no_draws(self):
        grid = Grid([score(CPC, 0, 0.5)])
        self.assertEqual(grid.score(CPC), Estimate(0.5, None, None, 1))
        self.assertEqual(grid.n_seeds, (1, 1))
        self.assertIsNone(grid.score(CQT))
        self.assertIsNone(grid.score(CPC, "test_timbre"))
        self.assertEqual(Grid([]).tasks, [])

    def test_the_latest_main_scores_count(self):
        records = [
            score(CPC, 0, 0.1),
            score(CPC, 0, 0.7),
            score(CPC, 0, 0.9, metric="frame_f1", primary=False),
        ]
        self.assertEqual(Grid(records).score(CPC).value, 0.7)

    def test_best_is_of_validation(self):
        records = [
            score(CPC, 0, 0.9),
            score(CPC, 0, 0.4, "validation"),
            score(CQT, 0, 0.2),
            score(CQT, 0, 0.5, "validation"),
        ]
        grid = Grid(records)
        self.assertEqual(grid.best(grid.rows("multipitch")), CQT)
        self.assertEqual(grid.line("multipitch", ("CPC, frozen",), 0.1), CPC)
        self.assertIsNone(grid.line("multipitch", ("supervised",), 0.1))
        # A single seed is no match for the mean of several.
        lucky = CPC._replace(representation="cpc-c")
        more = [score(lucky, 0, 0.99, split) for split in ("test", "validation")]
        fewer = Grid([*records, *more])
        self.assertEqual(fewer.line("multipitch", ("CPC, frozen",), 0.1), lucky)
        more.append(score(CPC, 1, 0.4, "validation"))
        fewer = Grid([*records, *more])
        self.assertEqual(fewer.line("multipitch", ("CPC, frozen",), 0.1), CPC)
        self.assertIsNone(grid.line("multipitch", ("CPC, frozen",), 1.0))
        self.assertIsNone(Grid(records[::2]).best([CPC, CQT]))


class TestDifference(unittest.TestCase):
    def test_rows_are_paired_draw_by_draw_and_seed_by_seed(self):
        rng = np.random.default_rng(0)
        records, beside = [], {}
        for seed, shift in enumerate((-1000, 0, 1000)):
            hard = rng.integers(3000, 7000, 500) + shift  # far apart, alike for both
            for row, more in ((CPC, 200), (CQT, 0)):
                records.append(score(row, seed, 0.5 + (shift + more) / 1e4))
                beside |= draws(row, seed, (hard + more).tolist())
        found = Grid(records, beside).difference(CPC, CQT)
        np.testing.assert_allclose(found[:3], 0.02)
        self.assertEqual(found.n_seeds, 3)
        self.assertEqual(found.verdict, 1)

    def test_only_the_seeds_that_both_have(self):
        records = [score(CPC, 0, 0.5), score(CPC, 1, 0.9), score(CQT, 0, 0.6)]
        found = Grid(records).difference(CPC, CQT)
        self.assertAlmostEqual(found.value, -0.1)
        self.assertEqual((found.n_seeds, found.low, found.verdict), (1, None, 0))
        self.assertIsNone(Grid(records[1:]).difference(CPC, CQT))

    def test_verdicts(self):
        self.assertEqual(Estimate(0.1, 0.01, 0.2, 3).verdict, 1)
        self.assertEqual(Estimate(-0.1, -0.2, -0.01, 3).verdict, -1)
        self.assertEqual(Estimate(0.1, 0.0, 0.2, 3).verdict, 0)

    def test_tasks_are_not_on_one_scale(self):
        with self.assertRaisesRegex(ValueError, "not on one scale"):
            Grid([]).difference(CPC, CPC._replace(task="ensemble"))


class TestCoverage(unittest.TestCase):
    """Systems of which the truth is known, on recordings and seeds by chance."""

    def simulate(self, truth, trials=400, n_recordings=40, n_seeds=3):
        rng = np.random.default_rng(0)
        times = rng.multinomial(n_recordings, np.full(n_recordings, 1 / 40), 500) / 40
        for _ in range(trials):
            of_recording = rng.normal(size=n_recordings)
            of_seed = 0.1 * rng.normal(size=(n_seeds, 1))
            noise = 0.3 * rng.normal(size=(n_seeds, n_recordings))
            values = truth + of_recording + of_seed + noise
            yield np.quantile(draw_seeds(values @ times.T), (0.025, 0.975))

    def test_no_difference_is_found_in_95_of_100(self):
        holds = [low <= 0 <= high for low, high in self.simulate(0.0)]
        self.assertGreater(np.mean(holds), 0.91)
        self.assertLess(np.mean(holds), 0.98)

    def test_a_planted_difference_is_found(self):
        found = [low > 0 for low, _ in self.simulate(0.8)]
        self.assertGreater(np.mean(found), 0.98)

    def test_the_spread_of_seeds_is_that_of_their_mean(self):
        # Seeds alone differ; over many triples the drawn variance is a third of
        # theirs, as that of a mean of three is.
        rng = np.random.default_rng(0)
        found = [
            draw_seeds(np.repeat(rng.normal(size=(3, 1)), 300, axis=1), seed).var()
            for seed in range(400)
        ]
        self.assertAlmostEqual(np.mean(found), 1 / 3, delta=0.04)


class TestSeconds(unittest.TestCase):
    def test_the_first_time_counts(self):
        curve = {"step": [1, 2, 3], "seconds": [5.0, 9.0, 14.0], "score": [0, 0.6, 0.5]}
        self.assertEqual(seconds_to(curve, 0.5), (9.0, 2))
        self.assertEqual(seconds_to(curve, 0.6), (9.0, 2))
        self.assertIsNone(seconds_to(curve, 0.61))


class TestWholeGrid(unittest.TestCase):
    def test_it_is_the_one_that_the_command_runs(self):
        self.assertEqual(compare.TASKS.keys(), tasks.TASKS.keys())
        self.assertEqual(compare.FRACTIONS, tuple(sorted(protocol.FRACTIONS)))
        self.assertEqual(compare.SEEDS, protocol.SEEDS)
        lines = {name for names in compare.LINES.values() for name in names}
        known = set(protocol.choices()["representation"])
        self.assertEqual(known - lines, {"mfcc"})


if __name__ == "__main__":
    unittest.main()
