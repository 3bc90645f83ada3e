"""
What was found inside a network, in tables and plain sentences.

Answers are read from what :mod:`jtm.evaluation.inside` wrote, where each question
is explained; figures of them are in :mod:`jtm.results.figures`.
"""

import zipfile
from pathlib import Path

import numpy as np

from jtm.files import InputError, atomic, read_json
from jtm.results import tables
from jtm.results.compare import Estimate
from jtm.results.tables import points as difference_text

NAMES = {
    "cpc-z": "z",
    "cpc-c": "c",
    "random-z": "z, untrained",
    "random-c": "c, untrained",
    "logmel": "log-mel",
    "notes": "the notes",
}
"""Names of what is probed."""


def _score_text(estimate):
    """Write a score and its interval in percent."""
    return tables.write_cell(tables.Score(*estimate[:3]))


def _markdown(rows):
    """Lay out a Markdown table."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


QUESTIONS = ("filters", "carried", "memory", "form", "maps")
"""What a file of answers has."""


def read_answers(path):
    """
    Read what was found, and the arrays beside it.

    Parameters
    ----------
    path : str or Path
        The JSON file; the arrays are in a file of the same name ending in
        ``.npz``.

    Returns
    -------
    found : dict
        The answers; see :mod:`jtm.evaluation.inside`.
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


def estimate(answer):
    """
    Give an answer as an estimate.

    Parameters
    ----------
    answer : dict
        Has ``value``, ``low`` and ``high``.

    Returns
    -------
    Estimate
        The same.
    """
    return Estimate(answer["value"], answer["low"], answer["high"], 1)


def _table(answers, column, heads, chance=None):
    """Tabulate answers: a row for each representation, a column for each head."""
    cells = {}
    for each in answers:
        row = cells.setdefault(each["representation"], {})
        row[each[column]] = _score_text(estimate(each))
    rows = [["", *heads.values()]]
    rows += [
        [NAMES[name], *(row.get(head, "") for head in heads)]
        for name, row in cells.items()
    ]
    if chance:
        rows.append(["chance", *(f"{100 * chance[head]:.1f}" for head in heads)])
    return _markdown(rows)


def carried_table(answers):
    """
    Tabulate what a frame carries.

    Parameters
    ----------
    answers : list of dict
        The answers to that question.

    Returns
    -------
    str
        Markdown: a row for each representation and for chance, a column for each
        thing that was asked.
    """
    chance = {each["what"]: each["chance"] for each in answers}
    return _table(answers, "what", {what: what for what in chance}, chance)


def neighbours_table(answers):
    """
    Tabulate how many neighbours are of a kind.

    Parameters
    ----------
    answers : list of dict
        The answers to that question, at least one.

    Returns
    -------
    str
        Markdown: a row for each representation and for chance, a column for each
        kind.
    """
    rows = [["", *(f"{each['colour']} of {each['of']}" for each in answers)]]
    for name in answers[0]["purity"]:
        shares = [f"{100 * each['purity'][name]:.1f}" for each in answers]
        rows.append([NAMES[name], *shares])
    rows.append(["chance", *(f"{100 * each['chance']:.1f}" for each in answers)])
    return _markdown(rows)


def remembered(leads):
    """
    Tell how far back c knows what nothing at hand tells.

    Parameters
    ----------
    leads : list of dict
        How far c is ahead of others, for each time before.

    Returns
    -------
    str
        A list with one sentence for each of the others.
    """
    said = []
    for over in dict.fromkeys(each["over"] for each in leads):
        ahead = [
            f"{each['delay']:g} s ({difference_text(estimate(each))})"
            for each in leads
            if each["over"] == over and estimate(each).verdict > 0
        ]
        where = ", ".join(ahead) if ahead else "no time before"
        said.append(f"- c tells more than {NAMES[over]} about {where}.")
    return "\n".join(said)


def tuning(filters):
    """
    Say where the filters sit.

    Parameters
    ----------
    filters : dict or None
        The answer to that question.

    Returns
    -------
    str
        A sentence.
    """
    if filters is None:
        return "The network has no filters that learn."
    start, trained = filters["start"], filters["trained"]
    return (
        f"Training moved the centres of its {len(trained['centre'])} filters by "
        f"{100 * filters['moved']:.0f} cents on average. Within 25 cents of a pitch of "
        f"the tempered scale lie {100 * trained['in_tune']:.0f} % of them, "
        f"{100 * start['in_tune']:.0f} % at the start; half would by chance. The "
        f"median width is {np.median(trained['width']):.1f} semitones, "
        f"{np.median(start['width']):.1f} at the start."
    )


def page(found, pictures):
    """
    Write the page of what was found inside.

    Parameters
    ----------
    found : dict
        The answers.
    pictures : dict of str to str
        Path of each figure from the page, by name; see
        :func:`jtm.results.figures.inside_figures`.

    Returns
    -------
    str
        Markdown.
    """
    counts = ", ".join(f"{n} of {s}" for s, n in found["recordings"].items())
    parts = [
        "# Inside the network",
        f"Written by `python -m jtm report` from `inside.json`: network "
        f"{found['checkpoint'][:8]}, dataset `{found['data']}` (recordings: {counts}), "
        f"code {found['revision']}. Untrained is the same network before training, "
        "with another seed. Numbers are in percent, with 95 % intervals over "
        "recordings.",
        "## What a frame carries",
        "Linear probes on held-out works: average precision of the pitches, and of "
        "the instruments, that sound; share of the variance of the loudness in "
        "decibels that is explained.",
    ]
    parts.append(carried_table(found["carried"]))
    parts += _picture(pictures, "carried", "What a frame carries")
    if found["memory"]:
        scores, leads = found["memory"]["scores"], found["memory"]["leads"]
        heads = {each["delay"]: f"{each['delay']:g} s" for each in scores}
        parts += [
            "## How far back",
            "Average precision of a linear probe for what sounded some time before. "
            "Music repeats itself: the notes that sound now, probed alike, say how "
            "much.",
            remembered(leads),
            _table(scores, "delay", heads),
            *_picture(pictures, "memory", "What is known of the past"),
        ]
    form = found["form"]
    if form:
        parts += [
            "## The form of a piece",
            f"Correlation of the self-similarity of features with that of the notes, "
            f"moments of {form['seconds']:g} s that are not neighbours, mean of "
            f"{form['pieces']} pieces.",
            _table(
                [each | {"what": "form"} for each in form["agreement"]],
                "what",
                {"form": "correlation"},
            ),
            *_picture(pictures, "form", f"Self-similarity of {form['shown']}"),
        ]
    if found["maps"]:
        parts += [
            "## Who lives next to whom",
            "Share of the ten nearest neighbours, in all dimensions, that are of the "
            "same kind; neighbours of the same recording, or note, do not count.",
            neighbours_table(found["maps"]),
            *_picture(pictures, "maps", "Maps of z and c"),
        ]
    parts += ["## Filters", tuning(found["filters"])]
    parts += _picture(pictures, "filters", "Where the filters sit")
    return "\n\n".join(parts) + "\n"


def _picture(pictures, name, text):
    """Link a figure, if there is one."""
    return [f"![{text}]({pictures[name]})"] if name in pictures else []


def write_page(folder):
    """
    Write the page of what was found inside, and its figures.

    Parameters
    ----------
    folder : str or Path
        Folder of the report, with ``results/inside.json``; the page becomes
        ``results/INSIDE.md``, a figure ``figures/inside-NAME.svg``. Where nothing
        was asked, nothing is written.
    """
    from jtm.results import figures

    path = Path(folder) / "results" / "inside.json"
    if not path.exists():
        return
    found, arrays = read_answers(path)
    drawings = figures.inside_figures(found, arrays)
    pictures = {name: f"../figures/inside-{name}.svg" for name in drawings}
    for name, draw in drawings.items():
        figure = draw()
        for ending in ("svg", "pdf") if name == "memory" else ("svg",):
            figures.save(figure, Path(folder) / "figures" / f"inside-{name}.{ending}")
    with atomic(path.with_name("INSIDE.md")) as part:
        part.write_text(page(found, pictures), encoding="utf-8")
