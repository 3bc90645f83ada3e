"""
Families of works that share a tune, and which split each goes to.

Titles cannot be trusted for that: one chorale melody carries many texts. Works
are therefore joined to families by what is sung (:func:`tune_families`), and
whole families go to one split (:func:`assign_families`).
"""

from collections import defaultdict

import numpy as np

PHRASE = 10
"""Intervals in a run of melody that two works are compared by."""

SHARED = 0.2
"""
Share of common runs, of the shorter melody, from which tunes are the same.

Between the 408 Bach chorales of music21's corpus the shares fall into two heaps,
by far the most near 0 and the settings of one melody above; 0.2 is the valley.
"""


def runs(melody, length=PHRASE):
    """
    Cut a melody into its overlapping runs of intervals.

    Parameters
    ----------
    melody : sequence of int
        MIDI pitches in order; repeated pitches are taken once, so that another
        text or rhythm changes nothing.
    length : int
        Intervals in a run.

    Returns
    -------
    set of tuple of int
        Runs of ``length`` intervals in semitones; the same in every
        transposition. A melody too short for a run is one run by itself.
    """
    steps = np.diff(np.asarray(melody, dtype=int))
    steps = tuple(int(step) for step in steps if step)
    last = max(1, len(steps) - length + 1)
    return {steps[i : i + length] for i in range(last)}


def similarity(first, second):
    """
    Tell how much two melodies share.

    Parameters
    ----------
    first, second : set of tuple of int
        Their runs, from :func:`runs`.

    Returns
    -------
    float
        Common runs as a share of the smaller set, in [0, 1].
    """
    return len(first & second) / min(len(first), len(second))


def tune_families(melodies, groups):
    """
    Join works to families that share a group or a melody.

    Parameters
    ----------
    melodies : sequence of sequence of int
        The melody of each work as MIDI pitches.
    groups : sequence of str
        What each work belongs to by its title, such as the mass or the quartet.

    Returns
    -------
    list of int
        For each work, the index of the first work of its family. Two works are
        in one family when a chain of works leads from one to the other, each
        link a common group or a similarity of at least :data:`SHARED`.
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
    cut = [runs(melody) for melody in melodies]
    holders = defaultdict(list)
    for i, own in enumerate(cut):
        common = defaultdict(int)
        for run in own:
            for j in holders[run]:
                common[j] += 1
            holders[run].append(i)
        for j in sorted(common):
            if similarity(own, cut[j]) >= SHARED:
                join(i, j)
    return [root(i) for i in range(len(groups))]


def assign_families(families, classes, weights, quotas):
    """
    Give whole families to splits until every split has what it needs.

    Parameters
    ----------
    families : sequence of hashable
        Family of each work.
    classes : sequence of str
        Class, such as the composer, of each work.
    weights : sequence of float
        What each work counts for; 0 for one that is of no use.
    quotas : dict of str to dict of str to float
        Weight wanted, by split and class.

    Returns
    -------
    list of str
        Split of each work. Families are dealt in the order of their first
        work, each to the split that lacks the largest share of what the family
        has to give (ties go to the split named later). The families that no
        class needs then make up what splits lack of scarcer classes.
    """
    content = {}
    for family, name, weight in zip(families, classes, weights, strict=True):
        content.setdefault(family, defaultdict(float))[name] += weight
    lacking = {split: dict(wanted) for split, wanted in quotas.items()}
    order = list(quotas)

    def need(split, family):
        return sum(
            lacking[split].get(name, 0) / quotas[split][name]
            for name, weight in content[family].items()
            if weight and quotas[split].get(name)
        )

    home = {}
    for family, content_of in content.items():
        best = max(order, key=lambda split: (need(split, family), order.index(split)))
        if need(best, family) > 0:
            home[family] = best
            for name, weight in content_of.items():
                left = lacking[best].get(name, 0)
                lacking[best][name] = max(0, left - weight)
    short = {split: sum(wanted.values()) for split, wanted in lacking.items()}
    for family, content_of in content.items():
        if family not in home:
            home[family] = max(order, key=short.__getitem__)
            short[home[family]] -= sum(content_of.values())
    return [home[family] for family in families]
