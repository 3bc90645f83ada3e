"""Losses against hand-computed values."""

import math
import unittest

import torch

from jtm.retrieval import loss as losses


class TestLosses(unittest.TestCase):
    COSINES = torch.tensor([[0.9, 0.5], [0.1, 0.6]])

    def test_hand_computed_ranking_loss(self):
        # Rows: 0.7 - 0.9 + 0.5 = 0.3 and 0.7 - 0.6 + 0.1 = 0.2; columns: 0.7 - 0.9
        # + 0.1 < 0 and 0.7 - 0.6 + 0.5 = 0.6.
        self.assertAlmostEqual(float(losses._ranking(self.COSINES)), 1.1 / 4, places=6)
        self.assertEqual(float(losses._ranking(torch.eye(3))), 0.0)

    def test_hand_computed_infonce(self):
        scale = torch.tensor(2.0)
        terms = [
            math.log(1 + math.exp(2 * difference))
            for difference in (0.5 - 0.9, 0.1 - 0.6, 0.1 - 0.9, 0.5 - 0.6)
        ]
        found = float(losses._infonce(self.COSINES, scale))
        self.assertAlmostEqual(found, sum(terms) / 4, places=6)
        uniform = float(losses._infonce(torch.zeros(8, 8), scale))
        self.assertAlmostEqual(uniform, math.log(8), places=6)

    def test_losses_fall_when_pairs_are_closer(self):
        better = self.COSINES + 0.1 * torch.eye(2)
        for loss in (losses._ranking, lambda c: losses._infonce(c, torch.tensor(5.0))):
            self.assertLess(float(loss(better)), float(loss(self.COSINES)))


if __name__ == "__main__":
    unittest.main()
