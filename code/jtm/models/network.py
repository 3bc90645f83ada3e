"""The network: waveform to latents z and contexts c."""

import importlib

import torch
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


def build_model(config):
    """
    Make the network of a run, untrained.

    Parameters
    ----------
    config : jtm.training.config.NetworkConfig
        The settings; ``random_seed`` draws the weights.

    Returns
    -------
    Network
        The network.
    """
    module, name = ENCODERS[config.encoder_type].where.split(".")
    kind = getattr(importlib.import_module(f"jtm.models.{module}"), name)
    more = {}  # settings of this encoder alone
    if config.encoder_type == "sinc":
        more = {"kernel": config.sinc_kernel, "spacing": config.sinc_spacing}
        more["quadrature"] = config.sinc_mode == "quadrature"
    elif config.encoder_type == "pitchmap":
        more["learned"] = config.use_sinc_net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed)
        encoder = kind(config.hidden_encoder, config.norm_mode, **more)
        context = _make_context(config, encoder)
    return Network(encoder, context, config.cpc_mode == "reverse")


def _make_context(config, encoder):
    """Make the context network that goes with an encoder."""
    dim, layers = config.hidden_gar, config.layers_gar
    if config.ar_mode == "conv":
        return PitchMapContext(encoder.dim, dim)
    if config.ar_mode == "transformer":
        return TransformerContext(
            encoder.dim, dim, layers, config.dropout, config.abspos
        )
    pitchwise = config.gar_mode == "pitchwise" and isinstance(encoder, HarmonicStack)
    groups = N_PITCHES if pitchwise else 1
    return RecurrentContext(encoder.dim, groups * dim, config.ar_mode, layers, groups)
