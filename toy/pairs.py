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

import functools
import hashlib
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code")]

try:
    import acoustics
    import numpy as np
    import perform
    import soxr
    import synth
    import voices
    import works
    from families import tune_families
    from generate import write_missing

    from jtm.constants import INSTRUMENTS, LABEL_RATE, PITCH_RANGES, SAMPLE_RATE
    from jtm.data import musicnet
    from jtm.files import InputError, atomic, digest, stop_in_one_line
    from jtm.music import audio, notation
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)

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


def _parts_of(notes):
    """Separate the notes of a score into a voice per part, the highest first."""
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


def _choose(listed, music, seed):
    """List (index, family, split) of works without duplicates, in random order."""
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


def _players(music, transposition, rng):
    """List (program, notes, whether it leads) of each part, transposed."""
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


def _excerpt(music, seconds, tempo, rng):
    """Cut an excerpt of at most `seconds`; return its first beat (an integer), too."""
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


def _solo(music, rng):
    """Keep a random part of at least :data:`SOLO_NOTES` notes; all if there is none."""
    parts = [part for part in music.voices if len(part) >= SOLO_NOTES]
    if not parts:
        return music
    return voices.Music((parts[rng.integers(len(parts))],), music.bar, music.length)


def _make_recording(job):
    """Write missing audio and labels of a work; return its row of the metadata."""
    out, name, work, family, split, music, training, unseen, seed = job
    rng = works.generator(seed, "pair", name)
    transposition = 0
    if split == "train":
        transposition = int(rng.integers(-TRANSPOSITION, TRANSPOSITION + 1))
    tempo = music.tempo * float(np.exp(rng.uniform(*np.log(TEMPO))))
    cut, first = _excerpt(music, rng.uniform(*SECONDS[split]), tempo, rng)
    alone = works.generator(seed, "solo", name)
    if split == "train" and alone.random() < SOLO_SHARE:
        cut = _solo(cut, alone)
    parts = _players(cut, transposition, rng)
    score = perform.perform(parts, cut, tempo, rng)
    sound = acoustics.draw_tuning(rng, acoustics.draw_sound(rng, wide=True))
    folder = "test" if split == "test" else "train"
    font = training[int(rng.integers(len(training)))]
    targets = {folder: font}
    if split == "test" and unseen:
        targets["test_timbre"] = unseen
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
    out = Path(out)
    extra = synth.find_soundfont(synth.EXTRA_SOUNDFONTS)
    unseen = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS)
    training = [font for font in (synth.default_soundfont(), extra) if font]
    fonts = sorted(filter(None, (*training, unseen)))
    inputs = [*sorted(ROOT.glob("toy/*.py")), *fonts]
    recipe = hashlib.sha256("".join(map(digest, inputs)).encode()).hexdigest()
    state = {"seed": seed, "recipe": recipe}
    write = functools.partial(_make, out, training, unseen, seed)
    write_missing(out, STATE_FILE, state, fonts, write)


def _make(out, training, unseen, seed, pool):
    """Write the missing files of the set."""
    root = voices.corpus_root()
    listed = [
        work
        for own in works.list_works().values()
        for work in own
        if (root / work.path).stat().st_size <= LARGEST
    ]
    jobs = [(work.path, str(out / "scores")) for work in listed]
    notes = pool.map(_read, jobs, "reading scores")
    usable = [i for i, own in enumerate(notes) if len(own) > 20]
    listed = [listed[i] for i in usable]
    music = [_parts_of(notes[i]) for i in usable]
    jobs, numbers = [], {"train": 1000, "validation": 6000, "test": 7000}
    for i, family, split in _choose(listed, music, seed):
        numbers[split] += 1
        work = listed[i], listed[family].path, split, music[i]
        jobs.append((out, str(numbers[split]), *work, training, unseen, seed))
    rows = pool.map(_make_recording, jobs, "rendering")
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
    from jtm import cli  # not needed by worker processes

    parser = cli.Parser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--out", metavar="DIR", required=True, help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    text = "print the traceback of a crash"
    parser.add_argument("--debug", action="store_true", help=text)
    options = parser.parse_args(argv)
    return cli.run(lambda: make(options.out, options.seed), options)


if __name__ == "__main__":
    stop_in_one_line()  # while imports of main() run
    sys.exit(main())
