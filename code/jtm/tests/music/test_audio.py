"""Sound files come in as one channel at the rate asked for; times meet frames."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import soundfile

from jtm.files import InputError
from jtm.music import audio


class TestFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_channels_are_averaged(self):
        path = self.folder / "stereo.wav"
        soundfile.write(path, np.array([[0.5, 0.0], [0.25, -0.25]]), 16_000)
        np.testing.assert_allclose(audio.read(path), [0.25, 0.0], atol=1e-4)

    def test_resampled_tone_keeps_pitch_level_and_length(self):
        path = self.folder / "tone.flac"
        times = np.arange(44_100) / 44_100
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * times), 44_100)
        wave = audio.read(path, 16_000)
        self.assertLessEqual(abs(wave.size - 16_000), 1)
        self.assertEqual(np.argmax(np.abs(np.fft.rfft(wave, 16_000))), 1000)
        self.assertAlmostEqual(np.abs(wave[4000:12_000]).max(), 0.5, delta=0.01)
        self.assertEqual(wave.dtype, np.float32)

    def test_integers_are_written_as_they_are(self):
        path = self.folder / "deep" / "a.wav"
        wave = np.array([0, 1, -32768, 32767], np.int16)
        audio.write(path, wave, 44_100)
        back, rate = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(back, wave)
        self.assertEqual(rate, 44_100)
        self.assertEqual(audio.duration(path), 4 / 44_100)
        self.assertEqual([p.name for p in path.parent.iterdir()], ["a.wav"])

    def test_bad_files_are_named(self):
        empty = self.folder / "empty.wav"
        soundfile.write(empty, np.zeros(0), 16_000)
        corrupt = self.folder / "corrupt.wav"
        corrupt.write_bytes(b"RIFF and nothing")
        nan = self.folder / "nan.wav"
        soundfile.write(nan, np.array([0, np.nan]), 16_000, subtype="FLOAT")
        for path in (empty, corrupt, self.folder / "missing.wav"):
            for look in (audio.read, audio.duration):
                with self.assertRaisesRegex(InputError, path.name):
                    look(path)
        with self.assertRaisesRegex(InputError, "not finite"):
            audio.read(nan)

    def test_unwritable_folder(self):
        (self.folder / "file").write_text("")
        with self.assertRaisesRegex(InputError, "file"):
            audio.write(self.folder / "file" / "a.wav", np.zeros(3), 16_000)


class TestFrames(unittest.TestCase):
    def test_centres(self):
        self.assertAlmostEqual(audio.frames_to_seconds(0), 0.005)
        self.assertAlmostEqual(audio.frames_to_seconds(99), 0.995)

    def test_borders_belong_to_the_later_frame(self):
        frames = audio.seconds_to_frames([0, 0.0099, 0.01, 0.0199, 1.0])
        self.assertEqual(frames.tolist(), [0, 0, 1, 1, 100])

    def test_round_trip(self):
        frames = np.arange(10_000)
        back = audio.seconds_to_frames(audio.frames_to_seconds(frames))
        np.testing.assert_array_equal(back, frames)


if __name__ == "__main__":
    unittest.main()
