"""
Heads of probes: what reads answers off latents or contexts ``(frames, dim)``.

Each standardises its input by the sample that it is fitted to, so that one learning
rate and one penalty suit any representation, and returns logits. All have the same
interface: :meth:`~FrameHead.fix`, :meth:`~FrameHead.standardise` and
:meth:`~FrameHead.read`; what is penalised is in ``weights``, the rest in ``biases``.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import N_PITCHES

OCTAVE = 12
"""Semitones in an octave."""

BELOW, ABOVE = OCTAVE, 3 * OCTAVE
"""Semitones below and above a pitch that decide about it: four octaves, three of
them above, where its harmonics are."""

CONSTANT = 1e-5
"""Ratio of deviation to mean up to which a channel counts as constant: rounding."""


class FrameHead(nn.Module):
    """
    Frame-wise linear or MLP classifier.

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

    shared = False
    """Whether weights are shared across pitch."""

    def __init__(self, dim, n_outputs, hidden=0, dropout=0.0):
        super().__init__()
        self._make_scale(dim)
        self.linear = nn.Linear(hidden or dim, n_outputs)
        self.weights, self.biases = [self.linear.weight], [self.linear.bias]
        self.hidden = None
        if hidden:
            self.hidden = nn.Sequential(
                nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout)
            )

    def _make_scale(self, channels):
        """Make the statistics that channels are standardised by."""
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def _lay_out(self, x):
        """Lay frames out with their channels last."""
        return x

    @torch.no_grad()
    def fix(self, x):
        """
        Fix what is standardised by to a sample.

        Each channel is divided by its own deviation, however small: nothing is added
        to it, so that the scale of a channel makes no difference. One that never
        varies says nothing, and is left at zero.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.
        """
        x = self._lay_out(x).flatten(0, -2)
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        constant = variance <= (CONSTANT * mean) ** 2
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, 0.0, variance.rsqrt()))

    def standardise(self, x):
        """
        Bring channels to mean 0 and deviation 1.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            What :meth:`read` takes: ``(frames, dim)``; of a :class:`PitchHead`
            ``(frames, semitones, channels)``, of an :class:`OctaveHead` the
            features of octaves.
        """
        return (self._lay_out(x) - self.mean) * self.scale

    def read(self, x):
        """
        Answer from standardised frames.

        Parameters
        ----------
        x : torch.Tensor
            From :meth:`standardise`.

        Returns
        -------
        torch.Tensor
            Logits ``(frames, n_outputs)``; of a :class:`PitchHead` ``(frames,
            n_outputs, 88)``.
        """
        return self.linear(x if self.hidden is None else self.hidden(x))

    def forward(self, x):
        """
        Standardise, and answer.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, dim)``.

        Returns
        -------
        torch.Tensor
            Logits, as :meth:`read` returns them.
        """
        return self.read(self.standardise(x))


class PitchHead(FrameHead):
    """
    Classifier of each of the 88 pitches with weights shared across pitch.

    One small classifier slides along the axis of pitch, and sees of each pitch
    the octave below and three above; only a bias is each pitch's own. What it
    learns of one pitch it knows of all, which few labels reward (compare the
    translation-invariant network of Thickstun et al. 2018, section 3).

    Parameters
    ----------
    parts : sequence of tuple of int
        Semitones from A0 up, and features of each, for each part of the input;
        a part is laid out pitch by pitch, and one that ends earlier than another
        is silent there.
    n_outputs : int
        Number of logits for each pitch.
    hidden : int
        Channels of the hidden layer of each pitch; 0 has none.
    dropout : float
        Share of hidden activations dropped in training.
    """

    shared = True

    def __init__(self, parts, n_outputs=1, hidden=0, dropout=0.0):
        nn.Module.__init__(self)
        self.parts = tuple(parts)
        self.n_outputs = n_outputs
        channels = sum(size for _, size in self.parts)
        self._make_scale(channels)
        reach = BELOW + 1 + ABOVE
        self.hidden = None
        if hidden:
            self.hidden = nn.Conv2d(channels, hidden, (reach, 1))
            self.hidden = self.hidden.to(memory_format=torch.channels_last)
            self.dropout = nn.Dropout(dropout)
        shape = (hidden, n_outputs) if hidden else (reach, channels, n_outputs)
        n_inputs = hidden or reach * channels
        self.weight = nn.Parameter((2 * torch.rand(shape) - 1) * n_inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.own = nn.Parameter(torch.zeros(N_PITCHES, n_outputs))
        self.weights, self.biases = [self.weight, self.own], [self.bias]

    def _lay_out(self, x):
        """Lay frames out on the axis of pitch ``(frames, semitones, channels)``."""
        longest = max(length for length, _ in self.parts)
        padded = [
            functional.pad(part, (0, 0, 0, longest - part.shape[1]))
            for part in _split(x, self.parts)
        ]
        return torch.cat(padded, dim=2)

    def read(self, x):
        """
        Answer from standardised frames; see :meth:`FrameHead.read`.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(frames, semitones, channels)``.

        Returns
        -------
        torch.Tensor
            Logits ``(frames, n_outputs, 88)``.
        """
        if self.hidden is None:
            y = x.flatten(1) @ self._band(x.shape[1])
            y = y.unflatten(1, (N_PITCHES, self.n_outputs))
        else:
            above = max(0, N_PITCHES + ABOVE - x.shape[1])
            y = functional.pad(x, (0, 0, BELOW, above))[:, : BELOW + N_PITCHES + ABOVE]
            # Frames side by side as the width of one image: several times faster
            # than a batch of them.
            y = y.permute(2, 1, 0)[None].contiguous(memory_format=torch.channels_last)
            y = self.dropout(functional.relu(self.hidden(y)))
            y = y[0].permute(2, 1, 0) @ self.weight  # (frames, 88, n_outputs)
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


class OctaveHead(FrameHead):
    """
    Classifier of what is no pitch, from frames on an axis of pitch.

    It is linear or has one hidden layer, and sees the mean and the maximum of the
    pitches of each octave: which of them it is that sounds makes no difference, so
    that what is learned of one is known of its neighbours.

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

    def _lay_out(self, x):
        """Summarise octaves."""
        return octaves(x, self.parts)


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
        Mean and maximum of each octave ``(frames, features)``.
    """
    found = []
    for part in _split(x, parts):
        for octave in part.split(OCTAVE, dim=1):
            found += [octave.mean(1), octave.amax(1)]
    return torch.cat(found, dim=1)


def _split(x, parts):
    """Split frames ``(frames, dim)`` into ``(frames, semitones, features)`` each."""
    pieces = x.split([length * size for length, size in parts], dim=1)
    return [piece.unflatten(1, part) for piece, part in zip(pieces, parts, strict=True)]


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
