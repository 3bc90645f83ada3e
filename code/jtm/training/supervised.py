"""
Training with labels: a head alone on frozen features, or a whole network.

The loop knows nothing of music. It is given windows as a function that reads an
input and one that reads its target, and learns multi-label targets (floats) by
binary cross-entropy and classes (integers) by cross-entropy. As in pretraining,
what a step does follows from the seed and the step's number alone.
"""

import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from jtm.files import InputError
from jtm.training.checkpoints import load_part, read_checkpoint
from jtm.training.pretrain import Keeper, write_metrics


class Batches:
    """
    Read labelled windows in batches, in a new order each epoch.

    Parameters
    ----------
    windows : numpy.ndarray
        Windows ``(windows, 2)``: index of the recording, and first frame.
    read : callable
        Gives the input and the target of a window as arrays, from the index
        and the first frame.
    batch_size : int
        Most windows in a batch; all hold the same number, or one less.
    seed : int, optional
        Draws the order; without it the windows come as they are.

    Attributes
    ----------
    epoch : int
        The epoch that iteration gives; set before iterating.
    first_batch : int
        The batch that the next iteration starts from, to take up a run.
    """

    def __init__(self, windows, read, batch_size, seed=None):
        self.windows = windows
        self.read = read
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.first_batch = 0

    def __len__(self):
        """Count the batches of an epoch."""
        return -(-len(self.windows) // self.batch_size)

    def __iter__(self):
        """
        Iterate over the batches of the epoch, from `first_batch` on.

        Yields
        ------
        tuple of torch.Tensor
            Inputs and targets, each ``(batch, ...)``.
        """
        order = np.arange(len(self.windows))
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        first, self.first_batch = self.first_batch, 0
        for rows in np.array_split(order, len(self))[first:]:
            pairs = [self.read(*self.windows[row]) for row in rows]
            inputs, targets = (np.stack(part) for part in zip(*pairs, strict=True))
            yield torch.from_numpy(inputs), torch.from_numpy(targets)


class SupervisedModule(lightning.LightningModule):
    """
    Train a head, and with it the network unless that is frozen.

    Parameters
    ----------
    config : SupervisedConfig
        The settings.
    model : CPC
        The network.
    head : nn.Module
        Gives logits from z or c ``(batch, frames, dim)``.
    train, validation : Batches
        Features ``(batch, frames, dim)`` where the network is frozen, else
        waveforms ``(batch, 1, samples)``; with targets.
    origin : str
        Hash of the checkpoint that the frozen network is from; empty where
        the network is trained from scratch.
    """

    def __init__(self, config, model, head, train, validation, origin=""):
        super().__init__()
        self.config = config
        self.folder = Path(config.path_checkpoint)
        self.model = model
        self.head = head
        self.train_windows = train
        self.validation_windows = validation
        self.origin = origin
        self.steps = config.n_epoch * len(train)  # of the whole run
        self.history = []  # rows of the metrics file
        self.sums = {}  # of this epoch's losses and windows, by split

    def train_dataloader(self):
        """
        Give the windows of the current epoch, from the current step on.

        Returns
        -------
        Batches
            The windows.
        """
        batches = self.train_windows
        batches.epoch = self.current_epoch
        batches.first_batch = self.global_step - self.current_epoch * len(batches)
        return batches

    def val_dataloader(self):
        """
        Give the windows that the loss is judged on, the same every epoch.

        Returns
        -------
        Batches
            The windows.
        """
        return self.validation_windows

    def forward(self, x):
        """
        Answer.

        Parameters
        ----------
        x : torch.Tensor
            Features or waveforms, as the windows give them.

        Returns
        -------
        torch.Tensor
            Logits, in the shape that the head gives.
        """
        if not self.origin:
            x = self.model(x)[0 if self.config.on_encoder else 1]
        return self.head(x)

    def training_step(self, batch):
        """
        Compute the loss of a batch.

        Parameters
        ----------
        batch : tuple of torch.Tensor
            Inputs and targets.

        Returns
        -------
        torch.Tensor
            The loss in nats.
        """
        torch.manual_seed(self.config.random_seed + self.global_step)  # for dropout
        loss = self._judge("train", *batch)
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} at step {self.global_step}; the last good "
                f"checkpoint is in {self.config.path_checkpoint}; try a smaller "
                "--learningRate"
            )
        return loss

    def on_validation_epoch_start(self):
        """Forget the sums of the last validation."""
        self.sums.pop("validation", None)

    def validation_step(self, batch):
        """
        Sum up the loss of a batch.

        Parameters
        ----------
        batch : tuple of torch.Tensor
            Inputs and targets.
        """
        self._judge("validation", *batch)

    def _judge(self, split, inputs, targets):
        """Give the loss of a batch, and add it to the sums of its split."""
        logits = self(inputs)
        if targets.is_floating_point():
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
        else:
            loss = functional.cross_entropy(logits, targets)
        total, count = self.sums.get(split, (0.0, 0))
        total = total + loss.detach().double() * len(inputs)
        self.sums[split] = (total, count + len(inputs))
        return loss

    def on_validation_epoch_end(self):
        """Give the validation loss to whoever watches it."""
        total, count = self.sums["validation"]
        self.log("validation_loss", total / count)

    def close_epoch(self):
        """Write the epoch's row of each split to the metrics file."""
        for split in ("train", "validation"):
            total, count = self.sums.pop(split)
            row = {"epoch": self.current_epoch, "step": self.global_step}
            row |= {"split": split, "windows": count, "loss": float(total) / count}
            self.history.append(row)
        write_metrics(self.folder, self.history)

    def configure_optimizers(self):
        """
        Give Adam over what is not frozen, its rate falling to zero in a line.

        Returns
        -------
        dict
            As Lightning expects it.
        """
        learned = self.head if self.origin else self
        optimizer = torch.optim.Adam(learned.parameters(), self.config.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: max(0.0, 1 - step / self.steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint):
        """
        Add what Lightning does not know of to a checkpoint.

        Parameters
        ----------
        checkpoint : dict
            What will be saved.
        """
        checkpoint["config"] = asdict(self.config)
        checkpoint["origin"] = self.origin
        checkpoint["history"] = self.history
        checkpoint["sums"] = self.sums

    def on_load_checkpoint(self, checkpoint):
        """
        Take back what :meth:`on_save_checkpoint` added.

        Parameters
        ----------
        checkpoint : dict
            What was saved.
        """
        self.history = checkpoint["history"]
        self.sums = checkpoint["sums"]


class _Bar(lightning.Callback):
    """Show one progress bar for the whole run, with the time left of all of it."""

    def on_train_start(self, trainer, module):
        """Start the bar where the run starts."""
        done = module.global_step
        self.bar = tqdm(desc="Training", total=module.steps, initial=done, unit="step")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Move the bar on and show this epoch's mean loss."""
        total, count = module.sums["train"]
        text = f"epoch {trainer.current_epoch}, loss {float(total) / count:.4f}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(module.global_step - self.bar.n)

    def teardown(self, trainer, module, stage):
        """Close the bar."""
        if hasattr(self, "bar"):
            self.bar.close()


def fit(module, progress=True):
    """
    Train a module, or take up its run where it stopped.

    Parameters
    ----------
    module : SupervisedModule
        What to train; its network and head end with the weights of the epoch
        that was best on validation, in evaluation mode.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If the loss is no number, or a checkpoint in the folder is damaged.
    StoppedError
        If the user stopped it; everything is saved.
    """
    config, folder = module.config, module.folder
    last = folder / "last.pt"
    epochs = 0
    if last.exists():
        content = read_checkpoint(last)
        epochs = len(content["history"]) // 2
        print(f"{folder}: going on from step {content['global_step']}")
    if epochs < config.n_epoch:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = lightning.Trainer(
            max_epochs=config.n_epoch,
            callbacks=[Keeper(folder)] + [_Bar()] * progress,
            logger=False,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            # Batches are read here, and from the step that the run is at.
            warnings.filterwarnings("ignore", message=".*dataloader.*")
            warnings.filterwarnings("ignore", message=".*many workers.*")
            warnings.filterwarnings("ignore", message=".*treespec.*")
            # A frozen network is meant to be in evaluation mode.
            warnings.filterwarnings("ignore", message=".*eval mode.*")
            trainer.fit(
                module, ckpt_path=last if last.exists() else None, weights_only=True
            )
    best = read_checkpoint(folder / "best.pt")
    for part in ("model", "head"):
        load_part(folder / "best.pt", best, part, getattr(module, part))
    module.eval()
