"""
Labels on the frame grid: piano rolls as targets for frames or windows.

Frame ``i`` is labelled by the notes active at its centre, ``(i + 0.5) * hop`` samples
at 16 kHz: a note is active in the frames whose centre lies in the half-open interval
from ``start`` to ``end``. The hop is that of the network (``model.encoder.hop``), by
default 160 samples or 10 ms. Rolls have one column for each of the 88 pitches of the
piano; notes outside its range are left out.

A window has :data:`WINDOW` frames and never crosses a recording boundary.
"""

import numpy as np

from jtm.constants import (
    HOP,
    INSTRUMENTS,
    LABEL_RATE,
    N_PITCHES,
    PITCH_MIN,
    SAMPLE_RATE,
)
from jtm.data.musicnet import read_labels
from jtm.files import InputError

WINDOW = 128  # frames, 1.28 s

NOTE_DTYPE = np.dtype([("start", float), ("end", float), ("pitch", np.int16)])
"""One transcribed note: onset and offset in seconds, and MIDI pitch."""

PLAYED_DTYPE = np.dtype([*NOTE_DTYPE.descr, ("program", np.int16)])
"""One labelled note: :data:`NOTE_DTYPE` and the General MIDI program."""


def read_notes(recording, samples):
    """
    Read a recording's labels as notes in seconds.

    Parameters
    ----------
    recording : Recording
        A recording of a dataset.
    samples : int
        Length of its audio in samples at 16 kHz.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`PLAYED_DTYPE`, sorted by onset; offsets are
        clipped to the end of the audio.

    Raises
    ------
    InputError
        If the recording has no labels, or a note starts after its audio ends.
    """
    if recording.labels is None:
        raise InputError(
            f"{recording.audio}: has no label file, which this task needs; "
            "add it or leave the recording out"
        )
    labels = read_labels(recording.labels)
    seconds = samples / SAMPLE_RATE
    notes = np.zeros(len(labels), PLAYED_DTYPE)
    notes["program"] = labels["program"]
    notes["start"] = labels["start"] / LABEL_RATE
    notes["end"] = np.minimum(labels["end"] / LABEL_RATE, seconds)
    notes["pitch"] = labels["pitch"]
    late = labels[notes["start"] >= seconds]
    if len(late):
        raise InputError(
            f"{recording.labels}: a note starts at sample {late[0]['start']} of "
            f"44.1 kHz, after the end of {recording.audio.name} ({seconds:.2f} s); "
            "expected labels of the same recording"
        )
    return notes


def frame_roll(notes, n_frames, start=0, hop=HOP):
    """
    Compute which pitches are active in each frame.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`NOTE_DTYPE`.
    n_frames : int
        Number of frames; notes beyond them are left out.
    start : int
        Number of the first of these frames in the recording.
    hop : int
        Samples at 16 kHz from one frame to the next.

    Returns
    -------
    numpy.ndarray
        Booleans ``(n_frames, 88)``; column 0 is MIDI pitch 21.

    Examples
    --------
    A note is active in the 10 ms frames whose centres it covers:

    >>> notes = np.array([(0.01, 0.03, 60)], NOTE_DTYPE)
    >>> frame_roll(notes, 4)[:, 60 - 21].tolist()
    [False, True, True, False]
    """
    notes, column = _on_piano(notes)
    return _roll(notes, column, N_PITCHES, n_frames, start, hop)


def instrument_roll(notes, n_frames, start=0, hop=HOP):
    """
    Compute which instruments are active in each frame; see :func:`frame_roll`.

    Takes notes of :data:`PLAYED_DTYPE` and returns booleans ``(n_frames, 11)``, columns
    in the order of :data:`jtm.constants.INSTRUMENTS`; others are left out.
    """
    notes, column = played(notes)
    return _roll(notes, column, len(INSTRUMENTS), n_frames, start, hop)


def part_roll(notes, n_frames, start=0, hop=HOP):
    """
    Compute which instrument plays which pitch in each frame; see :func:`frame_roll`.

    Takes notes of :data:`PLAYED_DTYPE` and returns booleans ``(n_frames, 88, 11)``:
    pitches from MIDI 21, and :data:`jtm.constants.INSTRUMENTS` in order, and no others.

    Examples
    --------
    A violin (program 41, the third instrument) plays middle C for 20 ms:

    >>> notes = np.array([(0.0, 0.02, 60, 41)], PLAYED_DTYPE)
    >>> np.argwhere(part_roll(notes, 4)).tolist()
    [[0, 39, 2], [1, 39, 2]]
    """
    notes, instrument = played(_on_piano(notes)[0])
    n = len(INSTRUMENTS)
    column = (notes["pitch"] - PITCH_MIN) * n + instrument
    roll = _roll(notes, column, N_PITCHES * n, n_frames, start, hop)
    return roll.reshape(n_frames, N_PITCHES, n)


def frame_numbers(n_frames, step):
    """
    Select frames at regular intervals.

    Parameters
    ----------
    n_frames : int
        Number of frames to select from.
    step : int
        Number of frames from one to the next.

    Returns
    -------
    numpy.ndarray
        Indices of the selected frames, the first in the middle of the first step.
    """
    return np.arange(step // 2, n_frames, step)


def onset_roll(notes, n_frames, start=0, hop=HOP):
    """
    Compute which pitches have an onset in each frame; see :func:`frame_roll`.

    Returns booleans ``(n_frames, 88)``, true in the first frame of each note.
    """
    notes, column = _on_piano(notes)
    first, last = _frames(notes, start, hop)
    inside = (last > first) & (first >= 0) & (first < n_frames)
    roll = np.zeros((n_frames, N_PITCHES), bool)
    roll[first[inside], column[inside]] = True
    return roll


def rolls_to_notes(frames, onsets, hop=HOP):
    """
    Convert rolls to notes.

    This inverts :func:`frame_roll` and :func:`onset_roll` to within half a frame
    at both ends. Notes that contain no frame's centre are lost; where notes of one
    pitch overlap, the earlier ends at the onset of the later.

    Parameters
    ----------
    frames, onsets : numpy.ndarray
        Booleans ``(frames, 88)``: active pitches, and onsets.
    hop : int
        Samples at 16 kHz from one frame to the next.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`NOTE_DTYPE`, sorted by onset. Each starts at an
        onset, lasts at least one frame, and ends before the first inactive frame
        or the next onset of its pitch.
    """
    column, first = np.nonzero(onsets.T)
    # Offsets are searched in one flat array, pitch after pitch; the stop at the end
    # of each pitch keeps a note from running into the next pitch.
    stops = np.ones((N_PITCHES, len(frames) + 1), bool)
    stops[:, :-1] = (onsets | ~frames).T
    stops = np.flatnonzero(stops)
    position = column * (len(frames) + 1) + first
    last = stops[np.searchsorted(stops, position, side="right")]
    notes = np.zeros(len(first), NOTE_DTYPE)
    notes["start"] = first * hop / SAMPLE_RATE
    notes["end"] = (first + last - position) * hop / SAMPLE_RATE
    notes["pitch"] = column + PITCH_MIN
    return np.sort(notes, order=("start", "pitch"))


def _roll(notes, column, n_columns, n_frames, start, hop):
    """Mark the frames in which each note is active, in its column."""
    first, last = np.clip(_frames(notes, start, hop), 0, n_frames)
    change = np.zeros((n_frames + 1, n_columns), np.int16)
    np.add.at(change, (first, column), 1)
    np.add.at(change, (last, column), -1)
    return change[:-1].cumsum(axis=0, dtype=np.int16) > 0


def _frames(notes, start, hop):
    """Return the first frame ``(notes,)`` of each note, and the one after its last."""
    times = np.stack((notes["start"], notes["end"]))
    # Rounded to a millionth of a frame, as 0.005 * 100 - 0.5 is above zero.
    frames = np.ceil(np.round(times * SAMPLE_RATE / hop - 0.5, 6)).astype(np.int64)
    return frames - start


def _on_piano(notes):
    """Select the notes in the range of the piano, with their columns in a roll."""
    column = notes["pitch"] - PITCH_MIN
    inside = (column >= 0) & (column < N_PITCHES)
    return notes[inside], column[inside]


def played(notes):
    """
    Select the notes of MusicNet's eleven instruments.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes of :data:`PLAYED_DTYPE`.

    Returns
    -------
    notes : numpy.ndarray
        The notes of :data:`jtm.constants.INSTRUMENTS`.
    column : numpy.ndarray
        Index of the instrument of each note, from 0.
    """
    programs = np.array(list(INSTRUMENTS))  # sorted
    notes = notes[np.isin(notes["program"], programs)]
    return notes, np.searchsorted(programs, notes["program"])
