"""Notes and scores: small value types that validate their fields."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Note:
    """
    One note of a performance.

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
        If a field is out of range, or the note has no duration.
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
        limits = {"pitch": (0, 127), "program": (1, 128), "velocity": (1, 127)}
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name} {value} is outside {low}..{high}")


@dataclass(frozen=True)
class Score:
    """
    The notes of one piece, sorted by onset.

    Parameters
    ----------
    notes : tuple of Note
        The notes in any order; stored sorted by onset.
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
