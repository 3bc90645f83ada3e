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

NETWORKS = {
    "harmonic": {"encoder_type": "harmonic", "hidden_encoder": 2},
    "sinc": {"encoder_type": "sinc"},
    "long sinc": {"encoder_type": "sinc", "sinc_kernel": 16384},
    "conv": {"ar_mode": "LSTM"},
    "reverse": {"cpc_mode": "reverse"},
    "pitchmap": {
        "encoder_type": "pitchmap",
        "hidden_encoder": 8,  # normalising few channels amplifies rounding errors
        "hidden_gar": 2,
    },
}


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-9000, 9000, round(16_000 * seconds)).astype(np.int16)


def stream(source, wave):
    """Stream a recording; return its layers in temporal order."""
    return [*source.whole(Audio.of(wave)).values()]


@contextlib.contextmanager
def in_chunks(size):
    """Stream in chunks of `size` frames."""
    with mock.patch.multiple(streaming, CHUNK=size, SHORT_CHUNK=size):
        yield


class TestStreaming(unittest.TestCase):
    def test_streamed_layers_equal_unstreamed(self):
        wave = noise(6.503)
        torch.manual_seed(0)
        for name, settings in NETWORKS.items():
            model = make_network(**settings).eval()
            with torch.no_grad():
                batch = torch.from_numpy(wave / np.float32(32768))[None, None]
                expected = [each[0].numpy() for each in model(batch)]
            size = 200 if "long" in name else 100
            with self.subTest(name), in_chunks(size):
                streamed = stream(NetworkSource(model), wave)
                for layer, reference in zip(streamed, expected, strict=True):
                    self.assertEqual(layer.shape, reference.shape)
                    np.testing.assert_allclose(layer, reference, atol=1e-4)

    def test_transformer_attends_to_the_previous_chunk(self):
        model = make_network(ar_mode="transformer").eval()
        wave = noise(3)
        with in_chunks(100):
            _, full = stream(NetworkSource(model), wave)
            with mock.patch.object(streaming, "LOOK_BACK", 1):
                _, short = stream(NetworkSource(model), wave)
        with torch.no_grad():
            batch = torch.from_numpy(wave / np.float32(32768))[None, None]
            expected = model(batch)[1][0].numpy()
        np.testing.assert_allclose(full, expected, atol=1e-4)
        self.assertGreater(np.abs(short - expected).max(), 1e-3)

    def test_networks_stream_in_evaluation_mode(self):
        model = make_network(norm_mode="batchNorm").train()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        stream(NetworkSource(model), noise(1))
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_memory_holds_one_chunk(self):
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


class TestBaselines(unittest.TestCase):
    def test_fingerprint_changes_with_constants_and_source(self):
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

    def test_cqt_click_is_centred_on_its_frame(self):
        wave = np.zeros(32_000, np.int16)
        wave[100 * 160 + 79 : 100 * 160 + 81] = 20_000
        spectrum = HAND_MADE["cqt"](wave / np.float32(32768))
        high = spectrum[:, 150:].mean(axis=1)
        self.assertEqual(high.argmax(), 100)
        np.testing.assert_allclose(high[101], high[99], rtol=0.05)

    def test_cqt_tone_peaks_at_its_pitch(self):
        time = np.arange(32_000) / 16_000
        for pitch in (33, 69, 100):
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            wave = (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
            spectrum = HAND_MADE["cqt"](wave / np.float32(32768))
            self.assertEqual(spectrum[100].argmax(), 2 * (pitch - 21))

    def test_logmel_click_is_centred_on_its_frame(self):
        # A click in the middle of frame 50 is loudest there, and decays equally
        # on both sides.
        wave = np.zeros(16_000, np.int16)
        wave[50 * 160 + 79 : 50 * 160 + 81] = 20_000
        spectrum = HAND_MADE["logmel"](wave / np.float32(32768))
        level = spectrum.mean(axis=1)
        self.assertEqual(level.argmax(), 50)
        np.testing.assert_allclose(level[50:58], level[50:42:-1], rtol=1e-2)

    def test_logmel_sine_peaks_in_its_band(self):
        import librosa

        time = np.arange(16_000) / 16_000
        wave = (8000 * np.sin(2 * np.pi * 880 * time)).astype(np.int16)
        spectrum = HAND_MADE["logmel"](wave / np.float32(32768))
        centres = librosa.mel_frequencies(baselines.N_MELS + 2, fmin=30, fmax=8000)[
            1:-1
        ]
        self.assertAlmostEqual(centres[spectrum[50].argmax()], 880, delta=15)


class TestView(unittest.TestCase):
    def test_layers_share_the_time_axis(self):
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(folder, seconds=4.0)
            recording = open_dataset(folder).split("test")[1]
            for settings in (NETWORKS["sinc"], NETWORKS["reverse"]):
                model = make_network(**settings)
                with in_chunks(100):
                    view = features.view(model, recording, seconds=2.0)
                self.assertEqual(view["title"], "A, test1, Bright")
                self.assertEqual(list(view["layers"]), ["z", "c"])
                shown = view["spectrogram"], view["roll"], *view["layers"].values()
                self.assertEqual([len(each) for each in shown], [200] * 4)
                # One pitch is active at a time.
                self.assertEqual(view["roll"].sum(), 200)
                wave = np.round(audio.read(recording.audio)[:32_000] * 32767)
                z, c = stream(NetworkSource(model), wave.astype(np.int16))
                np.testing.assert_allclose(view["layers"]["z"], z, atol=1e-4)
                np.testing.assert_allclose(view["layers"]["c"], c, atol=1e-4)
            # With network frames of 20 ms, everything else stays at 10 ms.
            model = make_network(**NETWORKS["pitchmap"])
            view = features.view(model, recording, seconds=2.0)
            self.assertEqual((len(view["roll"]), len(view["layers"]["z"])), (200, 100))
            self.assertEqual(view["roll"].sum(), 200)
            view = features.view_notes(recording, seconds=2.0)
            self.assertEqual(view["title"], "A, test1, Bright")
            self.assertEqual(view["spectrum"].shape, (200, 2 * 97))
            # During its first half, the first note is the loudest.
            pitch = view["notes"]["pitch"][0]
            loudest = view["spectrum"][5:12].mean(axis=0)[: 2 * 60].argmax()
            self.assertEqual(21 + round(loudest / 2), pitch)


if __name__ == "__main__":
    unittest.main()
