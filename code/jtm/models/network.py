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
    Join an encoder and a context network (van den Oord et al. 2018).

    Parameters
    ----------
    encoder : nn.Module
        Maps a waveform to z; has attributes ``dim`` and ``hop``.
    context : nn.Module
        Maps z to c and a hidden state; has an attribute ``dim``.
    reverse : bool
        Whether the context network runs back in time: c then summarises the future.
    """

    def __init__(self, encoder, context, reverse=False):
        super().__init__()
        self.encoder = encoder
        self.context = context
        self.reverse = reverse
        self.z_dim, self.c_dim = encoder.dim, context.dim

    def forward(self, wave):
        """
        Encode a waveform ``(batch, 1, samples)`` at 16 kHz, within [-1, 1].

        Return latents z ``(batch, frames, z_dim)`` and contexts c ``(batch, frames,
        c_dim)``; ``c[:, t]`` depends on no later z, or no earlier one if `reverse`.
        Raise ValueError if the waveform is not of this shape, such as stereo.
        """
        if wave.ndim != 3 or wave.shape[1] != 1:
            shape = tuple(wave.shape)
            raise ValueError(f"waveform of shape {shape}; expected (batch, 1, samples)")
        z = self.encoder(wave)
        return z, self.summarise(z)

    def summarise(self, z):
        """Compute contexts from latents ``(batch, frames, z_dim)``."""
        if self.reverse:
            return self.context(z.flip(1))[0].flip(1)
        return self.context(z)[0]


def build_model(config):
    """
    Build an untrained network.

    Parameters
    ----------
    config : jtm.training.config.NetworkConfig
        Settings; ``random_seed`` seeds the initial weights.

    Returns
    -------
    Network
        The network.
    """
    module, name = ENCODERS[config.encoder_type].path.split(".")
    encoder_class = getattr(importlib.import_module(f"jtm.models.{module}"), name)
    options = {}  # arguments that only this encoder takes
    if config.encoder_type == "sinc":
        options = {"kernel": config.sinc_kernel, "spacing": config.sinc_spacing}
        options["quadrature"] = config.sinc_mode == "quadrature"
    elif config.encoder_type == "pitchmap":
        options["learned"] = config.use_sinc_net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed)
        encoder = encoder_class(config.hidden_encoder, config.norm_mode, **options)
        dim, layers = config.hidden_gar, config.layers_gar
        if config.ar_mode == "conv":
            context = PitchMapContext(encoder.dim, dim)
        elif config.ar_mode == "transformer":
            options = layers, config.dropout, config.abspos
            context = TransformerContext(encoder.dim, dim, *options)
        else:
            pitchwise = config.gar_mode == "pitchwise"
            pitchwise &= isinstance(encoder, HarmonicStack)
            groups = N_PITCHES if pitchwise else 1
            sizes = encoder.dim, groups * dim
            context = RecurrentContext(*sizes, config.ar_mode, layers, groups)
    return Network(encoder, context, config.cpc_mode == "reverse")
