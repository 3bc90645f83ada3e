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

from jtm.evaluation.metrics import average_precision

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
"""Steps from one look at validation to the next."""

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


def fit(
    kind, train, validation, n_outputs, parts=(), chosen=None, seed=0, pitched=True
):
    """
    Fit a probe.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    train, validation : tuple of numpy.ndarray
        Features ``(samples, dim)``, and what is asked: booleans ``(samples,
        ..., outputs)``, or the class ``(samples,)``.
    n_outputs : int
        Number of logits; for each pitch, where pitches are asked about and the
        kind is a shared one.
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
        Gives logits ``(samples, ...)`` from features ``(samples, dim)``.
    chosen : dict
        The settings that validation chose, and the score it had with them.
    """
    import torch

    from jtm.models.heads import FrameHead, OctaveHead, PitchHead

    hidden = HIDDEN.get(kind, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind.startswith("shared"):
            kind_of = PitchHead if pitched else OctaveHead
            head = kind_of(parts, n_outputs, hidden, dropout=DROPOUT)
        else:
            head = FrameHead(train[0].shape[1], n_outputs, hidden, DROPOUT)
    chosen = fit_head(head, train, validation, chosen, seed)
    truth = torch.from_numpy(train[1])

    def predict(features):
        samples = torch.from_numpy(features).split(CHUNK)
        with torch.no_grad():
            return np.concatenate(
                [_read(head, head.standardise(part), truth).numpy() for part in samples]
            )

    return predict, chosen


def fit_head(head, train, validation, chosen=None, seed=0):
    """
    Fit a given head; see :func:`fit`.

    Parameters
    ----------
    head : FrameHead or PitchHead
        The head; it ends in evaluation mode.
    train, validation : tuple of numpy.ndarray
        Features and what is asked.
    chosen : dict, optional
        Settings chosen earlier, to be used as they are.
    seed : int
        Draws the batches.

    Returns
    -------
    dict
        The settings that validation chose, and the score it had with them.
    """
    import torch

    x, x_validation = (torch.from_numpy(data[0]) for data in (train, validation))
    head.fix(x)
    with torch.no_grad():
        x, x_validation = head.standardise(x), head.standardise(x_validation)
    truth = torch.from_numpy(train[1])
    _start(head, truth)

    def judge():
        head.eval()
        with torch.no_grad():
            found = [_read(head, part, truth) for part in x_validation.split(CHUNK)]
        return score(torch.cat(found).numpy(), validation[1])

    learn = _minimise if head.hidden is None else _descend
    state, chosen = learn(head, x, truth, judge, chosen, seed)
    head.load_state_dict(state)
    head.eval()
    return chosen


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
        Accuracy of classes; else average precision, of a transcription the
        mean of those of what sounds and what starts.
    """
    if truth.ndim == 1:
        return float((logits.argmax(axis=1) == truth).mean())
    if truth.ndim == 2:
        return average_precision(truth, logits)
    of_each = [average_precision(truth[:, i], logits[:, i]) for i in range(2)]
    return float(np.mean(of_each))


def _read(head, x, truth):
    """Give logits in the shape of what is asked."""
    hidden_on_axis = head.hidden is not None and hasattr(head, "own")
    logits = head.read(x, len(x)) if hidden_on_axis else head.read(x)
    if truth.ndim > 1:
        return logits.reshape(len(x), *truth.shape[1:])
    return logits.flatten(1)


def _loss(head, x, truth):
    """Give the mean loss in nats: of outputs, or of classes."""
    from torch.nn import functional

    logits = _read(head, x, truth)
    if truth.ndim > 1:
        return functional.binary_cross_entropy_with_logits(logits, truth.float())
    return functional.cross_entropy(logits, truth)


def _start(head, truth):
    """Start linear weights at nothing, and answers at the base rates."""
    import torch

    with torch.no_grad():
        if head.hidden is None:
            (head.weight if hasattr(head, "own") else head.linear.weight).zero_()
        if truth.ndim == 1:
            return
        # Half a count away from never and always.
        if hasattr(head, "own"):
            rate = truth.float().reshape(len(truth), head.n_outputs, -1)
            rate = rate.mean(dim=(0, 2))
            head.bias.copy_(rate.clamp(1e-5, 1 - 1e-5).logit())
        else:
            rate = (truth.float().sum(dim=0).flatten() + 0.5) / (len(truth) + 1)
            head.linear.bias.copy_(rate.logit())


def _keep(head):
    """Copy a head's weights."""
    return {name: value.clone() for name, value in head.state_dict().items()}


def _minimise(head, x, truth, judge, chosen, seed):
    """Fit a linear probe by L-BFGS; give its weights and settings."""
    import torch

    shared = hasattr(head, "own")
    penalised = [head.weight, head.own] if shared else [head.linear.weight]
    # As many problems as outputs, unless they share weights: their sum, since the
    # mean of many moves too little for L-BFGS to see that it is not at its end.
    problems = truth[0].numel() if truth.ndim > 1 and not shared else 1
    best, state, found, falls = -1.0, None, None, 0
    for penalty in (chosen["penalty"],) if chosen else PENALTIES:
        optimizer = torch.optim.LBFGS(
            head.parameters(),
            max_iter=ITERATIONS * (2 if chosen else 1),
            line_search_fn="strong_wolfe",
        )

        def closure(penalty=penalty, optimizer=optimizer):
            optimizer.zero_grad()
            size = sum(weight.square().sum() for weight in penalised)
            loss = problems * _loss(head, x, truth) + penalty / 2 * size
            loss.backward()
            return loss

        optimizer.step(closure)
        value = judge()
        falls = falls + 1 if value < best else 0
        if falls == 2 and truth.ndim > 1:
            break
        if value > best:
            best, state = value, _keep(head)
            found = {"penalty": penalty, "validation": round(value, 4)}
        if best == 1.0:
            break
    return state, found


def _descend(head, x, truth, judge, chosen, seed):
    """Fit a probe with a hidden layer by Adam; give its weights and settings."""
    import torch

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
                    value = judge()
                    if value > best:
                        best, state = value, _keep(head)
                        found = {
                            "decay": decay,
                            "step": step,
                            "validation": round(value, 4),
                        }
    return state, found
