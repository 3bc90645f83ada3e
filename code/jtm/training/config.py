"""
Settings of a run: one frozen dataclass each, to and from JSON and flags.

A field is the only place where a setting is named, typed, limited, defaulted
and explained: its flag, its help and its check are derived from it. The
defaults are the preset `small`; the other presets say only what differs.
"""

import argparse
import functools
import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import ClassVar, get_type_hints

from jtm.files import InputError, read_json, write_json
from jtm.models import ENCODERS

CONFIG_FILE = "config.json"
"""Name of the file that keeps a run's settings beside its checkpoints."""


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


def documented(kind):
    """
    Add the help of each setting to the docstring of its class.

    Parameters
    ----------
    kind : type
        A dataclass of settings.

    Returns
    -------
    type
        The same class.
    """
    lines = [kind.__doc__ or "", "", "Parameters", "----------"]
    for item in fields(kind):
        text = item.metadata["help"]
        lines += [f"{item.name} : {item.type.__name__}"]
        lines += [f"    {text[0].upper()}{text[1:]}."]
    kind.__doc__ = "\n".join(lines + [""])
    return kind


@documented
@dataclass(frozen=True)
class RunConfig:
    """Settings that every run has."""

    presets: ClassVar[dict] = {}
    """What each preset changes of the defaults, with what the parent's changes."""

    may_grow: ClassVar[bool] = False
    """Whether a run may be given more epochs: no step depends on their number."""

    idle: ClassVar[tuple] = ()
    """Settings that are taken and do nothing."""

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

    @classmethod
    def _complete(cls, values, chosen):
        """Fill in place values that depend on others; refuse what cannot be."""

    def _check(self):
        """Refuse settings that do not go together."""


@documented
@dataclass(frozen=True)
class NetworkConfig(RunConfig):
    """Settings of the network."""

    presets: ClassVar[dict] = {
        "best": {"n_epoch": 3},
        "tiny": {
            "hidden_encoder": {name: each.tiny for name, each in ENCODERS.items()},
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

    encoder_type: str = setting(
        "harmonic",
        "network from waveform to latents: plain convolutions, learned band-pass "
        "filters, or harmonics stacked on a pitch axis, the weights shared across it, "
        "every 10 ms (harmonic) or deeper and every 20 ms (pitchmap)",
        choices=tuple(ENCODERS),
    )
    hidden_encoder: int = setting(
        0,
        "channels of the latents; with a pitch axis, channels of each of the 88 "
        "pitches (default: 8 for harmonic, 32 for pitchmap, 256 for sinc and conv)",
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
    learn_filters: bool = setting(
        False,
        "learn the filters' centres and widths, as SincNet does",
        needs=("encoder_type", "pitchmap"),
    )
    norm_mode: str = setting(
        "channelNorm",
        "normalisation inside the encoder",
        choices=("channelNorm", "batchNorm", "instanceNorm", "none"),
    )
    ar_mode: str = setting(
        "GRU",
        "network that summarises the past; conv, dilated causal convolutions, is the "
        "default of --encoderType pitchmap and for it alone",
        choices=("GRU", "LSTM", "RNN", "transformer", "conv"),
    )
    hidden_gar: int = setting(
        0,
        "size of the summary, or of each pitch's if it is pitchwise; a multiple of 8 "
        "for a transformer (default: 16 pitchwise, 32 for conv, else 256)",
        low=0,
    )
    gar_mode: str = setting(
        "pitchwise",
        "with a pitch axis and a recurrent --arMode: summarise each pitch for itself, "
        " with weights shared across pitch, or all pitches jointly",
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

    @classmethod
    def _complete(cls, values, chosen):
        """Choose how the context is made, and sizes, where none are asked for."""
        encoder = values.get("encoder_type", cls.encoder_type)
        if encoder == "pitchmap":
            values.setdefault("ar_mode", "conv")
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
            raise InputError("--garMode joint needs --arMode GRU, LSTM or RNN")
        mode = context if context == "conv" else values.get("gar_mode", cls.gar_mode)
        size = values.get("hidden_encoder") or HIDDEN_ENCODER
        values["hidden_encoder"] = size[encoder] if isinstance(size, dict) else size
        size = values.get("hidden_gar") or HIDDEN_GAR
        values["hidden_gar"] = size[mode] if isinstance(size, dict) else size

    def _attends(self):
        """Tell whether the contexts are divided among a transformer's heads."""
        return self.ar_mode == "transformer"

    def _check(self):
        """Refuse settings of the network that do not go together."""
        if self._attends() and self.hidden_gar % 8:
            raise InputError(
                f"--hiddenGar is {self.hidden_gar}; expected a multiple of 8 for a "
                "transformer, which has 8 heads"
            )
        if self.encoder_type == "sinc" and self.hidden_encoder < 2:
            # A filter's width is the step to the next.
            raise InputError(
                f"--hiddenEncoder is {self.hidden_encoder}; expected at least 2 for "
                "--encoderType sinc"
            )


@documented
@dataclass(frozen=True)
class SupervisedConfig(NetworkConfig):
    """Settings of training with labels."""

    idle: ClassVar[tuple] = ("max_chunks_in_mem", "chunk_size")

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


PRESETS = ("small", "best", "tiny", "reference")
"""Names of the presets; each class of settings says what they change of its own."""

HIDDEN_ENCODER = {name: each.channels for name, each in ENCODERS.items()}
"""Channels of the latents by encoder, where none are asked for."""

HIDDEN_GAR = {"pitchwise": 16, "conv": 32, "joint": 256}
"""Size of the summary by how it is made, where none is asked for."""


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
    >>> config = make_config(NetworkConfig, "reference", {"n_epoch": 10})
    >>> config.encoder_type, config.hidden_encoder, config.n_epoch
    ('conv', 512, 10)
    """
    hints = {item.name: item.type for item in fields(kind)}
    values = {}
    for cls in reversed(kind.__mro__):
        values |= vars(cls).get("presets", {}).get(preset, {})
    values |= chosen
    for name in values.keys() - hints.keys():
        raise InputError(f"unknown setting {name!r}; expected one of {sorted(hints)}")
    for item in fields(kind):
        if item.name in chosen:
            _check_value(item, hints[item.name], chosen[item.name])
    kind._complete(values, chosen)
    for item in fields(kind):
        if item.name in values:
            _check_value(item, hints[item.name], values[item.name])
        _check_need(item, values, chosen, kind)
    config = kind(**values)
    config._check()
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


def _check_value(item, kind, value):
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
        raise InputError(
            f"--{flag(item.name)} is {value!r}; expected {_expected(item)}"
        )


def _expected(item):
    """Say what values a setting may take, such as 'one of a, b'."""
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


def add_flags(parser, groups):
    """
    Add the flags of settings to a command line; an absent flag leaves no trace.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Receives them.
    groups : dict of str to type
        Classes of settings by the title of their group; a setting that several
        have is in the first.
    """
    named = set()
    for title, kind in groups.items():
        group = parser.add_argument_group(title)
        hints = get_type_hints(kind)
        for item in fields(kind):
            if item.name not in named:
                named.add(item.name)
                _add_flag(group, item, hints[item.name])


def _add_flag(group, item, kind):
    """Add the flag of one setting."""
    how = {"help": item.metadata["help"].replace("%", "%%")}
    if kind is bool:
        how |= {"action": "store_true"}
    else:
        if item.default not in ("", 0) and "default" not in how["help"]:
            how["help"] += f" (default: {item.default})"
        choices = "|".join(item.metadata["choices"] or ())
        how["metavar"] = choices or {int: "N", float: "X", str: "TEXT"}[kind]
        how["type"] = functools.partial(_parse, item, kind)
    group.add_argument(
        f"--{flag(item.name)}", dest=item.name, default=argparse.SUPPRESS, **how
    )


def _parse(item, kind, word):
    """Convert a word of the command line; an integer may be written as 1e6."""
    try:
        if kind is int and "e" in word and float(word).is_integer():
            return int(float(word))
        return kind(word)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{word!r}; expected {_expected(item)}"
        ) from error


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
