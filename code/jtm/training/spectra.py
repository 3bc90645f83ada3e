"""
Log magnitudes of recordings, computed once and kept on disk.

The front end of a pitch map is fixed unless its filters are learned, so what it
gives of a recording need not be computed again each time the recording is heard.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from jtm.constants import HOP
from jtm.files import atomic

BLOCK = 4096
"""Frames computed at a time: 41 s."""


class Spectra:
    """
    Log magnitudes of the recordings of a store.

    Parameters
    ----------
    store : Store
        The recordings.
    encoder : HarmonicStack
        Its filters are the front end; they are not learned.
    folder : str or Path
        Where magnitudes are kept: 40 kB a second, a file for each recording, under a
        name made from the recording's checksum and the filters, so that a file is
        never another's.
    """

    def __init__(self, store, encoder, folder):
        self.store = store
        self.encoder = encoder
        state = hashlib.sha256(encoder.filters.kernels().detach().numpy().tobytes())
        self.folder = Path(folder) / f"magnitudes-{state.hexdigest()[:16]}"
        self.open = {}

    def prepare(self, indices, progress=True):
        """
        Compute what is not there yet.

        Parameters
        ----------
        indices : sequence of int
            Recordings of the store.
        progress : bool
            Show a progress bar.
        """
        missing = [i for i in indices if not self._path(i).exists()]
        bar = tqdm(missing, "Magnitudes", unit="recording", disable=not progress)
        for index in bar if missing else ():
            with atomic(self._path(index)) as part, open(part, "wb") as file:
                np.save(file, self._compute(index))

    def _path(self, index):
        """Name the file of a recording."""
        return self.folder / f"{self.store.checksums[index]}.npy"

    @torch.no_grad()
    def _compute(self, index):
        """Compute the magnitudes of a recording ``(frames, bins)`` by blocks."""
        n_frames, parts = self.frames(index), []
        margin = -(-self.encoder.filters.kernel // HOP)  # frames on either side
        device = self.encoder.filters.time.device
        for first in range(0, n_frames, BLOCK):
            last = min(first + BLOCK, n_frames)
            heard = max(0, first - margin), min(last + margin, n_frames)
            wave = self.store.read(index, *(HOP * frame for frame in heard))
            wave = torch.from_numpy(wave.astype(np.float32) / 32768).to(device)
            found = self.encoder.magnitudes(wave[None, None])[0]
            found = found[first - heard[0] :][: last - first]
            parts.append(found.half().cpu().numpy())
        return np.concatenate(parts)

    def frames(self, index):
        """
        Count the frames of a recording.

        Parameters
        ----------
        index : int
            Recording of the store.

        Returns
        -------
        int
            Frames of 10 ms.
        """
        return int(self.store.lengths[index]) // HOP

    def read(self, index, first=0, n_frames=None):
        """
        Read magnitudes.

        Parameters
        ----------
        index : int
            Recording of the store.
        first : int
            First frame; may lie before the recording.
        n_frames : int, optional
            Number of frames; may reach beyond the recording. All by default.

        Returns
        -------
        numpy.ndarray
            Log magnitudes ``(n_frames, bins)``, float32; 0, which is silence, outside
            the recording.
        """
        if index not in self.open:
            self.prepare([index], progress=False)
            self.open[index] = np.load(self._path(index), mmap_mode="r")
        held = self.open[index]
        last = len(held) if n_frames is None else first + n_frames
        part = held[max(0, first) : max(0, last)].astype(np.float32)
        before = min(max(0, -first), last - first)
        return np.pad(part, ((before, last - first - before - len(part)), (0, 0)))


def vary(magnitudes, generator=None):
    """
    Play log magnitudes at other levels, through an equaliser, and with noise.

    Parameters
    ----------
    magnitudes : torch.Tensor
        Log magnitudes ``(batch, frames, bins)``.
    generator : torch.Generator, optional
        Draws what is varied, on the CPU; torch's own by default.

    Returns
    -------
    torch.Tensor
        Same shape. Each window 12 dB softer to 6 dB louder, its bands raised and
        lowered by about 3 dB along a random curve, with noise 10 to 50 dB below its
        mean power.
    """
    batch, _, bins = magnitudes.shape
    uniform = torch.rand(2, batch, 1, 1, generator=generator)
    curve = 3 * torch.randn(batch, 1, 7, generator=generator)
    noise = torch.rand(magnitudes.shape, generator=generator).clamp_min(1e-6)
    gain = (
        18 * uniform[0]
        - 12
        + functional.interpolate(curve, size=bins, mode="linear", align_corners=True)
    )
    power = torch.expm1(18 * magnitudes) * 10 ** (gain / 10).to(magnitudes)
    level = power.mean((1, 2), keepdim=True) * 10 ** (-4 * uniform[1] - 1).to(power)
    # The power of Gaussian noise in a band is exponentially distributed.
    return torch.log1p(power - level * noise.log().to(power)) / 18
