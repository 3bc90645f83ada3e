"""The pitch map: frame grid, receptive field, and weights shared across pitch."""

import unittest

import torch

from jtm.constants import HOP, N_PITCHES
from jtm.models.heads import PitchTrunk
from jtm.models.pitchmap import (
    PitchBlock,
    PitchMapContext,
    PitchMapEncoder,
    _to_features,
    to_maps,
)


def make():
    """Make a small encoder and context with seeded weights."""
    torch.manual_seed(0)
    encoder = PitchMapEncoder(4, kernel=512)
    return encoder, PitchMapContext(encoder.dim, 4)


class TestEncoder(unittest.TestCase):
    def test_one_latent_every_20_ms_for_any_length(self):
        encoder, _ = make()
        self.assertEqual(encoder.hop, 2 * HOP)
        for samples in (16000, 16159, 16161, 320):
            z = encoder(torch.randn(2, 1, samples))
            self.assertEqual(z.shape, (2, samples // 320, encoder.dim))

    def test_cached_magnitudes_give_the_same_latents(self):
        encoder, _ = make()
        wave = torch.randn(1, 1, 6400)
        torch.testing.assert_close(encoder(wave), encoder.encode(encoder.filters(wave)))

    def test_latents_end_with_the_larger_magnitudes_of_two_frames(self):
        encoder, _ = make()
        wave = torch.randn(1, 1, 6400)
        own = encoder(wave).view(20, N_PITCHES, 6)[..., 4:]
        bins = encoder.filters(wave)[0, :, 2 : 2 + 2 * N_PITCHES]
        expected = torch.maximum(bins[::2], bins[1::2])
        torch.testing.assert_close(own.flatten(1), expected)

    def test_shift_by_hops_shifts_the_latents(self):
        encoder, _ = make()
        wave = torch.randn(1, 1, 16000)
        z, shifted = encoder(wave), encoder(wave[..., 10 * encoder.hop :])
        torch.testing.assert_close(z[:, 20:40], shifted[:, 10:30], rtol=1e-3, atol=1e-4)

    def test_receptive_field_of_the_latents(self):
        encoder, _ = make()
        wave = torch.randn(1, 1, 16000)
        other = wave.clone()
        # Frame 25 is centred on sample 8160; 512 taps reach 256, blocks 80 ms.
        reach = 256 + round(0.085 * 16000)
        other[..., 8160 + reach :] = 0
        other[..., : 8160 - reach] = 0
        torch.testing.assert_close(encoder(wave)[:, 25], encoder(other)[:, 25])

    def test_blocks_are_equivariant_to_transposition(self):
        torch.manual_seed(0)
        block = PitchBlock(3, (12, 2))
        maps = torch.zeros(1, 3, N_PITCHES, 9)
        maps[:, :, 40, 4] = 1.0
        up = maps.roll(5, dims=2)
        torch.testing.assert_close(block(maps).roll(5, dims=2), block(up))

    def test_learned_filters_have_gradients(self):
        encoder = PitchMapEncoder(2, learned=True, kernel=512)
        encoder(torch.randn(1, 1, 3200)).square().mean().backward()
        for name in ("centre", "width"):
            self.assertGreater(getattr(encoder.filters, name).grad.abs().sum(), 0)


class TestContext(unittest.TestCase):
    def test_context_is_causal(self):
        encoder, context = make()
        z = torch.randn(1, 50, encoder.dim)
        other = z.clone()
        other[:, 30:] = 0
        c, changed = context(z)[0], context(other)[0]
        torch.testing.assert_close(c[:, :30], changed[:, :30])
        self.assertFalse(torch.allclose(c[:, 30], changed[:, 30]))

    def test_chunked_equals_unchunked(self):
        encoder, context = make()
        z = torch.randn(2, 60, encoder.dim)
        expected, _ = context(z)
        state, parts = None, []
        for chunk in z.split([3, 40, 17], dim=1):
            c, state = context(chunk, state)
            parts.append(c)
        torch.testing.assert_close(torch.cat(parts, dim=1), expected)


class TestTrunk(unittest.TestCase):
    def test_maps_and_features_round_trip(self):
        x = torch.randn(2, 7, N_PITCHES * 3)
        torch.testing.assert_close(_to_features(to_maps(x)), x)

    def test_trunk_sees_a_few_future_frames(self):
        encoder, context = make()
        trunk = PitchTrunk((encoder.dim, context.dim), 4)
        x = torch.randn(1, 40, encoder.dim + context.dim)
        other = x.clone()
        other[:, 24:] = 0
        y, changed = trunk(x), trunk(other)
        self.assertEqual(y.shape, (1, 40, N_PITCHES, 4))
        self.assertFalse(torch.allclose(y[:, 20], changed[:, 20]))
        torch.testing.assert_close(y[:, :18], changed[:, :18])
