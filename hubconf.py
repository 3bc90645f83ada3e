"""What ``torch.hub.load(REPOSITORY, "jtm")`` reads: the pretrained network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))

dependencies = "av numpy pydantic safetensors soundfile soxr torch tqdm".split()


def jtm(path=None):
    """
    Return a pretrained network.

    Parameters
    ----------
    path : str, optional
        A file as in :func:`jtm.load_model`; by default the weights that come with
        the repository.

    Returns
    -------
    torch.nn.Module
        The network: latents z and contexts c ``(batch, frames, dim)`` from
        waveforms ``(batch, 1, samples)`` at 16 kHz.
    """
    from jtm import load_model

    return load_model(path)
