"""
CPC pretraining: the module with the training step, and a whole run.

The random seed and the number of a step determine its windows, negatives, augmentation
and dropout.
"""

import functools
import math
from dataclasses import asdict

import torch
from lightning.pytorch.loggers import TensorBoardLogger

from jtm.constants import SAMPLE_RATE
from jtm.cpc.loss import InfoNCE
from jtm.data.musicnet import METADATA_FILE, open_dataset
from jtm.data.splits import split_recordings
from jtm.data.store import build_store
from jtm.data.windows import WindowLoader
from jtm.files import InputError, digest
from jtm.models.augment import augment
from jtm.models.network import build_model
from jtm.training.checkpoints import load_part, read_checkpoint
from jtm.training.folder import check, claim
from jtm.training.loop import Module, Plan, fit
from jtm.training.processes import process_info

VALIDATION_WINDOWS = 256
"""Maximum number of windows for the validation loss."""


def build_criterion(config, model):
    """
    Build the untrained InfoNCE criterion of a run.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``random_seed`` determines the initial weights.
    model : Network
        The network to train.

    Returns
    -------
    InfoNCE
        The criterion.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed + 1)
        return InfoNCE(config, model)


class CPCModule(Module):
    """
    Train a CPC network.

    Parameters
    ----------
    config : PretrainConfig
        The settings.
    train, validation : WindowLoader
        Windows for training and for validation.
    origin : str
        Hash of the checkpoint that training starts from; empty if there is none.
    """

    title = "Pretraining"

    def __init__(self, config, train, validation, origin=""):
        plan = Plan.of(
            config,
            accumulate=config.accumulate,
            gradient_clip=config.gradient_clip,
            precision=config.precision,
            patience=config.patience,
            n_validation=math.ceil(VALIDATION_WINDOWS / config.batch_size),
            parallel=True,
        )
        data = train.store.summary(train.indices, validation.indices)
        metadata = {"config": asdict(config), "data": data, "origin": origin}
        super().__init__(plan, train, validation, metadata)
        self.config = config
        self.model = build_model(config)
        self.criterion = build_criterion(config, self.model)
        self.carried = None  # hidden states of the streams, for sequential sampling

    def describe(self, batch):
        """Name the recordings of a batch, for error messages."""
        recordings = self.train_batches.store.recordings
        ids = sorted({recordings[i].id for i in batch.recordings})
        return f", in recordings {', '.join(ids)}"

    def loss(self, batch, split, step):
        """Compute InfoNCE; training may augment the past or carry hidden states."""
        generator = torch.Generator().manual_seed(torch.initial_seed())
        wave = batch.waves[:, None].float() / 32768  # (batch, 1, samples)
        z = past = self.model.encoder(wave)
        if self.config.augment_past and split == "train":
            kinds = self.config.augment_past.split(",")
            past = self.model.encoder(augment(wave, kinds, generator))
        if self.config.sampling_type == "sequential" and split == "train":
            c = self._carry(past, batch)
        else:
            c = self.model.summarise(past)
        if self.config.cpc_mode == "reverse":
            z, c = z.flip(1), c.flip(1)
        return self.criterion(z, c, batch.recordings, generator)

    def _carry(self, z, batch):
        """Compute contexts from the last hidden states of the streams."""
        state = None
        if self.carried is not None:
            self.carried = [part.to(z.device) for part in self.carried]
            keep = (~batch.reset).to(z)[None, :, None]
            state = tuple(part[:, batch.streams].to(z) * keep for part in self.carried)
        c, states = self.model.context(z, state)
        if self.carried is None:
            n = self.config.batch_size
            self.carried = [s.new_zeros(s.shape[0], n, s.shape[2]) for s in states]
        for carried, state in zip(self.carried, states, strict=True):
            carried[:, batch.streams] = state.detach().to(carried)
        return c

    def extra_metrics(self, split, windows, seconds):
        """Return the seconds of audio that training processes per second."""
        audio = windows * self.config.size_window / SAMPLE_RATE
        rate = audio / max(seconds, 1e-9) if split == "train" else 0.0
        return {"audio_seconds_per_second": round(rate, 1)}

    def parameter_groups(self):
        """Return all parameters as one group, with a single learning rate."""
        return [{"params": list(self.parameters()), "lr": self.config.learning_rate}]

    def lr_factor(self, step):
        """Compute the learning-rate factor: linear warm-up, then halvings."""
        n_warmup = self.config.scheduler_ramp * self.steps_before(1)
        warmup = min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0
        period, epoch = self.config.scheduler_step, 0
        while period and self.steps_before(epoch + 1) <= step:
            epoch += 1
        return warmup * 0.5 ** (epoch // period if period else 0)

    def on_save_checkpoint(self, checkpoint):
        """Add the hidden states of the streams of all processes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["carried"] = self.carried and [
            self.all_gather(part).view(-1, *part.shape) for part in self.carried
        ]  # each (processes, layers, streams, dim)

    def on_load_checkpoint(self, checkpoint):
        """Restore the hidden states."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint["carried"]:
            self.carried = [part[self.global_rank] for part in checkpoint["carried"]]


def pretrain(config, progress=True):
    """
    Pretrain a network, or resume a stopped run.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``data`` and ``path_checkpoint`` are set.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Path
        The checkpoint of the last epoch.

    Raises
    ------
    InputError
        If the data or a checkpoint is unsuitable.
    StoppedError
        If the user stopped the run; everything is saved.
    """
    here, origin = process_info(), ""
    check(config)  # fast checks first, and all of them before anything is written
    if config.load:
        weights, origin = read_checkpoint(config.load), digest(config.load)
        load_part(config.load, weights, "model", build_model(config), config)
    # The process that builds the store shows a progress bar.
    store = build_store(open_dataset(config.data), progress=progress or here.rank > 0)
    train, validation = loaders(config, store)
    module = CPCModule(config, train, validation, origin)
    if not module.steps_before(1):
        raise InputError(
            f"{here.world_size} processes have less than a batch each; use fewer, or "
            "a smaller --batchSize"
        )
    if config.load:
        load_part(config.load, weights, "model", module.model, config)
    if config.load_criterion:
        load_part(config.load, weights, "criterion", module.criterion, config)
    with claim(config, module.metadata["data"], origin):
        if train.left_out:
            print(f"excluded {train.left_out} recordings shorter than a window")
        logger = TensorBoardLogger(config.path_checkpoint, None, "tensorboard")
        return fit(module, progress, logger=logger)


def loaders(config, store):
    """
    Build the data loaders of a run.

    Parameters
    ----------
    config : PretrainConfig
        The settings.
    store : Store
        The recordings.

    Returns
    -------
    train : WindowLoader
        Training windows.
    validation : WindowLoader
        Validation windows, at most :data:`VALIDATION_WINDOWS` of them: sampled by the
        same scheme, with no hidden state carried over.

    Raises
    ------
    InputError
        If the metadata lacks the column of categories.
    """
    # Test recordings are excluded, and validation recordings of the tasks are not
    # trained on; a single recording is in both splits.
    splits = split_recordings(store.recordings, store.lengths, config.size_window)
    train = sorted(splits["train"] + splits["unlabelled"])
    if not train:
        raise InputError(
            f"{config.data}: has test recordings alone, which are not trained on; "
            "expected others in train_data/ or unlabelled_data/"
        )
    validation = splits["validation"] or train
    here, categories = process_info(), (None, None)
    loader = functools.partial(
        WindowLoader,
        store,
        window=config.size_window,
        batch_size=config.batch_size,
        scheme=config.sampling_type,
        seed=config.random_seed,
        chunk_bytes=config.chunk_size,
        pad=config.short_recordings == "pad",
    )
    if config.sampling_type == "samecategory":
        category = [r.metadata.get(config.labels_by) for r in store.recordings]
        known = [i for i in train if category[i]]
        if not known:
            columns = {name for i in train for name in store.recordings[i].metadata}
            expected = f"--labelsBy may be one of {', '.join(sorted(columns))}"
            if not columns:
                expected = f"--samplingType samecategory needs a {METADATA_FILE}"
            raise InputError(
                f"{config.data}: the metadata has no {config.labels_by!r}; {expected}"
            )
        if left_out := len(train) - len(known):
            print(f"excluded {left_out} recordings without {config.labels_by}")
        train = known
        # If no validation recording has a category, each is its own.
        validation = [i for i in validation if category[i]] or validation
        categories = [[category[i] or i for i in own] for own in (train, validation)]
    windows = loader(
        train,
        categories=categories[0],
        max_chunks=config.max_chunks_in_mem,
        rank=here.rank,
        world=here.world_size,
    )
    # The few validation windows are read one by one, without chunks in memory.
    return windows, loader(validation, categories=categories[1], max_chunks=0)
