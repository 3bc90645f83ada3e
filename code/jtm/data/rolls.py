"""
Labels on the frame grid: targets for a frame or a window.

Frame ``i`` is labelled by what sounds at its centre, ``(i + 0.5) * hop`` samples at
16 kHz, so a note from ``start`` up to, not including, ``end`` sounds in the frames
whose centre lies in that half-open interval. The hop is a network's
(``model.encoder.hop``), 160 samples or 10 ms by default. Rolls have one column for
each of the 88 pitches of the piano; notes outside its range are left out.

A window has :data:`WINDOW` frames, and never crosses a recording.
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

WINDOW = 128
"""Frames in a window: 1.28 s, the length of a training window of CPC."""

NOTE_DTYPE = np.dtype([("start", float), ("end", float), ("pitch", np.int16)])
"""One note of a transcription: seconds from the start, and a MIDI number."""

PLAYED_DTYPE = np.dtype([*NOTE_DTYPE.descr, ("program", np.int16)])
"""One labelled note: as :data:`NOTE_DTYPE`, and the General MIDI program."""


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
        Notes ``(notes,)`` of :data:`PLAYED_DTYPE` by start; one that sounds on
        beyond the end of the audio is clipped to it.

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
    Mark which pitches sound in each frame.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`NOTE_DTYPE`.
    n_frames : int
        Number of frames; what lies beyond is left out.
    start : int
        First of these frames in the recording.
    hop : int
        Samples at 16 kHz from one frame to the next.

    Returns
    -------
    numpy.ndarray
        Booleans ``(n_frames, 88)``; column 0 is MIDI pitch 21.

    Examples
    --------
    A note sounds in the frames of 10 ms whose centres it covers:

    >>> notes = np.array([(0.01, 0.03, 60)], NOTE_DTYPE)
    >>> frame_roll(notes, 4)[:, 60 - 21].tolist()
    [False, True, True, False]
    """
    notes, column = _on_piano(notes)
    return _roll(notes, column, N_PITCHES, n_frames, start, hop)


def instrument_roll(notes, n_frames, start=0, hop=HOP):
    """
    Mark which instruments sound in each frame; see :func:`frame_roll`.

    Of notes of :data:`PLAYED_DTYPE`, booleans ``(n_frames, 11)``, a column for each of
    :data:`jtm.constants.INSTRUMENTS` in their order; others are left out.
    """
    notes, column = played(notes)
    return _roll(notes, column, len(INSTRUMENTS), n_frames, start, hop)


def part_roll(notes, n_frames, start=0, hop=HOP):
    """
    Compute which instrument plays which pitch in each frame; see :func:`frame_roll`.

    Of notes of :data:`PLAYED_DTYPE`, booleans ``(n_frames, 88, 11)``: pitches from MIDI
    21 up, and :data:`jtm.constants.INSTRUMENTS` in their order; others are left out.

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
    Choose every so many frames.

    Parameters
    ----------
    n_frames : int
        Number of frames to choose from.
    step : int
        Frames from one to the next.

    Returns
    -------
    numpy.ndarray
        Numbers of the chosen frames, the first in the middle of the first step.
    """
    return np.arange(step // 2, n_frames, step)


def onset_roll(notes, n_frames, start=0, hop=HOP):
    """
    Mark which pitches start in each frame; see :func:`frame_roll`.

    Booleans ``(n_frames, 88)``, true in the first frame of each note.
    """
    notes, column = _on_piano(notes)
    first, last = _frames(notes, start, hop)
    here = (last > first) & (first >= 0) & (first < n_frames)
    roll = np.zeros((n_frames, N_PITCHES), bool)
    roll[first[here], column[here]] = True
    return roll


def rolls_to_notes(frames, onsets, hop=HOP):
    """
    Turn rolls back into notes.

    The inverse of :func:`frame_roll` and :func:`onset_roll` within half a
    frame at both ends; notes that contain no frame's centre are lost,
    and of notes that overlap at one pitch the earlier ends where the later
    starts.

    Parameters
    ----------
    frames, onsets : numpy.ndarray
        Booleans ``(frames, 88)``: what sounds, and what starts.
    hop : int
        Samples at 16 kHz from one frame to the next.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`NOTE_DTYPE` by start. Each starts at an
        onset, lasts for at least that frame, and ends before the first silent
        frame or the next onset of its pitch.
    """
    column, first = np.nonzero(onsets.T)
    # Ends are looked for in one long line, pitch after pitch; the stop at the
    # end of each pitch's line keeps a note from running into the next pitch.
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
    """Mark in which frames each note sounds, in its column."""
    first, last = np.clip(_frames(notes, start, hop), 0, n_frames)
    change = np.zeros((n_frames + 1, n_columns), np.int16)
    np.add.at(change, (first, column), 1)
    np.add.at(change, (last, column), -1)
    return change[:-1].cumsum(axis=0) > 0


def _frames(notes, start, hop):
    """Return the first frame ``(notes,)`` of each note, and the one after its last."""
    times = np.stack((notes["start"], notes["end"]))
    # Rounded to the millionth of a frame, as 0.005 * 100 - 0.5 is above zero.
    frames = np.ceil(np.round(times * SAMPLE_RATE / hop - 0.5, 6)).astype(np.int64)
    return frames - start


def _on_piano(notes):
    """Select the notes in the range of the piano, each with its column in a roll."""
    column = notes["pitch"] - PITCH_MIN
    here = (column >= 0) & (column < N_PITCHES)
    return notes[here], column[here]


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
        Those of :data:`jtm.constants.INSTRUMENTS`.
    column : numpy.ndarray
        Which of them, from 0, plays each.
    """
    programs = np.array(list(INSTRUMENTS))  # sorted
    notes = notes[np.isin(notes["program"], programs)]
    return notes, np.searchsorted(programs, notes["program"])
