"""The training loop by itself, on a network of two linear layers."""

import contextlib
import io
import math
import signal
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import torch

from jtm.files import InputError, StoppedError
from jtm.training import loop
from jtm.training.checkpoints import read_checkpoint
from jtm.training.loop import Module, Plan, fit, schedule


class RandomBatches:
    """Batches of random inputs and their sums."""

    epoch = first_batch = 0

    def count(self, epoch):
        return 5

    def __len__(self):
        return 5

    def __iter__(self):
        first, self.first_batch = self.first_batch, 0
        for number in range(first, 5):
            generator = torch.Generator().manual_seed(100 * self.epoch + number)
            x = torch.randn(8, 3, generator=generator)
            yield x, x.sum(1, keepdim=True)


class LinearModule(Module):
    """A linear regression with dropout."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)
        self.frozen = torch.nn.Dropout().eval()
        self.rates = []

    def loss(self, batch, split, step):
        if split == "train":
            groups = self.optimizers().param_groups
            self.rates.append([group["lr"] for group in groups])
        x = torch.nn.functional.dropout(self.body(batch[0]), 0.1, self.training)
        return {"loss": (self.head(x) - batch[1]).square().mean()}

    def parameter_groups(self):
        return [
            {"params": self.body.parameters(), "lr": 0.01, "weight_decay": 0.1},
            {"params": self.head.parameters(), "lr": 0.1},
        ]


def fitted(plan, **more):
    module = LinearModule(plan, RandomBatches(), **more)
    fit(module, progress=False)
    return module


class TestFit(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_without_a_folder_nothing_is_written_and_the_best_state_is_restored(self):
        scores, states = iter((0.2, math.nan, 0.9, 0.9, 0.5)), []

        def score(module):
            self.assertFalse(module.training or module.body.training)
            states.append(module.head.weight.clone())
            return next(scores)

        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            module = fitted(Plan(5), score=score)
        self.assertEqual(output.getvalue(), "")
        self.assertTrue(torch.equal(module.head.weight, states[2]))
        self.assertFalse(torch.equal(module.head.weight, states[3]))
        self.assertFalse(module.training)
        self.assertEqual([row["score"] for row in module.history][2:], [0.9, 0.9, 0.5])

    def test_score_stops_early_and_preserves_training_modes(self):
        modes = []

        def score(module):
            return -len(module.history)

        class Watched(LinearModule):
            def loss(self, batch, split, step):
                modes.append((self.body.training, self.frozen.training))
                return super().loss(batch, split, step)

        module = Watched(Plan(20, patience=2), RandomBatches(), score=score)
        fit(module, progress=False)
        self.assertEqual(len(module.history), 3)
        self.assertEqual(set(modes), {(True, False)})

    def test_small_networks_train_without_overhead(self):
        fitted(Plan(1))  # warm-up: imports
        before = time.process_time()
        for _ in range(5):
            fitted(Plan(2))
        self.assertLess((time.process_time() - before) / 5, 0.5)

    def test_parameter_groups_have_their_own_rates_and_weight_decay(self):
        module = LinearModule(Plan(2), RandomBatches())
        module.lr_factor = schedule(10, warmup=4)
        fit(module, progress=False)
        ratios = [body / head for body, head in module.rates]
        self.assertTrue(all(math.isclose(ratio, 0.1) for ratio in ratios[1:]))
        self.assertEqual(len(module.rates), 10)
        expected = [0.1 * module.lr_factor(step) for step in range(10)]
        for rates, rate in zip(module.rates, expected, strict=True):
            self.assertAlmostEqual(rates[1], rate)
        decays = module.configure_optimizers()["optimizer"].param_groups
        self.assertEqual([group["weight_decay"] for group in decays], [0.1, 0.0])

    def test_accumulated_batches_have_different_seeds(self):
        seeds = []

        class Watched(LinearModule):
            def loss(self, batch, split, step):
                seeds.append(torch.initial_seed())
                return super().loss(batch, split, step)

        fit(Watched(Plan(1, accumulate=5), RandomBatches()), progress=False)
        self.assertEqual(len(set(seeds)), 5)

    def test_hand_computed_schedules(self):
        for decay, half in (("linear", 0.5), ("cosine", 0.5)):
            factor = schedule(8, decay=decay)
            self.assertEqual((factor(0), factor(8), factor(9)), (1.0, 0.0, 0.0))
            self.assertAlmostEqual(factor(4), half)
        self.assertAlmostEqual(schedule(8, decay="cosine")(2), 0.8535534)
        self.assertAlmostEqual(schedule(8, warmup=4)(1), 0.5 * 7 / 8)

    def test_interrupt_before_the_first_step_saves_and_resumes(self):
        whole = fitted(Plan(2, folder=self.folder / "whole"))
        # Processes that a shell starts in the background ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        load = loop.lightning.Trainer.fit

        def interrupted(*arguments, **more):
            signal.raise_signal(signal.SIGINT)  # while the trainer is set up
            return load(*arguments, **more)

        plan = Plan(2, folder=self.folder / "run")
        with mock.patch.object(loop.lightning.Trainer, "fit", interrupted):
            with self.assertRaises(StoppedError):
                fitted(plan)
        last = read_checkpoint(self.folder / "run" / "last.pt")
        self.assertEqual(last["global_step"], 1)
        with contextlib.redirect_stdout(io.StringIO()):
            again = fitted(plan)
        for name, value in whole.state_dict().items():
            self.assertTrue(torch.equal(value, again.state_dict()[name]), name)
        with self.assertRaises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # the default handler is restored

    def test_best_checkpoint_is_current_after_a_kill_before_its_copy(self):
        plan = Plan(3, folder=self.folder / "run")

        def killed(source, target):
            if source.name == "checkpoint2.pt":
                raise InputError("killed")
            copy(source, target)

        copy, scores = loop._copy, {"score": lambda module: module.current_epoch}
        with mock.patch.object(loop, "_copy", killed):
            with self.assertRaisesRegex(InputError, "killed"):
                fitted(plan, **scores)
        with contextlib.redirect_stdout(io.StringIO()):
            again = fitted(plan, **scores)
        best = read_checkpoint(self.folder / "run" / "best.pt")
        self.assertEqual(best["history"][-1]["epoch"], 2)
        whole = fitted(Plan(3), **scores)
        for name, value in whole.state_dict().items():
            self.assertTrue(torch.equal(value, again.state_dict()[name]), name)

    def test_non_finite_loss_stops_the_run(self):
        class Broken(LinearModule):
            def loss(self, batch, split, step):
                return {"loss": super().loss(batch, split, step)["loss"] * math.nan}

        with self.assertRaisesRegex(InputError, "loss is nan at step 0; there is no"):
            fit(Broken(Plan(1), RandomBatches()), progress=False)

    def test_best_epoch_and_patience(self):
        nan = math.nan
        for losses, best, waited in (
            ([], None, 0),
            ([nan], None, 1),
            ([nan, 2.0, 1.0, nan, 1.0], 2, 2),
            ([1.0, 1.0], 0, 1),
        ):
            rows = [{"epoch": e, "loss": loss} for e, loss in enumerate(losses)]
            self.assertEqual(loop._best_epoch(rows), best)
            for patience in range(1, 4):
                self.assertEqual(loop._stalled(rows, patience), waited >= patience)
            self.assertFalse(loop._stalled(rows, 0))


if __name__ == "__main__":
    unittest.main()
