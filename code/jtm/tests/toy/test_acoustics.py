"""Rendering of any score; rooms and levels that do not shift the direct sound."""

import sys
import unittest
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import acoustics
from synth import Timbre, default_soundfont, render

from jtm.constants import INSTRUMENTS, LABEL_RATE
from jtm.files import InputError
from jtm.music.score import Note, Score
from jtm.tests.toy.random_music import tune

FONT = default_soundfont()


class TestRender(unittest.TestCase):
    """Rendering of performances and notated scores to audio and notes."""

    def test_performance_is_rendered_unchanged(self):
        score = Score((Note(0.0, 0.5, 74, 69), Note(0.5, 1.0, 74, 72)))
        wave, notes = acoustics.render(score, FONT, tail=0.5)
        self.assertEqual((notes, wave.dtype), (score, np.int16))
        self.assertAlmostEqual(wave.size / LABEL_RATE, 1.5, delta=2e-3)
        peak = 20 * np.log10(np.abs(wave.astype(float)).max() / 32768)
        self.assertAlmostEqual(peak, -3, delta=0.05)

    def test_tempo_scales_a_performance(self):
        score = Score((Note(0.0, 0.5, 74, 69), Note(0.5, 1.0, 74, 72)))
        wave, notes = acoustics.render(score, FONT, tempo=2.0, tail=0.0)
        self.assertAlmostEqual(notes.notes[1].start, 0.25, delta=1e-3)
        self.assertAlmostEqual(wave.size / LABEL_RATE, 0.5, delta=2e-3)

    def test_tuning_shifts_the_pitch(self):
        def hertz(tuning):
            sound = acoustics.Sound(tuning=tuning)
            score = Score((Note(0.0, 2.0, 7, 69),))
            wave = acoustics.render(score, FONT, sound, tail=0.0)[0][LABEL_RATE // 2 :]
            spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size), 2**19))
            return np.argmax(spectrum)

        for tuning in (425.0, 455.0):
            self.assertAlmostEqual(
                1200 * np.log2(hertz(tuning) / hertz(440.0)),
                1200 * np.log2(tuning / 440.0),
                delta=1.5,  # FluidSynth counts in whole cents
            )

    def test_spread_of_players_changes_audio_but_not_labels(self):
        score = Score((Note(0.0, 0.5, 74, 69), Note(0.0, 0.5, 41, 69)))
        waves = []
        for spread in (0.0, 4.0, 4.0):
            sound = acoustics.Sound(tuning=441.0, spread_cents=spread)
            wave, notes = acoustics.render(score, FONT, sound)
            self.assertEqual(notes, score)
            waves.append(wave)
        self.assertTrue((waves[0] != waves[1]).any())
        np.testing.assert_array_equal(waves[1], waves[2])

    def test_timbre_of_players_differs_at_the_same_pitch(self):
        score = Score((Note(0.0, 1.0, 74, 69, 90),))  # by a piano
        spectra = []
        for shift in (-5, 0, 5):
            timbre = {74: Timbre(1, shift, {8: -1200.0})}
            wave = render(score, FONT, 0.0, None, timbre)[LABEL_RATE // 4 :]
            spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size), 2**18))
            spectra.append(spectrum / spectrum.max())
            harmonics = spectrum[: 2**18 // 12].reshape(-1)
            peak = np.argmax(harmonics) * LABEL_RATE / 2**18
            nearest = max(1, round(peak / 440))
            self.assertLess(abs(1200 * np.log2(peak / nearest / 440)), 30, shift)
        self.assertGreater(np.abs(spectra[0] - spectra[2]).max(), 0.1)

    def test_labels_match_the_audio_of_players(self):
        notes = [Note(i / 2, i / 2 + 0.4, (1, 74)[i % 2], 60 + i) for i in range(8)]
        score, sound = Score(tuple(notes)), acoustics.Sound(tuning=450.0)
        n_interrupted = 0
        for seed in range(12):
            fonts = {1: (FONT, acoustics.MODAL)[seed % 2], 74: FONT}
            rng = np.random.default_rng(seed)
            wave, labelled = acoustics.render_players(score, fonts, sound, rng)
            self.assertEqual(wave.dtype, np.int16)
            n_interrupted += labelled != score
            for note in labelled.notes:
                span = slice(*(int(t * LABEL_RATE) for t in (note.start, note.end)))
                self.assertGreater(np.abs(wave[span]).max(), 50, (seed, note))
        self.assertTrue(0 < n_interrupted < 12)

    def test_highest_notes_of_players_sound(self):
        note = Note(0.0, 0.4, 1, 108, 100)
        score, sound = Score((note,)), acoustics.Sound()
        for seed in range(12):
            fonts = {1: (FONT, acoustics.MODAL)[seed % 2]}
            rng = np.random.default_rng(seed)
            wave, _ = acoustics.render_players(score, fonts, sound, rng)
            self.assertGreater(np.abs(wave).max(), 50, seed)

    def test_pianos_alone_are_modal(self):
        score = Score((Note(0.0, 0.4, 1, 60, 60), Note(0.0, 0.4, 74, 70, 60)))
        drawn = [
            acoustics.draw_soundfonts(score, ["A", "B"], np.random.default_rng(seed))
            for seed in range(300)
        ]
        self.assertEqual({fonts[74] for fonts in drawn}, {"A", "B"})
        share = np.mean([fonts[1] == acoustics.MODAL for fonts in drawn])
        self.assertAlmostEqual(share, acoustics.MODAL_SHARE, delta=0.09)

    def test_other_instruments_replace_players(self):
        notes = [Note(i / 4, i / 4 + 0.2, (1, 41, 74)[i % 3], 60) for i in range(30)]
        score, n_replaced = Score(tuple(notes)), 0
        for seed in range(100):
            changed = acoustics.replace_players(score, np.random.default_rng(seed))
            both = zip(score.notes, changed.notes, strict=True)
            pairs = {(own.program, other.program) for own, other in both}
            self.assertEqual(len(pairs), 3)  # each player keeps to one instrument
            self.assertEqual(len(changed.programs), 3)
            self.assertEqual(
                [replace(note, program=1) for note in changed.notes],
                [replace(note, program=1) for note in score.notes],
            )
            others = {program for own, program in pairs if own != program}
            self.assertLessEqual(others, {*acoustics.OTHERS})
            n_replaced += len(others)
        share = n_replaced / 300
        self.assertAlmostEqual(share, acoustics.OTHERS_SHARE, delta=0.07)

    def test_other_instruments_sound_at_the_pitch_played(self):
        self.assertFalse({*acoustics.OTHERS} & {*INSTRUMENTS})
        for substitutes in acoustics.SUBSTITUTES.values():
            self.assertFalse({*acoustics.OTHERS} & {*substitutes})
        for program in acoustics.OTHERS:
            wave = render(Score((Note(0.0, 0.8, program, 60, 95),)), FONT, 0.0)
            envelope = np.abs(wave[: LABEL_RATE // 2])
            rises = np.argmax(envelope > 0.3 * envelope.max()) / LABEL_RATE
            self.assertLess(rises, 0.06, program)
            hertz = librosa.yin(
                wave[LABEL_RATE // 20 :],
                fmin=60,
                fmax=1500,
                sr=LABEL_RATE,
                frame_length=4096,
            )
            cents = 1200 * np.log2(np.median(hertz) / 440) + 900
            self.assertLess(abs(cents), 35, program)

    def test_notes_resume_after_an_interruption(self):
        score = Score((Note(0.0, 3.0, 1, 40), Note(2.0, 3.0, 1, 60)))
        for seed in range(20):
            wave = np.ones(4 * LABEL_RATE, np.int16)
            rng = np.random.default_rng(seed)
            wave, labelled = acoustics._interrupt(wave, score, rng)
            silent = np.flatnonzero(wave == 0)
            if not silent.size:
                self.assertEqual(labelled, score)
                continue
            start, end = silent[0] / LABEL_RATE, (silent[-1] + 1) / LABEL_RATE
            low = [(n.start, n.end) for n in labelled.notes if n.pitch == 40]
            np.testing.assert_allclose(low, [(0, start), (end, 3)], atol=1e-3)

    def test_notated_scores_are_arranged_and_performed(self):
        music = tune(0, beats=8)
        wave, notes = acoustics.render(music, FONT, programs=(74, 43), tempo=1.2)
        self.assertEqual(notes.programs, (43, 74))
        self.assertAlmostEqual(wave.size / LABEL_RATE, notes.seconds + 1.5, delta=2e-3)
        from music21 import note, stream

        part = stream.Part()
        part.append([note.Note(pitch, quarterLength=1) for pitch in range(60, 72)])
        _, notes = acoustics.render(stream.Score([part]), FONT, programs=(41,))
        self.assertEqual(len(notes.notes), 12)
        self.assertEqual(
            {n.start_beat for n in notes.notes}, set(map(float, range(12)))
        )
        with self.assertRaisesRegex(InputError, "eight notes"):
            acoustics.render(stream.Score([stream.Part()]), FONT)


class TestRooms(unittest.TestCase):
    def setUp(self):
        self.click = np.zeros(LABEL_RATE, np.float32)
        self.click[1000] = 0.01

    def test_direct_sound_is_first_and_undelayed(self):
        sound = acoustics.Sound(peak_db=-6.0, reverb_seconds=0.5, wet_db=-10.0)
        wave = acoustics.apply_sound(
            self.click, sound, np.random.default_rng(0)
        ).astype(float)
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
        noisy = acoustics.Sound(peak_db=-3.0, noise_db=-40.0, tilt_db=6.0)
        wave = acoustics.apply_sound(self.click, noisy, rng).astype(float)
        self.assertLessEqual(np.abs(np.abs(wave).argmax() - 1000), 1)
        self.assertAlmostEqual(np.abs(wave).max() / 32768, 10 ** (-3 / 20), delta=1e-3)
        floor = np.std(wave[5000:]) / np.abs(wave).max()
        self.assertAlmostEqual(20 * np.log10(floor), -40, delta=1)

    def test_hand_computed_tilt(self):
        click = np.zeros(8192)
        click[4096] = 1
        gain = np.abs(
            np.fft.rfft(acoustics._filter(click, lambda octaves: 2 * octaves))
        )
        low, middle, high = (
            gain[round(f * 8192 / LABEL_RATE)] for f in (150, 1000, 8000)
        )
        self.assertAlmostEqual(20 * np.log10(high / middle), 6, delta=0.5)
        self.assertAlmostEqual(20 * np.log10(low / middle), -5.5, delta=1)

    def test_tilt_is_the_gain_from_125_hz_to_8_khz(self):
        sound = acoustics.Sound(tilt_db=12.0)
        wave = acoustics.apply_sound(self.click, sound, np.random.default_rng(0))
        gain = np.abs(np.fft.rfft(wave / 32768, 44_100))
        found = 20 * np.log10(gain[8000] / gain[200])
        self.assertAlmostEqual(found, 2 * np.log2(8000 / 200), delta=0.5)

    def test_silence_stays_silent(self):
        wave = acoustics.apply_sound(
            np.zeros(100), acoustics.Sound(), np.random.default_rng(0)
        )
        self.assertFalse(wave.any())

    def test_drawn_tunings_cover_their_range(self):
        rng = np.random.default_rng(0)
        sound = acoustics.Sound(peak_db=-7.0)
        drawn = [acoustics.draw_tuning(rng, sound) for _ in range(200)]
        tunings = [each.tuning for each in drawn]
        self.assertTrue(425 <= min(tunings) < 428 < 452 < max(tunings) <= 455)
        self.assertEqual({each.peak_db for each in drawn}, {-7.0})

    def test_drawn_sounds_cover_their_range(self):
        rng = np.random.default_rng(0)
        plain = [acoustics.draw_sound(rng) for _ in range(200)]
        dry = sum(sound == acoustics.Sound() for sound in plain)
        self.assertTrue(70 < dry < 130, dry)
        wide = [acoustics.draw_sound(rng, wide=True) for _ in range(50)]
        self.assertGreater(np.ptp([sound.noise_db for sound in wide]), 30)
        self.assertTrue(all(sound.peak_db <= -1 for sound in plain + wide))

    def test_level_follows_velocity(self):
        wave = np.sin(np.arange(LABEL_RATE) / 20).astype(np.float32)
        soft, loud = (acoustics.finish_note(wave, v) for v in (40, 80))
        decibels = 20 * np.log10(np.abs(loud).max() / np.abs(soft).max())
        self.assertAlmostEqual(decibels, 12.04, delta=0.02)
        self.assertEqual(loud[-1], 0)
        self.assertLess(np.abs(acoustics.finish_note(wave, 127)).max(), 32767)


if __name__ == "__main__":
    unittest.main()
