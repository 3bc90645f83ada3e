"""Synthetic benchmark records with planted effects, for tests of tables and figures."""

import numpy as np
import pandas as pd

from jtm.results import records
from jtm.results.compare import Benchmark
from jtm.results.records import Contrast

TASKS = {
    "transcription": ("note_f1", (1, 3, 10, 30, 294), 0.55, 0.35),
    "instrument_activity": ("average_precision", (10, 30, 294), 0.5, 0.3),
    "who_plays_what": ("average_precision", (10, 30, 294), 0.3, 0.35),
    "ensemble": ("accuracy", (10, 30, 294), 0.3, 0.3),
    "composer": ("accuracy", (10, 30, 294), 0.35, 0.15),
}
"""Metric, amounts of labels, score with the fewest labels and gain with all."""

EFFECTS = {
    "scratch": 0.0,
    "cpc-finetuned": 0.05,
    "cpc-frozen": 0.0,
    "untrained-frozen": -0.06,
    "scratch-selftrained": 0.03,
    "cpc-selftrained": 0.06,
    "logmel": -0.12,
    "cqt": -0.1,
}
"""Gain of each method over training from scratch with the fewest labels."""

CONTRASTS = [
    Contrast(task, *pair, amount, split)
    for task, amounts in (
        ("transcription", (1, 3, 10)),
        ("who_plays_what", (10, 30)),
        ("instrument_activity", (10, 30)),
    )
    for amount in amounts
    for pair in (
        ("cpc-finetuned", "scratch"),
        ("cpc-selftrained", "scratch-selftrained"),
        ("cpc-frozen", "untrained-frozen"),
    )
    for split in ("test", "test_timbre")
]


def plan(tasks=TASKS):
    """List the cells of a benchmark."""
    return [
        (task, method, amount, seed)
        for task in tasks
        for method in EFFECTS
        for amount in TASKS[task][1]
        for seed in range(5 if amount <= 3 else 3)
    ] + [(task, "largest", 294, 0) for task in tasks if TASKS[task][0] == "accuracy"]


def cell(task, method, amount, seed, n_draws=400):
    """Make the rows of a cell, with their draws."""
    metric, amounts, low, room = TASKS[task]
    # Families are equally hard for every method; draws of a split are paired.
    grown = np.log(amount / amounts[0]) / np.log(amounts[-1] / amounts[0])
    own = np.random.default_rng([seed, *f"{task}{method}{amount}".encode()])
    rows = []
    for place, split in enumerate(records.SPLITS):
        shared = np.random.default_rng([place, *task.encode()])
        value = low + room * grown - 0.1 * place
        value += EFFECTS.get(method, -0.2) * (1 - 0.7 * grown) + own.normal(0, 0.006)
        drawn = value + shared.normal(0, 0.02, n_draws) + own.normal(0, 0.005, n_draws)
        about = {"task": task, "method": method, "labelled_recordings": amount}
        about |= {"seed": seed, "split": split, "seconds": 60.0}
        main = {"metric": metric, "value": float(np.clip(value, 0, 1)), "primary": True}
        rows.append(about | main)
        rows.append(about | {"metric": "minor", "value": 0.5, "primary": False})
        if split != "validation":
            rows[-2]["draws"] = drawn
    return rows


def header(tasks=TASKS):
    """Make the header of a benchmark."""
    named = [each for each in CONTRASTS if each.task in tasks]
    return {"data": "d" * 64, "checkpoint": "c" * 64} | {
        "plan": plan(tasks),
        "contrasts": named,
    }


def bench(tasks=TASKS, without=lambda cell: False, n_draws=200):
    """Make a benchmark without the cells for which `without` is true."""
    cells = [cell(*each, n_draws) for each in plan(tasks) if not without(each)]
    return Benchmark(table_of([row for rows in cells for row in rows]), header(tasks))


def table_of(rows):
    """Make a table of rows, as it is read."""
    table = records._check(pd.DataFrame(rows, columns=records.COLUMNS), "synthetic")
    drawn = [
        row["draws"].clip(0, 1).round(4) if "draws" in row else None for row in rows
    ]
    return table.assign(draws=pd.Series(drawn, dtype=object))


def run(folder, tasks=TASKS, n_draws=100):
    """Run a benchmark, cell by cell; return the path to its table."""
    records.begin(folder, **header(tasks))
    for each in plan(tasks):
        records.save_cell(folder, "-".join(map(str, each)), cell(*each, n_draws))
    records.compile_cells(folder)
    return folder / records.TABLE
