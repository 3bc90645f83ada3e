"""
The benchmark: the gain from unlabelled audio, method by method.

A run trains one network, with heads for the tasks of a family, on the labels of a given
number of whole recordings. It is scored on validation, on held-out works, on the same
works through an unseen SoundFont, and on real recordings. Methods differ in the initial
weights, in whether the body is frozen, and in the use of unlabelled audio; heads,
training loop, augmentation and number of steps are the same for all. Validation selects
the learning rates of each method (for few labels and for many of each family, on the
first seed; self-training takes its teacher's), the best epoch, and thresholds. The seed
determines the labels, the initial weights and the order of training; test is scored
once.

Each run has its own file (:func:`jtm.results.records.save_cell`), so several processes
may work in parallel, and finished runs are not repeated. If a run needs learning rates
or a teacher from another run, that run is executed first, or waited for.
"""

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from jtm.constants import FRAME_RATE, HOP, MAP_STRIDE
from jtm.cpc.config import PretrainConfig
from jtm.cpc.run import build_criterion
from jtm.data.musicnet import Dataset, open_dataset
from jtm.data.store import build_store
from jtm.evaluation.baselines import HAND_MADE, MARGIN, fingerprint
from jtm.evaluation.families import Family, unlabelled_spans
from jtm.evaluation.labelled import SECONDS, clip_store, labelled_recordings, note_cache
from jtm.evaluation.labelled import Labelled as Recordings
from jtm.evaluation.tasks import CLIP, TASKS
from jtm.files import (
    BusyError,
    InputError,
    atomic,
    digest,
    locked,
    read_json,
    write_json,
)
from jtm.models.heads import add_heads
from jtm.models.network import build_model
from jtm.results import records
from jtm.results.records import SPLITS, TESTS, Contrast
from jtm.training.checkpoints import load_model
from jtm.training.config import make_config
from jtm.training.loop import Plan, fit
from jtm.training.processes import best_device
from jtm.training.spectra import FrontEnd, harmonic_front_end

AMOUNTS = {1: 5, 3: 5, 10: 3, 30: 3, 0: 3}
"""Number of seeds by number of labelled recordings, 0 for all."""

FEWEST = {"transcription": 1}  # else 10
"""Minimum number of labelled recordings of a task; 10 for all tasks not listed."""

FAMILIES = {
    "frames": ("transcription", "instrument_activity", "who_plays_what"),
    "windows": ("ensemble", "composer"),
    "clips": ("note_instrument",),
}
"""Tasks that share a network, by the unit that is labelled."""

STEPS = {1: 1200, 3: 1600, 10: 2400, 30: 3200, 0: 4000}
"""Optimiser steps by labelled recordings; validation hardly improves with more."""

EPOCHS = 4
"""Number of evenly spaced validation steps in a run; the best weights are retained."""

SHARES = {"frames": 1.0, "windows": 0.25, "clips": 0.5}
"""Fraction of :data:`STEPS` that a family is trained for."""

RATES = {
    "random": ((4e-3, 4e-3), (2e-3, 2e-3)),
    "cpc": ((4e-3, 4e-3), (1e-3, 4e-3)),
}
"""Candidate learning rates of body and heads, by initial weights."""

RATES_AT = {1: 3, 3: 3, 10: 10, 30: 10, 0: 10}
"""Labelled recordings at which learning rates are chosen, by those of the run."""

HEAD_RATES = ((0.0, 4e-3), (0.0, 1e-3))
"""Candidates for a frozen body or fixed features, as many as in :data:`RATES`."""

SILENCE = FrontEnd(lambda wave: np.zeros((len(wave) // HOP, 1), np.float32), 0, "none")
"""Front end of the largest-class baseline: all zeros."""


class _Method(NamedTuple):
    """Initialisation and training of a network."""

    start: str  # initial weights: cpc or random; or features: of HAND_MADE, or largest
    frozen: bool = False  # whether to train the heads alone
    # Audio to train on without its labels too: "all", or that of the "labelled"
    # recordings. On the labels of a teacher, or, if there is none, by InfoNCE with the
    # default settings.
    unlabelled: str = ""
    teacher: str = ""  # for self-training: the method that trained the teacher
    is_trial: bool = False  # whether it runs only if it is selected by name


METHODS = {
    "scratch": _Method("random"),
    "cpc-finetuned": _Method("cpc"),
    "cpc-joint": _Method("cpc", unlabelled="all", is_trial=True),
    "scratch-distilled": _Method(
        "random", unlabelled="labelled", teacher="scratch", is_trial=True
    ),
    "cpc-frozen": _Method("cpc", frozen=True),
    "untrained-frozen": _Method("random", frozen=True),
    "scratch-selftrained": _Method("random", unlabelled="all", teacher="scratch"),
    "cpc-selftrained": _Method("cpc", unlabelled="all", teacher="cpc-finetuned"),
    "logmel": _Method("logmel", frozen=True),
    "cqt": _Method("cqt", frozen=True),
    "largest": _Method("largest", frozen=True),
}
"""Methods by name, the simplest first."""

CONTRASTS = tuple(
    Contrast(task, method, other, amount, split)
    for method, other in (
        ("cpc-finetuned", "scratch"),
        ("cpc-selftrained", "scratch-selftrained"),
        ("cpc-frozen", "untrained-frozen"),
    )
    for task, amounts in (
        ("transcription", (1, 3, 10)),
        ("who_plays_what", (10, 30)),
        ("instrument_activity", (10, 30)),
    )
    for amount in amounts
    for split in TESTS
)
"""Comparisons planned before any run; all others are descriptive."""

BATCHES = {"frames": 4, "windows": 16, "clips": 4}
"""
Number of labelled windows in a batch; some methods add as many unlabelled windows.

One class per window is a weak target: with four windows the network collapsed.
"""


@dataclass(frozen=True)
class _Run:
    """The training of one network."""

    family: str  # one of FAMILIES
    method: str  # one of METHODS
    amount: int  # number of labelled recordings; 0 for all
    seed: int  # random seed

    @property
    def name(self):
        """Name of the run's file."""
        return f"{self.family}-{self.method}-{self.amount}-{self.seed}"


def _plan(only):
    """List the runs with `only` some values of fields; students follow teachers."""
    runs = [
        _Run(family, method, amount, seed)
        for seed in range(max(AMOUNTS.values()))
        for amount in AMOUNTS
        for family in FAMILIES
        for method in METHODS
        if seed < AMOUNTS[amount]
        and any(_has_enough(task, amount) for task in FAMILIES[family])
        and (family == "frames" or not METHODS[method].unlabelled)
        and (not METHODS[method].is_trial or method in only.get("method", ()))
    ]
    return [run for run in runs if all(getattr(run, f) in only[f] for f in only)]


def _has_enough(task, amount):
    """Return whether a task is trained with an amount of labels, 0 for all."""
    return not amount or amount >= FEWEST.get(task, 10)


def _select_tasks(family, amount):
    """Return the tasks of a family that are trained with an amount of labels."""
    return {t: each for t, each in family.labelled.items() if _has_enough(t, amount)}


def _is_teacher(run):
    """Return whether a run's network is a teacher of some method."""
    return any(method.teacher == run.method for method in METHODS.values())


CHOICES = {
    "family": tuple(FAMILIES),
    "method": tuple(METHODS),
    "amount": tuple(AMOUNTS),
    "seed": tuple(range(max(AMOUNTS.values()))),
}
"""Values of each field of a run that ``--only`` accepts."""


class Benchmark:
    """
    The comparison of methods on a dataset, with a pretrained network.

    Parameters
    ----------
    data : str or Path
        Path to a dataset with labels.
    checkpoint : str or Path
        Path to the pretrained network, of ``--encoderType pitchmap``.
    out : str or Path
        Folder of the records: one file per run in ``cells``, compiled into
        ``benchmark.csv.gz`` and ``benchmark_draws.npz``; and ``rates`` and
        ``teachers``, which other runs use.
    work : str or Path
        Folder for cached log magnitudes, which can be recomputed.
    progress : bool
        Whether to show progress bars.
    splits : sequence of str
        Splits to score, of :data:`jtm.results.records.SPLITS`.
    real : str or Path, optional
        Folder of real recordings, each with its notes in MusicNet's columns next to it
        (``NAME.flac``, ``NAME.csv``): a split that is only scored.
    spread : bool
        Whether to spread the labels, with the same total duration, over training
        windows of all recordings. Single notes are drawn from all in any case.

    Raises
    ------
    InputError
        If the checkpoint, the dataset or `real` is unsuitable.
    """

    def __init__(
        self,
        data,
        checkpoint,
        out,
        work="logs/benchmark",
        progress=True,
        splits=tuple(SPLITS),
        real=None,
        spread=False,
    ):
        self.out, self.work = Path(out), Path(work)
        self.splits, self.spread, self.progress = splits, spread, progress
        self.model, self.config = load_model(checkpoint)
        if self.config.encoder_type != "pitchmap" or self.config.use_sinc_net:
            raise InputError(
                f"{checkpoint}: expected a network of --encoderType pitchmap without "
                "--useSincNet"
            )
        self.store = build_store(open_dataset(data), progress=progress)
        self.data, self.checkpoint = self.store.fingerprint, digest(checkpoint)
        self.front_ends = {
            "network": harmonic_front_end(self.model.encoder),
            "largest": SILENCE,
        } | {name: _hand_crafted(name) for name in HAND_MADE}
        self.families = {}
        notes = note_cache(self.store)
        for name, tasks in FAMILIES.items():
            labelled = {}
            for task in tasks:
                try:
                    store = self.store
                    if TASKS[task].unit == "clips":
                        store = clip_store(data, progress)
                    labelled[task] = Recordings.of(store, task, notes)
                except InputError as error:
                    print(f"{task} is skipped: {error}")
            self._add_families(name, labelled)
            if name == "frames" and labelled and real:
                own = _real_recordings(real, labelled, progress)
                self._add_families("real", own)
        if not self.families:
            raise InputError(f"{data}: has no labels of any task of the benchmark")

    def _add_families(self, name, labelled):
        """Build the families of some recordings, one for each front end."""
        for key, front_end in self.front_ends.items() if labelled else ():
            family = Family(labelled, MAP_STRIDE if key == "network" else 1)
            family.read = family.reader(front_end, self.work)
            self.families[name, key] = family

    def family(self, run):
        """Return the family of a run, with the inputs of its front end."""
        return self.families[run.family, self._front_end(run)]

    def _front_end(self, run):
        """Return the name of a run's front end."""
        start = METHODS[run.method].start
        return start if start in self.front_ends else "network"

    def plan(self, only=None):
        """
        List the runs, see :func:`_plan`, that the dataset has labels for.

        Amounts of labels that reach the whole dataset are left to the runs with all.
        """
        runs = [r for r in _plan(only or {}) if (r.family, "network") in self.families]
        return [r for r in runs if r.amount < self.amount(replace(r, amount=0))]

    def run(self, only=None):
        """
        Execute all runs, or those selected, that have not run yet; see :meth:`plan`.

        Raise InputError if `only` selects no run, or if `out` holds the results of
        another dataset or checkpoint.
        """
        out = self.out
        cells = [
            (task, run.method, self.amount(run), run.seed)
            for run in self.plan()
            for task in _select_tasks(self.family(run), run.amount)
        ]
        records.begin(out, self.data, self.checkpoint, cells, CONTRASTS, self.spread)
        runs = self.plan(only)
        if not runs:
            raise InputError("--only selects no run; see jtm benchmark --help")
        self._check_real()
        pending = [run for run in runs if not records.cell_path(out, run.name).exists()]
        bar = tqdm(pending, "Benchmark", unit="run", disable=not self.progress)
        busy = []
        for run in bar:
            bar.set_postfix_str(run.name)
            try:
                self.ensure(run, busy="another process is executing it")
            except BusyError:
                busy.append(run)
                continue
            records.compile_cells(out)
        for run in busy:  # in case the other process was killed
            self.ensure(run)
        records.compile_cells(out)

    def _check_real(self):
        """Record the real recordings; refuse results on other ones, or on none."""
        path, real = self.out / "real.json", self.families.get(("real", "network"))
        given = real and {"sha256": real.store.fingerprint}
        if path.exists() and not given:
            raise InputError(
                f"{self.out}: holds scores on real recordings; give the same "
                "--real, or choose another --out"
            )
        if path.exists() and read_json(path) != given:
            raise InputError(
                f"{self.out}: holds scores on other real recordings than --real "
                "has; choose another --out"
            )
        if path.exists() or not given:
            return
        records.compile_cells(self.out)  # recordings of an earlier version are unknown
        table = records.read(self.out / records.TABLE)
        table = table[table["task"].isin(FAMILIES["frames"])]
        scored = table["split"].eq("real").groupby([table[n] for n in records.CELL])
        if not scored.any().all():
            raise InputError(
                f"{self.out}: holds scores without --real, which are not repeated; "
                "choose another --out"
            )
        write_json(path, given)

    def ensure(self, run, busy=""):
        """
        Execute a run unless it has finished.

        If another process is executing it, wait, or raise BusyError if `busy` is given,
        which is its message.
        """
        files = [records.cell_path(self.out, run.name)]
        files += [self._rates_path(run)] if self._rater(run) == run else []
        files += [self._teacher_path(run)] if _is_teacher(run) else []
        # The lock ends with its process, so the run of a killed process is repeated.
        with locked(self.out / "claims" / f"{run.name}.lock", busy):
            if not all(file.exists() for file in files):
                self.execute(run)

    def execute(self, run):
        """
        Train a network, predict, score and save the scores.

        Runs that provide its learning rates or teacher are executed or waited for.
        """
        rater, teacher = self._rater(run), METHODS[run.method].teacher
        if rater != run and not self._rates_path(rater).exists():
            self.ensure(rater)
        teacher = teacher and replace(run, method=teacher)
        if teacher and not self._teacher_path(teacher).exists():
            self.ensure(teacher)
        start = time.monotonic()
        family = self.family(run)
        tasks = _select_tasks(family, run.amount)
        network = self._best(run, family, tasks)
        families = dict.fromkeys(self.splits, family)
        if run.family == "frames":
            families["real"] = self.families.get(("real", self._front_end(run)), family)
        rows = []
        for task, split, _, scores in family.evaluate(network, tasks, families):
            for score in scores:
                row = {"task": task, "method": run.method, "seed": run.seed}
                row |= {"labelled_recordings": self.amount(run), "split": split}
                row |= {n: score[n] for n in ("metric", "value", "primary")}
                # One family or recording has no resamples.
                primary = score["primary"] and split != "validation"
                if primary and len(score["draws"]):
                    row["draws"] = score["draws"]
                rows.append(row)
        seconds = round(time.monotonic() - start, 1)
        rows = [row | {"seconds": seconds} for row in rows]
        records.save_cell(self.out, run.name, rows)

    def amount(self, run):
        """
        Count the labelled recordings of a run.

        All clips of single notes count as recordings of the same total duration.
        """
        family = self.family(run)
        n = len(family.spans("train"))
        if family.name == "clips":
            n = round(n * CLIP / (SECONDS * FRAME_RATE))
        return run.amount or n

    def _best(self, run, family, tasks):
        """
        Train a network with the rates that :meth:`_rater` selected.

        If that is this run, try each pair; the best on validation is returned.
        """
        method, rater = METHODS[run.method], self._rater(run)
        pairs = HEAD_RATES if method.frozen else RATES[method.start]
        if rater != run:
            pairs = [tuple(read_json(self._rates_path(rater))["rates"])]
        modules = {pair: self._train(run, family, tasks, pair) for pair in pairs}
        best = max(pairs, key=lambda p: max(row["score"] for row in modules[p].history))
        if rater == run:
            write_json(self._rates_path(run), {"rates": best})
        network = modules[best].network.eval()
        if _is_teacher(run):
            with atomic(self._teacher_path(run)) as part:
                save_file(network.state_dict(), part)
        return network.to(best_device())

    def _rater(self, run):
        """Return the run that selects a run's learning rates, or its teacher's."""
        amount = RATES_AT[run.amount]
        if amount >= self.amount(replace(run, amount=0)):
            amount = run.amount
        method = METHODS[run.method].teacher or run.method
        return replace(run, method=method, amount=amount, seed=0)

    def _rates_path(self, run):
        """Return the path to the learning rates that a run selected."""
        return self.out / "rates" / f"{run.name}.json"

    def _teacher_path(self, run):
        """Return the path to the weights of a teacher."""
        return self.out / "teachers" / f"{run.name}.safetensors"

    def labelled_spans(self, run):
        """Return the labelled spans of a run: index, first frame, last frame + 1."""
        family = self.family(run)
        # Tasks that share a network use the labels drawn for a task on instruments.
        tasks = _select_tasks(family, run.amount).values()
        labelled = max(tasks, key=lambda labelled: labelled.task.instruments)
        drawn = labelled_recordings(labelled, run.amount, run.seed)
        if self.spread and run.amount and family.name != "clips":
            n_windows = (drawn[:, 2] - drawn[:, 1]).sum() // family.window
            return _spread(labelled, n_windows, family.window, run.seed)
        return list(map(tuple, drawn.tolist()))

    def network(self, run, tasks):
        """Build the network of a run before training, with heads for some tasks."""
        start = METHODS[run.method].start
        if start in self.front_ends:
            silence = np.zeros(HOP, np.float32)
            model = self.front_ends[start].analyse(silence).shape[1]
        else:
            model = build_model(replace(self.config, random_seed=run.seed))
        if start == "cpc":
            model.load_state_dict(self.model.state_dict())
        heads = {task: labelled.head for task, labelled in tasks.items()}
        return add_heads(model, heads, run.seed)

    def _train(self, run, family, tasks, rates):
        """Train the network of a run with given learning rates."""
        method, n_labelled = METHODS[run.method], BATCHES[run.family]
        n_steps = round(STEPS[run.amount] * SHARES[run.family])
        spans, batches = self.labelled_spans(run), {"batch_size": n_labelled}
        chosen = {}
        if method.unlabelled:
            batches["unlabelled"] = list(spans)
            if method.unlabelled == "all":  # that of the labelled recordings twice
                batches["unlabelled"] += family.spans("train")
                batches["unlabelled"] += unlabelled_spans(self.store)
            batches |= {"batch_size": 2 * n_labelled, "n_unlabelled": n_labelled}
        if method.teacher:
            teacher = replace(run, method=method.teacher)
            chosen["teacher"] = self.network(teacher, tasks)
            chosen["teacher"].load_state_dict(load_file(self._teacher_path(teacher)))
        elif method.unlabelled:
            # Settings of the network that the CPC criterion depends on.
            names = "encoder_type hidden_encoder hidden_gar ar_mode gar_mode".split()
            sizes = {name: getattr(self.config, name) for name in names}
            sizes["random_seed"] = run.seed
            pretraining = make_config(PretrainConfig, "small", sizes)
            chosen["contrast"] = build_criterion(pretraining, self.model)
        module = family.module(
            self.network(run, tasks),
            Plan(EPOCHS, run.seed, precision="bf16", gradient_clip=1.0),
            spans,
            max(1, n_steps // EPOCHS),
            rates,
            batches,
            **chosen,
        )
        fit(module, progress=False)
        return module


def _hand_crafted(name):
    """Build a baseline's front end, scaled as the network's, for the augmentation."""

    def analyse(wave):
        x = HAND_MADE[name](wave)
        return np.log1p(1e5 * np.exp(2 * x)) / 18 if name == "logmel" else x

    return FrontEnd(analyse, MARGIN, f"{name}-{fingerprint(name)}")


def _spread(labelled, n_windows, size, seed):
    """Draw labelled windows from all training recordings in turn."""
    rng, queues = np.random.default_rng(seed), []
    for index in rng.permutation(labelled.splits["train"]).tolist():
        firsts = range(0, labelled.length("train", index) - size + 1, size)
        queues.append([(index, a, a + size) for a in rng.permutation(firsts).tolist()])
    turns = itertools.chain(*itertools.zip_longest(*queues))
    return [span for span in turns if span][:n_windows]


def _real_recordings(folder, labelled, progress):
    """Open real recordings as the split ``real`` of tasks of frames or notes."""
    recordings = [
        replace(recording, labels=recording.audio.with_suffix(".csv"), split="real")
        for recording in open_dataset(folder).recordings
    ]
    for recording in recordings:
        if not recording.labels.exists():
            raise InputError(
                f"{recording.labels}: no such file; expected the notes of "
                f"{recording.audio.name} in MusicNet's columns"
            )
    dataset = Dataset(Path(folder), tuple(recordings))
    store = build_store(dataset, None, progress, "real")
    fields = {"store": store, "splits": {"real": list(range(len(recordings)))}}
    fields |= {"groups": dict(enumerate(recording.id for recording in recordings))}
    fields |= {"lengths": {}, "names": {}, "notes": note_cache(store)}
    return {task: replace(each, **fields) for task, each in labelled.items()}
