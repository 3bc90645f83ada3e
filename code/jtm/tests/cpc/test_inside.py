"""Analyses of a network against hand-computed values."""

import io
import itertools
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import torch

from jtm.cpc import inside
from jtm.cpc.config import PretrainConfig
from jtm.cpc.figures import ANALYSES, read_analyses
from jtm.data.rolls import PLAYED_DTYPE, frame_numbers, frame_roll
from jtm.evaluation import metrics
from jtm.files import InputError
from jtm.models.network import build_model
from jtm.tests.evaluation import little
from jtm.training.config import make_config


class TestFilters(unittest.TestCase):
    def test_moved_filters_are_reported(self):
        config = make_config(PretrainConfig, "tiny", little.SMALL)
        model = build_model(config)
        start = inside._filters(model, config)
        self.assertEqual(start["moved"], 0.0)
        self.assertEqual(start["start"], start["trained"])
        self.assertEqual(start["trained"]["centre"][0], 21.0)
        with torch.no_grad():
            model.encoder.filters.centre[:] = 60.1
            model.encoder.filters.centre[16:] = 60.4
            model.encoder.filters.width[:] = 12.0
        found = inside._filters(model, config)
        np.testing.assert_allclose(
            found["trained"]["centre"][:17], [60.1] * 16 + [60.4]
        )
        np.testing.assert_allclose(found["trained"]["width"], 12.0, atol=0.01)
        self.assertEqual(found["trained"]["in_tune"], 0.5)
        self.assertGreater(found["moved"], 20)

    def test_fixed_filters_have_no_report(self):
        for encoder in ("conv", "harmonic"):
            chosen = little.SMALL | {"encoder_type": encoder}
            config = make_config(PretrainConfig, "tiny", chosen)
            self.assertIsNone(inside._filters(build_model(config), config))


class TestLoudness(unittest.TestCase):
    def test_hand_computed_decibels(self):
        time = np.arange(32_000) / 16_000
        wave = 0.5 * np.sin(2 * np.pi * 500 * time) * (time < 1.0)
        found = inside._loudness(np.round(32768 * wave).astype(np.int16))
        self.assertEqual(len(found), 200)
        # A sine of half of full scale: 6.02 dB less, and 3.01 for the mean square.
        np.testing.assert_allclose(found[10:90], -9.03, atol=0.03)
        np.testing.assert_array_equal(found[110:], inside.FLOOR)
        # Around the end of the sine half of the frame is silence.
        self.assertAlmostEqual(found[99:101].mean(), -12.04, delta=0.1)

    def test_linear_probe_recovers_a_planted_signal(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(600, 10)).astype(np.float32) * 3 + 7
        planted, noise = x[:, 3] - 2 * x[:, 5] + 4, rng.normal(size=600)
        parts = {"train": [0, 200, 300], "validation": [300, 400], "test": [400, 600]}
        x, planted, noise = (
            {s: [a[i:j] for i, j in itertools.pairwise(at)] for s, at in parts.items()}
            for a in (x, planted, noise)
        )
        for y, low, high in ((planted, 0.999, 1.0), (noise, -1.0, 0.05)):
            found = inside._r_squared(inside._probe_level(x, y).sum(axis=0))
            self.assertTrue(low < found <= high, found)

    def test_hand_computed_r_squared(self):
        # Targets 1, 2, 3 and predictions 1, 2, 4; equal targets have no variance.
        self.assertAlmostEqual(inside._r_squared(np.array([3, 6, 14, 1])), 0.5)
        self.assertEqual(inside._r_squared(np.array([3, 3, 3, 0])), 0.0)


class TestProbes(unittest.TestCase):
    def test_frames_are_paired_with_delayed_targets(self):
        notes = np.zeros(60, PLAYED_DTYPE)
        rng = np.random.default_rng(0)
        notes["start"] = rng.uniform(0, 9, 60)
        notes["end"], notes["pitch"] = notes["start"] + 0.5, rng.integers(21, 109, 60)
        notes["program"] = 1
        # Frames 8, 24, ... of 10 ms from 4 s on, or 4, 12, ... of 20 ms; the short
        # recording has none.
        for hop, first, delays in (
            (160, 408, (0, 10, 20, 50, 100, 200, 400)),
            (320, 204, (0, 5, 10, 25, 50, 100, 200)),
        ):
            step, n_frames = 16 * 160 // hop, {5: 160_000 // hop, 6: 48_000 // hop}
            subject = SimpleNamespace(
                excerpt=lambda _, i, n=n_frames, s=step: (n[i], frame_numbers(n[i], s)),
                labelled=SimpleNamespace(notes=lambda index: notes),
                store=SimpleNamespace(read=lambda _, first, n: np.zeros(n, np.int16)),
            )
            rows, truth = inside._Features.samples(subject, hop, 5)
            numbers = np.arange(step // 2, n_frames[5], step)[rows]
            self.assertEqual(
                (numbers[0], numbers[-1] + step), (first, 1000 * 160 // hop)
            )
            roll = frame_roll(notes, n_frames[5], hop=hop)
            for delay, n in zip(inside.DELAYS, delays, strict=True):
                np.testing.assert_array_equal(truth["pitch", delay], roll[numbers - n])
            self.assertEqual(set(truth["loudness", 0.0]), {inside.FLOOR})
            self.assertEqual(len(inside._Features.samples(subject, hop, 6)[0]), 0)

    def test_values_beyond_half_precision_stay_finite(self):
        source = SimpleNamespace(hop=160)
        source.whole = lambda _: {"z": np.array([[1e6, -1e6, 1.5]])}
        subject = SimpleNamespace(
            store=SimpleNamespace(read=np.zeros, lengths=[160]),
            sources={"cpc": source},
            excerpt=lambda hop, index: (1, np.arange(1)),
            spectra=SimpleNamespace(read=lambda *place: np.zeros((1, 2))),
            cached={},
        )
        inside._Features._compute(subject, 0)
        self.assertEqual(
            subject.cached["cpc-z", 0].tolist(), [[65504.0, -65504.0, 1.5]]
        )

    def test_lead_interval_is_paired(self):
        rng = np.random.default_rng(0)
        truths = [rng.random((50, 88)) < 0.1 for _ in range(8)]
        # Recordings differ greatly in difficulty, systems little.
        hard = [
            truth * 1.0 + rng.normal(0, 0.2 + 0.2 * i, truth.shape)
            for i, truth in enumerate(truths)
        ]
        better = [score + 0.1 * t for score, t in zip(hard, truths, strict=True)]
        values, draws = {}, {}
        for name, scores in (("cpc-c", better), ("cpc-z", hard), ("random-c", better)):
            counts = metrics.precision_counts(truths, scores)[0]
            key, metric = (name, "pitch", 0.0), metrics.precision_score
            values[key] = metric(counts.sum(axis=0))
            draws[key] = metrics.bootstrap(counts, None, metric)
        values["notes", "pitch", 0.0] = values["cpc-z", "pitch", 0.0]
        draws["notes", "pitch", 0.0] = draws["cpc-z", "pitch", 0.0]
        with mock.patch.object(inside, "DELAYS", (0.0,)):
            lead, none, _ = inside._leads(values, draws)
        self.assertGreater(lead["low"], 0)
        self.assertLess(lead["high"] - lead["low"], 0.1)
        self.assertEqual(none["high"], 0.0)


class TestAll(unittest.TestCase):
    def test_analysis_of_a_small_network(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with mock.patch.dict(little.SPLITS, {"test": 4}):
                little.write_dataset(folder / "data", seconds=6.0, composers="AB")
            metadata = folder / "data" / "musicnet_metadata.csv"
            table = pd.read_csv(metadata)
            table.assign(tune_family=table["split"]).to_csv(metadata, index=False)
            little.write_checkpoint(folder / "net.pt")
            out = folder / "inside.json"
            with (
                mock.patch.object(inside, "DELAYS", (0.0, 0.3)),
                redirect_stdout(io.StringIO()),
            ):
                inside.analyse(
                    folder / "net.pt", folder / "data", out, folder / "work", False
                )
            found = read_analyses(out)
        self.assertLessEqual(set(ANALYSES), found.keys())
        properties = [each["what"] for each in found["carried"]]
        self.assertEqual(
            [properties.count(w) for w in ("pitch", "instrument", "loudness")], [5] * 3
        )
        memory = found["memory"]
        intervals = [e["low"] for e in found["carried"] + memory["scores"]]
        self.assertEqual(set(intervals), {None})  # of one tune family
        scores = {
            (each["representation"], each["delay"]): each["value"]
            for each in memory["scores"]
        }
        # Notes are random and last a quarter of a second: the current ones determine
        # the present frame, and carry no information about earlier ones.
        self.assertGreater(scores["notes", 0.0], 0.95)
        self.assertLess(scores["notes", 0.3], 0.5)
        self.assertGreater(scores["cpc-z", 0.0], 0.6)
        self.assertEqual(found["filters"]["moved"], 0.0)
        self.assertEqual(found["recordings"], {"train": 6, "validation": 2, "test": 4})

    def test_too_short_recordings_are_refused(self):
        with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
            folder = Path(name)
            little.write_dataset(folder / "data", seconds=1.0)
            little.write_checkpoint(folder / "net.pt")
            with self.assertRaisesRegex(InputError, "no labelled recording"):
                inside.analyse(
                    folder / "net.pt", folder / "data", folder / "o.json", folder, False
                )

    def test_recordings_shorter_than_the_longest_delay_are_refused(self):
        with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
            folder = Path(name)
            little.write_dataset(folder / "data", seconds=3.0)
            little.write_checkpoint(folder / "net.pt")
            with self.assertRaisesRegex(InputError, "longer than 4 s"):
                inside.analyse(
                    folder / "net.pt", folder / "data", folder / "o.json", folder, False
                )

    def test_networks_move_to_the_best_device(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            little.write_dataset(folder / "data", seconds=2.0)
            little.write_checkpoint(folder / "net.pt")
            device = mock.patch.object(
                inside, "best_device", lambda: torch.device("meta")
            )
            compute = mock.patch.object(inside._Features, "_compute")
            with device, compute:
                analysed = inside._Features(
                    folder / "net.pt", folder / "data", folder, False
                )
        models = [source.model for source in analysed.sources.values()]
        devices = {p.device.type for model in models for p in model.parameters()}
        self.assertEqual((len(models), devices), (2, {"meta"}))


class TestLogistic(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(0)
        self.x = (3 + 2 * rng.normal(size=(900, 6))).astype(np.float32)
        planted = self.x[:, :2] - self.x[:, 2:4] + 0.5 * rng.normal(size=(900, 2)) > 1
        self.y = np.column_stack((planted, np.zeros(900, bool)))  # one is never active

    def fit(self, x, y):
        return inside._logistic((x[:600], y[:600]), (x[600:], y[600:]))

    def test_recovers_a_planted_signal_and_no_shuffled_one(self):
        logits = self.fit(self.x, self.y)(self.x[600:])
        self.assertGreater(metrics.average_precision(self.y[600:], logits), 0.9)
        order = np.random.default_rng(1).permutation(900)
        logits = self.fit(self.x, self.y[order])(self.x[600:])
        chance = self.y.mean()
        score = metrics.average_precision(self.y[order][600:], logits)
        self.assertLess(score, 2.5 * chance)

    def test_result_is_invariant_to_the_scale_of_features(self):
        x = self.x.copy()
        x[:, 1] *= 1e-4
        x[:, 5] = 7.0  # never varies
        one, other = self.fit(x, self.y), self.fit(x * 100, self.y)
        self.assertTrue(np.isfinite(one(x)).all())
        # The last pitch is never active: its optimisation stops by rounding.
        found, scaled = one(x)[:, :2], other(100 * x)[:, :2]
        np.testing.assert_allclose(found, scaled, atol=0.05)

    def test_equals_logistic_regression_of_scikit_learn(self):
        from sklearn.linear_model import LogisticRegression

        x, y = self.x[:600], self.y[:600, :1]
        with mock.patch.object(inside, "LOGISTIC_PENALTIES", (0.01,)):
            found = inside._logistic((x, y), (x, y))(x)[:, 0]
        scaled = (x - x.mean(axis=0)) / x.std(axis=0)
        model = LogisticRegression(C=1 / (0.01 * 600)).fit(scaled, y[:, 0])
        np.testing.assert_allclose(
            found, model.decision_function(scaled), rtol=0.02, atol=0.02
        )


if __name__ == "__main__":
    unittest.main()
