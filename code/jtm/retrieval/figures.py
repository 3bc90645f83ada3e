"""Figures of the study, drawn from ``retrieval.json`` alone."""

from functools import partial

import numpy as np

from jtm.results.compare import Score
from jtm.results.figures import (
    BLACK,
    BLUE,
    ORANGE,
    STROKES,
    dot,
    rows_of,
    styled,
    subplots,
)
from jtm.results.records import METHODS, SPLITS
from jtm.retrieval.tables import MATCHERS, STARTS, by_works

SOUNDS = {
    "test": (SPLITS["test"], BLUE, "o-"),
    "test_timbre": (SPLITS["test_timbre"], ORANGE, "s--"),
}
"""Label, colour and line style of each test split."""


def retrieval_figures(record):
    """
    List the figures of the study.

    Parameters
    ----------
    record : dict
        Content of ``retrieval.json``.

    Returns
    -------
    dict of str to callable
        Functions that draw the figures, by name, except those without scores.
    """
    figures = {}
    if any(name in record["runs"] for name in MATCHERS):
        figures["passages"] = partial(_passages, record)
    if any(name in record["runs"] for name in STARTS):
        figures["works"] = partial(_works, record)
    if "identification" in record:
        figures["pieces"] = partial(_pieces, record)
    return figures


@styled
def _passages(record):
    """Plot recall at 1 of passage retrieval, one row per model, with intervals."""
    runs = [name for name in MATCHERS if name in record["runs"]]
    figure, ((axis,),) = subplots(0.8 + 0.2 * len(runs))
    for row, name in enumerate(runs):
        for offset, (split, (label, colour, stroke)) in enumerate(SOUNDS.items()):
            score = record["runs"][name][split]["audio_to_score"]["recall_at_1"]
            place = row + 0.2 * offset
            dot(axis, place, Score(*score), colour, stroke[0], 4)
            if row == 0:
                axis.plot([], [], stroke[0], color=colour, markersize=4, label=label)
    rows_of(axis, [MATCHERS[name] for name in runs])
    axis.set_xlabel("R@1, audio to score (%)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


@styled
def _works(record):
    """Plot recall at 1 over the number of training works, from CPC and from scratch."""
    figure, axes = subplots(2.2, ncols=2, sharey=True)
    for axis, (split, (label, *_)) in zip(axes[0], SOUNDS.items(), strict=True):
        for start in STARTS:
            runs = by_works(record, start)
            works = [run["works"] for run in runs]
            scores = [run[split]["audio_to_score"]["recall_at_1"] for run in runs]
            values, low, high = 100 * np.array(scores).T
            colour, mark, dash = STROKES[start]
            ends = values - low, high - values
            options = {"color": colour, "marker": mark, "ls": dash, "markersize": 4}
            axis.errorbar(works, values, ends, label=METHODS[start], lw=1.2, **options)
        axis.set_xscale("log")
        axis.set_xticks(works, [f"{n:g}" for n in works])
        axis.minorticks_off()
        axis.set(title=label, xlabel="training works with aligned pairs")
        axis.grid(color="0.92")
    axes[0, 0].set_ylabel("R@1, audio to score (%)")
    axes[0, 1].legend(frameon=False)
    return figure


@styled
def _pieces(record):
    """Plot the share of identified pieces over the length of the query."""
    figure, ((axis,),) = subplots(2.2)
    for split, (label, colour, stroke) in SOUNDS.items():
        scores = record["identification"][split]
        seconds = [int(length) for length in scores]
        for rank, ranks, width in ((1, "rank 1", 1.5), (10, "to rank 10", 0.7)):
            percent = [100 * score[f"rank_{rank}"] for score in scores.values()]
            style = {"color": colour, "lw": width, "markersize": 3}
            axis.plot(seconds, percent, stroke, label=f"{label}, {ranks}", **style)
    axis.axhline(95, color=BLACK, lw=0.6, linestyle=":", label="target")
    axis.set(xlabel="query length (s)", ylabel="pieces identified (%)", ylim=(0, 101))
    figure.legend(loc="outside right upper", frameon=False)
    return figure
