"""Audio is read to its real end, with a warning if the header states otherwise."""

import os
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np
import soundfile

from jtm.files import InputError, InputWarning
from jtm.music import audio

RATE = 44_100


class TestLengths(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def bytes_of(self, name, seconds=5, rate=RATE, **options):
        """Return the bytes of an audio file of noise with a loud second half."""
        rng = np.random.default_rng(0)
        wave = 0.1 * rng.standard_normal(seconds * rate)
        wave[: len(wave) // 2] *= 0.01
        path = self.folder / name
        options.setdefault("format", "AIFF" if path.suffix == ".aif" else None)
        soundfile.write(path, wave, rate, **options)
        return bytearray(path.read_bytes())

    def seconds(self, name, content, message=None):
        """Write bytes, read them as audio; return the seconds and check the warning."""
        path = self.folder / name
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            seconds = len(audio.read(path, RATE)) / RATE
        warned = " ".join(str(each.message) for each in caught)
        if message:
            self.assertRegex(warned, message)
        else:
            self.assertEqual(warned, "")
        return seconds

    def mp3(self):
        """Return an MP3 of 20 s with a frame count, and where its audio begins."""
        content = self.bytes_of("v.mp3", 20, bitrate_mode="VARIABLE")
        self.assertIn(b"Xing", content[:400])
        return content, content.index(b"\xff\xfb", 100)

    def test_mp3_after_several_tags(self):
        content, rng = self.bytes_of("t.mp3"), np.random.default_rng(0)

        def tag(size, flags=0):
            head = bytes([4, 0, flags, *(size >> 7 * i & 127 for i in (3, 2, 1, 0))])
            footer = b"3DI" + head if flags else b""
            return b"ID3" + head + rng.bytes(size) + footer  # such as a picture

        for tags in (tag(100) + tag(300_000), tag(100, 16) + tag(3000)):
            seconds = self.seconds("t.mp3", tags + content)
            self.assertAlmostEqual(seconds, 5, delta=0.1)

    def test_false_first_frame_of_an_mp3_is_ignored(self):
        content = bytes(self.bytes_of("t.mp3"))
        seconds = self.seconds("t.mp3", content[:4] + bytes(50) + content)
        self.assertAlmostEqual(seconds, 5, delta=0.1)

    def test_variable_bit_rate_mp3_without_frame_count(self):
        content, first = self.mp3()
        self.assertEqual(self.seconds("v.mp3", content), 20)
        # With a quiet half, the first or the last, no estimate holds.
        for bare in (content[first:], content[len(content) // 2 :] + content[first:]):
            found = self.seconds("x.mp3", bare)
            self.assertAlmostEqual(found, 20 * len(bare) / len(content), delta=8)
            self.assertGreater(found, 19)
            self.assertEqual(audio.duration(self.folder / "x.mp3"), found)

    def test_concatenated_mp3_files(self):
        content, first = self.mp3()
        found = self.seconds("two.mp3", content + content)
        self.assertAlmostEqual(found, 40, delta=0.2)
        tagged = b"ID3\x03\0\0\0\0\x01\x00" + 128 * b"\xff" + content
        self.assertEqual(self.seconds("tag.mp3", tagged), 20)
        self.seconds("cut.mp3", content[: len(content) // 3], "cut.mp3: cut off")

    def test_concatenated_wav_files(self):
        path = self.folder / "one.wav"
        soundfile.write(path, np.zeros(16_000), 16_000)
        self.seconds("two.wav", 2 * path.read_bytes(), "two.wav: only 1.0 s are read")

    def test_nothing_is_printed_about_a_damaged_file(self):
        content, _ = self.mp3()
        content[len(content) // 2 :][:3000] = bytes(3000)
        (self.folder / "cut.mp3").write_bytes(content[: len(content) * 2 // 3])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c"]
            + ["from jtm.music import audio; audio.read('cut.mp3')"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(Path(audio.__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("", "", 0))

    def test_audio_after_damage_is_read(self):
        for name in ("a.mp3", "a.flac", "a.ogg"):
            content = self.bytes_of(name)
            middle = len(content) // 2
            content[middle : middle + 1000] = 1000 * b"\xff"
            found = self.seconds(name, content, f"{name}: cut off or damaged; 4")
            self.assertGreater(found, 4)  # not only the first half

    def test_file_can_be_read_in_part(self):
        for name in ("a.wav", "a.mp3"):
            self.bytes_of(name, 20)
            next(audio.blocks(self.folder / name))
            handles = len(os.listdir("/proc/self/fd"))
            next(audio.blocks(self.folder / name))
            self.assertEqual(len(os.listdir("/proc/self/fd")), handles)

    def test_playlist_opens_no_other_file(self):
        self.bytes_of("a.wav")
        for name, text in (
            ("b.wav", "ffconcat version 1.0\nfile a.wav\n"),
            ("c.m3u8", f"#EXTM3U\n#EXTINF:5,\n{self.folder}/a.wav\n#EXT-X-ENDLIST\n"),
        ):
            with self.assertRaisesRegex(InputError, f"{name}: not a readable audio"):
                self.seconds(name, text.encode())

    def test_flac_without_length(self):
        content = self.bytes_of("a.flac")
        content[21] &= 0xF0  # 36 bits: number of samples, 0 from a pipe
        content[22:26] = bytes(4)
        self.assertEqual(self.seconds("p.flac", content), 5)
        self.assertEqual(audio.duration(self.folder / "p.flac"), 5)

    def test_wav_from_a_pipe_with_zero_or_maximum_length(self):
        for name, format, subtype in (
            ("a.wav", "WAV", "PCM_16"),
            ("a.wav", "WAVEX", "PCM_24"),
            ("a.wav", "WAV", "FLOAT"),
            ("a.wav", "RF64", "PCM_16"),
        ):
            content = self.bytes_of(name, format=format, subtype=subtype)
            expected = audio.read(self.folder / name)
            place = content.index(b"data") + 4
            if format == "RF64":
                place = content.index(b"ds64") + 16
            for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF):
                content[place : place + 4] = size.to_bytes(4, "little")
                self.assertEqual(self.seconds(name, content), 5)
                self.assertEqual(audio.duration(self.folder / name), 5)
                np.testing.assert_array_equal(audio.read(self.folder / name), expected)
                if format == "RF64":
                    break

    def test_empty_wav_is_refused_despite_later_chunks(self):
        content = self.bytes_of("a.wav")[:40] + bytes(4)
        more = b"LIST" + (RATE).to_bytes(4, "little") + bytes(RATE)
        for rest in (b"", more):
            with self.assertRaisesRegex(InputError, "a.wav: is empty"):
                self.seconds("a.wav", content + rest)

    def test_truncated_files_are_read_in_part_with_a_warning(self):
        for name in ("a.flac", "a.wav", "a.ogg", "a.aiff", "a.aif", "a.au"):
            content = self.bytes_of(name)
            self.assertEqual(self.seconds(name, content), 5)
            found = self.seconds(name, content[: len(content) // 2], "cut off")
            self.assertGreater(found, 1)
            self.assertLess(found, 4)
            if name == "a.flac":  # from a pipe: without length
                content[21] &= 0xF0
                content[22:26] = bytes(4)
                half = self.seconds(name, content[: len(content) // 2], "cut off")
                self.assertEqual(half, found)

    def test_data_beyond_the_stated_length_are_warned_about(self):
        wav, ogg = self.bytes_of("a.wav"), self.bytes_of("a.ogg")
        self.assertAlmostEqual(self.seconds("two.ogg", ogg + ogg), 10, delta=0.1)
        other = self.bytes_of("b.ogg", rate=22_050)
        self.seconds("two.ogg", ogg + other, "only 5.0 s .* what follows")
        wav[40:44] = (2 * RATE).to_bytes(4, "little")
        self.seconds("a.wav", wav, "only 1.0 s .* what follows")
        wav[4:8] = wav[40:44] = b"\xff" * 4  # as a recorder writes into a pipe
        self.assertEqual(self.seconds("a.wav", wav), 5)


class TestLevels(unittest.TestCase):
    def read(self, peak, subtype="FLOAT"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.wav"
            soundfile.write(path, np.array([0.0, peak, -peak]), 16_000, subtype=subtype)
            return audio.read(path)

    def test_integers_saved_as_floats_are_refused(self):
        for peak in (32_768, 8_388_607, 100):
            with self.assertRaisesRegex(InputError, "a.wav.*integers saved as floats"):
                self.read(peak)

    def test_clipping_is_warned_about(self):
        with self.assertWarnsRegex(InputWarning, "a.wav.*6.0 dB beyond full scale"):
            self.read(2.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.read(1.1)
            self.read(1.0, "PCM_16")

    def test_samples_beyond_full_scale_are_clipped(self):
        pcm = audio.to_pcm(np.array([1.01, -1.01, 5.0, 1.0]))
        self.assertEqual(pcm.tolist(), [32767, -32768, 32767, 32767])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.wav"
            audio.write(path, np.array([1.01, -1.01]), 16_000)
            self.assertEqual(soundfile.read(path, dtype="int16")[0][0], 32767)


if __name__ == "__main__":
    unittest.main()
