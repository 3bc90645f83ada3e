"""
Figures of a pretraining run, and of what is inside a network.

They are drawn from saved results alone. Answers about a network are those of
:mod:`jtm.cpc.inside`, where each question is explained.
"""

import csv
import functools
import zipfile
from pathlib import Path

import numpy as np

from jtm.constants import FRAME_RATE
from jtm.files import InputError, read_json
from jtm.results.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    dot,
    rows_of,
    styled,
    subplots,
)
from jtm.results.tables import LAYERS, Score

QUESTIONS = ("filters", "carried", "memory", "form", "maps")
"""Keys of the answers."""

LAYER_STROKES = {
    "cpc-c": (BLUE, "o", "-"),
    "cpc-z": (SKY, "D", (0, (3, 2))),
    "random-c": (ORANGE, "s", (0, (5, 1))),
    "random-z": (GREY, ">", ":"),
    "logmel": (PURPLE, "^", "-."),
    "notes": (BLACK, "v", (0, (6, 1, 1, 1, 1, 1))),
}
"""Colours, marks and dashes of representations, told apart in grey too."""

INSTRUMENT_MARKS = {
    "piano": (BLUE, "s"),
    "harpsichord": (SKY, "D"),
    "violin": (ORANGE, "o"),
    "viola": (ORANGE, "^"),
    "cello": (ORANGE, "v"),
    "contrabass": (ORANGE, "x"),
    "horn": (BLACK, "P"),
    "oboe": (GREEN, "o"),
    "bassoon": (GREEN, "v"),
    "clarinet": (GREEN, "^"),
    "flute": (PURPLE, "D"),
}
"""Colour and mark of instruments on a map, one colour for a family."""


def read_answers(path):
    """
    Read the answers of ``jtm inside``, and the arrays beside them.

    Parameters
    ----------
    path : str or Path
        The JSON file; the arrays are in a file of the same name ending in
        ``.npz``.

    Returns
    -------
    found : dict
        The answers, by the names of :data:`QUESTIONS`, and what they are of.
    arrays : dict of str to numpy.ndarray
        Maps and matrices by name.

    Raises
    ------
    InputError
        If a file cannot be read or is something else.
    """
    path = Path(path)
    found = read_json(path)
    if not (isinstance(found, dict) and all(name in found for name in QUESTIONS)):
        raise InputError(
            f"{path}: expected the answers of `jtm inside`, with the keys "
            f"{', '.join(QUESTIONS)}"
        )
    path = path.with_suffix(".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            return found, dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read as arrays ({error}); run `jtm inside` again"
        ) from error


@styled
def pretraining_curve(folder):
    """
    Draw how loss and accuracy of each predicted step developed on validation.

    Parameters
    ----------
    folder : str or Path
        The folder of a pretraining run, with ``metrics.csv`` and
        ``config.json``.

    Returns
    -------
    matplotlib.figure.Figure
        One line a step, darker the nearer, and what chance would reach.

    Raises
    ------
    InputError
        If a file is missing or is not what such a run writes.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    path = Path(folder) / "metrics.csv"
    settings = read_json(Path(folder) / "config.json")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if r["split"] == "validation"]
        steps = range(1, settings["n_predicts"] + 1)
        ahead = [1000 * k * settings["step_frames"] / FRAME_RATE for k in steps]
        epochs = [int(row["epoch"]) for row in rows]
        curves = {
            name: np.array([[float(row[f"{name}_{k}"]) for k in steps] for row in rows])
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
    # The palest part of the map is left out, since it fades into the page.
    colours = ScalarMappable(Normalize(0, ahead[-1] * 1.2), "cividis")
    panels = (
        ("loss", 1, "InfoNCE loss (nats)", np.log(n_candidates)),
        ("accuracy", 100, "accuracy (%)", 100 / n_candidates),
    )
    for axis, (name, scale, label, chance) in zip(axes[0], panels, strict=True):
        for curve, time in zip(scale * curves[name].T, ahead, strict=True):
            axis.plot(epochs, curve, ".-", color=colours.to_rgba(time), linewidth=1)
        axis.axhline(chance, color="grey", linestyle=":", linewidth=1)
        axis.annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color="grey",
        )
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(colours, ax=axes[0], ticks=ahead)
    bar.ax.set_ylim(ahead[0], ahead[-1])
    bar.set_label("predicted ahead (ms)")
    return figure


def inside_figures(found, arrays):
    """
    List the figures of what is inside a network.

    Parameters
    ----------
    found : dict
        The answers; see :func:`read_answers`.
    arrays : dict of str to numpy.ndarray
        The arrays beside them.

    Returns
    -------
    dict of str to callable
        What draws each figure, by the name of its question, without those that
        were not answered.
    """
    draw = {
        "carried": _carried,
        "memory": _memory,
        "form": _form,
        "maps": _maps,
        "filters": _filters,
    }
    return {
        name: functools.partial(each, found[name], arrays)
        for name, each in draw.items()
        if found[name]
    }


def _dot_rows(axis, answers, label):
    """Draw answers one below the other, with their intervals, in percent."""
    by_name = {each["representation"]: each for each in answers}
    names = [name for name in LAYERS if name in by_name]
    for row, name in enumerate(names):
        each, (colour, mark, _) = by_name[name], LAYER_STROKES[name]
        score = Score(each["value"], each["low"], each["high"])
        dot(axis, row, score, colour, mark)
    rows_of(axis, [LAYERS[name] for name in names])
    axis.set_xlabel(label)


@styled
def _carried(answers, _):
    """Draw what a frame carries: a panel for each question, dotted at chance."""
    whats = list(dict.fromkeys(each["what"] for each in answers))
    figure, axes = subplots(1.6, ncols=len(whats), sharey=True)
    for axis, what in zip(axes[0], whats, strict=True):
        asked = [each for each in answers if each["what"] == what]
        metric = asked[0]["metric"].replace("R2", "R²")
        _dot_rows(axis, asked, f"{metric} (%)")
        axis.axvline(100 * asked[0]["chance"], color="grey", linestyle=":", lw=1)
        axis.set_title(what)
    return figure


@styled
def _memory(answer, _):
    """Draw what is known of the past over the delay, and how far c is ahead."""
    figure, (axes,) = subplots(2.3, ncols=3, width_ratios=(1, 1, 0.45))
    delays = list(dict.fromkeys(each["delay"] for each in answer["scores"]))
    # Places, not times: the delays are chosen to grow as ratios do.
    places = range(len(delays))
    panels = (("scores", "representation"), ("leads", "over"))
    for axis, (part, key) in zip(axes, panels, strict=False):
        for name, (colour, mark, dash) in LAYER_STROKES.items():
            points = [
                (each["value"], each["low"], each["high"])
                for each in answer[part]
                if each[key] == name
            ]
            if points:
                value, low, high = 100 * np.array(points, float).T
                style = {"color": colour, "marker": mark, "linestyle": dash}
                style |= {"lw": 1.2, "markersize": 4, "label": LAYERS[name]}
                axis.plot(places, value, **style)
                axis.fill_between(places, low, high, color=colour, alpha=0.12, lw=0)
        axis.set_xticks(places, [f"{delay:g}" for delay in delays])
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
def _form(answer, arrays):
    """Draw the self-similarity of one piece, and the agreement over all."""
    shown = ("notes", "cpc-c", "random-c", "logmel")
    figure, (axes,) = subplots(1.75, ncols=5, width_ratios=(1, 1, 1, 1, 1.1))
    for axis, name in zip(axes, shown, strict=False):
        values = arrays[f"form-{name}"].astype(float)
        end = answer["seconds"] * len(values)
        # Each matrix uses all of the colours, but for its extremes.
        low, high = np.quantile(values[~np.eye(len(values), dtype=bool)], (0.02, 0.98))
        style = {"cmap": "cividis", "vmin": low, "vmax": high, "origin": "lower"}
        style |= {"extent": (0, end, 0, end), "interpolation": "nearest"}
        axis.imshow(values, **style)
        axis.set_title(LAYERS[name])
        axis.set_xlabel("time (s)")
        axis.locator_params(nbins=3)
        axis.tick_params(labelleft=axis is axes[0])
    axes[0].set_ylabel("time (s)")
    _dot_rows(axes[4], answer["agreement"], "correlation (%)")
    axes[4].set_title(f"{answer['pieces']} pieces")
    axes[4].set_xlim(0, 100)
    return figure


@styled
def _maps(answers, arrays):
    """Draw t-SNE maps of z and c: a column for each way to colour them."""
    figure, axes = subplots(5, nrows=3, ncols=len(answers), height_ratios=(5, 5, 2))
    for column, each in zip(axes.T, answers, strict=True):
        values = arrays[f"map-{each['of']}-{each['colour']}"]
        for axis, name in zip(column, ("cpc-z", "cpc-c"), strict=False):
            x, y = arrays[f"map-{each['of']}-{name}"].astype(float).T
            handles = _scatter(axis, x, y, values, each["labels"])
            axis.set_axis_off()
            share = f"{100 * each['purity'][name]:.0f} % of neighbours alike"
            axis.set_title(f"{LAYERS[name]}: {share}")
        head = f"{each['colour']} of {each['of']} (chance {100 * each['chance']:.0f} %)"
        column[0].set_title(f"{head}\n\n{column[0].get_title()}")
        column[2].set_axis_off()
        if each["labels"]:
            style = {"loc": "upper center", "ncols": 3, "frameon": False}
            style |= {"fontsize": 6.5, "columnspacing": 0.5, "borderpad": 0}
            column[2].legend(handles=handles, handletextpad=0, **style)
        else:
            place = column[2].inset_axes((0.1, 0.8, 0.8, 0.15))
            bar = figure.colorbar(handles[0], cax=place, orientation="horizontal")
            bar.set_label("MIDI pitch")
    return figure


def _scatter(axis, x, y, values, labels):
    """Scatter points by class, or by a number where classes have no labels."""
    if not labels:
        points = axis.scatter(x, y, 5, values, cmap="cividis", lw=0, rasterized=True)
        return [points]
    common = np.argsort(-np.bincount(values, minlength=len(labels)), kind="stable")
    spare = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (BLACK, "v"))
    styles = dict(zip(common, spare, strict=False))
    handles = []
    for number, label in enumerate(labels):
        here = values == number
        colour, mark = INSTRUMENT_MARKS.get(label) or styles.get(number, (GREY, "x"))
        style = {"color": colour, "marker": mark, "label": label, "lw": 0.4}
        handles.append(axis.scatter(x[here], y[here], s=7, rasterized=True, **style))
    return handles


@styled
def _filters(answer, _):
    """Draw how far each learned filter went, and how wide it is, over pitch."""
    figure, ((moved, wide),) = subplots(2.2, ncols=2)
    start, trained = answer["start"], answer["trained"]
    way = 100 * np.subtract(trained["centre"], start["centre"])
    moved.plot(start["centre"], way, "o", color=BLUE, markersize=3)
    moved.axhline(0, color="grey", linestyle=":", lw=1)
    moved.set_ylabel("centre moved by (cents)")
    names = {"start": (ORANGE, "s", "white"), "trained": (BLUE, "o", BLUE)}
    for name, (colour, mark, fill) in names.items():
        style = {"color": colour, "markerfacecolor": fill, "markersize": 3}
        wide.plot(
            answer[name]["centre"], answer[name]["width"], mark, label=name, **style
        )
    wide.set_ylim(0, 1.1 * max(*start["width"], *trained["width"]))
    wide.set_ylabel("width (semitones)")
    wide.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    for axis in (moved, wide):
        axis.set_xlabel("centre (MIDI pitch)")
        axis.grid(color="0.92")
    return figure
