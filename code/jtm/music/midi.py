"""
Conversion of scores to MIDI files and back.

At 120 quarter notes per minute, a tick is one sample at 44.1 kHz, so that times in the
file are exactly those of the labels; or 2 ms in a score too long for that. Beats are
not saved: the file represents the performance, not the notation.
"""

from jtm.constants import LABEL_RATE
from jtm.files import InputError, atomic
from jtm.music.score import Note, Score


def build(score, names=None):
    """
    Convert a score to MIDI.

    Parameters
    ----------
    score : Score
        The notes; each program becomes one track.
    names : dict of int to str, optional
        Track names by program; none by default.

    Returns
    -------
    pretty_midi.PrettyMIDI
        The MIDI data.
    """
    import pretty_midi

    # Ticks per quarter note; pretty_midi reads files of at most 10 million ticks.
    ticks = LABEL_RATE // 2 if score.seconds <= 200 else 250
    ticks = min(ticks, int(4.9e6 / max(score.seconds, 1)))  # after five hours
    midi = pretty_midi.PrettyMIDI(resolution=ticks, initial_tempo=120.0)
    for program in score.programs:
        name = (names or {}).get(program, "")
        instrument = pretty_midi.Instrument(program - 1, name=name)
        instrument.notes = [
            pretty_midi.Note(note.velocity, note.pitch, note.start, note.end)
            for note in score.notes
            if note.program == program
        ]
        midi.instruments.append(instrument)
    return midi


def write(path, score):
    """
    Write a score as a MIDI file, atomically.

    Parameters
    ----------
    path : str or Path
        Path to the file to write, ending in ``.mid``.
    score : Score
        The notes; each program becomes one track.
    """
    with atomic(path) as part:
        build(score).write(str(part))


def read(path):
    """
    Read a MIDI file as a score.

    Parameters
    ----------
    path : str or Path
        Path to the MIDI file; drum tracks are skipped.

    Returns
    -------
    Score
        The notes, with times in seconds; their beats are unknown.

    Raises
    ------
    InputError
        If the file cannot be read as MIDI.
    """
    import pretty_midi

    try:
        midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as error:  # libraries raise anything on a damaged file
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable MIDI file ({reason})") from error
    notes = (
        Note(note.start, note.end, instrument.program + 1, note.pitch, note.velocity)
        for instrument in midi.instruments
        if not instrument.is_drum
        for note in instrument.notes
        if note.end > note.start and note.velocity
    )
    return Score(tuple(notes))
