"""
Features of recordings: computed once with everything frozen, and kept on disk.

A representation is named by its source and what is taken of it: ``cpc-z``,
``cpc-c`` and ``cpc-zc`` (both, side by side) of the network that is evaluated,
``random-z`` ... of the same network as it was before any training, with another
random seed, and hand-made features (:mod:`jtm.evaluation.baselines`): ``logmel``,
``mfcc`` and ``cqt``. ``cpc-s``, ``random-s``, ``logmel-s`` and ``cqt-s`` are slow
features of windows (:mod:`jtm.evaluation.slow`), made of those of :data:`SLOW_OF`.

Not every frame is kept, only a selection (:class:`FrameSelection`): each n-th frame,
or mean and deviation of each window. Features are kept in half precision, which
rounds a value by less than a part in a thousand, in ``.npy`` files named by what
they depend on: the audio, the function that was applied to it, and the selection.
"""

import contextlib
import copy
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jtm.constants import HOP, SAMPLE_RATE
from jtm.data.rolls import WINDOW, frame_numbers, frame_roll, read_notes
from jtm.evaluation.baselines import (
    CQT_BINS,
    CQT_SEMITONES,
    HAND_MADE,
    HandMadeSource,
    cqt,
)
from jtm.evaluation.slow import Slow
from jtm.evaluation.streaming import Audio, NetworkSource, pitch_parts
from jtm.files import atomic
from jtm.music import audio
from jtm.training.processes import best_device

REPRESENTATIONS = (
    "cpc-z",
    "cpc-c",
    "cpc-zc",
    "random-z",
    "random-c",
    "random-zc",
    *HAND_MADE,
    "cpc-s",
    "random-s",
    "logmel-s",
    "cqt-s",
)
"""Names of the representations that are compared."""

SLOW_OF = {
    "cpc-s": "cpc-zc",
    "random-s": "random-zc",
    "logmel-s": "logmel",
    "cqt-s": "cqt",
}
"""What slow features are made of."""


class FrameSelection(NamedTuple):
    """
    Which of a recording's frames are kept, and in what form.

    Parameters
    ----------
    step : int
        Keep each frame of :func:`jtm.data.rolls.frame_numbers` with this
        step; 0 keeps the mean and deviation of each window instead.
    n_frames : int
        Number of frames, from the start, that are selected from.
    window : int
        Frames in a window.
    lead : int
        Frames before the first window, which lies in the first piece.
    excerpt : int
        First frame of an excerpt, that is taken for the whole recording: nothing
        before it is heard, and nothing after its `n_frames`; -1 selects from
        the recording itself.
    """

    step: int
    n_frames: int
    window: int = WINDOW
    lead: int = 0
    excerpt: int = -1

    @property
    def rows(self):
        """Number of rows that are kept."""
        if self.step:
            return len(frame_numbers(self.n_frames, self.step))
        return (self.n_frames - self.lead) // self.window

    def of(self, part, first):
        """
        Select from one piece.

        Parameters
        ----------
        part : numpy.ndarray
            Features ``(frames, dim)`` of the piece.
        first : int
            Its first frame, at a window's start.

        Returns
        -------
        rows : numpy.ndarray
            What is kept, ``(rows, dim)`` or, of windows, ``(rows, 2 * dim)``.
        start : int
            Number of the first of these rows.
        """
        part = part[: max(0, self.n_frames - first)]
        if self.step:
            numbers = frame_numbers(self.n_frames, self.step)
            start, stop = np.searchsorted(numbers, (first, first + len(part)))
            return part[numbers[start:stop] - first], start
        part = part[self.lead if first == 0 else 0 :]
        n = len(part) // self.window
        windows = part[: n * self.window].reshape(n, self.window, part.shape[1])
        moments = windows.mean(axis=1), windows.std(axis=1)
        return np.concatenate(moments, axis=1), first // self.window

    def read(self, store, index, hop=HOP):
        """
        Open what is selected from.

        Parameters
        ----------
        store : Store
            The recordings.
        index : int
            Which recording of the store.
        hop : int
            Samples from one frame to the next.

        Returns
        -------
        Audio
            The recording, or the excerpt, with silence where the recording ends
            within it.
        """
        length = int(store.lengths[index])
        if self.excerpt < 0:
            return Audio(
                lambda a, b: store.read(index, a, b), length, self.n_frames * hop
            )
        offset, size = self.excerpt * hop, self.n_frames * hop

        def read(start, stop):
            wave = store.read(
                index, *(min(offset + edge, length) for edge in (start, stop))
            )
            return np.pad(wave, (0, stop - start - len(wave)))

        return Audio(read, size)


class Features:
    """
    The features of recordings, each computed once.

    Parameters
    ----------
    folder : str or Path
        Where the features are kept.
    models : dict of str to Network
        Networks by the name of their source, such as 'cpc' and 'random'.
    """

    def __init__(self, folder, models):
        self.folder = Path(folder)
        device = best_device()
        self._sources = {
            name: NetworkSource(
                model
                if next(model.parameters()).device == device
                else copy.deepcopy(model).to(device)
            )
            for name, model in models.items()
        }
        self._sources |= {name: HandMadeSource(name) for name in HAND_MADE}
        self._prints = {}
        self._slow = {}

    def compute(self, store, representations, wanted, progress=True):
        """
        Compute what is not kept yet.

        Parameters
        ----------
        store : Store
            The recordings.
        representations : sequence of str
            Any of :data:`REPRESENTATIONS`.
        wanted : dict of int to sequence of FrameSelection
            What to keep, by recording of the store, in frames of :meth:`hop`.
        progress : bool
            Show a progress bar.

        Raises
        ------
        ValueError
            If a recording has fewer frames than are selected from.
        """
        missing = {}  # by source: selections by recording and excerpt
        for name in dict.fromkeys(r.partition("-")[0] for r in representations):
            for index, selections in wanted.items():
                for each in dict.fromkeys(selections):
                    layers = self._sources[name].layers
                    paths = (self._path(name, x, store, index, each) for x in layers)
                    if not all(path.exists() for path in paths):
                        here = missing.setdefault(name, {})
                        here.setdefault((index, each.excerpt), []).append(each)
        recordings = {}
        for name, here in missing.items():
            hop, recordings[name] = self._sources[name].hop, {}
            for key, selections in here.items():
                longest = max(selections, key=lambda each: each.n_frames)
                recordings[name][key] = longest.read(store, key[0], hop)
                if recordings[name][key].n_frames(hop) < longest.n_frames:
                    raise ValueError(f"{longest}: more frames than there are at {hop}")
        with tqdm(
            total=sum(r.wanted for some in recordings.values() for r in some.values()),
            desc="Extracting features",
            unit="s",
            unit_scale=1 / SAMPLE_RATE,
            disable=not (progress and missing),
        ) as bar:
            for name, some in recordings.items():
                for keys, batch in self._sources[name].batches(some):
                    wanted_of = [(key[0], missing[name][key]) for key in keys]
                    self._extract(name, store, wanted_of, batch)
                    bar.update(sum(recording.wanted for recording in batch))

    def rows(self, representation, store, index, selection, rows=slice(None)):
        """
        Read features of one recording; :meth:`compute` comes first.

        Parameters
        ----------
        representation : str
            One of :data:`REPRESENTATIONS`.
        store : Store
            The recordings.
        index : int
            Which recording of the store.
        selection : FrameSelection
            What was kept.
        rows : numpy.ndarray or slice
            Which rows of that.

        Returns
        -------
        numpy.ndarray
            Features ``(rows, dim)``, float32; of windows ``(rows, 2 * dim)``,
            means first, or slow features ``(rows, dim)``.
        """
        if representation in SLOW_OF:
            made_of = self.rows(SLOW_OF[representation], store, index, selection, rows)
            return self._slow[representation](made_of)
        name, _, taken = representation.partition("-")
        parts = []
        for layer in tuple(taken) or self._sources[name].layers:
            path = self._path(name, layer, store, index, selection)
            part = np.load(path, mmap_mode="r")[rows]
            parts.append(part if selection.step else part.reshape(len(part), 2, -1))
        joined = np.concatenate(parts, axis=-1, dtype=np.float32)
        return joined.reshape(len(joined), -1)

    def fit_slow(self, representation, store, wanted):
        """
        Find slow features; :meth:`compute` comes first.

        Parameters
        ----------
        representation : str
            One of :data:`SLOW_OF`.
        store : Store
            The recordings.
        wanted : dict of int to FrameSelection
            What to find them in: windows, by recording of the store.
        """
        made_of, parts = SLOW_OF[representation], ()
        name = made_of.partition("-")[0]
        if made_of == "cqt":
            parts = ((CQT_SEMITONES, CQT_BINS),)
        elif name not in HAND_MADE:
            parts = pitch_parts(self._sources[name].model)
        self._slow[representation] = Slow(parts * 2).fit(  # means, then deviations
            self.rows(made_of, store, index, selection)
            for index, selection in wanted.items()
        )

    def hop(self, representation):
        """
        Return the hop of a representation, which selections must count in.

        Parameters
        ----------
        representation : str
            One of :data:`REPRESENTATIONS`.

        Returns
        -------
        int
            Samples at 16 kHz from one frame to the next.
        """
        made_of = SLOW_OF.get(representation, representation)
        return self._sources[made_of.partition("-")[0]].hop

    def _print(self, name):
        """Name the function of a source, found out once."""
        if name not in self._prints:
            self._prints[name] = self._sources[name].fingerprint
        return self._prints[name]

    def _path(self, name, layer, store, index, selection):
        """File of one layer, named by the audio and what is done to it."""
        parts = (self._print(name), store.checksums[index], *map(str, selection))
        key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
        return self.folder / f"{key}-{layer}.npy"

    def _extract(self, name, store, wanted, recordings):
        """Stream recordings side by side through a source into files of its layers."""
        source = self._sources[name]
        limit = np.finfo(np.float16).max
        with contextlib.ExitStack() as stack:
            files = {}
            for first, *layers in source.stream_together(recordings):
                for layer, parts in zip(source.layers, layers, strict=True):
                    for (index, selections), part in zip(wanted, parts, strict=True):
                        for selection in selections:
                            rows, start = selection.of(part, first)
                            path = self._path(name, layer, store, index, selection)
                            if path not in files:
                                files[path] = np.lib.format.open_memmap(
                                    stack.enter_context(atomic(path)),
                                    "w+",
                                    np.float16,
                                    (selection.rows, rows.shape[1]),
                                )
                                _reserve(files[path].filename)
                            rows = np.clip(rows, -limit, limit)
                            files[path][start : start + len(rows)] = rows


def _reserve(path):
    """Take the space of a mapped file, lest a full disk kill who writes to it."""
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


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
    pcm = Audio.of(audio.to_pcm(shown))
    layers = {}
    for source in (HandMadeSource("logmel"), NetworkSource(model)):
        layers |= source.whole(pcm)
    spectrogram = layers.pop("logmel")
    return {
        "spectrogram": spectrogram,
        "roll": frame_roll(notes, len(spectrogram)),
        "layers": layers,
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
