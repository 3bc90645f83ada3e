"""The same command gives the same bytes, goes on where it stopped, harms nothing."""

import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

import generate
import recipe

from jtm import files
from jtm.data.check import check
from jtm.data.clips import read_clips
from jtm.data.musicnet import open_dataset, read_metadata
from jtm.files import InputError
from jtm.music import synth

NANO = recipe.Preset(3, 1, 1, 2, (2.0, 3.0), 1, 1, 0, 36, 9e3)
"""A few seconds of music, so that a test can afford it twice."""


def digests(root):
    """Hash every file but the one that tells the cost."""
    return {
        path.relative_to(root).as_posix(): files.digest(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != generate.COST_FILE
    }


class TestGenerate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(mock.patch.dict(recipe.PRESETS, nano=NANO))
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.root = cls.folder / "set"
        generate.generate("nano", cls.root, progress=False, processes=2)
        cls.digests = digests(cls.root)

    def test_check_finds_nothing(self):
        report = check(self.root, progress=False)
        self.assertFalse(report.failed, str(report))

    def test_layout(self):
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

    def test_interrupted_it_goes_on_to_the_same_bytes(self):
        other = self.folder / "interrupted"
        made = []

        def stop_after_a_while(*args):
            made.append(args)
            if len(made) == 20:
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
        (other / "train_data" / ".5001.1.part.wav").write_bytes(b"half")
        generate.generate("nano", other, progress=False, processes=1)
        self.assertEqual(digests(other), self.digests)
        cost = files.read_json(other / generate.COST_FILE)
        self.assertGreater(cost["processor_seconds"], 0)

    def test_finished_is_finished(self):
        with mock.patch.object(recipe, "choose_works", side_effect=AssertionError):
            generate.generate("nano", self.root, progress=False)

    def test_another_set_is_left_alone(self):
        for preset, seed in (("tiny", 0), ("nano", 1)):
            with self.assertRaisesRegex(InputError, "another (preset|seed)"):
                generate.generate(preset, self.root, seed, progress=False)
        foreign = self.folder / "foreign"
        foreign.mkdir()
        (foreign / "thesis.txt").write_text("years of work")
        with self.assertRaisesRegex(InputError, "something else"):
            generate.generate("nano", foreign, progress=False)
        with self.assertRaisesRegex(InputError, "is a file"):
            generate.generate("nano", foreign / "thesis.txt", progress=False)
        self.assertEqual([p.name for p in foreign.iterdir()], ["thesis.txt"])
        self.assertEqual(digests(self.root), self.digests)

    def test_soundfonts_and_seeds(self):
        new = self.folder / "new"
        with self.assertRaisesRegex(InputError, "seed -1"):
            generate.generate("nano", new, seed=-1)
        with self.assertRaisesRegex(InputError, "no such SoundFont"):
            generate.generate("nano", new, soundfont="nowhere.sf2")
        with self.assertRaisesRegex(InputError, "heard in training"):
            generate.generate("nano", new, soundfont=synth.default_soundfont())
        self.assertFalse(new.exists())

    def test_command_line(self):
        for arguments, code in (
            (["--preset", "tiny", "--out", str(self.root)], 2),
            (["--preset", "nano", "--out", str(self.root)], 0),
        ):
            told = io.StringIO()
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                self.assertEqual(generate.main(arguments), code)
            self.assertEqual(len(told.getvalue().splitlines()), 1)
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            generate.main(["--preset", "smal"])

    def test_metadata(self):
        rows = read_metadata(self.root / "musicnet_metadata.csv")
        for row in rows:
            exercise = row["source"] == "procedural"
            bare = exercise or row["split"] == "unlabelled"
            self.assertEqual(not row["ensemble"], bare)
            self.assertEqual(not row["composer"], exercise)
            self.assertTrue(row["soundfont"] and row["tune_family"] and row["seed"])


class InThisProcess(generate._Pool):
    """A pool that is none, so that a test can stop it where it likes."""

    def __init__(self, out, processes, progress):
        pass

    def __exit__(self, *_):
        pass

    def map(self, function, arguments, what):
        """Call for each argument; results in order."""
        return [function(argument) for argument in arguments]


if __name__ == "__main__":
    unittest.main()
