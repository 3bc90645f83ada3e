"""
Linear probes on frozen features, side by side.

The labels of a share of the training windows are seen; validation chooses the penalty
of each probe, and thresholds; test, and test through another SoundFont, are scored
once, after. Probes see no more labelled frames and windows than
:mod:`jtm.evaluation.probes` says. Slow features are found in all windows of the
training recordings, none of them labelled.
"""

import contextlib
import functools
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from jtm.constants import HOP
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation import probes
from jtm.evaluation.features import REPRESENTATIONS, SLOW_OF, Features, FrameSelection
from jtm.evaluation.labelled import Labelled, clip_store, reader
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError, atomic, digest, locked
from jtm.results import tables
from jtm.results.records import latest, revision
from jtm.training.checkpoints import build_model, load_model


class Prober:
    """
    A dataset, a network, and the features of both that are probed.

    Parameters
    ----------
    data : str or Path
        A dataset with labels.
    checkpoint : str or Path
        The pretrained network.
    folder : str or Path
        Where features are kept.
    tasks : sequence of str
        Tasks.
    splits : sequence of str
        Where to score.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If the checkpoint or the dataset is not fit for it.
    """

    def __init__(self, data, checkpoint, folder, tasks, splits, progress=True):
        self.progress = progress
        self.splits = splits
        self.model, config = load_model(checkpoint)
        # The same network, untrained; another seed, lest it be the very start
        # that training left from.
        untrained = build_model(replace(config, random_seed=config.random_seed + 1))
        models = {"cpc": self.model, "random": untrained}
        self.features = Features(Path(folder) / "features", models)
        self.store = build_store(open_dataset(data), progress=progress)
        self.settings = {
            "data": self.store.fingerprint,
            "checkpoint": digest(checkpoint),
        }
        clips = any(TASKS[task].unit == "clips" for task in tasks)
        self.clips = clip_store(data, progress) if clips else None
        notes = reader(self.store)
        self.labelled = {}
        for task in tasks:
            store = self.clips if TASKS[task].unit == "clips" else self.store
            self.labelled[task] = Labelled.of(store, task, notes)
        for split, each in itertools.product(splits, self.labelled.values()):
            if not each.splits[split]:
                raise InputError(f"{data}: no labelled recording in split {split}")

    def prepare(self, representations):
        """
        Compute the features that probes read.

        Parameters
        ----------
        representations : sequence of str
            Any of :data:`jtm.evaluation.features.REPRESENTATIONS`.
        """
        of_hop = {}
        for name in representations:
            of_hop.setdefault(self.features.hop(name), []).append(name)
        for hop, names in of_hop.items():
            slow = [name for name in names if name in SLOW_OF]
            heard = self._heard(hop) if slow else {}
            selected = {index: [each] for index, each in heard.items()}
            self.features.compute(self.store, slow, selected, self.progress)
            for name in slow:
                self.features.fit_slow(name, self.store, heard)
            for store in (self.store, self.clips):
                wanted = {}
                for each in self.labelled.values():
                    used = {"train", "validation", *self.splits}
                    for split in sorted(used) if each.store is store else ():
                        for index in each.splits[split]:
                            found = each.at(hop).selections(split, index)
                            wanted.setdefault(index, []).extend(found)
                self.features.compute(store, names, wanted, self.progress)

    def _heard(self, hop):
        """Select all windows of the training recordings, but not of validation."""
        held_out = set()
        with contextlib.suppress(InputError):  # too few are labelled to split
            splits = labelled_splits(self.store.recordings, self.store.lengths)
            held_out.update(splits["validation"])
        return {
            index: FrameSelection(0, int(length) // hop, WINDOW * HOP // hop)
            for index, length in enumerate(self.store.lengths)
            if self.store.recordings[index].split == "train" and index not in held_out
        }

    def probe(self, task, representation, fraction=1.0, seed=0):
        """
        Fit and score a probe.

        Parameters
        ----------
        task, representation : str
            What is read, of what.
        fraction : float
            Share of the labelled training windows whose labels are seen.
        seed : int
            Draws the share.

        Returns
        -------
        list of dict
            The scores, as :func:`jtm.results.records.read_scores` reads them.
        """
        start = time.monotonic()
        labelled = self.labelled[task].at(self.features.hop(representation))
        units = labelled.subset(fraction, seed)
        train, validation = (
            probes.samples(self.features, labelled, split, representation, of_split)
            for split, of_split in (
                ("train", units),
                ("validation", labelled.units("validation")),
            )
        )
        predict, chosen = probes.fit(train, validation, labelled.shape)
        read = functools.partial(self.features.rows, representation, labelled.store)
        answers = {
            split: [
                predict(read(index, labelled.selections(split, index)[-1]))
                for index in labelled.splits[split]
            ]
            for split in {"validation", *self.splits}
        }
        thresholds = labelled.task.choose(labelled, answers["validation"])
        common = {
            "task": task,
            "representation": representation,
            "probe": "linear",
            "fraction": fraction,
            "labelled": labelled.seconds(units),
            "seed": seed,
            "seconds": round(time.monotonic() - start, 2),
            "revision": revision(),
            "config": self.settings | chosen | thresholds,
        }
        return [
            common | {"split": split} | scores
            for split in self.splits
            for scores in labelled.task.score(
                labelled, split, answers[split], thresholds
            )[0]
        ]


def probe_features(
    checkpoint,
    data,
    tasks=("multipitch", "ensemble"),
    representations=REPRESENTATIONS,
    out="logs/probes/records.jsonl",
    fraction=1.0,
    seed=0,
    splits=("test",),
    progress=True,
):
    """
    Compare representations by linear probes on frozen features.

    Parameters
    ----------
    checkpoint : str or Path
        The pretrained network.
    data : str or Path
        A dataset with labels.
    tasks : sequence of str
        Any of :data:`jtm.evaluation.tasks.TASKS`.
    representations : sequence of str
        Any of :data:`jtm.evaluation.features.REPRESENTATIONS`.
    out : str or Path
        JSON lines that the scores are added to; features are kept in the folder
        ``features`` beside it.
    fraction : float
        Share of the labelled training windows whose labels are seen.
    seed : int
        Draws the share.
    splits : sequence of str
        Where to score: 'test', 'test_timbre', or 'validation' while choosing
        between recipes, so that test stays untouched.
    progress : bool
        Show progress bars and print the table.

    Returns
    -------
    pandas.DataFrame
        A row for each task, representation, split and metric; see
        :func:`jtm.results.records.read_scores`.

    Raises
    ------
    InputError
        If the checkpoint or the dataset is not fit for it.
    """
    prober = Prober(data, checkpoint, Path(out).parent, tasks, splits, progress)
    prober.prepare(representations)
    pairs = [
        (task, name)
        for task, name in itertools.product(tasks, representations)
        # Slow features are of windows, and tell no pitch.
        if name not in SLOW_OF
        or (TASKS[task].family != "frames" and not TASKS[task].pitched)
    ]
    made = []
    for task, name in tqdm(pairs, desc="Probing", unit="probe", disable=not progress):
        scores = prober.probe(task, name, fraction, seed)
        _append(out, scores)
        made += scores
    made = latest(made)
    if progress:
        for split in splits:
            print(f"\nScores on {split}, with 95 % intervals over recordings:\n")
            print(tables.write(tables.run_scores(made, split)))
    return made


def _append(path, scores):
    """Add scores to a file as JSON lines, all of them or none."""
    path = Path(path)
    lines = "".join(json.dumps(score, allow_nan=False) + "\n" for score in scores)
    with locked(path.with_name(f".{path.name}.lock")):  # or another's would be lost
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        with atomic(path) as part:
            part.write_text(before + lines, encoding="utf-8")
