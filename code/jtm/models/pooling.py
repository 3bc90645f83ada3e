"""Summaries of latents or contexts: over time, and over the pitches of an octave."""

import torch

OCTAVE = 12
"""Semitones in an octave."""

CONSTANT = 1e-5
"""Ratio of deviation to mean up to which a feature counts as constant: rounding."""


def octaves(x, parts):
    """
    Summarise the pitches of octaves from A0 up; the last may be short.

    Parameters
    ----------
    x : torch.Tensor
        Frames ``(frames, dim)``.
    parts : sequence of tuple of int
        Semitones from A0 up, and features of each, for each part of the frames, which
        is laid out pitch by pitch.

    Returns
    -------
    torch.Tensor
        Mean and maximum of each octave ``(frames, features)``.
    """
    found = []
    for piece, part in zip(
        x.split([length * size for length, size in parts], dim=1), parts, strict=True
    ):
        for octave in piece.unflatten(1, part).split(OCTAVE, dim=1):
            found += [octave.mean(1), octave.amax(1)]
    return torch.cat(found, dim=1)


def pool(x):
    """
    Summarise the frames of a window.

    Parameters
    ----------
    x : torch.Tensor
        Frames ``(batch, frames, dim)``.

    Returns
    -------
    torch.Tensor
        Mean, then standard deviation, over frames ``(batch, 2 * dim)``.
    """
    variance, mean = torch.var_mean(x, dim=1, correction=0)
    # The floor keeps the gradient of the root finite where frames are equal.
    return torch.cat((mean, (variance + 1e-8).sqrt()), dim=1)
