"""No network access at run time."""

import contextlib
import io
import socket
import tempfile
import unittest
import urllib.request
from pathlib import Path
from unittest import mock

import pandas as pd
import soundfile
import torch

import jtm
from jtm import cli
from jtm.data.musicnet import open_dataset
from jtm.results import show
from jtm.tests.test_embedding import music
from jtm.tests.transcriber.toys import write_tiny


class TestOffline(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.song = self.folder / "songs" / "song.wav"
        self.song.parent.mkdir()
        for name in ("song", "other"):
            path = self.song.with_stem(name)
            soundfile.write(path, music(3.0, 16_000)[0], 16_000)
        self.requests = []

        def refuse(*words, **named):
            self.requests.append(words)
            raise OSError("network access is refused")

        for name in ("connect", "connect_ex", "sendto"):
            self.enterContext(
                mock.patch.object(socket.socket, name, refuse, create=True)
            )
        self.enterContext(mock.patch.object(socket, "getaddrinfo", refuse))
        self.enterContext(contextlib.redirect_stdout(io.StringIO()))

    def tearDown(self):
        self.assertEqual(self.requests, [])  # even where the error was caught

    def test_requests_are_refused_and_recorded(self):
        for url in ("http://localhost", "http://127.0.0.1:9"):
            with self.assertRaisesRegex(OSError, "access is refused"):
                urllib.request.urlopen(url)
        self.assertGreaterEqual(len(self.requests), 2)
        self.requests.clear()

    def test_embed_needs_no_network(self):
        embedding, _ = jtm.embed(self.song)
        self.assertEqual(len(embedding), 150)

    def test_hub_needs_no_network(self):
        network = torch.hub.load(str(cli.ROOT), "jtm", source="local")
        self.assertEqual(network(torch.zeros(1, 1, 1600))[1].shape[:2], (1, 5))

    def test_pretraining_needs_no_network(self):
        out = self.folder / "run"
        words = ["--preset", "tiny", "--nEpoch", "1", "--pathCheckpoint", str(out)]
        self.assertEqual(cli.train_main(["--data", str(self.song.parent), *words]), 0)
        self.assertTrue((out / "checkpoint0.pt").exists())
        players = show.players(open_dataset(self.song.parent).recordings, 1.0)
        self.assertEqual(players.data.count("<audio"), 2)
        table = pd.read_csv(out / "metrics.csv")
        self.assertIn("loss", show.result(table).data)

    def test_transcribe_needs_no_network(self):
        weights = self.folder / "tiny.safetensors"
        write_tiny(weights)
        transcription = jtm.transcribe(self.song, weights=weights)
        for path in transcription.save(self.folder):
            self.assertGreater(path.stat().st_size, 0)


if __name__ == "__main__":
    unittest.main()
