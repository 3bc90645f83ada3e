"""Output of `jtm index` and `jtm identify`, the shipped index, the study's page."""

import contextlib
import io
import re
import tempfile
import unittest
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm import cli
from jtm.constants import SAMPLE_RATE
from jtm.files import InputWarning, write_json
from jtm.music import audio
from jtm.results import render
from jtm.retrieval import data, model, run, search, tables
from jtm.retrieval.figures import retrieval_figures
from jtm.retrieval.pages import describe
from jtm.tests.retrieval.little import play, tune, write_abc


def run_command(*arguments):
    """Run a command; return its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


class TestCommands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        torch.manual_seed(0)
        towers = model.Towers().eval()
        cls.weights = cls.folder / "towers.safetensors"
        model.save(cls.weights, towers, {"threshold": 1e9, "confidence": [0.0, 0.1]})
        for seed in range(6):
            write_abc(cls.folder / "scores" / f"{seed}.abc", tune(seed), f"Tune {seed}")
        cls.index = cls.folder / "i.safetensors"
        search.build(cls.folder / "scores", cls.index, None, cls.weights, False)
        wave, _ = play(tune(1), tempo=90)  # long enough to try other keys
        audio.write(cls.folder / "song.wav", wave, SAMPLE_RATE)

    def identify(self, wave=None):
        """Identify samples, or the song."""
        path = self.folder / "song.wav"
        if wave is not None:
            path = self.folder / "odd.wav"
            audio.write(path, wave, SAMPLE_RATE)
        shipped = search.find.__defaults__[:2] + (self.weights, False)
        with mock.patch.object(search.find, "__defaults__", shipped):
            return run_command("identify", path, "--index", self.index)

    def test_five_matches_with_confidence_and_position(self):
        code, out, err = self.identify()
        lines = out.splitlines()
        self.assertEqual((code, len(lines)), (0, 1 + search.MAX_MATCHES))
        self.assertIn("Keys", err)  # a progress bar
        self.assertIn("not found", lines[0])  # above this threshold nothing is
        for line in lines[1:]:
            self.assertRegex(
                line, r"^ *\d+ %  Tune \d \(\d.abc\), matched at \d+-\d+ s"
            )
            self.assertRegex(line, r"s, from quarter \d+ of \d+")

    def test_audio_beyond_full_scale_is_not_said_to_be_clipped(self):
        import soundfile

        path = self.folder / "loud.wav"
        wave = 4 * play(tune(1))[0]
        self.assertGreater(np.abs(wave).max(), 1)
        soundfile.write(path, wave, SAMPLE_RATE, subtype="FLOAT")
        shipped = search.find.__defaults__[:2] + (self.weights, False)
        with (
            mock.patch.object(search.find, "__defaults__", shipped),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error", InputWarning)
            describe(path, self.index)

    @contextlib.contextmanager
    def searched(self, votes, piece=1):
        """Let searches find a piece with `votes` in each key, 0.3 by default."""
        keys = []

        def search_in_keys(towers, index, starts, windows, chosen):
            for key in chosen:
                keys.append(key)
                yield [(piece, votes.get(key, 0.3), 0.0, 1.0, np.array([0, 1]))]

        towers = None, {"threshold": 2.0}, model.load(self.weights)[2]
        read = mock.Mock(return_value=towers)
        with mock.patch.multiple(search, search_in_keys=search_in_keys, _towers=read):
            yield keys

    def test_transposed_pieces_are_found_and_reported(self):
        enough = 0.3 * search.KEY_THRESHOLD  # relative to the median
        votes = {-9: 1.01 * enough}
        with self.searched(votes) as keys:
            for votes[0] in (0.3, enough):  # not found there, and a weaker hit
                keys.clear()
                _, out, _ = self.identify()
                first, second = out.splitlines()
                self.assertRegex(first, r"song.wav: (perhaps )?Tune \d")
                self.assertRegex(second, r", 9 semitones below the score$")
                self.assertEqual(keys, [*search.KEYS])
            votes[0] = search.CERTAIN_MARGIN / 1.5
            keys.clear()
            _, out, _ = self.identify()
            self.assertNotIn("semitone", out)
            self.assertEqual(keys, [0])
            votes |= {0: 0.3, -9: 0.99 * enough}
            _, out, _ = self.identify()
            self.assertIn("not found", out)

    def test_match_has_its_place_in_piece_and_recording(self):
        row = 1, 9.0, 3.0, 2.0, np.array([2, 5])  # from quarter 3, 2 a second
        wave, _ = play(tune(1))
        with mock.patch.object(search, "search_in_keys", return_value=[[row]]):
            found, _ = search.find(wave, SAMPLE_RATE, self.index, self.weights)
        (match,) = found
        first, last = 2 * search.HOP_SECONDS, 5 * search.HOP_SECONDS
        self.assertEqual((match.start, match.end), (first, last + data.SECONDS))
        self.assertEqual((match.beat, match.title), (3 + 2 * first, "Tune 1"))

    def test_only_pieces_of_the_index_are_returned(self):
        with self.searched({3: 2.0}, piece=6):  # the background
            _, out, _ = self.identify()
        self.assertRegex(out, r"\A\S+song.wav: not found; silent")

    def test_headline_of_an_unsure_match_says_perhaps(self):
        matches = [search.Match("Tune 1", "1.abc", 0.23, 0, 1, 0, 1)]
        command = "identify", self.folder / "song.wav"
        with mock.patch.object(search, "find", return_value=(matches, True)):
            _, out, _ = run_command(*command)
            self.assertRegex(out, r"\A\S+song.wav: perhaps Tune 1 \(23 %\)\n")
            with mock.patch.object(search, "CONFIDENT", 0.23):
                _, out, _ = run_command(*command)
            self.assertRegex(out, r"\A\S+song.wav: Tune 1\n")

    def test_other_keys_that_are_not_tried_are_reported(self):
        wave, _ = play(tune(1), tempo=90)
        with self.searched({}) as keys:
            for samples, n_keys in (264_000, len(search.KEYS)), (263_999, 1):
                keys.clear()
                _, out, _ = self.identify(wave[:samples])
                self.assertEqual(len(keys), n_keys)
                line = "other keys not tried: less than 17 s of sound"
                self.assertEqual(line in out.splitlines(), n_keys == 1)

    def test_silence_takes_no_window_from_music_in_a_long_recording(self):
        wave, _ = play(tune(1), tempo=90)
        wave = wave[: 20 * 16_000]
        long = np.pad(wave, (60 * 16_000, 180 * 16_000))
        long += 1e-3 * np.random.default_rng(0).normal(size=len(long))
        n_windows = len(search.cut_windows(wave)[0])
        self.assertGreaterEqual(len(search.cut_windows(long)[0]), n_windows)
        with self.searched({}) as keys:
            _, out, _ = self.identify(np.pad(wave[: 15 * 16_000], (96_000, 0)))
            self.assertEqual(len(keys), 1)
            self.assertIn("other keys not tried", out)

    def test_silent_short_and_speech_like_audio(self):
        rng = np.random.default_rng(0)
        code, out, _ = self.identify(np.zeros(48_000))
        self.assertEqual(code, 0)
        self.assertIn("silent", out)
        code, _, err = self.identify(0.1 * rng.standard_normal(3_200))
        self.assertEqual(code, 2)
        self.assertRegex(err, r"^jtm: .*odd.wav: 0\.2 s.*\n$")
        time = np.arange(48_000) / SAMPLE_RATE  # bursts of noise, like speech
        speech = 0.1 * rng.standard_normal(48_000) * (np.sin(20 * time) > 0)
        code, out, _ = self.identify(speech)
        self.assertEqual(code, 0)
        self.assertIn("not found", out)

    def test_mismatched_towers_and_empty_folders_are_refused(self):
        other = self.folder / "other.safetensors"
        model.save(other, model.Towers().eval(), {})
        shipped = search.find.__defaults__[:2] + (other, False)
        with mock.patch.object(search.find, "__defaults__", shipped):
            code, _, err = run_command(
                "identify", self.folder / "song.wav", "--index", self.index
            )
        self.assertEqual(code, 2)
        self.assertRegex(err, "^jtm: .*another version.*\n$")
        (self.folder / "empty").mkdir(exist_ok=True)
        args = ("index", self.folder / "empty", "--out", self.folder / "e.safetensors")
        with mock.patch.object(search.build, "__defaults__", (None, other, False)):
            code, _, err = run_command(*args)
        self.assertEqual(code, 2)
        self.assertRegex(err, "^jtm: .*no score found.*\n$")

    def test_name_of_a_piece_for_pages(self):
        wave, _ = play(tune(1), tempo=90)
        patched = mock.patch.object(search, "find")
        with patched as find:
            match = search.Match("Tune 1", "1.abc", 0.9, 0, 1, 0, 1)
            find.return_value = ([match], True)
            self.assertEqual(search.identify(wave, SAMPLE_RATE), "Tune 1")
            find.return_value = ([match], False)
            self.assertIsNone(search.identify(wave, SAMPLE_RATE))
            unsure = search.Match("Tune 1", "1.abc", 0.49, 0, 1, 0, 1)
            find.return_value = ([unsure], True)
            self.assertIsNone(search.identify(wave, SAMPLE_RATE))
            song = self.folder / "long.wav"
            audio.write(song, wave, SAMPLE_RATE)
            find.return_value = ([match], True)
            with mock.patch.object(search, "NAMING_SECONDS", 18):  # no more is read
                self.assertEqual(cli._piece(song), "Tune 1")
            self.assertEqual(len(find.call_args.args[0]), 18 * SAMPLE_RATE)
            audio.write(song, np.pad(wave, (60 * SAMPLE_RATE, 0)), SAMPLE_RATE)
            self.assertEqual(cli._piece(song), "Tune 1")  # its beginning is silent
            # Fewer windows agree by chance.
            self.assertEqual(search.identify(wave[:264_000], SAMPLE_RATE), "Tune 1")
            self.assertIsNone(search.identify(wave[:263_999], SAMPLE_RATE))
            find.return_value = ([], False)
            self.assertEqual(cli._piece(song), "")


class TestShipped(unittest.TestCase):
    def test_shipped_towers_and_index_match(self):
        self.assertLess(search.WEIGHTS.stat().st_size, 5e6)
        self.assertLess(search.INDEX.stat().st_size, 10e6)
        _, facts, fingerprint = model.load(search.WEIGHTS)
        self.assertGreater(facts["threshold"], 0)
        index = search.Index.load(search.INDEX, fingerprint)
        self.assertGreater(len(index.pieces), 400)
        for title in (piece["title"] for piece in index.pieces):
            self.assertRegex(title, r"^[A-Z][\w ]+: [A-Z]")
            self.assertNotRegex(title, r"_|: [Mm]ovement|mazurka\d|op\d")
        for seed in range(3):  # tunes outside the shipped index
            matches, found = search.find(play(tune(seed))[0])
            self.assertEqual(len(matches), search.MAX_MATCHES)
            self.assertFalse(found)
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(7):
                write_abc(Path(folder) / f"{seed}.abc", tune(seed), f"Tune {seed}")
            out = Path(folder) / "mine.safetensors"
            search.build(folder, out, progress=False)
            for seed in (2, 5, 20, 21, 22):
                matches, found = search.find(play(tune(seed))[0], index=out)
                self.assertEqual(found, seed < 7, seed)
                if found:
                    self.assertEqual(matches[0].title, f"Tune {seed}")


class TestPage(unittest.TestCase):
    def test_page_and_figures_come_from_the_record(self):
        score = {f"recall_at_{k}": [0.5, 0.4, 0.6] for k in (1, 5, 25)}
        score |= {"mrr": [0.6123, 0.5, 0.7], "median_rank": [1.0, 1.0, 2.0]}
        metrics = {"audio_to_score": score, "score_to_audio": score, "candidates": 2000}
        evaluated = {"test": metrics, "test_timbre": metrics}
        trained = {"works": 3, "hours": 0.1, "steps": 9, "training_seconds": 60.0}
        rates = {"rank_1": 0.9, "rank_5": 1.0, "rank_10": 1.0, "named": 0.8}
        rates |= {"false_alarms": 0.05, "error": 1.0}
        pieces = {split: {"5": rates, "20": rates} for split in run.TESTS}
        pieces |= {"pieces": 10, "queries": 5, "false_alarms": 0.05}
        pieces["performances"] = {split: rates for split in run.TESTS}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            out = folder / "results"
            chosen = out / "retrieval.json", tables, retrieval_figures
            render.study(*chosen)  # nothing has run
            write_json(out / "pitchmap.json", evaluated | trained)
            write_json(out / run.PIECES, pieces)
            run._compile(out)
            render.study(*chosen)
            page = (out / "RETRIEVAL.md").read_text(encoding="utf-8")
            written = {path.name for path in (folder / "figures").iterdir()}
        self.assertEqual(written, {"retrieval-passages.svg", "retrieval-pieces.svg"})
        self.assertIn("61.2 [50.0, 70.0]", page)
        self.assertRegex(page, r"first, from 20 s \| 90.0 \| 95 \| no")
        self.assertRegex(page, r"first, of 2000, audio to score \| 50.0 \| 60 \| no")
        self.assertIn("Not run: published", page)
        for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
            self.assertEqual(len({row.count("|") for row in table.splitlines()}), 1)


if __name__ == "__main__":
    unittest.main()
