"""Distributed training: ranks from the environment, and a run of two processes."""

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
    def test_single_process(self):
        self.assertEqual(process_info_in({}), (0, 1, 1))
        self.assertEqual(process_info_in({"SLURM_NTASKS": "1"}), (0, 1, 1))

    def test_rank_from_torchrun(self):
        environ = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
        self.assertEqual(process_info_in(environ | {"SLURM_NTASKS": "2"}), (5, 8, 4))

    def test_rank_from_srun(self):
        environ = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}
        with self.assertRaisesRegex(InputError, "with --ntasks-per-node instead"):
            process_info_in(environ)
        environ["SLURM_NTASKS_PER_NODE"] = "2"
        self.assertEqual(process_info_in(environ), (3, 4, 2))
        self.assertEqual(
            process_info_in(environ | {"SLURM_JOB_NAME": "bash"}), (0, 1, 1)
        )

    def test_several_tasks_without_srun_are_refused(self):
        environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}
        for tasks in ({}, {"SLURM_NTASKS_PER_NODE": "2"}):
            with self.assertRaisesRegex(InputError, "put srun before the command"):
                process_info_in(environ | tasks)


class TestDevice(unittest.TestCase):
    def test_gpu_is_used_where_available(self):
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
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "audio").mkdir()
        write_tunes(self.folder / "audio", n=6)

    def options(self, run, *arguments):
        """Return the arguments of the command."""
        options = ["--preset", "tiny", "--data", self.folder / "audio", "--useSincNet"]
        options += ["--sizeWindow", 8000, "--batchSize", 4, "--stepFrames", 4]
        options += ["--pathCheckpoint", self.folder / run, *arguments]
        return [str(word) for word in options]

    def start(self, run, launcher, *arguments):
        """Start both processes as torchrun or srun does; their output goes to files."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        if launcher == "torchrun":
            common |= {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
            common |= {"TORCHELASTIC_RUN_ID": "test"}  # which Lightning checks
            rank_names = ("RANK", "LOCAL_RANK")
        else:
            common |= {
                "SLURM_STEP_ID": 0,
                "SLURM_NTASKS": 2,
                "SLURM_NTASKS_PER_NODE": 2,
            }
            common |= {"SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_JOB_NAME": "test"}
            rank_names = ("SLURM_PROCID", "SLURM_LOCALID")
        processes = []
        for rank in (0, 1):
            own = common | dict.fromkeys(rank_names, rank)
            with open(self.folder / f"{run}{rank}.txt", "w") as log:
                process = subprocess.Popen(
                    [sys.executable, ROOT / "main.py", *self.options(run, *arguments)],
                    env=os.environ | {k: str(v) for k, v in own.items()},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.addCleanup(process.kill)
            processes.append(process)
        return processes

    def output(self, run, rank):
        """Return the output of a process."""
        return (self.folder / f"{run}{rank}.txt").read_text()

    def finish(self, run, launcher, *arguments):
        """Run both processes to their end; return the last checkpoint."""
        codes = [process.wait(300) for process in self.start(run, launcher, *arguments)]
        self.assertEqual(codes, [0, 0], self.output(run, 0) + self.output(run, 1))
        return read_checkpoint(self.folder / run / "last.pt")

    def test_two_processes_train_one_network_and_resume(self):
        arguments = ("--nEpoch", 3, "--samplingType", "sequential")
        whole = self.finish("whole", "srun", *arguments)
        # One process builds the store while the other waits; only rank 0 prints.
        outputs = [self.output("whole", rank) for rank in (0, 1)]
        self.assertEqual(sum("Reading audio" in text for text in outputs), 1)
        self.assertIn("last checkpoint: ", outputs[0])
        self.assertIn("Pretraining: 100%", outputs[0])
        self.assertNotRegex(outputs[1], "last checkpoint|Pretraining|data ")
        # The curves count windows of both: 5 recordings of 16 windows each.
        rows = [row for row in whole["history"] if row["split"] == "train"]
        self.assertEqual([row["windows"] for row in rows], [80] * 3)
        for part in whole["carried"]:  # (processes, layers, streams, dim)
            self.assertEqual((part.shape[0], part.shape[2]), (2, 4))
            self.assertFalse(torch.equal(part[0], part[1]))

        processes = self.start("stopped", "torchrun", *arguments)
        while not (self.folder / "stopped" / "checkpoint0.pt").exists():
            time.sleep(0.05)
            self.assertEqual([process.poll() for process in processes], [None, None])
        processes[1].send_signal(signal.SIGTERM)  # one is enough to stop both
        codes = [process.wait(300) for process in processes]
        self.assertEqual(codes, [130, 130], self.output("stopped", 0))
        self.assertIn("run the same command to resume", self.output("stopped", 0))
        self.assertNotIn("run the same command to resume", self.output("stopped", 1))
        stderr = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()):
            with contextlib.redirect_stderr(stderr):
                self.assertEqual(train_main(self.options("stopped", *arguments)), 2)
        self.assertIn("holds a run of 2 processes, not 1", stderr.getvalue())
        resumed = self.finish("stopped", "torchrun", *arguments)
        self.assertIn("resuming from step", self.output("stopped", 0))
        for name, weights in whole["state_dict"].items():
            self.assertTrue(torch.equal(weights, resumed["state_dict"][name]), name)
        for one, other in zip(whole["history"], resumed["history"], strict=True):
            self.assertAlmostEqual(one["loss"], other["loss"], places=6)


if __name__ == "__main__":
    unittest.main()
