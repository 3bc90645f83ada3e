"""
Decoding of frame and onset logits into notes.

A note starts at a peak of the onset logit above the onset threshold. It ends when the
frame logit of its pitch falls below the frame threshold, or at the next onset of the
same pitch (after Onsets and Frames, Hawthorne et al. 2018, where, too, no note starts
without an onset). With instruments, an onset is assigned to every instrument active
at its pitch at that time. The thresholds are chosen on validation in turn: first
the onset threshold by note F1 by pitch and onset, on which the frame threshold has no
effect, then the frame threshold by note F1 with offsets, or with instruments.
"""

import numpy as np
from scipy.special import logit

from jtm.constants import INSTRUMENTS
from jtm.data.rolls import PLAYED_DTYPE, played, rolls_to_notes
from jtm.evaluation.metrics import note_f1

REACH = 3
"""Frames of 10 ms on each side among which a peak must be the maximum."""

THRESHOLDS = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Candidate thresholds, as probabilities."""


def by_instrument(notes):
    """
    Offset pitches by instrument, so that only notes of one instrument can match.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.PLAYED_DTYPE`.

    Returns
    -------
    numpy.ndarray
        The notes of the eleven instruments; each instrument is 200 semitones above the
        previous one.
    """
    notes, column = played(notes)
    notes["pitch"] += (200 * column).astype(notes["pitch"].dtype)
    return notes


def peaks(onsets, threshold):
    """
    Find onset peaks.

    Parameters
    ----------
    onsets : numpy.ndarray
        Onset logits ``(frames, 88)``.
    threshold : float
        Probability that a peak must exceed.

    Returns
    -------
    numpy.ndarray
        Booleans ``(frames, 88)``; the first of equal neighbours is the peak.
    """
    is_peak = onsets > logit(threshold)
    silence = np.full((REACH, onsets.shape[1]), -np.inf)
    padded = np.concatenate((silence, onsets, silence))
    for shift in range(1, REACH + 1):
        is_peak &= onsets > padded[REACH - shift :][: len(onsets)]
        is_peak &= onsets >= padded[REACH + shift :][: len(onsets)]
    return is_peak


def decode(posteriors, frame_threshold, onset_threshold):
    """
    Decode logits into notes.

    Parameters
    ----------
    posteriors : numpy.ndarray
        Logits ``(frames, 2, 88)``: pitch activation (frame), then onset; or
        ``(frames, 12, 88)``: pitch activation of each of
        :data:`jtm.constants.INSTRUMENTS`, then onset.
    frame_threshold, onset_threshold : float
        Thresholds as probabilities.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` sorted by start, of :data:`jtm.data.rolls.NOTE_DTYPE`, or
        with instruments of :data:`jtm.data.rolls.PLAYED_DTYPE`.
    """
    active = posteriors[:, :-1] > logit(frame_threshold)
    onsets = peaks(posteriors[:, -1], onset_threshold)
    if active.shape[1] == 1:
        return rolls_to_notes(active[:, 0], onsets)
    by_program = []
    for program, roll in zip(INSTRUMENTS, active.swapaxes(0, 1), strict=True):
        # Active at the onset or one frame later, as onsets are accurate to a frame.
        near = roll | np.pad(roll, ((0, 1), (0, 0)))[1:]
        notes = rolls_to_notes(roll, onsets & near)
        by_program.append(np.zeros(len(notes), PLAYED_DTYPE))
        by_program[-1][[*notes.dtype.names]] = notes
        by_program[-1]["program"] = program
    return np.sort(np.concatenate(by_program), order=("start", "pitch", "program"))


def choose_thresholds(posteriors, references):
    """
    Choose decoding thresholds on validation recordings.

    Parameters
    ----------
    posteriors : sequence of numpy.ndarray
        Logits of each recording; see :func:`decode`.
    references : sequence of numpy.ndarray
        Reference notes of each recording, with instruments if the logits have them.

    Returns
    -------
    dict of str to float
        ``frame_threshold`` and ``onset_threshold`` for :func:`decode`.
    """
    instruments = posteriors[0].shape[1] > 2
    if instruments:
        references = [played(notes)[0] for notes in references]
    _, onset = best_onset(posteriors, references)

    def score(reference, estimate):
        if instruments:
            return _onset_f1(by_instrument(reference), by_instrument(estimate))
        return note_f1(reference, estimate, offsets=True)

    def mean_score(frame):
        notes = [decode(logits, frame, onset) for logits in posteriors]
        return np.mean(list(map(score, references, notes)))

    frame = max(THRESHOLDS[2::2], key=mean_score)
    return {"frame_threshold": frame, "onset_threshold": onset}


def best_onset(posteriors, references):
    """
    Choose the onset threshold by note F1 by pitch and onset.

    Parameters
    ----------
    posteriors, references : sequence of numpy.ndarray
        Logits of each recording, see :func:`decode`, and its reference notes.

    Returns
    -------
    tuple of float
        Highest note F1 by pitch and onset, and its threshold.
    """
    scores = []
    for threshold in THRESHOLDS:
        onsets = [peaks(logits[:, -1], threshold) for logits in posteriors]
        notes = map(rolls_to_notes, onsets, onsets)  # whatever their offsets
        scores.append(np.mean(list(map(_onset_f1, references, notes))))
    best = np.argmax(scores)  # the first of equals
    return scores[best], THRESHOLDS[best]


def _onset_f1(reference, estimate):
    """
    Compute note F1 by pitch and onset, as :func:`jtm.evaluation.metrics.note_f1` does.

    Since all tolerances are equal, greedily matching each reference note with the
    earliest unmatched estimate within the tolerance is a maximum matching within a
    pitch, and many times faster than a general one.
    """
    if not len(reference) or not len(estimate):
        return float(len(reference) == len(estimate))
    # On one axis, where notes of different pitches are far apart.
    span = 1 + max(reference["start"].max(), estimate["start"].max())
    truths, found = (
        np.sort(span * notes["pitch"] + notes["start"]).tolist()
        for notes in (reference, estimate)
    )
    matched = i = 0
    for start in truths:
        # 5e-5 s of slack, since mir_eval rounds distances to 0.1 ms.
        while i < len(found) and found[i] < start - 0.05 - 5e-5:
            i += 1
        if i < len(found) and found[i] <= start + 0.05 + 5e-5:
            matched += 1
            i += 1
    return 2 * matched / (len(reference) + len(estimate))
