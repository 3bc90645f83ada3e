"""
Figures of a pretraining run, and of the analyses of a network.

They are drawn only from saved results. The analyses are described in
:mod:`jtm.cpc.inside`.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from jtm.constants import FRAME_RATE
from jtm.cpc.tables import LAYERS
from jtm.files import InputError, read_json
from jtm.results.compare import Score
from jtm.results.figures import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    dot,
    rows_of,
    styled,
    subplots,
)

ANALYSES = ("filters", "carried", "memory")
"""Keys of the analyses in the results."""

LAYER_STROKES = {
    "cpc-c": (BLUE, "o", "-"),
    "cpc-z": (SKY, "D", (0, (3, 2))),
    "random-c": (ORANGE, "s", (0, (5, 1))),
    "random-z": (GREY, ">", ":"),
    "logmel": (PURPLE, "^", "-."),
    "notes": (BLACK, "v", (0, (6, 1, 1, 1, 1, 1))),
}
"""Colour, marker and line style of each representation, distinct in greyscale too."""


def read_analyses(path):
    """
    Read the results of ``jtm inside``.

    Parameters
    ----------
    path : str or Path
        The JSON file.

    Returns
    -------
    dict
        The results of :data:`ANALYSES` by name, with the data and checkpoint used.

    Raises
    ------
    InputError
        If the file cannot be read or is not such a file.
    """
    results = read_json(path)
    if not (isinstance(results, dict) and all(name in results for name in ANALYSES)):
        raise InputError(
            f"{path}: expected the results of `jtm inside`, with the keys "
            f"{', '.join(ANALYSES)}"
        )
    return results


@styled
def pretraining_curve(folder):
    """
    Plot validation loss and accuracy of each predicted step over epochs.

    Parameters
    ----------
    folder : str or Path
        Folder of a pretraining run, with ``metrics.csv`` and
        ``config.json``.

    Returns
    -------
    matplotlib.figure.Figure
        One line per step, darker for nearer steps, and the chance level.

    Raises
    ------
    InputError
        If a file is missing or was not written by such a run.
    """
    path = Path(folder) / "metrics.csv"
    settings = read_json(Path(folder) / "config.json")
    try:
        table = pd.read_csv(path)
        table = table[table["split"] == "validation"]
        steps = range(1, settings["n_predicts"] + 1)
        ahead = [1000 * k * settings["step_frames"] / FRAME_RATE for k in steps]
        epochs = table["epoch"].to_numpy(int)
        curves = {
            name: np.array([table[f"{name}_{k}"] for k in steps], float)
            for name in ("loss", "accuracy")
        }
        n_candidates = 1 + settings["negative_sampling_ext"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: lacks {error}; expected the curves of a pretraining run"
        ) from error
    figure, axes = subplots(2.4, ncols=2)
    # Without the palest part of the colour map, which is hard to see on white.
    colours = ScalarMappable(Normalize(0, ahead[-1] * 1.2), "cividis")
    panels = (
        ("loss", 1, "InfoNCE loss (nats)", np.log(n_candidates)),
        ("accuracy", 100, "accuracy (%)", 100 / n_candidates),
    )
    for axis, (name, scale, label, chance) in zip(axes[0], panels, strict=True):
        for curve, time in zip(scale * curves[name], ahead, strict=True):
            axis.plot(epochs, curve, ".-", color=colours.to_rgba(time), linewidth=1)
        axis.axhline(chance, color="grey", linestyle=":", linewidth=1)
        style = {"textcoords": "offset points", "va": "center", "color": "grey"}
        place = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0)}
        axis.annotate("chance", (1, chance), **place, **style)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(colours, ax=axes[0], ticks=ahead)
    bar.ax.set_ylim(ahead[0], ahead[-1])
    bar.set_label("predicted ahead (ms)")
    return figure


def inside_figures(results):
    """
    Return the functions that draw the figures of the analyses.

    Parameters
    ----------
    results : dict
        The results; see :func:`read_analyses`.

    Returns
    -------
    dict of str to callable
        Functions that draw each figure, by analysis, as far as there are results.
    """
    plots = {"carried": _carried, "memory": _memory, "filters": _filters}
    return {
        name: partial(plot, results[name])
        for name, plot in plots.items()
        if results[name]
    }


@styled
def _carried(results):
    """Plot probe scores of one frame: a panel per target, with dotted chance level."""
    targets = list(dict.fromkeys(score["what"] for score in results))
    figure, axes = subplots(1.6, ncols=len(targets), sharey=True)
    for axis, target in zip(axes[0], targets, strict=True):
        scores = {s["representation"]: s for s in results if s["what"] == target}
        names = [name for name in LAYERS if name in scores]
        for row, name in enumerate(names):
            score, (colour, mark, _) = scores[name], LAYER_STROKES[name]
            score = Score(score["value"], score["low"], score["high"])
            dot(axis, row, score, colour, mark)
        rows_of(axis, [LAYERS[name] for name in names])
        first, *_ = scores.values()  # metric and chance level are the same for all
        axis.axvline(100 * first["chance"], color="grey", linestyle=":", lw=1)
        axis.set_title(target)
        axis.set_xlabel(f"{first['metric'].replace('R2', 'R²')} (%)")
    return figure


@styled
def _memory(results):
    """Plot average precision of the past over delay, and the lead of c."""
    figure, (axes,) = subplots(2.3, ncols=3, width_ratios=(1, 1, 0.45))
    delays = list(dict.fromkeys(score["delay"] for score in results["scores"]))
    # Evenly spaced rather than to scale, since delays grow roughly geometrically.
    positions = range(len(delays))
    panels = (("scores", "representation"), ("leads", "over"))
    for axis, (part, key) in zip(axes, panels, strict=False):
        for name, (colour, mark, dash) in LAYER_STROKES.items():
            points = [
                (each["value"], each["low"], each["high"])
                for each in results[part]
                if each[key] == name
            ]
            if points:
                value, low, high = 100 * np.array(points, float).T
                style = {"color": colour, "marker": mark, "linestyle": dash}
                style |= {"lw": 1.2, "markersize": 4, "label": LAYERS[name]}
                axis.plot(positions, value, **style)
                axis.fill_between(positions, low, high, color=colour, alpha=0.12, lw=0)
        axis.set_xticks(positions, [f"{delay:g}" for delay in delays])
        axis.set_xlabel("time before (s)")
        axis.grid(color="0.92")
    axes[0].set_ylabel("average precision (%)")
    axes[0].set_ylim(0)
    axes[1].set_ylabel("lead of c (points)")
    axes[1].axhline(0, color="grey", linestyle=":", lw=1)
    axes[2].set_axis_off()
    handles = axes[0].get_legend_handles_labels()
    axes[2].legend(*handles, loc="center", frameon=False, handlelength=3.5)
    return figure


@styled
def _filters(results):
    """Plot shift and width of each learned filter over its centre."""
    figure, ((shift, width),) = subplots(2.2, ncols=2)
    start, trained = results["start"], results["trained"]
    cents = 100 * np.subtract(trained["centre"], start["centre"])
    shift.plot(start["centre"], cents, "o", color=BLUE, markersize=3)
    shift.axhline(0, color="grey", linestyle=":", lw=1)
    shift.set_ylabel("centre moved by (cents)")
    styles = (
        ("start", start, ORANGE, "s", "white"),
        ("trained", trained, BLUE, "o", BLUE),
    )
    for name, bank, colour, mark, fill in styles:
        style = {"color": colour, "markerfacecolor": fill, "markersize": 3}
        width.plot(bank["centre"], bank["width"], mark, label=name, **style)
    width.set_ylim(0, 1.1 * max(*start["width"], *trained["width"]))
    width.set_ylabel("width (semitones)")
    width.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    for axis in (shift, width):
        axis.set_xlabel("centre (MIDI pitch)")
        axis.grid(color="0.92")
    return figure
