"""A pretrained or untrained body with task heads on z and c."""

import torch

from jtm.constants import HOP, N_PITCHES
from jtm.models.encoder import HarmonicStack
from jtm.models.readers import WIDTH, FlatTrunk, Heads, PitchTrunk


class NetworkWithHeads(torch.nn.Module):
    """
    Combine a body with task heads.

    Parameters
    ----------
    body : nn.Module
        Maps log magnitudes or waveforms to features; see :class:`Body`.
    heads : nn.Module
        Maps features to logits by task.
    """

    def __init__(self, body, heads):
        super().__init__()
        self.body = body
        self.heads = heads

    @property
    def tasks(self):
        """Names of the tasks with a head."""
        return tuple(self.heads.readers)

    def forward(self, inputs, edge=0):
        """
        Compute logits by task; see :meth:`Body.encode` for the inputs.

        Frame-wise logits are ``(batch, frames of 10 ms, ...)``, without `edge` frames
        on each side that serve only as input; logits of windows are ``(batch,
        classes)``.
        """
        logits = self.heads(self.body(inputs))
        if edge:  # logits of windows have no frames
            logits = {
                t: x if x.ndim < 3 else x[:, edge:-edge] for t, x in logits.items()
            }
        return logits


class Body(torch.nn.Module):
    """
    Compute the features that heads take: z, or z and c concatenated.

    Parameters
    ----------
    model : jtm.models.network.Network
        The network.
    on_encoder : bool
        Whether to return z alone.
    """

    def __init__(self, model, on_encoder=False):
        super().__init__()
        self.model = model
        self.on_encoder = on_encoder

    def encode(self, inputs):
        """
        Compute latents ``(batch, frames, z_dim)``.

        Inputs are waveforms ``(batch, 1, samples)``, or log magnitudes ``(batch, frames
        of 10 ms, bins)``.
        """
        encoder = self.model.encoder
        return encoder(inputs) if inputs.shape[1] == 1 else encoder.encode(inputs)

    def forward(self, inputs):
        """Compute features ``(batch, frames, dim)`` of the inputs of :meth:`encode`."""
        z = self.encode(inputs)
        return z if self.on_encoder else torch.cat((z, self.model.summarise(z)), dim=2)


def add_heads(model, tasks, seed=0, on_encoder=False, width=WIDTH, around=False):
    """
    Add untrained task heads to a network.

    Parameters
    ----------
    model : jtm.models.network.Network or int
        The network; or the number of bins of hand-crafted features, which the heads
        take as they are.
    tasks : dict of str to tuple
        Key in :data:`jtm.models.readers.READERS` and number of classes, by task.
    seed : int
        Random seed of the heads' initial weights.
    on_encoder : bool
        Whether the heads take z alone.
    width : int
        Number of channels of a :class:`jtm.models.readers.PitchTrunk`.
    around : bool
        Whether such a trunk has a :class:`jtm.models.readers.Surroundings` block.

    Returns
    -------
    NetworkWithHeads
        Body and heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, int):
            heads = Heads(FlatTrunk(model), tasks)
            return NetworkWithHeads(torch.nn.Identity(), heads)
        sizes = (model.z_dim,) if on_encoder else (model.z_dim, model.c_dim)
        on_axis = isinstance(model.encoder, HarmonicStack)
        on_axis &= on_encoder or getattr(model.context, "groups", 1) == N_PITCHES
        trunk = PitchTrunk(sizes, width, around) if on_axis else FlatTrunk(sum(sizes))
        heads = Heads(trunk, tasks, model.encoder.hop // HOP)
        return NetworkWithHeads(Body(model, on_encoder), heads)
