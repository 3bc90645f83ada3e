import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from jtm.cpc import supervised
from jtm.cpc.supervised import run
from jtm.files import InputError, StoppedError, read_json
from jtm.tests.evaluation.little import (
    SMALL,
    write_checkpoint,
    write_clips,
    write_dataset,
    write_malformed_label,
)
from jtm.training import labels
from jtm.training.checkpoints import load_model, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.spectra import Spectra

MAP = {"encoder_type": "pitchmap", "hidden_encoder": 2, "hidden_gar": 2}
"""Settings of a small network with a pitch axis."""


class TestRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_dataset(cls.folder / "data")
        pitches = {"train": (48, 60, 72), "validation": (60, 72), "test": (60, 72)}
        write_clips(cls.folder / "data", pitches)
        cls.checkpoint = cls.folder / "checkpoint.pt"
        write_checkpoint(cls.checkpoint)

    def run_quietly(self, name, n_recordings=0, **chosen):
        chosen = {
            "data": str(self.folder / "data"),
            "path_checkpoint": str(self.folder / name),
            "batch_size": 3,
            "n_epoch": 4,
        } | chosen
        if "load" not in chosen:
            chosen = SMALL | chosen
        config = make_config(SupervisedConfig, "tiny", chosen)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            made = run(config, False, n_recordings)
        scores = {s["metric"]: s["value"] for s in made if s["split"] == "test"}
        return scores, output.getvalue()

    def test_transcription_on_a_frozen_network(self):
        chosen = {"load": str(self.checkpoint), "on_encoder": True, "frozen": True}
        chosen |= {"n_epoch": 8, "learning_rate": 0.01}
        scores, output = self.run_quietly("frozen", **chosen)
        self.assertRegex(output, r"note F1 [01]\.\d+ \(95 % interval")
        self.assertRegex(output, r"average precision [01]\.\d+ \(95 % interval")
        self.assertGreater(scores["note_f1"], 0.5)
        self.assertGreater(scores["average_precision"], 0.7)
        folder = self.folder / "frozen"
        record = read_json(folder / "record.json")
        found = {s["metric"]: s["value"] for s in record["scores"]}
        self.assertEqual(found, scores)
        self.assertEqual(record["config"]["on_encoder"], True)
        self.assertEqual(
            record["thresholds"].keys(), {"frame_threshold", "onset_threshold"}
        )
        # The saved network equals the loaded one.
        best = read_checkpoint(folder / "best.pt")
        model, config = load_model(self.checkpoint)
        for name, value in model.state_dict().items():
            found = best["state_dict"][f"network.body.model.{name}"]
            self.assertTrue((found == value).all(), name)
        preset = make_config(SupervisedConfig, "tiny", {})
        self.assertNotEqual(preset.hidden_encoder, config.hidden_encoder)
        self.assertEqual(best["config"]["hidden_encoder"], config.hidden_encoder)
        # The same command finds the run finished; another network is refused.
        again, output = self.run_quietly("frozen", **chosen)
        self.assertEqual(again, scores)
        self.assertIn("finished", output)
        self.assertIn("note F1", output)
        self.addCleanup(write_checkpoint, self.checkpoint)
        write_checkpoint(self.checkpoint, seed=7)
        with self.assertRaisesRegex(InputError, "from another checkpoint"):
            self.run_quietly("frozen", **chosen)

    def test_ensemble_classification_from_scratch(self):
        chosen = {"task": "ensemble", "n_epoch": 8, "learning_rate": 0.01}
        scores, output = self.run_quietly("scratch", **chosen)
        self.assertEqual(scores["accuracy"], 1.0)
        self.assertIn("accuracy 1.000", output)

    def test_single_notes_frozen_and_from_scratch(self):
        for name, more in (
            ("kept", {"load": str(self.checkpoint), "frozen": True}),
            ("new", MAP),
        ):
            chosen = {"task": "note_instrument", "n_epoch": 30, "batch_size": 4}
            chosen["learning_rate"] = 0.01
            scores, output = self.run_quietly(f"notes {name}", **chosen, **more)
            self.assertEqual(scores["accuracy"], 1.0, name)
            self.assertIn("note_instrument, test: accuracy 1.000", output)

    def test_few_labelled_recordings_take_as_many_steps(self):
        with mock.patch.object(labels, "Windows", wraps=labels.Windows) as windows:
            self.run_quietly("few", 2, n_epoch=1, **MAP)
            self.run_quietly("all", n_epoch=1, **MAP)
        (_, few, _, steps, *_), (_, all_spans, _, of_all, *_) = (
            call.args for call in windows.call_args_list
        )
        self.assertEqual((len(few), len(all_spans)), (2, 6))
        self.assertEqual(steps, of_all)
        with self.assertRaisesRegex(InputError, "other recordings"):
            self.run_quietly("few", n_epoch=1, **MAP)

    def test_instrument_activity_on_a_checkpoint(self):
        chosen = {"task": "instrument_activity", "load": str(self.checkpoint)}
        scores, _ = self.run_quietly("activity", **chosen, learning_rate=0.02)
        self.assertGreater(scores["average_precision"], 0.8)

    def test_who_plays_what_on_a_checkpoint(self):
        chosen = {"task": "who_plays_what", "load": str(self.checkpoint)}
        scores, _ = self.run_quietly("parts", **chosen, n_epoch=8, learning_rate=0.01)
        self.assertEqual(list(scores), ["average_precision", "note_instrument_f1"])
        self.assertGreater(scores["average_precision"], 0.4)

    def test_training_from_scratch_updates_the_whole_network(self):
        scores, _ = self.run_quietly("moved", task="multipitch", n_epoch=1)
        self.assertEqual(list(scores), ["average_precision", "frame_f1"])
        still, _ = self.run_quietly("still", task="multipitch", learning_rate=0.0)
        values = [found["average_precision"] for found in (scores, still)]
        self.assertNotEqual(*values)
        states = [
            read_checkpoint(self.folder / name / "best.pt")["state_dict"]
            for name in ("moved", "still")
        ]
        for part in ("encoder.filters.centre", "context.net.weight_hh_l0"):
            name = f"network.body.model.{part}"
            self.assertTrue((states[0][name] != states[1][name]).any(), part)

    def test_checkpoint_is_fine_tuned_unless_frozen(self):
        chosen = {"load": str(self.checkpoint), "task": "multipitch", "n_epoch": 1}
        loaded = load_model(self.checkpoint)[0].state_dict()["context.net.weight_hh_l0"]
        for frozen in (False, True):
            name = f"frozen is {frozen}"
            self.run_quietly(name, frozen=frozen, **chosen)
            best = read_checkpoint(self.folder / name / "best.pt")["state_dict"]
            same = torch.equal(
                best["network.body.model.context.net.weight_hh_l0"], loaded
            )
            self.assertEqual(same, frozen)
        with self.assertRaisesRegex(InputError, "--frozen needs --load"):
            self.run_quietly("nothing to freeze", frozen=True)

    def test_same_seed_gives_same_result(self):
        chosen = {"load": str(self.checkpoint), "task": "multipitch", "n_epoch": 1}
        values = []
        for number in range(2):
            torch.manual_seed(number)  # earlier draws must not matter
            scores, _ = self.run_quietly(f"seed{number}", **chosen)
            values.append(scores["average_precision"])
        self.assertEqual(*values)
        scores, _ = self.run_quietly("other seed", random_seed=1, **chosen)
        self.assertNotEqual(scores["average_precision"], values[0])

    def test_other_settings_in_the_folder_are_refused(self):
        self.run_quietly("settings", task="ensemble", n_epoch=1)
        with self.assertRaisesRegex(InputError, "--nEpoch"):
            self.run_quietly("settings", task="ensemble", n_epoch=2)

    def test_resuming_on_other_recordings_is_refused(self):
        data = self.folder / "changed"
        write_dataset(data)
        chosen = {"data": str(data), "task": "ensemble"}
        with mock.patch.object(supervised, "_score", side_effect=StoppedError):
            with self.assertRaises(StoppedError):
                self.run_quietly("stopped", **chosen)
        shorter, rate = soundfile.read(data / "train_data" / "train0.wav")
        soundfile.write(data / "train_data" / "train0.wav", shorter[:50_000], rate)
        with self.assertRaisesRegex(InputError, "other recordings: 6 .*choose another"):
            self.run_quietly("stopped", **chosen)

    def test_finished_run_is_of_its_labels_and_test_recordings(self):
        data = self.folder / "corrected"
        write_dataset(data)
        chosen = {"data": str(data), "task": "multipitch", "n_epoch": 1}
        self.run_quietly("labels", **chosen)
        table, sound = (
            data / "train_labels" / "train0.csv",
            data / "test_data" / "test0.wav",
        )
        before, wave = table.read_text(), sound.read_bytes()
        table.write_text(before.replace(",41,", ",42,").replace(",1,", ",2,"))
        with self.assertRaisesRegex(InputError, "other labels or test rec.*choose"):
            self.run_quietly("labels", **chosen)
        table.write_text(before)
        samples, rate = soundfile.read(sound)
        soundfile.write(sound, samples / 2, rate)
        with self.assertRaisesRegex(InputError, "other labels or test rec.*choose"):
            self.run_quietly("labels", **chosen)
        sound.write_bytes(wave)
        self.assertIn("nothing left to do", self.run_quietly("labels", **chosen)[1])

    def test_malformed_test_label_is_refused_before_training(self):
        data = self.folder / "malformed"
        write_dataset(data)
        name = write_malformed_label(data, "test")
        with self.assertRaisesRegex(InputError, f"{name}, line"):
            self.run_quietly("stopped-early", data=str(data))
        self.assertFalse((self.folder / "stopped-early").exists())

    def test_single_test_recording_has_no_interval(self):
        data = self.folder / "single"
        write_dataset(data)
        (data / "test_data" / "test1.wav").unlink()
        chosen = {"data": str(data), "task": "multipitch", "n_epoch": 1}
        _, output = self.run_quietly("one", **chosen)
        self.assertRegex(output, r"frame F1 [01]\.\d+\n")

    def test_resumable_run_retains_its_cached_magnitudes(self):
        chosen = {"task": "multipitch", "n_epoch": 1, "encoder_type": "harmonic"}
        chosen |= {"hidden_encoder": 2, "hidden_gar": 2}
        stop = mock.patch.object(supervised, "_score", side_effect=KeyboardInterrupt)
        with stop, self.assertRaises(KeyboardInterrupt):
            self.run_quietly("cut off", **chosen)
        cache = self.folder / "cut off" / "magnitudes"
        self.assertTrue([*cache.rglob("*.npy")])
        with mock.patch.object(Spectra, "_compute") as compute:
            compute.side_effect = lambda index: np.zeros((400, 202), np.float16)
            self.run_quietly("cut off", **chosen)
        self.assertNotIn(0, [call.args[0] for call in compute.call_args_list])
        self.assertFalse(cache.exists())

    def test_window_longer_than_any_recording_is_refused(self):
        with self.assertRaisesRegex(InputError, "train recording has 4 s, less than"):
            self.run_quietly("long", transcription_window=5000)

    def test_invalid_settings_are_refused_and_leave_nothing(self):
        cases = {
            "--transcriptionWindow": {"transcription_window": 5000},
            "no such checkpoint": {"load": "nowhere/checkpoint3.pt"},
        }
        for message, chosen in cases.items():
            with self.assertRaisesRegex(InputError, message):
                self.run_quietly("refused", **chosen)
        self.assertFalse((self.folder / "refused").exists())

    def test_supervised_checkpoint_is_refused_for_loading(self):
        self.run_quietly("labelled", task="multipitch", n_epoch=1)
        load = str(self.folder / "labelled" / "best.pt")
        with self.assertRaisesRegex(InputError, "a checkpoint of training with labels"):
            self.run_quietly("on", task="multipitch", load=load)


if __name__ == "__main__":
    unittest.main()
