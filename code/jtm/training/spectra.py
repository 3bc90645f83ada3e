"""
Log magnitudes of recordings, computed once and kept on disk.

The front end of a pitch map is fixed unless its filters are learned, so what it
gives of a recording need not be computed again each time the recording is heard.
"""

import contextlib
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import HOP
from jtm.files import atomic
from jtm.music.audio import A4, gain, middle, powers, tuning

BLOCK = 4096
"""Frames computed at a time: 41 s."""


class FrontEnd(NamedTuple):
    """
    A fixed analysis of sound into log magnitudes.

    Parameters
    ----------
    analyse : callable
        Gives log magnitudes ``(frames, bins)`` from samples ``(samples,)`` at 16 kHz,
        float32 in [-1, 1], one for each hop of 10 ms; and, if it has an axis of pitch,
        from semitones that these are tuned above A4 at 440 Hz.
    margin : int
        Frames on either side that a frame depends on, at most.
    key : str
        Tells analyses apart.
    """

    analyse: object
    margin: int
    key: str


def harmonic_front_end(encoder):
    """
    Make the front end of an encoder with a pitch axis, whose filters are not learned.

    Parameters
    ----------
    encoder : jtm.models.encoder.HarmonicStack
        The encoder.

    Returns
    -------
    FrontEnd
        Its log magnitudes.
    """
    filters = encoder.filters
    kernels = filters.kernels().detach().cpu().numpy()

    @torch.no_grad()
    def analyse(wave, tuning=0.0):
        wave = torch.from_numpy(wave).to(filters.time.device)
        return encoder.magnitudes(wave[None, None], tuning)[0].cpu().numpy()

    key = hashlib.sha256(kernels.tobytes()).hexdigest()[:16]
    return FrontEnd(analyse, -(-filters.kernel // HOP), key)


class Spectra:
    """
    Log magnitudes of the recordings of a store.

    Parameters
    ----------
    store : Store
        The recordings.
    front_end : FrontEnd
        What computes them.
    folder : str or Path
        Where magnitudes are kept: 40 kB a second, a file for each recording, named by
        the checksum of the recording, in a folder for the front end.
    tuned : bool
        Bring each recording to one level and one tuning first, by
        :func:`jtm.music.audio.gain` and :func:`jtm.music.audio.tuning`. These know
        tunings within a semitone; which semitone it is tells the column ``tuning`` of
        the metadata, in Hz of A4, where there is one.
    """

    def __init__(self, store, front_end, folder, tuned=False):
        self.store = store
        self.front_end = front_end
        self.tuned = tuned
        kind = "tuned" if tuned else "magnitudes"
        self.folder = Path(folder) / f"{kind}-{front_end.key}"

    def prepare(self, indices, progress=True):
        """Compute what is not there yet of recordings of the store."""
        missing = [i for i in indices if not self._path(i).exists()]
        hide = not (progress and missing)
        for index in tqdm(missing, "Magnitudes", unit="recording", disable=hide):
            with atomic(self._path(index)) as part, open(part, "wb") as file:
                np.save(file, self._compute(index))

    def _path(self, index):
        """Name the file of a recording."""
        return self.folder / f"{self.store.checksums[index]}.npy"

    def _compute(self, index):
        """Compute the magnitudes of a recording ``(frames, bins)`` by blocks."""
        n_frames = int(self.store.lengths[index]) // HOP
        parts, margin = [], self.front_end.margin
        scale, more = 1 / 32768, ()
        if self.tuned:
            scale *= gain(powers(self.store.read(index).astype(np.float32) / 32768))
            more = (self._tuning(index),)
        for first in range(0, n_frames, BLOCK):
            last = min(first + BLOCK, n_frames)
            heard = max(0, first - margin), min(last + margin, n_frames)
            wave = self.store.read(index, *(HOP * frame for frame in heard))
            wave = wave.astype(np.float32) * np.float32(scale)
            found = self.front_end.analyse(wave, *more)
            parts.append(found[first - heard[0] :][: last - first].astype(np.float16))
        return np.concatenate(parts)

    def _tuning(self, index):
        """Return the semitones by which a recording is tuned above 440 Hz."""
        ends = middle(0, int(self.store.lengths[index]))
        found = tuning(self.store.read(index, *ends).astype(np.float32) / 32768)
        stated = self.store.recordings[index].metadata.get("tuning")
        with contextlib.suppress(TypeError, ValueError):  # none, or of another kind
            found += round(12 * math.log2(float(stated) / A4) - found)
        return found

    def read(self, index, first=0, n_frames=None):
        """
        Read magnitudes ``(n_frames, bins)``, float32, of a recording of the store.

        Frames may lie before or beyond it: what does is 0, which is silence.
        """
        self.prepare([index], progress=False)
        # Opened each time, since files held open may be too many for the system.
        held = np.load(self._path(index), mmap_mode="r")
        last = len(held) if n_frames is None else first + n_frames
        part = held[max(0, first) : max(0, last)].astype(np.float32)
        before = min(max(0, -first), last - first)
        return np.pad(part, ((before, last - first - before - len(part)), (0, 0)))
