"""Performances: sample grid, expressive timing and dynamics, pedal and tempo."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import perform
from synth import BLOCK

from jtm.constants import LABEL_RATE
from jtm.data.check import _count_overlaps
from jtm.data.musicnet import labels_of
from jtm.music.score import Note
from jtm.tests.toy.random_music import performance


class TestPerformance(unittest.TestCase):
    def test_labels_lie_on_the_synthesisers_grid_without_overlap(self):
        for ensemble in ("Wind Octet", "Piano Quintet", "Solo Violin"):
            labels = labels_of(performance(ensemble))
            self.assertFalse((labels["start"] % BLOCK).any())
            self.assertFalse((labels["end"] % BLOCK).any())
            self.assertEqual(_count_overlaps(labels), 0)

    def test_timing_and_velocity_vary_within_limits(self):
        score = performance("String Quartet")
        starts = np.array([note.start for note in score.notes])
        beats = np.array([note.start_beat for note in score.notes])
        slope, _ = np.polyfit(beats, starts, 1)
        self.assertAlmostEqual(slope, 0.6, delta=0.06)  # 100 beats a minute
        together = starts[beats == 8]
        self.assertGreater(np.ptp(together), 0)
        self.assertLess(np.ptp(together), 0.1)
        for beat in (4, 20):  # beats stay in order
            self.assertLess(
                starts[beats == beat].max(), starts[beats == beat + 1].min()
            )
        velocities = [note.velocity for note in score.notes]
        self.assertGreater(np.std(velocities), 4)

    def test_pedal_extends_notes_and_dynamics_vary(self):
        score, n_extended, loudness = performance("Piano Trio"), 0, []
        for seed in range(6):
            played = perform.vary_dynamics(score, np.random.default_rng(seed))
            labels = labels_of(played)
            self.assertEqual(_count_overlaps(labels), 0)
            self.assertFalse((labels["end"] % BLOCK).any())
            pairs = [
                [(n.start, n.pitch) for n in s.notes if n.program == 41]
                for s in (score, played)
            ]
            self.assertEqual(*pairs)
            ends = [
                {(n.program, n.start, n.pitch): n.end for n in s.notes}
                for s in (score, played)
            ]
            for key in ends[0].keys() & ends[1].keys():
                n_extended += ends[1][key] > ends[0][key] + 0.01
                if key[0] != 1:
                    self.assertEqual(ends[0][key], ends[1][key])
            loudness += [note.velocity for note in played.notes]
        self.assertGreater(n_extended, 20)
        self.assertGreater(np.std(loudness), np.std([n.velocity for n in score.notes]))

    def test_changed_tempo_scales_times(self):
        score = performance("Solo Piano")
        faster = perform.change_tempo(score, 2.0)
        self.assertAlmostEqual(faster.seconds, score.seconds / 2, delta=0.01)
        self.assertEqual(_count_overlaps(labels_of(faster)), 0)
        self.assertFalse((labels_of(faster)["start"] % BLOCK).any())

    def test_single_notes_have_the_given_durations(self):
        score, clips = perform.single_notes(41, 60)
        self.assertEqual(len(clips), 6)
        for note, length, first, last, end in clips:
            onset = round(note.start * LABEL_RATE) - first
            self.assertAlmostEqual(onset / LABEL_RATE, perform.NOTE_ONSET, delta=1e-3)
            seconds = (end - onset) / LABEL_RATE
            self.assertAlmostEqual(seconds, perform.DURATIONS[length], delta=2e-3)
            self.assertGreaterEqual(last - first, 1.28 * LABEL_RATE)
        self.assertEqual([clip[0] for clip in clips], list(score.notes))

    def test_overlapping_notes_are_trimmed_or_merged(self):
        notes = [
            Note(0.0, 1.0, 41, 60),
            Note(0.03, 1.5, 41, 60),  # struck together
            Note(1.2, 2.0, 41, 60),  # struck again
            Note(0.0, 1.0, 42, 60),  # another instrument
        ]
        spans = [(n.start, n.end, n.program) for n in perform.remove_overlaps(notes)]
        self.assertEqual(spans, [(0.0, 1.2, 41), (1.2, 2.0, 41), (0.0, 1.0, 42)])
        soon = [Note(0.0, 1.0, 41, 60), Note(0.065, 1.5, 41, 60)]
        spans = [(note.start, note.end) for note in perform.remove_overlaps(soon)]
        self.assertEqual(spans, [(0.0, 0.065), (0.065, 1.5)])


if __name__ == "__main__":
    unittest.main()
