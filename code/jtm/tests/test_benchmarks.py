"""Benchmark scripts: timing, peak memory and the scores of transcribers."""

import shlex
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from jtm import cli
from jtm.cli import ROOT
from jtm.data.musicnet import Recording
from jtm.data.rolls import PLAYED_DTYPE
from jtm.files import InputError
from jtm.music import midi
from jtm.music.score import Note, Score

sys.path.insert(0, str(ROOT / "code" / "benchmarks"))

import commands  # noqa: E402
import cpc_step  # noqa: E402
import ingredients  # noqa: E402
import memory  # noqa: E402
import transcribers  # noqa: E402


class TestBenchmarks(unittest.TestCase):
    def test_step_updates_all_parameters(self):
        step = cpc_step.Step("tiny", "cpu", "float32")
        before = [p.clone() for p in step.model.parameters()]
        step()
        for old, new in zip(before, step.model.parameters(), strict=True):
            self.assertFalse(torch.equal(old, new))

    def test_peak_memory_includes_freed_tensors(self):
        usage = {}
        blocks = [bytearray(60_000) for _ in range(4000)]
        retained = bytearray(60_000)  # behind them, so that the process keeps them
        del blocks
        with cpc_step.peak_memory("cpu", usage):
            torch.ones(25_000_000).sum()
        del retained
        if usage["bytes"] is None:
            self.skipTest("this system does not report the memory of a process")
        self.assertGreater(usage["bytes"], 90e6)
        self.assertLess(usage["bytes"], 150e6)

    def test_each_call_runs_once_per_turn(self):
        calls = []
        times = cpc_step.fastest({"a": lambda: calls.append(1)}, turns=3)
        self.assertEqual(len(calls), 3)
        self.assertGreater(times["a"], 0)

    def test_timed_commands_have_valid_options(self):
        words = map(shlex.split, commands.COMMANDS)
        own = [each[3:] for each in words if each[:3] == ["python", "-m", "jtm"]]
        self.assertIn("export", [verb for verb, *_ in own])
        with mock.patch.object(cli, "run", return_value=0):
            for each in own:
                self.assertEqual(cli.main(each), 0)

    def test_planning_time_is_per_window(self):
        self.assertLess(memory.planning(2) / memory.planning(1), 10)


class TestTranscribers(unittest.TestCase):
    """Transcribers are scored on notes alone, whichever system predicts them."""

    def piece(self, *notes):
        return transcribers.Piece(None, np.array([*notes], PLAYED_DTYPE), 4.0, "a")

    def test_hand_computed_scores(self):
        piece = self.piece((0, 1, 60, 1), (1, 2, 62, 41))
        predicted = np.array([(0.04, 1, 60, 1), (1, 1.5, 62, 1)], PLAYED_DTYPE)
        scores = transcribers.score(piece, predicted, instruments=True)
        self.assertEqual(scores["onset"], 1)  # 40 ms late
        self.assertEqual(scores["offset"], 0.5)  # one ends half a second early
        self.assertEqual(scores["instrument"], 0.5)  # one is of another instrument
        self.assertAlmostEqual(scores["frame"], 2 * 146 / (200 + 146))
        self.assertNotIn("instrument", transcribers.score(piece, predicted))
        self.assertNotIn("found", scores)

    def test_single_note_scores(self):
        piece = self.piece((0, 1, 60, 74))
        notes = np.array([(0, 1, 60, 0), (0, 1, 72, 0), (2, 3, 60, 0)], PLAYED_DTYPE)

        def score(*rows):
            scores = transcribers.score(piece, notes[[*rows]])
            return scores["found"], scores["on_time"]

        self.assertEqual(score(0, 1, 2), (1, 1))
        self.assertEqual(score(1, 2), (1, 0))  # an octave off, and two seconds late
        self.assertEqual(score(1), (0, 0))
        self.assertEqual(transcribers.score(piece, notes[:0])["found"], 0)

    def test_missed_unisons_and_given_ensembles_are_counted(self):
        # A unison of which one note is found, one that is missed, and a lone note.
        twice = [
            (time, time + 1, 60, program) for time in (0, 1) for program in (1, 41)
        ]
        piece = self.piece(*twice, (2, 3, 62, 41))
        found = np.array([(0, 1, 60, 1)], PLAYED_DTYPE)
        with mock.patch.object(transcribers, "transcribe") as transcribe:
            transcribe.return_value.notes = piece.notes
            errors = transcribers.errors([piece], [found], None)
        self.assertEqual(errors, {"missed": 4, "unisons": 3, "given": 1.0})
        self.assertEqual(transcribe.call_args.kwargs["instruments"], (1, 41))

    def test_stronger_setting_of_a_peer_is_marked_for_each_metric(self):
        def all_of(*values, frame):
            return [{"onset": value, "frame": frame} for value in values]

        scores = {
            "jtm": {
                "default": [{"onset": v, "instrument": v} for v in (0.9, 0.7, 0.8)]
            },
            "peer": {
                "default": all_of(0.5, 0.5, 0.5, frame=0.6),
                "tuned": all_of(0.8, 0.6, 0.7, frame=0.4),
            },
        }
        rows = transcribers.compare(scores, ["a", "b", "b"])
        own = [row for row in rows if row["system"] == "peer"]
        stronger = [(row["metric"], row["setting"]) for row in own if row["stronger"]]
        self.assertCountEqual(stronger, [("onset", "tuned"), ("frame", "default")])
        peers = {row["setting"]: row for row in own if row["metric"] == "onset"}
        # Pieces differ far more than transcribers; the paired difference is 0.1.
        difference = peers["tuned"]["difference"]
        self.assertTrue(all(abs(difference[key] - 0.1) < 1e-9 for key in difference))
        self.assertLess(peers["tuned"]["low"], 0.7)
        self.assertIn("instrument", [row["metric"] for row in rows])

    def test_notes_are_cached_and_a_failure_names_its_log(self):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            weights = work / "weights"
            weights.write_bytes(b"")
            system = transcribers.System("jtm", work, weights)
            piece = self.piece()._replace(path=weights)
            with mock.patch.object(system, "name", "nobody"):  # peers.py knows none
                with self.assertRaisesRegex(InputError, "nobody: failed; .*says why"):
                    system.notes([piece], [{}], "nothing")
            output = {"notes": [[[0, 1, 60, 1]]]}
            with mock.patch.object(system, "outputs", return_value=[output]) as run:
                first = system.notes([piece], [{}], "once")
                again = system.notes([piece], [{}], "again")
            run.assert_called_once()
            self.assertEqual(first[0][0].tolist(), again[0][0].tolist())
            self.assertEqual(first[0][0].tolist(), [(0, 1, 60, 1)])

    def test_other_instruments_play_the_same_notes(self):
        notes = [Note(i / 4, i / 4 + 0.2, (1, 41)[i % 2], 60 + i) for i in range(8)]
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "midi").mkdir()
        midi.write(folder / "midi" / "7.mid", Score(tuple(notes)))
        one = Recording("7", folder / "test_data" / "7.wav", None, "test")
        font = transcribers.synth.default_soundfont()
        with mock.patch.object(transcribers.synth, "find_soundfont", lambda _: font):
            (found,) = transcribers._with_others([one], folder)
            piece = transcribers._read(found, "a", folder)
            with mock.patch.object(transcribers.acoustics, "render") as render:
                transcribers._with_others([one], folder)
            render.assert_not_called()
        self.assertEqual(piece.notes["pitch"].tolist(), [*range(60, 68)])
        np.testing.assert_allclose(piece.notes["start"], np.arange(8) / 4, atol=1e-3)
        programs = {*piece.notes["program"].tolist()}
        self.assertEqual(len(programs), 2)
        self.assertLessEqual(programs, {*transcribers.acoustics.OTHERS})
        wave, rate = soundfile.read(found.audio)
        for note in piece.notes:
            span = slice(*(int(rate * note[name]) for name in ("start", "end")))
            self.assertGreater(np.abs(wave[span]).max(), 0.01)

    def test_long_recording_is_cut_with_its_notes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "sound", "7001.wav")
            path.parent.mkdir()
            soundfile.write(path, np.zeros(31 * 8000), 8000)
            labels = path.with_suffix(".csv")
            labels.write_text(
                "start_time,end_time,instrument,note,start_beat,end_beat,note_value\n"
                f"0,{31 * 44100},1,60,0,0,\n{30 * 44100},{31 * 44100},1,62,0,0,\n"
            )
            one = Recording("7001", path, labels, "test")
            piece = transcribers._read(one, "a", Path(folder))
            self.assertEqual(piece.notes[["start", "end"]].tolist(), [(0, 30)])
            self.assertEqual(soundfile.info(piece.path).duration, piece.seconds)

    def test_gain_of_an_ingredient_varies_with_seeds(self):
        pieces = [self.piece()._replace(group=str(i)) for i in range(4)]
        level = np.array([0.5, 0.6, 0.7, 0.8])
        onset_f1 = {("labels", "toy"): [level] * 3}
        for name, gains in (("same", (0.1, 0.1, 0.1)), ("noise", (0.0, 0.1, 0.2))):
            onset_f1[name, "toy"] = [level + gain for gain in gains]
        own, same, noise = (
            ingredients.rows_of(name, other, 5, onset_f1, {"toy": pieces})[0]
            for name, other in (("labels", None), ("same", "labels"), ("noise", "same"))
        )
        self.assertNotIn("difference", own)
        self.assertEqual((own["seeds"], round(own["value"], 6)), (3, 0.65))
        for end in same["difference"].values():  # as for each recording and seed
            self.assertAlmostEqual(end, 0.1)
        self.assertAlmostEqual(noise["difference"]["value"], 0)
        # Student's t with two degrees of freedom: 4.30 standard errors.
        for end, sign in (("low", -1), ("high", 1)):
            expected = sign * 4.30 * 0.1 / np.sqrt(3)
            self.assertAlmostEqual(noise["difference"][end], expected, delta=0.03)


if __name__ == "__main__":
    unittest.main()
