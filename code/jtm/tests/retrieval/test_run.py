"""Metrics against hand-computed ranks; the whole study on tiny tunes."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from jtm.files import InputError, locked, read_json, write_json
from jtm.retrieval import model, run, search
from jtm.retrieval.config import RetrievalConfig
from jtm.retrieval.data import Recordings
from jtm.tests.retrieval.little import tune, write_abc, write_dataset


class TestMetrics(unittest.TestCase):
    def test_hand_computed_ranks(self):
        scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.7, 0.7, 0.7]])
        self.assertEqual(run._ranks(scores).tolist(), [1, 2, 3])  # ties rank last
        self.assertEqual(run._ranks(scores[1:], [1, 2]).tolist(), [2, 3])

    def test_hand_computed_summary(self):
        works = np.array(["a", "a", "b", "b"])
        found = run._summarise(np.array([1, 2, 10, 50]), works)
        self.assertEqual(found["recall_at_1"][0], 0.25)
        self.assertEqual(found["recall_at_5"][0], 0.5)
        self.assertEqual(found["recall_at_25"][0], 0.75)
        self.assertAlmostEqual(found["mrr"][0], (1 + 0.5 + 0.1 + 0.02) / 4)
        self.assertEqual(found["median_rank"][0], 6)
        # Works are resampled, not queries: with two, one work alone is the extreme.
        self.assertEqual(found["recall_at_1"][1:], [0.0, 0.5])

    def test_metrics_of_uniform_ranks(self):
        found = run._metrics(np.arange(1, 5))
        self.assertAlmostEqual(found["mrr"], (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
        self.assertEqual(found["recall_at_1"], 0.25)


class TestStudy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_dataset(cls.folder / "set")
        cls.recordings = Recordings(cls.folder / "set", cls.folder / "work", False)

    def test_runs_are_trained_once_evaluated_and_compiled(self):
        runs = {"pitchmap": {"n_epoch": 1, "batch_size": 8, "channels": 4}}
        out = self.folder / "out"
        with mock.patch.multiple(run, RUNS=runs, DRAWS=10, DTW_QUERIES=2, DIM=4):
            with mock.patch("jtm.retrieval.data.Pairs.__init__.__defaults__", (0, 2)):
                file = run.study(self.folder / "set", out)
            scores = read_json(file)
            self.assertEqual(scores["left"], [])
            self.assertEqual(scores["runs"]["pitchmap"]["steps"], 2)
            for name in ("recall_at_1", "mrr", "recall_at_1_unseen"):
                self.assertTrue(0 <= scores[name] <= 1)
            with mock.patch.object(run, "_train", side_effect=AssertionError):
                run.study(self.folder / "set", out)  # nothing is repeated
        towers, facts, _ = model.load(out / "pitchmap.safetensors")
        self.assertEqual(facts["run"], "pitchmap")
        again = run._evaluate(towers.compare, self.recordings, "test")
        self.assertEqual(
            again["audio_to_score"]["mrr"][0],
            scores["runs"]["pitchmap"]["test"]["audio_to_score"]["mrr"][0],
        )

    def test_unknown_runs_and_those_without_their_network_are_refused(self):
        for name, words in (
            ("pitchmpa", "expected one of"),
            ("cpc-frozen", "--load"),
            ("pieces", "--scores"),
        ):
            with self.assertRaisesRegex(InputError, words):
                run.study(self.folder / "set", self.folder / "none", only=[name])
        self.assertFalse((self.folder / "none").exists())

    def test_missing_scores_are_refused_before_training(self):
        out = self.folder / "unscored"
        with mock.patch.object(run, "_train", side_effect=AssertionError):
            with self.assertRaisesRegex(InputError, "the score of every work"):
                run.study(self.folder / "set", out, scores=self.folder)
        recording = self.recordings.store.recordings[0]
        store = SimpleNamespace(recordings=[replace(recording, metadata={})])
        with self.assertRaisesRegex(InputError, "its metadata name no score"):
            run._check_scores(SimpleNamespace(store=store), self.folder)

    def test_results_on_other_data_or_from_another_network_are_refused(self):
        out, network = self.folder / "sources", self.folder / "network"
        network.write_bytes(b"1")
        write_json(out / "tuned.json", {"works": 1})  # has finished
        runs = {"tuned": {"start": "cpc"}}
        with mock.patch.multiple(run, RUNS=runs, BASELINES={}):
            run.study(self.folder / "set", out)
            run.study(self.folder / "set", out, network)
            run.study(self.folder / "set", out)  # needs none
            network.write_bytes(b"2")
            with self.assertRaisesRegex(InputError, "another --load"):
                run.study(self.folder / "set", out, network)
            other = "jtm.data.store.Store.fingerprint"
            with (
                mock.patch(other, "f"),
                self.assertRaisesRegex(InputError, "other dat"),
            ):
                run.study(self.folder / "set", out)
        with mock.patch.multiple(run, RUNS={}, BASELINES={}):
            run.study(self.folder / "set", out, network)  # no run starts from it

    def test_run_of_another_process_is_refused(self):
        out = self.folder / "busy"
        runs = {"pitchmap": {"n_epoch": 1}}
        with (
            mock.patch.object(run, "RUNS", runs),
            locked(out / "pitchmap" / ".lock"),
            self.assertRaisesRegex(InputError, "another process"),
        ):
            run.study(self.folder / "set", out)

    def test_frozen_encoder_is_unchanged(self):
        chosen = {"n_epoch": 1, "batch_size": 8, "channels": 4, "frozen": True}
        config = RetrievalConfig(path_checkpoint=str(self.folder / "f"), **chosen)
        with mock.patch("jtm.retrieval.data.Pairs.__init__.__defaults__", (0, 2)):
            towers, facts = run._train(config, self.recordings, progress=False)
        import torch

        from jtm.models.pitchmap import PitchMapEncoder

        torch.manual_seed(0)
        for own, start in zip(
            towers.audio.encoder.parameters(),
            PitchMapEncoder(4).parameters(),
            strict=True,
        ):
            self.assertTrue(torch.equal(own, start))
        self.assertEqual(facts["works"], 4)

    def test_pieces_are_identified_in_an_index(self):
        for number in range(8):
            names = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
            own = number - names.index(names[number])
            write_abc(self.folder / "abc" / f"{names[number]}{own}.abc", tune(number))
        weights, out = self.folder / "t.safetensors", self.folder / "i.safetensors"
        model.save(weights, model.Towers("published").eval(), {})
        search.build(self.folder / "abc", out, weights=weights, progress=False)
        towers, index = model.load(weights)[0], search.Index.load(out)
        found = run._identify_all(towers, self.recordings, index, "test", (4, 8))
        self.assertEqual([*found], [4, 8])
        self.assertEqual(found[8].shape, (3, 2))
        left_out = run._identify_all(
            towers, self.recordings, index, "test", (8,), absent=True
        )
        self.assertTrue(np.isinf(left_out[8][0]).all())
        ranks = run._retrieve_all(towers, self.recordings, index, "test", 8)
        self.assertTrue(set(ranks) <= {1, 2, np.inf})
        facts = run._calibrate(towers, self.recordings, index)
        self.assertGreater(facts["threshold"], 0)


if __name__ == "__main__":
    unittest.main()
