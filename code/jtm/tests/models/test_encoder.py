"""Encoders: frame grid, norms, filter bands and invariances."""

import math
import unittest

import numpy as np
import torch

from jtm.constants import HOP, SAMPLE_RATE
from jtm.models.encoder import (
    HARMONICS,
    NORMS,
    ConvEncoder,
    HarmonicEncoder,
    SincEncoder,
    _FrameConv,
    _SincFilters,
)


def sine(pitch, samples, phase=0.0):
    """Return a sine of amplitude 0.5 at a MIDI pitch, (1, 1, samples)."""
    time = torch.arange(samples) / SAMPLE_RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return 0.5 * torch.sin(2 * math.pi * frequency * time + phase)[None, None]


ENCODERS = (
    lambda: ConvEncoder(16),
    lambda: SincEncoder(16),
    lambda: SincEncoder(16, quadrature=False, kernel=251, spacing="mel"),
    lambda: HarmonicEncoder(2),
)


class TestFrameGrid(unittest.TestCase):
    def test_one_latent_per_hop_for_any_length(self):
        for make in ENCODERS:
            encoder = make()
            self.assertEqual(encoder.hop, HOP)
            for samples in (20480, 20479, 20481, 16000, HOP):
                z = encoder(torch.randn(2, 1, samples))
                self.assertEqual(z.shape, (2, samples // HOP, encoder.dim))

    def test_shift_by_hops_shifts_the_latents(self):
        torch.manual_seed(0)
        wave = torch.randn(1, 1, 16000)
        for make in ENCODERS:
            encoder = make().eval()
            z, shifted = encoder(wave), encoder(wave[..., 10 * HOP :])
            torch.testing.assert_close(
                z[:, 40:70], shifted[:, 30:60], rtol=1e-3, atol=1e-4
            )

    def test_click_peaks_in_its_own_frame(self):
        filters = _SincFilters(20, 512, HOP, low=60.0, high=100.0)
        wave = torch.zeros(1, 1, 8000)
        wave[..., 25 * HOP + HOP // 2] = 1.0
        self.assertEqual(filters(wave).sum(2).argmax().item(), 25)


class TestNorms(unittest.TestCase):
    def test_norms_standardise_over_their_axes(self):
        x = torch.randn(3, 50, 6) * 4 + 2  # (batch, frames, channels)
        over = {"channelNorm": 2, "batchNorm": (0, 1), "instanceNorm": 1}
        for name, axes in over.items():
            y = NORMS[name](6)(x)
            mean = y.mean(axes)
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
            std = y.std(axes, correction=0)
            torch.testing.assert_close(std, torch.ones_like(std), atol=1e-3, rtol=0)
        self.assertIs(NORMS["none"](6)(x), x)

    def test_every_norm_changes_the_output(self):
        wave = torch.cat((sine(69, 8000), 0.1 * sine(50, 8000)))
        for make in (ConvEncoder, HarmonicEncoder, SincEncoder):
            outputs = []
            for norm in NORMS:
                torch.manual_seed(0)
                outputs.append(make(8, norm=norm)(wave))
            for i, one in enumerate(outputs):
                for other in outputs[:i]:
                    self.assertFalse(torch.allclose(one, other))


class TestFrameConv(unittest.TestCase):
    def test_equals_conv1d_with_channels_first(self):
        torch.manual_seed(0)
        for kernel, stride, padding in ((10, 5, 3), (8, 4, 2), (3, 1, 1), (1, 1, 0)):
            conv = _FrameConv(4, 6, kernel, stride, padding)
            plain = torch.nn.Conv1d(4, 6, kernel, stride, padding)
            plain.load_state_dict(conv.state_dict())
            for frames in (kernel, 41):
                x = torch.randn(2, frames, 4)
                torch.testing.assert_close(
                    conv(x), plain(x.transpose(1, 2)).transpose(1, 2)
                )


class TestSincFilters(unittest.TestCase):
    def test_bands_match_the_spectra_of_the_kernels(self):
        filters = _SincFilters(30, 2048, HOP, quadrature=False, low=60.0, high=110.0)
        spectra = np.abs(np.fft.rfft(filters.kernels().detach().numpy(), 1 << 15))
        peaks = spectra.argmax(1) * SAMPLE_RATE / (1 << 15)
        centres = filters.bands()[0].detach().numpy()
        np.testing.assert_array_less(np.abs(12 * np.log2(peaks / centres)), 1.0)

    def test_sine_peaks_in_the_filter_of_its_pitch(self):
        filters = _SincFilters(99, 2048, HOP, low=21.0, high=119.0)
        for pitch in (57, 69, 81, 100):
            spectrum = filters(sine(pitch, 8000))[0, 20:30].mean(0)
            self.assertEqual(spectrum.argmax().item(), pitch - 21)

    def test_quadrature_is_invariant_to_phase(self):
        filters = _SincFilters(99, 2048, HOP)
        one = filters(sine(69, 8000))[:, 10:40]
        other = filters(sine(69, 8000, phase=1.3))[:, 10:40]
        torch.testing.assert_close(one[..., 48], other[..., 48], rtol=1e-3, atol=1e-3)
        plain = _SincFilters(99, 2048, HOP, quadrature=False)
        one, other = plain(sine(69, 8000)), plain(sine(69, 8000, phase=1.3))
        self.assertGreater((one - other)[..., 48].abs().max(), 1.0)

    def test_plain_form_equals_sincnets_difference_of_low_passes(self):
        filters = _SincFilters(5, 251, 5, quadrature=False, low=60.0, high=100.0)
        centre, width = filters.bands()
        low, high = (centre - width / 2)[:, None], (centre + width / 2)[:, None]
        time = filters.time
        band = 2 * high * torch.sinc(2 * high * time)
        band = (band - 2 * low * torch.sinc(2 * low * time)) * filters.window
        band = band / band.norm(dim=1, keepdim=True)
        ours = filters.kernels() / filters.kernels().norm(dim=1, keepdim=True)
        torch.testing.assert_close(ours, band, rtol=1e-3, atol=1e-4)

    def test_filters_of_the_bank_are_distinct(self):
        centres, _ = HarmonicEncoder(2).filters.bands()
        self.assertTrue((centres.diff() > 0).all())

    def test_cut_offs_are_learned_and_stay_in_range(self):
        torch.manual_seed(0)
        for quadrature in (True, False):
            filters = _SincFilters(40, 251, HOP, quadrature=quadrature)
            start = [band.clone() for band in filters.bands()]
            filters(torch.randn(1, 1, 4000)).square().sum().backward()
            torch.optim.SGD(filters.parameters(), 1.0).step()
            for before, after in zip(start, filters.bands(), strict=True):
                self.assertFalse(torch.allclose(before, after))
            for centre, width in ((500.0, -900.0), (-500.0, 0.0)):
                with torch.no_grad():
                    filters.centre.fill_(centre)
                    filters.width.fill_(width)
                centres, widths = filters.bands()
                self.assertTrue((centres >= 25.9).all())
                self.assertTrue((centres <= SAMPLE_RATE / 2 + 0.1).all())
                self.assertTrue((widths > 0).all())
                output = filters(torch.randn(1, 1, 4000))
                self.assertTrue(torch.isfinite(output).all())

    def test_mel_spacing_is_even_in_mel(self):
        filters = _SincFilters(40, 251, 5, spacing="mel")
        mel = 2595 * torch.log10(1 + filters.bands()[0] / 700)
        steps = torch.diff(mel)
        torch.testing.assert_close(steps, steps.mean().expand(39), rtol=0.02, atol=0.5)


class TestHarmonicEncoder(unittest.TestCase):
    def test_transposition_shifts_the_pitch_axis(self):
        torch.manual_seed(0)
        encoder = HarmonicEncoder(4, norm="none").eval()
        silence = encoder(torch.zeros(1, 1, 8000))
        low, high = (
            (encoder(sine(p, 8000)) - silence).view(50, 88, 6) for p in (76, 79)
        )
        one, other = low[25, 30:70].flatten(), high[25, 33:73].flatten()
        same = torch.cosine_similarity(one, other, dim=0)
        self.assertGreater(same, 0.9)
        still = torch.cosine_similarity(one, high[25, 30:70].flatten(), dim=0)
        self.assertLess(still, 0.5)

    def test_stack_has_the_octave_below_and_harmonics_1_to_8(self):
        semitones = [-12, *(12 * math.log2(number) for number in range(1, 9))]
        np.testing.assert_allclose(HARMONICS, semitones, atol=0.005)

    def test_latents_include_the_magnitudes_of_each_pitch(self):
        encoder = HarmonicEncoder(4).eval()
        wave = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
        own = encoder(wave).view(50, 88, 6)[..., 4:]
        # Two bins a semitone from a semitone below the lowest pitch.
        bins = encoder.filters(wave)[0, :, 2 : 2 + 2 * 88]
        torch.testing.assert_close(own.flatten(1), bins)


if __name__ == "__main__":
    unittest.main()
