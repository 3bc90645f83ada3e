"""
Rows of the grid compared: which is better, by how much, and how sure that is.

A row is a task, a representation, a probe and a share of the labels; it was scored
once for each seed, which drew the labelled subset and the training. Its score is the
mean over seeds. Its 95 % interval is a bootstrap over what chance has chosen: the
test recordings and the seeds. The recordings are drawn where scores are made
(:mod:`jtm.evaluation.metrics`), the same draws for all who answer about the same
recordings; here seeds are drawn with replacement on top. Two rows are compared draw
by draw, on the same recordings and the same seeds, so that a piece which is hard for
both, or a poor subset of labels that both learned from, says nothing of either.

Plain drawing of n seeds sees a variance that is too small by a factor of (n - 1) / n,
which takes a third of it away from three; deviations are scaled up for that (Rao and
Wu 1988). In simulations with three seeds and 20 or 60 recordings, 92 to 95 % of the
intervals hold the truth as long as recordings differ more than seeds do, 89 % where
seeds differ more. Of a single seed, the interval is over recordings alone.

What is called best is what validation scored best; test only reports.
"""

from typing import NamedTuple

import numpy as np

from jtm.results.records import beside, latest, read, read_beside

TASKS = {
    "multipitch": "pitches that sound, frame by frame",
    "ensemble": "ensemble, from 1.28 s",
    "note_pitch": "pitch of a single note",
    "note_instrument": "instrument of a single note",
    "instrument": "instrument, from 1.28 s",
    "composer": "composer, from 1.28 s",
    "instrument_activity": "instruments that sound, frame by frame",
    "transcription": "notes with pitch and onset",
}
"""The tasks of the whole grid, with what is asked."""

FRACTIONS = (0.001, 0.003, 0.01, 0.1, 1.0)
"""Shares of the training labels in the whole grid."""

SEEDS = (0, 1, 2)
"""Seeds of the whole grid."""

CPC = ("CPC, frozen", "CPC, fine-tuned")
"""The lines that are ours."""

LINES = {
    "CPC, frozen": ("cpc-z", "cpc-c", "cpc-zc", "cpc-s"),
    "CPC, fine-tuned": ("cpc-finetuned",),
    "supervised": ("supervised",),
    "untrained": ("random-z", "random-c", "random-zc", "random-s"),
    "log-mel": ("logmel", "logmel-s"),
    "constant-Q": ("cqt", "cqt-s"),
}
"""Representations that make one line of a figure, the best of them by validation."""


class Row(NamedTuple):
    """
    One row of the grid: all of a cell but its seed.

    Parameters
    ----------
    task, representation, probe : str
        What is asked, of what, and by what.
    fraction : float
        Share of the training labels.
    """

    task: str
    representation: str
    probe: str
    fraction: float


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
    """

    value: float
    low: float | None
    high: float | None
    n_seeds: int

    @property
    def verdict(self):
        """Of a difference: 1 above zero, -1 below, 0 where that can't be told."""
        if self.low is None or self.low <= 0 <= self.high:
            return 0
        return 1 if self.low > 0 else -1


class Grid:
    """
    The main scores of a results file, and what stands beside them.

    Parameters
    ----------
    records : iterable of Record
        Scores; the latest of each counts.
    beside : dict of tuple to dict, optional
        Draws, confusion matrices and curves; see
        :func:`jtm.results.records.read_beside`.
    """

    def __init__(self, records, beside=None):
        self.records = [record for record in latest(records) if record.primary]
        self.metrics, self.labelled, self._values = {}, {}, {}
        for record in self.records:
            row = Row(*(getattr(record, name) for name in Row._fields))
            self.metrics[record.task] = record.metric
            share = record.task, record.fraction
            self.labelled.setdefault(share, []).append(record.labelled)
            self._values.setdefault((row, record.split), {})[record.seed] = record.value
        self.labelled = {
            key: round(float(np.mean(all_)), 2) for key, all_ in self.labelled.items()
        }
        self._beside = {}
        for (*row, seed, split), line in (beside or {}).items():
            self._beside.setdefault((Row(*row), split), {})[seed] = line

    @classmethod
    def read(cls, path):
        """
        Read a results file and, where there is one, the file beside it.

        Parameters
        ----------
        path : str or Path
            The results file.

        Returns
        -------
        Grid
            What they hold.

        Raises
        ------
        InputError
            If either cannot be read.
        """
        return cls(read(path), read_beside(path) if beside(path).exists() else {})

    @property
    def tasks(self):
        """The tasks that have scores, in the order of :data:`TASKS`."""
        known = [task for task in TASKS if task in self.metrics]
        return known + [task for task in self.metrics if task not in TASKS]

    def rows(self, task, fraction=None, split="test"):
        """
        List the rows that were scored.

        Parameters
        ----------
        task : str
            What is asked.
        fraction : float, optional
            Share of the labels; all by default.
        split : str
            Where they were scored.

        Returns
        -------
        list of Row
            In the order of the file.
        """
        return [
            row
            for row, where in self._values
            if row.task == task and where == split and fraction in (None, row.fraction)
        ]

    @property
    def n_seeds(self):
        """Fewest and most seeds that a row was scored with; 0 where there is none."""
        counts = [len(values) for values in self._values.values()]
        return min(counts, default=0), max(counts, default=0)

    def fractions(self, task):
        """
        List the shares of labels that a task was scored with.

        Parameters
        ----------
        task : str
            What is asked.

        Returns
        -------
        list of float
            From small to large.
        """
        return sorted({row.fraction for row in self.rows(task)})

    def distinct(self, task):
        """
        List the shares of labels that differ in what is labelled.

        With one example a class at least, small shares may come to the same labels;
        scores with these are one result, not several.

        Parameters
        ----------
        task : str
            What is asked.

        Returns
        -------
        list of float
            From small to large; of those with as much labelled the largest.
        """
        return [*{self.labelled[task, f]: f for f in self.fractions(task)}.values()]

    def beside(self, row, name, split="test"):
        """
        Give what stands beside the scores of a row.

        Parameters
        ----------
        row : Row
            Which.
        name : {"draws", "confusion", "classes", "curve"}
            What of it.
        split : str
            Where it was scored.

        Returns
        -------
        dict of int to object
            By seed, where there is any.
        """
        lines = self._beside.get((row, split), {})
        return {seed: line[name] for seed, line in lines.items() if line.get(name)}

    def score(self, row, split="test"):
        """
        Give the score of a row.

        Parameters
        ----------
        row : Row
            Which.
        split : str
            Where it was scored.

        Returns
        -------
        Estimate or None
            Mean and interval over recordings and seeds; None where it was not
            scored.
        """
        values = self._values.get((row, split))
        found = values and _estimate(values, self.beside(row, "draws", split))
        if not found or found.low is None:
            return found
        # Scaled deviations of seeds may reach beyond what a score can be.
        return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))

    def difference(self, row, other, split="test", of=None):
        """
        Compare two rows on the same recordings and the seeds that both have.

        Parameters
        ----------
        row, other : Row
            Which; of one task.
        split : str
            Where they were scored.
        of : Grid, optional
            Where `other` is from; this grid by default.

        Returns
        -------
        Estimate or None
            Score of `row` less that of `other`; None where no seed has both.
        """
        return _estimate(*self._differences(row, other, split, of))

    def change(self, row, other, split="test", to="test_timbre"):
        """
        Compare what two rows gain from one split to another of the same works.

        Parameters
        ----------
        row, other : Row
            Which; of one task.
        split, to : str
            The splits.

        Returns
        -------
        Estimate or None
            Difference in `to` less that in `split`; None where no seed has all
            four scores.
        """
        there, here = (self._differences(row, other, each) for each in (to, split))
        return _estimate(
            *(
                {seed: np.subtract(a[seed], b[seed]) for seed in a.keys() & b.keys()}
                for a, b in zip(there, here, strict=True)
            )
        )

    def _differences(self, row, other, split, of=None):
        """Give the differences of two rows by seed, and those of their draws."""
        if row.task != other.task:
            raise ValueError(f"{row.task} and {other.task} are not on one scale")
        pairs = (self, row), (of or self, other)
        values = [grid._values.get((each, split), {}) for grid, each in pairs]
        draws = [grid.beside(each, "draws", split) for grid, each in pairs]
        return tuple(
            {seed: np.subtract(a[seed], b[seed]) for seed in a if seed in b}
            for a, b in (values, draws)
        )

    def best(self, rows):
        """
        Choose a row by its mean score on validation.

        Parameters
        ----------
        rows : iterable of Row
            To choose from.

        Returns
        -------
        Row or None
            The best of those with most seeds, since a mean over fewer is another
            thing; of equals the first. None where none was validated.
        """
        scores = {row: self._values.get((row, "validation"), {}) for row in rows}
        most = max(map(len, scores.values()), default=0)
        return max(
            (row for row, each in scores.items() if each and len(each) == most),
            key=lambda row: np.mean([*scores[row].values()]),
            default=None,
        )

    def largest_class(self, task, split="test"):
        """
        Give the share of what is asked about that is of the largest class.

        Parameters
        ----------
        task : str
            What is asked.
        split : str
            Where.

        Returns
        -------
        float or None
            The accuracy of always answering that class; None for other tasks, and
            where no confusion matrix is kept.
        """
        for row in self.rows(task, split=split):
            for counts in self.beside(row, "confusion", split).values():
                counts = np.sum(counts, axis=1)
                return float(counts.max() / counts.sum())
        return None

    def line(self, task, names, fraction, slow=True):
        """
        Choose the row that stands for some lines of a figure.

        Parameters
        ----------
        task : str
            What is asked.
        names : sequence of str
            Any of :data:`LINES`.
        fraction : float
            Share of the labels.
        slow : bool
            Whether slow features may stand for them.

        Returns
        -------
        Row or None
            The best of their representations and probes by validation.
        """
        wanted = {each for name in names for each in LINES[name]}
        wanted -= set() if slow else {each for each in wanted if each.endswith("-s")}
        rows = self.rows(task, fraction)
        return self.best(row for row in rows if row.representation in wanted)


def _estimate(values, draws):
    """Join seeds: mean of their values, interval of their draws (1e-4 a unit)."""
    if not values:
        return None
    mean = float(np.mean([*values.values()]))
    if not draws:
        return Estimate(mean, None, None, len(values))
    drawn = draw_seeds(np.array([*draws.values()]) / 1e4)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(mean, float(low), float(high), len(values))


def draw_seeds(draws, seed=0):
    """
    Draw seeds with replacement, on top of draws of recordings.

    Parameters
    ----------
    draws : numpy.ndarray
        Scores of the draws of recordings ``(seeds, draws)``.
    seed : int
        Seed of the drawing itself.

    Returns
    -------
    numpy.ndarray
        Mean score of as many drawn seeds ``(draws,)``; their deviation from the
        mean of all is scaled to the variance of a mean of independent seeds (Rao
        and Wu 1988).
    """
    n, n_draws = draws.shape
    mean = draws.mean(axis=0)
    if n == 1:
        return mean
    which = np.random.default_rng(seed).integers(0, n, (n, n_draws))
    drawn = np.take_along_axis(draws, which, axis=0).mean(axis=0)
    return mean + np.sqrt(n / (n - 1)) * (drawn - mean)


def seconds_to(curve, target):
    """
    Tell when a training first reached a score.

    Parameters
    ----------
    curve : dict
        Lists ``step``, ``seconds`` and ``score`` on validation.
    target : float
        The score.

    Returns
    -------
    tuple of float or None
        Seconds of training and steps; None where it was never reached.
    """
    rows = zip(curve["seconds"], curve["step"], curve["score"], strict=True)
    return next(((s, step) for s, step, score in rows if score >= target), None)


def row_shares(counts):
    """
    Normalise a confusion matrix by its rows.

    Parameters
    ----------
    counts : numpy.ndarray
        Counts ``(n_classes, n_classes)``; rows are the truth.

    Returns
    -------
    numpy.ndarray
        Share of each class that was taken for each: rows sum to 1, or are 0
        where the class does not occur.

    Examples
    --------
    >>> row_shares(np.array([[3, 1], [0, 0]])).tolist()
    [[0.75, 0.25], [0.0, 0.0]]
    """
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
