"""
The training loop, independent of any task.

A study's module adds its loss, its parameter groups and its loaders to
:class:`Module`, and :func:`fit` trains it. A step depends only on the random seed and
the step's number, so a run that was stopped at any point resumes from its last
checkpoint and ends with the same weights as an uninterrupted one.
"""

import abc
import contextlib
import csv
import logging
import math
import shutil
import signal
import threading
import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from tqdm.auto import tqdm

from jtm.files import InputError, StoppedError, atomic
from jtm.training.checkpoints import read_checkpoint
from jtm.training.folder import BEST, LAST, newest
from jtm.training.processes import best_device, computes_bf16, is_first, process_info

SAVE_SECONDS = 100  # between writes of the last checkpoint within an epoch
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # they stop a run after the current step


@dataclass(frozen=True)
class Plan:
    """
    How a module is trained.

    Parameters
    ----------
    n_epoch : int
        Number of epochs.
    seed : int
        Random seed.
    folder : str or Path, optional
        Path to the folder for checkpoints and curves; without it nothing is written,
        and only the best state is kept, in memory.
    accumulate : int
        Number of batches over which gradients are accumulated for each optimiser step.
    gradient_clip : float
        Gradient-norm clipping threshold; 0 disables.
    precision : {"float32", "bf16"}
        Numerical precision of the network; "bf16" is mixed precision, and float32 on
        a CPU without instructions for it, which would take many times as long.
    patience : int
        Number of epochs without improvement after which training stops; 0 disables.
    n_validation : int, optional
        Maximum number of validation batches.
    parallel : bool
        Whether to train on all processes that torchrun or srun has started.
    """

    n_epoch: int
    seed: int = 0
    folder: str | Path | None = None
    accumulate: int = 1
    gradient_clip: float = 0.0
    precision: str = "float32"
    patience: int = 0
    n_validation: int | None = None
    parallel: bool = False

    @classmethod
    def of(cls, config, **chosen):
        """
        Make a plan from a run's settings.

        Parameters
        ----------
        config : jtm.training.config.RunConfig
            The settings, from which epochs, random seed and folder are taken.
        **chosen
            The other fields.

        Returns
        -------
        Plan
            The plan.
        """
        return cls(config.n_epoch, config.random_seed, config.path_checkpoint, **chosen)


class Module(lightning.LightningModule, abc.ABC):
    """
    Base class of a network in training.

    Parameters
    ----------
    plan : Plan
        How it is trained.
    train, validation : iterable
        Batches; the attributes ``epoch`` and ``first_batch`` of `train` set where the
        next iteration starts, ``device`` is the network's, and its method
        ``count(epoch)`` returns the number of batches in an epoch. Without
        `validation`, epochs are compared by `score`, or by training loss.
    metadata : dict, optional
        Other entries of each checkpoint, such as ``config``.
    score : callable, optional
        Computes a score from the module after each epoch, in evaluation mode; the best
        state is then that of the highest score, instead of that of the lowest loss.

    Attributes
    ----------
    history : list of dict
        Rows of the metrics file, one for each epoch and split.
    seconds : float
        Seconds of training so far, excluding validation.
    """

    title = "Training"
    """Description on the progress bar."""

    def __init__(self, plan, train, validation=None, metadata=None, score=None):
        super().__init__()
        self.plan = plan
        self.train_batches = train
        self.validation_batches = validation
        self.metadata = {"config": {}} | (metadata or {})
        self.score = score
        self.history = []
        self.epoch_steps = []  # number of steps in each epoch counted so far
        self.sums = {}  # of this epoch's metrics over its windows, by split
        self.elapsed = self.epoch_start = 0.0  # seconds, and those before this epoch
        self.clock = None

    @abc.abstractmethod
    def loss(self, batch, split, step):
        """
        Compute ``loss`` and other values to average over the epoch, by name.

        The length of ``batch[0]`` is the number of windows. `split` is "train" or
        "validation"; steps of validation are negative. Torch is seeded for each step.
        """

    @abc.abstractmethod
    def parameter_groups(self):
        """List groups for AdamW: ``params``, ``lr`` and optionally ``weight_decay``."""

    def lr_factor(self, step):
        """Compute the factor of the learning rates at an optimiser step, from 0."""
        return 1.0

    def extra_metrics(self, split, windows, seconds):
        """Compute further metrics from an epoch's number of windows and seconds."""
        return {}

    def describe(self, batch):
        """Return the origin of a batch for messages, such as ', in recordings 1, 2'."""
        return ""

    def steps_before(self, epoch):
        """Count the optimiser steps before an epoch."""
        for uncounted in range(len(self.epoch_steps), epoch):
            batches = self.train_batches.count(uncounted)
            self.epoch_steps.append(math.ceil(batches / self.plan.accumulate))
        return sum(self.epoch_steps[:epoch])

    @property
    def seconds(self):
        """Seconds of training so far, excluding validation."""
        return self.elapsed + (time.monotonic() - self.clock if self.clock else 0.0)

    def train_dataloader(self):
        """Return the batches of the current epoch, from the current step on."""
        done = self.global_step - self.steps_before(self.current_epoch)
        self.train_batches.device = self.device
        self.train_batches.epoch = self.current_epoch
        self.train_batches.first_batch = done * self.plan.accumulate
        return self.train_batches

    def val_dataloader(self):
        """Return the validation batches, the same every epoch."""
        return self.validation_batches

    def configure_optimizers(self):
        """Make AdamW over the parameter groups, and its learning-rate schedule."""
        optimizer = torch.optim.AdamW(self.parameter_groups(), weight_decay=0.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        scheduler = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_train_start(self):
        """Start the clock."""
        self.clock = time.monotonic()

    def training_step(self, batch, index):
        """Compute the loss of a batch; refuse a non-finite loss."""
        number = index % self.plan.accumulate
        loss = self._compute_losses(batch, "train", self.global_step, number)["loss"]
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} at step {self.global_step}"
                f"{self.describe(batch)}; {_advice(self.plan.folder)}"
            )
        return loss

    def validation_step(self, batch, index):
        """Add up the loss of a batch, with the same random numbers every epoch."""
        self._compute_losses(batch, "validation", -1 - index)

    def _compute_losses(self, batch, split, step, number=0):
        """Compute the losses of a step's batch, and add them to the split's sums."""
        # Processes train on different windows, but all validate on the same ones.
        rank = self.global_rank if split == "train" else 0
        key = f"{self.plan.seed} {step} {rank}" + f" {number}" * (number > 0)
        torch.manual_seed(zlib.crc32(key.encode()))
        losses, windows = self.loss(batch, split, step), len(batch[0])
        sums = self.sums.setdefault(split, {"windows": 0})
        sums["windows"] += windows
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value.detach() * windows
        return losses

    def on_validation_epoch_start(self):
        """Stop the clock, and reset sums left over from an interrupted validation."""
        self.sums.pop("validation", None)
        self.elapsed, self.clock = self.seconds, None

    def on_validation_epoch_end(self):
        """Start the clock again."""
        self.clock = time.monotonic()

    def _reduce(self, sums):
        """Add up the sums of an epoch over the processes."""
        if self.trainer.world_size == 1:
            return sums
        values = [torch.as_tensor(v, dtype=torch.float64) for v in sums.values()]
        values = torch.stack([value.to(self.device) for value in values])
        total = self.trainer.strategy.reduce(values, reduce_op="sum")
        return dict(zip(sums, total.unbind(), strict=True))

    def close_epoch(self):
        """Add the epoch's row of each split to the history, and write it."""
        self.elapsed, self.clock = self.seconds, None
        epoch_seconds, self.epoch_start = self.elapsed - self.epoch_start, self.elapsed
        for split in [*self.sums]:
            sums = self.sums.pop(split)
            sums = self._reduce(sums) if split == "train" else sums
            windows = int(sums.pop("windows"))
            row = {"epoch": self.current_epoch, "step": self.global_step}
            row |= {"split": split, "windows": windows}
            row |= self.extra_metrics(split, windows, epoch_seconds)
            row |= {name: float(value) / windows for name, value in sums.items()}
            self.history.append(row)
            if self.logger:
                scalars = {f"{split}/{k}": v for k, v in row.items() if k != "split"}
                self.logger.log_metrics(scalars, step=self.global_step)
        if self.score:
            modes = [(module, module.training) for module in self.modules()]
            with torch.no_grad():
                self.history[-1]["score"] = float(self.score(self.eval()))
            for module, mode in modes:  # frozen modules stay in evaluation mode
                module.training = mode
        if self.plan.folder and self.global_rank == 0:
            _write_metrics(self.plan.folder, self.history)
        self.clock = time.monotonic()

    def on_save_checkpoint(self, checkpoint):
        """Add to a checkpoint the state that Lightning does not save."""
        checkpoint |= self.metadata
        checkpoint["history"] = self.history
        checkpoint["world"] = self.trainer.world_size
        checkpoint["sums"] = {s: self._reduce(sums) for s, sums in self.sums.items()}
        checkpoint["seconds"] = self.seconds, self.epoch_start

    def on_load_checkpoint(self, checkpoint):
        """Restore what :meth:`on_save_checkpoint` added."""
        self.history = checkpoint["history"]
        if self.global_rank == 0:  # the sums are over all processes
            self.sums = checkpoint["sums"]
            for sums in self.sums.values():
                sums["windows"] = int(sums["windows"])
        self.elapsed, self.epoch_start = checkpoint.get("seconds", (0.0, 0.0))


def schedule(n_steps, warmup=0, decay="linear"):
    """
    Make a learning-rate schedule that ends at zero.

    Parameters
    ----------
    n_steps : int
        Number of optimiser steps in the whole run.
    warmup : int
        Number of steps over which the rate rises.
    decay : {"linear", "cosine"}
        Shape of the decay.

    Returns
    -------
    callable
        Computes the factor of the learning rate from the number of the step.

    Examples
    --------
    >>> [schedule(4, warmup=2)(step) for step in range(5)]
    [0.5, 0.75, 0.5, 0.25, 0.0]
    """

    def factor(step):
        done = min(1.0, step / n_steps)
        decayed = 1 - done if decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return decayed * min(1.0, (step + 1) / warmup if warmup else 1.0)

    return factor


def _best_epoch(history):
    """Find the epoch of the highest score, or the lowest loss; None if all are NaN."""
    losses = {}
    for row in history:  # the last row of each epoch counts
        losses[row["epoch"]] = -row["score"] if "score" in row else row["loss"]
    valid = {epoch: loss for epoch, loss in losses.items() if not math.isnan(loss)}
    return min(valid, key=valid.get, default=None)


def _stalled(history, patience):
    """Return whether a run has not improved for `patience` epochs; 0 disables."""
    best = _best_epoch(history)
    since = history[-1]["epoch"] - (-1 if best is None else best) if history else 0
    return 0 < patience <= since


def _write_metrics(folder, history):
    """Write a run's curves: a row for each epoch and split."""
    names = list(dict.fromkeys(name for row in history for name in row))
    path = Path(folder) / "metrics.csv"
    with atomic(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def _advice(folder):
    """Return advice for messages about a non-finite loss or weights."""
    if not folder or not (Path(folder) / LAST).exists():
        return "there is no checkpoint yet; try a smaller --learningRate"
    return (
        f"the last good checkpoint is {Path(folder) / LAST}; start from it with "
        "--load, a smaller --learningRate and another --pathCheckpoint"
    )


class _Checkpointer(lightning.Callback):
    """Save checkpoints as Lightning's callback does, but atomically and complete."""

    def __init__(self, plan):
        self.plan = plan
        self.folder = plan.folder and Path(plan.folder)
        self.saved_at = time.monotonic()
        self.signal = self.best_state = None  # a state only without a folder

    @contextlib.contextmanager
    def _signals(self):
        """Defer Ctrl-C and SIGTERM to the end of a step, which is then saved."""
        handlers = {n: signal.getsignal(n) or signal.SIG_DFL for n in _SIGNALS}
        self._install_handlers()
        try:
            yield
        finally:
            self._install_handlers(handlers)

    def on_train_start(self, trainer, module):
        """Install the signal handlers again, since Lightning has replaced them."""
        self._install_handlers()

    def _install_handlers(self, handlers=None):
        """Install handlers that record signals, or restore the given ones."""

        def record(number, _):
            self.signal = number

        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, (handlers or {}).get(number, record))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Save at intervals, and before stopping."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # The last batch of an epoch is saved with its validation loss instead.
        if not stepped or batch_idx + 1 == trainer.num_training_batches:
            return
        stopping = self._any(trainer, self.signal is not None)
        due = self._any(trainer, time.monotonic() - self.saved_at > SAVE_SECONDS)
        if self.folder and (due or stopping):
            self._save(trainer, LAST)
        if stopping:
            raise StoppedError

    def on_train_epoch_end(self, trainer, module):
        """Save the epoch's curves and checkpoint, and the best one."""
        module.close_epoch()
        is_best = _best_epoch(module.history) == trainer.current_epoch
        if self.folder:
            name = f"checkpoint{trainer.current_epoch}.pt"
            self._save(trainer, name)
            targets = [BEST, LAST] if is_best else [LAST]
            for target in targets if trainer.is_global_zero else ():
                _copy(self.folder / name, self.folder / target)
        elif is_best:
            state = module.state_dict().items()
            self.best_state = {name: value.cpu().clone() for name, value in state}
        if self._any(trainer, _stalled(module.history, self.plan.patience)):
            trainer.should_stop = True
        if self._any(trainer, self.signal is not None):
            raise StoppedError

    def _any(self, trainer, flag):
        """Return whether a flag is set in any process, so that all stop together."""
        return trainer.strategy.reduce_boolean_decision(flag, all=False)

    def _save(self, trainer, name):
        """Save a checkpoint atomically; refuse non-finite weights."""
        if not all(p.isfinite().all() for p in trainer.lightning_module.parameters()):
            raise InputError(
                f"non-finite weights after step {trainer.global_step}; "
                f"{_advice(self.folder)}"
            )
        if trainer.is_global_zero:
            with atomic(self.folder / name) as part:
                trainer.save_checkpoint(part)
        else:  # takes part in collective operations, but writes nothing
            trainer.save_checkpoint(self.folder / name)
        self.saved_at = time.monotonic()


def _copy(source, target):
    """Copy a file atomically."""
    with atomic(target) as part:
        shutil.copyfile(source, part)


class _ProgressBar(lightning.Callback):
    """Show one progress bar, and the remaining time, for the whole run."""

    def on_train_start(self, trainer, module):
        """Create the bar, at the step where the run starts or resumes."""
        steps, done = module.steps_before(module.plan.n_epoch), module.global_step
        self.bar = tqdm(desc=module.title, total=steps, initial=done, unit="step")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Advance the bar and show this epoch's means."""
        sums = module.sums["train"]
        fields = [f"epoch {trainer.current_epoch}"]
        for name in ("loss", "accuracy_1"):
            if name in sums:
                mean = float(sums[name]) / sums["windows"]
                fields.append(f"{name.removesuffix('_1')} {mean:.3f}")
        seconds = module.seconds - module.epoch_start
        windows = sums["windows"] * trainer.world_size
        for name, value in module.extra_metrics("train", windows, seconds).items():
            fields.append(f"{value:.0f} {name.replace('_', ' ')}")
        self.bar.set_postfix_str(", ".join(fields), refresh=False)
        self.bar.update(module.global_step - self.bar.n)

    def teardown(self, trainer, module, stage):
        """Close the bar."""
        if hasattr(self, "bar"):
            self.bar.close()


def fit(module, progress=True, logger=False):
    """
    Train a module, or resume a run that was stopped.

    Parameters
    ----------
    module : Module
        The module to train; it ends in evaluation mode, on the CPU, at its best epoch.
    progress : bool
        Whether to show a progress bar.
    logger : lightning.pytorch.loggers.Logger, optional
        Logger that also receives the metrics.

    Returns
    -------
    Path or None
        Path to the checkpoint of the last epoch; None without a folder.

    Raises
    ------
    InputError
        If the loss or a weight is not finite, or all checkpoints are damaged.
    StoppedError
        If the user stopped the run; everything is saved.
    """
    plan, checkpointer = module.plan, _Checkpointer(module.plan)
    path, content = newest(plan.folder) if plan.folder else (None, None)
    history = content["history"] if content else []
    epochs = history[-1]["epoch"] + 1 if history else 0
    if content and is_first():
        _restore(Path(plan.folder), path, content)
    if epochs >= plan.n_epoch or _stalled(history, plan.patience):
        print(f"{plan.folder}: finished at epoch {epochs}; nothing left to do")
        module.on_load_checkpoint(content)
    else:
        if content:
            print(f"{plan.folder}: resuming from step {content['global_step']}")
        _train(module, checkpointer, path, progress, logger)
        epochs = module.history[-1]["epoch"] + 1
    state = checkpointer.best_state
    if plan.folder:
        path = Path(plan.folder) / f"checkpoint{epochs - 1}.pt"
        best = path.with_name(BEST)
        state = read_checkpoint(best if best.exists() else path)["state_dict"]
    if state:
        module.load_state_dict(state)
    module.cpu().eval()
    return path


def _restore(folder, path, content):
    """Restore missing or damaged checkpoints from the undamaged ones."""
    if path.name != LAST:
        _copy(path, folder / LAST)
    if not content["history"]:
        return
    latest = folder / f"checkpoint{content['history'][-1]['epoch']}.pt"
    if not latest.exists() and not content["sums"]:  # no step since the epoch's end
        _copy(path, latest)
    epoch = _best_epoch(content["history"])
    best = folder / f"checkpoint{epoch}.pt"
    if best.exists() and not _is_of(folder / BEST, epoch):
        _copy(best, folder / BEST)


def _is_of(path, epoch):
    """Return whether a checkpoint is undamaged, and of the end of an epoch."""
    try:
        return read_checkpoint(path)["history"][-1]["epoch"] == epoch
    except InputError:
        return False


def _train(module, checkpointer, start, progress, logger):
    """Train from a checkpoint, or from the module's initial weights, to the end."""
    plan = module.plan
    _, world, local = process_info() if plan.parallel else (0, 1, 1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mixed = plan.precision == "bf16" and computes_bf16(best_device())
    trainer = lightning.Trainer(
        devices=local,
        num_nodes=world // local,
        plugins=None if plan.parallel else LightningEnvironment(),
        max_epochs=plan.n_epoch,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=plan.gradient_clip or None,
        precision="bf16-mixed" if mixed else "32-true",
        callbacks=[checkpointer] + [_ProgressBar()] * progress,
        logger=logger,
        limit_val_batches=0 if module.validation_batches is None else plan.n_validation,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    with warnings.catch_warnings(), checkpointer._signals():
        # The module returns each epoch's own batches, from the current step on; a
        # frozen network is meant to be in evaluation mode; the gradient of a kernel of
        # one tap has another memory layout.
        ignored = "dataloader|many workers|treespec|eval mode|Grad strides do not match"
        warnings.filterwarnings("ignore", message=f".*({ignored})")
        trainer.fit(module, ckpt_path=start, weights_only=True)
