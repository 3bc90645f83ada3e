"""
Heads: what is read off latents or contexts ``(batch, frames, dim)``.

Each head standardises its input by running statistics, so that one learning
rate suits any representation, and gives logits.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import N_PITCHES


class FrameHead(nn.Module):
    """
    Read one linear answer off each frame.

    Parameters
    ----------
    dim : int
        Size of the frames.
    n_outputs : int
        Number of logits.
    """

    def __init__(self, dim, n_outputs):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.linear = nn.Linear(dim, n_outputs)

    def forward(self, x):
        """
        Read.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch, frames, dim)``.

        Returns
        -------
        torch.Tensor
            Logits ``(batch, frames, n_outputs)``.
        """
        return self.linear(self.norm(x.transpose(1, 2)).transpose(1, 2))


class WindowHead(nn.Module):
    """
    Read one linear answer off a window, by mean and deviation of its frames.

    Parameters
    ----------
    dim : int
        Size of the frames.
    n_outputs : int
        Number of logits.
    """

    def __init__(self, dim, n_outputs):
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * dim, affine=False)
        self.linear = nn.Linear(2 * dim, n_outputs)

    def forward(self, x):
        """
        Read.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch, frames, dim)``.

        Returns
        -------
        torch.Tensor
            Logits ``(batch, n_outputs)``.
        """
        return self.linear(self.norm(pool(x)))


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


class TranscriptionHead(nn.Module):
    """
    Read off each frame which pitches sound and which start.

    A hidden layer for each frame, one over time, since an onset shows only
    beside what was before and comes after, and two linear answers (compare
    the two stacks of Onsets and Frames, Hawthorne et al. 2018).

    Parameters
    ----------
    dim : int
        Size of the frames.
    hidden : int
        Size of the hidden layers.
    kernel : int
        Frames that the layer over time sees; odd.
    dropout : float
        Share of inputs and of hidden activations dropped in training; without
        it the head learns an hour of music by heart.
    """

    def __init__(self, dim, hidden=192, kernel=9, dropout=0.2):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.frame = nn.Conv1d(dim, hidden, 1)
        self.time = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2)
        self.answers = nn.Conv1d(hidden, 2 * N_PITCHES, 1)

    def forward(self, x):
        """
        Read.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch, frames, dim)``.

        Returns
        -------
        torch.Tensor
            Logits ``(batch, frames, 2, 88)``: sounding, then starting.
        """
        y = self.dropout(self.norm(x.transpose(1, 2)))
        y = self.dropout(functional.relu(self.frame(y)))
        y = self.dropout(functional.relu(self.time(y) + y))
        y = self.answers(y).transpose(1, 2)  # (batch, frames, 176)
        return y.unflatten(2, (2, N_PITCHES))
