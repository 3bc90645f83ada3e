import unittest

import torch

from jtm.models.pooling import pool


class TestPooling(unittest.TestCase):
    def test_hand_computed_pooling(self):
        x = torch.tensor([[[0.0, 3.0], [2.0, 3.0], [4.0, 3.0]]])
        expected = torch.tensor([[2.0, 3.0, (8 / 3) ** 0.5, 0.0]])
        torch.testing.assert_close(pool(x), expected, atol=1e-3, rtol=0)

    def test_pooling_of_equal_frames_has_a_finite_gradient(self):
        x = torch.ones(1, 4, 2, requires_grad=True)
        pool(x).sum().backward()
        self.assertTrue(torch.isfinite(x.grad).all())


if __name__ == "__main__":
    unittest.main()
