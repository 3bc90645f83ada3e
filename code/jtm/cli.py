"""
The commands: ``jtm VERB``, and ``python main.py`` for ``jtm train``.

A user's mistake ends in one line on standard error and exit code 2; a run that
is stopped by Ctrl-C or SIGTERM saves first and exits with code 130.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

from jtm.data.musicnet import METADATA_FILE
from jtm.files import InputError
from jtm.training.config import (
    PRESETS,
    NetworkConfig,
    PretrainConfig,
    RunConfig,
    SupervisedConfig,
    expected,
    flag,
    make_config,
)

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, where the toy set's generator is."""


def main(arguments=None):
    """
    Run a command.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; that of the process by default.

    Returns
    -------
    int
        Exit code: 0 done, 1 a check has failed, 2 a user's mistake, 130
        stopped.
    """
    parser = argparse.ArgumentParser(
        prog="jtm", description="Learn music from raw audio, without labels."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (add, _) in VERBS.items():
        text = add.__doc__.strip().splitlines()[0]
        add(verbs.add_parser(name, help=text, description=text))
    return run(lambda: _dispatch(parser.parse_args(arguments)))


def _dispatch(options):
    return VERBS[options.verb][1](options)


def run(command):
    """
    Run a command's function, telling a user's mistake in one line.

    Parameters
    ----------
    command : callable
        Takes nothing; gives an exit code or None.

    Returns
    -------
    int
        The exit code.
    """
    try:
        return command() or 0
    except InputError as error:
        print(f"jtm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jtm: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def train_main(arguments=None):
    """
    Run ``python main.py``: pretraining, or training with labels.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; that of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="main.py", description=_add_train.__doc__)
    _add_train(parser)
    return run(lambda: train(parser.parse_args(arguments)))


def _add_train(parser):
    """Pretrain a CPC network, or train on labels with --supervised."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="sizes to start from, which other options change: tiny for a test of "
        "seconds, small for a laptop, reference for the published recipe",
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="train on labels: on the frozen network of the checkpoint that --load "
        "names, or the whole network from scratch",
    )
    parser.add_argument(
        "--useSincNet",
        action="store_const",
        const="sinc",
        dest="encoder_type",
        default=argparse.SUPPRESS,
        help="short for --encoderType sinc",
    )
    said = set()
    for cls, title in (
        (RunConfig, "every run"),
        (NetworkConfig, "the network"),
        (PretrainConfig, "pretraining, without labels"),
        (SupervisedConfig, "with --supervised"),
    ):
        group = parser.add_argument_group(title)
        hints = get_type_hints(cls)
        for item in fields(cls):
            if item.name not in said:
                _add_flag(group, item, hints[item.name])
                said.add(item.name)


def _add_flag(group, item, kind):
    """Add the flag of one setting; an absent flag leaves no trace."""
    text = item.metadata["help"].replace("%", "%%")
    common = {"dest": item.name, "default": argparse.SUPPRESS}
    if kind is bool:
        group.add_argument(
            f"--{flag(item.name)}", action="store_true", help=text, **common
        )
        return
    if item.default not in ("", 0) and "default" not in text:
        text += f" (default: {item.default})"

    def parse(word):
        try:
            return kind(float(word)) if kind is int and "e" in word else kind(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{word!r}; expected {expected(item)}"
            ) from error

    metavar = (
        "|".join(item.metadata["choices"] or ())
        or {
            int: "N",
            float: "X",
            str: "TEXT",
        }[kind]
    )
    group.add_argument(
        f"--{flag(item.name)}", type=parse, metavar=metavar, help=text, **common
    )


def train(options):
    """
    Pretrain or train with labels, as the options say.

    Parameters
    ----------
    options : argparse.Namespace
        What `main.py` was given.

    Returns
    -------
    int
        The exit code.
    """
    chosen = dict(vars(options))
    preset, supervised = chosen.pop("preset"), chosen.pop("supervised")
    chosen.pop("verb", None)
    cls = SupervisedConfig if supervised else PretrainConfig
    known = get_type_hints(cls)
    network = get_type_hints(NetworkConfig).keys() - get_type_hints(RunConfig).keys()
    for name in chosen:
        if name not in known:
            where = "with" if supervised else "without"
            raise InputError(f"--{flag(name)} does nothing {where} --supervised")
        if supervised and name in network and chosen.get("load"):
            raise InputError(
                f"--{flag(name)} does nothing with --supervised --load: "
                "the checkpoint has its network"
            )
    folder = f"logs/supervised-{chosen.get('task', cls.task)}" if supervised else "logs"
    chosen["path_checkpoint"] = chosen.get("path_checkpoint") or folder
    config = make_config(cls, preset, chosen)  # refuses mistakes before any work
    config = replace(config, data=config.data or default_data(preset))
    print(f"data {config.data}, checkpoints and curves in {config.path_checkpoint}")
    if supervised:
        from jtm.training.supervised import run as run_supervised

        run_supervised(config)
        return 0
    from jtm.training.pretrain import StoppedError, pretrain

    try:
        checkpoint = pretrain(config)
    except StoppedError:
        raise KeyboardInterrupt from None
    print(f"last checkpoint: {checkpoint}")
    return 0


def default_data(preset):
    """
    Give the dataset of who names none, making the toy set if need be.

    Parameters
    ----------
    preset : str
        One of the presets; `tiny` has a toy set of its own.

    Returns
    -------
    str
        MusicNet in ``data/musicnet`` if it is there, else the toy set.

    Raises
    ------
    InputError
        If the toy set cannot be made here.
    """
    if Path("data/musicnet").is_dir():
        return "data/musicnet"
    name = "tiny" if preset == "tiny" else "small"
    folder = Path(os.path.relpath(ROOT / "toy" / "data" / name))
    if not (folder / METADATA_FILE).exists():
        generator = ROOT / "toy" / "generate.py"
        if not generator.exists():
            raise InputError("no dataset given; name one with --data")
        print(f"no --data given and no data/musicnet here: making {folder} first")
        command = [sys.executable, generator, "--preset", name, "--out", folder]
        if subprocess.run(command).returncode:
            raise InputError(f"{folder}: the toy set could not be made; see above")
    return folder.as_posix()


VERBS = {"train": (_add_train, train)}
"""Every verb with what adds its options and what runs it."""
