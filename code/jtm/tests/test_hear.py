"""The HEAR API as specified."""

import itertools
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from torch import nn

import jtm
from jtm import hear
from jtm.files import InputError
from jtm.models.network import Network
from jtm.tests.evaluation.little import write_checkpoint

LENGTHS = (1, 2, 79, 80, 81, 159, 160, 161, 239, 240, 241, 1600, 16_000, 16_079, 16_123)
"""Lengths in samples: around half and whole hops of 160, and others."""


def make_batch(n_sounds, n_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.4 * torch.rand(n_sounds, n_samples, generator=generator) - 0.2


class TestHear(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            write_checkpoint(path)
            cls.model = hear.load_model(str(path))

    def test_model_has_the_required_attributes(self):
        for model in (self.model, hear.load_model(), jtm.hear.load_model("")):
            self.assertIsInstance(model, nn.Module)
            self.assertFalse(model.training)
            self.assertGreater(len(list(model.parameters())), 0)
            for name in (
                "sample_rate",
                "timestamp_embedding_size",
                "scene_embedding_size",
            ):
                self.assertIs(type(getattr(model, name)), int)
            self.assertIn(model.sample_rate, (16_000, 22_050, 32_000, 44_100, 48_000))

    def test_shapes_and_dtypes_for_every_length(self):
        for n_sounds, n_samples in ((1, 16_000), (3, 4321), *((2, n) for n in LENGTHS)):
            audio = make_batch(n_sounds, n_samples)
            embeddings, timestamps = hear.get_timestamp_embeddings(audio, self.model)
            scenes = hear.get_scene_embeddings(audio, self.model)
            size = self.model.timestamp_embedding_size
            self.assertEqual(embeddings.shape, (*timestamps.shape, size))
            self.assertEqual(timestamps.shape[0], n_sounds)
            self.assertEqual(scenes.shape, (n_sounds, self.model.scene_embedding_size))
            for result in (embeddings, timestamps, scenes):
                self.assertEqual(result.dtype, torch.float32)
                self.assertTrue(torch.isfinite(result).all())
                self.assertFalse(result.requires_grad)

    def test_timestamps(self):
        for n_samples in LENGTHS:
            with self.subTest(n_samples):
                audio = make_batch(2, n_samples)
                _, timestamps = hear.get_timestamp_embeddings(audio, self.model)
                self.assertTrue(torch.equal(timestamps[0], timestamps[1]))
                end, times = n_samples / 16, timestamps[0]
                steps = times.diff()
                if len(steps):
                    self.assertLessEqual(steps.max().item(), 50)
                    self.assertLess(steps.max().item() - steps.min().item(), 1)
                    self.assertAlmostEqual(times[0].item(), steps[0].item() / 2, 3)
                self.assertGreaterEqual(times[0].item(), 0)
                self.assertLess(times[-1].item(), end)
                self.assertLessEqual(end - times[-1].item(), 10)

    def test_timestamps_are_frame_centres(self):
        lengths = (1, 60, 80, 81, 159, 160, 161, 239, 240, 241, 479, 480, 1600, 4321)
        for hop, n_samples in itertools.product((160, 320), lengths):
            model = hear.HearModel(Network(Energy(hop), Latents()))
            click_times, half = set(), hop / 32  # ms
            for sample in range(0, n_samples, 7):
                click = torch.zeros(1, n_samples)
                click[0, sample] = 0.5
                energy, times = hear.get_timestamp_embeddings(click, model)
                if not energy.any():  # the click lies after the last frame
                    self.assertGreaterEqual(sample / 16 - times[0, -1].item(), half)
                    continue
                time = times[0, energy[0, :, 0].argmax()].item()
                self.assertLessEqual(abs(time - sample / 16), half)
                click_times.add(time)
            self.assertEqual(click_times, set(times[0].tolist()))

    def test_embeddings_do_not_depend_on_the_batch(self):
        audio = make_batch(3, 5000)
        audio[1] = 0
        batched = hear.get_timestamp_embeddings(audio, self.model)[0]
        scenes = hear.get_scene_embeddings(audio, self.model)
        for row in range(3):
            alone = audio[row : row + 1]
            one = hear.get_timestamp_embeddings(alone, self.model)[0]
            torch.testing.assert_close(one[0], batched[row], rtol=0, atol=0)
            one = hear.get_scene_embeddings(alone, self.model)
            torch.testing.assert_close(one[0], scenes[row], rtol=0, atol=0)
        self.assertFalse(torch.allclose(scenes[0], scenes[2]))

    def test_timestamp_embeddings_equal_embed(self):
        audio = make_batch(1, 16_000)
        embeddings, times = hear.get_timestamp_embeddings(audio, self.model)
        expected = jtm.embed(audio[0].numpy(), 16_000, self.model.network)
        torch.testing.assert_close(embeddings[0], torch.from_numpy(expected[0]))
        torch.testing.assert_close(
            times[0], torch.from_numpy(1000 * expected[1]).float()
        )

    def test_scene_embeddings_are_means_and_standard_deviations(self):
        audio = make_batch(1, 3210)
        embeddings, _ = hear.get_timestamp_embeddings(audio, self.model)
        mean, deviation = hear.get_scene_embeddings(audio, self.model).chunk(2, dim=1)
        torch.testing.assert_close(mean, embeddings.mean(1))
        torch.testing.assert_close(deviation, embeddings.std(1, correction=0))

    def test_invalid_batches_are_refused(self):
        for audio in (
            np.zeros((1, 16_000), np.float32),
            torch.zeros(16_000),
            torch.zeros(2, 0),
            torch.zeros(0, 100),
            torch.zeros(1, 100, dtype=torch.int16),
        ):
            for function in (hear.get_timestamp_embeddings, hear.get_scene_embeddings):
                with self.assertRaisesRegex(InputError, r"\(n_sounds, n_samples\)"):
                    function(audio, self.model)
        with self.assertRaisesRegex(InputError, "not finite"):
            hear.get_scene_embeddings(torch.full((1, 100), torch.nan), self.model)


class Energy(nn.Module):
    """An encoder that returns the energy of each frame."""

    dim = 1

    def __init__(self, hop):
        super().__init__()
        self.hop = hop
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, wave):
        whole = wave[:, 0, : wave.shape[-1] // self.hop * self.hop]
        frames = whole.unflatten(1, (-1, self.hop))
        return self.one * frames.square().sum(2, keepdim=True)


class Latents(nn.Module):
    """A context network that returns the latents unchanged."""

    dim = 1

    def forward(self, z, state=None):
        return z, state


if __name__ == "__main__":
    unittest.main()
