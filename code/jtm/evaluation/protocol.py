"""
The judge: representations and networks compared on tasks, cell by cell.

A cell is one task, representation, probe, label fraction and seed. The labels of
the fraction are seen in training; validation chooses the settings (penalty or
decay of a probe, learning rate of a network), once for each task, representation,
probe and fraction, on the first seed, and the other seeds keep them; it chooses
thresholds and when to stop in every cell. A network, which serves several tasks, has
one learning rate for all of them; its heads, where they are fitted as probes, are
chosen in every cell. Test, and test through another SoundFont, are scored once, after.

Probes see no more labelled frames and windows than :mod:`jtm.evaluation.probes` says.
Networks see all windows that are labelled. Slow features are found in all
windows of the training recordings, none of them labelled.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jtm.constants import HOP
from jtm.data.musicnet import open_dataset
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation import cells as records
from jtm.evaluation import networks, probes
from jtm.evaluation.cells import Record
from jtm.evaluation.features import REPRESENTATIONS, SLOW_OF, Features, FrameSelection
from jtm.evaluation.labelled import Labelled, clip_store, reader
from jtm.evaluation.networks import NETWORKS
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError, digest
from jtm.results import tables
from jtm.results.records import latest, revision
from jtm.training.checkpoints import build_model, load_model
from jtm.training.config import (
    NetworkConfig,
    RunConfig,
    make_config,
)

FRACTIONS = (0.1, 0.01, 1.0, 0.001, 0.003)
"""Label fractions of the grid, the most telling first."""

SEEDS = (0, 1, 2)
"""Seeds of the grid; settings are chosen on the first."""

LEADING = ("multipitch", "ensemble", "note_pitch")
"""Tasks whose cells come first."""

SPLITS = ("validation", "test", "test_timbre")
"""Where the grid is scored."""

CONFUSED = 30
"""Most classes whose confusion matrix is kept."""

NETWORK_COST = 30
"""Probes that take as long as one network, for the time left."""


class Cell(NamedTuple):
    """
    One cell of the grid.

    Parameters
    ----------
    task, representation, probe : str
        What is asked, of what, and by what.
    fraction : float
        Share of the training labels.
    seed : int
        Seed of the share and of training.
    """

    task: str
    representation: str
    probe: str
    fraction: float
    seed: int

    @classmethod
    def of(cls, record):
        """
        Give the cell that a score is of.

        Parameters
        ----------
        record : Record
            The score.

        Returns
        -------
        Cell
            The cell.
        """
        return cls(*(getattr(record, name) for name in cls._fields))


class Judge:
    """
    A dataset and what is judged on it.

    Parameters
    ----------
    data : str or Path
        A dataset with labels.
    checkpoint : str or Path or None
        The pretrained network; None leaves out what needs it.
    folder : str or Path
        Where features and unfinished runs are kept.
    wanted : sequence of str
        Tasks.
    named : collection of str
        Tasks to refuse if the dataset is not fit for them, instead of leaving them
        out with a word.
    splits : sequence of str
        Where to score; 'test_timbre' is passed over where there is none.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If the checkpoint or the dataset is not fit for it.
    """

    def __init__(
        self, data, checkpoint, folder, wanted, named=(), splits=SPLITS, progress=True
    ):
        self.folder = Path(folder)
        self.progress = progress
        self.data = Path(data).resolve().name
        self.origin = ""
        self.model = None
        self.config = make_config(NetworkConfig, "small", {})
        models = {}
        if checkpoint:
            self.model, self.config = load_model(checkpoint)
            self.origin = digest(checkpoint)
            models["cpc"] = self.model
        # The same network, untrained; another seed, lest it be the very start
        # that training left from.
        models["random"] = build_model(
            replace(self.config, random_seed=self.config.random_seed + 1)
        )
        self.features = Features(self.folder / "features", models)
        self.store = build_store(open_dataset(data), progress=progress)
        self.clips = None
        self.labelled = {}
        notes = reader(self.store)
        for task in wanted:
            try:
                store = self.store
                if TASKS[task].unit == "clips":
                    self.clips = self.clips or clip_store(data, progress)
                    store = self.clips
                self.labelled[task] = Labelled.of(store, task, notes)
            except InputError as error:
                if task in named:
                    raise
                print(f"{task} is left out: {error}")
        self.splits = [
            split
            for split in splits
            if split != "test_timbre"
            or any(each.splits[split] for each in self.labelled.values())
        ]
        self.answered = [*dict.fromkeys(("validation", *self.splits))]

    def settings(self, representation):
        """
        Tell what the scores of a representation depend on, beside the cell.

        Parameters
        ----------
        representation : str
            Its name.

        Returns
        -------
        dict of str to str
            The dataset; of what is pretrained the checkpoint's hash; of the same
            network without pretraining a hash of its settings.
        """
        found = {"data": self.data}
        if representation.startswith("cpc"):
            found["checkpoint"] = self.origin
        elif representation.startswith(("random", "supervised")):
            names = NetworkConfig.__dataclass_fields__.keys()
            names -= RunConfig.__dataclass_fields__.keys()
            if representation != "supervised":  # which draws weights by the cell
                names |= {"random_seed"}
            values = {name: getattr(self.config, name) for name in sorted(names)}
            text = json.dumps(values).encode()
            found["network"] = hashlib.sha256(text).hexdigest()
        return found

    def prepare(self, representations, wanted_tasks):
        """
        Compute the features that probes read.

        Parameters
        ----------
        representations : sequence of str
            Any of :data:`jtm.evaluation.features.REPRESENTATIONS`.
        wanted_tasks : sequence of str
            The tasks that they are for.
        """
        slow = [name for name in representations if name in SLOW_OF]
        if slow:
            # All windows of the training recordings, whatever their labels and the
            # tasks; not those that became validation where the dataset marks none.
            held_out = set()
            with contextlib.suppress(InputError):  # too few are labelled to split
                splits = labelled_splits(self.store.recordings, self.store.lengths)
                held_out.update(splits["validation"])
            heard = {
                index: FrameSelection(0, int(length) // HOP)
                for index, length in enumerate(self.store.lengths)
                if self.store.recordings[index].split == "train"
                and index not in held_out
            }
            takes = {index: [take] for index, take in heard.items()}
            self.features.compute(self.store, slow, takes, self.progress)
            for name in slow:
                self.features.fit_slow(name, self.store, heard)
        for store in (self.store, self.clips):
            wanted = {}
            for each in (self.labelled[task] for task in wanted_tasks):
                for split in ("train", *self.answered) if each.store is store else ():
                    for index in each.splits[split]:
                        found = each.selections(split, index)
                        wanted.setdefault(index, []).extend(found)
            self.features.compute(store, representations, wanted, self.progress)

    def probe(self, cell, chosen=None):
        """
        Fit and score a probe.

        Parameters
        ----------
        cell : Cell
            Which.
        chosen : dict, optional
            Settings chosen earlier; otherwise validation chooses them.

        Returns
        -------
        list of Record
            The scores.
        list of dict
            What stands beside them; see :func:`jtm.evaluation.cells.append_beside`.
        """
        start = time.monotonic()
        labelled = self.labelled[cell.task]
        units = labelled.subset(cell.fraction, cell.seed)
        read = functools.partial(probes.samples, self.features, labelled)
        train = read("train", cell.representation, units)
        held_out = labelled.units("validation")
        validation = read("validation", cell.representation, held_out)
        parts = self.features.pitch_parts(cell.representation)
        if labelled.task.family != "frames":
            parts = parts * 2  # means, then deviations
        shape, pitched = labelled.shape, labelled.task.pitched
        predict, chosen = probes.fit(
            cell.probe, train, validation, shape, parts, chosen, cell.seed, pitched
        )
        answers = {
            split: probes.answers(
                self.features, labelled, split, cell.representation, predict
            )
            for split in self.answered
        }
        return self.record(cell, answers, chosen, labelled.seconds(units), start)

    def network(self, cells, rates):
        """
        Train a network for the tasks of a family, and score it.

        Parameters
        ----------
        cells : list of Cell
            Cells that differ in their task alone, all of the family's that
            are wanted.
        rates : sequence of float
            Learning rates to choose from.

        Returns
        -------
        list of Record
            The scores of all cells.
        list of dict
            What stands beside them; see :func:`jtm.evaluation.cells.append_beside`.
        """
        start = time.monotonic()
        first = cells[0]
        kind = TASKS[first.task].family
        # Whatever is wanted, a network learns all tasks of its family, so that
        # a score does not depend on which others were asked for.
        family = networks.Family(
            {t: e for t, e in self.labelled.items() if TASKS[t].family == kind},
            first.fraction,
            first.seed,
        )
        tuned = first.representation == "cpc-finetuned"
        begun = networks.start(
            family, self.model if tuned else None, self.config, first.seed
        )
        # A run of other code, labels or weights is not taken up.
        about = [self.settings(first.representation), revision()]
        state = hashlib.sha256(json.dumps([*about, *family.labelled]).encode())
        state.update(family.windows.tobytes())
        state = state.hexdigest()[:8]
        runs = {}
        for rate in rates:
            plan = {"fraction": first.fraction, "seed": first.seed, "rate": rate}
            name = "-".join(map(str, (first.representation, kind, *plan.values())))
            folder = self.folder / "networks" / f"{name}-{state}"
            runs[rate] = networks.train(
                folder,
                family,
                begun,
                self.origin if tuned else "",
                self.config,
                plan,
            )
        best = max(runs, key=lambda rate: networks.best_look(runs[rate])[0])
        module = runs[best]
        settled = networks.settle(module, begun, family, first.seed)
        found = networks.answer(
            settled,
            {cell.task: self.labelled[cell.task] for cell in cells},
            self.answered,
        )
        made, beside = [], []
        for cell in cells:
            labelled = self.labelled[cell.task]
            answers = {split: found[cell.task, split] for split in self.answered}
            chosen = {
                "rate": best,
                "steps": settled[cell.task].step,
                "state": settled[cell.task].kind,
            }
            seconds = labelled.seconds(family.subsets[cell.task])
            curve = {
                name: [look[name] for look in module.curve]
                for name in ("step", "seconds")
            }
            curve["score"] = [round(k["score"][cell.task], 4) for k in module.curve]
            some, more = self.record(cell, answers, chosen, seconds, start, curve)
            made += some
            beside += more
        for module in runs.values():
            shutil.rmtree(module.plan.folder)
        return made, beside

    def record(self, cell, answers, chosen, labelled_seconds, start, curve=None):
        """
        Score the answers of a cell.

        Parameters
        ----------
        cell : Cell
            Which.
        answers : dict of str to list of numpy.ndarray
            By split; see :meth:`jtm.evaluation.tasks.Task.score`.
        chosen : dict
            What validation has chosen.
        labelled_seconds : float
            Length of what was labelled.
        start : float
            When the cell was begun, by :func:`time.monotonic`.
        curve : dict, optional
            How a network's score on validation developed.

        Returns
        -------
        list of Record
            The scores.
        list of dict
            What stands beside them.
        """
        labelled = self.labelled[cell.task]
        thresholds = labelled.task.choose(labelled, answers["validation"])
        scored = {
            split: labelled.task.score(labelled, split, answers[split], thresholds)
            for split in self.splits
            if labelled.splits[split]
        }
        config = self.settings(cell.representation) | chosen | thresholds
        common = cell._asdict() | {
            "labelled": labelled_seconds,
            "seconds": round(time.monotonic() - start, 2),
            "revision": revision(),
            "config": config,
        }
        made, beside = [], []
        for split, (scores, more) in scored.items():
            made += [Record(split=split, **fields, **common) for fields in scores]
            line = cell._asdict() | {"split": split}
            if split != "validation":
                draws = np.round(more["draws"][: records.DRAWS] * 1e4).astype(int)
                line["draws"] = draws.tolist()
                if labelled.classes and len(labelled.classes) <= CONFUSED:
                    line["confusion"] = more["confusion"].tolist()
                    line["classes"] = list(labelled.classes)
            elif curve:
                line["curve"] = curve
            if len(line) > len(cell) + 1:
                beside.append(line)
        return made, beside


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
        Any of :data:`jtm.evaluation.tasks.TASKS`.
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
    bench = Judge(
        dataset_root, checkpoint, Path(out).parent, tasks, tasks, splits, progress
    )
    for split in splits:
        if not all(each.splits[split] for each in bench.labelled.values()):
            raise InputError(f"{dataset_root}: no labelled recording in split {split}")
    bench.prepare(representations, tasks)
    made = []
    cells = [pair for pair in itertools.product(tasks, representations) if suits(*pair)]
    for task, name in tqdm(cells, desc="Probing", unit="probe", disable=not progress):
        scores, _ = bench.probe(Cell(task, name, "linear", fraction, seed))
        records.append(out, scores)
        made += scores
    if progress:
        for split in splits:
            print(f"\nScores on {split}, with 95 % intervals over recordings:\n")
            table = latest(made)
            print(tables.write(tables.run_scores(table, split)))
    return made


def choices():
    """
    Give what ``--only`` may name.

    Returns
    -------
    dict of str to tuple
        Values of each field of :class:`Cell`.
    """
    return {
        "task": tuple(TASKS),
        "representation": (*REPRESENTATIONS, *NETWORKS),
        "probe": (*probes.KINDS, "network"),
        "fraction": tuple(sorted(FRACTIONS)),
        "seed": SEEDS,
    }


def suits(task, representation):
    """
    Tell whether a task can be asked about a representation.

    Parameters
    ----------
    task, representation : str
        Which.

    Returns
    -------
    bool
        No for slow features where frames, or pitches, are asked about.
    """
    of_windows = TASKS[task].family != "frames" and not TASKS[task].pitched
    return of_windows or representation not in SLOW_OF


def plan(bench, only):
    """
    List the cells of the grid, the most telling first.

    Parameters
    ----------
    bench : Judge
        What there is to judge.
    only : dict of str to list
        Values that are wanted, by any field of :class:`Cell`.

    Returns
    -------
    list of list of Cell
        Jobs: one cell of a probe, or the cells of one network.
    """
    jobs = {}
    for task, fraction, seed in itertools.product(
        bench.labelled, only.get("fraction", FRACTIONS), only.get("seed", SEEDS)
    ):
        for name in (*REPRESENTATIONS, *NETWORKS):
            if name.startswith("cpc") and not bench.origin:
                continue
            if name in NETWORKS:
                kinds = ("network",)
            elif not suits(task, name):
                continue
            else:
                on_axis = bench.features.pitch_parts(name)
                kinds = probes.KINDS if on_axis else probes.KINDS[:2]
            for kind in kinds:
                cell = Cell(task, name, kind, fraction, seed)
                if all(
                    getattr(cell, field) in values for field, values in only.items()
                ):
                    of_job = TASKS[task].family if name in NETWORKS else task
                    jobs.setdefault((of_job, *cell[1:]), []).append(cell)
    fractions = {fraction: i for i, fraction in enumerate(FRACTIONS)}

    def order(job):
        first = job[0]
        leads = any(cell.task in LEADING for cell in job)
        late = fractions.get(first.fraction, len(fractions))
        return first.seed, late > 0 and not leads, not leads, late, first.fraction

    return sorted(jobs.values(), key=order)


def grid(
    data, checkpoint=None, out="grid.jsonl", only=None, work="logs/grid", progress=True
):
    """
    Run the cells of the grid that are not done yet.

    Parameters
    ----------
    data : str or Path
        A dataset with labels.
    checkpoint : str or Path, optional
        The pretrained network; without it what needs it is left out.
    out : str or Path
        Results file that the records are added to, cell by cell; draws,
        confusion matrices and curves go to the file beside it that
        :func:`jtm.evaluation.cells.beside` names.
    only : dict of str to list, optional
        Values that are wanted, by any field of :class:`Cell`.
    work : str or Path
        Where features and unfinished runs are kept.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If the checkpoint or the dataset is not fit for it; if `only` leaves nothing,
        or a later seed without the first, which chooses its settings; or if `out`
        holds results of another checkpoint or dataset.
    """
    only = only or {}
    named = only.get("task", TASKS)
    families = {TASKS[task].family for task in named}
    if not set(only.get("representation", NETWORKS)) & set(NETWORKS):
        families = ()
    bench = Judge(
        data,
        checkpoint,
        work,
        [task for task in TASKS if task in named or TASKS[task].family in families],
        only.get("task", ()),
        progress=progress,
    )
    if not bench.labelled:
        raise InputError(
            f"{data}: fit for no task, for the reasons above; expected a dataset with "
            "labels in MusicNet's layout"
        )
    jobs = plan(bench, only)
    if not jobs:
        raise InputError("--only leaves no cell; see jtm grid --help")
    done = records.read(out) if Path(out).exists() else []
    for record in done:
        for name, value in bench.settings(record.representation).items():
            if record.config.get(name, value) != value:
                raise InputError(
                    f"{out}: holds results of another {name} "
                    f"({record.config[name]}); choose another --out"
                )
    settings = {Cell.of(record): record.config for record in done}
    waiting = [
        [cell for cell in job if cell not in settings]
        for job in jobs
        if any(cell not in settings for cell in job)
    ]
    _check_first(waiting, settings, out)
    cells = [cell for job in waiting for cell in job if cell.probe != "network"]
    names = {cell.representation for cell in cells}
    bench.prepare(
        [name for name in REPRESENTATIONS if name in names],
        dict.fromkeys(cell.task for cell in cells),
    )
    whole, left = (sum(map(_cost, part)) for part in (jobs, waiting))
    bar = tqdm(
        total=whole,
        initial=whole - left,
        desc="Grid",
        unit="probe",
        disable=not progress,
        smoothing=0.05,
    )
    with bar:
        for job in waiting:
            first = job[0]
            bar.set_postfix_str(
                f"{first.task}, {first.representation}, {first.probe}, "
                f"{first.fraction:g}, seed {first.seed}"
            )
            made, more = _run(bench, job, settings)
            # Beside first: what stands in the results is done.
            records.append_beside(out, more)
            records.append(out, made)
            settings |= {Cell.of(record): record.config for record in made}
            bar.update(_cost(job))


def _cost(job):
    """Tell how long a job takes, in probes."""
    return NETWORK_COST if job[0].probe == "network" else 1


def _check_first(waiting, settings, out):
    """Refuse a later seed whose settings the first neither has chosen nor will."""
    there = {*settings, *itertools.chain.from_iterable(waiting)}
    for job in waiting:
        first = [cell._replace(seed=SEEDS[0]) for cell in job]
        if there.isdisjoint(first):
            named = ", ".join(f"{k}={v}" for k, v in first[0]._asdict().items())
            raise InputError(
                f"{out}: has no {named}, which chooses the settings that seed "
                f"{job[0].seed} keeps; run it first, with --only seed={SEEDS[0]}"
            )


def _run(bench, job, settings):
    """Run the cells of a job, by the settings that the first seed has chosen."""
    first = job[0]
    earlier = [
        settings[cell]
        for cell in (cell._replace(seed=SEEDS[0]) for cell in job)
        if cell in settings
    ]
    if first.probe == "network":
        rates = [earlier[0]["rate"]] if earlier else networks.RATES
        return bench.network(job, rates)
    return bench.probe(first, earlier[0] if earlier else None)
