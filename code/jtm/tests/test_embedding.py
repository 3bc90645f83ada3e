"""Embeddings of files, arrays and folders, and the shipped network."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tracemalloc
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

import jtm
from jtm import embedding
from jtm.cli import ROOT, main
from jtm.data import batch
from jtm.evaluation import streaming
from jtm.files import InputError, InputWarning, digest, read_json
from jtm.music import audio
from jtm.tests.evaluation.little import make_network, write_checkpoint
from jtm.training import checkpoints


def music(seconds, rate, channels=1, seed=0):
    """Return sines below 3 kHz ``(channels, samples)``, the same at every rate."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    frequency, phase = rng.uniform(50, 3000, 20), rng.uniform(0, 6, (channels, 20))
    tones = np.sin(2 * np.pi * frequency[:, None] * time + phase[..., None])
    return 0.02 * tones.sum(1)


def tiny_model(**settings):
    """Make a small network in evaluation mode."""
    return make_network(**settings).eval()


def run(*arguments):
    """Run a command in this process; return its exit code and output."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        code = main([str(word) for word in arguments])
    return code, output.getvalue()


class FolderTestCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def audio(self, name, seconds=0.5, rate=16_000, seed=0):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, music(seconds, rate, seed=seed).T, rate)
        return path


class TestEmbed(FolderTestCase):
    def test_embedding_equals_network_output(self):
        model, wave = tiny_model(norm_mode="batchNorm"), music(0.999, 16_000)[0]
        pcm = (audio.to_pcm(wave) / 32768).astype(np.float32)
        with torch.no_grad():
            z, c = (part[0].numpy() for part in model(torch.tensor(pcm)[None, None]))
        for layer, expected in {"z": z, "c": c, "zc": np.hstack((z, c))}.items():
            for training in (False, True):  # batch statistics stay frozen
                embedding, times = jtm.embed(wave, 16_000, model.train(training), layer)
                np.testing.assert_allclose(embedding, expected, atol=1e-4)
        self.assertEqual(embedding.dtype, np.float32)
        np.testing.assert_allclose(times, 0.005 + 0.01 * np.arange(99))

    def test_files_and_arrays_of_any_rate_give_one_embedding(self):
        model = tiny_model()
        expected, _ = jtm.embed(music(1, 16_000, 2), 16_000, model)
        for rate in (8000, 22_050, 44_100, 48_000):
            wave = music(1, rate, 2)
            path = self.folder / f"{rate}.flac"
            soundfile.write(path, wave.T, rate)
            from_file, times = jtm.embed(path, model=model)
            from_array, _ = jtm.embed(wave, rate, model)
            np.testing.assert_allclose(from_file, from_array, atol=5e-3)
            self.assertEqual(len(times), 100)
            middle = slice(5, 95)  # the ends ring
            error = np.abs(from_array - expected)[middle].mean()
            self.assertLess(error, 0.02 * expected[middle].std(), rate)

    def test_either_array_orientation_gives_one_embedding(self):
        model = tiny_model()
        for n_channels in (1, 2, 64):
            wave = music(0.2, 16_000, n_channels)
            expected, _ = jtm.embed(wave, 16_000, model)
            transposed, _ = jtm.embed(wave.T, 16_000, model)
            np.testing.assert_allclose(transposed, expected, atol=1e-3)
        mono, _ = jtm.embed(wave.mean(0), 16_000, model)
        np.testing.assert_allclose(transposed, mono, atol=1e-3)

    def test_integer_arrays_are_scaled_by_their_full_scale(self):
        model, wave = tiny_model(), music(0.2, 16_000)[0]
        expected, _ = jtm.embed(wave, 16_000, model)
        for kind in (np.int16, np.int32):
            full = -float(np.iinfo(kind).min)
            integers = torch.from_numpy((wave * full).astype(kind))
            embedding, _ = jtm.embed(integers, np.int64(16_000), model)
            np.testing.assert_allclose(embedding, expected, atol=1e-3)
        samples = (32768 * wave).astype(np.int16).tolist()
        with self.assertRaisesRegex(InputError, "int64; convert it to the integers of"):
            jtm.embed(samples, 16_000, model)

    def test_chunked_embedding_equals_unchunked(self):
        path = self.audio("long.wav", 3.1)
        for direction in ("forward", "reverse"):
            model = tiny_model(cpc_mode=direction)
            unchunked, _ = jtm.embed(path, model=model)
            with mock.patch.object(streaming, "SHORT_CHUNK", 100):
                chunked, _ = jtm.embed(path, model=model)
            np.testing.assert_allclose(chunked, unchunked, atol=1e-5)

    def test_memory_is_constant_apart_from_the_result(self):
        path, model = self.audio("long.wav", 90, 44_100), tiny_model()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        embedding, _ = jtm.embed(path, model=model)
        _, peak = tracemalloc.get_traced_memory()
        # The file is 15.9 MB in float32, 5.8 MB of them at 16 kHz.
        self.assertLess(peak - embedding.nbytes, 7e6)

    def test_invalid_input_is_refused(self):
        model = tiny_model()
        for array, rate, message in (
            (np.zeros(159), 16_000, "the array: shorter than a frame of 0.01 s"),
            (np.zeros(0), 44_100, "shorter than a frame"),
            (np.zeros(16_000), None, "needs its sample_rate"),
            (np.zeros(16_000), 0, "needs its sample_rate"),
            (np.zeros(16_000), np.inf, "needs its sample_rate"),
            (np.zeros(16_000), np.nan, "needs its sample_rate"),
            (np.zeros(16_000), -1.0, "needs its sample_rate"),
            (np.zeros(500), 44.1, "needs its sample_rate in Hz"),  # kHz
            (np.zeros(500), True, "needs its sample_rate"),
            (np.zeros(500), 10**30, "needs its sample_rate"),
            (torch.zeros(500, requires_grad=True), 16_000, "samples: Can't call"),
            ([[0.0, 0.0], [0.0]], 16_000, "no array can be made of the samples: "),
            (np.zeros((65, 16_000)), 16_000, r"\(channels, samples\)"),
            (np.zeros((16_000, 65)), 16_000, r"\(samples, channels\)"),
            (np.zeros((60, 60)), 16_000, "at most 64 channels and more samples"),
            (np.zeros((2, 64)), 16_000, "at most 64 channels and more samples"),
            (np.zeros((1, 1, 500)), 16_000, r"\(channels, samples\)"),
            (np.zeros(500, np.uint8), 16_000, "array of uint8; expected floats"),
            (np.full(500, np.nan), 16_000, "not finite"),
            (np.full(500, 9000.0), 16_000, "likely integers"),
        ):
            with self.assertRaisesRegex(InputError, message):
                jtm.embed(array, rate, model)
        with self.assertWarnsRegex(InputWarning, "the array: up to 6.0 dB beyond"):
            jtm.embed(np.full(500, 2.0), 16_000, model)
        short = self.audio("short.wav", 0.009)
        with self.assertRaisesRegex(InputError, "short.wav: shorter than a frame"):
            jtm.embed(short, model=model)
        with self.assertRaisesRegex(InputError, "sample_rate is for arrays"):
            jtm.embed(short, 16_000, model)
        with self.assertRaisesRegex(InputError, "layer 'h'; expected one of c, z, zc"):
            jtm.embed(np.zeros(500), 16_000, model, "h")
        with self.assertRaisesRegex(InputError, "type Linear; expected one from jtm"):
            jtm.embed(np.zeros(500), 16_000, torch.nn.Linear(1, 1))


class TestCommand(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"
        self.model = self.folder / "model.pt"
        write_checkpoint(self.model)

    def embed(self, *inputs, layer="c"):
        options = ("--out", self.out, "--load", self.model, "--layer", layer)
        return run("embed", *inputs, *options)

    def embedded(self):
        return {p.relative_to(self.out).as_posix() for p in self.out.rglob("*.npz")}

    def test_folders_are_embedded_and_unreadable_files_reported(self):
        one = self.audio("in/a/song.wav")
        self.audio("in/b/song.wav", seed=1)
        self.audio("in/b/song.flac", seed=2)
        (self.folder / "in" / "broken.wav").write_text("no sound")
        code, output = self.embed(self.folder / "in")
        self.assertEqual(code, 1)
        self.assertRegex(output, "jtm: .*broken.wav: not a readable audio file")
        self.assertNotIn("Traceback", output)
        self.assertEqual(
            self.embedded(), {"a/song.wav.npz", "b/song.wav.npz", "b/song.flac.npz"}
        )
        with np.load(self.out / "a" / "song.wav.npz", allow_pickle=False) as file:
            expected = jtm.embed(one, model=self.model)
            np.testing.assert_array_equal(file["embedding"], expected[0])
            np.testing.assert_array_equal(file["times"], expected[1])

    def test_equal_file_names_do_not_collide(self):
        first, second = self.audio("x/song.wav"), self.audio("y/song.wav", seed=1)
        self.assertEqual(self.embed(first, second, first)[0], 0)
        self.assertEqual(self.embedded(), {"x/song.wav.npz", "y/song.wav.npz"})
        # A later run of the first alone does not mirror the common folder of both.
        self.assertEqual(self.embed(first)[0], 0)
        written = (self.out / "song.wav.npz").read_bytes()
        code, output = self.embed(second)
        self.assertEqual(code, 2)
        self.assertRegex(output, "song.wav.npz: embeds .*x/song.wav, not .*y/song.wav")
        self.assertEqual((self.out / "song.wav.npz").read_bytes(), written)

    def test_files_of_other_folders_can_be_added(self):
        first, second = self.audio("x/one.wav"), self.audio("y/two.wav", seed=1)
        for path in (first, second):
            self.assertEqual(self.embed(path)[0], 0)
        self.assertEqual(self.embedded(), {"one.wav.npz", "two.wav.npz"})
        self.assertIn("1 already done", self.embed(first)[1])

    def test_embedding_written_meanwhile_is_not_overwritten(self):
        first, second = self.audio("x/song.wav"), self.audio("y/song.wav", seed=1)
        whole = embedding._embed_file

        def embed_slowly(*arguments):
            with mock.patch.object(embedding, "_embed_file", whole):
                self.assertEqual(self.embed(first)[0], 0)
            return whole(*arguments)

        with mock.patch.object(embedding, "_embed_file", embed_slowly):
            code, output = self.embed(second)
        self.assertEqual(code, 2)
        self.assertRegex(output, "song.wav.npz: embeds .*x/song.wav, not .*y/song.wav")

    def test_folder_in_place_of_an_output_is_refused_before_work(self):
        path = self.audio("song.wav")
        (self.out / "song.wav.npz").mkdir(parents=True)
        with mock.patch.object(embedding, "_embed_file", side_effect=AssertionError):
            code, output = self.embed(path)
        self.assertEqual(code, 2)
        self.assertRegex(output, r"\Ajtm: .*song.wav.npz: is a folder; exp.*\n\Z")

    def test_file_of_another_kind_is_replaced(self):
        path = self.audio("song.wav")
        self.out.mkdir()
        with open(self.out / "song.wav.npz", "wb") as file:
            np.save(file, np.zeros(3))
        self.assertEqual(self.embed(path)[0], 0)
        with np.load(self.out / "song.wav.npz") as file:
            self.assertIn("embedding", file)

    def test_embedding_of_a_single_file_lies_at_the_top(self):
        path = self.audio("x/song.wav")
        roundabout = self.folder / "x" / ".." / "x" / "song.wav"
        self.assertEqual(self.embed(roundabout)[0], 0)
        self.assertEqual(self.embedded(), {"song.wav.npz"})
        self.assertEqual(path.parent, self.folder / "x")

    def test_symlink_out_of_the_output_folder_is_refused(self):
        (self.folder / "elsewhere").mkdir()
        self.out.mkdir()
        (self.out / "a").symlink_to(self.folder / "elsewhere")
        self.audio("in/a/song.wav")
        code, output = self.embed(self.folder / "in")
        self.assertEqual(code, 2)
        self.assertIn("leads outside", output)
        self.assertEqual(list((self.folder / "elsewhere").iterdir()), [])

    def test_missing_input_is_refused_and_moves_nothing(self):
        self.audio("in/a.wav")
        self.assertEqual(run("embed", "--out", self.out, self.folder / "in")[0], 0)
        wrong = self.folder / "nosuch.wav"
        code, output = run("embed", "--out", self.out, self.folder / "in", wrong)
        self.assertEqual((code, output), (2, f"jtm: {wrong}: no such file or folder\n"))
        with self.assertRaisesRegex(InputError, "nosuch.wav: no such file or folder"):
            batch.find([self.folder / "in", wrong])

    def test_missing_temporary_folder_ends_the_batch_in_one_line(self):
        for name in "ab":
            self.audio(f"in/{name}.wav")
        with mock.patch("tempfile.TemporaryFile", side_effect=FileNotFoundError):
            code, output = self.embed(self.folder / "in")
        self.assertEqual(code, 2)
        self.assertEqual(output.count("TMPDIR"), 1)

    def test_unchanged_sources_are_not_embedded_again(self):
        song, _ = self.audio("in/song.wav"), self.audio("in/other.wav")
        old = self.audio("old.wav", seed=1)  # of the same size
        os.utime(old, (9e8, 9e8))
        self.assertIn("2 of 2 embedded", self.embed(self.folder / "in")[1])
        before = (self.out / "other.wav.npz").stat().st_mtime_ns
        shutil.copy2(old, song)  # with its old time
        code, output = self.embed(self.folder / "in")
        self.assertEqual(code, 0)
        self.assertIn("1 of 2 embedded, 0 failed, 1 already done", output)
        self.assertEqual((self.out / "other.wav.npz").stat().st_mtime_ns, before)
        with np.load(self.out / "song.wav.npz", allow_pickle=False) as file:
            expected, _ = jtm.embed(old, model=jtm.load_model(self.model))
            np.testing.assert_array_equal(file["embedding"], expected)
        # A truncated file is rebuilt.
        whole = (self.out / "song.wav.npz").read_bytes()
        (self.out / "song.wav.npz").write_bytes(whole[:900])
        self.assertIn("1 of 2 embedded", self.embed(self.folder / "in")[1])
        self.assertIn("2 already done", self.embed(self.folder / "in")[1])

    def test_embedding_by_another_network_is_refused(self):
        song = self.audio("song.wav")
        self.embed(song)
        with np.load(self.out / "song.wav.npz", allow_pickle=False) as file:
            model = jtm.load_model(self.model)
            expected = checkpoints.fingerprint(model.state_dict())
            self.assertEqual(
                (str(file["network"]), str(file["layer"])), (expected, "c")
            )
        moved = (self.out / "song.wav.npz").rename(self.folder / "moved.npz")
        shutil.rmtree(self.out)
        write_checkpoint(self.model, seed=1)
        self.audio("second.wav")
        self.embed(self.folder / "second.wav")
        moved.rename(self.out / "song.wav.npz")
        code, output = self.embed(song)
        self.assertEqual(code, 2)
        self.assertIn("song.wav.npz: an embedding by another network", output)

    def test_unexpected_error_in_one_file_does_not_end_the_batch(self):
        for name in ("a.wav", "b.wav", "c.wav"):
            self.audio(f"in/{name}")

        def blocks(path):
            if Path(path).name == "b.wav":
                raise UnicodeError("a fault of a library")
            return whole(path)

        whole = audio.blocks
        with mock.patch.object(audio, "blocks", blocks):
            code, output = self.embed(self.folder / "in")
            self.assertEqual(code, 1)
            self.assertRegex(output, "jtm: .*b.wav: unexpected UnicodeError: a fa")
            self.assertNotIn("Traceback", output)
            self.assertIn("2 of 3 embedded, 1 failed, 0 already done", output)
            options = ("--out", self.out, "--load", self.model, "--debug")
            code, output = run("embed", self.folder / "in", *options)
            self.assertEqual(code, 1)
            self.assertIn("Traceback", output)
            code, output = run(
                "embed", self.folder / "in" / "b.wav", "--out", self.folder / "alone"
            )
            self.assertEqual(code, 2)
            self.assertIn("none of 1 files could be embedded", output)

    def test_file_names_of_maximum_length(self):
        self.audio("in/a.wav")
        self.audio("in/" + 237 * "x" + ".wav")  # 241 bytes, with .npz 245
        self.assertEqual(self.embed(self.folder / "in")[0], 0)
        self.audio("in/" + 250 * "x" + ".wav")
        code, output = self.embed(self.folder / "in")
        self.assertEqual(code, 1)
        self.assertRegex(output, "jtm: .*x.wav.npz: its name is too long; shorten it")
        self.assertNotIn("free some space", output)
        self.assertEqual(len(self.embedded()), 2)

    def test_gpu_is_used_where_available(self):
        song = self.audio("song.wav")
        for use in (
            lambda: self.embed(song),
            lambda: jtm.embed(song),
            lambda: jtm.hear.load_model(),
        ):
            with mock.patch.object(torch.nn.Module, "to", autospec=True) as to:
                to.side_effect = lambda module, device: module
                device = torch.device("cuda")
                cuda = mock.patch("torch.cuda.is_available", return_value=True)
                with cuda:
                    use()
            self.assertIn(mock.call(mock.ANY, device), to.mock_calls)

    def test_other_layer_or_network_is_refused_in_the_same_folder(self):
        path = self.audio("song.wav")
        self.embed(path)
        self.assertEqual(self.embed(path, layer="z")[0], 2)
        write_checkpoint(self.model, seed=1)
        self.assertEqual(self.embed(path)[0], 2)

    def test_requested_layer_is_saved(self):
        path = self.audio("song.wav")
        self.embed(path, layer="zc")
        expected, _ = jtm.embed(path, model=jtm.load_model(self.model), layer="zc")
        with np.load(self.out / "song.wav.npz", allow_pickle=False) as file:
            np.testing.assert_array_equal(file["embedding"], expected)

    def test_folder_without_audio_is_refused(self):
        (self.folder / "empty").mkdir()
        code, output = self.embed(self.folder / "empty")
        self.assertEqual(code, 2)
        self.assertIn("no audio file found", output)

    def test_failed_run_leaves_nothing_and_out_must_be_a_folder(self):
        path, broken = self.audio("song.wav"), self.folder / "broken.wav"
        broken.write_text("no sound")
        for verb in ("embed", "transcribe"):
            self.assertEqual(run(verb, broken, "--out", self.out)[0], 2)
            self.assertFalse(self.out.exists())
            for out in (path, path / "deeper"):
                code, output = run(verb, path, "--out", out)
                self.assertEqual(code, 2)
                message = f"jtm: {out}: is a file, or lies in one; expected a folder"
                self.assertEqual(output, f"{message}\n")

    def test_file_of_one_sample_is_too_short(self):
        soundfile.write(self.folder / "one.wav", np.ones(1), 44_100)
        with self.assertRaisesRegex(InputError, "one.wav: shorter than a frame of"):
            jtm.embed(self.folder / "one.wav", model=self.model)

    def test_full_disk_ends_the_run(self):
        path = self.audio("song.wav")
        with mock.patch.object(np, "savez", side_effect=OSError(28, "No space left")):
            code, output = self.embed(path)
        self.assertEqual(code, 2)
        self.assertIn("cannot be written (No space left)", output)


class TestShipped(unittest.TestCase):
    def test_loads_offline_and_returns_both_layers(self):
        with mock.patch.object(socket, "socket", side_effect=OSError("no network")):
            model = jtm.load_model()
        self.assertFalse(any(module.training for module in model.modules()))
        z, c = model(torch.zeros(1, 1, 16_000))
        self.assertEqual((z.shape[1], c.shape[1]), (50, 50))
        again = jtm.load_model()
        self.assertIsNot(model, again)  # callers may modify it

    def test_embed_uses_the_shipped_network_by_default(self):
        wave = music(0.2, 16_000)
        expected, _ = jtm.embed(wave, 16_000, jtm.load_model())
        np.testing.assert_array_equal(jtm.embed(wave, 16_000)[0], expected)

    def test_code_computes_the_features_that_the_weights_were_trained_for(self):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
        for layer, expected in (
            ("z", [0.864, 1.676, -0.227, -0.250]),
            ("c", [0.420, 1.715, -1.000, 0.043]),
        ):
            features = jtm.embed(tone, 16_000, layer=layer)[0][25]
            found = features.reshape(88, -1)[69 - 21, :4]  # of A4
            np.testing.assert_allclose(found, expected, atol=0.01)

    def test_model_card_and_metadata_match_the_weights(self):
        self.assertLess(embedding.WEIGHTS.stat().st_size, 20e6)
        facts = read_json(embedding.WEIGHTS.with_suffix(".json"))
        card = embedding.WEIGHTS.with_name("README.md").read_text(encoding="utf-8")
        self.assertEqual(facts["sha256"], digest(embedding.WEIGHTS))
        self.assertIn(f"| SHA-256 | `{facts['sha256']}` |", card)
        model = jtm.load_model()
        self.assertEqual((model.z_dim, model.c_dim), (facts["z_dim"], facts["c_dim"]))

    def test_package_import_does_not_import_torch(self):
        code = "import jtm, sys; print('torch' in sys.modules, *dir(jtm))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(jtm.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        loaded, *names = done.stdout.split()
        self.assertEqual(loaded, "False")
        self.assertLessEqual({"embed", "hear", "load_model"}, set(names))
        with self.assertRaises(AttributeError):
            jtm.nothing  # noqa: B018


class TestHub(unittest.TestCase):
    def test_torch_hub_loads_the_same_network(self):
        model = torch.hub.load(str(ROOT), "jtm", source="local")
        expected = jtm.load_model().state_dict()
        self.assertEqual(model.state_dict().keys(), expected.keys())
        for name, weights in model.state_dict().items():
            torch.testing.assert_close(weights, expected[name], rtol=0, atol=0)


if __name__ == "__main__":
    unittest.main()
