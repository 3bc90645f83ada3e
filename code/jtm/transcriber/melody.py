"""
The melody: of all notes, the line that a listener would sing back.

A skyline with continuity. The melody is one note at a time, each from its start until
its end or the start of the next. Among all such lines it is the best, found by dynamic
programming, where a line earns its duration in seconds, and

- loses :data:`BELOW` a second for each octave that a note lies below the register: the
  :data:`REGISTER` quantile of the highest notes within :data:`AROUND` seconds;
- gains or loses :data:`LOUD` a second for each doubling of the velocity over the
  medium one;
- loses :data:`LEAP` for each octave from one note to the next, unless it has rested
  for :data:`REST` seconds.

So a low voice is not taken while the high one rests, nor a single high note of an
accompaniment. The constants were chosen on validation pieces of the toy set, by
``code/benchmarks/melodies.py``.
"""

from collections import deque

import numpy as np

from jtm.transcriber.notes import MEDIUM

BELOW = 1.5  # seconds lost, a second of each octave below the register
REGISTER = 0.75  # quantile of the highest notes around a note that its register is
AROUND = 4.0  # seconds on either side that the register is of
LOUD = 1.0  # seconds gained, a second of each doubling of the velocity
LEAP = 0.05  # seconds lost for each octave from a note to the next
REST = 2.0  # seconds of rest after which the line may go on anywhere
LONGEST = 10.0  # seconds of a note after which the line no longer goes on from it
STEP = 0.05  # seconds between the moments at which the highest note is looked for


def melody(notes):
    """
    Find the melody.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.transcriber.notes.NOTE_DTYPE` by start.

    Returns
    -------
    chosen : numpy.ndarray
        Booleans ``(notes,)``: which notes are of the melody.
    line : numpy.ndarray
        The notes of the melody, each ending where the next starts, if not before.
    """
    worth, start, end = _worth(notes), notes["start"], notes["end"]
    whole = worth * (end - start)
    total = np.zeros(len(notes))  # of the best line that goes on with each note
    before = np.full(len(notes), -1)  # the note before it in that line
    finished = deque(np.argsort(end, kind="stable"))
    best, last = 0.0, -1  # of the lines that have rested, and its last note
    for i in range(len(notes)):
        while end[finished[0]] <= start[i] - REST:
            j = finished.popleft()
            if total[j] + whole[j] > best:
                best, last = total[j] + whole[j], j
        total[i], before[i] = best, last
        first = np.searchsorted(start, start[i] - LONGEST)
        j = np.arange(first, np.searchsorted(start, start[i]))
        j = j[end[j] > start[i] - REST]
        if len(j):
            value = total[j] + worth[j] * (np.minimum(end[j], start[i]) - start[j])
            leaps = np.abs(notes["pitch"][j].astype(int) - notes["pitch"][i]) / 12
            value -= LEAP * leaps
            if value.max() > total[i]:
                total[i], before[i] = value.max(), j[value.argmax()]
    chosen = np.zeros(len(notes), bool)
    at = int(np.argmax(total + whole)) if len(notes) else -1
    if at >= 0 and total[at] + whole[at] <= 0:
        at = -1
    while at >= 0:
        chosen[at] = True
        at = before[at]
    line = notes[chosen].copy()
    line["end"][:-1] = np.minimum(line["end"][:-1], line["start"][1:])
    return chosen, line


def _worth(notes):
    """Compute what a second of each note is worth to a line ``(notes,)``."""
    octaves = np.maximum(_register(notes) - notes["pitch"], 0) / 12
    doublings = np.log2(np.maximum(notes["velocity"], 1) / MEDIUM)
    return 1 - BELOW * octaves + LOUD * doublings


def _register(notes):
    """Compute the register around the start of each note, as a pitch ``(notes,)``."""
    n = int(notes["end"].max(initial=0) / STEP) + 1
    highest = np.full(n, np.nan)
    for note in np.sort(notes, order="pitch"):  # the highest last
        highest[int(note["start"] / STEP) : int(note["end"] / STEP) + 1] = note["pitch"]
    reach = round(AROUND / STEP)
    found = np.empty(len(notes))
    for i, at in enumerate((notes["start"] / STEP).astype(int)):
        around = highest[max(0, at - reach) : at + reach + 1]
        found[i] = np.quantile(around[~np.isnan(around)], REGISTER)
    return found


def spell(line):
    """
    Write a melody as the names of its notes.

    Parameters
    ----------
    line : numpy.ndarray
        Notes of the melody, by start.

    Returns
    -------
    str
        A line for each phrase, with the time at which it starts; a phrase ends at a
        rest of half a second, or after a dozen notes.
    """
    import pretty_midi

    phrases = []
    for i, note in enumerate(line):
        rest = note["start"] - line["end"][i - 1] if i else np.inf
        if rest >= 0.5 or len(phrases[-1][1]) >= 12:
            phrases.append((note["start"], []))
        phrases[-1][1].append(pretty_midi.note_number_to_name(int(note["pitch"])))
    return "\n".join(
        f"{int(start // 60)}:{start % 60:05.2f}  {' '.join(names)}"
        for start, names in phrases
    )
