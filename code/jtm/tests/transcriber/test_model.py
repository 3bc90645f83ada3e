"""Transcribers: streamed as unstreamed, saved, and refused where they are none."""

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
from jtm.tests.test_embedding import Folder
from jtm.tests.transcriber.toys import tiny, write_tiny
from jtm.training import checkpoints
from jtm.transcriber import model


def noise(seconds=2.0):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))


def listen(network, wave, fast=False, tuning=0.0):
    """Give what a transcriber says of a wave, piece after piece, joined."""
    if not fast:  # exact
        with mock.patch.object(model, "_autocast", lambda _: contextlib.nullcontext()):
            return listen(network, wave, True, tuning)
    hearer = model.Transcriber(network, model.THRESHOLDS)
    wave = wave.astype(np.float32)
    recording = Audio(lambda a, b: wave[a:b], len(wave), scale=1.0)
    answers = list(hearer.stream(recording, tuning))
    return {
        name: np.concatenate([each[name] for each in answers]) for name in answers[0]
    }


class Streaming(unittest.TestCase):
    def test_streamed_is_unstreamed(self):
        wave = noise(3.03)  # the last piece is shorter than what is read beside it
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
                    expected = listen(network, wave)
                with mock.patch.object(model, "CHUNK", 24):
                    found = listen(network, wave)
            self.assertEqual(found.keys(), expected.keys())
            for name, x in found.items():
                self.assertEqual(x.dtype, np.float32)
                np.testing.assert_allclose(x, expected[name], atol=1e-4, rtol=1e-4)

    def test_it_is_what_the_network_says(self):
        network, wave = tiny()[0], noise(1.0)
        with torch.no_grad():
            logits = network(torch.tensor(wave, dtype=torch.float32)[None, None])
        found = listen(network, wave)
        for name, expected in (
            ("notes", logits["transcription"][0]),
            ("parts", logits["who_plays_what"][0, :, :-1]),
        ):
            np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-4)
            near = listen(network, wave, fast=True)[name] - expected.numpy()
            self.assertLess(np.abs(near).mean(), 0.05)

    def test_one_head_alone(self):
        network, _ = tiny(tasks=("transcription",))
        self.assertNotIn("parts", listen(network, noise(0.5)))
        network, _ = tiny(tasks=("who_plays_what",))
        found = listen(network, noise(0.5))
        self.assertEqual(found["notes"].shape, (50, 2, 88))
        np.testing.assert_array_equal(found["notes"][:, 0], found["parts"].max(axis=1))

    def test_power_is_that_of_the_pitch(self):
        time = np.arange(16_000) / 16_000
        found = listen(tiny()[0], 0.1 * np.sin(2 * np.pi * 440 * time))
        power = found["power"][20:80].mean(axis=0)
        self.assertAlmostEqual(power[69 - 21] / power.max(), 1, 2)
        self.assertLess(power[68 - 21], 0.1 * power.max())
        sharp = 0.1 * np.sin(2 * np.pi * 440 * 2 ** (0.4 / 12) * time)
        tuned = listen(tiny()[0], sharp, tuning=0.4)["power"][20:80].mean(axis=0)
        np.testing.assert_allclose(tuned[48], power[48], rtol=0.02)
        untuned = listen(tiny()[0], sharp)["power"][20:80].mean(axis=0)
        self.assertGreater(untuned[49], 3 * tuned[49])
        twice = listen(tiny()[0], 0.2 * np.sin(2 * np.pi * 440 * time))
        ratio = twice["power"][50, 48] / found["power"][50, 48]
        self.assertAlmostEqual(ratio, 4, delta=0.3)


class Files(Folder):
    def refuse(self, path, words):
        with self.assertRaisesRegex(InputError, words) as caught:
            model.load(path)
        self.assertIn(str(path), str(caught.exception))

    def test_saved_and_loaded_is_the_same(self):
        network, config = tiny(on_encoder=True, use_sinc_net=True)
        path = self.folder / "mine.safetensors"
        model.save(path, network, config, {"frame": 0.25, "onset": 0.125})
        found = model.load(path)
        self.assertEqual(found.thresholds, {"frame": 0.25, "onset": 0.125})
        self.assertIn("who_plays_what", found.network.heads.readers)
        for name, weights in network.state_dict().items():
            torch.testing.assert_close(found.network.state_dict()[name].cpu(), weights)
        expected = listen(network, noise(0.5))
        for name, x in listen(found.network, noise(0.5)).items():
            np.testing.assert_array_equal(x, expected[name])

    def test_a_checkpoint_of_training_with_labels(self):
        network, config = tiny(tasks=("transcription",))
        path = self.folder / "best.pt"
        state = {f"network.{n}": w for n, w in network.state_dict().items()}
        settings = vars(config) | {"task": "transcription", "on_encoder": False}
        torch.save({"state_dict": state, "config": settings}, path)
        self.assertEqual(model.load(path).thresholds, model.THRESHOLDS)
        found = {"frame_threshold": 0.2, "onset_threshold": 0.7}
        write_json(self.folder / "record.json", {"thresholds": found})
        hearer = model.load(path)
        self.assertEqual(hearer.thresholds, {"frame": 0.2, "onset": 0.7})
        self.assertNotIn("who_plays_what", hearer.network.heads.readers)
        settings["cpc_mode"] = "reverse"
        torch.save({"state_dict": state, "config": settings}, path)
        self.refuse(path, "a network for reversed time")

    def test_what_is_no_transcriber_is_refused(self):
        path = self.folder / "net.pt"
        write_checkpoint(path)
        self.refuse(path, "pretrained without labels.*main.py --supervised --load")
        out = self.folder / "net.safetensors"
        checkpoints.export(path, out)
        self.refuse(out, "pretrained without labels.*main.py --supervised --load")
        self.refuse(self.folder / "none.safetensors", "no such checkpoint")
        whole = write_tiny(out).read_bytes()
        with self.assertRaisesRegex(InputError, "a checkpoint of training with labels"):
            checkpoints.load_model(out)
        out.write_bytes(whole[:-9])
        self.refuse(out, "no network of JTM, or damaged")
        out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        self.refuse(out, "checksum differs")
        for task, words in (
            (
                "ensemble",
                "trained on ensemble; expected transcription or who_plays_what",
            ),
            ("transcription", "weights do not fit"),
        ):
            state = {f"heads.readers.{task}.linear.weight": torch.zeros(1)}
            checkpoints.write_tensors(out, state, {"network": {}, "thresholds": {}})
            self.refuse(out, words)

    def test_what_is_too_large_is_not_written(self):
        network, config = tiny()
        with mock.patch.object(model, "MAX_BYTES", 1000):
            with self.assertRaisesRegex(InputError, "expected up to 1000"):
                model.save(self.folder / "a.safetensors", network, config, {})
        self.assertEqual(list(Path(self.folder).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
