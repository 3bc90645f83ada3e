"""Tables that compare transcribers, ingredients of training and targets."""

import pandas as pd

from jtm.results.compare import Score
from jtm.results.tables import join, pivot

TRANSCRIBERS = {
    "jtm": "JTM",
    "basic-pitch": "Basic Pitch",
    "harmonica-nano": "harmonica, nano",
    "harmonica-small": "harmonica, small",
    "harmonica-medium": "harmonica, medium",
}
"""Names of the transcribers, ours first."""

SPEEDS = {"speed": "bf16", "speed_without_bf16": "no bf16"}
"""Records of speed, by whether the processor has bf16 instructions."""

TARGETS = {
    "toy": ("onset", 0.92),
    "unseen": ("onset", 0.86),
    "mixes": ("onset", 0.83),
    "piano": ("onset", 0.85),
    "notes": ("found", 0.96),
}
"""Metric and target value of our transcriber on each set."""


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
            words = join(values[metric] for metric in shown)
            row[results["sets"][each]["title"]] = words
        row["weights"] = f"{results['systems'][system]['weights_bytes'] / 1e6:.2f} MB"
        if cost := _costs(results).get(system):
            speed = 1 / cost["processor_seconds_of_1_thread"]
            row["times real time"] = f"{speed:.0f}"
            row["memory"] = f"{cost['peak_bytes'] / 1e6:.0f} MB"
        table.append(row)
    return pd.DataFrame(table)


def _costs(results):
    """Return speed and memory by system, with bf16 instructions if measured so."""
    return results["speed"] or results.get("speed_without_bf16") or {}


def speeds(results):
    """Tabulate times real time, by threads and bf16 instructions of the processor."""
    times = {
        "processor_seconds_of_1_thread": "one thread",
        "seconds_of_2_threads": "two threads",
    }
    return pivot(
        (
            {"transcriber": TRANSCRIBERS[system]},
            f"{words}, {kind}",
            f"{1 / cost[name]:.0f}",
        )
        for record, kind in SPEEDS.items()
        for name, words in times.items()
        for system in TRANSCRIBERS
        if name in (cost := (results.get(record) or {}).get(system, {}))
    )


def ahead(results):
    """
    Tabulate by how much our note F1 exceeds that of each other transcriber.

    A column is a set; differences whose interval excludes zero are in bold.
    """
    return pivot(
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
    return pivot(
        (
            {
                "learned from": row["with"],
                "added to": row["beside"] or "",
                "steps": f"{row['steps']}",
                "seeds": f"{row['seeds']}",
            },
            results["sets"][row["set"]],
            Score(row["value"], row["low"], row["high"], bold=(low or 0) > 0),
        )
        for row in results["scores"]
        for low in [row.get("difference", {}).get("low")]
    )


def count_steps(log):
    """Count the steps of a training log and of the runs before it, where known."""
    steps = log["history"][-1]["step"]
    while log := log["before"]:
        steps += log["steps"] or 0
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
    if cost := _costs(results).get("jtm"):
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
