import contextlib
import io
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from jtm.cli import main
from jtm.constants import INSTRUMENTS
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.evaluation import cells as records
from jtm.evaluation import networks, probes, protocol, tasks
from jtm.evaluation.cells import append, read, read_beside
from jtm.evaluation.labelled import Labelled
from jtm.evaluation.metrics import average_precision
from jtm.evaluation.protocol import Cell, grid, judge
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError
from jtm.music import audio
from jtm.tests.evaluation.little import write_checkpoint, write_clips, write_dataset

QUICK = {
    "STEPS": 20,
    "CHECK": 10,
    "BATCH": 32,
    "DECAYS": (0.03,),
    "ITERATIONS": 5,
    "PENALTIES": (0.3, 0.03),
}
"""Settings of probes that are fitted in no time."""


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
        for name in protocol.REPRESENTATIONS:
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
        first, second = (self.judge(name, **chosen) for name in ("one", "two"))
        for key, record in first.items():
            self.assertEqual(record.value, second[key].value)
            self.assertEqual(record.labelled, 9 * 1.28)

    def test_shuffled_labels_fall_to_chance(self):
        real = Labelled.rolls

        def shuffled(labelled, index, n_frames, start=0):
            roll = real(labelled, index, n_frames, start)
            rng = np.random.default_rng(index)
            if labelled.task == "instrument_activity":  # one plays all the time
                swapped = rng.random(n_frames) < 0.5
                of_one, of_other = (list(INSTRUMENTS).index(i) for i in (1, 41))
                roll[swapped, of_one] ^= True
                roll[swapped, of_other] ^= True
            return roll[rng.permutation(len(roll))]

        asked = ("multipitch", "instrument_activity", "transcription")
        with mock.patch.object(Labelled, "rolls", shuffled):
            made = self.judge("leak", tasks=asked)
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
            made = judge(
                self.checkpoint,
                root,
                tasks=(*of_windows, "note_pitch", "note_instrument"),
                out=self.folder / "dealt" / "records.jsonl",
                progress=False,
            )
            # Networks choose a state and a head, which is a way to leak too.
            patches = {"steps": lambda fraction: 12, "LOOKS": 3}
            with mock.patch.multiple(networks, **patches):
                grid(
                    root,
                    self.checkpoint,
                    self.folder / "dealt.jsonl",
                    {
                        "task": of_windows,
                        "representation": ["supervised", "cpc-finetuned"],
                        "fraction": [1.0],
                        "seed": [0],
                    },
                    self.folder / "dealt",
                    progress=False,
                )
        made += read(self.folder / "dealt.jsonl")
        made = [r for r in made if (r.metric, r.split) == ("accuracy", "test")]
        judged = {(record.task, record.representation) for record in made}
        for task in of_windows:
            names = {name for of_task, name in judged if of_task == task}
            self.assertEqual(names, {*protocol.REPRESENTATIONS, *networks.NETWORKS})
        for record in made:
            if record.task == "note_pitch":  # of twelve
                self.assertLess(record.value, 0.3, record)
            else:
                self.assertAlmostEqual(record.value, 0.5, delta=0.25, msg=record)

    def test_slow_features_hear_nothing_of_what_is_held_out(self):
        with (
            mock.patch.dict("jtm.tests.evaluation.little.SPLITS", {"validation": 0}),
            tempfile.TemporaryDirectory() as root,
        ):
            write_dataset(root, seconds=2.0)
            work = self.folder / "slow"
            bench = protocol.Judge(root, None, work, ("ensemble",), progress=False)
            with mock.patch.object(bench.features, "fit_slow") as fit:
                bench.prepare(["cqt-s"], ["ensemble"])
        splits = bench.labelled["ensemble"].splits
        self.assertEqual(len(splits["validation"]), 2)
        self.assertEqual(list(fit.call_args.args[2]), splits["train"])

    def test_validation_can_be_scored_and_test_left_alone(self):
        made = self.judge(
            "validation", representations=("logmel",), splits=("validation",)
        )
        self.assertEqual({key[2] for key in made}, {"validation"})

    def test_a_split_that_is_not_there(self):
        with self.assertRaisesRegex(InputError, "split test_timbre"):
            self.judge("no", representations=("logmel",), splits=("test_timbre",))


class Grid(WithDataset):
    """The grid on a dataset of seconds, with quick probes and networks."""

    def setUp(self):
        for module, chosen in (
            (probes, QUICK),
            (networks, {"steps": lambda fraction: 12, "LOOKS": 3}),
        ):
            patch = mock.patch.multiple(module, **chosen)
            patch.start()
            self.addCleanup(patch.stop)

    def grid(self, name, **only):
        out = self.folder / f"{name}.jsonl"
        with contextlib.redirect_stdout(io.StringIO()) as said:
            grid(
                self.root,
                self.checkpoint,
                out,
                {key: list(values) for key, values in only.items()},
                self.folder / "work",
                progress=False,
            )
        self.said = said.getvalue()
        return read(out)

    def test_every_kind_of_cell(self):
        made = self.grid(
            "kinds",
            fraction=(1.0,),
            seed=(0,),
            representation=("cqt", "cqt-s", "supervised", "cpc-finetuned"),
        )
        cells = {}
        for record in made:
            cell = record.task, record.representation, record.probe
            cells.setdefault(cell, set()).add((record.split, record.metric))
            if record.primary:
                self.assertEqual(record.metric, tasks.TASKS[record.task].metric)
        # Composer is left out: here all music is by one.
        self.assertIn("composer is left out", self.said)
        asked = set(tasks.TASKS) - {"composer"}
        expected = {(t, "cqt", p) for t in asked for p in probes.KINDS}
        expected |= {(t, name, "network") for t in asked for name in networks.NETWORKS}
        # Slow features are of windows, and of no pitch.
        slow = ("ensemble", "instrument", "note_instrument")
        expected |= {(t, "cqt-s", p) for t in slow for p in probes.KINDS[:2]}
        self.assertEqual(set(cells), expected)
        for cell, found in cells.items():
            splits = {split for split, _ in found}
            self.assertEqual(splits, {"validation", "test"}, cell)
        # What stands beside them, one line a cell and split.
        beside = read_beside(self.folder / "kinds.jsonl")
        for key, line in beside.items():
            kind = set(line) - set(records.CELL_FIELDS)
            classes = key[0] in ("ensemble", "instrument", "note_instrument")
            if key[-1] == "test":
                expected = {"draws"} | ({"confusion", "classes"} if classes else set())
                self.assertEqual(len(line["draws"]), records.DRAWS)
            else:
                expected = {"curve"}
                self.assertEqual(key[2], "network")
                self.assertEqual(line["curve"]["step"], [0, 4, 8, 12])
                self.assertEqual(len(line["curve"]["score"]), 4)
            self.assertEqual(kind, expected, key)
        self.assertEqual({key[:3] for key in beside if key[-1] == "test"}, set(cells))
        # The runs of networks are gone.
        self.assertEqual(list((self.folder / "work" / "networks").iterdir()), [])

    def test_it_goes_on_where_it_stopped_and_repeats_nothing(self):
        only = {
            "task": ("ensemble",),
            "representation": ("mfcc", "logmel"),
            "probe": ("linear",),
            "fraction": (1.0,),
        }
        probe, calls = protocol.Judge.probe, []

        def until_4(bench, cell, chosen=None):
            calls.append(cell)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return probe(bench, cell, chosen)

        with mock.patch.object(protocol.Judge, "probe", until_4):
            with self.assertRaises(KeyboardInterrupt):
                self.grid("stopped", **only)
            made = self.grid("stopped", **only)
            self.assertEqual(len(calls), 7)  # six cells, one of them twice
            self.assertEqual(calls[3], calls[4])
            again = self.grid("stopped", **only)
            self.assertEqual(len(calls), 7)
        self.assertEqual(again, made)
        keys = [record.key for record in made]
        self.assertEqual(len(set(keys)), len(keys))

    def test_the_first_seed_chooses_and_the_others_keep(self):
        given = []
        fit = probes.fit

        def noted(*args):
            chosen, seed = args[5:7]
            given.append((seed, chosen and chosen.get("penalty")))
            return fit(*args)

        only = {"task": ("multipitch",), "representation": ("mfcc",)}
        only |= {"probe": ("linear",), "fraction": (0.1,)}
        with mock.patch.object(probes, "fit", noted):
            made = self.grid("seeds", **only)
        penalty = made[0].config["penalty"]
        self.assertEqual(given, [(0, None), (1, penalty), (2, penalty)])
        # Also when the first seed was run another day.
        given.clear()
        self.grid("days", seed=(0,), **only)
        with mock.patch.object(probes, "fit", noted):
            self.grid("days", seed=(2,), **only)
        self.assertEqual(given, [(2, penalty)])

    def test_a_later_seed_does_not_choose_for_itself(self):
        only = {"task": ("ensemble",), "fraction": (1.0,)}
        for name, probe in (("mfcc", "linear"), ("supervised", "network")):
            only |= {"representation": (name,), "probe": (probe,)}
            cell = f"task=ensemble, representation={name}, probe={probe}, fraction=1.0"
            message = f"no {cell}, seed=0, .*seed 2 .*--only seed=0"
            with mock.patch.object(protocol.Judge, "prepare") as prepare:
                with self.assertRaisesRegex(InputError, message):
                    self.grid("later", seed=(2,), **only)
            prepare.assert_not_called()
        # In whatever order seeds are named, the first comes first.
        only |= {"representation": ("mfcc",), "probe": ("linear",)}
        made = self.grid("later", seed=(2, 0), **only)
        self.assertEqual([*dict.fromkeys(record.seed for record in made)], [0, 2])

    def test_networks_choose_their_rate_likewise(self):
        only = {"task": ("note_pitch",), "representation": ("supervised",)}
        only |= {"fraction": (1.0,), "seed": (0, 1)}
        with mock.patch.object(networks, "train", side_effect=networks.train) as train:
            made = self.grid("rates", **only)
        rates = [call.args[-1]["rate"] for call in train.call_args_list]
        self.assertEqual(rates, [*networks.RATES, made[0].config["rate"]])

    def test_a_network_that_was_stopped_goes_on(self):
        only = {"task": ("ensemble",), "representation": ("supervised",)}
        only |= {"fraction": (1.0,), "seed": (0,)}
        with mock.patch.object(networks, "answer", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.grid("halfway", **only)
        step = "jtm.training.finetune.SupervisedModule.training_step"
        with mock.patch(step) as trained:
            self.grid("halfway", **only)
            trained.assert_not_called()

    def test_a_network_learns_all_of_its_family_whatever_is_wanted(self):
        only = {"representation": ("supervised",), "fraction": (1.0,), "seed": (0,)}
        with mock.patch.object(networks, "start", side_effect=networks.start) as start:
            made = self.grid("alone", task=("ensemble",), **only)
        self.assertEqual({record.task for record in made}, {"ensemble"})
        for call in start.call_args_list:
            self.assertEqual(set(call.args[0].labelled), {"ensemble", "instrument"})

    def test_the_most_telling_come_first(self):
        bench = protocol.Judge(
            self.root, None, self.folder / "work", tasks.TASKS, progress=False
        )
        jobs = protocol.plan(bench, {})
        first = [job[0] for job in jobs]
        leading = [c for c in first if c.task in protocol.LEADING]
        n = sum(c.fraction == 0.1 and c.seed == 0 for c in leading)
        self.assertTrue(
            all(
                any(c.task in protocol.LEADING for c in job)
                and (job[0].fraction, job[0].seed) == (0.1, 0)
                for job in jobs[:n]
            )
        )
        seeds = [cell.seed for cell in first]
        self.assertEqual(seeds, sorted(seeds))
        # Without a checkpoint nothing of it is planned.
        names = {cell.representation for cell in first}
        self.assertFalse(any(name.startswith("cpc") for name in names))
        self.assertIn("supervised", names)
        self.assertEqual(len({tuple(job) for job in jobs}), len(jobs))

    def test_results_of_another_checkpoint_are_not_mixed(self):
        only = {"task": ("ensemble",), "representation": ("cpc-z", "mfcc")}
        only |= {"probe": ("linear",), "fraction": (1.0,), "seed": (0,)}
        self.grid("mixed", **only)
        out = self.folder / "mixed.jsonl"
        self.addCleanup(write_checkpoint, self.checkpoint)
        write_checkpoint(self.checkpoint, seed=7)
        with self.assertRaisesRegex(InputError, "another checkpoint.*--out"):
            self.grid("mixed", **only)
        # What does not depend on the weights stays when the rest is taken out.
        records = [r for r in read(out) if r.representation != "cpc-z"]
        out.unlink()
        append(out, records)
        self.grid("mixed", **only)
        self.assertEqual(read(out)[: len(records)], records)
        added = {r.representation for r in read(out)[len(records) :]}
        self.assertEqual(added, {"cpc-z"})

    def test_results_of_another_network_are_not_mixed(self):
        bench = protocol.Judge(
            self.root, self.checkpoint, self.folder / "settings", ("ensemble",)
        )
        before = {n: bench.settings(n) for n in ("cpc-z", "random-c", "supervised")}
        self.assertIn("checkpoint", before["cpc-z"])
        bench.config = replace(bench.config, random_seed=bench.config.random_seed + 1)
        self.assertNotEqual(bench.settings("random-c"), before["random-c"])
        self.assertEqual(bench.settings("supervised"), before["supervised"])
        bench.config = replace(bench.config, hidden_gar=bench.config.hidden_gar + 8)
        self.assertNotEqual(bench.settings("supervised"), before["supervised"])

    def test_a_task_that_is_named_and_cannot_be_is_refused(self):
        with self.assertRaisesRegex(InputError, "composer.*two or more"):
            self.grid("named", task=("composer",))

    def test_a_dataset_without_labels_is_told(self):
        with tempfile.TemporaryDirectory() as root:
            wave = np.zeros(32_000)
            for split in ("train", "test"):
                audio.write(Path(root) / f"{split}_data" / "a.wav", wave, 16_000)
            out, work = self.folder / "bare.jsonl", self.folder / "bare"
            for only in (None, {"seed": [0]}):
                with (
                    contextlib.redirect_stdout(io.StringIO()),
                    self.assertRaisesRegex(InputError, "fit for no task.*labels"),
                ):
                    grid(root, None, out, only, work, progress=False)

    def test_a_dataset_is_named_by_its_folder_however_it_is_told(self):
        with contextlib.chdir(self.root):
            bench = protocol.Judge(".", None, self.folder / "here", (), progress=False)
        self.assertEqual(bench.data, "data")


class Command(WithDataset):
    def run_grid(self, *words):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = main(["grid", "--data", str(self.root), *map(str, words)])
        return code, said.getvalue()

    def test_only_is_understood_or_refused(self):
        for text, message in (
            ("colour=red", "expected a KEY of task"),
            ("fraction=0.5", r"expected one of 0\.001, 0\.003, 0\.01, 0\.1, 1\.0"),
            ("seed=one", "expected one of 0, 1, 2"),
            ("task=genre", "expected one of multipitch"),
        ):
            code, said = self.run_grid("--only", text)
            self.assertEqual(code, 2)
            self.assertRegex(said, message)
        only = ("--only", "representation=mfcc", "--only", "probe=shared")
        code, said = self.run_grid(*only)
        self.assertEqual(code, 2)
        self.assertIn("leaves no cell", said)

    def test_a_cell_by_the_command(self):
        out = self.folder / "results" / "grid.jsonl"
        words = ("task=ensemble", "representation=mfcc", "probe=linear")
        words += ("fraction=1", "seed=0")
        code, said = self.run_grid(
            *(part for word in words for part in ("--only", word)),
            *("--out", out, "--work", self.folder / "work"),
        )
        self.assertEqual(code, 0, said)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        cells = {tuple(line[name] for name in Cell._fields) for line in lines}
        self.assertEqual(cells, {("ensemble", "mfcc", "linear", 1.0, 0)})


if __name__ == "__main__":
    unittest.main()
