"""Notes and scores: small value types that check themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Note:
    """
    One note as it is played.

    Parameters
    ----------
    start, end : float
        Onset and offset in seconds; the interval is half-open.
    program : int
        General MIDI program counted from 1, such as 41 for a violin.
    pitch : int
        MIDI note number in 0..127.
    velocity : int
        MIDI velocity in 1..127.
    start_beat : float
        Onset in beats (quarter notes) from the start of the score.
    beats : float
        Notated duration in beats.

    Raises
    ------
    ValueError
        If a field is out of its range, or the note has no duration.
    """

    start: float
    end: float
    program: int
    pitch: int
    velocity: int = 64
    start_beat: float = 0.0
    beats: float = 1.0

    def __post_init__(self):
        if not 0 <= self.start < self.end:
            raise ValueError(
                f"note from {self.start} s to {self.end} s has no duration"
            )
        if not 0 <= self.pitch <= 127:
            raise ValueError(f"pitch {self.pitch} is outside 0..127")
        if not 1 <= self.program <= 128:
            raise ValueError(f"program {self.program} is outside 1..128")
        if not 1 <= self.velocity <= 127:
            raise ValueError(f"velocity {self.velocity} is outside 1..127")


@dataclass(frozen=True)
class Score:
    """
    The notes of one piece, by onset.

    Parameters
    ----------
    notes : tuple of Note
        In any order; kept sorted by onset.
    """

    notes: tuple

    def __post_init__(self):
        object.__setattr__(self, "notes", tuple(sorted(self.notes)))

    @property
    def seconds(self):
        """Time of the last offset in seconds; 0 for an empty score."""
        return max((note.end for note in self.notes), default=0.0)

    @property
    def programs(self):
        """General MIDI programs that play, sorted, counted from 1."""
        return tuple(sorted({note.program for note in self.notes}))


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
    Name a notated duration, as MusicNet's column ``note_value`` does.

    Parameters
    ----------
    beats : float
        Duration in quarter notes, taken to the nearest 96th.

    Returns
    -------
    str
        Such as 'Dotted Half'. A duration that no single note has is named by
        the largest plain value in it and the rest, such as 'Tied Half-Eighth',
        or is 'Unknown' if the rest is no single note either.

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
    rest = ticks - max(plain, default=0)
    if not plain or rest not in _NOTE_VALUES:
        return "Unknown"
    return f"Tied {_NOTE_VALUES[max(plain)]}-{_NOTE_VALUES[rest]}"
