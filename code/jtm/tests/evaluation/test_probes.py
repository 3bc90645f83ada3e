import unittest
import warnings
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from jtm.evaluation import probes
from jtm.evaluation.labelled import Labelled
from jtm.evaluation.metrics import average_precision
from jtm.tests.evaluation.test_tasks import plays, store


def planted(n, seed, shuffled=False, strength=3.0):
    """Features that linearly carry four pitches among 30 dimensions of noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(4, 30))
    roll = rng.random((n, 4)) < 0.2
    features = strength * roll @ directions + rng.normal(size=(n, 30)) + 50.0
    features[:, 0] = 7.0  # never varies
    return features.astype(np.float32), rng.permutation(roll) if shuffled else roll


def classes(n, seed, shuffled=False):
    """Features whose mean tells three classes apart."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 3, n)
    features = rng.normal(size=(n, 10)) + 3.0 * np.eye(10)[found]
    return features.astype(np.float32), rng.permutation(found) if shuffled else found


class Samples(unittest.TestCase):
    """What probes learn from, and are chosen by."""

    def read(self, task, split, units=None):
        kept = store(*[{"ensemble": "ab"[i % 2]} for i in range(40)], seconds=40)
        labelled = Labelled.of(kept, task, plays([(1,), (41,)]))
        read = {}

        def rows(representation, store, index, selection, rows):
            read[index] = rows
            return np.zeros((len(rows), 3), np.float32)

        features = SimpleNamespace(rows=rows)
        units = labelled.units(split) if units is None else units
        x, y = probes.samples(features, labelled, split, "logmel", units)
        self.assertEqual(len(x), len(y))
        return read, y

    def test_the_last_validation_recordings_count_too(self):
        for task in ("multipitch", "ensemble"):
            with mock.patch.object(probes, "VALIDATION_SAMPLES", 80):
                read, y = self.read(task, "validation")
            self.assertEqual(sorted(read), list(range(40, 80)), task)
            self.assertEqual(len(y), 80)

    def test_frames_are_of_the_windows_that_are_labelled(self):
        read, y = self.read("multipitch", "train", np.array([[3, 256], [7, 0]]))
        # Every frame that a probe may learn from, 16 of a window.
        self.assertEqual(read[3].tolist(), list(range(32, 48)))
        self.assertEqual(read[7].tolist(), list(range(16)))
        self.assertEqual(y.shape, (32, 88))
        read, y = self.read("ensemble", "train", np.array([[3, 256], [6, 0]]))
        self.assertEqual((read[3].tolist(), read[6].tolist()), ([2], [0]))
        self.assertEqual(y.tolist(), [1, 0])


class Standardisation(unittest.TestCase):
    def standardised(self, x):
        mean, scale = probes.standardisation(x)
        return (x - mean) * scale

    def test_means_deviations_and_what_never_varies(self):
        torch.manual_seed(0)
        x = torch.randn(500, 5) * 3 + 7
        x[:, 2] = 4.0
        found = self.standardised(x)
        torch.testing.assert_close(found.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
        expected = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
        torch.testing.assert_close(found.std(0), expected, atol=1e-2, rtol=0)
        mean, scale = probes.standardisation(x)
        other = (x[:2] + 1e3 - mean) * scale  # what never varied stays at zero
        self.assertEqual(other[:, 2].tolist(), [0.0, 0.0])

    def test_the_scale_of_a_feature_makes_no_difference(self):
        # As a conv encoder before training has them, of deviation 0.0006.
        torch.manual_seed(0)
        x = torch.randn(500, 5) * torch.tensor([6e-4, 1e-9, 1.0, 1e9, 0.0])
        x[:, 4] = 0.1  # constant, but for rounding
        expected = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
        found = self.standardised(x).std(dim=0)
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


class Linear(unittest.TestCase):
    def fit(self, train, validation):
        return probes.fit(train, validation, train[1].shape[1:])

    def test_it_recovers_a_planted_signal(self):
        predict, chosen = self.fit(planted(800, 0), planted(300, 1))
        features, roll = planted(500, 2)
        score = average_precision(roll, predict(features))
        self.assertGreater(score, 0.99)
        self.assertAlmostEqual(chosen["validation"], score, delta=0.02)

    def test_shuffled_labels_leave_it_at_chance(self):
        predict, _ = self.fit(
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
            predict, _ = self.fit(train, other)
        mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
        deviation[0] = 1.0  # never varies
        reference = LogisticRegression(C=1 / (0.01 * 400), tol=1e-8, max_iter=1000)
        reference.fit((train[0] - mean) / deviation, train[1][:, 2])
        np.testing.assert_allclose(
            predict(other[0])[:, 2],
            reference.decision_function((other[0] - mean) / deviation),
            atol=2e-2,
        )

    def test_it_is_multinomial_logistic_regression(self):
        from sklearn.linear_model import LogisticRegression

        train, other = classes(300, 0), classes(100, 1)
        with mock.patch.multiple(probes, PENALTIES=(0.1,), ITERATIONS=300):
            predict, _ = probes.fit(train, other, (3,))
        mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
        reference = LogisticRegression(C=1 / (0.1 * 300), tol=1e-8, max_iter=1000)
        reference.fit((train[0] - mean) / deviation, train[1])
        expected = reference.decision_function((other[0] - mean) / deviation)
        found = predict(other[0])
        np.testing.assert_allclose(
            found - found[:, :1], expected - expected[:, :1], atol=2e-2
        )

    def test_validation_chooses_the_penalty(self):
        # A faint signal wants a strong penalty where labels are few.
        found = []
        for n in (40, 4000):
            train, validation = (
                planted(size, seed, strength=0.4) for seed, size in enumerate((n, 500))
            )
            predict, chosen = self.fit(train, validation)
            score = average_precision(validation[1], predict(validation[0]))
            self.assertAlmostEqual(score, chosen["validation"], places=3)
            found.append(chosen["penalty"])
        self.assertGreater(found[0], found[1])

    def test_what_sounds_and_what_starts(self):
        data = []
        for seed, n in enumerate((800, 300)):
            x, roll = planted(n, seed)
            data.append((x, np.stack((roll, roll[:, ::-1]), axis=1)))
        predict, chosen = self.fit(*data)
        self.assertEqual(predict(data[1][0]).shape, (300, 2, 4))
        self.assertGreater(chosen["validation"], 0.95)

    def test_same_data_same_probe(self):
        data = planted(200, 0, strength=0.5), planted(100, 1, strength=0.5)
        one, two = (self.fit(*data)[0](data[1][0]) for _ in range(2))
        np.testing.assert_array_equal(one, two)

    def test_pitches_that_never_sound(self):
        features, roll = planted(100, 0)
        roll[:, 3] = False
        predict, _ = self.fit((features, roll), planted(50, 1))
        self.assertTrue(np.isfinite(predict(features)).all())


class Classes(unittest.TestCase):
    def test_they_recover_a_planted_signal(self):
        predict, chosen = probes.fit(classes(300, 0), classes(100, 1), (3,))
        features, truth = classes(500, 2)
        score = (predict(features).argmax(axis=1) == truth).mean()
        self.assertGreater(score, 0.95)
        self.assertAlmostEqual(chosen["validation"], score, delta=0.05)

    def test_shuffled_labels_leave_them_at_chance(self):
        predict, _ = probes.fit(
            classes(300, 0, shuffled=True), classes(100, 1, shuffled=True), (3,)
        )
        features, truth = classes(2000, 2)
        score = (predict(features).argmax(axis=1) == truth).mean()
        self.assertAlmostEqual(score, 1 / 3, delta=0.1)

    def test_one_window_of_each_class(self):
        train = np.eye(21, dtype=np.float32), np.arange(21)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            predict, _ = probes.fit(train, train, (21,))
        found = predict(np.eye(21, dtype=np.float32)).argmax(axis=1)
        self.assertEqual(found.tolist(), list(range(21)))


if __name__ == "__main__":
    unittest.main()
