"""Notebook display of recordings, and of results that may not exist yet."""

from jtm.constants import SAMPLE_RATE
from jtm.music import audio
from jtm.results import tables


def players(recordings, seconds=6.0):
    """
    Return an audio player for each recording.

    Parameters
    ----------
    recordings : iterable of Recording
        The recordings.
    seconds : float
        Duration of audio from the start of each; a minute takes 2.6 MB.

    Returns
    -------
    IPython.display.HTML
        The players, one below the other, each with the recording's split, name,
        composition, ensemble and SoundFont.
    """
    from IPython.display import HTML, Audio

    parts = []
    for recording in recordings:
        wave = audio.read(recording.audio)[: round(seconds * SAMPLE_RATE)]
        about = map(recording.metadata.get, ("composition", "ensemble", "soundfont"))
        caption = (recording.split, recording.id, *about)
        parts.append(
            f"<p>{', '.join(filter(None, caption))}<br>"
            f"{Audio(wave, rate=SAMPLE_RATE)._repr_html_()}</p>"
        )
    return HTML("".join(parts))


def result(content):
    """
    Show a figure or a table, or a note that its experiment has not run.

    Parameters
    ----------
    content : callable, pandas.DataFrame or None
        Function that draws a figure, such as one of
        :func:`jtm.results.figures.benchmark_figures`, or a table of
        :mod:`jtm.results.tables`; None without results.

    Returns
    -------
    matplotlib.figure.Figure or IPython.display.Markdown
        The object that Jupyter displays.
    """
    from IPython.display import Markdown

    if callable(content):
        return content()
    table = "" if content is None else tables.write(content)
    return Markdown(table or "No results yet: this experiment has not run.")
