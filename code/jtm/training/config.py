"""
Settings of a run, as frozen dataclasses, from JSON and command-line flags.

Name, type, limits, default and description of a setting are defined once, in its
field: pydantic validates it, and its flag and help are derived from it. The
defaults are the preset `small`; other presets list only the differences.
"""

import argparse
import contextlib
import re
from dataclasses import asdict
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from jtm.files import InputError
from jtm.models import ENCODERS

# Each class of settings defines the changes of a preset to its fields.
PRESETS = ("small", "best", "tiny", "reference", "transcriber")

_HIDDEN_GAR = {"pitchwise": 16, "conv": 32, "joint": 256}  # default size of contexts
_METAVARS = {"data": "DIR", "path_checkpoint": "DIR", "also": "DIR,...", "load": "FILE"}
_METAVARS |= {"augment_past": "NAME,...", "labels_by": "COLUMN", "teacher": "FILE"}


def flag(name):
    """
    Return the flag of a setting.

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


def _explain(item):
    """Return the type of a setting's values, the permitted ones if any, and a text."""
    choices, required = get_args(item.annotation), item.json_schema_extra
    text = item.description
    if required:
        text = f"for {_flags(required)}: {text}"
    return str if choices else item.annotation, choices, text


def _flags(values):
    """Format settings as flags."""
    return " ".join(f"--{flag(name)} {value}" for name, value in values.items())


def settings(kind):
    """
    Turn a class into a dataclass of settings, and document its fields.

    Parameters
    ----------
    kind : type
        The class.

    Returns
    -------
    type
        The frozen dataclass; pydantic validates each instance.
    """
    strict = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    kind = dataclass(frozen=True, config=strict)(kind)
    lines = [kind.__doc__ or "", "", "Parameters", "----------"]
    for name, item in kind.__pydantic_fields__.items():
        type_, choices, text = _explain(item)
        type_ = f"{{{', '.join(map(repr, choices))}}}" if choices else type_.__name__
        lines += [f"{name} : {type_}", f"    {text[0].upper()}{text[1:]}."]
    kind.__doc__ = "\n".join(lines + [""])
    return kind


@settings
class RunConfig:
    """Settings common to all runs."""

    presets: ClassVar[dict] = {}
    """Changes to the defaults by preset, in addition to those of the parent class."""

    may_grow: ClassVar[bool] = False
    """Whether a run can be extended to more epochs: no step depends on their number."""

    idle: ClassVar[tuple] = ()
    """Settings that are accepted but have no effect."""

    record: ClassVar[str] = "record.json"
    """File of a finished run's folder with its scores, ``data`` and ``origin``."""

    data: str = Field(
        "",
        description="dataset folder: MusicNet's layout, or any folder of audio files "
        "(default: data/musicnet if present, else the toy set, synthesised on first "
        "use)",
    )
    path_checkpoint: str = Field(
        "",
        description="folder for checkpoints, settings and training curves; the same "
        "command resumes an interrupted run (default: logs, logs/supervised-TASK or "
        "logs/transcriber)",
    )
    load: str = Field(
        "", description="checkpoint of the initial weights, such as logs/checkpoint3.pt"
    )
    random_seed: int = Field(0, ge=0, lt=2**32, description="random seed")
    n_epoch: int = Field(4, ge=1, description="number of epochs")
    batch_size: int = Field(8, ge=1, description="batch size, in windows")
    learning_rate: float = Field(2e-3, ge=0, le=1, description="learning rate of Adam")
    max_chunks_in_mem: int = Field(
        5,
        ge=1,
        description="maximum number of chunks of audio in memory during pretraining; "
        "with --supervised, accepted for compatibility but without effect",
    )
    chunk_size: int = Field(
        10**9,
        ge=6400,
        description="maximum size of a chunk in bytes (16-bit audio at 16 kHz: 32000 "
        "per second); without effect with --supervised",
    )

    @classmethod
    def _complete(cls, values, chosen):
        """Fill in values that depend on others, in place; refuse conflicting ones."""

    def _check(self):
        """Refuse conflicting settings."""


_SINC = {"encoder_type": "sinc"}


@settings
class NetworkConfig(RunConfig):
    """Settings of the network."""

    presets: ClassVar[dict] = {
        "best": {"n_epoch": 3},
        "tiny": {
            "hidden_encoder": {name: kind.tiny for name, kind in ENCODERS.items()},
            "hidden_gar": {"pitchwise": 4, "conv": 4, "joint": 32},
            "n_epoch": 4,
        },
        "reference": {
            "encoder_type": "conv",
            "hidden_encoder": 512,
            "sinc_mode": "plain",
            "learning_rate": 2e-4,
        },
    }

    encoder_type: Literal[*ENCODERS] = Field(
        "pitchmap",
        description="encoder, from waveform to latents: convolutions over a pitch axis "
        "with stacked harmonics and weights shared across pitch, hop 20 ms (pitchmap), "
        "or shallower ones, hop 10 ms (harmonic); learned band-pass filters (sinc); or "
        "plain convolutions (conv)",
    )
    use_sinc_net: bool = Field(
        False,
        description="learn the centres and widths of the band-pass filters, as in "
        "SincNet; with --encoderType conv they replace its first layer, which is "
        "--encoderType sinc",
        json_schema_extra={"encoder_type": "pitchmap"},
    )
    hidden_encoder: int = Field(
        0,
        ge=0,
        description="channels of the latents, per pitch with a pitch axis of 88 "
        "(default: 8 for harmonic, 32 for pitchmap, 256 for sinc and conv)",
    )
    sinc_mode: Literal["quadrature", "plain"] = Field(
        "quadrature",
        description="output of the filters, log magnitudes of quadrature pairs, which "
        "are invariant to phase, or waveforms",
        json_schema_extra=_SINC,
    )
    sinc_kernel: int = Field(
        2048,
        ge=251,
        description="filter length in samples; resolving pitches df Hz apart takes "
        "about 16000 / df",
        json_schema_extra=_SINC,
    )
    sinc_spacing: Literal["semitone", "mel"] = Field(
        "semitone",
        description="scale on which the filters are evenly spaced initially",
        json_schema_extra=_SINC,
    )
    norm_mode: Literal["channelNorm", "batchNorm", "instanceNorm", "none"] = Field(
        "channelNorm", description="normalisation layers of the encoder"
    )
    ar_mode: Literal["GRU", "LSTM", "RNN", "transformer", "conv"] = Field(
        "conv",
        description="context network; conv (dilated causal convolutions) requires "
        "--encoderType pitchmap (default: conv for pitchmap, GRU for other encoders)",
    )
    hidden_gar: int = Field(
        0,
        ge=0,
        description="dimension of the contexts, per pitch if pitchwise; a multiple of "
        "8 for a transformer (default: 16 if pitchwise, 32 for conv, else 256)",
    )
    gar_mode: Literal["pitchwise", "joint"] = Field(
        "pitchwise",
        description="with a pitch axis and a recurrent --arMode: one context per "
        "pitch, with weights shared across pitch, or one for all pitches",
    )
    layers_gar: int = Field(1, ge=1, description="number of context network layers")
    abspos: bool = Field(
        False,
        description="use absolute instead of relative positional encoding",
        json_schema_extra={"ar_mode": "transformer"},
    )
    cpc_mode: Literal["forward", "reverse"] = Field(
        "forward", description="predict the future from the past, or the reverse"
    )
    dropout: float = Field(
        0.0, ge=0, le=0.9, description="dropout rate of the contexts"
    )

    @classmethod
    def _complete(cls, values, chosen):
        """Choose context network and sizes if they are not specified."""
        encoder = values.get("encoder_type", cls.encoder_type)
        if values.get("use_sinc_net") and encoder in ("conv", "sinc"):
            encoder = values["encoder_type"] = "sinc"
            del values["use_sinc_net"]
        if encoder != "pitchmap" or "gar_mode" in chosen:
            values.setdefault("ar_mode", "GRU")
        context = values.get("ar_mode", cls.ar_mode)
        if context == "conv" and encoder != "pitchmap":
            raise InputError("--arMode conv needs --encoderType pitchmap")
        if not ENCODERS[encoder].pitch_axis or context == "transformer":
            if chosen.get("gar_mode") == "pitchwise":
                raise InputError(
                    "--garMode pitchwise needs --encoderType harmonic or pitchmap, and "
                    "--arMode GRU, LSTM or RNN"
                )
            values["gar_mode"] = "joint"
        elif context == "conv" and chosen.get("gar_mode") == "joint":
            raise InputError("--garMode joint needs another --arMode than conv")
        kind = context if context == "conv" else values.get("gar_mode", cls.gar_mode)
        size = values.get("hidden_encoder") or ENCODERS[encoder].channels
        values["hidden_encoder"] = size[encoder] if isinstance(size, dict) else size
        size = values.get("hidden_gar") or _HIDDEN_GAR
        values["hidden_gar"] = size[kind] if isinstance(size, dict) else size

    @property
    def network(self):
        """Settings of the network by name, without those of the run."""
        return {n: value for n, value in asdict(self).items() if n in NETWORK}

    def _attends(self):
        """Return whether a transformer divides the contexts among its heads."""
        return self.ar_mode == "transformer"

    def _drops(self):
        """Return whether a rate of dropout has an effect."""
        return self.ar_mode == "transformer"

    def _check(self):
        """Refuse conflicting settings of the network."""
        if self.dropout and not self._drops():
            raise InputError("--dropout needs --arMode transformer to train on labels")
        if self.ar_mode == "conv" and self.layers_gar > 1:
            raise InputError("--layersGar needs another --arMode than conv")
        if self._attends() and self.hidden_gar % 8:
            raise InputError(
                f"--hiddenGar is {self.hidden_gar}; expected a multiple of 8 for a "
                "transformer, which has 8 heads"
            )
        if self.encoder_type == "sinc" and self.hidden_encoder < 2:
            # A filter's width is its distance to the next filter.
            raise InputError(
                f"--hiddenEncoder is {self.hidden_encoder}; expected at least 2 for "
                "--encoderType sinc"
            )


NETWORK = {*NetworkConfig.__pydantic_fields__} - {*RunConfig.__pydantic_fields__}
"""Names of the settings of a network, without those of a run."""


@settings
class SupervisedConfig(NetworkConfig):
    """Settings of supervised training."""

    idle: ClassVar[tuple] = ("max_chunks_in_mem", "chunk_size")

    task: Literal[
        "transcription",
        "who_plays_what",
        "multipitch",
        "instrument_activity",
        "ensemble",
        "composer",
        "instrument",
        "note_pitch",
        "note_instrument",
    ] = Field(
        "transcription",
        description="notes with onset and offset (transcription) or with their "
        "instruments (who_plays_what); active pitches (multipitch) or instruments "
        "(instrument_activity) per frame; ensemble, composer or solo instrument per "
        "window; pitch or instrument of single notes (note_pitch, note_instrument)",
    )
    on_encoder: bool = Field(
        False, description="input of the heads: the latents z alone, not z and c"
    )
    frozen: bool = Field(
        False,
        description="with --load: freeze the network and train only the heads, instead "
        "of fine-tuning all",
    )
    transcription_window: int = Field(
        1280,
        ge=100,
        description="length of a training window in milliseconds",
        json_schema_extra={"task": "transcription"},
    )

    def _check(self):
        """Refuse conflicting settings of supervised training."""
        if self.frozen and not self.load:
            raise InputError("--frozen needs --load")
        super()._check()


def make_config(kind, preset, chosen):
    """
    Make settings from a preset and the user's choices.

    Parameters
    ----------
    kind : type
        The dataclass of the settings.
    preset : str
        One of :data:`PRESETS`.
    chosen : dict
        Settings by field name, which override the preset.

    Returns
    -------
    RunConfig
        Settings of type `kind`, complete and validated.

    Raises
    ------
    InputError
        If a setting is unknown or outside its limits, or conflicts with another.

    Examples
    --------
    >>> config = make_config(NetworkConfig, "reference", {"n_epoch": 10})
    >>> config.encoder_type, config.hidden_encoder, config.n_epoch
    ('conv', 512, 10)
    """
    values = {}
    for cls in reversed(kind.__mro__):
        values |= vars(cls).get("presets", {}).get(preset, {})
    values |= chosen
    try:
        kind(**chosen)
        kind._complete(values, chosen)
        default = asdict(kind())
        for name, item in kind.__pydantic_fields__.items():
            for other, needed in (item.json_schema_extra or {}).items():
                if name not in values or values.get(other, default[other]) == needed:
                    continue
                if chosen.get(name, default[name]) != default[name]:
                    needs = _flags(item.json_schema_extra)
                    raise InputError(f"--{flag(name)} needs {needs}")
                del values[name]  # from the preset, and without effect
        config = kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, known = first["loc"][0], sorted(kind.__pydantic_fields__)
        if name not in known:
            raise InputError(
                f"unknown setting {name!r}; expected one of {known}"
            ) from None
        expected = first["msg"].removeprefix("Value error, ")
        expected = re.sub("^Input should be (?=[gl])", "a number ", expected)
        expected = expected.removeprefix("Input should be ")
        raise InputError(
            f"--{flag(name)} is {first['input']!r}; expected {expected}"
        ) from None
    config._check()
    return config


def add_flags(parser, groups):
    """
    Add the flags of settings to a parser; absent flags are absent from its result.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser to add the flags to.
    groups : dict of str to type
        Classes of settings by title of their group; a setting that several classes
        share is listed in the first.
    """
    added = set()
    for title, cls in groups.items():
        group = parser.add_argument_group(title)
        for name, item in cls.__pydantic_fields__.items():
            if name in added:
                continue
            added.add(name)
            kind, choices, text = _explain(item)
            options = {"action": "store_true"}
            if kind is not bool:
                if item.default != "" and "default" not in text:
                    text += f" (default: {item.default})"
                metavars = {int: "N", float: "X", str: "|".join(choices)}
                options = {"type": _int if kind is int else kind}
                options["metavar"] = metavars[kind] or _METAVARS[name]
            options |= {"dest": name, "default": argparse.SUPPRESS}
            text = text.replace("%", "%%")
            group.add_argument(f"--{flag(name)}", help=text, **options)


def _int(word):
    """Parse an integer, which may be written as 1e6."""
    with contextlib.suppress(ValueError, OverflowError):
        if "e" in word and float(word).is_integer():
            return int(float(word))
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r}; expected a whole number")
