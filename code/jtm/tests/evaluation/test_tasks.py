"""What is asked of which recordings."""

import unittest
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jtm.data.musicnet import Recording
from jtm.evaluation.tasks import Labelled
from jtm.files import InputError


def store(*ensembles):
    """Make a store of one recording a split and ensemble."""
    recordings = [
        Recording(f"{i}", Path(f"{i}.wav"), Path(f"{i}.csv"), split, row)
        for split in ("train", "validation", "test")
        for i, row in enumerate(ensembles)
    ]
    lengths = np.full(len(recordings), 160_000)
    return SimpleNamespace(recordings=recordings, lengths=lengths)


class TestLabelled(unittest.TestCase):
    def test_a_class_left_empty_leaves_the_recording_out_of_that_task_alone(self):
        rows = ({"ensemble": "Solo"}, {"ensemble": ""}, {"ensemble": "Trio"})
        labelled = Labelled.of(store(*rows), "ensemble")
        self.assertEqual(labelled.classes, ("Solo", "Trio"))
        self.assertEqual(labelled.splits["train"], [0, 2])
        self.assertEqual(labelled.splits["test"], [6, 8])
        everything = Labelled.of(store(*rows), "multipitch")
        self.assertEqual(everything.splits["train"], [0, 1, 2])

    def test_a_missing_column_is_refused(self):
        with self.assertRaisesRegex(InputError, "no 'ensemble' in musicnet_metadata"):
            Labelled.of(store({"ensemble": "Solo"}, {}), "ensemble")


if __name__ == "__main__":
    unittest.main()
