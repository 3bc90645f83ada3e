"""MusicNet's files are read exactly, with all quirks, and errors are named."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import soundfile

from jtm.data.batch import find
from jtm.data.check import check
from jtm.data.musicnet import (
    CLIPS_FILE,
    LABEL_COLUMNS,
    METADATA_COLUMNS,
    _summarise,
    find_files,
    labels_of,
    open_dataset,
    read_labels,
    read_metadata,
    write_labels,
    write_metadata,
)
from jtm.files import InputError, InputWarning
from jtm.music.score import Note, Score

HEADING = ",".join(LABEL_COLUMNS)


class FolderTestCase(unittest.TestCase):
    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, name, *lines):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def audio(self, name, seconds=1.0, rate=44_100):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = np.arange(int(seconds * rate)) / rate
        hertz = 200 + len(list(self.root.rglob("*")))  # no two files alike
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * times), rate)
        return path


class TestMusicNetFiles(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.audio("train_data/1727.wav", 5)
        self.audio("train_data/1728.wav", 5)
        self.audio("test_data/1759.wav", 5)
        # Unsorted rows; end_beat is a duration; two violins and a viola on one
        # pitch; a column more; a byte order mark.
        self.write(
            "train_labels/1727.csv",
            "\ufeff" + HEADING + ",remark",
            "90078,182000,41,64,5.5,0.333,Triplet Eighth,",
            "9182,90078,43,53,4.0,1.5,Dotted Quarter,x",
            "9182,90078,41,53,4.0,1.5,Dotted Quarter,",
            "40000,100000,41,53,4.5,2.0,Tied Quarter-Quarter,",
        )
        self.write("test_labels/1759.csv", HEADING, "0,44100,1,60,0.0,1.0,Quarter")
        self.write(
            "musicnet_metadata.csv",
            ",".join(METADATA_COLUMNS),
            '1727,Schubert,"Quintet, D 667",2. Andante,Piano Quintet,'
            "European Archive,http://example.org/1.mid,OP114,5",
            "1728,Bach,,,,,,,5",
            "9999,Bach,not in the folder,,,,,,5",
        )

    def test_labels_are_read_exactly(self):
        labels = read_labels(self.root / "train_labels/1727.csv")
        expected = [
            (9182, 90078, 41, 53, 4.0, 1.5, "Dotted Quarter"),
            (9182, 90078, 43, 53, 4.0, 1.5, "Dotted Quarter"),
            (40000, 100000, 41, 53, 4.5, 2.0, "Tied Quarter-Quarter"),
            (90078, 182000, 41, 64, 5.5, 0.333, "Triplet Eighth"),
        ]
        self.assertEqual(labels.tolist(), expected)

    def test_recordings_with_and_without_labels_and_metadata(self):
        dataset = open_dataset(self.root)
        facts = [
            (r.id, r.split, r.labels is not None, r.metadata.get("composer"))
            for r in dataset.recordings
        ]
        self.assertEqual(
            facts,
            [
                ("1727", "train", True, "Schubert"),
                ("1728", "train", False, "Bach"),
                ("1759", "test", True, None),
            ],
        )
        row = dataset.recordings[0].metadata
        self.assertEqual(row["composition"], "Quintet, D 667")

    def test_check_data_accepts_it(self):
        report = check(self.root, progress=False, processes=1)
        self.assertFalse(report.failed, report.table())


class TestAnnexedFiles(FolderTestCase):
    def test_audio_and_labels_may_be_links_into_a_repository(self):
        self.audio("train_data/1.wav")
        self.write("train_labels/1.csv", HEADING, "0,9,41,60,0,1,Quarter")
        for name in ("train_data/1.wav", "train_labels/1.csv"):  # as git-annex does
            path = self.root / name
            object = self.root / ".git" / "annex" / path.name
            object.parent.mkdir(parents=True, exist_ok=True)
            path.rename(object)
            path.symlink_to(object)
        dataset = open_dataset(self.root)
        self.assertEqual(dataset.skipped, ())
        (recording,) = dataset.recordings
        self.assertEqual(len(read_labels(recording.labels)), 1)


class TestFindFiles(FolderTestCase):
    def find(self):
        files, skipped = find_files(self.root)
        return [path.relative_to(self.root).as_posix() for path in files], skipped

    def test_symlinks_are_followed_and_no_file_is_found_twice(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            self.audio("b/real.wav")
            (Path(elsewhere) / "far.wav").write_bytes(b"")
            (self.root / "a").symlink_to(self.root / "b")  # sorts before it
            (self.root / "b" / "loop").symlink_to(self.root)
            (self.root / "c").symlink_to(elsewhere)
            (self.root / "0.wav").symlink_to(self.root / "b" / "real.wav")
            (self.root / "gone.wav").symlink_to(self.root / "nowhere.wav")
            (self.root / "itself").symlink_to("itself")
            paths, skipped = self.find()
        self.assertEqual(paths, ["b/real.wav", "c/far.wav"])
        summary = _summarise(len(paths), skipped)
        self.assertIn("2 found, 5 skipped", summary)
        self.assertRegex(summary, r"links with an error \(.*\) \(1\)")
        for reason in (
            "linked folders found already (2)",
            "linked files found already (1)",
            "broken links (1)",
        ):
            self.assertIn(reason, summary)

    def test_only_known_system_files_are_hidden(self):
        for name in ("._a.wav", ".DS_Store", "__MACOSX/b.wav", ".jtm-store/c.wav"):
            self.audio("x.wav").rename(self.write(name))
        self.audio("x.wav").rename(self.write(".0123abcd.1234.part.wav"))
        kept = [".hidden/kept.wav", ".kept.part1.wav", ".kept.wav"]
        for name in kept:
            self.audio(name)
        self.assertEqual(self.find(), (kept, []))

    def test_folder_without_audio_names_the_formats(self):
        self.write("deep/b.M4A", "")
        self.write("c.txt", "no sound")
        self.assertEqual(len(open_dataset(self.root).recordings), 1)
        (self.root / "deep" / "b.M4A").unlink()
        with self.assertRaisesRegex(InputError, "no audio file found.*m4a"):
            open_dataset(self.root)

    def test_label_files_without_a_recording_are_warned_about(self):
        self.audio("test_data/1760.wav")
        self.write("test_labels/1760.CSV", HEADING)
        with self.assertWarnsRegex(
            InputWarning, r"1 skipped: label files that no .* \(1\)"
        ):
            dataset = open_dataset(self.root)
        self.assertEqual(dataset.skipped[0][0].name, "1760.CSV")

    def test_unmatched_metadata_rows_are_warned_about(self):
        self.audio("train_data/1.wav")
        self.write("musicnet_metadata.csv", "id,split", "x1,train", "x2,validation")
        with self.assertWarnsRegex(InputWarning, "2 of 2 rows.*'x1'.* 1 rec.*'1'"):
            dataset = open_dataset(self.root)
        self.assertEqual(dataset.unmatched_rows, ("x1", "x2"))
        self.audio("train_data/two.wav")
        self.write("musicnet_metadata.csv", "id,split", "1,train", "2,validation")
        with self.assertWarnsRegex(InputWarning, "1 of 2 rows.*'2'.*1 rec.*'two'"):
            open_dataset(self.root)  # otherwise validation would be drawn at random
        (self.root / "train_data" / "two.wav").unlink()
        self.write("musicnet_metadata.csv", "id,split", " 1 ,validation", "2,train")
        dataset = open_dataset(self.root)
        self.assertEqual(dataset.unmatched_rows, ("2",))
        self.assertEqual(dataset.recordings[0].split, "validation")


class TestDataset(FolderTestCase):
    def test_validation_split_comes_from_the_metadata(self):
        for name in ("train_data/1", "train_data/2", "unlabelled_data/3"):
            self.audio(f"{name}.wav")
        self.write("musicnet_metadata.csv", "id,split", "1,train", "2,validation")
        dataset = open_dataset(self.root)
        self.assertEqual([r.id for r in dataset.split("train")], ["1"])
        self.assertEqual([r.id for r in dataset.split("validation")], ["2"])
        self.assertEqual(len(dataset.split("train", "validation", "unlabelled")), 3)
        with self.assertRaises(ValueError):
            dataset.split("valid")

    def test_any_folder_of_audio_files_is_a_dataset(self):
        for name in ("a.wav", "deep/er/b.FLAC", "._d.wav"):
            self.audio(name)
        self.write("notes.txt", "no sound")
        dataset = open_dataset(self.root)
        self.assertEqual(
            [r.id for r in dataset.recordings], ["a.wav", "deep/er/b.FLAC"]
        )
        self.assertEqual({r.split for r in dataset.recordings}, {"unlabelled"})

    def test_equal_file_names_are_distinguished_or_refused(self):
        for name in ("a.wav", "a.flac"):
            self.audio(f"plain/{name}")
        ids = [r.id for r in open_dataset(self.root / "plain").recordings]
        self.assertEqual(ids, ["a.flac", "a.wav"])
        for name in ("train_data/1.wav", "test_data/1.wav"):
            self.audio(name)
        self.assertEqual(len(open_dataset(self.root).recordings), 2)
        self.audio("train_data/1.flac")
        with self.assertRaisesRegex(InputError, "1.wav: the same id as 1.flac; .*rena"):
            open_dataset(self.root)

    def test_audio_outside_the_layout_is_counted(self):
        for name in ("test_data/1.wav", "2.wav", "album/3.wav", "notes/4.wav"):
            self.audio(name)
        with self.assertWarnsRegex(
            InputWarning, r"1 found, 3 skipped: .*outside Mus.* \(3\)"
        ):
            open_dataset(self.root)
        self.assertEqual(len(open_dataset(self.root, layout=False).recordings), 4)
        self.assertEqual(len(find([self.root])[0]), 4)
        self.write(CLIPS_FILE, "file")
        with self.assertWarnsRegex(InputWarning, "1 found, 2 skipped"):
            open_dataset(self.root)

    def test_missing_and_empty_folders_are_refused(self):
        with self.assertRaisesRegex(InputError, "no such folder"):
            open_dataset(self.root / "nowhere")
        with self.assertRaisesRegex(InputError, "a.txt: is a file; expected a folder"):
            open_dataset(self.write("a.txt", "no sound"))
        with self.assertRaisesRegex(InputError, "no audio file"):
            open_dataset(self.root)


class TestInvalidFiles(FolderTestCase):
    def test_invalid_labels_are_refused_with_their_line(self):
        for line, message in (
            ("0,1,1,128,0,1,Quarter", "line 3: note 128"),
            ("0,1,1,-1,0,1,Quarter", "line 3: note -1"),
            ("0,1,0,60,0,1,Quarter", "line 3: instrument 0"),
            ("5,5,1,60,0,1,Quarter", "line 3: note from sample 5 to 5"),
            ("-1,5,1,60,0,1,Quarter", "line 3"),
            (f"0,{10**20},1,60,0,1,Quarter", "line 3: note from sample 0 to 1"),
            ("0.5,5,1,60,0,1,Quarter", "line 3"),
            ("0,5,1,60,zero,1,Quarter", "line 3"),
            ("0,5,1", "line 3"),
        ):
            path = self.write("a.csv", HEADING, "0,9,1,60,0,1,Quarter", line)
            with self.assertRaisesRegex(InputError, f"a.csv, {message}", msg=line):
                read_labels(path)

    def test_missing_column_and_file_are_refused(self):
        path = self.write("a.csv", HEADING.replace("note,", "pitch,", 1))
        with self.assertRaisesRegex(InputError, "line 1: column note is missing"):
            read_labels(path)
        for mark, name in ((";", "semicolons"), ("\t", "tabs")):
            path = self.write("a.csv", HEADING.replace(",", mark))
            message = f"a.csv, line 1: separated by {name}; expected commas"
            with self.assertRaisesRegex(InputError, message):
                read_labels(path)
        with self.assertRaisesRegex(InputError, "missing.csv: no such file"):
            read_labels(self.root / "missing.csv")
        (self.root / "b.csv").write_bytes(b"\xff\xfe\x00")
        with self.assertRaisesRegex(InputError, "b.csv: not a readable CSV"):
            read_labels(self.root / "b.csv")

    def test_empty_rows_are_skipped(self):
        path = self.write("m.csv", "id,composer", "1,Bach", ",", " , ")
        self.assertEqual(read_metadata(path), [{"id": "1", "composer": "Bach"}])

    def test_repeated_ids_are_refused(self):
        path = self.write("m.csv", "id,composer", "1,Bach", "1,Bach")
        with self.assertRaisesRegex(InputError, "line 3: id 1 is repeated"):
            read_metadata(path)

    def test_values_with_an_unquoted_comma_are_refused(self):
        path = self.write("m.csv", "id,title,split", "1,Chorale, BWV 1,validation")
        with self.assertRaisesRegex(InputError, "line 2: more cells than columns"):
            read_metadata(path)
        path = self.write("m.csv", "id,title,split", '1,"Chorale, BWV 1",,,', "2,,,,")
        self.assertEqual([row["split"] for row in read_metadata(path)], ["", ""])

    def test_missing_fields_of_short_rows_are_empty(self):
        path = self.write("m.csv", "id,composer,ensemble", "1,Bach", "2")
        rows = [{"id": "1", "composer": "Bach", "ensemble": ""}]
        rows += [{"id": "2", "composer": "", "ensemble": ""}]
        self.assertEqual(read_metadata(path), rows)


class TestWriting(FolderTestCase):
    def test_labels_round_trip(self):
        notes = (
            Note(64 / 44_100, 128 / 44_100, 41, 60, 90, 0.5, 1.5),
            Note(0.0, 1.0, 1, 21, 20, 0.0, 0.25),
        )
        names = {1.5: "Dotted Quarter", 0.25: "Sixteenth"}
        labels = labels_of(Score(notes), names.get)
        write_labels(self.root / "a.csv", labels)
        lines = (self.root / "a.csv").read_text().splitlines()
        self.assertEqual(lines[0], HEADING)
        self.assertEqual(lines[1], "0,44100,1,21,0.0,0.25,Sixteenth")
        self.assertEqual(lines[2], "64,128,41,60,0.5,1.5,Dotted Quarter")
        back = read_labels(self.root / "a.csv")
        self.assertEqual(back.tolist(), labels.tolist())

    def test_empty_labels_round_trip(self):
        write_labels(self.root / "a.csv", labels_of(Score(())))
        self.assertEqual(len(read_labels(self.root / "a.csv")), 0)

    def test_metadata_columns_keep_musicnets_order(self):
        row = dict.fromkeys(METADATA_COLUMNS, "x") | {"split": "train"}
        write_metadata(self.root / "m.csv", [row])
        heading = (self.root / "m.csv").read_text().splitlines()[0]
        self.assertEqual(heading, ",".join((*METADATA_COLUMNS, "split")))
        self.assertEqual(read_metadata(self.root / "m.csv"), [row])


if __name__ == "__main__":
    unittest.main()
