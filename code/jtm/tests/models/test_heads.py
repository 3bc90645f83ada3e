import unittest

import torch
from torch.nn import functional

from jtm.models.heads import (
    ABOVE,
    BELOW,
    FrameHead,
    OctaveHead,
    PitchHead,
    pool,
)

PARTS = ((88, 2), (88, 3))
"""An axis of pitch of two parts, as z and c side by side."""


def transpose(x, by):
    """Move features on the axis of pitch up by some semitones."""
    parts = torch.split(x, [176, 264], dim=-1)
    moved = [
        part.unflatten(-1, (88, -1)).roll(by, dims=-2).flatten(-2) for part in parts
    ]
    return torch.cat(moved, dim=-1)


class Heads(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(20, 5)

    def test_shapes(self):
        self.assertEqual(FrameHead(5, 88)(self.x).shape, (20, 88))
        self.assertEqual(FrameHead(5, 88, hidden=4)(self.x).shape, (20, 88))

    def test_the_answer_is_where_the_head_is(self):
        heads = PitchHead(PARTS), PitchHead(PARTS, hidden=2), OctaveHead(PARTS, 7)
        for head in heads:
            y = head.to("meta")(torch.zeros(20, 440, device="meta"))
            self.assertEqual(y.device.type, "meta")

    def test_pool_by_hand(self):
        x = torch.tensor([[[0.0, 3.0], [2.0, 3.0], [4.0, 3.0]]])
        expected = torch.tensor([[2.0, 3.0, (8 / 3) ** 0.5, 0.0]])
        torch.testing.assert_close(pool(x), expected, atol=1e-3, rtol=0)

    def test_pool_of_equal_frames_has_a_gradient(self):
        x = torch.ones(1, 4, 2, requires_grad=True)
        pool(x).sum().backward()
        self.assertTrue(torch.isfinite(x.grad).all())

    def test_a_sample_fixes_what_is_standardised_by(self):
        x = torch.randn(500, 5) * 3 + 7
        x[:, 2] = 4.0
        head = FrameHead(5, 3)
        head.fix(x)
        standard = head.standardise(x)
        torch.testing.assert_close(
            standard.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0
        )
        expected = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
        torch.testing.assert_close(standard.std(dim=0), expected, atol=1e-2, rtol=0)
        other = head.standardise(x[:2] + 1e3)  # what never varied stays at zero
        self.assertEqual(other[:, 2].tolist(), [0.0, 0.0])

    def test_the_scale_of_a_channel_makes_no_difference(self):
        # As a conv encoder before training has them, of deviation 0.0006.
        scale = torch.tensor([6e-4, 1e-9, 1.0, 1e9, 0.0])
        head = FrameHead(5, 3)
        x = torch.randn(500, 5) * scale
        x[:, 4] = 0.1  # constant, but for rounding
        head.fix(x)
        found = head.standardise(x).std(dim=0)
        expected = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)

    def test_a_frame_is_read_alone(self):
        head = FrameHead(5, 3).eval()
        y = head(self.x)
        self.x[7] += 1.0
        changed = (head(self.x) - y).abs().amax(dim=1) > 0
        self.assertEqual(changed.nonzero().flatten().tolist(), [7])

    def test_dropout_is_for_training_alone(self):
        pitches = PitchHead(((88, 5),), hidden=4, dropout=0.5)
        for head, x in (
            (FrameHead(5, 88, hidden=64, dropout=0.5), self.x),
            (pitches, torch.randn(4, 440)),
        ):
            self.assertFalse(torch.equal(head(x), head(x)))
            head.eval()
            self.assertTrue(torch.equal(head(x), head(x)))


class SharedByOctaves(unittest.TestCase):
    def test_mean_and_greatest_of_each_octave_by_hand(self):
        head = OctaveHead(((14, 1), (12, 2)), 5).eval()
        x = torch.zeros(1, 14 + 24)
        x[0, 3], x[0, 4], x[0, 13] = 6.0, -6.0, 4.0
        x[0, 14 + 2 * 11 + 1] = 12.0  # second feature of the last semitone
        found = head.standardise(x)  # statistics are 0 and 1
        expected = [0.0, 6.0, 2.0, 4.0, 0.0, 1.0, 0.0, 12.0]
        torch.testing.assert_close(found, torch.tensor([expected]))
        self.assertEqual(head(x).shape, (1, 5))

    def test_which_pitch_of_an_octave_makes_no_difference(self):
        head = OctaveHead(PARTS, 3, hidden=4).eval()
        x = torch.zeros(2, 88 * 5)
        x[0, 2 * 30], x[1, 2 * 35] = 1.0, 1.0
        one, other = head(x)
        torch.testing.assert_close(one, other)
        x[1, 2 * 35], x[1, 2 * 36] = 0.0, 1.0
        self.assertGreater((head(x)[1] - one).abs().max().item(), 1e-6)

    def test_a_sample_fixes_what_is_standardised_by(self):
        head = OctaveHead(PARTS, 3)
        x = torch.randn(50, 88 * 5)
        head.fix(x)
        y = head.standardise(x)
        torch.testing.assert_close(y.mean(0), torch.zeros(80), atol=1e-5, rtol=0)


class SharedAcrossPitch(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(6, 88 * 5)
        self.kinds = {
            "linear": PitchHead(PARTS, 2),
            "hidden": PitchHead(PARTS, 2, hidden=4),
        }
        for head in self.kinds.values():
            head.eval()

    def test_shapes(self):
        for head in self.kinds.values():
            self.assertEqual(head(self.x).shape, (6, 2, 88))
        self.assertEqual(PitchHead(PARTS)(self.x).shape, (6, 1, 88))

    def test_a_pitch_sees_an_octave_below_and_three_above(self):
        for name, head in self.kinds.items():
            y = head(self.x)
            x = self.x.clone()
            x[..., 40 * 2] += 1.0  # the first part's semitone 40
            x[..., 176 + 40 * 3] += 1.0
            changed = (head(x) - y).abs().amax(dim=(0, 1)) > 1e-7
            seen = changed.nonzero().flatten().tolist()
            self.assertEqual(seen, list(range(40 - ABOVE, 40 + BELOW + 1)), name)

    def test_a_transposed_input_is_answered_transposed(self):
        for head in self.kinds.values():
            # Silence at the ends, so that nothing falls off the axis.
            x = functional.pad(torch.randn(6, 20, 5), (0, 0, 30, 38))
            x = torch.cat((x[..., :2].flatten(1), x[..., 2:].flatten(1)), dim=1)
            low, high = head(x), head(transpose(x, 7))
            torch.testing.assert_close(
                high[..., 20:80], low[..., 13:73], atol=1e-5, rtol=1e-4
            )

    def test_only_the_bias_is_each_pitch_s_own(self):
        head = self.kinds["linear"]
        head.own.data[50] = torch.tensor([3.0, -3.0])
        before = head(self.x)
        head.own.data.zero_()
        moved = before - head(self.x)
        self.assertEqual(
            moved.abs().amax(dim=(0, 1)).nonzero().flatten().tolist(), [50]
        )
        torch.testing.assert_close(moved[0, :, 50], torch.tensor([3.0, -3.0]))

    def test_the_layout_by_hand(self):
        head = PitchHead(((90, 2),)).eval()
        head.weight.data.zero_()
        head.weight.data[BELOW, 1] = 1.0  # the pitch's own second feature
        head.weight.data[BELOW + 12, 0] = 10.0  # the first feature, an octave above
        x = torch.zeros(1, 90, 2)
        x[0, 30] = torch.tensor([5.0, 7.0])
        y = head(x.flatten(1))[0, 0]
        self.assertAlmostEqual(y[30].item(), 7.0, places=3)
        self.assertAlmostEqual(y[18].item(), 50.0, places=3)
        self.assertEqual((y.abs() > 1e-3).sum(), 2)


if __name__ == "__main__":
    unittest.main()
