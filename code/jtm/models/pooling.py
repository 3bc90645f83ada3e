"""Pooling of latents or contexts over time."""

import torch


def pool(x):
    """
    Pool the frames of a window.

    Parameters
    ----------
    x : torch.Tensor
        Frames ``(batch, frames, dim)``.

    Returns
    -------
    torch.Tensor
        Mean, then standard deviation, over time ``(batch, 2 * dim)``.
    """
    variance, mean = torch.var_mean(x, dim=1, correction=0)
    # The epsilon keeps the gradient of sqrt finite if all frames are equal.
    return torch.cat((mean, (variance + 1e-8).sqrt()), dim=1)
