"""Settings of the study, and the runs that it compares."""

from typing import Literal

from pydantic import Field

from jtm.training.config import RunConfig, settings

# A window of sound, and what is learned of it.
POOL = 4  # frames of 10 ms that are averaged: a tower hears one every 40 ms
FRAMES = 50  # averaged frames in a window: 2 s
DIM = 32  # size of the embeddings in training, and of the published towers
REFIT_DIM = 64  # size of ours once the last layers are learned again in closed form
CHANNELS = 16  # of pitch maps, where they are not those of a pretrained encoder

# Losses.
MARGIN = 0.7  # of the ranking loss (Dorfer et al. 2018)
TEMPERATURE = 0.07  # softmax temperature of InfoNCE at the start

# Batches.
BATCHES = 40  # in an epoch
PER_WORK = 4  # windows of one work in a batch, which are hard negatives of each other
JITTER = 0.12  # share of a passage by which either of its ends is moved, at most
SHIFT = 3  # semitones by which sound and score are transposed alike, at most


@settings
class RetrievalConfig(RunConfig):
    """Settings of training two towers."""

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
}
RUNS |= {
    f"{name}-{works}": RUNS[name] | {"n_works": works}
    for works in (5, 20, 80)
    for name in ("cpc-finetuned", "scratch")
}
"""
What is trained, by name: what differs from the defaults of
:class:`RetrievalConfig`; ``start`` says whether the encoder comes from pretraining.
"""
