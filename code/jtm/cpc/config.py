"""
Settings of CPC pretraining, and their presets.

The defaults are the preset `small`; the other presets list only what differs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from jtm.constants import HOP
from jtm.files import InputError
from jtm.models import AUGMENTATIONS, ENCODERS
from jtm.training.config import NetworkConfig, flag, settings

_OF_FRAMES = {"share_negatives", "same_share", "other_windows"}  # whole ones alone


def _augmentations(text):
    """Refuse a list of augmentations with unknown or repeated names."""
    words = text.split(",") if text else []
    if len({*words} & {*AUGMENTATIONS}) < len(words):
        known = ",".join(AUGMENTATIONS)
        raise ValueError(f"{known} or some of these, each once, separated by commas")
    return text


@settings
class PretrainConfig(NetworkConfig):
    """Settings of CPC pretraining."""

    presets: ClassVar[dict] = {
        "best": {"scheduler_step": 2, "temperature": 0.3},
        "tiny": {
            "size_window": 32000,
            "n_predicts": 4,
            "negative_sampling_ext": 16,
            "anchor_frames": 8,
        },
        "reference": {
            "size_window": 20480,
            "sampling_type": "samesequence",
            "n_predicts": 12,
            "step_frames": 1,
            "anchor_frames": 1,
            "negative_sampling_ext": 128,
            "share_negatives": "anchor",
            "same_share": 0.0,
            "score": "inner",
            "scheduler_ramp": 0.0,
            "gradient_clip": 0.0,
        },
    }

    may_grow: ClassVar[bool] = True

    size_window: int = Field(
        61440,
        ge=3200,
        description="length of a training window in samples at 16 kHz",
    )
    augment_past: Annotated[str, AfterValidator(_augmentations)] = Field(
        "",
        description="augment the input of the context network, but not the predicted "
        f"latents: {','.join(AUGMENTATIONS)} or some of these; takes a second forward "
        "pass of the encoder",
    )
    sampling_type: Literal["uniform", "samesequence", "samecategory", "sequential"] = (
        Field(
            "uniform",
            description="windows of a batch, which provide each other's negatives: "
            "from all recordings, one recording, one category (see --labelsBy), or "
            "parallel streams in temporal order, whose hidden states are carried over "
            "(truncated BPTT)",
        )
    )
    labels_by: str = Field(
        "ensemble",
        description="metadata column of the categories, such as ensemble or composer",
        json_schema_extra={"sampling_type": "samecategory"},
    )
    n_predicts: int = Field(8, ge=1, description="number of predicted future steps")
    step_frames: int = Field(
        10, ge=1, description="spacing of predicted steps in frames of 10 ms"
    )
    anchor_frames: int = Field(
        4, ge=1, description="spacing of anchors in frames of 10 ms"
    )
    predictor: Literal["linear", "transformer"] = Field(
        "linear",
        description="prediction heads: one linear layer per step, alone or after a "
        "shared transformer layer",
    )
    contrast: Literal["frame", "pitch", "both"] = Field(
        "both",
        description="unit of the contrastive loss: whole frames; single pitches, "
        "sampled by magnitude, against the same pitch at other times (requires "
        "--garMode pitchwise); or the mean of both losses (default: frame for "
        "--garMode joint, pitch for --encoderType pitchmap, else both)",
    )
    negative_sampling_ext: int = Field(
        256,
        ge=1,
        description="number of negatives per positive (default: 127 for --contrast "
        "pitch, else 256)",
    )
    share_negatives: Literal["window", "anchor"] = Field(
        "window",
        description="draw negative frames once per window, which is many times "
        "faster, or for each anchor, as published",
    )
    same_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="fraction of negative frames drawn from the anchor's recording, 0 "
        "to 1; the rest is drawn from the whole batch",
    )
    other_windows: bool = Field(
        False,
        description="draw negative frames from other windows only, if there are any",
    )
    score: Literal["cosine", "inner"] = Field(
        "cosine",
        description="similarity of prediction and latent: cosine divided by "
        "--temperature, or inner product divided by the dimension",
    )
    temperature: float = Field(
        0.1,
        ge=1e-3,
        description="softmax temperature",
        json_schema_extra={"score": "cosine"},
    )
    scheduler_step: int = Field(
        0, ge=0, description="epochs between halvings of the learning rate; 0 disables"
    )
    scheduler_ramp: float = Field(
        0.5, ge=0, description="epochs of linear learning-rate warm-up; 0 disables"
    )
    accumulate: int = Field(
        1, ge=1, description="batches per optimiser step (gradient accumulation)"
    )
    gradient_clip: float = Field(
        1.0, ge=0, description="gradient-norm clipping threshold; 0 disables"
    )
    patience: int = Field(
        0,
        ge=0,
        description="early stopping: epochs without a lower validation loss; 0 "
        "disables",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="floating-point precision; bf16 is mixed precision, faster on "
        "hardware that supports it, and float32 on other CPUs",
    )
    short_recordings: Literal["leave", "pad"] = Field(
        "leave",
        description="exclude recordings shorter than a window (leave), or zero-pad "
        "them (pad)",
    )
    load_criterion: bool = Field(
        False, description="with --load: load the prediction heads too"
    )

    @classmethod
    def _complete(cls, values, chosen):
        """Choose the contrast too: contrasting pitches needs a context per pitch."""
        super()._complete(values, chosen)
        if values.get("encoder_type", cls.encoder_type) == "pitchmap":
            values.setdefault("contrast", "pitch")
        if values.get("gar_mode", cls.gar_mode) == "joint":
            if chosen.get("contrast", "frame") != "frame":
                raise InputError(
                    f"--contrast {chosen['contrast']} needs --garMode pitchwise"
                )
            values["contrast"] = "frame"
        if values.get("contrast") == "pitch":
            values.setdefault("negative_sampling_ext", 127)
            for name in _OF_FRAMES - chosen.keys():
                values.pop(name, None)  # from the preset, and without effect

    def _attends(self):
        """Return whether context network or predictor is a joint transformer."""
        joint = self.predictor == "transformer" and self.gar_mode == "joint"
        return joint or super()._attends()

    def _drops(self):
        """Return True: predictions are made from contexts with dropout."""
        return True

    def _check(self):
        """Refuse incompatible settings of pretraining."""
        if self.sampling_type == "sequential":
            if self.ar_mode == "transformer" or self.cpc_mode == "reverse":
                raise InputError(
                    "--samplingType sequential carries hidden states over; it "
                    "needs --arMode conv, GRU, LSTM or RNN, and --cpcMode forward"
                )
        stride = ENCODERS[self.encoder_type].stride
        if self.step_frames % stride or self.anchor_frames % stride:
            raise InputError(
                "--stepFrames and --anchorFrames: expected multiples of "
                f"{stride} for --encoderType {self.encoder_type}, whose hop is "
                f"{10 * stride} ms"
            )
        reach = self.n_predicts * self.step_frames
        shortest = HOP * (reach + stride)
        if self.size_window < shortest:
            raise InputError(
                f"--sizeWindow is {self.size_window}; expected at least "
                f"{shortest} to predict {reach} frames of 10 ms ahead"
            )
        if self.augment_past and self.cpc_mode == "reverse":
            raise InputError(
                "--augmentPast needs --cpcMode forward; in reverse the past is "
                "predicted"
            )
        if self.other_windows and self.batch_size == 1:
            raise InputError("--otherWindows needs a --batchSize of 2 or more")
        if self.contrast == "pitch":  # negatives are the same pitch at other times
            for name in sorted(_OF_FRAMES):
                if getattr(self, name) != getattr(type(self), name):
                    raise InputError(f"--{flag(name)} needs --contrast frame or both")
        if self.load_criterion and not self.load:
            raise InputError("--loadCriterion needs --load")
        super()._check()
