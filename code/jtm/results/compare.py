"""
Comparison of methods: which is better, by how much, and with what certainty.

A score is the mean over seeds. Its 95 % interval covers the tune families of the test
and the seeds. Families are resampled where scores are computed, with the same draws for
all rows of a task and split. A seed determines the labels, the initial weights and the
training. There are too few seeds to resample: where they vary most, a bootstrap of
three would call a quarter of differences of zero significant, as three signs agree by
chance in one of four cases. Their error is drawn from Student's t distribution instead,
independently for each draw of families. Two methods are compared on the same families
and seeds, so that a piece that is hard for both favours neither.

With a single seed, the interval is over families alone. For contrasts named before the
run, two-sided p values are corrected by Holm's method over all named contrasts, run or
not.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from jtm.results import records
from jtm.results.records import CELL, METHODS, Contrast

ALPHA = 0.05
"""Level of significance, after correction."""

SEED_DRAWS = 20
"""Number of draws of the error of seeds for each draw of families."""


class Score(NamedTuple):
    """
    A score, or a difference of two, with its interval; printed in percent.

    Parameters
    ----------
    value : float
        The mean over seeds, between 0 and 1, or a difference.
    low, high : float or None
        Ends of the 95 % interval; None where there are no draws.
    n_seeds : int
        Number of seeds that it is the mean of.
    p : float or None
        For a difference: two-sided p value against zero, not corrected.
    signed, bold : bool
        Whether a table shows a plus sign, and bold type.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n_seeds: int = 1
    p: float | None = None
    signed: bool = False
    bold: bool = False

    def __str__(self):
        sign = "+" if self.signed else ""
        return f"{100 * self.value:{sign}.1f}".replace("-", "−")


class Benchmark:
    """
    The scores of a benchmark, as far as it has run; the primary ones with intervals.

    Methods take the names of a task, a method and a split, and an amount of labelled
    recordings.

    Parameters
    ----------
    table : pandas.DataFrame
        Scores and their draws; see :func:`jtm.results.records.read_all`.
    header : dict
        Plan and contrasts, from the same function.
    """

    def __init__(self, table, header):
        self.table, self.header = table, header
        main = table[table["primary"]]
        self.metrics = dict(zip(main["task"], main["metric"], strict=True))
        self._seeds = {}  # value and draws by seed, for each key below
        for row in main.to_dict("records"):
            key = row["task"], row["method"], row["labelled_recordings"], row["split"]
            self._seeds.setdefault(key, {})[row["seed"]] = row["value"], row["draws"]

    @classmethod
    def read(cls, path):
        """Read a benchmark; see :func:`jtm.results.records.read_all`."""
        return cls(*records.read_all(path))

    @property
    def tasks(self):
        """The tasks that have scores, in the order of the table."""
        return list(self.metrics)

    @cached_property
    def means(self):
        """Means over seeds, by task, metric, amount of labels, method and split."""
        keys = ["task", "metric", "labelled_recordings", "method", "split"]
        return self.table.groupby(keys, sort=False)["value"].mean().to_dict()

    @property
    def missing(self):
        """The planned cells that have not run, as a list of tuples."""
        scored = set(self.table[[*CELL]].itertuples(index=False, name=None))
        return [cell for cell in self.header["plan"] if cell not in scored]

    @property
    def seconds(self):
        """The time that all runs took, in s; the tasks of a run share its time."""
        run = ["method", "labelled_recordings", "seed", "seconds"]
        return float(self.table[run].drop_duplicates()["seconds"].sum())

    def methods(self, task, split="test"):
        """List the methods scored on a task, in display order, without `largest`."""
        scored = {method for method, _ in self._scored(task, split)}
        return [method for method in METHODS if method in scored]

    def amounts(self, task, split="test"):
        """List the amounts of labels scored on a task, without those of `largest`."""
        return sorted({amount for _, amount in self._scored(task, split)})

    def _scored(self, task, split):
        """List pairs of method and amount of labels that were scored, but `largest`."""
        return [
            key[1:3]
            for key in self._seeds
            if key[0::3] == (task, split) and key[1] != "largest"
        ]

    def nearest(self, task, amount):
        """Return the amount of labels of a task that is nearest to a given one."""
        return min(self.amounts(task), key=lambda other: abs(other - amount))

    def score(self, task, method, amount, split="test"):
        """Estimate a score; None if it was not measured."""
        found = estimate(self._seeds.get((task, method, amount, split), {}))
        if not found or found.low is None:
            return found
        # The error of few seeds may exceed the range of a score.
        low, high = max(0.0, found.low), min(1.0, found.high)
        return found._replace(low=low, high=high, p=None)

    def values(self, task, method, amount, split="test"):
        """Return the score of each seed, in the order of seeds."""
        seeds = self._seeds.get((task, method, amount, split), {})
        return [seeds[seed][0] for seed in sorted(seeds)]

    def difference(self, contrast):
        """
        Compare two methods on the same tune families and seeds.

        The p value is not corrected. Return None if no seed has both scores.
        """
        task, *methods, amount, split = contrast
        first, second = (
            self._seeds.get((task, method, amount, split), {}) for method in methods
        )
        paired = {}
        for seed in first.keys() & second.keys():
            (value, drawn), (other, others) = first[seed], second[seed]
            missing = drawn is None or others is None
            paired[seed] = value - other, None if missing else drawn - others
        found = estimate(paired)
        return found and found._replace(signed=True)

    def count_gains(self, method, other, splits):
        """
        Compare two methods on some splits, for all tasks and amounts of labels.

        Return the number of differences whose interval is above zero, that of gains
        which are significant after correction over all differences, and that of all.
        """
        differences = [
            self.difference((task, method, other, amount, split))
            for task, name, amount, split in self._seeds
            if name == method and split in splits
        ]
        differences = [each for each in differences if each]
        corrected = _holm([each.p for each in differences], len(differences))
        tested = zip(differences, corrected, strict=True)
        n_significant = sum(each.value > 0 and p < ALPHA for each, p in tested)
        n_above = sum((each.low or 0) > 0 for each in differences)
        return n_above, n_significant, len(differences)

    def contrasts(self):
        """
        Tabulate the contrasts named before the run, as far as they have run.

        Columns are the fields of :class:`jtm.results.records.Contrast` and of
        :class:`Score`, and ``p_holm``, corrected over all named contrasts.
        """
        estimates = {c: self.difference(c) for c in self.header["contrasts"]}
        rows = [(*c, *found) for c, found in estimates.items() if found]
        table = pd.DataFrame(rows, columns=[*Contrast._fields, *Score._fields])
        return table.assign(p_holm=_holm(table["p"], len(estimates)))


def estimate(seeds):
    """
    Estimate the mean over seeds, and its interval from their draws.

    Parameters
    ----------
    seeds : dict of int to tuple
        By seed: the value, and its draws ``(draws,)`` of families, or None.

    Returns
    -------
    Score or None
        The estimate; None without seeds.
    """
    if not seeds:
        return None
    values, draws = zip(*(seeds[seed] for seed in sorted(seeds)), strict=True)
    mean = float(np.mean(values))
    # If some seeds lack draws, an interval would be that of another mean.
    if any(each is None for each in draws):
        return Score(mean, n_seeds=len(values))
    drawn = _draw_means(np.array(values), np.array(draws))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Score(mean, float(low), float(high), len(values), _p_value(drawn))


def _draw_means(values, draws):
    """
    Draw means over seeds, from scores ``(seeds,)`` and draws of families of each.

    To draws ``(seeds, draws)``, averaged, add the standard error of `values` times
    draws of Student's t with ``seeds - 1`` degrees of freedom. Return ``(draws *
    SEED_DRAWS,)``, or ``(draws,)`` for one seed.
    """
    n = len(values)
    if n == 1:
        return draws[0]
    means = np.tile(draws.mean(axis=0), SEED_DRAWS)
    error = values.std(ddof=1) / np.sqrt(n)
    return means + error * np.random.default_rng(0).standard_t(n - 1, means.shape)


def _p_value(drawn):
    """Compute a two-sided p value from bootstrap draws of a difference; never 0."""
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def _holm(p, n):
    """Correct p values, NaN or None where missing, for `n` tests (Holm 1979)."""
    p = pd.Series(p, dtype=float).sort_values()  # NaN last
    corrected = (p * (n - np.arange(len(p)))).cummax().clip(upper=1)
    return corrected.sort_index().to_numpy()
