"""Which frames of a recording are looked at, and what figures show of a piece."""

from typing import NamedTuple

import numpy as np

from jtm.constants import SAMPLE_RATE
from jtm.data.rolls import WINDOW, frame_numbers, frame_roll, read_notes
from jtm.evaluation.baselines import HAND_MADE, cqt
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.music import audio


class FrameSelection(NamedTuple):
    """
    Which of a recording's frames are looked at, and in what form.

    Parameters
    ----------
    step : int
        Each frame of :func:`jtm.data.rolls.frame_numbers` with this step; 0 takes the
        mean and deviation of each window instead.
    n_frames : int
        Number of frames, from the start, that are selected from.
    window : int
        Frames in a window.
    """

    step: int
    n_frames: int
    window: int = WINDOW

    @property
    def rows(self):
        """Number of rows that are selected."""
        if self.step:
            return len(frame_numbers(self.n_frames, self.step))
        return self.n_frames // self.window

    def of(self, part, first):
        """
        Select from a piece ``(frames, dim)``, by its first frame, at a window's start.

        Give what is selected, ``(rows, dim)`` or of windows ``(rows, 2 * dim)``, and
        the number of its first row.
        """
        part = part[: max(0, self.n_frames - first)]
        if self.step:
            numbers = frame_numbers(self.n_frames, self.step)
            start, stop = np.searchsorted(numbers, (first, first + len(part)))
            return part[numbers[start:stop] - first], start
        n = len(part) // self.window
        windows = part[: n * self.window].reshape(n, self.window, part.shape[1])
        moments = windows.mean(axis=1), windows.std(axis=1)
        return np.concatenate(moments, axis=1), first // self.window


def select(source, recording, selections):
    """
    Compute what is selected of the features of a recording.

    Parameters
    ----------
    source : jtm.evaluation.streaming.NetworkSource
        What computes the features.
    recording : Audio
        The recording.
    selections : sequence of FrameSelection
        What to select.

    Returns
    -------
    dict of tuple to numpy.ndarray
        By layer and selection, rows in order of time, in half precision, which rounds
        a value by less than a part in a thousand.
    """
    limit, parts = np.finfo(np.float16).max, {}
    for first, *layers in source.stream(recording):
        for layer, frames in zip(source.layers, layers, strict=True):
            for each in selections:
                rows, start = each.of(frames, first)
                rows = np.clip(rows, -limit, limit).astype(np.float16)
                parts.setdefault((layer, each), {})[start] = rows
    return {
        key: np.concatenate([rows for _, rows in sorted(of_start.items())])
        for key, of_start in parts.items()
    }


def view(model, recording, seconds=10.0):
    """
    Collect what a figure of a piece shows: its sound, its notes and its features.

    Parameters
    ----------
    model : Network
        The network.
    recording : Recording
        A recording with labels.
    seconds : float
        How much of it to take, from its start.

    Returns
    -------
    dict
        Arguments of :func:`jtm.results.figures.piece`.

    Raises
    ------
    InputError
        If the recording cannot be read or has no labels.
    """
    wave = audio.read(recording.audio)
    notes = read_notes(recording, len(wave))
    shown = wave[: round(seconds * SAMPLE_RATE)]
    spectrogram = HAND_MADE["logmel"](shown)
    return {
        "spectrogram": spectrogram,
        "roll": frame_roll(notes, len(spectrogram)),
        "layers": NetworkSource(model).whole(Audio.of(audio.to_pcm(shown))),
        "title": _title(recording),
    }


def _title(recording):
    """Name a recording by what its metadata tells."""
    row = recording.metadata
    names = (row.get("composer"), row.get("composition"), row.get("ensemble"))
    return ", ".join(name for name in names if name) or recording.id


def listen(recording, seconds=8.0):
    """
    Collect what a figure of notes over their sound shows.

    Parameters
    ----------
    recording : Recording
        A recording with labels.
    seconds : float
        How much of it to take, from its start.

    Returns
    -------
    dict
        Arguments of :func:`jtm.results.figures.notes_over_sound`.

    Raises
    ------
    InputError
        If the recording cannot be read or has no labels.
    """
    wave = audio.read(recording.audio)
    return {
        "spectrum": cqt(wave[: round(seconds * SAMPLE_RATE)]),
        "notes": read_notes(recording, len(wave)),
        "title": _title(recording),
    }
