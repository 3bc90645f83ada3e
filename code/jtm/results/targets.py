"""
What the project set out to show, and whether the grid shows it.

Each target is a set of comparisons on held-out works, and is reached where all of them
hold. A comparison asks for a difference whose 95 % interval lies above zero, or above
or at a stated margin; rows are chosen by validation, as everywhere.
"""

from typing import NamedTuple

from jtm.results import readings
from jtm.results.compare import CPC, LINES, TASKS

FEW = (0.001, 0.003, 0.01)
"""Shares of the labels that count as few."""

MARGIN = 0.05
"""Lead through an unheard SoundFont that is aimed at."""


ROUNDING = 1e-9
"""Below which a difference of sums is none."""


class Comparison(NamedTuple):
    """
    One comparison that a target asks for.

    Parameters
    ----------
    task : str
        What is asked.
    about : str
        What is compared beside the task, such as the share of the labels.
    found : Estimate
        Our score less the other's, or less the margin.
    holds : bool
        Whether it is as the target has it.
    """

    task: str
    about: str
    found: object
    holds: bool


class Target(NamedTuple):
    """
    One target.

    Parameters
    ----------
    name : str
        What was aimed at, in short.
    text : str
        The same in full.
    compared : list of Comparison
        The comparisons that have run.
    """

    name: str
    text: str
    compared: list

    @property
    def reached(self):
        """Whether all comparisons hold; None where none has run."""
        return all(each.holds for each in self.compared) if self.compared else None


def targets(grid):
    """
    Judge every target by the grid.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    list of Target
        In the order in which they were set.
    """
    tasks = [task for task in TASKS if task in grid.tasks]
    chances = [(task, fraction) for task in tasks for fraction in grid.fractions(task)]

    def ahead(wanted, ours, others, split="test"):
        made = []
        for task, fraction in wanted:
            rows = ours(task, fraction), others(task, fraction)
            found = all(rows) and grid.difference(*rows, split)
            if found:
                about = readings.percent(fraction)
                made.append(Comparison(task, about, found, found.verdict > 0))
        return made

    def line(*names):
        return lambda task, fraction: grid.line(task, names, fraction)

    def linear(name):
        return lambda task, fraction: grid.best(
            row
            for row in grid.rows(task, fraction)
            if row.representation in LINES[name] and row.probe == "linear"
        )

    few = [(task, fraction) for task, fraction in chances if fraction in FEW]
    most = ("ensemble", "instrument", "multipitch")
    level = []
    for task in most:
        rows = line(*CPC)(task, 0.01), line("supervised")(task, 0.1)
        found = all(rows) and grid.difference(*rows)
        if found:
            level.append(
                Comparison(task, "1 % against 10 %", found, found.value > -ROUNDING)
            )
    unheard = [
        each._replace(holds=each.found.value > MARGIN - ROUNDING)
        for each in ahead(
            [(task, 0.01) for task in ("multipitch", "note_instrument", "ensemble")],
            line(*CPC),
            line("supervised"),
            "test_timbre",
        )
    ]
    windows = ("ensemble", "composer", "instrument")
    pitched = ("multipitch", "transcription")
    return [
        Target(
            "few labels, ahead of supervised",
            "With 0.1, 0.3 and 1 % of the labels CPC is ahead of the same network "
            "trained from scratch, on every task",
            ahead(few, line(*CPC), line("supervised")),
        ),
        Target(
            "1 %, level with supervised at 10 %",
            "With 1 % of the labels CPC reaches what training from scratch reaches "
            "with 10 %, on ensemble, instrument and multi-pitch",
            level,
        ),
        Target(
            "1 %, unseen SoundFont, 5 points ahead of supervised",
            "With 1 % of the labels, all of one SoundFont, CPC is 5 points ahead of "
            "training from scratch through an unheard SoundFont, on multi-pitch, "
            "single notes' instrument and ensemble",
            unheard,
        ),
        Target(
            "linear probe, ahead of log-mel",
            "A linear probe on frozen features is ahead of one on log-mel, on every "
            "task",
            ahead(chances, linear("CPC, frozen"), linear("log-mel")),
        ),
        Target(
            "linear probe, ahead of constant-Q on windows",
            "A linear probe on frozen features is ahead of one on constant-Q, on "
            "ensemble, composer and instrument",
            ahead(
                [each for each in chances if each[0] in windows],
                linear("CPC, frozen"),
                linear("constant-Q"),
            ),
        ),
        Target(
            "pitches, best row ahead of constant-Q",
            "The best row of CPC is ahead of the best of constant-Q, on multi-pitch "
            "and transcription",
            ahead(
                [each for each in chances if each[0] in pitched],
                line(*CPC),
                line("constant-Q"),
            ),
        ),
        Target(
            "unseen SoundFont costs no more than supervised",
            "From the heard to the unheard SoundFont CPC loses no more than the "
            "supervised network",
            _kept(grid, chances),
        ),
    ]


def _kept(grid, chances):
    """Compare what CPC and the supervised network lose through another SoundFont."""
    made = []
    for task, fraction in chances:
        rows = (grid.line(task, names, fraction) for names in (CPC, ("supervised",)))
        ours, other = rows
        found = ours and other and grid.change(ours, other)
        if found:
            about = readings.percent(fraction)
            made.append(Comparison(task, about, found, found.value > -ROUNDING))
    return made


def page(grid):
    """
    Say of each target whether it is reached, and where not.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        Markdown: a numbered list.
    """
    return "\n".join(
        f"{number}. {target.text}: {verdict(target)}"
        for number, target in enumerate(targets(grid), 1)
    )


def table(grid):
    """
    Tabulate the targets.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        Markdown; empty where no comparison has run.
    """
    rows = [["target", "holds in", "reached"]]
    for target in targets(grid):
        held = sum(each.holds for each in target.compared)
        word = {True: "yes", False: "no", None: "not run"}[target.reached]
        rows.append([target.name, f"{held} of {len(target.compared)}", word])
    run = any(target.compared for target in targets(grid))
    return readings.markdown(rows) if run else ""


def verdict(target):
    """
    Say whether a target is reached, and where not.

    Parameters
    ----------
    target : Target
        The target.

    Returns
    -------
    str
        One or two sentences.
    """
    if target.reached is None:
        return "**not run**."
    count = len(target.compared)
    held = sum(each.holds for each in target.compared)
    said = f"**{'reached' if target.reached else 'not reached'}**, in {held} of {count}"
    if count <= 3:
        named = target.compared
    else:
        named = [each for each in target.compared if not each.holds]
    parts = {}
    for each in named:
        told = f"{each.about} ({readings.difference_text(each.found)})"
        parts.setdefault(each.task, []).append(told)
    if not parts:
        return f"{said}."
    listed = "; ".join(f"{task} {', '.join(told)}" for task, told in parts.items())
    return f"{said}. {'Found' if count <= 3 else 'Not'}: {listed}."
