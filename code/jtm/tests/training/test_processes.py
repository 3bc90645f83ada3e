"""Several processes that train together: where each is, and a run of two."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import torch

from jtm.cli import train_main
from jtm.files import InputError
from jtm.tests.cpc.test_run import write_tunes
from jtm.training.checkpoints import read_checkpoint
from jtm.training.processes import best_device, process_info

ROOT = Path(__file__).resolve().parents[4]


def process_info_in(variables):
    """Give the place of a process with these environment variables alone."""
    with mock.patch.dict(os.environ, variables, clear=True):
        return process_info()


class TestProcessInfo(unittest.TestCase):
    def test_alone(self):
        self.assertEqual(process_info_in({}), (0, 1, 1))
        self.assertEqual(process_info_in({"SLURM_NTASKS": "1"}), (0, 1, 1))

    def test_torchrun_says_it(self):
        found = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
        self.assertEqual(process_info_in(found | {"SLURM_NTASKS": "2"}), (5, 8, 4))

    def test_srun_says_it(self):
        found = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}
        with self.assertRaisesRegex(InputError, "with --ntasks-per-node instead"):
            process_info_in(found)
        found["SLURM_NTASKS_PER_NODE"] = "2"
        self.assertEqual(process_info_in(found), (3, 4, 2))
        self.assertEqual(process_info_in(found | {"SLURM_JOB_NAME": "bash"}), (0, 1, 1))

    def test_several_tasks_without_srun_would_hang(self):
        found = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}
        for tasks in ({}, {"SLURM_NTASKS_PER_NODE": "2"}):
            with self.assertRaisesRegex(InputError, "put srun before the command"):
                process_info_in(found | tasks)


class TestDevice(unittest.TestCase):
    def test_a_gpu_where_there_is_one(self):
        for cuda, mps, expected in (
            (True, True, "cuda"),
            (False, True, "mps"),
            (False, False, "cpu"),
        ):
            with (
                mock.patch("torch.cuda.is_available", return_value=cuda),
                mock.patch("torch.backends.mps.is_available", return_value=mps),
            ):
                self.assertEqual(best_device().type, expected)


class TestTwoProcesses(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "audio").mkdir()
        write_tunes(self.folder / "audio", n=6)

    def words(self, run, *arguments):
        """Give the command's words."""
        words = ["--preset", "tiny", "--data", self.folder / "audio", "--useSincNet"]
        words += ["--sizeWindow", 8000, "--batchSize", 4, "--stepFrames", 4]
        words += ["--pathCheckpoint", self.folder / run, *arguments]
        return [str(word) for word in words]

    def start(self, run, by, *arguments):
        """Start both processes as torchrun or srun does; they speak to files."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        if by == "torchrun":
            common |= {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
            common |= {"TORCHELASTIC_RUN_ID": "test"}  # what Lightning looks for
            numbers = ("RANK", "LOCAL_RANK")
        else:
            common |= {
                "SLURM_STEP_ID": 0,
                "SLURM_NTASKS": 2,
                "SLURM_NTASKS_PER_NODE": 2,
            }
            common |= {"SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_JOB_NAME": "test"}
            numbers = ("SLURM_PROCID", "SLURM_LOCALID")
        processes = []
        for rank in (0, 1):
            own = common | dict.fromkeys(numbers, rank)
            with open(self.folder / f"{run}{rank}.txt", "w") as said:
                process = subprocess.Popen(
                    [sys.executable, ROOT / "main.py", *self.words(run, *arguments)],
                    env=os.environ | {k: str(v) for k, v in own.items()},
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            self.addCleanup(process.kill)
            processes.append(process)
        return processes

    def said(self, run, rank):
        """Give what a process said."""
        return (self.folder / f"{run}{rank}.txt").read_text()

    def finish(self, run, by, *arguments):
        """Run both processes to their end; give the last checkpoint."""
        codes = [process.wait(300) for process in self.start(run, by, *arguments)]
        self.assertEqual(codes, [0, 0], self.said(run, 0) + self.said(run, 1))
        return read_checkpoint(self.folder / run / "last.pt")

    def test_they_train_one_network_and_go_on_after_being_stopped(self):
        arguments = ("--nEpoch", 3, "--samplingType", "sequential")
        whole = self.finish("whole", "srun", *arguments)
        # One of them built the store, the other waited; one of them speaks.
        said = [self.said("whole", rank) for rank in (0, 1)]
        self.assertEqual(sum("Reading audio" in text for text in said), 1)
        self.assertIn("last checkpoint: ", said[0])
        self.assertIn("Pretraining: 100%", said[0])
        self.assertNotRegex(said[1], "last checkpoint|Pretraining|data ")
        # Windows of both are in the curves: 5 recordings of 16 windows each.
        rows = [row for row in whole["history"] if row["split"] == "train"]
        self.assertEqual([row["windows"] for row in rows], [80] * 3)
        for part in whole["carried"]:  # (processes, layers, lanes, dim)
            self.assertEqual((part.shape[0], part.shape[2]), (2, 4))
            self.assertFalse(torch.equal(part[0], part[1]))

        processes = self.start("stopped", "torchrun", *arguments)
        while not (self.folder / "stopped" / "checkpoint0.pt").exists():
            time.sleep(0.05)
            self.assertEqual([process.poll() for process in processes], [None, None])
        processes[1].send_signal(signal.SIGTERM)  # one is enough to stop both
        codes = [process.wait(300) for process in processes]
        self.assertEqual(codes, [130, 130], self.said("stopped", 0))
        self.assertIn("run the same command to resume", self.said("stopped", 0))
        self.assertNotIn("run the same command to resume", self.said("stopped", 1))
        alone = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()):
            with contextlib.redirect_stderr(alone):
                self.assertEqual(train_main(self.words("stopped", *arguments)), 2)
        self.assertIn("holds a run of 2 processes, not 1", alone.getvalue())
        taken_up = self.finish("stopped", "torchrun", *arguments)
        self.assertIn("resuming from step", self.said("stopped", 0))
        for name, weights in whole["state_dict"].items():
            self.assertTrue(torch.equal(weights, taken_up["state_dict"][name]), name)
        for one, other in zip(whole["history"], taken_up["history"], strict=True):
            self.assertAlmostEqual(one["loss"], other["loss"], places=6)


if __name__ == "__main__":
    unittest.main()
