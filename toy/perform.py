"""Performance: an arrangement, or a single note, as notes in seconds."""

import itertools
from dataclasses import replace

import numpy as np
from synth import snap

from jtm.constants import LABEL_RATE
from jtm.music.score import Note, Score

VELOCITIES = (40, 72, 108)
"""MIDI velocities of single notes: soft, medium and loud."""

DURATIONS = {"short": 0.4, "long": 2.0}
"""Seconds from onset to offset of single notes."""

NOTE_ONSET = 0.1
"""Seconds of silence before a single note."""

NOTE_TAIL = 0.9
"""Seconds after the offset, so that even a short clip is at least 1.28 s long."""


def perform(parts, music, tempo, rng):
    """
    Perform an arrangement with expressive timing and dynamics.

    The tempo drifts, follows phrases and slows at the end; loudness follows phrases,
    bars and sections; each player has an articulation and an offset of some
    milliseconds, and the onsets of a chord are not quite simultaneous.

    Parameters
    ----------
    parts : list of tuple
        (program, notes, leads) for each player, from :func:`arrange`.
    music : Music
        The score, for its bars and length.
    tempo : float
        Mean quarter notes a minute.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    Score
        The notes as performed, with times on FluidSynth's grid; no two notes of the
        same program and pitch overlap.
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
            end = max(end, start + float(snap(0.05)))
            velocity = int(np.clip(velocity, 25, 120))
            notes.append(Note(start, end, program, int(pitch), velocity, beat, beats))
    return Score(tuple(remove_overlaps(notes)))


def change_tempo(score, factor):
    """
    Change the tempo of a performance.

    Parameters
    ----------
    score : Score
        The performance.
    factor : float
        Ratio of the new tempo to the old; 2 is twice as fast.

    Returns
    -------
    Score
        The notes, with times on FluidSynth's grid.
    """
    shortest = float(snap(0.01))
    notes = []
    for note in score.notes:
        start, end = (float(snap(t / factor)) for t in (note.start, note.end))
        notes.append(replace(note, start=start, end=max(end, start + shortest)))
    return Score(tuple(remove_overlaps(notes)))


def _clock(length, tempo, phrase, rng):
    """Return the function from beats to seconds."""
    grid = np.arange(0, length + 8, 0.25)
    drift = 0.04 * np.sin(2 * np.pi * (grid / rng.uniform(30, 80) + rng.random()))
    phrasing = -0.04 * np.cos(2 * np.pi * grid / phrase)
    noise = 0.01 * np.convolve(rng.normal(size=grid.size), np.ones(8) / 8**0.5, "same")
    ritardando = -0.25 * np.clip((grid - length + 4) / 4, 0, 1)
    rate = tempo / 60 * np.exp(drift + phrasing + noise + ritardando)  # beats per s
    times = np.concatenate(([0.0], np.cumsum(0.25 / rate)))[:-1]
    return lambda beat: float(np.interp(beat, grid, times))


def remove_overlaps(notes):
    """
    Remove overlaps between notes of one program and pitch.

    Parameters
    ----------
    notes : iterable of Note
        Notes of any order.

    Returns
    -------
    list of Note
        Notes whose onsets are less than 60 ms apart are merged; a note that is still
        active at the next onset of its pitch ends there.
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


def vary_dynamics(score, rng):
    """
    Widen the dynamics of a performance, and add sustain pedal to pianos.

    Parameters
    ----------
    score : Score
        The performance.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    Score
        The notes; pedalled notes of a piano end where the pedal is released.
    """
    releases = np.cumsum(rng.choice((0.3, 0.8, 1.5, 3.0), int(score.seconds / 0.3) + 2))
    pedalled = rng.random(releases.size) < rng.choice((0.0, 0.6, 1.0))
    notes = []
    for program in score.programs:
        own = [note for note in score.notes if note.program == program]
        level = np.mean([note.velocity for note in own]) + rng.normal(0, 15)
        spread, noise = rng.uniform(0.8, 2.0), rng.uniform(0, 15)
        for note in own:
            velocity = level + spread * (note.velocity - level) + rng.normal(0, noise)
            velocity = int(np.clip(velocity, 12, 127))
            end, index = note.end, np.searchsorted(releases, note.end)
            if program == 1 and pedalled[index]:
                end = float(snap(releases[index]))
            notes.append(replace(note, end=max(end, note.end), velocity=velocity))
    return Score(tuple(remove_overlaps(notes)))


def single_notes(program, pitch):
    """
    Perform one pitch with each velocity and duration in turn.

    Parameters
    ----------
    program : int
        General MIDI program, counted from 1.
    pitch : int
        MIDI note number.

    Returns
    -------
    score : Score
        The notes, with silence between them for the release.
    clips : list of tuple
        For each note (note, name of its duration, first sample, last sample,
        offset): the bounds of its clip at 44.1 kHz, and its offset within the clip.
    """
    start = snap(NOTE_ONSET)
    clips, now = [], 0.0
    for velocity, length in itertools.product(VELOCITIES, DURATIONS):
        end = snap(start + DURATIONS[length])
        note = Note(now + start, now + end, program, pitch, velocity)
        size = snap(end + NOTE_TAIL)
        cuts = (round(time * LABEL_RATE) for time in (now, now + size, end))
        clips.append((note, length, *cuts))
        now = float(snap(now + size + 3.0))
    return Score(tuple(note for note, *_ in clips)), clips
