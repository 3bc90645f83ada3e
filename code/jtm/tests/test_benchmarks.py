"""The benchmarks measure what they say."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from jtm.cli import ROOT
from jtm.data.musicnet import Recording
from jtm.data.rolls import PLAYED_DTYPE
from jtm.files import InputError

sys.path.insert(0, str(ROOT / "code" / "benchmarks"))

import cpc_step  # noqa: E402
import memory  # noqa: E402
import transcribers  # noqa: E402


class TestBenchmarks(unittest.TestCase):
    def test_a_step_learns(self):
        step = cpc_step.Step("tiny", "cpu", "float32")
        before = [p.clone() for p in step.model.parameters()]
        step()
        for old, new in zip(before, step.model.parameters(), strict=True):
            self.assertFalse(torch.equal(old, new))

    def test_memory_is_that_of_the_peak(self):
        found = {}
        with cpc_step.peak_memory("cpu", found):
            torch.ones(25_000_000).sum()
        if found["bytes"] is None:
            self.skipTest("this system does not tell the memory of a process")
        self.assertGreater(found["bytes"], 90e6)
        self.assertLess(found["bytes"], 150e6)

    def test_the_fastest_of_several_turns_counts(self):
        calls = []
        times = cpc_step.fastest({"a": lambda: calls.append(1)}, turns=3)
        self.assertEqual(len(calls), 3)
        self.assertGreater(times["a"], 0)

    def test_planning_is_timed_by_the_window(self):
        self.assertLess(memory.planning(2) / memory.planning(1), 10)


class TestTranscribers(unittest.TestCase):
    """Peers are judged on notes alone, wherever these come from."""

    def piece(self, *notes):
        return transcribers.Piece(None, np.array([*notes], PLAYED_DTYPE), 4.0, "a")

    def test_scores_computed_by_hand(self):
        piece = self.piece((0, 1, 60, 1), (1, 2, 62, 41))
        found = np.array([(0.04, 1, 60, 1), (1, 1.5, 62, 1)], PLAYED_DTYPE)
        scores = transcribers.score(piece, found, instruments=True)
        self.assertEqual(scores["onset"], 1)  # 40 ms late
        self.assertEqual(scores["offset"], 0.5)  # one ends half a second early
        self.assertEqual(scores["instrument"], 0.5)  # one is of another instrument
        self.assertAlmostEqual(scores["frame"], 2 * 146 / (200 + 146))
        self.assertNotIn("instrument", transcribers.score(piece, found))
        self.assertNotIn("found", scores)

    def test_a_single_note_is_found_among_others(self):
        piece = self.piece((0, 1, 60, 74))
        found = np.array([(0, 1, 60, 0), (0, 1, 72, 0), (2, 3, 60, 0)], PLAYED_DTYPE)

        def judged(*rows):
            scores = transcribers.score(piece, found[[*rows]])
            return scores["found"], scores["on_time"], scores["extra"]

        self.assertEqual(judged(0, 1, 2), (1, 1, 1))
        self.assertEqual(judged(1, 2), (1, 0, 1))  # an octave off, and two seconds late
        self.assertEqual(judged(1), (0, 0, 1))
        self.assertEqual(transcribers.score(piece, found[:0])["found"], 0)

    def test_the_stronger_setting_of_a_peer_is_met(self):
        def all_of(*values):
            return [{"onset": value} for value in values]

        scores = {
            "jtm": {
                "default": [{"onset": v, "instrument": v} for v in (0.9, 0.7, 0.8)]
            },
            "peer": {"default": all_of(0.5, 0.5, 0.5), "tuned": all_of(0.8, 0.6, 0.7)},
        }
        rows = transcribers.compare(scores, ["a", "b", "b"])
        peers = {row["setting"]: row for row in rows if row["system"] == "peer"}
        self.assertTrue(peers["tuned"]["stronger"])
        self.assertFalse(peers["default"]["stronger"])
        # Pieces differ far more than transcribers: paired, ours is always .1 ahead.
        ahead = peers["tuned"]["difference"]
        self.assertTrue(all(abs(ahead[key] - 0.1) < 1e-9 for key in ahead))
        self.assertLess(peers["tuned"]["low"], 0.7)
        self.assertIn("instrument", [row["metric"] for row in rows])

    def test_notes_are_kept_and_a_failure_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            weights = work / "weights"
            weights.write_bytes(b"")
            system = transcribers.System("jtm", work, weights)
            piece = self.piece()._replace(path=weights)
            with mock.patch.object(system, "name", "nobody"):  # peers.py knows none
                with self.assertRaisesRegex(InputError, "nobody: failed; .*says why"):
                    system.notes([piece], [{}], "nothing")
            answer = {"notes": [[[0, 1, 60, 1]]]}
            with mock.patch.object(system, "answers", return_value=[answer]) as run:
                first = system.notes([piece], [{}], "once")
                again = system.notes([piece], [{}], "again")
            run.assert_called_once()
            self.assertEqual(first[0][0].tolist(), again[0][0].tolist())
            self.assertEqual(first[0][0].tolist(), [(0, 1, 60, 1)])

    def test_a_long_recording_is_cut_with_its_notes(self):
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


if __name__ == "__main__":
    unittest.main()
