"""Training of the transcriber: convergence, resuming, initialisation and files."""

import contextlib
import io
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm.cli import train_main
from jtm.files import InputError, StoppedError, read_json
from jtm.models import heads
from jtm.models.heads import add_heads
from jtm.tests.evaluation.little import (
    write_checkpoint,
    write_dataset,
    write_malformed_label,
)
from jtm.training import loop
from jtm.training.checkpoints import read_checkpoint
from jtm.training.config import make_config
from jtm.training.spectra import Spectra
from jtm.transcriber import model, run, tables
from jtm.transcriber.config import TranscriberConfig

SMALL = {"hidden_encoder": 4, "hidden_gar": 4}


class TestTraining(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.enterClassContext(mock.patch.multiple(run, STEPS=15, WINDOW=64, LEAD=16))
        write_dataset(cls.folder / "data")
        write_dataset(cls.folder / "more", seconds=3.0)
        cls.scores = cls.train(cls, "whole")

    def train(self, name, chosen=SMALL, **more):
        chosen = {
            "data": str(self.folder / "data"),
            "path_checkpoint": str(self.folder / name),
            "n_epoch": 2,
            "batch_size": 4,
            "learning_rate": 0.01,
            **chosen,
            **more,
        }
        config = make_config(TranscriberConfig, "small", chosen)
        with contextlib.redirect_stdout(io.StringIO()):
            return run.train(config, progress=False)

    def test_training_converges_and_writes_files(self):
        values = {(s["task"], s["metric"]): s["value"] for s in self.scores}
        self.assertGreater(values["transcription", "average_precision"], 0.5)
        self.assertIn(("who_plays_what", "note_instrument_f1"), values)
        record = read_json(self.folder / "whole" / run.RECORD_FILE)
        self.assertEqual(record["scores"], self.scores)
        self.assertEqual(len(record["history"]), 2)
        loaded = model.load(self.folder / "whole" / run.WEIGHTS_FILE)
        self.assertEqual(loaded.thresholds, record["thresholds"])
        self.assertIn("who_plays_what", loaded.network.heads.readers)
        self.assertEqual(loaded.network.heads.trunk.channels, run.WIDTH)

    def test_some_windows_are_of_noise_without_notes(self):
        modules = []
        with mock.patch.object(run, "fit", lambda module, _: modules.append(module)):
            with mock.patch.object(run, "_finish"):
                self.train("noise")
        draws, kinds = modules[0].train_batches, {True: [], False: []}
        for number in range(40):
            inputs, targets, recordings = draws[number]
            for row, index in enumerate(recordings):
                some = max(float(targets[t][row].any()) for t in targets)
                kinds[index == run.NOISE].append((inputs[row].mean(), some))
        noise, music = (np.array(kinds[is_noise]) for is_noise in (True, False))
        self.assertEqual(noise[:, 1].max(), 0.0)
        self.assertGreater(noise[:, 0].min(), 0.5 * music[:, 0].mean())
        self.assertGreater(music[:, 1].mean(), 0.5)
        self.assertLess(len(noise), len(music) / 4)

    def test_resumed_run_equals_uninterrupted_run(self):
        fit = run.fit

        def stop(module, progress):
            with mock.patch.object(module, "close_epoch", side_effect=StoppedError):
                fit(module, progress)

        with mock.patch.object(run, "fit", stop), self.assertRaises(StoppedError):
            self.train("stopped")
        self.assertEqual(self.train("stopped"), self.scores)
        files = (self.folder / n / run.WEIGHTS_FILE for n in ("whole", "stopped"))
        self.assertEqual(*(model.load(file).fingerprint for file in files))

    def test_run_resumed_within_an_epoch_equals_an_uninterrupted_one(self):
        fit = run.fit

        def stop(module, progress):
            losses = [module.loss] * 3 + [mock.Mock(side_effect=StoppedError)]
            loss = mock.Mock(side_effect=lambda *batch: losses.pop(0)(*batch))
            with mock.patch.object(module, "loss", loss):
                fit(module, progress)

        with (
            mock.patch.object(loop, "SAVE_SECONDS", 0),
            mock.patch.object(run, "fit", stop),
            self.assertRaises(StoppedError),
        ):
            self.train("stopped within")
        content = read_checkpoint(self.folder / "stopped within" / "last.pt")
        self.assertGreater(content["global_step"], 0)
        self.assertFalse(content["history"])  # within the first epoch
        self.assertEqual(self.train("stopped within"), self.scores)
        folders = self.folder / "whole", self.folder / "stopped within"
        records = (read_json(folder / run.RECORD_FILE) for folder in folders)
        self.assertEqual(*([row["loss"] for row in r["history"]] for r in records))
        files = (folder / run.WEIGHTS_FILE for folder in folders)
        self.assertEqual(*(model.load(file).fingerprint for file in files))

    def test_finished_run_is_not_evaluated_again(self):
        with mock.patch.object(run, "Spectra", side_effect=AssertionError):
            self.assertEqual(self.train("whole"), self.scores)

    def test_training_starts_from_checkpoints(self):
        cpc, chosen = self.folder / "cpc.pt", {"n_epoch": 1}
        write_checkpoint(cpc, chosen={"encoder_type": "pitchmap", "hidden_encoder": 2})
        self.train("from CPC", {"load": str(cpc)}, **chosen)
        model.load(
            self.folder / "from CPC" / run.WEIGHTS_FILE
        )  # of that network's size
        own = self.folder / "whole" / "best.pt"
        also = str(self.folder / "more")
        still = self.train("on", {"load": str(own)}, also=also, learning_rate=0.0)
        record = read_json(self.folder / "on" / run.RECORD_FILE)
        self.assertEqual(record["data"]["recordings"], [12, 4])
        same = self.train("same", {"load": str(own)}, learning_rate=0.0, plain=True)
        self.assertEqual(same, self.scores)
        record = read_json(self.folder / "same" / run.RECORD_FILE)
        self.assertTrue(record["before"]["history"])
        given = str(self.folder / "whole" / run.WEIGHTS_FILE)
        again = self.train("given", {"load": given}, learning_rate=0.0, plain=True)
        self.assertEqual(again, self.scores)
        self.assertNotEqual(still, same)  # validated on more
        record = read_json(self.folder / "given" / run.RECORD_FILE)
        first = read_json(self.folder / "whole" / run.RECORD_FILE)
        self.assertEqual(record["before"]["history"], first["history"])
        steps = [r["history"][-1]["step"] for r in (record, first)]
        self.assertEqual(tables.count_steps(record), sum(steps))
        shutil.copy(given, self.folder / "alone.safetensors")
        alone = {"load": str(self.folder / "alone.safetensors")}
        self.train("unknown", alone, learning_rate=0.0, plain=True)
        record = read_json(self.folder / "unknown" / run.RECORD_FILE)
        self.assertIsNone(record["before"]["steps"])
        self.assertEqual(tables.count_steps(record), steps[0])

    def test_teacher_labels_recordings_without_labels(self):
        teacher = {"teacher": str(self.folder / "whole" / run.WEIGHTS_FILE)}
        with self.assertRaisesRegex(InputError, "no recording without labels .*--also"):
            self.train("taught", SMALL | teacher)
        audio = self.folder / "audio"
        audio.mkdir()
        for path in sorted((self.folder / "more" / "train_data").glob("train*.wav")):
            shutil.copy(path, audio / f"my-{path.name}")
        names, modules, fit = {f.name for f in audio.iterdir()}, [], run.fit

        def keep(module, progress):
            modules.append(module)
            fit(module, progress)

        chosen = SMALL | teacher | {"also": str(audio)}
        with mock.patch.object(run, "fit", keep):
            scores = self.train("taught", chosen)
        record = read_json(self.folder / "taught" / run.RECORD_FILE)
        first = read_json(self.folder / "whole" / run.RECORD_FILE)
        self.assertEqual(record["teacher"], first["sha256"])
        n_train = first["data"]["recordings"][0]
        self.assertEqual(record["data"]["recordings"][0], n_train + len(names))
        self.assertNotEqual(scores, self.scores)
        config = mock.Mock(data=str(self.folder / "data"), also=str(audio))
        recordings = run._open(config, False).recordings
        inputs, targets, indices = modules[0].train_batches[0]
        self.assertEqual(len(inputs), 4)
        self.assertEqual({len(target) for target in targets.values()}, {2})
        for index in indices[2:]:
            self.assertIn(recordings[index].audio.name, names)
        self.assertEqual(self.train("taught", chosen), scores)  # finished
        made = model.load(teacher["teacher"])
        tasks = {"transcription": model.HEADS["transcription"]}
        deaf = self.folder / "deaf.safetensors"  # to instruments
        one_head = add_heads(made.network.body.model, tasks, width=run.WIDTH)
        model.save(deaf, one_head, made.config, {})
        for more, message in (
            ({"batch_size": 1}, "--batchSize 2 or more"),
            ({"teacher": str(deaf)}, "another front end or other heads"),
        ):
            with self.assertRaisesRegex(InputError, message):
                self.train("refused", chosen, **more)

    def test_run_from_a_network_of_other_sizes_resumes(self):
        cpc = self.folder / "sized.pt"
        write_checkpoint(cpc, chosen={"encoder_type": "pitchmap", "hidden_encoder": 2})
        chosen = {"load": str(cpc), "n_epoch": 1, "also": str(self.folder / "more")}
        scores = self.train("sized", chosen)
        self.assertEqual(self.train("sized", chosen), scores)
        # Paths are compared by their content, also in the command.
        chosen["also"] += "/"
        self.assertEqual(self.train("sized", chosen), scores)
        flags = ["--preset", "transcriber", "--data", str(self.folder / "data")]
        flags += ["--pathCheckpoint", str(self.folder / "sized"), "--load", str(cpc)]
        flags += ["--also", chosen["also"], "--nEpoch", "1", "--batchSize", "4"]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = train_main([*flags, "--learningRate", "0.01"])
        self.assertEqual(code, 0, output.getvalue())
        self.assertIn("nothing left to do", output.getvalue())

    def test_recordings_shorter_than_a_window_are_refused(self):
        with mock.patch.multiple(run, WINDOW=448, LEAD=0):
            with self.assertRaisesRegex(
                InputError, "no training .* 4.48 s.*add longer"
            ):
                self.train("short")
        self.assertFalse((self.folder / "short").exists())

    def test_malformed_label_is_refused_before_training(self):
        data = self.folder / "malformed"
        write_dataset(data)
        name = write_malformed_label(data, "train")
        with self.assertRaisesRegex(InputError, f"{name}, line"):
            self.train("stopped-early", data=str(data))
        self.assertFalse((self.folder / "stopped-early").exists())

    def test_heads_of_an_earlier_version_are_extended(self):
        network = model.load(self.folder / "whole" / run.WEIGHTS_FILE).network
        earlier = add_heads(network.body.model, model.HEADS, width=run.WIDTH)
        config = make_config(TranscriberConfig, "small", SMALL)
        path = self.folder / "earlier.safetensors"
        model.save(path, earlier, config, {})
        self.train("later", {"load": str(path)}, n_epoch=1, learning_rate=0.0)
        loaded = model.load(self.folder / "later" / run.WEIGHTS_FILE).network
        self.assertEqual(loaded.heads.trunk.reaches, (2, 4, 4 + heads.AROUND))
        for name, weights in earlier.state_dict().items():
            self.assertTrue(torch.equal(loaded.state_dict()[name], weights), name)
        model.save(
            path, add_heads(network.body.model, model.HEADS, width=8), config, {}
        )
        with self.assertRaisesRegex(InputError, "has other heads than a transcriber"):
            self.train("narrow", {"load": str(path)})

    def test_spectra_are_normalised_in_level_and_tuning(self):
        time = np.arange(16000) / 16000
        tunings = [440, 440, 449, 460], ["", None, "449", "460"]  # 460: 77 cents
        made = zip(*tunings, (1, 50, 1, 1), strict=True)
        store = mock.Mock(lengths=[16000] * 4, checksums=["a", "b", "c", "d"])
        store.recordings, waves = [], []
        for hertz, stated, attenuation in made:
            wave = 8000 / attenuation * np.sin(2 * np.pi * hertz * time)
            waves.append(wave.astype(np.int16))
            store.recordings.append(mock.Mock(metadata={"tuning": stated}))
        store.read = lambda i, a=0, b=None: waves[i][a:b]
        made = model.load(self.folder / "whole" / run.WEIGHTS_FILE)
        front_end = run.harmonic_front_end(made.network.body.model.encoder)
        for tuned in (True, False):
            cached = Spectra(store, front_end, self.folder / "spectra", tuned)
            first, *others = (cached.read(i)[20:80].mean(axis=0) for i in range(4))
            strong = first > first.max() / 2
            for other in others:
                near = np.abs(first - other)[strong].max() < 0.05
                self.assertEqual(bool(near), tuned)

    def test_invalid_settings_are_refused(self):
        with self.assertRaisesRegex(InputError, "needs --encoderType pitchmap"):
            self.train("other", {"encoder_type": "harmonic"})
        with self.assertRaisesRegex(InputError, "reversed time"):
            self.train("other", {"cpc_mode": "reverse"})
        with self.assertRaisesRegex(InputError, "expected up to 5000000"):
            self.train("other", {"ar_mode": "GRU", "gar_mode": "joint"})
        for flags, message in (
            (
                ["--also", str(self.folder)],
                "--also has no effect without --preset transcriber",
            ),
            (["--preset", "transcriber", "--supervised"], "--supervised has no effect"),
            (["--preset", "transcriber", "--frozen"], "--frozen has no effect with"),
        ):
            output = io.StringIO()
            with contextlib.redirect_stderr(output):
                self.assertEqual(train_main(flags), 2)
            self.assertIn(message, output.getvalue())


if __name__ == "__main__":
    unittest.main()
