"""Blocks of a Markdown page that a command writes, so that no number is typed."""

from pathlib import Path

from jtm.files import InputError, atomic


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
        page = f"{before}{opened}{text.strip()}\n{closed}{after}"
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")


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
    where = speed["machine"]["gpu"] or (
        f"{speed['machine']['cores']} cores of {speed['machine']['processor']}"
    )
    if not (speed["machine"]["gpu"] or speed["machine"]["bf16_instructions"]):
        where += ", which have no bf16 instructions"
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {where}. There the preset `small` learns from "
            f"{speed['small_audio_seconds_per_second']:.0f} seconds of audio a second, "
            f"of which reading takes {100 * speed['loader_share']:.1f} %, and embeds "
            f"recordings {speed['embed_times_real_time']:.0f} times faster than they "
            "play.",
        ]
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
