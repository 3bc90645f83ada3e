"""
Evaluation metrics and their bootstrap intervals.

Conventions:

- **Average precision** (multi-pitch) is micro-averaged: all frames x pitches
  are ranked together by their scores, as MusicNet's authors do (Thickstun
  et al. 2017, section 4). It needs no threshold. Accuracy is not reported on
  piano rolls, since predicting silence alone reaches 97 %.
- **Frame F1** (multi-pitch) is the F1 of mir_eval's multipitch precision and
  recall, pooled over all frames of a split, at a threshold chosen on validation. On
  semitone rolls mir_eval's matching reduces to counting.
- **Note F1** (transcription) is mir_eval's: an estimated note is correct if its
  onset lies within 50 ms of a reference note of the same pitch, and each reference
  note is matched at most once; *with offset*, its offset must also lie
  within 50 ms or 20 % of the note's duration, whichever is longer. It is
  computed per recording and averaged over recordings.
- **Accuracy** and **macro-F1** (classification) count windows; macro-F1 averages
  over the classes present in the reference. A class that is only predicted costs
  other classes recall but adds no zero of its own, which in a bootstrap
  would penalise every draw that happens to miss a class.
- **Note-and-instrument F1** (who plays what) also requires the instrument: notes
  are matched separately for each instrument.
- **Intervals** are 95 % percentile bootstraps over groups of recordings: tune
  families where these are known. Windows of one recording share player, room and
  work, and recordings of one family share the tune, so resampling windows would
  overstate the evidence many times. The draws depend only on the number of groups:
  two systems scored on the same recordings get the same draws, so their draws can be
  paired.

Caveats:

- Note F1 is 1 if neither reference nor estimate has a note, and 0 if only one of
  them is empty. Average precision without positives is 0.
- Unison notes of two instruments stay two notes in the reference, so a
  transcription without instruments can match only one of them.
- The bootstrap evaluates precision at :data:`LEVELS` thresholds, which is within a
  thousandth of exact average precision.
- Intervals over few groups are too narrow, and one group has no interval. Intervals
  do not include the variance between training runs; repeated seeds measure that.
"""

import numpy as np

DRAWS = 1000
"""Number of bootstrap draws."""

LEVELS = 1000
"""Maximum number of thresholds at which the bootstrap evaluates precision."""


def average_precision(truth, scores):
    """
    Compute micro-averaged average precision over frames x pitches.

    Parameters
    ----------
    truth : numpy.ndarray
        Reference piano roll, booleans ``(frames, pitches)``.
    scores : numpy.ndarray
        Posteriors or logits of the same shape.

    Returns
    -------
    float
        Average precision in 0..1; 0 without positives.

    Examples
    --------
    One of two true pitches is ranked first, the other third:

    >>> truth = np.array([[True, False], [False, True]])
    >>> scores = np.array([[0.9, 0.8], [0.1, 0.7]])
    >>> round(average_precision(truth, scores), 3)
    0.833
    """
    from sklearn.metrics import average_precision_score

    if not np.any(truth):
        return 0.0
    return float(average_precision_score(np.ravel(truth), np.ravel(scores)))


def precision_counts(truths, scores):
    """
    Count true positives and predictions of each recording at each threshold.

    Parameters
    ----------
    truths, scores : sequence of numpy.ndarray
        Reference roll and scores ``(frames, pitches)`` of each recording.

    Returns
    -------
    counts : numpy.ndarray
        Counts ``(recordings, 2, thresholds)``: positives, and all entries, that
        score at or above each threshold.
    levels : numpy.ndarray
        The thresholds in descending order: all scores of positives, or
        :data:`LEVELS` quantiles of them.
    """
    positives = np.concatenate([s[t] for t, s in zip(truths, scores, strict=True)])
    levels = np.unique(positives)[::-1]
    if len(levels) > LEVELS:
        share = np.linspace(1, 0, LEVELS)
        levels = np.quantile(positives, share, method="inverted_cdf")
    counts = np.zeros((len(truths), 2, len(levels)))
    for row, (truth, score) in enumerate(zip(truths, scores, strict=True)):
        for kind, values in enumerate((score[truth], score.ravel())):
            below = np.searchsorted(np.sort(values), levels)
            counts[row, kind] = len(values) - below
    return counts, levels


def precision_score(counts):
    """
    Compute the average precision of summed :func:`precision_counts`.

    The result is within a thousandth of :func:`average_precision`.
    """
    correct, predicted = counts
    if not correct.size or not correct[-1]:
        return 0.0
    steps = np.diff(correct / correct[-1], prepend=0.0)  # of recall
    return float(np.sum(steps * correct / np.maximum(predicted, 1)))


def frame_counts(truth, estimate):
    """
    Count correct, estimated and reference entries, for frame F1.

    Parameters
    ----------
    truth, estimate : numpy.ndarray
        Reference and estimated piano roll, booleans ``(frames, pitches)``.

    Returns
    -------
    numpy.ndarray
        Numbers of correct, estimated and reference entries ``(3,)``.
    """
    return np.array([(truth & estimate).sum(), estimate.sum(), truth.sum()])


def f1(counts):
    """Compute F1 from :func:`frame_counts`; 1 if reference and estimate are empty."""
    correct, *sizes = counts
    return float(2 * correct / sum(sizes)) if sum(sizes) else 1.0


def accuracy(counts):
    """Compute accuracy from a confusion matrix; 0 if it is empty."""
    return float(np.trace(counts) / max(counts.sum(), 1))


def macro_f1(counts):
    """
    Compute macro-F1 from a confusion matrix, whose rows are the reference.

    It averages over classes present in the reference, and is 0 if there are none.
    """
    present = counts.sum(axis=1) > 0
    if not present.any():
        return 0.0
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * np.diag(counts)[present] / total[present]))


def note_f1(reference, estimate, offsets=False):
    """
    Compute note F1 of one recording.

    Parameters
    ----------
    reference, estimate : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.data.rolls.NOTE_DTYPE`; times in seconds.
    offsets : bool
        Whether offsets must match too.

    Returns
    -------
    float
        F1 in 0..1; 1 if both are empty, 0 if one is.

    Examples
    --------
    An onset 40 ms late matches, an offset half a second late does not:

    >>> note = np.dtype([("start", float), ("end", float), ("pitch", int)])
    >>> reference = np.array([(1.0, 2.0, 60)], note)
    >>> estimate = np.array([(1.04, 2.5, 60)], note)
    >>> note_f1(reference, estimate), note_f1(reference, estimate, offsets=True)
    (1.0, 0.0)
    """
    from mir_eval.transcription import precision_recall_f1_overlap

    if not len(reference) or not len(estimate):
        return float(len(reference) == len(estimate))
    arguments = []
    for notes in (reference, estimate):
        arguments.append(np.stack((notes["start"], notes["end"]), axis=1))
        arguments.append(440 * 2 ** ((notes["pitch"] - 69) / 12))  # Hz
    _, _, f1, _ = precision_recall_f1_overlap(
        *arguments, onset_tolerance=0.05, offset_ratio=0.2 if offsets else None
    )
    return float(f1)


def mean(counts):
    """Compute a mean from the sum of scores and their number ``(2,)``."""
    return float(counts[0] / counts[1])


def bootstrap(counts, groups, statistic):
    """
    Resample groups of recordings with replacement, and score each draw (Efron 1979).

    Parameters
    ----------
    counts : numpy.ndarray
        Summable statistics of each recording ``(recordings, ...)``, such as counts.
    groups : sequence or None
        Group of each recording, such as its tune family; None resamples recordings.
    statistic : callable
        Computes the score from statistics summed over recordings.

    Returns
    -------
    numpy.ndarray
        Scores of :data:`DRAWS` draws ``(draws,)``, the same draws for as many groups;
        empty for fewer than two groups.
    """
    names = range(len(counts)) if groups is None else groups
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}  # first occurrence
    sums = np.zeros((len(order), *np.shape(counts)[1:]))
    np.add.at(sums, [order[name] for name in names], counts)
    n = len(sums)
    if n < 2:
        return np.empty(0)
    rng = np.random.default_rng(0)
    times = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)  # per group
    totals = np.tensordot(times.astype(float), sums, axes=1)
    return np.array([statistic(total) for total in totals])


def interval(draws):
    """
    Compute the 95 % percentile interval of a score.

    Parameters
    ----------
    draws : numpy.ndarray
        Scores of the draws, from :func:`bootstrap`.

    Returns
    -------
    tuple of float or None
        Lower and upper end of the interval; both None if there are no draws.
    """
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
