"""
Splits by work and by tune, so that no melody is heard on two sides.

Titles cannot be trusted for that: one chorale melody carries many texts. Works
are therefore joined to families by what is sung (:func:`tune_families`), and
whole families go to one split (:func:`assign_families`).
"""

from collections import Counter, defaultdict

import numpy as np

from jtm.constants import FRAME_RATE, HOP
from jtm.data.musicnet import SPLITS
from jtm.data.rolls import WINDOW
from jtm.files import InputError

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


def split_recordings(recordings, lengths, window=None):
    """
    Sort recordings into splits, the same for pretraining and all tasks.

    Where the dataset marks no labelled recording for validation, as MusicNet
    doesn't, whole works are held out of training: of each ensemble the second in
    alphabetical order, and every eighth after it. Where training would be left
    without an ensemble or a composer, the next work goes instead.

    Parameters
    ----------
    recordings : sequence of Recording
        All recordings of a store.
    lengths : sequence of int
        Their lengths in samples at 16 kHz.
    window : int, optional
        For pretraining, where neither marks nor labels decide: hold out one
        work in twenty, of recordings of at least so many samples.

    Returns
    -------
    dict of str to list of int
        Indices by split, all of :data:`jtm.data.musicnet.SPLITS`. What is held
        out is in `validation` alone, with what else is of the same work or tune.

    Raises
    ------
    InputError
        If one tune stands in two of training, validation and test.
    """
    splits = {split: [] for split in SPLITS}
    for index, recording in enumerate(recordings):
        splits[recording.split].append(index)
    labelled = {i for i in range(len(recordings)) if _can_label(recordings, lengths, i)}
    held_out = set()
    if labelled.isdisjoint(splits["validation"]):
        train = [i for i in splits["train"] if i in labelled]
        held_out = _hold_out(recordings, train, ("ensemble", "composer"))
        if not held_out:  # each composer has one work: no task of theirs, but others
            held_out = _hold_out(recordings, train, ("ensemble",))
    if window and not held_out and not splits["validation"]:
        heard = splits["train"] + splits["unlabelled"]
        long = [i for i in heard if lengths[i] >= window] or heard
        works = sorted({_work(recordings[i]) for i in long}, key=str)
        if len(works) > 1:
            order = np.random.default_rng(0).permutation(len(works))
            held_out = {works[i] for i in order[: -(-len(works) // 20)]}
    if held_out:
        for split in ("train", "unlabelled"):
            moved = {i for i in splits[split] if _work(recordings[i]) in held_out}
            splits["validation"] += moved
            splits[split] = [i for i in splits[split] if i not in moved]
        splits["validation"].sort()
    _check_tunes(recordings, splits)
    return splits


def labelled_splits(recordings, lengths):
    """
    Sort labelled recordings into splits.

    Parameters
    ----------
    recordings : sequence of Recording
        All recordings of a store.
    lengths : sequence of int
        Their lengths in samples at 16 kHz; those shorter than a window are
        left out.

    Returns
    -------
    dict of str to list of int
        Indices by split; see :func:`split_recordings`.

    Raises
    ------
    InputError
        If there is no labelled recording to learn from, to validate on, or to
        test on, or one tune stands in two splits.
    """
    splits = {
        split: [i for i in indices if _can_label(recordings, lengths, i)]
        for split, indices in split_recordings(recordings, lengths).items()
        if split != "unlabelled"
    }
    for split in ("train", "validation", "test"):
        if not splits[split]:
            raise InputError(
                f"no labelled recording of at least {WINDOW / FRAME_RATE} s in the "
                f"{split} split; expected a dataset in MusicNet's layout with labels "
                "in train_labels/ and test_labels/"
            )
    return splits


def _can_label(recordings, lengths, index):
    """Tell whether a recording has labels and lasts a window."""
    return recordings[index].labels is not None and lengths[index] >= WINDOW * HOP


def _work(recording):
    """Name what must not be heard on two sides: a tune, a work, or one file."""
    row = recording.metadata
    work = row.get("composer"), row.get("composition") or recording.id
    return row.get("tune_family") or work


def _hold_out(recordings, train, columns):
    """Choose works for validation; training keeps every class of some columns."""
    works, ensembles, counts = {}, {}, Counter()
    for index in train:
        row = recordings[index].metadata
        work = _work(recordings[index])
        works.setdefault(work, Counter()).update(_classes(row, columns))
        ensembles.setdefault(row.get("ensemble"), {})[work] = None
        counts.update(_classes(row, columns))
    held_out = set()
    for of_ensemble in ensembles.values():
        order = sorted(of_ensemble, key=str)[1:]
        for first in range(0, len(order), 8):
            for work in order[first : first + 8]:
                if work in held_out:
                    break
                if all(counts[c] > n for c, n in works[work].items()):
                    counts -= works[work]
                    held_out.add(work)
                    break
    return held_out


def _classes(row, columns):
    """List the classes that a row of the metadata names."""
    return [(column, row[column]) for column in columns if row.get(column)]


def _check_tunes(recordings, splits):
    """Refuse a tune that is heard on two sides."""
    sides = {"test_timbre": "test", "unlabelled": "train"}
    home = {}
    for split, indices in splits.items():
        side = sides.get(split, split)
        for index in indices:
            family = recordings[index].metadata.get("tune_family")
            if family and home.setdefault(family, side) != side:
                raise InputError(
                    f"{recordings[index].audio}: its tune ({family}) is in the split "
                    f"{home[family]} and in {split}, so that memory would be rewarded; "
                    "move all of its recordings to one split"
                )
