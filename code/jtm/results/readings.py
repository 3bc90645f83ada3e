"""
What the grid says, in tables and plain sentences, none of them typed by hand.

Differences and their intervals are of :mod:`jtm.results.compare`; 'ahead' and
'behind' are said where the 95 % interval of a difference leaves out zero, and
'not significantly different' where it does not. Shares of the labels that come to the
same labels are compared once.
"""

from jtm.results.compare import CPC, FRACTIONS, LINES, SEEDS, TASKS, seconds_to

OPPONENTS = {
    "constant-Q": "constant-Q",
    "log-mel": "log-mel",
    "untrained": "the same network untrained",
    "supervised": "the same network supervised from scratch",
}
"""Lines that ours are compared with, and how sentences call them."""

ASIDE = {
    "fine-tuned beside supervised": (
        ("CPC, fine-tuned",),
        True,
        "the network fine-tuned from CPC, which differs in the weights that it starts "
        "from alone,",
    ),
    "untrained beside supervised": (
        ("untrained",),
        True,
        "the untrained network under the probes of CPC",
    ),
    "CPC without slow features beside supervised": (
        CPC,
        False,
        "CPC without slow features",
    ),
}
"""
Comparisons with the supervised network that tell what a lead of CPC is owed to: the
lines, whether slow features may stand for them, and how sentences call them.
"""

WITHOUT = ("supervised", "untrained")
"""The opponents that are the same network, without pretraining."""

VERDICTS = {1: "ahead", 0: "not significantly different", -1: "behind"}

SIGNS = {1: "+", 0: "=", -1: "−", None: "·"}
"""Marks of an overview: ahead, not significantly different, behind, no comparison."""

REACHED = 0.95
"""Share of the supervised network's best validation score that is waited for."""


def markdown(rows):
    """
    Lay out a Markdown table.

    Parameters
    ----------
    rows : list of list of str
        The heads, then the rows.

    Returns
    -------
    str
        The table.
    """
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def percent(share):
    """
    Name a share.

    Parameters
    ----------
    share : float
        The share, 0.1 being '10 %'.

    Returns
    -------
    str
        In percent.
    """
    return f"{100 * share:g} %"


def duration(seconds):
    """
    Name a length of time.

    Parameters
    ----------
    seconds : float
        The time.

    Returns
    -------
    str
        In the unit that suits it, to two figures.

    Examples
    --------
    >>> duration(5400), duration(7200)
    ('90 min', '2.0 h')
    """
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"


def metric_text(metric):
    """
    Name a metric.

    Parameters
    ----------
    metric : str
        As in a record, such as 'note_f1'.

    Returns
    -------
    str
        As in a sentence, such as 'note F1'.
    """
    return metric.replace("_", " ").replace("f1", "F1")


def score_text(estimate, bold=False):
    """
    Write a score and its interval in percent.

    Parameters
    ----------
    estimate : Estimate
        The score.
    bold : bool
        Whether it stands out.

    Returns
    -------
    str
        As '81.3 [78.0, 84.2]'.
    """
    value = f"{100 * estimate.value:.1f}"
    value = f"**{value}**" if bold else value
    if estimate.low is None:
        return value
    return f"{value} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def difference_text(estimate):
    """
    Write a difference and its interval in percentage points.

    Parameters
    ----------
    estimate : Estimate
        The difference.

    Returns
    -------
    str
        As '+3.1 [0.4, 5.9]'.
    """
    value = f"{100 * estimate.value:+.1f}".replace("-", "−")
    if estimate.low is None:
        return f"{value}, no interval"
    ends = f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return f"{value} {ends}".replace("-", "−")


def row_text(row):
    """
    Name a row without its task and share.

    Parameters
    ----------
    row : Row
        Which.

    Returns
    -------
    str
        The representation and its probe.
    """
    if row.probe == "network":
        return f"`{row.representation}`"
    return f"`{row.representation}` with the {row.probe} probe"


def seeds_text(grid):
    """
    Say how many seeds scores are means over.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        As '3 seeds', or '1 to 3 seeds' where rows differ.
    """
    fewest, most = grid.n_seeds
    if most == 1:
        return "a single seed"
    return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"


def score_table(grid, task, split="test"):
    """
    Tabulate the rows of a task over the shares of labels.

    Parameters
    ----------
    grid : Grid
        The results.
    task : str
        What is asked.
    split : str
        Where it was scored.

    Returns
    -------
    str
        A row for each representation and probe, a column for each share; the
        highest of a column is bold, and a cell that has not run is empty.
    """
    fractions = grid.fractions(task)
    heads = [
        f"{percent(fraction)} ({duration(grid.labelled[task, fraction])})"
        for fraction in fractions
    ]
    cells, best = {}, dict.fromkeys(fractions, -1.0)
    for row in grid.rows(task, split=split):
        found = grid.score(row, split)
        cells.setdefault((row.representation, row.probe), {})[row.fraction] = found
        best[row.fraction] = max(best[row.fraction], found.value)
    rows = [["representation", "probe", *heads]]
    for names, row in cells.items():
        made = [
            score_text(row[f], row[f].value == best[f]) if f in row else ""
            for f in fractions
        ]
        rows.append([*names, *made])
    return markdown(rows)


def compare_lines(grid, task, opponent, fraction, split="test", ours=CPC, slow=True):
    """
    Compare the best CPC row with another line, each chosen by validation.

    Parameters
    ----------
    grid : Grid
        The results.
    task : str
        What is asked.
    opponent : str
        One of :data:`jtm.results.compare.LINES`.
    fraction : float
        Share of the labels.
    split : str
        Where they were scored.
    ours : sequence of str
        Lines to compare in CPC's place.
    slow : bool
        Whether slow features may stand for these.

    Returns
    -------
    Estimate or None
        CPC's score less the other's; None where one has not run, or a larger share
        comes to the same labels.
    """
    if fraction not in grid.distinct(task):
        return None
    ours = grid.line(task, ours, fraction, slow)
    other = grid.line(task, (opponent,), fraction)
    return ours and other and grid.difference(ours, other, split)


def sentence(subject, found, of="of the labels"):
    """
    Say where one is ahead, where behind, and where that can't be told.

    Parameters
    ----------
    subject : str
        How the sentence begins.
    found : dict of float to Estimate or None
        Differences by share of the labels; None is passed over.
    of : str
        What the shares are shares of.

    Returns
    -------
    str
        One sentence; empty where there is no difference.
    """
    parts = []
    for sign, word in VERDICTS.items():
        shares = [
            f"{percent(share)} ({difference_text(each)})"
            for share, each in found.items()
            if each and each.verdict == sign
        ]
        if shares:
            parts.append(f"{word} with {', '.join(shares)}")
    if not parts:
        return ""
    return f"{subject} {'; '.join(parts)} {of}."


def sentences(grid, task):
    """
    Say who wins where in a task.

    Parameters
    ----------
    grid : Grid
        The results.
    task : str
        What is asked.

    Returns
    -------
    list of str
        Sentences with the differences in percentage points.
    """
    fractions = grid.fractions(task)
    chosen = {}
    for fraction in fractions:
        row = grid.best(grid.rows(task, fraction))
        if row:
            chosen.setdefault(row_text(row), []).append(percent(fraction))
    said = []
    if chosen:
        parts = [f"{name} with {listed(shares)}" for name, shares in chosen.items()]
        said.append(f"Validation scores highest {'; '.join(parts)} of the labels.")
    for opponent, name in OPPONENTS.items():
        found = {f: compare_lines(grid, task, opponent, f) for f in fractions}
        said.append(sentence(f"Compared with {name}, CPC is", found))
    # The hypothesis: little with CPC against all without.
    most = max(fractions, default=0)
    whole = grid.line(task, ("supervised",), most)
    if whole:
        ours = {f: grid.line(task, CPC, f) for f in fractions if f < most}
        found = {f: row and grid.difference(row, whole) for f, row in ours.items()}
        name = f"Compared with the supervised network with {percent(most)}, CPC is"
        said.append(sentence(name, found))
    return list(filter(None, said))


def listed(words):
    """
    Join words as a sentence does.

    Parameters
    ----------
    words : iterable of str
        The words.

    Returns
    -------
    str
        As 'a, b and c'.
    """
    words = list(words)
    if not words:
        return "none"
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def overview(grid):
    """
    Show at a glance where CPC wins.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        A table with a row for each task and a column for each opponent; a cell
        has a mark of :data:`SIGNS` for each share of the labels, from small to
        large.
    """
    fractions = sorted({f for task in grid.tasks for f in grid.fractions(task)})
    rows = [["task", *OPPONENTS]]
    for task in grid.tasks:
        cells = []
        for opponent in OPPONENTS:
            found = [compare_lines(grid, task, opponent, f) for f in fractions]
            cells.append(" ".join(SIGNS[each and each.verdict] for each in found))
        rows.append([task, *cells])
    return markdown(rows)


def verdicts(grid, opponent, fractions=FRACTIONS, split="test", ours=CPC, slow=True):
    """
    Sort the comparisons of CPC with another line by who wins.

    Parameters
    ----------
    grid : Grid
        The results.
    opponent : str
        One of :data:`jtm.results.compare.LINES`.
    fractions : sequence of float
        Shares of the labels that count.
    split : str
        Where they were scored.
    ours : sequence of str
        Lines to compare in CPC's place.
    slow : bool
        Whether slow features may stand for these.

    Returns
    -------
    dict of int to list of str
        The task of each comparison by its verdict: 1 ahead, 0 not significantly
        different, -1 behind; those that have not run are passed over.
    """
    found = {sign: [] for sign in VERDICTS}
    for task in grid.tasks:
        for fraction in grid.fractions(task):
            if fraction in fractions:
                each = compare_lines(grid, task, opponent, fraction, split, ours, slow)
                if each:
                    found[each.verdict].append(task)
    return found


def tally(grid):
    """
    Count the comparisons of CPC that were won, lost and left open.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    list of str
        One sentence for each opponent, with the tasks that were won or lost; then
        for each of :data:`ASIDE`.
    """
    compared = [(each, CPC, True, "CPC") for each in OPPONENTS]
    compared += [("supervised", *each) for each in ASIDE.values()]
    said = []
    for opponent, ours, slow, name in compared:
        found = verdicts(grid, opponent, ours=ours, slow=slow)
        total = sum(map(len, found.values()))
        if total:
            said.append(
                f"Of {total} comparisons with {OPPONENTS[opponent]}, {name} is "
                f"{counted(found)}."
            )
    return said


def counted(found):
    """
    Say in how many comparisons one is ahead, and in how many behind.

    Parameters
    ----------
    found : dict of int to list of str
        From :func:`verdicts`.

    Returns
    -------
    str
        With the tasks that were won or lost.
    """
    ahead, behind = (
        f"{VERDICTS[sign]} in {len(found[sign])}"
        f"{f' ({listed(dict.fromkeys(found[sign]))})' if found[sign] else ''}"
        for sign in (1, -1)
    )
    return f"{ahead}, {behind} and {VERDICTS[0]} in {len(found[0])}"


def short(grid, fractions):
    """
    Answer in short whether pretraining spares labels.

    Parameters
    ----------
    grid : Grid
        The results.
    fractions : sequence of float
        Shares of the labels that count as few.

    Returns
    -------
    str
        Sentences: CPC beside the supervised network with few labels, and what that
        is owed to. Empty where one of these has not run.
    """
    ours, untrained, tuned = (
        verdicts(grid, "supervised", fractions, ours=ours)
        for ours in (CPC, ("untrained",), ("CPC, fine-tuned",))
    )
    over = verdicts(grid, "untrained", fractions)
    if not all(any(found.values()) for found in (ours, untrained, tuned, over)):
        return ""
    n_ours, n_over = (sum(map(len, found.values())) for found in (ours, over))
    tasks = f" ({listed(dict.fromkeys(over[1]))})" if over[1] else ""
    return (
        f"With at most {percent(max(fractions))} of the labels, CPC is ahead of the "
        f"same network trained from scratch in {len(ours[1])} of {n_ours} comparisons "
        f"and behind in {len(ours[-1])}. The same network untrained, under the same "
        f"probes, is ahead of it in {len(untrained[1])} and behind in "
        f"{len(untrained[-1])}; fine-tuned from CPC's weights, it is ahead in "
        f"{len(tuned[1])} and behind in "
        f"{len(tuned[-1])}. Of the untrained network CPC is ahead in {len(over[1])} of "
        f"{n_over}{tasks} and behind in {len(over[-1])}."
    )


def wins(grid):
    """
    Say where CPC wins, in sentences and at a glance.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        Markdown; empty where nothing can be compared.
    """
    told = tally(grid)
    if not told:
        return ""
    fractions = sorted({f for task in grid.tasks for f in grid.fractions(task)})
    return "\n\n".join(
        [
            "\n".join(f"- {text}" for text in told),
            f"In this order, {', '.join(map(percent, fractions))} of the labels: `+` "
            "ahead, `−` behind, `=` not significantly different, `·` not run, or of "
            "the same labels as the next.",
            overview(grid),
        ]
    )


def line_table(grid, fraction, split="test"):
    """
    Tabulate the lines of the figures at one share of the labels.

    Parameters
    ----------
    grid : Grid
        The results.
    fraction : float
        Share of the labels.
    split : str
        Where they were scored.

    Returns
    -------
    str
        A row for each task, a column for each of
        :data:`jtm.results.compare.LINES`; the highest of a row is bold; the last is
        what always answering the largest class scores. Empty where nothing was
        scored.
    """
    rows = [["task", *LINES, "largest class"]]
    for task in grid.tasks:
        chosen = [grid.line(task, (name,), fraction) for name in LINES]
        scores = [row and grid.score(row, split) for row in chosen]
        if any(scores):
            best = max(score.value for score in scores if score)
            cells = [s and score_text(s, s.value == best) or "" for s in scores]
            largest = grid.largest_class(task, split)
            cells.append("" if largest is None else f"{100 * largest:.1f}")
            rows.append([task, *cells])
    return markdown(rows) if len(rows) > 1 else ""


def difference_table(grid, opponent):
    """
    Tabulate how far CPC is ahead of another line.

    Parameters
    ----------
    grid : Grid
        The results.
    opponent : str
        One of :data:`jtm.results.compare.LINES`.

    Returns
    -------
    str
        A row for each task, a column for each share of the labels; cells are
        differences in percentage points, bold where the interval leaves out zero.
        Empty where nothing can be compared.
    """
    fractions = sorted({f for task in grid.tasks for f in grid.fractions(task)})
    rows = [["task", *map(percent, fractions)]]
    for task in grid.tasks:
        cells = []
        for fraction in fractions:
            found = compare_lines(grid, task, opponent, fraction)
            text = difference_text(found) if found else ""
            value, space, ends = text.partition(" ")
            bold = found and found.verdict
            cells.append(f"**{value}**{space}{ends}" if bold else text)
        if any(cells):
            rows.append([task, *cells])
    return markdown(rows) if len(rows) > 1 else ""


def choice_table(grid):
    """
    Tabulate which row stands for CPC.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        A row for each task, a column for each share of the labels; cells name the
        layer and the probe that validation put first, or 'fine-tuned'. Empty where
        there is none.
    """
    fractions = sorted({f for task in grid.tasks for f in grid.fractions(task)})
    rows = [["task", *map(percent, fractions)]]
    for task in grid.tasks:
        chosen = [grid.line(task, CPC, fraction) for fraction in fractions]
        if any(chosen):
            rows.append([task, *(_layer(row) if row else "" for row in chosen)])
    return markdown(rows) if len(rows) > 1 else ""


def _layer(row):
    """Name what a row of CPC reads, and by what."""
    if row.probe == "network":
        return "fine-tuned"
    return f"{row.representation.removeprefix('cpc-')}, {row.probe}"


def timbre_table(grid, fraction):
    """
    Tabulate what another SoundFont costs.

    Parameters
    ----------
    grid : Grid
        The results.
    fraction : float
        Share of the labels.

    Returns
    -------
    str
        A row for each task, a column for each of
        :data:`jtm.results.compare.LINES`; a cell says the score on the test
        works and that on them through the held-out SoundFont. Empty where
        nothing was scored there.
    """
    rows = [["task", *LINES]]
    for task in grid.tasks:
        cells = []
        for name in LINES:
            row = grid.line(task, (name,), fraction)
            both = [row and grid.score(row, s) for s in ("test", "test_timbre")]
            cells.append(
                " → ".join(f"{100 * each.value:.1f}" for each in both)
                if all(both)
                else ""
            )
        if any(cells):
            rows.append([task, *cells])
    return markdown(rows) if len(rows) > 1 else ""


def slow_table(grid, shares=FRACTIONS):
    """
    Tabulate what slow features are worth, and of what they are made.

    Parameters
    ----------
    grid : Grid
        The results.
    shares : sequence of float
        Shares of the labels to tell of.

    Returns
    -------
    str
        A row for each task and share, a column for each of
        :data:`jtm.results.compare.LINES` that has slow features: the best score by
        validation without them, then with them alone. Empty where there are none.
    """
    lines = [
        line for line, names in LINES.items() if any(n.endswith("-s") for n in names)
    ]
    rows = [["task", "labels", *lines]]
    for task in grid.tasks:
        for fraction in grid.distinct(task):
            if fraction not in shares:
                continue
            cells = []
            for line in lines:
                of_line = [
                    row
                    for row in grid.rows(task, fraction)
                    if row.representation in LINES[line]
                ]
                best = [
                    grid.best(
                        row
                        for row in of_line
                        if row.representation.endswith("-s") == slow
                    )
                    for slow in (False, True)
                ]
                cells.append(
                    " → ".join(f"{100 * grid.score(row).value:.1f}" for row in best)
                    if all(best)
                    else ""
                )
            if any(cells):
                rows.append([task, percent(fraction), *cells])
    return markdown(rows) if len(rows) > 1 else ""


def again_table(grid, again):
    """
    Tabulate what a network that was pretrained once more scores.

    Parameters
    ----------
    grid : Grid
        The results.
    again : Grid
        Those of the other network.

    Returns
    -------
    str
        A row for each task and share of the labels that both have: the frozen row
        that validation chose for the first network, its score by the second, and
        the difference. Empty where there is none.
    """
    rows = [["task", "labels", "row", "score", "less the shipped network's"]]
    for (task, fraction), (row, found) in agreement(grid, again).items():
        score, difference = score_text(again.score(row)), difference_text(found)
        rows.append([task, percent(fraction), row_text(row), score, difference])
    return markdown(rows) if len(rows) > 1 else ""


def agreement(grid, again):
    """
    Compare two pretrained networks; see :func:`again_table`.

    Parameters
    ----------
    grid, again : Grid
        The results of both.

    Returns
    -------
    dict of tuple to tuple
        By task and share of the labels the row, and the score of the second
        network less that of the first.
    """
    found = {}
    for task in again.tasks:
        for fraction in again.fractions(task):
            row = grid.line(task, ("CPC, frozen",), fraction)
            difference = row and again.difference(row, row, of=grid)
            if difference:
                found[task, fraction] = row, difference
    return found


def speed_table(grid):
    """
    Tabulate how soon networks reach a score in training.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    str
        A row for each task, a column for each share of labels; a cell has the
        time and the steps of both :data:`NETWORKS` until validation reaches
        :data:`REACHED` of the supervised network's best, which is the mean of
        its seeds; medians over the seeds that both have. Empty where there are
        no curves.
    """
    found = reached(grid)
    fractions = sorted({fraction for _, fraction in found})
    rows = [["task", *map(percent, fractions)]]
    for task in dict.fromkeys(task for task, _ in found):
        rows.append(
            [
                task,
                *(" / ".join(map(_soon, found.get((task, f), ()))) for f in fractions),
            ]
        )
    return markdown(rows) if found else ""


def reached(grid):
    """
    Tell when networks reach a score in training; see :func:`speed_table`.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    dict of tuple to list
        By task and share of the labels, for each of :data:`NETWORKS` the seconds and
        the steps, the middle one over the seeds that both have; None where most
        seeds never reach it.
    """
    found = {}
    for task in grid.tasks:
        for fraction in grid.fractions(task):
            curves = [curves_of(grid, task, line, fraction) for line in NETWORKS]
            seeds = sorted(curves[0].keys() & curves[1].keys())
            if seeds:
                of_each = [max(curves[1][seed]["score"]) for seed in seeds]
                target = REACHED * sum(of_each) / len(of_each)
                found[task, fraction] = [
                    _middle([seconds_to(each[seed], target) for seed in seeds])
                    for each in curves
                ]
    return found


NETWORKS = ("CPC, fine-tuned", "supervised")
"""Lines that are trained as a whole."""


STATES = {
    "trained": "the state of training that was best",
    "anew": "that state with its head fitted anew",
    "start": "the start, untouched by training",
}
"""What a network trained with labels may answer by, and how sentences call it."""


def settled(grid, network):
    """
    Say what validation took of the runs of a network that is trained with labels.

    Parameters
    ----------
    grid : Grid
        The results.
    network : {"supervised", "cpc-finetuned"}
        Which network.

    Returns
    -------
    str
        How often each of :data:`STATES`, over all tasks, shares of the labels and
        seeds; empty where none has run.
    """
    taken = [
        record.config["state"]
        for record in grid.records
        if (record.representation, record.split) == (network, "test")
        and "state" in record.config
    ]
    told = [f"{name} in {taken.count(state)}" for state, name in STATES.items()]
    return f"{listed(told)} of {len(taken)} cells" if taken else ""


def curves_of(grid, task, line, fraction):
    """
    Give the learning curves of a network.

    Parameters
    ----------
    grid : Grid
        The results.
    task : str
        What is asked.
    line : str
        One of :data:`NETWORKS`.
    fraction : float
        Share of the labels.

    Returns
    -------
    dict of int to dict
        Curves by seed; see :func:`jtm.results.records.append_beside`.
    """
    row = grid.line(task, (line,), fraction)
    return grid.beside(row, "curve", "validation") if row else {}


def curves_fraction(grid):
    """
    Choose the share of labels with most learning curves of both networks.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    float or None
        The share; of equals the larger. None where there is no curve.
    """
    counts = {}
    for task in grid.tasks:
        for fraction in grid.fractions(task):
            found = min(len(curves_of(grid, task, n, fraction)) for n in NETWORKS)
            if found:
                counts[fraction] = counts.get(fraction, 0) + found
    return max(counts, key=lambda share: (counts[share], share), default=None)


def _middle(found):
    """Give the median of times and steps, never being the longest of all."""
    ordered = sorted(found, key=lambda each: each or (float("inf"), 0))
    return ordered[(len(ordered) - 1) // 2]


def _soon(middle):
    """Write a time and its steps."""
    return f"{duration(middle[0])} ({middle[1]})" if middle else "never"


def coverage(grid, task):
    """
    Count the cells that the rows of a task ask for.

    Parameters
    ----------
    grid : Grid
        The results.
    task : str
        The task.

    Returns
    -------
    tuple of int
        Those that have run, and all: each row with every share of the labels and
        every seed.
    """
    rows = grid.rows(task)
    kinds = {(row.representation, row.probe) for row in rows}
    done = sum(grid.score(row).n_seeds for row in rows)
    return done, len(kinds) * len(FRACTIONS) * len(SEEDS)


def missing(grid):
    """
    Say what of the whole grid has not run.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    list of str
        One sentence for each task that lacks something.
    """
    said = []
    for task in TASKS:
        rows = grid.rows(task)
        if not rows:
            said.append(f"`{task}` has not run.")
            continue
        done, whole = coverage(grid, task)
        lines = [
            line
            for line, names in LINES.items()
            if not any(row.representation in names for row in rows)
        ]
        if lines:
            said.append(f"`{task}` has no row of {listed(lines)} yet.")
        if done < whole:
            said.append(f"`{task}`: {done} of {whole} cells of its rows have run.")
    return said


def page(grid, pictures, targets="", again=None):
    """
    Write the page of the grid.

    Parameters
    ----------
    grid : Grid
        The results.
    pictures : dict of str to str
        Path of each figure from the page, by name; see
        :func:`jtm.results.figures.grid_figures`.
    targets : str
        What was aimed at, and whether it is reached; see
        :func:`jtm.results.targets.page`.
    again : Grid, optional
        Results of a network that was pretrained once more, with another seed.

    Returns
    -------
    str
        Markdown.
    """
    configs = [record.config for record in grid.records]
    data = listed(sorted({c.get("data", "unnamed") for c in configs}))
    origins = sorted({c["checkpoint"][:8] for c in configs if c.get("checkpoint")})
    revisions = sorted({record.revision for record in grid.records})
    parts = [
        "# What the grid says",
        f"Written by `python -m jtm report` from `grid.jsonl`: dataset `{data}`, "
        f"pretrained network {listed(origins)}, code {listed(revisions)}.",
        f"Scores are in percent, means over {seeds_text(grid)} with 95 % intervals "
        "over test recordings and seeds; differences are in percentage points, paired "
        "on recordings and seeds. 'CPC' is the best of its frozen features and its "
        "fine-tuned network, and every line the best of its rows, by validation; "
        "test chooses nothing, and bold marks the highest of a column only. One in "
        "twenty comparisons of equals leaves zero out by chance.",
    ]
    lacks = missing(grid)
    if lacks:
        parts += ["## Missing", "\n".join(f"- {text}" for text in lacks)]
    told = wins(grid)
    if told:
        parts += ["## Where CPC wins", told]
    parts += _picture(pictures, "label-efficiency", "Score over labelled audio")
    parts += _picture(pictures, "gains", "CPC less the same network without it")
    if targets:
        parts += ["## Targets", targets]
    fraction = common_fraction(grid)
    table = timbre_table(grid, fraction)
    if table:
        parts += [
            "## Through another SoundFont",
            f"Test works, then the same through the held-out SoundFont, with "
            f"{percent(fraction)} of the labels (%).",
            table,
            *_picture(pictures, "timbre", "Scores through both SoundFonts"),
        ]
    table = slow_table(grid)
    if table:
        parts += [
            "## Slow features",
            "What tells recordings apart, learned without labels. All methods that are "
            "read by probes have it of their own features, the untrained network too. "
            "The best score without it → with it alone (%).",
            table,
        ]
    table = again and again_table(grid, again)
    if table:
        parts += [
            "## Pretrained once more",
            "The frozen row that stands for CPC, read off a network that differs from "
            "the shipped one in the seed of its pretraining (`main.py --randomSeed 1`; "
            "`jtm grid --out report/results/again.jsonl`), and the difference, on the "
            "same recordings and labels.",
            table,
        ]
    table = speed_table(grid)
    if table:
        parts += [
            "## How soon a score is reached",
            "Time (and steps) of training until validation reaches "
            f"{percent(REACHED)} of the supervised network's best: CPC, fine-tuned / "
            "supervised. One network learns several tasks at once, and pretraining "
            f"is not counted. The curves are of {percent(curves_fraction(grid))} of "
            "the labels.",
            table,
            *_picture(pictures, "learning", "Score over steps of training"),
            "\n".join(
                f"- What validation took of `{name}`: {settled(grid, name)}."
                for name in ("supervised", "cpc-finetuned")
                if settled(grid, name)
            ),
        ]
    for task in grid.tasks:
        metric = metric_text(grid.metrics[task])
        parts += [
            f"## {task}",
            f"{TASKS.get(task, task).capitalize()}; {metric}.",
            "\n".join(f"- {text}" for text in sentences(grid, task)),
            score_table(grid, task),
            *_picture(
                pictures, f"confusion-{task}", "Confusion matrix, rows the truth"
            ),
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def common_fraction(grid, favoured=None):
    """
    Choose the share of labels that most lines have run with.

    Parameters
    ----------
    grid : Grid
        The results.
    favoured : float, optional
        Share that is chosen where none has more lines.

    Returns
    -------
    float
        The share; of other equals the larger.
    """
    counts = {}
    for task in grid.tasks:
        for fraction in grid.fractions(task):
            found = sum(bool(grid.line(task, (n,), fraction)) for n in LINES)
            counts[fraction] = counts.get(fraction, 0) + found
    return max(
        counts, key=lambda share: (counts[share], share == favoured, share), default=1.0
    )


def _picture(pictures, name, text):
    """Link a figure, if there is one."""
    return [f"![{text}]({pictures[name]})"] if name in pictures else []
