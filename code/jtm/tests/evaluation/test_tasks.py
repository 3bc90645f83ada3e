"""Tasks: which recordings take part, labelled subsets, and scores of predictions."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from jtm.constants import INSTRUMENTS
from jtm.data.musicnet import Recording, open_dataset
from jtm.data.rolls import NOTE_DTYPE, PLAYED_DTYPE, WINDOW, onset_roll
from jtm.data.store import build_store
from jtm.evaluation import labelled as module_under_test
from jtm.evaluation import metrics, tasks
from jtm.evaluation.families import Family
from jtm.evaluation.labelled import (
    Labelled,
    clip_store,
    evenly,
    labelled_recordings,
)
from jtm.files import InputError
from jtm.tests.evaluation.little import write_clips, write_dataset


def store(*rows, seconds=10):
    """Make a store of one recording a split and row of metadata."""
    recordings = [
        Recording(f"{i}", Path(f"{i}.wav"), Path(f"{i}.csv"), split, row)
        for split in ("train", "validation", "test")
        for i, row in enumerate(rows)
    ]
    lengths = np.full(len(recordings), 16_000 * seconds)
    return SimpleNamespace(recordings=recordings, lengths=lengths)


def plays(programs):
    """Return a function from a recording's index to notes of its programs."""

    def notes(index):
        own = programs[index % len(programs)]
        return np.array([(0, 9, 60, program) for program in own], PLAYED_DTYPE)

    return notes


class TestLabelled(unittest.TestCase):
    def test_recording_without_class_is_excluded_from_that_task_only(self):
        rows = ({"ensemble": "Solo"}, {"ensemble": ""}, {"ensemble": "Trio"})
        labelled = Labelled.of(store(*rows), "ensemble")
        self.assertEqual(labelled.classes, ("Solo", "Trio"))
        self.assertEqual(labelled.splits["train"], [0, 2])
        self.assertEqual(labelled.splits["test"], [6, 8])
        everything = Labelled.of(store(*rows), "multipitch")
        self.assertEqual(everything.splits["train"], [0, 1, 2])

    def test_split_without_notes_is_refused(self):
        def read(task, *programs):
            labelled = Labelled.of(store({}, {}), task, plays(programs))
            Family({task: labelled}).read_labels(labelled.splits["train"])

        for task, programs, message in (
            ("multipitch", (), "train split have no note, so there is nothing"),
            ("transcription", (), "no note, "),
            ("instrument_activity", (57,), "no note of MusicNet's instruments, so"),
            ("who_plays_what", (13, 57), "no note of MusicNet's instruments, so"),
        ):
            with self.assertRaisesRegex(InputError, message, msg=task):
                read(task, programs, programs)
        read("multipitch", (57,), ())
        read("who_plays_what", (57,), (1,))

    def test_missing_column_is_refused(self):
        for task in ("ensemble", "composer"):
            with self.assertRaisesRegex(InputError, f"no '{task}' in musicnet_meta"):
                Labelled.of(store({task: "Solo"}, {}), task)

    def test_class_only_in_the_test_split_is_refused(self):
        recordings = store({"composer": "Bach"}, {"composer": "Haydn"})
        replaced = recordings.recordings[4]
        recordings.recordings[4] = Recording(
            replaced.id, replaced.audio, replaced.labels, "test", {"composer": "Satie"}
        )
        with self.assertRaisesRegex(InputError, "'Satie'.*test split.*no training"):
            Labelled.of(recordings, "composer")

    def test_drawn_validation_split_suits_every_task(self):
        # As in MusicNet: no validation split, and Faure has only one work.
        works = [
            ("Piano Quartet", "Brahms", "25"),
            ("Piano Quartet", "Faure", "15"),
            ("Piano Quartet", "Mozart", "478"),
            ("Solo Piano", "Brahms", "117"),
            ("Solo Piano", "Mozart", "330"),
        ]
        names = ("ensemble", "composer", "composition")
        unsplit = store(*(dict(zip(names, work, strict=True)) for work in works))
        unsplit.recordings = [r for r in unsplit.recordings if r.split != "validation"]
        for task, classes in (("ensemble", 2), ("composer", 3), ("multipitch", 0)):
            labelled = Labelled.of(unsplit, task)
            self.assertEqual(len(labelled.classes), classes)
            self.assertEqual(labelled.splits["train"], [0, 1, 3, 4])
            self.assertEqual(labelled.splits["validation"], [2])

    def test_instrument_class_is_the_single_instrument_of_the_labels(self):
        rows = [{}] * 4
        notes = plays([(1,), (41, 41), (1, 41), ()])
        labelled = Labelled.of(store(*rows), "instrument", notes)
        self.assertEqual(labelled.classes, ("piano", "violin"))
        self.assertEqual(labelled.splits["train"], [0, 1])
        self.assertEqual(labelled.classes_of([0, 1, 8]).tolist(), [0, 1, 0])

    def test_single_class_is_refused(self):
        with self.assertRaisesRegex(InputError, "expected two or more"):
            Labelled.of(store({}), "instrument", plays([(1,)]))

    def test_evaluated_lengths_are_equal(self):
        rows = [{"ensemble": "ab"[i % 2]} for i in range(60)]
        labelled = Labelled.of(store(*rows, seconds=100), "ensemble")
        # 1800 windows over 60 recordings are 30 each; 1000 would give fewer
        # than the minimum.
        for split, index, n in (("test", 120, 30), ("validation", 60, 24)):
            self.assertEqual(labelled.length(split, index), n * WINDOW)
        self.assertEqual(labelled.length("train", 0), 10_000)
        notes = Labelled.of(store(*rows, seconds=100), "transcription")
        self.assertEqual(notes.length("test", 120), 10 * WINDOW)
        frames = Labelled.of(store(*rows, seconds=100), "multipitch")
        self.assertEqual(frames.length("test", 120), 30 * WINDOW)

    def test_evaluated_length_counts_recordings_without_class(self):
        rows = [{"ensemble": "ab "[i % 3].strip()} for i in range(60)]
        labelled = Labelled.of(store(*rows, seconds=100), "ensemble")
        # 40 take part, and still 30 windows of each.
        found = [labelled.length("test", i) for i in labelled.splits["test"]]
        self.assertEqual(found, [30 * WINDOW] * 40)

    def test_evenly_spaced_selection_reaches_the_end(self):
        found = evenly(np.arange(10_000), 3_000)
        self.assertEqual((len(found), found[0]), (3_000, 0))
        self.assertGreater(found[-1], 9_990)
        self.assertLessEqual(np.diff(found).max(), 4)
        np.testing.assert_array_equal(evenly(np.arange(5), 9), np.arange(5))
        self.assertEqual(len(evenly(np.arange(0), 9)), 0)


class TestLabelledRecordings(unittest.TestCase):
    def setUp(self):
        rows = [{"ensemble": "abc"[i % 3]} for i in range(30)]
        programs = [*INSTRUMENTS]
        self.sets = [(programs[i % 11], programs[i % 4]) for i in range(30)]
        self.store = store(*rows, seconds=100)
        self.store.recordings = [
            replace(recording, metadata=recording.metadata | {"tune_family": f"{i}"})
            for i, recording in enumerate(self.store.recordings)
        ]

    def labelled(self, task):
        return Labelled.of(self.store, task, plays(self.sets))

    def test_smaller_subsets_are_nested_in_larger_ones(self):
        for task in ("transcription", "who_plays_what", "ensemble"):
            labelled = self.labelled(task)
            for seed in range(3):
                drawn = labelled_recordings(labelled, 30, seed).tolist()
                for n in (1, 3, 10):
                    fewer = labelled_recordings(labelled, n, seed).tolist()
                    self.assertEqual(fewer, drawn[:n])
                indices = [index for index, *_ in drawn]
                self.assertEqual(sorted(indices), labelled.splits["train"])
                self.assertEqual(drawn[0][1:], [0, 3000])
            first = {
                tuple(labelled_recordings(labelled, 5, seed)[:, 0]) for seed in range(9)
            }
            self.assertGreater(len(first), 5)

    def test_every_instrument_and_class_is_included(self):
        for seed in range(10):
            labelled = self.labelled("instrument_activity")
            # Eleven instruments, two per recording; seven occur in few recordings.
            drawn = labelled_recordings(labelled, 10, seed)[:, 0]
            self.assertEqual({p for i in drawn for p in self.sets[i]}, {*INSTRUMENTS})
            drawn = labelled_recordings(self.labelled("ensemble"), 3, seed)[:, 0]
            self.assertEqual({i % 3 for i in drawn}, {0, 1, 2})

    def test_instrument_that_enters_later_does_not_count(self):
        late = plays(self.sets)

        def notes(index):
            found = late(index)
            if index != 17:
                return found[found["program"] != 71]
            found["start"], found["end"] = 40, 50
            found["program"] = 71
            return found

        labelled = Labelled.of(self.store, "who_plays_what", notes)
        firsts = [labelled_recordings(labelled, 10, seed)[:, 0] for seed in range(5)]
        self.assertFalse(all(17 in first for first in firsts))
        with mock.patch.object(module_under_test, "SECONDS", 60.0):
            longer = labelled_recordings(labelled, 10, 0)
        self.assertIn(17, longer[:, 0])

    def test_all_recordings_are_returned_and_more_refused(self):
        labelled = self.labelled("transcription")
        spans = labelled_recordings(labelled)
        self.assertEqual(spans.tolist(), [[i, 0, 10_000] for i in range(30)])
        with self.assertRaisesRegex(InputError, "31 labelled .* split has 30"):
            labelled_recordings(labelled, 31)

    def test_resampling_groups_are_tune_families(self):
        labelled = self.labelled("ensemble")
        self.assertEqual(labelled.groups_of("test"), [f"{i}" for i in range(60, 90)])


class TestTargets(unittest.TestCase):
    def test_onsets_are_widened_across_excerpt_edges(self):
        notes = np.array([(0.1, 0.2, 60), (0.3, 0.4, 60)], NOTE_DTYPE)
        whole = tasks._wide_onsets(notes, 150, 0)
        frames = np.flatnonzero(whole[:, 60 - 21])
        self.assertEqual(frames.tolist(), [9, 10, 11, 29, 30, 31])
        for start in (9, 10, 11, 12, 28):
            part = tasks._wide_onsets(notes, 30, start)
            np.testing.assert_array_equal(part, whole[start : start + 30])


class TestScores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_dataset(cls.root)
        write_clips(cls.root)
        cls.store = build_store(open_dataset(cls.root), progress=False)
        cls.clips = clip_store(cls.root, progress=False)

    def values(self, scored):
        return {score["metric"]: score["value"] for score in scored}

    def test_perfect_frame_predictions_score_1(self):
        for task, n_outputs in (("multipitch", 88), ("instrument_activity", 11)):
            labelled = Labelled.of(self.store, task)
            logits = [4.0 * truth - 2.0 for truth in labelled.truths("test")]
            self.assertEqual(logits[0].shape, (25, n_outputs))
            found = self.values(
                labelled.task.score(labelled, "test", logits, {"threshold": 0})
            )
            self.assertEqual(found, {"average_precision": 1.0, "frame_f1": 1.0})
            logits = [each - 9 for each in logits]  # nothing is predicted
            found = self.values(
                labelled.task.score(labelled, "test", logits, {"threshold": 0})
            )
            self.assertEqual(found, {"average_precision": 1.0, "frame_f1": 0.0})
            validation = [7.0 * truth for truth in labelled.truths("validation")]
            self.assertEqual(
                labelled.task.choose(labelled, validation), {"threshold": 7.0}
            )

    def test_hand_computed_threshold(self):
        # Above 0.4 three of three are found with one wrong: F1 6/7; above 0.8
        # two of three: F1 4/5.
        truth = np.array([[True, True, False, True, False]])
        scores = np.array([[0.9, 0.8, 0.5, 0.4, 0.1]])
        # Without an active pitch, no threshold can be chosen.
        for found, expected in ((truth, 0.4), (truth & ~truth, 0.0)):
            labelled = SimpleNamespace(truths=lambda split, found=found: [found])
            chosen = tasks.TASKS["multipitch"].choose(labelled, [scores])
            self.assertEqual(chosen, {"threshold": expected})

    def test_evaluated_frames_are_the_centres_of_their_steps(self):
        labelled = Labelled.of(self.store, "instrument_activity")
        found = labelled.truths("test")[1]  # violin throughout
        self.assertEqual(np.argwhere(found[0]).ravel().tolist(), [2])
        self.assertEqual(list(INSTRUMENTS)[2], 41)
        pitches = Labelled.of(self.store, "multipitch")
        evaluated, whole = pitches.truths("test")[1], pitches.truths("test", 1)[1]
        index = labelled.splits["test"][1]
        np.testing.assert_array_equal(whole, pitches.rolls(index, 400))
        np.testing.assert_array_equal(evaluated, whole[8::16])

    def test_perfect_transcription_scores_1(self):
        labelled = Labelled.of(self.store, "transcription")
        thresholds = {"frame_threshold": 0.5, "onset_threshold": 0.5}

        def perfect_logits(index):
            rolls = labelled.rolls(index, 400)
            rolls[:, 1] = onset_roll(labelled.notes(index), 400)
            return 6.0 * rolls - 3.0

        logits = [perfect_logits(index) for index in labelled.splits["test"]]
        found = self.values(labelled.task.score(labelled, "test", logits, thresholds))
        names = ("note_f1", "note_offset_f1", "average_precision")
        self.assertEqual(found, dict.fromkeys(names, 1.0))
        silent = [each - 9.0 for each in logits]
        found = self.values(labelled.task.score(labelled, "test", silent, thresholds))
        self.assertEqual(list(found.values()), [0.0, 0.0, 1.0])
        chosen = labelled.task.choose(
            labelled, [perfect_logits(index) for index in labelled.splits["validation"]]
        )
        self.assertEqual(chosen.keys(), thresholds.keys())

    def test_silence_transcribed_as_silence(self):
        labelled = Labelled.of(self.store, "transcription", plays([()]))
        logits = [np.full((400, 2, 88), -5.0)] * 2
        thresholds = {"frame_threshold": 0.5, "onset_threshold": 0.5}
        found = self.values(labelled.task.score(labelled, "test", logits, thresholds))
        expected = {"note_f1": 1.0, "note_offset_f1": 1.0, "average_precision": 0.0}
        self.assertEqual(found, expected)

    def test_perfect_parts_score_1(self):
        labelled = Labelled.of(self.store, "who_plays_what")
        self.assertEqual(labelled.shape, (12, 88))
        n_frames = 400
        logits = {}
        for split in ("validation", "test"):
            logits[split] = []
            for index in labelled.splits[split]:
                notes = labelled.notes(index)
                rolls = labelled.rolls(index, n_frames)
                rolls[:, -1] = onset_roll(notes, n_frames)
                logits[split].append(6.0 * rolls - 3.0)
        chosen = labelled.task.choose(labelled, logits["validation"])
        found = self.values(
            labelled.task.score(labelled, "test", logits["test"], chosen)
        )
        self.assertEqual(found, {"average_precision": 1.0, "note_instrument_f1": 1.0})
        # Correct notes of the wrong instrument.
        swapped = [x.copy() for x in logits["test"]]
        for x in swapped:
            x[:, [0, 2]] = x[:, [2, 0]]
        found = self.values(labelled.task.score(labelled, "test", swapped, chosen))
        self.assertEqual(found["note_instrument_f1"], 0.0)
        self.assertLess(found["average_precision"], 0.1)

    def test_notes_beyond_the_evaluated_length_are_ignored(self):
        labelled = Labelled.of(self.store, "transcription")
        labelled.lengths["test"] = 200
        notes = labelled.references("test")[0]
        self.assertEqual(len(notes), 8)  # four a second, for two
        self.assertEqual(notes["end"].max(), 2.0)

    def test_window_accuracy_and_macro_f1(self):
        labelled = Labelled.of(self.store, "ensemble")
        self.assertEqual(labelled.classes, ("Bright", "Dull"))
        # Always predicting 'Bright' is correct for one of two recordings: F1 2/3, 0.
        logits = [np.tile([1.0, 0.0], (3, 1))] * 2
        scores = labelled.task.score(labelled, "test", logits, {})
        found = self.values(scores)
        self.assertEqual(found["accuracy"], 0.5)
        self.assertAlmostEqual(found["macro_f1"], 1 / 3)
        self.assertEqual(len(scores[0]["draws"]), metrics.DRAWS)
        main = [score["metric"] for score in scores if score["primary"]]
        self.assertEqual(main, ["accuracy"])

    def test_log_posteriors_of_windows_are_summed(self):
        labelled = Labelled.of(self.store, "ensemble")
        # Of three windows two are slightly wrong and one is confidently correct.
        wrong = np.array([[0.0, 1.0], [9.0, 0.0], [0.0, 1.0]])
        found = self.values(
            labelled.task.score(labelled, "test", [wrong[:, ::-1], wrong], {})
        )
        self.assertEqual(found["accuracy"], 1 / 3)
        self.assertEqual(found["accuracy_5s"], 1.0)
        self.assertEqual(found["accuracy_30s"], 1.0)

    def test_hand_computed_log_posteriors(self):
        logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]) + [[5], [0], [-3]]
        found = np.exp(tasks._pool(logits, 2))
        np.testing.assert_allclose(found, [[0.18, 0.08]])
        self.assertEqual(tasks._pool(logits, 1).shape, (3, 2))
        np.testing.assert_allclose(np.exp(tasks._pool(logits, 23)), [[0.09, 0.04]])

    def test_draws_depend_on_the_order_of_recordings_not_their_indices(self):
        # The same works have other indices in another rendering.
        rng = np.random.default_rng(0)
        logits = [rng.normal(size=(3, 2)) for _ in range(4)]
        drawn = []
        for first in (8, 98):  # indices gain a digit within the range
            indices = list(range(first, first + 4))
            labelled = Labelled(
                None,
                {"test": indices},
                tasks.TASKS["ensemble"],
                ("a", "b"),
                dict(zip(indices, "abab", strict=True)),
                {i: f"{i}" for i in indices},
            )
            drawn.append(labelled.task.score(labelled, "test", logits, {})[0]["draws"])
        np.testing.assert_array_equal(*drawn)

    def test_notes_are_the_resampling_unit_of_clips(self):
        labelled = Labelled.of(self.clips, "note_instrument")
        self.assertEqual(labelled.classes, ("piano", "violin"))
        self.assertEqual(len(labelled.splits["test"]), 8)  # 4 notes at 2 velocities
        truths = labelled.classes_of(labelled.splits["test"])
        # Correct for the pianos only.
        logits = [np.array([[1.0, 0.0]])] * 8
        scores = labelled.task.score(labelled, "test", logits, {})
        self.assertEqual(self.values(scores)["accuracy"], 0.5)
        self.assertEqual((truths == 0).sum(), 4)
        # The accuracy of a draw of four notes is a multiple of 1/4.
        self.assertEqual(set(scores[0]["draws"]), {0.0, 0.25, 0.5, 0.75, 1.0})

    def test_pitch_classes_cover_the_whole_pitch_axis(self):
        labelled = Labelled.of(self.clips, "note_pitch")
        self.assertEqual(labelled.shape, (88,))
        index = labelled.splits["train"][0]
        pitch = int(self.clips.recordings[index].metadata["pitch"])
        self.assertEqual(labelled.classes_of([index]).tolist(), [pitch - 21])
        # Each clip is read from 0.1 s before its onset, and classes alternate: three
        # clips are one of each pitch.
        for seed in range(5):
            with mock.patch.object(module_under_test, "SECONDS", 1.2):
                spans = labelled_recordings(labelled, 1, seed)
            self.assertEqual(spans[:, 1:].tolist(), [[0, 50]] * 3)
            self.assertEqual(len({labelled.names[i] for i in spans[:, 0]}), 3)
            with mock.patch.object(module_under_test, "SECONDS", 2.0):
                more = labelled_recordings(labelled, 1, seed)
            self.assertEqual(more[:3].tolist(), spans.tolist())

    def test_dataset_without_single_notes_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(InputError, "notes.csv"):
                clip_store(folder)

    def test_note_after_the_end_of_its_clip_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            write_clips(folder, {"train": (60,)})
            table = Path(folder) / "notes.csv"
            table.write_text(table.read_text().replace(",4410,26460,", ",26461,26470,"))
            with self.assertRaisesRegex(InputError, "wav: its note starts after the e"):
                clip_store(folder, progress=False)


if __name__ == "__main__":
    unittest.main()
