"""
Features of recordings: embedded once with everything frozen, and kept on disk.

A representation is named by its source and what is taken of it: ``cpc-z``,
``cpc-c`` and ``cpc-zc`` (both, side by side) of the network that is judged,
``random-z`` ... of the same network as it was before any training, with
another seed, and hand-made features: ``logmel``, ``mfcc`` and ``cqt``, a
constant-Q spectrum of two bins a semitone. All lie on one frame grid: frame
``i`` is centred on the middle of samples ``[160 i, 160 (i + 1))``. ``cpc-s``,
``random-s``, ``logmel-s`` and ``cqt-s`` are slow features of windows
(:mod:`jtm.evaluation.slow`), made of those of :data:`SLOW_OF`.

Recordings are read in pieces with a margin on both sides, so that memory does
not grow with their length; the context network's state is carried from piece to
piece. The result is that of the whole recording at once, with three exceptions: a
transformer looks back no further than :data:`LOOK_BACK` frames beyond its piece,
a norm over time (instance norm) sees its piece alone, and so do the hand-made
features, whose filters reach no further than the margin.

Not every frame is kept, only what is asked for (:class:`Take`): each n-th frame,
or mean and deviation of each window. Features are kept in half precision, which
rounds a value by less than a part in a thousand, in ``.npy`` files named by what
they depend on: the audio, the function that was applied to it, and what was taken.
"""

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import HOP, N_PITCHES, PITCH_MIN, SAMPLE_RATE
from jtm.data.rolls import WINDOW, frame_numbers, frame_roll, read_notes
from jtm.evaluation.slow import Slow
from jtm.files import atomic
from jtm.models.context import TransformerContext
from jtm.models.encoder import HarmonicEncoder
from jtm.music import audio

PIECE = 2048
"""Frames in a piece: 20.48 s, a whole number of windows."""

SHORT_PIECE = 256
"""The same for networks, a multiple too: what layers hand on stays in the cache."""

MARGIN = 128
"""Frames read on each side of a piece, more than filters made by hand reach: 1.28 s."""

LOOK_BACK = 1024
"""Frames before its piece that a transformer looks back on: 10.24 s."""

REPRESENTATIONS = (
    "cpc-z",
    "cpc-c",
    "cpc-zc",
    "random-z",
    "random-c",
    "random-zc",
    "logmel",
    "mfcc",
    "cqt",
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

N_MELS = 229
"""Mel bands of ``logmel``, as in Onsets and Frames (Hawthorne et al. 2018)."""

N_MFCC = 20
"""Cepstral coefficients of ``mfcc``, beside their first differences."""

CQT_BINS = 2
"""Bins a semitone of ``cqt``."""

CQT_SEMITONES = 97
"""Semitones of ``cqt`` from A0 up, as far as a filter fits below 8 kHz."""

CLIPS_AT_ONCE = 32
"""Single notes that are embedded together, which is several times faster."""

FFT = 2048
"""Samples in a window of ``logmel`` and ``mfcc``: 128 ms."""


class Take(NamedTuple):
    """
    What is kept of a recording's features.

    Parameters
    ----------
    step : int
        Keep each frame of :func:`jtm.data.rolls.frame_numbers` with this
        step; 0 keeps the mean and deviation of each window instead.
    n_frames : int
        Length of what it is taken of, in frames from the start.
    """

    step: int
    n_frames: int

    @property
    def rows(self):
        """Number of rows that are kept."""
        if self.step:
            return len(frame_numbers(self.n_frames, self.step))
        return self.n_frames // WINDOW

    def of(self, part, first):
        """
        Take from one piece.

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
        n = len(part) // WINDOW
        windows = part[: n * WINDOW].reshape(n, WINDOW, part.shape[1])
        return pool(windows), first // WINDOW


def pool(windows):
    """
    Summarise the frames of windows.

    Parameters
    ----------
    windows : numpy.ndarray
        Features ``(windows, frames, dim)``.

    Returns
    -------
    numpy.ndarray
        Mean, then standard deviation, over frames ``(windows, 2 * dim)``.
    """
    return np.concatenate((windows.mean(axis=1), windows.std(axis=1)), axis=1)


class Audio:
    """
    The samples of one recording, given in pieces with margins.

    Parameters
    ----------
    read : callable
        Gives int16 samples at 16 kHz from a start up to a stop.
    length : int
        Samples in all.
    n_frames : int, optional
        Frames, from the start, that are of interest; all by default.
    """

    def __init__(self, read, length, n_frames=None):
        self.read = read
        self.length = int(length)
        whole = self.length // HOP
        self.n_frames = whole if n_frames is None else min(n_frames, whole)

    @classmethod
    def of(cls, wave):
        """
        Make a recording of an array.

        Parameters
        ----------
        wave : numpy.ndarray
            Samples ``(samples,)`` in int16 at 16 kHz.

        Returns
        -------
        Audio
            The recording.
        """
        return cls(lambda start, stop: wave[start:stop], len(wave))

    def extent(self, margin):
        """
        Tell what is read in all.

        Parameters
        ----------
        margin : int
            Frames read on each side.

        Returns
        -------
        tuple of int
            Number of frames of interest, and of samples that they are read from.
        """
        return self.n_frames, min((self.n_frames + margin) * HOP, self.length)

    def piece(self, first, size, margin):
        """
        Read one piece and what lies around it.

        Parameters
        ----------
        first : int
            First frame of the piece.
        size : int
            Most frames in it.
        margin : int
            Frames read on each side, where the recording has them.

        Returns
        -------
        wave : numpy.ndarray
            Samples ``(samples,)`` in [-1, 1], float32, of the piece and its margins.
        lead : int
            Frames of `wave` before the piece.
        n_frames : int
            Frames in the piece.
        """
        lead = min(first, margin)
        n_frames = min(self.n_frames - first, size)
        stop = min((first + size + margin) * HOP, self.extent(margin)[1])
        wave = self.read((first - lead) * HOP, stop)
        return wave.astype(np.float32) / 32768, lead, n_frames


class NetworkSource:
    """
    Read z and c from a frozen network.

    Parameters
    ----------
    model : Network
        The network; it is put into evaluation mode.
    """

    layers = ("z", "c")
    reach = 16  # frames, more than any encoder looks ahead

    def __init__(self, model):
        self.model = model.eval()

    @property
    def fingerprint(self):
        """What the network is, as text: a hash of its weights and of an output."""
        hashed = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            hashed.update(name.encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
        # What it says about a second of fixed noise tells settings and code
        # apart that no weight shows.
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, SAMPLE_RATE)
        for _, *parts in self.stream(Audio.of((32768 * noise).astype(np.int16))):
            for part in parts:
                hashed.update(np.round(part, 3).tobytes())
        return hashed.hexdigest()

    @torch.no_grad()
    def stream(self, recording):
        """
        Embed a recording piece by piece.

        Parameters
        ----------
        recording : Audio
            The recording.

        Yields
        ------
        first : int
            First frame of the piece.
        z, c : numpy.ndarray
            Latents ``(frames, z_dim)`` and contexts ``(frames, c_dim)``,
            float32.
        """
        for first, z, c in self.stream_together([recording]):
            yield first, z[0], c[0]

    @torch.no_grad()
    def stream_together(self, recordings):
        """
        Embed recordings side by side, which is faster than one after the other.

        Parameters
        ----------
        recordings : sequence of Audio
            Recordings that are equal in :meth:`Audio.extent`.

        Yields
        ------
        first : int
            First frame of the piece.
        z, c : numpy.ndarray
            Latents ``(recordings, frames, z_dim)`` and contexts ``(recordings,
            frames, c_dim)``, float32.
        """
        model = self.model
        device = next(model.parameters()).device
        # A transformer reads anew, for each piece, what it looks back on.
        lasting = isinstance(model.context, TransformerContext)
        size = PIECE if lasting else SHORT_PIECE
        starts = range(0, recordings[0].n_frames, size)
        state = None
        for first in reversed(starts) if model.reverse else starts:
            waves, (lead, *_), (n, *_) = zip(
                *(each.piece(first, size, self.reach) for each in recordings),
                strict=True,
            )
            waves = torch.from_numpy(np.stack(waves)).to(device)
            z = model.encoder(waves[:, None])[:, lead : lead + n]
            if model.reverse:  # the future is read first
                c, state = model.context(z.flip(1), state)
                c = c.flip(1)
            else:
                c, state = model.context(z, state)
            if lasting:
                state = state[:, -LOOK_BACK:]
            yield first, z.cpu().numpy(), c.cpu().numpy()

    @torch.no_grad()
    def embed(self, waves):
        """
        Embed several recordings of one length at once.

        Parameters
        ----------
        waves : numpy.ndarray
            Samples ``(recordings, samples)`` at 16 kHz, float32.

        Returns
        -------
        list of numpy.ndarray
            Latents and contexts ``(recordings, frames, dim)``.
        """
        device = next(self.model.parameters()).device
        layers = self.model(torch.from_numpy(waves)[:, None].to(device))
        return [layer.cpu().numpy() for layer in layers]


class HandMadeSource:
    """
    Compute features that no network learned, piece by piece.

    Parameters
    ----------
    name : {"logmel", "mfcc", "cqt"}
        Which: log-mel spectra, the usual input of deep audio models; cepstral
        coefficients with their first differences; or constant-Q spectra
        ``(frames, 97 * 2)`` in order of pitch from A0 up.
    """

    reach = 64  # frames, more than half the longest filter

    def __init__(self, name):
        self.name = name
        self.layers = (name,)
        self.analyse = {"logmel": log_mel, "mfcc": mfcc, "cqt": cqt}[name]
        settings = (N_MELS, N_MFCC, CQT_BINS, CQT_SEMITONES, FFT, MARGIN)
        self.fingerprint = f"{name} {settings}"

    def stream(self, recording):
        """
        Analyse a recording piece by piece.

        Parameters
        ----------
        recording : Audio
            The recording.

        Yields
        ------
        first : int
            First frame of the piece.
        features : numpy.ndarray
            Features ``(frames, dim)``, float32.
        """
        for first in range(0, recording.n_frames, PIECE):
            wave, lead, n = recording.piece(first, PIECE, MARGIN)
            yield first, self.analyse(wave)[lead : lead + n]

    def embed(self, waves):
        """
        Analyse several recordings of one length at once.

        Parameters
        ----------
        waves : numpy.ndarray
            Samples ``(recordings, samples)`` at 16 kHz, float32.

        Returns
        -------
        list of numpy.ndarray
            Features ``(recordings, frames, dim)`` of the layer.
        """
        return [self.analyse(waves)]


def _mel_power(wave, power):
    """Give the mel spectrum ``(bands, frames)``, each on the middle of its frame."""
    import librosa

    return librosa.feature.melspectrogram(
        # Zeros on both sides put the middle of a window on the middle of its frame.
        y=np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [((FFT - HOP) // 2,) * 2]),
        sr=SAMPLE_RATE,
        n_fft=FFT,
        hop_length=HOP,
        center=False,
        power=power,
        n_mels=N_MELS,
        fmin=30.0,
    )


def log_mel(wave):
    """
    Compute a log-mel spectrum.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(..., samples)`` at 16 kHz, float32.

    Returns
    -------
    numpy.ndarray
        Natural logarithm of the magnitude ``(..., frames, 229)``.
    """
    return np.log(_mel_power(wave, 1.0).swapaxes(-1, -2) + 1e-5)


def mfcc(wave):
    """
    Compute mel-frequency cepstral coefficients and their first differences.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(..., samples)`` at 16 kHz, float32.

    Returns
    -------
    numpy.ndarray
        Coefficients, then how fast they change ``(..., frames, 2 * 20)``.
    """
    import librosa

    decibels = 10 * np.log10(_mel_power(wave, 2.0) + 1e-8)
    cepstrum = librosa.feature.mfcc(S=decibels, n_mfcc=N_MFCC)
    delta = librosa.feature.delta(cepstrum, mode="nearest")
    return np.concatenate((cepstrum, delta), axis=-2).swapaxes(-1, -2)


def cqt(wave):
    """
    Compute a constant-Q spectrum (Brown 1991).

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(..., samples)`` at 16 kHz, float32.

    Returns
    -------
    numpy.ndarray
        Magnitudes ``(..., frames, 97 * 2)``, two bins a semitone from A0 up, on a
        logarithmic scale of about 0 to 1 as in
        :func:`jtm.models.encoder.log_magnitude`.
    """
    import librosa

    silence = np.zeros_like(wave[..., : HOP // 2])
    with warnings.catch_warnings():
        # A single note is shorter than the longest filters, which see silence.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        spectrum = librosa.cqt(
            # librosa centres frame i on sample 160 i; half a hop less at the start
            # puts it on the middle of the frame.
            np.concatenate((wave[..., HOP // 2 :], silence), axis=-1),
            sr=SAMPLE_RATE,
            hop_length=HOP,
            fmin=440 * 2 ** ((PITCH_MIN - 69) / 12),
            n_bins=CQT_SEMITONES * CQT_BINS,
            bins_per_octave=12 * CQT_BINS,
            dtype=np.complex64,
        )[..., : wave.shape[-1] // HOP]
    return np.log1p(1e5 * np.abs(spectrum.swapaxes(-1, -2)) ** 2) / 18


HAND_MADE = ("logmel", "mfcc", "cqt")
"""Features that no network learned."""


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
        self._sources = {name: NetworkSource(model) for name, model in models.items()}
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
        wanted : dict of int to sequence of Take
            What to keep, by recording of the store.
        progress : bool
            Show a progress bar.
        """
        names = dict.fromkeys(r.partition("-")[0] for r in representations)
        missing = []
        for name in names:
            for index, takes in wanted.items():
                absent = [
                    take
                    for take in dict.fromkeys(takes)
                    if not all(
                        self._path(name, layer, store, index, take).exists()
                        for layer in self._sources[name].layers
                    )
                ]
                if absent:
                    missing.append((name, index, absent))
        if not missing:
            return
        bar = tqdm(
            total=sum(_seconds(takes) for _, _, takes in missing),
            desc="Extracting features",
            unit="s",
            disable=not progress,
        )
        with bar:
            for name, index, takes in missing:
                self._extract(name, store, index, takes)
                bar.update(_seconds(takes))

    def rows(self, representation, store, index, take, rows=slice(None)):
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
        take : Take
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
            made_of = self.rows(SLOW_OF[representation], store, index, take, rows)
            return self._slow[representation](made_of)
        name, _, taken = representation.partition("-")
        parts = []
        for layer in tuple(taken) or self._sources[name].layers:
            path = self._path(name, layer, store, index, take)
            part = np.load(path, mmap_mode="r")[rows]
            parts.append(part if take.step else part.reshape(len(part), 2, -1))
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
        wanted : dict of int to Take
            What to find them in: windows, by recording of the store.
        """
        made_of = SLOW_OF[representation]
        parts = self.pitch_parts(made_of) * 2  # means, then deviations
        self._slow[representation] = Slow(parts).fit(
            self.rows(made_of, store, index, take) for index, take in wanted.items()
        )

    def compute_clips(self, store, representations, spans, progress=True):
        """
        Compute features of single notes that are not kept yet.

        Parameters
        ----------
        store : Store
            The clips.
        representations : sequence of str
            Any of :data:`REPRESENTATIONS`.
        spans : numpy.ndarray
            Clip, first frame and the one after the last to be summarised, a
            row each ``(clips, 3)``.
        progress : bool
            Show a progress bar.
        """
        names = dict.fromkeys(r.partition("-")[0] for r in representations)
        missing = [
            name
            for name in names
            if not all(
                self._clip_path(name, layer, store, spans).exists()
                for layer in self._sources[name].layers
            )
        ]
        if not missing:
            return
        bar = tqdm(
            total=len(missing) * len(spans),
            desc="Extracting features of notes",
            unit="note",
            disable=not progress,
        )
        with bar:
            for name in missing:
                layers = self._sources[name].layers
                made = {layer: [] for layer in layers}
                for some in np.array_split(spans, -(-len(spans) // CLIPS_AT_ONCE)):
                    stop = (int(some[:, 2].max()) + self._sources[name].reach) * HOP
                    waves = np.zeros((len(some), stop), np.float32)
                    for wave, index in zip(waves, some[:, 0], strict=True):
                        samples = store.read(index, 0, min(stop, store.lengths[index]))
                        wave[: len(samples)] = samples.astype(np.float32) / 32768
                    parts = self._sources[name].embed(waves)
                    for layer, part in zip(layers, parts, strict=True):
                        made[layer] += [
                            pool(frames[None, start:stop])[0]
                            for frames, (_, start, stop) in zip(part, some, strict=True)
                        ]
                    bar.update(len(some))
                for layer, rows in made.items():
                    with atomic(self._clip_path(name, layer, store, spans)) as path:
                        np.save(path, np.stack(rows).astype(np.float16))

    def clips(self, representation, store, spans):
        """
        Read features of single notes; :meth:`compute_clips` comes first.

        Parameters
        ----------
        representation : str
            One of :data:`REPRESENTATIONS`.
        store : Store
            The clips.
        spans : numpy.ndarray
            As they were computed.

        Returns
        -------
        numpy.ndarray
            Means, then deviations ``(clips, 2 * dim)``, or slow features ``(clips,
            dim)``, float32.
        """
        if representation in SLOW_OF:
            made_of = self.clips(SLOW_OF[representation], store, spans)
            return self._slow[representation](made_of)
        name, _, taken = representation.partition("-")
        parts = []
        for layer in tuple(taken) or self._sources[name].layers:
            part = np.load(self._clip_path(name, layer, store, spans))
            parts.append(part.reshape(len(part), 2, -1))
        joined = np.concatenate(parts, axis=-1, dtype=np.float32)
        return joined.reshape(len(joined), -1)

    def _clip_path(self, name, layer, store, spans):
        """File of one layer of all clips."""
        audio_of_all = " ".join(store.checksums[index] for index in spans[:, 0])
        parts = (self._print(name), audio_of_all, str(spans.tolist()))
        key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
        return self.folder / f"{key}-{layer}.npy"

    def pitch_parts(self, representation):
        """
        Tell how a representation lies on the axis of pitch.

        Parameters
        ----------
        representation : str
            One of :data:`REPRESENTATIONS`.

        Returns
        -------
        tuple of tuple of int
            Semitones, from A0 up, and features of each, for each part of the
            representation; empty where it has no such axis.
        """
        name, _, taken = representation.partition("-")
        if representation == "cqt":
            return ((CQT_SEMITONES, CQT_BINS),)
        if representation in SLOW_OF or name in HAND_MADE:
            return ()
        return pitch_parts(self._sources[name].model, taken)

    def _print(self, name):
        """Name the function of a source, found out once."""
        if name not in self._prints:
            self._prints[name] = self._sources[name].fingerprint
        return self._prints[name]

    def _path(self, name, layer, store, index, take):
        """File of one layer, named by the audio and what is done to it."""
        parts = (self._print(name), store.checksums[index], *map(str, take))
        key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
        return self.folder / f"{key}-{layer}.npy"

    def _extract(self, name, store, index, takes):
        """Stream one recording through a source into files of its layers."""
        recording = Audio(
            lambda a, b: store.read(index, a, b),
            store.lengths[index],
            max(take.n_frames for take in takes),
        )
        source = self._sources[name]
        limit = np.finfo(np.float16).max
        with contextlib.ExitStack() as stack:
            files = {}
            for first, *parts in source.stream(recording):
                for layer, part in zip(source.layers, parts, strict=True):
                    for take in takes:
                        rows, start = take.of(part, first)
                        if (layer, take) not in files:
                            path = self._path(name, layer, store, index, take)
                            files[layer, take] = np.lib.format.open_memmap(
                                stack.enter_context(atomic(path)),
                                "w+",
                                np.float16,
                                (take.rows, rows.shape[1]),
                            )
                            _reserve(files[layer, take].filename)
                        file = files[layer, take]
                        file[start : start + len(rows)] = np.clip(rows, -limit, limit)


def _reserve(path):
    """Take the space of a mapped file, lest a full disk kill who writes to it."""
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


def pitch_parts(model, taken="zc"):
    """
    Tell how a network's output lies on the axis of pitch.

    Parameters
    ----------
    model : Network
        The network.
    taken : {"z", "c", "zc"}
        Which output.

    Returns
    -------
    tuple of tuple of int
        Semitones and features of each, for each part; empty unless each of
        these has one part for each of the 88 pitches.
    """
    dims = {"z": model.z_dim, "c": model.c_dim}
    on_axis = {
        "z": isinstance(model.encoder, HarmonicEncoder),
        "c": getattr(model.context, "groups", 1) == N_PITCHES,
    }
    if not all(on_axis[part] for part in taken):
        return ()
    return tuple((N_PITCHES, dims[part] // N_PITCHES) for part in taken)


def _seconds(takes):
    """Length in seconds of the audio that is streamed for some takes."""
    return round(max(take.n_frames for take in takes) * HOP / SAMPLE_RATE)


def view(model, recording, seconds=10.0):
    """
    Give what a figure of a piece shows: its sound, its notes and its features.

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
        pieces = sorted(source.stream(pcm), key=lambda piece: piece[0])
        parts = list(zip(*pieces, strict=True))[1:]
        layers |= dict(zip(source.layers, map(np.concatenate, parts), strict=True))
    return {
        "spectrogram": layers.pop("logmel"),
        "roll": frame_roll(notes, len(layers["z"])),
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
    Give what a figure of notes over their sound shows.

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
