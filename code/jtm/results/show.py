"""
What the notebook shows: recordings to listen to, and results that may be missing.

What has not run yet is named in a line of its own, so that the notebook runs before
the long commands have.
"""

import pandas as pd

from jtm.constants import SAMPLE_RATE
from jtm.music import audio
from jtm.results import records, render, tables
from jtm.results.compare import Benchmark


def players(recordings, seconds=6.0):
    """
    Return an audio player for each recording.

    Parameters
    ----------
    recordings : iterable of Recording
        The recordings.
    seconds : float
        How much of each is kept, from its start; a minute takes 2.6 MB.

    Returns
    -------
    IPython.display.HTML
        The players, each with the split of its recording and the metadata's
        composition, ensemble and SoundFont; one below the other.
    """
    from IPython.display import HTML, Audio

    parts = []
    for recording in recordings:
        wave = audio.read(recording.audio)[: round(seconds * SAMPLE_RATE)]
        row = recording.metadata
        told = [recording.split, recording.id]
        told += [row.get(n) for n in ("composition", "ensemble", "soundfont")]
        parts.append(
            f"<p>{', '.join(filter(None, told))}<br>"
            f"{Audio(wave, rate=SAMPLE_RATE)._repr_html_()}</p>"
        )
    return HTML("".join(parts))


def read_benchmark(results):
    """
    Read the benchmark, or an empty one where it has not run.

    Parameters
    ----------
    results : str or Path
        The folder of results.

    Returns
    -------
    jtm.results.compare.Benchmark
        What has run.
    """
    found = render.read_benchmark(results)
    nothing = records.check(pd.DataFrame(columns=records.COLUMNS), results)
    return found or Benchmark(nothing, {}, {"plan": [], "contrasts": []})


def picture(drawings, name):
    """
    Draw a figure, or say that there is nothing to draw.

    Parameters
    ----------
    drawings : dict of str to callable
        What draws each figure, by name; see
        :func:`jtm.results.figures.benchmark_figures`.
    name : str
        Which of them.

    Returns
    -------
    matplotlib.figure.Figure or IPython.display.Markdown
        The figure, or the line.
    """
    if name in drawings:
        return drawings[name]()
    return text(f"The figure *{name}* is not here yet: what it shows has not run.")


def table(frame):
    """
    Show a table.

    Parameters
    ----------
    frame : pandas.DataFrame
        One of :mod:`jtm.results.tables`.

    Returns
    -------
    IPython.display.Markdown
        What Jupyter shows.
    """
    return text(tables.write(frame))


def text(markdown):
    """
    Show Markdown.

    Parameters
    ----------
    markdown : str
        The text; where it is empty, a line says that there is nothing yet.

    Returns
    -------
    IPython.display.Markdown
        What Jupyter shows.
    """
    from IPython.display import Markdown

    return Markdown(markdown or "Nothing is here yet: what this says has not run.")
