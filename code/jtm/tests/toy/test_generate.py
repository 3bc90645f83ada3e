"""Generation is reproducible, resumable, and never overwrites other files."""

import contextlib
import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import acoustics
import generate
import numpy as np
import synth
import voices
import works

from jtm import files
from jtm.constants import INSTRUMENTS
from jtm.data.check import check
from jtm.data.clips import read_clips
from jtm.data.musicnet import (
    open_dataset,
    read_labels,
    read_metadata,
)
from jtm.files import InputError

NANO = works.Preset(3, 1, 1, 2, (2.0, 3.0), 1, 1, 0, 36, 9e3)
"""A preset of a few seconds of music, quick to generate."""

LABELS = "86596e0b9f043bab"
"""Hash of its labels and MIDI files, as the first version generated them."""


def digests(root):
    """Hash every file except the one with the cost."""
    return {
        path.relative_to(root).as_posix(): files.digest(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != generate.COST_FILE
    }


def die(job):
    """Kill this process, as a system short of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until_waiting(test, generator, stderr):
    """Wait until a generator, in a thread, says that it waits for another process."""
    for _ in range(1200):
        if "waiting" in stderr.getvalue():
            break
        time.sleep(0.05)
    test.assertIn("another process", stderr.getvalue())
    test.assertTrue(generator.is_alive())


class TestGenerate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(mock.patch.dict(works.PRESETS, nano=NANO))
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.root = cls.folder / "set"
        generate.generate("nano", cls.root, progress=False, processes=2)
        cls.digests = digests(cls.root)

    def test_generated_dataset_passes_the_check(self):
        report = check(self.root, progress=False)
        self.assertFalse(report.failed, report.table())

    def test_layout_of_splits_and_files(self):
        dataset = open_dataset(self.root)
        sizes = {"train": 3, "validation": 1 + 11, "test": 1 + 11, "unlabelled": 2}
        for split, size in sizes.items():
            self.assertEqual(len(dataset.split(split)), size, split)
        timbre = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS) is not None
        self.assertEqual(len(dataset.split("test_timbre")), 12 * timbre)
        for recording in dataset.recordings:
            labelled = recording.split != "unlabelled"
            self.assertEqual(recording.labels is not None, labelled)
            self.assertEqual(
                (self.root / "midi" / f"{recording.id}.mid").exists(), labelled
            )
        for other in dataset.split("test_timbre"):
            for part in ("labels/{}.csv", "data/{}.wav"):
                same, new = (
                    self.digests[f"{split}_{part.format(other.id)}"]
                    for split in ("test", "test_timbre")
                )
                self.assertEqual(same == new, part.startswith("labels"), other.id)
        clips = read_clips(self.root)
        self.assertEqual({clip.split for clip in clips} >= {"train", "test"}, True)
        self.assertTrue(all(clip.audio.exists() for clip in clips))

    def test_labels_equal_those_of_the_first_version(self):
        # Recordings in use and published numbers depend on them. Audio is excluded, as
        # its last bit may depend on the processor.
        state = files.read_json(self.root / generate.STATE_FILE)
        if state["music21"] != "10.5.1":
            self.skipTest("another music21 may read another score")
        content = hashlib.sha256()
        for name in sorted(self.digests):
            if "test_timbre" not in name and name.endswith((".csv", ".mid")):
                if name not in ("musicnet_metadata.csv", "notes.csv"):
                    content.update(f"{name} {self.digests[name]}\n".encode())
        self.assertEqual(content.hexdigest()[:16], LABELS)

    def test_resumed_generation_gives_the_same_bytes(self):
        other = self.folder / "interrupted"
        calls = []

        def stop_after_a_while(*args):
            calls.append(args)
            if len(calls) == 20:
                raise KeyboardInterrupt
            return write(*args)

        write = generate.audio.write
        with (
            mock.patch.object(generate, "_Pool", InThisProcess),
            mock.patch.object(generate.audio, "write", stop_after_a_while),
            self.assertRaises(KeyboardInterrupt),
        ):
            generate.generate("nano", other, progress=False)
        self.assertFalse((other / "musicnet_metadata.csv").exists())
        self.assertEqual(len(list(other.rglob("*.wav"))), 19)
        (other / "train_data" / ".00005001.1.part.wav").write_bytes(b"half")
        generate.generate("nano", other, progress=False, processes=1)
        self.assertEqual(digests(other), self.digests)
        cost = files.read_json(other / generate.COST_FILE)
        self.assertGreater(cost["processor_seconds"], 0)

    def test_finished_dataset_is_not_generated_again(self):
        with mock.patch.object(works, "choose_works", side_effect=AssertionError):
            generate.generate("nano", self.root, progress=False)

    def test_metadata_name_the_soundfont_of_each_recording(self):
        if synth.find_soundfont(synth.TIMBRE_SOUNDFONTS) is None:
            self.skipTest("needs a second SoundFont")
        facts = {
            (r.split, r.metadata["soundfont"], r.metadata["split"])
            for r in open_dataset(self.root).split("test", "test_timbre", "train")
        }
        main = synth.default_soundfont().name
        unseen = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS).name
        self.assertEqual(
            facts,
            {
                ("train", main, "train"),
                ("test", main, "test"),
                ("test_timbre", unseen, "test_timbre"),
            },
        )

    def test_other_datasets_and_folders_are_refused(self):
        for preset, seed in (("tiny", 0), ("nano", 1)):
            with self.assertRaisesRegex(InputError, "another (preset|seed)"):
                generate.generate(preset, self.root, seed, progress=False)
        foreign = self.folder / "foreign"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("years of work")
        with self.assertRaisesRegex(InputError, "not a toy set"):
            generate.generate("nano", foreign, progress=False)
        with self.assertRaisesRegex(InputError, "is a file"):
            generate.generate("nano", foreign / "thesis.txt", progress=False)
        self.assertEqual([p.name for p in foreign.iterdir()], ["thesis.txt"])
        self.assertEqual(digests(self.root), self.digests)

    def test_invalid_soundfonts_and_seeds_are_refused(self):
        new = self.folder / "new"
        with self.assertRaisesRegex(InputError, "seed -1"):
            generate.generate("nano", new, seed=-1)
        with self.assertRaisesRegex(InputError, "no such SoundFont"):
            generate.generate("nano", new, soundfont="nowhere.sf2")
        with self.assertRaisesRegex(InputError, "used in training"):
            generate.generate("nano", new, soundfont=synth.default_soundfont())
        own = self.folder / "own.sf2"
        own.write_bytes(synth.default_soundfont().read_bytes() + b"more")
        same = shutil.copy(own, self.folder / synth.default_soundfont().name)
        with self.assertRaisesRegex(InputError, "named as one used in training; ren"):
            generate.generate("nano", new, soundfont=same)
        with self.assertRaisesRegex(InputError, "another SoundFont than .*own.sf2"):
            generate.generate("nano", self.root, soundfont=own)
        self.assertFalse(new.exists())

    def test_unfinished_set_is_no_dataset(self):
        copy = self.folder / "copy"
        shutil.copytree(self.root, copy)
        (copy / "musicnet_metadata.csv").unlink()
        with self.assertRaisesRegex(InputError, "copy: not a finished toy set, so"):
            open_dataset(copy)
        self.assertEqual(len(open_dataset(self.root).split("validation")), 12)

    def test_transcriber_learns_from_all_soundfonts_and_names_missing_ones(self):
        present, stderr = synth.PLAYER_SOUNDFONTS[1], io.StringIO()
        path = self.folder / present
        path.write_bytes(synth.default_soundfont().read_bytes() + b"more")
        find = mock.patch.object(
            synth, "find_soundfont", lambda names: path if present in names else None
        )
        with find, contextlib.redirect_stderr(stderr):
            fonts = generate._fonts(None, True)
            self.assertEqual(len(generate._fonts(None, False)["unlabelled"]), 1)
            with self.assertRaisesRegex(InputError, f"{present}: used in training"):
                generate._fonts(path, True)
        self.assertEqual(
            fonts["unlabelled"], [str(synth.default_soundfont()), str(path)]
        )
        for name in synth.EXTRA_SOUNDFONTS + synth.PLAYER_SOUNDFONTS:
            self.assertEqual(name in stderr.getvalue(), name != present)

    def test_invalid_inputs_are_refused_before_anything_is_written(self):
        new = self.folder / "broken"
        whole = synth.default_soundfont().read_bytes()
        damaged = self.folder / "damaged.sf2"
        silent = self.folder / "silent.sf2"
        samples = whole.index(b"smpl") + 8
        size = int.from_bytes(whole[samples - 4 : samples], "little")
        silent.write_bytes(whole[:samples] + bytes(size) + whole[samples + size :])
        for content in (b"RIFF", b"no SoundFont", whole[:100_000], whole[:-1000]):
            damaged.write_bytes(content)
            with self.assertRaisesRegex(InputError, "damaged.sf2: (not|has no)"):
                generate.generate("nano", new, soundfont=damaged, progress=False)
        with self.assertRaisesRegex(InputError, "silent.sf2: .* is silent"):
            generate.generate("nano", new, soundfont=silent, progress=False)
        with (
            mock.patch.object(voices.importlib.util, "find_spec", return_value=None),
            self.assertRaisesRegex(InputError, "missing; run pip"),
        ):
            generate.generate("nano", new, progress=False)
        for hours in (-1.0, 0.0, np.nan, np.inf):
            with self.assertRaisesRegex(InputError, "hours"):
                generate.generate("wide", new, hours=hours, progress=False)
        with self.assertRaisesRegex(InputError, "--preset wide"):
            generate.generate("nano", new, hours=1.0, progress=False)
        self.assertFalse(new.exists())

    def test_claimed_but_empty_folder_is_available(self):
        # An earlier version left such folders, and then refused other commands.
        claimed = self.folder / "claimed"
        files.write_json(claimed / generate.STATE_FILE, {"preset": "tiny", "seed": 3})
        with (
            mock.patch.object(generate, "_make", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            generate.generate("nano", claimed, progress=False)
        state = files.read_json(claimed / generate.STATE_FILE)
        self.assertEqual((state["preset"], state["seed"]), ("nano", 0))

    def test_second_generator_waits_for_the_first(self):
        together = self.folder / "together"
        with contextlib.ExitStack() as stack:
            stack.enter_context(generate._locked(together))
            part = together / "train_data" / ".00005001.1.part.wav"
            part.parent.mkdir()
            part.write_bytes(b"being written by the first")
            files.write_json(
                together / generate.STATE_FILE,
                files.read_json(self.root / generate.STATE_FILE),
            )
            stderr = io.StringIO()
            stack.enter_context(contextlib.redirect_stderr(stderr))
            second = threading.Thread(
                target=generate.generate, args=("nano", together), daemon=True
            )
            stack.enter_context(mock.patch.object(synth, "check_soundfont"))
            with mock.patch.object(generate, "_make") as make:
                second.start()
                wait_until_waiting(self, second, stderr)
                self.assertTrue(part.exists())
                # The first one finishes; the second then finds nothing to do.
                part.unlink()
                shutil.copy(self.root / "musicnet_metadata.csv", together)
                stack.close()
                second.join(30)
                self.assertFalse(second.is_alive())
                make.assert_not_called()

    def test_wide_preset_extends_and_excludes_held_out_works(self):
        wide = works.replace(NANO, hours=0.003, presets=("nano",), note_step=0)
        root = self.folder / "wide"
        with mock.patch.dict(works.PRESETS, vast=wide):
            generate.generate("vast", root, hours=0.001, progress=False, processes=2)
            few = digests(root)
            generate.generate("vast", root, progress=False, processes=1)
            other = self.folder / "wide at once"
            generate.generate("vast", other, progress=False, processes=2)
            self.assertEqual(digests(root), digests(other))
            with mock.patch.object(generate, "_make", side_effect=AssertionError):
                generate.generate("vast", root, hours=0.002, progress=False)
            with self.assertRaisesRegex(InputError, "--soundfont: .* no test split"):
                generate.generate("vast", root, soundfont=synth.default_soundfont())
            # Stopped, and run again for fewer hours; others' files are left.
            (other / "musicnet_metadata.csv").unlink()
            (other / "unlabelled_data" / "mine.wav").write_bytes(b"")
            generate.generate("vast", other, hours=0.001, progress=False, processes=1)
            (other / "unlabelled_data" / "mine.wav").unlink()
            self.assertEqual(digests(other), few)
        retained = {name: few[name] for name in few if name != "musicnet_metadata.csv"}
        self.assertEqual(retained, {name: digests(root)[name] for name in retained})
        recordings = open_dataset(root).recordings
        self.assertEqual({r.split for r in recordings}, {"unlabelled"})
        self.assertEqual(
            {r.metadata["soundfont"] for r in recordings},
            {Path(font).name for font in generate._fonts(None, False)["unlabelled"]},
        )
        state = files.read_json(root / generate.STATE_FILE)
        self.assertEqual(  # not the unseen one, which may be installed later
            {*state["soundfonts"]}, {r.metadata["soundfont"] for r in recordings}
        )
        self.assertGreater(len({r.metadata["tuning"] for r in recordings}), 1)
        seconds = sum(float(r.metadata["seconds"]) for r in recordings)
        self.assertGreaterEqual(seconds, 0.003 * 3600)
        for recording in recordings:
            programs = {int(p) for p in read_labels(recording.labels)["program"]}
            names = set(recording.metadata["instruments"].split("+"))
            self.assertEqual({INSTRUMENTS[p] for p in programs}, names)
        held_out = {
            row["corpus_path"]
            for row in read_metadata(self.root / "musicnet_metadata.csv")
            if row["split"] in ("validation", "test")
        }
        paths = {r.metadata["corpus_path"] for r in recordings}
        self.assertFalse(paths & held_out)
        report = check(root, progress=False)
        self.assertFalse(report.failed, report.table())

    def test_transcriber_preset_resumes_and_keeps_splits(self):
        chosen = {"hours": 0.04, "presets": ("nano",), "note_step": 0}
        preset = works.replace(NANO, labelled=True, seconds=(4.0, 6.0), **chosen)
        root, kinds = self.folder / "transcriber", dict.fromkeys(works.STUDIES, 0.2)
        with (
            mock.patch.dict(works.PRESETS, taught=preset),
            mock.patch.object(works, "VALIDATION_SHARE", 0.4),
            mock.patch.object(works, "STUDIES", kinds),
            contextlib.redirect_stderr(io.StringIO()),  # SoundFonts may be missing
        ):
            generate.generate("taught", root, progress=False, processes=2)
            expected = digests(root)
            (root / "musicnet_metadata.csv").unlink()  # and one piece with its labels
            lost = next(path for path in expected if path.endswith(".wav"))
            (root / lost).unlink()
            generate.generate("taught", root, progress=False, processes=1)
        self.assertEqual(digests(root), expected)
        recordings = open_dataset(root).recordings
        self.assertEqual({r.split for r in recordings}, {"train", "validation"})
        fonts = [r.metadata["soundfont"].split("+") for r in recordings]
        players = [r.metadata["instruments"].split("+") for r in recordings]
        self.assertEqual([*map(len, fonts)], [*map(len, players)])
        others, homes = set(), {}
        for row in read_metadata(self.root / "musicnet_metadata.csv"):
            homes.setdefault(row["corpus_path"], row["split"])
        for recording in recordings:
            labels = read_labels(recording.labels)
            self.assertGreater(len(labels), 0)
            named = recording.metadata["instruments"].split("+")
            self.assertEqual(len(np.unique(labels["program"])), len(named))
            others |= {*labels["program"].tolist()} - {*INSTRUMENTS}
            path = recording.metadata["corpus_path"]
            if path:
                home = homes.get(path, "train")
                self.assertEqual(home == "validation", recording.split == "validation")
                self.assertNotEqual(home, "test")
        self.assertTrue(others)
        self.assertLessEqual(others, {*acoustics.OTHERS})
        report = check(root, progress=False)
        self.assertFalse(report.failed, report.table())

    def test_command_line_exit_codes(self):
        for arguments, code in (
            (["--preset", "tiny", "--out", str(self.root)], 2),
            (["--preset", "nano", "--out", str(self.root)], 0),
        ):
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                self.assertEqual(generate.main(arguments), code)
            self.assertEqual(len(output.getvalue().splitlines()), 1 + (not code))
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            generate.main(["--preset", "smal"])

    def test_killed_worker_ends_generation_in_one_line(self):
        out, stderr = self.folder / "killed", io.StringIO()
        kill = mock.patch("generate._make_piece", die)
        with kill, contextlib.redirect_stderr(stderr):
            words = ["--preset", "nano", "--out", str(out)]
            self.assertEqual(generate.main(words), 2)
        self.assertRegex(stderr.getvalue(), "one of several processes was killed")
        self.assertNotIn("Traceback", stderr.getvalue())

    def test_metadata_columns_are_filled(self):
        rows = read_metadata(self.root / "musicnet_metadata.csv")
        for row in rows:
            exercise = row["source"] == "procedural"
            bare = exercise or row["split"] == "unlabelled"
            self.assertEqual(not row["ensemble"], bare)
            self.assertEqual(not row["composer"], exercise)
            self.assertTrue(row["soundfont"] and row["tune_family"] and row["seed"])


class InThisProcess(generate._Pool):
    """A pool without processes, so that a test can interrupt it anywhere."""

    def __init__(self, out, processes, progress):
        pass

    def __exit__(self, *_):
        pass

    def map(self, function, arguments, what):
        """Return the results of a function for all arguments, in order."""
        return [function(argument) for argument in arguments]


if __name__ == "__main__":
    unittest.main()
