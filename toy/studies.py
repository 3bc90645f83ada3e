"""
Studies: procedural music for training the transcriber.

Chorales, masses and quartets have few runs, wide leaps, chords of seven notes or
isolated notes. Studies fill that gap with random textures.
"""

import numpy as np
from arrange import KEYBOARDS
from voices import Music

from jtm.constants import PITCH_RANGES

BAR = 4.0
"""Beats in a bar; a texture is drawn for each bar."""

LENGTHS = (0.15, 0.3, 0.5, 1.0, 2.0, 4.0)
"""Beats of single notes."""


def study(programs, beats, rng):
    """
    Compose textures that change from bar to bar.

    Parameters
    ----------
    programs : sequence of int
        General MIDI program of each player, counted from 1.
    beats : float
        Length.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    Music
        A voice for each player, with chords where it is a keyboard. Its notes are in no
        order; they may overlap, and the last may end after the length.
    """
    voices = [[] for _ in programs]
    for voice, program in zip(voices, programs, strict=True):
        for first in np.arange(0, beats, BAR):
            textures = _KEYBOARD if program in KEYBOARDS else _MELODIC
            texture = textures[rng.integers(len(textures))]
            for beat, length, pitch in texture(*PITCH_RANGES[program], rng):
                if beat < BAR:
                    voice.append((float(first + beat), float(length), int(pitch)))
    return Music(tuple(map(tuple, voices)), BAR, float(beats))


def single_notes(programs, beats, rng):
    """
    Compose isolated notes, or pairs of notes, with silence between.

    Parameters
    ----------
    programs : sequence of int
        General MIDI program of the only player, counted from 1.
    beats : float
        Length.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    Music
        One voice.
    """
    low, high = PITCH_RANGES[programs[0]]
    notes, now = [], 0.0
    while now < beats or not notes:
        length = float(rng.choice(LENGTHS))
        count = 1 + (rng.random() < 0.15)
        for pitch in rng.choice(np.arange(low, high + 1), count, replace=False):
            notes.append((now, length, int(pitch)))
        now += length + float(rng.choice((0.1, 0.5, 1.0)))
    return Music((tuple(notes),), BAR, now)


def _run(low, high, rng):
    """Compose a scale or a broken chord, up or down."""
    step = rng.choice((0.125, 0.25, 0.25, 0.5))
    intervals = ((1,), (2, 2, 1), (2, 1), (4, 3, 5), (3, 4, 5), (12,))[rng.integers(6)]
    pitch, sign = rng.integers(low, high + 1), rng.choice((-1, 1))
    for i, beat in enumerate(np.arange(0, BAR, step)):
        yield beat, step, pitch
        interval = intervals[i % len(intervals)]
        sign = sign if low <= pitch + sign * interval <= high else -sign
        pitch = int(np.clip(pitch + sign * interval, low, high))


def _repeat(low, high, rng):
    """Compose a repeated note, or a trill."""
    step, pitch = rng.choice((0.25, 0.25, 0.5)), rng.integers(low, high - 1)
    other = pitch + rng.integers(0, 3)
    for i, beat in enumerate(np.arange(0, BAR, step)):
        yield beat, step, (pitch, other)[i % 2]


def _random_walk(low, high, rng):
    """Compose a random walk of pitches, with random durations and rests."""
    beat, pitch = 0.0, rng.integers(low, high + 1)
    while beat < BAR:
        length = float(rng.choice((0.25, 0.5, 0.5, 1, 2, 4)))
        if rng.random() < 0.85:
            yield beat, length * rng.choice((0.5, 1, 1)), pitch
        beat += length
        pitch = int(np.clip(pitch + rng.integers(-9, 10), low, high))


def _chords(low, high, rng):
    """Compose chords, close or wide, in one hand or two."""
    length = rng.choice((0.5, 1, 1, 2, 4))
    for beat in np.arange(0, BAR, length):
        for centre in rng.integers(low + 6, high - 5, rng.integers(1, 3)):
            hand = np.arange(max(low, centre - 7), min(high, centre + 7) + 1)
            for pitch in rng.choice(hand, rng.integers(2, 6), replace=False):
                yield beat, length * rng.choice((0.4, 0.9, 1, 1)), pitch


def _accompanied(low, high, rng):
    """Compose a random walk above broken chords."""
    split = rng.integers(low + 24, high - 23)
    yield from _random_walk(split, high, rng)
    yield from _run(max(low, split - 19), split, rng)


def _rest(low, high, rng):
    """Compose a rest after one note, which may be long."""
    yield 0.0, rng.choice((0.5, 4)), rng.integers(low, high + 1)


_MELODIC = (_run, _repeat, _random_walk, _random_walk, _rest)
_KEYBOARD = (_run, _repeat, _chords, _chords, _accompanied, _accompanied, _rest)
