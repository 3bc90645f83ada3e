"""The index: building, updating, refusal; votes for pieces along lines in time."""

import contextlib
import io
import os
import tempfile
import unittest
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtm.constants import SAMPLE_RATE
from jtm.files import InputError, InputWarning
from jtm.music import notation
from jtm.retrieval import model, search
from jtm.retrieval.config import DIM
from jtm.tests.retrieval.little import play, tune, write_abc
from jtm.training.checkpoints import read_tensors, write_tensors


class TestVote(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(0)
        self.times = np.arange(1.0, 19.0, 0.5)
        shape = len(self.times), search.NEAREST
        self.owners = rng.integers(0, 500, shape)
        self.places = rng.uniform(0, 300, shape)

    def plant(self, piece, rows, start, speed, rank=3):
        self.owners[rows, rank] = piece
        self.places[rows, rank] = start + speed * self.times[rows]

    def test_votes_along_a_line_win(self):
        rows = np.arange(0, len(self.times), 2)
        self.plant(7, rows, 40.0, 1.9)
        ranked = search.vote(self.times, self.owners, self.places)
        piece, votes, start, speed, voters = ranked[0]
        self.assertEqual(piece, 7)
        self.assertAlmostEqual(start + 10 * speed, 40 + 19.0, delta=2)
        self.assertLessEqual(set(rows), set(voters))
        self.assertGreater(votes, 2 * ranked[1][1])

    def test_votes_out_of_order_do_not_win(self):
        rows = np.arange(0, len(self.times), 2)
        self.plant(7, rows, 40.0, 1.9)
        self.places[rows, 3] = self.places[rows, 3][::-1] * 1.0
        ranked = search.vote(self.times, self.owners, self.places)
        votes = {piece: votes for piece, votes, *_ in ranked}
        self.setUp()
        self.plant(7, rows, 40.0, 1.9)
        straight = search.vote(self.times, self.owners, self.places)[0][1]
        self.assertLess(votes.get(7, 0), 0.5 * straight)

    def test_two_consecutive_pieces_are_both_found(self):
        half = len(self.times) // 2
        self.plant(7, np.arange(half), 10.0, 2.0, 0)
        self.plant(9, np.arange(half, len(self.times)), -20.0, 1.5, 0)
        first, second = search.vote(self.times, self.owners, self.places)[:2]
        self.assertEqual({first[0], second[0]}, {7, 9})
        ends = {piece: (v.min(), v.max()) for piece, *_, v in (first, second)}
        self.assertLess(ends[7][0], ends[9][0])

    def test_query_votes_once_per_line(self):
        owners, places = np.full((1, 4), 3), np.full((1, 4), 10.0)
        ranked = search.vote(np.array([1.0]), owners, places)
        ((_, votes, *_),) = ranked
        self.assertAlmostEqual(votes, np.log(5), places=6)
        margin = 1.5 * np.log(5) / search.RELIABLE
        self.assertAlmostEqual(search.margin(ranked, 1), margin, places=6)

    def test_votes_on_one_line_count_together_wherever_it_lies(self):
        times = np.arange(4.0)
        for start in (0.5, 1.0, 1.5):
            places = times + start + np.array([-0.1, 0.1, -0.1, 0.1])
            owners = np.zeros((4, 1), int)
            ranked = search.vote(times, owners, places[:, None], np.ones(1), 1.0)
            self.assertAlmostEqual(ranked[0][1], np.log(2), places=6)

    def test_nothing_is_voted_for_without_queries_or_passages(self):
        for columns in (slice(0), slice(None)), (slice(None), slice(0)):
            voted = search.vote(self.times, self.owners[columns], self.places[columns])
            self.assertEqual(voted, [])
        self.assertEqual(search.margin([], 0), 0.0)


class TestIndex(unittest.TestCase):
    def test_nearest_neighbours_are_exact(self):
        rng = np.random.default_rng(0)
        vectors = rng.integers(-127, 128, (500, DIM)).astype(np.int8)
        index = search.Index([], vectors, np.arange(500), np.zeros(500), "")
        queries = rng.standard_normal((40, DIM)).astype(np.float32)
        order = np.argsort(-(queries @ vectors.T.astype(np.float32)), axis=1)
        for dtype in "f4", "f8":
            nearest = index.nearest(queries.astype(dtype), 7)
            np.testing.assert_array_equal(nearest, order[:, :7])
        fewer = index.without(int(order[0, 0])).nearest(queries[:1], 3)
        self.assertEqual(index.without(3).owners[3], 4)
        self.assertEqual(fewer.shape, (1, 3))

    def test_passages_of_the_highest_part_are_indexed(self):
        notes = np.zeros(64, notation.NOTE)
        notes["beat"], notes["beats"] = np.tile(np.arange(32), 2), 1
        notes["part"] = np.repeat((0, 1), 32)
        notes["pitch"] = np.repeat((50, 70), 32) + np.tile((0, 4, 7, 5), 16)
        towers = model.Towers().eval()
        highest = notes[notes["part"] == 1]
        vectors, middles = search._embed(towers, notes)
        own, places = search._embed(towers, highest)
        np.testing.assert_array_equal(vectors[-len(own) :], own)
        np.testing.assert_array_equal(middles, np.tile(places, 2))
        self.assertFalse(np.array_equal(vectors[: len(own)], own))  # both parts

    def test_windows_vote_at_their_centres_in_the_key_of_the_score(self):
        vectors, middles = np.eye(4, dtype=np.int8), np.array([10.0, 12, 14, 16])
        index = search.Index([{}], vectors, np.zeros(4, int), middles, "")
        towers, windows, starts = mock.Mock(), np.zeros(4), np.arange(4.0)
        towers.embed_in_keys.return_value = [np.eye(4)]
        ((ranked,),) = search.search_in_keys(towers, index, starts, windows, (0, 3, -5))
        # A recording three semitones above the score is moved three down.
        towers.embed_in_keys.assert_called_once_with(windows, [0, -3, 5])
        _, _, start, speed, _ = ranked
        self.assertAlmostEqual(start + speed, 10, delta=1)  # after one second

    def test_index_among_others_keeps_its_pieces(self):
        columns = np.eye(4, DIM, dtype=np.int8) * 127, np.repeat([0, 1], 2), np.zeros(4)
        own = search.Index([{"title": "A"}, {"title": "B"}], *columns, "")
        both = own.among(own)
        self.assertEqual(both.pieces, own.pieces)
        self.assertEqual(both.owners.tolist(), [0, 0, 1, 1, 2, 2, 3, 3])
        self.assertEqual((len(both.vectors), len(both.middles)), (8, 8))

    def test_positions_in_long_pieces_round_trip(self):
        file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "i.safetensors"
        middles = np.array([0.25, 8191.75, 8192, 99_999.5], np.float32)
        columns = np.eye(4, DIM, dtype=np.int8), np.zeros(4, int), middles
        search.Index([{"title": "A"}], *columns, "").save(file)
        self.assertEqual(search.Index.load(file).middles.tolist(), middles.tolist())
        # Earlier versions saved 16 bits.
        tensors, about = read_tensors(file, "index", "", {})
        tensors["middles"] = torch.tensor([1, 2, 3, 32_767], dtype=torch.int16)
        write_tensors(file, tensors, about)
        found = search.Index.load(file).middles.tolist()
        self.assertEqual(found, [0.25, 0.5, 0.75, 8191.75])

    def test_steady_sounds_have_little_change(self):
        rng = np.random.default_rng(99)
        time = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE

        def tone(pitch, harmonics=6):
            phase = 2 * np.pi * pitch * time
            return sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))

        white = rng.standard_normal(len(time))
        chord = tone(220) + tone(277.18) + tone(329.63)
        steady = (white, np.cumsum(white - white.mean()), tone(50, 20), tone(440, 1))
        steady += (chord, chord * np.exp(-3 * (time % 0.5)), tone(60, 9) + 0.1 * white)
        for number, wave in enumerate(steady):
            wave = (0.3 * wave / np.abs(wave).max()).astype(np.float32)
            found = search._change(search.cut_windows(wave)[1])
            self.assertLess(found, 0.8 * search.MIN_CHANGE, number)
            self.assertEqual(search.find(wave), ([], False))
        for seed in range(3):
            found = search._change(search.cut_windows(play(tune(seed))[0])[1])
            self.assertGreater(found, 1.5 * search.MIN_CHANGE)

    def test_passage_length_depends_on_note_density(self):
        notes = tune(0)
        ends = search._passages(notes)
        lengths = np.unique(np.round(ends[:, 1] - ends[:, 0], 3))
        self.assertEqual(len(lengths), len(search.SCALES))
        slow = notes.copy()
        slow["beat"] *= 4
        slow["beats"] *= 4
        longer = search._passages(slow)
        self.assertGreater(np.ptp(longer[0]), 1.5 * np.ptp(ends[0]))


class TestBuild(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.weights = self.folder / "towers.safetensors"
        torch.manual_seed(0)
        model.save(self.weights, model.Towers().eval(), {})
        self.scores, self.out = self.folder / "scores", self.folder / "i.safetensors"
        for seed in range(3):
            write_abc(self.scores / "deep" / f"{seed}.abc", tune(seed), f"Tune {seed}")

    def build(self, **chosen):
        output = io.StringIO()
        with contextlib.redirect_stderr(output):
            chosen = {"weights": self.weights, "progress": False} | chosen
            return search.build(self.scores, self.out, **chosen), output.getvalue()

    def test_index_round_trips_and_updates_changed_scores(self):
        self.assertEqual(self.build(), (0, ""))
        first = search.Index.load(self.out)
        self.assertEqual(
            [p["title"] for p in first.pieces], [f"Tune {k}" for k in range(3)]
        )
        self.assertEqual(first.pieces[0]["file"], "deep/0.abc")
        write_abc(self.scores / "deep" / "1.abc", tune(9), "Changed")
        (self.scores / "deep" / "2.abc").unlink()
        write_abc(self.scores / "new.abc", tune(4), "New")
        read = []
        whole = search.notation.read
        self.addCleanup(setattr, search.notation, "read", whole)
        search.notation.read = lambda path: read.append(path.name) or whole(path)
        self.build()
        self.assertEqual(read, ["1.abc", "new.abc"])
        again = search.Index.load(self.out)
        titles = [piece["title"] for piece in again.pieces]
        self.assertEqual(titles, ["Tune 0", "Changed", "New"])
        own = first.vectors[first.owners == 0]
        np.testing.assert_array_equal(again.vectors[again.owners == 0], own)

    def test_score_without_a_passage_is_warned_about(self):
        (self.scores / "short.abc").write_text("X:1\nT:Two notes\nK:C\nC D|\n")
        message = "short.abc: Two notes: too short to be found"
        with self.assertWarnsRegex(InputWarning, message):
            self.build()

    def test_file_changed_while_it_is_read_is_read_again(self):
        whole, changed = search.notation.read, self.scores / "deep" / "1.abc"

        def read(path):
            pieces = whole(path)
            if path == changed:
                write_abc(changed, tune(9), "Changed")
            return pieces

        with mock.patch.object(search.notation, "read", read):
            self.build()
        self.build()
        titles = [piece["title"] for piece in search.Index.load(self.out).pieces]
        self.assertEqual(titles, ["Tune 0", "Changed", "Tune 2"])

    def test_index_of_another_folder_is_refused_and_of_a_moved_one_updated(self):
        self.build()
        before = self.out.read_bytes()
        own, self.scores = self.scores, self.folder / "other"
        write_abc(self.scores / "other.abc", tune(4), "Other")
        with self.assertRaisesRegex(InputError, "another folder: none of its 3 files"):
            self.build()
        self.assertEqual(self.out.read_bytes(), before)
        # It has a file of the same name, but of another size.
        write_abc(self.scores / "deep" / "1.abc", tune(5, 41), "Other")
        with self.assertRaisesRegex(InputError, "another folder: none of its 3 files"):
            self.build()
        self.assertEqual(self.out.read_bytes(), before)
        self.scores = own.rename(self.folder / "moved")
        (self.scores / "deep" / "2.abc").unlink()
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.build(progress=True)
        self.assertIn("0 files read, 0 failed, 1 removed", output.getvalue())
        self.assertEqual(len(search.Index.load(self.out).pieces), 2)
        (self.scores / "deep" / "1.abc").unlink()
        os.utime(self.scores / "deep" / "0.abc", (1, 1))  # as in a copy
        self.build()
        self.assertEqual(len(search.Index.load(self.out).pieces), 1)

    def test_index_of_other_towers_or_another_version_is_rebuilt(self):
        self.build()
        expected = search.Index.load(self.out).vectors
        tensors, about = read_tensors(self.out, "index", "", {})
        tensors["vectors"] = torch.zeros_like(tensors["vectors"])
        for other in ({"towers": "other"}, {"version": 0}):
            write_tensors(self.out, tensors, about | other)
            self.build()
            found = search.Index.load(self.out, about["towers"])
            np.testing.assert_array_equal(found.vectors, expected)

    def test_rewritten_index_is_searched(self):
        self.build()
        wave, _ = play(tune(1))
        chosen = {"index": self.out, "weights": self.weights}
        self.assertEqual(len(search.find(wave, **chosen)[0]), 3)
        write_abc(self.scores / "new.abc", tune(4), "New")
        self.build()
        self.assertEqual(len(search.find(wave, **chosen)[0]), 4)

    def test_rewritten_towers_are_loaded_again(self):
        self.build()
        chosen = {"index": self.out, "weights": self.weights}
        self.assertEqual(len(search.find(play(tune(1))[0], **chosen)[0]), 3)
        model.save(self.weights, model.Towers().eval(), {})
        with self.assertRaisesRegex(InputError, "another version"):
            search.find(play(tune(1))[0], **chosen)

    def test_damaged_files_are_named_and_skipped(self):
        (self.scores / "bad.mid").write_bytes(b"MThd")
        failed, output = self.build()
        self.assertEqual(failed, 1)
        messages = [line for line in output.splitlines() if "jtm:" in line]
        self.assertEqual(len(messages), 1, output)
        self.assertIn("bad.mid", messages[0])
        self.assertEqual(len(search.Index.load(self.out).pieces), 3)

    def test_tunes_of_a_book_that_cannot_be_read_are_counted(self):
        book, tune_9 = self.scores / "book.abc", self.folder / "9.abc"
        write_abc(tune_9, tune(9), "Tune 9")
        text = tune_9.read_text()
        book.write_text(f"{text}\n{text.replace('L:1/4', 'L:1/q')}\n{text}")
        message = "book.abc: 1 of 3 tunes cannot be read"
        with self.assertWarnsRegex(InputWarning, message):
            self.assertEqual(self.build(), (0, ""))
        titles = [piece["title"] for piece in search.Index.load(self.out).pieces]
        self.assertEqual(titles.count("Tune 9"), 2)
        with warnings.catch_warnings():  # as in a worker process
            warnings.simplefilter("error")
            pieces, _, caught = search._read(book)
        self.assertEqual((len(pieces), len(caught)), (2, 1))
        self.assertIn(message, caught[0])

    def test_symlinks_are_followed_once_and_system_files_ignored(self):
        elsewhere = self.folder / "elsewhere"
        write_abc(elsewhere / "linked.abc", tune(5), "Linked")
        (self.scores / "link").symlink_to(elsewhere, target_is_directory=True)
        (self.scores / "again").symlink_to(elsewhere, target_is_directory=True)
        (elsewhere / "loop").symlink_to(self.scores, target_is_directory=True)
        (self.scores / "._0.abc").write_bytes(b"left by a system")
        write_abc(self.scores / ".hidden" / "0.abc", tune(6), "Hidden")
        (self.scores / ".hidden.abc").write_bytes(b"no tune")
        with self.assertWarnsRegex(InputWarning, "found already"):
            failed, output = self.build()
        self.assertEqual((failed, output), (0, ""))
        titles = sorted(p["title"] for p in search.Index.load(self.out).pieces)
        self.assertEqual(titles, ["Linked", "Tune 0", "Tune 1", "Tune 2"])

    def test_folders_without_scores_are_refused(self):
        for name in ("empty", "missing"):
            self.scores = self.folder / name
            if name == "empty":
                self.scores.mkdir()
            with self.assertRaisesRegex(InputError, name):
                self.build()
        self.scores.mkdir()
        (self.scores / "bad.krn").write_text("")
        with self.assertRaisesRegex(InputError, "none of 1"):
            self.build()
        self.assertFalse(self.out.exists())

    def test_indices_of_other_versions_or_towers_are_refused(self):
        self.build()
        with self.assertRaisesRegex(InputError, "another version"):
            search.Index.load(self.out, "other towers")
        tensors, about = read_tensors(self.out, "index", "", {})
        write_tensors(self.out, tensors, about | {"version": 0})
        with self.assertRaisesRegex(InputError, "another version"):
            search.Index.load(self.out)
        with self.assertRaisesRegex(InputError, "jtm index"):
            search.Index.load(self.folder / "none")
        with self.assertRaisesRegex(InputError, "no index of JTM.* `jtm index` wrote"):
            search.Index.load(self.weights)
        self.out = self.folder / "i.idx"
        with self.assertRaisesRegex(InputError, r"i.idx: expected .*\.safetensors"):
            self.build()
        self.out = self.folder / "i.safetensors"
        self.out.write_bytes(b"nothing")
        with self.assertRaisesRegex(InputError, "i.safetensors"):
            self.build()

    def test_short_silent_quiet_and_resampled_audio(self):
        self.build()
        chosen = {"index": self.out, "weights": self.weights}
        with self.assertRaisesRegex(InputError, "0.2 s"):
            search.find(np.zeros(3200, np.float32), **chosen)
        self.assertEqual(search.find(np.zeros(48_000), **chosen), ([], False))
        wave, _ = play(tune(1))
        for samples in (20_000, len(wave)):  # less than a window, and all
            matches, _ = search.find(wave[:samples], **chosen)
            self.assertEqual(len(matches), 3)
            for match in matches:
                self.assertTrue(0 <= match.confidence <= 1)
                self.assertTrue(0 <= match.beat <= match.beats)
                self.assertLessEqual(match.start, match.end)
        quiet = search.find(0.001 * np.stack((wave, wave)), **chosen)[0]
        self.assertEqual(quiet[0].title, matches[0].title)
        doubled = np.repeat(wave, 2)[: 2 * 48_000]
        same = search.find(doubled, 2 * SAMPLE_RATE, **chosen)[0]
        expected = search.find(wave[:48_000], **chosen)[0]
        self.assertEqual({m.title for m in same}, {m.title for m in expected})

    def test_long_audio_is_subsampled(self):
        rng = np.random.default_rng(0)
        starts, windows = search.cut_windows(
            0.1 * rng.standard_normal(16_000 * 600).astype("f4")
        )
        self.assertEqual(len(starts), search.MAX_WINDOWS)
        self.assertGreater(starts[-1], 590)
        self.assertEqual(len(windows), len(starts))


if __name__ == "__main__":
    unittest.main()
