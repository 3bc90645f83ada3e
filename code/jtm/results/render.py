"""
Pages made of results: every number in them is filled into a template.

The words are in ``templates/*.j2`` (jinja2), to be edited there. A page that is written
whole, such as ``BENCHMARK.md``, is one template; of a page that people write, such as
the README, a template has the blocks that stand between ``<!-- NAME -->`` and ``<!--
end of NAME -->``; ``numbers.tex.j2`` has the macros of the LaTeX report.
"""

import hashlib
import math
import re
from pathlib import Path
from textwrap import wrap

import jinja2

from jtm.constants import FRAME_RATE, N_PITCHES, SAMPLE_RATE
from jtm.files import InputError, atomic, read_json
from jtm.results import compare, figures, records, tables

WIDTH = 80
"""Columns of prose in a page."""

WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}

PAGES = {
    "README.md": "README.md.j2",
    "code/benchmarks/README.md": "benchmarks.md.j2",
    "code/jtm/weights/README.md": "card.md.j2",
}
"""Pages in the checkout with blocks of results, and their templates."""

SOURCES = (
    "main.tex",
    "references.bib",
    "results/benchmark.csv.gz",
    "results/benchmark_draws.npz",
    "results/inside.json",
)
"""What the report is made from beside its numbers, as far as it is there."""


def _duration(seconds):
    """Name a length of time in the unit that suits it, such as '90 min' or '2.0 h'."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"


def _machine(facts):
    """Name the GPU, or the cores, that something was measured on."""
    where = facts["gpu"] or f"{facts['cores']} cores of {facts['processor']}"
    if not (facts["gpu"] or facts["bf16_instructions"]):
        where += ", which have no bf16 instructions"
    return where


def template(file):
    """
    Load a template.

    Parameters
    ----------
    file : str
        Its name in ``templates/``. In one of LaTeX, ``.tex.j2``, expressions stand
        between ``<<`` and ``>>``, statements between ``<%`` and ``%>``.

    Returns
    -------
    jinja2.Template
        The template.
    """
    form, marks = "markdown", {}
    if file.endswith(".tex.j2"):
        form = "latex"
        marks = {"block_start_string": "<%", "block_end_string": "%>"}
        marks |= {"variable_start_string": "<<", "variable_end_string": ">>"}
        marks |= {"comment_start_string": "<#", "comment_end_string": "#>"}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **marks,
    )
    environment.globals |= {"tables": tables, "log": math.log}
    environment.globals |= {"methods": records.METHODS, "splits": records.SPLITS}
    environment.tests["match"] = lambda text, start: text.startswith(start)
    environment.filters |= {
        "cell": lambda each: tables.write_cell(each, form),
        "duration": _duration,
        "machine": _machine,
        "name": tables.in_words,
        "percent": lambda share, digits=0: f"{100 * share:.{digits}f}",
        "table": lambda each: tables.write(each, form),
        "tex": lambda each: tables.escape(str(each)),
    }
    return environment.get_template(file)


def facts_of(root):
    """
    Read all that pages are made from.

    Parameters
    ----------
    root : str or Path
        The checkout.

    Returns
    -------
    dict
        Values for the templates by name: `bench` and `inside` are None where that
        has not run, or is of another network than the one that ships.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    root = Path(root)
    results = root / "report" / "results"
    names = "browser commands data faults hours inside".split()
    names += "melody memory speed".split()
    facts = {name: read_json(results / f"{name}.json") for name in names}
    tried, matched = results / "trials.json", results / "retrieval.json"
    facts["retrieval"] = read_json(matched) if matched.exists() else None
    facts["trials"] = read_json(tried) if tried.exists() else []
    network = read_json(root / "code" / "jtm" / "weights" / "jtm.json")
    if facts["inside"]["checkpoint"] not in (network["sha256"], network["checkpoint"]):
        facts["inside"] = None
    beside = results / "transcribers.json"
    bench = compare.Benchmark.read(results / "benchmark.csv.gz")
    return facts | {
        "bench": bench if bench.header["plan"] else None,
        "transcribers": read_json(beside) if beside.exists() else None,
        "network": network,
        "training": training(network),
        "transcriber": _transcriber(results / "transcriber.json"),
        "rates": {"frame": FRAME_RATE, "audio": SAMPLE_RATE, "pitches": N_PITCHES},
    }


def _transcriber(path):
    """Read how the transcriber was trained; None where its log is not there."""
    if not path.exists():
        return None
    log = read_json(path)
    before = log["before"] or {"steps": 0, "seconds": [0.0]}
    steps = log["history"][-1]["step"] + before["steps"]
    return log | {"steps": steps, "clock": log["seconds"] + before["seconds"][0]}


def training(network):
    """
    Describe how the network was trained that ships.

    Parameters
    ----------
    network : dict
        What ``jtm export`` wrote beside the weights.

    Returns
    -------
    dict of str to float
        ``audio``, its length in seconds; ``clock``, the seconds that training took;
        ``passes``; ``steps``; and ``loss``, the last on validation.
    """
    rows = [row for row in network["history"] if row["split"] == "train"]
    held_out = [r["loss"] for r in network["history"] if r["split"] == "validation"]
    audio = rows[0]["windows"] * network["config"]["size_window"] / SAMPLE_RATE
    return {
        "audio": audio,
        "clock": sum(audio / row["audio_seconds_per_second"] for row in rows),
        "passes": len(rows),
        "steps": rows[-1]["step"],
        "loss": held_out[-1],
    }


def blocks(file, facts):
    """
    Render the blocks of a page.

    Parameters
    ----------
    file : str
        A template that is made of blocks.
    facts : dict
        See :func:`facts_of`.

    Returns
    -------
    dict of str to str
        Text of each block by its name in the page, which has spaces where that in
        the template has underscores.
    """
    page = template(file)
    context = page.new_context(facts)
    return {
        name.replace("_", " "): "".join(render(context)).strip()
        for name, render in page.blocks.items()
    }


def fill(path, texts):
    """
    Rewrite the named blocks of a page.

    Parameters
    ----------
    path : str or Path
        The page. A block stands between ``<!-- NAME -->`` and
        ``<!-- end of NAME -->``, each on a line of its own.
    texts : dict of str to str
        New text of each block by name.

    Raises
    ------
    InputError
        If the page lacks a block.
    """
    page = Path(path).read_text(encoding="utf-8")
    for name, text in texts.items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition(f"<!-- end of {name} -->")
        if not (opened and closed):
            raise InputError(f"{path}: has no block '<!-- {name} -->' with its end")
        page = f"{before}{opened}{_flow(text)}\n{closed}{after}"
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")


def _flow(text):
    """
    Break prose of Markdown into lines of :data:`WIDTH` columns.

    Tables, pictures and heads stay as they are; paragraphs have single blank lines
    between them.
    """
    made = []
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith(("|", "!", "#")):
            made.append(part)
            continue
        lines = []
        for item in re.split(r"\n(?=- )", part):
            indent = "  " if item.startswith("- ") else ""
            item = " ".join(item.split())
            lines += wrap(item, WIDTH, subsequent_indent=indent, **WHOLE_WORDS)
        made.append("\n".join(lines))
    return "\n\n".join(made)


def numbers(root, facts):
    r"""
    Render the macros of the LaTeX report.

    Parameters
    ----------
    root : str or Path
        The checkout.
    facts : dict
        See :func:`facts_of`.

    Returns
    -------
    str
        LaTeX. A macro always exists, and is empty where nothing has run; the last,
        ``\sources``, is a hash of all that the report is made from, which the PDF
        carries, so that a test without TeX can tell whether it is of these results.
    """
    made = template("numbers.tex.j2").render(facts)
    made = re.sub(r"\n{2,}", "\n", made)
    hashed = hashlib.sha256(made.encode())
    for name in SOURCES:
        path = Path(root) / "report" / name
        hashed.update(path.read_bytes() if path.exists() else b"")
    return f"{made}\\newcommand*{{\\sources}}{{{hashed.hexdigest()}}}\n"


def report(root):
    """
    Redraw what the pages show from the committed results.

    Parameters
    ----------
    root : str or Path
        The checkout; its pages, ``report/numbers.tex``, ``report/figures`` and
        ``report/results/BENCHMARK.md`` are rewritten.

    Raises
    ------
    InputError
        If a result cannot be read, or a page lacks a block.
    """
    root = Path(root)
    facts = facts_of(root)
    drawn = root / "report" / "figures"
    for page, file in PAGES.items():
        fill(root / page, blocks(file, facts))
    if facts["bench"]:
        for name, draw in figures.benchmark_figures(facts["bench"]).items():
            figure = draw()
            for ending in ("svg", "pdf"):
                figures.save(figure, drawn / f"benchmark-{name}.{ending}")
        text = _flow(template("BENCHMARK.md.j2").render(facts)) + "\n"
        with atomic(root / "report" / "results" / "BENCHMARK.md") as part:
            part.write_text(text, encoding="utf-8")
    text = _flow(template("FAULTS.md.j2").render(facts)) + "\n"
    with atomic(root / "report" / "results" / "FAULTS.md") as part:
        part.write_text(text, encoding="utf-8")
    with atomic(root / "report" / "numbers.tex") as part:
        part.write_text(numbers(root, facts), encoding="utf-8")
