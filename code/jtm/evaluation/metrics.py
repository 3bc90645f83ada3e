"""
Scores, and how sure we are of them.

Conventions:

- **Average precision** (multi-pitch) is micro-averaged: all frames x pitches
  are ranked together by their posteriors, as MusicNet's authors do (Thickstun
  et al. 2017, section 4). No threshold enters. Accuracy is not reported on a
  roll, since silence alone gives 97 % of it.
- **Frame F1** (multi-pitch) is mir_eval's multipitch precision and recall, over
  all frames of a split together, at a threshold that validation chose: on rolls
  of semitones its matching comes down to counting.
- **Note F1** (transcription) is mir_eval's: an estimated note is right if its
  onset lies within 50 ms of a reference note of the same pitch, each reference
  note being matched at most once; *with offset*, its offset must also lie
  within 50 ms or 20 % of the note's duration, whichever is longer. It is
  computed for each recording and averaged over recordings.
- **Accuracy** and **macro-F1** (classes) count windows; macro-F1 averages over
  the classes that occur in the truth. A class that is only guessed costs the
  precision or recall of others, not a zero of its own, which in a bootstrap
  would punish every draw that happens to miss a class.
- **Note-and-instrument F1** (who plays what) asks for the instrument too: notes
  are matched instrument by instrument.
- **Intervals** are 95 % percentile bootstraps over groups of recordings: tune
  families where they are known. Windows of one recording share player, room and
  work, and recordings of one family the tune, so drawing windows would pretend to
  many times the evidence there is. The draws depend on the number of groups and
  the seed alone: two systems scored on the same recordings see the same draws, and
  may be compared draw by draw.

Caveats:

- Where there is nothing to find and nothing is found, note F1 is 1; where only
  one side is empty it is 0. Average precision without a positive is 0.
- Unison notes of two instruments stay two notes in the reference, so a
  transcription that forgets instruments can find but one of them.
- The bootstrap counts precision at :data:`LEVELS` thresholds, which is within a
  thousandth of average precision itself.
- An interval over few groups is too narrow, and over one there is none. None of
  them holds the chance of another training run; seeds do.
"""

import numpy as np

DRAWS = 1000
"""Bootstrap draws of an interval."""

LEVELS = 1000
"""Maximum number of thresholds at which precision is counted for the bootstrap."""


def average_precision(truth, scores):
    """
    Score a ranking of frames x pitches by micro-averaged average precision.

    Parameters
    ----------
    truth : numpy.ndarray
        Booleans ``(frames, pitches)``.
    scores : numpy.ndarray
        Posteriors or logits of the same shape.

    Returns
    -------
    float
        Average precision in 0..1; 0 where nothing is true.

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
    Count for each recording what average precision is made of.

    Parameters
    ----------
    truths, scores : sequence of numpy.ndarray
        Roll and posteriors ``(frames, pitches)`` of each recording.

    Returns
    -------
    counts : numpy.ndarray
        Counts ``(recordings, 2, thresholds)``: positives, and all entries, at
        or above each threshold.
    levels : numpy.ndarray
        The thresholds, which descend through the scores of the positives, all
        of them or :data:`LEVELS` of their quantiles.
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

    It is within a thousandth of :func:`average_precision`.
    """
    hits, all_ = counts
    if not hits.size or not hits[-1]:
        return 0.0
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / np.maximum(all_, 1)))


def best_threshold(counts, levels):
    """
    Find the threshold of the best F1.

    Parameters
    ----------
    counts : numpy.ndarray
        Counts ``(2, thresholds)`` from :func:`precision_counts`, summed.
    levels : numpy.ndarray
        The thresholds.

    Returns
    -------
    float
        The threshold, at or above which a score counts as found; 0, as for logits
        of even odds, where there are no positives to choose by.
    """
    if not len(levels):
        return 0.0
    hits, all_ = counts
    return float(levels[np.argmax(2 * hits / np.maximum(all_ + hits[-1], 1))])


def frame_counts(truth, found):
    """
    Count what F1 over frames is made of.

    Parameters
    ----------
    truth, found : numpy.ndarray
        Booleans ``(frames, pitches)``.

    Returns
    -------
    numpy.ndarray
        Numbers of what is right, of what is found and of what is there ``(3,)``.
    """
    return np.array([(truth & found).sum(), found.sum(), truth.sum()])


def f1(counts):
    """Compute F1 of :func:`frame_counts`; 1 where nothing is there or found."""
    right, found, there = counts
    return float(2 * right / (found + there)) if found + there else 1.0


def accuracy(counts):
    """Compute the share of a confusion matrix that is right; 0 where it is empty."""
    return float(np.trace(counts) / max(counts.sum(), 1))


def macro_f1(counts):
    """
    Compute F1 averaged over the classes that occur in the truth, its rows.

    It is 0 where there is none.
    """
    present = counts.sum(axis=1) > 0
    if not present.any():
        return 0.0
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * np.diag(counts)[present] / total[present]))


def note_f1(reference, estimate, offsets=False):
    """
    Score the notes of one recording.

    Parameters
    ----------
    reference, estimate : numpy.ndarray
        Notes of :data:`jtm.data.rolls.NOTE_DTYPE`; times in seconds.
    offsets : bool
        Ask for right offsets too.

    Returns
    -------
    float
        F1 in 0..1; 1 where both are empty, 0 where one is.

    Examples
    --------
    An onset 40 ms late is right, an offset half a second late is not:

    >>> note = np.dtype([("start", float), ("end", float), ("pitch", int)])
    >>> played = np.array([(1.0, 2.0, 60)], note)
    >>> found = np.array([(1.04, 2.5, 60)], note)
    >>> note_f1(played, found), note_f1(played, found, offsets=True)
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


def mean(parts):
    """Compute the mean of scores from their sum and their number ``(2,)``."""
    return float(parts[0] / parts[1])


def bootstrap(parts, groups, statistic, draws=DRAWS, seed=0):
    """
    Draw groups of recordings with replacement, and score each draw (Efron 1979).

    Parameters
    ----------
    parts : numpy.ndarray
        What each recording adds to the score ``(recordings, ...)``.
    groups : sequence or None
        Group of each recording, such as its tune family; None draws recordings.
    statistic : callable
        Returns the score of parts summed over recordings.
    draws : int
        Number of draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        Scores of the draws ``(draws,)``; none of fewer than two groups.
    """
    names = range(len(parts)) if groups is None else groups
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}  # as they come
    sums = np.zeros((len(order), *np.shape(parts)[1:]))
    np.add.at(sums, [order[name] for name in names], parts)
    n = len(sums)
    if n < 2:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n, np.full(n, 1 / n), size=draws)  # of each group
    drawn = np.tensordot(times.astype(float), sums, axes=1)
    return np.array([statistic(each) for each in drawn])


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
        Ends of the interval; None twice where there are no draws.
    """
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
