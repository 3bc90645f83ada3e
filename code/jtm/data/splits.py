"""
Splits of a dataset, the same for pretraining and all tasks.

Splits that the dataset marks are kept, and may not share a tune; works held out here
are in no other split.
"""

from collections import Counter

import numpy as np

from jtm.constants import FRAME_RATE, HOP
from jtm.data.musicnet import METADATA_FILE, SPLITS
from jtm.data.rolls import WINDOW
from jtm.files import InputError

SIDES = {"test_timbre": "test", "unlabelled": "train"}
"""Splits that may share tunes with another one, which is named."""


def split_recordings(recordings, lengths, window=None):
    """
    Assign recordings to splits, the same for pretraining and all tasks.

    If the dataset marks no labelled recording for validation (MusicNet does not),
    whole works are held out from training: for each ensemble the second in
    alphabetical order, and every eighth after it. If training would lose an
    ensemble or a composer, the next work is held out instead. If none can be held out,
    composers are disregarded, then ensembles instead, then both.

    Parameters
    ----------
    recordings : sequence of Recording
        All recordings of a store.
    lengths : sequence of int
        Their lengths in samples at 16 kHz.
    window : int, optional
        For pretraining, if neither marks nor labels determine the validation split:
        hold out one work in twenty, among recordings of at least this many samples.

    Returns
    -------
    dict of str to list of int
        Indices for each of :data:`jtm.data.musicnet.SPLITS`. Held-out recordings,
        and all others of the same work or tune that the dataset marks for training,
        are in `validation` only.

    Raises
    ------
    InputError
        If one tune is in two of training, validation and test.
    """
    splits = {split: [] for split in SPLITS}
    for index, recording in enumerate(recordings):
        splits[recording.split].append(index)
    labelled = {i for i in range(len(recordings)) if _can_label(recordings, lengths, i)}
    held_out = set()
    if labelled.isdisjoint(splits["validation"]):
        train = [i for i in splits["train"] if i in labelled]
        # Where each composer or ensemble has one work, not all of them can be kept.
        for columns in (("ensemble", "composer"), ("ensemble",), ("composer",), ()):
            held_out = held_out or _hold_out(recordings, train, columns)
    if window and not held_out and not splits["validation"]:
        candidates = splits["train"] + splits["unlabelled"]
        long = [i for i in candidates if lengths[i] >= window] or candidates
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
    home = {}
    for split, indices in splits.items():
        side = SIDES.get(split, split)
        for recording in (recordings[index] for index in indices):
            family = recording.metadata.get("tune_family")
            if family and home.setdefault(family, side) != side:
                raise InputError(
                    f"{recording.audio}: its tune ({family}) is in the split "
                    f"{home[family]} and in {split}, so that memorisation would score; "
                    "move all of its recordings to one split"
                )
    return splits


def labelled_splits(recordings, lengths):
    """
    Assign labelled recordings to splits.

    Parameters
    ----------
    recordings : sequence of Recording
        All recordings of a store.
    lengths : sequence of int
        Their lengths in samples at 16 kHz; those shorter than a window are left out.

    Returns
    -------
    dict of str to list of int
        Indices by split; see :func:`split_recordings`.

    Raises
    ------
    InputError
        If training, validation or test has no labelled recording, or two share a tune.
    """
    splits = {
        split: [i for i in indices if _can_label(recordings, lengths, i)]
        for split, indices in split_recordings(recordings, lengths).items()
        if split != "unlabelled"
    }
    for split in ("train", "validation", "test"):
        if not splits[split]:
            needs = (
                "it needs two works or more (by composer and composition) in "
                "train_labels/: add some, or mark them: "
                f"`split` = `validation` in {METADATA_FILE}"
                if split == "validation" and splits["train"]
                else "expected a dataset in MusicNet's layout with labels in "
                "train_labels/ and test_labels/"
            )
            raise InputError(
                f"no labelled recording of at least {WINDOW / FRAME_RATE} s in the "
                f"{split} split; {needs}"
            )
    return splits


def _can_label(recordings, lengths, index):
    """Return whether a recording has labels and is as long as a window."""
    return recordings[index].labels is not None and lengths[index] >= WINDOW * HOP


def _work(recording):
    """Return the key of what must be in one split only: a tune, work or file."""
    row = recording.metadata
    work = row.get("composer"), row.get("composition") or recording.id
    return row.get("tune_family") or work


def _hold_out(recordings, train, columns):
    """Select works for validation; training keeps every class of some columns."""
    works, ensembles, counts = {}, {}, Counter()
    for index in train:
        row = recordings[index].metadata
        work = _work(recordings[index])
        classes = [(column, row[column]) for column in columns if row.get(column)]
        works.setdefault(work, Counter()).update(classes)
        ensemble = row.get("ensemble") if "ensemble" in columns else None
        ensembles.setdefault(ensemble, {})[work] = None
        counts.update(classes)
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
