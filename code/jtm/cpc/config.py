"""
Settings of CPC pretraining, and what the presets change of them.

The defaults are the preset `small`; the other presets say only what differs.
"""

from dataclasses import dataclass
from typing import ClassVar

from jtm.constants import HOP, MAP_STRIDE
from jtm.files import InputError
from jtm.training.config import NetworkConfig, documented, setting


@documented
@dataclass(frozen=True)
class PretrainConfig(NetworkConfig):
    """Settings of CPC pretraining."""

    presets: ClassVar[dict] = {
        "best": {"scheduler_step": 2},
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

    size_window: int = setting(
        61440, "samples in a training window at 16 kHz; 16000 are one second", low=3200
    )
    augment_past: str = setting(
        "",
        "augment what the context network reads, but not what it predicts: "
        "noise,reverb,equaliser,level or some of these; costs a second pass of the "
        "encoder",
        several=("noise", "reverb", "equaliser", "level"),
    )
    sampling_type: str = setting(
        "uniform",
        "which windows share a batch, and so serve as each other's negatives: any, "
        "those of one recording, those of one category (see --labelsBy), or parallel "
        "readings in order of time with the context carried over",
        choices=("uniform", "samesequence", "samecategory", "sequential"),
    )
    labels_by: str = setting(
        "ensemble",
        "the column of the metadata that names the category, such as ensemble or "
        "composer",
        needs=("sampling_type", "samecategory"),
    )
    n_predicts: int = setting(8, "number of future steps predicted", low=1)
    step_frames: int = setting(
        10, "frames of 10 ms from one predicted step to the next", low=1
    )
    aligned: int = setting(
        0,
        "aligned CPC: number of future steps, more than --nPredicts, that the "
        "predictions are matched to in order, each with one step or more, wherever "
        "they fit best; 0 predicts each step by itself",
        low=0,
    )
    anchor_frames: int = setting(
        4, "frames of 10 ms from one moment that predicts to the next", low=1
    )
    predictor: str = setting(
        "linear",
        "what predicts: a linear map for each step, or the same after one transformer "
        "layer",
        choices=("linear", "transformer"),
    )
    contrast: str = setting(
        "both",
        "what is told from false futures: whole frames; each pitch by itself, the loud "
        "ones most often, which is for --garMode pitchwise; or the mean of both losses",
        choices=("frame", "pitch", "both"),
    )
    negative_sampling_ext: int = setting(
        256, "number of false futures that each true one is told from", low=1
    )
    share_negatives: str = setting(
        "window",
        "draw whole frames as false futures once for all moments of a window, which "
        "is many times faster, or for each anchor anew, as published",
        choices=("window", "anchor"),
    )
    same_share: float = setting(
        0.5,
        "share of the false futures that come from the same recording, as all do with "
        "--samplingType samesequence; the rest comes from any window of the batch",
        low=0.0,
        high=1.0,
    )
    other_windows: bool = setting(
        False,
        "take no false future from the window that predicts, unless it is alone in its "
        "batch",
    )
    score: str = setting(
        "cosine",
        "how prediction and candidate are compared: cosine over --temperature, or "
        "their inner product averaged over dimensions",
        choices=("cosine", "inner"),
    )
    temperature: float = setting(
        0.1, "smaller sharpens the choice", low=1e-3, needs=("score", "cosine")
    )
    scheduler_step: int = setting(
        0, "halve the learning rate every so many epochs; 0 never does", low=0
    )
    scheduler_ramp: float = setting(
        0.5, "epochs over which the learning rate rises from zero", low=0.0
    )
    accumulate: int = setting(
        1, "batches whose gradients are added up before each step", low=1
    )
    gradient_clip: float = setting(
        1.0, "longest gradient; longer ones are shortened to it, 0 shortens none", low=0
    )
    patience: int = setting(
        0,
        "stop after so many epochs without a better validation loss; 0 never does",
        low=0,
    )
    precision: str = setting(
        "float32",
        "arithmetic of the network; bf16 is faster on processors that have it",
        choices=("float32", "bf16"),
    )
    short_recordings: str = setting(
        "leave",
        "what to do with recordings shorter than a window: leave them out, or pad them "
        "with silence",
        choices=("leave", "pad"),
    )
    load_criterion: bool = setting(
        False, "with --load: take the predictors of the checkpoint too"
    )

    @classmethod
    def _complete(cls, values, chosen):
        """Choose the contrast too: pitches need a summary of each."""
        super()._complete(values, chosen)
        if values.get("gar_mode", cls.gar_mode) == "joint":
            if chosen.get("contrast", "frame") != "frame":
                raise InputError(
                    f"--contrast {chosen['contrast']} needs --garMode pitchwise"
                )
            values["contrast"] = "frame"

    def _attends(self):
        """Tell whether a transformer reads, writes or predicts from contexts."""
        joint = self.predictor == "transformer" and self.gar_mode == "joint"
        return joint or super()._attends()

    def _check(self):
        """Refuse settings of pretraining that do not go together."""
        if self.sampling_type == "sequential":
            if self.ar_mode == "transformer" or self.cpc_mode == "reverse":
                raise InputError(
                    "--samplingType sequential carries the state of the past over; it "
                    "needs --arMode GRU, LSTM or RNN and --cpcMode forward"
                )
        if 0 < self.aligned <= self.n_predicts:
            raise InputError(
                f"--aligned is {self.aligned}; expected more than --nPredicts, "
                f"{self.n_predicts}, or 0"
            )
        if self.encoder_type == "pitchmap" and (
            self.step_frames % MAP_STRIDE or self.anchor_frames % MAP_STRIDE
        ):
            raise InputError(
                "--stepFrames and --anchorFrames: expected multiples of "
                f"{MAP_STRIDE} for --encoderType pitchmap, whose frames are of 20 ms"
            )
        reach = (self.aligned or self.n_predicts) * self.step_frames
        if self.size_window // HOP <= reach:
            raise InputError(
                f"--sizeWindow is {self.size_window}; expected at least "
                f"{HOP * (reach + 1)} to predict {reach} frames of 10 ms ahead"
            )
        if self.augment_past and self.cpc_mode == "reverse":
            raise InputError(
                "--augmentPast needs --cpcMode forward; in reverse the past is "
                "predicted"
            )
        if self.other_windows and self.batch_size == 1:
            raise InputError("--otherWindows needs a --batchSize of 2 or more")
        if self.contrast == "pitch" and self.share_negatives == "anchor":
            raise InputError("--shareNegatives anchor needs --contrast frame or both")
        if self.load_criterion and not self.load:
            raise InputError("--loadCriterion needs --load")
        super()._check()
