"""Cached log magnitudes: values, padding with silence, and reuse of files."""

import os
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from jtm.models import encoder
from jtm.models.encoder import HarmonicEncoder
from jtm.training import spectra


def noise(seconds, seed=0):
    """Make white noise as 16-bit samples."""
    rng = np.random.default_rng(seed)
    return (3000 * rng.standard_normal(round(16000 * seconds))).astype(np.int16)


class Store:
    """In-memory recordings with the part of a store's interface that Spectra uses."""

    def __init__(self, *waves):
        self.waves = waves
        self.lengths = [len(wave) for wave in waves]
        self.checksums = [str(hash(wave.tobytes())) for wave in waves]
        self.recordings = [SimpleNamespace(metadata={}) for _ in waves]

    def read(self, index, start=0, stop=None):
        """Read samples."""
        return self.waves[index][start:stop]


class TestSpectra(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.encoder = HarmonicEncoder(kernel=512)

    def make(self, *waves, tuned=False):
        """Make the spectra of some waves."""
        front_end = spectra.harmonic_front_end(self.encoder)
        return spectra.Spectra(Store(*waves), front_end, self.folder, tuned)

    def test_blocks_equal_the_whole(self):
        wave = noise(2.005)
        cached = self.make(wave)
        self.addCleanup(setattr, spectra, "BLOCK", spectra.BLOCK)
        spectra.BLOCK = 37
        whole = self.encoder.filters(torch.tensor(wave / 32768.0).float()[None, None])
        magnitudes = cached.read(0)
        self.assertEqual(magnitudes.shape, (200, whole.shape[2]))
        np.testing.assert_allclose(magnitudes, whole[0].numpy(), atol=2e-3)

    def test_frames_outside_a_recording_are_silent(self):
        cached = self.make(noise(0.5))
        found = cached.read(0, -10, 80)
        self.assertEqual(len(found), 80)
        self.assertFalse(found[:10].any() or found[60:].any())
        np.testing.assert_array_equal(found[10:60], cached.read(0))
        self.assertFalse(cached.read(0, 70, 5).any())
        self.assertFalse(cached.read(0, -9, 5).any())

    def test_other_filters_or_audio_have_other_files(self):
        self.make(noise(0.2)).prepare([0], progress=False)
        self.encoder = HarmonicEncoder(kernel=1024)
        self.make(noise(0.2), noise(0.2, 1)).prepare([0, 1], progress=False)
        self.assertEqual(len([*self.folder.rglob("*.npy")]), 3)

    def test_edited_tuning_is_followed(self):
        tone = 9000 * np.sin(2 * np.pi * 440 / 16000 * np.arange(16000))
        cached = self.make(tone.astype(np.int16), tuned=True)
        metadata, peaks = cached.store.recordings[0].metadata, []
        for tuning in ("", "440", "415.3", "none", "inf"):
            metadata["tuning"] = tuning
            peaks.append(cached.read(0)[50].argmax())
        semitone = self.encoder.passed  # in bins
        self.assertEqual(np.subtract(peaks, peaks[0]).tolist(), [0, 0, semitone, 0, 0])

    def test_other_transforms_have_other_keys(self):
        def other(real, imaginary):
            return torch.log1p((real.square() + imaginary.square()) * 1e3) / 12

        before = spectra.harmonic_front_end(self.encoder).key
        self.assertEqual(spectra.harmonic_front_end(self.encoder).key, before)
        with mock.patch.object(encoder, "log_magnitude", other):
            self.assertNotEqual(spectra.harmonic_front_end(self.encoder).key, before)

    @unittest.skipUnless(Path("/proc/self/fd").exists(), "no list of open files")
    def test_no_file_stays_open(self):
        cached = self.make(*(noise(0.05, seed) for seed in range(12)))
        before = len(os.listdir("/proc/self/fd"))
        for index in range(12):
            cached.read(index)
        self.assertLess(len(os.listdir("/proc/self/fd")), before + 6)

    def test_cached_magnitudes_are_not_recomputed(self):
        cached = self.make(noise(0.2))
        cached.prepare([0], progress=False)
        cached.front_end = None  # computing would fail
        cached.prepare([0], progress=False)
