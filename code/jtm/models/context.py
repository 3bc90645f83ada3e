"""
Context networks: latents z ``(batch, frames, dim)`` to contexts c, causally.

``c[:, t]`` depends on ``z[:, :t + 1]`` alone. Recurrent networks take and give
a state, so that a long recording can be read piece by piece.
"""

import torch
from torch import nn
from torch.nn import functional


class RecurrentContext(nn.Module):
    """
    Summarise the past with a recurrent network.

    Parameters
    ----------
    z_dim, dim : int
        Sizes of z and of c.
    mode : {"GRU", "LSTM", "RNN"}
        Kind of cell.
    layers : int
        Number of layers.
    groups : int
        Equal parts of z, such as pitches, that are summarised each for itself
        by the same weights; c then has as many parts.
    """

    def __init__(self, z_dim, dim, mode="GRU", layers=1, groups=1):
        super().__init__()
        self.dim = dim
        self.groups = groups
        cell = getattr(nn, mode)
        self.net = cell(z_dim // groups, dim // groups, layers, batch_first=True)

    def forward(self, z, state=None):
        """
        Summarise.

        Parameters
        ----------
        z : torch.Tensor
            Latents ``(batch, frames, z_dim)``.
        state : tuple of torch.Tensor, optional
            The state returned for the frames just before; None at the start.

        Returns
        -------
        c : torch.Tensor
            Contexts ``(batch, frames, dim)``.
        state : tuple of torch.Tensor
            What to give with the frames that follow: the hidden state, and for
            an LSTM its cells, each ``(layers, batch, dim)``.
        """
        parts = z.unflatten(2, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        if state is not None:
            state = tuple(
                part.unflatten(2, (self.groups, -1)).flatten(1, 2).contiguous()
                for part in state
            )
            state = state if len(state) > 1 else state[0]
        c, state = self.net(parts, state)  # (batch * groups, frames, dim // groups)
        state = tuple(
            part.unflatten(1, (-1, self.groups)).flatten(2)
            for part in (state if isinstance(state, tuple) else (state,))
        )
        return c.unflatten(0, (-1, self.groups)).transpose(1, 2).flatten(2), state


class TransformerContext(nn.Module):
    """
    Summarise the past with a causal transformer.

    Pre-norm layers over PyTorch's scaled-dot-product attention. Positions are
    relative by a learned bias for each head that fades linearly with distance
    (Press et al. 2022), or absolute by sines (Vaswani et al. 2017).

    Parameters
    ----------
    z_dim, dim : int
        Sizes of z and of c; `dim` is a multiple of `heads`.
    layers, heads : int
        Numbers of layers and of attention heads.
    dropout : float
        Share of activations dropped in training.
    absolute : bool
        Absolute positions instead of relative ones.
    """

    def __init__(self, z_dim, dim, layers=1, heads=8, dropout=0.0, absolute=False):
        super().__init__()
        self.dim = dim
        self.absolute = absolute
        self.project = nn.Linear(z_dim, dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, dropout, relative=not absolute)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, z, state=None):
        """
        Summarise.

        Parameters
        ----------
        z : torch.Tensor
            Latents ``(batch, frames, z_dim)``.
        state : optional
            The state returned for the frames just before; None at the start.

        Returns
        -------
        c : torch.Tensor
            Contexts ``(batch, frames, dim)``.
        state : torch.Tensor
            All the latents so far, which later frames look back on.
        """
        before = 0 if state is None else state.shape[1]
        z = z if state is None else torch.cat((state, z), dim=1)
        c = self.project(z)
        if self.absolute:
            c = c + sinusoids(c.shape[1], self.dim).to(c)
        for block in self.blocks:
            c = block(c)
        return self.norm(c)[:, before:], z


class TransformerBlock(nn.Module):
    """
    One pre-norm layer of causal self-attention and feed-forward.

    Parameters
    ----------
    dim, heads : int
        Size of the frames and number of heads.
    dropout : float
        Share of activations dropped in training.
    relative : bool
        Bias attention by distance, at a learned rate for each head.
    """

    def __init__(self, dim, heads, dropout, relative=True):
        super().__init__()
        self.heads = heads
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
        # Heads start from near-sighted to far-sighted, one halving apart.
        self.log_slope = (
            nn.Parameter(-torch.arange(1, heads + 1) * 0.69 * 8 / heads)
            if relative
            else None
        )

    def forward(self, x):
        """
        Attend to the past and transform.

        Parameters
        ----------
        x : torch.Tensor
            Frames ``(batch, frames, dim)``.

        Returns
        -------
        torch.Tensor
            Frames of the same shape.
        """
        b, t, d = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(b, t, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, frames, dim)
        dropout = self.dropout if self.training else 0.0
        if self.log_slope is None:
            y = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, dropout_p=dropout
            )
        else:
            time = torch.arange(t, device=x.device)
            distance = time[:, None] - time  # (frames, frames), positive to the past
            bias = -distance * self.log_slope.exp()[:, None, None]
            bias = bias.masked_fill(distance < 0, -torch.inf).to(q.dtype)
            y = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=bias, dropout_p=dropout
            )
        y = self.out(y.transpose(1, 2).reshape(b, t, d))
        x = x + functional.dropout(y, self.dropout, self.training)
        return x + self.feed(x)


def sinusoids(frames, dim):
    """
    Give sine and cosine codes of absolute positions (Vaswani et al. 2017).

    Parameters
    ----------
    frames, dim : int
        Number of positions and size of each code.

    Returns
    -------
    torch.Tensor
        Codes ``(frames, dim)``.
    """
    rate = 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(frames)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)[:, :dim]
