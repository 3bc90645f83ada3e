"""Augmentations: levels, spectra, causality, and silence that stays silent."""

import math
import unittest
from unittest import mock

import numpy as np
import torch

from jtm.constants import SAMPLE_RATE
from jtm.models import AUGMENTATIONS
from jtm.models import augment as module_under_test
from jtm.models.augment import augment


def seeded(seed=0):
    """Return a seeded random generator."""
    return torch.Generator().manual_seed(seed)


def fixed(name, value):
    """Set a range of the module to one value."""
    return mock.patch.object(module_under_test, name, (value, value))


class TestAugment(unittest.TestCase):
    def setUp(self):
        self.wave = 0.1 * torch.randn(3, 1, 16000, generator=seeded(1))

    def test_every_kind_changes_every_window_differently(self):
        same = self.wave[:1].expand(3, 1, -1)
        for kind in AUGMENTATIONS:
            changed = augment(same, [kind], seeded())
            self.assertEqual(changed.shape, same.shape)
            for i, j in ((0, 1), (0, 2), (1, 2)):
                self.assertFalse(torch.allclose(changed[i], changed[j], rtol=1e-2))
                self.assertFalse(torch.allclose(changed[i], same[i], rtol=1e-2))
        torch.testing.assert_close(augment(same, [], seeded()), same)

    def test_same_seed_gives_same_augmentation(self):
        one, same, other = (
            augment(self.wave, AUGMENTATIONS, seeded(s)) for s in (0, 0, 1)
        )
        torch.testing.assert_close(one, same, rtol=0, atol=0)
        self.assertFalse(torch.allclose(one, other))

    def test_reverb_and_equaliser_are_causal(self):
        click = torch.zeros(4, 1, 16000)
        click[..., 9000] = 1.0
        for kind in ("reverb", "equaliser"):
            changed = augment(click, [kind], seeded())
            self.assertLess(changed[..., :9000].abs().max(), 1e-6)
            self.assertTrue((changed[..., 9000] > 0.3).all())
            self.assertGreater(changed[..., 9001:].abs().max(), 0.01)

    def test_silence_stays_silent(self):
        silence = torch.zeros(2, 1, 8000)
        torch.testing.assert_close(augment(silence, AUGMENTATIONS, seeded()), silence)

    def test_noise_has_the_given_ratio_and_slope(self):
        n = self.wave.shape[-1]
        for slope in (0.0, 1.0, 2.0):
            with fixed("SIGNAL_TO_NOISE", 20.0), fixed("NOISE_SLOPE", slope):
                noise = augment(self.wave, ["noise"], seeded()) - self.wave
            if slope < 2:  # brown noise is too slow for a mean over a second
                ratio = self.wave.square().mean() / noise.square().mean()
                self.assertAlmostEqual(10 * math.log10(ratio), 20.0, delta=1.0)
            power = torch.fft.rfft(noise[:, 0] * torch.hann_window(n)).abs().square()
            low, high = power[:, 400:600].mean(), power[:, 4000:6000].mean()
            self.assertAlmostEqual(math.log10(low / high), slope, delta=0.15)

    def test_level_multiplies_the_wave(self):
        with fixed("LEVELS", -6.0):
            changed = augment(self.wave, ["level"], seeded())
        torch.testing.assert_close(changed, 0.5011872 * self.wave)

    def test_equaliser_has_full_gain_at_the_centre_half_at_the_edges(self):
        decibels = (
            20
            * module_under_test._equaliser(
                torch.tensor([[1000.0], [200.0]]),
                torch.tensor([[6.0], [-9.0]]),
                torch.tensor([[1.0], [2.0]]),
                SAMPLE_RATE,
            )
            .abs()
            .log10()
        )
        for row, expected in (
            (0, {1000: 6, 707: 3, 1414: 3, 0: 0, 8000: 0, 50: 0}),
            (1, {200: -9, 100: -4.5, 400: -4.5}),
        ):
            for frequency, gain in expected.items():
                self.assertAlmostEqual(
                    decibels[row, frequency].item(), gain, delta=0.15
                )

    def test_reverberation_decays_by_60_db_in_its_time(self):
        tail = torch.randn(1, 16000, generator=seeded())
        response = module_under_test._reverberation(
            tail, torch.tensor([0.5]), torch.tensor([10.0])
        )[0]
        self.assertAlmostEqual(response.square().sum().item(), 1.0, places=5)
        direct, late = response[0].square(), response[1:].square()
        self.assertAlmostEqual(10 * math.log10(direct / late.sum()), 10.0, places=3)
        early, after = late[:800].mean(), late[8000:8800].mean()
        self.assertAlmostEqual(10 * math.log10(early / after), 60.0, delta=1.0)


class TestVaryMagnitudes(unittest.TestCase):
    def test_magnitudes_vary_with_the_seed_within_limits(self):
        x = torch.full((2, 30, 40), 0.5)
        augmented = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            augmented.append(module_under_test.augment_magnitudes(x))
        one, same, other = augmented
        torch.testing.assert_close(one, same)
        self.assertFalse(torch.allclose(one, other))
        decibels = 10 * 18 * (one - x) / np.log(10)
        self.assertLess(decibels.abs().max(), 30)
        self.assertGreater(decibels.std(), 1)

    def test_gains_are_from_12_db_down_to_6_db_up(self):
        torch.manual_seed(0)
        x = torch.full((400, 20, 8), 0.5)
        augmented = module_under_test.augment_magnitudes(x)
        gain = 10 * 18 * (augmented - x) / np.log(10)
        self.assertAlmostEqual(gain.median().item(), -3, delta=1)
        waves = torch.ones(400, 1, 500)
        level = module_under_test.augment_waves(waves).square().mean(2).log10()
        self.assertAlmostEqual(10 * level.min().item(), -12, delta=0.2)
        self.assertAlmostEqual(10 * level.max().item(), 6, delta=0.2)

    def test_silence_stays_silent(self):
        silent = torch.zeros(1, 5, 8)
        torch.testing.assert_close(module_under_test.augment_magnitudes(silent), silent)
