"""Embed audio with the network shipped with the package."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

import numpy as np

import jtm

# %% A tone of one second at any sample rate; a path to an audio file works too.
time = np.arange(44_100) / 44_100
tone = 0.3 * np.sin(2 * np.pi * 440 * time)
embedding, times = jtm.embed(tone, sample_rate=44_100)
print(f"{embedding.shape[0]} frames of {embedding.shape[1]} dimensions")
print(f"centred from {times[0]:.3f} s to {times[-1]:.3f} s")

# %% The network is an nn.Module, ready for fine-tuning or inspection.
model = jtm.load_model()
print(model)

# %% Latents of two tones a fifth apart differ more than those of a tone at two levels.
softer, _ = jtm.embed(0.1 * tone, sample_rate=44_100, layer="z")
fifth, _ = jtm.embed(
    0.3 * np.sin(2 * np.pi * 660 * time), sample_rate=44_100, layer="z"
)
reference, _ = jtm.embed(tone, sample_rate=44_100, layer="z")
middle = len(reference) // 2  # half a second in, where the tone is steady
for name, other in (("softer", softer), ("a fifth higher", fifth)):
    difference = np.linalg.norm(reference[middle] - other[middle])
    distance = difference / np.linalg.norm(reference[middle])
    print(f"distance to the tone {name}: {distance:.2f}")
