import unittest

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from jtm.evaluation import metrics
from jtm.tests.data.test_rolls import notes


class TestAveragePrecision(unittest.TestCase):
    def test_hand_computed_average_precision(self):
        # Ranked: hit, miss, hit, miss. Precision at the hits: 1 and 2/3.
        truth = np.array([[True, False], [True, False]])
        scores = np.array([[0.9, 0.8], [0.7, 0.1]])
        self.assertAlmostEqual(metrics.average_precision(truth, scores), 5 / 6)
        counts, _ = metrics.precision_counts(
            [truth[:1], truth[1:]], [scores[:1], scores[1:]]
        )
        self.assertAlmostEqual(metrics.precision_score(counts.sum(axis=0)), 5 / 6)

    def test_average_precision_is_micro_averaged(self):
        # Per column it would be perfect; pooled, inactive entries of the second
        # column outrank active ones of the first.
        truth = np.array([[True, False], [False, False], [False, True]])
        scores = np.array([[0.3, 0.7], [0.2, 0.6], [0.1, 0.8]])
        self.assertAlmostEqual(metrics.average_precision(truth, scores), 0.75)

    def test_ties_share_a_threshold(self):
        truth = np.array([[True, False, False, False]])
        self.assertAlmostEqual(metrics.average_precision(truth, np.ones((1, 4))), 0.25)
        counts, _ = metrics.precision_counts([truth], [np.ones((1, 4))])
        self.assertAlmostEqual(metrics.precision_score(counts[0]), 0.25)

    def test_average_precision_without_positives_is_0(self):
        truth, scores = np.zeros((5, 3), bool), np.random.rand(5, 3)
        self.assertEqual(metrics.average_precision(truth, scores), 0.0)
        counts, _ = metrics.precision_counts([truth], [scores])
        self.assertEqual(metrics.precision_score(counts[0]), 0.0)

    def test_binned_counts_agree_with_exact_average_precision(self):
        rng = np.random.default_rng(0)
        truths = [rng.random((n, 88)) < 0.05 for n in (200, 500, 900)]
        scores = [rng.normal(2.0 * t, 1.0) for t in truths]
        counts, _ = metrics.precision_counts(truths, scores)
        exact = metrics.average_precision(
            np.concatenate(truths), np.concatenate(scores)
        )
        self.assertAlmostEqual(
            metrics.precision_score(counts.sum(axis=0)), exact, delta=1e-3
        )
        # A recording drawn twice counts twice.
        twice = metrics.average_precision(
            np.concatenate((*truths, truths[0])), np.concatenate((*scores, scores[0]))
        )
        weighted = np.tensordot([2, 1, 1], counts, axes=1)
        self.assertAlmostEqual(metrics.precision_score(weighted), twice, delta=1e-3)


class TestFrameF1(unittest.TestCase):
    def test_frame_f1_equals_mir_eval(self):
        from mir_eval.multipitch import metrics as reference

        rng = np.random.default_rng(0)
        truth, estimate = rng.random((2, 60, 88)) < 0.05
        hertz = 440 * 2 ** ((np.arange(21, 109) - 69) / 12)
        time = np.arange(60) / 100
        sides = ([hertz[row] for row in roll] for roll in (truth, estimate))
        both = [part for side in sides for part in (time, side)]
        precision, recall, *_ = reference(*both)
        self.assertAlmostEqual(
            metrics.f1(metrics.frame_counts(truth, estimate)),
            2 * precision * recall / (precision + recall),
        )

    def test_frame_f1_of_empty_rolls(self):
        some, none = np.ones((2, 3), bool), np.zeros((2, 3), bool)
        for truth, found, expected in (
            (none, none, 1),
            (some, none, 0),
            (none, some, 0),
        ):
            self.assertEqual(metrics.f1(metrics.frame_counts(truth, found)), expected)


class TestClasses(unittest.TestCase):
    def test_hand_computed_accuracy_and_macro_f1(self):
        counts = confusion_matrix(
            np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), labels=range(3)
        )
        np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 1, 0], [0, 0, 0]])
        self.assertEqual(metrics.accuracy(counts), 0.75)
        # F1 is 4/5 and 2/3; the class that never occurs is excluded.
        self.assertAlmostEqual(metrics.macro_f1(counts), (4 / 5 + 2 / 3) / 2)

    def test_class_that_is_only_predicted_is_excluded(self):
        counts = confusion_matrix(
            np.array([0, 0, 1]), np.array([0, 2, 1]), labels=range(3)
        )
        self.assertAlmostEqual(metrics.macro_f1(counts), (2 / 3 + 1) / 2)

    def test_accuracy_and_macro_f1_equal_scikit_learn(self):
        rng = np.random.default_rng(0)
        truth, estimate = rng.integers(0, 5, (2, 300))
        counts = confusion_matrix(truth, estimate, labels=range(6))
        self.assertAlmostEqual(
            metrics.accuracy(counts), accuracy_score(truth, estimate)
        )
        self.assertAlmostEqual(
            metrics.macro_f1(counts), f1_score(truth, estimate, average="macro")
        )

    def test_empty_confusion_matrix_scores_0(self):
        counts = np.zeros((3, 3), int)
        self.assertEqual(metrics.accuracy(counts), 0.0)
        self.assertEqual(metrics.macro_f1(counts), 0.0)


class TestNotes(unittest.TestCase):
    def test_onset_tolerance_is_50_ms(self):
        reference = notes((1.0, 2.0, 60), (3.0, 4.0, 64))
        near = notes((1.04, 2.0, 60), (3.0, 4.0, 64))
        far = notes((1.06, 2.0, 60), (3.0, 4.0, 64))
        self.assertEqual(metrics.note_f1(reference, near), 1.0)
        self.assertEqual(metrics.note_f1(reference, far), 0.5)

    def test_wrong_pitch_is_no_match(self):
        self.assertEqual(metrics.note_f1(notes((1, 2, 60)), notes((1, 2, 61))), 0.0)

    def test_offset_tolerance_is_a_fifth_of_the_duration(self):
        reference = notes((1.0, 2.0, 60))
        for end, expected in ((2.19, 1.0), (2.21, 0.0)):
            estimate = notes((1.0, end, 60))
            self.assertEqual(metrics.note_f1(reference, estimate), 1.0)
            self.assertEqual(
                metrics.note_f1(reference, estimate, offsets=True), expected
            )

    def test_reference_note_is_matched_once(self):
        found = metrics.note_f1(notes((1, 2, 60)), notes((1, 2, 60), (1.01, 2, 60)))
        self.assertAlmostEqual(found, 2 / 3)  # precision 1/2, recall 1

    def test_note_f1_of_empty_notes(self):
        some = notes((1, 2, 60))
        for offsets in (False, True):
            self.assertEqual(metrics.note_f1(notes(), notes(), offsets), 1.0)
            self.assertEqual(metrics.note_f1(some, notes(), offsets), 0.0)
            self.assertEqual(metrics.note_f1(notes(), some, offsets), 0.0)


class TestIntervals(unittest.TestCase):
    def test_draws_of_two_recordings(self):
        # The draws are (0, 0), (0, 1), (1, 0), (1, 1): means 0, 1/2 and 1.
        parts = np.array([[0.0, 1.0], [1.0, 1.0]])
        draws = metrics.bootstrap(parts, None, metrics.mean)
        self.assertEqual(set(draws), {0.0, 0.5, 1.0})
        self.assertAlmostEqual(np.mean(draws == 0.5), 0.5, delta=0.06)
        self.assertEqual(metrics.interval(draws), (0.0, 1.0))

    def test_recordings_are_the_resampling_unit(self):
        # 100 windows of each of 10 recordings, all right or all wrong: the
        # interval is that of 10 draws, not of 1000.
        right = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
        counts = np.array(
            [
                confusion_matrix(
                    np.zeros(100, int), np.full(100, 1 - r), labels=range(2)
                )
                for r in right
            ]
        )
        low, high = metrics.interval(metrics.bootstrap(counts, None, metrics.accuracy))
        self.assertAlmostEqual(low, 0.2, delta=0.01)
        self.assertAlmostEqual(high, 0.8, delta=0.01)

    def test_interval_equals_the_normal_approximation(self):
        values = np.random.default_rng(0).normal(size=400)
        parts = np.stack((values, np.ones(400)), axis=1)
        low, high = metrics.interval(metrics.bootstrap(parts, None, metrics.mean))
        half = 1.96 * values.std() / 20
        self.assertAlmostEqual(low, values.mean() - half, delta=0.02)
        self.assertAlmostEqual(high, values.mean() + half, delta=0.02)

    def test_draws_are_paired_between_systems(self):
        parts = np.random.default_rng(0).random((7, 2))
        one, other = (
            metrics.bootstrap(p, None, lambda s: s[0]) for p in (parts, parts + 1)
        )
        np.testing.assert_allclose(other - one, 7.0)

    def test_groups_are_drawn_as_a_whole(self):
        # Two families of two: the draws are right about none, one or both.
        parts = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
        draws = metrics.bootstrap(parts, ["b", "a", "b", "a"], metrics.mean)
        self.assertEqual(set(draws), {0.0, 0.5, 1.0})
        self.assertEqual(len(draws), metrics.DRAWS)
        # Names of groups do not matter.
        for names in ([9, 10, 9, 10], "xyxy"):
            same = metrics.bootstrap(parts, names, metrics.mean)
            self.assertEqual(same.tolist(), draws.tolist())
        alone = metrics.bootstrap(parts, "xxxx", metrics.mean)
        self.assertEqual(len(alone), 0)

    def test_one_recording_has_no_interval(self):
        draws = metrics.bootstrap(np.ones((1, 2)), None, metrics.mean)
        self.assertEqual(metrics.interval(draws), (None, None))


if __name__ == "__main__":
    unittest.main()
