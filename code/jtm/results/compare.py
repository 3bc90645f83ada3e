"""
Methods compared: which is better, by how much, and how sure that is.

A score is the mean over seeds. Its 95 % interval is a hierarchical bootstrap over what
chance has chosen: the tune families of the test, which are drawn where scores are made,
the same draws for all rows of a task and split, and the seeds, drawn here with
replacement on top. A seed stands for the labels that were drawn, the untrained weights
and the training. Two methods are compared draw by draw, on the same families and seeds,
so that a piece that is hard for both says nothing of either.

Plain drawing of n seeds sees a variance that is too small by a factor of (n - 1) / n;
deviations are scaled up for that (Rao and Wu 1988). Of a single seed, the interval is
over families alone. For contrasts that were named before the run, two-sided p values
are corrected by Holm's method over all that were named, run or not.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jtm.results import records
from jtm.results.records import CELL, METHODS, UNIT

SEED_DRAWS = 20
"""Draws of seeds for each draw of families."""


class Estimate(NamedTuple):
    """
    A score, or a difference of two, with its interval.

    Parameters
    ----------
    value : float
        The mean over seeds.
    low, high : float or None
        Ends of the 95 % interval; None where there are no draws.
    n_seeds : int
        Seeds that it is the mean of.
    p : float or None
        Of a difference: two-sided p value that it is zero, not corrected.
    """

    value: float
    low: float | None
    high: float | None
    n_seeds: int
    p: float | None = None


class Benchmark:
    """
    The primary scores of a benchmark, as far as it has run.

    Methods take the names of a task, a method and a split, and an amount of labelled
    recordings.

    Parameters
    ----------
    table : pandas.DataFrame
        Scores; see :func:`jtm.results.records.read`.
    draws : dict of str to numpy.ndarray
        Bootstrap draws; see :func:`jtm.results.records.read_draws`.
    header : dict
        See :func:`jtm.results.records.read_header`.
    """

    def __init__(self, table, draws, header):
        self.table, self.header = table, header
        main = table[table["primary"]]
        self.metrics = dict(zip(main["task"], main["metric"], strict=True))
        self._seeds = {}  # value and draws of each, by what was scored
        for row in main.to_dict("records"):
            place = row["task"], row["method"], row["labelled_recordings"], row["split"]
            drawn = draws.get(records.draws_key(row))
            drawn = None if drawn is None else drawn * UNIT
            self._seeds.setdefault(place, {})[row["seed"]] = row["value"], drawn

    @classmethod
    def read(cls, path):
        """
        Read a benchmark from ``benchmark.csv.gz`` and the files beside it.

        Without them, nothing was planned; InputError if one cannot be read.
        """
        path = Path(path)
        if not path.exists():
            nothing = records.check(pd.DataFrame(columns=records.COLUMNS), path)
            return cls(nothing, {}, {"plan": [], "contrasts": []})
        return cls(
            records.read(path),
            records.read_draws(path.with_name(records.DRAWS)),
            records.read_header(path.with_name(records.HEADER)),
        )

    @property
    def tasks(self):
        """The tasks that have scores, in the order of the table."""
        return list(self.metrics)

    @property
    def missing(self):
        """The planned cells that have not run, as a list of tuples."""
        there = set(self.table[[*CELL]].itertuples(index=False, name=None))
        return [cell for cell in self.header["plan"] if cell not in there]

    @property
    def seconds(self):
        """The time that all cells took, in seconds of one core."""
        return float(self.table.groupby([*CELL])["seconds"].max().sum())

    def methods(self, task, split="test"):
        """List what a task was scored with in the order shown, but largest class."""
        there = {method for method, _ in self._scored(task, split)}
        return [method for method in METHODS if method in there]

    def amounts(self, task, split="test"):
        """List the amounts of labels of a task, without the largest class's."""
        return sorted({amount for _, amount in self._scored(task, split)})

    def _scored(self, task, split):
        """List the methods that learn, each with an amount of labels it learnt from."""
        return [
            place[1:3]
            for place in self._seeds
            if place[0::3] == (task, split) and place[1] != "largest"
        ]

    def nearest(self, task, amount):
        """Choose the amount of labels of a task that is nearest to one."""
        return min(self.amounts(task), key=lambda each: abs(each - amount))

    def score(self, task, method, amount, split="test"):
        """Estimate a score; None where it was not scored."""
        found = _estimate(self._seeds.get((task, method, amount, split), {}))
        if not found or found.low is None:
            return found
        # Scaled deviations of seeds may reach beyond what a score can be.
        low, high = max(0.0, found.low), min(1.0, found.high)
        return found._replace(low=low, high=high, p=None)

    def values(self, task, method, amount, split="test"):
        """Return the score of each seed, in the order of seeds."""
        found = self._seeds.get((task, method, amount, split), {})
        return [found[seed][0] for seed in sorted(found)]

    def difference(self, contrast):
        """
        Compare two methods on the same tune families and seeds.

        The p value is not corrected; None where no seed has both scores.
        """
        task, *methods, amount, split = contrast
        first, second = (
            self._seeds.get((task, method, amount, split), {}) for method in methods
        )
        paired = {}
        for seed in first.keys() & second.keys():
            (value, drawn), (other, others) = first[seed], second[seed]
            lacking = drawn is None or others is None
            paired[seed] = value - other, None if lacking else drawn - others
        return _estimate(paired)

    def contrasts(self):
        """
        Tabulate the contrasts that were named before the run, as far as they have run.

        Columns are the fields of :class:`jtm.results.records.Contrast` and of
        :class:`Estimate`, and ``p_holm``, corrected over all that are named.
        """
        found = {each: self.difference(each) for each in self.header["contrasts"]}
        rows = [(*each, *estimate) for each, estimate in found.items() if estimate]
        columns = [*records.Contrast._fields, *Estimate._fields]
        table = pd.DataFrame(rows, columns=columns)
        return table.assign(p_holm=_holm(table["p"], len(found)))


def _estimate(seeds):
    """Join seeds: the mean of their values, the interval of their draws."""
    if not seeds:
        return None
    values, draws = zip(*(seeds[seed] for seed in sorted(seeds)), strict=True)
    mean = float(np.mean(values))
    # Where some seeds lack draws, an interval would be of something else.
    if any(each is None for each in draws):
        return Estimate(mean, None, None, len(values))
    drawn = _draw_seeds(np.array(draws))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(mean, float(low), float(high), len(values), _p_value(drawn))


def _draw_seeds(draws, times=SEED_DRAWS):
    """
    Draw seeds with replacement, on top of draws of families ``(seeds, draws)``.

    Give mean scores of the drawn seeds ``(draws * times,)``, or ``(draws,)`` where
    there is one seed; their deviation from the mean of all is scaled to the variance of
    a mean of independent seeds (Rao and Wu 1988).
    """
    n = len(draws)
    if n == 1:
        return draws[0]
    draws = np.tile(draws, times)
    mean = draws.mean(axis=0)
    which = np.random.default_rng(0).integers(0, n, draws.shape)
    drawn = np.take_along_axis(draws, which, axis=0).mean(axis=0)
    return mean + np.sqrt(n / (n - 1)) * (drawn - mean)


def _p_value(drawn):
    """
    Compute a two-sided p value from bootstrap draws of a difference.

    Twice the smaller share of draws on either side of zero, at most 1; never 0, which
    no number of draws can show.
    """
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def _holm(p, n):
    """Correct p values, NaN or None where there is none, for `n` tests (Holm 1979)."""
    p = np.array(p, float)
    order = np.argsort(p, kind="stable")  # NaN last
    corrected = np.maximum.accumulate(p[order] * (n - np.arange(len(p))))
    made = np.empty_like(p)
    made[order] = np.minimum(corrected, 1)
    return made
