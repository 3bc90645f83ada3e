"""
Linear probes: how much of an answer can be read off frozen features.

A probe is a logistic regression, multinomial for classes, and one for each output
where several may be true at once. It standardises the features by the training sample,
so that one set of penalties suits any representation. L2 penalties are tried from
strong to weak by L-BFGS, each going on from the stronger one's end, until the score on
validation is 1 or fell twice (with classes, whose score is jumpy, all are tried). The
one that scores best is taken, of equals the stronger.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jtm.data.rolls import WINDOW
from jtm.evaluation.labelled import evenly
from jtm.evaluation.metrics import average_precision
from jtm.models.pooling import CONSTANT

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Strengths of the penalty, beside a loss averaged over samples."""

ITERATIONS = 25
"""Steps of L-BFGS for each penalty."""

CHUNK = 4096
"""Samples that are answered at once."""

TRAIN_FRAMES = 6_000
"""Maximum number of frames that a probe learns from."""

TRAIN_WINDOWS = 4_000
"""Maximum number of windows, or clips, that a probe learns from."""

VALIDATION_SAMPLES = 3_000
"""Maximum number of validation frames, or windows, that settings are chosen on."""


def samples(features, labelled, split, representation, units):
    """
    Read what a probe learns from, or is chosen by.

    Neighbouring frames say nearly the same: of each window some are taken, evenly.

    Parameters
    ----------
    features : Features
        The features, computed.
    labelled : Labelled
        The recordings.
    split : {"train", "validation"}
        Which of them.
    representation : str
        One of :data:`jtm.evaluation.features.REPRESENTATIONS`.
    units : numpy.ndarray
        Rows of :meth:`jtm.evaluation.labelled.Labelled.units`; those to learn from
        in an order of which any beginning is spread over all.

    Returns
    -------
    x : numpy.ndarray
        Features ``(samples, dim)``.
    y : numpy.ndarray
        Targets ``(samples, *shape)``, or classes ``(samples,)``.
    """
    framewise = labelled.task.family == "frames"
    most = TRAIN_FRAMES if split == "train" else VALIDATION_SAMPLES
    if split == "train":
        units = units[: most if framewise else TRAIN_WINDOWS]
    else:  # of all validation recordings
        units = evenly(units, most)
    window, x, y = labelled.frames_of(WINDOW), [], []
    for index in np.unique(units[:, 0]):
        selection = labelled.selections(split, index)[0]
        first = np.sort(units[units[:, 0] == index, 1])
        if framewise:
            in_window = window // selection.step
            each = min(max(1, most // len(units)), in_window)
            offsets = ((np.arange(each) + 0.5) * in_window / each).astype(np.int64)
            rows = (first[:, None] // selection.step + offsets).ravel()
            y.append(labelled.frames(index, selection)[rows])
        else:
            rows = first // window if labelled.task.unit == "windows" else first * 0
            y.append(np.full(len(rows), labelled.classes_of([index])[0]))
        x.append(features.rows(representation, labelled.store, index, selection, rows))
    return np.concatenate(x), np.concatenate(y)


def fit(train, validation, shape):
    """
    Fit a linear probe.

    Parameters
    ----------
    train, validation : tuple of numpy.ndarray
        Features ``(samples, dim)``, and targets: booleans ``(samples, *shape)``, or
        the class ``(samples,)``.
    shape : tuple of int
        Shape of an answer.

    Returns
    -------
    predict : callable
        Returns logits ``(samples, *shape)`` from features ``(samples, dim)``.
    chosen : dict
        The ``penalty`` that validation chose, and the ``validation`` score with it.
    """
    x, truth = map(torch.from_numpy, train)
    mean, scale = standardisation(x)
    x = (x - mean) * scale
    linear = _start(x.shape[1], truth, shape)

    @torch.no_grad()
    def predict(features):
        parts = torch.from_numpy(features).split(CHUNK)
        return np.concatenate(
            [linear((part - mean) * scale).numpy() for part in parts]
        ).reshape(-1, *shape)

    best, state, chosen, falls = -1.0, None, None, 0
    for penalty in PENALTIES:
        _minimise(linear, x, truth, penalty)
        value = score(predict(validation[0]), validation[1])
        falls = falls + 1 if value < best else 0
        if falls == 2 and truth.ndim > 1:
            break
        if value > best:
            best = value
            state = {name: each.clone() for name, each in linear.state_dict().items()}
            chosen = {"penalty": penalty, "validation": round(value, 4)}
        if best == 1.0:
            break
    linear.load_state_dict(state)
    return predict, chosen


def standardisation(x):
    """
    Compute what brings features to mean 0 and deviation 1.

    Each feature is divided by its own deviation, however small: nothing is added to
    it, so that its scale makes no difference. One that never varies is left at zero.

    Parameters
    ----------
    x : torch.Tensor
        Features ``(samples, dim)``.

    Returns
    -------
    mean : torch.Tensor
        What to take away ``(dim,)``.
    scale : torch.Tensor
        What to multiply by then ``(dim,)``.
    """
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    constant = variance <= (CONSTANT * mean) ** 2
    return mean, torch.where(constant, 0.0, variance.rsqrt())


def score(logits, truth):
    """
    Score answers on validation.

    Parameters
    ----------
    logits : numpy.ndarray
        Logits ``(samples, ...)``.
    truth : numpy.ndarray
        Booleans of the same shape, or classes ``(samples,)``.

    Returns
    -------
    float
        Accuracy of classes; else average precision, of tasks of notes the mean of
        those of what sounds and what starts.
    """
    if truth.ndim == 1:
        return float((logits.argmax(axis=1) == truth).mean())
    if truth.ndim == 2:
        return average_precision(truth, logits)
    halves = (slice(-1), slice(-1, None))  # what sounds, what starts
    return float(
        np.mean([average_precision(truth[:, i], logits[:, i]) for i in halves])
    )


@torch.no_grad()
def _start(dim, truth, shape):
    """Make a layer whose weights are zero and whose answers are the base rates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the biases of classes
        linear = nn.Linear(dim, int(np.prod(shape)))
    linear.weight.zero_()
    if truth.ndim > 1:  # half a count away from never and always
        counts = truth.float().sum(dim=0).flatten()
        linear.bias.copy_(((counts + 0.5) / (len(truth) + 1)).logit())
    return linear


def _minimise(linear, x, truth, penalty):
    """Minimise the loss in nats, and a penalty, by L-BFGS."""
    # As many problems as outputs: their sum, since the mean of many moves too little
    # for L-BFGS to see that it is not at its end.
    problems = truth[0].numel() if truth.ndim > 1 else 1
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        logits = linear(x)
        if truth.ndim > 1:
            targets = truth.float().flatten(1)
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
        else:
            loss = functional.cross_entropy(logits, truth)
        loss = problems * loss + penalty / 2 * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
