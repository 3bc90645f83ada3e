"""The network: waveform to latents z and contexts c."""

import importlib
import inspect

from torch import nn

from jtm.constants import N_PITCHES
from jtm.models import ENCODERS
from jtm.models.context import RecurrentContext, TransformerContext
from jtm.models.encoder import HarmonicStack
from jtm.models.pitchmap import PitchMapContext


class Network(nn.Module):
    """
    Encode a waveform and summarise its past (van den Oord et al. 2018).

    Parameters
    ----------
    encoder : nn.Module
        Gives z from a waveform and has ``dim`` and ``hop``.
    context : nn.Module
        Gives c and a state from z and has ``dim``.
    reverse : bool
        Read time backwards, so that c summarises the future.
    """

    def __init__(self, encoder, context, reverse=False):
        super().__init__()
        self.encoder = encoder
        self.context = context
        self.reverse = reverse

    @property
    def z_dim(self):
        """Size of the latents."""
        return self.encoder.dim

    @property
    def c_dim(self):
        """Size of the contexts."""
        return self.context.dim

    def forward(self, wave):
        """
        Encode a waveform ``(batch, 1, samples)`` at 16 kHz, within [-1, 1].

        Latents z are ``(batch, frames, z_dim)``, contexts c ``(batch, frames, c_dim)``;
        ``c[:, t]`` depends on no later z, or in reverse on no earlier one.
        """
        z = self.encoder(wave)
        return z, self.summarise(z)

    def summarise(self, z):
        """Summarise latents ``(batch, frames, z_dim)``, in reverse from the last."""
        if self.reverse:
            return self.context(z.flip(1))[0].flip(1)
        return self.context(z)[0]


def make_network(
    encoder="harmonic",
    hidden_encoder=8,
    norm="channelNorm",
    quadrature=True,
    kernel=2048,
    spacing="semitone",
    learned=False,
    context="GRU",
    hidden_context=16,
    layers=1,
    dropout=0.0,
    absolute=False,
    reverse=False,
    pitchwise=True,
):
    """
    Make a network from plain settings.

    Parameters
    ----------
    encoder : str
        Kind of encoder, one of :data:`jtm.models.ENCODERS`.
    hidden_encoder : int
        Channels of z; for encoders with a pitch axis, channels for each pitch.
    norm : str
        One of :data:`jtm.models.encoder.NORMS`.
    quadrature, kernel, spacing, learned : bool, int, str, bool
        As for the encoder; those that it does not know are left out.
    context : {"GRU", "LSTM", "RNN", "transformer", "conv"}
        Kind of context network; dilated convolutions need an axis of pitch.
    hidden_context : int
        Size of c, or of each pitch's part of it.
    layers : int
        Layers of the context network.
    dropout : float
        Share of activations dropped in a transformer.
    absolute : bool
        Absolute positions in a transformer, instead of relative ones.
    reverse : bool
        Read time backwards.
    pitchwise : bool
        With a recurrent context: summarise each of the 88 pitches of an encoder
        with a pitch axis for itself, with weights shared across pitch.

    Returns
    -------
    Network
        The network, freshly initialised from torch's global seed.
    """
    module, name = ENCODERS[encoder].where.split(".")
    kind = getattr(importlib.import_module(f"jtm.models.{module}"), name)
    settings = {"quadrature": quadrature, "kernel": kernel}
    settings |= {"spacing": spacing, "learned": learned}
    known = inspect.signature(kind).parameters
    taken = {key: value for key, value in settings.items() if key in known}
    net = kind(hidden_encoder, norm, **taken)
    if context == "conv":
        summary = PitchMapContext(net.dim, hidden_context)
    elif context == "transformer":
        summary = TransformerContext(
            net.dim, hidden_context, layers, dropout=dropout, absolute=absolute
        )
    else:
        on_axis = isinstance(net, HarmonicStack)
        groups = N_PITCHES if pitchwise and on_axis else 1
        summary = RecurrentContext(
            net.dim, groups * hidden_context, context, layers, groups
        )
    return Network(net, summary, reverse)
