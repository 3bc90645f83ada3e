"""
Heads: what is read off latents or contexts ``(..., dim)``.

Each head standardises its input, so that one learning rate suits any
representation, and gives logits. It does so by running statistics, unless it was
fitted as a probe, which fixes them to those of its training sample.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import N_PITCHES

OCTAVE = 12
"""Semitones in an octave."""

BELOW, ABOVE = OCTAVE, 3 * OCTAVE
"""Semitones below and above a pitch that decide about it: four octaves, most of
them above, where its harmonics are."""


CONSTANT = 1e-5
"""Ratio of deviation to mean up to which a channel counts as constant: rounding."""


class Standard(nn.Module):
    """
    Standardise channels, by running statistics until they are fixed.

    Each is divided by its own deviation, however small: nothing is added to it, so
    that the scale of a channel makes no difference. One that never varies says
    nothing, and is left at zero.

    Parameters
    ----------
    channels : int
        Size of the input ``(samples, channels)``.
    momentum : float
        Weight of a batch in the running statistics.
    """

    def __init__(self, channels, momentum=0.1):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("fixed", torch.tensor(False))

    def train(self, mode=True):
        """
        Follow what is given, or not; what is fixed never does.

        Parameters
        ----------
        mode : bool
            Whether to follow.

        Returns
        -------
        Standard
            This layer.
        """
        return super().train(mode and not self.fixed)

    def forward(self, x):
        """
        Standardise.

        Parameters
        ----------
        x : torch.Tensor
            Samples ``(samples, channels)``; in training they move the running
            statistics, unless these are fixed.

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        mean, variance = self.mean, self.variance
        if self.training:
            variance, mean = torch.var_mean(x, dim=0, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        constant = variance <= (CONSTANT * mean) ** 2
        # Where it is constant, 1 in place of its root keeps the gradient finite.
        scale = torch.where(constant, 1.0, variance).rsqrt()
        return (x - mean) * torch.where(constant, 0.0, scale)

    @torch.no_grad()
    def fix(self, x):
        """
        Fix the statistics to those of a sample.

        Parameters
        ----------
        x : torch.Tensor
            The sample ``(samples, channels)``.
        """
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.fixed.fill_(True)
        self.eval()


class FrameHead(nn.Module):
    """
    Read an answer off each frame, linearly or by one hidden layer.

    Parameters
    ----------
    dim : int
        Size of the frames.
    n_outputs : int
        Number of logits.
    hidden : int
        Size of the hidden layer; 0 has none.
    dropout : float
        Share of hidden activations dropped in training.
    """

    def __init__(self, dim, n_outputs, hidden=0, dropout=0.0):
        super().__init__()
        self.norm = Standard(dim)
        self.linear = nn.Linear(hidden or dim, n_outputs)
        self.hidden = None
        if hidden:
            self.hidden = nn.Sequential(
                nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout)
            )

    def standardise(self, x):
        """
        Bring frames to mean 0 and deviation 1.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        return self.norm(x)

    def fix(self, x):
        """
        Fix what is standardised by to a sample.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.
        """
        self.norm.fix(x)

    def read(self, x):
        """
        Answer from standardised frames.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            Logits ``(frames, n_outputs)``.
        """
        return self.linear(x if self.hidden is None else self.hidden(x))

    def forward(self, x):
        """
        Read.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(..., dim)``.

        Returns
        -------
        torch.Tensor
            Logits ``(..., n_outputs)``.
        """
        flat = x.reshape(-1, x.shape[-1])
        return self.read(self.standardise(flat)).unflatten(0, x.shape[:-1])


class PitchHead(nn.Module):
    """
    Read an answer for each of the 88 pitches by weights shared across pitch.

    One small classifier slides along the axis of pitch, and sees of each pitch
    the octave below and three above; only a bias is each pitch's own. What it
    learns of one pitch it knows of all, which few labels reward (compare the
    translation-invariant network of Thickstun et al. 2018, section 3).

    Parameters
    ----------
    parts : sequence of tuple of int
        Semitones from A0 up, and features of each, for each part of the input;
        a part is laid out pitch by pitch.
    n_outputs : int
        Number of logits for each pitch.
    hidden : int
        Channels of the hidden layer of each pitch; 0 has none.
    time : int
        Frames that a further hidden layer, over time, sees; odd, 0 has none.
        It needs `hidden`, and an input of ``(batch, frames, dim)``.
    dropout : float
        Share of hidden activations dropped in training.
    """

    def __init__(self, parts, n_outputs=1, hidden=0, time=0, dropout=0.0):
        super().__init__()
        self.parts = tuple(parts)
        self.n_outputs = n_outputs
        channels = sum(size for _, size in self.parts)
        self.norm = Standard(channels)
        reach = BELOW + 1 + ABOVE
        self.hidden = self.time = None
        self.dropout = nn.Dropout(dropout)
        if hidden:
            self.hidden = nn.Conv2d(channels, hidden, (reach, 1))
            self.hidden = self.hidden.to(memory_format=torch.channels_last)
            shape = hidden, n_outputs
            if time:
                self.time = nn.Conv2d(hidden, hidden, (1, time), padding=(0, time // 2))
        else:
            shape = reach, channels, n_outputs
        scale = (shape[0] * (shape[1] if len(shape) > 2 else 1)) ** -0.5
        self.weight = nn.Parameter(scale * (2 * torch.rand(shape) - 1))
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.own = nn.Parameter(torch.zeros(N_PITCHES, n_outputs))

    def standardise(self, x):
        """
        Bring frames to mean 0 and deviation 1, each channel over all pitches.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            Frames on the axis of pitch ``(frames, semitones, channels)``; a
            part that ends earlier than another is silent there.
        """
        joined = self._on_axis(x)
        return self.norm(joined.flatten(0, 1)).view_as(joined)

    def fix(self, x):
        """
        Fix what is standardised by to a sample.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.
        """
        self.norm.fix(self._on_axis(x).flatten(0, 1))

    def _on_axis(self, x):
        """Lay frames out on the axis of pitch ``(frames, semitones, channels)``."""
        longest = max(length for length, _ in self.parts)
        padded = [
            functional.pad(part, (0, 0, 0, longest - part.shape[1]))
            for part in _split(x, self.parts)
        ]
        return torch.cat(padded, dim=2)

    def read(self, x, frames=1):
        """
        Answer from standardised frames.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch * frames, semitones, channels)``.
        frames : int
            How many that follow each other belong together.

        Returns
        -------
        torch.Tensor
            Logits ``(batch * frames, n_outputs, 88)``.
        """
        if self.hidden is None:
            y = x.flatten(1) @ self._band(x.shape[1])
            y = y.unflatten(1, (N_PITCHES, self.n_outputs))
        else:
            above = max(0, N_PITCHES + ABOVE - x.shape[1])
            y = functional.pad(x, (0, 0, BELOW, above))[:, : BELOW + N_PITCHES + ABOVE]
            # Frames side by side as the width of an image: several times faster
            # than a batch of them.
            y = y.unflatten(0, (-1, frames)).permute(0, 3, 2, 1)
            y = y.contiguous(memory_format=torch.channels_last)
            y = self.dropout(functional.relu(self.hidden(y)))
            if self.time is not None:
                y = self.dropout(functional.relu(self.time(y) + y))
            y = y.permute(0, 3, 2, 1).flatten(0, 1) @ self.weight  # (.., 88, outputs)
        return (y + self.bias + self.own).transpose(1, 2)

    def _band(self, n_rows):
        """Lay the shared weights out as one matrix from all pitches to all."""
        rows, columns = (
            torch.arange(n, device=self.weight.device) for n in (n_rows, N_PITCHES)
        )
        shift = rows[:, None] - columns + BELOW
        inside = (shift >= 0) & (shift < len(self.weight))
        band = self.weight[shift.clamp(0, len(self.weight) - 1)]
        band = band * inside[..., None, None]  # (semitones, 88, channels, outputs)
        return band.transpose(1, 2).flatten(2).flatten(0, 1)

    def forward(self, x):
        """
        Read.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(..., dim)``; ``(batch, frames, dim)`` with `time`.

        Returns
        -------
        torch.Tensor
            Logits ``(..., n_outputs, 88)``, or ``(..., 88)`` where each pitch
            has but one.
        """
        frames = x.shape[-2] if self.time is not None else 1
        y = self.standardise(x.reshape(-1, x.shape[-1]))
        if self.time is None and self.hidden is not None:
            frames = len(y)
        y = self.read(y, frames).unflatten(0, x.shape[:-1])
        return y[..., 0, :] if self.n_outputs == 1 else y


class OctaveHead(FrameHead):
    """
    Read an answer that is not about pitch off frames on an axis of pitch.

    Linearly or by one hidden layer, off the mean and the greatest of the pitches
    of each octave: which of them it is that sounds makes no difference, so that
    what is learned of one is known of its neighbours.

    Parameters
    ----------
    parts : sequence of tuple of int
        Semitones from A0 up, and features of each, for each part of the input;
        a part is laid out pitch by pitch.
    n_outputs : int
        Number of logits.
    hidden : int
        Size of the hidden layer; 0 has none.
    dropout : float
        Share of hidden activations dropped in training.
    """

    def __init__(self, parts, n_outputs, hidden=0, dropout=0.0):
        dim = sum(2 * -(-length // OCTAVE) * size for length, size in parts)
        super().__init__(dim, n_outputs, hidden, dropout)
        self.parts = tuple(parts)

    def standardise(self, x):
        """
        Summarise octaves, and bring them to mean 0 and deviation 1.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            Mean and greatest of each octave's pitches ``(frames, features)``.
        """
        return super().standardise(octaves(x, self.parts))

    def fix(self, x):
        """
        Fix what is standardised by to a sample.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.
        """
        super().fix(octaves(x, self.parts))


def octaves(x, parts):
    """
    Summarise the pitches of octaves from A0 up; the last may be short.

    Parameters
    ----------
    x : torch.Tensor
        Frames ``(frames, dim)``.
    parts : sequence of tuple of int
        How they lie on the axis of pitch; see :class:`OctaveHead`.

    Returns
    -------
    torch.Tensor
        Mean and greatest of each octave ``(frames, features)``.
    """
    found = []
    for part in _split(x, parts):
        for octave in part.split(OCTAVE, dim=1):
            found += [octave.mean(1), octave.amax(1)]
    return torch.cat(found, dim=1)


def _split(x, parts):
    """Take frames ``(frames, dim)`` apart: ``(frames, semitones, features)`` each."""
    pieces = x.split([length * size for length, size in parts], dim=1)
    return [piece.unflatten(1, part) for piece, part in zip(pieces, parts, strict=True)]


class PooledHead(nn.Module):
    """
    Read an answer off a window, by mean and deviation of its frames.

    Parameters
    ----------
    head : nn.Module
        What answers, from ``(..., 2 * dim)``.
    skip : int
        Frames at the start of a window that are not pooled.
    stop : int, optional
        First frame after those that are pooled; the window's end by default.
    """

    def __init__(self, head, skip=0, stop=None):
        super().__init__()
        self.head = head
        self.skip, self.stop = skip, stop

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
        return self.head(self.summarise(x))

    def summarise(self, x):
        """
        Pool.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch, frames, dim)``.

        Returns
        -------
        torch.Tensor
            Mean and deviation ``(batch, 2 * dim)`` of the frames that count.
        """
        return pool(x[:, self.skip : self.stop])


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
    the two stacks of Onsets and Frames, Hawthorne et al. 2018). It is for
    features without an axis of pitch; :class:`PitchHead` is for those with one.

    Parameters
    ----------
    dim : int
        Size of the frames.
    n_outputs : int
        Number of logits for each pitch: sounding, then starting.
    hidden : int
        Size of the hidden layers.
    kernel : int
        Frames that the layer over time sees; odd.
    dropout : float
        Share of inputs and of hidden activations dropped in training; without
        it the head learns an hour of music by heart.
    """

    def __init__(self, dim, n_outputs=2, hidden=192, kernel=9, dropout=0.2):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = Standard(dim)
        self.frame = nn.Conv1d(dim, hidden, 1)
        self.time = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2)
        self.answers = nn.Conv1d(hidden, n_outputs * N_PITCHES, 1)

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
            Logits ``(batch, frames, n_outputs, 88)``.
        """
        y = self.norm(x.flatten(0, 1)).view_as(x)
        y = self.dropout(y.transpose(1, 2))
        y = self.dropout(functional.relu(self.frame(y)))
        y = self.dropout(functional.relu(self.time(y) + y))
        y = self.answers(y).transpose(1, 2)  # (batch, frames, n_outputs * 88)
        return y.unflatten(2, (-1, N_PITCHES))
