"""
Settings of a run: one frozen dataclass each, to and from JSON and flags.

A field is the only place where a setting is named, typed, limited, defaulted
and explained: its flag, its help and its check are derived from it. The
defaults are the preset `small`; the other presets say only what differs.
"""

import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import get_type_hints

from jtm.constants import HOP
from jtm.files import InputError, read_json, write_json

CONFIG_FILE = "config.json"
"""Name of the file that keeps a run's settings beside its checkpoints."""

CHUNKS = ("max_chunks_in_mem", "chunk_size")
"""Settings that training with labels takes, as the original did, but has no use for."""


def flag(name):
    """
    Give the flag of a setting.

    Parameters
    ----------
    name : str
        Name of the field.

    Returns
    -------
    str
        The flag without dashes.

    Examples
    --------
    >>> flag("max_chunks_in_mem")
    'maxChunksInMem'
    """
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def setting(default, text, choices=None, low=None, high=None, several=(), needs=None):
    """
    Declare one setting.

    Parameters
    ----------
    default : object
        Its value in the preset `small`.
    text : str
        What it does, in words a student understands.
    choices : tuple, optional
        The values it may take.
    low, high : float, optional
        Its least and greatest value.
    several : tuple, optional
        Words of which its value lists any, separated by commas.
    needs : tuple of str, optional
        Another setting and the value of it under which this one does anything.

    Returns
    -------
    dataclasses.Field
        The field.
    """
    limits = {"choices": choices, "low": low, "high": high, "several": several}
    limits["needs"] = needs
    if needs:
        text = f"for --{flag(needs[0])} {needs[1]}: {text}"
    return field(default=default, metadata={"help": text, **limits})


def _documented(cls):
    """Tell of each setting in the docstring of its class what its help tells."""
    lines = [cls.__doc__ or "", "", "Parameters", "----------"]
    for item in fields(cls):
        text = item.metadata["help"]
        lines += [f"{item.name} : {get_type_hints(cls)[item.name].__name__}"]
        lines += [f"    {text[0].upper()}{text[1:]}."]
    cls.__doc__ = "\n".join(lines + [""])
    return cls


@_documented
@dataclass(frozen=True)
class RunConfig:
    """Settings that every run has."""

    data: str = setting(
        "",
        "dataset folder: MusicNet's layout, or any folder with WAV, FLAC, OGG or MP3 "
        "files; without it, MusicNet in data/musicnet if it is there, else the toy "
        "set, made on first use",
    )
    path_checkpoint: str = setting(
        "",
        "folder for checkpoints, settings and curves; the same command in the same "
        "folder goes on where it stopped (default: logs, or logs/supervised-TASK)",
    )
    load: str = setting("", "checkpoint to start from, such as logs/checkpoint3.pt")
    random_seed: int = setting(0, "source of all chance; same seed, same result", low=0)
    n_epoch: int = setting(4, "passes over the training data", low=1)
    batch_size: int = setting(8, "windows learned from at once", low=1)
    learning_rate: float = setting(
        2e-3, "size of the optimiser's steps (Adam)", low=0.0, high=1.0
    )
    max_chunks_in_mem: int = setting(
        5,
        "most chunks of audio in memory at a time while pretraining; with --supervised "
        "it may be given and does nothing",
        low=1,
    )
    chunk_size: int = setting(
        10**9,
        "most bytes in such a chunk; 16-bit audio at 16 kHz takes 32000 a second. With "
        "--supervised it does nothing either",
        low=6400,
    )


@_documented
@dataclass(frozen=True)
class NetworkConfig(RunConfig):
    """Settings of the network."""

    encoder_type: str = setting(
        "harmonic",
        "network from waveform to latents: plain convolutions, learned band-pass "
        "filters, or harmonics stacked on a pitch axis, the weights shared across it",
        choices=("conv", "sinc", "harmonic"),
    )
    hidden_encoder: int = setting(
        0,
        "channels of the latents; for the harmonic encoder, channels of each of the 88 "
        "pitches (default: 8 for harmonic, 256 for sinc and conv)",
        low=0,
    )
    sinc_mode: str = setting(
        "quadrature",
        "log magnitudes of quadrature pairs, which forget the phase of the wave, or "
        "plain filtered waves",
        choices=("quadrature", "plain"),
        needs=("encoder_type", "sinc"),
    )
    sinc_kernel: int = setting(
        2048,
        "taps of each filter; pitches of df Hz apart need about 16000 / df of them",
        low=251,
        needs=("encoder_type", "sinc"),
    )
    sinc_spacing: str = setting(
        "semitone",
        "where the filters start before they are learned: evenly in pitch or in mel",
        choices=("semitone", "mel"),
        needs=("encoder_type", "sinc"),
    )
    norm_mode: str = setting(
        "channelNorm",
        "normalisation inside the encoder",
        choices=("channelNorm", "batchNorm", "instanceNorm", "none"),
    )
    ar_mode: str = setting(
        "GRU",
        "network that summarises the past",
        choices=("GRU", "LSTM", "RNN", "transformer"),
    )
    hidden_gar: int = setting(
        0,
        "size of the summary, or of each pitch's if it is pitchwise; a multiple of 8 "
        "for a transformer (default: 16 pitchwise, else 256)",
        low=0,
    )
    gar_mode: str = setting(
        "pitchwise",
        "for --encoderType harmonic and a recurrent --arMode: summarise each pitch for "
        "itself, with weights shared across pitch, or all pitches jointly",
        choices=("pitchwise", "joint"),
    )
    layers_gar: int = setting(1, "layers of the network that summarises", low=1)
    abspos: bool = setting(
        False,
        "absolute positions instead of relative ones",
        needs=("ar_mode", "transformer"),
    )
    cpc_mode: str = setting(
        "forward",
        "predict the future from the past, or in reverse",
        choices=("forward", "reverse"),
    )
    dropout: float = setting(
        0.0, "share of the context's activations dropped in training", low=0.0, high=0.9
    )


@_documented
@dataclass(frozen=True)
class PretrainConfig(NetworkConfig):
    """Settings of CPC pretraining."""

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


@_documented
@dataclass(frozen=True)
class SupervisedConfig(NetworkConfig):
    """Settings of training with labels."""

    task: str = setting(
        "transcription",
        "what is learned: the notes with onset and offset; the pitches, or the "
        "instruments, of each frame; the ensemble, the composer, or the instrument "
        "that plays alone, of each window; the pitch or the instrument of a single "
        "note",
        choices=(
            "transcription",
            "multipitch",
            "instrument_activity",
            "ensemble",
            "composer",
            "instrument",
            "note_pitch",
            "note_instrument",
        ),
    )
    on_encoder: bool = setting(
        False, "learn from the encoder's latents z alone, without the contexts c"
    )
    transcription_window: int = setting(
        1280,
        "milliseconds of audio in a training window",
        low=100,
        needs=("task", "transcription"),
    )


HIDDEN_ENCODER = {"harmonic": 8, "sinc": 256, "conv": 256}
"""Channels of the latents by encoder, where none are asked for."""

HIDDEN_GAR = {"pitchwise": 16, "joint": 256}
"""Size of the summary by how it is made, where none is asked for."""

PRESETS = {
    "small": {},
    "best": {"n_epoch": 3, "scheduler_step": 2},
    "tiny": {
        "hidden_encoder": {"harmonic": 2, "sinc": 32, "conv": 32},
        "hidden_gar": {"pitchwise": 4, "joint": 32},
        "size_window": 32000,
        "n_epoch": 4,
        "n_predicts": 4,
        "negative_sampling_ext": 16,
        "anchor_frames": 8,
    },
    "reference": {
        "encoder_type": "conv",
        "hidden_encoder": 512,
        "sinc_mode": "plain",
        "size_window": 20480,
        "learning_rate": 2e-4,
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
"""What each preset changes of the defaults; `small` is the defaults."""


def make_config(kind, preset, chosen):
    """
    Make settings from a preset and what the user chose.

    Parameters
    ----------
    kind : type
        The dataclass of the settings.
    preset : str
        One of :data:`PRESETS`.
    chosen : dict
        Settings by field name; they win over the preset.

    Returns
    -------
    RunConfig
        Settings of type `kind`, complete and checked.

    Raises
    ------
    InputError
        If a setting is unknown or outside its limits.

    Examples
    --------
    >>> config = make_config(PretrainConfig, "reference", {"n_epoch": 10})
    >>> config.encoder_type, config.hidden_encoder, config.n_epoch
    ('conv', 512, 10)
    """
    hints = get_type_hints(kind)
    values = {k: v for k, v in PRESETS[preset].items() if k in hints} | chosen
    for name in values.keys() - hints.keys():
        raise InputError(f"unknown setting {name!r}; expected one of {sorted(hints)}")
    for item in fields(kind):
        if item.name in chosen:
            _check(item, hints[item.name], chosen[item.name])
    if issubclass(kind, NetworkConfig):
        encoder = values.get("encoder_type", kind.encoder_type)
        transformer = values.get("ar_mode", kind.ar_mode) == "transformer"
        if encoder != "harmonic" or transformer:
            if chosen.get("gar_mode") == "pitchwise":
                raise InputError(
                    "--garMode pitchwise needs --encoderType harmonic and --arMode "
                    "GRU, LSTM or RNN"
                )
            values["gar_mode"] = "joint"
        mode = values.get("gar_mode", kind.gar_mode)
        if mode == "joint" and "contrast" in kind.__dataclass_fields__:
            if chosen.get("contrast", "frame") != "frame":
                raise InputError(
                    f"--contrast {chosen['contrast']} needs --garMode pitchwise"
                )
            values["contrast"] = "frame"
        size = values.get("hidden_encoder") or HIDDEN_ENCODER
        values["hidden_encoder"] = size[encoder] if isinstance(size, dict) else size
        size = values.get("hidden_gar") or HIDDEN_GAR
        values["hidden_gar"] = size[mode] if isinstance(size, dict) else size
    for item in fields(kind):
        _check_need(item, values, chosen, kind)
    config = kind(**values)
    _check_together(config)
    return config


def _check_need(item, values, chosen, cls):
    """Refuse a choice that does nothing; let a preset's that does nothing go."""
    if not item.metadata["needs"] or item.name not in values:
        return
    other, value = item.metadata["needs"]
    if values.get(other, getattr(cls, other)) == value:
        return
    if chosen.get(item.name, item.default) != item.default:
        raise InputError(f"--{flag(item.name)} needs --{flag(other)} {value}")
    del values[item.name]


def _check_together(config):
    """Refuse settings that do not go together."""
    attends = getattr(config, "ar_mode", "") == "transformer"
    if isinstance(config, PretrainConfig):
        _check_pretraining(config)
        attends |= config.predictor == "transformer" and config.gar_mode == "joint"
    if attends and config.hidden_gar % 8:
        raise InputError(
            f"--hiddenGar is {config.hidden_gar}; expected a multiple of 8 for a "
            "transformer, which has 8 heads"
        )
    sinc = getattr(config, "encoder_type", "") == "sinc"
    if sinc and config.hidden_encoder < 2:  # a filter's width is the step to the next
        raise InputError(
            f"--hiddenEncoder is {config.hidden_encoder}; expected at least 2 for "
            "--encoderType sinc"
        )


def _check_pretraining(config):
    """Refuse settings of pretraining that do not go together."""
    if config.sampling_type == "sequential":
        if config.ar_mode == "transformer" or config.cpc_mode == "reverse":
            raise InputError(
                "--samplingType sequential carries the state of the past over; it "
                "needs --arMode GRU, LSTM or RNN and --cpcMode forward"
            )
    if 0 < config.aligned <= config.n_predicts:
        raise InputError(
            f"--aligned is {config.aligned}; expected more than --nPredicts, "
            f"{config.n_predicts}, or 0"
        )
    reach = (config.aligned or config.n_predicts) * config.step_frames
    if config.size_window // HOP <= reach:
        raise InputError(
            f"--sizeWindow is {config.size_window}; expected at least "
            f"{HOP * (reach + 1)} to predict {reach} frames of 10 ms ahead"
        )
    if config.augment_past and config.cpc_mode == "reverse":
        raise InputError(
            "--augmentPast needs --cpcMode forward; in reverse the past is predicted"
        )
    if config.other_windows and config.batch_size == 1:
        raise InputError("--otherWindows needs a --batchSize of 2 or more")
    if config.contrast == "pitch" and config.share_negatives == "anchor":
        raise InputError("--shareNegatives anchor needs --contrast frame or both")
    if config.load_criterion and not config.load:
        raise InputError("--loadCriterion needs --load")


def _check(item, kind, value):
    """Refuse a value of the wrong type or outside the limits of its field."""
    limits = item.metadata
    if kind is float and isinstance(value, int):
        value = float(value)
    wrong = type(value) is not kind
    wrong = wrong or (kind is float and not math.isfinite(value))
    wrong = wrong or (limits["choices"] and value not in limits["choices"])
    words = value.split(",") if limits["several"] and value else []
    wrong = wrong or (limits["several"] and not set(words) <= set(limits["several"]))
    wrong = wrong or len(set(words)) < len(words)
    wrong = wrong or (limits["low"] is not None and value < limits["low"])
    wrong = wrong or (limits["high"] is not None and value > limits["high"])
    if wrong:
        raise InputError(f"--{flag(item.name)} is {value!r}; expected {expected(item)}")


def expected(item):
    """
    Say what values a setting may take.

    Parameters
    ----------
    item : dataclasses.Field
        The setting.

    Returns
    -------
    str
        Such as 'one of a, b' or 'int of at least 1'.
    """
    limits = item.metadata
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    if limits["several"]:
        words = ",".join(limits["several"])
        return f"{words} or some of these, each once, with commas between"
    kind = item.type if isinstance(item.type, str) else item.type.__name__
    words = {"int": "a whole number", "float": "a number", "str": "text"}.get(
        kind, kind
    )
    if limits["low"] is not None:
        words += f" of at least {limits['low']:g}"
    if limits["high"] is not None:
        words += f" and at most {limits['high']:g}"
    return words


def save_config(path, config):
    """
    Write settings as JSON.

    Parameters
    ----------
    path : str or Path
        The file to write.
    config : RunConfig
        The settings.
    """
    write_json(path, asdict(config))


def load_config(path, cls):
    """
    Read settings from JSON.

    Parameters
    ----------
    path : str or Path
        The file to read.
    cls : type
        The dataclass of the settings.

    Returns
    -------
    RunConfig
        Settings of type `cls`.

    Raises
    ------
    InputError
        If the file is missing or broken, or names an unknown setting.
    """
    try:
        return make_config(cls, "small", read_json(path))
    except (InputError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}") from error


def settle(folder, config):
    """
    Claim a folder for a run, or find that it is this run's already.

    Parameters
    ----------
    folder : Path
        The run's folder.
    config : RunConfig
        The run's settings; written to the folder if it holds none, or if they
        only ask for more epochs of pretraining, in which no step depends on
        how many there will be.

    Raises
    ------
    InputError
        If the folder holds a run of other settings; the settings are named.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        save_config(path, config)
        return
    # A setting that a run knows nothing of is newer than the run.
    there = {item.name: item.default for item in fields(config)} | read_json(path)
    here = asdict(config)
    more = isinstance(config, PretrainConfig) and there["n_epoch"] < config.n_epoch
    if more:
        there["n_epoch"] = config.n_epoch
    idle = CHUNKS if isinstance(config, SupervisedConfig) else ()
    for name in sorted((here.keys() | there.keys()) - set(idle)):
        if there.get(name) != here.get(name):
            raise InputError(
                f"{folder} holds a run with --{flag(name)} {there.get(name)!r}, not "
                f"{here.get(name)!r}; choose another --pathCheckpoint, or remove "
                "the folder to start anew"
            )
    if more:
        save_config(path, config)
