"""
The HEAR interface to the network: HEAR's evaluation kit can run on ``jtm.hear``.

HEAR, the Holistic Evaluation of Audio Representations (Turian et al. 2022), requires a
module with ``load_model``, ``get_timestamp_embeddings`` and ``get_scene_embeddings``.
Timestamp embeddings are the contexts c, which are wide because they have features for
each of 88 pitches; scene embeddings are their mean and standard deviation over time.
Sounds are embedded one at a time, so results do not depend on the batch.
"""

import numpy as np
import torch
from torch import nn

from jtm import embedding
from jtm.constants import SAMPLE_RATE
from jtm.files import InputError
from jtm.models.pooling import pool
from jtm.training.processes import best_device


class HearModel(nn.Module):
    """
    Embed sounds through HEAR's interface.

    Parameters
    ----------
    network : Network
        The pretrained network.

    Attributes
    ----------
    sample_rate : int
        Sample rate of the audio in Hz.
    timestamp_embedding_size, scene_embedding_size : int
        Embedding dimensions.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.sample_rate = SAMPLE_RATE
        self.timestamp_embedding_size = network.c_dim
        self.scene_embedding_size = 2 * network.c_dim

    def forward(self, audio):
        """
        Compute timestamp embeddings of mono sounds ``(n_sounds, n_samples)`` at 16 kHz.

        Yield a tensor ``(n_timestamps, timestamp_embedding_size)`` per sound, float32,
        on the device of `audio`; raise InputError if `audio` is not a batch of floats.
        """
        if not isinstance(audio, torch.Tensor):
            kind = type(audio).__name__
            raise InputError(f"{kind}; expected a tensor (n_sounds, n_samples)")
        if not (audio.ndim == 2 and audio.numel() and audio.is_floating_point()):
            raise InputError(
                f"audio of {audio.dtype} and shape {tuple(audio.shape)}; expected "
                "floats within [-1, 1] as (n_sounds, n_samples)"
            )
        n_samples, hop = audio.shape[1], self.network.encoder.hop
        n_timestamps, lead = _grid(n_samples, hop)
        padded = np.zeros(max(lead + n_samples, n_timestamps * hop), np.float32)
        for sound in audio.detach().cpu().float().numpy():
            padded[lead : lead + n_samples] = sound
            c, _ = embedding.embed(padded, SAMPLE_RATE, self.network)
            yield torch.from_numpy(c).to(audio.device)


def _grid(n_samples, hop):
    """
    Return the number of timestamps of a sound, and the samples of silence before it.

    Timestamps are the frame centres that lie before the end. A sound of half a frame
    or less would have none, so it is padded to the middle of one frame.
    """
    half = hop // 2
    if n_samples <= half:
        return 1, half - n_samples // 2
    return (n_samples - half - 1) // hop + 1, 0


def load_model(model_file_path=""):
    """
    Load a pretrained network.

    Parameters
    ----------
    model_file_path : str
        Path to a network as in :func:`jtm.load_model`; the shipped weights by default.

    Returns
    -------
    HearModel
        The network, in evaluation mode, on a GPU if available.
    """
    network = embedding.load_model(model_file_path or None)
    return HearModel(network).to(best_device()).eval()


def get_timestamp_embeddings(audio, model):
    """
    Compute an embedding of each frame of each sound.

    Parameters
    ----------
    audio : torch.Tensor
        Mono sounds ``(n_sounds, n_samples)`` at 16 kHz, within [-1, 1].
    model : HearModel
        Model from :func:`load_model`.

    Returns
    -------
    embeddings : torch.Tensor
        Embeddings ``(n_sounds, n_timestamps, timestamp_embedding_size)``,
        float32, on the device of `audio`.
    timestamps : torch.Tensor
        Time of the centre of each frame in milliseconds ``(n_sounds, n_timestamps)``,
        float32; the last is within one frame of the end.
    """
    embeddings = torch.stack(list(model(audio)))
    hop = model.network.encoder.hop
    n_timestamps, lead = _grid(audio.shape[1], hop)
    centres = (hop * (np.arange(n_timestamps) + 0.5) - lead) / SAMPLE_RATE
    timestamps = torch.from_numpy(1000 * centres).float().to(audio.device)
    return embeddings, timestamps.repeat(len(audio), 1)


def get_scene_embeddings(audio, model):
    """
    Compute one embedding of each sound.

    Parameters
    ----------
    audio : torch.Tensor
        Mono sounds ``(n_sounds, n_samples)`` at 16 kHz, within [-1, 1].
    model : HearModel
        Model from :func:`load_model`.

    Returns
    -------
    torch.Tensor
        Means, then standard deviations, over time ``(n_sounds,
        scene_embedding_size)``, float32, on the device of `audio`.
    """
    return torch.cat([pool(c[None]) for c in model(audio)])
