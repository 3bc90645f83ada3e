import contextlib
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm.data.musicnet import open_dataset
from jtm.evaluation import baselines, features, streaming
from jtm.evaluation.baselines import HAND_MADE, fingerprint
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.music import audio
from jtm.tests.evaluation.little import make_network, write_dataset

MAKES = {
    "harmonic": {"encoder_type": "harmonic", "hidden_encoder": 2},
    "sinc": {"encoder_type": "sinc"},
    "conv": {"ar_mode": "LSTM"},
    "reverse": {"cpc_mode": "reverse"},
    "pitchmap": {
        "encoder_type": "pitchmap",
        "hidden_encoder": 8,  # a norm over few channels makes much of rounding
        "hidden_gar": 2,
    },
}


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-9000, 9000, round(16_000 * seconds)).astype(np.int16)


def whole(source, wave):
    """Stream a recording; return its layers in order of time."""
    return [*source.whole(Audio.of(wave)).values()]


@contextlib.contextmanager
def in_pieces(size):
    """Stream in pieces of so many frames."""
    with mock.patch.multiple(streaming, CHUNK=size, SHORT_CHUNK=size):
        yield


class Streaming(unittest.TestCase):
    def test_pieces_give_what_the_whole_gives(self):
        wave = noise(6.503)
        torch.manual_seed(0)
        for name, settings in MAKES.items():
            model = make_network(**settings).eval()
            with torch.no_grad():
                batch = torch.from_numpy(wave / np.float32(32768))[None, None]
                expected = [each[0].numpy() for each in model(batch)]
            with self.subTest(name), in_pieces(100):
                found = whole(NetworkSource(model), wave)
                for ours, theirs in zip(found, expected, strict=True):
                    self.assertEqual(ours.shape, theirs.shape)
                    np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_a_transformer_looks_back_on_the_piece_before(self):
        model = make_network(ar_mode="transformer").eval()
        wave = noise(3)
        with in_pieces(100):
            _, full = whole(NetworkSource(model), wave)
            with mock.patch.object(streaming, "LOOK_BACK", 1):
                _, short = whole(NetworkSource(model), wave)
        with torch.no_grad():
            batch = torch.from_numpy(wave / np.float32(32768))[None, None]
            expected = model(batch)[1][0].numpy()
        np.testing.assert_allclose(full, expected, atol=1e-4)
        self.assertGreater(np.abs(short - expected).max(), 1e-3)

    def test_networks_are_read_in_evaluation_mode(self):
        model = make_network(norm_mode="batchNorm").train()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        whole(NetworkSource(model), noise(1))
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_memory_holds_one_piece(self):
        longest = 0

        def read(start, stop):
            nonlocal longest
            longest = max(longest, stop - start)
            return np.zeros(stop - start, np.int16)

        source = NetworkSource(make_network())
        for _ in source.stream(Audio(read, 16_000 * 60)):
            pass
        self.assertLessEqual(
            longest, (streaming.SHORT_CHUNK + 2 * source.margin) * source.hop
        )


class HandMade(unittest.TestCase):
    def test_an_edit_makes_others_of_them(self):
        for name in ("N_MELS", "MEL_MIN", "MEL_FLOOR", "CQT_BINS", "HOP"):
            before = fingerprint("cqt")
            with mock.patch.object(baselines, name, 7):
                self.assertNotEqual(fingerprint("cqt"), before, name)
        with tempfile.TemporaryDirectory() as folder:
            edited = Path(folder) / "baselines.py"
            text = Path(baselines.__file__).read_text()
            edited.write_text(text.replace("np.log1p(1e5", "np.log1p(1e6"))
            with mock.patch.object(baselines, "__file__", edited):
                self.assertNotEqual(fingerprint("cqt"), before)
        self.assertNotEqual(fingerprint("logmel"), before)

    def test_a_click_is_centred_on_its_frame_in_each(self):
        wave = np.zeros(32_000, np.int16)
        wave[100 * 160 + 79 : 100 * 160 + 81] = 20_000
        spectrum = HAND_MADE["cqt"](wave / np.float32(32768))
        high = spectrum[:, 150:].mean(axis=1)
        self.assertEqual(high.argmax(), 100)
        np.testing.assert_allclose(high[101], high[99], rtol=0.05)

    def test_a_tone_lies_on_its_pitch(self):
        time = np.arange(32_000) / 16_000
        for pitch in (33, 69, 100):
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            wave = (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
            spectrum = HAND_MADE["cqt"](wave / np.float32(32768))
            self.assertEqual(spectrum[100].argmax(), 2 * (pitch - 21))

    def test_a_frame_is_centred_on_its_middle(self):
        # A click in the middle of frame 50 is loudest there, and fades alike
        # on both sides.
        wave = np.zeros(16_000, np.int16)
        wave[50 * 160 + 79 : 50 * 160 + 81] = 20_000
        spectrum = HAND_MADE["logmel"](wave / np.float32(32768))
        level = spectrum.mean(axis=1)
        self.assertEqual(level.argmax(), 50)
        np.testing.assert_allclose(level[50:58], level[50:42:-1], rtol=1e-2)

    def test_a_sine_lies_in_its_band(self):
        import librosa

        time = np.arange(16_000) / 16_000
        wave = (8000 * np.sin(2 * np.pi * 880 * time)).astype(np.int16)
        spectrum = HAND_MADE["logmel"](wave / np.float32(32768))
        centres = librosa.mel_frequencies(baselines.N_MELS + 2, fmin=30, fmax=8000)[
            1:-1
        ]
        self.assertAlmostEqual(centres[spectrum[50].argmax()], 880, delta=15)


class View(unittest.TestCase):
    def test_layers_share_the_axis_of_time(self):
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(folder, seconds=4.0)
            recording = open_dataset(folder).split("test")[1]
            for settings in (MAKES["sinc"], MAKES["reverse"]):
                model = make_network(**settings)
                with in_pieces(100):
                    seen = features.view(model, recording, seconds=2.0)
                self.assertEqual(seen["title"], "A, test1, Bright")
                self.assertEqual(list(seen["layers"]), ["z", "c"])
                shown = seen["spectrogram"], seen["roll"], *seen["layers"].values()
                self.assertEqual([len(each) for each in shown], [200] * 4)
                # One pitch sounds at a time.
                self.assertEqual(seen["roll"].sum(), 200)
                wave = np.round(audio.read(recording.audio)[:32_000] * 32767)
                z, c = whole(NetworkSource(model), wave.astype(np.int16))
                np.testing.assert_allclose(seen["layers"]["z"], z, atol=1e-4)
                np.testing.assert_allclose(seen["layers"]["c"], c, atol=1e-4)
            # Of a network with frames of 20 ms all else stays at 10 ms.
            model = make_network(**MAKES["pitchmap"])
            seen = features.view(model, recording, seconds=2.0)
            self.assertEqual((len(seen["roll"]), len(seen["layers"]["z"])), (200, 100))
            self.assertEqual(seen["roll"].sum(), 200)
            seen = features.view_notes(recording, seconds=2.0)
            self.assertEqual(seen["title"], "A, test1, Bright")
            self.assertEqual(seen["spectrum"].shape, (200, 2 * 97))
            # The first note is the loudest of its first half.
            pitch = seen["notes"]["pitch"][0]
            loudest = seen["spectrum"][5:12].mean(axis=0)[: 2 * 60].argmax()
            self.assertEqual(21 + round(loudest / 2), pitch)


if __name__ == "__main__":
    unittest.main()
