import unittest

import torch

from jtm.models.pooling import octaves, pool


class Time(unittest.TestCase):
    def test_pool_by_hand(self):
        x = torch.tensor([[[0.0, 3.0], [2.0, 3.0], [4.0, 3.0]]])
        expected = torch.tensor([[2.0, 3.0, (8 / 3) ** 0.5, 0.0]])
        torch.testing.assert_close(pool(x), expected, atol=1e-3, rtol=0)

    def test_pool_of_equal_frames_has_a_gradient(self):
        x = torch.ones(1, 4, 2, requires_grad=True)
        pool(x).sum().backward()
        self.assertTrue(torch.isfinite(x.grad).all())


class Octaves(unittest.TestCase):
    def test_mean_and_maximum_of_each_octave_by_hand(self):
        x = torch.zeros(1, 14 + 24)
        x[0, 3], x[0, 4], x[0, 13] = 6.0, -6.0, 4.0
        x[0, 14 + 2 * 11 + 1] = 12.0  # second feature of the last semitone
        expected = [0.0, 6.0, 2.0, 4.0, 0.0, 1.0, 0.0, 12.0]
        found = octaves(x, ((14, 1), (12, 2)))
        torch.testing.assert_close(found, torch.tensor([expected]))

    def test_which_pitch_of_an_octave_makes_no_difference(self):
        x = torch.zeros(3, 88 * 5)
        x[0, 2 * 30], x[1, 2 * 35], x[2, 2 * 36] = 1.0, 1.0, 1.0
        one, same, other = octaves(x, ((88, 2), (88, 3)))
        torch.testing.assert_close(one, same)
        self.assertGreater((other - one).abs().max().item(), 0.01)


if __name__ == "__main__":
    unittest.main()
