"""Plans: no tune in two splits, balanced ensembles, reproducible by seed."""

import sys
import unittest
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import studies
import works

from jtm.constants import INSTRUMENTS, PITCH_RANGES
from jtm.tests.toy.random_music import tune

PRESET = works.Preset(42, 21, 21, 10, (6.0, 7.0), 2, 1, 2, 1, np.inf)


def corpus():
    """Return synthetic works of three composers, twenty of them under two titles."""
    listed, music = [], []
    for composer, count in (("Bach", 90), ("Palestrina", 30), ("Haydn", 12)):
        for i in range(count):
            path = f"{composer}/{i}"
            listed.append(works.Work(path, composer, path, "", "", path))
            music.append(tune(len(music)))
    for i in range(0, 40, 2):  # the same tune under another title, transposed
        moved = tuple(
            tuple((b, d, p + 3) for b, d, p in voice) for voice in music[i].voices
        )
        music[i + 1] = replace(music[i], voices=moved)
    return listed, music


class TestPlan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.works, cls.music = corpus()
        cls.pieces = works.plan(cls.works, cls.music, PRESET, 0)

    def test_split_sizes_and_balanced_ensembles(self):
        for split, size in (("train", 42), ("validation", 21), ("test", 21)):
            chosen = [p for p in self.pieces if p.split == split and not p.procedural]
            ensembles = Counter(piece.ensemble for piece in chosen)
            self.assertEqual(ensembles, dict.fromkeys(works.ENSEMBLES, size // 21))
        unlabelled = [p for p in self.pieces if p.split == "unlabelled"]
        self.assertEqual(len(unlabelled), 10)

    def test_no_tune_in_two_splits(self):
        index = {work.path: i for i, work in enumerate(self.works)}
        homes = {}
        for piece in self.pieces:
            if not piece.procedural:
                i = index[piece.work.path]
                tune = i - i % 2 if i < 40 else i
                self.assertEqual(homes.setdefault(tune, piece.split), piece.split)

    def test_every_composer_is_in_the_training_split(self):
        trained = {p.work.composer for p in self.pieces if p.split == "train"}
        labelled = {p.work.composer for p in self.pieces if p.split != "unlabelled"}
        self.assertEqual(trained, labelled)

    def test_exercises_cover_every_playable_pitch(self):
        played = {
            (piece.programs[0], int(pitch))
            for piece in self.pieces
            if piece.procedural and piece.split == "train"
            for voice in piece.music.voices
            for _, _, pitch in voice
        }
        playable = {
            (program, pitch)
            for program, (low, high) in PITCH_RANGES.items()
            for pitch in range(low, high + 1)
        }
        self.assertEqual(played, playable)

    def test_same_seed_gives_same_plan(self):
        again = works.plan(self.works, self.music, PRESET, 0)
        self.assertEqual(again, self.pieces)
        self.assertNotEqual(works.plan(self.works, self.music, PRESET, 1), again)

    def test_excerpt_is_cut_at_both_ends(self):
        voice = tuple((beat, 2.0, 60) for beat in (0.0, 2.0, 4.0, 6.0, 8.0))
        cut, first = works._cut(works.Music((voice, voice), 4.0, 10.0), 2.0, 5.0)
        self.assertEqual((first, cut.length), (2.0, 5.0))
        expected = ((0.0, 2.0, 60), (2.0, 2.0, 60), (4.0, 1.0, 60))
        self.assertEqual(cut.voices, (expected, expected))

    def test_short_works_are_repeated(self):
        music = tune(0, beats=8)
        (excerpt, first, tempo), *more = works._excerpts(
            music, PRESET, np.random.default_rng(0)
        )
        self.assertEqual((first, more), (0, []))
        self.assertGreaterEqual(excerpt.length * 60 / tempo, 6.0)
        first_verse = [p for b, _, p in excerpt.voices[0] if b < 8]
        second_verse = [p for b, _, p in excerpt.voices[0] if 8 <= b < 10]
        self.assertEqual(second_verse, first_verse[: len(second_verse)])
        self.assertGreater(len(second_verse), 0)


class TestWide(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.works, cls.music = corpus()
        # Two presets that hold out different works.
        other = replace(PRESET, train=21, seconds=(7.0, 8.0))
        cls.presets = {"some": PRESET, "other": other}
        cls.wide = replace(PRESET, presets=tuple(cls.presets))
        cls.enterClassContext(mock.patch.dict(works.PRESETS, cls.presets))
        cls.enterClassContext(
            mock.patch.object(works, "choose_works", lambda preset, seed: cls.works)
        )
        cls.pieces = works.plan_wide(cls.works, cls.music, cls.wide, 0, 0.5)

    def test_no_held_out_tune_is_included(self):
        index = {work.path: i for i, work in enumerate(self.works)}

        def tunes(pieces):  # tunes below 40 have two titles each
            found = (index[p.work.path] for p in pieces if not p.procedural)
            return {i - i % 2 if i < 40 else i for i in found}

        for preset in self.presets.values():
            pieces = works.plan(self.works, self.music, preset, 0)
            held_out = [p for p in pieces if p.split in ("validation", "test")]
            self.assertFalse(tunes(held_out) & tunes(self.pieces))
        self.assertEqual({piece.split for piece in self.pieces}, {"unlabelled"})

    def test_validation_tunes_agree_with_those_of_other_presets(self):
        labelled = replace(self.wide, labelled=True)
        pieces = works.plan_wide(self.works, self.music, labelled, 0, 2.0)
        families = {"train": set(), "validation": set()}
        for piece in pieces:
            if not piece.procedural and piece.work.path:
                families[piece.split].add(piece.family)
        self.assertTrue(all(families.values()))
        for preset in self.presets.values():
            for piece in works.plan(self.works, self.music, preset, 0):
                other = "train" if piece.split == "validation" else "validation"
                if piece.split != "test" and not piece.procedural:
                    self.assertNotIn(piece.family, families[other])

    def test_fewer_hours_are_a_prefix_of_more(self):
        self.assertGreaterEqual(sum(p.seconds for p in self.pieces), 1800)
        fewer = works.plan_wide(self.works, self.music, self.wide, 0, 0.1)
        self.assertEqual(fewer, self.pieces[: len(fewer)])
        self.assertLess(len(fewer), len(self.pieces))

    def test_players_and_tempo_vary(self):
        programs = {p for piece in self.pieces for p in piece.programs}
        self.assertEqual(programs, set(INSTRUMENTS))
        self.assertEqual(
            {len(piece.programs) for piece in self.pieces},
            set(range(1, works.WIDE_PLAYERS + 1)),
        )
        index = {work.path: i for i, work in enumerate(self.works)}
        factors = [
            piece.tempo / self.music[index[piece.work.path]].tempo
            for piece in self.pieces
        ]
        self.assertLess(min(factors), 0.75)
        self.assertGreater(max(factors), 1.3)


class TestStudies(unittest.TestCase):
    def test_notes_are_playable_and_textures_differ(self):
        for program, (low, high) in works.PITCH_RANGES.items():
            rng = np.random.default_rng(program)
            for compose in (studies.study, studies.single_notes):
                music = compose((program,), 120.0, rng)
                (voice,) = music.voices
                self.assertTrue(all(low <= p <= high for *_, p in voice))
                self.assertTrue(all(beat >= 0 < beats for beat, beats, _ in voice))
                if compose is studies.study:
                    starts = Counter(beat for beat, *_ in voice)
                    n_max = max(starts.values())
                    self.assertTrue(3 < n_max < 12 if program in (1, 7) else n_max == 1)
                else:
                    ends = np.maximum.accumulate([b + d for b, d, _ in voice])
                    gaps = np.array([b for b, *_ in voice])[1:] - ends[:-1]
                    self.assertGreater(np.mean(gaps > 0.05), 0.7)


class TestNotes(unittest.TestCase):
    def test_note_splits_cover_all_pitches_and_programs(self):
        splits = works.split_notes(1, 0)
        self.assertEqual(len(splits), 511)
        trained = {pitch for (_, pitch), split in splits.items() if split == "train"}
        self.assertEqual(trained, set(range(21, 109)))
        for name in ("train", "validation", "test"):
            programs = {p for (p, _), split in splits.items() if split == name}
            self.assertEqual(programs, set(PITCH_RANGES), name)


if __name__ == "__main__":
    unittest.main()
