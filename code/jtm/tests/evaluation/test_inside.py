"""What is found inside a network, on truths worked out by hand."""

import io
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from jtm.cpc.config import PretrainConfig
from jtm.evaluation import inside, metrics
from jtm.files import InputError
from jtm.models.network import make_network
from jtm.results.inside import read_answers
from jtm.tests.evaluation import little
from jtm.training.checkpoints import build_model
from jtm.training.config import make_config


class TestFilters(unittest.TestCase):
    def test_where_they_went(self):
        config = make_config(PretrainConfig, "tiny", little.SMALL)
        model = build_model(config)
        start = inside.filters(model, config)
        self.assertEqual(start["moved"], 0.0)
        self.assertEqual(start["start"], start["trained"])
        self.assertEqual(start["trained"]["centre"][0], 21.0)
        with torch.no_grad():
            model.encoder.filters.centre[:] = 60.1
            model.encoder.filters.centre[16:] = 60.4
            model.encoder.filters.width[:] = 12.0
        found = inside.filters(model, config)
        np.testing.assert_allclose(
            found["trained"]["centre"][:17], [60.1] * 16 + [60.4]
        )
        np.testing.assert_allclose(found["trained"]["width"], 12.0, atol=0.01)
        self.assertEqual(found["trained"]["in_tune"], 0.5)
        self.assertGreater(found["moved"], 20)

    def test_networks_whose_filters_do_not_learn(self):
        for encoder in ("conv", "harmonic"):
            model = make_network(encoder=encoder, hidden_encoder=4, hidden_context=4)
            self.assertIsNone(inside.filters(model, None))


class TestLoudness(unittest.TestCase):
    def test_decibels_by_hand(self):
        time = np.arange(32_000) / 16_000
        wave = 0.5 * np.sin(2 * np.pi * 500 * time) * (time < 1.0)
        found = inside.loudness(np.round(32768 * wave).astype(np.int16))
        self.assertEqual(len(found), 200)
        # A sine of half of full scale: 6.02 dB less, and 3.01 for the mean square.
        np.testing.assert_allclose(found[10:90], -9.03, atol=0.03)
        np.testing.assert_array_equal(found[110:], inside.FLOOR)
        # Around the end of the sound half of what is heard is silence.
        self.assertAlmostEqual(found[99:101].mean(), -12.04, delta=0.1)

    def test_a_linear_probe_recovers_a_planted_number(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(600, 10)).astype(np.float32) * 3 + 7
        y = x[:, 3] - 2 * x[:, 5] + 4
        predict = inside.ridge((x[:300], y[:300]), (x[300:400], y[300:400]))
        sums = inside.explained(y[400:], predict(x[400:]))
        self.assertGreater(inside.r_squared(sums), 0.999)
        noise = rng.normal(size=600)
        predict = inside.ridge((x[:300], noise[:300]), (x[300:400], noise[300:400]))
        sums = inside.explained(noise[400:], predict(x[400:]))
        self.assertLess(inside.r_squared(sums), 0.05)

    def test_r_squared_by_hand(self):
        truth = np.array([1.0, 2.0, 3.0])
        sums = inside.explained(truth, np.array([1.0, 2.0, 4.0]))
        np.testing.assert_allclose(sums, [3, 6, 14, 1])
        self.assertAlmostEqual(inside.r_squared(sums), 0.5)
        self.assertEqual(
            inside.r_squared(inside.explained(np.ones(3), np.ones(3))), 0.0
        )


class TestMemory(unittest.TestCase):
    def test_frames_are_paired_with_their_past(self):
        roll = np.random.default_rng(0).random((1000, 88)) < 0.1
        labelled = SimpleNamespace(
            splits={"test": [5, 6]},
            takes=lambda split, index: [
                SimpleNamespace(n_frames=1000 if index == 5 else 300, step=16)
            ],
            rolls=lambda index, n_frames: roll[:n_frames],
        )
        bench = SimpleNamespace(labelled={"multipitch": labelled})
        ((features, truths),) = inside.past(bench, "test", inside.ROLL)
        # Frames 8, 24, ... from 400 on; the short recording has none.
        numbers = np.arange(8, 1000, 16)[25:]
        np.testing.assert_array_equal(features, roll[numbers])
        self.assertEqual(truths.shape, (len(inside.DELAYS), len(numbers), 88))
        for truth, delay in zip(truths, (0, 10, 20, 50, 100, 200, 400), strict=True):
            np.testing.assert_array_equal(truth, roll[numbers - delay])

    def test_a_lead_is_paired(self):
        rng = np.random.default_rng(0)
        truths = [rng.random((50, 88)) < 0.1 for _ in range(8)]
        # Recordings differ much in difficulty, systems little.
        hard = [
            truth * 1.0 + rng.normal(0, 0.2 + 0.2 * i, truth.shape)
            for i, truth in enumerate(truths)
        ]
        better = [score + 0.1 * t for score, t in zip(hard, truths, strict=True)]
        counts = [metrics.precision_counts(truths, s)[0] for s in (better, hard)]
        found = inside.lead(*counts)
        self.assertGreater(found["low"], 0)
        self.assertLess(found["high"] - found["low"], 0.1)
        self.assertEqual(inside.lead(counts[0], counts[0])["high"], 0.0)


class TestForm(unittest.TestCase):
    def test_a_repeated_section_is_like_itself(self):
        a, b = np.eye(4)[0], np.eye(4)[1]
        found = inside.similarity(np.array([a, b, a, b]))
        np.testing.assert_allclose(found[0], [1, -1, 1, -1])
        np.testing.assert_array_equal(inside.similarity(np.ones((3, 2))), 0)

    def test_agreement(self):
        rng = np.random.default_rng(0)
        one = inside.similarity(rng.normal(size=(30, 5)))
        self.assertAlmostEqual(inside.agreement(one, 2 * one + 1), 1.0)
        other = inside.similarity(rng.normal(size=(30, 5)))
        self.assertLess(abs(inside.agreement(one, other)), 0.3)
        self.assertEqual(inside.agreement(one, np.zeros_like(one)), 0.0)
        # What lies near the diagonal does not count.
        near = one + 9 * (np.abs(np.subtract.outer(range(30), range(30))) < inside.LAG)
        self.assertAlmostEqual(inside.agreement(one, near), 1.0)


class TestMaps(unittest.TestCase):
    def test_purity_by_hand(self):
        # Two classes far apart, each in two groups.
        points = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        classes = np.array([0, 0, 0, 1, 1, 1])
        groups = np.array([0, 1, 1, 2, 2, 3])
        with mock.patch.object(inside, "NEIGHBOURS", 1):
            share, chance = inside.purity(points, classes, groups)
        self.assertEqual(share, 1.0)
        # Of others: 2/5, 1/4, 1/4 of the first class, and the same of the second.
        self.assertAlmostEqual(chance, (2 / 5 + 1 / 4 + 1 / 4) / 3)
        # Of one group each, nobody can be asked.
        self.assertEqual(inside.purity(points, classes, classes), (None, None))

    def test_neighbours_of_the_same_group_do_not_count(self):
        points = np.array([[0.0], [0.1], [5.0], [5.1]])
        classes, groups = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 2])
        with mock.patch.object(inside, "NEIGHBOURS", 1):
            share, _ = inside.purity(points, classes, groups)
        # The first two come to 5.0, which is of the other class, and so does 5.1.
        self.assertEqual(share, 0.0)

    def test_noise_is_at_chance(self):
        rng = np.random.default_rng(0)
        classes = rng.integers(0, 4, 300)
        share, chance = inside.purity(
            rng.normal(size=(300, 8)), classes, np.arange(300)
        )
        self.assertAlmostEqual(share, chance, delta=0.03)

    def test_projections_keep_clusters(self):
        rng = np.random.default_rng(0)
        classes = np.repeat((0, 1), 30)
        points = rng.normal(size=(60, 6)) + 20 * classes[:, None]
        for places in inside.project(points):
            self.assertEqual(places.shape, (60, 2))
            share, _ = inside.purity(places, classes, np.arange(60))
            self.assertGreater(share, 0.95)


class TestAll(unittest.TestCase):
    def test_items_are_spread(self):
        self.assertEqual(inside.spread(range(10), 4), [0, 2, 5, 7])
        self.assertEqual(inside.spread([3, 1], 4), [3, 1])

    def test_a_network_is_looked_into(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with mock.patch.dict(little.SPLITS, {"test": 4}):
                little.write_dataset(folder / "data", seconds=6.0, composers="AB")
            little.write_clips(folder / "data")
            little.write_checkpoint(folder / "net.pt")
            out = folder / "inside.json"
            with (
                mock.patch.multiple(
                    inside, LONG=3, LAG=1, DELAYS=(0.0, 0.3), NEIGHBOURS=2
                ),
                redirect_stdout(io.StringIO()),
            ):
                inside.look(
                    folder / "net.pt", folder / "data", out, folder / "work", False
                )
            found, arrays = read_answers(out)
        whats = [each["what"] for each in found["carried"]]
        self.assertEqual(
            [whats.count(w) for w in ("pitch", "instrument", "loudness")], [5] * 3
        )
        scores = {
            (each["representation"], each["delay"]): each["value"]
            for each in found["memory"]["scores"]
        }
        # Notes are a quarter of a second, drawn by chance: those at hand tell all of
        # the present, and nothing of what was before them.
        self.assertGreater(scores["notes", 0.0], 0.95)
        self.assertLess(scores["notes", 0.3], 0.5)
        self.assertGreater(scores["cpc-z", 0.0], 0.6)
        self.assertEqual(found["form"]["pieces"], 4)
        self.assertEqual(arrays["form-cpc-c"].shape, (4, 4))
        self.assertEqual(found["filters"]["moved"], 0.0)
        self.assertEqual(found["recordings"], {"train": 6, "validation": 2, "test": 4})
        self.check_maps(found["maps"], arrays)

    def check_maps(self, maps, arrays):
        kinds = [(each["of"], each["colour"], each["points"]) for each in maps]
        # Two clips of each of four notes; four windows of each of four recordings.
        notes, windows = 4 * 2, 4 * 4
        expected = [("notes", "instrument", notes), ("notes", "pitch", notes)]
        self.assertEqual(kinds, [*expected, ("windows", "composer", windows)])
        labels = [each["labels"] for each in maps]
        self.assertEqual(labels, [["piano", "violin"], [], ["A", "B"]])
        self.assertEqual(arrays["map-notes-pitch"].tolist(), [60] * 4 + [72] * 4)
        self.assertEqual(arrays["map-windows-composer"].tolist(), [0] * 8 + [1] * 8)
        for each in maps:
            # Of three other notes, or recordings, one is of the same class.
            self.assertAlmostEqual(each["chance"], 1 / 3)
            self.assertEqual(list(each["purity"]), list(inside.REPRESENTATIONS))
            for kind in ("pca", "tsne"):
                places = arrays[f"map-{each['of']}-cpc-c-{kind}"]
                self.assertEqual(places.shape, (each["points"], 2))
        # To log-mel, windows are like those of the other composer's work for the same
        # ensemble, and notes like those of the same instrument.
        self.assertLess(maps[2]["purity"]["logmel"], 0.1)
        self.assertGreater(maps[0]["purity"]["logmel"], 0.5)

    def test_nothing_to_look_at(self):
        with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
            folder = Path(name)
            little.write_dataset(folder / "data", seconds=1.0)
            little.write_checkpoint(folder / "net.pt")
            with self.assertRaisesRegex(InputError, "no labelled recordings"):
                inside.look(
                    folder / "net.pt", folder / "data", folder / "o.json", folder, False
                )


if __name__ == "__main__":
    unittest.main()
