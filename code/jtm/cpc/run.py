"""
CPC pretraining: the Lightning module, and a run that loses nothing.

What a step does is a function of the seed and the step's number alone: the
windows, the negatives, the augmentation and the dropout. So a run that was
stopped anywhere takes up from its last checkpoint and ends with the same
weights as one that never stopped.
"""

import logging
import math
import time
import warnings
import zlib
from dataclasses import asdict
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from tqdm.auto import tqdm

from jtm.constants import HOP, SAMPLE_RATE
from jtm.cpc.loss import InfoNCE
from jtm.data.musicnet import open_dataset
from jtm.data.splits import split_recordings
from jtm.data.store import build_store
from jtm.data.windows import WindowLoader
from jtm.files import InputError
from jtm.models.augment import augment
from jtm.training.checkpoints import (
    build_model,
    check_data,
    load_part,
    read_checkpoint,
)
from jtm.training.config import CONFIG_FILE, settle
from jtm.training.loop import Keeper, advice, write_metrics
from jtm.training.processes import place

VALIDATION_WINDOWS = 256
"""Most windows that the validation loss is taken over."""


def build_criterion(config, model):
    """
    Make the InfoNCE criterion of a run, untrained.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``random_seed`` draws the weights.
    model : Network
        The network that it judges.

    Returns
    -------
    InfoNCE
        The criterion.
    """
    groups = getattr(model.context, "groups", 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed + 1)
        return InfoNCE(
            model.c_dim,
            model.z_dim,
            n_predicts=config.n_predicts,
            step_frames=config.step_frames * HOP // model.encoder.hop,
            anchor_stride=config.anchor_frames * HOP // model.encoder.hop,
            n_negatives=config.negative_sampling_ext,
            same_share=config.same_share,
            others=config.other_windows,
            score=config.score,
            temperature=config.temperature,
            predictor=config.predictor,
            dropout=config.dropout,
            shared=config.share_negatives == "window",
            groups=groups,
            n_aligned=config.aligned,
            passed=model.encoder.passed if groups > 1 else 0,
            contrast=config.contrast,
        )


class CPCModule(lightning.LightningModule):
    """
    Train a CPC network.

    Parameters
    ----------
    config : PretrainConfig
        The settings.
    train, validation : WindowLoader
        Windows to learn from, and to judge the loss on.

    Attributes
    ----------
    data : dict
        What recordings these are of; see :meth:`jtm.data.store.Store.summary`.
    """

    def __init__(self, config, train, validation):
        super().__init__()
        self.config = config
        self.model = build_model(config)
        self.criterion = build_criterion(config, self.model)
        self.train_windows = train
        self.validation_windows = validation
        self.data = train.store.summary(train.indices, validation.indices)
        self.epoch_steps = []  # of each epoch that was counted
        self.history = []  # rows of the metrics file
        self.sums = {}  # of this epoch's metrics, by name
        self.carried = None  # states of the lanes, for sequential sampling
        self.clock = None

    def steps_before(self, epoch):
        """
        Count the optimiser's steps before an epoch.

        Parameters
        ----------
        epoch : int
            The epoch.

        Returns
        -------
        int
            Steps.
        """
        for uncounted in range(len(self.epoch_steps), epoch):
            batches = self.train_windows.count(uncounted)
            self.epoch_steps.append(math.ceil(batches / self.config.accumulate))
        return sum(self.epoch_steps[:epoch])

    def train_dataloader(self):
        """
        Give the windows of the current epoch, from the current step on.

        Returns
        -------
        WindowLoader
            The windows.
        """
        done = self.global_step - self.steps_before(self.current_epoch)
        self.train_windows.epoch = self.current_epoch
        self.train_windows.first_batch = done * self.config.accumulate
        self.train_windows.device = self.device
        return self.train_windows

    def val_dataloader(self):
        """
        Give the windows that the loss is judged on, the same every epoch.

        Returns
        -------
        WindowLoader
            The windows.
        """
        return self.validation_windows

    def on_train_start(self):
        """Start the clock, also where an epoch is taken up in its middle."""
        self.clock = time.monotonic()

    def on_train_epoch_start(self):
        """Start the clock of the epoch."""
        self.clock = time.monotonic()

    def training_step(self, batch):
        """
        Compute the loss of a batch.

        Parameters
        ----------
        batch : Batch
            Windows.

        Returns
        -------
        torch.Tensor
            The loss in nats.
        """
        named = self._judge(batch, self.global_step)
        loss = named["loss"]
        if not torch.isfinite(loss):
            ids = {self.train_windows.store.recordings[i].id for i in batch.recordings}
            raise InputError(
                f"the loss is {loss.item()} at step {self.global_step}, in recordings "
                f"{', '.join(sorted(ids))}; {advice(self.config.path_checkpoint)}"
            )
        seconds = batch.waves.numel() / SAMPLE_RATE
        self._add("train", named, len(batch.waves), seconds)
        return loss

    def validation_step(self, batch, index):
        """
        Sum up the loss of a batch, with the same negatives every epoch.

        Parameters
        ----------
        batch : Batch
            Windows.
        index : int
            Number of the batch.
        """
        named = self._judge(batch, -1 - index)
        self._add("validation", named, len(batch.waves), 0)

    def _judge(self, batch, step):
        """Score a batch with chance drawn from the seed and the step alone."""
        # Processes train on different windows, but judge the same ones alike.
        rank = self.global_rank if self.training else 0
        key = f"{self.config.random_seed} {step} {rank}"
        seed = zlib.crc32(key.encode())
        torch.manual_seed(seed)  # for dropout
        chance = torch.Generator().manual_seed(seed)
        wave = batch.waves[:, None].float() / 32768  # (batch, 1, samples)
        z = read = self.model.encoder(wave)
        if self.config.augment_past and self.training:
            kinds = self.config.augment_past.split(",")
            read = self.model.encoder(augment(wave, kinds, chance))
        if self.config.sampling_type == "sequential" and self.training:
            c = self._carry(read, batch)
        else:
            c = self.model.summarise(read)
        if self.config.cpc_mode == "reverse":
            z, c = z.flip(1), c.flip(1)
        return self.criterion(z, c, batch.recordings, chance)

    def _carry(self, z, batch):
        """Summarise on from the states that the lanes ended in."""
        state = None
        if self.carried is not None:
            self.carried = [part.to(z.device) for part in self.carried]
            lanes = batch.lanes
            keep = (~batch.fresh).to(z)[None, :, None]
            state = tuple(part[:, lanes].to(z) * keep for part in self.carried)
        c, parts = self.model.context(z, state)
        if self.carried is None:
            lanes = self.config.batch_size
            self.carried = [
                part.new_zeros(part.shape[0], lanes, part.shape[2]) for part in parts
            ]
        for held, part in zip(self.carried, parts, strict=True):
            held[:, batch.lanes] = part.detach().to(held)
        return c

    def _add(self, split, named, windows, seconds):
        """Add a batch's metrics to the sums of the epoch."""
        sums = self.sums.setdefault(split, {"windows": 0, "fresh_seconds": 0})
        sums["windows"] += windows
        sums["fresh_seconds"] += seconds
        for name, value in named.items():
            sums[name] = sums.get(name, 0) + value.detach() * windows

    def on_validation_epoch_start(self):
        """Forget the sums of the last validation."""
        self.sums.pop("validation", None)

    def on_validation_epoch_end(self):
        """Give the validation loss to whoever watches it."""
        sums = self.sums["validation"]
        self.log("validation_loss", sums["loss"] / sums["windows"], sync_dist=True)

    def _of_all(self, sums):
        """Add up the sums of an epoch over the processes."""
        if self.trainer.world_size == 1:
            return sums
        values = [torch.as_tensor(v, dtype=torch.float64) for v in sums.values()]
        values = torch.stack([value.to(self.device) for value in values])
        total = self.trainer.strategy.reduce(values, reduce_op="sum")
        return dict(zip(sums, total.unbind(), strict=True))

    def close_epoch(self):
        """Write the epoch's row of each split to the metrics file."""
        elapsed = time.monotonic() - self.clock
        for split in ("train", "validation"):
            sums = self.sums.pop(split)
            sums = self._of_all(sums) if split == "train" else sums
            windows, seconds = (
                int(sums.pop("windows")),
                float(sums.pop("fresh_seconds")),
            )
            row = {"epoch": self.current_epoch, "step": self.global_step}
            row |= {"split": split, "windows": windows}
            row["audio_seconds_per_second"] = round(seconds / elapsed, 1)
            row |= {name: float(value) / windows for name, value in sums.items()}
            self.history.append(row)
            if self.logger:
                named = {f"{split}/{k}": v for k, v in row.items() if k != "split"}
                self.logger.log_metrics(named, step=self.global_step)
        if self.global_rank == 0:
            write_metrics(self.config.path_checkpoint, self.history)

    def configure_optimizers(self):
        """
        Give Adam with a linear rise and halvings of the learning rate.

        Returns
        -------
        dict
            As Lightning expects it.
        """
        config = self.config
        optimizer = torch.optim.Adam(self.parameters(), config.learning_rate)
        per_epoch = self.steps_before(1)
        ramp = config.scheduler_ramp * per_epoch

        def factor(step):
            rise = min(1.0, (step + 1) / ramp) if ramp else 1.0
            every = config.scheduler_step * per_epoch
            return rise * 0.5 ** (step // every if every else 0)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
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
        checkpoint["data"] = self.data
        checkpoint["history"] = self.history
        checkpoint["world"] = self.trainer.world_size
        checkpoint["sums"] = {s: self._of_all(sums) for s, sums in self.sums.items()}
        checkpoint["carried"] = self.carried and [
            self.all_gather(part).view(-1, *part.shape) for part in self.carried
        ]  # each (processes, layers, lanes, dim)

    def on_load_checkpoint(self, checkpoint):
        """
        Take back what :meth:`on_save_checkpoint` added.

        Parameters
        ----------
        checkpoint : dict
            What was saved.
        """
        self.history = checkpoint["history"]
        if checkpoint["carried"]:
            self.carried = [part[self.global_rank] for part in checkpoint["carried"]]
        if self.global_rank == 0:  # they are those of all processes
            self.sums = checkpoint["sums"]
        if "train" in self.sums:  # the rate counts this process's time alone
            self.sums["train"]["fresh_seconds"] = 0


class Bar(lightning.Callback):
    """Show one progress bar for the whole run, with the time left of all of it."""

    def on_train_start(self, trainer, module):
        """Start the bar where the run starts."""
        steps = module.steps_before(module.config.n_epoch)
        done = module.global_step
        self.bar = tqdm(desc="Pretraining", total=steps, initial=done, unit="step")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Move the bar on and show this epoch's means."""
        sums = module.sums["train"]
        rate = sums["fresh_seconds"] / (time.monotonic() - module.clock)
        rate *= trainer.world_size
        self.bar.set_postfix_str(
            f"epoch {trainer.current_epoch}, "
            f"loss {sums['loss'] / sums['windows']:.3f}, "
            f"accuracy {sums['accuracy_1'] / sums['windows']:.3f}, "
            f"{rate:.0f} audio-s/s",
            refresh=False,
        )
        self.bar.update(module.global_step - self.bar.n)

    def teardown(self, trainer, module, stage):
        """Close the bar."""
        self.bar.close()


def held_out(store, window=0):
    """
    Choose the recordings to learn from and those to validate on.

    Parameters
    ----------
    store : Store
        The recordings. Test recordings are never among the chosen, and those
        that tasks validate on never among what is learned from.
    window : int
        Samples that a drawn recording must have, if any has.

    Returns
    -------
    train : list of int
        Indices into the store of what to learn from.
    validation : list of int
        Indices of what to validate on; a single recording is on both sides.
    """
    splits = split_recordings(store.recordings, store.lengths, max(1, window))
    train = sorted(splits["train"] + splits["unlabelled"])
    return train, splits["validation"] or train


def pretrain(config, progress=True):
    """
    Pretrain a network, or take up a run where it stopped.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``data`` and ``path_checkpoint`` are set.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The checkpoint of the last epoch.

    Raises
    ------
    InputError
        If the data or a checkpoint is not fit for it.
    StoppedError
        If the user stopped it; everything is saved.
    """
    folder = Path(config.path_checkpoint)
    here = place()
    # Whichever process builds it shows a bar.
    store = build_store(open_dataset(config.data), progress=progress or here.rank > 0)
    train, validation = loaders(config, store)
    module = CPCModule(config, train, validation)
    if not module.steps_before(1):
        raise InputError(
            f"{here.world} processes have less than a batch each; use fewer of them, "
            "or a smaller --batchSize"
        )
    if config.load:
        content = read_checkpoint(config.load)
        load_part(config.load, content, "model", module.model, config)
        if config.load_criterion:
            load_part(config.load, content, "criterion", module.criterion, config)
    if here.rank == 0 or (folder / CONFIG_FILE).exists():
        settle(folder, config)  # nothing is written before all is found fit
    last = folder / "last.pt"
    if last.exists():
        content = read_checkpoint(last)
        epochs = content["history"][-1]["epoch"] + 1 if content["history"] else 0
        if epochs >= config.n_epoch or _stalled(content["history"], config.patience):
            print(f"{folder}: finished, {epochs} epochs; nothing left to do")
            return folder / f"checkpoint{epochs - 1}.pt"
        if content.get("world", 1) != here.world:
            raise InputError(
                f"{folder} holds a run of {content.get('world', 1)} processes, not "
                f"{here.world}; start as many, or choose another --pathCheckpoint"
            )
        check_data(last, content, config.data, module.data)
        print(f"{folder}: going on from step {content['global_step']}")
    if train.left_out:
        print(f"{train.left_out} recordings are shorter than a window: left out")
    callbacks = [Keeper(folder)]
    if progress:
        callbacks.append(Bar())
    if config.patience:
        # It checks after validation, before the epoch is saved, its count with it.
        callbacks.append(
            EarlyStopping(
                "validation_loss",
                patience=config.patience,
                check_on_train_epoch_end=False,
            )
        )
    trainer = make_trainer(config, folder, callbacks)
    with warnings.catch_warnings():
        # The module gives each epoch its own windows, from the step it is at.
        warnings.filterwarnings("ignore", message=".*dataloader.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*treespec.*")
        # A gradient in the order of memory that a kernel of one tap came in.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        trainer.fit(
            module, ckpt_path=last if last.exists() else None, weights_only=True
        )
    return folder / f"checkpoint{trainer.current_epoch - 1}.pt"


def _stalled(history, patience):
    """Tell whether the validation loss has not fallen for so many epochs."""
    losses = [row["loss"] for row in history if row["split"] == "validation"]
    since = len(losses) - 1 - losses.index(min(losses)) if losses else 0
    return 0 < patience <= since


def loaders(config, store):
    """
    Make the loaders of a run.

    Parameters
    ----------
    config : PretrainConfig
        The settings.
    store : Store
        The recordings.

    Returns
    -------
    train : WindowLoader
        Windows to learn from.
    validation : WindowLoader
        Windows to judge the loss on, at most :data:`VALIDATION_WINDOWS` of them:
        sampled by the same scheme, with no state carried over.

    Raises
    ------
    InputError
        If the metadata lacks the category that is asked for.
    """
    train, validation = held_out(store, config.size_window)
    here = place()
    common = {
        "store": store,
        "window": config.size_window,
        "batch_size": config.batch_size,
        "scheme": config.sampling_type,
        "seed": config.random_seed,
        "chunk_bytes": config.chunk_size,
        "pad": config.short_recordings == "pad",
    }
    categories = None, None
    if config.sampling_type == "samecategory":
        category = [r.metadata.get(config.labels_by) for r in store.recordings]
        known = [i for i in train if category[i]]
        if not known:
            columns = sorted(
                {name for i in train for name in store.recordings[i].metadata}
            )
            raise InputError(
                f"{config.data}: the metadata has no {config.labels_by!r}; "
                f"--labelsBy may be one of {', '.join(columns) or 'none'}"
            )
        if len(known) < len(train):
            left_out = len(train) - len(known)
            print(f"{left_out} recordings have no {config.labels_by}: left out")
        train = known
        # Where all would be left out, each is judged by itself.
        validation = [i for i in validation if category[i]] or validation
        categories = [[category[i] or i for i in part] for part in (train, validation)]
    windows = WindowLoader(
        indices=train,
        categories=categories[0],
        max_chunks=config.max_chunks_in_mem,
        rank=here.rank,
        world=here.world,
        **common,
    )
    # The memory is training's: of these few windows each is read for itself.
    judged = WindowLoader(
        indices=validation, categories=categories[1], max_chunks=0, **common
    )
    return windows, judged


def make_trainer(config, folder, callbacks):
    """
    Make the Lightning trainer of a run.

    Parameters
    ----------
    config : PretrainConfig
        The settings.
    folder : Path
        Where TensorBoard's logs go.
    callbacks : list of lightning.Callback
        What watches the run.

    Returns
    -------
    lightning.Trainer
        The trainer.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    here = place()
    return lightning.Trainer(
        devices=here.local,
        num_nodes=here.world // here.local,
        max_epochs=config.n_epoch,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.gradient_clip or None,
        precision={"float32": "32-true", "bf16": "bf16-mixed"}[config.precision],
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
        limit_val_batches=math.ceil(VALIDATION_WINDOWS / config.batch_size),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
