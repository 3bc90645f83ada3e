"""Pretraining: it learns, it resumes exactly, and it refuses what does not fit."""

import contextlib
import io
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from jtm.cpc import run as module_under_test
from jtm.cpc.config import PretrainConfig
from jtm.cpc.run import pretrain
from jtm.files import InputError, StoppedError, write_json
from jtm.training import loop
from jtm.training.checkpoints import load_model, read_checkpoint
from jtm.training.config import make_config

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
            "import json, os, signal, sys\n"
            "from jtm.cpc import run as p\n"
            "from jtm.cpc.config import PretrainConfig\n"
            "from jtm.training import loop\n"
            "from jtm.training.config import make_config\n"
            "loop.SAVE_SECONDS = 0\n"
            "step = loop._Checkpointer.on_train_batch_end\n"
            "def kill(self, trainer, *rest):\n"
            "    step(self, trainer, *rest)\n"
            "    if trainer.global_step == int(sys.argv[2]):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "loop._Checkpointer.on_train_batch_end = kill\n"
            "settings = json.load(open(sys.argv[1]))\n"
            "config = make_config(PretrainConfig, 'small', settings)\n"
            "p.pretrain(config)\n"  # what shows bars must change nothing
        )
        for number, chosen in enumerate(variants):
            whole, _ = self.run_quietly(self.config(f"whole{number}", **chosen))
            steps = read_checkpoint(whole)["global_step"]
            config = self.config(f"killed{number}", **chosen)
            path = Path(config.path_checkpoint) / "config.json"
            path.parent.mkdir()
            write_json(path, asdict(config))
            kills = (1, steps // 2) if number else (1, steps // 2, steps - 1)
            for step in kills:
                done = subprocess.run(
                    [sys.executable, "-c", script, str(path), str(step)],
                    cwd=CODE,
                    capture_output=True,
                )
                self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
            taken_up, said = self.run_quietly(config)
            self.assertIn("resuming from step", said)
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
        module = self.module(augment_past="noise,level")
        batch = next(iter(module.train_batches))
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
            module.loss(batch, "train", 0)
            module.loss(batch, "validation", -1)
        self.assertEqual(heard, [["noise", "level"]])  # in training alone
        model = module.model
        z, c = model(wave)
        torch.testing.assert_close(judged[0], (z, model(0.1 * wave)[1]))
        torch.testing.assert_close(judged[1], (z, c))

    def test_ctrl_c_and_sigterm_save_before_they_stop(self):
        step = loop._Checkpointer.on_train_batch_end
        for number in (signal.SIGINT, signal.SIGTERM):
            config = self.config(f"run{number}", n_epoch=50)
            count = []

            def stop(self, trainer, *rest, count=count, number=number):
                count.append(1)
                if len(count) == 3:
                    signal.raise_signal(number)
                return step(self, trainer, *rest)

            with (
                mock.patch.object(loop._Checkpointer, "on_train_batch_end", stop),
                self.assertRaises(StoppedError),
            ):
                self.run_quietly(config)
            last = read_checkpoint(Path(config.path_checkpoint) / "last.pt")
            self.assertEqual(last["global_step"], 3)

    def test_best_is_the_epoch_with_the_least_validation_loss(self):
        checkpoint = self.validate_with(2.0, 1.0, 3.0)
        best = read_checkpoint(checkpoint.with_name("best.pt"))
        self.assertEqual(best["history"][-1]["epoch"], 1)
        curves = checkpoint.parent / "tensorboard"
        self.assertTrue(list(curves.glob("events*")))

    def validate_with(self, *losses):
        """Run as many epochs, whose validation losses are given."""
        computed = module_under_test.CPCModule.loss

        def given(module, batch, split, step):
            named = computed(module, batch, split, step)
            if split == "validation":
                named["loss"] = torch.tensor(losses[module.current_epoch])
            return named

        with mock.patch.object(module_under_test.CPCModule, "loss", given):
            return self.run_quietly(self.config(n_epoch=len(losses)))[0]

    def test_a_validation_loss_of_nan_is_never_the_best(self):
        checkpoint = self.validate_with(torch.nan, 2.0, torch.nan)
        best = read_checkpoint(checkpoint.with_name("best.pt"))
        self.assertEqual(best["history"][-1]["epoch"], 1)

    def test_the_rate_counts_training_alone(self):
        computed = module_under_test.CPCModule.loss

        def slow(module, batch, split, step):
            time.sleep(2.0 if split == "validation" else 0.0)
            return computed(module, batch, split, step)

        with mock.patch.object(module_under_test.CPCModule, "loss", slow):
            started = time.monotonic()
            checkpoint, _ = self.run_quietly(self.config(n_epoch=1))
            whole = time.monotonic() - started
        content = read_checkpoint(checkpoint)
        row = content["history"][0]
        seconds = row["windows"] / row["audio_seconds_per_second"]
        self.assertAlmostEqual(seconds, content["seconds"][1], delta=0.2)
        self.assertLess(seconds, whole - 2.0)

    def test_short_recordings_are_counted_in_the_log_or_padded(self):
        soundfile.write(self.folder / "audio" / "short.wav", np.zeros(9000), 16000)
        _, said = self.run_quietly(self.config("one", n_epoch=1))
        self.assertIn("excluded 1 recordings shorter than a window", said)
        chosen = {"short_recordings": "pad", "n_epoch": 1}
        _, said = self.run_quietly(self.config("other", **chosen))
        self.assertNotIn("shorter", said)

    def module(self, **chosen):
        """Make a module, and nothing else of a run."""
        config = self.config(**chosen)
        store = module_under_test.build_store(
            module_under_test.open_dataset(config.data), progress=False
        )
        loaders = module_under_test.loaders(config, store)
        return module_under_test.CPCModule(config, *loaders)

    def test_a_pitch_map_learns_fixed_or_with_its_filters(self):
        chosen = {"encoder_type": "pitchmap", "hidden_encoder": 2, "hidden_gar": 2}
        for run, learn in (("fixed", False), ("learned", True)):
            config = self.config(run, use_sinc_net=learn, n_epoch=1, **chosen)
            self.assertEqual((config.ar_mode, config.contrast), ("conv", "pitch"))
            checkpoint, _ = self.run_quietly(config)
            model, _ = load_model(checkpoint)
            z, c = model(torch.zeros(1, 1, 16000))
            self.assertEqual(z.shape, (1, 50, 88 * (2 + 2)))
            self.assertEqual(c.shape, (1, 50, 88 * 2))
            names = {name for name, _ in model.named_parameters()}
            self.assertEqual("encoder.filters.centre" in names, learn)

    def test_every_setting_of_sampling_makes_a_difference(self):
        soundfile.write(self.folder / "audio" / "short.wav", np.zeros(9000), 16000)
        small = {"chunk_size": 5 * 32000, "max_chunks_in_mem": 2}

        def windows(chosen):
            batches = list(self.module(**small | chosen).train_batches)
            return [
                list(zip(batch.recordings.tolist(), batch.starts.tolist(), strict=True))
                for batch in batches
            ]

        base = windows({})
        self.assertEqual(base, windows({}))
        for name, value in (
            ("sampling_type", "samesequence"),
            ("size_window", 8000),
            ("batch_size", 3),
            ("chunk_size", 2 * 32000),
            ("max_chunks_in_mem", 9),
            ("short_recordings", "pad"),
            ("random_seed", 1),
        ):
            self.assertNotEqual(base, windows({name: value}), name)

    def test_validation_is_sampled_by_the_same_scheme(self):
        audio = self.folder / "audio"
        write_tunes(audio, 8)
        (audio / "train_data").mkdir()
        rows = ["id,split,ensemble"]
        for i in range(8):
            (audio / f"{i}.wav").rename(audio / "train_data" / f"{i}.wav")
            split = "validation" if i < 4 else "train"
            rows.append(f"{i},{split},{('Solo', 'Trio')[i % 2]}")
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        kinds = {"uniform": set(), "samesequence": set(), "samecategory": set()}
        for scheme, together in kinds.items():
            # As many chunks as there are recordings, of which one may be in memory.
            chosen = {"chunk_size": 9 * 32000, "max_chunks_in_mem": 1}
            judged = self.module(sampling_type=scheme, **chosen).validation_batches
            batches = [set(batch.recordings.tolist()) for batch in judged]
            self.assertEqual(len(set.union(*batches)), 4)
            together.update(map(frozenset, batches))
            self.assertFalse(judged._cached)
        self.assertTrue(
            any(i % 2 == 0 and i + 1 in b for b in kinds["uniform"] for i in b)
        )
        self.assertEqual({len(b) for b in kinds["samesequence"]}, {1})
        of_one_kind = [len({i % 2 for i in b}) for b in kinds["samecategory"]]
        self.assertEqual(set(of_one_kind), {1})
        self.assertEqual(max(map(len, kinds["samecategory"])), 2)
        # Held-out recordings without a category are judged each by itself.
        rows = [
            row.rsplit(",", 1)[0] + "," if "validation" in row else row for row in rows
        ]
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        alone = self.module(sampling_type="samecategory").validation_batches
        self.assertEqual({len(batch.recordings.unique()) for batch in alone}, {1})
        self.assertEqual(alone.indices, judged.indices)
        lanes = self.module(sampling_type="sequential").validation_batches
        starts = [sorted(batch.starts.tolist()) for batch in lanes]
        self.assertEqual(starts, sorted(starts))

    def test_the_learning_rate_rises_then_halves(self):
        chosen = {"scheduler_ramp": 0.5, "scheduler_step": 2, "learning_rate": 0.1}
        module = self.module(**chosen)
        steps = module.steps_before(1)
        self.assertEqual(steps, 6)  # 21 windows or more, in batches of 4
        made = module.configure_optimizers()
        scheduler, rates = made["lr_scheduler"]["scheduler"], []
        for _ in range(5 * steps):
            rates.append(scheduler.get_last_lr()[0])
            made["optimizer"].step()
            scheduler.step()
        rise = [0.1 / 3, 0.2 / 3]
        expected = rise + [0.1] * 10 + [0.05] * 12 + [0.025] * 6
        np.testing.assert_allclose(rates, expected)

    def test_accumulation_steps_once_for_so_many_batches(self):
        self.assertEqual(self.module(accumulate=4).steps_before(1), 2)
        checkpoint, _ = self.run_quietly(self.config(n_epoch=1, accumulate=4))
        self.assertEqual(read_checkpoint(checkpoint)["global_step"], 2)

    def test_gradients_are_shortened_to_the_length_asked_for(self):
        lengths = []
        step = torch.optim.AdamW.step

        def watched(self, closure=None):
            done = step(self, closure)
            gradients = [p.grad.norm() for g in self.param_groups for p in g["params"]]
            lengths.append(torch.stack(gradients).norm().item())
            return done

        for clip in (0.0, 0.01):
            with mock.patch.object(torch.optim.AdamW, "step", watched):
                chosen = {"n_epoch": 1, "gradient_clip": clip}
                self.run_quietly(self.config(f"clip {clip}", **chosen))
        free, clipped = lengths[:6], lengths[6:]
        self.assertGreater(min(free), 0.02)
        np.testing.assert_allclose(clipped, 0.01, rtol=1e-3)

    def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(self):
        seen = set()
        predict = torch.nn.Linear.forward

        def watched(self, x):
            y = predict(self, x)
            seen.add(y.dtype)
            return y

        chosen = {"precision": "bf16", "n_epoch": 1, "aligned": 3}
        chosen["augment_past"] = "noise,reverb,equaliser,level"
        with mock.patch.object(torch.nn.Linear, "forward", watched):
            checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(seen, {torch.bfloat16})
        content = read_checkpoint(checkpoint)
        for weights in content["state_dict"].values():
            self.assertEqual(weights.dtype, torch.float32)

    def test_more_epochs_go_on_from_where_a_run_has_ended(self):
        self.run_quietly(self.config(n_epoch=1))
        more, said = self.run_quietly(self.config(n_epoch=2))
        self.assertIn("resuming from step", said)
        whole, _ = self.run_quietly(self.config(run="whole", n_epoch=2))
        found, expected = (read_checkpoint(p)["state_dict"] for p in (more, whole))
        for name, value in expected.items():
            self.assertTrue(torch.equal(found[name], value), name)
        with self.assertRaisesRegex(InputError, "--nEpoch 2, not 1"):
            self.run_quietly(self.config(n_epoch=1))

    def test_finished_says_so_and_other_settings_are_refused(self):
        self.run_quietly(self.config())
        _, said = self.run_quietly(self.config())
        self.assertIn("finished", said)
        with self.assertRaisesRegex(InputError, "--hiddenGar 16, not 24"):
            self.run_quietly(self.config(hidden_gar=24))

    def stop(self, config, step):
        """Stop a run after a step."""
        on_end = loop._Checkpointer.on_train_batch_end

        def stop(keeper, trainer, *rest):
            keeper.signal = 2 if trainer.global_step == step else None
            return on_end(keeper, trainer, *rest)

        with (
            mock.patch.object(loop._Checkpointer, "on_train_batch_end", stop),
            self.assertRaises(StoppedError),
        ):
            self.run_quietly(config)

    def test_a_run_is_not_taken_up_on_other_recordings(self):
        whole, _ = self.run_quietly(self.config("whole"))
        config = self.config()
        self.stop(config, 9)  # inside the second epoch
        audio = self.folder / "audio"
        added = audio / "4.wav"
        shutil.copy(audio / "0.wav", added)
        last = self.folder / "run" / "last.pt"
        before = last.read_bytes()
        with self.assertRaisesRegex(
            InputError,
            r"other recordings: 3 \(0.4 min\) for training and 1 \(0.1 min\).* now "
            r"has 4 \(0.5 min\) .*; choose another --pathCheckpoint",
        ):
            self.run_quietly(config)
        self.assertEqual(last.read_bytes(), before)
        added.unlink()
        original = (audio / "0.wav").read_bytes()
        wave, rate = soundfile.read(audio / "0.wav")
        soundfile.write(audio / "0.wav", -wave, rate)  # as long as before
        with self.assertRaisesRegex(InputError, "now has 3 .*, of other content"):
            self.run_quietly(config)
        (audio / "0.wav").write_bytes(original)
        # What a run leaves out is none of its business.
        soundfile.write(audio / "short.wav", np.zeros(9000), 16000)
        again, _ = self.run_quietly(config)
        states = [read_checkpoint(p)["state_dict"] for p in (whole, again)]
        for name, weights in states[0].items():
            self.assertTrue(torch.equal(weights, states[1][name]), name)

    def test_a_run_of_before_recordings_were_told_is_taken_up(self):
        self.stop(self.config(), 3)
        last = self.folder / "run" / "last.pt"
        content = torch.load(last, weights_only=True)
        del content["data"]
        torch.save(content, last)
        _, said = self.run_quietly(self.config())
        self.assertIn("resuming from step 3", said)
        self.assertIn("data", read_checkpoint(last))

    def test_patience_stops_for_good(self):
        # With a learning rate of zero the loss can't fall.
        chosen = {"learning_rate": 0.0, "patience": 2, "n_epoch": 9}
        checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(checkpoint.name, "checkpoint2.pt")
        again, said = self.run_quietly(self.config(**chosen))
        self.assertIn("finished, 3 epochs", said)
        self.assertEqual(again, checkpoint)

    def test_stopped_after_an_epoch_it_has_as_much_patience_as_before(self):
        chosen = {"learning_rate": 0.0, "patience": 2, "n_epoch": 9}
        whole, _ = self.run_quietly(self.config("whole", **chosen))
        on_end = loop._Checkpointer.on_train_epoch_end

        def stop(keeper, trainer, *rest):
            keeper.signal = 2
            on_end(keeper, trainer, *rest)

        with mock.patch.object(loop._Checkpointer, "on_train_epoch_end", stop):
            for _ in range(2):
                with self.assertRaises(StoppedError):
                    self.run_quietly(self.config(**chosen))
        taken_up, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(taken_up.name, whole.name)

    def test_a_checkpoint_reloads_to_equal_outputs(self):
        checkpoint, _ = self.run_quietly(self.config())
        wave = torch.randn(1, 1, 8000)
        model, config = load_model(checkpoint)
        again, _ = load_model(checkpoint)
        self.assertLessEqual(asdict(config).items(), asdict(self.config()).items())
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
            InputError, "does not fit: --hiddenGar is 16, not 24"
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

    def test_a_run_goes_on_from_its_newest_whole_checkpoint(self):
        whole, _ = self.run_quietly(self.config("whole", n_epoch=3))
        self.run_quietly(self.config(n_epoch=2))
        folder = self.folder / "run"
        kept = (folder / "checkpoint1.pt").read_bytes()
        best = (folder / "best.pt").read_bytes()
        for damaged in (kept[:5000], b"", bytes(5000), None):
            for name in ("last.pt", "best.pt"):
                (folder / name).unlink()
                if damaged is not None:
                    (folder / name).write_bytes(damaged)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                path, said = self.run_quietly(self.config(n_epoch=2))
            self.assertIn("finished, 2 epochs", said)
            self.assertEqual(path, folder / "checkpoint1.pt")
            told = " ".join(str(each.message) for each in caught)
            found = "last.pt damaged; checkpoint1.pt is the newest" in told
            self.assertEqual(found, damaged is not None)
            for name, content in (("last.pt", kept), ("best.pt", best)):
                self.assertEqual((folder / name).read_bytes(), content)
        # A finished epoch is not trained again, nor its file written.
        (folder / "last.pt").unlink()
        (folder / "checkpoint0.pt").write_bytes(b"mine")
        more, said = self.run_quietly(self.config(n_epoch=3))
        self.assertIn("resuming from step", said)
        self.assertEqual((folder / "checkpoint0.pt").read_bytes(), b"mine")
        self.assertEqual((folder / "checkpoint1.pt").read_bytes(), kept)
        states = [read_checkpoint(each)["state_dict"] for each in (more, whole)]
        for name, value in states[0].items():
            self.assertTrue(torch.equal(value, states[1][name]), name)
        for path in folder.glob("*.pt"):
            path.write_bytes(b"")
        with self.assertRaisesRegex(InputError, "no undamaged checkpoint"):
            self.run_quietly(self.config(n_epoch=3))

    def test_a_damaged_last_is_passed_over_in_the_middle_of_an_epoch(self):
        whole, _ = self.run_quietly(self.config("whole"))
        config = self.config()
        self.stop(config, 9)  # inside the second epoch
        (self.folder / "run" / "last.pt").write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again, said = self.run_quietly(config)
        self.assertIn("resuming from step 6", said)
        states = [read_checkpoint(p)["state_dict"] for p in (whole, again)]
        for name, value in states[0].items():
            self.assertTrue(torch.equal(value, states[1][name]), name)

    def test_a_run_is_known_wherever_it_lies_and_however_that_is_spelled(self):
        whole, _ = self.run_quietly(self.config("whole"))
        start = self.folder / "start.pt"
        shutil.copy(whole, start)
        begun = self.config(n_epoch=1, load=str(start))
        self.run_quietly(begun)
        moved = self.folder / "moved"
        moved.mkdir()
        for name in ("run", "audio", "start.pt"):
            (self.folder / name).rename(moved / name)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(moved)
        here = {"data": "audio/", "path_checkpoint": "run/", "load": "./start.pt"}
        path, said = self.run_quietly(replace(begun, **here))
        self.assertIn("finished", said)
        self.run_quietly(replace(begun, **here, n_epoch=2))
        (moved / "run" / "config.json").unlink()
        with self.assertRaisesRegex(InputError, "--hiddenGar 16, not 24; choose") as no:
            self.run_quietly(replace(begun, **here, hidden_gar=24))
        self.assertNotIn("remove", str(no.exception))
        shutil.copy(moved / path.with_name("checkpoint1.pt"), start.with_name("o.pt"))
        os.replace(self.folder / "o.pt", "start.pt")
        with self.assertRaisesRegex(InputError, "a run from another checkpoint"):
            self.run_quietly(replace(begun, **here, n_epoch=2))

    def test_two_processes_do_not_share_a_folder(self):
        config = self.config(n_epoch=1)
        folder = Path(config.path_checkpoint)
        script = (
            "import json, sys, time\n"
            "from jtm.cpc.config import PretrainConfig\n"
            "from jtm.training.config import make_config\n"
            "from jtm.training.folder import claim\n"
            "settings = json.load(open(sys.argv[1]))\n"
            "with claim(make_config(PretrainConfig, 'small', settings)):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n"
        )
        folder.mkdir()
        write_json(folder / "config.json", asdict(config))
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(folder / "config.json")],
            cwd=CODE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(other.stdout.close)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.assertEqual(other.stdout.readline(), b"held\n")
        with self.assertRaisesRegex(InputError, "run: another process is running it"):
            self.run_quietly(config)
        self.assertFalse((folder / "last.pt").exists())
        other.kill()
        other.wait()
        self.run_quietly(config)  # a lock does not outlive its process

    def test_what_takes_no_time_is_checked_before_data_are_read(self):
        self.run_quietly(self.config(n_epoch=1))
        for chosen, words in (
            ({"hidden_gar": 24}, "--hiddenGar 16, not 24"),
            ({"load": "none.pt", "path_checkpoint": "x"}, "none.pt: no such"),
        ):
            config = replace(self.config(n_epoch=1), data="nowhere", **chosen)
            with self.assertRaisesRegex(InputError, words):
                self.run_quietly(config)

    def test_a_full_disk_is_told_and_leaves_no_half_checkpoint(self):
        config = self.config(n_epoch=1)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        module_under_test.build_store(
            module_under_test.open_dataset(config.data), progress=False
        )
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
            with self.assertRaisesRegex(
                InputError, "checkpoint0.pt: cannot be wr.*free"
            ):
                self.run_quietly(config)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        folder = Path(config.path_checkpoint)
        self.assertFalse([p for p in folder.iterdir() if "pt" in p.suffix])
        self.run_quietly(config)  # with room again
        self.assertTrue((folder / "checkpoint0.pt").exists())

    def test_a_loss_that_is_not_finite_names_step_recordings_and_checkpoint(self):
        computed = module_under_test.CPCModule.loss

        def broken(self, batch, split, step):
            named = computed(self, batch, split, step)
            return named | {"loss": named["loss"] * (torch.nan if step == bad else 1)}

        for bad, told in ((0, "no checkpoint yet"), (2, "checkpoint is .*last.pt")):
            with (
                mock.patch.object(module_under_test.CPCModule, "loss", broken),
                mock.patch.object(loop, "SAVE_SECONDS", 0),
                self.assertRaisesRegex(
                    InputError, f"loss is nan at step {bad}, in rec.*wav; .*{told}"
                ),
            ):
                self.run_quietly(self.config())

    def test_non_finite_weights_are_not_saved(self):
        computed = module_under_test.CPCModule.loss

        def broken(self, batch, split, step):  # the loss is finite, its gradient not
            named = computed(self, batch, split, step)
            infinite = (0 * named["loss"]).sqrt() if step == 1 else 0
            return named | {"loss": named["loss"] + infinite}

        with (
            mock.patch.object(module_under_test.CPCModule, "loss", broken),
            mock.patch.object(loop, "SAVE_SECONDS", 0),
            self.assertRaisesRegex(
                InputError, "non-finite weights after step 2; .*last.pt"
            ),
        ):
            self.run_quietly(self.config(gradient_clip=0.0))
        last = read_checkpoint(self.folder / "run" / "last.pt")
        self.assertEqual(last["global_step"], 1)

    def test_categories_are_those_of_the_metadata(self):
        audio = self.folder / "audio"
        (audio / "train_data").mkdir()
        for i, wav in enumerate(sorted(audio.glob("*.wav"))):
            wav.rename(audio / "train_data" / f"{i}.wav")
        rows = ("id,ensemble", "0,Solo", "1,Trio", "2,Solo", "3,")
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        chosen = {"sampling_type": "samecategory", "n_epoch": 1}
        _, said = self.run_quietly(self.config(**chosen))
        self.assertIn("recordings without ensemble", said)
        config = self.config("other", labels_by="mood", **chosen)
        with self.assertRaisesRegex(InputError, "no 'mood'; --labelsBy may be .*ens"):
            self.run_quietly(config)


if __name__ == "__main__":
    unittest.main()
