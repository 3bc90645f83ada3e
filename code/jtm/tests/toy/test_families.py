"""Tune families: one melody in one split, in any key, rhythm or title."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

from families import (
    PHRASE,
    assign_families,
    ngrams,
    similarity,
    tune_families,
)


def melody(seed, length=40):
    return np.random.default_rng(seed).integers(50, 80, length).tolist()


class TestNgrams(unittest.TestCase):
    def test_hand_computed_ngrams(self):
        self.assertEqual(ngrams([60, 62, 64, 60], 2), {(2, 2), (2, -4)})

    def test_ngrams_are_invariant_to_transposition_and_repetition(self):
        tune = melody(0)
        other = [pitch + 5 for pitch in tune for _ in range(3)]
        self.assertEqual(ngrams(tune), ngrams(other))

    def test_short_melodies(self):
        self.assertEqual(ngrams([60, 62, 64]), {(2, 2)})
        self.assertEqual(ngrams([60]), {()})

    def test_similarity_is_relative_to_the_shorter_melody(self):
        self.assertEqual(similarity({1, 2, 3, 4}, {3, 4}), 1)
        self.assertEqual(similarity({1, 2, 3, 4}, {4, 5}), 0.5)
        self.assertEqual(similarity({1}, {2}), 0)


class TestFamilies(unittest.TestCase):
    def test_same_melody_under_another_title_is_one_family(self):
        tune = melody(1)
        disguised = [pitch - 3 for pitch in tune[:25]] + melody(2, 15)
        families = tune_families([tune, melody(3), disguised], ["a", "b", "c"])
        self.assertEqual(families, [0, 1, 0])

    def test_short_common_passage_is_no_family(self):
        tune = melody(1)
        other = melody(2)[:20] + tune[: PHRASE + 3] + melody(3)[:20]
        self.assertEqual(tune_families([tune, other], ["a", "b"]), [0, 1])

    def test_families_are_transitive(self):
        first, second = melody(1), melody(2)
        families = tune_families(
            [first, second, melody(3), second, melody(4)], ["m", "m", "x", "y", "x"]
        )
        self.assertEqual(families, [0, 0, 2, 0, 2])


class TestAssign(unittest.TestCase):
    def test_families_are_not_split_and_quotas_are_met(self):
        rng = np.random.default_rng(0)
        families = rng.integers(0, 30, 60).tolist()
        quotas = {"rest": {}, "test": {"Bach": 6}, "train": {"Bach": 20}}
        splits = assign_families(families, ["Bach"] * 60, [1] * 60, quotas)
        homes = {}
        for family, split in zip(families, splits, strict=True):
            self.assertEqual(homes.setdefault(family, split), split)
        self.assertGreaterEqual(splits.count("test"), 6)
        self.assertGreaterEqual(splits.count("train"), 20)

    def test_later_split_gets_the_first_family(self):
        quotas = {
            "validation": {"Haydn": 1},
            "test": {"Haydn": 2},
            "train": {"Haydn": 5},
        }
        splits = assign_families([0, 1], ["Haydn"] * 2, [4, 4], quotas)
        self.assertEqual(splits, ["train", "test"])

    def test_surplus_of_one_class_fills_quotas_of_another(self):
        quotas = {"test": {"Bach": 1, "Haydn": 2}, "train": {"Bach": 1, "Haydn": 1}}
        splits = assign_families(range(5), ["Bach"] * 4 + ["Haydn"], [1] * 5, quotas)
        self.assertEqual(splits[4], "train")
        self.assertEqual(splits[:4].count("test"), 3)


if __name__ == "__main__":
    unittest.main()
