"""Arrangement: the voices of a score assigned to the players of an ensemble."""

import numpy as np

from jtm.constants import PITCH_RANGES

KEYBOARDS = (1, 7)
"""Programs that play many voices at once: piano and harpsichord."""

BOWED = (41, 42, 43)
"""Programs of the strings that play double stops in solo pieces."""

ENSEMBLES = {
    "Accompanied Cello": (43, 1),
    "Accompanied Clarinet": (72, 1),
    "Accompanied Violin": (41, 1),
    "Clarinet Quintet": (72, 41, 41, 42, 43),
    "Clarinet-Cello-Piano Trio": (72, 43, 1),
    "Horn Piano Trio": (61, 41, 1),
    "Pairs Clarinet-Horn-Bassoon": (72, 72, 61, 61, 71, 71),
    "Piano Quartet": (41, 42, 43, 1),
    "Piano Quintet": (41, 41, 42, 43, 1),
    "Piano Trio": (41, 43, 1),
    "Solo Cello": (43,),
    "Solo Flute": (74,),
    "Solo Piano": (1,),
    "Solo Violin": (41,),
    "String Quartet": (41, 41, 42, 43),
    "String Sextet": (41, 41, 42, 42, 43, 43),
    "Viola Quintet": (41, 41, 42, 42, 43),
    "Violin and Harpsichord": (41, 7),
    "Wind Octet": (69, 69, 72, 72, 61, 61, 71, 71),
    "Wind Quintet": (74, 69, 72, 61, 71),
    "Wind and Strings Octet": (72, 61, 71, 41, 41, 42, 43, 44),
}
"""MusicNet's 21 ensembles, with the General MIDI program of every player."""


def arrange(music, programs, rng):
    """
    Assign the voices of a score to players.

    Monophonic players are assigned voices in the order of their registers. Surplus
    voices go to a keyboard (without one they are omitted); surplus players double a
    voice at the octave. The music is transposed as a whole, then each part by octaves
    into the range of its instrument.

    Parameters
    ----------
    music : Music
        The score.
    programs : sequence of int
        General MIDI program of each player, counted from 1.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    parts : list of tuple
        For each player (program, notes, whether it leads), notes a list of
        (beat, beats, pitch).
    transposition : int
        Transposition of the whole in semitones, before octaves.
    """
    transposition = int(rng.integers(-5, 7))
    voices = [
        [(beat, beats, pitch + transposition) for beat, beats, pitch in voice]
        for voice in music.voices
    ]
    keyboard = next((p for p in programs if p in KEYBOARDS), None)
    players = sorted((p for p in programs if p != keyboard), key=_centre, reverse=True)
    assigned = _assign(len(players), len(voices), keyboard, rng)
    parts = []
    used = set()
    for i, program in enumerate(players):
        index = assigned[i * len(assigned) // len(players)]
        notes = _into_range(voices[index], program)
        if len(programs) == 1:
            notes = _fill_rests(notes, voices, program, music)
        if (program, index) in used:
            notes = _double_at_octave(notes, program)
        used.add((program, index))
        parts.append((program, notes, index == 0))
    if len(players) == 1 and keyboard is None and players[0] in BOWED:
        stops = _double_stops(parts[0][1], voices[1:], players[0], rng)
        parts.append((players[0], stops, False))
    if keyboard is not None:
        parts += _accompany(voices, assigned, keyboard, rng)
    return parts, transposition


def figurate(parts, tempo, rng):
    """
    Break the chords of an accompanying keyboard into figures.

    Chorales and quartets hardly repeat a pitch within half a second, while broken,
    repeated and alternating chords are common in music for keyboards.

    Parameters
    ----------
    parts : list of tuple
        Parts from :func:`arrange`.
    tempo : float
        Quarter notes a minute.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    list of tuple
        The parts, with those of the keyboard that do not lead joined into one.
    """
    own = [part for part in parts if part[0] in KEYBOARDS and not part[2]]
    notes = sorted(note for _, played, _ in own for note in played)
    figured, now, share = [], 0.0, rng.choice((0.0, 0.5, 1.0))
    while notes and now <= notes[-1][0]:
        unit, is_broken = rng.choice((1.0, 1.0, 2.0)), rng.random() < share
        kind, seconds = rng.integers(5), np.exp(rng.uniform(*np.log((0.14, 1.2))))
        for first in now + unit * np.arange(8):
            chord = {
                p for beat, beats, p in notes if beat - 0.001 <= first < beat + beats
            }
            if not is_broken or len(chord) < 2:
                last = first + unit
                figured += [note for note in notes if first <= note[0] + 0.001 < last]
                continue
            figure = _figures(sorted(chord))[kind]
            step = max(0.07, seconds / len(figure)) * tempo / 60
            n_steps = max(1, round(unit / step))
            figured += [
                (float(first + unit * i / n_steps), unit / n_steps, pitch)
                for i in range(n_steps)
                for pitch in figure[i % len(figure)]
            ]
        now += 8 * unit
    rest = [part for part in parts if part not in own]
    return [*rest, (own[0][0], figured, False)] if own else parts


def _figures(chord):
    """Return figures of a chord: lists of pitches that are played together."""
    low, high, half = chord[:1], chord[-1:], len(chord) // 2
    return (
        [[pitch] for pitch in chord],
        [[pitch] for pitch in chord + chord[-2:0:-1]],
        [low, high, chord[half : half + 1], high],
        [chord[:half], chord[half:]],
        [chord],
    )


def _assign(players, voices, keyboard, rng):
    """Choose the voices of monophonic players, highest first."""
    if players == 1:
        return [0 if keyboard is None or rng.random() < 0.7 else voices // 2]
    inner = 1 + rng.permutation(max(0, voices - 2))[: min(players, voices) - 2]
    return sorted({0, voices - 1, *map(int, inner)})[:players]


def _accompany(voices, assigned, keyboard, rng):
    """Assign the other voices to the keyboard, sometimes with octaves in a hand."""
    others = [i for i in range(len(voices)) if i not in assigned]
    if len(others) < 2:
        others = list(range(len(voices)))
    parts = [(keyboard, _into_range(voices[i], keyboard, 0), i == 0) for i in others]
    for index, octave, probability in ((others[-1], -12, 0.5), (0, 12, 0.3)):
        if index in others and rng.random() < probability:
            hand = _into_range(voices[index], keyboard, 0)
            octaves = [(beat, beats, pitch + octave) for beat, beats, pitch in hand]
            parts.append((keyboard, _fold(octaves, keyboard), False))
    return parts


def _centre(program):
    return sum(PITCH_RANGES[program]) / 2


def _into_range(notes, program, pull=1):
    """
    Transpose notes by the octaves that leave fewest out of range, then fold those.

    ``pull`` weighs closeness to the middle of the instrument's range against
    closeness to the written pitch.
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
    """Transpose single notes by octaves into an instrument's range."""
    low, high = PITCH_RANGES[program]
    return [
        (beat, beats, pitch + 12 * max(0, -(-(low - pitch) // 12)))
        if pitch < low
        else (beat, beats, pitch - 12 * max(0, -(-(pitch - high) // 12)))
        for beat, beats, pitch in notes
    ]


def _fill_rests(melody, voices, program, music):
    """Fill rests of a solo part of a bar or more with notes of other voices."""
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


def _double_at_octave(notes, program):
    """Transpose an octave down or up, whichever keeps more notes in range."""
    low, high = PITCH_RANGES[program]
    best = max(
        (-12, 12), key=lambda s: sum(low <= pitch + s <= high for _, _, pitch in notes)
    )
    return [
        (b, d, pitch + best) for b, d, pitch in notes if low <= pitch + best <= high
    ]


def _double_stops(melody, others, program, rng):
    """Draw notes of other voices as double stops below a solo string's melody."""
    low, _ = PITCH_RANGES[program]
    stops = []
    onsets = {
        beat: (beats, pitch) for voice in others[::-1] for beat, beats, pitch in voice
    }
    for beat, beats, pitch in melody:
        if beat in onsets and rng.random() < 0.25:
            length, lower = onsets[beat]
            lower = pitch - (pitch - lower) % 12
            if pitch - 12 < lower < pitch - 2 and lower >= low:
                stops.append((beat, min(beats, length), lower))
    return stops
