"""
From posteriors to notes.

A note starts where the logit of its onset is a peak above a threshold, and
lasts as long as its pitch sounds by a threshold of its own, or until the same
pitch starts again (after Onsets and Frames, Hawthorne et al. 2018, which also
lets no note sound without an onset). The thresholds are chosen on validation,
one after the other: the onset's by note F1, which no offset enters, then the
frame's by note F1 with offsets.
"""

from functools import partial

import numpy as np

from jtm.data.rolls import onset_roll, rolls_to_notes
from jtm.evaluation.metrics import note_f1

REACH = 3
"""Frames on each side, 30 ms, that a peak must be the highest of."""

WIDEN = 1
"""Frames on each side of an onset that also count as one in training."""

THRESHOLDS = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Probabilities that are tried as thresholds."""


def onset_targets(notes, n_frames, start=0):
    """
    Give the onsets that a network is asked for.

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
        Logits ``(frames, 88)`` of onsets.
    threshold : float
        Probability above which a peak counts.

    Returns
    -------
    numpy.ndarray
        Booleans ``(frames, 88)``; of equal neighbours the first is the peak.
    """
    n_frames = len(onsets)
    found = onsets > np.log(threshold / (1 - threshold))
    silence = np.full((REACH, onsets.shape[1]), -np.inf)
    padded = np.concatenate((silence, onsets, silence))
    for shift in range(1, REACH + 1):
        found &= onsets > padded[REACH - shift :][:n_frames]
        found &= onsets >= padded[REACH + shift :][:n_frames]
    return found


def decode(posteriors, thresholds):
    """
    Turn posteriors into notes.

    Parameters
    ----------
    posteriors : numpy.ndarray
        Logits ``(frames, 2, 88)``: sounding, then starting.
    thresholds : tuple of float
        Probabilities above which a pitch sounds, and starts.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.NOTE_DTYPE` by start.
    """
    frame, onset = thresholds
    sounding = posteriors[:, 0] > np.log(frame / (1 - frame))
    return rolls_to_notes(sounding, peaks(posteriors[:, 1], onset))


def choose_thresholds(posteriors, references):
    """
    Choose the thresholds on validation recordings.

    Parameters
    ----------
    posteriors : sequence of numpy.ndarray
        Logits ``(frames, 2, 88)`` of each recording.
    references : sequence of numpy.ndarray
        Notes of each recording.

    Returns
    -------
    tuple of float
        Thresholds for :func:`decode`: sounding, and starting.
    """

    def score(thresholds, judge):
        return np.mean(
            [
                judge(truth, decode(logits, thresholds))
                for logits, truth in zip(posteriors, references, strict=True)
            ]
        )

    onset = max(THRESHOLDS, key=lambda t: score((0.5, t), onset_f1))
    frame = max(
        THRESHOLDS[2::2],
        key=lambda t: score((t, onset), partial(note_f1, offsets=True)),
    )
    return frame, onset


def onset_f1(reference, estimate, tolerance=0.05):
    """
    Score notes by pitch and onset, as :func:`jtm.evaluation.metrics.note_f1` does.

    On each pitch, taking the earliest of what still fits is a greatest matching,
    since all tolerances are equal; it is many times faster than a general one.

    Parameters
    ----------
    reference, estimate : numpy.ndarray
        Notes of :data:`jtm.data.rolls.NOTE_DTYPE`, by start.
    tolerance : float
        Greatest distance of onsets in seconds.

    Returns
    -------
    float
        F1 in 0..1; 1 where both are empty, 0 where one is.
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
        while i < len(of_pitch) and of_pitch[i] < start - tolerance - 5e-5:
            i += 1
        if i < len(of_pitch) and of_pitch[i] <= start + tolerance + 5e-5:
            matched += 1
            i += 1
        at[pitch] = i
    return 2 * matched / (len(reference) + len(estimate))
