"""What the notebook shows: recordings, and results that may not be there yet."""

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


def result(made):
    """
    Show a figure or a table, or say that what it shows has not run.

    Parameters
    ----------
    made : callable, pandas.DataFrame or None
        What draws a figure, such as one of
        :func:`jtm.results.figures.benchmark_figures`, or one of
        :mod:`jtm.results.tables`.

    Returns
    -------
    matplotlib.figure.Figure or IPython.display.Markdown
        What Jupyter shows.
    """
    from IPython.display import Markdown

    if callable(made):
        return made()
    written = "" if made is None else tables.write(made)
    return Markdown(written or "Nothing is here yet: what this shows has not run.")
