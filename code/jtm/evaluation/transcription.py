"""
From posteriors to notes.

A note starts where the logit of its onset is a peak above a threshold, and lasts as
long as its pitch sounds by a threshold of its own, or until the same pitch starts
again (after Onsets and Frames, Hawthorne et al. 2018, which also lets no note sound
without an onset). Where instruments are told apart, an onset is that of each
instrument that sounds at its pitch then. The thresholds are chosen on validation, one
after the other: the onset's by F1 of pitch and onset, which nothing else enters, then
the frame's by note F1 with offsets, or with instruments.
"""

from functools import partial

import numpy as np

from jtm.constants import INSTRUMENTS
from jtm.data.rolls import PLAYED_DTYPE, onset_roll, played, rolls_to_notes
from jtm.evaluation.metrics import note_f1

REACH = 3
"""Frames of 10 ms on each side that a peak must be the highest of."""

WIDEN = 1
"""Frames on each side of an onset that also count as one in training."""

THRESHOLDS = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Probabilities that are tried as thresholds."""

APART = 200
"""Semitones that :func:`by_instrument` puts between instruments."""


def by_instrument(notes):
    """
    Move each instrument to pitches of its own, so that matching tells them apart.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.PLAYED_DTYPE`.

    Returns
    -------
    numpy.ndarray
        The notes of the eleven instruments, each instrument :data:`APART` semitones
        above the one before.
    """
    notes, column = played(notes)
    notes["pitch"] += (APART * column).astype(notes["pitch"].dtype)
    return notes


def onset_targets(notes, n_frames, start=0):
    """
    Compute the onsets that are learned.

    Annotated onsets are true to a frame or two, so a frame on each side counts
    too.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.NOTE_DTYPE`.
    n_frames : int
        Number of frames.
    start : int
        First of these frames in the recording.

    Returns
    -------
    numpy.ndarray
        Booleans ``(n_frames, 88)``.
    """
    exact = onset_roll(notes, n_frames + 2 * WIDEN, start - WIDEN)
    return np.any([exact[i : i + n_frames] for i in range(2 * WIDEN + 1)], axis=0)


def peaks(onsets, threshold):
    """
    Find where notes start.

    Parameters
    ----------
    onsets : numpy.ndarray
        Logits of onsets ``(frames, 88)``.
    threshold : float
        Probability above which a peak is one.

    Returns
    -------
    numpy.ndarray
        Booleans ``(frames, 88)``; of equal neighbours the first is the peak.
    """
    found = onsets > np.log(threshold / (1 - threshold))
    silence = np.full((REACH, onsets.shape[1]), -np.inf)
    padded = np.concatenate((silence, onsets, silence))
    for shift in range(1, REACH + 1):
        found &= onsets > padded[REACH - shift :][: len(onsets)]
        found &= onsets >= padded[REACH + shift :][: len(onsets)]
    return found


def decode(posteriors, thresholds):
    """
    Turn posteriors into notes.

    Parameters
    ----------
    posteriors : numpy.ndarray
        Logits ``(frames, 2, 88)``: sounding, then starting; or ``(frames, 12, 88)``:
        sounding of each of :data:`jtm.constants.INSTRUMENTS`, then starting.
    thresholds : tuple of float
        Probabilities above which a pitch sounds, and starts.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.NOTE_DTYPE` by start, or with
        instruments of :data:`jtm.data.rolls.PLAYED_DTYPE`.
    """
    frame, onset = thresholds
    sounding = posteriors[:, :-1] > np.log(frame / (1 - frame))
    starts = peaks(posteriors[:, -1], onset)
    if sounding.shape[1] == 1:
        return rolls_to_notes(sounding[:, 0], starts)
    found = []
    for program, part in zip(INSTRUMENTS, sounding.swapaxes(0, 1), strict=True):
        # In its first frame or the next, as an onset is true to a frame or two.
        near = part | np.pad(part, ((0, 1), (0, 0)))[1:]
        notes = rolls_to_notes(part, starts & near)
        found.append(np.zeros(len(notes), PLAYED_DTYPE))
        found[-1][[*notes.dtype.names]] = notes
        found[-1]["program"] = program
    return np.sort(np.concatenate(found), order=("start", "pitch", "program"))


def choose_thresholds(posteriors, references):
    """
    Choose the thresholds on validation recordings.

    Parameters
    ----------
    posteriors : sequence of numpy.ndarray
        Logits of each recording; see :func:`decode`.
    references : sequence of numpy.ndarray
        Notes of each recording; with instruments where these are told apart.

    Returns
    -------
    tuple of float
        Thresholds for :func:`decode`: sounding, and starting.
    """
    pitches, score = posteriors, partial(note_f1, offsets=True)
    if any(logits.shape[1] > 2 for logits in posteriors):
        references = [played(notes)[0] for notes in references]
        pitches = [
            np.stack((logits[:, :-1].max(axis=1), logits[:, -1]), axis=1)
            for logits in posteriors
        ]

        def score(notes, found):
            return _onset_f1(by_instrument(notes), by_instrument(found))

    _, onset = best_onset(pitches, references)
    frame = max(
        THRESHOLDS[2::2],
        key=lambda t: _mean_score(posteriors, references, (t, onset), score),
    )
    return frame, onset


def best_onset(posteriors, references):
    """
    Choose the threshold of onsets, by F1 of pitch and onset.

    Parameters
    ----------
    posteriors, references : sequence of numpy.ndarray
        Logits ``(frames, 2, 88)`` and notes of each recording.

    Returns
    -------
    tuple of float
        Note F1 by pitch and onset, and the threshold that reaches it.
    """
    scores = [
        _mean_score(posteriors, references, (0.5, t), _onset_f1) for t in THRESHOLDS
    ]
    best = np.argmax(scores)  # the first of equals
    return scores[best], THRESHOLDS[best]


def _mean_score(posteriors, references, thresholds, score):
    """Score what is decoded of each recording, and take the mean."""
    pairs = zip(posteriors, references, strict=True)
    return np.mean([score(notes, decode(x, thresholds)) for x, notes in pairs])


def _onset_f1(reference, estimate):
    """
    Score notes by pitch and onset, as :func:`jtm.evaluation.metrics.note_f1` does.

    On each pitch, taking the earliest of what still fits is a maximum matching,
    since all tolerances are equal; it is many times faster than a general one.
    Notes are by start.
    """
    if not len(reference) or not len(estimate):
        return float(len(reference) == len(estimate))
    found = {}
    for pitch, start in zip(estimate["pitch"], estimate["start"], strict=True):
        found.setdefault(pitch, []).append(start)
    matched, at = 0, dict.fromkeys(found, 0)
    for pitch, start in zip(reference["pitch"], reference["start"], strict=True):
        of_pitch = found.get(pitch, ())
        i = at.get(pitch, 0)
        # A hair's width, as mir_eval rounds distances to 0.1 ms.
        while i < len(of_pitch) and of_pitch[i] < start - 0.05 - 5e-5:
            i += 1
        if i < len(of_pitch) and of_pitch[i] <= start + 0.05 + 5e-5:
            matched += 1
            i += 1
        at[pitch] = i
    return 2 * matched / (len(reference) + len(estimate))
