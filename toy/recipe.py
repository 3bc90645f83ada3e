"""
What the toy set is made of: works, arrangements, performances, rooms.

Nothing here writes a file or makes a sound; ``generate.py`` does. Everything is
drawn from a private generator seeded by (seed, name), so a piece is the same
whatever was made before it.
"""

import re
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jtm.constants import ENSEMBLES, INSTRUMENTS, LABEL_RATE, PITCH_RANGES
from jtm.data.splits import assign_families, tune_families
from jtm.music.score import Note, Score
from jtm.music.synth import snap

KEYBOARDS = (1, 7)
"""Programs that play many voices at once: piano and harpsichord."""

BOWED = (41, 42, 43)
"""Programs of the strings that play double stops when they are alone."""

SHARES = {
    "Bach": 0.40,
    "Palestrina": 0.20,
    "Monteverdi": 0.10,
    "Beethoven": 0.10,
    "Mozart": 0.10,
    "Haydn": 0.10,
}
"""Share of each composer among the labelled pieces, wherever there is enough."""

UNLABELLED_SHARES = {"Bach": 0.3, "Palestrina": 0.5, "Others": 0.2}
"""The same for unlabelled audio."""


@dataclass(frozen=True)
class Preset:
    """
    The size of a toy set.

    Parameters
    ----------
    train, validation, test, unlabelled : int
        Pieces in each split, taken from the corpus.
    seconds : tuple of float
        Shortest and longest excerpt.
    excerpts : int
        Excerpts of one movement at most (of 1000 beats, where it is longer).
    sections : int
        Sections of one mass, or movements of one quartet, that are read.
    exercises : int
        Procedural training pieces of each instrument; validation and test have
        one of each.
    note_step : int
        Semitones between the pitches of the notes part; 1 for all.
    bytes : float
        Largest score file that is read; the largest take ten seconds to parse.
    """

    train: int
    validation: int
    test: int
    unlabelled: int
    seconds: tuple
    excerpts: int
    sections: int
    exercises: int
    note_step: int
    bytes: float


PRESETS = {
    "tiny": Preset(21, 21, 21, 6, (6.0, 7.0), 2, 1, 1, 12, 25e3),
    "small": Preset(84, 21, 21, 60, (30.5, 32.0), 3, 2, 1, 1, 90e3),
    "full": Preset(315, 42, 63, 240, (32.0, 115.0), 4, 5, 4, 1, np.inf),
}
"""The sizes by name; the labelled splits hold each of the 21 ensembles equally."""


def generator(seed, *names):
    """
    Make a private random generator.

    Parameters
    ----------
    seed : int
        Seed of the whole set.
    *names : str
        What the draws are for.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments, on any machine.
    """
    return np.random.default_rng([seed, *(zlib.crc32(n.encode()) for n in names)])


# --- Works -------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """
    A movement of the corpus and what is known of it from its path.

    Parameters
    ----------
    path : str
        File in music21's corpus.
    composer, composition, movement, catalog : str
        As in MusicNet's metadata.
    group : str
        The mass, quartet or chorale that it belongs to.
    """

    path: str
    composer: str
    composition: str
    movement: str
    catalog: str
    group: str


@dataclass(frozen=True)
class Music:
    """
    The notes of a work, voice by voice.

    Parameters
    ----------
    voices : tuple of tuple
        Each voice a tuple of (beat, beats, pitch), by beat and without overlap,
        the highest voice first.
    bar : float
        Beats (quarter notes) in a bar.
    length : float
        Beats in all.
    """

    voices: tuple
    bar: float
    length: float

    @property
    def melody(self):
        """Pitches of the highest voice."""
        return [pitch for _, _, pitch in self.voices[0]]

    @property
    def tempo(self):
        """Quarter notes a minute that suit how densely the notes stand."""
        onsets = {beat for voice in self.voices for beat, _, _ in voice}
        return float(np.clip(96 * (1.6 * self.length / len(onsets)) ** 0.5, 50, 180))


def corpus_root():
    """
    Find music21's corpus.

    Returns
    -------
    Path
        Its folder, found without importing music21.
    """
    import importlib.util

    return Path(importlib.util.find_spec("music21").origin).parent / "corpus"


def list_works():
    """
    List the works of the corpus that the set may use.

    Returns
    -------
    dict of str to list of Work
        By composer; 'Others' holds what serves as unlabelled audio only.
    """
    root = corpus_root()

    def paths(pattern):
        return [
            path.relative_to(root).as_posix() for path in sorted(root.glob(pattern))
        ]

    works = {name: [] for name in (*SHARES, "Others")}
    for path in paths("bach/bwv*.mxl"):
        number = Path(path).stem.removeprefix("bwv")
        if number != "846":  # a prelude for keyboard, among chorales
            catalog = f"BWV {number}"
            works["Bach"].append(
                Work(path, "Bach", f"Chorale {catalog}", "", catalog, path)
            )
    for path in paths("palestrina/*.krn"):
        head = (root / path).read_text(encoding="latin-1")[:2000]
        mass = re.search(r"!!!OPR: *(.+)", head)[1].strip()
        section = Path(path).stem.replace("_", " ")
        works["Palestrina"].append(
            Work(path, "Palestrina", mass, section, "", f"palestrina/{mass}")
        )
    # Book 5 is left out: its encodings carry a publisher's notice of 2003.
    for path in paths("monteverdi/madrigal.[34].*.mxl"):
        if "_old" not in path:
            _, book, number, _ = Path(path).name.split(".")
            works["Monteverdi"].append(
                Work(
                    path,
                    "Monteverdi",
                    f"Madrigals, Book {book}, No. {number}",
                    "",
                    "",
                    path,
                )
            )
    for composer in ("Beethoven", "Mozart", "Haydn"):
        for path in paths(f"{composer.lower()}/**/*.mxl"):
            folders = Path(path).with_suffix("").parts
            catalog = re.sub(r"^opus(\d+)(no(\d+))?", _opus, folders[1])
            catalog = re.sub(r"^k(\d+)", r"K. \1", catalog)
            kind = "Piano Sonata" if catalog == "K. 545" else "String Quartet"
            movement = folders[2].removeprefix("movement")[:1] if folders[2:] else ""
            works[composer].append(
                Work(
                    path,
                    composer,
                    f"{kind} {catalog}",
                    movement,
                    catalog,
                    "/".join(folders[:2]),
                )
            )
    for folder in ("schumann_robert/opus41no1", "schumann_clara", "chopin", "joplin"):
        for path in paths(f"{folder}/**/*.*"):
            if path.endswith((".mxl", ".xml", ".krn")):
                name = " ".join(reversed(folder.split("/")[0].split("_"))).title()
                title = Path(path).stem.replace("_", " ")
                works["Others"].append(Work(path, name, title, "", "", path))
    return works


def _opus(match):
    return f"Op. {match[1]}" + (f" No. {match[3]}" if match[3] else "")


def read_work(path):
    """
    Parse one work with music21 and part it into voices.

    Parameters
    ----------
    path : str
        File in music21's corpus.

    Returns
    -------
    Music
        Its notes: ties joined, grace notes left out, chords spread over voices.
        Of a chorale with instruments only the four sung parts are taken.
    """
    from music21 import converter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overfull measures, and the like
        score = converter.parse(
            corpus_root() / path, forceSource=True, storePickle=False
        )
    parts = list(score.parts)
    sung = [p for p in parts if p.partName in ("Soprano", "Alto", "Tenor", "Bass")]
    voices = [
        voice
        for part in (sung if len(sung) == 4 else parts)
        for voice in _voices(part.flatten().notes)
    ]
    voices.sort(key=lambda voice: -np.mean([pitch for _, _, pitch in voice]))
    meter = next(iter(parts[0].flatten().getElementsByClass("TimeSignature")), None)
    bar = float(meter.barDuration.quarterLength) if meter else 4.0
    voices = _close_gaps(voices, bar)
    length = max(beat + beats for voice in voices for beat, beats, _ in voice)
    return Music(tuple(voices), bar, length)


def _close_gaps(voices, bar):
    """Take out whole bars in which nobody plays, as where only the horns did."""
    spans = sorted((beat, beat + beats) for voice in voices for beat, beats, _ in voice)
    starts, shifts = [0.0], [0.0]
    end = 0.0
    for start, stop in spans:
        if start - end >= 2 * bar:
            starts.append(start)
            shifts.append(shifts[-1] + ((start - end) // bar - 1) * bar)
        end = max(end, stop)

    def shift(beat):
        return beat - shifts[int(np.searchsorted(starts, beat, "right")) - 1]

    return [tuple((shift(b), beats, pitch) for b, beats, pitch in v) for v in voices]


def _voices(elements):
    """Spread a part over voices: the k-th voice takes the k-th highest notes."""
    notes = {}  # (beat, pitch) -> beats
    ends = {}  # pitch -> the key of a note that a tie may prolong
    for element in elements:
        for note in getattr(element, "notes", (element,)):
            beats = float(element.duration.quarterLength)
            beat, pitch = float(element.offset), note.pitch.midi
            if beats <= 0 or not 0 <= pitch <= 127:
                continue
            tie = (note.tie or element.tie or _Untied).type
            key = ends.get(pitch)
            if tie in ("continue", "stop") and key is not None:
                notes[key] = max(notes[key], beat + beats - key[0])
            else:
                key = (beat, pitch)
                notes[key] = max(beats, notes.get(key, 0))
            ends[pitch] = key if tie in ("start", "continue") else None
    layers = []
    for beat, pitch in sorted(notes, key=lambda key: (key[0], -key[1])):
        depth = 0
        while depth < len(layers) and layers[depth][-1][0] == beat:
            depth += 1
        if depth == len(layers):
            layers.append([])
        layer = layers[depth]
        if layer and layer[-1][0] + layer[-1][1] > beat:
            layer[-1] = (layer[-1][0], beat - layer[-1][0], layer[-1][2])
        layer.append((beat, notes[beat, pitch], pitch))
    # A voice of a few double stops is no voice.
    return [tuple(x) for x in layers if len(x) >= max(8, len(layers[0]) / 4)]


class _Untied:
    type = None


# --- The plan ----------------------------------------------------------------


def choose_works(preset, seed):
    """
    Draw the works that a set is made from, more than it needs.

    Parameters
    ----------
    preset : Preset
        The size.
    seed : int
        Seed of the set.

    Returns
    -------
    list of Work
        Shuffled group by group: one movement of each group, then a second of
        each, and so on.
    """
    works = list_works()
    labelled = preset.train + preset.validation + preset.test
    chosen = []
    for name, listed in works.items():
        rng = generator(seed, "works", name)
        groups = {}
        for i in rng.permutation(len(listed)):
            if (corpus_root() / listed[i].path).stat().st_size <= preset.bytes:
                groups.setdefault(listed[i].group, []).append(listed[i])
        rounds = [
            group[k]
            for k in range(preset.sections)
            for group in groups.values()
            if k < len(group)
        ]
        wanted = SHARES.get(name, 0) * labelled
        wanted += UNLABELLED_SHARES.get(name, 0) * preset.unlabelled
        if name in ("Beethoven", "Mozart", "Haydn"):  # long, and slow to parse
            wanted /= preset.excerpts
        chosen += rounds[: int(2 * wanted) + 3]
    return chosen


@dataclass(frozen=True)
class Piece:
    """
    What one recording is of: a stretch of a work, or an exercise.

    Parameters
    ----------
    work : Work
        Where it is from.
    music : Music
        The notes of the stretch, counted from its start.
    first_beat : float
        Where the stretch starts in the work.
    tempo : float
        Mean quarter notes a minute.
    family : str
        Name of the tune family: the path of its first work.
    split : str
        Its split.
    ensemble : str
        Who plays it; empty for an exercise.
    program : int
        The one instrument of an exercise; 0 for a piece of the corpus.
    """

    work: Work
    music: Music
    first_beat: float
    tempo: float
    family: str
    split: str
    ensemble: str = ""
    program: int = 0

    @property
    def seconds(self):
        """Length in seconds at the mean tempo."""
        return self.music.length * 60 / self.tempo


def plan(works, music, preset, seed):
    """
    Choose excerpts, give them to splits family by family, and add exercises.

    Parameters
    ----------
    works : list of Work
        The works.
    music : list of Music
        Their notes.
    preset : Preset
        The size.
    seed : int
        Seed of the set.

    Returns
    -------
    list of Piece
        By split; in each, the composers in the shares wanted as far as there
        are works, each family once before any comes twice, and the ensembles
        equally often, drawn without regard to the work.
    """
    families = tune_families([m.melody for m in music], [w.group for w in works])
    kinds = [w.composer if w.composer in SHARES else "Others" for w in works]
    stretches = [
        _stretches(m, preset, generator(seed, "excerpts", w.path))
        for w, m in zip(works, music, strict=True)
    ]
    quotas = {
        "unlabelled": _quota(preset.unlabelled, UNLABELLED_SHARES),
        "validation": _quota(preset.validation, SHARES),
        "test": _quota(preset.test, SHARES),
        "train": _quota(preset.train, SHARES),  # last: of two quartets it gets one
    }
    # Labelled splits want as many groups (masses, quartets, chorales) as excerpts;
    # for unlabelled audio all sections of a mass will do.
    sizes = Counter(w.group for w in works)
    wanted = {split: dict(quota) for split, quota in quotas.items()}
    for name in wanted["unlabelled"]:
        own = {w.group for w, kind in zip(works, kinds, strict=True) if kind == name}
        count = sum(kind == name for kind in kinds)
        wanted["unlabelled"][name] *= len(own) / max(1, count)
    weights = [bool(s) / sizes[w.group] for w, s in zip(works, stretches, strict=True)]
    home = assign_families(families, kinds, weights, wanted)
    pieces = []
    for split, quota in quotas.items():
        queues = {name: [] for name in quota}
        for i, own in enumerate(stretches):
            if home[i] == split and kinds[i] in queues:
                for k, stretch in enumerate(own):
                    family = works[families[i]].path
                    piece = Piece(works[i], *stretch, family, split)
                    queues[kinds[i]].append((k, i, piece))
        queues = {name: _spread(queue) for name, queue in queues.items()}
        total = sum(quota.values())
        chosen = []
        for name, queue in queues.items():
            chosen += queue[: quota[name]]
            del queue[: quota[name]]
        # What a scarce composer lacks is made up with families not heard yet.
        rest = [item for queue in queues.values() for item in queue]
        rest.sort(key=lambda item: item[:3])
        chosen += rest[: total - len(chosen)]
        if len(chosen) < total:
            raise RuntimeError(f"the corpus is too small for the split {split}")
        chosen.sort(key=lambda item: item[2::-1])
        rng = generator(seed, "ensembles", split)
        rounds = [rng.permutation(list(ENSEMBLES)) for _ in range(0, total, 21)]
        ensembles = rng.permutation(np.concatenate(rounds)[:total])
        pieces += [
            replace(piece, ensemble=str(ensemble))
            for (*_, piece), ensemble in zip(chosen, ensembles, strict=True)
        ]
    return pieces + exercises(preset, seed)


def exercises(preset, seed):
    """
    Compose procedural pieces, one instrument each.

    Parameters
    ----------
    preset : Preset
        The size.
    seed : int
        Seed of the set.

    Returns
    -------
    list of Piece
        Arpeggios, chords and random polyphony over the whole range; in training
        after a chromatic scale through every playable pitch. Validation and
        test hold other draws, not the scale.
    """
    pieces = []
    counts = {"train": preset.exercises, "validation": 1, "test": 1}
    for split, count in counts.items():
        for program in PITCH_RANGES:
            for k in range(count):
                name = f"exercise/{split}/{program}/{k}"
                rng = generator(seed, name)
                tempo = float(rng.uniform(120, 150))
                beats = rng.uniform(*preset.seconds) * tempo / 60
                music = _exercise(program, beats, split == "train", rng)
                work = Work("", "", "Exercise", INSTRUMENTS[program].title(), "", "")
                pieces.append(
                    Piece(work, music, 0.0, tempo, name, split, program=program)
                )
    return pieces


def _exercise(program, beats, scale, rng):
    low, high = PITCH_RANGES[program]
    voices = [[] for _ in range(4 if program in KEYBOARDS else 2)]
    now = 0.0
    if scale:
        voices[0] = [(0.5 * i, 0.5, p) for i, p in enumerate(range(low, high + 1))]
        now = 0.5 * len(voices[0])
    while now < beats:
        kind = rng.integers(3)
        if kind == 0:  # an arpeggio over three octaves
            root, third = rng.integers(low, high - 12), rng.integers(3, 5)
            steps = [12 * octave + x for octave in range(3) for x in (0, third, 7)]
            for pitch in (root + step for step in steps if root + step <= high):
                voices[0].append((now, 0.5, pitch))
                now += 0.5
        elif kind == 1:  # a grid of chords
            for _ in range(4):
                chord = rng.choice(np.arange(low, high + 1), len(voices), replace=False)
                for voice, pitch in zip(voices, chord, strict=True):
                    voice.append((now, 1.0, pitch))
                now += 1
        else:  # each voice by itself
            for voice in voices:
                beat = now
                while beat < now + 4:
                    length = min(float(rng.choice((0.5, 1, 2))), now + 4 - beat)
                    voice.append((beat, length, rng.integers(low, high + 1)))
                    beat += length
            now += 4
    return Music(tuple(tuple(voice) for voice in voices), 4.0, now)


def _spread(queue):
    """Rank (excerpt, work, piece) so that each family comes once before any twice."""
    seen = Counter()
    ranked = []
    for k, i, piece in sorted(queue, key=lambda item: item[:2]):
        ranked.append((seen[piece.family], k, i, piece))
        seen[piece.family] += 1
    return sorted(ranked, key=lambda item: item[:3])


def _quota(total, shares):
    """Split a total by shares, largest remainders first."""
    exact = {
        name: total * share / sum(shares.values()) for name, share in shares.items()
    }
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n]):
        if sum(counts.values()) < total:
            counts[name] += 1
    return counts


def _stretches(music, preset, rng):
    """Cut (Music, first beat, tempo) out of a work; a short one is played again."""
    tempo = music.tempo * float(np.exp(np.clip(rng.normal(0, 0.1), -0.2, 0.2)))
    beats = rng.uniform(*preset.seconds) * tempo / 60
    if music.length <= beats:
        verse = np.ceil(music.length / music.bar) * music.bar
        voices = tuple(
            tuple(
                (beat + k * verse, length, pitch)
                for k in range(int(np.ceil(beats / verse)))
                for beat, length, pitch in voice
            )
            for voice in music.voices
        )
        music = replace(music, voices=voices, length=beats)
    # A whole quartet in one file gives more than a movement does.
    count = min(preset.excerpts * int(1 + music.length // 1000), music.length // beats)
    room = (music.length - beats) // music.bar
    firsts = (np.linspace(0, 1, int(count)) * room).astype(int) if count > 1 else [0]
    stretches = []
    for first in (float(bars * music.bar) for bars in firsts):
        voices = tuple(
            tuple(
                (beat - first, min(length, first + beats - beat), pitch)
                for beat, length, pitch in voice
                if first <= beat < first + beats
            )
            for voice in music.voices
        )
        voices = tuple(voice for voice in voices if len(voice) >= 3)
        if len(voices) >= 2:
            stretches.append((Music(voices, music.bar, beats), first, tempo))
    return stretches


# --- Arrangement -------------------------------------------------------------


def arrange(music, ensemble, rng):
    """
    Give the voices of a piece to the players of an ensemble.

    The players with one note at a time take voices in the order of their
    registers. Where voices are left over a keyboard plays them (without one they
    rest); where players are left over they double a voice at the octave. All is
    transposed together, then each player by whole octaves into the instrument's
    range.

    Parameters
    ----------
    music : Music
        The piece.
    ensemble : str
        One of MusicNet's ensembles.
    rng : numpy.random.Generator
        The source of chance.

    Returns
    -------
    parts : list of tuple
        For each player (program, notes, whether it leads), notes a list of
        (beat, beats, pitch).
    transposition : int
        Semitones that everything was moved by, before octaves.
    """
    transposition = int(rng.integers(-5, 7))
    voices = [
        [(beat, beats, pitch + transposition) for beat, beats, pitch in voice]
        for voice in music.voices
    ]
    programs = ENSEMBLES[ensemble]
    keyboard = next((p for p in programs if p in KEYBOARDS), None)
    players = sorted((p for p in programs if p != keyboard), key=_centre, reverse=True)
    count = min(len(players), len(voices))
    if len(players) == 1:
        taken = [0 if keyboard is None or rng.random() < 0.7 else len(voices) // 2]
    else:
        inner = 1 + rng.permutation(len(voices) - 2)[: count - 2]
        taken = sorted({0, len(voices) - 1, *map(int, inner)})[: len(players)]
    parts = []
    used = set()
    for i, program in enumerate(players):
        index = taken[i * len(taken) // len(players)]
        notes = _into_range(voices[index], program)
        if len(programs) == 1:
            notes = _fill(notes, voices, program, music)
        if (program, index) in used:
            notes = _double(notes, program)
        used.add((program, index))
        parts.append((program, notes, index == 0))
    if len(players) == 1 and keyboard is None and players[0] in BOWED:
        stops = _double_stops(parts[0][1], voices[1:], players[0], rng)
        parts.append((players[0], stops, False))
    if keyboard is not None:
        rest = [i for i in range(len(voices)) if i not in taken]
        if len(rest) < 2:
            rest = list(range(len(voices)))
        for i in rest:
            parts.append((keyboard, _into_range(voices[i], keyboard, 0), i == 0))
        if rng.random() < 0.5:  # the left hand's octaves
            bass = _into_range(voices[rest[-1]], keyboard, 0)
            octaves = [(beat, beats, pitch - 12) for beat, beats, pitch in bass]
            parts.append((keyboard, _fold(octaves, keyboard), False))
        if 0 in rest and rng.random() < 0.3:  # the right hand's
            top = _into_range(voices[0], keyboard, 0)
            octaves = [(beat, beats, pitch + 12) for beat, beats, pitch in top]
            parts.append((keyboard, _fold(octaves, keyboard), False))
    return parts, transposition


def _centre(program):
    return sum(PITCH_RANGES[program]) / 2


def _into_range(notes, program, pull=1):
    """
    Move notes by the octaves that leave fewest outside, then fold the rest.

    ``pull`` weighs the wish to lie near the middle of the instrument against the
    wish to stay where the composer wrote.
    """
    low, high = PITCH_RANGES[program]
    pitches = np.array([pitch for _, _, pitch in notes])

    def cost(octave):
        moved = pitches + 12 * octave
        outside = np.mean((moved < low) | (moved > high))
        distance = abs(np.median(moved) - _centre(program)) if pull else 0
        return outside, pull * distance // 12, abs(octave)

    octave = min(range(-4, 5), key=cost)
    return _fold([(b, d, pitch + 12 * octave) for b, d, pitch in notes], program)


def _fold(notes, program):
    """Move single notes by octaves into an instrument's range."""
    low, high = PITCH_RANGES[program]
    return [
        (beat, beats, pitch + 12 * max(0, -(-(low - pitch) // 12)))
        if pitch < low
        else (beat, beats, pitch - 12 * max(0, -(-(pitch - high) // 12)))
        for beat, beats, pitch in notes
    ]


def _fill(melody, voices, program, music):
    """Let a lone player take other voices where the melody rests a bar or more."""
    melody = list(melody)
    for voice in voices[1:]:
        ends = [0.0, *(beat + beats for beat, beats, _ in melody)]
        starts = [*(beat for beat, _, _ in melody), music.length]
        rests = [
            (end, start)
            for end, start in zip(ends, starts, strict=True)
            if start - end >= music.bar
        ]
        melody += [
            (beat, beats, pitch)
            for beat, beats, pitch in _into_range(voice, program)
            if any(end <= beat and beat + beats <= start for end, start in rests)
        ]
        melody.sort()
    return melody


def _double(notes, program):
    """Double at the octave below or above, whichever fits more notes."""
    low, high = PITCH_RANGES[program]
    best = max(
        (-12, 12), key=lambda s: sum(low <= pitch + s <= high for _, _, pitch in notes)
    )
    return [
        (b, d, pitch + best) for b, d, pitch in notes if low <= pitch + best <= high
    ]


def _double_stops(melody, others, program, rng):
    """Add to a lone string now and then a note of another voice under its own."""
    low, _ = PITCH_RANGES[program]
    stops = []
    starts = {
        beat: (beats, pitch) for voice in others[::-1] for beat, beats, pitch in voice
    }
    for beat, beats, pitch in melody:
        if beat in starts and rng.random() < 0.25:
            length, under = starts[beat]
            under = pitch - (pitch - under) % 12
            if pitch - 12 < under < pitch - 2 and under >= low:
                stops.append((beat, min(beats, length), under))
    return stops


# --- Performance -------------------------------------------------------------


def perform(parts, music, tempo, rng):
    """
    Play an arrangement as people do: never quite as written.

    The tempo drifts, breathes with phrases and slows at the end; loudness
    follows phrases, bars and sections; each player has an articulation, leads
    or follows by some milliseconds, and no chord is struck quite together.

    Parameters
    ----------
    parts : list of tuple
        (program, notes, leads) for each player, from :func:`arrange`.
    music : Music
        The piece, for its bars and length.
    tempo : float
        Mean quarter notes a minute.
    rng : numpy.random.Generator
        The source of chance.

    Returns
    -------
    Score
        The notes as played, times on FluidSynth's grid, none of a program
        overlapping another of the same pitch.
    """
    phrase = music.bar * rng.choice((2, 4))
    clock = _clock(music.length, tempo, phrase, rng)
    lead_in = rng.uniform(0.1, 0.6)
    level = rng.uniform(50, 90)
    sections = rng.normal(0, 8, size=int(music.length / (2 * phrase)) + 2)
    notes = []
    for program, played, leads in parts:
        articulation = rng.choice((0.97, 0.9, 0.75, 0.5), p=(0.4, 0.3, 0.2, 0.1))
        lag = rng.normal(0, 0.006) - 0.008 * leads
        own = level + rng.normal(0, 5) + 8 * leads
        for beat, beats, pitch in played:
            start = clock(beat) + lead_in + lag + rng.normal(0, 0.006)
            share = np.clip(articulation + rng.normal(0, 0.03), 0.3, 1.0)
            end = start + share * (clock(beat + beats) - clock(beat))
            velocity = (
                own
                + sections[int(beat / (2 * phrase))]
                + 8 * np.sin(np.pi * (beat % phrase) / phrase)
                + 5 * (beat % music.bar < 0.01)
                + rng.normal(0, 3)
            )
            start, end = float(snap(start)), float(snap(end))
            notes.append(
                Note(
                    start,
                    max(end, start + float(snap(0.05))),
                    program,
                    int(pitch),
                    int(np.clip(velocity, 25, 120)),
                    beat,
                    beats,
                )
            )
    return Score(tuple(untangle(notes)))


def _clock(length, tempo, phrase, rng):
    """Give the function from beats to seconds."""
    grid = np.arange(0, length + 8, 0.25)
    drift = 0.04 * np.sin(2 * np.pi * (grid / rng.uniform(30, 80) + rng.random()))
    breath = -0.04 * np.cos(2 * np.pi * grid / phrase)
    wander = 0.01 * np.convolve(rng.normal(size=grid.size), np.ones(8) / 8**0.5, "same")
    ending = -0.25 * np.clip((grid - length + 4) / 4, 0, 1)
    speed = tempo / 60 * np.exp(drift + breath + wander + ending)  # beats a second
    times = np.concatenate(([0.0], np.cumsum(0.25 / speed)))[:-1]
    return lambda beat: float(np.interp(beat, grid, times))


def untangle(notes):
    """
    Part the notes of one program and pitch, so that none overlap.

    Parameters
    ----------
    notes : iterable of Note
        Any notes.

    Returns
    -------
    list of Note
        Struck together (within 60 ms) they become one note; a note struck again
        while it sounds ends there.
    """
    clean = {}
    for note in sorted(notes):
        own = clean.setdefault((note.program, note.pitch), [])
        if own and note.start - own[-1].start < 0.06:
            if note.end > own[-1].end:
                own[-1] = replace(own[-1], end=note.end, beats=note.beats)
            continue
        if own and own[-1].end > note.start:
            own[-1] = replace(own[-1], end=note.start)
        own.append(note)
    return [note for own in clean.values() for note in own]


# --- Single notes -------------------------------------------------------------

VELOCITIES = (40, 72, 108)
"""Soft, medium and loud."""

DURATIONS = {"short": 0.4, "long": 2.0}
"""Seconds from onset to offset."""

NOTE_ONSET = 0.1
"""Seconds of silence before the note."""

NOTE_TAIL = 0.9
"""Seconds after the offset, so that even a short clip holds 1.28 s."""


def split_notes(step, seed):
    """
    Give each pitch of each instrument to a split.

    Parameters
    ----------
    step : int
        Semitones between the pitches used; 1 for all.
    seed : int
        Seed of the set.

    Returns
    -------
    dict of tuple of int to str
        Split of (program, pitch): about 15 % validation, 15 % test. A pitch
        never leaves training altogether, so what is asked of the test was
        taught on another instrument.
    """
    pairs = [
        (program, pitch)
        for program, (low, high) in PITCH_RANGES.items()
        for pitch in range(low, high + 1)
        if pitch % step == 0
    ]
    left = {}
    for _, pitch in pairs:
        left[pitch] = left.get(pitch, 0) + 1
    splits = dict.fromkeys(pairs, "train")
    rng = generator(seed, "notes")
    held_out = {program: 0 for program in PITCH_RANGES}
    for i in rng.permutation(len(pairs)):
        program, pitch = pairs[i]
        share = sum(own == program for own, _ in pairs) * 0.15
        if left[pitch] > 1 and held_out[program] < round(2 * share):
            splits[program, pitch] = ("test", "validation")[held_out[program] % 2]
            held_out[program] += 1
            left[pitch] -= 1
    return splits


def treat_note(wave, velocity):
    """
    Set the level of a single note and end it without a click.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 44.1 kHz.
    velocity : int
        MIDI velocity; the peak lies 40 log10(velocity / 127) dB below -1 dB of
        full scale, General MIDI's recommended law.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in int16; the last 20 ms fade out.
    """
    wave = wave.copy()
    fade = int(0.02 * LABEL_RATE)
    wave[-fade:] *= np.linspace(1, 0, fade)
    peak = 10 ** (-1 / 20) * (velocity / 127) ** 2
    return np.round(wave * (peak * 32767 / np.abs(wave).max())).astype(np.int16)


# --- Rooms and levels --------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """
    What happens to a rendering on its way to the file.

    Parameters
    ----------
    peak_db : float
        Peak level of the file in dB below full scale.
    reverb_seconds : float
        Time in which the room's sound falls by 60 dB; 0 for no room.
    wet_db : float
        Energy of the room's sound against the direct one, in dB.
    noise_db : float
        Level of white noise against the peak, in dB; -inf for none.
    tilt_db : float
        Equaliser: dB more at 8 kHz than at 125 Hz.
    """

    peak_db: float = -3.0
    reverb_seconds: float = 0.0
    wet_db: float = -10.0
    noise_db: float = -np.inf
    tilt_db: float = 0.0


def draw_sound(rng, wide=False):
    """
    Draw a room and a level.

    Parameters
    ----------
    rng : numpy.random.Generator
        The source of chance.
    wide : bool
        Vary everything widely, as for unlabelled audio; otherwise half of the
        draws are dry at -3 dB and the others differ in room and level.

    Returns
    -------
    Sound
        The draw.
    """
    if not wide and rng.random() < 0.5:
        return Sound()
    sound = Sound(
        peak_db=round(rng.uniform(-15, -1), 2),
        reverb_seconds=round(rng.uniform(0.3, 1.2), 2),
        wet_db=round(rng.uniform(-18, -6), 2),
    )
    if wide:
        sound = replace(
            sound,
            reverb_seconds=round(rng.choice((0.0, rng.uniform(0.2, 2.5))), 2),
            noise_db=round(rng.uniform(-80, -35), 2),
            tilt_db=round(rng.normal(0, 6), 2),
        )
    return sound


def treat(wave, sound, rng):
    """
    Put a rendering into its room, at its level.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 44.1 kHz.
    sound : Sound
        Room, noise, equaliser and level.
    rng : numpy.random.Generator
        Draws the room's reflections and the noise.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in int16. The direct sound comes first and undelayed, so
        labels stay true.
    """
    from scipy.signal import oaconvolve

    if sound.reverb_seconds:
        # Polack's model of a diffuse room: noise that decays exponentially.
        times = np.arange(int(sound.reverb_seconds * LABEL_RATE)) / LABEL_RATE
        echo = rng.normal(size=times.size) * 10 ** (-3 * times / sound.reverb_seconds)
        echo[: int(0.005 * LABEL_RATE)] = 0  # no wall is nearer
        echo = np.convolve(echo, (0.3, 0.4, 0.3), "same")  # walls are dull
        echo *= 10 ** (sound.wet_db / 20) / np.sqrt(np.sum(echo**2))
        echo[0] = 1
        wave = oaconvolve(wave, echo.astype(np.float32))[: wave.size]
    if sound.tilt_db:
        wave = _tilt(wave, sound.tilt_db)
    peak = np.abs(wave).max() or 1.0
    wave = wave / peak
    if np.isfinite(sound.noise_db):
        wave = wave + 10 ** (sound.noise_db / 20) * rng.normal(size=wave.size)
        wave = wave / np.abs(wave).max()
    return np.round(wave * (10 ** (sound.peak_db / 20) * 32767)).astype(np.int16)


def _tilt(wave, decibels):
    """Filter with a straight line in dB over log-frequency, 125 Hz to 8 kHz."""
    from scipy.signal import oaconvolve

    taps = 1023
    frequencies = np.fft.rfftfreq(4096, 1 / LABEL_RATE)
    octaves = np.log2(np.clip(frequencies, 125, 8000) / 1000)
    kernel = np.fft.irfft(10 ** (decibels * octaves / 6 / 20))
    kernel = np.roll(kernel, taps // 2)[:taps] * np.hanning(taps)
    return oaconvolve(wave, kernel.astype(np.float32), "same")
