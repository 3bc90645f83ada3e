"""
Melody extraction: the line of notes that a listener would sing back.

A skyline algorithm with continuity. The melody is monophonic: each note lasts until
its end or the start of the next. Dynamic programming finds the line with the highest
score, where a line scores its duration in seconds, and

- loses :data:`BELOW` per second for each octave that a note lies below the register,
  the :data:`REGISTER` quantile of the highest notes within :data:`AROUND` seconds;
- gains or loses :data:`LOUD` per second for each doubling or halving of velocity
  relative to medium velocity;
- loses :data:`LEAP` for each octave from one note to the next, unless there was a rest
  of :data:`REST` seconds.

So a low voice is not selected while the high one rests, nor a single high note of an
accompaniment. The constants were chosen on validation pieces of the toy set, by
``code/benchmarks/melodies.py``.
"""

from collections import deque

import numpy as np

from jtm.transcriber.notes import MEDIUM

BELOW = 1.5  # penalty per second and octave below the register
REGISTER = 0.75  # quantile of the highest notes that defines the register
AROUND = 4.0  # seconds on either side of a note used for its register
LOUD = 1.0  # reward per second and doubling of velocity
LEAP = 0.05  # penalty per octave between successive notes
REST = 2.0  # seconds of rest after which a leap has no penalty
STEP = 0.05  # time resolution of the register in seconds
NAMES = "C C# D Eb E F F# G Ab A Bb B".split()  # of pitches, as in templates/page.js


def melody(notes):
    """
    Extract the melody.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.transcriber.notes.NOTE_DTYPE`, sorted by start.

    Returns
    -------
    chosen : numpy.ndarray
        Booleans ``(notes,)``: whether each note belongs to the melody.
    line : numpy.ndarray
        The notes of the melody, each ending no later than the next starts.
    """
    rates, start, end = _rates(notes), notes["start"], notes["end"]
    scores = rates * (end - start)
    total = np.zeros(len(notes))  # score of the best line up to the start of each note
    previous = np.full(len(notes), -1)  # the previous note in that line
    finished = deque(np.argsort(end, kind="stable"))
    reach = np.maximum.accumulate(end)  # so that it can be searched
    best, last = 0.0, -1  # best score of lines at rest, and the last note of that line
    for i in range(len(notes)):
        while end[finished[0]] <= start[i] - REST:
            j = finished.popleft()
            if total[j] + scores[j] > best:
                best, last = total[j] + scores[j], j
        total[i], previous[i] = best, last
        first = np.searchsorted(reach, start[i] - REST, side="right")
        j = np.arange(first, np.searchsorted(start, start[i]))
        j = j[end[j] > start[i] - REST]
        if len(j):
            value = total[j] + rates[j] * (np.minimum(end[j], start[i]) - start[j])
            leaps = np.abs(notes["pitch"][j].astype(int) - notes["pitch"][i]) / 12
            value -= LEAP * leaps
            if value.max() > total[i]:
                total[i], previous[i] = value.max(), j[value.argmax()]
    chosen = np.zeros(len(notes), bool)
    note = int(np.argmax(total + scores)) if len(notes) else -1
    if note >= 0 and total[note] + scores[note] <= 0:
        note = -1
    while note >= 0:
        chosen[note] = True
        note = previous[note]
    line = notes[chosen].copy()
    line["end"][:-1] = np.minimum(line["end"][:-1], line["start"][1:])
    return chosen, line


def _rates(notes):
    """Compute the score per second of each note ``(notes,)``."""
    octaves = np.maximum(_register(notes) - notes["pitch"], 0) / 12
    doublings = np.log2(np.maximum(notes["velocity"], 1) / MEDIUM)
    return 1 - BELOW * octaves + LOUD * doublings


def _register(notes):
    """Compute the register around each note's start as a MIDI pitch ``(notes,)``."""
    n = int(notes["end"].max(initial=0) / STEP) + 1
    highest = np.full(n, np.nan)
    for note in np.sort(notes, order="pitch"):  # highest last
        highest[int(note["start"] / STEP) : int(note["end"] / STEP) + 1] = note["pitch"]
    reach = round(AROUND / STEP)
    register = np.empty(len(notes))
    for i, centre in enumerate((notes["start"] / STEP).astype(int)):
        nearby = highest[max(0, centre - reach) : centre + reach + 1]
        register[i] = np.quantile(nearby[~np.isnan(nearby)], REGISTER)
    return register


def spell(line):
    """
    Write a melody as note names.

    Parameters
    ----------
    line : numpy.ndarray
        Notes of the melody, sorted by start.

    Returns
    -------
    str
        A line per phrase, with its start time; a phrase ends at a rest of half a second
        or after a dozen notes.
    """
    phrases = []
    for i, note in enumerate(line):
        rest = note["start"] - line["end"][i - 1] if i else np.inf
        if rest >= 0.5 or len(phrases[-1][1]) >= 12:
            phrases.append((note["start"], []))
        octave, step = divmod(int(note["pitch"]), 12)
        phrases[-1][1].append(f"{NAMES[step]}{octave - 1}")
    return "\n".join(
        f"{int(start // 60)}:{start % 60:05.2f}  {' '.join(names)}"
        for start, names in phrases
    )
