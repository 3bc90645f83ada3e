"""
Tune families, works that share a melody, and their split.

Titles do not identify melodies: one chorale melody carries many texts. Works are
therefore grouped by melody (:func:`tune_families`), and each family is assigned to
one split (:func:`assign_families`).
"""

from collections import defaultdict

import numpy as np

PHRASE = 10
"""Length n of the interval n-grams by which melodies are compared."""

SHARED = 0.2
"""
Minimum similarity of two melodies of the same family.

Similarities of the 408 Bach chorales of music21's corpus are bimodal: nearly all are
close to 0, those of settings of one melody are higher; 0.2 lies between.
"""


def ngrams(melody, length=PHRASE):
    """
    Return the interval n-grams of a melody.

    Parameters
    ----------
    melody : sequence of int
        MIDI pitches in order; repeated pitches count once, so that text and rhythm
        have no influence.
    length : int
        Number of intervals n.

    Returns
    -------
    set of tuple of int
        Overlapping n-grams of intervals in semitones, invariant to transposition. A
        shorter melody is a single n-gram.
    """
    steps = np.diff(np.asarray(melody, dtype=int))
    steps = tuple(int(step) for step in steps if step)
    last = max(1, len(steps) - length + 1)
    return {steps[i : i + length] for i in range(last)}


def similarity(first, second):
    """
    Compute the similarity of two melodies.

    Parameters
    ----------
    first, second : set of tuple of int
        Their n-grams, from :func:`ngrams`.

    Returns
    -------
    float
        Number of common n-grams over the size of the smaller set, in [0, 1].
    """
    return len(first & second) / min(len(first), len(second))


def tune_families(melodies, groups):
    """
    Cluster works that share a group or a melody into families.

    Parameters
    ----------
    melodies : sequence of sequence of int
        The melody of each work as MIDI pitches.
    groups : sequence of str
        Group of each work by its title, such as the mass or the quartet.

    Returns
    -------
    list of int
        For each work, the index of the first work of its family. Families are the
        connected components of works that share a group or have a similarity of at
        least :data:`SHARED`.
    """
    parent = list(range(len(groups)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i, j):
        i, j = sorted((root(i), root(j)))
        parent[j] = i

    first_of = {}
    for i, group in enumerate(groups):
        join(first_of.setdefault(group, i), i)
    grams = [ngrams(melody) for melody in melodies]
    works_of = defaultdict(list)
    for i, own in enumerate(grams):
        candidates = set()
        for gram in own:
            candidates.update(works_of[gram])
            works_of[gram].append(i)
        for j in sorted(candidates):
            if similarity(own, grams[j]) >= SHARED:
                join(i, j)
    return [root(i) for i in range(len(groups))]


def assign_families(families, classes, weights, quotas):
    """
    Assign whole families to splits until the quotas are filled.

    Parameters
    ----------
    families : sequence of hashable
        Family of each work.
    classes : sequence of str
        Class, such as the composer, of each work.
    weights : sequence of float
        Weight of each work; 0 if it cannot be used.
    quotas : dict of str to dict of str to float
        Target weight by split and class.

    Returns
    -------
    list of str
        Split of each work. Families are assigned in the order of their first work,
        each to the split with the largest relative deficit in the family's classes
        (ties go to the later split). Families of classes without deficit then
        compensate for deficits in scarcer classes.
    """
    content = {}
    for family, name, weight in zip(families, classes, weights, strict=True):
        content.setdefault(family, defaultdict(float))[name] += weight
    deficit = {split: dict(quota) for split, quota in quotas.items()}
    order = list(quotas)

    def need(split, family):
        return sum(
            deficit[split].get(name, 0) / quotas[split][name]
            for name, weight in content[family].items()
            if weight and quotas[split].get(name)
        )

    assigned = {}
    for family, own in content.items():
        best = max(order, key=lambda split: (need(split, family), order.index(split)))
        if need(best, family) > 0:
            assigned[family] = best
            for name, weight in own.items():
                deficit[best][name] = max(0, deficit[best].get(name, 0) - weight)
    totals = {split: sum(quota.values()) for split, quota in deficit.items()}
    for family, own in content.items():
        if family not in assigned:
            assigned[family] = max(order, key=totals.__getitem__)
            totals[assigned[family]] -= sum(own.values())
    return [assigned[family] for family in families]
