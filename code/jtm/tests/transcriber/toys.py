"""Tiny transcribers with random weights and hand-crafted logits, for the tests."""

import numpy as np
import torch

from jtm.constants import INSTRUMENTS
from jtm.models.heads import add_heads
from jtm.models.network import build_model
from jtm.training.config import NetworkConfig, make_config
from jtm.transcriber import model

BOTH = ("transcription", "who_plays_what")


def tiny(tasks=BOTH, on_encoder=False, around=False, **chosen):
    """Return a network with heads of random weights, and its settings."""
    config = make_config(NetworkConfig, "tiny", chosen)
    heads = {task: model.HEADS[task] for task in tasks}
    network = add_heads(build_model(config), heads, 0, on_encoder, around=around)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in network.heads.readers.parameters():
            weights += 0.5 * torch.randn_like(weights)
        if around:
            network.heads.trunk.around.tell.weight += 0.5
    return network.eval(), config


def write_tiny(path, **chosen):
    """Write a transcriber that detects notes in any audio."""
    network, config = tiny(**chosen)
    model.save(path, network, config, {"frame": 0.02, "onset": 0.02})
    return path


def blocks(notes, n_frames, size, programs=()):
    """Yield logits and power for notes ``(first, last, pitch)`` in blocks of a size."""
    logits = np.full((n_frames, 2, 88), -5.0, np.float32)
    parts = np.full((n_frames, len(INSTRUMENTS), 88), -5.0, np.float32)
    power = np.zeros((n_frames, 88), np.float32)
    columns = {program: i for i, program in enumerate(INSTRUMENTS)}
    for number, (first, last, pitch) in enumerate(notes):
        logits[first:last, 0, pitch - 21] = 5.0
        logits[first, 1, pitch - 21] = 5.0
        power[first + 2 : last, pitch - 21] = 1.0 + number
        if programs:
            parts[first:last, columns[programs[number]], pitch - 21] = 5.0
    outputs = {"notes": logits, "parts": parts, "power": power}
    for first in range(0, n_frames, size):
        yield {name: x[first : first + size] for name, x in outputs.items()}
