"""
What the project set out to show, and whether the grid shows it.

Each target is a set of comparisons on held-out works, and is reached where all of them
hold. Where one is to be ahead, the 95 % interval of the difference lies above zero;
where one is to reach another's score, to lose no more, or to lead by so many points,
the difference itself counts. Rows are chosen by validation, as everywhere.
"""

from typing import NamedTuple

from jtm.results import readings
from jtm.results.compare import CPC, LINES, TASKS

FEW = (0.001, 0.003, 0.01)
"""Shares of the labels that count as few, which the hypothesis is about."""

MOST = ("ensemble", "instrument", "multipitch")
"""Tasks in which 1 % of the labels should do as well as 10 % without CPC."""

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
    chances = [(task, fraction) for task in tasks for fraction in grid.distinct(task)]

    def beside(name, split="test"):
        return lambda task, share: readings.compare_lines(
            grid, task, name, share, split
        )

    def linear_beside(name):
        def compare(task, fraction):
            rows = [
                grid.best(
                    row
                    for row in grid.rows(task, fraction)
                    if row.representation in LINES[line] and row.probe == "linear"
                )
                for line in ("CPC, frozen", name)
            ]
            return all(rows) and grid.difference(*rows)

        return compare

    def sooner(task, fraction):
        rows = grid.line(task, CPC, fraction), grid.line(task, ("supervised",), 0.1)
        return all(rows) and grid.difference(*rows)

    few = [(task, fraction) for task, fraction in chances if fraction in FEW]
    level = _judge([(task, 0.01) for task in MOST], sooner, _no_less)
    level = [each._replace(about="1 % against 10 %") for each in level]
    unheard = _judge(
        [(task, 0.01) for task in ("multipitch", "note_instrument", "ensemble")],
        beside("supervised", "test_timbre"),
        lambda found: found.value > MARGIN - ROUNDING,
    )
    windows = ("ensemble", "composer", "instrument")
    pitched = ("multipitch", "transcription")
    return [
        Target(
            "few labels, ahead of supervised",
            "With 0.1, 0.3 and 1 % of the labels CPC is ahead of the same network "
            "trained from scratch, on every task",
            _judge(few, beside("supervised")),
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
            _judge(chances, linear_beside("log-mel")),
        ),
        Target(
            "linear probe, ahead of constant-Q on windows",
            "A linear probe on frozen features is ahead of one on constant-Q, on "
            "ensemble, composer and instrument",
            _judge(
                [each for each in chances if each[0] in windows],
                linear_beside("constant-Q"),
            ),
        ),
        Target(
            "pitches, best row ahead of constant-Q",
            "The best row of CPC is ahead of the best of constant-Q, on multi-pitch "
            "and transcription",
            _judge(
                [each for each in chances if each[0] in pitched],
                beside("constant-Q"),
            ),
        ),
        Target(
            "unseen SoundFont costs no more than supervised",
            "From the heard to the unheard SoundFont CPC loses no more than the "
            "supervised network",
            kept(grid, chances),
        ),
    ]


def _judge(wanted, compare, holds=lambda found: found.verdict > 0):
    """Compare what has run of tasks and shares of the labels."""
    made = []
    for task, fraction in wanted:
        found = compare(task, fraction)
        if found:
            about = readings.percent(fraction)
            made.append(Comparison(task, about, found, holds(found)))
    return made


def _no_less(found):
    return found.value > -ROUNDING


def kept(grid, wanted):
    """
    Compare what CPC and the supervised network lose through another SoundFont.

    Parameters
    ----------
    grid : Grid
        The results.
    wanted : sequence of tuple
        Tasks and shares of the labels.

    Returns
    -------
    list of Comparison
        Those that have run; each holds where CPC loses no more.
    """

    def compare(task, fraction):
        rows = [grid.line(task, names, fraction) for names in (CPC, ("supervised",))]
        return all(rows) and grid.change(*rows)

    return _judge(wanted, compare, _no_less)


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
    found = targets(grid)
    for target in found:
        held = sum(each.holds for each in target.compared)
        word = {True: "yes", False: "no", None: "not run"}[target.reached]
        rows.append([target.name, f"{held} of {len(target.compared)}", word])
    return readings.markdown(rows) if any(each.compared for each in found) else ""


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
