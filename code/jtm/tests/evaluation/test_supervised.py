import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import soundfile
import torch

from jtm.evaluation import cells as records
from jtm.evaluation import networks, tasks
from jtm.evaluation.cells import read
from jtm.evaluation.features import Features
from jtm.evaluation.supervised import run
from jtm.files import InputError, StoppedError
from jtm.tests.evaluation.little import (
    SMALL,
    write_checkpoint,
    write_clips,
    write_dataset,
)
from jtm.training.checkpoints import load_model, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        write_dataset(cls.folder / "data")
        write_clips(cls.folder / "data")
        cls.checkpoint = cls.folder / "checkpoint.pt"
        write_checkpoint(cls.checkpoint)

    def run_quietly(self, name, **chosen):
        chosen = {
            "data": str(self.folder / "data"),
            "path_checkpoint": str(self.folder / name),
            "batch_size": 3,
            "n_epoch": 4,
        } | chosen
        if "load" not in chosen:
            chosen |= SMALL
        config = make_config(SupervisedConfig, "tiny", chosen)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            made = run(config, progress=False)
        return {record.metric: record for record in made}, said.getvalue()

    def test_transcription_on_a_frozen_network(self):
        chosen = {"load": str(self.checkpoint), "on_encoder": True}
        chosen |= {"n_epoch": 8, "learning_rate": 0.01}
        made, said = self.run_quietly("frozen", **chosen)
        self.assertRegex(said, r"note F1 [01]\.\d+ \(95 % interval")
        self.assertRegex(said, r"average precision [01]\.\d+ \(95 % interval")
        self.assertGreater(made["note_f1"].value, 0.5)
        self.assertGreater(made["average_precision"].value, 0.7)
        self.assertEqual(made["note_f1"].representation, "cpc-z")
        self.assertEqual(made["note_f1"].labelled, 18 * 1.28)
        self.assertEqual(made["note_f1"].config["encoder_type"], "sinc")
        folder = self.folder / "frozen"
        self.assertEqual(read(folder / "record.json"), list(made.values()))
        # The network that was loaded is the one that is kept.
        kept = read_checkpoint(folder / "best.pt")["state_dict"]
        for name, value in load_model(self.checkpoint)[0].state_dict().items():
            self.assertTrue((kept[f"model.{name}"] == value).all(), name)
        # Features, gigabytes of real music, go when they are of no more use.
        self.assertFalse((folder / "features").exists())
        (folder / "features").mkdir()
        # The same again is finished; on another network it is refused.
        again, said = self.run_quietly("frozen", **chosen)
        self.assertEqual(again, made)
        self.assertIn("finished", said)
        self.assertFalse((folder / "features").exists())
        self.assertIn("note F1", said)
        self.addCleanup(write_checkpoint, self.checkpoint)
        write_checkpoint(self.checkpoint, seed=7)
        with self.assertRaisesRegex(InputError, "from another checkpoint"):
            self.run_quietly("frozen", **chosen)

    def test_ensemble_from_scratch(self):
        made, said = self.run_quietly("scratch", task="ensemble", n_epoch=4)
        self.assertEqual(made["accuracy"].value, 1.0)
        self.assertEqual(made["accuracy"].representation, "supervised")
        self.assertIn("accuracy 1.000", said)
        config = make_config(SupervisedConfig, "tiny", SMALL)
        self.assertEqual(made["accuracy"].config["hidden_gar"], config.hidden_gar)

    def test_an_odd_number_of_windows_two_by_two(self):
        data = self.folder / "odd"
        write_dataset(data)
        tune = data / "train_data" / "train0.wav"
        wave, rate = soundfile.read(tune)
        soundfile.write(tune, wave[:50_000], rate)  # 17 windows, not 18
        chosen = {"task": "ensemble", "batch_size": 2, "n_epoch": 1}
        made, _ = self.run_quietly("odd run", data=str(data), **chosen)
        self.assertAlmostEqual(made["accuracy"].labelled, 17 * 1.28)

    def test_single_notes_frozen_and_from_scratch(self):
        for name, more in (("kept", {"load": str(self.checkpoint)}), ("new", {})):
            chosen = {"task": "note_instrument", "n_epoch": 12, "batch_size": 4}
            chosen["learning_rate"] = 0.01
            made, said = self.run_quietly(f"notes {name}", **chosen, **more)
            self.assertEqual(made["accuracy"].value, 1.0, name)
            self.assertEqual(made["accuracy"].labelled, 4.8)
            self.assertIn("note_instrument, test: accuracy 1.000", said)
            probe = {"kept": "linear", "new": "network"}[name]
            self.assertEqual(made["accuracy"].probe, probe)

    def test_instruments_of_each_frame(self):
        chosen = {"task": "instrument_activity", "load": str(self.checkpoint)}
        made, _ = self.run_quietly("activity", **chosen, learning_rate=0.02)
        self.assertGreater(made["average_precision"].value, 0.8)

    def test_who_plays_what(self):
        chosen = {"task": "who_plays_what", "load": str(self.checkpoint)}
        made, _ = self.run_quietly("parts", **chosen, n_epoch=8, learning_rate=0.01)
        self.assertEqual(list(made), ["average_precision", "note_instrument_f1"])
        self.assertGreater(made["average_precision"].value, 0.4)

    def test_training_from_scratch_moves_the_whole_network(self):
        made, _ = self.run_quietly("moved", task="multipitch", n_epoch=1)
        self.assertEqual(list(made), ["average_precision", "frame_f1"])
        still, _ = self.run_quietly("still", task="multipitch", learning_rate=0.0)
        values = [found["average_precision"].value for found in (made, still)]
        self.assertNotEqual(*values)
        states = [
            read_checkpoint(self.folder / name / "best.pt")["state_dict"]
            for name in ("moved", "still")
        ]
        for part in ("model.encoder.filters.centre", "model.context.net.weight_hh_l0"):
            self.assertTrue((states[0][part] != states[1][part]).any(), part)

    def test_same_seed_same_result(self):
        chosen = {"load": str(self.checkpoint), "task": "multipitch", "n_epoch": 1}
        values = []
        for number in range(2):
            torch.manual_seed(number)  # what was drawn before is of no account
            made, _ = self.run_quietly(f"seed{number}", **chosen)
            values.append(made["average_precision"].value)
        self.assertEqual(*values)
        made, _ = self.run_quietly("other seed", random_seed=1, **chosen)
        self.assertNotEqual(made["average_precision"].value, values[0])

    def test_other_settings_in_the_folder_are_refused(self):
        self.run_quietly("settings", task="ensemble", n_epoch=1)
        with self.assertRaisesRegex(InputError, "--nEpoch"):
            self.run_quietly("settings", task="ensemble", n_epoch=2)

    def test_a_run_is_not_taken_up_on_other_recordings(self):
        data = self.folder / "changed"
        write_dataset(data)
        chosen = {"data": str(data), "task": "ensemble"}
        with mock.patch.object(networks, "answers", side_effect=StoppedError):
            with self.assertRaises(StoppedError):
                self.run_quietly("stopped", **chosen)
        shorter, rate = soundfile.read(data / "train_data" / "train0.wav")
        soundfile.write(data / "train_data" / "train0.wav", shorter[:50_000], rate)
        with self.assertRaisesRegex(InputError, "other recordings: 6 .*choose another"):
            self.run_quietly("stopped", **chosen)

    def test_a_run_that_can_go_on_keeps_its_features(self):
        chosen = {"load": str(self.checkpoint), "task": "multipitch", "n_epoch": 1}
        stop = mock.patch.object(records, "write", side_effect=KeyboardInterrupt)
        with stop, self.assertRaises(KeyboardInterrupt):
            self.run_quietly("cut off", **chosen)
        self.assertTrue(list((self.folder / "cut off" / "features").iterdir()))
        with mock.patch.object(Features, "_extract") as extract:
            self.run_quietly("cut off", **chosen)
        extract.assert_not_called()
        self.assertFalse((self.folder / "cut off" / "features").exists())

    def test_a_window_longer_than_what_is_used(self):
        # Recordings are of 4 s; of those of validation the beginning is judged.
        little = {"validation": 2}, {"notes": 2}
        with (
            mock.patch.dict(tasks.DECODED, little[0]),
            mock.patch.dict(tasks.MINIMUM, little[1]),
        ):
            for seconds, told in (
                (3, "of a validation recording 2.56 s at most .* window of 3 s"),
                (5, "of a train recording 4 s at most .* window of 5 s"),
            ):
                with self.assertRaisesRegex(InputError, told):
                    self.run_quietly("long", transcription_window=1000 * seconds)

    def test_what_cannot_work_is_refused_and_leaves_nothing(self):
        cases = {
            "--batchSize": {"task": "ensemble", "batch_size": 1},
            "--transcriptionWindow": {"transcription_window": 5000},
            "no such checkpoint": {"load": "nowhere/checkpoint3.pt"},
        }
        for message, chosen in cases.items():
            with self.assertRaisesRegex(InputError, message):
                self.run_quietly("refused", **chosen)
        self.assertFalse((self.folder / "refused").exists())


if __name__ == "__main__":
    unittest.main()
