"""
Training with labels: a head alone on frozen features, or a whole network.

Windows are given as a function that reads an
input and its targets, one for each task by name, and learns multi-label targets
(floats) by binary cross-entropy and classes (integers, negative where unknown) by
cross-entropy; several tasks add up. A network that learns hears its windows at
levels and with noise drawn again each time.
"""

import numpy as np
import torch
from torch.nn import functional

from jtm.training.loop import Module, schedule


class Batches:
    """
    Load labelled windows in batches, shuffled each epoch.

    Parameters
    ----------
    windows : numpy.ndarray
        Windows ``(windows, 2)``: index of the recording, and first frame.
    read : callable
        Gives the input of a window as an array, and its targets as a dict of
        arrays by task, from the index and the first frame.
    batch_size : int
        Maximum number of windows in a batch; all hold as many, or one less.
    seed : int, optional
        Draws the order; without it the windows come as they are.
    steps : int, optional
        Batches in an epoch, which then may hold a window several times, or
        some not at all; by default an epoch visits each window once.
    least : int, optional
        Minimum number of windows in a batch, if there are as many; rather than fewer,
        some batches hold one more than `batch_size`.

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

    def count(self, epoch):
        """
        Count the batches of an epoch.

        Parameters
        ----------
        epoch : int
            The epoch; each has as many.

        Returns
        -------
        int
            Batches.
        """
        return len(self)

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
    Augment waves with gain and noise drawn from torch's generator.

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
    Compute the features that heads read.

    Parameters
    ----------
    model : Network
        The network.
    wave : torch.Tensor
        Waveforms ``(batch, 1, samples)``.
    on_encoder : bool
        Return z alone, not z and c side by side.
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


class SupervisedModule(Module):
    """
    Train heads, and with them the network unless that is frozen.

    Parameters
    ----------
    plan : Plan
        How they are trained.
    model : Network
        The network.
    head : nn.ModuleDict
        By task, what computes logits from features ``(batch, frames, dim)``: z,
        or z and c side by side.
    train, validation : Batches
        Features ``(batch, frames, dim)`` where the network is frozen, else
        waveforms ``(batch, 1, samples)``; with targets.
    rate : float
        Learning rate; it falls to zero in a line.
    head_rate : float, optional
        Learning rate of the heads, where it is another.
    frozen : bool
        Whether the network stays as it is.
    on_encoder : bool
        Read z alone.
    edge : int
        Frames on either side of the waveforms that the heads are not given.
    facts : dict, optional
        What else each checkpoint keeps.
    """

    def __init__(
        self,
        plan,
        model,
        head,
        train,
        validation,
        rate,
        head_rate=None,
        frozen=False,
        on_encoder=False,
        edge=0,
        facts=None,
    ):
        super().__init__(plan, train, validation, facts)
        self.model = model
        self.head = head
        self.rates = rate, head_rate or rate
        self.frozen = frozen
        self.on_encoder = on_encoder
        self.edge = edge
        self.factor = schedule(plan.n_epoch * len(train))

    def forward(self, x):
        """
        Compute logits.

        Parameters
        ----------
        x : torch.Tensor
            Features or waveforms, as the loader gives them.

        Returns
        -------
        dict of str to torch.Tensor
            Logits by task, in the shape that its head gives.
        """
        if not self.frozen:
            x = features_of(self.model, x, self.on_encoder, self.edge)
        return {task: head(x) for task, head in self.head.items()}

    def loss(self, batch, split, step):
        """Add up the losses of the tasks; waveforms are varied in training."""
        inputs, targets = batch
        vary_them = split == "train" and not self.frozen
        logits = self(vary(inputs) if vary_them else inputs)
        losses = [_task_loss(logits[task], target) for task, target in targets.items()]
        return {"loss": sum(losses)}

    def groups(self):
        """List the heads, and the network unless it is frozen."""
        groups = [{"params": list(self.head.parameters()), "lr": self.rates[1]}]
        if not self.frozen:
            groups.append(
                {"params": list(self.model.parameters()), "lr": self.rates[0]}
            )
        return groups


def _task_loss(logits, target):
    """Compute cross-entropy of classes, or binary cross-entropy of floats, in nats."""
    if target.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, target)
    known = target >= 0
    if not known.any():
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], target[known])
