"""Figures of the study, drawn from ``retrieval.json`` alone."""

from functools import partial

from jtm.results.figures import BLACK, BLUE, ORANGE, styled, subplots

SOUNDS = {
    "test": ("seen SoundFont", BLUE, "o-"),
    "test_timbre": ("unseen", ORANGE, "s--"),
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
    if record["runs"]:
        figures["passages"] = partial(_passages, record)
    if "identification" in record:
        figures["pieces"] = partial(_pieces, record)
    return figures


@styled
def _passages(record):
    """Plot recall at 1 of passage retrieval, one row per run, with intervals."""
    runs = list(record["runs"])
    figure, ((axis,),) = subplots(0.8 + 0.2 * len(runs))
    for row, name in enumerate(runs):
        for offset, (split, (label, colour, stroke)) in enumerate(SOUNDS.items()):
            score = record["runs"][name][split]["audio_to_score"]["recall_at_1"]
            value, low, high = score
            height, style = row + 0.2 * offset, {"color": colour}
            axis.plot((100 * low, 100 * high), (height, height), lw=1, **style)
            named = {"label": label} if row == 0 else {}
            axis.plot(100 * value, height, stroke[0], markersize=4, **style, **named)
    axis.set_yticks(range(len(runs)), runs)
    axis.invert_yaxis()
    axis.set_xlabel("right passage first (%)")
    axis.grid(axis="x", color="0.92")
    figure.legend(loc="outside right upper", frameon=False)
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
    axis.axhline(95, color=BLACK, lw=0.6, linestyle=":")
    axis.set(xlabel="query length (s)", ylabel="pieces identified (%)", ylim=(0, 101))
    figure.legend(loc="outside right upper", frameon=False)
    return figure
