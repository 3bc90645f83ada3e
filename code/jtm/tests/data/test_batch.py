"""Batches survive failing files and killed processes, locally and on a cluster."""

import contextlib
import functools
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile

from jtm.data import batch
from jtm.files import (
    KILLED,
    InputError,
    InputWarning,
    NoSpaceError,
    atomic,
    show_warnings_in_one_line,
    warn,
)


def log_file(source, advance, log, deaths=0, worst=None):
    """Log a file; kill this process at the file `worst`, up to `deaths` times."""
    with open(log, "a") as file:
        file.write(f"{source.name}\n")
    if source.name == worst and log.read_text().split().count(worst) <= deaths:
        time.sleep(0.5)  # so that other files finish
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), source.name


def fail(source, advance):
    """Fail at two files with different errors, and warn about a third."""
    if source.name == "0.wav":
        raise InputError(f"{source}: is odd")
    if source.name == "1.wav":
        raise _StrangeError(1, 2)
    if source.name == "2.wav":
        warn(f"{source}: is loud")
    return source.name


def block(source, advance, log):
    """Block on all files but the first, leaving them partly written."""
    if source.name != "0.wav":
        with atomic(source.with_suffix(".half")) as part:
            part.write_text(source.name)
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(60)
    return source.name


def fail_full_disk(source, advance):
    """Raise the error of a full disk."""
    raise NoSpaceError("full")


class _StrangeError(Exception):
    """An error that cannot be unpickled, like those of some libraries."""

    def __init__(self, one, two):
        super().__init__("strange")


class TestFind(unittest.TestCase):
    def test_folder_without_audio_does_not_stop_the_others(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("empty", "full"):
            (folder / name).mkdir()
        song = folder / "full" / "song.wav"
        song.touch()
        with self.assertWarnsRegex(InputWarning, "empty: no audio file found"):
            found = batch.find([folder / "empty", folder / "full"])
        self.assertEqual(found, ([song], folder))
        message = "empty: no audio file found; expected files ending in .wav, "
        with self.assertRaisesRegex(InputError, message):
            batch.find([folder / "empty", folder / "empty"])


class FolderTestCase(unittest.TestCase):
    n_files = 6

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.sources = [self.folder / f"{i}.wav" for i in range(self.n_files)]
        for path in self.sources:
            soundfile.write(path, np.zeros(800), 16_000)
        self.done = []

    def run_all(self, work, options):
        output = io.StringIO()
        without_bar = mock.patch.object(batch, "_duration", return_value=0.0)
        with contextlib.redirect_stderr(output), without_bar:
            save = functools.partial(lambda *pair: self.done.append(pair))
            failed = batch._process(self.sources, work, save, "Trying", options)
        return [path.name for path in failed], output.getvalue()

    def assert_all_saved_once(self):
        self.assertEqual(sorted(s for s, _ in self.done), sorted(self.sources))
        self.assertEqual([s.name for s, _ in self.done], [n for _, (_, n) in self.done])


class TestSerial(FolderTestCase):
    def run_some(self, number, work):
        some = self.sources[:number], work, lambda *_: None, "Trying"
        return batch._process(*some, batch.Options())

    def test_progress_beyond_the_total_does_not_end_the_batch(self):
        def work(source, advance):
            for _ in range(3):
                time.sleep(0.15)  # so that the bar is drawn each time
                advance(5.0)

        output = io.StringIO()
        with contextlib.redirect_stderr(output):
            failed = self.run_some(2, work)
        self.assertEqual(failed, [], output.getvalue())

    def test_messages_appear_above_the_progress_bar(self):
        self.enterContext(warnings.catch_warnings())
        show_warnings_in_one_line()

        def work(source, advance):
            warn(f"{source.name}: is loud")
            advance(0.03)
            raise InputError(f"{source.name}: is odd")

        output = io.StringIO()
        with contextlib.redirect_stderr(output):
            self.run_some(1, work)
        lines = output.getvalue().splitlines()
        for line in ("jtm: warning: 0.wav: is loud", "jtm: 0.wav: is odd"):
            self.assertIn(line, lines)
        self.assertIn("0.05/0.05 s", lines[-1])


class TestProcesses(FolderTestCase):
    def test_killed_worker_process_loses_no_file(self):
        log = self.folder / "log"
        work = functools.partial(log_file, log=log, deaths=1, worst="3.wav")
        self.assertEqual(self.run_all(work, batch.Options(2)), ([], ""))
        self.assert_all_saved_once()
        self.assertNotIn(os.getpid(), {pid for _, (pid, _) in self.done})
        self.assertGreaterEqual(log.read_text().split().count("3.wav"), 2)

    def test_worker_killed_repeatedly_ends_the_batch_in_one_line(self):
        log = self.folder / "log"
        work = functools.partial(log_file, log=log, deaths=99, worst="3.wav")
        with self.assertRaisesRegex(InputError, KILLED[:20]):
            self.run_all(work, batch.Options(2))
        self.assertEqual(len(self.done), self.n_files - 1)  # the others are saved

    def test_ordered_map_refuses_the_results_of_a_killed_worker(self):
        with batch.ordered_map(2) as spread:
            self.assertEqual(list(spread(abs, [-3, 1, -2])), [3, 1, 2])
        with self.assertRaisesRegex(InputError, KILLED[:20]):
            with batch.ordered_map(2) as spread:
                list(spread(os._exit, range(1, 9)))

    def test_workers_of_ordered_map_end_with_a_killed_parent(self):
        code = (
            "import os, signal\n"
            "from jtm.data.batch import ordered_map\n"
            "with ordered_map(2) as spread:\n"
            "    pids = set(spread(eval, ['__import__(\"os\").getpid()'] * 8))\n"
            "    print(*pids, flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, **pipes, start_new_session=True) as process:
            try:  # workers hold the output open until they end, too
                self.assertTrue(process.communicate(timeout=60)[0].split())
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def test_interrupt_ends_workers_and_leaves_no_partial_file(self):
        log, interrupted = self.folder / "log", []

        def stop():
            while not (log.exists() and log.read_text().count("\n") == 2):
                time.sleep(0.05)
            interrupted.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        # Processes that a shell starts in the background ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        threading.Thread(target=stop, daemon=True).start()
        with self.assertRaises(KeyboardInterrupt):
            self.run_all(functools.partial(block, log=log), batch.Options(2))
        self.assertLess(time.monotonic() - interrupted[0], 30)  # they would take 60
        self.assertEqual(self.done, [(self.sources[0], "0.wav")])
        left = {path.name for path in self.folder.iterdir()}
        self.assertEqual(left, {path.name for path in self.sources} | {"log"})
        for pid in log.read_text().split():
            with self.assertRaises(ProcessLookupError):
                os.kill(int(pid), 0)

    def test_failed_files_are_named_with_one_or_two_processes(self):
        for options in (batch.Options(), batch.Options(2)):
            self.done.clear()
            with self.assertWarnsRegex(InputWarning, "2.wav: is loud"):
                failed, output = self.run_all(fail, options)
            self.assertEqual(sorted(failed), ["0.wav", "1.wav"])
            self.assertIn("0.wav: is odd", output)
            self.assertRegex(output, "1.wav: unexpected _StrangeError: strange")
            self.assertEqual(len(self.done), self.n_files - 2)
            with self.assertRaisesRegex(NoSpaceError, "full"):
                self.run_all(fail_full_disk, options)

    def test_result_that_cannot_be_saved_is_a_failure(self):
        self.done = mock.Mock(append=mock.Mock(side_effect=InputError("no")))
        failed, _ = self.run_all(lambda source, advance: 0, batch.Options())
        self.assertEqual(len(failed), self.n_files)

    def test_number_of_processes_must_be_positive(self):
        with self.assertRaisesRegex(InputError, "--jobs 0; expected 1 or more"):
            batch.Options(0)

    def test_missing_dask_names_what_to_install(self):
        with (
            mock.patch.dict(sys.modules, distributed=None),
            self.assertRaisesRegex(InputError, r"pip install jtm\[cluster\]"),
        ):
            self.run_all(fail, batch.Options(1, "tcp://127.0.0.1:1"))


@unittest.skipUnless(
    importlib.util.find_spec("distributed"), "no Dask here: pip install jtm[cluster]"
)
class TestCluster(FolderTestCase):
    n_files = 12

    def test_killed_cluster_worker_loses_no_file(self):
        import distributed

        log = self.folder / "log"
        work = functools.partial(log_file, log=log, deaths=1, worst="3.wav")
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=100,
        ) as cluster:
            options = batch.Options(1, cluster.scheduler_address)
            failed, _ = self.run_all(work, options)
            self.assertEqual(failed, [])
            self.assert_all_saved_once()
            self.assertGreater(len({pid for _, (pid, _) in self.done}), 1)
            self.assertEqual(log.read_text().split().count("3.wav"), 2)

    def test_missing_scheduler_is_reported_in_one_line(self):
        with (
            mock.patch("distributed.Client", side_effect=OSError),
            self.assertRaisesRegex(InputError, "no Dask scheduler responds; start one"),
        ):
            self.run_all(fail, batch.Options(1, "tcp://127.0.0.1:1"))


if __name__ == "__main__":
    unittest.main()
