"""
Context networks: latents z ``(batch, frames, dim)`` to contexts c, causally.

``c[:, t]`` depends only on ``z[:, :t + 1]``. All take and return a state, so that
long recordings can be processed in chunks.
"""

import torch
from torch import nn
from torch.nn import functional

HEADS = 8  # attention heads of a transformer
QUERIES = 1024  # frames that attend at a time, which bounds the memory of their bias


class RecurrentContext(nn.Module):
    """
    Summarise the past with a recurrent network.

    Parameters
    ----------
    z_dim, dim : int
        Dimensions of z and of c.
    mode : {"GRU", "LSTM", "RNN"}
        Type of recurrent network.
    layers : int
        Number of layers.
    groups : int
        Number of equal groups of features in z, such as pitches, that are summarised
        separately with shared weights; c has as many groups.
    """

    def __init__(self, z_dim, dim, mode="GRU", layers=1, groups=1):
        super().__init__()
        self.dim = dim
        self.groups = groups
        sizes = z_dim // groups, dim // groups
        self.net = getattr(nn, mode)(*sizes, layers, batch_first=True)

    def forward(self, z, state=None):
        """
        Summarise latents ``(batch, frames, z_dim)`` to ``(batch, frames, dim)``.

        Return c and a state to pass on with the frames that follow: the hidden state,
        and for an LSTM the cell state, each ``(layers, batch, dim)``. `state` is None
        at the start.
        """
        grouped = z.unflatten(2, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        if state is not None:
            parts = (x.unflatten(2, (self.groups, -1)).flatten(1, 2) for x in state)
            state = tuple(x.contiguous() for x in parts)
            state = state if len(state) > 1 else state[0]
        c, state = self.net(grouped, state)  # (batch * groups, frames, dim // groups)
        parts = state if isinstance(state, tuple) else (state,)
        state = tuple(x.unflatten(1, (-1, self.groups)).flatten(2) for x in parts)
        return c.unflatten(0, (-1, self.groups)).transpose(1, 2).flatten(2), state


class TransformerContext(nn.Module):
    """
    Summarise the past with a causal transformer.

    Pre-norm layers with PyTorch's scaled-dot-product attention. Positions are
    relative, by a bias that decreases linearly with distance at a learned slope per
    head (Press et al. 2022), or absolute, by sinusoids (Vaswani et al. 2017).

    Parameters
    ----------
    z_dim, dim : int
        Dimensions of z and of c; `dim` is a multiple of :data:`HEADS`.
    layers : int
        Number of layers.
    dropout : float
        Dropout probability.
    absolute : bool
        Whether positions are absolute instead of relative.
    """

    def __init__(self, z_dim, dim, layers=1, dropout=0.0, absolute=False):
        super().__init__()
        self.dim = dim
        self.absolute = absolute
        self.project = nn.Linear(z_dim, dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, dropout, relative=not absolute) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, z, state=None):
        """
        Summarise latents ``(batch, frames, z_dim)`` to ``(batch, frames, dim)``.

        Return c and a state to pass on with the frames that follow: all latents so far,
        to which they attend. `state` is None at the start.
        """
        before = 0 if state is None else state.shape[1]
        z = z if state is None else torch.cat((state, z), dim=1)
        c = self.project(z)
        if self.absolute:
            c = c + _sinusoids(c.shape[1], self.dim).to(c)
        for block in self.blocks:
            c = block(c)
        return self.norm(c)[:, before:], z


class TransformerBlock(nn.Module):
    """
    Apply a pre-norm layer of causal self-attention and feed-forward network.

    Parameters
    ----------
    dim : int
        Dimension of the frames.
    dropout : float
        Dropout probability.
    relative : bool
        Whether to bias attention by distance, with a learned slope per head.
    """

    def __init__(self, dim, dropout, relative=True):
        super().__init__()
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dim, dim),
            nn.Dropout(dropout),
        )
        # Slopes of successive heads start a factor of two apart: short to long range.
        slope = -torch.arange(1, HEADS + 1) * 0.69 * 8 / HEADS
        self.log_slope = nn.Parameter(slope) if relative else None

    def forward(self, x):
        """Apply the layer to frames ``(batch, frames, dim)``."""
        b, t, d = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(b, t, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, frames, dim)
        dropout = self.dropout if self.training else 0.0
        attend = functional.scaled_dot_product_attention
        if self.log_slope is None:
            y = attend(q, k, v, None, dropout, is_causal=True)
        else:
            parts = []
            for first in range(0, t, QUERIES):
                last = min(first + QUERIES, t)
                bias = self._bias(first, last).to(q.dtype)
                queries = q[:, :, first:last]
                parts.append(
                    attend(queries, k[:, :, :last], v[:, :, :last], bias, dropout)
                )
            y = torch.cat(parts, 2)
        y = self.out(y.transpose(1, 2).reshape(b, t, d))
        x = x + functional.dropout(y, self.dropout, self.training)
        return x + self.feed(x)

    def _bias(self, first, last):
        """Compute the bias ``(heads, last - first, last)`` of frames by distance."""
        time = torch.arange(last, device=self.log_slope.device)
        distance = time[first:, None] - time  # positive for the past
        bias = -distance * self.log_slope.exp()[:, None, None]
        return bias.masked_fill(distance < 0, -torch.inf)


def _sinusoids(frames, dim):
    """Return sines and cosines ``(frames, dim)`` of positions (Vaswani et al. 2017)."""
    rate = 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(frames)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)[:, :dim]
