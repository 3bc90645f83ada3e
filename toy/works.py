"""
Works: selection of scores, excerpts and splits of a set.

All draws are from private generators seeded by (seed, name), so a piece does not
depend on the pieces before it.
"""

import re
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from arrange import ENSEMBLES, KEYBOARDS
from families import assign_families, tune_families
from studies import single_notes, study
from voices import Music, corpus_root

from jtm.constants import INSTRUMENTS, PITCH_RANGES

SHARES = {
    "Bach": 0.40,
    "Palestrina": 0.20,
    "Monteverdi": 0.10,
    "Beethoven": 0.10,
    "Mozart": 0.10,
    "Haydn": 0.10,
}
"""Fraction of each composer among the labelled pieces, as far as available."""

UNLABELLED_SHARES = {"Bach": 0.3, "Palestrina": 0.5, "Others": 0.2}
"""The same for unlabelled audio."""

WIDE_SHARES = {**SHARES, "Others": 0.1}
"""The same, up to a common factor, for the preset `wide`."""

WIDE_TEMPO = (0.7, 1.4)
"""Range of the tempo of `wide` relative to :attr:`voices.Music.tempo`."""

WIDE_PLAYERS = 6
"""Maximum number of players in `wide`, each with a different instrument."""

STUDIES = {"": 0.4, "solo": 0.1, "piano": 0.2, "players": 0.15, "notes": 0.15}
"""Fractions in `transcriber` of works for random instruments, works for piano, studies
for piano and for random instruments, and isolated notes."""

VALIDATION_SHARE = 0.04
"""Fraction of validation pieces in `transcriber`, from validation works."""


@dataclass(frozen=True)
class Preset:
    """
    Size of a toy set.

    Parameters
    ----------
    train, validation, test, unlabelled : int
        Pieces in each split, taken from the corpus.
    seconds : tuple of float
        Shortest and longest excerpt.
    excerpts : int
        Maximum number of excerpts of one movement (per 1000 beats of longer ones).
    sections : int
        Maximum number of sections of one mass, or movements of one quartet.
    exercises : int
        Procedural training pieces per instrument; validation and test have one each.
    note_step : int
        Semitones between the pitches of single notes; 1 for all, 0 for no notes.
    bytes : float
        Maximum size of a score file; the largest take ten seconds to parse.
    hours : float
        Hours of `wide` audio: random instruments, tempo and tuning, unlabelled.
    presets : tuple of str
        Presets whose works `wide` uses, except for the tune families that any of them
        holds out for validation or test.
    labelled : bool
        Whether the hours are labelled, for training the transcriber: timbres vary too,
        and they include :data:`STUDIES` and validation pieces.
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
    hours: float = 0.0
    presets: tuple = ()
    labelled: bool = False


PRESETS = {
    "tiny": Preset(21, 21, 21, 6, (6.0, 7.0), 2, 1, 1, 12, 25e3),
    "small": Preset(84, 21, 21, 60, (30.5, 32.0), 3, 2, 1, 1, 90e3),
    "full": Preset(315, 42, 63, 240, (32.0, 115.0), 4, 5, 4, 1, np.inf),
}
"""Sizes by name; the labelled splits hold each of the 21 ensembles equally."""

PRESETS["wide"] = replace(
    PRESETS["full"],
    **dict.fromkeys(
        ("train", "validation", "test", "unlabelled", "exercises", "note_step"), 0
    ),
    hours=40.0,
    presets=tuple(PRESETS),
)
PRESETS["transcriber"] = replace(
    PRESETS["wide"], hours=12.0, seconds=(15.0, 60.0), labelled=True
)


def generator(seed, *names):
    """
    Return a private random generator.

    Parameters
    ----------
    seed : int
        Random seed of the whole set.
    *names : str
        Purpose of the draws.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments, on any machine.
    """
    return np.random.default_rng([seed, *(zlib.crc32(n.encode()) for n in names)])


# --- The corpus ---------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """
    A movement of the corpus, with metadata derived from its path.

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

    @property
    def share(self):
        """Key of the composer among the shares: 'Others' is unlabelled only."""
        return self.composer if self.composer in SHARES else "Others"


def list_works():
    """
    List the works of the corpus that a set may use.

    Returns
    -------
    dict of str to list of Work
        Works by composer; those of 'Others' are used for unlabelled audio only.
    """
    root = corpus_root()
    works = {name: [] for name in (*SHARES, "Others")}
    for pattern, describe in _SOURCES.items():
        for path in sorted(root.glob(pattern)):
            work = describe(path.relative_to(root).as_posix())
            if work:
                works[work.share].append(work)
    return works


def _chorale(path):
    number = Path(path).stem.removeprefix("bwv")
    catalog = f"BWV {number}"
    if number != "846":  # a prelude for keyboard, among chorales
        return Work(path, "Bach", f"Chorale {catalog}", "", catalog, path)


def _mass(path):
    head = (corpus_root() / path).read_text(encoding="latin-1")[:2000]
    mass = re.search(r"!!!OPR: *(.+)", head)[1].strip()
    section = Path(path).stem.replace("_", " ")
    return Work(path, "Palestrina", mass, section, "", f"palestrina/{mass}")


def _madrigal(path):
    _, book, number, _ = Path(path).name.split(".")
    title = f"Madrigals, Book {book}, No. {number}"
    return None if "_old" in path else Work(path, "Monteverdi", title, "", "", path)


def _classic(path):
    composer, *folders = Path(path).with_suffix("").parts
    catalog = re.sub(r"^opus(\d+)(no(\d+))?", _opus, folders[0])
    catalog = re.sub(r"^k(\d+)", r"K. \1", catalog)
    kind = "Piano Sonata" if catalog == "K. 545" else "String Quartet"
    movement = folders[1].removeprefix("movement")[:1] if folders[1:] else ""
    return Work(
        *(path, composer.title(), f"{kind} {catalog}", movement, catalog),
        f"{composer}/{folders[0]}",
    )


def _opus(match):
    return f"Op. {match[1]}" + (f" No. {match[3]}" if match[3] else "")


def _other(path):
    if path.endswith((".mxl", ".xml", ".krn")):
        name = " ".join(reversed(Path(path).parts[0].split("_"))).title()
        return Work(path, name, Path(path).stem.replace("_", " "), "", "", path)


_SOURCES = {
    "bach/bwv*.mxl": _chorale,
    "palestrina/*.krn": _mass,
    # Without book 5, whose encodings carry a publisher's notice of 2003.
    "monteverdi/madrigal.[34].*.mxl": _madrigal,
    "beethoven/**/*.mxl": _classic,
    "mozart/**/*.mxl": _classic,
    "haydn/**/*.mxl": _classic,
    "schumann_robert/opus41no1/**/*.*": _other,
    "schumann_clara/**/*.*": _other,
    "chopin/**/*.*": _other,
    "joplin/**/*.*": _other,
}


def choose_works(preset, seed):
    """
    Draw candidate works for a set, more than it needs.

    Parameters
    ----------
    preset : Preset
        Size of the set.
    seed : int
        Random seed of the set.

    Returns
    -------
    list of Work
        Shuffled in rounds: one movement of each group, then a second of each, and so
        on.
    """
    if preset.presets:
        drawn = [choose_works(PRESETS[name], seed) for name in preset.presets]
        return list(dict.fromkeys(work for works in drawn for work in works))
    labelled = preset.train + preset.validation + preset.test
    chosen = []
    for name, listed in list_works().items():
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
        quota = SHARES.get(name, 0) * labelled
        quota += UNLABELLED_SHARES.get(name, 0) * preset.unlabelled
        if name in ("Beethoven", "Mozart", "Haydn"):  # long, and slow to parse
            quota /= preset.excerpts
        chosen += rounds[: int(2 * quota) + 3]
    return chosen


# --- Pieces -------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """
    The content of one recording: an excerpt of a work, or an exercise.

    Parameters
    ----------
    work : Work
        The work; without a path for an exercise.
    music : Music
        The notes of the excerpt, counted from its start.
    first_beat : float
        Start of the excerpt in the work.
    tempo : float
        Mean quarter notes per minute.
    family : str
        Name of the tune family: the path of its first work.
    split : str
        Its split.
    ensemble : str
        Name of the ensemble, if any.
    programs : tuple of int
        General MIDI program of each player, counted from 1.
    """

    work: Work
    music: Music
    first_beat: float
    tempo: float
    family: str
    split: str
    ensemble: str = ""
    programs: tuple = ()

    @property
    def seconds(self):
        """Length in seconds at the mean tempo."""
        return self.music.length * 60 / self.tempo

    @property
    def procedural(self):
        """Whether it is an exercise or a study, not from the corpus."""
        return not self.work.path


def plan(works, music, preset, seed):
    """
    Choose excerpts, assign them to splits by tune family, and add exercises.

    Parameters
    ----------
    works : list of Work
        The works.
    music : list of Music
        Their notes.
    preset : Preset
        Size of the set.
    seed : int
        Random seed of the set.

    Returns
    -------
    list of Piece
        By split; in each, the composers are in proportion to the shares as far as
        there are works, no family recurs before all have occurred, and all ensembles
        are equally frequent, drawn independently of the work.
    """
    families = tune_families([m.melody for m in music], [w.group for w in works])
    excerpts = [
        _excerpts(m, preset, generator(seed, "excerpts", w.path))
        for w, m in zip(works, music, strict=True)
    ]
    quotas = {
        "unlabelled": _quota(preset.unlabelled, UNLABELLED_SHARES),
        "validation": _quota(preset.validation, SHARES),
        "test": _quota(preset.test, SHARES),
        "train": _quota(preset.train, SHARES),  # last: of two quartets it gets one
    }
    assigned = _assign(works, families, excerpts, quotas)
    pieces = []
    for split, quota in quotas.items():
        queues = {name: [] for name in quota}
        for i, own in enumerate(excerpts):
            if assigned[i] == split and works[i].share in queues:
                for k, excerpt in enumerate(own):
                    piece = Piece(works[i], *excerpt, works[families[i]].path, split)
                    queues[works[i].share].append((k, i, piece))
        chosen = _choose(queues, quota, split)
        rng = generator(seed, "ensembles", split)
        rounds = [rng.permutation(list(ENSEMBLES)) for _ in range(0, len(chosen), 21)]
        ensembles = rng.permutation(np.concatenate(rounds)[: len(chosen)])
        pieces += [
            replace(piece, ensemble=str(ensemble), programs=ENSEMBLES[str(ensemble)])
            for piece, ensemble in zip(chosen, ensembles, strict=True)
        ]
    return pieces + exercises(preset, seed)


def _assign(works, families, excerpts, quotas):
    """Choose the split of each work, the same for a whole tune family."""
    composers = [work.share for work in works]
    # Labelled splits need as many groups (masses, quartets, chorales) as excerpts;
    # unlabelled audio may have all sections of a mass.
    sizes = Counter(w.group for w in works)
    quotas = {split: dict(quota) for split, quota in quotas.items()}
    for name in quotas["unlabelled"]:
        own = {w.group for w in works if w.share == name}
        quotas["unlabelled"][name] *= len(own) / max(1, composers.count(name))
    weights = [bool(e) / sizes[w.group] for w, e in zip(works, excerpts, strict=True)]
    return assign_families(families, composers, weights, quotas)


def _choose(queues, quota, split):
    """Fill a quota from queues of (excerpt, work, piece) by composer."""
    queues = {name: _spread(queue) for name, queue in queues.items()}
    total = sum(quota.values())
    chosen = []
    for name, queue in queues.items():
        chosen += queue[: quota[name]]
        del queue[: quota[name]]
    # Deficits of scarce composers are filled with families not chosen yet.
    others = [item for queue in queues.values() for item in queue]
    others.sort(key=lambda item: item[:3])
    chosen += others[: total - len(chosen)]
    if len(chosen) < total:
        raise RuntimeError(f"the corpus is too small for the split {split}")
    chosen.sort(key=lambda item: item[2::-1])
    return [piece for *_, piece in chosen]


def plan_wide(works, music, preset, seed, hours):
    """
    Choose excerpts for audio of varied sound, and studies if it is labelled.

    Parameters
    ----------
    works : list of Work
        The works, from :func:`choose_works`.
    music : list of Music
        Their notes.
    preset : Preset
        Size of the set, with `presets`.
    seed : int
        Random seed of the set.
    hours : float
        Minimum total duration of the pieces.

    Returns
    -------
    list of Piece
        Training pieces are of tune families that no preset holds out for validation or
        test, validation pieces of families that are held out for validation and that
        no preset trains on. Fewer hours yield a prefix of the same list.
    """
    families = tune_families([m.melody for m in music], [w.group for w in works])
    index = {work.path: i for i, work in enumerate(works)}
    in_split = {split: set() for split in ("train", "validation", "test", "unlabelled")}
    for name in preset.presets:
        drawn = choose_works(PRESETS[name], seed)
        own = [music[index[work.path]] for work in drawn]
        for piece in plan(drawn, own, PRESETS[name], seed):
            if not piece.procedural:
                in_split[piece.split].add(families[index[piece.work.path]])
    queues, trained_on = {}, in_split["train"] | in_split["unlabelled"]
    for i in generator(seed, "wide").permutation(len(works)):
        split = "train" if preset.labelled else "unlabelled"
        if families[i] in in_split["validation"]:
            split = "excluded" if families[i] in trained_on else "validation"
        if families[i] not in in_split["test"] and len(music[i].voices) > 1:
            queues.setdefault(split, {n: [] for n in WIDE_SHARES})
            queues[split][works[i].share].append(i)
    pieces, used, seconds = [], Counter(), 0.0
    while seconds < hours * 3600:
        rng = generator(seed, "wide", str(len(pieces)))
        split, style = "unlabelled", ""
        if preset.labelled:
            split = "validation" if rng.random() < VALIDATION_SHARE else "train"
            style = str(rng.choice(list(STUDIES), p=list(STUDIES.values())))
        if style in ("", "solo"):
            own = {name: queue for name, queue in queues[split].items() if queue}
            shares = np.array([WIDE_SHARES[name] for name in own])
            name = str(rng.choice(list(own), p=shares / shares.sum()))
            i = own[name][used[split, name] % len(own[name])]
            used[split, name] += 1
            excerpt = _wide_excerpt(music[i], preset, rng)
            if not excerpt:
                continue
            piece = Piece(works[i], *excerpt, works[families[i]].path, split)
            programs = _players(rng) if style == "" else (1,)
            pieces.append(replace(piece, programs=programs))
        else:
            pieces.append(_study(style, preset, f"study/{len(pieces)}", split, rng))
        seconds += pieces[-1].seconds
    return pieces


def _players(rng):
    """Draw one or more players of different instruments."""
    n_players = rng.integers(1, WIDE_PLAYERS + 1)
    return tuple(map(int, rng.choice(list(INSTRUMENTS), n_players, replace=False)))


def _study(style, preset, name, split, rng):
    """Compose a study; a study of isolated notes has one player."""
    tempo = 60.0 if style == "notes" else float(rng.uniform(45, 130))
    beats = rng.uniform(*preset.seconds) * tempo / 60
    programs = {"piano": (1,), "notes": _players(rng)[:1]}.get(style, _players(rng)[:4])
    compose = single_notes if style == "notes" else study
    music = compose(programs, beats, rng)
    work = Work("", "", "Study", style.title(), "", "")
    return Piece(work, music, 0.0, tempo, name, split, programs=programs)


def _spread(queue):
    """Rank (excerpt, work, piece) so that no family recurs before all occurred."""
    counts = Counter()
    ranked = []
    for k, i, piece in sorted(queue, key=lambda item: item[:2]):
        ranked.append((counts[piece.family], k, i, piece))
        counts[piece.family] += 1
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


def _excerpts(music, preset, rng):
    """Cut excerpts (Music, first beat, tempo) out of a work, repeated if short."""
    tempo = music.tempo * float(np.exp(np.clip(rng.normal(0, 0.1), -0.2, 0.2)))
    beats = rng.uniform(*preset.seconds) * tempo / 60
    music = _repeat(music, beats)
    # A file with a whole quartet yields more excerpts than one with a movement.
    count = min(preset.excerpts * int(1 + music.length // 1000), music.length // beats)
    room = (music.length - beats) // music.bar
    firsts = (np.linspace(0, 1, int(count)) * room).astype(int) if count > 1 else [0]
    cuts = [_cut(music, float(bars * music.bar), beats) for bars in firsts]
    return [(cut, first, tempo) for cut, first in cuts if cut]


def _wide_excerpt(music, preset, rng):
    """Cut a random excerpt (Music, first beat, tempo) out of a work, or return None."""
    low, high = np.log(WIDE_TEMPO)
    tempo = music.tempo * float(np.exp(rng.uniform(low, high)))
    beats = rng.uniform(*preset.seconds) * tempo / 60
    music = _repeat(music, beats)
    bars = int((music.length - beats) // music.bar)
    cut, first = _cut(music, float(rng.integers(bars + 1) * music.bar), beats)
    return (cut, first, tempo) if cut else None


def _repeat(music, beats):
    """Repeat a work like verses until it fills a number of beats."""
    if music.length > beats:
        return music
    verse = np.ceil(music.length / music.bar) * music.bar
    voices = tuple(
        tuple(
            (beat + k * verse, length, pitch)
            for k in range(int(np.ceil(beats / verse)))
            for beat, length, pitch in voice
        )
        for voice in music.voices
    )
    return replace(music, voices=voices, length=beats)


def _cut(music, first, beats):
    """Cut an excerpt: (Music or None if it has too few notes, first beat)."""
    voices = tuple(
        tuple(
            (beat - first, min(length, first + beats - beat), pitch)
            for beat, length, pitch in voice
            if first <= beat < first + beats
        )
        for voice in music.voices
    )
    voices = tuple(voice for voice in voices if len(voice) >= 3)
    return (Music(voices, music.bar, beats) if len(voices) >= 2 else None), first


# --- Exercises and single notes -------------------------------------------------


def exercises(preset, seed):
    """
    Compose procedural pieces for one instrument each.

    Parameters
    ----------
    preset : Preset
        Size of the set.
    seed : int
        Random seed of the set.

    Returns
    -------
    list of Piece
        Arpeggios, chords and random polyphony over the whole range, in training after
        a chromatic scale of all playable pitches. Validation and test have other
        draws, without the scale.
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
                    Piece(work, music, 0.0, tempo, name, split, programs=(program,))
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
        else:  # independent voices
            for voice in voices:
                beat = now
                while beat < now + 4:
                    length = min(float(rng.choice((0.5, 1, 2))), now + 4 - beat)
                    voice.append((beat, length, rng.integers(low, high + 1)))
                    beat += length
            now += 4
    return Music(tuple(tuple(voice) for voice in voices), 4.0, now)


def split_notes(step, seed):
    """
    Assign each pitch of each instrument to a split.

    Parameters
    ----------
    step : int
        Semitones between the pitches used; 1 for all.
    seed : int
        Random seed of the set.

    Returns
    -------
    dict of tuple of int to str
        Split of (program, pitch): about 15 % validation, 15 % test. Each pitch remains
        in training with at least one instrument.
    """
    pairs = [
        (program, pitch)
        for program, (low, high) in PITCH_RANGES.items()
        for pitch in range(low, high + 1)
        if pitch % step == 0
    ]
    in_training = Counter(pitch for _, pitch in pairs)
    splits = dict.fromkeys(pairs, "train")
    rng = generator(seed, "notes")
    held_out = {program: 0 for program in PITCH_RANGES}
    for i in rng.permutation(len(pairs)):
        program, pitch = pairs[i]
        share = sum(own == program for own, _ in pairs) * 0.15
        if in_training[pitch] > 1 and held_out[program] < round(2 * share):
            splits[program, pitch] = ("test", "validation")[held_out[program] % 2]
            held_out[program] += 1
            in_training[pitch] -= 1
    return splits
