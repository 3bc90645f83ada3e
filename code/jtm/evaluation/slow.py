"""
Slow features: what stays the same in a recording, learned without labels.

Notes change from window to window; instruments, style and room do not. Of the
pooled features of windows we keep the few directions in which recordings differ most
beside what differs within them: linear discriminant analysis with the recording as
the class (Rao 1948), which needs no label but which windows are of one recording.
It is to windows what CPC is to frames. With windows spread around their recording's
mean, alike and normally, these directions are what picks a window of the same
recording out of windows of others best, as InfoNCE would ask (van den Oord et al.
2018). Features that change slowly are an old way to learn without labels (Wiskott and
Sejnowski 2002), and so are speakers' in speaker recognition (Dehak et al. 2011).
"""

import numpy as np
import torch

from jtm.files import InputError
from jtm.models.pooling import CONSTANT, octaves
from jtm.training import checkpoints

SIZE = 16
"""Directions that are kept."""

RIDGE = 0.03
"""Variance added within recordings to each feature, beside its own of 1."""


class Slow:
    """
    Directions in which recordings differ, and their windows do not.

    Parameters
    ----------
    parts : tuple of tuple of int
        How features lie on the axis of pitch, if they do; of these the mean and the
        maximum of each octave are taken, see :func:`jtm.models.pooling.octaves`.
    size : int
        Directions that are kept; fewer where there are fewer features, or no more
        recordings than that.

    Attributes
    ----------
    shift : numpy.ndarray
        Mean of the features.
    map : numpy.ndarray
        From features to directions ``(features, size)``, the slowest first.
    """

    def __init__(self, parts=(), size=SIZE):
        self.parts = parts
        self.size = size
        self.shift = self.map = None

    def fit(self, recordings):
        """
        Find the directions.

        Parameters
        ----------
        recordings : iterable of numpy.ndarray
            Pooled features of the windows of each recording ``(windows, dim)``; of
            two recordings or more.

        Returns
        -------
        Slow
            This.
        """
        from scipy.linalg import eigh

        counts, means, within = [], [], 0.0
        for windows in recordings:
            if len(windows):
                x = self._summarise(windows)
                counts.append(len(x))
                means.append(x.mean(axis=0))
                within = within + (x - means[-1]).T @ (x - means[-1])
        weights = np.array(counts) / sum(counts)
        means = np.stack(means)
        within = within / sum(counts)
        self.shift = weights @ means
        deviations = means - self.shift
        whole = within + (weights[:, None] * deviations).T @ deviations
        variance = np.diag(whole)
        # Features that never vary say nothing, and are left out.
        varies = variance > (CONSTANT * self.shift) ** 2
        scale = np.sqrt(np.divide(1, variance, np.zeros(len(varies)), where=varies))
        # Recordings count alike, however long they are.
        between = np.cov(scale * means, rowvar=False, bias=True)
        within = np.outer(scale, scale) * within
        within[np.diag_indices_from(within)] += RIDGE
        size = min(self.size, len(scale), len(means) - 1)
        last = len(scale) - 1
        _, found = eigh(between, within, subset_by_index=(last + 1 - size, last))
        self.map = scale[:, None] * found[:, ::-1]
        return self

    def __call__(self, windows):
        """
        Look at windows along the directions.

        Parameters
        ----------
        windows : numpy.ndarray
            Pooled features ``(windows, dim)``.

        Returns
        -------
        numpy.ndarray
            ``(windows, size)``, float32; within recordings of variance 1 at most.
        """
        return ((self._summarise(windows) - self.shift) @ self.map).astype(np.float32)

    def save(self, path, network):
        """
        Write the directions to a file.

        Parameters
        ----------
        path : str or Path
            The file, ending in ``.safetensors``.
        network : str
            Hash of the network whose features they are of.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        arrays = {"shift": self.shift, "map": self.map}
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
            for name, array in arrays.items()
        }
        told = {"network": network, "parts": self.parts}
        checkpoints.write_tensors(path, tensors, told)

    @classmethod
    def load(cls, path, network):
        """
        Read directions from a file.

        Parameters
        ----------
        path : str or Path
            What :meth:`save` wrote.
        network : str
            Hash of the network that they must be of.

        Returns
        -------
        Slow
            The directions.

        Raises
        ------
        InputError
            If the file is damaged, or of another network.
        """
        tensors, told = checkpoints.read_tensors(
            path, "slow features", {"network": str, "parts": list}
        )
        if told["network"] != network:
            raise InputError(
                f"{path}: slow features of another network; make those of this one "
                "with `jtm export --data`, or remove the file"
            )
        slow = cls(tuple(map(tuple, told["parts"])), tensors["map"].shape[1])
        slow.shift, slow.map = (tensors[name].numpy() for name in ("shift", "map"))
        return slow

    def _summarise(self, windows):
        """Take means and maxima of octaves where there is an axis of pitch."""
        if self.parts:
            windows = octaves(torch.from_numpy(windows), self.parts).numpy()
        return windows.astype(np.float64)
