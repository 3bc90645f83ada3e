import contextlib
import io
import multiprocessing
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from jtm.constants import INSTRUMENTS
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.evaluation.features import REPRESENTATIONS
from jtm.evaluation.labelled import Labelled
from jtm.evaluation.metrics import average_precision
from jtm.evaluation.probing import Prober, _append, probe_features
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError
from jtm.results.records import read_scores
from jtm.tests.evaluation.little import write_checkpoint, write_clips, write_dataset


class WithDataset(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.root = cls.folder / "data"
        write_dataset(cls.root)
        write_clips(cls.root)
        cls.checkpoint = cls.folder / "checkpoint.pt"
        write_checkpoint(cls.checkpoint)
        cls.store = build_store(open_dataset(cls.root), progress=False)


class Probing(WithDataset):
    def probe(self, name, **chosen):
        said = io.StringIO()
        out = self.folder / name / "records.jsonl"
        with contextlib.redirect_stdout(said):
            made = probe_features(
                self.checkpoint, self.root, out=out, progress=False, **chosen
            )
        pd.testing.assert_frame_equal(read_scores(out), made)
        rows = made.itertuples()
        return {(r.task, r.representation, r.split, r.metric): r for r in rows}

    def test_every_cell_is_recorded(self):
        made = self.probe("all")
        for name in REPRESENTATIONS:
            found = {(k[0], k[3]) for k in made if k[1] == name}
            of_frames = ("multipitch", "average_precision") in found
            self.assertEqual(of_frames, not name.endswith("-s"))
            self.assertIn(("ensemble", "accuracy"), found)
        for record in made.values():
            self.assertLessEqual(record.low, record.value + 1e-12)  # rounding
            self.assertLessEqual(record.value, record.high + 1e-12)
            main = {"multipitch": "average_precision", "ensemble": "accuracy"}
            self.assertEqual(record.primary, record.metric == main[record.task])
            self.assertEqual(record.labelled, 18 * 1.28)  # 3 windows of each of 6
        # Five pitches of pure tones, and two spectra, are plain to log-mel.
        pitch = made["multipitch", "logmel", "test", "average_precision"]
        self.assertGreater(pitch.value, 0.8)
        ensemble = made["ensemble", "logmel", "test", "accuracy"]
        self.assertEqual(ensemble.value, 1.0)
        # Here nothing was learned: the two networks differ by their seed alone.
        values = {
            name: made["multipitch", name, "test", "average_precision"].config
            for name in ("cpc-z", "random-z")
        }
        self.assertNotEqual(*(config["threshold"] for config in values.values()))

    def test_same_seed_same_result(self):
        chosen = {"representations": ("cpc-c", "mfcc"), "fraction": 0.5}
        first, second = (self.probe(name, **chosen) for name in ("one", "two"))
        for key, record in first.items():
            self.assertEqual(record.value, second[key].value)
            self.assertEqual(record.labelled, 9 * 1.28)

    def test_shuffled_labels_fall_to_chance(self):
        real = Labelled.rolls

        def shuffled(labelled, index, n_frames, start=0):
            roll = real(labelled, index, n_frames, start)
            rng = np.random.default_rng(index)
            if labelled.task.name == "instrument_activity":  # one plays all the time
                swapped = rng.random(n_frames) < 0.5
                of_one, of_other = (list(INSTRUMENTS).index(i) for i in (1, 41))
                roll[swapped, of_one] ^= True
                roll[swapped, of_other] ^= True
            return roll[rng.permutation(len(roll))]

        asked = ("multipitch", "instrument_activity", "transcription")
        with mock.patch.object(Labelled, "rolls", shuffled):
            made = self.probe("leak", tasks=asked)
        for task in asked:
            labelled = Labelled.of(self.store, task)
            truth = [shuffled(labelled, i, 400) for i in labelled.splits["test"]]
            truth = np.concatenate(truth)
            truth = truth[:, 0] if task == "transcription" else truth
            # Chance knows how often each pitch sounds, and no more.
            rates = np.broadcast_to(truth.mean(axis=0), truth.shape)
            chance = average_precision(truth, rates)
            of_task = {k: r for k, r in made.items() if k[0] == task}
            self.assertEqual(len({k[1] for k in of_task}), 9)  # none is slow
            for key, record in of_task.items():
                if key[3] == "average_precision":
                    self.assertLess(record.value, chance + 0.15, key)
                elif key[3] == "note_f1":  # of five pitches
                    self.assertLess(record.value, 0.3, key)

    def test_classes_dealt_anew_fall_to_chance(self):
        real = Labelled.of.__func__

        def dealt(cls, store, task, notes=None):
            labelled = real(cls, store, task, notes)
            rng = np.random.default_rng(4)
            for indices in labelled.splits.values():
                # Of the dull, and of the bright, half are misnamed; notes get the
                # names of other notes.
                for kind in (indices[0::2], indices[1::2]):
                    names = [labelled.names[index] for index in kind]
                    if TASKS[task].unit == "windows":
                        names = ([*labelled.classes] * len(kind))[: len(kind)]
                    names = rng.permutation(names)
                    labelled.names.update(zip(kind, names.tolist(), strict=True))
            return labelled

        of_windows = ("ensemble", "composer", "instrument")
        with (
            mock.patch.object(Labelled, "of", classmethod(dealt)),
            mock.patch.dict("jtm.tests.evaluation.little.SPLITS", {"test": 20}),
            tempfile.TemporaryDirectory() as root,
        ):
            write_dataset(root, seconds=2.0, composers="AB")
            octave = tuple(range(54, 66))
            write_clips(root, dict.fromkeys(("train", "validation", "test"), octave))
            made = probe_features(
                self.checkpoint,
                root,
                tasks=(*of_windows, "note_pitch", "note_instrument"),
                out=self.folder / "dealt" / "records.jsonl",
                progress=False,
            )
        made = [r for r in made.itertuples() if r.metric == "accuracy"]
        judged = {(record.task, record.representation) for record in made}
        for task in of_windows:
            names = {name for of_task, name in judged if of_task == task}
            self.assertEqual(names, {*REPRESENTATIONS})
        for record in made:
            if record.task == "note_pitch":  # of twelve
                self.assertLess(record.value, 0.3, record)
            else:
                self.assertAlmostEqual(record.value, 0.5, delta=0.25, msg=record)

    def test_a_network_of_another_hop(self):
        path = self.folder / "map.pt"
        write_checkpoint(path, chosen={"encoder_type": "pitchmap"})
        asked = ("multipitch", "transcription", "ensemble", "note_pitch")
        with mock.patch.object(self, "checkpoint", path):
            made = self.probe(
                "map", tasks=asked, representations=("cpc-z", "cpc-s", "logmel")
            )
        for task, metric in (
            ("multipitch", "average_precision"),
            ("transcription", "note_f1"),
            ("note_pitch", "accuracy"),
        ):
            self.assertGreater(made[task, "cpc-z", "test", metric].value, 0.5)
        for (task, *_), row in made.items():
            expected = 18 * 1.28 if task != "note_pitch" else 12 * 0.4
            self.assertAlmostEqual(row.labelled, expected)
        self.assertIn(("ensemble", "cpc-s", "test", "accuracy"), made)

    def test_slow_features_hear_nothing_of_what_is_held_out(self):
        with (
            mock.patch.dict("jtm.tests.evaluation.little.SPLITS", {"validation": 0}),
            tempfile.TemporaryDirectory() as root,
        ):
            write_dataset(root, seconds=2.0)
            work = self.folder / "slow"
            bench = Prober(
                root, self.checkpoint, work, ("ensemble",), (), progress=False
            )
            with mock.patch.object(bench.features, "fit_slow") as fit:
                bench.prepare(["cqt-s"])
        splits = bench.labelled["ensemble"].splits
        self.assertEqual(len(splits["validation"]), 2)
        self.assertEqual(list(fit.call_args.args[2]), splits["train"])

    def test_validation_can_be_scored_and_test_left_alone(self):
        made = self.probe(
            "validation", representations=("logmel",), splits=("validation",)
        )
        self.assertEqual({key[2] for key in made}, {"validation"})

    def test_two_processes_lose_no_score(self):
        path = self.folder / "at once" / "records.jsonl"
        row = dict(task="a", representation="b", probe="linear", fraction=0.1)
        row |= dict(split="test", metric="accuracy", value=0.5)

        def work(first):
            for seed in range(first, first + 40):
                _append(path, [row | {"seed": seed}])

        context = multiprocessing.get_context("fork")
        both = [context.Process(target=work, args=(first,)) for first in (0, 40)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        self.assertEqual(sorted(read_scores(path)["seed"]), list(range(80)))

    def test_a_score_is_a_number(self):
        path = self.folder / "nan.jsonl"
        with self.assertRaises(ValueError):
            _append(path, [{"value": float("nan")}])
        self.assertFalse(path.exists())

    def test_a_split_that_is_not_there(self):
        with self.assertRaisesRegex(InputError, "split test_timbre"):
            self.probe("no", representations=("logmel",), splits=("test_timbre",))


if __name__ == "__main__":
    unittest.main()
