"""A network with heads: what tasks read off z and c, whatever they learn from."""

import torch

from jtm.constants import HOP, N_PITCHES
from jtm.models.encoder import HarmonicStack
from jtm.models.readers import WIDTH, FlatTrunk, Heads, PitchTrunk


class NetworkWithHeads(torch.nn.Module):
    """
    A body and heads on it.

    Parameters
    ----------
    body : nn.Module
        Gives z and c from log magnitudes; see :class:`Body`.
    heads : nn.Module
        Gives logits by task from z and c side by side.
    """

    def __init__(self, body, heads):
        super().__init__()
        self.body = body
        self.heads = heads

    @property
    def tasks(self):
        """Names of the tasks that it has heads for."""
        return tuple(self.heads.readers)

    def forward(self, inputs, edge=0):
        """
        Compute logits by task of what :meth:`Body.encode` takes.

        Logits of frames of 10 ms are ``(batch, frames, ...)``, without the `edge`
        frames on either side that are heard and left out; those of windows ``(batch,
        classes)``.
        """
        logits = self.heads(self.body(inputs))
        if edge:  # a window has one answer
            logits = {
                t: x if x.ndim < 3 else x[:, edge:-edge] for t, x in logits.items()
            }
        return logits


class Body(torch.nn.Module):
    """
    What heads read of a network: z, or z and c side by side.

    Parameters
    ----------
    model : jtm.models.network.Network
        The network.
    on_encoder : bool
        Give z alone.
    """

    def __init__(self, model, on_encoder=False):
        super().__init__()
        self.model = model
        self.on_encoder = on_encoder

    def encode(self, inputs):
        """
        Compute latents ``(batch, frames, z_dim)``.

        The inputs are waveforms ``(batch, 1, samples)``, or log magnitudes ``(batch,
        frames of 10 ms, bins)``.
        """
        encoder = self.model.encoder
        return encoder(inputs) if inputs.shape[1] == 1 else encoder.encode(inputs)

    def forward(self, inputs):
        """Compute features ``(batch, frames, dim)`` of what :meth:`encode` takes."""
        z = self.encode(inputs)
        return z if self.on_encoder else torch.cat((z, self.model.summarise(z)), dim=2)


def add_heads(model, asked, seed=0, on_encoder=False, width=WIDTH, around=False):
    """
    Put heads on a network, whatever they are to learn from.

    Parameters
    ----------
    model : jtm.models.network.Network or int
        The network; or the number of bins of hand-made features, read as they are.
    asked : dict of str to tuple
        By task, one of :data:`jtm.models.readers.READERS` and what it counts.
    seed : int
        Draws the weights of the heads.
    on_encoder : bool
        Read z alone, without c.
    width : int
        Channels of a trunk that is read off a pitch map.
    around : bool
        Let such a trunk hear :class:`jtm.models.readers.Surroundings`.

    Returns
    -------
    NetworkWithHeads
        Body and heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, int):
            heads = Heads(FlatTrunk(model), asked)
            return NetworkWithHeads(torch.nn.Identity(), heads)
        sizes = (model.z_dim,) if on_encoder else (model.z_dim, model.c_dim)
        on_axis = isinstance(model.encoder, HarmonicStack)
        on_axis &= on_encoder or getattr(model.context, "groups", 1) == N_PITCHES
        trunk = PitchTrunk(sizes, width, around) if on_axis else FlatTrunk(sum(sizes))
        heads = Heads(trunk, asked, model.encoder.hop // HOP)
        return NetworkWithHeads(Body(model, on_encoder), heads)
