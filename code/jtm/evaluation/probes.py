"""
Probes: how much of an answer can be read off frozen features.

Four kinds, heads of :mod:`jtm.models.heads` that learn alone:

- ``linear``: logistic regression, multinomial for classes, and one for each
  output where several may be true at once;
- ``mlp``: the same after one hidden layer;
- ``shared`` and ``shared-mlp``, for features on an axis of pitch: where pitches are
  asked about, one such classifier slid along that axis, with a bias for each pitch;
  else a classifier that is shared by the pitches of each octave.

All standardise the features by the training sample. The linear ones are convex:
L-BFGS from nothing, with an L2 penalty tried from strong to weak, each going on
from the stronger one's end, until the score is 1 or fell twice (with classes, whose
score is jumpy, all are tried). The others take Adam steps on small batches, with
dropout, in two strengths of weight decay, and keep the best step. What is chosen is
what validation scores best, of equals the stronger. A seed draws the batches and
the hidden layers' first weights.
"""

import numpy as np
import torch
from torch.nn import functional

from jtm.data.rolls import WINDOW
from jtm.evaluation.labelled import evenly
from jtm.evaluation.metrics import average_precision
from jtm.models.heads import FrameHead, OctaveHead, PitchHead

KINDS = ("linear", "mlp", "shared", "shared-mlp")
"""Names of the probes; the last two need features on an axis of pitch."""

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Strengths of the linear probes' penalty, beside a loss averaged over samples."""

ITERATIONS = 25
"""Steps of L-BFGS for each penalty."""

DECAYS = (3.0, 0.03)
"""Strengths of the weight decay of Adam (Loshchilov and Hutter 2019)."""

STEPS = 200
"""Steps of Adam, its rate falling to zero in a line."""

CHECK = 20
"""Steps from one validation to the next."""

BATCH = 256
"""Samples in a batch of Adam."""

RATE = 1e-2
"""Rate of Adam at the start."""

HIDDEN = {"mlp": 128, "shared-mlp": 16}
"""Size of the hidden layer; of the shared one, for each pitch."""

DROPOUT = 0.3
"""Share of hidden activations that is dropped in training."""

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


def answers(features, labelled, split, representation, predict):
    """
    Predict all that is evaluated of a split.

    Parameters
    ----------
    features : Features
        The features, computed.
    labelled : Labelled
        The recordings.
    split : str
        Which of them.
    representation : str
        One of :data:`jtm.evaluation.features.REPRESENTATIONS`.
    predict : callable
        From :func:`fit`.

    Returns
    -------
    list of numpy.ndarray
        Logits about each recording, as :meth:`jtm.evaluation.tasks.Task.score` takes
        them.
    """
    return [
        predict(
            features.rows(
                representation,
                labelled.store,
                index,
                labelled.selections(split, index)[-1],
            )
        )
        for index in labelled.splits[split]
    ]


def fit(kind, train, validation, shape, parts=(), chosen=None, seed=0, pitched=True):
    """
    Fit a probe.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    train, validation : tuple of numpy.ndarray
        Features ``(samples, dim)``, and targets: booleans ``(samples, *shape)``, or
        the class ``(samples,)``.
    shape : tuple of int
        Shape of an answer; the last is that of pitches where there are.
    parts : tuple of tuple of int
        How the features lie on the axis of pitch, for the shared kinds; see
        :class:`jtm.models.heads.PitchHead`.
    chosen : dict, optional
        Settings chosen earlier, to be used as they are.
    seed : int
        Draws the batches and the first weights.
    pitched : bool
        Whether pitches are asked about, which decides what is shared.

    Returns
    -------
    predict : callable
        Returns logits ``(samples, ...)`` from features ``(samples, dim)``.
    chosen : dict
        The settings that validation chose, and the score it had with them.
    """
    hidden = HIDDEN.get(kind, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind.startswith("shared"):
            kind_of = PitchHead if pitched else OctaveHead
            n_outputs = int(np.prod(shape[:-1] if pitched else shape))
            head = kind_of(parts, n_outputs, hidden, dropout=DROPOUT)
        else:
            n_outputs = int(np.prod(shape))
            head = FrameHead(train[0].shape[1], n_outputs, hidden, DROPOUT)
    x, x_validation = (torch.from_numpy(data[0]) for data in (train, validation))
    head.fix(x)
    with torch.no_grad():
        x, x_validation = head.standardise(x), head.standardise(x_validation)
    truth = torch.from_numpy(train[1])
    _start(head, truth)

    def evaluate():
        head.eval()
        with torch.no_grad():
            found = [_read(head, part, truth) for part in x_validation.split(CHUNK)]
        return score(torch.cat(found).numpy(), validation[1])

    learn = _minimise if head.hidden is None else _descend
    state, chosen = learn(head, x, truth, evaluate, chosen, seed)
    head.load_state_dict(state)
    head.eval()

    def predict(features):
        parts = torch.from_numpy(features).split(CHUNK)
        with torch.no_grad():
            return np.concatenate(
                [_read(head, head.standardise(part), truth).numpy() for part in parts]
            )

    return predict, chosen


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


def _read(head, x, truth):
    """Return logits in the shape of the targets."""
    logits = head.read(x)
    if truth.ndim == 1:
        return logits.flatten(1)
    return logits.reshape(len(x), *truth.shape[1:])


def _loss(head, x, truth):
    """Compute the mean loss in nats: of outputs, or of classes."""
    logits = _read(head, x, truth)
    if truth.ndim > 1:
        return functional.binary_cross_entropy_with_logits(logits, truth.float())
    return functional.cross_entropy(logits, truth)


@torch.no_grad()
def _start(head, truth):
    """Start linear weights at zero, and answers at the base rates."""
    if head.hidden is None:
        head.weights[0].zero_()
    if truth.ndim > 1:
        (bias,) = head.biases
        counts = truth.float().sum(dim=0).reshape(len(bias), -1)
        # Half a count away from never and always.
        rate = (counts.sum(dim=1) + 0.5) / (len(truth) * counts.shape[1] + 1)
        bias.copy_(rate.logit())


def _keep(head):
    """Copy a head's weights."""
    return {name: value.clone() for name, value in head.state_dict().items()}


def _minimise(head, x, truth, evaluate, chosen, seed):
    """Fit a linear probe by L-BFGS; return its weights and settings."""
    # As many problems as outputs, unless they share weights: their sum, since the
    # mean of many moves too little for L-BFGS to see that it is not at its end.
    problems = truth[0].numel() if truth.ndim > 1 and not head.shared else 1
    best, state, found, falls = -1.0, None, None, 0
    for penalty in (chosen["penalty"],) if chosen else PENALTIES:
        optimizer = torch.optim.LBFGS(
            head.parameters(),
            max_iter=ITERATIONS * (2 if chosen else 1),
            line_search_fn="strong_wolfe",
        )

        def closure(penalty=penalty, optimizer=optimizer):
            optimizer.zero_grad()
            size = sum(weight.square().sum() for weight in head.weights)
            loss = problems * _loss(head, x, truth) + penalty / 2 * size
            loss.backward()
            return loss

        optimizer.step(closure)
        value = evaluate()
        falls = falls + 1 if value < best else 0
        if falls == 2 and truth.ndim > 1:
            break
        if value > best:
            best, state = value, _keep(head)
            found = {"penalty": penalty, "validation": round(value, 4)}
        if best == 1.0:
            break
    return state, found


def _descend(head, x, truth, evaluate, chosen, seed):
    """Fit a probe with a hidden layer by Adam; return its weights and settings."""
    first = _keep(head)
    best, state, found = -1.0, None, None
    for decay in (chosen["decay"],) if chosen else DECAYS:
        head.load_state_dict(first)
        optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=decay)
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for dropout
            for step in range(1, STEPS + 1):
                head.train()
                for group in optimizer.param_groups:
                    group["lr"] = RATE * (1 - (step - 1) / STEPS)
                rows = torch.from_numpy(rng.integers(0, len(x), min(BATCH, len(x))))
                optimizer.zero_grad()
                _loss(head, x[rows], truth[rows]).backward()
                optimizer.step()
                if step % CHECK == 0:
                    value = evaluate()
                    if value > best:
                        best, state = value, _keep(head)
                        found = {
                            "decay": decay,
                            "step": step,
                            "validation": round(value, 4),
                        }
    return state, found
