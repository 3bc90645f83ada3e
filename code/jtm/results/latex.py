r"""
What the LaTeX report is made of: every number, table and sentence that is measured.

:func:`write` puts them into ``numbers.tex``, a macro each: a number by its own name,
such as ``\speedOurs``, a table as ``\tableSpeed``. Tables are those of the pages
(Markdown), set as LaTeX. A macro always exists; where nothing has run it is empty,
and the report asks by ``\whenrun`` before it speaks of it. The last macro,
``\sources``, is a hash of all that the report is made from; the PDF carries it, so
that a test without TeX can tell whether the PDF is of these very results.
"""

import hashlib
import math
import re
from pathlib import Path
from textwrap import wrap

from jtm.constants import FRAME_RATE, N_PITCHES, SAMPLE_RATE
from jtm.files import atomic, read_json
from jtm.results import inside, page, readings, targets
from jtm.results.compare import CPC, FRACTIONS, Grid
from jtm.results.readings import duration, percent
from jtm.results.targets import FEW

COUNTED = {
    "few labels": (FEW, "test", ()),
    "all shares": (FRACTIONS, "test", tuple(readings.OPPONENTS)),
    "unseen SoundFont": (FRACTIONS, "test_timbre", ("supervised", "untrained")),
}
"""
What comparisons are counted over: shares of the labels, where scored, and beside whom
the report says it in words.
"""

SOURCES = (
    "main.tex",
    "references.bib",
    "results/grid.jsonl",
    "results/grid_draws.jsonl",
    "results/inside.json",
)
"""What the report is made from beside its numbers, as far as it is there."""

HEAD = 16
"""Most letters of a line in the head of a table."""

SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "#$%&{}"},
    "_": " ",  # of names, as in note_pitch
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "→": r"$\to$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
}
"""What stands in LaTeX for signs that mean something to it, or that it lacks."""


def text(words):
    r"""
    Set words of a page as LaTeX.

    Parameters
    ----------
    words : str
        Plain words, with bold and code marked as in Markdown.

    Returns
    -------
    str
        LaTeX; intervals, such as [1.0, 2.0], as the report's ``\interval``.
    """
    made = "".join(SIGNS.get(sign, sign) for sign in words)
    made = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", made)
    made = re.sub(r"`(.+?)`", r"\\texttt{\1}", made)
    made = re.sub(r"(\d) (\\%|s|min|h|[MG]B)(?!\w)", r"\1\\,\2", made)  # units
    return re.sub(r" \[([^]]+, [^]]+)\]", r"\\interval{\1}", made)


def tabular(page_text):
    r"""
    Set a Markdown table as LaTeX.

    Parameters
    ----------
    page_text : str
        The table; other lines are passed over.

    Returns
    -------
    str
        A tabular with the rules of booktabs, made to fit the line by the report's
        ``\fit``, its first column flush left and its
        heads no wider than :data:`HEAD` letters, without columns that hold nothing;
        empty where there is no table.
    """
    lines = [line for line in page_text.splitlines() if line.startswith("|")]
    if not lines:
        return ""
    # The second line is the rule below the heads.
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (lines[0], *lines[2:])
    ]
    columns = [each for each in zip(*rows, strict=True) if any(each[1:])]
    rows = list(zip(*columns, strict=True))
    heads = []
    for place, head in enumerate(rows[0]):
        broken = map(text, wrap(head, HEAD, break_on_hyphens=False))
        side = "r" if place else "l"
        heads.append(rf"\shortstack[{side}]{{" + r"\\".join(broken) + "}")
    head, *rest = [
        " & ".join(row) + r" \\"
        for row in (heads, *(map(text, row) for row in rows[1:]))
    ]
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join(
        [
            rf"\fit{{\begin{{tabular}}{{@{{}}{columns}@{{}}}}\toprule",
            rf"{head}\midrule",
            *rest,
            r"\bottomrule\end{tabular}}",
        ]
    )


def data_macros(data):
    """
    Name the facts of the dataset.

    Parameters
    ----------
    data : dict
        What ``toy/datasheet.py`` counted.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    splits = data["splits"]
    rows = [["split", *splits["train"]]]
    for split, row in splits.items():
        shown = row | {"hours": f"{row['hours']:.2f}"}
        shown["notes"] = f"{row['notes']:,}" if row["notes"] else ""
        rows.append([split, *map(str, shown.values())])
    made = {
        "dataPreset": data["preset"],
        "dataHours": f"{data['hours']:.1f}",
        "dataWorks": f"{data['works']}",
        "dataClips": f"{sum(data['clips'].values()):,}",
        "dataMinutes": f"{data['seconds'] / 60:.0f}",
        "dataSpeed": f"{3600 * data['hours'] / data['seconds']:.0f}",
    }
    return made | {"tableData": tabular(readings.markdown(rows))}


def network_macros(facts):
    """
    Name the settings of the network that is judged, and of its training.

    Parameters
    ----------
    facts : dict
        What ``jtm export`` wrote beside the weights.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    config, told = facts["config"], page.training_facts(facts)
    frame = 1000 / FRAME_RATE  # ms
    horizon = config["n_predicts"] * config["step_frames"] / FRAME_RATE
    return {
        "networkWeights": f"{facts['parameters']:,}",
        "networkKilobytes": f"{facts['bytes'] / 1000:.0f}",
        "networkZ": f"{facts['z_dim']}",
        "networkC": f"{facts['c_dim']:,}",
        "networkZPitch": f"{facts['z_dim'] // N_PITCHES}",
        "networkLearned": f"{config['hidden_encoder']}",
        "networkCPitch": f"{config['hidden_gar']}",
        "cpcSteps": f"{config['n_predicts']}",
        "cpcStepMs": f"{frame * config['step_frames']:g}",
        "cpcHorizon": f"{horizon:g}",
        "cpcAnchorMs": f"{frame * config['anchor_frames']:g}",
        "cpcNegatives": f"{config['negative_sampling_ext']}",
        "cpcSame": text(percent(config["same_share"])),
        "cpcTemperature": f"{config['temperature']:g}",
        "cpcWindow": f"{config['size_window'] / SAMPLE_RATE:.2f}",
        "cpcBatch": f"{config['batch_size']}",
        "cpcRate": f"{config['learning_rate']:g}",
        "cpcChance": f"{math.log(1 + config['negative_sampling_ext']):.2f}",
        "cpcLoss": f"{told['loss']:.2f}",
        "cpcPasses": f"{told['passes']}",
        "cpcUpdates": f"{told['steps']:,}",
        "cpcHours": f"{told['audio'] / 3600:.1f}",
        "cpcMinutes": f"{told['clock'] / 60:.0f}",
    }


def speed_macros(speed, memory):
    """
    Name what the benchmarks found.

    Parameters
    ----------
    speed, memory : dict
        What ``benchmarks/cpc_step.py`` and ``benchmarks/memory.py`` wrote.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    return {
        "speedOurs": f"{speed['speedup_float32']:.1f}",
        "speedOursBf": f"{speed['speedup_bf16']:.1f}",
        "speedMemory": f"{100 * speed['memory_ratio']:.0f}",
        "speedLearn": f"{speed['small_audio_seconds_per_second']:.0f}",
        "speedEmbed": f"{speed['embed_times_real_time']:.0f}",
        "speedMachine": text(page.machine_text(speed["machine"])),
        "tableSpeed": tabular(page.speed_table(speed)),
        "memoryStore": f"{memory['store_bytes'] / 1e6:.0f}",
        "memoryBound": f"{memory['bound_bytes'] / 1e6:.0f}",
        "memoryPeak": f"{memory['peak_bytes'] / 1e6:.0f}",
        "memorySlower": f"{100 * (memory['step_time_ratio'] - 1):.0f}",
    }


def trials_macros(trials):
    """
    Name what was tried.

    Parameters
    ----------
    trials : list of dict
        The trials; see :func:`jtm.results.page.trials_table`.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    lines = []
    # Of the code as it is.
    trials = [trial for trial in trials if trial["flags"] is not None]
    for study in dict.fromkeys(trial["study"] for trial in trials):
        table = page.trials_table(trials, study).splitlines()
        head, rule, *rows = [line for line in table if line.startswith("|")]
        lines = lines or [head, rule]
        lines += [f"| {study.capitalize()}: |" + "  |" * (head.count("|") - 2), *rows]
    gained = {}
    # One that stands in several studies counts once.
    for trial in {tuple(each["flags"]): each for each in trials}.values():
        for name, value in trial["validation"].items():
            task, what, share = name.split()
            if what.startswith("cpc-") and share == f"{page.TRIED}":
                untrained = trial["validation"][name.replace(" cpc-", " random-")]
                gained.setdefault(task, []).append(value > untrained)
    told = [
        f"{sum(each)} of {len(each)} of {text(task)}" for task, each in gained.items()
    ]
    one = trials[0]
    return {
        "trialsGained": readings.listed(told),
        "trialsMinutes": f"{one['processor_minutes']:g}",
        "trialsData": one["data"],
        "tableTrials": tabular("\n".join(lines)),
    }


def inside_macros(found):
    """
    Name what was found inside the network.

    Parameters
    ----------
    found : dict
        The answers, None where there is none; see
        :func:`jtm.results.inside.read_answers`.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    counts = found["recordings"]
    made = {f"inside{split.title()}": f"{counts[split]}" for split in ("train", "test")}
    made |= dict.fromkeys(("tableCarried", "tableNeighbours", "neighbours"), "")
    if found["carried"]:
        made["tableCarried"] = tabular(inside.carried_table(found["carried"]))
    if found["maps"]:
        made["tableNeighbours"] = tabular(inside.neighbours_table(found["maps"]))
        parts = {}
        for each in found["maps"]:
            before, after = (each["purity"][n] for n in ("random-c", "cpc-c"))
            told = f"{each['colour']} ({100 * before:.1f} → {100 * after:.1f})"
            word = "more" if after > before else "fewer"
            parts.setdefault(word, []).append(told)
        told = [f"{word} in {readings.listed(kinds)}" for word, kinds in parts.items()]
        made["neighbours"] = text(readings.listed(told))
    leads = found["memory"]["leads"] if found["memory"] else []
    for name, over in (("Z", "cpc-z"), ("Untrained", "random-c"), ("Notes", "notes")):
        ahead = [
            each
            for each in leads
            if each["over"] == over and inside.estimate(each).verdict > 0
        ]
        made[f"memoryLead{name}"] = made[f"memoryLast{name}"] = ""
        if ahead:
            most = max(ahead, key=lambda each: each["value"])
            lead = text(readings.difference_text(inside.estimate(most)))
            made[f"memoryLead{name}"] = f"{lead} at {most['delay']:g}\\,s"
            made[f"memoryLast{name}"] = f"{ahead[-1]['delay']:g}\\,s"
    furthest = max((each["delay"] for each in leads), default=None)
    made["memoryFurthest"] = f"{furthest:g}\\,s" if leads else ""
    form = found["form"] or {"pieces": "", "seconds": 0, "agreement": ()}
    made |= {"formPieces": f"{form['pieces']}", "formWindow": f"{form['seconds']:g}"}
    agreement = {each["representation"]: each for each in form["agreement"]}
    for name in inside.NAMES:
        if name != "notes":
            score = agreement.get(name)
            score = score and readings.score_text(inside.estimate(score))
            made[f"form{_word(name)}"] = text(score or "")
    return made


def grid_macros(grid, again=None):
    """
    Name what the grid says.

    Parameters
    ----------
    grid : Grid
        The results, whatever of them there is.
    again : Grid, optional
        Results of a network that was pretrained once more, with another seed.

    Returns
    -------
    dict of str to str
        Macros by name.
    """
    share = readings.common_fraction(grid, max(FEW))
    shares = sorted({each for _, each in grid.labelled})
    of_least = [of for (_, each), of in grid.labelled.items() if each == min(FRACTIONS)]
    counts = [(0, 0), *(readings.coverage(grid, task) for task in grid.tasks)]
    done, whole = map(sum, zip(*counts, strict=True))
    made = {
        "gridPart": f"{done:,} of {whole:,}" if done < whole else "",
        "gridShare": text(percent(share)),
        "gridTasks": f"{len(grid.tasks)}",
        "soonShare": text(percent(readings.REACHED)),
        "gridShares": text(readings.listed(map(percent, shares))),
        "gridSeeds": readings.seeds_text(grid),
        "gridLeast": text(duration(min(of_least))) if of_least else "",
        "tableScores": tabular(readings.line_table(grid, share)),
        "tableChoices": tabular(readings.choice_table(grid)),
        "tableTimbre": tabular(readings.timbre_table(grid, share)),
        "tableSlow": tabular(readings.slow_table(grid, FEW)),
    }
    rows = [["compared", *COUNTED]]
    compared = [(f"CPC beside {each}", each, {}) for each in readings.OPPONENTS]
    compared += [
        (name, "supervised", {"ours": ours, "slow": slow})
        for name, (ours, slow, _) in readings.ASIDE.items()
    ]
    for name, opponent, options in compared:
        row = [name]
        for counted, (shares, split, said) in COUNTED.items():
            found = readings.verdicts(grid, opponent, shares, split, **options)
            won, even, lost = found.values()
            run = won or even or lost
            row.append(f"{len(won)} / {len(even)} / {len(lost)}" if run else "")
            if opponent in said and not options:
                tasks = readings.listed(dict.fromkeys(lost))
                told = (
                    f"ahead in {len(won)} of {len(won + even + lost)} comparisons, "
                    f"behind in {len(lost)}{f' ({tasks})' if lost else ''} and not "
                    f"significantly different in {len(even)}"
                )
                macro = f"{counted.split()[0]}{_word(opponent)}"
                made[macro] = text(told) if run else ""
        rows.append(row)
    run = any(any(row[1:]) for row in rows[1:])
    made["tableTally"] = tabular(readings.markdown(rows)) if run else ""
    return made | {
        "tableTargets": tabular(targets.table(grid)),
        "short": text(readings.short(grid, FEW)),
        "largestComposer": _largest(grid, "composer"),
        "tenth": _tenth(grid, CPC),
        "tenthUntrained": _tenth(grid, ("untrained",)),
        "unseenLoss": _loss(grid),
        "soon": _soon(grid),
        "settledSupervised": readings.settled(grid, "supervised"),
        "settledTuned": readings.settled(grid, "cpc-finetuned"),
        "again": _again(grid, again) if again else "",
        "helped": _helped(grid),
        "targetsReached": _reached(grid),
    }


def _largest(grid, task):
    """Give what always answering the largest class of a task scores."""
    share = grid.largest_class(task)
    return "" if share is None else text(f"{100 * share:.1f} %")


def _tenth(grid, lines):
    """Compare lines with the supervised network that has ten times the labels."""
    found = {sign: [] for sign in readings.VERDICTS}
    for task in grid.tasks:
        ours = grid.line(task, lines, max(FEW))
        theirs = grid.line(task, ("supervised",), 10 * max(FEW))
        if ours and theirs:
            found[grid.difference(ours, theirs).verdict].append(task)
    return text(readings.counted(found)) if any(found.values()) else ""


def _loss(grid):
    """Say where the unseen SoundFont costs CPC more than the supervised network."""
    wanted = [(task, share) for task in grid.tasks for share in grid.distinct(task)]
    found = [each.found.verdict for each in targets.kept(grid, wanted)]
    if not found:
        return ""
    return (
        f"significantly larger in {found.count(-1)} of {len(found)} comparisons and "
        f"smaller in {found.count(1)}"
    )


def _helped(grid):
    """Name the tasks in which CPC is ahead of the untrained network somewhere."""
    won = readings.verdicts(grid, "untrained")[1]
    return text(readings.listed(dict.fromkeys(won))) if won else ""


def _reached(grid):
    """Count the targets that are reached."""
    found = [each.reached for each in targets.targets(grid)]
    if not any(each is not None for each in found):
        return ""
    count = sum(map(bool, found))
    return f"{count or 'none'} of {len(found)} {'is' if count < 2 else 'are'} reached"


def _again(grid, again):
    """Say where another pretrained network is not to be told from the shipped one."""
    found = readings.agreement(grid, again)
    parts = {}
    for (task, _), (_, difference) in found.items():
        parts.setdefault(difference.verdict, []).append(task)
    shares = readings.listed(dict.fromkeys(percent(share) for _, share in found))
    said = [
        f"{name} in {text(readings.listed(parts[verdict]))}"
        for verdict, name in (
            (0, "not significantly different from it"),
            (1, "ahead of it"),
            (-1, "behind it"),
        )
        if verdict in parts
    ]
    return f"With {text(shares)} of the labels it is {', '.join(said)}" if said else ""


def _soon(grid):
    """Say how often the fine-tuned network is the sooner to learn."""
    steps = [
        [each[1] if each else math.inf for each in both]
        for both in readings.reached(grid).values()
    ]
    first = sum(ours < theirs for ours, theirs in steps)
    last = sum(ours > theirs for ours, theirs in steps)
    if not steps:
        return ""
    return (
        f"first in {first} of {len(steps)} pairs, last in {last} and level in "
        f"{len(steps) - first - last}"
    )


def _word(name):
    """Give a name that a macro may have, such as CpcZ for 'cpc-z'."""
    return "".join(part.title() for part in re.split("[^A-Za-z]+", name))


def numbers(folder, facts, settings):
    """
    Write the numbers, tables and sentences of the report.

    Parameters
    ----------
    folder : str or Path
        Folder of the report.
    facts : dict
        What ``jtm export`` wrote beside the weights of the network that is reported
        on; a grid of another, and a look inside another, count as not run.
    settings : dict of str to str
        Macros that no results hold: settings of the judge.

    Returns
    -------
    str
        LaTeX, a macro a line but for tables.
    """
    folder = Path(folder)
    results = folder / "results"
    ours = {facts["sha256"], facts["checkpoint"]}
    path = results / "grid.jsonl"
    grid = Grid.read(path) if path.exists() else Grid([])
    if not {r.config.get("checkpoint", facts["sha256"]) for r in grid.records} <= ours:
        grid = Grid([])
    again = results / "again.jsonl"
    found, _ = inside.read_answers(results / "inside.json")
    if found["checkpoint"] not in ours:
        found = found | dict.fromkeys(inside.QUESTIONS)
    made = (
        data_macros(read_json(results / "data.json"))
        | network_macros(facts)
        | settings
        | trials_macros(read_json(results / "trials.json"))
        | speed_macros(*(read_json(results / f"{n}.json") for n in ("speed", "memory")))
        | inside_macros(found)
        | grid_macros(grid, Grid.read(again) if again.exists() else None)
    )
    lines = [f"\\newcommand*{{\\{name}}}{{{value}}}" for name, value in made.items()]
    said = "% Written by `python -m jtm report`.\n" + "\n".join(lines) + "\n"
    hashed = hashlib.sha256(said.encode())
    for name in SOURCES:
        if (folder / name).exists():
            hashed.update((folder / name).read_bytes())
    return said + f"\\newcommand*{{\\sources}}{{{hashed.hexdigest()}}}\n"


def write(folder, facts, settings):
    """
    Write ``numbers.tex``; see :func:`numbers`.

    Parameters
    ----------
    folder : str or Path
        Folder of the report.
    facts, settings : dict
        As for :func:`numbers`.
    """
    with atomic(Path(folder) / "numbers.tex") as part:
        part.write_text(numbers(folder, facts, settings), encoding="utf-8")
