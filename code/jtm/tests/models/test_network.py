"""The whole network: causality, overfitting of one batch, and seeds."""

import unittest

import torch

from jtm.constants import HOP
from jtm.cpc.config import PretrainConfig
from jtm.cpc.run import build_criterion
from jtm.models import ENCODERS
from jtm.models.encoder import HarmonicStack
from jtm.models.network import build_model
from jtm.tests.evaluation.little import make_network
from jtm.training.config import make_config


class TestNetwork(unittest.TestCase):
    def test_context_ignores_audio_beyond_the_receptive_field(self):
        torch.manual_seed(0)
        wave = torch.randn(1, 1, 100 * HOP)
        changed = wave.clone()
        changed[..., 60 * HOP :] = 0
        for encoder, size in (("conv", 16), ("sinc", 16), ("harmonic", 2)):
            model = make_network(encoder_type=encoder, hidden_encoder=size).eval()
            (_, c), (_, after) = model(wave), model(changed)
            reach = 10  # frames: half of the longest filter, and the layers after it
            torch.testing.assert_close(c[:, : 60 - reach], after[:, : 60 - reach])
            self.assertFalse(torch.allclose(c[:, 61], after[:, 61]))

    def test_reverse_context_summarises_the_future(self):
        torch.manual_seed(0)
        wave = torch.randn(1, 1, 100 * HOP)
        changed = wave.clone()
        changed[..., : 40 * HOP] = 0
        model = make_network(hidden_encoder=16, cpc_mode="reverse").eval()
        (_, c), (_, after) = model(wave), model(changed)
        torch.testing.assert_close(c[:, 50:], after[:, 50:])
        self.assertFalse(torch.allclose(c[:, 38], after[:, 38]))

    def test_only_mono_waveforms_are_accepted(self):
        model = make_network(hidden_encoder=16).eval()
        for shape in ((1, 2, 20 * HOP), (1, 20 * HOP), (20 * HOP,)):
            with self.assertRaisesRegex(ValueError, r"expected \(batch, 1, samples\)"):
                model(torch.zeros(shape))

    def test_one_batch_can_be_overfitted(self):
        torch.manual_seed(0)
        wave = torch.randn(4, 1, 40 * HOP)
        chosen = {"hidden_encoder": 32, "hidden_gar": 64, "score": "cosine"}
        chosen |= {"n_predicts": 2, "negative_sampling_ext": 8}
        config = make_config(PretrainConfig, "reference", chosen)
        model = build_model(config)
        criterion = build_criterion(config, model)
        weights = [*model.parameters(), *criterion.parameters()]
        optimizer = torch.optim.Adam(weights, 1e-2)
        generator = torch.Generator()
        for _ in range(150):
            z, c = model(wave)
            named = criterion(z, c, torch.arange(4), generator.manual_seed(0))
            optimizer.zero_grad()
            named["loss"].backward()
            optimizer.step()
        self.assertLess(named["loss"].item(), 0.5)
        self.assertGreater(named["accuracy_1"].item(), 0.9)

    def test_encoders_are_as_listed(self):
        for name, listed in ENCODERS.items():
            config = make_config(PretrainConfig, "tiny", {"encoder_type": name})
            encoder = build_model(config).encoder
            self.assertEqual(encoder.hop, listed.stride * HOP, name)
            self.assertEqual(isinstance(encoder, HarmonicStack), listed.pitch_axis)

    def test_same_seed_gives_same_network(self):
        outputs = []
        for seed in (0, 0, 1):
            model = make_network(random_seed=seed).eval()
            outputs.append(model(torch.ones(1, 1, 1600))[1])
        torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
        self.assertFalse(torch.allclose(outputs[0], outputs[2]))


if __name__ == "__main__":
    unittest.main()
