"""The chunk store: exact samples, rebuilding, and refusal of damaged files."""

import json
import os
import resource
import shutil
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
import soundfile

from jtm.data.musicnet import open_dataset
from jtm.data.store import STORE_FOLDER, _place, build_store
from jtm.files import InputError, read_json, write_json
from jtm.music import audio


class TestStore(unittest.TestCase):
    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.root / "deep").mkdir()
        rng = np.random.default_rng(0)
        self.wave = rng.integers(-30000, 30000, 40000).astype(np.int16)
        soundfile.write(self.root / "a.wav", self.wave, 16000)
        sine = np.sin(2 * np.pi * 440 * np.arange(88200) / 44100)
        stereo = np.stack((0.5 * sine, 0 * sine), 1)
        soundfile.write(self.root / "deep" / "b.flac", stereo, 44100)

    def build(self):
        return build_store(open_dataset(self.root), progress=False)

    def test_samples_at_16_khz_are_stored_exactly(self):
        store = self.build()
        self.assertEqual([r.id for r in store.recordings], ["a.wav", "deep/b.flac"])
        np.testing.assert_array_equal(store.read(0), self.wave)
        np.testing.assert_array_equal(store.read(0, 100, 300), self.wave[100:300])

    def test_other_rates_and_stereo_become_mono_at_16_khz(self):
        store = self.build()
        self.assertEqual(store.lengths[1], 32000)
        expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
        middle = store.read(1)[2000:30000] / 32768
        np.testing.assert_allclose(middle, expected[2000:30000], atol=2e-3)

    def test_only_changed_recordings_are_rebuilt(self):
        self.build()
        files = sorted((self.root / STORE_FOLDER).rglob("*.s16"))
        times = [f.stat().st_mtime_ns for f in files]
        self.build()
        self.assertEqual(times, [f.stat().st_mtime_ns for f in files])
        soundfile.write(self.root / "a.wav", self.wave[::-1].copy()[:30000], 16000)
        store = self.build()
        self.assertEqual(store.lengths[0], 30000)
        self.assertEqual(files[1].stat().st_mtime_ns, times[1])

    def test_deleted_recording_is_removed_from_the_store(self):
        self.build()
        (self.root / "deep" / "b.flac").unlink()
        self.build()
        left = [f.name for f in (self.root / STORE_FOLDER).rglob("*.s16")]
        self.assertEqual(left, ["a.wav.s16"])

    def test_renamed_recording_is_stored_once(self):
        self.build()
        (self.root / "a.wav").rename(self.root / "c.wav")
        self.build()
        left = sorted(f.name for f in (self.root / STORE_FOLDER).rglob("*.s16"))
        self.assertEqual(left, ["b.flac.s16", "c.wav.s16"])

    def test_summary_depends_on_names_and_samples_not_on_the_path(self):
        before = self.build().summary([1], [0])
        self.assertEqual(before["recordings"], [1, 1])
        self.assertEqual(before["samples"], [32000, 40000])
        self.assertNotEqual(self.build().summary([0], [1]), before)
        moved = shutil.copytree(self.root, self.root / "moved")
        store = build_store(open_dataset(moved), progress=False)
        self.assertEqual(store.summary([1], [0]), before)
        soundfile.write(moved / "a.wav", self.wave[:30000], 16000)
        store = build_store(open_dataset(moved), progress=False)
        self.assertNotEqual(store.summary([1], [0])["sha256"], before["sha256"])

    def test_fingerprint_depends_on_content_not_on_the_path(self):
        before = self.build().fingerprint
        moved = shutil.copytree(self.root, self.root.parent / f"{self.root.name}-moved")
        self.addCleanup(shutil.rmtree, moved)

        def fingerprint():
            return build_store(open_dataset(moved), progress=False).fingerprint

        self.assertEqual(fingerprint(), before)
        (moved / "deep").rename(moved / "train_data")
        unlabelled = fingerprint()  # MusicNet's layout, of one recording
        self.assertNotEqual(unlabelled, before)
        (moved / "train_labels").mkdir()
        labels = moved / "train_labels" / "b.csv"
        labels.write_text("as they are")
        labelled = fingerprint()
        labels.write_text("as they were")
        (moved / "musicnet_metadata.csv").write_text("id,composer\nb,Bach\n")
        self.assertEqual(len({before, unlabelled, labelled, fingerprint()}), 4)
        wave = np.roll(self.wave, 1)  # as long as before
        soundfile.write(moved / "train_data" / "b.flac", wave, 16000)
        rolled = fingerprint()
        soundfile.write(moved / "train_data" / "b.flac", -wave, 16000)
        self.assertNotEqual(rolled, fingerprint())

    def test_store_folder_follows_argument_environment_or_home(self):
        cache = self.root.parent / f"{self.root.name}-cache"
        self.addCleanup(shutil.rmtree, cache, True)
        dataset = open_dataset(self.root)
        named = build_store(dataset, cache / "named", progress=False)
        with unittest.mock.patch.dict("os.environ", {"JTM_CACHE": str(cache / "set")}):
            of_variable = self.build()
        home = {"XDG_CACHE_HOME": str(cache / "home")}
        with (
            unittest.mock.patch.dict("os.environ", home),
            unittest.mock.patch("os.access", return_value=False),  # read-only
        ):
            of_home = build_store(dataset, progress=False)
            part = build_store(dataset, progress=False, part="notes")
        self.assertFalse((self.root / STORE_FOLDER).exists())
        for store, place in ((named, "named"), (of_variable, "set"), (of_home, "home")):
            self.assertTrue(store.files[0].is_relative_to(cache / place))
            np.testing.assert_array_equal(store.read(0), self.wave)
        self.assertEqual(part.files[0].parents[1].name, "notes")
        # Two datasets of one name in one folder: neither overwrites the other.
        other = self.root / "other" / self.root.name
        other.mkdir(parents=True)
        soundfile.write(other / "a.wav", -self.wave, 16000)
        build_store(open_dataset(other), cache / "named", progress=False)
        np.testing.assert_array_equal(named.read(0), self.wave)

    def test_missing_part_of_a_read_only_store_is_built_elsewhere(self):
        soundfile.write(self.root / "b.wav", self.wave, 16000)
        whole = self.build()
        for part in ("", "notes"):
            index = self.root / STORE_FOLDER / "index.json"
            entries = read_json(index)
            entries.pop("unlabelled/b.wav", None)
            write_json(index, entries)
            before = sorted(self.root.rglob("*"))
            home = {"XDG_CACHE_HOME": str(self.root.parent / f"{self.root.name}-home")}
            self.addCleanup(shutil.rmtree, home["XDG_CACHE_HOME"], True)
            with (
                unittest.mock.patch.dict("os.environ", home),
                unittest.mock.patch("os.access", return_value=False),  # read-only
            ):
                store = build_store(open_dataset(self.root), progress=False, part=part)
            self.assertEqual(store.checksums, whole.checksums)
            np.testing.assert_array_equal(store.read(1), whole.read(1))
            self.assertTrue(store.files[1].is_relative_to(home["XDG_CACHE_HOME"]))
            self.assertEqual(sorted(self.root.rglob("*")), before)

    def test_read_only_data_without_home_are_refused(self):
        with (
            unittest.mock.patch.dict("os.environ"),
            unittest.mock.patch("os.access", return_value=False),
            unittest.mock.patch("pathlib.Path.home", side_effect=RuntimeError),
        ):
            os.environ.pop("XDG_CACHE_HOME", None)
            with self.assertRaisesRegex(InputError, "--store.*JTM_CACHE"):
                self.build()
            (self.root / STORE_FOLDER).mkdir()  # a store that came with the data
            self.assertEqual(_place(self.root, None), self.root / STORE_FOLDER)

    def test_file_names_of_maximum_length(self):
        long = self.root / "deep" / ("x" * 251 + ".wav")
        soundfile.write(long, self.wave, 16000)
        store = self.build()
        np.testing.assert_array_equal(store.read(2), self.wave)
        times = [f.stat().st_mtime_ns for f in store.files]
        self.assertEqual([f.stat().st_mtime_ns for f in self.build().files], times)

    def test_damage_is_named_and_truncation_is_rebuilt(self):
        store = self.build()
        with open(store.files[0], "r+b") as file:
            file.write(b"damage")
        with self.assertRaisesRegex(InputError, "a.wav.s16: damaged"):
            self.build().read(0)
        with open(store.files[0], "r+b") as file:
            file.truncate(100)
        np.testing.assert_array_equal(self.build().read(0), self.wave)

    def test_damaged_index_is_rebuilt(self):
        whole = self.build()
        path = self.root / STORE_FOLDER / "index.json"
        index = read_json(path)
        key = next(iter(index))
        for damaged in (
            "[",
            "[]",
            "null",
            {key: {}},
            {key: None},
            {key: index[key] | {"samples": "1"}},
            {key: index[key] | {"sha256": None}},
            {key: {"source": index[key]["source"], "samples": 3}},
            index | {"../../a": index[key]},
        ):
            text = damaged if isinstance(damaged, str) else json.dumps(damaged)
            path.write_text(text)
            partial = path.with_name(".0123abcd.1.part.s16")  # left by a killed process
            partial.touch()
            self.assertEqual(self.build().checksums, whole.checksums)
            self.assertEqual(partial.exists(), "../../a" in damaged)  # nothing to build
            self.assertEqual(read_json(path), index)
            np.testing.assert_array_equal(self.build().read(0), self.wave)

    def test_change_of_a_source_while_it_is_read_is_noticed(self):
        blocks = audio.blocks

        def changed(path, *rest):
            yield from blocks(path, *rest)
            audio.write(path, np.zeros(100), 16_000)

        with unittest.mock.patch.object(audio, "blocks", changed):
            self.build()
        self.assertEqual(self.build().lengths.tolist(), [100, 100])

    def test_full_disk_is_reported_and_the_next_run_resumes(self):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:  # b.flac fits, a.wav does not
            resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, limits[1]))
            with self.assertRaisesRegex(InputError, "a.wav.s16: cannot be wr.*free"):
                self.build()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        left = [f.name for f in (self.root / STORE_FOLDER).rglob("*") if f.is_file()]
        self.assertEqual([name for name in left if ".part" in name], [])
        self.assertIn("index.json", left)
        np.testing.assert_array_equal(self.build().read(0), self.wave)

    def test_unreadable_file_is_named_and_the_rest_is_stored(self):
        (self.root / "bad.wav").write_bytes(b"RIFF????WAVE")
        with self.assertRaisesRegex(InputError, "bad.wav: not a readable audio"):
            self.build()
        (stored,) = (self.root / STORE_FOLDER).rglob("a.wav.s16")
        time = stored.stat().st_mtime_ns
        (self.root / "bad.wav").unlink()
        store = self.build()
        self.assertEqual(len(store.recordings), 2)
        self.assertEqual(store.files[0], stored)
        self.assertEqual(stored.stat().st_mtime_ns, time)

    def test_all_unreadable_files_are_reported_at_once(self):
        for i in range(12):
            (self.root / f"bad{i:02}.wav").write_bytes(b"")
        with self.assertRaises(InputError) as caught:
            self.build()
        lines = str(caught.exception).splitlines()
        self.assertEqual(len(lines), 12)
        for i in range(10):
            self.assertIn(f"bad{i:02}.wav: is empty", lines[i])
        self.assertRegex(lines[10], "and 2 more files")
        self.assertRegex(lines[11], "12 of 14 audio files .*`jtm check-data .* --all`")

    def test_broken_symlink_to_an_audio_file_is_named(self):
        (self.root / "train_data").mkdir()  # MusicNet's layout
        link = self.root / "train_data" / "1.wav"
        link.symlink_to(self.root / "a.wav")
        self.build()
        (self.root / "a.wav").unlink()
        with self.assertRaisesRegex(InputError, "1.wav: no such file"):
            self.build()


if __name__ == "__main__":
    unittest.main()
