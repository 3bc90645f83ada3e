"""
Tables of results: pivots of the records, and the one writer of Markdown and LaTeX.

A table is a pandas DataFrame. Its column names are the headings, and its cells are
text, numbers or a :class:`jtm.results.compare.Score`; :func:`write` renders it.
"""

import re
from itertools import product
from statistics import fmean
from textwrap import wrap

import pandas as pd

from jtm.results.compare import Score
from jtm.results.records import METHODS, SPLITS, TESTS

ALPHA = 0.05
"""Level of significance, after correction."""

LAYERS = {
    "cpc-z": "z",
    "cpc-c": "c",
    "random-z": "z, untrained",
    "random-c": "c, untrained",
    "logmel": "log-mel",
    "notes": "the notes",
    "chance": "chance",
}
"""Names of the probed representations."""

TRIED = {
    ("transcription", 3): "notes,\n3 recordings",
    ("transcription", 10): "notes,\n10 recordings",
    ("who_plays_what", 10): "who plays what,\n10 recordings",
    ("instrument_activity", 10): "instruments,\n10 recordings",
}
"""Scores of a trial that are shown, and their headings."""

KNOWN = {"from scratch": "scratch", "shipped recipe": "cpc-finetuned"}
"""Methods of the benchmark that are shown next to trials, by their names there."""

AMOUNT = 10
"""Number of labelled recordings, or the nearest to it, at which sounds are compared."""

MATCHERS = {
    "pitchmap": "ours, as shipped",
    "scratch": "ours, from scratch",
    "cpc-finetuned": "ours, CPC fine-tuned",
    "cpc-frozen": "ours, CPC frozen",
    "untrained-frozen": "ours, untrained frozen",
    "published": "published, ranking loss",
    "published-infonce": "published, InfoNCE",
    "linear-cca": "linear CCA",
    "chroma-dtw": "chroma and DTW",
}
"""Names of the models of audio-to-score retrieval that learn from all works."""

STARTS = ("scratch", "cpc-finetuned")
"""Those that also learn from few works."""

TRANSCRIBERS = {
    "jtm": "JTM",
    "basic-pitch": "Basic Pitch",
    "harmonica-nano": "harmonica, nano",
    "harmonica-small": "harmonica, small",
    "harmonica-medium": "harmonica, medium",
}
"""Names of the transcribers, ours first."""

TARGETS = {
    "toy": ("onset", 0.92),
    "unseen": ("onset", 0.86),
    "mixes": ("onset", 0.83),
    "piano": ("onset", 0.85),
    "notes": ("found", 0.96),
}
"""Metric and target value of our transcriber on each set."""

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


def _pivot(cells):
    """Arrange cells ``(about, column, cell)``, with one row per value of `about`."""
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
    return _best(_pivot(cells))


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
    return _pivot(cells)


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
            cells.append(({"method": METHODS[method]}, heads[column], _join(both)))
    return _pivot(cells)


def _join(values):
    """Write several scores, between 0 and 1, in percent in one cell."""
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
        parts.append(_best(_pivot(cells)))
    return pd.concat(parts, ignore_index=True)


def trials(results, bench=None):
    """
    Tabulate the scores of pretraining recipes, of ``benchmarks/trials.py``.

    A row is a recipe; the first rows are training from scratch and the shipped network,
    of a benchmark. Validation scores are in percent, means over the same seeds.
    """
    columns = {}
    for (task, amount), head in TRIED.items():
        key = f"{task} {amount}"
        tried = {each["name"]: each["validation"][key] for each in results}
        n_seeds = min(map(len, tried.values()))
        known = {
            name: bench.values(task, method, amount, "validation")[:n_seeds]
            for name, method in KNOWN.items()
            if bench
        }
        columns[head] = {
            name: f"{100 * fmean(values):.1f}"
            for name, values in (known | tried).items()
            if values
        }
    return pd.DataFrame(columns).dropna().reset_index(names="recipe")


def retrieval(results):
    """
    Tabulate retrieval of the passage of a score from two seconds of audio.

    A row is a model of ``jtm retrieval``, a column a metric and a SoundFont.
    """
    return _pivot(
        (
            {"model": MATCHERS[name]},
            f"{title}, {SPLITS[split]}",
            Score(*results["runs"][name][split]["audio_to_score"][metric]),
        )
        for name in MATCHERS
        if name in results["runs"]
        for metric, title in (("recall_at_1", "R@1"), ("mrr", "MRR"))
        for split in TESTS
    )


def by_works(results, start):
    """List the runs from a start in :data:`STARTS`, by the number of their works."""
    runs = results["runs"].items()
    own = [run for name, run in runs if name.rstrip("0123456789-") == start]
    return sorted(own, key=lambda run: run["works"])


def aligned(results):
    """
    Tabulate recall at 1 by the number of training works with aligned pairs.

    A row is a start of the audio tower and a SoundFont, a column a number of works.
    """
    return _pivot(
        (
            {"model": MATCHERS[start], "SoundFont": SPLITS[split].split()[0]},
            f"{run['works']} works",
            Score(*run[split]["audio_to_score"]["recall_at_1"]),
        )
        for start in STARTS
        for split in TESTS
        for run in by_works(results, start)
    )


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
    return _best(_pivot(cells))


def by_representation(results, column):
    """
    Tabulate results of ``jtm inside``: a row per representation.

    Results have ``representation``, ``value`` and, if there is an interval, ``low`` and
    ``high``; `column` is a format string for the heading of a result's column, such as
    '{delay:g} s'.
    """
    return _pivot(
        (
            {"": LAYERS[each["representation"]]},
            column.format(**each),
            Score(each["value"], each.get("low"), each.get("high")),
        )
        for each in results
    )


def carried(inside):
    """Tabulate probe scores of single frames, and chance: a column per target."""
    chance = [
        {"representation": "chance", "what": each["what"], "value": each["chance"]}
        for each in inside["carried"]
    ]
    return by_representation(inside["carried"] + chance, "{what}")


def transcribers(results):
    """
    Tabulate the results of ``benchmarks/transcribers.py``: a row per transcriber.

    A set has note F1 / frame F1, and single notes the fraction whose pitch is found.
    Speed and memory follow if they were measured.
    """
    scores = {}  # by system, set and metric
    for row in results["scores"]:
        if row["stronger"]:
            sets = scores.setdefault(row["system"], {})
            sets.setdefault(row["set"], {})[row["metric"]] = row["value"]
    table = []
    for system in filter(scores.get, TRANSCRIBERS):
        row = {"transcriber": TRANSCRIBERS[system]}
        for each, values in scores[system].items():
            shown = ["onset", "found" if "found" in values else "frame"]
            words = _join(values[metric] for metric in shown)
            row[results["sets"][each]["title"]] = words
        row["weights"] = f"{results['systems'][system]['weights_bytes'] / 1e6:.2f} MB"
        if cost := (results["speed"] or {}).get(system):
            speed = 1 / cost["processor_seconds_of_1_thread"]
            row["times real time"] = f"{speed:.0f}"
            row["memory"] = f"{cost['peak_bytes'] / 1e6:.0f} MB"
        table.append(row)
    return pd.DataFrame(table)


def ahead(results):
    """
    Tabulate by how much our note F1 exceeds that of each other transcriber.

    A column is a set; differences whose interval excludes zero are in bold.
    """
    return _pivot(
        (
            {"JTM ahead of": TRANSCRIBERS[row["system"]]},
            results["sets"][row["set"]]["title"],
            Score(**each, signed=True, bold=each["low"] * each["high"] > 0),
        )
        for row in results["scores"]
        if row["stronger"] and row["metric"] == "onset"
        if (each := row.get("difference"))
    )


def ingredients(results):
    """
    Tabulate note F1 by training ingredient, and what each ingredient is added to.

    A column is a set; scores whose gain has an interval above zero are in bold.
    """
    return _pivot(
        (
            {
                "learned from": row["with"],
                "added to": row["beside"] or "",
                "steps": f"{row['steps']}",
            },
            results["sets"][row["set"]],
            Score(row["value"], row["low"], row["high"], bold=gain.get("low", 0) > 0),
        )
        for row in results["scores"]
        for gain in [row.get("difference", {})]
    )


def count_steps(log):
    """Count the steps of a training log and of the runs that it went on from."""
    steps = log["history"][-1]["step"]
    while log := log["before"]:
        steps += log["steps"]
    return steps


def targets(results, hours=None):
    """
    Tabulate which of the measured targets our transcriber reaches.

    `hours` is the content of ``hours.json``, which has the memory for long recordings.
    """
    rows = []  # targets, what was measured, and whether they are reached
    for row in results["scores"]:
        metric, least = TARGETS.get(row["set"], ("", 0))
        if (row["system"], row["metric"]) == ("jtm", metric):
            what = "pitches found" if metric == "found" else "note F1"
            title, value = results["sets"][row["set"]]["title"], row["value"]
            target = f"{title}: {what}, {100 * least:.0f} %"
            rows.append((target, f"{100 * value:.1f} %", value >= least))
    for metric, what in (("onset", "note"), ("frame", "frame")):
        leads = {}  # over each other transcriber, by set
        for row in results["scores"]:
            if row["stronger"] and row["metric"] == metric and "difference" in row:
                leads.setdefault(row["set"], []).append(row["difference"])
        above = sum(all(each["value"] > 0 for each in of) for of in leads.values())
        clear = sum(all((each["low"] or 0) > 0 for each in of) for of in leads.values())
        if leads:
            target = f"{what} F1 above every other: on {len(leads)} sets"
            rows.append((target, f"on {above}", above == len(leads)))
        if leads and metric == "onset":
            target = "note F1 above every other, interval above 0: on 3 sets"
            rows.append((target, f"on {clear}", clear >= 3))
    if cost := (results["speed"] or {}).get("jtm"):
        speed = 1 / cost["processor_seconds_of_1_thread"]
        target = "40 times real time on one thread"
        rows.append((target, f"{speed:.0f} times", speed >= 40))
    for row in hours["rows"] if hours else ():
        if row["hours"] == 1:
            size, how = row["peak_bytes"] / 1e6, "with" if row["page"] else "without"
            target = f"less than 700 MB for an hour, {how} its page"
            rows.append((target, f"{size:.0f} MB", size < 700))
    table = pd.DataFrame(rows, columns=["target", "measured", "reached"])
    return table.assign(reached=table["reached"].map({True: "yes", False: "no"}))
