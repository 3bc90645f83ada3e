"""Modal pianos: pitch, partials, onsets, decay, velocity and variety."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import numpy as np
import pianos
from synth import default_soundfont
from synth import render as render_soundfont

from jtm.constants import LABEL_RATE, PITCH_MAX, PITCH_MIN
from jtm.music.score import Note, Score


def render(*notes, seed=0, **options):
    """Render notes (start, end, pitch, velocity) by a piano."""
    score = Score(tuple(Note(s, e, 1, p, v) for s, e, p, v in notes))
    return pianos.render(score, np.random.default_rng(seed), **options)


def peak(wave, hertz, cents=60):
    """Frequency in Hz of the highest peak within some cents of a frequency."""
    size = 2**19
    power = np.abs(np.fft.rfft(wave * np.hanning(wave.size), size))
    low, high = (
        int(hertz * 2 ** (c / 1200) * size / LABEL_RATE) for c in (-cents, cents)
    )
    return (low + np.argmax(power[low:high])) * LABEL_RATE / size


class TestPianos(unittest.TestCase):
    def test_partials_are_where_the_strings_have_them(self):
        for seed in range(3):
            piano = pianos.Piano(np.random.default_rng(seed))
            for pitch in (45, 60, 72):
                wave = piano.strike_string(pitch, 80, 1.5, 1.5)
                f = piano.hertz[pitch - PITCH_MIN]
                b = piano.inharmonicity[pitch - PITCH_MIN]
                self.assertTrue(3e-5 < b < 5e-3)
                for n in (1, 2, 4):
                    expected = n * f * np.sqrt(1 + b * n**2)
                    cents = 1200 * np.log2(peak(wave, expected, 20) / expected)
                    self.assertLess(abs(cents), 4, (seed, pitch, n))

    def test_every_pitch_sounds_near_its_own_and_as_tuned(self):
        even = 440 * 2 ** ((np.arange(PITCH_MIN, PITCH_MAX + 1) - 69) / 12)
        for seed in range(20):
            for cents in (0.0, -30.0):
                piano = pianos.Piano(np.random.default_rng(seed), cents)
                away = 1200 * np.log2(piano.hertz / even) - cents
                self.assertLess(np.abs(away).max(), 40)
                self.assertLess(away[:12].mean(), away[-12:].mean())  # stretched
        for pitch in range(PITCH_MIN, PITCH_MAX + 1, 3):
            wave = render((0.1, 0.6, pitch, 80))
            first = round(0.1 * LABEL_RATE)
            self.assertLess(np.abs(wave[:first]).max(), 1e-5)
            self.assertGreater(np.abs(wave[first : first + 2205]).max(), 0.01)

    def test_louder_notes_are_brighter(self):
        levels, centroids = [], []
        for velocity in (30, 70, 110):
            spectrum = np.abs(np.fft.rfft(render((0.0, 1.0, 60, velocity))))
            levels.append(spectrum.sum())
            centroids.append((spectrum * np.arange(spectrum.size)).sum() / levels[-1])
        self.assertEqual(levels, sorted(levels))
        self.assertEqual(centroids, sorted(centroids))

    def test_notes_decay_and_are_damped_except_the_highest(self):
        def level(wave, time):
            return np.sqrt(
                np.mean(wave[int(time * LABEL_RATE) :][: LABEL_RATE // 20] ** 2)
            )

        for seed in range(5):
            wave = render((0.0, 1.0, 60, 90), seed=seed)
            self.assertLess(level(wave, 0.9), level(wave, 0.1))
            free = render((0.0, 2.0, 60, 90), seed=seed)
            self.assertLess(level(wave, 1.4), 0.5 * level(free, 1.4))
            high, held = (render((0.0, t, 96, 90), seed=seed) for t in (0.2, 1.0))
            self.assertAlmostEqual(level(high, 0.4) / level(held, 0.4), 1, delta=0.01)

    def test_pianos_are_reproducible_and_differ(self):
        notes = (0.0, 0.5, 50, 60), (0.2, 0.5, 62, 90)
        waves = [render(*notes, seed=seed, tail=0.5) for seed in (1, 1, 2)]
        score = Score(tuple(Note(s, e, 1, p, v) for s, e, p, v in notes))
        other = render_soundfont(score, default_soundfont(), 0.5)
        self.assertEqual(waves[0].shape, other.shape)
        self.assertEqual(waves[0].dtype, np.float32)
        np.testing.assert_array_equal(waves[0], waves[1])
        likeness = np.corrcoef(*(np.abs(np.fft.rfft(waves[i])) for i in (0, 2)))[0, 1]
        self.assertLess(likeness, 0.95)
