"""Settings of training the transcriber."""

from typing import ClassVar

from pydantic import Field

from jtm.training.config import NetworkConfig, settings


@settings
class TranscriberConfig(NetworkConfig):
    """Settings of training the transcriber."""

    presets: ClassVar[dict] = {
        "transcriber": {"n_epoch": 14, "batch_size": 16, "learning_rate": 0.003}
    }
    idle: ClassVar[tuple] = ("max_chunks_in_mem", "chunk_size")
    record: ClassVar[str] = "transcriber.json"

    also: str = Field(
        "",
        description="additional datasets for training and validation: folders, "
        "separated by commas",
    )
    teacher: str = Field(
        "",
        description="transcriber whose predictions are the labels of recordings "
        "without any, half of each batch (self-training)",
    )
    plain: bool = Field(
        False,
        description="disable data augmentation of level, spectrum and noise",
    )
