"""Scores are read as voices, and arranged as playable parts."""

import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import arrange
import voices

from jtm.constants import PITCH_RANGES
from jtm.files import InputError
from jtm.tests.toy.random_music import performance, tune


class TestReading(unittest.TestCase):
    def test_ties_chords_and_grace_notes(self):
        from music21 import chord, note, stream, tie

        part = stream.Part()
        for i in range(8):  # enough chords for two voices
            part.insert(4 + i, chord.Chord(["C4", "G4"], quarterLength=1))
        long = [note.Note("E5", quarterLength=2) for _ in range(3)]
        for i, kind in enumerate(("start", "continue", "stop")):
            long[i].tie = tie.Tie(kind)
            part.insert(20 + 2 * i, long[i])
        part.insert(30, note.Note("E5", quarterLength=2))
        part.insert(32, note.Note("E5", quarterLength=2))
        part.insert(31, note.Note("A5", quarterLength=1).getGrace())
        upper, lower = voices._voices(part.flatten().notes)
        expected = [(4.0 + i, 1.0, 67) for i in range(8)]
        expected += [(20.0, 6.0, 76), (30.0, 2.0, 76), (32.0, 2.0, 76)]
        self.assertEqual(list(upper), expected)
        self.assertEqual([pitch for _, _, pitch in lower], [60] * 8)

    def test_notes_of_a_voice_end_at_the_next(self):
        from music21 import note, stream

        part = stream.Part()
        for i in range(8):
            part.insert(2 * i, note.Note(60 + i, quarterLength=3))
        (voice,) = voices._voices(part.flatten().notes)
        expected = [(2.0 * i, 2.0, 60 + i) for i in range(7)]
        self.assertEqual(voice, (*expected, (14.0, 3.0, 67)))

    def test_chorale_has_four_voices_in_descending_order(self):
        music = voices.read_work("bach/bwv269.mxl")
        self.assertEqual(len(music.voices), 4)
        self.assertEqual(music.bar, 3.0)
        heights = [np.mean([p for _, _, p in voice]) for voice in music.voices]
        self.assertEqual(heights, sorted(heights, reverse=True))
        self.assertEqual(music.melody[:6], [67, 67, 74, 71, 69, 67])

    def test_damaged_score_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "a.mxl").write_bytes(b"PK\3\4")
            with (
                mock.patch("voices.corpus_root", return_value=Path(folder)),
                self.assertRaisesRegex(InputError, "a.mxl: not a readable score"),
            ):
                voices.read_work("a.mxl")

    def test_empty_bars_are_removed(self):
        two = [((0.0, 4.0, 60), (16.0, 4.0, 62)), ((0.0, 2.0, 50), (17.0, 1.0, 52))]
        self.assertEqual(
            voices._close_gaps(two, 4.0),
            [((0.0, 4.0, 60), (8.0, 4.0, 62)), ((0.0, 2.0, 50), (9.0, 1.0, 52))],
        )


class TestArrangement(unittest.TestCase):
    def test_all_players_of_every_ensemble_play_in_range(self):
        for ensemble, programs in arrange.ENSEMBLES.items():
            score = performance(ensemble)
            self.assertEqual(set(score.programs), set(programs), ensemble)
            for note in score.notes:
                low, high = PITCH_RANGES[note.program]
                self.assertTrue(low <= note.pitch <= high, (ensemble, note))

    def test_any_players_fit_any_number_of_voices(self):
        for seed in range(60):
            rng = np.random.default_rng(seed)
            music = tune(seed)
            music = replace(music, voices=music.voices[: rng.integers(1, 5)])
            programs = rng.choice(list(PITCH_RANGES), rng.integers(1, 7), replace=False)
            parts, _ = arrange.arrange(music, tuple(programs), rng)
            self.assertEqual({part[0] for part in parts}, set(programs))

    def test_string_quartet_plays_the_four_voices(self):
        music = tune(3)
        parts, shift = arrange.arrange(
            music, arrange.ENSEMBLES["String Quartet"], np.random.default_rng(0)
        )
        self.assertEqual([program for program, _, _ in parts], [41, 41, 42, 43])
        for (_, notes, _), voice in zip(parts, music.voices, strict=True):
            moved = {
                (p - q - shift) % 12
                for (_, _, p), (_, _, q) in zip(notes, voice, strict=True)
            }
            self.assertEqual(moved, {0})

    def test_notes_out_of_range_move_by_the_fewest_octaves(self):
        notes = [(0.0, 1.0, p) for p in (47, 48, 59, 60, 96, 97, 108, 109)]
        folded = [pitch for *_, pitch in arrange._fold(notes, 74)]  # flute: 60 to 96
        self.assertEqual(folded, [71, 60, 71, 60, 96, 85, 96, 85])

    def test_double_stops_are_notes_of_other_voices_below_the_melody(self):
        melody = [(beat, 1.0, 76) for beat in (0.0, 1.0, 2.0)]
        other = [(0.0, 2.0, 60), (1.0, 0.5, 65), (2.0, 1.0, 75)]  # the last too near
        rng = mock.Mock(random=lambda: 0.0)
        stops = arrange._double_stops(melody, [other], 41, rng)
        self.assertEqual(stops, [(0.0, 1.0, 72), (1.0, 0.5, 65)])

    def test_figures_repeat_the_pitches_of_the_accompaniment(self):
        music, ratios, unchanged = tune(5), [], False
        for seed in range(12):
            rng = np.random.default_rng(seed)
            parts, _ = arrange.arrange(music, (41, 1), rng)
            figured = arrange.figurate(parts, 60.0, rng)
            leading = [part for part in parts if part[0] == 41 or part[2]]
            self.assertEqual(figured[:-1], leading)
            program, notes, leads = figured[-1]
            self.assertEqual((program, leads), (1, False))
            before = [n for part in parts if part not in leading for n in part[1]]
            for beat, _, pitch in notes:
                chord = [p for b, d, p in before if b - 2 <= beat < b + d + 2]
                self.assertIn(pitch, chord)
            onsets = [beat for beat, _, _ in notes]
            self.assertLess(max(onsets), music.length)
            for pitch in {pitch for *_, pitch in notes}:
                own = sorted({beat for beat, _, p in notes if p == pitch})
                self.assertGreater(min(np.diff(own), default=1), 0.05)  # beats of 1 s
            ratios.append(len(notes) / len(before))
            unchanged |= sorted(notes) == sorted(before)
        self.assertTrue(unchanged)  # some pieces have no figures
        self.assertGreater(max(ratios), 1.5)

    def test_parts_without_a_keyboard_have_no_figures(self):
        rng = np.random.default_rng(0)
        parts, _ = arrange.arrange(tune(4), (41, 42, 43), rng)
        self.assertEqual(arrange.figurate(parts, 90.0, rng), parts)

    def test_solo_players_have_no_long_rests(self):
        music = tune(4)
        gap = [n for n in music.voices[0] if not 8 <= n[0] < 40]
        music = replace(music, voices=(tuple(gap), *music.voices[1:]))
        parts, _ = arrange.arrange(
            music, arrange.ENSEMBLES["Solo Flute"], np.random.default_rng(0)
        )
        onsets = np.sort([beat for beat, _, _ in parts[0][1]])
        self.assertLess(np.diff(onsets).max(), 4)


if __name__ == "__main__":
    unittest.main()
