"""
The commands: ``jtm VERB``, and ``python main.py`` for ``jtm train``.

A user's mistake ends in one line on standard error and exit code 2; a run that
is stopped by Ctrl-C or SIGTERM saves first and exits with code 130. A crash, which is
a fault of the program, ends in one line too, and with ``--debug`` in its traceback.
"""

import argparse
import contextlib
import difflib
import inspect
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import jtm
from jtm.constants import INSTRUMENTS, SAMPLE_RATE
from jtm.cpc.config import PretrainConfig
from jtm.data import batch, musicnet, store
from jtm.data.toyset import default_data
from jtm.files import (
    ROOT,
    STOPPED,
    InputError,
    StoppedError,
    describe,
    others,
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
    """
    Parser that reports a mistake in one line and takes no abbreviated options.

    Parameters
    ----------
    **settings
        Those of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def parse_known_args(self, args=None, namespace=None):
        """Refuse unknown arguments, suggesting what may be meant."""
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            near = nearest(rest[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(rest)}{near}")
        return options, rest

    def error(self, message):
        """Print a mistake in one line, and exit with code 2."""
        self.exit(2, f"jtm: {message} (see {self.prog} --help)\n")


def nearest(word, known):
    """
    Suggest what a misspelt or abbreviated word may stand for.

    Parameters
    ----------
    word : str
        The word.
    known : iterable of str
        The words that are known.

    Returns
    -------
    str
        To be appended to a message; empty where nothing is near.

    Examples
    --------
    >>> nearest("transcirbe", ["train", "transcribe"])
    '; did you mean transcribe?'
    """
    near = [each for each in known if each.startswith(word)]
    near = near or difflib.get_close_matches(word, known, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""


VERBS = {}
"""Each command's function, which takes the parsed options, and its options."""


def _verb(name, *options):
    """Add a command: its docstring's first line is its help, its text goes below."""

    def add(function):
        VERBS[name] = function, options
        return function

    return add


def _option(usage, text, **settings):
    """Declare an option by its usage, such as ``--out DIR``, its help, and the rest."""
    name, _, metavar = usage.partition(" ")
    if metavar:
        settings["metavar"] = metavar
    if "default" in settings:
        text += " (default: %(default)s)"
    return name, settings | {"help": text}


DATA = _option("--data DIR", "dataset in MusicNet's layout", required=True)
STORE = _option(
    "--store DIR",
    "folder for the copies of datasets at 16 kHz, instead of the datasets "
    f"themselves; the environment variable {store.CACHE_VARIABLE} names one too",
)
DEBUG = _option("--debug", "print the traceback of a crash", action="store_true")
NOTES = (
    _option(
        "--onset-threshold P",
        "probability above which a note starts: lower finds more notes (default: "
        "as it was best on validation recordings)",
        type=float,
    ),
    _option(
        "--frame-threshold P",
        "probability above which a note sounds on: lower makes notes longer",
        type=float,
    ),
    _option("--min-note-ms MS", "leave out shorter notes (default: 80)", type=float),
    _option(
        "--pitch-range LOW-HIGH", "leave out notes outside it, such as G3-E7 or 55-100"
    ),
    _option(
        "--instruments NAME,...",
        "the ensemble, where it is known; some of " + ", ".join(INSTRUMENTS.values()),
    ),
    _option(
        "--weights FILE",
        "another transcriber: a .safetensors file, or a checkpoint of "
        "`main.py --supervised`",
    ),
)
"""Options of what tells notes."""

INPUTS = _option(
    "inputs FILE", "sound files, and folders with them at any depth", nargs="+"
)
"""What is worked on, of many files."""

SPREAD = (
    _option("--jobs N", "processes on this machine to do it with", type=int, default=1),
    _option(
        "--scheduler ADDRESS",
        "do it on the workers of this Dask scheduler, which see the same files; "
        "needs `pip install jtm[cluster]`",
    ),
)
"""Options of where many files are worked on."""


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
        Exit code: 0 done, 1 a check or some of the files have failed or the
        program has crashed, 2 a user's mistake, 130 stopped.
    """
    parser = Parser(
        prog="jtm", description="Learn music from raw audio, without labels."
    )
    version = f"jtm {jtm.__version__}"
    parser.add_argument("--version", action="version", version=version)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (function, _) in VERBS.items():
        text, _, epilog = inspect.getdoc(function).partition("\n")
        kind = argparse.RawDescriptionHelpFormatter
        about = {"description": text, "epilog": epilog, "formatter_class": kind}
        _fill(verbs.add_parser(verb, help=text, **about), verb)
    words = sys.argv[1:] if arguments is None else arguments
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb and verb not in VERBS:
        parser.error(f"no command {verb!r}{nearest(verb, VERBS)}")
    options = parser.parse_args(words)
    return run(lambda: VERBS[options.verb][0](options), options)


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
    parser = Parser(prog="main.py", description=_train.__doc__)
    _fill(parser, "train")
    options = parser.parse_args(arguments)
    return run(lambda: VERBS["train"][0](options), options)


def _fill(parser, verb):
    """Add the options of a command to its parser."""
    for name, settings in VERBS[verb][1]:
        parser.add_argument(name, **settings)
    if verb == "train":
        kinds = {"every run": RunConfig, "the network": NetworkConfig}
        kinds["pretraining, without labels"] = PretrainConfig
        kinds["with --supervised"] = SupervisedConfig
        add_flags(parser, kinds | {"with --preset transcriber": TranscriberConfig})
    parser.add_argument(DEBUG[0], **DEBUG[1])


def run(command, common=None):
    """
    Run a command's function, telling a user's mistake in one line.

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
    for stream in (sys.stdout, sys.stderr):  # names may hold what a terminal cannot
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    show_warnings_in_one_line()
    if getattr(common, "store", None):
        os.environ[store.CACHE_VARIABLE] = os.path.abspath(common.store)
    musicnet.OPENED.clear()
    try:
        if common:
            _check_paths(common)
        code = command() or 0
        for folder, told in musicnet.OPENED.items() if is_first() else ():
            print(f"{folder}: {told}")
        return code
    except InputError as error:
        print(f"jtm: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, StoppedError):
        if is_first():
            print(STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has gone, as in `... | head`
        return 1
    except Exception as error:
        if common and common.debug:
            raise
        print(f"jtm: {describe(error)}", file=sys.stderr)
        return 1
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_paths(options):
    """Refuse a path that leads nowhere before PyTorch is imported, which is slow."""
    given = {name: value for name, value in vars(options).items() if value}
    folders = [given[name] for name in ("data", "real", "scores") if name in given]
    folders += given.get("also", "").split(",") if "also" in given else []
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder")
    for name in ("load", "weights", "index"):
        if name in given and not (path := Path(given[name])).is_file():
            near = others(path, f"*{path.suffix or '.pt'}")
            raise InputError(f"{path}: no such file{near}")
    for name in ("input", "audio"):
        if name in given:
            audio.rate(given[name])
    inputs = given.get("inputs")
    if inputs and not any(map(os.path.lexists, inputs)):
        raise InputError(f"{', '.join(inputs)}: no such file or folder")


@_verb(
    "train",
    STORE,
    _option(
        "--preset",
        "sizes to start from, which other options change: tiny for a test of "
        "seconds, small for a laptop, best for the network that comes with the "
        "package, reference for the published recipe; transcriber trains what `jtm "
        "transcribe` uses, on labels",
        choices=PRESETS,
        default="small",
    ),
    _option(
        "--supervised",
        "train on labels: fine-tune the network of the checkpoint that --load "
        "names, or train from scratch",
        action="store_true",
    ),
)
def _train(options):
    """Pretrain a CPC network, or train on labels with --supervised."""
    chosen = dict(vars(options))
    preset, supervised = chosen.pop("preset"), chosen.pop("supervised")
    for name in ("verb", "store", "debug"):
        chosen.pop(name, None)
    cls, where, folder = PretrainConfig, "without --supervised", "logs"
    if preset == "transcriber":
        cls, where = TranscriberConfig, "with --preset transcriber"
        folder = "logs/transcriber"
        if supervised:
            raise InputError(f"--supervised does nothing {where}, which has its labels")
    elif supervised:
        cls, where = SupervisedConfig, "with --supervised"
        folder = f"logs/supervised-{chosen.get('task', cls.task)}"
    known = cls.__pydantic_fields__.keys()
    for name in chosen:
        if name not in known:
            if name in vars(TranscriberConfig)["__annotations__"]:
                where = "without --preset transcriber"
            raise InputError(f"--{flag(name)} does nothing {where}")
        if cls is not PretrainConfig and name in NETWORK and chosen.get("load"):
            raise InputError(
                f"--{flag(name)} does nothing {where} --load: "
                "the checkpoint has its network"
            )
    chosen["path_checkpoint"] = chosen.get("path_checkpoint") or folder
    config = make_config(cls, preset, chosen)  # refuses mistakes before any work
    if cls is not PretrainConfig and process_info().world_size > 1:
        raise InputError(f"{where[5:]} trains in one process, without torchrun or srun")
    # Of the processes that train together, one speaks.
    with contextlib.redirect_stdout(None if process_info().rank else sys.stdout):
        _start(config, preset)


def _start(config, preset):
    """Train as the settings say, on the data that they name or the usual."""
    from jtm.training.checkpoints import initial_model, read_checkpoint
    from jtm.training.folder import check

    # What takes no time first: before a toy set is made.
    if config.load and isinstance(config, SupervisedConfig):
        config = initial_model(config)[1]
    elif config.load:
        read_checkpoint(config.load)
    check(config)
    config = replace(config, data=config.data or default_data(preset))
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
    "demo",
    STORE,
    _option("--out", "folder for all that comes of it", default="logs/demo"),
    _option(
        "--preset",
        "small takes about eight minutes on two cores, tiny is a test of less "
        "than a minute whose scores mean nothing",
        choices=("small", "tiny"),
        default="small",
    ),
)
def _demo(options):
    """Make the toy set, pretrain, learn from few labels, transcribe and name pieces."""
    from jtm.cpc.demo import LABELLED, demo
    from jtm.data.rolls import read_notes
    from jtm.embedding import WEIGHTS
    from jtm.evaluation.metrics import note_f1
    from jtm.transcriber.transcribe import transcribe

    pieces, checkpoint = demo(options.preset, options.out, WEIGHTS)
    print(f"\ntest pieces, transcribed by what learned from {LABELLED} recordings:")
    for piece in pieces:
        made = transcribe(piece.audio, weights=checkpoint)
        made = replace(made, piece=_piece(piece.audio))
        truth = read_notes(piece, round(made.seconds * SAMPLE_RATE))
        *_, page = made.save(options.out, overwrite=True)
        print(
            f"{piece.metadata['composition']} ({piece.metadata['ensemble']}): note F1 "
            f"{100 * note_f1(truth, made.notes):.1f} %, "
            f"{'named ' + made.piece if made.piece else 'not recognised'}; "
            f"to see and hear: {page}"
        )


@_verb(
    "benchmark",
    DATA,
    STORE,
    _option(
        "--load CHECKPOINT",
        "network pretrained with --encoderType pitchmap",
        required=True,
    ),
    _option(
        "--only KEY=VALUE",
        "run these alone; KEY is family, method, amount (labelled recordings, 0 "
        "for all) or seed; several values of one KEY add up, several KEYs narrow down",
        action="append",
    ),
    _option(
        "--spread",
        "give out the labels, as many seconds of them, as windows of 1.28 s spread "
        "over all training recordings; needs an --out of its own",
        action="store_true",
    ),
    _option(
        "--out DIR",
        "folder for the scores, a file for each run, compiled into "
        "benchmark.csv.gz; what has run is not run again, and several processes may "
        "share the work",
        default="logs/benchmark",
    ),
    _option(
        "--work DIR",
        "folder for log magnitudes, which can be made again",
        default="logs/benchmark/work",
    ),
    _option(
        "--real FOLDER",
        "recordings that are no synthesiser, each with its notes in MusicNet's "
        "columns beside it (NAME.flac, NAME.csv), to be scored as a split of their own",
    ),
)
def _benchmark(options):
    """Compare what learns from few labels, with and without audio that has none."""
    from jtm.cpc import benchmark

    only, choices = {}, benchmark.CHOICES
    for text in options.only or ():
        key, _, word = text.partition("=")
        if key not in choices:
            raise InputError(f"--only {text}: expected a KEY of {', '.join(choices)}")
        known = {str(value): value for value in choices[key]}
        if word not in known:
            raise InputError(f"--only {text}: expected one of {', '.join(known)}")
        only.setdefault(key, []).append(known[word])
    chosen = (options.data, options.load, options.out, options.work)
    more = {"real": options.real, "spread": options.spread}
    benchmark.Benchmark(*chosen, **more).run(only)


@_verb(
    "inside",
    DATA,
    STORE,
    _option("--load CHECKPOINT", "pretrained network", required=True),
    _option(
        "--out FILE",
        "answers; `jtm report` draws report/results/inside.json",
        default="logs/inside/inside.json",
    ),
    _option(
        "--work DIR",
        "folder for features, which can be computed again",
        default="logs/inside",
    ),
)
def _inside(options):
    """Look inside a network: its filters, what z and c carry, memory, form, maps."""
    from jtm.cpc.inside import look

    look(options.load, options.data, options.out, options.work)
    print(f"answers in {options.out}; `jtm report` draws report/results/inside.json")


@_verb("report")
def _report(_):
    """Rewrite the tables, sentences and figures of the pages from report/results."""
    from jtm.cpc.figures import inside_figures, read_answers
    from jtm.results import render
    from jtm.retrieval.figures import retrieval_figures

    render.report(ROOT)
    results = ROOT / "report" / "results"
    render.study(results / "inside.json", inside_figures, read_answers, ("memory",))
    render.study(results / "retrieval.json", retrieval_figures)


@_verb(
    "check-data",
    _option("data DIR", "MusicNet's layout, or sound files"),
    _option("--all", "name all files that a check found", action="store_true"),
)
def _check_data(options):
    from jtm.data.check import check

    report = check(options.data)
    print(report.table(None if options.all else 10))
    return int(report.failed)


_check_data.__doc__ = (
    "Verify a dataset: labels inside the audio, onsets, pitches, levels.\n\n"
    + musicnet.WHERE_TO_GET_MUSICNET
)


@_verb(
    "embed",
    INPUTS,
    _option(
        "--out DIR",
        "folder for the .npz files, each with the arrays embedding and times, about "
        "2 GB per hour of sound with the network that comes with the package; "
        "what is there of an input that has not changed since is left as it is",
        required=True,
    ),
    _option("--load FILE", "another network: a .safetensors file or a .pt checkpoint"),
    _option(
        "--layer",
        "contexts c, which know the past, latents z, or both, of each frame",
        choices=("c", "z", "zc"),
        default="c",
    ),
    *SPREAD,
)
def _embed(options):
    """Embed sound files with the pretrained network, into one .npz a file."""
    from jtm.embedding import embed_files

    chosen = (options.inputs, options.out, options.load, options.layer)
    spread = batch.Spread(options.jobs, options.scheduler)
    return int(embed_files(*chosen, debug=options.debug, spread=spread) > 0)


@_verb(
    "transcribe",
    INPUTS,
    _option(
        "--out DIR",
        "folder for NAME.mid, NAME.csv and NAME.html of each; what is there of an "
        "unchanged input is left, or replaced if other options tell its notes; no "
        "other file is overwritten",
        required=True,
    ),
    _option("--no-page", "write no page, NAME.html", action="store_true"),
    _option(
        "--melody",
        "write the melody alone, as NAME.melody.mid and so on: the line that a "
        "listener would sing back",
        action="store_true",
    ),
    *NOTES,
    *SPREAD,
)
def _transcribe(options):
    """Transcribe sound files to MIDI, tables of notes and pages that play them."""
    from jtm.transcriber.transcribe import transcribe_files

    failed = transcribe_files(
        options.inputs,
        options.out,
        _choices(options),
        options.weights,
        page=not options.no_page,
        alone=options.melody,
        name=_piece,
        debug=options.debug,
        spread=batch.Spread(options.jobs, options.scheduler),
    )
    return int(failed > 0)


def _choices(options):
    """Read what a user chose of how notes are told."""
    from jtm.transcriber.notes import Choices

    names = ("onset_threshold", "frame_threshold", "min_note_ms")
    chosen = {name: getattr(options, name) for name in names}
    chosen = {name: each for name, each in chosen.items() if each is not None}
    if options.pitch_range:
        pitch = r"(\d+|[A-Ga-g][#b]?\d)"
        ends = re.fullmatch(f"{pitch}-{pitch}", options.pitch_range)
        low, high = map(_pitch, ends.groups()) if ends else (1, 0)
        if not low <= high <= 127:
            raise InputError(
                f"--pitch-range {options.pitch_range}; expected the lowest and highest "
                "note, such as G3-E7, or MIDI numbers of 0..127, such as 55-100"
            )
        chosen["pitch_range"] = low, high
    if options.instruments:
        chosen["instruments"] = tuple(options.instruments.split(","))
    return Choices(**chosen)


def _pitch(text):
    """Return the MIDI number of a note's name or number."""
    import pretty_midi

    return int(text) if text.isdigit() else pretty_midi.note_name_to_number(text)


def _piece(path):
    """Name the piece of a sound file, by what is imported once a page is made."""
    from jtm.retrieval.search import name

    return name(path)


@_verb("melody", _option("input FILE", "sound file"), *NOTES)
def _melody(options):
    """Print the melody of a recording as the names of its notes."""
    from jtm.transcriber.melody import spell
    from jtm.transcriber.transcribe import transcribe

    choices = vars(_choices(options))
    made = transcribe(options.input, weights=options.weights, **choices).melody()
    print(spell(made.notes) or f"{options.input}: no melody is heard")


@_verb(
    "export",
    _option(
        "--load FILE",
        "checkpoint of pretraining, or a .safetensors file; by default the "
        "network that comes with the package",
    ),
    _option(
        "--out FILE",
        "the file to write, ending in .safetensors; beside it a .json file says "
        "how the network was trained",
        required=True,
    ),
)
def _export(options):
    """Write the network of a checkpoint as safetensors, to be given away."""
    from jtm import embedding
    from jtm.training import checkpoints

    facts = checkpoints.export(options.load or embedding.WEIGHTS, options.out)
    print(
        f"{options.out}: {facts['parameters']} parameters in {facts['bytes']} bytes, "
        f"SHA-256 {facts['sha256']}"
    )


@_verb(
    "index",
    _option("scores SCORES_FOLDER", "folder with scores at any depth"),
    _option(
        "--out INDEX",
        "the index, ending in .safetensors; of one that is there, only what has "
        "changed is read again",
        required=True,
    ),
)
def _index(options):
    """Index a folder of scores (MIDI, MusicXML, ABC, kern) for `jtm identify`."""
    from jtm.retrieval.search import build

    return int(build(options.scores, options.out) > 0)


@_verb(
    "identify",
    _option("audio AUDIO", "a sound file"),
    _option(
        "--index INDEX",
        "where to look, from `jtm index`; by default 613 scores of music21's corpus: "
        "306 sections of Palestrina's masses, 225 Bach chorales, 38 madrigals of "
        "Monteverdi, and 44 movements, most of string quartets",
    ),
)
def _identify(options):
    """
    Name the piece that a recording is of: the five likeliest, and where in each.

    It is found at 30 to 289 quarter notes a minute and, in 17 seconds or more, up to
    six semitones above or below the score.
    """
    from jtm.retrieval.pages import answer

    print(answer(options.audio, options.index))


@_verb(
    "retrieval",
    _option(
        "--data DIR",
        "dataset in MusicNet's layout with beats in the labels of every split, "
        "from `python toy/pairs.py --out DIR`",
        required=True,
    ),
    STORE,
    _option("--load CHECKPOINT", "network that some runs start from"),
    _option(
        "--only RUN",
        "these runs alone, or baselines, or pieces; by default all",
        action="append",
    ),
    _option(
        "--scores DIR",
        "folder of the scores that are played, to name pieces in an index of them",
    ),
    _option(
        "--out DIR",
        "folder for checkpoints and scores; what has run is not run again",
        default="logs/retrieval",
    ),
)
def _retrieval(options):
    """Train and judge audio and score towers on performances with scores."""
    from jtm.retrieval.run import study

    chosen = (options.data, options.out, options.load, options.only, options.scores)
    print(f"scores in {study(*chosen)}")
