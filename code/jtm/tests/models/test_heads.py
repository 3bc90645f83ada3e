import unittest

import torch

from jtm.models.heads import FrameHead, TranscriptionHead, WindowHead, pool


class Heads(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(3, 20, 5)

    def test_shapes(self):
        self.assertEqual(FrameHead(5, 88)(self.x).shape, (3, 20, 88))
        self.assertEqual(WindowHead(5, 7)(self.x).shape, (3, 7))
        self.assertEqual(TranscriptionHead(5)(self.x).shape, (3, 20, 2, 88))

    def test_pool_by_hand(self):
        x = torch.tensor([[[0.0, 3.0], [2.0, 3.0], [4.0, 3.0]]])
        expected = torch.tensor([[2.0, 3.0, (8 / 3) ** 0.5, 0.0]])
        torch.testing.assert_close(pool(x), expected, atol=1e-3, rtol=0)

    def test_pool_of_equal_frames_has_a_gradient(self):
        x = torch.ones(1, 4, 2, requires_grad=True)
        pool(x).sum().backward()
        self.assertTrue(torch.isfinite(x.grad).all())

    def test_inputs_are_standardised(self):
        for make in (
            lambda: FrameHead(5, 3),
            lambda: TranscriptionHead(5, dropout=0.0),
        ):
            torch.manual_seed(1)
            head = make()
            torch.testing.assert_close(
                head(self.x), head(self.x * 100 + 40), atol=1e-3, rtol=1e-3
            )

    def test_a_frame_is_read_alone(self):
        head = FrameHead(5, 3).eval()
        y = head(self.x)
        self.x[:, 7] += 1.0
        changed = (head(self.x) - y).abs().amax(dim=(0, 2)) > 0
        self.assertEqual(changed.nonzero().flatten().tolist(), [7])

    def test_dropout_is_for_training_alone(self):
        head = TranscriptionHead(5)
        self.assertFalse(torch.equal(head(self.x), head(self.x)))
        head.eval()
        self.assertTrue(torch.equal(head(self.x), head(self.x)))

    def test_the_transcription_sees_its_kernel(self):
        head = TranscriptionHead(5, kernel=5).eval()
        y = head(self.x)
        self.x[:, 10] += 1.0
        changed = (head(self.x) - y).abs().amax(dim=(0, 2, 3)) > 0
        self.assertEqual(changed.nonzero().flatten().tolist(), [8, 9, 10, 11, 12])


if __name__ == "__main__":
    unittest.main()
