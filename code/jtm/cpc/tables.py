"""Tables of pretraining recipes, and of what the network's layers encode."""

from statistics import fmean

import pandas as pd

from jtm.results.compare import Score
from jtm.results.tables import pivot

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

KNOWN = {
    "from scratch": "scratch",
    "from scratch, self-trained": "scratch-selftrained",
    "shipped recipe": "cpc-finetuned",
}
"""Methods of the benchmark that are shown next to trials, by their names there."""


def trials(results, bench=None):
    """
    Tabulate the scores of pretraining recipes, of ``benchmarks/trials.py``.

    A row is a recipe; the first rows are methods of a benchmark: :data:`KNOWN`.
    Validation scores are in percent, means over the same seeds.
    """
    columns = {}
    for (task, amount), head in TRIED.items():
        key = f"{task} {amount}"
        tried = {each["name"]: each["validation"].get(key) for each in results}
        tried = {name: values for name, values in tried.items() if values}
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
    return pd.DataFrame(columns).reset_index(names="recipe")


def by_representation(results, column):
    """
    Tabulate results of ``jtm inside``: a row per representation.

    Results have ``representation``, ``value`` and, if there is an interval, ``low`` and
    ``high``; `column` is a format string for the heading of a result's column, such as
    '{delay:g} s'.
    """
    return pivot(
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
