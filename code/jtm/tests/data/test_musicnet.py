"""The reader is exact for every quirk of the real MusicNet, and names mistakes."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import soundfile

from jtm.data.check import check
from jtm.data.musicnet import (
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


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def write(self, name, *lines):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def sound(self, name, seconds=1.0, rate=44_100):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = np.arange(int(seconds * rate)) / rate
        hertz = 200 + len(list(self.root.rglob("*")))  # no two files alike
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * times), rate)
        return path


class TestRealQuirks(Folder):
    def setUp(self):
        super().setUp()
        self.sound("train_data/1727.wav", 5)
        self.sound("train_data/1728.wav", 5)
        self.sound("test_data/1759.wav", 5)
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


class TestFinding(Folder):
    def find(self):
        files, skipped = find_files(self.root)
        return [path.relative_to(self.root).as_posix() for path in files], skipped

    def test_links_are_followed_and_nothing_is_taken_twice(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            self.sound("b/real.wav")
            (Path(elsewhere) / "far.wav").write_bytes(b"")
            (self.root / "a").symlink_to(self.root / "b")  # sorts before it
            (self.root / "b" / "loop").symlink_to(self.root)
            (self.root / "c").symlink_to(elsewhere)
            (self.root / "0.wav").symlink_to(self.root / "b" / "real.wav")
            (self.root / "gone.wav").symlink_to(self.root / "nowhere.wav")
            (self.root / "itself").symlink_to("itself")
            found, skipped = self.find()
        self.assertEqual(found, ["b/real.wav", "c/far.wav"])
        told = _summarise(len(found), skipped)
        self.assertIn("2 found, 5 skipped", told)
        self.assertIn("1 links with an error (", told)
        for why in ("2 linked folders", "1 linked files", "1 broken links"):
            self.assertIn(why, told)

    def test_known_junk_alone_is_hidden(self):
        for name in ("._a.wav", ".DS_Store", "__MACOSX/b.wav", ".jtm-store/c.wav"):
            self.sound("x.wav").rename(self.write(name))
        self.sound("x.wav").rename(self.write(".d.1234.part.wav"))
        self.sound(".hidden/kept.wav")
        self.sound(".kept.wav")
        self.assertEqual(self.find(), ([".hidden/kept.wav", ".kept.wav"], []))

    def test_formats_that_are_not_read_are_named_with_what_to_do(self):
        self.sound("a.wav")
        self.write("deep/b.M4A", "")
        self.write("c.txt", "no sound")
        with self.assertWarnsRegex(InputWarning, "1 found, 1 skipped: 1 .m4a.*ffm"):
            open_dataset(self.root)
        (self.root / "a.wav").unlink()
        with self.assertRaisesRegex(InputError, "no audio file found.*m4a"):
            open_dataset(self.root)

    def test_metadata_that_match_nothing(self):
        self.sound("train_data/1.wav")
        self.write("musicnet_metadata.csv", "id,split", "x1,train", "x2,validation")
        with self.assertWarnsRegex(InputWarning, "2 of 2 rows.*'x1'.* 1 rec.*'1'"):
            dataset = open_dataset(self.root)
        self.assertEqual(dataset.unmatched_rows, ("x1", "x2"))
        self.sound("train_data/two.wav")
        self.write("musicnet_metadata.csv", "id,split", "1,train", "2,validation")
        with self.assertWarnsRegex(InputWarning, "1 of 2 rows.*'2'.*1 rec.*'two'"):
            open_dataset(self.root)  # or training would draw another validation
        (self.root / "train_data" / "two.wav").unlink()
        self.write("musicnet_metadata.csv", "id,split", " 1 ,validation", "2,train")
        dataset = open_dataset(self.root)
        self.assertEqual(dataset.unmatched_rows, ("2",))
        self.assertEqual(dataset.recordings[0].split, "validation")


class TestDataset(Folder):
    def test_validation_is_marked_in_the_metadata(self):
        for name in ("train_data/1", "train_data/2", "unlabelled_data/3"):
            self.sound(f"{name}.wav")
        self.write("musicnet_metadata.csv", "id,split", "1,train", "2,validation")
        dataset = open_dataset(self.root)
        self.assertEqual([r.id for r in dataset.split("train")], ["1"])
        self.assertEqual([r.id for r in dataset.split("validation")], ["2"])
        self.assertEqual(len(dataset.split("train", "validation", "unlabelled")), 3)
        with self.assertRaises(ValueError):
            dataset.split("valid")

    def test_any_folder_of_sound_files(self):
        for name in ("a.wav", "deep/er/b.FLAC", "._d.wav"):
            self.sound(name)
        self.write("notes.txt", "no sound")
        dataset = open_dataset(self.root)
        self.assertEqual(
            [r.id for r in dataset.recordings], ["a.wav", "deep/er/b.FLAC"]
        )
        self.assertEqual({r.split for r in dataset.recordings}, {"unlabelled"})

    def test_two_files_of_one_name_are_kept_apart_or_refused(self):
        for name in ("a.wav", "a.flac"):
            self.sound(f"plain/{name}")
        ids = [r.id for r in open_dataset(self.root / "plain").recordings]
        self.assertEqual(ids, ["a.flac", "a.wav"])
        for name in ("train_data/1.wav", "test_data/1.wav"):
            self.sound(name)
        self.assertEqual(len(open_dataset(self.root).recordings), 2)
        self.sound("train_data/1.flac")
        with self.assertRaisesRegex(InputError, "1.wav: the same id as 1.flac; .*rena"):
            open_dataset(self.root)

    def test_missing_and_empty_folders(self):
        with self.assertRaisesRegex(InputError, "no such folder"):
            open_dataset(self.root / "nowhere")
        with self.assertRaisesRegex(InputError, "no audio file"):
            open_dataset(self.root)


class TestMistakes(Folder):
    def test_labels(self):
        for line, told in (
            ("0,1,1,128,0,1,Quarter", "line 3: note 128"),
            ("0,1,1,-1,0,1,Quarter", "line 3: note -1"),
            ("0,1,0,60,0,1,Quarter", "line 3: instrument 0"),
            ("5,5,1,60,0,1,Quarter", "line 3: note from sample 5 to 5"),
            ("-1,5,1,60,0,1,Quarter", "line 3"),
            ("0.5,5,1,60,0,1,Quarter", "line 3"),
            ("0,5,1,60,zero,1,Quarter", "line 3"),
            ("0,5,1", "line 3"),
        ):
            path = self.write("a.csv", HEADING, "0,9,1,60,0,1,Quarter", line)
            with self.assertRaisesRegex(InputError, f"a.csv, {told}", msg=line):
                read_labels(path)

    def test_missing_column_and_file(self):
        path = self.write("a.csv", HEADING.replace("note,", "pitch,", 1))
        with self.assertRaisesRegex(InputError, "line 1: column note is missing"):
            read_labels(path)
        with self.assertRaisesRegex(InputError, "missing.csv: no such file"):
            read_labels(self.root / "missing.csv")
        (self.root / "b.csv").write_bytes(b"\xff\xfe\x00")
        with self.assertRaisesRegex(InputError, "b.csv: not a readable CSV"):
            read_labels(self.root / "b.csv")

    def test_metadata(self):
        path = self.write("m.csv", "id,composer", "1,Bach", "1,Bach")
        with self.assertRaisesRegex(InputError, "line 3: id 1 is repeated"):
            read_metadata(path)

    def test_what_a_short_row_leaves_out_is_empty(self):
        path = self.write("m.csv", "id,composer,ensemble", "1,Bach", "2")
        rows = [{"id": "1", "composer": "Bach", "ensemble": ""}]
        rows += [{"id": "2", "composer": "", "ensemble": ""}]
        self.assertEqual(read_metadata(path), rows)


class TestWriting(Folder):
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

    def test_no_notes(self):
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
