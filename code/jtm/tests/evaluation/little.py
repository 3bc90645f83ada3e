"""A tiny labelled dataset in MusicNet's layout, for the tests."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from jtm.cpc.config import PretrainConfig
from jtm.data.clips import Clip
from jtm.data.clips import write_clips as write_table
from jtm.data.musicnet import LABEL_DTYPE, write_labels, write_metadata
from jtm.models.network import build_model
from jtm.music import audio
from jtm.training.config import NetworkConfig, make_config

SPLITS = {"train": 6, "validation": 2, "test": 2}

SMALL = {"encoder_type": "sinc", "hidden_encoder": 32, "hidden_gar": 16}
"""Settings of a small network."""


def make_network(**chosen):
    """Make an untrained network, by default small and convolutional."""
    small = {"encoder_type": "conv", "hidden_encoder": 24, "hidden_gar": 16}
    return build_model(make_config(NetworkConfig, "small", small | chosen))


def write_dataset(root, seconds=4.0, composers=("A",)):
    """Write recordings of two ensembles, dull and bright, with random notes."""
    root, rng, rows = Path(root), np.random.default_rng(0), []
    for split, n in SPLITS.items():
        folder = "test" if split == "test" else "train"
        for number in range(n):
            name = f"{split}{number}"
            bright = number % 2
            wave, labels = performance(rng, seconds, 1 + 5 * bright, (1, 41)[bright])
            audio.write(root / f"{folder}_data" / f"{name}.wav", wave, 16_000)
            write_labels(root / f"{folder}_labels" / f"{name}.csv", labels)
            row = {"id": name, "composition": name, "split": split}
            row["composer"] = composers[number // 2 % len(composers)]
            rows.append(row | {"ensemble": ("Dull", "Bright")[bright]})
    write_metadata(root / "musicnet_metadata.csv", rows)


def write_malformed_label(root, split):
    """Damage a label file in a folder of `write_dataset`; return the file's name."""
    path = next((Path(root) / f"{split}_labels").glob("*.csv"))
    path.write_text(path.read_text().replace("\n", "\nx,", 2))
    return path.name


PITCHES = {"train": (48, 60, 72), "validation": (48, 60), "test": (60, 72)}
"""Pitches of the single notes."""


def write_clips(root, pitches_of=PITCHES):
    """Write single notes of two instruments, dull and bright, of 0.5 s."""
    root, clips = Path(root), []
    time = np.arange(8_000) / 16_000
    for split, pitches in pitches_of.items():
        for pitch in pitches:
            for program, harmonics in ((1, 1), (41, 6)):
                for velocity in (40, 100):
                    name = f"{split}_{program}_{pitch}_{velocity}.wav"
                    phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time
                    tone = sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))
                    wave = np.concatenate((np.zeros(1_600), velocity / 400 * tone))
                    audio.write(root / "notes" / name, wave, 16_000)
                    clips.append(
                        Clip(
                            root / "notes" / name,
                            program,
                            pitch,
                            velocity,
                            4_410,
                            26_460,
                            split,
                            "toy.sf2",
                        )
                    )
    write_table(root, clips)


def performance(rng, seconds, harmonics, program=1):
    """Synthesise notes of a quarter of a second; return the wave and its labels."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    wave, rows = np.zeros_like(time), []
    for start in np.arange(0.0, seconds, 0.25):
        pitch = int(rng.choice((48, 55, 60, 64, 72)))
        active = (time >= start) & (time < start + 0.25)
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * (time - start)
        tone = sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))
        wave += np.where(active, 0.2 * np.exp(-3 * (time - start)) * tone, 0.0)
        edges = round(start * 44_100), round((start + 0.25) * 44_100)
        rows.append((*edges, program, pitch, 0.0, 1.0, "Quarter"))
    return wave, np.array(rows, LABEL_DTYPE)


def write_checkpoint(path, seed=0, chosen=SMALL):
    """Write a checkpoint of an untrained network."""
    config = make_config(PretrainConfig, "tiny", chosen | {"random_seed": seed})
    weights = build_model(config).state_dict()
    state = {f"model.{name}": value for name, value in weights.items()}
    torch.save({"state_dict": state, "config": asdict(config)}, path)
