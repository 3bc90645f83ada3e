"""
Synthesise the toy set: real scores, rendered, in MusicNet's layout.

    python toy/generate.py --preset small

reads scores from music21's corpus, arranges them for MusicNet's ensembles and
renders them with FluidSynth on all cores. The same random seed and version of
FluidSynth give the same bytes, for any number of processes and interruptions: the
same command resumes an interrupted set.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where concurrent generators are not locked out
    fcntl = None

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code")]

try:
    import acoustics
    import arrange
    import families
    import numpy as np
    import perform
    import pianos
    import studies
    import synth
    import voices
    import works
    from tqdm import tqdm

    from jtm import files
    from jtm.constants import INSTRUMENTS, LABEL_RATE
    from jtm.data import musicnet
    from jtm.data.check import coverage
    from jtm.data.clips import Clip, write_clips
    from jtm.files import InputError
    from jtm.music import audio, midi
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)

STATE_FILE = "toy.json"
"""Inputs of a toy set, which determine whether it can be resumed."""

COST_FILE = "generation.json"
"""Generation time in seconds, including interrupted runs."""


def generate(
    preset, out, seed=0, soundfont=None, hours=None, progress=True, processes=None
):
    """
    Synthesise a toy set, or resume an interrupted one.

    Parameters
    ----------
    preset : str
        'tiny', 'small', 'full', 'wide' or 'transcriber'.
    out : str or Path
        The folder, created if missing.
    seed : int
        Random seed of all draws.
    soundfont : str or Path, optional
        The SoundFont of the second test split; by default FluidR3 if installed, else
        there is no such split. 'wide' and 'transcriber' have no test splits.
    hours : float, optional
        Hours of audio in 'wide' or 'transcriber', by default as in the preset; can be
        raised later.
    progress : bool
        Whether to show progress bars.
    processes : int, optional
        Number of processes, one per core by default. The result is the same.

    Raises
    ------
    InputError
        If the folder has other content, FluidSynth, a score or a SoundFont is
        missing or damaged, an option is out of range, or the disk is full. Nothing
        is written before all inputs are checked.
    """
    out = Path(out)
    size = works.PRESETS[preset]
    if hours is not None and not (size.hours and 0 < hours < np.inf):
        raise InputError(
            f"{hours} hours: expected a positive number, and --preset wide "
            "or transcriber"
        )
    hours = size.hours if hours is None else hours
    if soundfont and size.hours:
        raise InputError(f"--soundfont: preset {preset} has no test split to use it")
    fonts = _fonts(soundfont, size.labelled, not size.hours)
    if soundfont and (out / STATE_FILE).exists():  # a finished set is not changed
        used = files.read_json(out / STATE_FILE).get("soundfonts", {})
        if files.digest(soundfont) not in used.values():
            raise InputError(
                f"{out}: holds a toy set with another SoundFont than {soundfont}; "
                "choose another folder or remove this one"
            )
    paths = sorted({fonts["main"], fonts["timbre"], *fonts["unlabelled"]} - {None})
    state = _state(preset, seed, paths)
    make = functools.partial(_make, out, size, seed, fonts, hours)
    write_missing(out, STATE_FILE, state, paths, make, hours, progress, processes)


def write_missing(
    out, name, state, fonts, make, hours=None, progress=True, processes=None
):
    """
    Write the missing files of a set in a folder, locked meanwhile.

    Parameters
    ----------
    out : Path
        The folder, created if missing.
    name : str
        Name of the file for `state`.
    state : dict
        Inputs of the set, with 'seed', which determine whether it can be resumed.
    fonts : iterable of str or Path
        SoundFonts to check first.
    make : callable
        Takes a pool, whose ``map(function, arguments, title)`` returns the results in
        order; writes the missing files, and last the metadata, which mark the set
        complete.
    hours : float, optional
        Hours of audio of a complete set, which can be raised later.
    progress : bool
        Whether to show progress bars.
    processes : int, optional
        Number of processes, one per core by default.

    Raises
    ------
    InputError
        If the seed is negative, the folder has other content or cannot be written, a
        SoundFont is damaged, or a process was killed.
    """
    if state["seed"] < 0:
        raise InputError(f"seed {state['seed']}: expected an integer of at least 0")
    if _is_finished(out, name, state, hours):
        return
    for font in fonts:
        synth.check_soundfont(font)
    with _locked(out):
        if _is_finished(out, name, state, hours):  # by another process
            return
        files.write_json(out / name, state)
        (out / musicnet.METADATA_FILE).unlink(missing_ok=True)  # of fewer hours
        files.sweep(out)
        with _Pool(out, processes, progress) as pool:
            make(pool)


def _make(out, size, seed, fonts, hours, pool):
    """Write the missing files of a toy set."""
    chosen = works.choose_works(size, seed)
    music = pool.map(voices.read_work, [w.path for w in chosen], "reading scores")
    if size.hours:
        pieces = works.plan_wide(chosen, music, size, seed, hours)
    else:
        pieces = works.plan(chosen, music, size, seed)
    numbers = {"train": 5000, "validation": 6000, "test": 7000, "unlabelled": 8000}
    if size.hours:
        numbers |= {"unlabelled": 100_000, "train": 200_000}
    jobs = []
    for piece in pieces:
        numbers[piece.split] += 1
        jobs.append((str(out), str(numbers[piece.split]), piece, seed, fonts, size))
    rows = pool.map(_make_piece, jobs, "rendering pieces")
    if size.note_step:
        pairs = works.split_notes(size.note_step, seed)
        jobs = [(str(out), *pair, split, fonts) for pair, split in pairs.items()]
        clips = pool.map(_make_clips, jobs, "rendering notes")
        write_clips(out, list(itertools.chain.from_iterable(clips)))
    _remove_others(out, {row["id"] for row in rows})
    musicnet.write_metadata(
        out / musicnet.METADATA_FILE, sorted(rows, key=lambda row: row["id"])
    )


def _remove_others(out, ids):
    """Remove pieces that an interrupted run for more hours has left in a set."""
    for kind in ("*_data/*.wav", "*_labels/*.csv", "midi/*.mid"):
        for path in out.glob(kind):
            if path.stem.isdecimal() and int(path.stem) > 5000 and path.stem not in ids:
                path.unlink()


class _Pool:
    """Process pool with progress bars, which records the generation time."""

    def __init__(self, out, processes, progress):
        self.path, self.progress = out / COST_FILE, progress
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(processes, spawn, _init_worker)

    def __enter__(self):
        self.start = time.perf_counter(), sum(os.times()[:4])
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)
        times = time.perf_counter(), sum(os.times()[:4])
        previous = files.read_json(self.path) if self.path.exists() else {}
        cost = {"processors": os.cpu_count()}
        names = ("seconds", "processor_seconds")
        for name, end, start in zip(names, times, self.start, strict=True):
            cost[name] = round(previous.get(name, 0) + end - start, 1)
        files.write_json(self.path, cost)

    def map(self, function, arguments, title):
        """Call a function for each argument; return the results in order."""
        try:
            results = self.pool.map(function, arguments)
            bar = tqdm(results, title, len(arguments), disable=not self.progress)
            return list(bar)
        except BrokenProcessPool as error:
            raise InputError(files.KILLED) from error


def _init_worker():
    """Initialise a worker, which ignores Ctrl-C and exits with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def exit_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _fonts(soundfont, players, tested=True):
    """Find the SoundFonts of labelled audio, second test split and unlabelled audio."""
    main = synth.default_soundfont()
    if soundfont is None:
        soundfont = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS * tested)
    elif not Path(soundfont).is_file():
        raise InputError(f"{soundfont}: no such SoundFont; expected an SF2 or SF3 file")
    elif not synth.is_soundfont(soundfont):
        raise InputError(f"{soundfont}: not a SoundFont that FluidSynth can read")
    names = synth.EXTRA_SOUNDFONTS + synth.PLAYER_SOUNDFONTS * players
    found = {name: synth.find_soundfont([name]) for name in names}
    if players and (missing := [name for name in names if not found[name]]):
        text = f"without {', '.join(missing)}, timbres are fewer; see toy/README.md"
        print(text, file=sys.stderr, flush=True)
    trained = [main, *filter(None, found.values())]
    if soundfont and files.digest(soundfont) in map(files.digest, trained):
        raise InputError(
            f"{soundfont}: used in training; the second test split needs another one"
        )
    if soundfont and Path(soundfont).stem in {Path(p).stem for p in trained}:
        raise InputError(
            f"{soundfont}: named as one used in training; rename it, as files are "
            "named after their SoundFonts"
        )
    return {
        "main": str(main),
        "timbre": str(soundfont) if soundfont else None,
        "unlabelled": [str(path) for path in trained],
    }


def _state(preset, seed, fonts):
    """Describe the inputs of a set; raise InputError if one is missing."""
    modules = (works, families, studies, voices, arrange, perform)
    modules += (acoustics, pianos, synth)
    sources = [*(module.__file__ for module in modules), __file__]
    voices.corpus_root()
    return {
        "preset": preset,
        "seed": seed,
        "soundfonts": {Path(p).name: files.digest(p) for p in fonts},
        "fluidsynth": synth.version(),
        "music21": importlib.metadata.version("music21"),
        "recipe": hashlib.sha256(
            "".join(map(files.digest, sources)).encode()
        ).hexdigest(),
    }


def _is_finished(out, name, state, hours):
    """Return whether a folder has the complete set; refuse one with another set."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder or a new name")
    path, metadata = out / name, out / musicnet.METADATA_FILE
    if not out.is_dir() or {each.name for each in out.iterdir()} <= {name, COST_FILE}:
        return False
    if not path.exists():
        raise InputError(
            f"{out}: not a toy set ({name} is missing); choose another folder"
        )
    saved = files.read_json(path)
    finished = metadata.exists()
    if finished and hours:
        rows = musicnet.read_metadata(metadata)
        finished = sum(float(row["seconds"]) for row in rows) >= hours * 3600
    # A finished set may be from an earlier version of the generator.
    for key in ("preset", "seed") if finished else state:
        if saved.get(key) != (value := state.get(key)):
            raise InputError(
                f"{out}: holds a toy set of another {key} ({saved.get(key)}, "
                f"not {value}); choose another folder or remove this one"
            )
    return finished


@contextlib.contextmanager
def _locked(out):
    """Lock a folder, created if missing, until the block or the process ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY) if fcntl else None
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        if fcntl:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{out}: another process generates it; waiting"
                print(message, file=sys.stderr, flush=True)
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        if fcntl:
            os.close(folder)


def _make_piece(job):
    """Write one piece if it is missing, and return its row of the metadata."""
    out, name, piece, seed, fonts, size = job
    out = Path(out)
    rng = works.generator(seed, "piece", name)
    score, transposition = _perform(piece, rng, figured=size.labelled)
    wide = size.labelled or piece.split == "unlabelled"
    sound = acoustics.draw_sound(rng, wide=wide)
    if size.hours:
        sound = acoustics.draw_tuning(rng, sound)
    folder = "train" if piece.split == "validation" else piece.split
    font, players = fonts["main"], {}
    if size.labelled:
        score = perform.vary_dynamics(score, rng)
        score = acoustics.replace_players(score, rng)
        players = acoustics.draw_soundfonts(score, fonts["unlabelled"], rng)
    elif piece.split == "unlabelled":
        font = fonts["unlabelled"][int(name) % len(fonts["unlabelled"])]
    targets = {folder: font}
    if folder == "test" and fonts["timbre"]:
        targets["test_timbre"] = fonts["timbre"]
    labelled = bool(size.hours) or piece.split != "unlabelled"
    if piece.split != "unlabelled" and not size.labelled:
        midi.write(out / "midi" / f"{name}.mid", score)
    tail = 1.5 + max(0.0, piece.seconds - score.seconds)
    for target, path in targets.items():
        wav = out / f"{target}_data" / f"{name}.wav"
        notes, wave, room = score, None, works.generator(seed, "room", name)
        if size.labelled and not wav.exists():
            options = (score, players, sound, room, tail)
            wave, notes = acoustics.render_players(*options)
        elif not wav.exists():
            wave, _ = acoustics.render(score, path, sound, rng=room, tail=tail)
        if labelled and not (size.labelled and wave is None):
            labels = musicnet.labels_of(notes, voices.note_value)
            musicnet.write_labels(out / f"{target}_labels" / f"{name}.csv", labels)
        if wave is not None:  # last, since it implies that the labels exist
            audio.write(wav, wave, LABEL_RATE)
    return {
        "id": name,
        "composer": piece.work.composer,
        "composition": piece.work.composition,
        "movement": piece.work.movement,
        "ensemble": "" if piece.split == "unlabelled" else piece.ensemble,
        "source": "procedural" if piece.procedural else "corpus",
        "transcriber": "" if piece.procedural else "music21 corpus",
        "catalog_name": piece.work.catalog,
        "seconds": round(audio.duration(wav), 3),
        "split": piece.split,
        "instruments": "+".join(_instrument(p) for p in score.programs if labelled),
        "tune_family": piece.family,
        "corpus_path": piece.work.path,
        "first_beat": piece.first_beat,
        "transposition": transposition,
        "tempo": round(piece.tempo, 2),
        "soundfont": "+".join(Path(f).name for f in players.values() or [font]),
        musicnet.TIMBRE_SOUNDFONT: Path(targets.get("test_timbre", "")).name,
        "tuning": sound.tuning,
        "reverb_seconds": sound.reverb_seconds,
        "peak_db": sound.peak_db,
        "seed": seed,
    }


def _perform(piece, rng, figured):
    """Arrange and perform a piece; return also its transposition in semitones."""
    transposition = 0
    if piece.procedural:
        players = itertools.cycle(piece.programs)
        parts = [(next(players), voice, False) for voice in piece.music.voices]
    else:
        parts, transposition = arrange.arrange(piece.music, piece.programs, rng)
        parts = arrange.figurate(parts, piece.tempo, rng) if figured else parts
    return perform.perform(parts, piece.music, piece.tempo, rng), transposition


def _instrument(program):
    """Return the name of an instrument by its program."""
    import pretty_midi

    general = pretty_midi.program_to_instrument_name(program - 1)
    return INSTRUMENTS.get(program, general.lower())


def _make_clips(job):
    """Write the missing clips of one pitch of one instrument; return all its clips."""
    out, program, pitch, split, fonts = job
    targets = {split: fonts["main"]}
    if split == "test" and fonts["timbre"]:
        targets["test_timbre"] = fonts["timbre"]
    score, cuts = perform.single_notes(program, pitch)
    clips = []
    for target, font in targets.items():
        wave = None
        for note, length, first, last, end in cuts:
            wav = Path(
                *(out, "notes"),
                f"{INSTRUMENTS[program]}_p{pitch:03d}_v{note.velocity:03d}_{length}_"
                f"{Path(font).stem}.wav",
            )
            if not wav.exists():
                if wave is None:  # one rendering for all clips
                    wave = synth.render(score, font, 1.0)
                clip = acoustics.finish_note(wave[first:last], note.velocity)
                audio.write(wav, clip, LABEL_RATE)
            start = round(float(synth.snap(perform.NOTE_ONSET)) * LABEL_RATE)
            clips.append(
                Clip(
                    *(wav, program, pitch, note.velocity, start, end, target),
                    Path(font).name,
                )
            )
    return clips


def main(argv=None):
    """
    Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code; see :func:`jtm.cli.run`.
    """
    from jtm import cli  # not needed by worker processes

    parser = cli.Parser(description=__doc__.split("\n\n")[0].strip())
    text = "size and purpose, see toy/README.md (default: small)"
    parser.add_argument("--preset", choices=works.PRESETS, default="small", help=text)
    text = "output folder (default: toy/data/PRESET)"
    parser.add_argument("--out", metavar="DIR", help=text)
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    text = "hours of audio in wide (default: 40) or transcriber (default: 12)"
    parser.add_argument("--hours", type=float, help=text)
    text = "SoundFont of the second test split (default: FluidR3 if installed)"
    parser.add_argument("--soundfont", metavar="FILE", help=text)
    text = "print the traceback of a crash"
    parser.add_argument("--debug", action="store_true", help=text)
    options = parser.parse_args(argv)

    def command():
        out = Path(options.out or ROOT / "toy" / "data" / options.preset)
        generate(options.preset, out, options.seed, options.soundfont, options.hours)
        counts, playable = coverage(
            musicnet.open_dataset(out).split("train", "unlabelled")
        )
        print(
            f"{out}: toy set '{options.preset}' complete; training has "
            f"{np.count_nonzero(counts[playable])} of {playable.sum()} pitches in the "
            "ranges of all instruments"
        )

    return cli.run(command, options)


if __name__ == "__main__":
    files.stop_in_one_line()  # while imports of main() run
    sys.exit(main())
