import unittest
import warnings
from unittest import mock

import numpy as np

from jtm.evaluation import probes
from jtm.evaluation.metrics import average_precision


def planted(n, seed, shuffled=False, strength=3.0):
    """Features that linearly carry four pitches among 30 dimensions of noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(4, 30))
    roll = rng.random((n, 4)) < 0.2
    features = strength * roll @ directions + rng.normal(size=(n, 30)) + 50.0
    features[:, 0] = 7.0  # never varies
    return features.astype(np.float32), rng.permutation(roll) if shuffled else roll


class FrameProbe(unittest.TestCase):
    def test_it_recovers_a_planted_signal(self):
        predict, chosen = probes.fit_frames(planted(800, 0), planted(300, 1))
        features, roll = planted(500, 2)
        score = average_precision(roll, predict(features))
        self.assertGreater(score, 0.99)
        self.assertAlmostEqual(chosen["validation"], score, delta=0.02)

    def test_shuffled_labels_leave_it_at_chance(self):
        predict, _ = probes.fit_frames(
            planted(800, 0, shuffled=True), planted(300, 1, shuffled=True)
        )
        features, roll = planted(2000, 2)
        score = average_precision(roll, predict(features))
        self.assertAlmostEqual(score, roll.mean(), delta=0.05)

    def test_it_is_logistic_regression(self):
        # One penalty to convergence, against scikit-learn on one output.
        from sklearn.linear_model import LogisticRegression

        train, other = planted(400, 0), planted(100, 1)
        patches = {"PENALTIES": (0.01,), "ITERATIONS": 300}
        with mock.patch.multiple(probes, **patches):
            predict, _ = probes.fit_frames(train, other)
        scale = probes.Scaler(train[0])
        reference = LogisticRegression(C=1 / (0.01 * 400), tol=1e-8, max_iter=1000)
        reference.fit(scale(train[0]), train[1][:, 2])
        np.testing.assert_allclose(
            predict(other[0])[:, 2],
            reference.decision_function(scale(other[0])),
            atol=2e-2,
        )

    def test_validation_chooses_the_penalty(self):
        # A faint signal wants a strong penalty where labels are few.
        found = []
        for n in (40, 4000):
            train, validation = (
                planted(size, seed, strength=0.4) for seed, size in enumerate((n, 500))
            )
            predict, chosen = probes.fit_frames(train, validation)
            score = average_precision(validation[1], predict(validation[0]))
            self.assertAlmostEqual(score, chosen["validation"])
            found.append(chosen["penalty"])
        self.assertGreater(found[0], found[1])

    def test_pitches_that_never_sound(self):
        features, roll = planted(100, 0)
        roll[:, 3] = False
        predict, _ = probes.fit_frames((features, roll), planted(50, 1))
        self.assertTrue(np.isfinite(predict(features)).all())


class WindowProbe(unittest.TestCase):
    def data(self, n, seed, shuffled=False):
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, 3, n)
        features = rng.normal(size=(n, 10)) + 3.0 * np.eye(10)[classes]
        return features, rng.permutation(classes) if shuffled else classes

    def test_it_recovers_a_planted_signal(self):
        predict, chosen = probes.fit_windows(self.data(300, 0), self.data(100, 1))
        features, classes = self.data(500, 2)
        score = (predict(features) == classes).mean()
        self.assertGreater(score, 0.95)
        self.assertAlmostEqual(chosen["validation"], score, delta=0.05)

    def test_shuffled_labels_leave_it_at_chance(self):
        predict, _ = probes.fit_windows(
            self.data(300, 0, shuffled=True), self.data(100, 1, shuffled=True)
        )
        features, classes = self.data(2000, 2)
        self.assertAlmostEqual((predict(features) == classes).mean(), 1 / 3, delta=0.1)

    def test_validation_chooses_the_strength(self):
        train, validation = self.data(30, 0), self.data(60, 1)
        scores = {}
        for strength in probes.STRENGTHS:
            with mock.patch.object(probes, "STRENGTHS", (strength,)):
                predict, chosen = probes.fit_windows(train, validation)
            scores[strength] = (predict(validation[0]) == validation[1]).mean()
            self.assertAlmostEqual(chosen["validation"], scores[strength])
        self.assertGreater(len(set(scores.values())), 1)
        _, chosen = probes.fit_windows(train, validation)
        self.assertEqual(chosen["C"], max(scores, key=scores.get))

    def test_one_window_of_each_class(self):
        train = np.eye(21), np.arange(21)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predict, _ = probes.fit_windows(train, train)
        self.assertEqual(predict(np.eye(21)).tolist(), list(range(21)))

    def test_pool_by_hand(self):
        pooled = probes.pool(np.array([[0.0, 3.0], [2.0, 3.0], [4.0, 3.0]]))
        np.testing.assert_allclose(pooled, [2.0, 3.0, (8 / 3) ** 0.5, 0.0])


if __name__ == "__main__":
    unittest.main()
