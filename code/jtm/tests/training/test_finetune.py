import tempfile
import unittest
from unittest import mock

import lightning
import numpy as np
import torch

from jtm.files import StoppedError
from jtm.models.heads import FrameHead, PooledHead
from jtm.models.network import make_network
from jtm.training.checkpoints import read_checkpoint
from jtm.training.finetune import Batches, SupervisedModule, vary
from jtm.training.loop import Plan, fit

WEIGHT = "head.class.head.linear.weight"

WINDOWS = np.array([(index, 0) for index in range(11)])


def read(index, first):
    """Features that carry a class in their mean, for 10 frames of 6."""
    rng = np.random.default_rng(int(index))
    frames = rng.normal(size=(10, 6)).astype(np.float32)
    frames[:, index % 2] += 2.0
    return frames, {"class": np.int64(index % 2)}


def give_row(index, first):
    """Nothing, and which window it is of."""
    return np.zeros(1), {"row": np.int64(index)}


def head(dim=6, n_outputs=2):
    """A head of one task, on mean and deviation of a window."""
    heads = {"class": PooledHead(FrameHead(2 * dim, n_outputs))}
    return torch.nn.ModuleDict(heads)


class Order(unittest.TestCase):
    def rows(self, batches):
        return [targets["row"].tolist() for _, targets in batches]

    def batches(self, **chosen):
        return Batches(WINDOWS, give_row, 4, **chosen)

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

    def test_an_epoch_of_so_many_steps(self):
        rows = self.rows(self.batches(seed=0, steps=6))
        self.assertEqual([len(row) for row in rows], [4] * 6)
        counts = np.bincount(sum(rows, []), minlength=11)
        self.assertEqual((counts.min(), counts.max()), (2, 3))
        few = self.rows(self.batches(seed=0, steps=1))
        self.assertEqual(len(set(few[0])), 4)

    def test_no_batch_is_left_with_one_window(self):
        batches = Batches(WINDOWS[:9], give_row, 4)
        self.assertEqual([len(row) for row in self.rows(batches)], [3, 3, 3])
        for size, least, n, expected in (
            (2, 1, 5, [2, 2, 1]),
            (2, 2, 5, [3, 2]),
            (2, 2, 6, [2, 2, 2]),
            (3, 2, 4, [2, 2]),
            (2, 2, 1, [1]),
        ):
            batches = Batches(WINDOWS[:n], give_row, size, 0, least=least)
            self.assertEqual([len(row) for row in self.rows(batches)], expected)
            self.assertEqual(len(batches), len(expected))


class Fit(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def module(self, name, heads=None, frozen=True, **chosen):
        torch.manual_seed(0)
        plan = Plan(chosen.pop("n_epoch", 3), folder=f"{self.folder}/{name}")
        windows = Batches(WINDOWS, read, 4, 0), Batches(WINDOWS[:4], read, 4)
        model = make_network("conv", 8, hidden_context=8)
        chosen = {"rate": 0.05, "frozen": frozen} | chosen
        return SupervisedModule(plan, model, heads or head(), *windows, **chosen)

    def fitted(self, module):
        fit(module, quiet=True)
        return {k: v.clone() for k, v in module.state_dict().items()}

    def loss(self, module, *batch):
        return module.loss(batch, "train", 0)["loss"].item()

    def test_it_learns(self):
        module = self.module("learns", n_epoch=20)
        self.fitted(module)
        losses = [row["loss"] for row in module.history if row["split"] == "train"]
        self.assertLess(losses[-1], 0.1)
        inputs, classes = next(iter(Batches(WINDOWS, read, 11)))
        answers = module(inputs)["class"].argmax(dim=1)
        self.assertEqual(answers.tolist(), classes["class"].tolist())
        self.assertFalse(module.training)

    def test_one_device_trains(self):
        with mock.patch.object(
            lightning, "Trainer", side_effect=lightning.Trainer
        ) as trainer:
            self.fitted(self.module("one device", n_epoch=1))
        self.assertEqual(trainer.call_args.kwargs["devices"], 1)

    def test_the_best_epoch_is_kept_not_the_last(self):
        # Steps this large only make it worse after the first epoch.
        module = self.module("best", rate=1.0, n_epoch=4)
        losses = [2.0, 1.0, 3.0, 4.0]
        computed = SupervisedModule.loss

        def given(module, batch, split, step):
            named = computed(module, batch, split, step)
            if split == "validation":
                named["loss"] = torch.tensor(losses[module.current_epoch])
            return named

        with mock.patch.object(SupervisedModule, "loss", given):
            state = self.fitted(module)
        for name, kept in (("checkpoint1", True), ("checkpoint3", False)):
            there = read_checkpoint(f"{module.plan.folder}/{name}.pt")["state_dict"]
            same = torch.equal(there[WEIGHT], state[WEIGHT])
            self.assertEqual(same, kept, name)

    def test_a_stopped_run_ends_with_the_same_weights(self):
        whole = self.fitted(self.module("whole"))
        stopped = self.module("stopped")
        step = SupervisedModule.training_step

        def stop_at_4(module, *batch):
            if module.global_step == 4:
                module.trainer.callbacks[0].signal = 2
            return step(module, *batch)

        with mock.patch.object(SupervisedModule, "training_step", stop_at_4):
            with self.assertRaises(StoppedError):
                self.fitted(stopped)
        last = read_checkpoint(f"{stopped.plan.folder}/last.pt")
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
        self.assertTrue(torch.equal(again[WEIGHT], whole[WEIGHT]))

    def test_the_learning_rate_falls_to_zero_in_a_line(self):
        module = self.module("rate", n_epoch=2)
        rates = []
        step = SupervisedModule.training_step

        def noted(module, *batch):
            rates.append(module.optimizers().param_groups[0]["lr"])
            return step(module, *batch)

        with mock.patch.object(SupervisedModule, "training_step", noted):
            self.fitted(module)
        # Two epochs of three batches, from 0.05.
        expected = [0.05 * (1 - k / 6) for k in range(6)]
        for found, rate in zip(rates, expected, strict=True):
            self.assertAlmostEqual(found, rate)

    def test_dropout_is_drawn_from_seed_and_step(self):
        states = []
        for number in range(2):
            frames = FrameHead(12, 2, hidden=8, dropout=0.5)
            heads = torch.nn.ModuleDict({"class": PooledHead(frames)})
            module = self.module(f"dropout{number}", heads)
            for value in heads.parameters():
                value.data.fill_(0.1)
            torch.manual_seed(number)
            states.append(self.fitted(module)[WEIGHT])
        self.assertTrue(torch.equal(*states))

    def test_what_is_frozen_stays(self):
        module = self.module("frozen")
        before = {k: v.clone() for k, v in module.model.state_dict().items()}
        self.fitted(module)
        for name, value in module.model.state_dict().items():
            self.assertTrue(torch.equal(value, before[name]), name)

    def test_the_loss_by_hand(self):
        heads = {"notes": FrameHead(6, 1), "class": PooledHead(FrameHead(12, 2))}
        module = self.module("hand", torch.nn.ModuleDict(heads))
        for value in module.head.parameters():
            value.data.zero_()
        module.head["notes"].linear.bias.data.fill_(1.0)
        x = torch.randn(2, 3, 6)
        notes = torch.tensor([[[1.0], [0.0], [0.0]]] * 2)
        # -log sigmoid(1) once, -log sigmoid(-1) twice.
        expected = (0.313262 + 2 * 1.313262) / 3
        loss = self.loss(module, x, {"notes": notes})
        self.assertAlmostEqual(loss, expected, places=5)
        # Tasks add up, and a class that is not known adds nothing.
        for classes, more in (([0, -1], np.log(2)), ([-1, -1], 0.0)):
            targets = {"notes": notes, "class": torch.tensor(classes)}
            loss = self.loss(module, x, targets)
            self.assertAlmostEqual(loss, expected + more, places=5)

    def test_heads_may_learn_faster_than_the_network(self):
        for frozen, expected in ((True, [0.5]), (False, [0.5, 0.05])):
            module = self.module("rates", frozen=frozen, head_rate=0.5)
            groups = module.configure_optimizers()["optimizer"].param_groups
            self.assertEqual([group["initial_lr"] for group in groups], expected)


class Levels(unittest.TestCase):
    def test_level_and_noise_vary_within_bounds(self):
        waves = torch.sin(torch.arange(32_000) / 20)[None, None].repeat(50, 1, 1)
        torch.manual_seed(0)
        varied = vary(waves)
        # The best gain, and what it leaves.
        gain = (varied * waves).mean(dim=2) / waves.square().mean(dim=2)
        decibels = 20 * gain.log10()
        self.assertGreater(decibels.min(), -12.1)
        self.assertLess(decibels.max(), 6.1)
        self.assertGreater(decibels.std(), 3)
        rest = (varied / gain[..., None] - waves).square().mean(dim=2).sqrt()
        noise = 20 * (rest / waves.square().mean(dim=2).sqrt()).log10()
        self.assertGreater(noise.min(), -60.5)
        self.assertLess(noise.max(), -19.5)
        self.assertGreater(noise.std(), 6)
        torch.manual_seed(0)
        self.assertTrue(torch.equal(vary(waves), varied))

    def test_waves_stay_where_they_are(self):
        self.assertEqual(
            vary(torch.zeros(2, 1, 160, device="meta")).device.type, "meta"
        )


if __name__ == "__main__":
    unittest.main()
