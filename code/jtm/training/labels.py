"""
Training on labelled recordings: of the whole network, or of heads alone.

All methods of the benchmark share this module. They differ in the initial weights, in
whether the body is frozen, and in the use of unlabelled audio: none; soft labels from a
teacher (self-training, Xie et al. 2020); or InfoNCE in the same steps. Windows are
drawn at random positions, and augmented in level, spectrum and noise.
"""

import numpy as np
import torch
from torch.nn import functional

from jtm.data.windows import Draws
from jtm.models.augment import augment_magnitudes, augment_waves
from jtm.training.loop import Module, schedule

WARMUP = 20  # steps over which the learning rates rise
WEIGHT_DECAY = 0.01  # of AdamW
CONTRAST_WEIGHT = 0.02  # of InfoNCE, relative to the labels' binary cross-entropies
# Weight of a task's loss, where it is not 1.
WEIGHTS = {"transcription": 2.0, "who_plays_what": 2.0, "instrument_activity": 0.1}

UNKNOWN = -100  # target of a window of unknown class, excluded from the loss


class Windows(Draws):
    """
    Draw batches of labelled and unlabelled windows.

    Parameters
    ----------
    read : callable
        Returns inputs ``(frames, bins)`` from index, first frame and number of frames.
    spans : list of tuple
        Index of each labelled recording, and the first frame of its labelled part and
        the one after the last.
    targets : callable
        Returns targets by task from index, first frame and number of frames.
    n_batches : int
        Number of batches in an epoch.
    batch_size : int
        Number of windows in a batch.
    seed : int
        Random seed.
    size, edge : int
        Number of 10-ms frames in a window, and of further input frames on either side,
        whose labels do not count.
    stride : int
        Number of 10-ms frames in a frame of the network, to which windows are aligned.
    unlabelled : list of tuple, optional
        Spans without labels, from which `n_unlabelled` windows of a batch are drawn.
    n_unlabelled : int
        Number of unlabelled windows in a batch, which follow the labelled ones.
    """

    def __init__(
        self,
        read,
        spans,
        targets,
        n_batches,
        batch_size,
        seed,
        size,
        edge,
        stride=1,
        unlabelled=(),
        n_unlabelled=0,
    ):
        super().__init__(n_batches, seed)
        self.read = read
        self.size, self.edge, self.stride = size, edge, stride
        self.n_labelled = batch_size - n_unlabelled
        labelled, unlabelled = _with_weights(spans), _with_weights(unlabelled)
        self.pools = [labelled] * self.n_labelled + [unlabelled] * n_unlabelled
        self.targets = targets

    def draw(self, rng):
        """
        Draw inputs, targets by task and recordings of a batch.

        Inputs are ``(batch, frames, bins)``, the labelled windows first; only these
        have targets.
        """
        drawn = []  # a recording, weighted by length, and a position in it, of each
        for spans, weights in self.pools:
            index, first, last = spans[rng.choice(len(spans), p=weights)]
            positions = max(1, (last - first - self.size) // self.stride + 1)
            drawn.append((index, first + self.stride * int(rng.integers(positions))))
        inputs = [
            self.read(i, a - self.edge, self.size + 2 * self.edge) for i, a in drawn
        ]
        labels = [self.targets(i, a, self.size) for i, a in drawn[: self.n_labelled]]
        targets = {
            task: torch.from_numpy(np.stack([window[task] for window in labels]))
            for task in labels[0]
        }
        recordings = [index for index, _ in drawn]
        return torch.from_numpy(np.stack(inputs)), targets, recordings


def _with_weights(spans):
    """Return spans, and the probability of each, in proportion to its length."""
    lengths = np.array([last - first for _, first, last in spans], float)
    return spans, lengths / lengths.sum()


class Labelled(Module):
    """
    Train heads, and the body unless it is frozen, on labelled windows.

    Parameters
    ----------
    network : jtm.models.heads.NetworkWithHeads
        Body and heads.
    plan : jtm.training.loop.Plan
        How it is trained.
    windows : Windows
        The training windows.
    rates : tuple of float
        Learning rates of the body, 0 if it is frozen, and of the heads.
    teacher : jtm.models.heads.NetworkWithHeads, optional
        Network that computes soft labels of unlabelled windows.
    contrast : callable, optional
        Computes InfoNCE of unlabelled windows, from z, c, the recording of each window
        and a generator; it has trainable weights.
    augmented : bool
        Whether to augment inputs in level, spectrum and noise.
    **chosen
        Passed on to :class:`jtm.training.loop.Module`.
    """

    def __init__(
        self,
        network,
        plan,
        windows,
        rates,
        teacher=None,
        contrast=None,
        augmented=True,
        **chosen,
    ):
        super().__init__(plan, windows, **chosen)
        self.network = network
        self.rates = rates
        self.contrast = contrast
        self.augmented = augmented
        self.teacher = [teacher.eval().requires_grad_(False)] if teacher else []
        frozen = rates[0] == 0
        network.body.requires_grad_(not frozen)
        network.train()
        if frozen:
            network.body.eval()
        self.lr_factor = schedule(plan.n_epoch * len(windows), WARMUP)

    def loss(self, batch, split, step):
        """
        Compute the loss of a batch of :class:`Windows`.

        In addition to ``loss``, return by name that of each task and of InfoNCE.
        """
        clean, targets, recordings = batch
        augment = augment_magnitudes if clean.shape[1] > 1 else augment_waves
        inputs = augment(clean) if self.augmented else clean
        n, edge = self.train_batches.n_labelled, self.train_batches.edge
        logits = self.network(inputs if self.teacher else inputs[:n], edge)
        losses = {t: _task_loss(logits[t][:n], target) for t, target in targets.items()}
        if self.teacher:
            with torch.no_grad():
                teacher_logits = self.teacher[0].to(clean.device)(clean[n:], edge)
            share = n / len(clean)
            for task, own in losses.items():
                soft = teacher_logits[task]
                soft = soft.sigmoid() if soft.ndim > 2 else soft.softmax(1)
                other = _task_loss(logits[task][n:], soft)
                losses[task] = share * own + (1 - share) * other
        total = sum(WEIGHTS.get(task, 1.0) * loss for task, loss in losses.items())
        if self.contrast:
            z = self.network.body.encode(inputs[n:])
            losses["contrast"] = self.contrast(
                z,
                self.network.body.model.summarise(z),
                torch.tensor(recordings[n:]),
                torch.Generator().manual_seed(torch.initial_seed()),
            )["loss"]
            total = total + CONTRAST_WEIGHT * losses["contrast"]
        return {"loss": total} | {name: loss.detach() for name, loss in losses.items()}

    def parameter_groups(self):
        """List the trained parameters: of heads, body and the InfoNCE predictor."""
        body_rate, heads_rate = self.rates
        trained = [(self.network.heads, heads_rate)]
        if body_rate:
            trained.append((self.network.body, body_rate))
        if self.contrast:
            trained.append((self.contrast, body_rate))
        return [
            {"params": [*part.parameters()], "lr": rate, "weight_decay": WEIGHT_DECAY}
            for part, rate in trained
        ]


def _task_loss(logits, target):
    """
    Compute a mean binary cross-entropy, or cross-entropy, in nats.

    Multi-label targets ``(batch, frames, ...)`` have the shape of the logits. Others
    are classes ``(batch,)``, which may be :data:`UNKNOWN`, or their probabilities
    ``(batch, classes)``.
    """
    if logits.ndim == 2 and target.ndim == 1:
        known = (target != UNKNOWN).sum().clamp(min=1)  # there may be none in a batch
        return functional.cross_entropy(logits, target, reduction="sum") / known
    if logits.ndim == 2:
        return functional.cross_entropy(logits, target)
    target = target.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, target)
