"""Notes: decoding in blocks, and choice of instruments and velocities."""

import unittest
from unittest import mock

import numpy as np

from jtm.evaluation.transcription import decode
from jtm.files import InputError
from jtm.tests.transcriber.toys import blocks
from jtm.transcriber import notes
from jtm.transcriber.notes import Choices, find, finish

THRESHOLDS = (0.4, 0.3)


def random_blocks(size, seed=0, n_frames=700):
    rng = np.random.default_rng(seed)
    logits = np.zeros((n_frames, 2, 88), np.float32)
    for row, width in ((0, 40), (1, 4)):  # smoothed, so that notes are long
        steps = rng.normal(0, 1, (n_frames + width, 88))
        mean = np.cumsum(steps, axis=0)
        logits[:, row] = 3 * (mean[width:] - mean[:-width]) / width**0.5 - 1
    for first in range(0, n_frames, size):
        part = {"notes": logits[first : first + size]}
        yield part | {"parts": np.repeat(part["notes"][:, :1], 11, axis=1)}


class TestFind(unittest.TestCase):
    def test_decoding_in_blocks_equals_decoding_of_evaluation(self):
        whole = next(random_blocks(10_000))
        expected = decode(whole["notes"], *THRESHOLDS)
        self.assertGreater(len(expected), 300)
        with mock.patch.object(notes, "WEAK", 0.999999 / 0.3):
            found = find([whole], THRESHOLDS)
        for name, edge in (("first", "start"), ("last", "end")):
            np.testing.assert_array_equal(found[name], np.rint(100 * expected[edge]))
        np.testing.assert_array_equal(found["pitch"], expected["pitch"])
        once = find([whole], THRESHOLDS)
        self.assertGreater(len(once), len(expected))  # slow attacks too
        for size in (1, 7, 64):
            found = find(random_blocks(size), THRESHOLDS)
            for name in ("first", "last", "pitch"):
                np.testing.assert_array_equal(found[name], once[name])
            np.testing.assert_allclose(found["evidence"], once["evidence"], atol=1e-3)

    def test_slow_attack_is_a_weak_onset_of_a_pitch_that_remains_active(self):
        def found(onset, length=40, later=-9.0, at=17):
            logits = np.full((100, 2, 88), -9.0, np.float32)
            logits[20 : 20 + length, 0, 48] = 2.0
            logits[at, 1, 48], logits[30, 1, 48] = onset, later
            decoded = [find([{"notes": logits}], THRESHOLDS)]
            size = 9
            parts = [{"notes": logits[i : i + size]} for i in range(0, 100, size)]
            decoded.append(find(parts, THRESHOLDS))
            spans = [[(n["first"], n["last"]) for n in each] for each in decoded]
            self.assertEqual(*spans)
            return spans[0]

        self.assertEqual(found(-2.0), [(20, 60)])
        self.assertEqual(found(-3.0), [])  # an onset probability of 5 %
        self.assertEqual(found(-2.0, length=10), [])
        self.assertEqual(found(-2.0, later=2.0), [(30, 60)])
        self.assertEqual(found(2.0, at=19), [(19, 60)])  # a clear onset, just before

    def test_no_notes_in_silence(self):
        for silent in ([], blocks([], 5, 5), blocks([], 300, 20)):
            found = find(silent, THRESHOLDS)
            self.assertEqual(len(found), 0)
            self.assertEqual(len(finish(found, 3.0, Choices())), 0)

    def test_power_is_taken_at_the_attack_across_blocks(self):
        played = [(10, 60, 60), (18, 60, 64), (35, 60, 67)]
        found = find(blocks(played, 80, 20), THRESHOLDS)
        self.assertEqual(found["power"].tolist(), [1.0, 2.0, 3.0])
        (whole,) = blocks([(30, 70, 60)], 80, 80)
        whole["power"][39, 60 - 21] = 5.0  # in the last frame of the attack
        whole["power"][40:, 60 - 21] = 7.0
        for size in (80, 20, 7):
            parts = range(0, 80, size)
            parts = ({n: x[a : a + size] for n, x in whole.items()} for a in parts)
            self.assertEqual(find(parts, THRESHOLDS)["power"].tolist(), [5.0])


class TestFinish(unittest.TestCase):
    def notes(self, played, programs=(), seconds=10.0, lead=0.0, **chosen):
        programs = programs or (1,) * len(played)
        found = find(blocks(played, 1000, 300, programs), THRESHOLDS)
        chosen = {"min_note_ms": 0} | chosen
        return finish(found, seconds, Choices(**chosen), lead)

    def test_times_are_relative_to_the_recording(self):
        played = [(10, 30, 60), (49, 70, 62), (90, 120, 64), (200, 260, 65)]
        found = self.notes(played, seconds=2.0, lead=0.5)
        self.assertEqual(found["pitch"].tolist(), [62, 64, 65])
        np.testing.assert_allclose(found["start"], [0, 0.4, 1.5])
        np.testing.assert_allclose(found["end"], [0.2, 0.7, 2.0])

    def test_note_of_no_length_at_the_end_is_dropped(self):
        played = [(10, 30, 60), (199, 230, 62)]  # the second, clipped, has 10 us
        self.assertEqual(self.notes(played, seconds=1.99001)["pitch"].tolist(), [60])

    def test_choices_filter_notes_and_are_validated(self):
        played = [(10, 13, 60), (10, 40, 62), (10, 15, 84)]
        self.assertEqual(len(self.notes(played, min_note_ms=50)), 2)
        found = self.notes(played, pitch_range=(61, 84))
        self.assertEqual(found["pitch"].tolist(), [62, 84])
        found = self.notes(played, (74,) * 3, instruments=(74, 43))
        self.assertEqual(found["program"].tolist(), [74, 74, 74])
        self.assertEqual(Choices(instruments=(" Flute", 43)).instruments, (74, 43))
        self.assertEqual(Choices(instruments="Flute, 43").instruments, (74, 43))
        self.assertEqual(Choices(instruments=43).instruments, (43,))
        self.assertEqual(Choices(pitch_range="C4-72").pitch_range, (60, 72))
        for chosen, message in (
            ({"onset_threshold": 1.0}, "--onset-threshold 1.0; expected .* above 0"),
            ({"frame_threshold": 0.0}, "--frame-threshold 0.0"),
            ({"min_note_ms": -1.0}, "--min-note-ms -1.0"),
            ({"min_note_ms": float("nan")}, "--min-note-ms nan"),
            ({"pitch_range": (60, 50)}, "--pitch-range 60-50"),
            ({"pitch_range": (60, 128)}, "--pitch-range 60-128"),
            ({"pitch_range": (-1, 50)}, "--pitch-range -1-50"),
            ({"instruments": (1, 99)}, "--instruments 99; expected some of piano, h"),
            ({"onset_threshold": "0.5"}, "--onset-threshold 0.5; expected a prob"),
            ({"min_note_ms": None}, "--min-note-ms None; expected 0 or more"),
            ({"pitch_range": 60}, "--pitch-range 60; expected the lowest"),
            ({"pitch_range": None}, "--pitch-range None"),
            ({"instruments": None}, "--instruments none; expected some of piano"),
        ):
            with self.assertRaisesRegex(InputError, message):
                Choices(**chosen)

    def test_excluded_notes_do_not_change_others(self):
        played = [(20 * i, 20 * i + 10 + i, 60 + i) for i in range(12)]
        programs = (41,) * 10 + (43,) * 2
        whole = self.notes(played, programs)
        for chosen, kept in (
            ({"pitch_range": (66, 69)}, whole[6:10]),
            ({"pitch_range": (70, 90)}, whole[10:]),
            ({"min_note_ms": 180}, whole[8:]),
        ):
            np.testing.assert_array_equal(self.notes(played, programs, **chosen), kept)

    def test_rare_instrument_is_dropped(self):
        played = [(20 * i, 20 * i + 15, 60 + i % 5) for i in range(40)]
        solo = self.notes(played, (41,) * 39 + (42,))
        self.assertEqual(set(solo["program"].tolist()), {41})
        duo = self.notes(played, (41, 43) * 20)
        self.assertEqual(set(duo["program"].tolist()), {41, 43})

    def test_weakest_instrument_is_dropped_first(self):
        evidence = np.zeros((100, 11))
        evidence[:90, 0] = 1.0  # piano; the others have less than a share of 8 %,
        evidence[90:96, [2, 10]] = 0.6, 0.5  # the violin more than
        evidence[96:, [2, 10]] = 0.5, 0.6  # the flute, whose notes it gets
        found = notes._programs(evidence, np.full(100, 70))
        self.assertEqual(found.tolist(), [1] * 90 + [41] * 10)

    def test_instruments_get_only_playable_pitches(self):
        evidence = np.zeros((2, 11))
        evidence[:, 10], evidence[:, 4] = 10.0, 4.0  # flute likelier than cello
        found = notes._programs(evidence, np.array([72, 40]))
        self.assertEqual(found.tolist(), [74, 43])
        only = notes._programs(evidence, np.array([72, 40]), (74,))
        self.assertEqual(only.tolist(), [74, 74])

    def test_velocity_depends_on_relative_power(self):
        power = np.array([0.01, 1.0, 1.0, 100.0, 0.0])
        found = notes._velocities(power)
        self.assertEqual(found.tolist(), [20, 64, 64, 127, 1])
        np.testing.assert_array_equal(notes._velocities(1e-4 * power), found)
        self.assertEqual(notes._velocities(np.zeros(2)).tolist(), [notes.MEDIUM] * 2)


if __name__ == "__main__":
    unittest.main()
