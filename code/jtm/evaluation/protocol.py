"""
The judge: representations compared by linear probes on frozen features.

Probes learn from the labels of a share of the training windows, and look at no
more than :data:`TRAIN_FRAMES` frames or :data:`TRAIN_WINDOWS` windows of these,
spread evenly, since neighbouring frames say nearly the same.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jtm.constants import FRAME_RATE
from jtm.data import targets
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.data.targets import WINDOW
from jtm.evaluation import probes
from jtm.evaluation.features import REPRESENTATIONS, Features
from jtm.evaluation.tasks import Labelled, cut, score_frames, score_windows
from jtm.files import InputError, digest
from jtm.results import records
from jtm.results.records import Record
from jtm.training.checkpoints import build_model, load_model

TRAIN_FRAMES = 20_000
"""Most frames that a frame probe learns from."""

VALIDATION_FRAMES = 5_000
"""Most frames that a frame probe's penalty is chosen on."""

TRAIN_WINDOWS = 4_000
"""Most windows that a window probe learns from."""


def judge(
    checkpoint,
    dataset_root,
    tasks=("multipitch", "ensemble"),
    representations=REPRESENTATIONS,
    out="logs/judge/records.jsonl",
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
    dataset_root : str or Path
        A dataset with labels.
    tasks : sequence of str
        Any of 'multipitch' and 'ensemble'.
    representations : sequence of str
        Any of :data:`jtm.evaluation.features.REPRESENTATIONS`.
    out : str or Path
        Results file that the records are added to; features are kept in the
        folder ``features`` beside it.
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
    list of Record
        One for each task, representation, split and metric.

    Raises
    ------
    InputError
        If the checkpoint or the dataset is not fit for it.
    """
    model, config = load_model(checkpoint)
    store = build_store(open_dataset(dataset_root), progress=progress)
    labelled = {task: Labelled.of(store, task) for task in tasks}
    for split in splits:
        if not all(each.splits[split] for each in labelled.values()):
            raise InputError(f"{dataset_root}: no labelled recording in split {split}")
    # The same network, untrained; another seed, lest it be the very start
    # that training left from.
    random = build_model(replace(config, random_seed=config.random_seed + 1))
    features = Features(
        store, Path(out).parent / "features", {"cpc": model, "random": random}
    )
    indices = {
        index
        for each in labelled.values()
        for split in ("train", "validation", *splits)
        for index in each.splits[split]
    }
    features.compute(representations, sorted(indices), progress)
    common = {
        "probe": "linear",
        "fraction": fraction,
        "seed": seed,
        "revision": records.revision(),
    }
    settings = {
        "data": Path(dataset_root).name,
        "checkpoint": digest(checkpoint),
        "train_frames": TRAIN_FRAMES,
        "train_windows": TRAIN_WINDOWS,
    }
    made = []
    cells = [(task, name) for task in tasks for name in representations]
    for task, name in tqdm(cells, desc="Probing", unit="probe", disable=not progress):
        start = time.monotonic()
        fit, score = _PROBES[task]
        windows = labelled[task].windows("train", fraction, seed)
        answer, chosen = fit(labelled[task], windows, partial(features.rows, name))
        scores = {split: score(labelled[task], split, answer) for split in splits}
        common |= {
            "task": task,
            "representation": name,
            "labelled": len(windows) * WINDOW / FRAME_RATE,
            "seconds": round(time.monotonic() - start, 2),
            "config": settings | chosen,
        }
        cell = [
            Record(split=split, **fields, **common)
            for split, found in scores.items()
            for fields in found
        ]
        records.append(out, cell)
        made += cell
    if progress:
        for split in splits:
            print(f"\nScores on {split}, with 95 % intervals over recordings:\n")
            print(records.table(made, split))
    return made


def _fit_frames(labelled, windows, read):
    """Fit a frame probe; give what answers for a recording, and what was chosen."""
    samples = []
    for of_split, limit in (
        (windows, TRAIN_FRAMES),
        (labelled.windows("validation"), VALIDATION_FRAMES),
    ):
        rows = targets.spread_frames(of_split, limit)
        x, y = [], []
        for index in np.unique(rows[:, 0]):
            frames = rows[rows[:, 0] == index, 1]
            x.append(read(index, frames))
            y.append(labelled.roll(index)[frames])
        samples.append((np.concatenate(x), np.concatenate(y)))
    predict, chosen = probes.fit_frames(*samples)
    return lambda index: predict(read(index)), chosen


def _fit_windows(labelled, windows, read):
    """Fit a window probe; give what answers for a recording, and what was chosen."""
    samples = []
    for of_split in (windows[:TRAIN_WINDOWS], labelled.windows("validation")):
        x = [probes.pool(read(i, slice(t, t + WINDOW))) for i, t in of_split]
        samples.append((np.stack(x), labelled.classes_of(of_split[:, 0])))
    predict, chosen = probes.fit_windows(*samples)

    def answer(index):
        whole = cut(read(index))
        return predict(np.stack([probes.pool(frames) for frames in whole]))

    return answer, chosen


_PROBES = {
    "multipitch": (_fit_frames, score_frames),
    "ensemble": (_fit_windows, score_windows),
}
"""How a probe of each task is fitted and scored."""
