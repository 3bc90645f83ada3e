"""The check of a dataset finds and names every kind of fault."""

import contextlib
import io
import shutil
import tempfile
import tracemalloc
import unittest
import warnings
from pathlib import Path

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.data import check as check_module
from jtm.data.check import Report, _count_overlaps, _Finding, check, coverage
from jtm.data.clips import Clip, write_clips
from jtm.data.musicnet import (
    LABEL_DTYPE,
    Recording,
    labels_of,
    write_labels,
    write_metadata,
)
from jtm.music import audio, midi
from jtm.music.score import Note, Score


def tones(score, seconds):
    """Synthesise a decaying tone per note, with a clear onset and pitch."""
    wave = np.zeros(int(seconds * LABEL_RATE))
    for note in score.notes:
        start, end = (round(t * LABEL_RATE) for t in (note.start, note.end))
        times = np.arange(end - start) / LABEL_RATE
        hertz = 440 * 2 ** ((note.pitch - 69) / 12)
        partials = sum(np.sin(2 * np.pi * k * hertz * times) / k for k in (1, 2, 3))
        fade = np.minimum(1, times[::-1] / 0.1)
        wave[start:end] += 0.2 * partials * np.exp(-3 * times) * fade
    return wave


def piece(seed):
    rng = np.random.default_rng(seed)
    return Score(
        tuple(
            Note(0.5 + 0.25 * i, 0.7 + 0.25 * i, 1, int(rng.integers(50, 80)))
            for i in range(20)
        )
    )


class TestCheck(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Build a small rendered dataset without faults."""
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.good = root = Path(folder.name) / "good"
        rows = []
        for i, split in enumerate(("train", "test")):
            score = piece(i)
            audio.write(root / f"{split}_data/{i}.wav", tones(score, 6), LABEL_RATE)
            labels = labels_of(score)
            write_labels(root / f"{split}_labels/{i}.csv", labels)
            midi.write(root / f"midi/{i}.mid", score)
            rows.append(
                dict.fromkeys(("composer", "ensemble"), "x")
                | {"id": i, "seconds": 6, "split": split}
                | {"tune_family": f"tune {i}", "soundfont": "bells"}
            )
        write_metadata(root / "musicnet_metadata.csv", rows)
        clips = []
        for pitch, split in ((45, "train"), (69, "train"), (81, "test")):
            path = root / "notes" / f"{pitch}.wav"
            wave = tones(Score((Note(0.1, 1.0, 1, pitch),)), 1.2)
            audio.write(path, wave, LABEL_RATE)
            clips.append(Clip(path, 1, pitch, 80, 4410, 44_100, split, "bells"))
        write_clips(root, clips)
        cls.clips, cls.rows = clips, rows

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "set"
        shutil.copytree(self.good, self.root)

    def assert_violates(self, *what):
        """Assert that exactly these checks fail; return the table."""
        report = check(self.root, progress=False, processes=1)
        found = [f.what for f in report.findings if f.violated]
        self.assertEqual(found, list(what), report.table())
        self.assertEqual(report.failed, bool(what))
        self.assertEqual(report.table().count("VIOLATED"), len(what))
        return report.table()

    def write_labels(self, *rows):
        write_labels(
            self.root / "train_labels/0.csv", np.array(list(rows), LABEL_DTYPE)
        )
        (self.root / "midi/0.mid").unlink()

    def test_valid_dataset_passes(self):
        self.assert_violates()

    def test_label_outside_its_file_is_found(self):
        self.write_labels((0, 7 * LABEL_RATE, 1, 60, 0, 1, "Quarter"))
        text = self.assert_violates("labels outside their file")
        self.assertIn("0.csv: 1", text)

    def test_overlapping_labels_are_found(self):
        row = (0, 9000, 1, 60, 0, 1, "Quarter")
        self.write_labels(row, (8999, 20_000, *row[2:]), (20_000, 30_000, *row[2:]))
        self.assert_violates("labels overlapping their own pitch")

    def test_malformed_labels_and_audio_are_named(self):
        (self.root / "train_labels/0.csv").write_text("start_time\n1\n")
        (self.root / "test_data/1.wav").write_bytes(b"RIFF")
        text = self.assert_violates("readable and consistent")
        self.assertRegex(text, "0.csv, line 1")
        self.assertRegex(text, "1.wav: not a readable audio file")

    def test_no_progress_bar_without_single_notes(self):
        (self.root / "notes.csv").unlink()
        with contextlib.redirect_stderr(io.StringIO()) as output:
            check(self.root, processes=1)
        self.assertIn("pieces: 100%", output.getvalue())
        self.assertNotIn("notes", output.getvalue())

    def test_labels_of_another_recording_are_found(self):
        shutil.copy(self.root / "test_labels/1.csv", self.root / "train_labels/0.csv")
        shutil.rmtree(self.root / "midi")
        text = self.assert_violates("labels unlike the audio")
        self.assertRegex(text, "train_labels/0.csv: correlation .* another recording")
        transposed = labels_of(piece(0))
        transposed["pitch"] += 1
        write_labels(self.root / "train_labels/0.csv", transposed)
        (self.root / "musicnet_metadata.csv").unlink()  # as with real recordings
        self.assert_violates("labels unlike the audio")

    def test_metadata_without_recordings_are_found(self):
        path = self.root / "musicnet_metadata.csv"
        write_metadata(path, [row | {"id": f"no. {row['id']}"} for row in self.rows])
        text = self.assert_violates(
            "recordings without metadata", "metadata without a recording"
        )
        self.assertRegex(text, "(?s)train_data/0.wav.*id 'no. 1'")
        write_metadata(path, [*self.rows, self.rows[0] | {"id": "gone"}])
        self.assertIn("id 'gone'", self.assert_violates())

    def test_skipped_and_truncated_files_are_named(self):
        (self.root / "2.m4a").write_bytes(b"")
        path = self.root / "test_data" / "1.wav"
        path.write_bytes(path.read_bytes()[:-26_000])
        text = self.assert_violates("cut off, or of odd level")
        self.assertRegex(text, "(?s)1.wav: cut off.*2.m4a: audio files outside")

    def test_table_names_ten_files_or_all(self):
        found = _Finding("files", "20", "0", True, tuple(f"<{i}>" for i in range(20)))
        report = Report(self.root, (found,))
        self.assertIn("and 10 more", report.table())
        self.assertNotIn("<10>", report.table())
        self.assertIn("<19>", report.table(None))

    def test_long_file_is_read_in_chunks(self):
        path = self.root / "unlabelled_data" / "long.wav"
        wave = np.random.default_rng(0).integers(-900, 900, 4_000_000).astype(np.int16)
        audio.write(path, wave, LABEL_RATE)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        facts = check_module._Facts()
        beginning = check_module._read_beginning(path, facts, seconds=1.0)
        self.assertEqual(len(beginning), LABEL_RATE)
        self.assertAlmostEqual(facts.seconds, 4e6 / LABEL_RATE)
        # Less than half of the 16 MB that the whole file takes in float32.
        self.assertLess(tracemalloc.get_traced_memory()[1], 8e6)

    def test_midi_that_differs_from_labels_is_found(self):
        midi.write(self.root / "midi/0.mid", piece(7))
        self.assert_violates("readable and consistent")

    def test_silent_clipped_and_identical_files_are_found(self):
        bell = tones(piece(2), 6)
        for name, wave in {
            "silent": 1e-4 * bell,
            "clipped": np.clip(10 * bell, -1, 1),
            "same": bell,
            "twin": bell,
        }.items():
            path = self.root / f"unlabelled_data/{name}.wav"
            audio.write(path, wave, LABEL_RATE)
        self.assert_violates("silent files", "clipped files", "identical files")

    def test_late_labels_are_found(self):
        for split, i in (("train", 0), ("test", 1)):
            labels = labels_of(piece(i))
            labels["start"] += LABEL_RATE // 25
            labels["end"] += LABEL_RATE // 25
            write_labels(self.root / f"{split}_labels/{i}.csv", labels)
        shutil.rmtree(self.root / "midi")
        self.assert_violates("onsets against the flux, median")

    def test_tune_in_two_splits_is_found(self):
        rows = [row | {"tune_family": "the same"} for row in self.rows]
        write_metadata(self.root / "musicnet_metadata.csv", rows)
        text = self.assert_violates("tune families in two splits")
        self.assertIn("the same: test, train", text)

    def test_unlabelled_audio_may_share_tunes_with_training(self):
        path = self.root / "unlabelled_data/2.wav"
        audio.write(path, tones(piece(2), 6), LABEL_RATE)
        rows = [*self.rows, self.rows[0] | {"id": 2, "split": "unlabelled"}]
        write_metadata(self.root / "musicnet_metadata.csv", rows)
        self.assert_violates()
        rows[2]["tune_family"] = rows[1]["tune_family"]
        write_metadata(self.root / "musicnet_metadata.csv", rows)
        text = self.assert_violates("tune families in two splits")
        self.assertIn("tune 1: test, train", text)

    def test_labels_without_any_note_are_found(self):
        shutil.rmtree(self.root / "midi")
        for path in self.root.glob("*_labels/*.csv"):
            write_labels(path, np.zeros(0, LABEL_DTYPE))
        self.assertIn("0.csv", self.assert_violates("label files without notes"))

    def test_single_notes_of_wrong_pitch_and_onset_are_found(self):
        shifted = [
            Clip(self.root / "notes" / c.audio.name, 1, c.pitch + 1, *rest)
            for c in self.clips
            for rest in [(80, c.start - 1000, c.end, c.split, "bells")]
        ]
        write_clips(self.root, shifted)
        text = self.assert_violates(
            "notes: onsets against the flux, median", "notes: pitch confirmed by YIN"
        )
        self.assertIn("69.wav: -100 cents", text)

    def test_single_note_shorter_than_its_analysis_is_named(self):
        path = self.root / "notes" / "45.wav"
        audio.write(path, np.full(44, 0.1), LABEL_RATE)
        text = self.assert_violates(
            "notes: readable and consistent", "notes: labels outside their file"
        )
        self.assertIn(f"{path.name}: 44 samples", text)

    def test_labelled_file_shorter_than_its_analysis_warns_of_nothing_else(self):
        path = next(iter(sorted((self.root / "train_data").iterdir())))
        audio.write(path, np.full(4410, 0.1), LABEL_RATE)
        with warnings.catch_warnings(action="error"):
            check(self.root, progress=False, processes=1)

    def test_single_note_in_two_splits_is_found(self):
        extra = self.clips[0]
        path = self.root / "notes" / "again.wav"
        wave = 0.5 * audio.read(extra.audio, LABEL_RATE)
        audio.write(path, wave, LABEL_RATE)
        again = Clip(path, 1, 45, 40, extra.start, extra.end, "test", "bells")
        write_clips(self.root, [*self.clips, again])
        self.assert_violates("notes: pitches of an instrument in two splits")

    def test_real_recordings_may_overlap_and_clip(self):
        (self.root / "musicnet_metadata.csv").unlink()
        row = (0, 9000, 41, 60, 0, 1, "Quarter")
        self.write_labels(row, row)
        loud = np.clip(10 * tones(piece(1), 6), -1, 1)
        audio.write(self.root / "test_data/1.wav", loud, LABEL_RATE)
        self.assert_violates()


class TestParts(unittest.TestCase):
    def test_hand_computed_overlaps(self):
        rows = [
            (0, 10, 1, 60, 0, 1, ""),
            (5, 20, 1, 60, 0, 1, ""),  # overlaps the first
            (5, 20, 41, 60, 0, 1, ""),  # another instrument
            (20, 30, 1, 60, 0, 1, ""),  # begins where the second ends
            (22, 23, 1, 61, 0, 1, ""),  # another pitch
        ]
        self.assertEqual(_count_overlaps(np.array(rows, LABEL_DTYPE)), 1)
        self.assertEqual(_count_overlaps(np.array([], LABEL_DTYPE)), 0)

    def test_hand_computed_coverage(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.csv"
            played = ((1, 21), (1, 21), (74, 96), (74, 97), (1, 110), (9, 60))
            rows = [(0, 1, program, pitch, 0, 1, "") for program, pitch in played]
            write_labels(path, np.array(rows, LABEL_DTYPE))
            bare = Recording("b", path, None, "train")
            counts, playable = coverage([Recording("a", path, path, "train"), bare])
        self.assertEqual(counts.shape, (11, 88))
        self.assertEqual((counts[0, 0], counts[10, 75], counts[10, 76]), (2, 1, 1))
        self.assertEqual(counts.sum(), 4)  # not the organ, nor a pitch beyond the piano
        self.assertEqual((playable[10, 75], playable[10, 76]), (True, False))
        self.assertEqual(playable.sum(), 511)

    def test_flux_peaks_at_a_click(self):
        wave = np.zeros(64 * 100, np.float32)
        wave[64 * 50] = 1
        rises = check_module._flux(wave)
        self.assertLessEqual(abs(int(np.argmax(rises)) - 50), 3)
        self.assertEqual(rises[60:].max(), 0)


if __name__ == "__main__":
    unittest.main()
