"""No work and no tune is in two splits, in pretraining or in tasks."""

import unittest

from jtm.data.rolls import WINDOW
from jtm.data.splits import labelled_splits, split_recordings
from jtm.files import InputError
from jtm.tests.data.test_rolls import recording


class TestSplits(unittest.TestCase):
    def split(self, recordings, lengths=None):
        lengths = lengths or [WINDOW * 160] * len(recordings)
        return labelled_splits(recordings, lengths)

    def test_marked_splits_are_retained(self):
        names = ("train", "unlabelled", "test", "validation", "train")
        recordings = [recording(str(i), s, "csv") for i, s in enumerate(names)]
        splits = self.split(recordings)
        self.assertEqual(splits["train"], [0, 4])
        self.assertEqual(splits["validation"], [3])
        self.assertEqual(splits["test"], [2])
        self.assertEqual(splits["test_timbre"], [])

    def test_whole_works_are_held_out_and_no_class_is_lost(self):
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
        # Mozart's quartet is held out, and one of his two sonatas.
        self.assertEqual(splits["validation"], [3, 5])
        # If each composer has only one work, other tasks can still be validated.
        few = [recordings[i] for i in (0, 1, 2, 7)]
        self.assertEqual(self.split(few)["validation"], [1, 2])

    def test_short_or_unlabelled_recordings_are_excluded(self):
        recordings = [
            recording("a", labels="csv"),
            recording("b", labels="csv"),
            recording("c", labels=None),
            recording("d", "validation", "csv"),
            recording("e", "test", "csv"),
        ]
        lengths = [WINDOW * 160, WINDOW * 160 - 1] + [WINDOW * 160] * 3
        self.assertEqual(self.split(recordings, lengths)["train"], [0])

    def test_tune_in_two_splits_is_refused(self):
        def make(splits):
            return [
                recording(str(i), s, "csv", tune_family=f)
                for i, (s, f) in enumerate(splits)
            ]

        valid = [
            ("train", "a"),
            ("validation", "b"),
            ("test", "c"),
            ("test_timbre", "c"),
        ]
        self.split(make([*valid, ("train", ""), ("test", "")]))  # exercises have none
        self.split(make([*valid, ("unlabelled", "a")]))  # both are training data
        for other in (
            ("test", "a"),
            ("train", "b"),
            ("validation", "c"),
            ("unlabelled", "b"),
            ("unlabelled", "c"),
        ):
            with self.assertRaisesRegex(InputError, "its tune .* memorisation"):
                self.split(make([*valid, other]))

    def test_whole_tune_families_are_held_out(self):
        recordings = [
            recording("a", labels="csv", composition="one", tune_family="x"),
            recording("b", labels="csv", composition="two", tune_family="y"),
            recording("c", labels="csv", composition="three", tune_family="y"),
            recording("d", "test", "csv", tune_family="z"),
        ]
        self.assertEqual(self.split(recordings)["validation"], [1, 2])

    def test_pretraining_holds_out_the_validation_works_of_tasks(self):
        # As in MusicNet, no split is marked. Unlabelled recordings of the same work,
        # and labelled ones too short for a window, are held out with it.
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

    def test_one_in_twenty_is_held_out_without_labels(self):
        recordings = [recording(f"{i}", "unlabelled") for i in range(40)]
        lengths = [1000] * 20 + [9] * 20
        splits = split_recordings(recordings, lengths, 100)
        self.assertEqual(len(splits["validation"]), 1)
        self.assertLess(splits["validation"][0], 20)
        self.assertEqual(split_recordings(recordings, lengths)["validation"], [])
        alone = split_recordings(recordings[:1], lengths, 100)
        self.assertEqual((alone["unlabelled"], alone["validation"]), ([0], []))

    def test_missing_test_split_is_refused(self):
        recordings = [recording(str(i), labels="csv") for i in range(3)]
        with self.assertRaisesRegex(InputError, "test split"):
            self.split(recordings)

    def test_ensembles_of_one_work_each_do_not_prevent_validation(self):
        recordings = [
            recording(f"{c}{i}", labels="csv", ensemble=f"{c}{i}", composer=c)
            for c in "ABC"
            for i in range(1 + (c == "C"))
        ]
        recordings.append(recording("t", "test", "csv"))
        # The only works of A and B are kept.
        self.assertEqual(self.split(recordings)["validation"], [2])
        # If each composer has one work, too, any may be held out.
        few = [recordings[i] for i in (0, 1, 2, 4)]
        self.assertEqual(self.split(few)["validation"], [1])

    def test_validation_split_of_a_single_work_is_refused(self):
        recordings = [recording("a", labels="csv"), recording("t", "test", "csv")]
        message = "validation split; it needs two works or more .*`validation` in"
        with self.assertRaisesRegex(InputError, message):
            self.split(recordings)


if __name__ == "__main__":
    unittest.main()
