"""Data for figures of a piece of music."""

from jtm.constants import SAMPLE_RATE
from jtm.data.rolls import frame_roll, read_notes
from jtm.evaluation.baselines import HAND_MADE, cqt
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.music import audio


def view(model, recording, seconds=10.0):
    """
    Collect spectrogram, notes and features of a recording for a figure.

    Parameters
    ----------
    model : Network
        The network.
    recording : Recording
        A recording with labels.
    seconds : float
        Duration from the start.

    Returns
    -------
    dict
        Arguments of :func:`jtm.results.figures.piece`.

    Raises
    ------
    InputError
        If the recording cannot be read or has no labels.
    """
    excerpt, notes, title = _read(recording, seconds)
    spectrogram = HAND_MADE["logmel"](excerpt)
    return {
        "spectrogram": spectrogram,
        "roll": frame_roll(notes, len(spectrogram)),
        "layers": NetworkSource(model).whole(Audio.of(audio.to_pcm(excerpt))),
        "title": title,
    }


def _read(recording, seconds):
    """Read the beginning of a recording, all its notes, and a title for it."""
    wave = audio.read(recording.audio)
    columns = ("composer", "composition", "ensemble")
    title = ", ".join(filter(None, map(recording.metadata.get, columns)))
    notes = read_notes(recording, len(wave))
    return wave[: round(seconds * SAMPLE_RATE)], notes, title or recording.id


def view_notes(recording, seconds=8.0):
    """
    Collect spectrogram and notes of a recording for a figure.

    Parameters
    ----------
    recording : Recording
        A recording with labels.
    seconds : float
        Duration from the start.

    Returns
    -------
    dict
        Arguments of :func:`jtm.results.figures.notes_over_sound`.

    Raises
    ------
    InputError
        If the recording cannot be read or has no labels.
    """
    excerpt, notes, title = _read(recording, seconds)
    return {"spectrum": cqt(excerpt), "notes": notes, "title": title}
