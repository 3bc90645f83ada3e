"""Comparison of methods on hand-crafted draws, and coverage of intervals."""

import unittest

import numpy as np

from jtm.results.compare import Benchmark, _draw_means, _holm, _p_value
from jtm.results.records import Contrast
from jtm.tests.results import synthetic

PAIR = ("cpc-finetuned", "scratch")


def make_bench(scores, draws, **header):
    """Make a benchmark of one task from scores and draws by method and seed."""
    rows = []
    for (method, seed), value in scores.items():
        row = {"task": "t", "method": method, "labelled_recordings": 3, "seed": seed}
        row |= {"split": "test", "metric": "m", "value": value, "primary": True}
        row |= {"seconds": 1}
        row |= {"draws": draws[method, seed]} if (method, seed) in draws else {}
        rows.append(row)
    table = synthetic.table_of(rows)
    return Benchmark(table, {"plan": [], "contrasts": []} | header)


class TestByHand(unittest.TestCase):
    def setUp(self):
        self.draws = {
            ("scratch", 0): np.linspace(0.4, 0.5, 201),
            ("cpc-finetuned", 0): np.linspace(0.4, 0.5, 201) + 0.03,
        }
        scores = {("scratch", 0): 0.45, ("cpc-finetuned", 0): 0.48}
        self.bench = make_bench(scores, self.draws)

    def test_score_of_one_seed(self):
        found = self.bench.score("t", "scratch", 3)
        np.testing.assert_allclose(found[:4], (0.45, 0.4025, 0.4975, 1), atol=1e-9)
        self.assertIsNone(self.bench.score("t", "cqt", 3))
        self.assertIsNone(self.bench.score("t", "scratch", 3, "real"))

    def test_differences_are_paired(self):
        # Each draw of families is 3 points higher, however much families differ.
        found = self.bench.difference(Contrast("t", *PAIR, 3, "test"))
        np.testing.assert_allclose(found[:4], (0.03, 0.03, 0.03, 1), atol=1e-9)
        self.assertAlmostEqual(found.p, 2 / 202)
        found = self.bench.difference(Contrast("t", *PAIR[::-1], 3, "test"))
        self.assertAlmostEqual(found.value, -0.03)
        self.assertIsNone(self.bench.difference(Contrast("t", "cqt", "a", 3, "test")))

    def test_gains_are_counted_over_all_amounts(self):
        def count(*noises, pair=PAIR, split="test"):  # gains of 3 points each
            rows = []
            for amount, noise in zip((3, 10, 30), noises, strict=False):
                for method, value in zip(PAIR, (0.48, 0.45), strict=True):
                    draws = value + noise * (method == PAIR[0])
                    row = {"task": "t", "method": method, "labelled_recordings": amount}
                    row |= {"seed": 0, "split": "test", "metric": "m", "primary": True}
                    rows.append(row | {"value": value, "seconds": 1, "draws": draws})
            table = synthetic.table_of(rows[:5])  # the last lacks the other method
            bench = Benchmark(table, {"plan": [], "contrasts": []})
            return bench.count_gains(*pair, [split])

        none = np.zeros(201)
        wide = np.linspace(-0.1, 0.1, 201)  # reaches below zero
        near = np.linspace(-0.031, 0.031, 201)  # above zero, p = 0.0495
        self.assertEqual(count(none, wide, none), (1, 1, 2))
        self.assertEqual(count(near, near), (2, 0, 2))
        self.assertEqual(count(near), (1, 1, 1))
        self.assertEqual(count(none, wide, none, pair=PAIR[::-1]), (0, 0, 2))
        self.assertEqual(count(none, wide, none, split="real"), (0, 0, 0))

    def test_differences_use_common_seeds_only(self):
        scores = {("scratch", 0): 0.4, ("scratch", 1): 0.9, ("cpc-finetuned", 0): 0.5}
        found = make_bench(scores, {}).difference(Contrast("t", *PAIR, 3, "test"))
        self.assertAlmostEqual(found.value, 0.1)
        self.assertEqual((found.low, found.p, found.n_seeds), (None, None, 1))

    def test_no_interval_if_a_seed_lacks_draws(self):
        scores = {("scratch", 0): 0.45, ("scratch", 1): 0.55}
        found = make_bench(scores, self.draws).score("t", "scratch", 3)
        self.assertAlmostEqual(found.value, 0.5)
        self.assertIsNone(found.low)

    def test_interval_stays_between_0_and_1(self):
        draws = {("scratch", s): np.full(50, v) for s, v in enumerate((1.0, 0.9))}
        scores = {key: each[0] for key, each in draws.items()}
        found = make_bench(scores, draws).score("t", "scratch", 3)
        self.assertEqual(found.high, 1)

    def test_hand_computed_p_values(self):
        self.assertEqual(_p_value(np.array([-1.0, 1, 2, 3])), 4 / 5)
        self.assertEqual(_p_value(np.zeros(5)), 1)
        self.assertEqual(_p_value(np.ones(99)), 2 / 100)

    def test_hand_computed_holm_correction(self):
        np.testing.assert_allclose(_holm([0.01, 0.04, 0.03], 3), [0.03, 0.06, 0.06])
        np.testing.assert_allclose(_holm([0.01, 0.04], 4), [0.04, 0.12])
        found = _holm([None, 0.01, 0.6], 3)
        np.testing.assert_allclose(found, [np.nan, 0.03, 1])
        self.assertEqual(len(_holm([], 0)), 0)

    def test_missing_contrasts_count_in_the_correction(self):
        named = [Contrast("t", *PAIR, amount, "test") for amount in (3, 10, 30)]
        found = make_bench(
            {("scratch", 0): 0.45, ("cpc-finetuned", 0): 0.48},
            self.draws,
            contrasts=named,
        ).contrasts()
        self.assertEqual(len(found), 1)
        self.assertAlmostEqual(found["p_holm"][0], 3 * 2 / 202)
        nothing = make_bench({("cqt", 0): 0.5}, {}, contrasts=named).contrasts()
        self.assertEqual(len(nothing), 0)
        self.assertIn("p_holm", nothing)


class TestIntervals(unittest.TestCase):
    def test_errors_of_seeds_have_the_quantiles_of_t(self):
        values = np.array([0.1, 0.2, 0.6])
        drawn = _draw_means(values, np.repeat(values[:, None], 4000, axis=1))
        error = values.std(ddof=1) / np.sqrt(3)
        found = (np.quantile(drawn, (0.1, 0.5, 0.9)) - 0.3) / error
        np.testing.assert_allclose(found, (-1.886, 0, 1.886), atol=0.03)  # of a table

    def test_levels_of_significance_hold_with_few_seeds(self):
        """Whether families or seeds dominate, differences of zero rarely exclude it."""
        rng = np.random.default_rng(0)
        n_families, n = 40, 300
        for spread, n_seeds in ((0.2, 3), (0.02, 3), (0.02, 5)):
            n_covered = n_strict = 0
            for _ in range(n):
                families = rng.normal(0, spread, n_families)
                seeds = rng.normal(0, 0.02, (n_seeds, 1))
                noise = rng.normal(0, 0.02, (n_seeds, n_families))
                scores = families + seeds + noise
                which = rng.integers(0, n_families, (200, n_families))
                draws = scores[:, which].mean(axis=2)
                p = _p_value(_draw_means(scores.mean(axis=1), draws))
                n_covered += p >= 0.05
                n_strict += p >= 0.001
            self.assertGreaterEqual(n_covered, 0.92 * n)
            self.assertLessEqual(n_covered, n - 1)
            self.assertGreaterEqual(n_strict, 0.99 * n)


class TestBenchmark(unittest.TestCase):
    def setUp(self):
        self.bench = synthetic.bench(
            ("transcription", "composer"), lambda cell: cell[1] == "cqt"
        )

    def test_planted_effects_are_significant(self):
        found = self.bench.contrasts()
        self.assertEqual(len(found), 18)
        early = found[found["labelled_recordings"] <= 3]
        self.assertTrue((early["low"] > 0).all())
        self.assertTrue((found["p_holm"] >= found["p"]).all())

    def test_seconds_of_a_run_count_once(self):
        table = self.bench.table
        n_runs = len(table.groupby(["method", "labelled_recordings", "seed"]))
        self.bench.table = table.assign(seconds=2.0)
        self.assertEqual(self.bench.seconds, 2 * n_runs)

    def test_tasks_amounts_methods_and_missing_cells(self):
        self.assertEqual(self.bench.tasks, ["transcription", "composer"])
        self.assertEqual(self.bench.amounts("composer"), [10, 30, 294])
        self.assertNotIn("cqt", self.bench.methods("composer"))
        self.assertEqual(self.bench.methods("composer")[-1], "logmel")
        # Five amounts, two of them with five seeds, and three amounts.
        missing = self.bench.missing
        self.assertEqual(len(missing), 2 * 5 + 3 * 3 + 3 * 3)
        self.assertEqual(missing[0], ("transcription", "cqt", 1, 0))


if __name__ == "__main__":
    unittest.main()
