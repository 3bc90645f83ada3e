import contextlib
import errno
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from jtm.data.musicnet import open_dataset
from jtm.evaluation import baselines, features, streaming
from jtm.evaluation.baselines import HandMadeSource
from jtm.evaluation.features import Features, FrameSelection
from jtm.evaluation.streaming import Audio, NetworkSource, pitch_parts
from jtm.files import InputError
from jtm.models.network import make_network
from jtm.music import audio
from jtm.tests.evaluation.little import write_dataset

MAKES = {
    "harmonic": {"hidden_encoder": 2, "hidden_context": 16},
    "sinc": {"encoder": "sinc", "hidden_encoder": 24, "hidden_context": 16},
    "conv": {"encoder": "conv", "hidden_encoder": 24, "context": "LSTM"},
    "reverse": {"encoder": "conv", "hidden_encoder": 24, "reverse": True},
    "pitchmap": {
        "encoder": "pitchmap",
        "hidden_encoder": 8,  # a norm over few channels makes much of rounding
        "context": "conv",
        "hidden_context": 2,
    },
}


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-9000, 9000, round(16_000 * seconds)).astype(np.int16)


def fake_store(*waves):
    return SimpleNamespace(
        lengths=[len(wave) for wave in waves],
        checksums=[str(hash(wave.tobytes())) for wave in waves],
        read=lambda index, start, stop: waves[index][start:stop],
    )


def whole(source, wave):
    """Stream a recording; return its layers in order of time."""
    return [*source.whole(Audio.of(wave)).values()]


@contextlib.contextmanager
def in_pieces(size):
    """Stream in pieces of so many frames."""
    with (
        mock.patch.multiple(streaming, PIECE=size, SHORT_PIECE=size),
        mock.patch.object(baselines, "PIECE", size),
    ):
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
        model = make_network(
            "conv", 24, context="transformer", hidden_context=16
        ).eval()
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
        model = make_network("conv", 24, norm="batchNorm").train()
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

        for _ in HandMadeSource("logmel").stream(Audio(read, 16_000 * 120)):
            pass
        self.assertLessEqual(longest, (streaming.PIECE + 2 * baselines.MARGIN) * 160)


class HandMade(unittest.TestCase):
    def test_pieces_give_what_the_whole_gives(self):
        wave = noise(3.21)
        dims = {"logmel": baselines.N_MELS, "mfcc": 40, "cqt": 194}
        for name, dim in dims.items():
            (expected,) = whole(HandMadeSource(name), wave)
            self.assertEqual(expected.shape, (321, dim))
            with in_pieces(100):
                (found,) = whole(HandMadeSource(name), wave)
            # Where a piece ends, the constant-Q filters of the lowest pitches feel
            # the resampling of what they were given, a little.
            atol = {"cqt": 3e-3, "mfcc": 1e-3}.get(name, 1e-4)
            np.testing.assert_allclose(found, expected, atol=atol)

    def test_a_click_is_centred_on_its_frame_in_each(self):
        wave = np.zeros(32_000, np.int16)
        wave[100 * 160 + 79 : 100 * 160 + 81] = 20_000
        (spectrum,) = whole(HandMadeSource("cqt"), wave)
        high = spectrum[:, 150:].mean(axis=1)
        self.assertEqual(high.argmax(), 100)
        np.testing.assert_allclose(high[101], high[99], rtol=0.05)

    def test_a_tone_lies_on_its_pitch(self):
        time = np.arange(32_000) / 16_000
        for pitch in (33, 69, 100):
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            wave = (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
            (spectrum,) = whole(HandMadeSource("cqt"), wave)
            self.assertEqual(spectrum[100].argmax(), 2 * (pitch - 21))

    def test_mfcc_is_its_definition(self):
        import scipy.fft

        wave = noise(0.5)
        (found,) = whole(HandMadeSource("mfcc"), wave)
        power = baselines._mel_power(wave / np.float32(32768), 2.0)
        expected = scipy.fft.dct(10 * np.log10(power + 1e-8), axis=0, norm="ortho")
        np.testing.assert_allclose(found[:, :20], expected[:20].T, rtol=1e-3, atol=1e-3)

    def test_a_frame_is_centred_on_its_middle(self):
        # A click in the middle of frame 50 is loudest there, and fades alike
        # on both sides.
        wave = np.zeros(16_000, np.int16)
        wave[50 * 160 + 79 : 50 * 160 + 81] = 20_000
        (spectrum,) = whole(HandMadeSource("logmel"), wave)
        level = spectrum.mean(axis=1)
        self.assertEqual(level.argmax(), 50)
        np.testing.assert_allclose(level[50:58], level[50:42:-1], rtol=1e-2)

    def test_a_sine_lies_in_its_band(self):
        import librosa

        time = np.arange(16_000) / 16_000
        wave = (8000 * np.sin(2 * np.pi * 880 * time)).astype(np.int16)
        (spectrum,) = whole(HandMadeSource("logmel"), wave)
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
            heard = features.listen(recording, seconds=2.0)
            self.assertEqual(heard["title"], "A, test1, Bright")
            self.assertEqual(heard["spectrum"].shape, (200, 2 * 97))
            # The first note is the loudest of its first half.
            pitch = heard["notes"]["pitch"][0]
            loudest = heard["spectrum"][5:12].mean(axis=0)[: 2 * 60].argmax()
            self.assertEqual(21 + round(loudest / 2), pitch)


class Keeping(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "features"
        self.model = make_network("conv", 24, hidden_context=16)
        self.store = fake_store(noise(2, seed=1), noise(1.5, seed=2))

    def features(self, model=None):
        return Features(self.folder, {"cpc": model or self.model})

    def compute(self, names, indices=(0, 1), take=None, model=None, store=None):
        kept = self.features(model)
        wanted = {i: [take or FrameSelection(1, 200 - 50 * i)] for i in indices}
        kept.compute(store or self.store, names, wanted, progress=False)
        return kept

    def test_rows(self):
        kept = self.compute(("cpc-zc", "logmel"))
        first, second = FrameSelection(1, 200), FrameSelection(1, 150)
        self.assertEqual(kept.rows("cpc-z", self.store, 0, first).shape, (200, 24))
        self.assertEqual(kept.rows("cpc-c", self.store, 1, second).shape, (150, 16))
        mel = kept.rows("logmel", self.store, 1, second)
        self.assertEqual(mel.shape, (150, baselines.N_MELS))
        z, c = whole(NetworkSource(self.model), noise(2, seed=1))
        both = kept.rows("cpc-zc", self.store, 0, first, np.array([3, 150]))
        self.assertEqual(both.dtype, np.float32)
        np.testing.assert_allclose(
            both, np.concatenate((z, c), axis=1)[[3, 150]], rtol=1e-3, atol=1e-4
        )

    def test_what_is_taken(self):
        wave = noise(6, seed=5)
        store = fake_store(wave)
        z, c = whole(NetworkSource(self.model), wave)
        takes = [
            FrameSelection(step, n)
            for step, n in ((8, 600), (16, 300), (1, 130), (0, 600))
        ]
        for piece in (streaming.PIECE, 256):  # in one piece, and in three
            with in_pieces(piece):
                self.folder = self.folder / str(piece)
                kept = self.features()
                kept.compute(store, ("cpc-zc",), {0: takes}, progress=False)
            for take, numbers in (
                (takes[0], range(4, 600, 8)),
                (takes[1], range(8, 300, 16)),
                (takes[2], range(130)),
            ):
                found = kept.rows("cpc-c", store, 0, take)
                np.testing.assert_allclose(found, c[list(numbers)], atol=1e-3)
            pooled = kept.rows("cpc-zc", store, 0, takes[3])
            both = np.concatenate((z, c), axis=1)[128:256]
            expected = np.concatenate((both.mean(axis=0), both.std(axis=0)))
            self.assertEqual(pooled.shape, (4, 80))
            np.testing.assert_allclose(pooled[1], expected, atol=2e-3)

    def test_a_note_is_read_from_its_excerpt_alone(self):
        # Whatever sounds before and after it: other notes, or the note itself.
        names = ("cpc-zc", "logmel", "mfcc", "cqt")
        selections = [FrameSelection(0, 50, 40, 10, start) for start in (0, 30)]
        waves = noise(2, seed=1), noise(2, seed=1)
        waves[1][: 30 * 160] = noise(0.3, seed=5)
        waves[1][80 * 160 :] = noise(1.2, seed=6)
        store, kept = fake_store(*waves), self.features()
        wanted = {0: selections, 1: selections}
        kept.compute(store, names, wanted, progress=False)
        for name in names:
            for selection, alike in zip(selections, (False, True), strict=True):
                one, other = (kept.rows(name, store, i, selection) for i in (0, 1))
                self.assertEqual(len(one), 1)
                self.assertEqual(np.array_equal(one, other), alike, name)
            excerpt = Audio.of(waves[0][30 * 160 : 80 * 160])
            source = kept._sources[name.partition("-")[0]]
            frames = np.concatenate([*source.whole(excerpt).values()], axis=1)[10:]
            expected = np.concatenate((frames.mean(axis=0), frames.std(axis=0)))
            np.testing.assert_allclose(
                one[0], expected, rtol=2e-3, atol=2e-3, err_msg=name
            )

    def test_an_excerpt_that_the_recording_is_too_short_for_ends_in_silence(self):
        wave = noise(0.6)
        kept, selection = self.features(), FrameSelection(0, 50, 40, 10, 30)
        found = []
        for each in (wave, np.pad(wave, (0, 3200))):
            store = fake_store(each)
            kept.compute(store, ("cpc-z",), {0: [selection]}, progress=False)
            found.append(kept.rows("cpc-z", store, 0, selection))
        np.testing.assert_array_equal(*found)

    def test_selections_count_in_the_hop_of_their_source(self):
        model = make_network(**MAKES["pitchmap"])
        kept, store = self.features(model), fake_store(noise(2))
        self.assertEqual((kept.hop("cpc-s"), kept.hop("logmel-s")), (320, 160))
        with self.assertRaisesRegex(ValueError, "more frames than there are at 320"):
            wanted = {0: [FrameSelection(8, 200)]}
            kept.compute(store, ("cpc-z",), wanted, progress=False)
        selection = FrameSelection(4, 100)
        kept.compute(store, ("cpc-z",), {0: [selection]}, progress=False)
        z = NetworkSource(model).whole(Audio.of(noise(2)))["z"]
        np.testing.assert_allclose(
            kept.rows("cpc-z", store, 0, selection), z[2::4], atol=1e-2
        )

    def test_recordings_side_by_side_are_those_one_by_one(self):
        waves = [noise(3, seed=seed) for seed in range(9)] + [noise(2, seed=9)]
        store, selection = fake_store(*waves), FrameSelection(8, 200)
        kept = self.features()
        with in_pieces(128):
            wanted = dict.fromkeys(range(10), [selection])
            kept.compute(store, ("cpc-c", "logmel"), wanted, progress=False)
        for name, source in (("cpc-c", kept._sources["cpc"]), ("logmel", None)):
            for index in (0, 8, 9):
                layers = (source or HandMadeSource(name)).whole(Audio.of(waves[index]))
                np.testing.assert_allclose(
                    kept.rows(name, store, index, selection),
                    layers[name.removeprefix("cpc-")][4:200:8],
                    atol=2e-2,
                )

    def test_a_network_is_used_on_the_best_device_and_left_where_it_was(self):
        with mock.patch.object(features, "best_device", lambda: torch.device("meta")):
            kept = self.features()
        used = kept._sources["cpc"].model
        self.assertEqual({p.device.type for p in used.parameters()}, {"meta"})
        self.assertEqual({p.device.type for p in self.model.parameters()}, {"cpu"})

    def test_what_is_kept_is_not_computed_again(self):
        self.compute(("cpc-c", "logmel"))
        self.assertEqual(len(list(self.folder.iterdir())), 6)  # z, c and log-mel
        with mock.patch.object(Features, "_extract") as extract:
            self.compute(("cpc-zc", "logmel"))
            extract.assert_not_called()
            # Other audio, a network with other weights, and other frames of it,
            # are others.
            other = fake_store(noise(2, seed=3))
            self.compute(("logmel",), [0], store=other)
            extract.assert_called_once()
            self.compute(("logmel",), [0], FrameSelection(8, 200))
            self.assertEqual(extract.call_count, 2)
            with torch.no_grad():
                self.model.encoder.layers[0].weight[0, 0, 0] += 1e-3
            self.compute(("cpc-z",), [0])
            self.assertEqual(extract.call_count, 3)

    def test_the_axis_of_pitch(self):
        harmonic = make_network(hidden_encoder=2, hidden_context=352)
        self.assertEqual(pitch_parts(harmonic), ((88, 4), (88, 352)))
        joint = make_network(hidden_encoder=2, hidden_context=16, pitchwise=False)
        for model in (joint, self.model):
            self.assertEqual(pitch_parts(model), ())
        for name, parts in (("cpc-s", ((88, 4), (88, 352))), ("cqt-s", ((97, 2),))):
            with mock.patch.object(features, "Slow") as slow:
                self.features(harmonic).fit_slow(name, None, {})
            slow.assert_called_once_with(parts * 2)

    def test_an_edit_of_hand_made_features_makes_others_of_them(self):
        names = ("N_MELS", "MEL_MIN", "MEL_FLOOR", "N_MFCC", "CQT_BINS", "HOP")
        for name in names:
            before = HandMadeSource("cqt").fingerprint
            with mock.patch.object(baselines, name, 7):
                self.assertNotEqual(HandMadeSource("cqt").fingerprint, before, name)
        with tempfile.TemporaryDirectory() as folder:
            edited = Path(folder) / "baselines.py"
            text = Path(baselines.__file__).read_text()
            edited.write_text(text.replace("np.log1p(1e5", "np.log1p(1e6"))
            with mock.patch.object(baselines, "__file__", edited):
                self.assertNotEqual(HandMadeSource("cqt").fingerprint, before)
        self.assertNotEqual(HandMadeSource("mfcc").fingerprint, before)

    def test_settings_that_no_weight_shows_are_told_apart(self):
        forward, reverse = (make_network("conv", 24, reverse=r) for r in (False, True))
        reverse.load_state_dict(forward.state_dict())
        self.assertNotEqual(
            NetworkSource(forward).fingerprint, NetworkSource(reverse).fingerprint
        )

    def test_what_half_precision_cannot_hold_stays_finite(self):
        with mock.patch.object(HandMadeSource, "stream_together") as stream:
            stream.return_value = [(0, np.array([[[1e6, -1e6, 1.5]]]))]
            store = fake_store(noise(0.01))
            kept = self.compute(("logmel",), [0], FrameSelection(1, 1), store=store)
        found = kept.rows("logmel", store, 0, FrameSelection(1, 1))
        self.assertEqual(found.tolist(), [[65504.0, -65504.0, 1.5]])

    def test_a_full_disk_is_told_and_leaves_nothing(self):
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch("os.posix_fallocate", side_effect=full, create=True) as space:
            with self.assertRaisesRegex(InputError, "No space left.*free some"):
                self.compute(("logmel",), [0], FrameSelection(1, 100))
        # All of it is asked for, before anything is written.
        self.assertGreater(space.call_args.args[2], 100 * baselines.N_MELS * 2)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_interrupted_extraction_leaves_nothing(self):
        with mock.patch.object(HandMadeSource, "stream_together") as stream:
            stream.side_effect = lambda recordings: iter(
                [(0, np.zeros((1, 10, 3))), RuntimeError()]
            )
            with self.assertRaises(TypeError):
                self.compute(("logmel",), [0])
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
