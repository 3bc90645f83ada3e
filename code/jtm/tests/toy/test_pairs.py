"""Pairs of performance and score: all notes as written, no tune in two splits."""

import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import pairs
import synth

from jtm.constants import PITCH_RANGES
from jtm.data.musicnet import METADATA_FILE
from jtm.files import InputError
from jtm.music import notation
from jtm.tests.toy.test_works import corpus


class TestPairs(unittest.TestCase):
    NOTES = np.array(
        [(k, 1, 72 - 12 * part + k % 7, part) for k in range(40) for part in (0, 1, 2)],
        notation.NOTE,
    )

    def test_parts_become_voices_in_descending_order(self):
        music = pairs.parts_of(self.NOTES)
        self.assertEqual(len(music.voices), 3)
        self.assertEqual(music.melody[:3], [72, 73, 74])
        self.assertEqual(music.length, 40)

    def test_voices_are_played_as_written_by_suitable_instruments(self):
        music = pairs.parts_of(self.NOTES)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            parts = pairs.players(music, -2, rng)
            for (program, notes, _), voice in zip(parts, music.voices, strict=True):
                self.assertEqual([p + 2 for *_, p in notes], [p for *_, p in voice])
                low, high = PITCH_RANGES[program]
                self.assertTrue(all(low <= p <= high for *_, p in notes))

    def test_excerpts_return_their_first_beat(self):
        music = pairs.parts_of(self.NOTES)
        rng = np.random.default_rng(3)
        cut, first = pairs.excerpt(music, 10.0, 60.0, rng)
        self.assertEqual(cut.length, 10)
        beat, _, pitch = cut.voices[0][2]
        whole = {b: p for b, _, p in music.voices[0]}
        self.assertEqual(pitch, whole[first + beat])

    def test_solos_are_one_part_with_enough_notes(self):
        few = self.NOTES[(self.NOTES["part"] > 0) | (self.NOTES["beat"] < 12)]
        music = pairs.parts_of(few)
        rng = np.random.default_rng(0)
        alone = {pairs.solo(music, rng).voices for _ in range(20)}
        self.assertEqual(alone, {(music.voices[1],), (music.voices[2],)})
        short = pairs.parts_of(self.NOTES[:30])  # ten notes each
        self.assertIs(pairs.solo(short, rng), short)

    def test_duplicate_works_are_dropped_and_families_not_split(self):
        listed, music = corpus()
        counts = {"test": 20, "validation": 10, "train": 60}
        with mock.patch.object(pairs, "COUNTS", counts):
            chosen = pairs.choose(listed, music, 0)
        self.assertFalse({i for i, *_ in chosen} & set(range(1, 40, 2)))  # duplicates
        splits = {}
        for _, family, split in chosen:
            splits.setdefault(family, set()).add(split)
        self.assertTrue(all(len(own) == 1 for own in splits.values()))
        found = Counter(split for *_, split in chosen)
        self.assertEqual(found["test"], 20)
        for (split, _), n in Counter(
            (s, listed[i].composer) for i, _, s in chosen
        ).items():
            self.assertLessEqual(n, counts[split] / 2)

    def test_folders_made_otherwise_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "pairs"
            self.assertFalse(pairs._is_finished(out, 0, ()))
            self.assertFalse(pairs._is_finished(out, 0, ()))  # resumed
            fonts = [synth.default_soundfont()]
            for seed, others in ((1, ()), (0, fonts)):
                with self.assertRaisesRegex(InputError, "choose another folder"):
                    pairs._is_finished(out, seed, others)
            (out / METADATA_FILE).write_text("")
            self.assertTrue(pairs._is_finished(out, 0, fonts))
            with self.assertRaisesRegex(InputError, "not a set of pairs"):
                pairs._is_finished(Path(folder), 0, ())


if __name__ == "__main__":
    unittest.main()
