import contextlib
import io
import tempfile
import unittest
from types import MappingProxyType
from unittest import mock

import lightning
import numpy as np
import torch

from jtm.files import InputError, StoppedError
from jtm.models.heads import FrameHead, PooledHead
from jtm.training.checkpoints import build_model, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.supervised import Batches, SupervisedModule, fit, vary

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

    def module(self, name, heads=None, more=MappingProxyType({}), **chosen):
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
        windows = Batches(WINDOWS, read, 4, 0), Batches(WINDOWS[:4], read, 4)
        return SupervisedModule(
            config,
            build_model(config),
            heads or head(),
            *windows,
            "origin",
            True,
            **more,
        )

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
        module = self.module("best", learning_rate=1.0, n_epoch=4)
        with mock.patch.object(SupervisedModule, "on_validation_epoch_end") as end:
            losses = iter([2.0, 1.0, 3.0, 4.0])
            end.side_effect = lambda: module.log("validation_loss", next(losses))
            state = self.fitted(module)
        for name, kept in (("checkpoint1", True), ("checkpoint3", False)):
            there = read_checkpoint(f"{module.folder}/{name}.pt")["state_dict"]
            same = torch.equal(there[WEIGHT], state[WEIGHT])
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
        self.assertTrue(torch.equal(again[WEIGHT], whole[WEIGHT]))

    def test_a_run_is_not_taken_up_on_other_recordings(self):
        summary = {"recordings": [3, 1], "samples": [960_000, 0], "sha256": "one"}
        stopped = self.module("other", more={"data": summary}, n_epoch=1)
        self.fitted(stopped)
        more = {"data": summary | {"recordings": [4, 1], "sha256": "other"}}
        with self.assertRaisesRegex(InputError, "3 .1.0 min. .*now has 4 .*choose"):
            self.fitted(self.module("other", more=more))
        for known in (summary, None):
            content = torch.load(stopped.folder / "last.pt", weights_only=True)
            content["data"] = known  # None before this was kept
            torch.save(content, stopped.folder / "last.pt")
            self.fitted(self.module("other", more={"data": summary}, n_epoch=1))

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
            frames = FrameHead(12, 2, hidden=8, dropout=0.5)
            heads = torch.nn.ModuleDict({"class": PooledHead(frames)})
            module = self.module(f"dropout{number}", heads)
            for value in heads.parameters():
                value.data.fill_(0.1)
            torch.manual_seed(number)
            states.append(self.fitted(module)[WEIGHT])
        self.assertTrue(torch.equal(*states))

    def test_a_loss_that_is_no_number_stops_the_run(self):
        heads = torch.nn.ModuleDict({"a": FrameHead(6, 1)})
        module = self.module("nan", heads)
        x, target = torch.full((2, 3, 6), float("nan")), {"a": torch.zeros(2, 3, 1)}
        with self.assertRaisesRegex(InputError, "loss is nan at step 0.*learningRate"):
            module.training_step((x, target))

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
        loss = module.training_step((x, {"notes": notes}))
        self.assertAlmostEqual(loss.item(), expected, places=5)
        # Tasks add up, and a class that is not known adds nothing.
        for classes, more in (([0, -1], np.log(2)), ([-1, -1], 0.0)):
            targets = {"notes": notes, "class": torch.tensor(classes)}
            loss = module.training_step((x, targets))
            self.assertAlmostEqual(loss.item(), expected + more, places=5)

    def test_the_curve_tells_the_score_of_each_epoch(self):
        def score(logits, targets):
            self.assertEqual((logits.shape, targets.tolist()), ((4, 2), [0, 1, 0, 1]))
            return float((logits.argmax(axis=1) == targets).mean())

        whole = self.module("curve", more={"score": score}, n_epoch=8)
        self.fitted(whole)
        self.assertEqual([look["step"] for look in whole.curve], list(range(3, 25, 3)))
        self.assertEqual(whole.curve[-1]["score"], {"class": 1.0})
        seconds = [look["seconds"] for look in whole.curve]
        self.assertEqual(seconds, sorted(seconds))
        # What is finished still knows it.
        again = self.module("curve", more={"score": score}, n_epoch=8)
        self.fitted(again)
        self.assertEqual(again.curve, whole.curve)

    def test_heads_may_learn_faster_than_the_network(self):
        groups = self.module("rates", more={"head_rate": 0.5}).configure_optimizers()
        (frozen,) = groups["optimizer"].param_groups
        self.assertEqual(frozen["initial_lr"], 0.5)
        module = self.module("both", more={"head_rate": 0.5})
        module.frozen = False
        both = module.configure_optimizers()["optimizer"].param_groups
        self.assertEqual([group["initial_lr"] for group in both], [0.5, 0.05])


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
