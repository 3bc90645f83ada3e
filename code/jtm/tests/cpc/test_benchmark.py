"""The benchmark: plan, labelled data of each run, resuming, concurrent processes."""

import contextlib
import io
import shutil
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file

from jtm.cli import main
from jtm.cpc import benchmark as module_under_test
from jtm.cpc.benchmark import (
    AMOUNTS,
    CONTRASTS,
    HEAD_RATES,
    METHODS,
    RATES,
    Benchmark,
    _plan,
    _Run,
    _select_tasks,
)
from jtm.evaluation.labelled import Labelled
from jtm.files import BusyError, InputError, StoppedError, locked, read_json
from jtm.results import records
from jtm.tests.evaluation.little import write_checkpoint, write_dataset
from jtm.training import labels


class TestPlan(unittest.TestCase):
    def test_students_are_planned_after_their_teachers(self):
        place = {run: i for i, run in enumerate(_plan({}))}
        for run, i in place.items():
            teacher = METHODS[run.method].teacher
            if teacher:
                self.assertLess(
                    place[_Run(run.family, teacher, run.amount, run.seed)], i
                )

    def test_small_amounts_have_more_seeds_and_transcription_only(self):
        runs = _plan({})
        for amount, n_seeds in AMOUNTS.items():
            seeds = {run.seed for run in runs if run.amount == amount}
            self.assertEqual(seeds, set(range(n_seeds)))
        self.assertEqual({r.family for r in runs if r.amount == 1}, {"frames"})

    def test_filters_select_runs(self):
        runs = _plan({"method": ["scratch"], "amount": [3], "seed": [1]})
        self.assertEqual(runs, [_Run("frames", "scratch", 3, 1)])

    def test_only_the_frames_family_trains_on_unlabelled_audio(self):
        families = {r.family for r in _plan({}) if METHODS[r.method].unlabelled}
        self.assertEqual(families, {"frames"})

    def test_trial_methods_run_only_on_request(self):
        planned = {run.method for run in _plan({})}
        for method in ("cpc-joint", "scratch-distilled"):
            self.assertNotIn(method, planned)
            self.assertTrue(_plan({"method": [method]}))

    def test_contrasts_compare_planned_runs(self):
        cells = {(r.method, r.amount) for r in _plan({})}
        for contrast in CONTRASTS:
            for method in (contrast.method, contrast.other):
                self.assertIn((method, contrast.labelled_recordings), cells)
        self.assertEqual(len(CONTRASTS), len(set(CONTRASTS)))


def notes(amount, seed=0):
    """Return a transcription run trained from scratch."""
    return _Run("frames", "scratch", amount, seed)


SMALL = {"encoder_type": "pitchmap", "hidden_encoder": 2, "hidden_gar": 2}
"""Settings of a small network."""


class TestBenchmark(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.data, cls.checkpoint = cls.folder / "data", cls.folder / "x.pt"
        write_dataset(cls.data)
        write_checkpoint(cls.checkpoint, chosen=SMALL)
        steps = mock.patch.dict(module_under_test.STEPS, dict.fromkeys(AMOUNTS, 4))
        steps.start()
        cls.addClassCleanup(steps.stop)
        # Only the first learning rates, to save time.
        few = {start: pairs[:1] for start, pairs in RATES.items()}
        for name, rates in (("RATES", few), ("HEAD_RATES", HEAD_RATES[:1])):
            rates = mock.patch.object(module_under_test, name, rates)
            rates.start()
            cls.addClassCleanup(rates.stop)

    def bench(self, out, only, checkpoint=None, **chosen):
        """Run part of the benchmark; return its table and output."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            bench = self.make(out, checkpoint, **chosen)
            bench.run({"family": ["frames"], **only})
        return records.read(self.folder / out / "benchmark.csv.gz"), output.getvalue()

    def test_every_method_is_scored_and_not_run_again(self):
        only = {"method": list(METHODS), "amount": [3], "seed": [0]}
        table, _ = self.bench("all", only)
        self.assertEqual(set(table["method"]), set(METHODS))
        self.assertEqual(set(table["labelled_recordings"]), {3})
        self.assertEqual(set(table["task"]), {"transcription"})
        self.assertEqual(set(table["split"]), {"validation", "test"})
        self.assertTrue(table["value"].between(0, 1).all())
        whole, _ = records.read_all(self.folder / "all" / "benchmark.csv.gz")
        self.assertEqual(whole["draws"].notna().sum(), len(METHODS))
        with mock.patch.object(Benchmark, "execute", side_effect=AssertionError):
            again, _ = self.bench("all", only)
        self.assertTrue(again.equals(table))

    def test_joint_training_of_contexts_of_all_pitches(self):
        checkpoint = self.folder / "joint.pt"
        write_checkpoint(
            checkpoint, chosen=SMALL | {"ar_mode": "GRU", "gar_mode": "joint"}
        )
        only = {"method": ["cpc-joint"], "amount": [3], "seed": [0]}
        table, _ = self.bench("joint", only, checkpoint)
        self.assertGreater(len(table), 0)

    def test_unlabelled_windows_of_self_training_and_of_its_control(self):
        spans = []

        def record(module, progress):
            (labelled, _), *_, (unlabelled, _) = module.train_batches.pools
            spans.append((labelled, unlabelled))
            raise StoppedError

        bench = self.make("pools")
        for method in ("scratch-selftrained", "scratch-distilled"):
            run = _Run("frames", method, 1, 0)
            family, teacher = bench.family(run), replace(run, method="scratch")
            tasks = _select_tasks(family, 1)
            network = bench.network(teacher, tasks).state_dict()
            bench._teacher_path(teacher).parent.mkdir(parents=True, exist_ok=True)
            save_file(network, bench._teacher_path(teacher))
            with mock.patch.object(module_under_test, "fit", record):
                with self.assertRaises(StoppedError):
                    bench._train(run, family, tasks, RATES["random"][0])
        (labelled, every), (again, own) = spans
        self.assertEqual(labelled, again)
        self.assertEqual(own, labelled)
        self.assertGreater(len(every), 2 * len(labelled))

    def test_result_of_a_run_does_not_depend_on_others(self):
        one, _ = self.bench("one", {"method": ["scratch"], "amount": [1], "seed": [0]})
        only = {"method": ["largest", "scratch"], "amount": [1], "seed": [0]}
        both, _ = self.bench("both", only)
        both = both[both["method"] == "scratch"]
        self.assertEqual(one["value"].tolist(), both["value"].tolist())

    def test_frozen_untrained_networks_differ_by_seed(self):
        only = {"method": ["untrained-frozen"], "amount": [1], "seed": [0, 1]}
        table, _ = self.bench("seeds", only)
        bench = Benchmark(self.data, self.checkpoint, self.folder / "x", progress=False)
        first, second = (
            bench.network(run, _select_tasks(bench.family(run), 1)).state_dict()
            for run in _plan(only | {"family": ["frames"]})
        )
        name = "body.model.encoder.stem.weight"
        self.assertFalse(first[name].equal(second[name]))
        self.assertEqual(set(table["seed"]), {0, 1})

    def make(self, out="x", checkpoint=None, **chosen):
        """Open the benchmark."""
        return Benchmark(
            self.data,
            checkpoint or self.checkpoint,
            self.folder / out,
            self.folder / f"{out}-work",
            progress=False,
            **chosen,
        )

    def test_learning_rates_are_selected_once_for_few_labels(self):
        tried, train = [], Benchmark._train

        def record(bench, run, family, chosen, rates):
            tried.append((run.method, run.amount, run.seed, rates))
            return train(bench, run, family, chosen, rates)

        only = {"method": ["scratch-selftrained"], "amount": [1], "seed": [1]}
        both = mock.patch.object(module_under_test, "RATES", RATES)
        with both, mock.patch.object(Benchmark, "_train", record):
            self.bench("rates", only)  # the selecting run has not run yet
            bench = self.make("rates")
            rates = bench._rates_path(_Run("frames", "scratch", 3, 0))
            best = tuple(read_json(rates)["rates"])
            first = [("scratch", 3, 0, pair) for pair in RATES["random"]]
            teacher = ("scratch", 1, 1, best)
            student = ("scratch-selftrained", 1, 1, best)
            self.assertEqual(tried, [*first, teacher, student])
            rates.unlink()  # as with another working folder
            self.bench("rates", only | {"seed": [2]})
            self.assertEqual(tried[4:6], first)
        # With all labels, where a dataset has only few recordings.
        alone = _Run("frames", "scratch", 0, 0)
        self.assertEqual(bench._rater(replace(alone, seed=2)), alone)

    def test_runs_of_another_process_are_waited_for(self):
        bench, run = self.make("busy"), _Run("frames", "largest", 1, 0)
        lock = bench.out / "claims" / f"{run.name}.lock"
        with locked(lock), self.assertRaises(BusyError):
            bench.ensure(run, busy="busy")
        seen, ensure = [], Benchmark.ensure

        def once_busy(bench, run, busy=""):
            seen.append(busy)
            if busy:
                raise BusyError(busy)
            ensure(bench, run)

        only = {"method": ["largest"], "amount": [1], "seed": [0]}
        with mock.patch.object(Benchmark, "ensure", once_busy):
            table, _ = self.bench("busy", only)
        self.assertEqual(seen[-1], "")
        self.assertEqual(set(table["method"]), {"largest"})
        # Killed before its scores were compiled.
        (self.folder / "busy" / "benchmark.csv.gz").unlink()
        again, _ = self.bench("busy", only)
        self.assertTrue(again.equals(table))

    def test_larger_amounts_than_the_dataset_are_not_planned(self):
        runs = self.make().plan()
        self.assertEqual({run.amount for run in runs}, {0, 1, 3})
        with self.assertRaisesRegex(InputError, "selects no run"):
            self.bench("many", {"amount": [10]})

    def test_epochs_have_at_least_one_step(self):
        bench, run = self.make(), _Run("windows", "logmel", 0, 0)
        family = bench.family(run)
        module = bench._train(run, family, family.labelled, HEAD_RATES[0])
        self.assertEqual(len(module.history), module_under_test.EPOCHS)

    def test_windows_are_predicted_up_to_the_evaluated_length(self):
        from jtm.evaluation import tasks

        few = mock.patch.dict(tasks.EVALUATED, {"test": 4})
        with few, mock.patch.dict(tasks.MINIMUM, {"windows": 1}):
            bench = self.make()
        family = bench.families["windows", "largest"]
        chosen = family.labelled
        network = bench.network(_Run("windows", "largest", 0, 0), chosen).eval()
        for task, predictions in family.predict(network, "test", chosen).items():
            self.assertEqual([len(each) for each in predictions], [2, 2], task)

    def test_predictions_are_in_the_order_of_the_split(self):
        bench = self.make()
        family = bench.families["frames", "logmel"]
        chosen = _select_tasks(family, 1)
        network = bench.network(_Run("frames", "logmel", 1, 0), chosen).eval()
        torch.nn.init.normal_(network.heads.readers["transcription"].linear.weight)
        (one,) = family.predict(network, "test", chosen).values()
        chosen["transcription"].splits["test"].reverse()
        (other,) = family.predict(network, "test", chosen).values()
        self.assertFalse(np.array_equal(one[0], one[1]))
        for each, same in zip(one, reversed(other), strict=True):
            np.testing.assert_array_equal(each, same)

    def test_validation_score_is_note_f1(self):
        family = self.make().families["frames", "logmel"]
        chosen = _select_tasks(family, 1)
        truth = family.targets(chosen)
        for shown, expected in ((slice(None), 1.0), (slice(1), 0.0)):

            def compute_logits(network, inputs, shown=shown):
                logits = np.full(inputs.shape, -9.0)
                logits[:, :, shown] = 18 * inputs[:, :, shown] - 9
                return {"transcription": logits}

            oracle = mock.patch.object(
                family, "read", lambda *where: truth(*where)["transcription"]
            )
            with oracle, mock.patch.object(family, "logits", compute_logits):
                # Without an onset no note is decoded, whatever frames are active.
                self.assertEqual(family.validate(None, chosen), expected)

    def test_unknown_class_gives_the_unknown_target(self):
        bench = self.make()
        family = bench.families["windows", "logmel"]
        index = family.spans("train")[0][0]
        (task,) = family.labelled
        family.labelled[task].names[index] = ""
        targets = family.targets(family.labelled)(index, 0, 128)
        self.assertEqual(targets[task], labels.UNKNOWN)

    def test_labels_cover_whole_training_recordings(self):
        bench = Benchmark(self.data, self.checkpoint, self.folder / "x", progress=False)
        runs = _plan({"family": ["frames"], "method": ["scratch"], "seed": [0]})
        few, more = (
            bench.labelled_spans(next(r for r in runs if r.amount == n)) for n in (1, 3)
        )
        self.assertEqual((len(few), len(more)), (1, 3))
        self.assertTrue(set(few) < set(more))
        for index, first, last in more:
            self.assertEqual(bench.store.recordings[index].split, "train")
            self.assertEqual((first, last), (0, 400))

    def test_labels_can_be_spread_over_all_recordings(self):
        only = {"method": ["scratch"], "amount": [1], "seed": [0]}
        bench = self.make("spread", spread=True)
        size = bench.families["frames", "network"].window
        train = sorted(i for i, *_ in bench.labelled_spans(notes(0)))
        for amount, n_windows in ((1, 3), (3, 9)):  # of recordings of 4 s
            spans = bench.labelled_spans(notes(amount))
            self.assertEqual(len(spans), n_windows)
            for _, first, last in spans:
                self.assertEqual(last - first, size)
                self.assertTrue(0 <= first < last <= 400)
                self.assertEqual(first % size, 0)
            counts = [[i for i, *_ in spans].count(index) for index in train]
            self.assertEqual(sum(counts), n_windows)
            self.assertLessEqual(max(counts) - min(counts), 1)
            self.assertEqual(len(set(spans)), n_windows)
        few = bench.labelled_spans(notes(1))
        self.assertEqual(few, spans[:3])
        self.assertNotEqual(few, bench.labelled_spans(notes(1, seed=1)))
        self.bench("spread", only, spread=True)
        with self.assertRaisesRegex(InputError, "other assignment of labels"):
            self.bench("spread", only)
        self.bench("whole", only)
        shutil.rmtree(self.folder / "spread" / "cells")
        shutil.copytree(self.folder / "whole/cells", self.folder / "spread/cells")
        with self.assertRaisesRegex(InputError, "0.json: .*other assignment"):
            self.bench("spread", only, spread=True)

    def test_real_recordings_are_a_split_of_their_own(self):
        folder = self.folder / "real"
        (folder / "deeper").mkdir(parents=True)
        for name, where in (("test0", folder), ("test1", folder / "deeper")):
            shutil.copy(self.data / "test_data" / f"{name}.wav", where)
            shutil.copy(self.data / "test_labels" / f"{name}.csv", where)
        only = {"method": ["largest", "logmel"], "amount": [3], "seed": [0]}
        table, _ = self.bench("with-real", only, real=folder)
        scores = table.set_index(["method", "split", "metric"])["value"]
        for method in only["method"]:  # the same sounds and notes as the test's
            for metric in ("note_f1", "average_precision"):
                found = [scores[method, split, metric] for split in ("test", "real")]
                self.assertAlmostEqual(*found, places=4)
        without, _ = self.bench("without-real", only)
        self.assertNotIn("real", set(without["split"]))
        learned = table[table["split"] == "test"]["value"].tolist()
        self.assertEqual(learned, without[without["split"] == "test"]["value"].tolist())
        # Finished runs are not repeated with real recordings, or with other ones.
        self.bench("with-real", only, real=folder)
        with self.assertRaisesRegex(InputError, "scores without --real, .*choose"):
            self.bench("without-real", only, real=folder)
        with self.assertRaisesRegex(InputError, "on real recordings; give the same"):
            self.bench("with-real", only)
        (folder / "deeper" / "test1.wav").unlink()
        with self.assertRaisesRegex(InputError, "on other real recordings .*choose"):
            self.bench("with-real", only, real=folder)
        # A single recording has no interval.
        single, _ = self.bench("single-real", only, real=folder)
        self.assertIn("real", set(single["split"]))
        (folder / "test0.csv").unlink()
        code, output = self.command("--real", folder, "--out", self.folder / "no-notes")
        self.assertEqual(code, 2)
        self.assertIn("test0.csv: no such file; expected", output)

    def test_results_of_another_checkpoint_are_refused(self):
        only = {"method": ["largest"], "amount": [1], "seed": [0]}
        self.bench("other", only)
        other = self.folder / "other.pt"
        write_checkpoint(other, 1, SMALL)
        with self.assertRaisesRegex(InputError, "checkpoint"):
            self.bench("other", only, other)

    def test_network_without_a_pitch_map_is_refused(self):
        other = self.folder / "sinc.pt"
        write_checkpoint(other)
        with self.assertRaisesRegex(InputError, "--encoderType pitchmap"):
            self.bench("sinc", {}, other)

    def test_invalid_only_options_are_refused(self):
        for text, message in (
            ("colour=red", "expected a KEY of family"),
            ("amount=2", "expected one of 1, 3, 10, 30, 0"),
            ("seed=one", "expected one of 0, 1, 2, 3, 4"),
            ("method=magic", "expected one of scratch"),
        ):
            code, output = self.command("--only", text)
            self.assertEqual(code, 2)
            self.assertRegex(output, message)
        only = ("--only", "family=clips", "--only", "amount=1")
        code, output = self.command(*only, "--out", self.folder / "none")
        self.assertEqual(code, 2)
        self.assertIn("selects no run", output)

    def command(self, *words):
        """Run the command; return its exit code and output."""
        given = ("--data", self.data, "--load", self.checkpoint, *words)
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            code = main(["benchmark", *map(str, given)])
        return code, output.getvalue()

    def test_shuffled_labels_score_at_chance(self):
        real = Labelled.rolls

        def shuffled(labelled, index, n_frames, start=0):
            roll = real(labelled, index, n_frames, start)
            rng = np.random.default_rng((index, start))
            return roll[rng.permutation(len(roll))]

        steps = mock.patch.dict(module_under_test.STEPS, {0: 80})
        only = {"method": ["scratch", "largest"], "amount": [0], "seed": [0]}
        with steps, mock.patch.object(Labelled, "rolls", shuffled):
            table, _ = self.bench("leak", only)
        # Note metrics are excluded: some decoded notes are right by chance.
        of_notes = table["metric"].str.startswith("note")
        table = table[(table["split"] == "test") & ~of_notes]
        for _, rows in table.groupby(["task", "metric"]):
            value = rows.set_index("method")["value"]
            self.assertLess(value["scratch"], value["largest"] + 0.15)
