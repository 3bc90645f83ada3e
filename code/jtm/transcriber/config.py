"""Settings of training the transcriber: those of the network, and its datasets."""

from typing import ClassVar

from pydantic import Field

from jtm.training.config import NetworkConfig, settings


@settings
class TranscriberConfig(NetworkConfig):
    """Settings of training the transcriber."""

    presets: ClassVar[dict] = {
        "transcriber": {"n_epoch": 48, "batch_size": 3, "learning_rate": 0.003}
    }
    idle: ClassVar[tuple] = ("max_chunks_in_mem", "chunk_size")

    also: str = Field(
        "",
        description="further datasets to learn from and to be validated on, their "
        "folders separated by commas",
    )
    plain: bool = Field(
        False,
        description="leave level, spectrum and noise of what is heard as they are",
    )
