"""Settings: presets, limits, dependencies and JSON."""

import json
import math
import tempfile
import unittest
from dataclasses import asdict, fields
from pathlib import Path
from unittest import mock

from jtm.cpc.config import PretrainConfig
from jtm.files import InputError
from jtm.models import ENCODERS
from jtm.training.config import (
    PRESETS,
    SupervisedConfig,
    _explain,
    flag,
    make_config,
)
from jtm.transcriber.config import TranscriberConfig


class TestConfig(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_reference_preset_is_the_published_recipe(self):
        config = make_config(PretrainConfig, "reference", {})
        self.assertEqual(config.encoder_type, "conv")
        self.assertEqual(config.hidden_encoder, 512)
        self.assertEqual((config.ar_mode, config.hidden_gar), ("GRU", 256))
        self.assertEqual((config.n_predicts, config.step_frames), (12, 1))
        self.assertEqual(config.negative_sampling_ext, 128)
        self.assertEqual((config.size_window, config.batch_size), (20480, 8))

    def test_settings_of_a_preset_without_effect_are_dropped(self):
        chosen = {"encoder_type": "harmonic", "contrast": "pitch"}
        config = make_config(PretrainConfig, "reference", chosen)
        self.assertEqual((config.contrast, config.share_negatives), ("pitch", "window"))
        with self.assertRaisesRegex(InputError, "--shareNegatives needs --contrast"):
            chosen["share_negatives"] = "anchor"
            make_config(PretrainConfig, "reference", chosen)

    def test_frames_are_contrasted_as_if_chosen_where_pitches_cannot_be(self):
        for chosen in ({"ar_mode": "transformer"}, {"gar_mode": "joint"}):
            config = make_config(PretrainConfig, "small", chosen)
            self.assertEqual(config.contrast, "frame")
            self.assertEqual(config.negative_sampling_ext, 256)
        chosen = {"encoder_type": "pitchmap", "step_frames": 2, "anchor_frames": 2}
        chosen["ar_mode"] = "transformer"
        config = make_config(PretrainConfig, "reference", chosen)
        self.assertEqual((config.share_negatives, config.same_share), ("anchor", 0.0))

    def test_latent_size_depends_on_the_encoder(self):
        for preset in PRESETS:
            for encoder in ("conv", "sinc", "harmonic"):
                chosen = {"encoder_type": encoder}
                config = make_config(PretrainConfig, preset, chosen)
                self.assertGreater(config.hidden_encoder, 0)
        chosen = {"encoder_type": "sinc", "hidden_encoder": 40}
        self.assertEqual(make_config(PretrainConfig, "tiny", chosen).hidden_encoder, 40)

    def test_pitchwise_needs_a_pitch_axis_and_a_recurrent_network(self):
        config = make_config(PretrainConfig, "small", {})
        self.assertEqual((config.gar_mode, config.hidden_gar), ("pitchwise", 32))
        config = make_config(PretrainConfig, "small", {"encoder_type": "harmonic"})
        self.assertEqual((config.gar_mode, config.hidden_gar), ("pitchwise", 16))
        for chosen in ({"encoder_type": "sinc"}, {"ar_mode": "transformer"}):
            config = make_config(PretrainConfig, "small", chosen)
            self.assertEqual((config.gar_mode, config.hidden_gar), ("joint", 256))
            self.assertEqual(config.contrast, "frame")
            with self.assertRaisesRegex(InputError, "--contrast both needs --garMode"):
                make_config(PretrainConfig, "small", chosen | {"contrast": "both"})
            with self.assertRaisesRegex(InputError, "--garMode pitchwise needs"):
                make_config(PretrainConfig, "small", chosen | {"gar_mode": "pitchwise"})

    def test_sequential_needs_a_forward_recurrent_network(self):
        for other in ({"ar_mode": "transformer"}, {"cpc_mode": "reverse"}):
            chosen = {"sampling_type": "sequential"} | other
            with self.assertRaisesRegex(InputError, "sequential carries hidden"):
                make_config(PretrainConfig, "small", chosen)

    def test_values_outside_their_limits_are_refused(self):
        for name, value, message in (
            ("sampling_type", "random", "expected 'uniform', 'samesequence'"),
            ("batch_size", 0, "a number greater than or equal to 1"),
            ("dropout", 1.5, "less than or equal to 0.9"),
            ("n_predicts", 1.5, "a valid integer"),
            ("augment_past", "noise,pitch", "noise,reverb,equaliser,level or some"),
            ("augment_past", "noise,noise", "each once"),
            ("augment_past", "noise,", "each once"),
            ("encoder_type", "mlp", "'conv', 'sinc', 'harmonic'"),
            ("gar_mode", "x", "'pitchwise' or 'joint'"),
            ("learning_rate", math.nan, "a finite number"),
            ("scheduler_ramp", math.inf, "a finite number"),
        ):
            with self.assertRaisesRegex(InputError, f"--{flag(name)}.*{message}"):
                make_config(PretrainConfig, "small", {name: value})
        for chosen in (
            {"ar_mode": "transformer"},
            {"predictor": "transformer", "gar_mode": "joint"},
        ):
            with self.assertRaisesRegex(InputError, "multiple of 8"):
                make_config(PretrainConfig, "small", chosen | {"hidden_gar": 20})
        chosen = {"encoder_type": "sinc", "hidden_encoder": 1}
        with self.assertRaisesRegex(InputError, "--hiddenEncoder is 1; .* least 2"):
            make_config(PretrainConfig, "small", chosen)

    def test_settings_without_effect_are_refused(self):
        for name, value, message in (
            ("sinc_mode", "plain", "--sincMode needs --encoderType sinc"),
            ("sinc_kernel", 300, "--sincKernel needs --encoderType sinc"),
            ("sinc_spacing", "mel", "--sincSpacing needs --encoderType sinc"),
            ("abspos", True, "--abspos needs --arMode transformer"),
            ("labels_by", "composer", "--labelsBy needs --samplingType samecategory"),
            ("load_criterion", True, "--loadCriterion needs --load"),
        ):
            with self.assertRaisesRegex(InputError, message):
                make_config(PretrainConfig, "small", {name: value})
        for kind in (SupervisedConfig, TranscriberConfig):
            chosen = {"dropout": 0.1}
            with self.assertRaisesRegex(InputError, "--dropout needs --arMode transf"):
                make_config(kind, "small", chosen)
            make_config(kind, "small", chosen | {"ar_mode": "transformer"})
        with self.assertRaisesRegex(InputError, "--temperature needs --score cosine"):
            make_config(PretrainConfig, "reference", {"temperature": 0.5})
        with self.assertRaisesRegex(InputError, "--augmentPast needs --cpcMode forw"):
            chosen = {"augment_past": "reverb", "cpc_mode": "reverse"}
            make_config(PretrainConfig, "small", chosen)
        with self.assertRaisesRegex(InputError, "needs a --batchSize of 2"):
            chosen = {"other_windows": True, "batch_size": 1}
            make_config(PretrainConfig, "small", chosen)
        for name, value, message in (
            ("share_negatives", "anchor", "--shareNegatives needs --contrast frame"),
            ("same_share", 1.0, "--sameShare needs --contrast frame or both"),
            ("other_windows", True, "--otherWindows needs --contrast frame or both"),
        ):
            with self.assertRaisesRegex(InputError, message):
                make_config(PretrainConfig, "small", {name: value})

    def test_preset_settings_without_effect_are_dropped(self):
        config = make_config(PretrainConfig, "reference", {})
        self.assertEqual(config.sinc_mode, "quadrature")
        sinc = make_config(PretrainConfig, "reference", {"encoder_type": "sinc"})
        self.assertEqual(sinc.sinc_mode, "plain")
        for each in (config, sinc):  # and saved settings are accepted again
            again = make_config(PretrainConfig, "small", asdict(each))
            self.assertEqual(again, each)

    def test_window_must_hold_the_furthest_prediction_step(self):
        chosen = {"n_predicts": 2, "step_frames": 10}
        for encoder, hop in (("conv", 160), ("pitchmap", 320)):
            least = 20 * 160 + hop
            chosen |= {"encoder_type": encoder, "size_window": least}
            make_config(PretrainConfig, "small", chosen)
            with self.assertRaisesRegex(InputError, f"at least {least} to predict 20 "):
                make_config(
                    PretrainConfig, "small", chosen | {"size_window": least - 1}
                )
            with self.assertRaisesRegex(InputError, f"at least {least + 1600} to "):
                make_config(PretrainConfig, "small", chosen | {"n_predicts": 3})

    def test_json_round_trip(self):
        config = make_config(PretrainConfig, "tiny", {"data": "here"})
        again = json.loads(json.dumps(asdict(config)))
        self.assertEqual(make_config(PretrainConfig, "small", again), config)

    def test_unknown_settings_are_refused(self):
        with self.assertRaisesRegex(InputError, "unknown setting 'hidden_gra'"):
            make_config(PretrainConfig, "small", {"hidden_gra": 12})

    def test_every_setting_has_help_and_presets_name_settings(self):
        for cls in (PretrainConfig, SupervisedConfig):
            known = cls.__pydantic_fields__
            for name, item in known.items():
                self.assertGreater(len(_explain(item)[2].split()), 1, name)
            self.assertLessEqual(cls.presets.keys(), set(PRESETS))
            for preset in cls.presets.values():
                self.assertLessEqual(preset.keys(), known.keys())

    def test_preset_values_are_validated(self):
        for name, value in (("batch_size", 0), ("score", "euclid")):
            with mock.patch.dict(PretrainConfig.presets, tiny={name: value}):
                with self.assertRaisesRegex(InputError, f"--{flag(name)} is {value!r}"):
                    make_config(PretrainConfig, "tiny", {})

    def test_pitch_map_has_a_conv_context_and_steps_of_20_ms(self):
        config = make_config(PretrainConfig, "small", {})
        self.assertEqual((config.encoder_type, config.ar_mode), ("pitchmap", "conv"))
        self.assertEqual((config.hidden_encoder, config.hidden_gar), (32, 32))
        config = make_config(PretrainConfig, "small", {"gar_mode": "joint"})
        self.assertEqual((config.ar_mode, config.hidden_gar), ("GRU", 256))
        for chosen, message in (
            ({"step_frames": 5}, "multiples of 2"),
            ({"gar_mode": "joint", "ar_mode": "conv"}, "--garMode joint"),
            ({"layers_gar": 2}, "--layersGar"),
            ({"encoder_type": "sinc", "ar_mode": "conv"}, "--encoderType pitchmap"),
        ):
            with self.assertRaisesRegex(InputError, message):
                make_config(PretrainConfig, "small", chosen)

    def test_steps_are_multiples_of_the_hop_of_any_encoder(self):
        slow = ENCODERS["conv"]._replace(stride=4)
        with mock.patch.dict(ENCODERS, conv=slow):
            chosen = {"encoder_type": "conv", "step_frames": 6}
            with self.assertRaisesRegex(InputError, "4 for --encoderType conv, .*40"):
                make_config(PretrainConfig, "small", chosen)

    def test_sinc_filters_are_the_front_end_of_the_chosen_network(self):
        for chosen, encoder, learned in (
            ({}, "pitchmap", True),
            ({"encoder_type": "conv"}, "sinc", False),
            ({"encoder_type": "sinc"}, "sinc", False),
        ):
            chosen |= {"use_sinc_net": True}
            config = make_config(PretrainConfig, "small", chosen)
            self.assertEqual(config.encoder_type, encoder)
            self.assertEqual(config.use_sinc_net, learned)
        chosen = {"encoder_type": "harmonic", "use_sinc_net": True}
        with self.assertRaisesRegex(InputError, "--useSincNet needs --encoderType"):
            make_config(PretrainConfig, "small", chosen)
        reference = make_config(PretrainConfig, "reference", {"use_sinc_net": True})
        self.assertEqual(
            (reference.encoder_type, reference.sinc_mode), ("sinc", "plain")
        )

    def test_original_flags_exist(self):
        flags = {
            flag(name) for name in asdict(make_config(PretrainConfig, "small", {}))
        }
        flags |= {flag(item.name) for item in fields(SupervisedConfig)}
        original = """samplingType labelsBy encoderType arMode hiddenEncoder hiddenGar
            nPredicts negativeSamplingExt sizeWindow batchSize nEpoch learningRate
            schedulerStep schedulerRamp normMode cpcMode dropout abspos maxChunksInMem
            chunkSize task transcriptionWindow onEncoder load loadCriterion
            pathCheckpoint randomSeed data"""
        self.assertLessEqual(set(original.split()), flags)


if __name__ == "__main__":
    unittest.main()
