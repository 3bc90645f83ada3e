"""Random music for the tests of the toy set."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import arrange
import perform
from voices import Music


def tune(seed, beats=64):
    """Return four voices in quarter notes, each a random walk in its register."""
    rng = np.random.default_rng(seed)
    voices = tuple(
        tuple(
            (float(i), 1.0, int(pitch))
            for i, pitch in enumerate(
                np.clip(middle + np.cumsum(rng.integers(-2, 3, beats)), 30, 90)
            )
        )
        for middle in (72, 65, 58, 50)
    )
    return Music(voices, 4.0, float(beats))


def performance(ensemble, seed=0):
    """Return a performance of random music by an ensemble."""
    music = tune(seed)
    rng = np.random.default_rng(seed)
    parts, _ = arrange.arrange(music, arrange.ENSEMBLES[ensemble], rng)
    return perform.perform(parts, music, 100.0, rng)
