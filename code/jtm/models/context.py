"""
Context networks: latents z ``(batch, frames, dim)`` to contexts c, causally.

``c[:, t]`` depends only on ``z[:, :t + 1]``. All take and return a state, so that
long recordings can be processed in chunks.
"""

import contextlib

import torch
from torch import nn
from torch.nn import functional

HEADS = 8
"""Number of attention heads of a transformer."""


class _Recurrence(torch.autograd.Function):
    """
    Run the recurrence of a GRU on a CPU, forward and backward (Cho et al. 2014).

    With many small hidden states, such as one per pitch, the recurrence consists of
    hundreds of small operations, which multi-threading only slows down. So whatever
    does not depend on the previous step is computed outside the loop, and the loop
    runs in one thread.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, inputs, weight, bias, state):
        """
        Compute the hidden state of each frame ``(frames, dim, batch)``.

        `inputs` are the input's terms of reset gate, update gate and candidate state
        ``(frames, 3 * dim, batch)``; `weight` ``(3 * dim, dim)`` and `bias` ``(3 *
        dim,)`` are the hidden-to-hidden parameters; `state` is the initial hidden state
        ``(dim, batch)``.
        """
        frames, (dim, batch) = len(inputs), state.shape
        states = inputs.new_empty(frames + 1, dim, batch)
        states[0] = state
        gates = inputs.new_empty(frames, 2 * dim, batch)  # reset, update
        hidden = inputs.new_empty(frames, dim, batch)  # hidden term of the candidates
        candidates = torch.empty_like(hidden)
        weight_gates, weight_hidden = weight.split(2 * dim)
        bias_gates, bias_hidden = bias[:, None].split(2 * dim)
        steps = zip(
            states,
            states[1:],
            inputs[:, : 2 * dim] + bias_gates,
            inputs[:, 2 * dim :],
            gates,
            gates[:, :dim],
            gates[:, dim:],
            hidden,
            candidates,
            strict=False,  # one more state than frames
        )
        with _one_thread():
            for h, next_h, x_gates, x_new, gate, reset, update, h_new, new in steps:
                torch.addmm(x_gates, weight_gates, h, out=gate).sigmoid_()
                torch.addmm(bias_hidden, weight_hidden, h, out=h_new)
                torch.addcmul(x_new, reset, h_new, out=new).tanh_()
                torch.lerp(new, h, update, out=next_h)
        ctx.save_for_backward(weight, gates, hidden, candidates, states)
        return states[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        """Compute gradients with respect to the inputs from those of the states."""
        weight, gates, hidden, candidates, states = ctx.saved_tensors
        frames, dim, batch = candidates.shape
        reset, update = gates.split(dim, 1)
        # Derivatives of a state, for all frames at once, with respect to the
        # pre-activations of reset and update gate, the hidden term of the candidate
        # state, and its pre-activation; the loop turns them into gradients.
        gradients = candidates.new_empty(frames, 4, dim, batch)
        by_reset, by_update, by_hidden, by_candidate = gradients.unbind(1)
        torch.mul(1 - update, 1 - candidates.square(), out=by_candidate)
        torch.mul(states[:-1] - candidates, update * (1 - update), out=by_update)
        torch.mul(by_candidate, reset, out=by_hidden)
        torch.mul(hidden * by_hidden, 1 - reset, out=by_reset)
        flat = gradients.flatten(1, 2)  # (frames, 4 * dim, batch)
        # The candidate's input term does not depend on the previous state.
        back = torch.cat((weight, weight.new_zeros(dim, dim))).T
        by_state = torch.zeros_like(states[0])
        sequences = (gradient.contiguous(), gradients, flat, update)
        backwards = zip(*(x.unbind()[::-1] for x in sequences), strict=True)
        with _one_thread():
            for by_output, frame, flat_frame, gate in backwards:
                by_state += by_output
                frame *= by_state  # in place, so its view `flat_frame` changes too
                by_state = torch.addmm(by_state * gate, back, flat_frame)
        by_inputs = torch.cat((flat[:, : 2 * dim], flat[:, 3 * dim :]), dim=1)
        by_recurrent = flat[:, : 3 * dim]
        by_weight = torch.bmm(by_recurrent, states[:-1].transpose(1, 2)).sum(0)
        return by_inputs, by_weight, by_recurrent.sum((0, 2)), by_state


@contextlib.contextmanager
def _one_thread():
    """Limit torch to one thread within a block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class GroupedGRU(nn.GRU):
    """A one-layer, batch-first GRU for many sequences with small hidden states."""

    def forward(self, x, state=None):
        """Run the GRU, as :class:`torch.nn.GRU` does."""
        if x.device.type != "cpu":
            return super().forward(x, state)
        if state is None:
            state = x.new_zeros(1, len(x), self.hidden_size)
        # Batch last, so that each step accesses contiguous memory.
        inputs = self.weight_ih_l0 @ x.permute(1, 2, 0) + self.bias_ih_l0[:, None]
        states = _Recurrence.apply(
            inputs, self.weight_hh_l0, self.bias_hh_l0, state.squeeze(0).T
        )  # (frames, hidden_size, batch)
        return states.permute(2, 0, 1), states[-1:].transpose(1, 2)


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
        grouped = groups > 1 and mode == "GRU" and layers == 1
        cell = GroupedGRU if grouped else getattr(nn, mode)
        self.net = cell(z_dim // groups, dim // groups, layers, batch_first=True)

    def forward(self, z, state=None):
        """
        Summarise latents ``(batch, frames, z_dim)`` to ``(batch, frames, dim)``.

        Return c and a state to pass on with the frames that follow: the hidden state,
        and for an LSTM the cell state, each ``(layers, batch, dim)``. `state` is None
        at the start.
        """
        grouped = z.unflatten(2, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        if state is not None:
            state = tuple(
                x.unflatten(2, (self.groups, -1)).flatten(1, 2).contiguous()
                for x in state
            )
            state = state if len(state) > 1 else state[0]
        c, state = self.net(grouped, state)  # (batch * groups, frames, dim // groups)
        state = tuple(
            x.unflatten(1, (-1, self.groups)).flatten(2)
            for x in (state if isinstance(state, tuple) else (state,))
        )
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
        # Slopes of successive heads start a factor of two apart, from short to long
        # range.
        slope = -torch.arange(1, HEADS + 1) * 0.69 * 8 / HEADS
        self.log_slope = nn.Parameter(slope) if relative else None

    def forward(self, x):
        """Apply the layer to frames ``(batch, frames, dim)``."""
        b, t, d = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(b, t, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, frames, dim)
        dropout = self.dropout if self.training else 0.0
        bias = None
        if self.log_slope is not None:
            time = torch.arange(t, device=x.device)
            distance = time[:, None] - time  # (frames, frames), positive for the past
            bias = -distance * self.log_slope.exp()[:, None, None]
            bias = bias.masked_fill(distance < 0, -torch.inf).to(q.dtype)
        y = functional.scaled_dot_product_attention(
            q, k, v, bias, dropout, is_causal=bias is None
        )
        y = self.out(y.transpose(1, 2).reshape(b, t, d))
        x = x + functional.dropout(y, self.dropout, self.training)
        return x + self.feed(x)


def _sinusoids(frames, dim):
    """Return sines and cosines ``(frames, dim)`` of positions (Vaswani et al. 2017)."""
    rate = 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(frames)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)[:, :dim]
