"""Pages, and blocks of pages, that a command writes, so that no number is typed."""

import textwrap
from pathlib import Path

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, atomic
from jtm.results import figures, inside, readings, targets
from jtm.results.compare import Grid

WIDTH = 80
"""Columns of prose in a page."""


def fill(path, blocks):
    """
    Rewrite the named blocks of a page.

    Parameters
    ----------
    path : str or Path
        The page. A block stands between ``<!-- NAME -->`` and
        ``<!-- end of NAME -->``, each on a line of its own.
    blocks : dict of str to str
        New text of each block by name.

    Raises
    ------
    InputError
        If the page lacks a block.
    """
    page = Path(path).read_text(encoding="utf-8")
    for name, text in blocks.items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition(f"<!-- end of {name} -->")
        if not (opened and closed):
            raise InputError(f"{path}: has no block '<!-- {name} -->' with its end")
        page = f"{before}{opened}{_wrap(text.strip())}\n{closed}{after}"
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")


def _wrap(text):
    """Break long lines of prose; tables and pictures stay as they are."""
    return "\n".join(
        line
        if line.startswith(("|", "!"))
        else textwrap.fill(
            line,
            WIDTH,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def speed_table(speed):
    """
    Write the table of a step's time and memory, ours beside the published one.

    Parameters
    ----------
    speed : dict
        What ``benchmarks/cpc_step.py`` found.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        "| criterion, precision | seconds a step | times as fast | memory | "
        "share of a matrix product's speed |",
        "|---|---|---|---|---|",
    ]
    base = speed["steps"][0]
    for row in speed["steps"]:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e9:.2f} GB"
        lines.append(
            f"| {row['name']} | {row['seconds']:.2f} | "
            f"{base['seconds'] / row['seconds']:.1f} | {size} | "
            f"{100 * row['share_of_peak']:.0f} % |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {machine_text(speed['machine'])}. There the preset `small` "
            f"learns from {speed['small_audio_seconds_per_second']:.0f} seconds of "
            f"audio a second, of which reading takes {100 * speed['loader_share']:.1f} "
            f"%, and embeds recordings {speed['embed_times_real_time']:.0f} times "
            "faster than they play.",
        ]
    )


def machine_text(machine):
    """
    Name the machine that something was measured on.

    Parameters
    ----------
    machine : dict
        As the benchmarks write it.

    Returns
    -------
    str
        The GPU, or the number and kind of the processor's cores.
    """
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    if not (machine["gpu"] or machine["bf16_instructions"]):
        where += ", which have no bf16 instructions"
    return where


def times_table(times, facts, pretraining, data, grid):
    """
    Write the table of how long commands take.

    Parameters
    ----------
    times : dict
        What ``benchmarks/commands.py`` found.
    facts : dict
        What ``jtm export`` wrote beside the shipped weights.
    pretraining : dict
        The command that trained them, and the machine.
    data : dict
        The datasheet's facts of the set that they learned from.
    grid : float
        Seconds that the cells of the grid took, each on one core.

    Returns
    -------
    str
        Markdown.
    """
    took = training_facts(facts)["clock"]
    threads = pretraining["machine"]["threads"]
    alone = ", on one of the cores" if threads == 1 else ""
    preset = data["preset"]
    weights = "code/jtm/weights/jtm.safetensors"
    told = {name: readings.duration(s) for name, s in times["seconds"].items()}
    told |= {
        f"python toy/generate.py --preset {preset}": readings.duration(data["seconds"]),
        pretraining["command"]: f"{readings.duration(took)}{alone}",
        f"python -m jtm grid --data toy/data/{preset} --load {weights}": (
            f"{readings.duration(grid)} of one core, for the cells that have run"
        ),
    }
    rows = [[f"`{name}`", time] for name, time in told.items()]
    return (
        f"{readings.markdown([['command', 'time'], *rows])}\n\n"
        f"Measured on {machine_text(times['machine'])}, with all that is needed "
        "installed and, for the examples, the toy set `tiny` made; OUT stands for a "
        "folder."
    )


def memory_text(memory):
    """
    Say what a store larger than the memory allowed costs.

    Parameters
    ----------
    memory : dict
        What ``benchmarks/memory.py`` found.

    Returns
    -------
    str
        A paragraph.
    """
    costs = memory["planning_microseconds_per_window"]
    told = ", ".join(f"{cost:.1f} µs ({size})" for size, cost in costs.items())
    return (
        f"From a store of {memory['store_bytes'] / 1e6:.0f} MB with a bound of "
        f"{memory['bound_bytes'] / 1e6:.0f} MB, an epoch took "
        f"{memory['peak_bytes'] / 1e6:.0f} MB of memory at its peak "
        f"({100 * memory['peak_over_bound']:.0f} % of the bound), and a training step "
        f"{memory['step_time_ratio']:.2f} times as long as with everything in memory. "
        f"Planning an epoch costs a window {told} of corpus."
    )


TRIED = "0.1"
"""Share of the labels whose scores are shown of trials."""


def studies(trials):
    """
    Write a table for each study that has been tried.

    Parameters
    ----------
    trials : list of dict
        What was tried.

    Returns
    -------
    str
        Markdown, with the name of each study above its table.
    """
    return "\n\n".join(
        f"**{name.capitalize()}**\n\n{trials_table(trials, name)}"
        for name in dict.fromkeys(trial["study"] for trial in trials)
    )


def trials_table(trials, study):
    """
    Write the table of recipes tried for the same processor time.

    Parameters
    ----------
    trials : list of dict
        What was tried; ``benchmarks/trials.py`` adds these.
    study : str
        Which of them.

    Returns
    -------
    str
        Markdown; the best score of each column in bold.
    """
    trials = [t for t in trials if t["study"] == study]
    columns = [
        (task, layer)
        for task in ("multipitch", "ensemble", "note_instrument")
        for layer in "zc"
        if all(_of(trial, "cpc", task, layer) for trial in trials)
    ]
    best = {
        column: max(_of(trial, "cpc", *column) for trial in trials)
        for column in columns
    }
    heads = [f"{task}, {layer}" for task, layer in columns]
    lines = [
        "| trial | weights | steps | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for trial in trials:
        cells = []
        for column in columns:
            value, untrained = (_of(trial, who, *column) for who in ("cpc", "random"))
            text = f"{100 * value:.1f}"
            text = f"**{text}**" if value == best[column] else text
            cells.append(f"{text} ({100 * untrained:.1f})" if untrained else text)
        lines.append(
            f"| {trial['name']} | {trial['weights']} | {trial['steps']} | "
            + " | ".join(cells)
            + " |"
        )
    one = trials[0]
    told = (
        f"After {one['processor_minutes']:g} minutes of processor time each, on the "
        f"toy set `{one['data']}`: average precision of multi-pitch and accuracy of "
        "the ensemble and of single notes' instrument (%) on validation, by linear "
        f"probes on {100 * float(TRIED):g} % of the labels, and in brackets, where it "
        "was judged, of the network before training. One seed."
    )
    if one["flags"] is None:
        told += " The code has changed since."
    return "\n".join([*lines, "", told])


def _of(trial, who, task, layer):
    """Read one score of a trial, if it has it."""
    return trial["validation"].get(f"{task} {who}-{layer} {TRIED}")


def profile_table(speed):
    """
    Write the table of where a step's time goes.

    Parameters
    ----------
    speed : dict
        What ``benchmarks/cpc_step.py`` found.

    Returns
    -------
    str
        Markdown.
    """
    presets = speed["profile"]
    lines = [
        "| part | " + " | ".join(f"`{p}`, forward | backward" for p in presets) + " |",
        "|---|" + "---|---|" * len(presets),
    ]
    totals = {
        preset: sum(sum(times.values()) for times in parts.values())
        for preset, parts in presets.items()
    }
    for part in next(iter(presets.values())):
        cells = [
            f"{1000 * presets[preset][part][way]:.0f} ms "
            f"({100 * presets[preset][part][way] / total:.0f} %)"
            for preset, total in totals.items()
            for way in ("forward", "backward")
        ]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def training_facts(facts):
    """
    Tell how the shipped network was trained.

    Parameters
    ----------
    facts : dict
        What ``jtm export`` wrote beside the weights.

    Returns
    -------
    dict of str to float
        ``audio``, its length in seconds; ``clock``, the seconds that training took;
        ``passes``; ``steps``; and ``loss``, the last on validation.
    """
    rows = [row for row in facts["history"] if row["split"] == "train"]
    judged = [row["loss"] for row in facts["history"] if row["split"] == "validation"]
    audio = rows[0]["windows"] * facts["config"]["size_window"] / SAMPLE_RATE
    return {
        "audio": audio,
        "clock": sum(audio / row["audio_seconds_per_second"] for row in rows),
        "passes": len(rows),
        "steps": rows[-1]["step"],
        "loss": judged[-1],
    }


CARD_FRACTION = 0.1
"""Share of the labels at which the card of the shipped network gives scores."""


def card_blocks(facts, found):
    """
    Write the blocks of the card of the shipped network.

    Parameters
    ----------
    facts : dict
        What ``jtm export`` wrote beside the weights.
    found : list of Record
        The grid; scores of other networks are passed over.

    Returns
    -------
    dict of str to str
        Text of each block by name.
    """
    config = facts["config"]
    told = training_facts(facts)
    ours = [
        record
        for record in found
        if record.config.get("checkpoint", facts["sha256"])
        in (facts["sha256"], facts["checkpoint"])
        and record.fraction == CARD_FRACTION
    ]
    if any(record.representation.startswith("cpc") for record in ours):
        grid = Grid(ours)
        scores = (
            f"{readings.line_table(grid, CARD_FRACTION)}\n\nIn percent, on held-out "
            f"works, with {readings.percent(CARD_FRACTION)} of the training labels and "
            f"{readings.seeds_text(grid)}: this network with its features frozen and "
            "fine-tuned with the labels, the same network trained from scratch "
            "(`supervised`), the same untrained, and features made by hand; of each "
            "what validation scores best of its features and probes. "
            "`report/results/GRID.md` has all of it, with intervals."
        )
    else:
        scores = "The grid in `report/results/` has no scores of these weights."
    return {
        "facts": "\n".join(
            [
                "| | |",
                "|---|---|",
                f"| SHA-256 | `{facts['sha256']}` |",
                f"| size | {facts['bytes'] / 1000:.0f} kB, {facts['parameters']} "
                "learned parameters |",
                f"| z, c | {facts['z_dim']} and {facts['c_dim']} numbers a frame |",
                f"| encoder, context | {config['encoder_type']}, {config['ar_mode']} "
                f"({config['gar_mode']}) |",
            ]
        ),
        "training": f"On the training and the unlabelled audio of the toy set "
        f"`{config['data']}`: {told['audio'] / 3600:.1f} hours, {told['passes']} "
        f"passes in {told['steps']} steps of {config['batch_size']} windows of "
        f"{config['size_window'] / SAMPLE_RATE:.2f} s, which took "
        f"{told['clock'] / 60:.0f} minutes. The loss on validation ended at "
        f"{told['loss']:.3f}.",
        "scores": scores,
    }


PRINTED = ("label-efficiency", "gains", "memory")
"""Figures that the LaTeX report shows, which are written as PDF too."""


def write_grid(folder):
    """
    Write the page of the grid and its figures, where the grid has run.

    Parameters
    ----------
    folder : str or Path
        Folder of the report, with ``results/grid.jsonl``; the page becomes
        ``results/GRID.md``, a figure ``figures/grid-NAME.svg``.
    """
    _write_page(Path(folder), "grid", ".jsonl", grid_page)


def write_inside(folder):
    """
    Write the page of a look inside a network and its figures, where one was taken.

    Parameters
    ----------
    folder : str or Path
        Folder of the report, with ``results/inside.json``; the page becomes
        ``results/INSIDE.md``, a figure ``figures/inside-NAME.svg``.
    """
    _write_page(Path(folder), "inside", ".json", inside_page)


def _write_page(folder, name, ending, compose):
    """Write a page of results and its figures, if there are results."""
    path = folder / "results" / f"{name}{ending}"
    if not path.exists():
        return
    text, drawings = compose(path)
    for each, draw in drawings.items():
        figure = draw()
        for ending in ("svg", "pdf") if each in PRINTED else ("svg",):
            figures.save(figure, folder / "figures" / f"{name}-{each}.{ending}")
    with atomic(path.with_name(f"{name.upper()}.md")) as part:
        part.write_text(text, encoding="utf-8")


def grid_page(path):
    """
    Write what the grid says.

    Parameters
    ----------
    path : str or Path
        The results file.

    Returns
    -------
    text : str
        The page.
    drawings : dict of str to callable
        What draws each figure that it shows, by name.

    Raises
    ------
    InputError
        If the results cannot be read.
    """
    grid = Grid.read(path)
    drawings = figures.grid_figures(grid)
    again = path.with_name("again.jsonl")
    text = readings.page(
        grid,
        _links("grid", drawings),
        targets.page(grid),
        Grid.read(again) if again.exists() else None,
    )
    return text, drawings


def grid_summary(path):
    """
    Write what the grid says in short.

    Parameters
    ----------
    path : str or Path
        The results file.

    Returns
    -------
    str
        Markdown for a page at the top of the checkout.
    """
    if not Path(path).exists():
        return "The comparison has not run yet."
    grid = Grid.read(path)
    told = [f"- {text}" for text in readings.tally(grid)[: len(readings.OPPONENTS)]]
    short = readings.short(grid, targets.FEW)
    least = readings.duration(min(grid.labelled.values()))
    return "\n".join(
        [
            "![How many points CPC is ahead, over labelled audio, with 95 % intervals]"
            "(report/figures/grid-gains.svg)",
            "",
            *([short, ""] if short else []),
            *told,
            "",
            f"On held-out works, from {least} of labelled audio to all of it, with "
            f"{readings.seeds_text(grid)} of labels and of training. 'CPC' is "
            "the better of its frozen features and its fine-tuned network, every "
            "opponent the best of its kind, by validation; ahead or behind is what a "
            "95 % interval says. "
            "`report/results/GRID.md` has every score and says what has not run.",
        ]
    )


def inside_page(path):
    """
    Write what was found inside a network.

    Parameters
    ----------
    path : str or Path
        The file of answers.

    Returns
    -------
    text : str
        The page.
    drawings : dict of str to callable
        What draws each figure that it shows, by name.

    Raises
    ------
    InputError
        If the answers cannot be read.
    """
    found, arrays = inside.read_answers(path)
    drawings = figures.inside_figures(found, arrays)
    return inside.page(found, _links("inside", drawings)), drawings


def _links(name, drawings):
    """Give the path of each figure from its page."""
    return {each: f"../figures/{name}-{each}.svg" for each in drawings}
