"""Settings of the study, and the runs that it compares."""

from typing import ClassVar, Literal

from pydantic import Field

from jtm.training.config import RunConfig, settings

POOL = 4
"""Frames of 10 ms that are averaged, so that an audio tower hears one every 40 ms."""

FRAMES = 50
"""Averaged frames in a window: 2 s."""

DIM = 32
"""Size of the embeddings in training, and of the published towers (Dorfer et al.)."""

REFIT_DIM = 64
"""Size of ours once the last layers are learned again in closed form."""

CHANNELS = 16
"""Channels of pitch maps, where they are not those of a pretrained encoder."""

MARGIN = 0.7
"""Margin of the ranking loss (Dorfer et al. 2018)."""

TEMPERATURE = 0.07
"""Softmax temperature of InfoNCE at the start."""

JITTER = 0.12
"""Share of a passage by which either of its ends is moved in training, at most."""

SHIFT = 3
"""Semitones by which sound and score are transposed alike in training, at most."""

BATCHES = 40
"""Batches in an epoch."""

PER_WORK = 4
"""Windows of one work in a batch, which are hard negatives of each other."""

CANDIDATES = 2000
"""Candidates among which a passage is looked for."""


@settings
class RetrievalConfig(RunConfig):
    """Settings of training two towers."""

    presets: ClassVar[dict] = {}
    idle: ClassVar[tuple] = ("max_chunks_in_mem", "chunk_size")

    towers: Literal["pitchmap", "published"] = Field(
        "pitchmap",
        description="audio and score towers: pitch maps with weights shared across "
        "pitch, or the convolutions of Dorfer et al. (2018) with a CCA layer",
    )
    objective: Literal["infonce", "ranking"] = Field(
        "infonce", description="symmetric InfoNCE, or the pairwise ranking loss"
    )
    channels: int = Field(
        CHANNELS, ge=1, description="channels of the encoder, where none is loaded"
    )
    frozen: bool = Field(
        False, description="leave the encoder of the audio tower as it is loaded"
    )
    n_works: int = Field(
        0, ge=0, description="number of training works with aligned pairs; 0 for all"
    )
    n_epoch: int = Field(2, ge=1, description="number of epochs, of 40 batches")
    batch_size: int = Field(64, ge=4, description="batch size, in pairs")
    learning_rate: float = Field(2e-3, ge=0, le=1, description="learning rate of AdamW")


MAIN = "pitchmap"
"""The run whose towers come with the package."""

RUNS = {
    MAIN: {},
    "published": {"towers": "published", "objective": "ranking"},
    "published-infonce": {"towers": "published"},
    "cpc-finetuned": {"start": "cpc"},
    "scratch": {"channels": 32},
    "cpc-frozen": {"start": "cpc", "frozen": True},
    "untrained-frozen": {"channels": 32, "frozen": True},
} | {
    f"{name}-{works}": {**how, "n_works": works}
    for works in (5, 20, 80)
    for name, how in (
        ("cpc-finetuned", {"start": "cpc"}),
        ("scratch", {"channels": 32}),
    )
}
"""
What is trained, by name: what differs from the defaults of
:class:`RetrievalConfig`; ``start`` says whether the encoder comes from pretraining.
"""
