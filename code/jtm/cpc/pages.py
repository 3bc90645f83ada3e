"""The page of what is inside a network, whose words are in ``inside.md.j2``."""

from pathlib import Path

from jtm.cpc.figures import inside_figures, read_answers
from jtm.files import atomic
from jtm.results import figures, render


def write_inside(folder):
    """
    Write the page and its figures, where a network was looked into.

    Parameters
    ----------
    folder : str or Path
        Folder of the report, with ``results/inside.json``; the page becomes
        ``results/INSIDE.md``, a figure ``figures/inside-NAME.svg``, and that of
        memory, which the LaTeX report shows, a PDF too.

    Raises
    ------
    InputError
        If the answers cannot be read.
    """
    path = Path(folder) / "results" / "inside.json"
    if not path.exists():
        return
    found = read_answers(path)
    for name, draw in inside_figures(found).items():
        figure = draw()
        for ending in ("svg", "pdf") if name == "memory" else ("svg",):
            figures.save(figure, path.parents[1] / f"figures/inside-{name}.{ending}")
    page = render.template("inside.md.j2").render(found=found)
    with atomic(path.with_name("INSIDE.md")) as part:
        part.write_text(page, encoding="utf-8")
