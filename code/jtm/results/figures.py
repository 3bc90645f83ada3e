"""
Figures, drawn from what commands wrote and from nothing else.

Each function gives a matplotlib ``Figure`` that no window or global state knows
of, so that it draws the same on any machine; :func:`save` writes it. Colours are
told apart by the colour-blind (Okabe and Ito 2008, and the map cividis) and in
grey, and marks differ in shape too.
"""

import csv
import functools
from pathlib import Path

import numpy as np

from jtm.constants import FRAME_RATE, PITCH_MIN
from jtm.files import InputError, atomic, read_json
from jtm.music.audio import frames_to_seconds
from jtm.results.records import latest

BLACK, BLUE, ORANGE = "#000000", "#0072B2", "#D55E00"
"""Okabe and Ito's black, blue and vermilion."""

FAMILIES = {
    "cpc": (BLUE, "o", BLUE),
    "random": (ORANGE, "o", "white"),
    "other": (BLACK, "s", BLACK),
}
"""Colour, mark and fill of a representation, by the start of its name."""

WIDTH = 7.0
"""Inches; the width of a page of text."""

COMPONENTS = 6
"""Principal components of a representation that are shown."""


STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "jtm",
}
"""Type and lines that suit a page."""


def _styled(draw):
    """Make a function draw in :data:`STYLE`, whatever the caller's settings."""

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return styled


def _figure(height, **grid):
    """Make a figure and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(squeeze=False, **grid)


@_styled
def save(figure, path):
    """
    Write a figure, at once or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : str or Path
        The file; its ending names the format, such as ``.pdf`` or ``.svg``.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    ending = Path(path).suffix.removeprefix(".")
    # A date would change the file each time the same figure is drawn.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(ending)
    with atomic(path) as part:
        try:
            figure.savefig(part, dpi=200, metadata=metadata)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error


@_styled
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
    figure, axes = _figure(2.4, ncols=2)
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


@_styled
def probe_dots(records, split="test"):
    """
    Draw the main score of each representation, with its 95 % interval.

    Parameters
    ----------
    records : iterable of Record
        Scores of one label fraction and seed; the latest of each counts.
    split : str
        Where the scores were taken.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a task, one row a representation.

    Raises
    ------
    InputError
        If there is no main score on that split.
    """
    records = [r for r in latest(records) if r.primary and r.split == split]
    if not records:
        raise InputError(f"no main score on {split} among the records")
    tasks = list(dict.fromkeys((r.task, r.metric) for r in records))
    names = list(dict.fromkeys(r.representation for r in records))
    figure, axes = _figure(0.7 + 0.2 * len(names), ncols=len(tasks), sharey=True)
    for axis, (task, metric) in zip(axes[0], tasks, strict=True):
        for record in records:
            if (record.task, record.metric) != (task, metric):
                continue
            family = record.representation.partition("-")[0]
            colour, mark, fill = FAMILIES.get(family, FAMILIES["other"])
            row = names.index(record.representation)
            if record.low is not None:
                ends = 100 * record.low, 100 * record.high
                axis.plot(ends, (row, row), color=colour, linewidth=1.2, zorder=1)
            axis.plot(
                100 * record.value,
                row,
                mark,
                color=colour,
                markerfacecolor=fill,
                markersize=5,
            )
        axis.set_title(task)
        axis.set_xlabel(f"{metric.replace('_', ' ')} (%)")
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    return figure


@_styled
def piece(spectrogram, roll, layers, title=""):
    """
    Draw what a network makes of a piece, under its spectrogram and its notes.

    Parameters
    ----------
    spectrogram : numpy.ndarray
        Log-mel spectrum ``(frames, bands)``.
    roll : numpy.ndarray
        What sounds ``(frames, 88)``.
    layers : dict of str to numpy.ndarray
        Features ``(frames, dim)`` by the name of their layer; their first
        principal components over these frames are shown.
    title : str
        Name of the piece.

    Returns
    -------
    matplotlib.figure.Figure
        Panels one above the other, on one axis of time.
    """
    heights = [2, 2] + [1] * len(layers)
    figure, axes = _figure(
        0.85 * sum(heights),
        nrows=len(heights),
        sharex=True,
        height_ratios=heights,
    )
    sound, notes, *rest = axes[:, 0]
    end = frames_to_seconds(len(roll) - 0.5)
    _image(sound, spectrogram, end, 0)
    sound.set_ylabel("mel band")
    sound.set_title(title, loc="left")
    _image(notes, 1.0 - roll, end, PITCH_MIN - 0.5, cmap="grey")
    octaves = range(24, 109, 12)
    notes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    sounding = np.flatnonzero(roll.any(axis=0)) + PITCH_MIN
    if len(sounding):
        notes.set_ylim(sounding[0] - 3, sounding[-1] + 3)
    notes.set_ylabel("pitch")
    for axis, (name, features) in zip(rest, layers.items(), strict=True):
        components = principal_components(features)
        _image(axis, components[:, ::-1], end, 0.5, vmin=-2.5, vmax=2.5)
        count = components.shape[1]
        axis.set_yticks((1, count), (str(count), "1"))
        axis.set_ylabel(f"{name}, principal\ncomponent")
    axes[-1, 0].set_xlabel("time (s)")
    return figure


def _image(axis, frames, end, low, cmap="cividis", **limits):
    """Show ``(frames, rows)`` over time, row 0 lowest, starting from `low`."""
    axis.imshow(
        frames.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, end, low, low + frames.shape[1]),
        cmap=cmap,
        **limits,
    )


def principal_components(features, count=COMPONENTS):
    """
    Project features on their first principal components.

    Parameters
    ----------
    features : numpy.ndarray
        Features ``(frames, dim)``.
    count : int
        Most components.

    Returns
    -------
    numpy.ndarray
        Components ``(frames, count)`` of unit variance, by the variance they
        explain; zero where the features vary in fewer directions.
    """
    centred = features - features.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    left, sizes = left[:, :count], sizes[:count]
    return left * np.sqrt(len(features)) * (sizes > 1e-5 * max(sizes[0], 1e-5))
