"""
The commands: ``jtm VERB``, and ``python main.py`` for ``jtm train``.

A user error prints one line on standard error and exits with code 2. A run that
Ctrl-C or SIGTERM stops saves its progress and exits with code 130. A crash, which is
a fault of the program, prints one line too, or its traceback with ``--debug``.
"""

import argparse
import contextlib
import difflib
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path

import jtm
from jtm.constants import INSTRUMENTS, SAMPLE_RATE
from jtm.cpc.config import PretrainConfig
from jtm.data import batch, musicnet, store
from jtm.data.toyset import toy_data
from jtm.files import (
    ROOT,
    STOPPED,
    InputError,
    StoppedError,
    alternatives,
    check_output,
    describe,
    show_warnings_in_one_line,
)
from jtm.music import audio
from jtm.training.config import (
    NETWORK,
    PRESETS,
    NetworkConfig,
    RunConfig,
    SupervisedConfig,
    add_flags,
    flag,
    make_config,
)
from jtm.training.processes import is_first, process_info
from jtm.transcriber.config import TranscriberConfig


class Parser(argparse.ArgumentParser):
    """Parser that reports an error in one line and accepts no abbreviated options."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)
        self.words = ()

    def parse_known_args(self, args=None, namespace=None):
        """Refuse unknown arguments, suggesting a similar option."""
        self.words = sys.argv[1:] if args is None else args
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = _suggest(unknown[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, unknown

    def error(self, message):
        """Print an error in one line, and exit with code 2."""
        dashed = [word for word in self.words if word.startswith("-")]
        for name in filter(os.path.lexists, dashed):  # a file taken for an option
            message += f"; write ./{name}"
        self.exit(2, f"jtm: {message} (see {self.prog} --help)\n")


def _suggest(word, known):
    """Suggest a correction of a misspelt or abbreviated word, for a message."""
    matches = [candidate for candidate in known if candidate.startswith(word)]
    matches = matches or difflib.get_close_matches(word, known, 1, 0.7)
    return f"; did you mean {matches[0]}?" if matches else ""


VERBS = {}
"""Function of each command, which takes the parsed options, and its options."""


def _verb(*options):
    """Register a command named like its function, whose docstring is its help."""

    def add(function):
        VERBS[function.__name__[1:].replace("_", "-")] = function, options
        return function

    return add


def _option(usage, text, **settings):
    """
    Declare an option: usage, such as ``--out DIR``, help, and settings for argparse.

    Without a metavar or choices it is a switch.
    """
    name, _, metavar = usage.partition(" ")
    if metavar:
        settings["metavar"] = metavar
    elif "choices" not in settings:
        settings["action"] = "store_true"
    if "default" in settings:
        text += " (default: %(default)s)"
    return name, settings | {"help": text}


DATA = _option("--data DIR", "dataset in MusicNet's layout", required=True)
STORE = _option(
    "--store DIR",
    "folder for the 16 kHz copies of datasets (default: the environment variable "
    f"{store.CACHE_VARIABLE}, else the dataset folder, or ~/.cache/jtm if read-only)",
)
DECODING = (
    _option(
        "--onset-threshold P",
        "onset probability threshold, above 0 and below 1; lower detects more notes, "
        "and a quarter of it is enough for a pitch that becomes and remains active "
        "(default: tuned on validation recordings)",
        type=float,
    ),
    _option(
        "--frame-threshold P",
        "frame probability threshold, above 0 and below 1; lower makes notes longer "
        "(default: tuned on validation recordings)",
        type=float,
    ),
    _option("--min-note-ms MS", "minimum note length in ms (default: 50)", type=float),
    _option(
        "--pitch-range LOW-HIGH",
        "discard notes outside this range, such as G3-E7 or MIDI 55-100",
    ),
    _option(
        "--instruments NAME,...",
        "instruments of the ensemble (default: detect them among "
        + ", ".join(INSTRUMENTS.values())
        + ")",
    ),
    _option(
        "--weights FILE",
        "weights of the transcriber: a .safetensors file, or a checkpoint of "
        "`main.py --supervised` (default: the shipped transcriber)",
    ),
)
"""Decoding options of the commands that transcribe."""

INPUTS = _option(
    "inputs FILE", "audio files, or folders to search recursively", nargs="+"
)
"""Inputs of the commands that process many files."""

PARALLEL = (
    _option("--jobs N", "number of worker processes", type=int, default=1),
    _option(
        "--scheduler ADDRESS",
        "Dask scheduler whose workers, which must see the same files, do the "
        "processing; requires `pip install jtm[cluster]`",
    ),
)
"""Options for parallel processing of many files."""


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
        Exit code: 0 success; 1 if a check or some of the files failed, or the
        program crashed; 2 user error; 130 stopped.
    """
    parser = Parser(
        prog="jtm", description="Self-supervised learning of music from raw audio."
    )
    version = f"jtm {jtm.__version__}"
    parser.add_argument("--version", action="version", version=version)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (function, _) in VERBS.items():
        summary, _, epilog = inspect.getdoc(function).partition("\n")
        texts = {"help": summary, "description": summary, "epilog": epilog}
        texts["formatter_class"] = argparse.RawDescriptionHelpFormatter
        _add_options(verbs.add_parser(verb, **texts), verb)
    words = sys.argv[1:] if arguments is None else arguments
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb and verb not in VERBS:
        parser.error(f"no command {verb!r}{_suggest(verb, VERBS)}")
    options = parser.parse_args(words)
    return run(lambda: VERBS[options.verb][0](options), options)


def train_main(arguments=None):
    """
    Run ``python main.py``: pretraining, or supervised training.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; that of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    parser = Parser(prog="main.py", description=_train.__doc__)
    _add_options(parser, "train")
    options = parser.parse_args(arguments)
    return run(lambda: VERBS["train"][0](options), options)


def _add_options(parser, verb):
    """Add the options of a command to its parser."""
    for name, settings in VERBS[verb][1]:
        parser.add_argument(name, **settings)
    if verb == "train":
        groups = {
            "run": RunConfig,
            "network": NetworkConfig,
            "CPC pretraining": PretrainConfig,
            "supervised training (--supervised)": SupervisedConfig,
            "transcriber (--preset transcriber)": TranscriberConfig,
        }
        add_flags(parser, groups)
    name, settings = _option("--debug", "print the traceback of a crash")
    parser.add_argument(name, **settings)


def run(command, common=None):
    """
    Run a command's function, reporting a user error in one line.

    Parameters
    ----------
    command : callable
        Takes nothing; returns an exit code or None.
    common : argparse.Namespace, optional
        The options of the command.

    Returns
    -------
    int
        The exit code.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, open(os.devnull, "w"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # file names may not be encodable
            stream.reconfigure(errors="backslashreplace")
    show_warnings_in_one_line()
    if getattr(common, "store", None):
        os.environ[store.CACHE_VARIABLE] = os.path.abspath(common.store)
    musicnet.OPENED.clear()
    try:
        if common:
            _check_paths(common)
        code = command() or 0
        for folder, message in musicnet.OPENED.items() if is_first() else ():
            print(f"{folder}: {message}")
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"jtm: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, StoppedError):
        if is_first():
            print(STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has exited, as in `... | head`
        return 1
    except Exception as error:
        if common and common.debug:
            raise
        print(f"jtm: {describe(error)}", file=sys.stderr)
        return 1
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # such as a closed pipe or a full disk
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_paths(options):
    """Refuse missing paths before the slow import of PyTorch."""
    given = {name: value for name, value in vars(options).items() if value}
    folders = [given[name] for name in ("data", "real", "scores") if name in given]
    folders += given["also"].split(",") if "also" in given else []
    for folder in folders:
        if not Path(folder).is_dir():
            is_file = Path(folder).exists()
            problem = "is a file; expected a folder" if is_file else "no such folder"
            raise InputError(f"{folder}: {problem}")
    for name in ("load", "weights", "index"):
        if name in given and not (path := Path(given[name])).is_file():
            if path.exists():
                raise InputError(f"{path}: is a folder; expected a file")
            hint = alternatives(path, f"*{path.suffix or '.pt'}")
            raise InputError(f"{path}: no such file{hint}")
    for name in ("input", "audio"):
        if name in given:
            audio.rate(given[name])
    for name in given.get("inputs", ()):
        if not os.path.lexists(name):
            raise InputError(f"{name}: no such file or folder")
    if "out" in given and "verb" in given:  # scripts check their own
        settings = dict(VERBS[given["verb"]][1])["--out"]
        check_output(given["out"], is_folder=settings["metavar"] == "DIR")


def _checkout(verb):
    """Refuse a command that needs a checkout of the repository, outside of one."""
    if not (ROOT / "toy" / "generate.py").exists():
        raise InputError(
            f"jtm {verb} needs a checkout of the repository; run `pip install -e .` in "
            "one"
        )


@_verb(
    STORE,
    _option(
        "--preset",
        "default settings, which other options override: tiny for a smoke test, small "
        "for a laptop, best as for the shipped network, reference as published in "
        "2018; transcriber trains the model of `jtm transcribe` on labels",
        choices=PRESETS,
        default="small",
    ),
    _option(
        "--supervised",
        "train on labels: fine-tune the checkpoint given by --load, or train from "
        "scratch without it",
    ),
)
def _train(options):
    """Pretrain a network by CPC, or train one on labels with --supervised."""
    own = ("preset", "supervised", "verb", "store", "debug")
    chosen = {name: value for name, value in vars(options).items() if name not in own}
    preset = options.preset
    cls, mode, folder = PretrainConfig, "without --supervised", "logs"
    if preset == "transcriber":
        cls, mode = TranscriberConfig, "with --preset transcriber"
        folder = "logs/transcriber"
        if options.supervised:
            raise InputError(f"--supervised has no effect {mode}, which implies it")
    elif options.supervised:
        cls, mode = SupervisedConfig, "with --supervised"
        folder = f"logs/supervised-{chosen.get('task', cls.task)}"
    for name in chosen:
        if name not in cls.__pydantic_fields__:
            if name in TranscriberConfig.__pydantic_fields__:
                mode = "without --preset transcriber"
            raise InputError(f"--{flag(name)} has no effect {mode}")
        if cls is not PretrainConfig and name in NETWORK and chosen.get("load"):
            raise InputError(
                f"--{flag(name)} has no effect {mode} --load: "
                "the checkpoint defines the network"
            )
    chosen["path_checkpoint"] = chosen.get("path_checkpoint") or folder
    config = make_config(cls, preset, chosen)  # refuses user errors before any work
    if cls is not PretrainConfig and process_info().world_size > 1:
        raise InputError(f"{mode[5:]} trains in one process, without torchrun or srun")
    # Of several processes, only the first prints.
    with contextlib.redirect_stdout(None if process_info().rank else sys.stdout):
        _start(config, preset)


def _default_data(preset):
    """Return the folder of MusicNet if present, else that of a toy set."""
    if Path("data/musicnet").is_dir():
        return "data/musicnet"
    return toy_data(preset if preset in ("tiny", "transcriber") else "small")


def _start(config, preset):
    """Train with given settings, on the dataset that they name or the default one."""
    from jtm.training.checkpoints import initial_model, read_checkpoint
    from jtm.training.folder import check

    # Fast checks first, before a toy set is synthesised.
    if config.load and isinstance(config, SupervisedConfig):
        config = initial_model(config)[1]
    elif isinstance(config, TranscriberConfig):
        from jtm.transcriber.run import start

        config = start(config)[0]
    elif config.load:
        read_checkpoint(config.load)
    check(config)
    config = replace(config, data=config.data or _default_data(preset))
    print(f"data {config.data}, checkpoints and curves in {config.path_checkpoint}")
    if isinstance(config, SupervisedConfig):
        from jtm.cpc.supervised import run as run_supervised

        run_supervised(config)
    elif isinstance(config, TranscriberConfig):
        from jtm.transcriber.run import train

        train(config)
    else:
        from jtm.cpc.run import pretrain

        print(f"last checkpoint: {pretrain(config, progress=not process_info().rank)}")


@_verb(
    STORE,
    _option(
        "--out DIR", "output folder (default: logs/demo, or logs/demo-tiny of tiny)"
    ),
    _option(
        "--preset",
        "small takes about eight minutes on two cores; tiny is a smoke test of less "
        "than a minute, whose scores mean nothing",
        choices=("small", "tiny"),
        default="small",
    ),
)
def _demo(options):
    """Run all steps on a toy dataset: pretrain, fine-tune, transcribe, identify."""
    _checkout("demo")
    from jtm.cpc.demo import LABELLED, demo
    from jtm.data.rolls import read_notes
    from jtm.embedding import WEIGHTS
    from jtm.evaluation.metrics import note_f1
    from jtm.transcriber.transcribe import transcribe

    out = options.out or "logs/demo" + "-tiny" * (options.preset == "tiny")
    pieces, checkpoint = demo(options.preset, out, WEIGHTS)
    print(f"\ntest pieces, transcribed after training on {LABELLED} recordings:")
    for piece in pieces:
        result = transcribe(piece.audio, weights=checkpoint)
        result = replace(result, piece=_piece(piece.audio))
        truth = read_notes(piece, round(result.seconds * SAMPLE_RATE))
        *_, page = result.save(out, overwrite=True)
        print(
            f"{piece.metadata['composition']} ({piece.metadata['ensemble']}): note F1 "
            f"{100 * note_f1(truth, result.notes):.1f} %, "
            f"{'identified as ' + result.piece if result.piece else 'not identified'}; "
            f"page: {page}"
        )


@_verb(
    DATA,
    STORE,
    _option(
        "--load CHECKPOINT",
        "checkpoint pretrained with --encoderType pitchmap",
        required=True,
    ),
    _option(
        "--only KEY=VALUE",
        "select runs by family, method, amount (number of labelled recordings, 0 for "
        "all) or seed; repeat it for several values of a KEY, or for several KEYs, "
        "all of which must match",
        action="append",
    ),
    _option(
        "--spread",
        "label windows of 1.28 s spread over all training recordings, with the same "
        "total duration, instead of whole recordings; requires a separate --out",
    ),
    _option(
        "--out DIR",
        "folder for the scores, one file per run, compiled into benchmark.csv.gz; "
        "finished runs are skipped, and several processes can share the folder",
        default="logs/benchmark",
    ),
    _option(
        "--work DIR",
        "folder for cached log magnitudes, which can be recomputed",
        default="logs/benchmark/work",
    ),
    _option(
        "--real DIR",
        "real recordings, each with its notes in MusicNet's columns next to it "
        "(NAME.flac, NAME.csv), scored as a separate split",
    ),
)
def _benchmark(options):
    """Compare training on few labels, with and without unlabelled audio."""
    from jtm.cpc import benchmark

    only, choices = {}, benchmark.CHOICES
    for text in options.only or ():
        key, _, value = text.partition("=")
        if key not in choices:
            raise InputError(f"--only {text}: expected a KEY of {', '.join(choices)}")
        valid = {str(choice): choice for choice in choices[key]}
        if value not in valid:
            raise InputError(f"--only {text}: expected one of {', '.join(valid)}")
        only.setdefault(key, []).append(valid[value])
    paths = (options.data, options.load, options.out, options.work)
    benchmark.Benchmark(*paths, real=options.real, spread=options.spread).run(only)


@_verb(
    DATA,
    STORE,
    _option("--load CHECKPOINT", "checkpoint of the network", required=True),
    _option(
        "--out FILE",
        "JSON file for the results; `jtm report` plots report/results/inside.json",
        default="logs/inside/inside.json",
    ),
    _option(
        "--work DIR",
        "folder for cached features, which can be recomputed",
        default="logs/inside",
    ),
)
def _inside(options):
    """Probe a network: its filters, what z and c encode, and for how long."""
    from jtm.cpc.inside import analyse

    analyse(options.load, options.data, options.out, options.work)
    print(f"results in {options.out}; `jtm report` plots report/results/inside.json")


@_verb()
def _report(_):
    """Regenerate tables, sentences and figures of all pages from report/results."""
    _checkout("report")
    from jtm.cpc.figures import inside_figures, read_analyses
    from jtm.results import render
    from jtm.retrieval.figures import retrieval_figures

    tables = _tables()
    render.report(ROOT, tables)
    results = ROOT / "report" / "results"
    inside = tables["cpc_tables"], inside_figures, read_analyses, ("memory",)
    render.study(results / "inside.json", *inside)
    retrieval = tables["retrieval_tables"], retrieval_figures
    render.study(results / "retrieval.json", *retrieval)


def _tables():
    """Return the modules of the studies' tables, by their names in templates."""
    from jtm.cpc import tables as cpc
    from jtm.retrieval import tables as retrieval
    from jtm.transcriber import tables as transcriber

    return {
        "cpc_tables": cpc,
        "retrieval_tables": retrieval,
        "transcriber_tables": transcriber,
    }


@_verb(
    _option("data DIR", "dataset in MusicNet's layout, or folder of audio files"),
    _option("--all", "list all failing files, not only ten"),
)
def _check_data(options):
    from jtm.data.check import check

    report = check(options.data)
    print(report.table(None if options.all else 10))
    return int(report.failed)


_check_data.__doc__ = (
    "Check a dataset: labels within the audio, onsets, pitches, levels.\n\n"
    + musicnet.WHERE_TO_GET_MUSICNET
)


@_verb(
    INPUTS,
    _option(
        "--out DIR",
        "output folder; each .npz file has the arrays embedding and times, about 2 GB "
        "per hour of audio with the shipped network; unchanged inputs are skipped",
        required=True,
    ),
    _option(
        "--load FILE",
        "network: a .safetensors file or a .pt checkpoint (default: the shipped one)",
    ),
    _option(
        "--layer",
        "contexts c, which summarise the past, latents z, or both concatenated",
        choices=("c", "z", "zc"),
        default="c",
    ),
    *PARALLEL,
)
def _embed(options):
    """Compute embeddings of audio files with a pretrained network, as .npz files."""
    from jtm.embedding import embed_files

    how = batch.Options(options.jobs, options.scheduler, options.debug)
    chosen = (options.inputs, options.out, options.load, options.layer, how)
    return int(embed_files(*chosen) > 0)


@_verb(
    INPUTS,
    _option(
        "--out DIR",
        "output folder for NAME.mid, NAME.csv and NAME.html; inputs that are "
        "unchanged are skipped, or transcribed again if the options differ; no other "
        "file is overwritten",
        required=True,
    ),
    _option("--no-page", "do not write the page, NAME.html"),
    _option(
        "--melody",
        "write only the melody, the line that a listener would sing back, as "
        "NAME.melody.mid, NAME.melody.csv and NAME.melody.html",
    ),
    *DECODING,
    *PARALLEL,
)
def _transcribe(options):
    """Transcribe audio files to MIDI, note tables and HTML pages with a player."""
    from jtm.transcriber.transcribe import transcribe_files

    failed = transcribe_files(
        options.inputs,
        options.out,
        _choices(options),
        options.weights,
        page=not options.no_page,
        alone=options.melody,
        name=_piece,
        options=batch.Options(options.jobs, options.scheduler, options.debug),
    )
    return int(failed > 0)


def _choices(options):
    """Return the decoding options that are given."""
    from jtm.transcriber.notes import Choices

    given = {name: getattr(options, name) for name in Choices.__dataclass_fields__}
    given = {n: value for n, value in given.items() if value not in (None, "")}
    return Choices(**given)


def _piece(path):
    """Return the title of the piece in an audio file; empty if it is not found."""
    from jtm.retrieval import search

    wave = audio.read(path, seconds=search.NAMING_SECONDS, clipped=False, skip=True)
    return search.identify(wave) or ""


@_verb(_option("input FILE", "audio file"), *DECODING)
def _melody(options):
    """Print the melody of a recording as note names."""
    from jtm.transcriber.melody import spell
    from jtm.transcriber.transcribe import transcribe

    choices = vars(_choices(options))
    melody = transcribe(options.input, weights=options.weights, **choices).melody()
    print(spell(melody.notes) or f"{options.input}: no melody detected")


@_verb(
    _option(
        "--load FILE",
        "pretraining checkpoint, or a .safetensors file (default: the shipped network)",
    ),
    _option(
        "--out FILE",
        "output file, NAME.safetensors; NAME.json describes its training",
        required=True,
    ),
)
def _export(options):
    """Export the network of a checkpoint as safetensors."""
    from jtm import embedding
    from jtm.training import checkpoints

    facts = checkpoints.export(options.load or embedding.WEIGHTS, options.out)
    print(
        f"{options.out}: {facts['parameters']} parameters in {facts['bytes']} bytes, "
        f"SHA-256 {facts['sha256']}"
    )


@_verb(
    _option("scores SCORES_FOLDER", "folder of scores, searched recursively"),
    _option(
        "--out INDEX",
        "output file, NAME.safetensors; an existing index of this folder is updated "
        "with the scores that have changed",
        required=True,
    ),
)
def _index(options):
    """Index a folder of scores (MIDI, MusicXML, ABC, kern) for `jtm identify`."""
    from jtm.retrieval.search import build

    return int(build(options.scores, options.out) > 0)


@_verb(
    _option("audio AUDIO", "audio file"),
    _option(
        "--index INDEX",
        "index built by `jtm index` (default: 613 scores of music21's corpus: 306 "
        "sections of Palestrina's masses, 225 Bach chorales, 38 Monteverdi madrigals, "
        "and 44 movements, most of string quartets)",
    ),
)
def _identify(options):
    """
    Identify the piece of a recording: the five best matches and the positions in them.

    Tempi of 30 to 289 quarter notes a minute are searched and, for recordings of 17
    seconds or more, transpositions of up to an octave.
    """
    from jtm.retrieval.pages import describe

    print(describe(options.audio, options.index))


@_verb(
    _option(
        "--data DIR",
        "dataset in MusicNet's layout with beats in the labels of every split, as "
        "`python toy/pairs.py --out DIR` writes it",
        required=True,
    ),
    STORE,
    _option("--load CHECKPOINT", "pretrained network, from which some runs start"),
    _option(
        "--only RUN",
        "name of a run, baselines, or pieces; can be repeated (default: all)",
        action="append",
    ),
    _option(
        "--scores DIR",
        "folder of the performed scores, to evaluate identification among them",
    ),
    _option(
        "--out DIR",
        "folder for checkpoints and scores; finished runs are skipped",
        default="logs/retrieval",
    ),
)
def _retrieval(options):
    """Train and evaluate audio and score encoders for piece identification."""
    from jtm.retrieval.run import study

    chosen = (options.data, options.out, options.load, options.only, options.scores)
    print(f"scores in {study(*chosen)}")
