"""Pretraining: convergence, exact resuming, and refusal of mismatched settings."""

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
from jtm.training.checkpoints import export, load_model, read_checkpoint
from jtm.training.config import make_config

CODE = Path(__file__).resolve().parents[3]


def write_tunes(folder, n=4, seconds=8):
    """Write audio files of random decaying sines."""
    rng = np.random.default_rng(0)
    for i in range(n):
        time = np.arange(seconds * 16000) / 16000
        wave = np.zeros_like(time)
        for start in np.arange(0, seconds, 0.5):
            t = time - start
            active = (t >= 0) & (t < 0.5)
            pitch = rng.integers(48, 84)
            tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
            wave += np.where(active, 0.3 * np.exp(-3 * np.abs(t)) * tone, 0)
        soundfile.write(folder / f"{i}.wav", wave, 16000)


class TestPretrain(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
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
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            checkpoint = pretrain(config, progress=False)
        return checkpoint, output.getvalue()

    def test_loss_falls_and_every_epoch_is_saved(self):
        chosen = {"n_epoch": 6, "learning_rate": 0.01, "size_window": 8000}
        checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(checkpoint.name, "checkpoint5.pt")
        history = read_checkpoint(checkpoint)["history"]
        losses = [row["loss"] for row in history if row["split"] == "train"]
        self.assertLess(losses[-1], losses[0] - 0.1)
        names = {p.name for p in checkpoint.parent.glob("*.pt")}
        epochs = {f"checkpoint{i}.pt" for i in range(6)}
        self.assertEqual(names, epochs | {"best.pt", "last.pt"})
        rows = (checkpoint.parent / "metrics.csv").read_text().splitlines()
        self.assertEqual(len(rows), 1 + 12)

    def test_resumed_run_equals_uninterrupted_run(self):
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
            "p.pretrain(config)\n"  # progress bars must not change the result
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
            resumed, output = self.run_quietly(config)
            self.assertIn("resuming from step", output)
            one, other = read_checkpoint(whole), read_checkpoint(resumed)
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

    def test_context_of_augmented_window_predicts_clean_latents(self):
        module = self.module(augment_past="noise,level")
        batch = next(iter(module.train_batches))
        wave = batch.waves[:, None].float() / 32768
        outputs, augmented = [], []

        def criterion(z, c, *_):
            outputs.append((z, c))
            return {"loss": z.sum()}

        def louder(wave, kinds, _):
            augmented.append(kinds)
            return 0.1 * wave

        with (
            mock.patch.object(module.criterion, "forward", criterion),
            mock.patch.object(module_under_test, "augment", louder),
        ):
            module.loss(batch, "train", 0)
            module.loss(batch, "validation", -1)
        self.assertEqual(augmented, [["noise", "level"]])  # in training only
        model = module.model
        z, c = model(wave)
        torch.testing.assert_close(outputs[0], (z, model(0.1 * wave)[1]))
        torch.testing.assert_close(outputs[1], (z, c))

    def test_sigint_and_sigterm_save_a_checkpoint(self):
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

    def test_best_checkpoint_has_the_minimum_validation_loss(self):
        checkpoint = self.validate_with(2.0, 1.0, 3.0)
        best = read_checkpoint(checkpoint.with_name("best.pt"))
        self.assertEqual(best["history"][-1]["epoch"], 1)
        curves = checkpoint.parent / "tensorboard"
        self.assertTrue(list(curves.glob("events*")))

    def validate_with(self, *losses):
        """Run one epoch per loss, with these validation losses."""
        computed = module_under_test.CPCModule.loss

        def mocked_loss(module, batch, split, step):
            named = computed(module, batch, split, step)
            if split == "validation":
                named["loss"] = torch.tensor(losses[module.current_epoch])
            return named

        with mock.patch.object(module_under_test.CPCModule, "loss", mocked_loss):
            return self.run_quietly(self.config(n_epoch=len(losses)))[0]

    def test_nan_validation_loss_is_never_the_best(self):
        checkpoint = self.validate_with(torch.nan, 2.0, torch.nan)
        best = read_checkpoint(checkpoint.with_name("best.pt"))
        self.assertEqual(best["history"][-1]["epoch"], 1)

    def test_training_rate_excludes_validation(self):
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

    def test_short_recordings_are_excluded_or_padded(self):
        soundfile.write(self.folder / "audio" / "short.wav", np.zeros(9000), 16000)
        _, output = self.run_quietly(self.config("one", n_epoch=1))
        self.assertIn("excluded 1 recordings shorter than a window", output)
        chosen = {"short_recordings": "pad", "n_epoch": 1}
        _, output = self.run_quietly(self.config("other", **chosen))
        self.assertNotIn("shorter", output)

    def module(self, **chosen):
        """Make the module of a run."""
        config = self.config(**chosen)
        store = module_under_test.build_store(
            module_under_test.open_dataset(config.data), progress=False
        )
        loaders = module_under_test.loaders(config, store)
        return module_under_test.CPCModule(config, *loaders)

    def test_pitch_map_trains_with_fixed_or_learned_filters(self):
        chosen = {"encoder_type": "pitchmap", "hidden_encoder": 2, "hidden_gar": 2}
        for run, learned in (("fixed", False), ("learned", True)):
            config = self.config(run, use_sinc_net=learned, n_epoch=1, **chosen)
            self.assertEqual((config.ar_mode, config.contrast), ("conv", "pitch"))
            checkpoint, _ = self.run_quietly(config)
            model, _ = load_model(checkpoint)
            z, c = model(torch.zeros(1, 1, 16000))
            self.assertEqual(z.shape, (1, 50, 88 * (2 + 2)))
            self.assertEqual(c.shape, (1, 50, 88 * 2))
            names = {name for name, _ in model.named_parameters()}
            self.assertEqual("encoder.filters.centre" in names, learned)

    def test_every_sampling_setting_changes_the_batches(self):
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

    def test_validation_batches_follow_the_sampling_scheme(self):
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
            # One chunk per recording, one of which may be in memory.
            chosen = {"chunk_size": 9 * 32000, "max_chunks_in_mem": 1}
            validation = self.module(sampling_type=scheme, **chosen).validation_batches
            batches = [set(batch.recordings.tolist()) for batch in validation]
            self.assertEqual(len(set.union(*batches)), 4)
            together.update(map(frozenset, batches))
            self.assertFalse(validation._cached)
        self.assertTrue(
            any(i % 2 == 0 and i + 1 in b for b in kinds["uniform"] for i in b)
        )
        self.assertEqual({len(b) for b in kinds["samesequence"]}, {1})
        of_one_kind = [len({i % 2 for i in b}) for b in kinds["samecategory"]]
        self.assertEqual(set(of_one_kind), {1})
        self.assertEqual(max(map(len, kinds["samecategory"])), 2)
        # Held-out recordings without a category are validated one by one.
        rows = [
            row.rsplit(",", 1)[0] + "," if "validation" in row else row for row in rows
        ]
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        alone = self.module(sampling_type="samecategory").validation_batches
        self.assertEqual({len(batch.recordings.unique()) for batch in alone}, {1})
        self.assertEqual(alone.indices, validation.indices)
        streams = self.module(sampling_type="sequential").validation_batches
        starts = [sorted(batch.starts.tolist()) for batch in streams]
        self.assertEqual(starts, sorted(starts))

    def test_learning_rate_warms_up_then_halves(self):
        chosen = {"scheduler_ramp": 0.5, "scheduler_step": 2, "learning_rate": 0.1}
        module = self.module(**chosen)
        steps = module.steps_before(1)
        self.assertEqual(steps, 6)  # 21 windows or more, in batches of 4
        configured = module.configure_optimizers()
        scheduler, rates = configured["lr_scheduler"]["scheduler"], []
        for _ in range(5 * steps):
            rates.append(scheduler.get_last_lr()[0])
            configured["optimizer"].step()
            scheduler.step()
        warmup = [0.1 / 3, 0.2 / 3]
        expected = warmup + [0.1] * 10 + [0.05] * 12 + [0.025] * 6
        np.testing.assert_allclose(rates, expected)

    def test_learning_rate_halves_at_the_start_of_epochs_of_any_length(self):
        module = self.module(scheduler_ramp=0.0, scheduler_step=1)
        module.epoch_steps = [7, 5, 6, 6]
        factors = [module.lr_factor(step) for step in range(24)]
        expected = [1.0] * 7 + [0.5] * 5 + [0.25] * 6 + [0.125] * 6
        self.assertEqual(factors, expected)
        # Epochs that are not reached are not planned.
        module = self.module(scheduler_ramp=0.0, scheduler_step=1000)
        self.assertEqual(module.lr_factor(0), 1.0)
        self.assertEqual(len(module.epoch_steps), 1)

    def test_test_recordings_alone_are_refused(self):
        audio = self.folder / "audio"
        write_tunes(audio, 2)
        (audio / "test_data").mkdir()
        for i in range(2):
            (audio / f"{i}.wav").rename(audio / "test_data" / f"{i}.wav")
        with self.assertRaisesRegex(InputError, "has test recordings alone, which are"):
            self.module()

    def test_accumulation_takes_one_step_per_several_batches(self):
        self.assertEqual(self.module(accumulate=4).steps_before(1), 2)
        checkpoint, _ = self.run_quietly(self.config(n_epoch=1, accumulate=4))
        self.assertEqual(read_checkpoint(checkpoint)["global_step"], 2)

    def test_gradient_norm_is_clipped_to_the_threshold(self):
        norms = []
        step = torch.optim.AdamW.step

        def record(self, closure=None):
            done = step(self, closure)
            gradients = [p.grad.norm() for g in self.param_groups for p in g["params"]]
            norms.append(torch.stack(gradients).norm().item())
            return done

        for clip in (0.0, 0.01):
            with mock.patch.object(torch.optim.AdamW, "step", record):
                chosen = {"n_epoch": 1, "gradient_clip": clip}
                self.run_quietly(self.config(f"clip {clip}", **chosen))
        unclipped, clipped = norms[:6], norms[6:]
        self.assertGreater(min(unclipped), 0.02)
        np.testing.assert_allclose(clipped, 0.01, rtol=1e-3)

    def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(self):
        self.assertEqual(self.dtypes_of_bf16(True), {torch.bfloat16})

    def test_bf16_is_float32_on_a_cpu_without_its_instructions(self):
        self.assertEqual(self.dtypes_of_bf16(False), {torch.float32})

    def dtypes_of_bf16(self, supported):
        seen = set()
        predict = torch.nn.Linear.forward

        def record(self, x):
            y = predict(self, x)
            seen.add(y.dtype)
            return y

        chosen = {"precision": "bf16", "n_epoch": 1}
        chosen["augment_past"] = "noise,reverb,equaliser,level"
        with (
            mock.patch.object(torch.nn.Linear, "forward", record),
            mock.patch.object(loop, "computes_bf16", lambda device: supported),
        ):
            checkpoint, _ = self.run_quietly(self.config(**chosen))
        content = read_checkpoint(checkpoint)
        for weights in content["state_dict"].values():
            self.assertEqual(weights.dtype, torch.float32)
        return seen

    def test_more_epochs_continue_a_finished_run(self):
        self.run_quietly(self.config(n_epoch=1))
        more, output = self.run_quietly(self.config(n_epoch=2))
        self.assertIn("resuming from step", output)
        whole, _ = self.run_quietly(self.config(run="whole", n_epoch=2))
        found, expected = (read_checkpoint(p)["state_dict"] for p in (more, whole))
        for name, value in expected.items():
            self.assertTrue(torch.equal(found[name], value), name)
        with self.assertRaisesRegex(InputError, "--nEpoch 2, not 1"):
            self.run_quietly(self.config(n_epoch=1))

    def test_finished_run_says_so_and_refuses_other_settings(self):
        self.run_quietly(self.config())
        _, output = self.run_quietly(self.config())
        self.assertIn("finished", output)
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

    def test_resuming_on_other_recordings_is_refused(self):
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
        # Recordings that a run excludes may be added.
        soundfile.write(audio / "short.wav", np.zeros(9000), 16000)
        again, _ = self.run_quietly(config)
        states = [read_checkpoint(p)["state_dict"] for p in (whole, again)]
        for name, weights in states[0].items():
            self.assertTrue(torch.equal(weights, states[1][name]), name)

    def test_checkpoint_without_data_summary_is_resumed(self):
        self.stop(self.config(), 3)
        last = self.folder / "run" / "last.pt"
        content = torch.load(last, weights_only=True)
        del content["data"]
        torch.save(content, last)
        _, output = self.run_quietly(self.config())
        self.assertIn("resuming from step 3", output)
        self.assertIn("data", read_checkpoint(last))

    def test_patience_stops_the_run_for_good(self):
        # With a learning rate of zero the loss can't fall.
        chosen = {"learning_rate": 0.0, "patience": 2, "n_epoch": 9}
        checkpoint, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(checkpoint.name, "checkpoint2.pt")
        again, output = self.run_quietly(self.config(**chosen))
        self.assertIn("finished at epoch 3;", output)
        self.assertEqual(again, checkpoint)

    def test_patience_survives_resuming(self):
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
        resumed, _ = self.run_quietly(self.config(**chosen))
        self.assertEqual(resumed.name, whole.name)

    def test_loaded_checkpoint_gives_equal_outputs(self):
        checkpoint, _ = self.run_quietly(self.config())
        wave = torch.randn(1, 1, 8000)
        model, config = load_model(checkpoint)
        again, _ = load_model(checkpoint)
        self.assertLessEqual(asdict(config).items(), asdict(self.config()).items())
        with torch.no_grad():
            torch.testing.assert_close(model(wave), again(wave), rtol=0, atol=0)
        untrained = module_under_test.build_model(config).eval()
        with torch.no_grad():
            self.assertFalse(torch.allclose(model(wave)[1], untrained(wave)[1]))

    def test_network_pretrained_with_dropout_loads(self):
        for number, ar_mode in enumerate(("GRU", "transformer")):
            chosen = {"dropout": 0.2, "ar_mode": ar_mode, "n_epoch": 1}
            checkpoint, _ = self.run_quietly(self.config(f"run{number}", **chosen))
            model, config = load_model(checkpoint)
            self.assertEqual(config.dropout, 0.2 * (ar_mode == "transformer"))
            weights = read_checkpoint(checkpoint)["state_dict"]
            for name, value in model.state_dict().items():
                self.assertTrue(torch.equal(value, weights[f"model.{name}"]), name)

    def test_load_starts_from_the_weights_of_a_checkpoint(self):
        checkpoint, _ = self.run_quietly(self.config())
        chosen = {"load": str(checkpoint), "load_criterion": True, "n_epoch": 1}
        config = self.config("second", learning_rate=0.0, **chosen)
        second, _ = self.run_quietly(config)
        one, other = read_checkpoint(checkpoint), read_checkpoint(second)
        for name, weights in one["state_dict"].items():
            torch.testing.assert_close(weights, other["state_dict"][name])

    def test_exported_weights_have_no_prediction_heads(self):
        checkpoint, _ = self.run_quietly(self.config(n_epoch=1))
        path = self.folder / "net.safetensors"
        export(checkpoint, path)
        with self.assertRaisesRegex(InputError, "net.*: has no criterion; expected a"):
            chosen = {"load": str(path), "load_criterion": True}
            self.run_quietly(self.config("other", **chosen))

    def test_checkpoint_of_another_architecture_is_refused(self):
        checkpoint, _ = self.run_quietly(self.config(n_epoch=1))
        with self.assertRaisesRegex(
            InputError, "does not fit: --hiddenGar is 16, not 24"
        ):
            self.run_quietly(self.config("other", hidden_gar=24, load=str(checkpoint)))

    def test_malicious_pickle_is_not_executed(self):
        marker = self.folder / "ran"

        class Evil:
            def __reduce__(self):
                return Path.touch, (marker,)

        path = self.folder / "evil.pt"
        path.write_bytes(pickle.dumps({"state_dict": Evil(), "config": {}}))
        with self.assertRaisesRegex(InputError, "evil.pt: not a checkpoint"):
            read_checkpoint(path)
        self.assertFalse(marker.exists())

    def test_run_resumes_from_its_newest_undamaged_checkpoint(self):
        whole, _ = self.run_quietly(self.config("whole", n_epoch=3))
        self.run_quietly(self.config(n_epoch=2))
        folder = self.folder / "run"
        newest = (folder / "checkpoint1.pt").read_bytes()
        best = (folder / "best.pt").read_bytes()
        for damaged in (newest[:5000], b"", bytes(5000), None):
            for name in ("last.pt", "best.pt"):
                (folder / name).unlink()
                if damaged is not None:
                    (folder / name).write_bytes(damaged)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                path, output = self.run_quietly(self.config(n_epoch=2))
            self.assertIn("finished at epoch 2;", output)
            self.assertEqual(path, folder / "checkpoint1.pt")
            messages = " ".join(str(each.message) for each in caught)
            warned = "last.pt damaged; checkpoint1.pt is the newest" in messages
            self.assertEqual(warned, damaged is not None)
            for name, content in (("last.pt", newest), ("best.pt", best)):
                self.assertEqual((folder / name).read_bytes(), content)
        # A finished epoch is not trained again, nor its file written.
        (folder / "last.pt").unlink()
        (folder / "checkpoint0.pt").write_bytes(b"mine")
        more, output = self.run_quietly(self.config(n_epoch=3))
        self.assertIn("resuming from step", output)
        self.assertEqual((folder / "checkpoint0.pt").read_bytes(), b"mine")
        self.assertEqual((folder / "checkpoint1.pt").read_bytes(), newest)
        states = [read_checkpoint(each)["state_dict"] for each in (more, whole)]
        for name, value in states[0].items():
            self.assertTrue(torch.equal(value, states[1][name]), name)
        for path in folder.glob("*.pt"):
            path.write_bytes(b"")
        with self.assertRaisesRegex(InputError, "no undamaged checkpoint"):
            self.run_quietly(self.config(n_epoch=3))

    def test_damaged_last_checkpoint_within_an_epoch_is_skipped(self):
        whole, _ = self.run_quietly(self.config("whole"))
        config = self.config()
        self.stop(config, 9)  # inside the second epoch
        (self.folder / "run" / "last.pt").write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again, output = self.run_quietly(config)
        self.assertIn("resuming from step 6", output)
        states = [read_checkpoint(p)["state_dict"] for p in (whole, again)]
        for name, value in states[0].items():
            self.assertTrue(torch.equal(value, states[1][name]), name)

    def test_moved_run_resumes_with_relative_paths(self):
        whole, _ = self.run_quietly(self.config("whole"))
        start = self.folder / "start.pt"
        shutil.copy(whole, start)
        started = self.config(n_epoch=1, load=str(start))
        self.run_quietly(started)
        moved = self.folder / "moved"
        moved.mkdir()
        for name in ("run", "audio", "start.pt"):
            (self.folder / name).rename(moved / name)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(moved)
        relative = {"data": "audio/", "path_checkpoint": "run/", "load": "./start.pt"}
        path, output = self.run_quietly(replace(started, **relative))
        self.assertIn("finished", output)
        self.run_quietly(replace(started, **relative, n_epoch=2))
        (moved / "run" / "config.json").unlink()
        with self.assertRaisesRegex(
            InputError, "--hiddenGar 16, not 24; choose"
        ) as error:
            self.run_quietly(replace(started, **relative, hidden_gar=24))
        self.assertNotIn("remove", str(error.exception))
        shutil.copy(moved / path.with_name("checkpoint1.pt"), start.with_name("o.pt"))
        os.replace(self.folder / "o.pt", "start.pt")
        with self.assertRaisesRegex(InputError, "a run from another checkpoint"):
            self.run_quietly(replace(started, **relative, n_epoch=2))

    def test_two_processes_cannot_share_a_folder(self):
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

    def test_settings_are_checked_before_data_are_read(self):
        self.run_quietly(self.config(n_epoch=1))
        for chosen, message in (
            ({"hidden_gar": 24}, "--hiddenGar 16, not 24"),
            ({"load": "none.pt", "path_checkpoint": "x"}, "none.pt: no such"),
        ):
            config = replace(self.config(n_epoch=1), data="nowhere", **chosen)
            with self.assertRaisesRegex(InputError, message):
                self.run_quietly(config)

    def test_full_disk_is_reported_and_leaves_no_partial_checkpoint(self):
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
        self.run_quietly(config)  # with enough space again
        self.assertTrue((folder / "checkpoint0.pt").exists())

    def test_non_finite_loss_names_step_recordings_and_checkpoint(self):
        computed = module_under_test.CPCModule.loss

        def broken(self, batch, split, step):
            named = computed(self, batch, split, step)
            return named | {"loss": named["loss"] * (torch.nan if step == bad else 1)}

        for bad, message in ((0, "no checkpoint yet"), (2, "checkpoint is .*last.pt")):
            with (
                mock.patch.object(module_under_test.CPCModule, "loss", broken),
                mock.patch.object(loop, "SAVE_SECONDS", 0),
                self.assertRaisesRegex(
                    InputError, f"loss is nan at step {bad}, in rec.*wav; .*{message}"
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

    def test_categories_come_from_the_metadata(self):
        audio = self.folder / "audio"
        (audio / "train_data").mkdir()
        for i, wav in enumerate(sorted(audio.glob("*.wav"))):
            wav.rename(audio / "train_data" / f"{i}.wav")
        rows = ("id,ensemble", "0,Solo", "1,Trio", "2,Solo", "3,")
        (audio / "musicnet_metadata.csv").write_text("\n".join(rows) + "\n")
        chosen = {"sampling_type": "samecategory", "n_epoch": 1}
        _, output = self.run_quietly(self.config(**chosen))
        self.assertIn("recordings without ensemble", output)
        config = self.config("other", labels_by="mood", **chosen)
        with self.assertRaisesRegex(InputError, "no 'mood'; --labelsBy may be .*ens"):
            self.run_quietly(config)
        (audio / "musicnet_metadata.csv").unlink()
        with self.assertRaisesRegex(InputError, "needs a musicnet_metadata.csv"):
            self.run_quietly(self.config("none", **chosen))


if __name__ == "__main__":
    unittest.main()
