"""Checkpoints and exported networks; every setting of a network has an effect."""

import contextlib
import io
import json
import tempfile
import unittest
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from jtm.cli import main
from jtm.cpc.config import PretrainConfig
from jtm.cpc.run import build_criterion
from jtm.files import InputError, digest, read_json, write_json
from jtm.models.network import build_model
from jtm.training.checkpoints import (
    export,
    fingerprint,
    initial_model,
    load_model,
    load_part,
)
from jtm.training.config import (
    NetworkConfig,
    RunConfig,
    flag,
    make_config,
)

SINC = {"encoder_type": "sinc"}
TRANSFORMER = {"ar_mode": "transformer"}
HARMONIC = {"encoder_type": "harmonic"}

NETWORK = {
    "encoder_type": ({}, "conv"),
    "hidden_encoder": ({}, 3),
    "sinc_mode": (SINC, "plain"),
    "sinc_kernel": (SINC, 251),
    "sinc_spacing": (SINC, "mel"),
    "norm_mode": ({}, "instanceNorm"),
    "ar_mode": ({}, "LSTM"),
    "hidden_gar": ({}, 8),
    "gar_mode": ({"hidden_gar": 8}, "joint"),
    "layers_gar": ({"ar_mode": "GRU"}, 2),
    "abspos": (TRANSFORMER, True),
    "cpc_mode": ({}, "reverse"),
    "dropout": (TRANSFORMER, 0.5),
}
"""Settings of the network: base settings to test each on, and another value."""

TRAINED = {"use_sinc_net"}
"""Settings that change which parameters are learned, not the initial output."""

CRITERION = {
    "n_predicts": (HARMONIC, 2),
    "step_frames": (HARMONIC, 2),
    "anchor_frames": (HARMONIC, 1),
    "predictor": (SINC, "transformer"),
    "contrast": (HARMONIC, "pitch"),
    "negative_sampling_ext": (HARMONIC, 3),
    "share_negatives": (HARMONIC, "anchor"),
    "same_share": (HARMONIC, 1.0),
    "other_windows": (HARMONIC, True),
    "score": (HARMONIC, "inner"),
    "temperature": (HARMONIC, 0.5),
    "dropout": (HARMONIC, 0.5),
}
"""Settings of the criterion, in the same form."""


def settings(chosen):
    """Make the settings of a tiny run."""
    return make_config(PretrainConfig, "tiny", {"size_window": 10_000} | chosen)


class TestEverySettingHasAnEffect(unittest.TestCase):
    def assert_differs(self, name, base, value, outputs):
        one, other = outputs(base), outputs(base | {name: value})
        same = one.shape == other.shape and torch.allclose(one, other)
        self.assertFalse(same, name)
        torch.testing.assert_close(one, outputs(base), rtol=0, atol=0)

    def test_network_settings_change_the_context(self):
        names = {item.name for item in fields(NetworkConfig)}
        names -= {item.name for item in fields(RunConfig)}
        self.assertEqual(NETWORK.keys() | TRAINED, names)
        torch.manual_seed(0)
        wave = 0.1 * torch.randn(2, 1, 8000)

        def context(chosen):
            torch.manual_seed(1)  # for dropout
            return build_model(settings(chosen))(wave)[1]

        for name, (base, value) in NETWORK.items():
            self.assert_differs(name, base, value, context)

    def test_criterion_settings_change_the_loss(self):
        torch.manual_seed(0)
        z, c = torch.rand(3, 50, 352), torch.randn(3, 50, 352)
        recordings = torch.tensor([0, 0, 1])

        def loss(chosen):
            config = settings({"step_frames": 1, "n_predicts": 4} | chosen)
            model = build_model(config)
            torch.manual_seed(1)  # for dropout
            criterion = build_criterion(config, model)
            generator = torch.Generator().manual_seed(0)
            parts = z[..., : model.z_dim], c[..., : model.c_dim]
            return criterion(*parts, recordings, generator)["loss"]

        for name, (base, value) in CRITERION.items():
            self.assert_differs(name, base, value, loss)

    def test_mismatched_settings_are_named(self):
        named = set()
        for name, (base, value) in (NETWORK | CRITERION).items():
            saved, chosen = settings(base), settings(base | {name: value})
            model = build_model(saved)
            parts = {"model": model, "criterion": build_criterion(saved, model)}
            content = {
                "config": asdict(saved),
                "state_dict": {
                    f"{part}.{key}": weights
                    for part, module in parts.items()
                    for key, weights in module.state_dict().items()
                },
            }
            model = build_model(chosen)
            for part, module in (
                ("model", model),
                ("criterion", build_criterion(chosen, model)),
            ):
                try:
                    load_part("x.pt", content, part, module, chosen)
                except InputError as error:
                    self.assertIn(f"--{flag(name)} is ", str(error))
                    named.add(name)
        self.assertGreaterEqual(named, {"hidden_encoder", "ar_mode", "n_predicts"})


class TestExport(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.checkpoint = self.folder / "checkpoint0.pt"
        self.out = self.folder / "deep" / "net.safetensors"

    def write(self, chosen):
        """Write a checkpoint as pretraining does."""
        settings = {"data": "/home/me/sounds", "path_checkpoint": "/home/me/logs"}
        settings["load"] = "/home/me/earlier.pt"
        self.config = make_config(PretrainConfig, "tiny", chosen | settings)
        self.model = build_model(self.config)
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        state["criterion.weight"] = torch.zeros(3)
        rows = [{"epoch": 0, "split": "train", "loss": 1.5}]
        content = {"state_dict": state, "config": asdict(self.config), "history": rows}
        torch.save(content, self.checkpoint)

    def test_every_network_round_trips(self):
        wave = torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0))
        for name, (base, value) in NETWORK.items():
            with self.subTest(name):
                self.write(base | {name: value, "random_seed": 3})
                export(self.checkpoint, self.out)
                model, config = load_model(self.out)
                self.assertEqual(getattr(config, name), value)
                for one, other in zip(
                    model(wave), self.model.eval()(wave), strict=True
                ):
                    torch.testing.assert_close(one, other, rtol=0, atol=0)

    def test_exported_file_holds_only_the_network(self):
        self.write({})
        export(self.checkpoint, self.out)
        size = int.from_bytes(self.out.read_bytes()[:8], "little")
        header = json.loads(self.out.read_bytes()[8 : 8 + size])
        (text,) = header.pop("__metadata__").values()
        self.assertEqual(header.keys(), self.model.state_dict().keys())
        self.assertEqual(json.loads(text)["network"].keys(), NETWORK.keys() | TRAINED)
        first = self.out.read_bytes()
        export(self.checkpoint, self.out)
        self.assertEqual(self.out.read_bytes(), first)

    def test_sidecar_file_describes_the_export(self):
        self.write({"batch_size": 3})
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = main(
                ["export", "--load", str(self.checkpoint), "--out", str(self.out)]
            )
        self.assertEqual(code, 0)
        facts = read_json(self.out.with_suffix(".json"))
        self.assertEqual(facts["sha256"], digest(self.out))
        self.assertEqual(facts["checkpoint"], digest(self.checkpoint))
        self.assertIn(facts["sha256"], output.getvalue())
        self.assertEqual(facts["bytes"], self.out.stat().st_size)
        self.assertEqual(
            facts["parameters"], sum(p.numel() for p in self.model.parameters())
        )
        self.assertEqual(facts["config"]["batch_size"], 3)
        self.assertEqual(facts["config"]["data"], "sounds")
        self.assertEqual(facts["history"][0]["loss"], 1.5)
        self.assertNotIn("/home", self.out.with_suffix(".json").read_text())

    def test_record_of_another_network_is_not_taken_over(self):
        self.write({})
        facts = export(self.checkpoint, self.out)
        again = self.out.with_name("again.safetensors")
        self.assertEqual(export(self.out, again), facts | {"sha256": digest(again)})
        for other in ({"a": 1}, facts | {"sha256": "0" * 64}, [1]):
            write_json(self.out.with_suffix(".json"), other)
            record = export(self.out, again)
            self.assertEqual(record["checkpoint"], digest(self.out))
            self.assertEqual(record["history"], [])
            self.assertNotIn("a", record)
        self.out.with_suffix(".json").write_text("{")
        self.assertEqual(export(self.out, again)["history"], [])

    def test_run_adopts_the_settings_of_the_network_that_it_starts_from(self):
        self.write({"hidden_encoder": 6, "dropout": 0.1})
        config = make_config(PretrainConfig, "tiny", {"load": str(self.checkpoint)})
        self.assertNotEqual(config.hidden_encoder, 6)
        model, adopted = initial_model(config)
        self.assertEqual(adopted.hidden_encoder, 6)
        weights = self.model.state_dict()
        self.assertEqual(fingerprint(model.state_dict()), fingerprint(weights))
        self.assertEqual(adopted.load, str(self.checkpoint))

    def test_fingerprint_tells_shapes_and_types_apart(self):
        numbers = torch.zeros(2, 3)
        others = (numbers, numbers.T, numbers.to(torch.int32), numbers + 1)
        hashes = {fingerprint({"a": weights}) for weights in others}
        self.assertEqual(len(hashes | {fingerprint({"b": numbers})}), 5)

    def test_damaged_and_foreign_files_are_refused(self):
        self.write({})
        export(self.checkpoint, self.out)
        whole = self.out.read_bytes()
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        for content, message in (
            (flipped, "its checksum differs"),
            (whole[:-10], "no network of JTM, or damaged"),
            (b"", "`jtm export` or `jtm train --preset transcriber` wrote"),
            (b"RIFF" * 100, "no network of JTM, or damaged"),
        ):
            self.out.write_bytes(content)
            with self.assertRaisesRegex(InputError, f"net.safetensors: .*{message}"):
                load_model(self.out)
        self.out.write_bytes(whole)
        weights = load_file(self.out)
        for metadata in (None, {"jtm": "{}"}, {"jtm": "[]"}, {"jtm": "no JSON"}):
            save_file(weights, self.out, metadata)
            with self.assertRaisesRegex(InputError, "no network of JTM"):
                load_model(self.out)

    def test_files_that_are_not_checkpoints_are_refused(self):
        sentences = [f"{first} begins a text, not a network\n" for first in "etusb"]
        for content in (
            b"RIFF" * 200,
            *(sentence.encode() for sentence in sentences),
            b"X\1\0\0\0\xb1.",  # text that is not UTF-8
            b"G\0.",  # a truncated number
        ):
            self.checkpoint.write_bytes(content)
            with self.assertRaisesRegex(InputError, "t0.pt: not a checkpoint of JTM"):
                load_model(self.checkpoint)
        for state, settings in (({1: torch.zeros(1)}, {}), ({}, {2: 3})):
            torch.save({"state_dict": state, "config": settings}, self.checkpoint)
            with self.assertRaisesRegex(InputError, "t0.pt: not a checkpoint of JTM"):
                load_model(self.checkpoint)

    def test_invalid_paths_are_refused(self):
        self.write({})
        with self.assertRaisesRegex(InputError, "expected a name ending in .safe"):
            export(self.checkpoint, self.folder / "net.pt")
        with self.assertRaisesRegex(InputError, "none.pt: no such checkpoint"):
            export(self.folder / "none.pt", self.out)
        self.assertFalse(self.out.exists())


if __name__ == "__main__":
    unittest.main()
