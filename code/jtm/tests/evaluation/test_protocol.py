import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from jtm.data.musicnet import open_dataset, read_metadata, write_metadata
from jtm.data.store import build_store
from jtm.data.targets import onset_roll
from jtm.evaluation import protocol, tasks
from jtm.evaluation.metrics import average_precision
from jtm.evaluation.protocol import judge
from jtm.files import InputError
from jtm.results.records import read
from jtm.tests.evaluation.little import write_checkpoint, write_dataset


class WithDataset(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.root = cls.folder / "data"
        write_dataset(cls.root)
        cls.checkpoint = cls.folder / "checkpoint.pt"
        write_checkpoint(cls.checkpoint)
        cls.store = build_store(open_dataset(cls.root), progress=False)


class Judge(WithDataset):
    def judge(self, name, **chosen):
        said = io.StringIO()
        out = self.folder / name / "records.jsonl"
        with contextlib.redirect_stdout(said):
            made = judge(self.checkpoint, self.root, out=out, progress=False, **chosen)
        self.assertEqual(read(out)[-len(made) :], made)
        return {(r.task, r.representation, r.split, r.metric): r for r in made}

    def test_every_cell_is_recorded(self):
        made = self.judge("all")
        kinds = {"multipitch average_precision", "ensemble accuracy"}
        kinds |= {"ensemble macro_f1"}
        for name in protocol.REPRESENTATIONS:
            found = {f"{k[0]} {k[3]}" for k in made if k[1] == name}
            self.assertEqual(found, kinds)
        for record in made.values():
            self.assertLessEqual(record.low, record.value + 1e-12)  # rounding
            self.assertLessEqual(record.value, record.high + 1e-12)
            self.assertEqual(record.primary, record.metric != "macro_f1")
            self.assertEqual(record.labelled, 18 * 1.28)  # 3 windows of each of 6
        # Five pitches of pure tones, and two spectra, are plain to log-mel.
        pitch = made["multipitch", "logmel", "test", "average_precision"]
        self.assertGreater(pitch.value, 0.8)
        ensemble = made["ensemble", "logmel", "test", "accuracy"]
        self.assertEqual(ensemble.value, 1.0)
        # Here nothing was learned: the two networks differ by their seed alone.
        values = {
            name: made["multipitch", name, "test", "average_precision"].value
            for name in ("cpc-z", "random-z")
        }
        self.assertNotEqual(values["cpc-z"], values["random-z"])

    def test_same_seed_same_result(self):
        chosen = {"representations": ("cpc-c", "logmel"), "fraction": 0.5}
        first, second = (self.judge(name, **chosen) for name in ("one", "two"))
        for key, record in first.items():
            self.assertEqual(record.value, second[key].value)
            self.assertEqual(record.labelled, 9 * 1.28)

    def test_shuffled_labels_fall_to_chance(self):
        real = tasks.Labelled.roll

        def shuffled(labelled, index):
            roll = real(labelled, index)
            return roll[np.random.default_rng(index).permutation(len(roll))]

        with mock.patch.object(tasks.Labelled, "roll", shuffled):
            made = self.judge("leak", tasks=("multipitch",))
        labelled = tasks.Labelled.of(self.store, "multipitch")
        truth = np.concatenate([real(labelled, i) for i in labelled.splits["test"]])
        # Chance knows how often each pitch sounds, and no more.
        rates = np.broadcast_to(truth.mean(axis=0), truth.shape)
        chance = average_precision(truth, rates)
        for record in made.values():
            self.assertLess(record.value, chance + 0.1)

    def test_validation_can_be_scored_and_test_left_alone(self):
        made = self.judge(
            "validation", representations=("logmel",), splits=("validation",)
        )
        self.assertEqual({key[2] for key in made}, {"validation"})

    def test_a_split_that_is_not_there(self):
        with self.assertRaisesRegex(InputError, "split test_timbre"):
            self.judge("no", representations=("logmel",), splits=("test_timbre",))

    def test_labels_that_a_task_needs(self):
        path = self.root / "musicnet_metadata.csv"
        rows = read_metadata(path)
        self.addCleanup(write_metadata, path, rows)
        cases = {
            "name nothing.*expected two": [row | {"ensemble": ""} for row in rows],
            "'Solo'.*expected two": [row | {"ensemble": "Solo"} for row in rows],
            "in no training recording": [
                row | ({"ensemble": "Octet"} if row["split"] == "test" else {})
                for row in rows
            ],
        }
        for message, changed in cases.items():
            write_metadata(path, changed)
            store = build_store(open_dataset(self.root), progress=False)
            with self.assertRaisesRegex(InputError, message):
                tasks.Labelled.of(store, "ensemble")


class Scoring(WithDataset):
    def test_who_knows_the_notes_scores_1(self):
        labelled = tasks.Labelled.of(self.store, "transcription")

        def answer(index):
            notes, n_frames = labelled.notes(index), labelled.frames(index)
            onsets = onset_roll(notes, n_frames)
            return 6.0 * np.stack((labelled.roll(index), onsets), axis=1) - 3.0

        scores = tasks.score_notes(labelled, "test", answer, (0.5, 0.5))
        found = {score["metric"]: score["value"] for score in scores}
        metrics = ("note_f1", "note_offset_f1", "average_precision")
        self.assertEqual(found, dict.fromkeys(metrics, 1.0))
        silent = tasks.score_notes(
            labelled, "test", lambda i: answer(i) - 9.0, (0.5, 0.5)
        )
        self.assertEqual([score["value"] for score in silent], [0.0, 0.0, 1.0])

    def test_windows_are_counted(self):
        labelled = tasks.Labelled.of(self.store, "ensemble")
        self.assertEqual(labelled.classes, ("Bright", "Dull"))
        # Always 'Bright' is right for one of two recordings: F1 2/3 and 0.
        accuracy, macro = tasks.score_windows(
            labelled, "test", lambda index: np.zeros(3, int)
        )
        self.assertEqual(accuracy["value"], 0.5)
        self.assertAlmostEqual(macro["value"], 1 / 3)

    def test_cut(self):
        windows = tasks.cut(np.arange(300)[:, None])
        self.assertEqual(windows.shape, (2, 128, 1))
        self.assertEqual(windows[1, 0, 0], 128)


if __name__ == "__main__":
    unittest.main()
