"""Scores as monophonic voices, and names of durations."""

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jtm.files import InputError


@dataclass(frozen=True)
class Music:
    """
    The notes of a score, voice by voice.

    Parameters
    ----------
    voices : tuple of tuple
        Each voice a tuple of (beat, beats, pitch). Those of :func:`from_music21` are
        by beat and without overlap, the highest voice first.
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
        """Plausible quarter notes per minute, from the density of onsets."""
        onsets = {beat for voice in self.voices for beat, _, _ in voice}
        return float(np.clip(96 * (1.6 * self.length / len(onsets)) ** 0.5, 50, 180))


def corpus_root():
    """
    Find music21's corpus.

    Returns
    -------
    Path
        Its folder, located without importing music21.

    Raises
    ------
    InputError
        If music21 is not installed, or without its corpus.
    """
    package = importlib.util.find_spec("music21")
    root = Path(package.origin).parent / "corpus" if package else None
    if root is None or not (root / "bach").is_dir():
        raise InputError(
            "music21 with its corpus of scores is missing; "
            "run pip install -r requirements.txt"
        )
    return root


def read_work(path):
    """
    Parse a work of the corpus.

    Parameters
    ----------
    path : str
        File in music21's corpus.

    Returns
    -------
    Music
        Its notes.

    Raises
    ------
    InputError
        If the score is damaged, or has no voice of eight notes.
    """
    from music21 import converter

    path = corpus_root() / path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as overfull measures
        try:
            return from_music21(
                converter.parse(path, forceSource=True, storePickle=False)
            )
        except Exception as error:  # of any type that a library raises
            message = str(error) or type(error).__name__
            raise InputError(
                f"{path}: not a readable score ({message}); reinstall music21"
            ) from error


def from_music21(score):
    """
    Separate a music21 score into voices.

    Parameters
    ----------
    score : music21.stream.Score
        The score.

    Returns
    -------
    Music
        Its notes: ties joined, grace notes omitted, chords distributed over voices. Of
        a chorale with instruments, only the four sung parts.

    Raises
    ------
    InputError
        If no voice has eight notes.
    """
    parts = [
        part.toSoundingPitch() if part.atSoundingPitch is False else part
        for part in score.parts
    ]
    sung = [p for p in parts if p.partName in ("Soprano", "Alto", "Tenor", "Bass")]
    voices = [
        voice
        for part in (sung if len(sung) == 4 else parts)
        for voice in _voices(part.flatten().notes)
    ]
    if not voices:
        raise InputError("the score has no voice of eight notes or more")
    voices.sort(key=lambda voice: -np.mean([pitch for _, _, pitch in voice]))
    meter = next(iter(parts[0].flatten().getElementsByClass("TimeSignature")), None)
    bar = float(meter.barDuration.quarterLength) if meter else 4.0
    voices = _close_gaps(voices, bar)
    length = max(beat + beats for voice in voices for beat, beats, _ in voice)
    return Music(tuple(voices), bar, length)


def _close_gaps(voices, bar):
    """Remove whole bars of silence, such as those of instruments left out."""
    spans = sorted((beat, beat + beats) for voice in voices for beat, beats, _ in voice)
    starts, shifts, end = [0.0], [0.0], 0.0
    for start, stop in spans:
        if start - end >= 2 * bar:
            starts.append(start)
            shifts.append(shifts[-1] + ((start - end) // bar - 1) * bar)
        end = max(end, stop)

    def shift(beat):
        return beat - shifts[int(np.searchsorted(starts, beat, "right")) - 1]

    return [tuple((shift(b), beats, pitch) for b, beats, pitch in v) for v in voices]


def _voices(elements):
    """Separate a part into voices: the k-th has the k-th highest notes."""
    notes = _join_ties(elements)
    voices = []
    for beat, pitch in sorted(notes, key=lambda key: (key[0], -key[1])):
        k = 0
        while k < len(voices) and voices[k][-1][0] == beat:
            k += 1
        if k == len(voices):
            voices.append([])
        voice = voices[k]
        if voice and voice[-1][0] + voice[-1][1] > beat:
            voice[-1] = (voice[-1][0], beat - voice[-1][0], voice[-1][2])
        voice.append((beat, notes[beat, pitch], pitch))
    # Voices of a few double stops are dropped.
    return [tuple(v) for v in voices if len(v) >= max(8, len(voices[0]) / 4)]


def _join_ties(elements):
    """Return a dict of (beat, pitch) to beats, with tied notes merged."""
    notes = {}
    ends = {}  # key of the note that a tie may prolong, by pitch
    for element in elements:
        for note in getattr(element, "notes", (element,)):
            beats = float(element.duration.quarterLength)
            beat, pitch = float(element.offset), note.pitch.midi
            if beats <= 0 or not 0 <= pitch <= 127:
                continue
            tie = note.tie or element.tie
            kind = tie.type if tie else None
            key = ends.get(pitch)
            if kind in ("continue", "stop") and key is not None:
                notes[key] = max(notes[key], beat + beats - key[0])
            else:
                key = (beat, pitch)
                notes[key] = max(beats, notes.get(key, 0))
            ends[pitch] = key if kind in ("start", "continue") else None
    return notes


_TICKS = 96
_NOTE_VALUES = {
    round(beats * factor * _TICKS): prefix + name
    for prefix, factor in (("", 1), ("Dotted ", 3 / 2), ("Triplet ", 2 / 3))
    for name, beats in (
        ("Double Whole", 8),
        ("Whole", 4),
        ("Half", 2),
        ("Quarter", 1),
        ("Eighth", 1 / 2),
        ("Sixteenth", 1 / 4),
        ("Thirty Second", 1 / 8),
        ("Sixty Fourth", 1 / 16),
    )
}


def note_value(beats):
    """
    Return the name of a notated duration, as in MusicNet's column ``note_value``.

    Parameters
    ----------
    beats : float
        Duration in quarter notes, rounded to the nearest 96th.

    Returns
    -------
    str
        Such as 'Dotted Half'. A duration of no single note is named by the largest
        plain value in it and the remainder, such as 'Tied Half-Eighth', or is
        'Unknown' if the remainder is no single note either.

    Examples
    --------
    >>> note_value(1.5)
    'Dotted Quarter'
    >>> note_value(2.5)
    'Tied Half-Eighth'
    """
    ticks = round(beats * _TICKS)
    if ticks in _NOTE_VALUES:
        return _NOTE_VALUES[ticks]
    plain = [t for t, name in _NOTE_VALUES.items() if t < ticks and " " not in name]
    remainder = ticks - max(plain, default=0)
    if not plain or remainder not in _NOTE_VALUES:
        return "Unknown"
    return f"Tied {_NOTE_VALUES[max(plain)]}-{_NOTE_VALUES[remainder]}"
