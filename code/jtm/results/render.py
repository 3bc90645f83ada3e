"""
Pages rendered from results: templates fill in every number.

The text is in ``templates/*.j2`` (jinja2), to be edited there. A generated page, such
as ``BENCHMARK.md``, is one template. For a hand-written page, such as the README, a
template has the blocks between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.
``numbers.tex.j2`` has the macros of the LaTeX report.
"""

import hashlib
import re
from pathlib import Path
from textwrap import wrap

import jinja2

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, atomic, read_json
from jtm.results import compare, figures, tables

WIDTH = 80
"""Line width of prose in a page, in columns."""

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
"""Files that the report is made from in addition to its numbers, if they exist."""


def _duration(seconds):
    """Format a duration in a suitable unit, such as '90 min' or '2.0 h'."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"


def _machine(facts):
    """Name the GPU or the CPU cores of a measurement."""
    where = facts["gpu"] or f"{facts['cores']} cores of {facts['processor']}"
    if not (facts["gpu"] or facts["bf16_instructions"]):
        where += ", which have no bf16 instructions"
    return where


def _template(file):
    """Load a template; in LaTeX, its marks are ``<< >>``, ``<% %>`` and ``<# #>``."""
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
    environment.globals |= {"tables": tables, "sample_rate": SAMPLE_RATE}
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


def _facts_of(root):
    """Read the results that templates use, by name; None if they have not run."""
    results = root / "report" / "results"
    names = "browser commands data faults hours melody memory naming speed".split()
    facts = {name: read_json(results / f"{name}.json") for name in names}
    for name in "ingredients inside retrieval transcriber transcribers trials".split():
        path = results / f"{name}.json"
        facts[name] = read_json(path) if path.exists() else None
    facts["network"] = read_json(root / "code" / "jtm" / "weights" / "jtm.json")
    facts["training"] = _training(facts["network"])
    bench = compare.Benchmark.read(results / "benchmark.csv.gz")
    return facts | {"bench": bench if bench.header["plan"] else None}


def _training(network):
    """Summarise the training of the shipped network; times are in seconds."""
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


def _blocks(file, facts):
    """Render the blocks of a template, by name, with spaces for underscores."""
    page = _template(file)
    context = page.new_context(facts)
    return {
        name.replace("_", " "): "".join(render(context)).strip()
        for name, render in page.blocks.items()
    }


def _fill(path, texts):
    """Rewrite the named blocks of a page; InputError if one is missing."""
    page = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition(f"<!-- end of {name} -->")
        if not (opened and closed):
            raise InputError(f"{path}: has no block '<!-- {name} -->' with its end")
        page = f"{before}{opened}{_flow(text)}\n{closed}{after}"
    _write(path, page)


def _write(path, text):
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _flow(text):
    """Wrap Markdown prose, but not tables, images and headings."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith(("|", "!", "#")):
            paragraphs.append(paragraph)
            continue
        lines = []
        options = {"break_long_words": False, "break_on_hyphens": False}
        for item in re.split(r"\n(?=- )", paragraph):
            options["subsequent_indent"] = "  " if item.startswith("- ") else ""
            lines += wrap(" ".join(item.split()), WIDTH, **options)
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _numbers(root, facts):
    r"""
    Render the macros of the LaTeX report.

    The last, ``\sources``, is a hash of all that the report is made from, also in the
    PDF, so that a test without TeX can check whether the PDF is of these results.
    """
    macros = re.sub(r"\n{2,}", "\n", _template("numbers.tex.j2").render(facts))
    hasher = hashlib.sha256(macros.encode())
    for path in (root / "report" / name for name in SOURCES):
        hasher.update(path.read_bytes() if path.exists() else b"")
    return f"{macros}\\newcommand*{{\\sources}}{{{hasher.hexdigest()}}}\n"


def report(root, studies):
    """
    Rewrite the pages and figures from the committed results.

    Parameters
    ----------
    root : str or Path
        Path to the checkout; its pages, ``report/numbers.tex``, ``report/figures`` and
        ``report/results/BENCHMARK.md`` are rewritten.
    studies : dict
        Modules of the studies' tables, by their names in templates.

    Raises
    ------
    InputError
        If a result cannot be read, or a page lacks a block.
    """
    root = Path(root)
    folder = root / "report"
    facts = _facts_of(root) | studies
    for page, file in PAGES.items():
        _fill(root / page, _blocks(file, facts))
    pages = ["FAULTS.md"]
    if facts["bench"]:
        pages.append("BENCHMARK.md")
        drawings = figures.benchmark_figures(facts["bench"])
        _draw(folder / "figures", "benchmark", drawings, pdf=drawings)
    for page in pages:
        text = _flow(_template(f"{page}.j2").render(facts))
        _write(folder / "results" / page, f"{text}\n")
    _write(folder / "numbers.tex", _numbers(root, facts))


def study(path, tables_of, figures_of, read=read_json, pdf=()):
    """
    Write the page and the figures of a study, if it has run.

    Parameters
    ----------
    path : str or Path
        Path to its results, ``results/NAME.json`` in the folder of the report. The page
        is ``NAME.md`` next to it, with NAME in capitals, from the template
        ``NAME.md.j2``; a figure is ``figures/NAME-FIGURE.svg``.
    tables_of : module
        The study's tables, called ``tables`` in the template.
    figures_of : callable
        Returns, from the results, the functions that draw its figures, by name.
    read : callable
        Reads the file.
    pdf : sequence of str
        Figures to save as PDF too, for the LaTeX report.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return
    results, name = read(path), path.stem
    drawings = figures_of(results)
    _draw(path.parents[1] / "figures", name, drawings, pdf)
    facts = {"results": results, "figures": drawings, "tables": tables_of}
    page = _template(f"{name}.md.j2").render(facts)
    _write(path.with_name(f"{name.upper()}.md"), page)


def _draw(folder, start, drawings, pdf=()):
    """Save figures as files whose names begin with `start`."""
    for name, draw in drawings.items():
        figure = draw()
        for ending in ("svg", "pdf") if name in pdf else ("svg",):
            figures.save(figure, folder / f"{start}-{name}.{ending}")
