"""
Linear probes: how much of an answer a linear map can read off frozen features.

Two kinds, by what is asked. A *frame probe* is one multi-label logistic
regression for all pitches at once. A *window probe* is one multinomial logistic
regression on the mean and deviation of a window's frames. Both standardise the
features by the training sample and have one setting, the strength of an L2
penalty, which validation chooses: by average precision for frames, tried from
strong to weak until it falls; by accuracy for windows, where it is jumpy, so all
are tried. Of equals the stronger penalty is kept. Both problems are convex and
started from nothing, so no chance enters; a seed only draws which labels are
seen. Test is scored once, by the caller.
"""

import warnings

import numpy as np

from jtm.evaluation.metrics import average_precision

PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Strengths of the frame probe's penalty, beside a loss averaged over frames."""

ITERATIONS = 30
"""Steps of L-BFGS for each penalty, each going on from the stronger one's end."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The window probe's C, scikit-learn's inverse penalty beside a summed loss."""


def pool(frames):
    """
    Summarise the frames of a window.

    Parameters
    ----------
    frames : numpy.ndarray
        Features ``(frames, dim)``.

    Returns
    -------
    numpy.ndarray
        Mean, then standard deviation, over frames ``(2 * dim,)``.
    """
    return np.concatenate((frames.mean(axis=0), frames.std(axis=0)))


class Scaler:
    """
    Standardise features by the mean and deviation of a sample.

    Parameters
    ----------
    sample : numpy.ndarray
        Features ``(samples, dim)``.
    """

    def __init__(self, sample):
        self.mean = sample.mean(axis=0)
        deviation = sample.std(axis=0)
        # A feature that never varies says nothing, and is left at zero.
        self.scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0.0)

    def __call__(self, features):
        """
        Standardise.

        Parameters
        ----------
        features : numpy.ndarray
            Features ``(samples, dim)``.

        Returns
        -------
        numpy.ndarray
            Same shape, float32.
        """
        return ((features - self.mean) * self.scale).astype(np.float32)


def fit_frames(train, validation):
    """
    Fit a frame probe.

    Parameters
    ----------
    train, validation : tuple of numpy.ndarray
        Features ``(frames, dim)``, and the roll ``(frames, pitches)`` in
        booleans.

    Returns
    -------
    predict : callable
        Gives logits ``(frames, pitches)`` from features ``(frames, dim)``.
    chosen : dict
        The penalty that validation chose, and the score it had there.
    """
    import torch
    from torch.nn import functional

    scale = Scaler(train[0])
    x = torch.from_numpy(scale(train[0]))
    y = torch.from_numpy(train[1]).float()
    x_validation = torch.from_numpy(scale(validation[0]))
    n_outputs = y.shape[1]
    weight = torch.zeros(n_outputs, x.shape[1], requires_grad=True)
    # From the base rates, half a count away from never and always.
    rate = (y.sum(dim=0) + 0.5) / (len(y) + 1)
    bias = rate.logit().requires_grad_()
    best, kept, chosen = -1.0, None, None
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            (weight, bias), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss(penalty=penalty, optimizer=optimizer):
            optimizer.zero_grad()
            logits = functional.linear(x, weight, bias)
            error = functional.binary_cross_entropy_with_logits(logits, y)
            size = weight.square().sum() / n_outputs
            total = error + penalty / 2 * size
            total.backward()
            return total

        optimizer.step(loss)
        with torch.no_grad():
            logits = functional.linear(x_validation, weight, bias).numpy()
        score = average_precision(validation[1], logits)
        if score < best:
            break
        best, chosen = score, {"penalty": penalty, "validation": score}
        kept = weight.detach().clone(), bias.detach().clone()

    def predict(features):
        return functional.linear(torch.from_numpy(scale(features)), *kept).numpy()

    return predict, chosen


def fit_windows(train, validation):
    """
    Fit a window probe.

    Parameters
    ----------
    train, validation : tuple of numpy.ndarray
        Pooled features ``(windows, dim)``, and the class ``(windows,)``; two
        classes or more.

    Returns
    -------
    predict : callable
        Gives classes ``(windows,)`` from pooled features ``(windows, dim)``.
    chosen : dict
        The strength that validation chose, and the score it had there.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scale = Scaler(train[0])
    x, x_validation = scale(train[0]), scale(validation[0])
    best, kept, chosen = -1.0, None, None
    for strength in STRENGTHS:
        probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
        with warnings.catch_warnings():
            # A loose fit is a candidate like any other; validation decides.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # With few labels there may be as many classes as windows.
            warnings.filterwarnings("ignore", message=".*unique classes.*")
            probe.fit(x, train[1])
        score = probe.score(x_validation, validation[1])
        if score > best:
            best, kept = score, probe
            chosen = {"C": strength, "validation": score}
    return lambda features: kept.predict(scale(features)), chosen
