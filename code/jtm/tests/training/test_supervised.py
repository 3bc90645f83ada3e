import contextlib
import io
import tempfile
import unittest
from unittest import mock

import numpy as np
import torch

from jtm.files import InputError
from jtm.models.heads import FrameHead, WindowHead
from jtm.training.checkpoints import build_model, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.pretrain import StoppedError
from jtm.training.supervised import Batches, SupervisedModule, fit

WINDOWS = np.array([(index, 0) for index in range(11)])


def read(index, first):
    """Features that carry a class in their mean, for 10 frames of 6."""
    rng = np.random.default_rng(int(index))
    frames = rng.normal(size=(10, 6)).astype(np.float32)
    frames[:, index % 2] += 2.0
    return frames, np.int64(index % 2)


class Order(unittest.TestCase):
    def rows(self, batches):
        return [targets.tolist() for _, targets in batches]

    def batches(self, **chosen):
        return Batches(WINDOWS, lambda i, first: (np.zeros(1), i), 4, **chosen)

    def test_an_epoch_visits_each_window_once(self):
        rows = self.rows(self.batches(seed=0))
        self.assertEqual(sorted(sum(rows, [])), list(range(11)))
        self.assertEqual([len(row) for row in rows], [4, 4, 3])
        self.assertEqual(len(self.batches()), 3)

    def test_the_order_is_drawn_from_seed_and_epoch(self):
        first, other = self.batches(seed=0), self.batches(seed=0)
        self.assertEqual(self.rows(first), self.rows(other))
        other.epoch = 1
        self.assertNotEqual(self.rows(first), self.rows(other))
        self.assertNotEqual(self.rows(first), self.rows(self.batches(seed=1)))
        self.assertEqual(sum(self.rows(self.batches()), []), list(range(11)))

    def test_it_starts_from_any_batch_once(self):
        batches = self.batches(seed=0)
        whole = self.rows(batches)
        batches.first_batch = 2
        self.assertEqual(self.rows(batches), whole[2:])
        self.assertEqual(self.rows(batches), whole)

    def test_no_batch_is_left_with_one_window(self):
        batches = Batches(WINDOWS[:9], lambda i, first: (np.zeros(1), i), 4)
        self.assertEqual([len(row) for row in self.rows(batches)], [3, 3, 3])


class Fit(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def module(self, name, head=None, **chosen):
        config = make_config(
            SupervisedConfig,
            "tiny",
            {
                "path_checkpoint": f"{self.folder}/{name}",
                "encoder_type": "conv",
                "hidden_encoder": 8,
                "hidden_gar": 8,
                "batch_size": 4,
                "n_epoch": 3,
                "learning_rate": 0.05,
            }
            | chosen,
        )
        torch.manual_seed(0)
        head = head or WindowHead(6, 2)
        windows = Batches(WINDOWS, read, 4, 0), Batches(WINDOWS[:4], read, 4)
        return SupervisedModule(config, build_model(config), head, *windows, "origin")

    def fitted(self, module):
        with contextlib.redirect_stdout(io.StringIO()):
            fit(module, progress=False)
        return {k: v.clone() for k, v in module.state_dict().items()}

    def test_it_learns(self):
        module = self.module("learns", n_epoch=20)
        self.fitted(module)
        losses = [row["loss"] for row in module.history if row["split"] == "train"]
        self.assertLess(losses[-1], 0.1)
        inputs, classes = next(iter(Batches(WINDOWS, read, 11)))
        self.assertEqual(module(inputs).argmax(dim=1).tolist(), classes.tolist())
        self.assertFalse(module.training)

    def test_the_best_epoch_is_kept_not_the_last(self):
        # Steps this large only make it worse after the first epoch.
        module = self.module("best", learning_rate=1.0, n_epoch=4)
        with mock.patch.object(SupervisedModule, "on_validation_epoch_end") as end:
            losses = iter([2.0, 1.0, 3.0, 4.0])
            end.side_effect = lambda: module.log("validation_loss", next(losses))
            state = self.fitted(module)
        for name, kept in (("checkpoint1", True), ("checkpoint3", False)):
            there = read_checkpoint(f"{module.folder}/{name}.pt")["state_dict"]
            same = torch.equal(there["head.linear.weight"], state["head.linear.weight"])
            self.assertEqual(same, kept, name)

    def test_a_stopped_run_ends_with_the_same_weights(self):
        whole = self.fitted(self.module("whole"))
        stopped = self.module("stopped")
        step = SupervisedModule.training_step

        def stop_at_4(module, batch):
            if module.global_step == 4:
                module.trainer.callbacks[0].signal = 2
            return step(module, batch)

        with mock.patch.object(SupervisedModule, "training_step", stop_at_4):
            with self.assertRaises(StoppedError):
                self.fitted(stopped)
        last = read_checkpoint(stopped.folder / "last.pt")
        self.assertEqual(last["global_step"], 5)  # inside the second epoch
        resumed = self.module("stopped")
        state = self.fitted(resumed)
        for name, value in whole.items():
            self.assertTrue(torch.equal(value, state[name]), name)
        rows = [row["windows"] for row in resumed.history]
        self.assertEqual(rows, [11, 4] * 3)
        # What is finished is not trained on.
        with mock.patch.object(SupervisedModule, "training_step") as trained:
            again = self.fitted(self.module("stopped"))
            trained.assert_not_called()
        self.assertTrue(
            torch.equal(again["head.linear.bias"], whole["head.linear.bias"])
        )

    def test_the_learning_rate_falls_to_zero_in_a_line(self):
        module = self.module("rate", n_epoch=2)
        rates = []
        step = SupervisedModule.training_step

        def noted(module, batch):
            rates.append(module.optimizers().param_groups[0]["lr"])
            return step(module, batch)

        with mock.patch.object(SupervisedModule, "training_step", noted):
            self.fitted(module)
        # Two epochs of three batches, from 0.05.
        expected = [0.05 * (1 - k / 6) for k in range(6)]
        for found, rate in zip(rates, expected, strict=True):
            self.assertAlmostEqual(found, rate)

    def test_dropout_is_drawn_from_seed_and_step(self):
        states = []
        for number in range(2):
            head = torch.nn.Sequential(torch.nn.Dropout(0.5), WindowHead(6, 2))
            module = self.module(f"dropout{number}", head)
            head[1].linear.weight.data.fill_(0.1)
            head[1].linear.bias.data.zero_()
            torch.manual_seed(number)
            states.append(self.fitted(module)["head.1.linear.weight"])
        self.assertTrue(torch.equal(*states))

    def test_a_loss_that_is_no_number_stops_the_run(self):
        module = self.module("nan", FrameHead(6, 1))
        x, target = torch.full((2, 3, 6), float("nan")), torch.zeros(2, 3, 1)
        with self.assertRaisesRegex(InputError, "loss is nan at step 0.*learningRate"):
            module.training_step((x, target))

    def test_what_is_frozen_stays(self):
        module = self.module("frozen")
        before = {k: v.clone() for k, v in module.model.state_dict().items()}
        self.fitted(module)
        for name, value in module.model.state_dict().items():
            self.assertTrue(torch.equal(value, before[name]), name)

    def test_the_loss_by_hand(self):
        module = self.module("hand", FrameHead(6, 1))
        module.head.linear.weight.data.zero_()
        module.head.linear.bias.data.fill_(1.0)
        x = torch.randn(2, 3, 6)
        target = torch.tensor([[[1.0], [0.0], [0.0]]] * 2)
        # -log sigmoid(1) once, -log sigmoid(-1) twice.
        expected = (0.313262 + 2 * 1.313262) / 3
        loss = module.training_step((x, target))
        self.assertAlmostEqual(loss.item(), expected, places=5)


if __name__ == "__main__":
    unittest.main()
