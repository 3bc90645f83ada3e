"""Pretraining: it learns, it resumes exactly, and it refuses what does not fit."""

import contextlib
import io
import pickle
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from jtm.files import InputError
from jtm.training import pretrain as module_under_test
from jtm.training.checkpoints import load_model, read_checkpoint
from jtm.training.config import PretrainConfig, make_config
from jtm.training.pretrain import pretrain

CODE = Path(__file__).resolve().parents[3]


def write_tunes(folder, n=4, seconds=8):
    """Write sound files of random decaying sines."""
    chance = np.random.default_rng(0)
    for i in range(n):
        time = np.arange(seconds * 16000) / 16000
        wave = np.zeros_like(time)
        for start in np.arange(0, seconds, 0.5):
            t = time - start
            sound = (t >= 0) & (t < 0.5)
            pitch = chance.integers(48, 84)
            tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
            wave += np.where(sound, 0.3 * np.exp(-3 * np.abs(t)) * tone, 0)
        soundfile.write(folder / f"{i}.wav", wave, 16000)


class TestPretrain(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "audio").mkdir()
        write_tunes(self.folder / "audio")

    def config(self, run="run", **chosen):
        small = {
            "data": str(self.folder / "audio"),
            "path_checkpoint": str(self.folder / run),
            "n_epoch": 2,
            "batch_size": 4,
            "size_window": 16000,
            "n_predicts": 2,
            "encoder_type": "sinc",
            "hidden_encoder": 16,
            "hidden_gar": 16,
        }
        return make_config(PretrainConfig, "tiny", small | chosen)

    def run_quietly(self, config):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            checkpoint = pretrain(config, progress=False)
        return checkpoint, said.getvalue()

    def test_the_loss_falls_and_every_epoch_is_kept(self):
        chosen = {"n_epoch": 6, "learning_rate": 0.01, "size_window": 8000}
        checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(checkpoint.name, "checkpoint5.pt")
        history = read_checkpoint(checkpoint)["history"]
        losses = [row["loss"] for row in history if row["split"] == "train"]
        self.assertLess(losses[-1], losses[0] - 0.1)
        names = {p.name for p in checkpoint.parent.glob("*.pt")}
        kept = {f"checkpoint{i}.pt" for i in range(6)}
        self.assertEqual(names, kept | {"best.pt", "last.pt"})
        rows = (checkpoint.parent / "metrics.csv").read_text().splitlines()
        self.assertEqual(len(rows), 1 + 12)

    def test_killed_at_any_step_and_started_again_it_ends_the_same(self):
        variants = (
            {"dropout": 0.2, "augment_past": "noise,reverb,equaliser,level"},
            {
                "sampling_type": "sequential",
                "ar_mode": "LSTM",
                "batch_size": 2,
                "augment_past": "level",
            },
            {
                "accumulate": 2,
                "ar_mode": "transformer",
                "predictor": "transformer",
                "aligned": 3,
            },
        )
        script = (
            "import os, signal, sys\n"
            "from jtm.training import pretrain as p\n"
            "from jtm.training.config import PretrainConfig, load_config\n"
            "p.SAVE_SECONDS = 0\n"
            "step = p.Keeper.on_train_batch_end\n"
            "def kill(self, trainer, *rest):\n"
            "    step(self, trainer, *rest)\n"
            "    if trainer.global_step == int(sys.argv[2]):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "p.Keeper.on_train_batch_end = kill\n"
            "config = load_config(sys.argv[1], PretrainConfig)\n"
            "p.pretrain(config, progress=False)\n"
        )
        for number, chosen in enumerate(variants):
            whole, _ = self.run_quietly(self.config(f"whole{number}", **chosen))
            steps = read_checkpoint(whole)["global_step"]
            config = self.config(f"killed{number}", **chosen)
            path = Path(config.path_checkpoint) / "config.json"
            module_under_test.settle(path.parent, config)
            kills = (1, steps // 2) if number else (1, steps // 2, steps - 1)
            for step in kills:
                done = subprocess.run(
                    [sys.executable, "-c", script, str(path), str(step)],
                    cwd=CODE,
                    capture_output=True,
                )
                self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
            taken_up, said = self.run_quietly(config)
            self.assertIn("going on from step", said)
            one, other = read_checkpoint(whole), read_checkpoint(taken_up)
            for name, weights in one["state_dict"].items():
                self.assertTrue(torch.equal(weights, other["state_dict"][name]), name)
            timeless = [
                [
                    {k: v for k, v in row.items() if "per_second" not in k}
                    for row in content["history"]
                ]
                for content in (one, other)
            ]
            self.assertEqual(*timeless)

    def test_the_context_reads_the_augmented_copy_and_predicts_the_clean_window(self):
        config = self.config(augment_past="noise,level")
        store = module_under_test.build_store(
            module_under_test.open_dataset(config.data), progress=False
        )
        module = module_under_test.CPCModule(
            config, *module_under_test.loaders(config, store)
        )
        batch = next(iter(module.train_windows))
        wave = batch.waves[:, None].float() / 32768
        judged, heard = [], []

        def criterion(z, c, *_):
            judged.append((z, c))
            return {"loss": z.sum()}

        def louder(wave, kinds, _):
            heard.append(kinds)
            return 0.1 * wave

        with (
            mock.patch.object(module.criterion, "forward", criterion),
            mock.patch.object(module_under_test, "augment", louder),
        ):
            module.train()._judge(batch, 0)
            module.eval()._judge(batch, 0)
        self.assertEqual(heard, [["noise", "level"]])  # in training alone
        model = module.model
        z, c = model(wave)
        torch.testing.assert_close(judged[0], (z, model(0.1 * wave)[1]))
        torch.testing.assert_close(judged[1], (z, c))

    def test_sigterm_saves_before_it_stops(self):
        config = self.config(n_epoch=50)
        count = []

        def stop(self, trainer, *rest):
            count.append(1)
            if len(count) == 3:
                signal.raise_signal(signal.SIGTERM)
            return step(self, trainer, *rest)

        step = module_under_test.Keeper.on_train_batch_end
        with mock.patch.object(module_under_test.Keeper, "on_train_batch_end", stop):
            with self.assertRaises(module_under_test.StoppedError):
                self.run_quietly(config)
        last = read_checkpoint(Path(config.path_checkpoint) / "last.pt")
        self.assertEqual(last["global_step"], 3)

    def test_finished_says_so_and_other_settings_are_refused(self):
        self.run_quietly(self.config())
        _, said = self.run_quietly(self.config())
        self.assertIn("finished", said)
        with self.assertRaisesRegex(InputError, "--hiddenGar 16, not 24"):
            self.run_quietly(self.config(hidden_gar=24))

    def test_patience_stops_for_good(self):
        # With a learning rate of zero the loss can't fall.
        chosen = {"learning_rate": 0.0, "patience": 2, "n_epoch": 9}
        checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(checkpoint.name, "checkpoint2.pt")
        again, said = self.run_quietly(self.config(**chosen))
        self.assertIn("finished, 3 epochs", said)
        self.assertEqual(again, checkpoint)

    def test_a_checkpoint_reloads_to_equal_outputs(self):
        checkpoint, _ = self.run_quietly(self.config())
        wave = torch.randn(1, 1, 8000)
        model, config = load_model(checkpoint)
        again, _ = load_model(checkpoint)
        self.assertEqual(config, self.config())
        with torch.no_grad():
            torch.testing.assert_close(model(wave), again(wave), rtol=0, atol=0)
        fresh = module_under_test.build_model(config).eval()
        with torch.no_grad():
            self.assertFalse(torch.allclose(model(wave)[1], fresh(wave)[1]))

    def test_load_starts_from_the_weights_of_a_checkpoint(self):
        checkpoint, _ = self.run_quietly(self.config())
        chosen = {"load": str(checkpoint), "load_criterion": True, "n_epoch": 1}
        config = self.config("second", learning_rate=0.0, **chosen)
        second, _ = self.run_quietly(config)
        one, other = read_checkpoint(checkpoint), read_checkpoint(second)
        for name, weights in one["state_dict"].items():
            torch.testing.assert_close(weights, other["state_dict"][name])

    def test_a_checkpoint_of_another_architecture_is_refused_by_setting(self):
        checkpoint, _ = self.run_quietly(self.config(n_epoch=1))
        with self.assertRaisesRegex(
            InputError, "does not fit: --hiddenGar is 16 there and 24 here"
        ):
            self.run_quietly(self.config("other", hidden_gar=24, load=str(checkpoint)))

    def test_a_malicious_pickle_is_not_run(self):
        marker = self.folder / "ran"

        class Evil:
            def __reduce__(self):
                return Path.touch, (marker,)

        path = self.folder / "evil.pt"
        path.write_bytes(pickle.dumps({"state_dict": Evil(), "config": {}}))
        with self.assertRaisesRegex(InputError, "evil.pt: not a checkpoint"):
            read_checkpoint(path)
        self.assertFalse(marker.exists())

    def test_a_loss_that_is_not_finite_stops_with_step_and_recordings(self):
        def broken(self, *_):
            return {"loss": torch.tensor(float("nan"))}

        with mock.patch.object(module_under_test.CPCModule, "_judge", broken):
            with self.assertRaisesRegex(
                InputError, "loss is nan at step 0, in rec.*wav"
            ):
                self.run_quietly(self.config())

    def test_categories_are_those_of_the_metadata(self):
        audio = self.folder / "audio"
        (audio / "train_data").mkdir()
        for i, wav in enumerate(sorted(audio.glob("*.wav"))):
            wav.rename(audio / "train_data" / f"{i}.wav")
        rows = ("id,ensemble", "0,Solo", "1,Trio", "2,Solo", "3,")
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        chosen = {"sampling_type": "samecategory", "n_epoch": 1}
        _, said = self.run_quietly(self.config(**chosen))
        self.assertIn("recordings have no ensemble: left out", said)
        config = self.config("other", labels_by="mood", **chosen)
        with self.assertRaisesRegex(InputError, "no 'mood'; --labelsBy may be .*ens"):
            self.run_quietly(config)


if __name__ == "__main__":
    unittest.main()
