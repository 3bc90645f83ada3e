"""
Features of recordings: embedded once with everything frozen, and kept on disk.

A representation is named by its source and what is taken of it: ``cpc-z``,
``cpc-c`` and ``cpc-zc`` (both, side by side) of the network that is judged,
``random-z`` ... of the same network as it was before any training, with
another seed, and hand-made features such as ``logmel``. All lie on one frame
grid: frame ``i`` is centred on the middle of samples ``[160 i, 160 (i + 1))``.

Recordings are read in pieces with a margin on both sides, so that memory does
not grow with their length; the context network's state is carried from piece to
piece. The result is that of the whole recording at once, with two exceptions: a
transformer looks back no further than :data:`LOOK_BACK` frames beyond its piece,
and a norm over time (instance norm) sees its piece alone.

Features are kept in half precision, which rounds a value by less than a part in
a thousand, in ``.npy`` files named by what they depend on: the audio and the
function that was applied to it.
"""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import HOP, SAMPLE_RATE
from jtm.data.targets import frame_roll, read_notes
from jtm.files import atomic
from jtm.models.context import TransformerContext
from jtm.music import audio

PIECE = 2048
"""Frames in a piece: 20.48 s."""

MARGIN = 64
"""Frames read on each side of a piece: 0.64 s, more than any encoder looks."""

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
)
"""Names of the representations that are compared."""

N_MELS = 229
"""Mel bands of ``logmel``, as in Onsets and Frames (Hawthorne et al. 2018)."""

FFT = 2048
"""Samples in a window of ``logmel``: 128 ms."""


class Audio:
    """
    The samples of one recording, given in pieces with margins.

    Parameters
    ----------
    read : callable
        Gives int16 samples at 16 kHz from a start up to a stop.
    length : int
        Samples in all.
    """

    def __init__(self, read, length):
        self.read = read
        self.length = int(length)

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

    def piece(self, first):
        """
        Read one piece and what lies around it.

        Parameters
        ----------
        first : int
            First frame of the piece.

        Returns
        -------
        wave : numpy.ndarray
            Samples ``(samples,)`` in [-1, 1], float32: the piece's, and up to
            :data:`MARGIN` frames before and after where the recording has them.
        lead : int
            Frames of `wave` before the piece.
        n_frames : int
            Frames in the piece; at most :data:`PIECE`.
        """
        lead = min(first, MARGIN)
        n_frames = min(self.length // HOP - first, PIECE)
        stop = min((first + PIECE + MARGIN) * HOP, self.length)
        wave = self.read((first - lead) * HOP, stop)
        return wave.astype(np.float32) / 32768, lead, n_frames


class NetworkSource:
    """
    Read z and c from a frozen network.

    Parameters
    ----------
    model : CPC
        The network; it is put into evaluation mode.
    """

    layers = ("z", "c")

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
        model = self.model
        device = next(model.parameters()).device
        starts = range(0, recording.length // HOP, PIECE)
        state = None
        for first in reversed(starts) if model.reverse else starts:
            wave, lead, n = recording.piece(first)
            wave = torch.from_numpy(wave).to(device)
            z = model.encoder(wave[None, None])[:, lead : lead + n]
            if model.reverse:  # the future is read first
                c, state = model.context(z.flip(1), state)
                c = c.flip(1)
            else:
                c, state = model.context(z, state)
            if isinstance(model.context, TransformerContext):
                state = state[:, -LOOK_BACK:]
            yield first, z[0].cpu().numpy(), c[0].cpu().numpy()


class LogMelSource:
    """Compute log-mel spectra, the hand-made features of deep audio models."""

    layers = ("logmel",)
    fingerprint = f"logmel {N_MELS} {FFT}"

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
        spectrum : numpy.ndarray
            Log-mel spectrum ``(frames, 229)``, natural logarithm, float32.
        """
        import librosa

        for first in range(0, recording.length // HOP, PIECE):
            wave, lead, n = recording.piece(first)
            # Zeros on both sides put the middle of a window on the middle of
            # its frame.
            wave = np.pad(wave, (FFT - HOP) // 2)
            mel = librosa.feature.melspectrogram(
                y=wave,
                sr=SAMPLE_RATE,
                n_fft=FFT,
                hop_length=HOP,
                center=False,
                power=1.0,
                n_mels=N_MELS,
                fmin=30.0,
            )
            yield first, np.log(mel.T[lead : lead + n] + 1e-5)


HAND_MADE = {"logmel": LogMelSource}
"""Sources of features that no network learned, by name."""


class Features:
    """
    The features of a store's recordings, each computed once.

    Parameters
    ----------
    store : Store
        The recordings.
    folder : str or Path
        Where the features are kept.
    models : dict of str to CPC
        Networks by the name of their source, such as 'cpc' and 'random'.
    """

    def __init__(self, store, folder, models):
        self.store = store
        self.folder = Path(folder)
        self._sources = {name: NetworkSource(model) for name, model in models.items()}
        self._sources |= {name: source() for name, source in HAND_MADE.items()}
        self._prints = {}

    def compute(self, representations, indices, progress=True):
        """
        Compute what is not kept yet.

        Parameters
        ----------
        representations : sequence of str
            Any of :data:`REPRESENTATIONS`.
        indices : sequence of int
            Recordings of the store.
        progress : bool
            Show a progress bar.
        """
        names = dict.fromkeys(r.partition("-")[0] for r in representations)
        missing = [
            (name, index)
            for name in names
            for index in indices
            if not all(
                self._path(name, la, index).exists() for la in self._layers(name)
            )
        ]
        if not missing:
            return
        seconds = sum(self.store.lengths[i] for _, i in missing) / SAMPLE_RATE
        bar = tqdm(
            total=round(seconds),
            desc="Extracting features",
            unit="s",
            disable=not progress,
        )
        with bar:
            for name, index in missing:
                self._extract(name, index)
                bar.update(round(self.store.lengths[index] / SAMPLE_RATE))

    def rows(self, representation, index, frames=slice(None)):
        """
        Read features of one recording; :meth:`compute` comes first.

        Parameters
        ----------
        representation : str
            One of :data:`REPRESENTATIONS`.
        index : int
            Which recording of the store.
        frames : numpy.ndarray or slice
            Which frames of it.

        Returns
        -------
        numpy.ndarray
            Features ``(frames, dim)``, float32.
        """
        name, _, taken = representation.partition("-")
        layers = tuple(taken) or self._layers(name)
        parts = [
            np.load(self._path(name, layer, index), mmap_mode="r")[frames]
            for layer in layers
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _layers(self, name):
        return self._sources[name].layers

    def _path(self, name, layer, index):
        """File of one layer, named by the audio and what is done to it."""
        if name not in self._prints:
            self._prints[name] = self._sources[name].fingerprint
        parts = (self._prints[name], self.store.checksums[index])
        key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
        return self.folder / f"{key}-{layer}.npy"

    def _extract(self, name, index):
        """Stream one recording through a source into files of its layers."""
        length = self.store.lengths[index]
        recording = Audio(lambda a, b: self.store.read(index, a, b), length)
        limit = np.finfo(np.float16).max
        with contextlib.ExitStack() as stack:
            files = []
            for first, *parts in self._sources[name].stream(recording):
                if not files:
                    for layer, part in zip(self._layers(name), parts, strict=True):
                        path = stack.enter_context(
                            atomic(self._path(name, layer, index))
                        )
                        shape = (recording.length // HOP, part.shape[1])
                        files.append(
                            np.lib.format.open_memmap(path, "w+", np.float16, shape)
                        )
                for file, part in zip(files, parts, strict=True):
                    file[first : first + len(part)] = np.clip(part, -limit, limit)


def view(model, recording, seconds=10.0):
    """
    Give what a figure of a piece shows: its sound, its notes and its features.

    Parameters
    ----------
    model : CPC
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
    pcm = Audio.of(np.round(shown * 32767).astype(np.int16))
    layers = {}
    for source in (LogMelSource(), NetworkSource(model)):
        pieces = sorted(source.stream(pcm), key=lambda piece: piece[0])
        parts = list(zip(*pieces, strict=True))[1:]
        layers |= dict(zip(source.layers, map(np.concatenate, parts), strict=True))
    row = recording.metadata
    names = (row.get("composer"), row.get("composition"), row.get("ensemble"))
    return {
        "spectrogram": layers.pop("logmel"),
        "roll": frame_roll(notes, len(layers["z"])),
        "layers": layers,
        "title": ", ".join(name for name in names if name) or recording.id,
    }
