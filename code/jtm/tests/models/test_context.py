"""Context networks: causality, hidden states, groups and positions."""

import unittest
from unittest import mock

import torch
from torch import nn

from jtm.models import context
from jtm.models.context import (
    HEADS,
    RecurrentContext,
    TransformerBlock,
    TransformerContext,
    _sinusoids,
)


def networks():
    """Yield one network of each kind, in evaluation mode."""
    torch.manual_seed(0)
    for mode in ("GRU", "LSTM", "RNN"):
        yield RecurrentContext(6, 16, mode, layers=2).eval()
    yield RecurrentContext(6, 16, "LSTM", layers=2, groups=2).eval()
    for absolute in (False, True):
        yield TransformerContext(6, 16, layers=2, absolute=absolute).eval()


class TestContext(unittest.TestCase):
    def test_context_is_causal(self):
        z = torch.randn(2, 30, 6)
        changed = z.clone()
        changed[:, 15:] = torch.randn(2, 15, 6)
        for net in networks():
            c, after = net(z)[0], net(changed)[0]
            self.assertEqual(c.shape, (2, 30, 16))
            torch.testing.assert_close(c[:, :15], after[:, :15])
            self.assertFalse(torch.allclose(c[:, 15], after[:, 15]))

    def test_context_depends_on_the_past(self):
        z = torch.randn(1, 30, 6)
        changed = z.clone()
        changed[:, 5] += 1
        for net in networks():
            self.assertFalse(torch.allclose(net(z)[0][:, 9], net(changed)[0][:, 9]))

    def test_chunked_equals_unchunked(self):
        z = torch.randn(2, 30, 6)
        for net in networks():
            expected = net(z)[0]
            first, state = net(z[:, :11])
            second, _ = net(z[:, 11:], state)
            torch.testing.assert_close(
                expected, torch.cat((first, second), 1), rtol=1e-4, atol=1e-5
            )

    def test_memory_of_attention_is_bounded(self):
        net = TransformerContext(6, 16).eval()
        z = torch.randn(2, 30, 6)
        expected = net(z)[0]
        with mock.patch.object(context, "QUERIES", 7):
            sizes, bias = [], TransformerBlock._bias

            def record(block, first, last):
                sizes.append(last - first)
                return bias(block, first, last)

            with mock.patch.object(TransformerBlock, "_bias", record):
                torch.testing.assert_close(net(z)[0], expected, rtol=1e-4, atol=1e-6)
        self.assertEqual(sizes, [7, 7, 7, 7, 2])

    def test_groups_are_independent_and_share_weights(self):
        net = RecurrentContext(6, 16, "GRU", groups=2).eval()
        z = torch.randn(2, 30, 6)
        swapped = net(z.roll(3, 2))[0]
        torch.testing.assert_close(net(z)[0], swapped.roll(8, 2))
        changed = z.clone()
        changed[..., 3:] = 0
        c, after = net(z)[0], net(changed)[0]
        torch.testing.assert_close(c[..., :8], after[..., :8])
        self.assertFalse(torch.allclose(c[..., 8:], after[..., 8:]))

    def test_attention_decays_with_distance_at_the_slope_of_each_head(self):
        block = TransformerBlock(HEADS, 0.0).eval()
        block.norm_attention = block.out = nn.Identity()
        with torch.no_grad():  # queries and keys are 0, values are the frames
            for weights in (*block.qkv.parameters(), *block.feed.parameters()):
                weights.zero_()
            block.qkv.weight[2 * HEADS :] = torch.eye(HEADS)
            impulse = torch.zeros(1, 4, HEADS)
            impulse[0, 0] = 1.0
            attended = block(impulse)[0] - impulse[0]
        slope = block.log_slope.detach().exp()
        for t in range(4):
            weights = torch.exp(-slope * torch.arange(t + 1)[:, None])
            torch.testing.assert_close(attended[t], weights[t] / weights.sum(0))

    def test_only_absolute_positions_distinguish_equal_frames(self):
        # For equal frames a causal average is the same at every position.
        z = torch.ones(1, 20, 6)
        *_, relative, absolute = networks()
        c = relative(z)[0]
        torch.testing.assert_close(c[:, 3], c[:, 17], rtol=1e-4, atol=1e-4)
        c = absolute(z)[0]
        self.assertFalse(torch.allclose(c[:, 3], c[:, 17], atol=1e-2))

    def test_hand_computed_sinusoids(self):
        codes = _sinusoids(3, 4)
        torch.testing.assert_close(codes[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
        torch.testing.assert_close(codes[2, 0], torch.tensor(2.0).sin())


if __name__ == "__main__":
    unittest.main()
