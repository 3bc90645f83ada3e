"""From audio files to written files: no overwriting, and unusual audio."""

import html
import json
import os
import re
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pretty_midi
import soundfile

import jtm
from jtm.constants import INSTRUMENTS
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import read_notes
from jtm.data.store import build_store
from jtm.files import InputError, read_json, write_json
from jtm.tests.test_embedding import FolderTestCase, music, run
from jtm.tests.transcriber.toys import write_tiny
from jtm.transcriber import model, transcribe

KINDS = ("mid", "csv", "html")


class TranscribeTestCase(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"
        self.weights = write_tiny(self.folder / "tiny.safetensors")

    def transcribe(self, *inputs):
        options = ("--out", self.out, "--weights", self.weights, "--min-note-ms", 0)
        return run("transcribe", *options, *inputs)

    def written(self):
        found = {p.relative_to(self.out).as_posix() for p in self.out.rglob("*.*")}
        return found - {".lock", "transcriptions.json"}


class TestCommand(TranscribeTestCase):
    def test_folders_are_mirrored_and_unreadable_files_reported(self):
        self.audio("in/a/song.wav")
        self.audio("in/b/song.wav", seed=1)
        self.audio("in/b/song.flac", seed=2)
        (self.folder / "in" / "broken.wav").write_text("no sound")
        code, output = self.transcribe(self.folder / "in")
        self.assertEqual(code, 1, output)
        self.assertRegex(output, "jtm: .*broken.wav: not a readable audio file")
        message = r"3 of 4 transcribed \(\d+ notes\), 1 failed, 0 already done"
        self.assertRegex(output, message)
        self.assertIn("4 found, 0 skipped", output)
        names = ("a/song", "b/song.wav", "b/song.flac")
        files = {f"{name}.{kind}" for name in names for kind in KINDS}
        self.assertEqual(self.written(), files | {"index.html"})
        page = (self.out / "index.html").read_text()
        self.assertIn("3 recordings", page)
        code, output = self.transcribe(self.folder / "in" / "broken.wav")
        self.assertEqual(code, 2)
        self.assertIn("none of 1 files could be transcribed", output)

    def test_unchanged_sources_are_not_transcribed_again(self):
        song, other = self.audio("in/song.wav"), self.audio("in/other.wav", seed=1)
        self.assertIn("2 of 2 transcribed", self.transcribe(self.folder / "in")[1])
        before = (self.out / "other.mid").stat().st_mtime_ns
        soundfile.write(song, music(0.7, 16_000, seed=3).T, 16_000)
        (self.out / "song.csv").rename(self.folder / "kept.csv")
        code, output = self.transcribe(self.folder / "in")
        self.assertEqual(code, 0)
        message = r"1 of 2 transcribed \(\d+ notes\), 0 failed, 1 already done"
        self.assertRegex(output, message)
        self.assertEqual((self.out / "other.mid").stat().st_mtime_ns, before)
        self.assertNotEqual(
            (self.out / "song.csv").read_text(), (self.folder / "kept.csv").read_text()
        )
        # Other choices transcribe it again, and the earlier page is removed.
        choices = ("--min-note-ms", 10_000, "--no-page")
        code, output = self.transcribe(other, *choices)
        message = "1 of 1 transcribed (0 notes; 1 replaced, made with other options)"
        self.assertIn(message, output)
        self.assertEqual(len((self.out / "other.csv").read_text().split()), 1)
        self.assertNotIn("other.html", self.written())
        self.assertIn("song.html", self.written())
        index = (self.out / "index.html").read_text()
        self.assertNotIn("./other.html", index)
        self.assertIn("./song.html", index)

    def test_melody_is_written_next_to_the_transcription(self):
        song = self.audio("song.wav")
        code, output = self.transcribe(song)
        self.assertRegex(output, r"1 of 1 transcribed \(\d+ notes\), 0 failed")
        before = {p: p.read_bytes() for p in self.out.glob("song.*")}
        self.assertEqual(len(before), 3)
        code, output = self.transcribe(song, "--melody")
        self.assertNotIn("replaced", output)
        melody = {f"song.melody.{kind}" for kind in KINDS}
        self.assertLessEqual(melody, self.written())
        self.assertEqual({p: p.read_bytes() for p in before}, before)
        for name in ("song", "song.melody"):
            self.assertIn(f'"./{name}.html" dir="auto">{name}<', self.page("index"))
        self.assertIn("1 already done", self.transcribe(song, "--melody")[1])
        self.assertIn("1 already done", self.transcribe(song)[1])
        result = jtm.transcribe(song, weights=self.weights, min_note_ms=0)
        paths = result.melody().save(self.folder / "saved")
        self.assertEqual({path.name for path in paths}, melody)

    def test_index_lists_transcriptions_of_an_interrupted_run(self):
        for name in ("a.wav", "b.wav"):
            self.audio(f"in/{name}")
        whole = transcribe.find
        stopped = mock.Mock(side_effect=[mock.DEFAULT, KeyboardInterrupt], wraps=whole)
        with mock.patch.object(transcribe, "find", stopped):
            self.assertEqual(self.transcribe(self.folder / "in")[0], 130)
        self.assertIn("./a.html", self.page("index"))
        self.assertIn("1 already done", self.transcribe(self.folder / "in")[1])

    def test_index_lists_names_that_differ_in_their_suffix(self):
        names = ("song.wav", "song.flac")
        for name in names:
            self.audio(f"in/{name}")
        self.assertEqual(self.transcribe(self.folder / "in")[0], 0)
        for name in names:
            self.assertIn(f">{name}</a>", self.page("index"))

    def test_files_of_another_source_or_changed_ones_are_not_overwritten(self):
        first, second = self.audio("x/song.wav"), self.audio("y/song.wav", seed=1)
        self.out.mkdir()
        (self.out / "song.mid").write_text("of years ago")
        (self.out / "index.html").write_text("mine")
        code, output = self.transcribe(first)
        self.assertEqual(code, 2)
        self.assertRegex(output, "song.mid: not the file written for .*x/so")
        (self.out / "song.mid").unlink()
        code, output = self.transcribe(first)
        self.assertEqual(code, 0)
        self.assertIn(
            "index.html: not a generated index, or changed since; left", output
        )
        written = (self.out / "song.csv").read_bytes()
        code, output = self.transcribe(second)
        self.assertEqual(code, 2)
        self.assertRegex(output, "song: transcribes .*x/song.wav, not .*y/song.wav")
        self.assertEqual((self.out / "song.csv").read_bytes(), written)
        (self.out / "song.csv").unlink()
        (self.out / "song.csv").mkdir()
        code, output = self.transcribe(first, "--min-note-ms", "50")
        self.assertEqual(code, 2)
        self.assertRegex(output, "song.csv: not the file written for .*, or cha")
        (self.out / "song.csv").rmdir()
        (self.out / "song.csv").write_text("corrected by hand")
        self.assertEqual(self.transcribe(first)[0], 0)  # there already
        code, output = self.transcribe(first, "--min-note-ms", "50")
        self.assertEqual(code, 2)
        self.assertRegex(output, "song.csv: not the file written for .*, or cha")
        self.assertEqual((self.out / "song.csv").read_text(), "corrected by hand")
        self.assertEqual((self.out / "index.html").read_text(), "mine")

    def test_pages_show_the_name_of_the_piece(self):
        song = self.audio("song.wav")
        named = mock.patch("jtm.cli._piece", lambda path: f"{path.stem} & co")
        with named:
            self.assertEqual(self.transcribe(song)[0], 0)
        self.assertIn('class="piece" dir="auto">song &amp; co<', self.page("song"))
        self.assertIn("song &amp; co", self.page("index"))
        with named:
            self.assertEqual(self.transcribe(song, "--min-note-ms", "99999")[0], 0)
        self.assertFalse("&amp; co" in self.page("song"))  # without notes

    def test_progress_includes_naming_and_the_page(self):
        song, progress = self.audio("song.wav", 2.0), []
        weights = self.weights, model.load(self.weights).fingerprint

        def name(source):
            self.assertLess(sum(progress), 0.5)
            progress.append(0.0)
            return ""

        choices = (transcribe.Choices(), False, True, name)
        transcribe._transcribe_one(song, progress.append, weights, *choices)
        self.assertGreater(progress[progress.index(0.0) + 1], 1.5)  # naming
        self.assertGreater(len(progress), progress.index(0.0) + 2)  # the page
        self.assertAlmostEqual(sum(progress), 2.0, 1)

    def page(self, name):
        """Read a written page."""
        return (self.out / f"{name}.html").read_text()

    def test_outputs_of_different_files_have_different_names(self):
        files = "a.wav a.flac a.flac.wav b.wav c index.mp3 index.html.wav".split()
        root = Path("/music")
        sources = [root / file for file in files]
        names = transcribe._names(sources, root, False, {})
        expected = "a.wav a.flac a.flac.wav b c index.mp3 index.html.wav".split()
        self.assertEqual(list(names.values()), expected)
        rows = {"a": {"source": "/music/a.flac"}, "b": {"source": "/music/b.mp3"}}
        names = transcribe._names(sources, root, False, rows)
        self.assertEqual([*names.values()][:4], ["a.wav", "a", "a.flac.wav", "b"])

    def test_file_of_another_format_beside_it_leaves_a_file_as_it_is(self):
        self.audio("in/a.wav")
        self.transcribe(self.folder / "in")
        self.audio("in/a.flac", seed=1)
        code, output = self.transcribe(self.folder / "in")
        self.assertIn("1 of 2 transcribed", output)
        pages = {name for name in self.written() if name.endswith(".html")}
        self.assertEqual(pages, {"a.html", "a.flac.html", "index.html"})

    def test_page_named_index_and_symlink_out_of_the_folder(self):
        self.assertEqual(self.transcribe(self.audio("in/index.wav"))[0], 0)
        self.assertIn("index.wav.html", self.written())
        (self.folder / "elsewhere").mkdir()
        (self.out / "a").symlink_to(self.folder / "elsewhere")
        self.audio("in/a/song.wav")
        code, output = self.transcribe(self.folder / "in")
        self.assertEqual(code, 1)
        self.assertIn("leads outside", output)
        self.assertEqual(list((self.folder / "elsewhere").iterdir()), [])

    def test_too_long_names_are_refused_in_one_line(self):
        song = self.audio(f"{'x' * 251}.wav")  # NAME.mid fits, NAME.html doesn't
        code, output = self.transcribe(song)
        self.assertEqual(code, 2)
        self.assertIn("x.html: its name is too long; shorten it", output)
        code, output = self.transcribe(song, "--no-page")
        self.assertEqual(code, 0, output)
        names = {f"{'x' * 251}.{kind}" for kind in ("mid", "csv")}
        self.assertEqual(self.written() - {"index.html"}, names)
        with self.assertRaisesRegex(InputError, "its name is too long"):
            jtm.transcribe(song, weights=self.weights).save(self.folder / "saved")

    def test_killed_run_is_completed(self):
        song = self.audio("song.wav")
        with mock.patch.object(os, "replace", side_effect=KeyboardInterrupt):
            self.assertEqual(self.transcribe(song)[0], 130)
        whole, calls = os.replace, []

        def second(*paths):  # after the register, before any other file
            calls.append(paths)
            if len(calls) == 2:
                raise KeyboardInterrupt
            whole(*paths)

        with mock.patch.object(os, "replace", second):
            self.assertEqual(self.transcribe(song)[0], 130)
        self.assertEqual(self.written(), {"index.html"})
        self.assertEqual(self.transcribe(song)[0], 0)
        self.assertEqual(len(self.written()), 4)

    def test_interrupted_replacement_is_not_taken_for_done(self):
        song, choice = self.audio("song.wav"), ("--pitch-range", "C8-C8")
        self.transcribe(song)
        before = (self.out / "song.csv").read_text()
        self.assertGreater(len(before.splitlines()), 1)
        whole = os.replace

        def stop(part, path):
            if Path(path).name in ("song.mid", "song.csv", "song.html"):
                raise KeyboardInterrupt
            whole(part, path)

        with mock.patch.object(os, "replace", stop):
            self.assertEqual(self.transcribe(song, *choice)[0], 130)
        self.assertEqual((self.out / "song.csv").read_text(), before)
        self.assertIn("1 of 1 transcribed", self.transcribe(song, *choice)[1])
        self.assertEqual(len((self.out / "song.csv").read_text().splitlines()), 1)

    def test_odd_files_in_the_folder_do_not_end_a_run(self):
        self.out.mkdir()
        row = {"title": "", "piece": "", "seconds": "1", "notes": 1, "programs": [1]}
        for number, odd in enumerate(
            ({}, {"seconds": float("nan")}, {"seconds": 1.0, "programs": [[]]})
        ):
            content = html.escape(json.dumps(row | odd))
            page = f'<meta name="jtm-page" content="{content}">'
            (self.out / f"{number}.html").write_text(page)
        code, output = self.transcribe(self.audio("song.wav"))
        self.assertEqual(code, 0, output)
        self.assertIn("1 recording", (self.out / "index.html").read_text())
        (self.out / transcribe.REGISTER).write_text('{"song": 3}')
        code, output = self.transcribe(self.folder / "song.wav")
        self.assertEqual(code, 2)
        self.assertIn("not a register of transcriptions", output)

    def test_other_thresholds_of_the_same_weights_make_other_notes(self):
        """As those of a run's checkpoint do when the run ends."""
        song = self.audio("song.wav")
        self.assertIn("1 of 1 transcribed", self.transcribe(song)[1])
        same = model.load(self.weights)
        thresholds = {"frame": 0.99, "onset": 0.99}
        model.save(self.weights, same.network, same.config, thresholds)
        self.assertEqual(model.load(self.weights).fingerprint, same.fingerprint)
        code, output = self.transcribe(song)
        self.assertRegex(output, "1 of 1 transcribed .*1 replaced, made with other")
        self.assertIn("1 already done", self.transcribe(song)[1])

    def test_weights_are_loaded_once_for_many_recordings(self):
        wave = np.zeros(1600)
        with mock.patch.object(model, "load", wraps=model.load) as load:
            for _ in range(2):
                jtm.transcribe(wave, 16000, weights=self.weights)
            self.assertEqual(load.call_count, 1)
            write_json(self.weights.with_name("record.json"), {})
            jtm.transcribe(wave, 16000, weights=self.weights)  # may have thresholds
        self.assertEqual(load.call_count, 2)

    def test_weights_replaced_during_a_batch_are_loaded_again(self):
        """As in a worker of a cluster that lives longer than one command."""
        song = self.audio("song.wav")
        self.transcribe(song)
        other = model.load(self.weights)
        other.network.heads.readers["transcription"].own.data += 0.1
        model.save(self.weights, other.network, other.config, other.thresholds)
        named = str(self.weights), model.load(self.weights).fingerprint
        chosen = {"alone": False, "page": False, "name": None}
        transcribe._transcribe_one(
            song, lambda done: None, named, transcribe.Choices(), **chosen
        )

    def test_unexpected_error_in_one_file_does_not_end_the_batch(self):
        for name in ("a.wav", "b.wav"):
            self.audio(f"in/{name}")
        whole = transcribe.find
        broken = mock.Mock(side_effect=[RuntimeError("odd"), mock.DEFAULT], wraps=whole)
        with mock.patch.object(transcribe, "find", broken):
            code, output = self.transcribe(self.folder / "in")
        self.assertEqual(code, 1)
        self.assertRegex(output, "jtm: .*a.wav: unexpected RuntimeError: odd")
        self.assertRegex(output, r"1 of 2 transcribed \(\d+ notes\), 1 failed")

    def test_invalid_options_are_refused_in_one_line(self):
        song = self.audio("song.wav")
        for options, message in (
            (("--pitch-range", "high"), "--pitch-range high; expected the lowest and"),
            (("--pitch-range", "C9-A1"), "--pitch-range C9-A1; expected the lowest"),
            (("--instruments", "piano,tuba"), "--instruments tuba; expected some of"),
            (("--onset-threshold", "7"), "--onset-threshold 7.0; expected a prob"),
            (("--weights", song), "song.wav: not a checkpoint of JTM"),
        ):
            code, output = self.transcribe(song, *options)
            self.assertEqual(code, 2)
            self.assertIn(message, output)
            self.assertEqual(output.count("\n"), 1, output)

    def test_command_line_choices_limit_pitches_and_instruments(self):
        song = self.audio("song.wav")
        options = ("--pitch-range", "C4-72", "--instruments", "Flute, cello")
        self.assertEqual(self.transcribe(song, *options)[0], 0)
        midi = pretty_midi.PrettyMIDI(str(self.out / "song.mid"))
        pitches = {note.pitch for each in midi.instruments for note in each.notes}
        self.assertLessEqual(pitches, set(range(60, 73)))
        self.assertLessEqual({each.program + 1 for each in midi.instruments}, {74, 43})


class TestSave(TranscribeTestCase):
    def test_saved_table_loads_as_labels(self):
        folder = self.folder / "set"
        song = self.audio("set/train_data/1.wav", 1.0)
        result = jtm.transcribe(song, weights=self.weights, min_note_ms=0)
        self.assertGreater(len(result.notes), 10)
        table = result.save(folder / "train_labels", page=False)[1].read_text()
        self.assertLessEqual(max(map(len, re.split("[,\n]", table))), 10)
        store = build_store(open_dataset(folder), progress=False)
        found = read_notes(store.recordings[0], int(store.lengths[0]))
        for name, tolerance in (("start", 2e-5), ("end", 2e-5), ("pitch", 0)):
            np.testing.assert_allclose(found[name], result.notes[name], atol=tolerance)
        np.testing.assert_array_equal(found["program"], result.notes["program"])

    def test_midi_has_one_track_per_instrument(self):
        result = jtm.transcribe(
            self.audio("song.wav"), weights=self.weights, min_note_ms=0
        )
        tracks = result.midi().instruments
        programs = np.unique(result.notes["program"]).tolist()
        self.assertEqual([each.program + 1 for each in tracks], programs)
        self.assertEqual([t.name for t in tracks], [INSTRUMENTS[p] for p in programs])
        self.assertEqual(sum(len(t.notes) for t in tracks), len(result.notes))
        self.assertGreater(len({n.velocity for t in tracks for n in t.notes}), 3)

    def test_saving_does_not_overwrite_unless_requested(self):
        result = jtm.transcribe(
            self.audio("song.wav"), weights=self.weights, min_note_ms=0
        )
        paths = result.save(self.out)
        self.assertEqual([p.name for p in paths], ["song.mid", "song.csv", "song.html"])
        with self.assertRaisesRegex(InputError, "song.mid: exists already"):
            result.save(self.out)
        result.save(self.out, overwrite=True)

    def test_transcription_of_no_samples_is_saved(self):
        result = jtm.transcribe(np.zeros(0), 16_000, weights=self.weights)
        self.assertEqual((len(result.notes), result.seconds), (0, 0.0))
        self.assertEqual(len(result.save(self.out)), 3)
        self.assertEqual(self.written(), {f"recording.{k}" for k in KINDS})

    def test_register_records_source_and_choices(self):
        song = self.audio("song.wav")
        self.transcribe(song, "--onset-threshold", "0.5")
        row = read_json(self.out / "transcriptions.json")["song"]
        self.assertEqual(row["source"], str(song))
        self.assertEqual(row["choices"]["onset_threshold"], 0.5)


class TestShipped(unittest.TestCase):
    """The shipped transcriber on simple signals."""

    def notes(self, wave):
        return jtm.transcribe(wave, 16_000).notes

    def test_silence_and_noise_give_no_notes(self):
        noise = np.random.default_rng(0).normal(0, 0.1, 160_000)
        spectrum = np.fft.rfft(noise)
        for wave in (np.zeros(32_000), noise, 1e-3 * noise):
            self.assertEqual(len(self.notes(wave)), 0)
        for slope in (0.5, 1.0):  # pink and brown
            coloured = np.fft.irfft(spectrum / (1 + np.arange(80_001)) ** slope)
            self.assertLessEqual(len(self.notes(coloured)), 1)

    def test_note_at_the_start_is_found_at_any_level_and_tuning(self):
        time = np.arange(32_000) / 16_000
        for pitch, gain in ((60, 0.2), (60.4, 0.2), (60, 0.002), (59.6, 2.0)):
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
            found = self.notes(gain * tone * np.exp(-3 * time))
            self.assertEqual(found["pitch"].tolist(), [60])
            self.assertLess(found["start"][0], 0.05)


class TestUnusualAudio(TranscribeTestCase):
    """Unusual audio gives notes, none, or a one-line error."""

    def notes(self, wave, rate=16_000):
        path = self.folder / "odd.wav"
        soundfile.write(path, wave, rate, subtype="FLOAT")
        return jtm.transcribe(path, weights=self.weights, min_note_ms=0).notes

    def test_notes_do_not_depend_on_the_level(self):
        wave = music(1, 16_000)[0]
        expected = self.notes(wave)
        self.assertGreater(len(expected), 10)
        for factor in (2.0**-8, 8.0):  # beyond full scale, and not clipped
            found = self.notes(wave * factor)
            np.testing.assert_array_equal(found["start"], expected["start"])
            np.testing.assert_array_equal(found["velocity"], expected["velocity"])

    def test_offset_and_silence_before_do_not_change_the_notes(self):
        wave = music(1, 16_000)[0]
        expected = self.notes(wave)
        found = self.notes(wave * 0.3 + 0.25)
        fields = ["start", "pitch"]
        shared = np.intersect1d(found[fields], expected[fields])
        self.assertGreater(len(shared), 0.95 * len(expected))
        for seconds in (0, 100):
            late = np.concatenate((np.zeros(seconds * 16_000), self.sharp()))
            result = jtm.transcribe(late, 16_000, weights=self.weights)
            self.assertAlmostEqual(result.tuning, 0.3, 1)

    def sharp(self):
        """Return a chord of A, 30 cents sharp."""
        hertz = 440 * 2 ** ((np.array((-12, 0, 4, 7)) + 0.3) / 12)
        time = np.arange(32_000) / 16_000
        return 0.1 * np.sin(2 * np.pi * hertz[:, None] * time).sum(axis=0)

    def test_network_gets_recordings_as_in_its_training(self):
        transcriber = model.load(self.weights)
        wave, scales = self.sharp().astype(np.float32), []

        def stream(recording, tuning):
            scales.append((recording.scale == 1.0, tuning == 0.0))
            yield from ()

        transcriber.stream = stream
        for transcriber.normalised in (True, False):
            transcribe._transcribe(
                lambda a, b: wave[a:b], len(wave), transcriber, transcribe.Choices()
            )
        self.assertEqual(scales, [(False, False), (True, True)])

    def test_arrays_give_the_same_notes_as_files(self):
        wave = music(1, 44_100, 2)
        path = self.folder / "song.wav"
        soundfile.write(path, wave.T, 44_100, subtype="FLOAT")
        expected = jtm.transcribe(path, weights=self.weights, min_note_ms=0)
        found = jtm.transcribe(wave, 44_100, weights=self.weights, min_note_ms=0)
        self.assertAlmostEqual(found.seconds, 1.0, 3)
        fields = ["start", "pitch"]
        shared = np.intersect1d(found.notes[fields], expected.notes[fields])
        self.assertGreater(len(shared), 0.9 * len(expected.notes))
        with self.assertRaisesRegex(InputError, "sample_rate is for arrays"):
            jtm.transcribe(path, 44_100, weights=self.weights, min_note_ms=0)
        with self.assertRaisesRegex(InputError, "needs its sample_rate"):
            jtm.transcribe(wave, weights=self.weights, min_note_ms=0)
        for rate in (np.inf, np.nan, -16_000):
            with self.assertRaisesRegex(InputError, "needs its sample_rate"):
                jtm.transcribe(wave, rate, weights=self.weights)

    def test_silent_channel_does_not_change_the_notes(self):
        wave = music(1, 16_000)[0]
        expected = self.notes(wave)
        found = self.notes(np.stack((wave, np.zeros_like(wave)), axis=1))
        np.testing.assert_array_equal(found["start"], expected["start"])

    def test_notes_lie_within_any_kind_of_audio(self):
        rng, time = np.random.default_rng(0), np.arange(16_000) / 16_000
        for wave, rate in (
            (np.zeros(16_000), 16_000),
            (rng.normal(0, 0.1, 16_000), 16_000),
            (np.sin(2 * np.pi * 440 * time), 16_000),
            (np.clip(20 * music(1, 16_000)[0], -1, 1), 16_000),
            (music(0.05, 16_000)[0], 16_000),
            (music(1 / 16_000, 16_000)[0], 16_000),
            (music(1 / 44_100, 44_100)[0], 44_100),
            (music(1, 8000)[0], 8000),
            (music(1, 96_000)[0], 96_000),
        ):
            found, seconds = self.notes(wave, rate), len(wave) / rate
            self.assertTrue((found["start"] >= 0).all())
            self.assertTrue((found["end"] > found["start"]).all())
            self.assertTrue((found["end"] <= seconds + 1e-4).all())

    def test_empty_and_invalid_audio_are_refused(self):
        for content, message in (
            (np.zeros(0), "odd.wav: is empty"),
            (np.full(100, np.nan), "odd.wav: holds samples that are not finite"),
            (np.full(100, 9000.0), "likely integers saved as floats"),
        ):
            with self.assertRaisesRegex(InputError, message):
                self.notes(content)

    def test_truncated_mp3_is_transcribed_with_a_warning(self):
        path = self.folder / "song.mp3"
        soundfile.write(path, music(3, 44_100)[0], 44_100)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        code, output = self.transcribe(path)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, "song.mp3: cut off or damaged; 1.*s can be read")
        self.assertIn("song.html", self.written())

    def test_transcription_without_notes_is_written(self):
        path = self.folder / "one.wav"
        soundfile.write(path, np.zeros(1), 44_100)
        self.assertIn("1 of 1 transcribed (", self.transcribe(path)[1])
        self.assertIn("one.html", self.written())
        path = self.folder / "quiet.wav"
        soundfile.write(path, np.zeros(16_000), 16_000)
        code, output = self.transcribe(path, "--min-note-ms", "9999")
        self.assertEqual(code, 0, output)
        midi = pretty_midi.PrettyMIDI(str(self.out / "quiet.mid"))
        self.assertEqual(midi.instruments, [])
        self.assertEqual(len((self.out / "quiet.csv").read_text().split()), 1)


if __name__ == "__main__":
    unittest.main()
