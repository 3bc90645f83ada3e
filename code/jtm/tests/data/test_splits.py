"""No work and no tune is heard on two sides, in pretraining or in tasks."""

import unittest

from jtm.data.rolls import WINDOW
from jtm.data.splits import labelled_splits, split_recordings
from jtm.files import InputError
from jtm.tests.data.test_rolls import recording


class Splits(unittest.TestCase):
    def split(self, recordings, lengths=None):
        lengths = lengths or [WINDOW * 160] * len(recordings)
        return labelled_splits(recordings, lengths)

    def test_marked_splits_are_kept(self):
        names = ("train", "unlabelled", "test", "validation", "train")
        recordings = [recording(str(i), s, "csv") for i, s in enumerate(names)]
        splits = self.split(recordings)
        self.assertEqual(splits["train"], [0, 4])
        self.assertEqual(splits["validation"], [3])
        self.assertEqual(splits["test"], [2])
        self.assertEqual(splits["test_timbre"], [])

    def test_works_are_held_out_whole_and_no_class_is_lost(self):
        recordings = [
            recording("a", labels="csv", ensemble="Solo", composition="one"),
            recording("b", labels="csv", ensemble="Solo", composition="two"),
            recording("c", labels="csv", ensemble="Solo", composition="two"),
            recording("d", labels="csv", ensemble="Octet", composition="three"),
            recording("e", "test", "csv", ensemble="Solo"),
        ]
        splits = self.split(recordings)
        self.assertEqual(splits["train"], [0, 3])
        self.assertEqual(splits["validation"], [1, 2])

    def test_the_only_work_of_a_composer_is_not_held_out(self):
        # As in MusicNet, where all of Faure is one piano quartet.
        recordings = [
            recording(name, labels="csv", ensemble=e, composer=c, composition=w)
            for name, e, c, w in (
                ("a", "Piano Quartet", "Brahms", "25"),
                ("b", "Piano Quartet", "Faure", "15"),
                ("c", "Piano Quartet", "Faure", "15"),
                ("d", "Piano Quartet", "Mozart", "478"),
                ("e", "Solo Piano", "Brahms", "117"),
                ("f", "Solo Piano", "Mozart", "330"),
                ("g", "Solo Piano", "Mozart", "331"),
            )
        ]
        recordings.append(recording("h", "test", "csv"))
        splits = self.split(recordings)
        # Of the quartets Mozart's goes, and of the sonatas one that leaves him one.
        self.assertEqual(splits["validation"], [3, 5])
        # Where each has one work alone, other tasks can still be validated.
        few = [recordings[i] for i in (0, 1, 2, 7)]
        self.assertEqual(self.split(few)["validation"], [1, 2])

    def test_what_is_short_or_unlabelled_is_left_out(self):
        recordings = [
            recording("a", labels="csv"),
            recording("b", labels="csv"),
            recording("c", labels=None),
            recording("d", "validation", "csv"),
            recording("e", "test", "csv"),
        ]
        lengths = [WINDOW * 160, WINDOW * 160 - 1] + [WINDOW * 160] * 3
        self.assertEqual(self.split(recordings, lengths)["train"], [0])

    def test_a_tune_in_two_splits_is_refused(self):
        def of(splits):
            return [
                recording(str(i), s, "csv", tune_family=f)
                for i, (s, f) in enumerate(splits)
            ]

        kept = [
            ("train", "a"),
            ("validation", "b"),
            ("test", "c"),
            ("test_timbre", "c"),
        ]
        self.split(of([*kept, ("train", ""), ("test", "")]))  # exercises have none
        self.split(of([*kept, ("unlabelled", "a")]))  # both are learned from
        for other in (
            ("test", "a"),
            ("train", "b"),
            ("validation", "c"),
            ("unlabelled", "b"),
            ("unlabelled", "c"),
        ):
            with self.assertRaisesRegex(InputError, "its tune .* memorisation"):
                self.split(of([*kept, other]))

    def test_a_tune_is_held_out_whole(self):
        recordings = [
            recording("a", labels="csv", composition="one", tune_family="x"),
            recording("b", labels="csv", composition="two", tune_family="y"),
            recording("c", labels="csv", composition="three", tune_family="y"),
            recording("d", "test", "csv", tune_family="z"),
        ]
        self.assertEqual(self.split(recordings)["validation"], [1, 2])

    def test_pretraining_holds_out_what_tasks_validate_on(self):
        # As MusicNet is: no split is marked. Its unlabelled neighbours of the same
        # work, and labelled ones too short for a window, go with what is held out.
        recordings = [
            recording(f"{w}{i}", labels="csv", composer=w[0], composition=w)
            for w in ("Ba", "Bb", "Bc", "Ma", "Mb", "Mc")
            for i in range(2)
        ]
        recordings += [
            recording("u", "unlabelled", composer="B", composition="Bb"),
            recording("v", "unlabelled", composer="B", composition="Bd"),
            recording("w", "test", "csv", composer="B", composition="Bb1"),
        ]
        lengths = [WINDOW * 160] * len(recordings)
        lengths[3] = 1600
        tasks = labelled_splits(recordings, lengths)
        self.assertTrue(tasks["validation"])
        for window in (None, 1, WINDOW * 160, 10**9):
            splits = split_recordings(recordings, lengths, window)
            self.assertLessEqual(set(tasks["validation"]), set(splits["validation"]))
            works = [
                {recordings[i].metadata["composition"] for i in indices}
                for indices in (
                    splits["validation"],
                    splits["train"] + splits["unlabelled"] + splits["test"],
                )
            ]
            self.assertFalse(works[0] & works[1])
            self.assertEqual(sum(map(len, splits.values())), len(recordings))
        self.assertIn(3, splits["validation"])
        self.assertIn(12, splits["validation"])

    def test_one_in_twenty_is_held_out_where_nothing_is_labelled(self):
        recordings = [recording(f"{i}", "unlabelled") for i in range(40)]
        lengths = [1000] * 20 + [9] * 20
        splits = split_recordings(recordings, lengths, 100)
        self.assertEqual(len(splits["validation"]), 1)
        self.assertLess(splits["validation"][0], 20)
        self.assertEqual(split_recordings(recordings, lengths)["validation"], [])
        alone = split_recordings(recordings[:1], lengths, 100)
        self.assertEqual((alone["unlabelled"], alone["validation"]), ([0], []))

    def test_nothing_to_test_on(self):
        recordings = [recording(str(i), labels="csv") for i in range(3)]
        with self.assertRaisesRegex(InputError, "test split"):
            self.split(recordings)


if __name__ == "__main__":
    unittest.main()
