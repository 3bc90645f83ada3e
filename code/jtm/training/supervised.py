"""
Training with labels: a head alone on frozen features, or a whole network.

The loop knows nothing of music. It is given windows as a function that reads an
input and its targets, one for each task by name, and learns multi-label targets
(floats) by binary cross-entropy and classes (integers, negative where unknown) by
cross-entropy; several tasks add up. A network that learns hears its windows at
levels and with noise drawn anew each time. As in pretraining, what a step does
follows from the seed and the step's number alone.
"""

import logging
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from jtm.files import InputError
from jtm.training.checkpoints import check_data, load_part, read_checkpoint
from jtm.training.loop import Keeper, write_metrics


class Batches:
    """
    Read labelled windows in batches, in a new order each epoch.

    Parameters
    ----------
    windows : numpy.ndarray
        Windows ``(windows, 2)``: index of the recording, and first frame.
    read : callable
        Gives the input of a window as an array, and its targets as a dict of
        arrays by task, from the index and the first frame.
    batch_size : int
        Most windows in a batch; all hold the same number, or one less.
    seed : int, optional
        Draws the order; without it the windows come as they are.
    steps : int, optional
        Batches in an epoch, which then may hold a window several times, or
        some not at all; by default an epoch visits each window once.
    least : int, optional
        Fewest windows in a batch, if there are as many; rather than fewer, some
        batches hold one more than `batch_size`.

    Attributes
    ----------
    epoch : int
        The epoch that iteration gives; set before iterating.
    first_batch : int
        The batch that the next iteration starts from, to take up a run.
    """

    def __init__(self, windows, read, batch_size, seed=None, steps=None, least=1):
        self.steps = steps
        self.least = least
        self.windows = windows
        self.read = read
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.first_batch = 0

    def __len__(self):
        """Count the batches of an epoch."""
        if self.steps:
            return self.steps
        wanted = -(-len(self.windows) // self.batch_size)
        return min(wanted, max(1, len(self.windows) // self.least))

    def __iter__(self):
        """
        Iterate over the batches of the epoch, from `first_batch` on.

        Yields
        ------
        inputs : torch.Tensor
            Inputs ``(batch, ...)``.
        targets : dict of str to torch.Tensor
            Targets ``(batch, ...)`` by task.
        """
        order = np.arange(len(self.windows))
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, self.epoch))
            if self.steps:  # whole rounds, until there are enough
                rounds = -(-self.steps * self.batch_size // len(order))
                order = np.concatenate([rng.permutation(order) for _ in range(rounds)])
                order = order[: self.steps * self.batch_size]
            else:
                order = rng.permutation(order)
        first, self.first_batch = self.first_batch, 0
        for rows in np.array_split(order, len(self))[first:]:
            inputs, targets = zip(
                *(self.read(*self.windows[row]) for row in rows), strict=True
            )
            yield (
                torch.from_numpy(np.stack(inputs)),
                {
                    task: torch.from_numpy(np.stack([each[task] for each in targets]))
                    for task in targets[0]
                },
            )


def vary(waves):
    """
    Play waves at other levels, and with noise, drawn from torch's generator.

    The draws are the processor's, so that they are the same wherever the waves are.

    Parameters
    ----------
    waves : torch.Tensor
        Waveforms ``(batch, 1, samples)``.

    Returns
    -------
    torch.Tensor
        Same shape; each 12 dB softer to 6 dB louder, with white noise 20 to
        60 dB below its level.
    """
    draw = torch.rand(2, len(waves), 1, 1).to(waves)
    white = torch.randn(waves.shape).to(waves)
    gain, noise = 10 ** ((18 * draw[0] - 12) / 20), 10 ** ((-40 * draw[1] - 20) / 20)
    level = waves.square().mean(dim=2, keepdim=True).sqrt()
    return gain * (waves + noise * level * white)


def features_of(model, wave, on_encoder=False, edge=0):
    """
    Give what heads read off waveforms.

    Parameters
    ----------
    model : Network
        The network.
    wave : torch.Tensor
        Waveforms ``(batch, 1, samples)``.
    on_encoder : bool
        Give z alone, not z and c side by side.
    edge : int
        Frames on either side that are heard and left out.

    Returns
    -------
    torch.Tensor
        Features ``(batch, frames, dim)``.
    """
    z, c = model(wave)
    x = z if on_encoder else torch.cat((z, c), dim=2)
    return x[:, edge : x.shape[1] - edge]


class SupervisedModule(lightning.LightningModule):
    """
    Train heads, and with them the network unless that is frozen.

    Parameters
    ----------
    config : SupervisedConfig
        The settings.
    model : Network
        The network.
    head : nn.ModuleDict
        By task, what gives logits from features ``(batch, frames, dim)``: z,
        or z and c side by side.
    train, validation : Batches
        Features ``(batch, frames, dim)`` where the network is frozen, else
        waveforms ``(batch, 1, samples)``; with targets.
    origin : str
        Hash of the checkpoint that the network is from; empty where it is
        trained from scratch.
    frozen : bool
        Whether the network stays as it is.
    score : callable, optional
        Scores validation, from logits and targets of all its windows; see
        `curve`.
    head_rate : float, optional
        Learning rate of the heads, where it is not that of the network.
    edge : int
        Frames on either side of the waveforms that the heads are not given.
    data : dict, optional
        What recordings the windows are of, as
        :meth:`jtm.data.store.Store.summary` tells; a run on others is not taken up.

    Attributes
    ----------
    curve : list of dict
        For each epoch the `step` it ended at, the `seconds` of training so
        far, and the `score` on validation by task.
    """

    def __init__(
        self,
        config,
        model,
        head,
        train,
        validation,
        origin="",
        frozen=False,
        score=None,
        head_rate=None,
        edge=0,
        data=None,
    ):
        super().__init__()
        self.config = config
        self.folder = Path(config.path_checkpoint)
        self.model = model
        self.head = head
        self.frozen = frozen
        self.score = score
        self.head_rate = head_rate
        self.edge = edge
        self.data = data
        self.curve = []
        self.seen = []  # logits and targets of this validation
        self.clock = time.monotonic()
        self.spent = 0.0  # seconds of training in earlier epochs
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
        dict of str to torch.Tensor
            Logits by task, in the shape that its head gives.
        """
        if not self.frozen:
            x = features_of(self.model, x, self.config.on_encoder, self.edge)
        return {task: head(x) for task, head in self.head.items()}

    def training_step(self, batch):
        """
        Compute the loss of a batch.

        Parameters
        ----------
        batch : tuple
            Inputs, and targets by task.

        Returns
        -------
        torch.Tensor
            The loss in nats.
        """
        # For dropout, and for levels and noise.
        torch.manual_seed(self.config.random_seed + self.global_step)
        inputs, targets = batch
        loss = self._judge("train", inputs if self.frozen else vary(inputs), targets)
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
        self.seen = []
        self.spent += time.monotonic() - self.clock

    def validation_step(self, batch):
        """
        Sum up the loss of a batch.

        Parameters
        ----------
        batch : tuple
            Inputs, and targets by task.
        """
        self._judge("validation", *batch)

    def _judge(self, split, inputs, targets):
        """Give the loss of a batch, and add it to the sums of its split."""
        logits = self(inputs)
        loss = sum(task_loss(logits[task], target) for task, target in targets.items())
        if split == "validation" and self.score:
            self.seen.append((logits, targets))
        total, count = self.sums.get(split, (0.0, 0))
        total = total + loss.detach().cpu().double() * len(inputs)
        self.sums[split] = (total, count + len(inputs))
        return loss

    def on_validation_epoch_end(self):
        """Give the validation loss to whoever watches it."""
        total, count = self.sums["validation"]
        self.log("validation_loss", total / count)
        if self.score:
            scores = {}
            for task in self.head:
                pairs = [(x[task], y[task]) for x, y in self.seen if task in y]
                logits, targets = (
                    torch.cat(part).cpu() for part in zip(*pairs, strict=True)
                )
                known = targets.reshape(len(targets), -1)[:, 0] >= 0
                scores[task] = self.score(logits[known].numpy(), targets[known].numpy())
            seconds = round(self.spent, 1)
            self.curve.append(
                {"step": self.global_step, "seconds": seconds, "score": scores}
            )
        self.clock = time.monotonic()

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
        groups = [{"params": list(self.head.parameters())}]
        if self.head_rate is not None:
            groups[0]["lr"] = self.head_rate
        if not self.frozen:
            groups.append({"params": list(self.model.parameters())})
        optimizer = torch.optim.Adam(groups, self.config.learning_rate)
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
        checkpoint["data"] = self.data
        checkpoint["history"] = self.history
        checkpoint["sums"] = self.sums
        checkpoint["curve"] = self.curve
        checkpoint["spent"] = self.spent + time.monotonic() - self.clock

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
        self.curve = checkpoint["curve"]
        self.spent = checkpoint["spent"]


def task_loss(logits, target):
    """
    Give the loss of one task.

    Parameters
    ----------
    logits : torch.Tensor
        Logits ``(batch, ...)``, of classes ``(batch, classes)``.
    target : torch.Tensor
        Floats in the shape of `logits`, or classes ``(batch,)``, negative
        where the class is not known.

    Returns
    -------
    torch.Tensor
        The mean in nats; of nothing 0.
    """
    if target.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, target)
    known = target >= 0
    if not known.any():
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], target[known])


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
        that was best on validation, in evaluation mode and on the processor.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If the loss is no number, or a checkpoint in the folder is damaged or of a
        run on other recordings.
    StoppedError
        If the user stopped it; everything is saved.
    """
    config, folder = module.config, module.folder
    last = folder / "last.pt"
    epochs = 0
    if last.exists():
        content = read_checkpoint(last)
        if module.data:
            check_data(last, content, config.data, module.data)
        epochs = len(content["history"]) // 2
        module.curve = content["curve"]
        if progress:
            print(f"{folder}: going on from step {content['global_step']}")
    if epochs < config.n_epoch:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = lightning.Trainer(
            devices=1,  # each would visit all windows
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
            # A frozen network is meant to be in evaluation mode, and what is fixed.
            warnings.filterwarnings("ignore", message=".*eval mode.*")
            trainer.fit(
                module, ckpt_path=last if last.exists() else None, weights_only=True
            )
    best = read_checkpoint(folder / "best.pt")
    for part in ("model", "head"):
        load_part(folder / "best.pt", best, part, getattr(module, part))
    module.cpu().eval()
