"""Heads: shapes on either trunk, weights shared across pitch, initial output."""

import unittest

import torch
from torch import nn

from jtm.constants import N_PITCHES
from jtm.models.heads import (
    AROUND,
    READERS,
    PitchTrunk,
    _FlatTrunk,
    _Heads,
    _over_pitch,
    _over_time,
    _Surroundings,
    _WindowReader,
)

TASKS = {
    "map": (("map", 2), (1, 20, 2, N_PITCHES)),
    "frames": (("frames", 11), (1, 20, 11)),
    "windows": (("windows", 5), (1, 5)),
    "pitch": (("pitch", N_PITCHES), (1, N_PITCHES)),
}
"""Every kind of reader, with the shape of its output for 10 frames of 20 ms."""


class TestReaders(unittest.TestCase):
    def test_every_reader_works_on_either_trunk(self):
        self.assertEqual(TASKS.keys(), READERS.keys())
        tasks = {name: of for name, (of, _) in TASKS.items()}
        x = torch.randn(1, 10, 2 * N_PITCHES)
        for trunk in (PitchTrunk((N_PITCHES,) * 2, 4), _FlatTrunk(x.shape[2], 8)):
            logits = _Heads(trunk.eval(), tasks, stride=2)(x)
            for name, (_, shape) in TASKS.items():
                self.assertEqual(logits[name].shape, shape, name)

    def test_frames_within_a_stride_are_consecutive(self):
        reader = READERS["map"](1, 2, 2)
        with torch.no_grad():
            reader.linear.weight.copy_(
                torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None]
            )
            reader.linear.bias.zero_()
        maps = torch.zeros(1, 2, N_PITCHES, 1)
        maps[0, 1, 7] = 1.0
        logits = reader(maps)[0, ..., 7]
        self.assertEqual(logits.tolist(), [[0, 0], [0, 0], [1, 100], [10, 1000]])

    def test_initial_probabilities_are_low(self):
        logits = READERS["map"](3, 12)(torch.randn(1, 4, N_PITCHES, 3)).sigmoid()
        self.assertLess(logits.max(), 0.1)

    def test_hand_computed_pooling(self):
        maps = torch.tensor([[[[0.0], [1.0], [5.0]], [[3.0], [3.0], [3.0]]]])
        over_pitch = _over_pitch(maps)  # mean and maximum of two frames
        self.assertEqual(over_pitch.tolist(), [[[2, 5], [3, 3]]])
        expected = [2.5, 4.0, 0.5**0.5, 2**0.5]  # means, then standard deviations
        torch.testing.assert_close(_over_time(over_pitch), torch.tensor([expected]))

    def test_window_reader_is_invariant_to_frame_order(self):
        reader, maps = _WindowReader(3, 4), torch.randn(1, 9, N_PITCHES, 3)
        torch.testing.assert_close(reader(maps), reader(maps.flip(1)))

    def test_map_reader_is_equivariant_to_transposition(self):
        torch.manual_seed(0)
        heads = _Heads(PitchTrunk((N_PITCHES,), 4), {"notes": ("map", 2)})
        with torch.no_grad():
            heads.readers["notes"].linear.weight.normal_()
        x = torch.zeros(1, 5, N_PITCHES)
        x[0, 2, 40] = 1.0
        one, up = heads(x)["notes"], heads(x.roll(3, dims=2))["notes"]
        torch.testing.assert_close(one[..., 30:60], up[..., 33:63])


class TestSurroundings(unittest.TestCase):
    def test_averages_are_over_the_frames_that_exist(self):
        around, n = _Surroundings(1), 3 * AROUND
        nn.init.ones_(around.tell.weight)
        summary = torch.arange(float(n)).view(1, 1, n)
        added = around(torch.zeros(1, 1, N_PITCHES, n), summary, 0)[0, 0]
        for frame in (0, 5, n // 2, n - 1):
            near = summary[0, 0, max(0, frame - AROUND) : frame + AROUND + 1]
            torch.testing.assert_close(added[:, frame], near.mean().expand(N_PITCHES))
