"""
Scores as notes in score time, and passages of them as piano rolls.

Score time is counted in quarter notes. Nothing here knows how fast a score is played,
so that no clock is shared by what is heard and what is written.
"""

import warnings
from pathlib import Path

import numpy as np

from jtm.constants import N_PITCHES, PITCH_MAX, PITCH_MIN
from jtm.files import InputError

CELLS = 6
"""Cells of a roll to a quarter note."""

LONGEST = 8
"""Quarter notes of a roll; of a longer passage the middle is kept."""

WIDTH = CELLS * LONGEST
"""Cells of a roll; those beyond the passage are silent."""

NOTE = np.dtype(
    [
        ("beat", np.float32),
        ("beats", np.float32),
        ("pitch", np.int16),
        ("part", np.int16),
    ]
)
"""A written note: onset and duration in quarter notes, MIDI pitch, number of part."""

MAX_BEATS = 100_000  # that a MIDI file may last; of a damaged one it may be millions

SUFFIXES = ".mid .midi .mxl .xml .musicxml .abc .krn".split()
"""Endings of the score files that are read, in lower case."""


def read(path):
    """
    Read a score file.

    Parameters
    ----------
    path : str or Path
        MIDI, MusicXML, ABC or kern. ABC may hold several pieces.

    Returns
    -------
    list of tuple
        Of each piece its title, empty where there is none, and its notes
        ``(notes,)`` of type :data:`NOTE`, by onset.

    Raises
    ------
    InputError
        If the file cannot be read as a score, or no pitch is in it.
    """
    from music21 import converter, stream

    path = Path(path)
    try:
        if path.suffix.lower() in (".mid", ".midi"):
            _check_length(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overfull measures, and the like
            whole = converter.parse(path, forceSource=True, storePickle=False)
            several = isinstance(whole, stream.Opus)
            pieces = [
                (_title(score), _notes_of(score))
                for score in (whole.scores if several else [whole])
            ]
    except Exception as error:  # music21 raises anything on a damaged file
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path}: not a readable score ({reason})") from error
    pieces = [piece for piece in pieces if len(piece[1])]
    if not pieces:
        raise InputError(f"{path}: a score without notes")
    return pieces


def _check_length(path):
    """Refuse a MIDI file of endless rests, of which music21 makes measures for ever."""
    from music21 import midi

    file = midi.MidiFile()
    file.open(path)
    try:
        file.read()
    finally:
        file.close()
    ticks = [sum(e.time for e in t.events if e.isDeltaTime()) for t in file.tracks]
    beats = max(ticks, default=0) / max(1, file.ticksPerQuarterNote)
    if beats > MAX_BEATS:
        raise ValueError(f"{beats:.0f} beats long, of up to {MAX_BEATS}")


def _title(score):
    """Name a piece by its composer and title, as far as they are known."""
    known = score.metadata
    if known is None:
        return ""
    parts = (known.composer, known.bestTitle)
    return ": ".join(" ".join(part.split()) for part in parts if part)


def _notes_of(score):
    """
    List the notes of a music21 score, by onset.

    Ties are joined; grace notes, drums and chord symbols are left out; what several
    parts play together is there once.
    """
    found = {}
    for number, part in enumerate(getattr(score, "parts", None) or [score]):
        tied = {}  # pitch -> the note that a tie may prolong
        for element in part.flatten().notes:
            beats = float(element.duration.quarterLength)
            if beats <= 0 or "ChordSymbol" in element.classes:
                continue
            beat = float(element.offset)
            for note in getattr(element, "notes", (element,)):
                if not hasattr(note, "pitch"):
                    continue
                pitch, tie = int(note.pitch.midi), note.tie or element.tie
                start = tied.pop(pitch, None)
                if start is None or tie is None or tie.type == "start":
                    start = beat
                key = start, pitch
                length, own = found.get(key, (0.0, number))
                found[key] = max(length, beat + beats - start), own
                if tie is not None and tie.type in ("start", "continue"):
                    tied[pitch] = start
    rows = [
        (beat, beats, pitch, part)
        for (beat, pitch), (beats, part) in sorted(found.items())
    ]
    return np.array(rows, NOTE)


def roll(notes, first, last):
    """
    Draw a passage of a score as a piano roll in score time.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes of type :data:`NOTE`.
    first, last : float
        Where the passage starts and ends, in quarter notes.

    Returns
    -------
    numpy.ndarray
        Shares ``(2, 88, WIDTH)``, float32, of each cell: in row 0 of how much of it
        the pitch sounds, in row 1 whether a note starts there. The passage begins at
        cell 0.
    """
    surplus = max(0.0, last - first - LONGEST) / 2
    first, last = first + surplus, last - surplus
    drawn = np.zeros((2, N_PITCHES, WIDTH), np.float32)
    ends = notes["beat"] + notes["beats"]
    within = (notes["beat"] < last) & (ends > first)
    within &= (notes["pitch"] >= PITCH_MIN) & (notes["pitch"] <= PITCH_MAX)
    starts = CELLS * (notes["beat"][within] - first)
    stops = CELLS * (np.minimum(ends[within], last) - first)
    rows = notes["pitch"][within] - PITCH_MIN
    edges = np.arange(WIDTH)
    sounding = np.minimum(edges + 1, stops[:, None]) - np.maximum(
        edges, starts[:, None]
    )
    np.maximum.at(drawn[0], rows, np.clip(sounding, 0, 1))
    here = starts > -0.01
    cells = np.clip(starts[here] + 0.01, 0, WIDTH - 1).astype(int)
    drawn[1, rows[here], cells] = 1
    return drawn
