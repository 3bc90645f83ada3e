"""Towers: equivariance, pooling, CCA layers and files."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm.files import InputError
from jtm.retrieval import model
from jtm.retrieval.config import DIM, FRAMES, REFIT_DIM
from jtm.retrieval.data import BINS_PER_SEMITONE, transpose
from jtm.training.checkpoints import read_tensors, write_tensors

BINS = 199


class TestTowers(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_embeddings_are_unit_vectors_of_one_space(self):
        for kind in ("pitchmap", "published"):
            towers = model.Towers(kind).eval()
            audio = np.random.default_rng(0).random((3, FRAMES, BINS), np.float32)
            rolls = (np.random.default_rng(1).random((3, 2, 88, 48)) < 0.1).astype("f4")
            first = towers.embed_audio(audio)
            second = towers.embed_scores(rolls, np.array([10, 20, 48], "f4"))
            for output in (first, second):
                self.assertEqual(output.shape, (3, DIM))
                np.testing.assert_allclose(np.linalg.norm(output, axis=1), 1, atol=1e-5)
            self.assertEqual(towers.embed_audio(audio[:0]).shape, (0, DIM))
            np.testing.assert_allclose(
                towers.embed_audio(audio[1:2]), first[1:2], atol=1e-5
            )

    def test_score_tower_is_equivariant_up_to_its_last_layer(self):
        tower = model._PitchScoreTower().eval()
        rolls = torch.zeros(1, 2, 88, 48)
        rolls[0, :, 40, 3:9] = rolls[0, :, 47, 5:20] = 1
        with torch.no_grad():
            maps = tower._maps(rolls)
            higher = tower._maps(rolls.roll(5, 2))
            inner = slice(20, 72)  # away from the borders of the piano
            moved = maps.roll(5, 2)[:, :, inner]
            np.testing.assert_allclose(moved, higher[:, :, inner], atol=1e-5)
            cells = torch.full((1,), 48.0)
            moved = tower(rolls.roll(5, 2), cells) - tower(rolls, cells)
        self.assertGreater(moved.abs().max(), 1e-4)  # keys are distinguished

    def test_audio_is_embedded_in_other_keys_from_one_encoding(self):
        torch.manual_seed(0)
        towers = model.Towers().eval()
        rng = np.random.default_rng(0)
        audio = np.zeros((3, FRAMES, BINS), np.float32)
        audio[:, :, 60:120] = rng.random((3, FRAMES, 60))  # amid silence
        keys = range(-6, 13)
        embedded = np.stack(list(towers.embed_in_keys(audio, keys)))
        for key in (0, -5, 11):
            moved = transpose(audio, key * BINS_PER_SEMITONE, 2)
            cosines = (embedded * towers.embed_audio(moved)).sum(2)
            np.testing.assert_array_equal(cosines.argmax(0), keys.index(key))
            self.assertGreater(cosines.max(0).min(), 0.85)  # the edges differ

    def test_cells_after_the_passage_are_ignored(self):
        tower = model._PitchScoreTower().eval()
        rolls = torch.zeros(1, 2, 88, 48)
        rolls[0, 0, 40, :12] = 1
        other = rolls.clone()
        other[0, 0, 50, 30:] = 1
        with torch.no_grad():
            cells = torch.full((1,), 12.0)
            np.testing.assert_allclose(tower(rolls, cells), tower(other, cells))

    def test_cropping_of_rolls_does_not_change_embeddings(self):
        towers = model.Towers().eval()
        cells = np.array([9.5, 48, 20, 3], np.float32)
        rolls = np.zeros((4, 2, 88, 48), np.float32)
        for roll, width in zip(rolls, cells, strict=True):
            roll[:, 30:50:3, : int(width)] = 1
        with torch.no_grad():
            expected = towers.score(torch.from_numpy(rolls), torch.from_numpy(cells))
            expected = torch.nn.functional.normalize(towers.join.projected(1, expected))
        with mock.patch.object(model, "BATCH", 1):
            found = towers.embed_scores(rolls, cells)
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_segment_weights_are_ordered_and_sum_to_one(self):
        weights = model.segments(torch.tensor([4.0, 48.0, 1.0]), 48)
        self.assertEqual(weights.shape, (3, 48, model.SEGMENTS))
        np.testing.assert_allclose(weights.sum(1), np.ones((3, 4)), atol=1e-5)
        self.assertEqual(weights[0].argmax(0).tolist(), [0, 1, 2, 3])
        self.assertEqual(float(weights[0, 6:].sum()), 0)


class TestCCA(unittest.TestCase):
    def test_inverse_root_of_a_matrix(self):
        a = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
        matrix = a @ a.T + 0.1 * torch.eye(8)
        root = model._inverse_root(matrix)
        np.testing.assert_allclose(root @ matrix @ root, torch.eye(8), atol=1e-4)
        same = torch.eye(4, requires_grad=True)  # eigenvalues are equal
        model._inverse_root(same).sum().backward()
        self.assertTrue(same.grad.isfinite().all())

    def test_cca_layer_agrees_with_scikit_learn(self):
        from sklearn import cross_decomposition

        rng = np.random.default_rng(0)
        hidden = rng.standard_normal((2000, DIM))
        views = [
            hidden @ rng.standard_normal((DIM, DIM))
            + 0.1 * rng.standard_normal((2000, DIM))
            for _ in range(2)
        ]
        layer = model._CCALayer(momentum=1.0, ridge=1e-6).train()
        first, second = layer(*(torch.tensor(v, dtype=torch.float32) for v in views))
        found = torch.nn.functional.cosine_similarity(first, second).mean()
        one, two = cross_decomposition.CCA(DIM, max_iter=2000).fit_transform(*views)
        expected = (one * two).sum(1) / np.linalg.norm(one, axis=1)
        expected = np.mean(expected / np.linalg.norm(two, axis=1))
        self.assertGreater(found, 0.9)
        self.assertAlmostEqual(float(found), expected, delta=0.05)
        layer.eval()
        again, _ = layer(*(torch.tensor(v, dtype=torch.float32) for v in views))
        np.testing.assert_allclose(again, first.detach(), atol=1e-3)

    def test_refitted_directions_are_weighted_by_correlation(self):
        rng = np.random.default_rng(0)
        noise = np.linspace(0, 3, DIM)  # the first dimension is shared entirely
        hidden = rng.standard_normal((4000, DIM))
        views = [
            torch.tensor(hidden + noise * rng.standard_normal((4000, DIM))).float()
            for _ in range(2)
        ]
        (first, one), (second, two) = model._canonical(*views, DIM, ridge=1e-6)
        found = (views[0] - first) @ one, (views[1] - second) @ two
        correlations = 1 / (1 + noise**2)  # canonical ones
        lengths = found[0].std(0) * found[1].std(0)
        np.testing.assert_allclose(lengths, correlations**2, atol=0.05)
        cosine = torch.nn.functional.cosine_similarity
        plain = model._CCALayer(momentum=1.0).train()(*views)
        self.assertGreater(cosine(*found).mean(), cosine(*plain).mean().detach() + 0.1)

    def test_refitting_increases_similarity_of_pairs(self):
        rng = np.random.default_rng(0)
        audio = torch.tensor(rng.random((40, FRAMES, BINS)), dtype=torch.float32)
        rolls = torch.tensor(rng.random((40, 2, 88, 48)) < 0.1, dtype=torch.float32)
        cells = torch.full((40,), 30.0)
        for kind in ("pitchmap", "published"):
            towers = model.Towers(kind).eval()
            with torch.no_grad():
                before = towers(audio, rolls, cells)
                towers.refit([(audio, rolls, cells)])
                after = towers(audio, rolls, cells)
            gains = [(x * y).sum(1).mean() for x, y in (before, after)]
            self.assertGreater(gains[1], gains[0])
            self.assertEqual(after[0].shape, (40, towers.dim))
            wide = {"pitchmap": REFIT_DIM, "published": DIM}
            self.assertEqual(towers.dim, wide[kind])
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder) / "t.safetensors", towers, {})
                again = model.load(Path(folder) / "t.safetensors")[0]
            np.testing.assert_allclose(again(audio, rolls, cells)[0].detach(), after[0])


class TestFiles(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "towers.safetensors"

    def test_saved_towers_load_unchanged(self):
        towers = model.Towers().eval()
        model.save(self.path, towers, {"threshold": 1.5})
        again, facts, _ = model.load(self.path)
        self.assertEqual(facts["threshold"], 1.5)
        self.assertFalse(again.training)
        audio = np.random.default_rng(0).random((1, FRAMES, BINS), np.float32)
        np.testing.assert_allclose(
            again.embed_audio(audio), towers.embed_audio(audio), atol=1e-6
        )

    def test_other_files_are_refused(self):
        with self.assertRaisesRegex(InputError, "towers.safetensors"):
            model.load(self.path)
        model.save(self.path, model.Towers(), {})
        tensors, about = read_tensors(self.path, "towers", "", {})
        write_tensors(self.path, tensors, about | {"version": 0})
        with self.assertRaisesRegex(InputError, "another version"):
            model.load(self.path)
        write_tensors(self.path, {"a": torch.zeros(1)}, about)
        with self.assertRaisesRegex(InputError, "does not fit"):
            model.load(self.path)


if __name__ == "__main__":
    unittest.main()
