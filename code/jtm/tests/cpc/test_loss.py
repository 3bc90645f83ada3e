"""InfoNCE against hand-computed values and a plain implementation."""

import itertools
import math
import unittest
from dataclasses import asdict
from types import SimpleNamespace
from unittest import mock

import torch

from benchmarks.cpc_step import published_criterion
from jtm.constants import HOP
from jtm.cpc.config import PretrainConfig
from jtm.cpc.loss import InfoNCE, draw_negatives, info_nce
from jtm.training.config import make_config

RANDOM = torch.Generator()


def infonce(c_dim, z_dim, n_predicts=12, groups=1, passed=0, n=128, **chosen):
    """Make a criterion of any sizes, by default the published one."""
    settings = asdict(make_config(PretrainConfig, "reference", {}))
    settings |= {"n_predicts": n_predicts, "negative_sampling_ext": n} | chosen
    model = SimpleNamespace(
        c_dim=c_dim,
        z_dim=z_dim,
        encoder=SimpleNamespace(hop=HOP, passed=passed),
        context=SimpleNamespace(groups=groups),
    )
    return InfoNCE(SimpleNamespace(**settings), model)


def draw(recordings=(0, 0, 1), frames=20, n=50, same_share=0.0, others=False):
    """Draw negatives for anchors 0, 3, 6 and steps 2, 4."""
    anchors, steps = torch.tensor([0, 3, 6]), torch.tensor([2, 4])
    recordings = torch.tensor(recordings)
    drawn = draw_negatives(
        recordings, frames, anchors, steps, n, same_share, others, RANDOM.manual_seed(0)
    )
    return drawn, recordings, anchors, steps


class TestInfoNCE(unittest.TestCase):
    def test_equal_scores_give_log_of_candidates(self):
        losses, accuracies = info_nce(torch.full((2, 3, 4, 1 + 7), 5.0))
        torch.testing.assert_close(losses, torch.full((4,), math.log(8)))
        self.assertEqual(accuracies.tolist(), [0.0] * 4)

    def test_hand_computed_loss_and_accuracy(self):
        scores = torch.tensor([[[[2.0, 0.0, 1.0]], [[0.0, 3.0, 0.0]]]])
        first = -2 + math.log(math.exp(2) + 1 + math.exp(1))
        second = math.log(2 + math.exp(3))
        losses, accuracies = info_nce(scores)
        self.assertAlmostEqual(losses.item(), (first + second) / 2, places=6)
        self.assertEqual(accuracies.item(), 0.5)

    def test_positive_is_at_index_0_and_scores_match_plain_loops(self):
        torch.manual_seed(0)
        for score in ("inner", "cosine"):
            criterion = infonce(
                6, 5, 3, step_frames=2, anchor_frames=4, n=9, score=score
            )
            z, c = torch.randn(2, 20, 5), torch.randn(2, 20, 6)
            recordings = torch.tensor([0, 1])
            scores = criterion.scores(z, c, recordings, RANDOM.manual_seed(1))
            anchors, steps = torch.arange(0, 14, 4), torch.tensor([2, 4, 6])
            drawn = draw_negatives(
                recordings, 20, anchors, steps, 9, 0.0, False, RANDOM.manual_seed(1)
            )
            weights = criterion.predict.weight.view(3, 5, 6)
            for b in range(2):
                for i, t in enumerate(anchors):
                    for k, step in enumerate(steps):
                        predicted = weights[k] @ c[b, t]
                        candidates = [z[b, t + step], *z.flatten(0, 1)[drawn[b, i]]]
                        for n, candidate in enumerate(candidates):
                            expected = predicted @ candidate / 5
                            if score == "cosine":
                                norm = predicted.norm() * candidate.norm()
                                expected = predicted @ candidate / norm / 0.1
                            self.assertAlmostEqual(
                                scores[b, i, k, n].item(), expected.item(), places=4
                            )

    def test_values_and_gradients_equal_the_published_criterion(self):
        # Few negatives are gathered; with many, one product with all latents is
        # computed, depending on the number of negatives x channels.
        for n_negatives, z_dim in ((5, 4), (30, 40)):
            torch.manual_seed(0)
            ours = infonce(6, z_dim, n_predicts=3, n=n_negatives)
            z = torch.randn(2, 20, z_dim, requires_grad=True)
            c = torch.randn(2, 20, 6, requires_grad=True)
            recordings = torch.tensor([0, 1])
            named = ours(z, c, recordings, RANDOM.manual_seed(1))
            anchors, steps = torch.arange(17), torch.arange(1, 4)
            drawn = draw_negatives(
                recordings, 20, anchors, steps, n_negatives, 0, False,
                RANDOM.manual_seed(1),
            )  # fmt: skip
            weights = ours.predict.weight.unflatten(0, (3, z_dim))
            losses = published_criterion(z, c, weights, drawn)
            for k, loss in enumerate(losses):
                torch.testing.assert_close(
                    named[f"loss_{k + 1}"], loss, atol=1e-5, rtol=0
                )
            inputs = (z, c, ours.predict.weight)
            found = torch.autograd.grad(named["loss"], inputs)
            expected = torch.autograd.grad(torch.stack(losses).mean(), inputs)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_negatives_are_shared_by_the_anchors_of_a_window(self):
        torch.manual_seed(0)
        criterion = infonce(6, 5, 3, step_frames=2, n=30, share_negatives="window")
        z, c = torch.randn(2, 20, 5), torch.randn(2, 20, 6)
        recordings = torch.tensor([0, 1])
        scores = criterion.scores(z, c, recordings, RANDOM.manual_seed(1))
        self.assertEqual(scores.shape, (2, 14, 3, 31))
        drawn = draw_negatives(
            recordings,
            20,
            torch.tensor([0]),
            torch.tensor([], dtype=torch.long),
            30,
            0.0,
            False,
            RANDOM.manual_seed(1),
        )
        weights = criterion.predict.weight.view(3, 5, 6)
        n_masked = 0
        for b in range(2):
            for t in range(14):
                positives = {b * 20 + t + step for step in (2, 4, 6)}
                for n, candidate in enumerate(drawn[b, 0].tolist()):
                    found = scores[b, t, 1, 1 + n].item()
                    if candidate in positives:
                        self.assertLess(found, -1e30)
                        n_masked += 1
                        continue
                    expected = weights[1] @ c[b, t] @ z.flatten(0, 1)[candidate] / 5
                    self.assertAlmostEqual(found, expected.item(), places=4)
        self.assertGreater(n_masked, 0)
        self.assertTrue(torch.isfinite(info_nce(scores)[0]).all())

    def test_groups_predict_their_own_channels_with_shared_weights(self):
        torch.manual_seed(0)
        criterion = infonce(6, 4, 3, n=5, groups=2)
        z, c = torch.randn(2, 9, 4), torch.randn(2, 9, 6)
        recordings = torch.tensor([0, 1])
        scores = criterion.scores(z, c, recordings, RANDOM.manual_seed(0))
        rolled = criterion.scores(
            z.roll(2, 2), c.roll(3, 2), recordings, RANDOM.manual_seed(0)
        )
        torch.testing.assert_close(scores, rolled)
        plain = infonce(6, 4, 3, n=5)
        full = torch.zeros(3, 4, 6)
        shared = criterion.predict.weight.view(3, 2, 3)
        full[:, :2, :3], full[:, 2:, 3:] = shared, shared
        plain.predict.weight.data = full.detach().view(12, 6)
        torch.testing.assert_close(
            plain.scores(z, c, recordings, RANDOM.manual_seed(0)), scores
        )

    def local(self, z, **chosen):
        """Make a criterion of two groups, each of two features and a magnitude."""
        torch.manual_seed(0)
        settings = {"n_predicts": 2, "step_frames": 3, "anchor_frames": 2}
        settings |= {"n": 6, "score": "cosine", "groups": 2, "passed": 1}
        return infonce(8, 6, **(settings | chosen)), torch.randn(*z.shape[:2], 8)

    def test_pitch_contrast_matches_plain_loops(self):
        z = torch.rand(2, 20, 2, 3)  # the last feature is the magnitude
        criterion, c = self.local(z)
        groups = torch.tensor([1, 0])
        # Anchors at frames 0, 2, ... 12 of the first window, then of the second.
        indices = torch.tensor([[0, 13, 5, 5, 8, 1, 2], [4, 3, 7, 12, 9, 11, 10]])
        given = (z.flatten(2), c, torch.tensor([0, 1]), RANDOM.manual_seed(1), "pitch")
        with mock.patch("torch.multinomial", side_effect=[groups, indices]) as sample:
            scores = criterion.scores(*given)
        # Anchors are drawn in proportion to the magnitude.
        loud = z[:, :13:2, :, 2].permute(2, 0, 1).flatten(1) + 1e-4
        for call, chances in zip(
            sample.call_args_list, (loud.sum(1), loud[groups]), strict=True
        ):
            torch.testing.assert_close(call.args[0], chances)
        weights = criterion.predict.weight.view(2, 2, 4)
        self.assertEqual(scores.shape, (2, 7, 2, 8))
        for g, i, k in itertools.product(range(2), range(7), range(2)):
            anchors = [(int(m) // 7, 2 * (int(m) % 7)) for m in indices[g]]
            (b, frame), group = anchors[i], groups[g]
            predicted = weights[k] @ c[b, frame].view(2, 4)[group]
            own = [(b, frame + 3 * j) for j in (1, 2)]
            futures = [(b, frame + 3 * (k + 1)) for b, frame in anchors]
            for n, position in enumerate([own[k], *futures]):
                found = scores[g, i, k, n].item()
                if n and position in own:  # its own positive, at any step
                    self.assertLess(found, -1e30)
                    continue
                candidate = z[position[0], position[1], group, :2]
                expected = torch.cosine_similarity(predicted, candidate, dim=0) / 0.1
                self.assertAlmostEqual(found, expected.item(), places=4)
        self.assertTrue((scores[..., 1:] < -1e30).any())

    def test_current_magnitude_does_not_reveal_the_positive(self):
        # Each pitch is active in one frame of three, so it is silent one step later.
        loud = torch.zeros(2, 21, 2)
        loud[:, ::3] = 1.0
        self.assert_positive_not_revealed(loud[..., None].expand(-1, -1, -1, 3))

    def test_constant_colour_of_a_pitch_does_not_reveal_the_positive(self):
        # Each pitch has a constant colour of its own, as from a room or a filter.
        z = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        self.assert_positive_not_revealed(z.expand(2, 21, 2, 3))

    def assert_positive_not_revealed(self, z):
        """Assert that negatives score the same as the positive."""
        criterion, c = self.local(z, step_frames=1, anchor_frames=1, n=40)
        given = (z.flatten(2), c, torch.tensor([0, 1]), RANDOM.manual_seed(1), "pitch")
        scores = criterion.scores(*given)
        negatives = scores[..., 1:]
        same = (negatives - scores[..., :1]).abs() < 1e-4
        same |= negatives < -1e30
        self.assertGreater(same.float().mean().item(), 0.99)  # 1e-4: silent anchors

    def test_both_contrasts_average_their_losses(self):
        z = torch.rand(2, 300, 6, generator=torch.Generator().manual_seed(0))
        losses = {}
        for contrast in ("frame", "pitch", "both"):
            criterion, c = self.local(z, contrast=contrast, n=400)
            named = criterion(z, c, torch.tensor([0, 1]), RANDOM.manual_seed(1))
            losses[contrast] = named["loss"].item()
        self.assertNotEqual(losses["frame"], losses["pitch"])
        mean = (losses["frame"] + losses["pitch"]) / 2
        # The second draws other negatives: with many, its loss is nearly the same.
        self.assertAlmostEqual(losses["both"], mean, delta=0.1)

    def test_loss_is_the_mean_of_the_named_step_losses(self):
        criterion = infonce(6, 5, n_predicts=3, n=4)
        z, c = torch.randn(2, 9, 5), torch.randn(2, 9, 6)
        named = criterion(z, c, torch.tensor([0, 1]), RANDOM.manual_seed(0))
        steps = [f"{name}_{k}" for k in (1, 2, 3) for name in ("loss", "accuracy")]
        self.assertEqual(list(named), ["loss", *steps])
        mean = sum(named[f"loss_{k}"] for k in (1, 2, 3)) / 3
        torch.testing.assert_close(named["loss"], mean)

    def test_too_short_window_is_refused(self):
        criterion = infonce(6, 5, n_predicts=3, step_frames=3)
        with self.assertRaisesRegex(ValueError, "9 frames is too short to predict 9"):
            criterion(
                torch.zeros(1, 9, 5), torch.zeros(1, 9, 6), torch.zeros(1), RANDOM
            )


class TestNegatives(unittest.TestCase):
    def test_positive_is_never_among_its_negatives(self):
        for same_share in (0.0, 0.5, 1.0):
            drawn, recordings, anchors, steps = draw(n=2000, same_share=same_share)
            for b in range(3):
                for i, t in enumerate(anchors):
                    positives = (b * 20 + t + steps).tolist()
                    self.assertFalse(set(positives) & set(drawn[b, i].tolist()))

    def test_other_frames_are_drawn_uniformly(self):
        drawn, *_ = draw(n=60_000)
        counts = torch.bincount(drawn[0, 1], minlength=60)  # anchor 3: not 5 nor 7
        self.assertEqual(counts[[5, 7]].tolist(), [0, 0])
        allowed = counts[counts > 0].float()
        self.assertEqual(len(allowed), 58)
        self.assertLess((allowed / allowed.mean() - 1).abs().max(), 0.15)

    def test_share_of_negatives_from_the_same_recording(self):
        drawn, recordings, *_ = draw(n=100, same_share=1.0)
        windows = drawn // 20
        own = recordings[:, None, None]
        self.assertTrue((recordings[windows] == own).all())
        mixed, *_ = draw(recordings=(0, 1, 2), n=4000, same_share=0.5)
        share = (mixed // 20 == torch.arange(3)[:, None, None]).float().mean()
        self.assertAlmostEqual(share.item(), 0.5 + 0.5 * 18 / 58, delta=0.02)

    def test_negatives_from_other_windows_only(self):
        drawn, *_ = draw(n=500, others=True)
        own = torch.arange(3)[:, None, None]
        self.assertFalse((drawn // 20 == own).any())
        self.assertEqual(set((drawn // 20).unique().tolist()), {0, 1, 2})

    def test_negatives_fall_back_where_no_window_is_eligible(self):
        # Window 2 is the only one of its recording: windows 0 and 1 are drawn from.
        drawn, *_ = draw(n=500, others=True, same_share=1.0)
        self.assertEqual(
            [set((d // 20).flatten().tolist()) for d in drawn[:2]], [{1}, {0}]
        )
        self.assertEqual(set((drawn[2] // 20).flatten().tolist()), {0, 1})
        # A single window in a batch draws from itself, except its positives.
        drawn, *_ = draw(n=500, recordings=(0,), others=True)
        self.assertEqual(set(drawn[0, 1].tolist()), set(range(20)) - {5, 7})

    def test_settings_choose_the_windows_of_negatives(self):
        z = torch.eye(3)[:, None].expand(3, 20, 3)  # a latent names its window
        c, recordings = torch.ones(3, 20, 1), torch.tensor([0, 0, 1])
        for chosen, expected in (
            ({"same_share": 0.0}, [{0, 1, 2}] * 3),
            ({"same_share": 1.0}, [{0, 1}, {0, 1}, {2}]),
            ({"other_windows": True}, [{1, 2}, {0, 2}, {0, 1}]),
        ):
            for share in ("window", "anchor"):
                criterion = infonce(1, 3, 1, share_negatives=share, **chosen)
                with torch.no_grad():  # the score of a candidate is its window
                    criterion.predict.weight.copy_(3 * torch.arange(3.0)[:, None])
                    scores = criterion.scores(z, c, recordings, RANDOM.manual_seed(0))
                found = [set(row[row >= 0].tolist()) for row in scores[..., 1:]]
                self.assertEqual(found, expected, (chosen, share))

    def test_same_seed_gives_same_negatives(self):
        torch.testing.assert_close(draw()[0], draw()[0])


if __name__ == "__main__":
    unittest.main()
