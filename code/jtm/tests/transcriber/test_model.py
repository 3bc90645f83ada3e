"""Transcribers: streaming, files, and refusal of other files."""

import contextlib
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm.evaluation.streaming import Audio
from jtm.files import InputError, write_json
from jtm.models import heads
from jtm.tests.evaluation.little import write_checkpoint
from jtm.tests.test_embedding import FolderTestCase
from jtm.tests.transcriber.toys import tiny, write_tiny
from jtm.training import checkpoints
from jtm.transcriber import model


def noise(seconds=2.0):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))


def transcribe(network, wave, fast=False, tuning=0.0):
    """Stream a wave through a transcriber; return the concatenated outputs."""
    if not fast:  # in float32
        with mock.patch.object(model, "_autocast", lambda _: contextlib.nullcontext()):
            return transcribe(network, wave, True, tuning)
    transcriber = model.Transcriber(network, model.THRESHOLDS)
    wave = wave.astype(np.float32)
    recording = Audio(lambda a, b: wave[a:b], len(wave), scale=1.0)
    chunks = list(transcriber.stream(recording, tuning))
    return {name: np.concatenate([each[name] for each in chunks]) for name in chunks[0]}


class TestStreaming(unittest.TestCase):
    def test_streamed_outputs_equal_unstreamed(self):
        wave = noise(3.03)  # the last chunk is shorter than its context
        for chosen in (
            {},
            {"on_encoder": True},
            {"use_sinc_net": True},
            {"encoder_type": "harmonic"},
            {"encoder_type": "sinc", "ar_mode": "LSTM"},
            {"around": True},
        ):
            with mock.patch.object(heads, "AROUND", 8):
                network, _ = tiny(**chosen)
                with mock.patch.object(model, "CHUNK", 10_000):
                    expected = transcribe(network, wave)
                with mock.patch.object(model, "CHUNK", 24):
                    found = transcribe(network, wave)
            self.assertEqual(found.keys(), expected.keys())
            for name, x in found.items():
                self.assertEqual(x.dtype, np.float32)
                np.testing.assert_allclose(x, expected[name], atol=1e-4, rtol=1e-4)

    def test_outputs_equal_the_logits_of_the_network(self):
        network, wave = tiny()[0], noise(1.0)
        with torch.no_grad():
            logits = network(torch.tensor(wave, dtype=torch.float32)[None, None])
        outputs = transcribe(network, wave)
        for name, expected in (
            ("notes", logits["transcription"][0]),
            ("parts", logits["who_plays_what"][0, :, :-1]),
        ):
            np.testing.assert_allclose(outputs[name], expected.numpy(), atol=1e-4)
            error = transcribe(network, wave, fast=True)[name] - expected.numpy()
            self.assertLess(np.abs(error).mean(), 0.05)

    def test_transcribers_with_one_head(self):
        network, _ = tiny(tasks=("transcription",))
        self.assertNotIn("parts", transcribe(network, noise(0.5)))
        network, _ = tiny(tasks=("who_plays_what",))
        out = transcribe(network, noise(0.5))
        self.assertEqual(out["notes"].shape, (50, 2, 88))
        np.testing.assert_array_equal(out["notes"][:, 0], out["parts"].max(axis=1))

    def test_power_is_that_of_the_sounding_pitch(self):
        time = np.arange(16_000) / 16_000
        outputs = transcribe(tiny()[0], 0.1 * np.sin(2 * np.pi * 440 * time))
        power = outputs["power"][20:80].mean(axis=0)
        self.assertAlmostEqual(power[69 - 21] / power.max(), 1, 2)
        self.assertLess(power[68 - 21], 0.1 * power.max())
        sharp = 0.1 * np.sin(2 * np.pi * 440 * 2 ** (0.4 / 12) * time)
        tuned = transcribe(tiny()[0], sharp, tuning=0.4)["power"][20:80].mean(axis=0)
        np.testing.assert_allclose(tuned[48], power[48], rtol=0.02)
        untuned = transcribe(tiny()[0], sharp)["power"][20:80].mean(axis=0)
        self.assertGreater(untuned[49], 3 * tuned[49])
        twice = transcribe(tiny()[0], 0.2 * np.sin(2 * np.pi * 440 * time))
        ratio = twice["power"][50, 48] / outputs["power"][50, 48]
        self.assertAlmostEqual(ratio, 4, delta=0.3)


class TestFiles(FolderTestCase):
    def refused(self, path, message):
        with self.assertRaisesRegex(InputError, message) as caught:
            model.load(path)
        self.assertIn(str(path), str(caught.exception))

    def test_saved_transcriber_loads_unchanged(self):
        network, config = tiny(on_encoder=True, use_sinc_net=True)
        path = self.folder / "mine.safetensors"
        model.save(path, network, config, {"frame": 0.25, "onset": 0.125})
        loaded = model.load(path)
        self.assertEqual(loaded.thresholds, {"frame": 0.25, "onset": 0.125})
        self.assertIn("who_plays_what", loaded.network.heads.readers)
        for name, weights in network.state_dict().items():
            torch.testing.assert_close(loaded.network.state_dict()[name].cpu(), weights)
        expected = transcribe(network, noise(0.5))
        for name, x in transcribe(loaded.network, noise(0.5)).items():
            np.testing.assert_array_equal(x, expected[name])

    def test_supervised_checkpoint_is_a_transcriber(self):
        network, config = tiny(tasks=("transcription",))
        path = self.folder / "best.pt"
        state = {f"network.{n}": w for n, w in network.state_dict().items()}
        settings = vars(config) | {"task": "transcription", "on_encoder": False}
        torch.save({"state_dict": state, "config": settings}, path)
        self.assertEqual(model.load(path).thresholds, model.THRESHOLDS)
        thresholds = {"frame_threshold": 0.2, "onset_threshold": 0.7}
        write_json(self.folder / "record.json", {"thresholds": thresholds})
        transcriber = model.load(path)
        self.assertEqual(transcriber.thresholds, {"frame": 0.2, "onset": 0.7})
        self.assertNotIn("who_plays_what", transcriber.network.heads.readers)
        self.assertFalse(transcriber.normalised)  # as in its training
        for content in ([], {"thresholds": []}):
            write_json(self.folder / "record.json", content)
            with self.assertRaisesRegex(InputError, "record.json: not the record of a"):
                model.load(path)
        (self.folder / "record.json").unlink()
        torch.save({"state_dict": state, "config": settings | {"also": ""}}, path)
        self.assertTrue(model.load(path).normalised)
        settings["cpc_mode"] = "reverse"
        torch.save({"state_dict": state, "config": settings}, path)
        self.refused(path, "a network for reversed time")

    def test_other_files_are_refused(self):
        path = self.folder / "net.pt"
        write_checkpoint(path)
        self.refused(path, "pretrained without labels.*main.py --supervised --load")
        out = self.folder / "net.safetensors"
        checkpoints.export(path, out)
        self.refused(out, "pretrained without labels.*main.py --supervised --load")
        self.refused(self.folder / "none.safetensors", "no such checkpoint")
        whole = write_tiny(out).read_bytes()
        with self.assertRaisesRegex(InputError, "a checkpoint of training with labels"):
            checkpoints.load_model(out)
        out.write_bytes(whole[:-9])
        self.refused(out, "no network of JTM, or damaged")
        out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        self.refused(out, "checksum differs")
        for task, message in (
            (
                "ensemble",
                "trained on ensemble; expected transcription or who_plays_what",
            ),
            ("transcription", "does not fit: its network has other weights"),
        ):
            state = {f"heads.readers.{task}.linear.weight": torch.zeros(1)}
            checkpoints.write_tensors(out, state, {"network": {}, "thresholds": {}})
            self.refused(out, message)

    def test_too_large_transcriber_is_not_written(self):
        network, config = tiny()
        with mock.patch.object(model, "MAX_BYTES", 1000):
            with self.assertRaisesRegex(InputError, "expected up to 1000"):
                model.save(self.folder / "a.safetensors", network, config, {})
        self.assertEqual(list(Path(self.folder).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
