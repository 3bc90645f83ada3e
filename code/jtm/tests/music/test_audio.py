"""Audio files are read as one channel at the requested rate."""

import os
import tempfile
import unittest
import warnings
from pathlib import Path
from unittest import mock

import av
import numpy as np
import soundfile

from jtm.data.musicnet import open_dataset
from jtm.files import InputError, InputWarning
from jtm.music import audio, containers


def encode(path, wave, rate, codec):
    """Write a waveform in a format that only FFmpeg writes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.codec_context.layout = "mono"
        stream.codec_context.bit_rate = 128_000
        if codec == "wavpack":  # not its default of 8 bits
            stream.codec_context.format = "s16p"
        frame = av.AudioFrame.from_ndarray(audio.to_pcm(wave)[None], "s16", "mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


class TestFiles(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_channels_are_averaged(self):
        path = self.folder / "stereo.wav"
        soundfile.write(path, np.array([[0.5, 0.0], [0.25, -0.25]]), 16_000)
        np.testing.assert_allclose(audio.read(path), [0.25, 0.0], atol=1e-4)

    def test_channels_that_cancel_each_other_are_warned_about(self):
        path, tone = self.folder / "odd.wav", np.sin(np.arange(32_000) / 9)
        soundfile.write(path, np.stack((tone, -tone), axis=1), 44_100)
        with self.assertWarnsRegex(InputWarning, "odd.wav: its channels cancel each"):
            audio.read(path)
        with self.assertWarnsRegex(InputWarning, "the array: its channels cancel"):
            audio.to_wave(np.stack((tone, -tone)), 44_100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for second in (0 * tone, 0.8 * tone, np.cos(np.arange(32_000) / 5)):
                soundfile.write(path, np.stack((tone, second), axis=1), 44_100)
                audio.read(path)
            audio.to_wave(np.zeros((2, 32_000)), 44_100)

    def test_file_of_one_sample_at_every_rate(self):
        for rate in (8000, 16_000, 44_100, 96_000):
            soundfile.write(self.folder / "one.wav", np.ones(1), rate)
            self.assertGreaterEqual(len(audio.read(self.folder / "one.wav")), 1)

    def test_resampled_tone_keeps_pitch_level_and_length(self):
        path = self.folder / "tone.flac"
        times = np.arange(44_100) / 44_100
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * times), 44_100)
        wave = audio.read(path, 16_000)
        self.assertLessEqual(abs(wave.size - 16_000), 1)
        self.assertEqual(np.argmax(np.abs(np.fft.rfft(wave, 16_000))), 1000)
        self.assertAlmostEqual(np.abs(wave[4000:12_000]).max(), 0.5, delta=0.01)
        self.assertEqual(wave.dtype, np.float32)

    def test_only_the_requested_seconds_are_read(self):
        path = self.folder / "long.wav"
        wave = np.arange(-16_000, 16_000, dtype=np.int16)
        audio.write(path, wave, 16_000)
        for seconds, size in ((0.5, 8000), (2.0, 32_000), (9.0, 32_000)):
            start = audio.read(path, seconds=seconds)
            np.testing.assert_array_equal(audio.to_pcm(start), wave[:size])
        parts, blocks = [], audio.blocks

        def counted(*chosen):
            for part in blocks(*chosen):
                parts.append(part)
                yield part

        audio.write(path, np.zeros(16_000 * 600, np.int16), 16_000)
        with mock.patch.object(audio, "blocks", counted):
            self.assertEqual(len(audio.read(path, seconds=1.0)), 16_000)
            self.assertEqual(len(parts), 1)
            audio.read(path)
        self.assertGreater(len(parts), 2)

    def test_integers_are_written_unchanged(self):
        path = self.folder / "deep" / "a.wav"
        wave = np.array([0, 1, -32768, 32767], np.int16)
        audio.write(path, wave, 44_100)
        back, rate = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(back, wave)
        self.assertEqual(rate, 44_100)
        self.assertEqual(audio.duration(path), 4 / 44_100)
        self.assertEqual([p.name for p in path.parent.iterdir()], ["a.wav"])

    def test_unreadable_files_are_named(self):
        empty = self.folder / "empty.wav"
        soundfile.write(empty, np.zeros(0), 16_000)
        corrupt = self.folder / "corrupt.wav"
        corrupt.write_bytes(b"RIFF and nothing")
        nan = self.folder / "nan.wav"
        soundfile.write(nan, np.array([0, np.nan]), 16_000, subtype="FLOAT")
        for path in (empty, corrupt, self.folder / "missing.wav"):
            for function in (audio.read, audio.duration):
                with self.assertRaisesRegex(InputError, path.name):
                    function(path)
        with self.assertRaisesRegex(InputError, "not finite"):
            audio.read(nan)

    def test_each_kind_of_unreadable_file_has_its_own_message(self):
        (self.folder / "folder.wav").mkdir()
        os.mkfifo(self.folder / "pipe.wav")
        self.assertIn("is a pipe", containers._reason(self.folder / "pipe.wav"))
        for name, content in (
            ("zero.wav", b""),
            ("song.m4a", b"what ffmpeg reads"),
            ("text.wav", b"hello"),
            ("text.txt", b"hello"),
        ):
            (self.folder / name).write_bytes(content)
        soundfile.write(self.folder / "bare.wav", np.zeros(0), 16_000)
        for name, message in (
            ("none.wav", "no such file"),
            ("folder.wav", "is a folder; expected an audio file"),
            ("zero.wav", "is empty; expected audio"),
            ("bare.wav", "is empty; expected audio"),
            ("song.m4a", r"not a readable audio file \(damaged, or of another format"),
            ("text.wav", r"not a readable audio file \(damaged, or of another format"),
            ("text.txt", r"not a readable audio file \(expected .wav, .*, .m4a, .*\)"),
        ):
            for function in (audio.read, audio.duration):
                with self.assertRaisesRegex(InputError, rf"/{name}: {message}"):
                    function(self.folder / name)

    def test_all_listed_formats_are_read(self):
        wave = 0.1 * np.random.default_rng(0).standard_normal(48_000)
        formats = {".aif": "AIFF", ".opus": "OGG"}
        lossy = {".m4a": "aac", ".mp4": "aac", ".aac": "aac", ".wma": "wmav2"}
        lossy |= {".webm": "libopus", ".mka": "ac3"}
        lossless = {".wv": "wavpack"}
        for suffix in containers.AUDIO_SUFFIXES:
            path = self.folder / f"song{suffix}"
            seconds = 1.0
            if codec := (lossy | lossless).get(suffix):
                encode(path, wave, 48_000, codec)
                seconds = audio.duration(path)
                self.assertAlmostEqual(seconds, 1.0, delta=0.06, msg=suffix)
            else:
                kind = {"format": formats.get(suffix)}
                kind |= {"subtype": "OPUS"} if suffix == ".opus" else {}
                soundfile.write(path, wave, 48_000, **kind)
                self.assertEqual(audio.duration(path), 1.0, suffix)
            found = audio.read(path, 48_000)
            if suffix not in (".ogg", ".opus", ".mp3", *lossy):
                np.testing.assert_allclose(found, wave, atol=1e-4)
            self.assertAlmostEqual(len(found), 48_000 * seconds, delta=2048)
        found = open_dataset(self.folder)
        self.assertEqual(len(found.recordings), len(containers.AUDIO_SUFFIXES))
        self.assertEqual(found.skipped, ())

    def test_unwritable_folder_is_named(self):
        (self.folder / "file").write_text("")
        with self.assertRaisesRegex(InputError, "file"):
            audio.write(self.folder / "file" / "a.wav", np.zeros(3), 16_000)

    def test_silent_beginning_is_skipped_on_request(self):
        path = self.folder / "late.wav"
        wave = 0.1 * np.sin(np.arange(16_000))
        audio.write(path, np.concatenate((np.zeros(20 * 16_000), wave)), 16_000)
        found = audio.read(path, seconds=5, skip=True)
        self.assertGreater(np.abs(found).max(), 0.09)
        self.assertEqual(np.abs(audio.read(path, seconds=5)).max(), 0)
        audio.write(path, np.zeros(16_000), 16_000)
        self.assertEqual(len(audio.read(path, skip=True)), 0)


class TestLevel(unittest.TestCase):
    def wave(self, seconds=3.0):
        return np.random.default_rng(0).normal(0, 0.05, round(seconds * 16_000))

    def gain(self, wave):
        return audio.gain(audio.moments(wave)[1])

    def test_loud_and_soft_audio_is_normalised_to_one_level(self):
        wave = self.wave()
        for factor in (0.01, 1, 300):
            level = np.std(factor * wave * self.gain(factor * wave))
            self.assertAlmostEqual(level / audio.LEVEL, 1, 2)

    def test_silence_and_clicks_hardly_change_the_gain(self):
        wave = self.wave()
        padded = np.pad(wave, 160_000)
        self.assertAlmostEqual(self.gain(padded) / self.gain(wave), 1, 2)
        wave[1600 * 5 + 3] = 1.0
        clicked = self.gain(wave)
        wave[1600 * 5 + 3] = 0.0
        self.assertGreater(clicked / self.gain(wave), 0.9)

    def test_soft_audio_after_long_silence_is_normalised(self):
        wave = 1e-2 * self.wave()  # -81 dB on average with the silence
        padded = np.pad(wave, (16_000 * 100, 0))
        self.assertAlmostEqual(self.gain(padded) / self.gain(wave), 1, 2)

    def test_offset_is_removed_and_does_not_count_as_level(self):
        wave = self.wave()
        expected = audio.normalise(wave)
        np.testing.assert_allclose(audio.normalise(wave - 0.7), expected, atol=1e-6)
        late = np.pad(wave - 0.7, (160_000, 0))  # the silence has no offset
        found = audio.normalise(late)[160_000:]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        self.assertAlmostEqual(expected.std() / audio.LEVEL, 1, 2)
        self.assertEqual(len(audio.normalise(np.zeros(0))), 0)

    def test_minute_for_tuning_is_one_that_sounds(self):
        power = np.zeros(3000)  # blocks of 1600 samples
        for first, last in ((0, 100), (1000, 1500), (2900, 3000)):
            power[:] = 1e-6
            power[first:last] = 1
            start, stop = audio.middle(power, 3000 * 1600)
            self.assertEqual(stop - start, 60 * 16_000)
            self.assertLessEqual(start, 800 * (first + last))
            self.assertGreaterEqual(stop, 800 * (first + last))
        power[:] = 0
        power[[*range(200), *range(2700, 3000)]] = 1  # silent in the middle
        start, stop = audio.middle(power, 3000 * 1600)
        self.assertGreater(power[start // 1600 : stop // 1600].mean(), 0.4)
        self.assertEqual(audio.middle(np.zeros(0), 0), (0, 0))

    def test_silence_has_unit_gain(self):
        for n in (0, 1, 16_000):
            self.assertEqual(self.gain(np.zeros(n)), 1.0)
        self.assertEqual(self.gain(np.full(16_000, 9e-5)), 1.0)

    def test_last_block_is_weighted_by_its_length(self):
        wave = np.resize((1, -1), 1600 + 400)
        np.testing.assert_allclose(audio.moments(wave)[1], [1, 0.25])


class TestTuning(unittest.TestCase):
    def test_tuning_of_sharp_and_flat_notes(self):
        time = np.arange(48_000) / 16_000
        for cents in (-45, -10, 0, 30):
            pitches = np.array((57, 61, 64, 69)) + cents / 100
            hertz = 440 * 2 ** ((pitches - 69) / 12)
            wave = np.sin(2 * np.pi * hertz[:, None] * time).sum(axis=0)
            self.assertAlmostEqual(audio.tuning(wave), cents / 100, 2)
            self.assertEqual(audio.tuning(1e-4 * wave), audio.tuning(wave * 1e-4))

    def test_tuning_of_noise_and_silence_is_0(self):
        noise = np.random.default_rng(0).normal(0, 0.1, 80_000)
        for wave in (noise, np.zeros(80_000), np.zeros(100), np.zeros(0)):
            self.assertEqual(audio.tuning(wave), 0.0)


if __name__ == "__main__":
    unittest.main()
