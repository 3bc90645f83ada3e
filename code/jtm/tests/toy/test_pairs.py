"""Pairs of performance and score: all notes as written, no tune in two splits."""

import contextlib
import io
import sys
import tempfile
import threading
import unittest
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import generate
import pairs
import synth

from jtm.constants import PITCH_RANGES
from jtm.data.musicnet import METADATA_FILE
from jtm.files import InputError, write_json
from jtm.music import notation
from jtm.tests.toy.test_generate import wait_until_waiting
from jtm.tests.toy.test_works import corpus


class TestPairs(unittest.TestCase):
    NOTES = np.array(
        [(k, 1, 72 - 12 * part + k % 7, part) for k in range(40) for part in (0, 1, 2)],
        notation.NOTE,
    )

    def test_parts_become_voices_in_descending_order(self):
        music = pairs._parts_of(self.NOTES)
        self.assertEqual(len(music.voices), 3)
        self.assertEqual(music.melody[:3], [72, 73, 74])
        self.assertEqual(music.length, 40)

    def test_voices_are_played_as_written_by_suitable_instruments(self):
        music = pairs._parts_of(self.NOTES)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            parts = pairs._players(music, -2, rng)
            for (program, notes, _), voice in zip(parts, music.voices, strict=True):
                self.assertEqual([p + 2 for *_, p in notes], [p for *_, p in voice])
                low, high = PITCH_RANGES[program]
                self.assertTrue(all(low <= p <= high for *_, p in notes))

    def test_excerpts_return_their_first_beat(self):
        music = pairs._parts_of(self.NOTES)
        rng = np.random.default_rng(3)
        cut, first = pairs._excerpt(music, 10.0, 60.0, rng)
        self.assertEqual(cut.length, 10)
        beat, _, pitch = cut.voices[0][2]
        whole = {b: p for b, _, p in music.voices[0]}
        self.assertEqual(pitch, whole[first + beat])

    def test_solos_are_one_part_with_enough_notes(self):
        few = self.NOTES[(self.NOTES["part"] > 0) | (self.NOTES["beat"] < 12)]
        music = pairs._parts_of(few)
        rng = np.random.default_rng(0)
        alone = {pairs._solo(music, rng).voices for _ in range(20)}
        self.assertEqual(alone, {(music.voices[1],), (music.voices[2],)})
        short = pairs._parts_of(self.NOTES[:30])  # ten notes each
        self.assertIs(pairs._solo(short, rng), short)

    def test_duplicate_works_are_dropped_and_families_not_split(self):
        listed, music = corpus()
        counts = {"test": 20, "validation": 10, "train": 60}
        with mock.patch.object(pairs, "COUNTS", counts):
            chosen = pairs._choose(listed, music, 0)
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

    def test_large_families_are_for_training_only(self):
        listed, music = corpus()
        mass = range(90, 96)
        for i in mass:
            listed[i] = replace(listed[i], group="mass")
        for largest, expected in ((5, {"train"}), (6, {"test"})):
            with (
                mock.patch.object(pairs, "FAMILY", largest),
                mock.patch.object(pairs, "COUNTS", {"test": 200, "train": 200}),
            ):
                chosen = pairs._choose(listed, music, 0)
            found = [split for i, _, split in chosen if i in mass]
            self.assertEqual((len(found), set(found)), (6, expected))

    def test_folders_made_otherwise_are_refused(self):
        out = Path(self.enterContext(tempfile.TemporaryDirectory())) / "pairs"
        make = self.enterContext(mock.patch.object(pairs, "_make"))
        self.enterContext(mock.patch.object(synth, "check_soundfont"))
        find = self.enterContext(mock.patch.object(synth, "find_soundfont"))
        find.return_value = None
        with self.assertRaisesRegex(InputError, "seed -1"):
            pairs.make(out, -1)
        pairs.make(out)
        (out / "scores").mkdir()
        pairs.make(out)  # resumed
        self.assertEqual(make.call_count, 2)
        with self.assertRaisesRegex(InputError, "another seed .* choose another"):
            pairs.make(out, 1)
        find.return_value = synth.default_soundfont()
        with self.assertRaisesRegex(InputError, "another recipe .* choose another"):
            pairs.make(out)
        (out / METADATA_FILE).write_text("")
        pairs.make(out)  # finished
        with self.assertRaisesRegex(InputError, "pairs.json is missing"):
            pairs.make(out.parent)
        self.assertEqual(make.call_count, 2)

    def test_second_generator_waits_for_the_first(self):
        out = Path(self.enterContext(tempfile.TemporaryDirectory()))
        make = self.enterContext(mock.patch.object(pairs, "_make"))
        self.enterContext(mock.patch.object(synth, "check_soundfont"))
        stderr = self.enterContext(contextlib.redirect_stderr(io.StringIO()))
        with generate._locked(out):
            second = threading.Thread(target=pairs.make, args=(out,), daemon=True)
            second.start()
            wait_until_waiting(self, second, stderr)
            # The first one finishes; the second then finds nothing to do.
            write_json(out / pairs.STATE_FILE, {"seed": 0})
            (out / METADATA_FILE).write_text("")
        second.join(30)
        self.assertFalse(second.is_alive())
        make.assert_not_called()


if __name__ == "__main__":
    unittest.main()
