"""
Figures, drawn from the records that commands wrote and from nothing else.

Each function returns a matplotlib ``Figure`` that depends on no window or global state,
so that it looks the same on any machine; :func:`save` writes it. Colours can be
distinguished by colour-blind readers (Okabe and Ito 2008, and the map cividis) and in
greyscale, and markers differ in shape too.
"""

from functools import partial
from itertools import cycle, product
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jtm.constants import FRAME_RATE, INSTRUMENTS, PITCH_MAX, PITCH_MIN
from jtm.files import InputError, atomic
from jtm.results.records import METHODS, SPLITS, TESTS
from jtm.results.tables import AMOUNT, in_words

BLACK, BLUE, ORANGE = "#000000", "#0072B2", "#D55E00"
"""Okabe and Ito's black, blue and vermilion."""

SKY, GREEN, PURPLE, AMBER = "#56B4E9", "#009E73", "#CC79A7", "#E69F00"
"""Their sky blue, bluish green, reddish purple and orange."""

GREY = "#808080"

STROKES = {
    "scratch": (ORANGE, "s", (0, (5, 1))),
    "cpc-finetuned": (BLUE, "o", "-"),
    "cpc-joint": (BLACK, "*", (0, (6, 1, 1, 1, 1, 1))),
    "scratch-distilled": ("0.7", "P", (0, (4, 1, 1, 1))),
    "cpc-frozen": (SKY, "D", (0, (3, 2))),
    "untrained-frozen": (GREY, ">", ":"),
    "scratch-selftrained": (AMBER, "H", "-."),
    "cpc-selftrained": (GREEN, "p", (0, (8, 2))),
    "logmel": (PURPLE, "^", (0, (2, 1, 1, 1))),
    "cqt": ("0.35", "v", (0, (1, 2))),
}
"""Colour, marker and dashes of the methods of the benchmark."""

PAIRS = (
    ("cpc-finetuned", "scratch"),
    ("scratch-selftrained", "scratch"),
    ("cpc-selftrained", "scratch-selftrained"),
)
"""Methods that use unlabelled audio, each with the baseline of its gain."""

WIDTH = 7.0
"""Width of figures in inches, that of a page of text."""

COMPONENTS = 6
"""Number of principal components shown of a representation."""

OCTAVES = [f"C{octave}" for octave in range(1, 9)]
"""Names of the pitches 24, 36, ... 108."""

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "jtm",
    "pdf.fonttype": 42,  # text stays text
}
"""Fonts and lines that suit a page."""

styled = style.context(STYLE, after_reset=True)
"""Decorator that makes functions draw in this style, whatever the caller's settings."""


def subplots(height, **grid):
    """
    Create a figure and its panels.

    Parameters
    ----------
    height : float
        Height in inches.
    **grid
        Passed on to matplotlib's ``subplots``.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure, as wide as a page.
    axes : numpy.ndarray
        The panels ``(rows, columns)``.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(squeeze=False, **grid)


def dot(axis, row, score, colour, mark, size=5, fill=None):
    """
    Draw a score in percent, and its interval as a line.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        The panel.
    row : float
        Vertical position.
    score : object
        Has ``value``, ``low`` and ``high``, between 0 and 1; without an interval, `low`
        and `high` are None or NaN.
    colour, mark : str
        Colour and marker.
    size : float
        Size of the marker.
    fill : str, optional
        Fill colour of the marker; `colour` by default.
    """
    ends = 100 * np.array([score.low, score.high], float)
    if not np.isnan(ends).any():
        axis.plot(ends, (row, row), color=colour, lw=1.2, zorder=1)
    options = {"color": colour, "markerfacecolor": fill or colour, "markersize": size}
    axis.plot(100 * score.value, row, mark, **options)


def rows_of(axis, names):
    """
    Label the rows of a panel, the first on top.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        The panel.
    names : sequence of str
        Labels.
    """
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)


@styled
def save(figure, path):
    """
    Write a figure atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        Path to the file; its extension, such as ``.pdf`` or ``.svg``, is the format.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    ending = Path(path).suffix.removeprefix(".")
    # A date would change the file each time the same figure is drawn.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(ending)
    with atomic(path) as part:
        try:
            figure.savefig(part, dpi=200, metadata=metadata)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error


@styled
def method_dots(table):
    """
    Draw the primary scores of methods on both SoundFonts, with 95 % intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        Scores of single runs; see :func:`jtm.results.tables.run_scores`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per task and split, one row per method.
    """
    table = table[table["primary"]]
    names = [*table["method"].unique()]
    panels = table.groupby(["task", "split", "metric"], sort=False)
    figure, axes = subplots(0.7 + 0.2 * len(names), ncols=len(panels), sharey=True)
    for axis, ((task, split, metric), part) in zip(axes[0], panels, strict=True):
        for score in part.itertuples():
            dot(axis, names.index(score.method), score, BLUE, "o")
        axis.set_title(f"{in_words(task)}, {SPLITS[split]}")
        axis.set_xlabel(f"{in_words(metric)} (%)")
        rows_of(axis, names)
    return figure


@styled
def piece(spectrogram, roll, layers, title=""):
    """
    Draw the spectrogram and notes of a piece, and features of a network below.

    Parameters
    ----------
    spectrogram : numpy.ndarray
        Log-mel spectrogram ``(frames, bands)``.
    roll : numpy.ndarray
        Active pitches ``(frames, 88)``.
    layers : dict of str to numpy.ndarray
        Features ``(frames, dim)`` by the name of their layer; their first principal
        components over these frames are shown.
    title : str
        Name of the piece.

    Returns
    -------
    matplotlib.figure.Figure
        Panels one above the other, with a shared time axis.
    """
    heights = [2, 2] + [1] * len(layers)
    grid = {"nrows": len(heights), "height_ratios": heights}
    figure, axes = subplots(0.85 * sum(heights), sharex=True, **grid)
    top, below, *others = axes[:, 0]
    end = len(roll) / FRAME_RATE
    _image(top, spectrogram, end, 0)
    top.set_ylabel("mel band")
    top.set_title(title, loc="left")
    _image(below, 1.0 - roll, end, PITCH_MIN - 0.5, cmap="grey")
    below.set_yticks(range(24, 109, 12), OCTAVES)
    active = np.flatnonzero(roll.any(axis=0)) + PITCH_MIN
    if len(active):
        below.set_ylim(active[0] - 3, active[-1] + 3)
    below.set_ylabel("pitch")
    for axis, (name, features) in zip(others, layers.items(), strict=True):
        components = _principal_components(features)
        _image(axis, components[:, ::-1], end, 0.5, vmin=-2.5, vmax=2.5)
        count = components.shape[1]
        axis.set_yticks((1, count), (str(count), "1"))
        axis.set_ylabel(f"{name}, principal\ncomponent")
    axes[-1, 0].set_xlabel("time (s)")
    return figure


@styled
def notes_over_sound(spectrum, notes, title=""):
    """
    Draw labelled notes over the spectrogram of their audio.

    Parameters
    ----------
    spectrum : numpy.ndarray
        Constant-Q magnitudes ``(frames, 97 * 2)``, two bins per semitone from A0 up;
        see :func:`jtm.evaluation.baselines.cqt`.
    notes : numpy.ndarray
        Notes with ``start`` and ``end`` in seconds, ``pitch`` and ``program``.
    title : str
        Name of the piece.

    Returns
    -------
    matplotlib.figure.Figure
        One panel; dark is loud, and each instrument has a colour.
    """
    figure, ((axis,),) = subplots(2.6)
    end = len(spectrum) / FRAME_RATE
    lowest = PITCH_MIN - 0.5
    _image(axis, spectrum, end, lowest, 1 / 2, cmap="Greys", interpolation=None)
    notes = notes[notes["start"] < end]
    colours = cycle((BLUE, ORANGE, GREEN, PURPLE, SKY))
    for program, colour in zip(np.unique(notes["program"]), colours, strict=False):
        own = notes[notes["program"] == program]
        edges = own["start"], np.minimum(own["end"], end)
        name = INSTRUMENTS.get(program, f"program {program}")
        axis.hlines(own["pitch"], *edges, colors=colour, lw=2, label=name)
    axis.set(xlim=(0, end), ylim=(lowest, PITCH_MAX + 0.5))
    axis.set(xlabel="time (s)", ylabel="pitch")
    axis.set_yticks(range(24, 109, 12), OCTAVES)
    axis.set_title(title, loc="left")
    if len(notes):
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def _image(axis, frames, end, low, height=1, **options):
    """Show ``(frames, rows)`` over time, with row 0 at the bottom, at `low`."""
    axis.imshow(
        frames.T,
        origin="lower",
        aspect="auto",
        extent=(0, end, low, low + height * frames.shape[1]),
        **{"cmap": "cividis", "interpolation": "nearest"} | options,
    )


def _principal_components(features):
    """
    Project features ``(frames, dim)`` on their first principal components.

    They have unit variance, or are zero if the features vary in fewer directions.
    """
    centred = features - features.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    left, sizes = left[:, :COMPONENTS], sizes[:COMPONENTS]
    return left * np.sqrt(len(features)) * (sizes > 1e-5 * max(sizes[0], 1e-5))


def benchmark_figures(bench):
    """
    List the figures of the benchmark.

    Parameters
    ----------
    bench : jtm.results.compare.Benchmark
        The results.

    Returns
    -------
    dict of str to callable
        Functions that draw the figures, by name: 'labels', 'gains' and 'sounds', except
        those without scores. They show the tasks of the contrasts, or else all tasks.
    """
    planned = {contrast.task for contrast in bench.header["contrasts"]}
    scored = [task for task in bench.tasks if bench.amounts(task)]
    tasks = [task for task in scored if task in planned] or scored
    drawings = {}
    if tasks:
        drawings["labels"] = partial(_labels, bench, tasks)
        drawings["sounds"] = partial(_sounds, bench, tasks)
    if any(_gains_of(bench, task) for task in tasks):
        drawings["gains"] = partial(_gains, bench, tasks)
    return drawings


def _panels(tasks, height, legend, rows=1):
    """Create rows with a panel for each task, and a panel for the legend below."""
    heights = [height] * rows + [legend]
    grid = {"nrows": len(heights), "ncols": len(tasks), "height_ratios": heights}
    figure, axes = subplots(sum(heights), **grid)
    for axis in axes[-1]:
        axis.remove()
    legend_axis = figure.add_subplot(axes[-1, 0].get_gridspec()[-1, :])
    legend_axis.set_axis_off()
    return figure, axes[:-1], partial(legend_axis.legend, loc="center", frameon=False)


@styled
def _labels(bench, tasks):
    """Draw test scores over the number of labels: a row per SoundFont."""
    figure, panels, legend = _panels(tasks, 1.7, 0.5, len(TESTS))
    for row, split in zip(panels, TESTS, strict=True):
        for axis, task in zip(row, tasks, strict=True):
            amounts = bench.amounts(task)
            for method in bench.methods(task, split):
                scores = [(a, bench.score(task, method, a, split)) for a in amounts]
                points = [(a, 100 * score.value) for a, score in scores if score]
                colour, mark, dash = STROKES[method]
                options = {"marker": mark, "linestyle": dash, "label": METHODS[method]}
                options |= {"color": colour, "lw": 1.2, "markersize": 4}
                axis.plot(*zip(*points, strict=True), **options)
            axis.set_xscale("log")
            axis.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
            axis.minorticks_off()
            axis.set_title(f"{in_words(task)}, {SPLITS[split]}")
            axis.set_ylabel(f"{in_words(bench.metrics[task])} (%)")
            axis.grid(color="0.92")
    for axis in panels[-1]:
        axis.set_xlabel("labelled recordings")
    drawn = {line.get_label(): line for axis in panels.flat for line in axis.lines}
    handles = [drawn[name] for name in METHODS.values() if name in drawn]
    legend(handles=handles, handlelength=3.5, ncols=4)
    return figure


def _gains_of(bench, task):
    """Return the gains of :data:`PAIRS` in a task, by pair, split and labels."""
    return {
        (pair, split, amount): gain
        for pair, split, amount in product(PAIRS, TESTS, bench.amounts(task))
        if (gain := bench.difference((task, *pair, amount, split)))
    }


@styled
def _gains(bench, tasks):
    """Draw the gains from unlabelled audio; hollow marks for the unseen SoundFont."""
    figure, panels, legend = _panels(tasks, 1.75, 0.45)
    drawn = set()
    for axis, task in zip(panels[0], tasks, strict=True):
        amounts = bench.amounts(task)
        for (pair, split, amount), gain in _gains_of(bench, task).items():
            drawn.add(pair)
            colour, mark, _ = STROKES[pair[0]]
            row = 2 * PAIRS.index(pair) + (split == "test_timbre")
            at = amounts.index(amount) + (row - 2.5) * 0.13
            if gain.low is not None:
                ends = 100 * gain.low, 100 * gain.high
                axis.plot((at, at), ends, color=colour, lw=1, zorder=1)
            fill = colour if split == "test" else "white"
            options = {"color": colour, "markerfacecolor": fill, "markersize": 4}
            axis.plot(at, 100 * gain.value, mark, **options)
        axis.axhline(0, color=BLACK, lw=0.8)
        axis.set_xticks(range(len(amounts)), [f"{amount:g}" for amount in amounts])
        axis.set_xlim(-0.5, len(amounts) - 0.5)
        axis.set_title(in_words(task))
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
        axis.set_xlabel("labelled recordings")
    panels[0, 0].set_ylabel("gain (points)")
    handles = _sound_entries()[:2]  # in one column
    for method, other in (pair for pair in PAIRS if pair in drawn):
        colour, mark, _ = STROKES[method]
        name = f"{METHODS[method]}\n− {METHODS[other]}"
        handles.append(_entry(color=colour, marker=mark, label=name))
    legend(handles=handles, ncols=len(handles) - 1)
    return figure


def _entry(**options):
    """Make a legend entry."""
    return Line2D([], [], ls="", markersize=4, **options)


def _sound_entries():
    """Make legend entries for the SoundFonts and real recordings."""
    marks = {"test": ("o", BLACK), "test_timbre": ("o", "white"), "real": ("x", BLACK)}
    return [
        _entry(color=BLACK, marker=mark, markerfacecolor=fill, label=SPLITS[each])
        for each, (mark, fill) in marks.items()
    ]


@styled
def _sounds(bench, tasks):
    """Draw scores on the seen SoundFont, the unseen one and real recordings."""
    near = {task: bench.nearest(task, AMOUNT) for task in tasks}
    shown = [
        method
        for method in METHODS
        if any(bench.score(task, method, amount) for task, amount in near.items())
    ]
    figure, panels, legend = _panels(tasks, 0.7 + 0.17 * len(shown), 0.3)
    for axis, task in zip(panels[0], tasks, strict=True):
        for row, method in enumerate(shown):
            colour, mark, _ = STROKES.get(method, (BLACK, "d", ""))
            for place, split in enumerate(("test", "test_timbre", "real")):
                if score := bench.score(task, method, near[task], split):
                    fill = "white" if split == "test_timbre" else colour
                    kind = "x" if split == "real" else mark
                    dot(axis, row + 0.24 * (place - 1), score, colour, kind, 4, fill)
        axis.set_title(f"{in_words(task)}, {near[task]:g} labelled")
        rows_of(axis, [METHODS[method] for method in shown])
        axis.tick_params(labelleft=axis is panels[0, 0])
        axis.set_xlabel(f"{in_words(bench.metrics[task])} (%)")
    legend(handles=_sound_entries(), ncols=3)
    return figure
