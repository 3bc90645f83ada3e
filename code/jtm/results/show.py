"""
What the notebook shows: recordings to listen to, and results that may be missing.

What has not run yet is named in a line of its own, so that the notebook runs before
the long commands have.
"""

from pathlib import Path

from jtm.constants import SAMPLE_RATE
from jtm.music import audio
from jtm.results import readings
from jtm.results.compare import Grid


def players(recordings, seconds=6.0):
    """
    Give an audio player for each recording.

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


def read_grid(path):
    """
    Read the grid, or an empty one where it has not run.

    Parameters
    ----------
    path : str or Path
        The results file.

    Returns
    -------
    Grid
        What it holds.
    """
    return Grid.read(path) if Path(path).exists() else Grid([])


def missing(grid):
    """
    Say what of the grid has not run.

    Parameters
    ----------
    grid : Grid
        The results.

    Returns
    -------
    IPython.display.Markdown
        A list, or one line where nothing is missing.
    """
    lacks = readings.missing(grid)
    if not lacks:
        return text("Every cell of the grid has run.")
    return text("\n".join(f"- {each}" for each in lacks))


def picture(drawings, name):
    """
    Draw a figure, or say that there is nothing to draw.

    Parameters
    ----------
    drawings : dict of str to callable
        What draws each figure, by name; see
        :func:`jtm.results.figures.grid_figures`.
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
