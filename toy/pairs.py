"""
Synthesise performances aligned to their scores, for training piece identification.

    python toy/pairs.py --out DIR

writes a dataset in MusicNet's layout, with the score position of each note in its
labels. Each part of a score is played as written, by a random instrument whose range
allows it or by a keyboard, at 0.75 to 1.35 times a plausible tempo, with rubato, and
transposed in training; some training performances are of a single part. Works are
de-duplicated by melody, and a tune family is in one split. The same command resumes an
interrupted set.
"""

import hashlib
import multiprocessing
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code")]

import acoustics  # noqa: E402
import numpy as np  # noqa: E402
import perform  # noqa: E402
import soxr  # noqa: E402
import synth  # noqa: E402
import voices  # noqa: E402
import works  # noqa: E402
from families import tune_families  # noqa: E402
from tqdm import tqdm  # noqa: E402

from jtm import cli  # noqa: E402
from jtm.constants import INSTRUMENTS, LABEL_RATE, PITCH_RANGES, SAMPLE_RATE  # noqa: E402
from jtm.data import musicnet  # noqa: E402
from jtm.files import InputError, atomic, digest, read_json, write_json  # noqa: E402
from jtm.music import audio, notation  # noqa: E402

STATE_FILE = "pairs.json"  # how a set was made

# Number of works of each split, as far as available, and seconds of their excerpts.
COUNTS = {"test": 120, "validation": 40, "train": 480}
SECONDS = {"test": (36.0, 37.0), "validation": (36.0, 37.0), "train": (22.0, 30.0)}

SECTIONS = 6  # maximum number of sections of one mass, or movements of one quartet
FAMILY = 10  # maximum number of works of a tune family that is held out
LARGEST = 9e5  # maximum size of a score file in bytes

TEMPO = (0.75, 1.35)  # range of the tempo relative to Music.tempo
TRANSPOSITION = 5  # maximum transposition in training, semitones up or down
KEYBOARD_SHARE = 0.35  # fraction of performances on piano or harpsichord only
SOLO_SHARE = 0.25  # fraction of training performances of a single part
SOLO_NOTES = 16  # minimum number of notes of such a part


def _read(job):
    """Read the notes of a work through a cache; none if the score is unreadable."""
    path, folder = job
    cached = Path(folder) / f"{path.replace('/', '__')}.npz"
    if not cached.exists():
        try:
            notes = notation.read(voices.corpus_root() / path)[0][1]
        except InputError:
            notes = np.zeros(0, notation.NOTE)
        with atomic(cached) as part:
            np.savez(part, notes=notes)
    with np.load(cached, allow_pickle=False) as file:
        return file["notes"]


def parts_of(notes):
    """
    Separate the notes of a score by part.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes of type :data:`jtm.music.notation.NOTE`.

    Returns
    -------
    voices.Music
        A voice for each part, in descending order of mean pitch.
    """
    parts = [notes[notes["part"] == part] for part in np.unique(notes["part"])]
    parts.sort(key=lambda part: -part["pitch"].mean())
    return voices.Music(
        tuple(
            tuple((float(n["beat"]), float(n["beats"]), int(n["pitch"])) for n in part)
            for part in parts
        ),
        4.0,
        float((notes["beat"] + notes["beats"]).max()),
    )


def choose(listed, music, seed):
    """
    De-duplicate works by melody and assign them to splits by tune family.

    Parameters
    ----------
    listed : list of works.Work
        The works.
    music : list of voices.Music
        Their notes.
    seed : int
        Random seed.

    Returns
    -------
    list of tuple
        Index of a work, its family and its split, in random order.
    """
    melodies = [piece.melody for piece in music]
    tunes = tune_families(melodies, range(len(listed)))
    distinct = [i for i, tune in enumerate(tunes) if i == tune]
    rng = works.generator(seed, "pairs")
    distinct = [distinct[k] for k in rng.permutation(len(distinct))]
    families = tune_families(melodies, [work.group for work in listed])
    of_family, n_of_group = {}, Counter()
    for i in distinct:
        n_of_group[listed[i].group] += 1
        if n_of_group[listed[i].group] <= SECTIONS:
            of_family.setdefault(families[i], []).append(i)
    chosen, missing, counts = [], dict(COUNTS), Counter()
    for family, own in of_family.items():
        small = len(own) <= FAMILY
        split = next((s for s in missing if small and missing[s] > 0), "train")
        for i in own:
            key = split, listed[i].composer
            if missing[split] > 0 and counts[key] < COUNTS[split] / 2:
                chosen.append((i, family, split))
                missing[split] -= 1
                counts[key] += 1
    return chosen


def players(music, transposition, rng):
    """
    Choose the instrument of each part.

    Parameters
    ----------
    music : voices.Music
        The parts.
    transposition : int
        Transposition in semitones.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    list of tuple
        (program, notes, whether it leads) for :func:`perform.perform`.
    """
    keyboard = int(rng.choice((1, 1, 7))) if rng.random() < KEYBOARD_SHARE else 0
    chosen = []
    for number, voice in enumerate(music.voices):
        notes = [(beat, beats, pitch + transposition) for beat, beats, pitch in voice]
        pitches = [pitch for *_, pitch in notes]
        suitable = [
            program
            for program, (low, high) in PITCH_RANGES.items()
            if low <= min(pitches) and max(pitches) <= high
        ]
        # Chords, and parts that no instrument can play, go to the piano.
        chords = len({beat for beat, *_ in notes}) < 0.95 * len(notes)
        piano = chords or not suitable
        program = keyboard or (1 if piano else int(rng.choice(suitable)))
        chosen.append((program, notes, number == 0))
    return chosen


def excerpt(music, seconds, tempo, rng):
    """
    Cut an excerpt out of a work, at the start of a quarter note.

    Parameters
    ----------
    music : voices.Music
        The work.
    seconds : float
        Maximum duration.
    tempo : float
        Quarter notes per minute.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    cut : voices.Music
        The excerpt, without silent parts.
    first : float
        Start of the excerpt in quarter notes.
    """
    beats = seconds * tempo / 60
    first = float(rng.integers(max(0, int(music.length - beats)) + 1))
    cut = tuple(
        tuple(
            (beat - first, min(length, first + beats - beat), pitch)
            for beat, length, pitch in voice
            if first <= beat < first + beats
        )
        for voice in music.voices
    )
    length = min(beats, music.length - first)
    active = tuple(voice for voice in cut if voice)
    return voices.Music(active, music.bar, length), first


def solo(music, rng):
    """
    Keep a random part of an excerpt.

    Parameters
    ----------
    music : voices.Music
        The excerpt.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    voices.Music
        The excerpt with one of its parts of at least :data:`SOLO_NOTES` notes; all
        parts if there is none.
    """
    parts = [part for part in music.voices if len(part) >= SOLO_NOTES]
    if not parts:
        return music
    return voices.Music((parts[rng.integers(len(parts))],), music.bar, music.length)


def _make_recording(job):
    """Write missing audio and labels of a work; return its row of the metadata."""
    out, name, work, family, split, music, fonts, seed = job
    rng = works.generator(seed, "pair", name)
    transposition = 0
    if split == "train":
        transposition = int(rng.integers(-TRANSPOSITION, TRANSPOSITION + 1))
    tempo = music.tempo * float(np.exp(rng.uniform(*np.log(TEMPO))))
    cut, first = excerpt(music, rng.uniform(*SECONDS[split]), tempo, rng)
    alone = works.generator(seed, "solo", name)
    if split == "train" and alone.random() < SOLO_SHARE:
        cut = solo(cut, alone)
    parts = players(cut, transposition, rng)
    score = perform.perform(parts, cut, tempo, rng)
    sound = acoustics.draw_tuning(rng, acoustics.draw_sound(rng, wide=True))
    folder = "test" if split == "test" else "train"
    font = fonts["training"][int(rng.integers(len(fonts["training"])))]
    targets = {folder: font}
    if split == "test" and fonts["unseen"]:
        targets["test_timbre"] = fonts["unseen"]
    for target, path in targets.items():
        wav = out / f"{target}_data" / f"{name}.wav"
        labels = musicnet.labels_of(score, voices.note_value)
        musicnet.write_labels(out / f"{target}_labels" / f"{name}.csv", labels)
        if not wav.exists():
            room = works.generator(seed, "room", name)
            wave, _ = acoustics.render(score, path, sound, rng=room, tail=0.5)
            wave = soxr.resample(wave / 32768, LABEL_RATE, SAMPLE_RATE)
            audio.write(wav, wave, SAMPLE_RATE)
    return {
        "id": name,
        "composer": work.composer,
        "composition": work.composition,
        "movement": work.movement,
        "ensemble": "",
        "source": "corpus",
        "transcriber": "music21 corpus",
        "catalog_name": work.catalog,
        "seconds": round(audio.duration(wav), 3),
        "split": split,
        "instruments": "+".join(INSTRUMENTS[p] for p in score.programs),
        "tune_family": family,
        "corpus_path": work.path,
        "first_beat": first,
        "transposition": transposition,
        "tempo": round(tempo, 2),
        "soundfont": Path(font).name,
        musicnet.TIMBRE_SOUNDFONT: Path(targets.get("test_timbre", "")).name,
        "tuning": sound.tuning,
        "seed": seed,
    }


def _is_finished(out, seed, fonts):
    """Return whether a folder has the complete set, or else record how it is made."""
    path = out / STATE_FILE
    if not path.exists() and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: not a set of pairs; choose another folder")
    inputs = [*sorted(ROOT.glob("toy/*.py")), *sorted(fonts)]
    recipe = hashlib.sha256("".join(map(digest, inputs)).encode()).hexdigest()
    state = {"seed": seed, "recipe": recipe}
    saved = read_json(path) if path.exists() else state
    finished = (out / musicnet.METADATA_FILE).exists()
    # A finished set may be from an earlier version of the generator.
    if saved["seed"] != seed or not finished and saved != state:
        raise InputError(
            f"{out}: holds pairs of another seed, of other SoundFonts or by another "
            "version; choose another folder or remove this one"
        )
    if not finished:
        write_json(path, state)
    return finished


def make(out, seed=0):
    """
    Synthesise the set, or resume an interrupted one.

    Parameters
    ----------
    out : str or Path
        The folder, created if missing. Notes of the corpus are cached in ``scores/``.
    seed : int
        Random seed of all draws.

    Raises
    ------
    InputError
        If the seed is negative; or the folder holds something else, or pairs of
        another seed, of other SoundFonts, or by another version of the generator.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: expected an integer of at least 0")
    out = Path(out)
    unseen = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS)
    extra = synth.find_soundfont(synth.EXTRA_SOUNDFONTS)
    main = synth.default_soundfont()
    fonts = {
        "training": [str(main)] + [str(extra)] * bool(extra),
        "unseen": str(unseen) if unseen else None,
    }
    if _is_finished(out, seed, filter(None, (*fonts["training"], fonts["unseen"]))):
        return
    root = voices.corpus_root()
    listed = [
        work
        for own in works.list_works().values()
        for work in own
        if (root / work.path).stat().st_size <= LARGEST
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn) as pool:
        jobs = [(work.path, str(out / "scores")) for work in listed]
        notes = list(tqdm(pool.map(_read, jobs), "reading scores", len(jobs)))
        usable = [i for i, own in enumerate(notes) if len(own) > 20]
        listed = [listed[i] for i in usable]
        music = [parts_of(notes[i]) for i in usable]
        chosen = choose(listed, music, seed)
        jobs, numbers = [], {"train": 1000, "validation": 6000, "test": 7000}
        for i, family, split in chosen:
            numbers[split] += 1
            work = listed[i], listed[family].path, split, music[i]
            jobs.append((out, str(numbers[split]), *work, fonts, seed))
        rows = list(tqdm(pool.map(_make_recording, jobs), "rendering", len(jobs)))
    musicnet.write_metadata(out / musicnet.METADATA_FILE, rows)


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
    parser = cli.Parser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--out", metavar="DIR", required=True, help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    options = parser.parse_args(argv)
    return cli.run(lambda: make(options.out, options.seed))


if __name__ == "__main__":
    sys.exit(main())
