"""
Tables of results: pivots of the records, and the one writer of Markdown and LaTeX.

A table is a pandas frame, whose columns name themselves and whose cells are words,
numbers or a :class:`Score`; :func:`write` sets it.
"""

import math
import re
from textwrap import wrap
from typing import NamedTuple

import pandas as pd

from jtm.results.records import METHODS, SPLITS

ALPHA = 0.05
"""Level of significance, after correction."""

LINES = {
    "CPC, frozen": ("cpc-z", "cpc-c", "cpc-zc", "cpc-s"),
    "CPC, fine-tuned": ("cpc-finetuned",),
    "from scratch": ("supervised",),
    "untrained, frozen": ("random-z", "random-c", "random-zc", "random-s"),
    "log-mel": ("logmel", "logmel-s"),
    "constant-Q": ("cqt", "cqt-s"),
}
"""Methods of the earlier grid, by the representations that they choose from."""

TRIED = "0.1"
"""Share of the labels whose scores are shown of trials."""

HEAD = 16
"""Maximum number of letters of a line in the head of a LaTeX table."""


class Score(NamedTuple):
    """
    A score or a difference in a table.

    Parameters
    ----------
    value : float
        The score, between 0 and 1, or a difference of scores.
    low, high : float or None
        Ends of its interval.
    bold : bool
        Whether it stands out.
    signed : bool
        Whether a plus is written.
    before : float or None
        The score of the untrained network, which stands in brackets.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bold: bool = False
    signed: bool = False
    before: float | None = None

    def __str__(self):
        value = f"{100 * self.value:{'+' if self.signed else ''}.1f}"
        return value.replace("-", "−")

    @property
    def interval(self):
        """Its interval in percent, such as '[78.0, 84.2]', or what was before."""
        if self.before is not None:
            return f"({100 * self.before:.1f})"
        if self.low is None or math.isnan(self.low):
            return ""
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]".replace("-", "−")


def in_words(name):
    """
    Name a task or a metric in words.

    Parameters
    ----------
    name : str
        Such as 'who_plays_what'.

    Returns
    -------
    str
        Such as 'who plays what'.
    """
    return {"note_f1": "note F1"}.get(name, name.replace("_", " "))


def points(estimate):
    """
    Write a difference and its interval in percentage points.

    Parameters
    ----------
    estimate : dict or NamedTuple
        Has ``value``, ``low`` and ``high``.

    Returns
    -------
    str
        As '+3.1 [0.4, 5.9]'.
    """
    get = estimate.get if isinstance(estimate, dict) else estimate._asdict().get
    made = Score(get("value"), get("low"), get("high"), signed=True)
    return f"{made} {made.interval}".strip()


def write(table, form="markdown"):
    r"""
    Set a table in Markdown or LaTeX.

    Parameters
    ----------
    table : pandas.DataFrame
        Words, numbers and :class:`Score`; None and NaN are left blank.
    form : {"markdown", "latex"}
        What to set it in. In LaTeX the first column is flush left, empty columns are
        left out, and the report's ``\fit`` makes it as wide as a line at most.

    Returns
    -------
    str
        The table; empty where it has no row.
    """
    if not len(table):
        return ""
    if form == "markdown":
        rows = [[str(column) for column in table.columns], ["---"] * table.shape[1]]
        rows += [[write_cell(cell) for cell in row] for row in table.to_numpy(object)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    table = table.loc[:, [any(map(write_latex, table[each])) for each in table.columns]]
    heads = []
    for place, column in enumerate(table.columns):
        lines = map(escape, wrap(str(column), HEAD, break_on_hyphens=False))
        side = "r" if place else "l"
        heads.append(rf"\shortstack[{side}]{{" + r"\\".join(lines) + "}")
    rows = [[write_latex(cell) for cell in row] for row in table.to_numpy(object)]
    head, *lines = [" & ".join(row) + r" \\" for row in (heads, *rows)]
    columns = "l" + "r" * (len(heads) - 1)
    top = rf"\fit{{\begin{{tabular}}{{@{{}}{columns}@{{}}}}\toprule"
    bottom = r"\bottomrule\end{tabular}}"
    return "\n".join([top, rf"{head}\midrule", *lines, bottom])


def _blank(cell):
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def write_cell(cell):
    """
    Set a cell as Markdown.

    Parameters
    ----------
    cell : object
        Words, a number, a :class:`Score`, None or NaN.

    Returns
    -------
    str
        Such as '**81.3** [78.0, 84.2]'.
    """
    if isinstance(cell, Score):
        value = f"**{cell}**" if cell.bold else f"{cell}"
        return f"{value} {cell.interval}".strip()
    return "" if _blank(cell) else f"{cell}".replace("|", r"\|")


def write_latex(cell):
    r"""
    Set a cell as LaTeX.

    Parameters
    ----------
    cell : object
        Words, a number, a :class:`Score`, None or NaN.

    Returns
    -------
    str
        Such as ``81.3\interval{78.0, 84.2}``.
    """
    if isinstance(cell, Score):
        value = rf"\textbf{{{escape(str(cell))}}}" if cell.bold else escape(str(cell))
        ends = escape(cell.interval)
        if ends.startswith("["):
            return rf"{value}\interval{{{ends.strip('[]')}}}"
        return f"{value} {ends}".strip()
    return "" if _blank(cell) else escape(str(cell))


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
"""What stands in LaTeX for signs that mean something to it, or that it lacks."""


def escape(words):
    """
    Set plain words as LaTeX.

    Parameters
    ----------
    words : str
        The words.

    Returns
    -------
    str
        LaTeX, with a thin space between a number and its unit.
    """
    made = "".join(SIGNS.get(sign, sign) for sign in words)
    return re.sub(r"(\d) (\\%|s|min|h|[MG]B)(?!\w)", r"\1\\,\2", made)


def _best(cells):
    """Let the highest of some estimates stand out."""
    made = [each and Score(*each[:3]) for each in cells]
    top = max((each.value for each in made if each), default=None)
    return [each and each._replace(bold=each.value == top) for each in made]


def scores(bench, task, split="test"):
    """
    Tabulate the scores of a task.

    Parameters
    ----------
    bench : jtm.results.compare.Benchmark
        The results.
    task, split : str
        Which.

    Returns
    -------
    pandas.DataFrame
        A row a method, a column an amount of labelled recordings; the best of a
        column stands out.
    """
    methods = [m for m in bench.methods(task, split) if m != "largest"]
    table = pd.DataFrame({"method": [METHODS[method] for method in methods]})
    for amount in bench.amounts(task, split):
        cells = [bench.score(task, method, amount, split) for method in methods]
        table[f"{amount:g} rec."] = _best(cells)
    return table


def contrasts(bench):
    """
    Tabulate the contrasts that were named before the run.

    Parameters
    ----------
    bench : jtm.results.compare.Benchmark
        The results.

    Returns
    -------
    pandas.DataFrame
        A row for each task and amount of labels, a column for each pair of methods
        and split, with differences in points; those that are significant after
        correction stand out.
    """
    found = bench.contrasts()
    rows = {}
    for row in found.to_dict("records"):
        pair = f"{METHODS[row['method']]} − {METHODS[row['other']]}"
        column = f"{pair}; {SPLITS[row['split']]}"
        cells = rows.setdefault((row["task"], row["labelled_recordings"]), {})
        bold = row["p_holm"] < ALPHA
        cells[column] = Score(row["value"], row["low"], row["high"], bold, True)
    made = [
        {"task": in_words(task), "labelled recordings": f"{amount:g}"} | cells
        for (task, amount), cells in rows.items()
    ]
    return pd.DataFrame(made, dtype=object)


def sounds(bench, amount=10):
    """
    Tabulate the scores on seen, unseen and real sounds.

    Parameters
    ----------
    bench : jtm.results.compare.Benchmark
        The results.
    amount : float
        Labelled recordings; of a task that lacks this amount the nearest is shown.

    Returns
    -------
    pandas.DataFrame
        A row for each task and method, a column a split; of each task the best of a
        column stands out.
    """
    splits = [split for split in SPLITS if split != "validation"]
    rows = []
    for task in bench.tasks:
        amounts = bench.amounts(task)
        if not amounts:
            continue
        near = min(amounts, key=lambda each: abs(each - amount))
        methods = [m for m in bench.methods(task) if m != "largest"]
        cells = [
            _best([bench.score(task, method, near, split) for method in methods])
            for split in splits
        ]
        for place, method in enumerate(methods):
            about = {"task": in_words(task), "labelled recordings": f"{near:g}"}
            about["method"] = METHODS[method]
            rows.append(
                about
                | {SPLITS[s]: c[place] for s, c in zip(splits, cells, strict=True)}
            )
    return pd.DataFrame(rows, dtype=object)


def grid_lines(grid):
    """
    Choose what stands for each method of the earlier grid.

    Parameters
    ----------
    grid : pandas.DataFrame
        Its scores, with the columns ``task, representation, probe, fraction, seed,
        split, metric, value``.

    Returns
    -------
    pandas.DataFrame
        Mean scores over seeds, ``validation, test, test_timbre``, of the best
        representation and probe on validation, by ``task, method, fraction``.
    """
    of = {each: line for line, names in LINES.items() for each in names}
    grid = grid.assign(method=grid["representation"].map(of)).dropna(subset="method")
    keys = ["task", "method", "fraction", "representation", "probe"]
    means = grid.groupby([*keys, "split"], sort=False)["value"].mean()
    means = means.unstack("split", sort=False)
    chosen = means.groupby(keys[:3])["validation"].idxmax()
    return means.loc[chosen].droplevel(["representation", "probe"])


def grid_scores(grid, fraction, split="test"):
    """
    Tabulate scores of the earlier grid.

    Parameters
    ----------
    grid : pandas.DataFrame
        See :func:`grid_lines`.
    fraction : float
        Share of the labels.
    split : str
        Where they were scored.

    Returns
    -------
    pandas.DataFrame
        A row a task, a column a method; the best of a row stands out.
    """
    lines = grid_lines(grid)[split].xs(fraction, level="fraction")
    table = lines.unstack("method").reindex(grid["task"].unique())[[*LINES]]
    rows = [_best([(value, None, None) for value in row]) for row in table.to_numpy()]
    made = pd.DataFrame(rows, columns=table.columns.tolist(), dtype=object)
    made.insert(0, "task", [in_words(task) for task in table.index])
    return made


def grid_change(grid, fraction):
    """
    Tabulate scores of the earlier grid on seen and unseen sound.

    Parameters
    ----------
    grid : pandas.DataFrame
        See :func:`grid_lines`.
    fraction : float
        Share of the labels.

    Returns
    -------
    pandas.DataFrame
        A row a task, a column a method, with cells such as '89.7 → 84.8'.
    """
    seen, unseen = (grid_scores(grid, fraction, s) for s in ("test", "test_timbre"))
    for method in LINES:
        seen[method] = [
            f"{a} → {b}" for a, b in zip(seen[method], unseen[method], strict=True)
        ]
    return seen


def run_scores(table, split="test"):
    """
    Tabulate the main scores of a single run.

    Parameters
    ----------
    table : pandas.DataFrame
        See :func:`jtm.results.records.read_scores`.
    split : str
        Where they were taken.

    Returns
    -------
    pandas.DataFrame
        A row for each representation, probe, share of the labels and seed, of which
        those that never differ are left out; a column a task; the best of a column
        stands out.
    """
    table = table[table["primary"] & (table["split"] == split)]
    keys = ["representation", "probe", "fraction", "seed"]
    keys = keys[:1] + [key for key in keys[1:] if table[key].nunique() > 1]
    made = table[keys].drop_duplicates().reset_index(drop=True)
    wanted = list(made.itertuples(index=False, name=None))
    for (task, metric), part in table.groupby(["task", "metric"], sort=False):
        rows = part.set_index(keys)[["value", "low", "high"]]
        cells = {
            key if isinstance(key, tuple) else (key,): tuple(row)
            for key, row in zip(rows.index, rows.to_numpy(float), strict=True)
        }
        cells = _best([cells.get(each) for each in wanted])
        made[f"{in_words(task)}, {in_words(metric)} (%)"] = cells
    return made


def trials(found, study):
    """
    Tabulate recipes that were tried for the same processor time.

    Parameters
    ----------
    found : list of dict
        What was tried; ``benchmarks/trials.py`` adds these.
    study : str
        Which of them.

    Returns
    -------
    pandas.DataFrame
        A row a trial; the best score of a column stands out, the untrained
        network's is in brackets.
    """
    found = [trial for trial in found if trial["study"] == study]
    made = pd.DataFrame(
        {
            "trial": [trial["name"] for trial in found],
            "weights": [f"{trial['weights']:,}" for trial in found],
            "steps": [trial["steps"] for trial in found],
        }
    )
    for task in ("multipitch", "ensemble", "note_instrument"):
        for layer in "zc":
            values = [_of(trial, "cpc", task, layer) for trial in found]
            if not all(values):
                continue
            before = [_of(trial, "random", task, layer) for trial in found]
            made[f"{in_words(task)}, {layer}"] = [
                Score(value, bold=value == max(values), before=untrained)
                for value, untrained in zip(values, before, strict=True)
            ]
    return made


def studies(found):
    """
    Tabulate all trials of the code as it is, study by study.

    Parameters
    ----------
    found : list of dict
        What was tried; see :func:`trials`.

    Returns
    -------
    pandas.DataFrame
        As of :func:`trials`, with a row that names each study above its trials.
    """
    found = [trial for trial in found if trial["flags"] is not None]
    parts = []
    for study in dict.fromkeys(trial["study"] for trial in found):
        title = pd.DataFrame({"trial": [f"{study.capitalize()}:"]}, dtype=object)
        parts += [title, trials(found, study).astype(object)]
    return pd.concat(parts, ignore_index=True)


def gained(found):
    """
    Count trials that end above the untrained network.

    Parameters
    ----------
    found : list of dict
        What was tried; one that stands in several studies counts once.

    Returns
    -------
    dict of str to tuple
        By task, scores that training raised, and all of them.
    """
    counts = {}
    once = {tuple(t["flags"]): t for t in found if t["flags"] is not None}
    for trial in once.values():
        for key, value in trial["validation"].items():
            task, what, share = key.split()
            if what.startswith("cpc-") and share == TRIED:
                untrained = trial["validation"][key.replace(" cpc-", " random-")]
                up, n = counts.get(task, (0, 0))
                counts[task] = up + (value > untrained), n + 1
    return counts


def _of(trial, who, task, layer):
    """Read one score of a trial, if it has it."""
    return trial["validation"].get(f"{task} {who}-{layer} {TRIED}")


LAYERS = {
    "cpc-z": "z",
    "cpc-c": "c",
    "random-z": "z, untrained",
    "random-c": "c, untrained",
    "logmel": "log-mel",
}
"""Names of what is probed inside a network."""


def carried(inside):
    """
    Tabulate what a frame carries.

    Parameters
    ----------
    inside : dict
        What ``jtm inside`` found.

    Returns
    -------
    pandas.DataFrame
        A row for each representation and for chance, a column for each question.
    """
    rows, chance = {}, {"": "chance"}
    for each in inside["carried"]:
        row = rows.setdefault(
            each["representation"], {"": LAYERS[each["representation"]]}
        )
        row[each["what"]] = Score(each["value"], each["low"], each["high"])
        chance[each["what"]] = Score(each["chance"])
    return pd.DataFrame([*rows.values(), chance], dtype=object)


def neighbours(inside):
    """
    Tabulate how many nearest neighbours are of a kind.

    Parameters
    ----------
    inside : dict
        What ``jtm inside`` found.

    Returns
    -------
    pandas.DataFrame
        A row for each representation and for chance, a column for each kind.
    """
    made = {"": [*LAYERS.values(), "chance"]}
    for each in inside["maps"]:
        shares = [*(each["purity"][name] for name in LAYERS), each["chance"]]
        made[f"{each['colour']} of {each['of']}"] = [Score(share) for share in shares]
    return pd.DataFrame(made)


def steps(speed):
    """
    Tabulate a training step's time and memory, ours beside the published one.

    Parameters
    ----------
    speed : dict
        What ``benchmarks/cpc_step.py`` found.

    Returns
    -------
    pandas.DataFrame
        A row for each criterion and precision.
    """
    base = speed["steps"][0]["seconds"]
    rows = [
        {
            "criterion, precision": row["name"],
            "seconds a step": f"{row['seconds']:.2f}",
            "times as fast": f"{base / row['seconds']:.1f}",
            "memory": f"{row['bytes'] / 1e9:.2f} GB" if row["bytes"] else "",
            "share of a matrix product's speed": f"{100 * row['share_of_peak']:.0f} %",
        }
        for row in speed["steps"]
    ]
    return pd.DataFrame(rows)


def profile(speed):
    """
    Tabulate where a training step's time goes.

    Parameters
    ----------
    speed : dict
        What ``benchmarks/cpc_step.py`` found.

    Returns
    -------
    pandas.DataFrame
        A row for each part of the network, columns for presets and directions.
    """
    made = {}
    for preset, parts in speed["profile"].items():
        total = sum(sum(times.values()) for times in parts.values())
        for way in ("forward", "backward"):
            made[f"`{preset}`, {way}"] = {
                part: f"{1000 * times[way]:.0f} ms ({100 * times[way] / total:.0f} %)"
                for part, times in parts.items()
            }
    return pd.DataFrame(made).rename_axis("part").reset_index()


def dataset(data):
    """
    Tabulate the splits of the toy set.

    Parameters
    ----------
    data : dict
        What ``toy/datasheet.py`` counted.

    Returns
    -------
    pandas.DataFrame
        A row a split.
    """
    table = pd.DataFrame.from_dict(data["splits"], orient="index", dtype=object)
    table["hours"] = [f"{hours:.2f}" for hours in table["hours"]]
    table["notes"] = [f"{notes:,}" if notes else "" for notes in table["notes"]]
    table = table.rename_axis("split").reset_index()
    return table.assign(split=[in_words(split) for split in table["split"]])
