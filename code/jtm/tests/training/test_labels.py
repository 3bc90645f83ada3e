"""Supervised training: windows, context, soft labels and frozen parameters."""

import os
import unittest
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from jtm.constants import N_PITCHES
from jtm.evaluation.families import Family, _quick_score
from jtm.evaluation.tasks import TASKS
from jtm.models.heads import NetworkWithHeads, _FlatTrunk, _Heads
from jtm.training import labels
from jtm.training.labels import Labelled, Windows, _task_loss
from jtm.training.loop import Plan, fit

BINS = 6


def read(index, first, n_frames):
    """Return inputs that encode recording and frame."""
    frames = np.arange(first, first + n_frames, dtype=np.float32) / 1000
    return np.stack([frames + index / 10] * BINS, axis=1)


def targets(index, first, n_frames):
    """Return targets in which one pitch is active."""
    roll = np.zeros((n_frames, 2, N_PITCHES), np.float32)
    roll[:, 0, index] = 1
    return {"transcription": roll}


class ScalingBody(torch.nn.Module):
    """A body that returns a scaled copy of its input."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(BINS))

    def forward(self, inputs):
        """Scale."""
        return inputs * self.scale


def make(seed=0):
    """Make a small network."""
    torch.manual_seed(seed)
    heads = _Heads(_FlatTrunk(BINS, 8, channels=2), {"transcription": ("map", 2)})
    return NetworkWithHeads(ScalingBody(), heads)


def windows(**chosen):
    """Make windows of two labelled recordings and one without labels."""
    chosen = {"seed": 0, "size": 128, "edge": 16} | chosen
    return Windows(read, [(0, 0, 300), (1, 50, 400)], targets, 3, **chosen)


class TestWindows(unittest.TestCase):
    def test_windows_lie_in_their_spans_with_context_around(self):
        for inputs, targets, recordings in windows(batch_size=6, size=100, edge=10):
            self.assertEqual(inputs.shape, (6, 120, BINS))
            self.assertEqual(targets["transcription"].shape[:2], (6, 100))
            for x, index in zip(inputs[..., 0], recordings, strict=True):
                first = round(float(x[10] - index / 10) * 1000)
                low, high = ((0, 300), (50, 400))[index]
                self.assertTrue(low <= first <= high - 100)

    def test_windows_depend_on_seed_epoch_and_batch(self):
        one, same = windows(batch_size=2), windows(batch_size=2)
        batches = [x for x, *_ in one]
        same.first_batch = 2
        torch.testing.assert_close(next(iter(same))[0], batches[2])
        same.epoch = 1
        self.assertFalse(torch.equal(next(iter(same))[0], batches[0]))

    @unittest.skipUnless(hasattr(os, "fork"), "workers are forked")
    def test_workers_draw_the_same_batches_for_a_gpu(self):
        alone, parallel = windows(batch_size=2), windows(batch_size=2)
        parallel.device = torch.device("cuda")
        parallel.first_batch = alone.first_batch = 1
        state = torch.get_rng_state()
        with mock.patch.object(parallel, "draw", wraps=parallel.draw) as draw:
            batches = list(parallel)
        draw.assert_not_called()  # in this process
        self.assertTrue(torch.equal(torch.get_rng_state(), state))
        self.assertEqual(len(batches), 2)
        for one, same in zip(alone, batches, strict=True):
            torch.testing.assert_close(list(same), list(one))

    def test_unlabelled_windows_come_last_without_targets(self):
        batch = windows(batch_size=4, unlabelled=[(5, 0, 900)], n_unlabelled=3)
        for inputs, targets, recordings in batch:
            self.assertEqual(len(inputs), 4)
            self.assertEqual(len(targets["transcription"]), 1)
            self.assertEqual(recordings[1:], [5, 5, 5])


class TestLabelled(unittest.TestCase):
    def train(self, network, rates, **chosen):
        """Train for a few steps."""
        few = chosen.pop("windows", windows(batch_size=4))
        with mock.patch.object(labels, "WARMUP", 0):
            module = Labelled(network, Plan(4), few, rates, **chosen)
            fit(module, progress=False)
        return module

    def test_frozen_body_is_unchanged_and_heads_are_updated(self):
        network = make()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        self.train(network, (0.0, 1e-2))
        after = network.state_dict()
        torch.testing.assert_close(after["body.scale"], before["body.scale"])
        name = "heads.readers.transcription.linear.weight"
        self.assertFalse(torch.equal(after[name], before[name]))

    def test_trained_body_is_updated(self):
        network = make()
        self.train(network, (1e-2, 1e-2))
        self.assertFalse(torch.equal(network.body.scale, torch.ones(BINS)))

    def test_student_approaches_its_teacher(self):
        teacher = make(1).requires_grad_(False)
        reader = teacher.heads.readers["transcription"]
        with torch.no_grad():
            reader.linear.weight.zero_()
            reader.linear.bias.fill_(-1.0)
            reader.own[0, 70] = 9.0  # a pitch without labels
        pool = {"unlabelled": [(0, 0, 900)], "n_unlabelled": 3}
        before = {k: v.clone() for k, v in teacher.state_dict().items()}
        means = []
        for each in (None, teacher):
            module = self.train(
                make(),
                (1e-2, 5e-2),
                teacher=each,
                windows=windows(batch_size=4, **pool),
            )
            network = module.network.eval()
            with torch.no_grad():
                logits = network(torch.from_numpy(read(0, 0, 64)[None]))
            means.append(float(logits["transcription"][0, :, 0, 70].mean()))
        self.assertGreater(means[1], means[0] + 0.5)
        for name, value in teacher.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_contrastive_loss_gets_unlabelled_windows_only(self):
        calls = []

        class Contrast(torch.nn.Module):
            def forward(self, z, c, recordings, generator):
                calls.append((len(z), recordings.tolist()))
                return {"loss": z.square().mean()}

        network = make()
        network.body.encode = network.body.forward
        network.body.model = SimpleNamespace(summarise=lambda z: z)
        pool = windows(batch_size=4, unlabelled=[(7, 0, 900)], n_unlabelled=2)
        self.train(network, (1e-2, 1e-2), contrast=Contrast(), windows=pool)
        self.assertEqual(calls[0], (2, [7, 7]))


class TestLoss(unittest.TestCase):
    def test_zero_logits_cost_one_bit(self):
        logits = torch.zeros(1, 5, 2, 3)
        loss = _task_loss(logits, torch.zeros_like(logits))
        self.assertAlmostEqual(loss.item(), np.log(2), places=6)

    def test_one_hot_probabilities_equal_class_indices(self):
        logits = torch.tensor([[2.0, 0.0]])
        one = _task_loss(logits, torch.tensor([0]))
        same = _task_loss(logits, torch.tensor([[1.0, 0.0]]))
        torch.testing.assert_close(one, same)

    def test_unknown_targets_have_no_loss(self):
        logits = torch.tensor([[2.0, 0.0], [9.0, 0.0]])
        one = _task_loss(logits[:1], torch.tensor([0]))
        torch.testing.assert_close(
            _task_loss(logits, torch.tensor([0, labels.UNKNOWN])), one
        )
        none = _task_loss(logits, torch.full((2,), labels.UNKNOWN))
        self.assertEqual(none.item(), 0.0)


class TestQuickScore(unittest.TestCase):
    def test_quick_score_of_frames_and_classes(self):
        truth = np.zeros((40, 2, 3), np.float32)
        truth[::16, 0, 1] = 1
        self.assertEqual(_quick_score(TASKS["multipitch"], [truth - 0.5], [truth]), 1.0)
        self.assertLess(_quick_score(TASKS["multipitch"], [-truth], [truth]), 0.5)
        classes = [np.array([0.0, 1.0])] * 2
        self.assertEqual(
            _quick_score(TASKS["multipitch"], classes, [np.int64(1), np.int64(0)]), 0.5
        )


class TestLogits(unittest.TestCase):
    def test_number_of_frames_equals_that_of_the_input(self):
        task = SimpleNamespace(task=TASKS["transcription"], store=None)
        family = Family({"transcription": task}, stride=2, read=read)
        logits = family.logits(make().eval(), read(0, 0, 31)[None])
        self.assertEqual(logits["transcription"].shape, (1, 31, 2, N_PITCHES))

    def test_logits_are_not_rounded_to_bfloat16(self):
        task = SimpleNamespace(task=TASKS["transcription"], store=None)
        family = Family({"transcription": task}, stride=2, read=read)
        network = make().eval()
        for reader in network.heads.readers.values():  # spread them around -4
            torch.nn.init.normal_(reader.linear.weight, 0, 0.01)
        with mock.patch("jtm.evaluation.families.computes_bf16", lambda device: True):
            logits = family.logits(network, read(0, 0, 32)[None])["transcription"]
        rounded = torch.from_numpy(logits).bfloat16().float().numpy()
        self.assertGreater((logits != rounded).mean(), 0.5)
