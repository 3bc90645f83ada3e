"""Settings of the retrieval study, and its runs."""

from typing import Literal

from pydantic import Field

from jtm.training.config import RunConfig, settings

# Windows of audio, and their embeddings.
POOL = 4  # 10 ms frames averaged per input frame: one every 40 ms
FRAMES = 50  # averaged frames in a window: 2 s
DIM = 32  # embedding dimension in training, and of the published towers
REFIT_DIM = 64  # embedding dimension of pitch-map towers refitted in closed form
CHANNELS = 16  # of pitch maps, unless given by a pretrained encoder

# Losses.
MARGIN = 0.7  # of the ranking loss (Dorfer et al. 2018)
TEMPERATURE = 0.07  # initial softmax temperature of InfoNCE

# Batches.
BATCHES = 40  # per epoch
PER_WORK = 4  # windows per work in a batch, hard negatives of each other
JITTER = 0.12  # maximum shift of either end of a passage, relative to its length
SHIFT = 3  # maximum joint transposition of audio and score in semitones


@settings
class RetrievalConfig(RunConfig):
    """Settings of training the audio and score towers."""

    towers: Literal["pitchmap", "published"] = Field(
        "pitchmap",
        description="audio and score towers: pitch maps with weights shared across "
        "pitch, or the convolutions of Dorfer et al. (2018) with a CCA layer",
    )
    objective: Literal["infonce", "ranking"] = Field(
        "infonce", description="symmetric InfoNCE, or the pairwise ranking loss"
    )
    channels: int = Field(
        CHANNELS, ge=1, description="channels of the encoder, unless one is loaded"
    )
    frozen: bool = Field(False, description="freeze the encoder of the audio tower")
    n_works: int = Field(
        0, ge=0, description="number of training works with aligned pairs; 0 for all"
    )
    n_epoch: int = Field(5, ge=1, description="number of epochs, of 40 batches")
    batch_size: int = Field(64, ge=4, description="batch size, in pairs")


MAIN = "pitchmap"
"""The run whose towers are shipped with the package."""

RUNS = {
    MAIN: {"n_epoch": 10},
    # Trained until validation scores level off, which takes four times as many steps.
    "published": {"towers": "published", "objective": "ranking", "n_epoch": 20},
    "published-infonce": {"towers": "published", "n_epoch": 20},
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
Runs of the study by name: settings that differ from the defaults of
:class:`RetrievalConfig`, and ``start`` if the encoder is pretrained.
"""
