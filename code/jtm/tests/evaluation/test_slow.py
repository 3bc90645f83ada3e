"""Slow features find what recordings differ in, and are told of no label."""

import unittest

import numpy as np

from jtm.evaluation.slow import SIZE, Slow


def windows_of(rng, levels, n_windows, dim=12):
    """Make windows: a recording's own level in feature 3, much noise elsewhere."""
    recordings = []
    for level in levels:
        x = 10 * rng.normal(size=(n_windows, dim))
        x[:, 3] = level + 0.5 * rng.normal(size=n_windows)
        recordings.append((x + 7).astype(np.float32))
    return recordings


class TestSlow(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(0)
        levels = self.rng.normal(size=60)
        self.slow = Slow(size=2).fit(windows_of(self.rng, levels, 30))

    def test_the_slowest_direction_is_what_recordings_differ_in(self):
        levels = self.rng.normal(size=40)
        heard = windows_of(self.rng, levels, 1)  # of others, unheard in the fit
        found = self.slow(np.concatenate(heard))
        self.assertEqual((found.shape, found.dtype), ((40, 2), np.float32))
        truth = [x[0, 3] for x in heard]
        self.assertGreater(abs(np.corrcoef(found[:, 0], truth)[0, 1]), 0.95)
        self.assertLess(abs(np.corrcoef(found[:, 1], truth)[0, 1]), 0.5)

    def test_scale_and_shift_of_features_make_no_difference(self):
        levels = self.rng.normal(size=50)
        recordings = windows_of(self.rng, levels, 20)
        scale = np.linspace(0.1, 100, 12, dtype=np.float32)
        shift = np.linspace(-5, 5, 12, dtype=np.float32)
        plain = Slow(size=3).fit(recordings)(recordings[0])
        other = Slow(size=3).fit([scale * x + shift for x in recordings])
        found = other(scale * recordings[0] + shift)
        signs = np.sign((found * plain).sum(axis=0))  # a direction has no sign
        np.testing.assert_allclose(signs * found, plain, atol=1e-3)

    def test_a_long_recording_counts_as_one(self):
        levels = self.rng.normal(size=30)
        recordings = windows_of(self.rng, levels, 20)
        twice = [np.concatenate((recordings[0],) * 50), *recordings[1:]]
        found = [Slow(size=1).fit(each).map[:, 0] for each in (recordings, twice)]
        found = [each / np.linalg.norm(each) for each in found]
        self.assertGreater(abs(found[0] @ found[1]), 0.7)

    def test_features_on_the_axis_of_pitch_are_summarised_by_octaves(self):
        parts = ((88, 2), (88, 2))
        recordings = [
            self.rng.normal(size=(9, 352)).astype(np.float32) for _ in range(40)
        ]
        slow = Slow(parts).fit(recordings)
        # Mean and maximum of 8 octaves, two features of two parts each.
        self.assertEqual(slow.map.shape, (2 * 8 * 2 * 2, SIZE))
        self.assertEqual(slow(recordings[0]).shape, (9, SIZE))

    def test_fewer_features_than_directions_and_silence(self):
        constant = [np.full((4, 3), 2, np.float32) for _ in range(5)]
        found = Slow().fit(constant)(constant[0])
        np.testing.assert_allclose(found, np.zeros((4, 3)), atol=1e-6)


if __name__ == "__main__":
    unittest.main()
