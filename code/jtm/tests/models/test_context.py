"""Context networks: causality, hidden states, groups and positions."""

import unittest
from unittest import mock

import torch
from torch.nn import GRU

from jtm.models.context import (
    GroupedGRU,
    RecurrentContext,
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


class TestGroupedGRU(unittest.TestCase):
    def test_values_states_and_gradients_equal_pytorch(self):
        torch.manual_seed(0)
        ours, theirs = (make(3, 4, 1, batch_first=True) for make in (GroupedGRU, GRU))
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(5, 30, 3, requires_grad=True)
        start = torch.randn(1, 5, 4, requires_grad=True)
        for state in (None, start):
            results = []
            for net in (ours, theirs):
                states, last = net(x, state)
                inputs = [x, *net.parameters(), *([] if state is None else [state])]
                loss = (states * torch.arange(4)).sum() + last.square().sum()
                results.append((states, last, *torch.autograd.grad(loss, inputs)))
            torch.testing.assert_close(*results)

    def test_computes_in_float32_under_bf16_autocast(self):
        net = GroupedGRU(3, 4, 1, batch_first=True)
        with torch.autocast("cpu", torch.bfloat16):
            states, _ = net(torch.randn(5, 30, 3))
            states.sum().backward()
        self.assertEqual(states.dtype, torch.float32)
        self.assertTrue(torch.isfinite(net.weight_hh_l0.grad).all())

    def test_number_of_threads_is_restored(self):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        self.addCleanup(torch.set_num_threads, before)
        net = GroupedGRU(3, 4, 1, batch_first=True)
        with mock.patch("torch.lerp", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                net(torch.randn(5, 30, 3))
        self.assertEqual(torch.get_num_threads(), 2)
        net(torch.randn(5, 30, 3))[0].sum().backward()
        self.assertEqual(torch.get_num_threads(), 2)


if __name__ == "__main__":
    unittest.main()
