"""Arrangements fit the players, performances the grid, tunes one split, rooms time."""

import sys
import unittest
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import recipe

from jtm.constants import ENSEMBLES, LABEL_RATE, PITCH_RANGES
from jtm.data.check import count_overlaps
from jtm.data.musicnet import labels_of
from jtm.music.score import Note, note_value
from jtm.music.synth import BLOCK

PRESET = recipe.Preset(42, 21, 21, 10, (6.0, 7.0), 2, 1, 2, 1, np.inf)


def tune(seed, beats=64):
    """Four voices in quarter notes, each a random walk in its register."""
    rng = np.random.default_rng(seed)
    voices = tuple(
        tuple(
            (float(i), 1.0, int(pitch))
            for i, pitch in enumerate(
                np.clip(middle + np.cumsum(rng.integers(-2, 3, beats)), 30, 90)
            )
        )
        for middle in (72, 65, 58, 50)
    )
    return recipe.Music(voices, 4.0, float(beats))


def performance(ensemble, seed=0):
    music = tune(seed)
    rng = np.random.default_rng(seed)
    parts, _ = recipe.arrange(music, ensemble, rng)
    return recipe.perform(parts, music, 100.0, rng)


class TestReading(unittest.TestCase):
    def test_ties_chords_and_grace_notes(self):
        from music21 import chord, note, stream, tie

        part = stream.Part()
        for i in range(8):  # enough chords to make two voices
            part.insert(4 + i, chord.Chord(["C4", "G4"], quarterLength=1))
        long = [note.Note("E5", quarterLength=2) for _ in range(3)]
        for i, kind in enumerate(("start", "continue", "stop")):
            long[i].tie = tie.Tie(kind)
            part.insert(20 + 2 * i, long[i])
        part.insert(30, note.Note("E5", quarterLength=2))
        part.insert(32, note.Note("E5", quarterLength=2))
        part.insert(31, note.Note("A5", quarterLength=1).getGrace())
        upper, lower = recipe._voices(part.flatten().notes)
        expected = [(4.0 + i, 1.0, 67) for i in range(8)]
        expected += [(20.0, 6.0, 76), (30.0, 2.0, 76), (32.0, 2.0, 76)]
        self.assertEqual(list(upper), expected)
        self.assertEqual([pitch for _, _, pitch in lower], [60] * 8)

    def test_chorale_of_the_corpus(self):
        music = recipe.read_work("bach/bwv269.mxl")
        self.assertEqual(len(music.voices), 4)
        self.assertEqual(music.bar, 3.0)
        heights = [np.mean([p for _, _, p in voice]) for voice in music.voices]
        self.assertEqual(heights, sorted(heights, reverse=True))
        self.assertEqual(music.melody[:6], [67, 67, 74, 71, 69, 67])

    def test_bars_without_music_are_taken_out(self):
        voices = [((0.0, 4.0, 60), (16.0, 4.0, 62)), ((0.0, 2.0, 50), (17.0, 1.0, 52))]
        self.assertEqual(
            recipe._close_gaps(voices, 4.0),
            [((0.0, 4.0, 60), (8.0, 4.0, 62)), ((0.0, 2.0, 50), (9.0, 1.0, 52))],
        )


class TestArrangement(unittest.TestCase):
    def test_every_ensemble_plays_with_all_players_in_range(self):
        for ensemble, programs in ENSEMBLES.items():
            score = performance(ensemble)
            self.assertEqual(set(score.programs), set(programs), ensemble)
            for note in score.notes:
                low, high = PITCH_RANGES[note.program]
                self.assertTrue(low <= note.pitch <= high, (ensemble, note))

    def test_string_quartet_plays_the_four_voices(self):
        music = tune(3)
        parts, shift = recipe.arrange(music, "String Quartet", np.random.default_rng(0))
        self.assertEqual([program for program, _, _ in parts], [41, 41, 42, 43])
        for (_, notes, _), voice in zip(parts, music.voices, strict=True):
            moved = {
                (p - q - shift) % 12
                for (_, _, p), (_, _, q) in zip(notes, voice, strict=True)
            }
            self.assertEqual(moved, {0})

    def test_lone_players_do_not_rest_for_long(self):
        music = tune(4)
        gap = [n for n in music.voices[0] if not 8 <= n[0] < 40]
        music = recipe.replace(music, voices=(tuple(gap), *music.voices[1:]))
        parts, _ = recipe.arrange(music, "Solo Flute", np.random.default_rng(0))
        onsets = np.sort([beat for beat, _, _ in parts[0][1]])
        self.assertLess(np.diff(onsets).max(), 4)


class TestPerformance(unittest.TestCase):
    def test_labels_lie_on_the_synthesisers_grid_and_never_overlap(self):
        for ensemble in ("Wind Octet", "Piano Quintet", "Solo Violin"):
            labels = labels_of(performance(ensemble), note_value)
            self.assertFalse((labels["start"] % BLOCK).any())
            self.assertFalse((labels["end"] % BLOCK).any())
            self.assertEqual(count_overlaps(labels), 0)

    def test_expressive_but_recognisable(self):
        score = performance("String Quartet")
        starts = np.array([note.start for note in score.notes])
        beats = np.array([note.start_beat for note in score.notes])
        slope, _ = np.polyfit(beats, starts, 1)
        self.assertAlmostEqual(slope, 0.6, delta=0.06)  # 100 beats a minute
        together = starts[beats == 8]
        self.assertGreater(np.ptp(together), 0)
        self.assertLess(np.ptp(together), 0.1)
        for beat in (4, 20):  # nothing is played in the wrong order
            self.assertLess(
                starts[beats == beat].max(), starts[beats == beat + 1].min()
            )
        velocities = [note.velocity for note in score.notes]
        self.assertGreater(np.std(velocities), 4)

    def test_untangle(self):
        notes = [
            Note(0.0, 1.0, 41, 60),
            Note(0.03, 1.5, 41, 60),  # struck together
            Note(1.2, 2.0, 41, 60),  # struck again
            Note(0.0, 1.0, 42, 60),  # another instrument
        ]
        spans = [(n.start, n.end, n.program) for n in recipe.untangle(notes)]
        self.assertEqual(spans, [(0.0, 1.2, 41), (1.2, 2.0, 41), (0.0, 1.0, 42)])


class TestPlan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.works, cls.music = [], []
        for composer, count in (("Bach", 90), ("Palestrina", 30), ("Haydn", 12)):
            for i in range(count):
                path = f"{composer}/{i}"
                cls.works.append(recipe.Work(path, composer, path, "", "", path))
                cls.music.append(tune(len(cls.music)))
        for i in range(0, 40, 2):  # a tune under another title and in another key
            moved = tuple(
                tuple((b, d, p + 3) for b, d, p in voice)
                for voice in cls.music[i].voices
            )
            cls.music[i + 1] = recipe.replace(cls.music[i], voices=moved)
        cls.pieces = recipe.plan(cls.works, cls.music, PRESET, 0)

    def test_sizes_and_ensembles(self):
        for split, size in (("train", 42), ("validation", 21), ("test", 21)):
            chosen = [p for p in self.pieces if p.split == split and not p.program]
            ensembles = Counter(piece.ensemble for piece in chosen)
            self.assertEqual(ensembles, dict.fromkeys(ENSEMBLES, size // 21))
        wild = [p for p in self.pieces if p.split == "unlabelled"]
        self.assertEqual(len(wild), 10)

    def test_no_tune_on_two_sides(self):
        index = {work.path: i for i, work in enumerate(self.works)}
        homes = {}
        for piece in self.pieces:
            if not piece.program:
                i = index[piece.work.path]
                tune = i - i % 2 if i < 40 else i
                self.assertEqual(homes.setdefault(tune, piece.split), piece.split)

    def test_train_knows_every_composer(self):
        known = {p.work.composer for p in self.pieces if p.split == "train"}
        asked = {p.work.composer for p in self.pieces if p.split != "unlabelled"}
        self.assertEqual(known, asked)

    def test_exercises_cover_every_playable_pitch(self):
        heard = {
            (piece.program, int(pitch))
            for piece in self.pieces
            if piece.program and piece.split == "train"
            for voice in piece.music.voices
            for _, _, pitch in voice
        }
        playable = {
            (program, pitch)
            for program, (low, high) in PITCH_RANGES.items()
            for pitch in range(low, high + 1)
        }
        self.assertEqual(heard, playable)

    def test_same_seed_same_plan(self):
        again = recipe.plan(self.works, self.music, PRESET, 0)
        self.assertEqual(again, self.pieces)
        self.assertNotEqual(recipe.plan(self.works, self.music, PRESET, 1), again)

    def test_short_works_are_played_again(self):
        music = tune(0, beats=8)
        (stretch, first, tempo), *more = recipe._stretches(
            music, PRESET, np.random.default_rng(0)
        )
        self.assertEqual((first, more), (0, []))
        self.assertGreaterEqual(stretch.length * 60 / tempo, 6.0)
        first_verse = [p for b, _, p in stretch.voices[0] if b < 8]
        second_verse = [p for b, _, p in stretch.voices[0] if 8 <= b < 10]
        self.assertEqual(second_verse, first_verse[: len(second_verse)])
        self.assertGreater(len(second_verse), 0)


class TestNotes(unittest.TestCase):
    def test_splits(self):
        splits = recipe.split_notes(1, 0)
        self.assertEqual(len(splits), 511)
        taught = {pitch for (_, pitch), split in splits.items() if split == "train"}
        self.assertEqual(taught, set(range(21, 109)))
        for name in ("train", "validation", "test"):
            programs = {p for (p, _), split in splits.items() if split == name}
            self.assertEqual(programs, set(PITCH_RANGES), name)

    def test_level_follows_velocity(self):
        wave = np.sin(np.arange(LABEL_RATE) / 20).astype(np.float32)
        soft, loud = (recipe.treat_note(wave, v) for v in (40, 80))
        decibels = 20 * np.log10(np.abs(loud).max() / np.abs(soft).max())
        self.assertAlmostEqual(decibels, 12.04, delta=0.02)
        self.assertEqual(loud[-1], 0)
        self.assertLess(np.abs(recipe.treat_note(wave, 127)).max(), 32767)


class TestRooms(unittest.TestCase):
    def setUp(self):
        self.click = np.zeros(LABEL_RATE, np.float32)
        self.click[1000] = 0.01

    def test_direct_sound_is_first_and_undelayed(self):
        sound = recipe.Sound(peak_db=-6.0, reverb_seconds=0.5, wet_db=-10.0)
        wave = recipe.treat(self.click, sound, np.random.default_rng(0)).astype(float)
        self.assertEqual(np.abs(wave).argmax(), 1000)
        self.assertAlmostEqual(wave.max() / 32768, 10 ** (-6 / 20), delta=1e-3)
        self.assertLess(np.abs(wave[:1000]).max(), 2)
        late = wave[1000 + LABEL_RATE // 4 :]
        early = wave[1001 : 1000 + LABEL_RATE // 4]
        fall = 10 * np.log10(np.sum(late**2) / np.sum(early**2))
        self.assertAlmostEqual(fall, -30, delta=3)  # 60 dB in half a second
        energy = 10 * np.log10(np.sum(wave[1001:] ** 2) / wave[1000] ** 2)
        self.assertAlmostEqual(energy, -10, delta=0.5)

    def test_noise_and_tilt_keep_the_peak(self):
        rng = np.random.default_rng(0)
        noisy = recipe.Sound(peak_db=-3.0, noise_db=-40.0, tilt_db=6.0)
        wave = recipe.treat(self.click, noisy, rng).astype(float)
        self.assertLessEqual(np.abs(np.abs(wave).argmax() - 1000), 1)
        self.assertAlmostEqual(np.abs(wave).max() / 32768, 10 ** (-3 / 20), delta=1e-3)
        floor = np.std(wave[5000:]) / np.abs(wave).max()
        self.assertAlmostEqual(20 * np.log10(floor), -40, delta=1)

    def test_tilt(self):
        click = np.zeros(8192)
        click[4096] = 1
        gain = np.abs(np.fft.rfft(recipe._tilt(click, 12.0)))
        low, middle, high = (
            gain[round(f * 8192 / LABEL_RATE)] for f in (150, 1000, 8000)
        )
        self.assertAlmostEqual(20 * np.log10(high / middle), 6, delta=0.5)
        self.assertAlmostEqual(20 * np.log10(low / middle), -5.5, delta=1)

    def test_silence_stays_silence(self):
        wave = recipe.treat(np.zeros(100), recipe.Sound(), np.random.default_rng(0))
        self.assertFalse(wave.any())

    def test_draws(self):
        rng = np.random.default_rng(0)
        plain = [recipe.draw_sound(rng) for _ in range(200)]
        dry = sum(sound == recipe.Sound() for sound in plain)
        self.assertTrue(70 < dry < 130, dry)
        wide = [recipe.draw_sound(rng, wide=True) for _ in range(50)]
        self.assertGreater(np.ptp([sound.noise_db for sound in wide]), 30)
        self.assertTrue(all(sound.peak_db <= -1 for sound in plain + wide))


if __name__ == "__main__":
    unittest.main()
