"""Networks made from settings: every setting of them makes a difference."""

import unittest
from dataclasses import asdict, fields

import torch

from jtm.files import InputError
from jtm.training.checkpoints import build_criterion, build_model, load_part
from jtm.training.config import (
    NetworkConfig,
    PretrainConfig,
    RunConfig,
    flag,
    make_config,
)

SINC = {"encoder_type": "sinc"}
TRANSFORMER = {"ar_mode": "transformer"}

NETWORK = {
    "encoder_type": ({}, "conv"),
    "hidden_encoder": ({}, 3),
    "sinc_mode": (SINC, "plain"),
    "sinc_kernel": (SINC, 251),
    "sinc_spacing": (SINC, "mel"),
    "norm_mode": ({}, "instanceNorm"),
    "ar_mode": ({}, "LSTM"),
    "hidden_gar": ({}, 8),
    "gar_mode": ({}, "joint"),
    "layers_gar": ({}, 2),
    "abspos": (TRANSFORMER, True),
    "cpc_mode": ({}, "reverse"),
    "dropout": (TRANSFORMER, 0.5),
}
"""Settings of the network: what each is tried on, and its other value."""

CRITERION = {
    "n_predicts": ({}, 2),
    "step_frames": ({}, 2),
    "aligned": ({}, 6),
    "anchor_frames": ({}, 1),
    "predictor": (SINC, "transformer"),
    "negative_sampling_ext": ({}, 3),
    "share_negatives": ({}, "anchor"),
    "same_share": ({}, 1.0),
    "other_windows": ({}, True),
    "score": ({}, "inner"),
    "temperature": ({}, 0.5),
    "dropout": ({}, 0.5),
}
"""Settings of the criterion, likewise."""


def settings(chosen):
    """Make the settings of a very small run."""
    return make_config(PretrainConfig, "tiny", {"size_window": 10_000} | chosen)


class TestEverySettingMakesADifference(unittest.TestCase):
    def differs(self, name, base, value, outputs):
        one, other = outputs(base), outputs(base | {name: value})
        same = one.shape == other.shape and torch.allclose(one, other)
        self.assertFalse(same, name)
        torch.testing.assert_close(one, outputs(base), rtol=0, atol=0)

    def test_of_the_network(self):
        asked = {item.name for item in fields(NetworkConfig)}
        asked -= {item.name for item in fields(RunConfig)}
        self.assertEqual(NETWORK.keys(), asked)
        torch.manual_seed(0)
        wave = 0.1 * torch.randn(2, 1, 8000)

        def context(chosen):
            torch.manual_seed(1)  # for dropout
            return build_model(settings(chosen))(wave)[1]

        for name, (base, value) in NETWORK.items():
            self.differs(name, base, value, context)

    def test_of_the_criterion(self):
        torch.manual_seed(0)
        z, c = torch.randn(3, 50, 176), torch.randn(3, 50, 352)
        recordings = torch.tensor([0, 0, 1])

        def loss(chosen):
            config = settings({"step_frames": 1, "n_predicts": 4} | chosen)
            model = build_model(config)
            torch.manual_seed(1)  # for dropout
            criterion = build_criterion(config, model)
            chance = torch.Generator().manual_seed(0)
            parts = z[..., : model.z_dim], c[..., : model.c_dim]
            return criterion(*parts, recordings, chance)["loss"]

        for name, (base, value) in CRITERION.items():
            self.differs(name, base, value, loss)

    def test_of_a_misfit_the_setting_is_told(self):
        told = set()
        for name, (base, value) in (NETWORK | CRITERION).items():
            there, here = settings(base), settings(base | {name: value})
            model = build_model(there)
            parts = {"model": model, "criterion": build_criterion(there, model)}
            content = {
                "config": asdict(there),
                "state_dict": {
                    f"{part}.{key}": weights
                    for part, module in parts.items()
                    for key, weights in module.state_dict().items()
                },
            }
            model = build_model(here)
            for part, module in (
                ("model", model),
                ("criterion", build_criterion(here, model)),
            ):
                try:
                    load_part("x.pt", content, part, module, here)
                except InputError as error:
                    self.assertIn(f"--{flag(name)} is ", str(error))
                    told.add(name)
        self.assertGreaterEqual(told, {"hidden_encoder", "ar_mode", "n_predicts"})


if __name__ == "__main__":
    unittest.main()
