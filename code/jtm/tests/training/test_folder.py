"""A run's folder: for one run, and one process at a time."""

import json
import tempfile
import unittest
from pathlib import Path

import torch

from jtm.cpc.config import PretrainConfig
from jtm.files import InputError
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.folder import claim, newest
from jtm.transcriber.config import TranscriberConfig

DATA = {"recordings": [3, 1], "samples": [960_000, 0], "sha256": "one"}


class TestFolder(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def claim(self, cls=PretrainConfig, data=None, origin="", **chosen):
        chosen = {"path_checkpoint": str(self.folder / "run")} | chosen
        with claim(make_config(cls, "tiny", chosen), data, origin):
            pass

    def save(self, name, **content):
        path = self.folder / "run" / name
        path.parent.mkdir(exist_ok=True)
        config = json.loads((path.parent / "config.json").read_text())
        content = {"state_dict": {}, "config": config, "history": []} | content
        torch.save(content, path)

    def test_folder_belongs_to_one_run(self):
        self.claim()
        self.save("last.pt")
        self.claim()
        with self.assertRaisesRegex(InputError, "--hiddenGar 4, not 64; choose"):
            self.claim(hidden_gar=64)
        # More epochs of pretraining continue the run; fewer are refused.
        self.claim(n_epoch=9)
        self.assertEqual(self.saved()["n_epoch"], 9)
        with self.assertRaisesRegex(InputError, "--nEpoch 9, not 5"):
            self.claim(n_epoch=5)

    def test_settings_may_change_before_the_first_checkpoint(self):
        self.claim(learning_rate=0.9)
        (self.folder / "run" / ".0123abcd.1.part.pt").touch()
        self.claim(learning_rate=0.002)
        self.assertEqual(self.saved()["learning_rate"], 0.002)
        (self.folder / "run" / "record.json").write_text("{}")
        with self.assertRaisesRegex(InputError, "--learningRate 0.002, not 0.9"):
            self.claim(learning_rate=0.9)

    def test_finished_run_without_checkpoints_is_of_its_data(self):
        self.claim(data=DATA, origin="a")
        record = self.folder / "run" / "record.json"
        record.write_text(json.dumps({"data": DATA, "origin": "a"}))
        self.claim(data=DATA, origin="a")
        with self.assertRaisesRegex(InputError, "a run on other recordings"):
            self.claim(data=DATA | {"sha256": "two"}, origin="a")
        with self.assertRaisesRegex(InputError, "a run from another checkpoint"):
            self.claim(data=DATA, origin="b")
        record.write_text("[]")
        with self.assertRaisesRegex(InputError, "record.json: not the record of a run"):
            self.claim(data=DATA, origin="a")

    def test_finished_transcriber_without_checkpoints_is_of_its_settings(self):
        self.claim(TranscriberConfig)
        (self.folder / "run" / "transcriber.json").write_text("{}")
        self.claim(TranscriberConfig)
        with self.assertRaisesRegex(InputError, "--plain False, not True; choose"):
            self.claim(TranscriberConfig, plain=True)

    def test_foreign_settings_are_refused(self):
        self.claim()
        self.save("last.pt")
        (self.folder / "run" / "config.json").write_text("[]")
        with self.assertRaisesRegex(InputError, "config.json: not the settings of a"):
            self.claim()

    def saved(self):
        return json.loads((self.folder / "run" / "config.json").read_text())

    def test_chunk_settings_may_change_in_supervised_runs(self):
        for cls in (SupervisedConfig, PretrainConfig):
            run = {"cls": cls, "path_checkpoint": str(self.folder / cls.__name__)}
            self.claim(**run, max_chunks_in_mem=5)
            Path(run["path_checkpoint"], "record.json").write_text("{}")
            for chosen in ({"max_chunks_in_mem": 9}, {"chunk_size": 10**6}):
                if cls is SupervisedConfig:
                    self.claim(**run, **chosen)
                    continue
                with self.assertRaisesRegex(InputError, "holds a run with --.*hunk"):
                    self.claim(**run, **chosen)

    def test_run_older_than_a_setting_resumes_with_its_default(self):
        self.claim()
        path = self.folder / "run" / "config.json"
        older = json.loads(path.read_text())
        del older["patience"]
        path.write_text(json.dumps(older))
        self.save("last.pt")
        self.claim()
        with self.assertRaisesRegex(InputError, "--patience 0, not 6"):
            self.claim(patience=6)

    def test_run_with_an_abolished_setting_resumes_if_it_was_off(self):
        self.claim()
        path = self.folder / "run" / "config.json"
        older = json.loads(path.read_text())
        path.write_text(json.dumps(older | {"aligned": 0}))
        self.save("last.pt")
        self.claim()
        path.write_text(json.dumps(older | {"aligned": 6}))
        with self.assertRaisesRegex(InputError, "--aligned 6, not None"):
            self.claim()

    def test_run_is_identified_by_data_origin_and_processes(self):
        self.claim(data=DATA)
        self.save("last.pt", data=DATA, origin="a", world=1)
        self.claim(data=DATA, origin="a")
        other = DATA | {"recordings": [4, 1], "sha256": "other"}
        with self.assertRaisesRegex(InputError, "3 .1.0 min. .*now has 4 .*choose"):
            self.claim(data=other, origin="a")
        with self.assertRaisesRegex(InputError, "from another checkpoint: none is not"):
            self.claim(data=DATA)
        self.save("last.pt", world=2)
        with self.assertRaisesRegex(InputError, "a run of 2 processes, not 1"):
            self.claim(data=DATA)
        self.save("last.pt", data=None)  # from an earlier version
        self.claim(data=DATA, origin="a")

    def test_nothing_is_written_while_another_process_runs(self):
        self.claim()
        before = self.saved()
        chosen = {"path_checkpoint": str(self.folder / "run")}
        with claim(make_config(PretrainConfig, "tiny", chosen)):
            with self.assertRaisesRegex(InputError, "another process is running it"):
                self.claim(n_epoch=9)
            half_written = self.folder / "run" / ".0123abcd.1.part.pt"
            half_written.touch()
            with self.assertRaises(InputError):
                self.claim(n_epoch=9)
            self.assertTrue(half_written.exists())  # perhaps of the running process
        self.claim()
        self.assertFalse(half_written.exists())
        self.assertEqual(self.saved(), before)
        self.claim(n_epoch=9)

    def test_newest_undamaged_checkpoint(self):
        run = self.folder / "run"
        self.assertEqual(newest(run), (None, None))
        self.claim()
        self.assertEqual(newest(run), (None, None))
        rows = [{"epoch": epoch} for epoch in range(12)]
        for epoch in (0, 9, 10):
            self.save(f"checkpoint{epoch}.pt", history=rows[: epoch + 1])
        self.save("checkpoint.pt")
        self.save("checkpoint-best.pt")
        self.assertEqual(newest(run)[0].name, "checkpoint10.pt")
        for done, expected in ((12, "last"), (11, "last"), (10, "checkpoint10")):
            self.save("last.pt", history=rows[:done])
            self.assertEqual(newest(run)[0].stem, expected)
        (run / "checkpoint10.pt").write_bytes(b"")
        self.save("last.pt", history=rows[:11])
        self.assertEqual(newest(run)[0].stem, "last")
        (run / "last.pt").write_bytes(b"")
        with self.assertWarnsRegex(Warning, "last.pt, checkpoint10.pt damaged; .*t9"):
            self.assertEqual(newest(run)[0].stem, "checkpoint9")
        (run / "last.pt").unlink()
        (run / "checkpoint9.pt").unlink()
        (run / "checkpoint0.pt").write_bytes(b"")
        with self.assertRaisesRegex(InputError, "the run has no undamaged"):
            newest(run)


if __name__ == "__main__":
    unittest.main()
