"""
Tables of results: pivots of the records, and the one writer of Markdown and LaTeX.

A table is a pandas DataFrame. Its column names are the headings, and its cells are
text, numbers or a :class:`jtm.results.compare.Score`; :func:`write` renders it.
"""

import re
from itertools import product
from textwrap import wrap

import pandas as pd

from jtm.results.compare import ALPHA, Score
from jtm.results.records import METHODS, SPLITS, TESTS

AMOUNT = 10
"""Number of labelled recordings, or the nearest to it, at which sounds are compared."""

HEAD = 16
"""Maximum number of characters per line of a LaTeX column heading."""

SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "#$%&{}_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "→": r"$\to$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
}
"""LaTeX for characters that are special in it, or that it lacks."""

METRICS = {
    "note_f1": "note F1",
    "note_offset_f1": "note F1 with offset",
    "note_instrument_f1": "note F1 with instrument",
    "frame_f1": "frame F1",
    "macro_f1": "macro F1",
    "accuracy_5s": "accuracy over 5 s",
    "accuracy_30s": "accuracy over 30 s",
}
"""Names of metrics whose key is not their name."""


def in_words(name):
    """Return the name of a task or a metric in words, such as 'who plays what'."""
    return METRICS.get(name, name.replace("_", " "))


def write(table, form="markdown"):
    """
    Render a table in Markdown or LaTeX; the text is empty if it has no row.

    In LaTeX the first column is left-aligned, empty columns are left out, and the
    report's macro ``fit`` limits its width to that of a line.
    """
    if not len(table):
        return ""
    rows = [[write_cell(cell, form) for cell in row] for row in table.to_numpy(object)]
    heads = [str(column) for column in table.columns]
    if form == "markdown":
        rows = [heads, ["---"] * len(heads), *rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    filled = [i for i, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
    for number, i in enumerate(filled):
        lines = map(escape, wrap(heads[i], HEAD, break_on_hyphens=False))
        side = "r" if number else "l"
        heads[i] = rf"\shortstack[{side}]{{" + r"\\".join(lines) + "}"
    head, *lines = [
        " & ".join(row[i] for i in filled) + r" \\" for row in (heads, *rows)
    ]
    columns = "l" + "r" * (len(filled) - 1)
    top = rf"\fit{{\begin{{tabular}}{{@{{}}{columns}@{{}}}}\toprule"
    bottom = r"\bottomrule\end{tabular}}"
    return "\n".join([top, rf"{head}\midrule", *lines, bottom])


def write_cell(cell, form="markdown"):
    """Render a cell in Markdown or LaTeX; None and NaN are blank."""
    latex = form == "latex"
    if not isinstance(cell, Score):
        words = "" if pd.isna(cell) else str(cell)
        return escape(words) if latex else words.replace("|", r"\|")
    value = escape(str(cell)) if latex else str(cell)
    if cell.bold:
        value = rf"\textbf{{{value}}}" if latex else f"**{value}**"
    if pd.isna(cell.low):
        return value
    ends = f"{100 * cell.low:.1f}, {100 * cell.high:.1f}".replace("-", "−")
    return rf"{value}\interval{{{escape(ends)}}}" if latex else f"{value} [{ends}]"


def escape(text):
    """Escape text for LaTeX, with a thin space between a number and its unit."""
    escaped = "".join(SIGNS.get(character, character) for character in text)
    return re.sub(r"(\d) (\\%|s|min|h|[MG]B)(?!\w)", r"\1\\,\2", escaped)


def pivot(cells):
    """
    Arrange cells in a table.

    Parameters
    ----------
    cells : iterable of tuple
        First columns of a row, by their headings; heading of another column; and the
        cell in that row and column.

    Returns
    -------
    pandas.DataFrame
        The table, with one row per value of the first columns.
    """
    rows = {}
    for about, column, cell in cells:
        rows.setdefault(tuple(about.items()), {})[column] = cell
    records = [dict(about) | row for about, row in rows.items()]
    return pd.DataFrame(records, dtype=object)


def _best(table):
    """Set the highest score of each column in bold."""
    for column in table:
        scores = [cell for cell in table[column] if isinstance(cell, Score)]
        top = max((score.value for score in scores), default=None)
        table[column] = [
            cell._replace(bold=cell.value == top) if isinstance(cell, Score) else cell
            for cell in table[column]
        ]
    return table


def scores(bench, task, split="test"):
    """Tabulate the scores of a task: a row per method, a column per label amount."""
    runs = product(bench.methods(task, split), bench.amounts(task, split))
    cells = (
        ({"method": METHODS[name]}, f"{n:g} rec.", bench.score(task, name, n, split))
        for name, n in runs
    )
    return _best(pivot(cells))


def contrasts(bench):
    """
    Tabulate the contrasts named before the run, in percentage points.

    A row is a task and an amount of labels, a column a pair of methods and a split;
    differences that are significant after correction are in bold.
    """
    cells = []
    for row in bench.contrasts().itertuples():
        about = {"task": in_words(row.task)}
        about["labelled recordings"] = f"{row.labelled_recordings:g}"
        pair = f"{METHODS[row.method]} − {METHODS[row.other]}; {SPLITS[row.split]}"
        style = {"signed": True, "bold": row.p_holm < ALPHA}
        cells.append((about, pair, Score(row.value, row.low, row.high, **style)))
    return pivot(cells)


def few(bench, columns=None):
    """
    Tabulate scores with few labels: a row per method, a column per task and amount.

    Columns are those of the contrasts named before the run, unless others are given. A
    cell has the primary scores on the seen SoundFont and on the unseen one.
    """
    planned = [(c.task, c.labelled_recordings) for c in bench.header["contrasts"]]
    heads = {}
    for task, amount in columns or planned:
        metric = bench.metrics.get(task)
        heads[task, metric, amount] = f"{in_words(task)}, {amount:g} rec."
    return _both_sounds(bench, heads)


def secondary(bench, task, metric):
    """
    Tabulate a secondary metric: a row per method, a column per amount of labels.

    A cell has the means over seeds on the seen SoundFont and on the unseen one.
    """
    amounts = bench.amounts(task)
    return _both_sounds(bench, {(task, metric, n): f"{n:g} rec." for n in amounts})


def _both_sounds(bench, heads):
    """Tabulate means by method; `heads` are by task, metric and amount of labels."""
    means, cells = bench.means, []
    for method, column in product(METHODS, heads):
        both = [means.get((*column, method, split)) for split in TESTS]
        if None not in both:
            cells.append(({"method": METHODS[method]}, heads[column], join(both)))
    return pivot(cells)


def join(values):
    """
    Write several scores in one cell.

    Parameters
    ----------
    values : iterable of float
        The scores, between 0 and 1.

    Returns
    -------
    str
        The scores in percent.
    """
    return " / ".join(f"{100 * value:.1f}" for value in values)


def sounds(bench):
    """
    Tabulate scores on both SoundFonts and real recordings: a column per split.

    A row is a task and a method; the best score of each task and split is in bold.
    """
    parts = [pd.DataFrame()]
    for task in filter(bench.amounts, bench.tasks):
        near, cells = bench.nearest(task, AMOUNT), []
        about = {"task": in_words(task), "labelled recordings": f"{near:g}"}
        for name, split in product(METHODS, (*TESTS, "real")):
            if bench.score(task, name, near):
                score = bench.score(task, name, near, split)
                cells.append((about | {"method": METHODS[name]}, SPLITS[split], score))
        parts.append(_best(pivot(cells)))
    return pd.concat(parts, ignore_index=True)


def run_scores(table):
    """
    Tabulate primary scores of single runs: a row per method, columns of task and split.

    The table has ``method`` and the fields of a score that ``main.py --supervised``
    saves.
    """
    cells = [
        (
            {"method": row.method},
            f"{in_words(row.task)}, {SPLITS[row.split]}: {in_words(row.metric)} (%)",
            Score(row.value, row.low, row.high),
        )
        for row in table[table["primary"]].itertuples()
    ]
    return _best(pivot(cells))
