"""Batches go on whatever a file or a process does, here and on a cluster."""

import contextlib
import functools
import importlib.util
import io
import os
import signal
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


def note(source, advance, log, deaths=0, worst=None):
    """Note a file in a log, and die at the worst of them, so many times."""
    with open(log, "a") as file:
        file.write(f"{source.name}\n")
    if source.name == worst and log.read_text().split().count(worst) <= deaths:
        time.sleep(0.5)  # so that others are done
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), source.name


def fail(source, advance):
    """Fail at some files in ways of their own, and warn of one."""
    if source.name == "0.wav":
        raise InputError(f"{source}: is odd")
    if source.name == "1.wav":
        raise _StrangeError(1, 2)
    if source.name == "2.wav":
        warn(f"{source}: is loud")
    return source.name


def linger(source, advance, log):
    """Take forever with all files but the first, half written."""
    if source.name != "0.wav":
        with atomic(source.with_suffix(".half")) as part:
            part.write_text(source.name)
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(60)
    return source.name


def fill(source, advance):
    """Find the disk full."""
    raise NoSpaceError("full")


class _StrangeError(Exception):
    """An error that cannot be unpickled, as those of some libraries."""

    def __init__(self, one, two):
        super().__init__("strange")


class Folder(unittest.TestCase):
    n_files = 6

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.sources = [self.folder / f"{i}.wav" for i in range(self.n_files)]
        for path in self.sources:
            soundfile.write(path, np.zeros(800), 16_000)
        self.kept = []

    def run_all(self, work, options):
        said = io.StringIO()
        without_bar = mock.patch.object(batch, "_duration", return_value=0.0)
        with contextlib.redirect_stderr(said), without_bar:
            keep = functools.partial(lambda *pair: self.kept.append(pair))
            failed = batch._process(self.sources, work, keep, "Trying", options)
        return [path.name for path in failed], said.getvalue()

    def assert_all_kept_once(self):
        self.assertEqual(sorted(s for s, _ in self.kept), sorted(self.sources))
        self.assertEqual([s.name for s, _ in self.kept], [n for _, (_, n) in self.kept])


class Here(Folder):
    def run_some(self, number, work):
        some = self.sources[:number], work, lambda *_: None, "Trying"
        return batch._process(*some, batch.Options())

    def test_more_done_than_there_is_ends_no_batch(self):
        def work(source, advance):
            for _ in range(3):
                time.sleep(0.15)  # so that the bar is drawn each time
                advance(5.0)

        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            failed = self.run_some(2, work)
        self.assertEqual(failed, [], said.getvalue())

    def test_what_is_told_stands_above_the_bar(self):
        self.enterContext(warnings.catch_warnings())
        show_warnings_in_one_line()

        def work(source, advance):
            warn(f"{source.name}: is loud")
            advance(0.03)
            raise InputError(f"{source.name}: is odd")

        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.run_some(1, work)
        lines = said.getvalue().splitlines()
        for line in ("jtm: warning: 0.wav: is loud", "jtm: 0.wav: is odd"):
            self.assertIn(line, lines)
        self.assertIn("0.05/0.05 s", lines[-1])


class Processes(Folder):
    def test_they_are_others_and_one_that_is_killed_costs_nothing(self):
        log = self.folder / "log"
        work = functools.partial(note, log=log, deaths=1, worst="3.wav")
        self.assertEqual(self.run_all(work, batch.Options(2)), ([], ""))
        self.assert_all_kept_once()
        self.assertNotIn(os.getpid(), {pid for _, (pid, _) in self.kept})
        self.assertGreaterEqual(log.read_text().split().count("3.wav"), 2)

    def test_one_that_is_killed_always_ends_it_in_a_line(self):
        log = self.folder / "log"
        work = functools.partial(note, log=log, deaths=99, worst="3.wav")
        with self.assertRaisesRegex(InputError, KILLED[:20]):
            self.run_all(work, batch.Options(2))
        self.assertEqual(len(self.kept), self.n_files - 1)  # of the others none is lost

    def test_a_stop_ends_them_at_once_and_leaves_nothing_half_done(self):
        log, began = self.folder / "log", []

        def stop():
            while not (log.exists() and log.read_text().count("\n") == 2):
                time.sleep(0.05)
            began.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        # A shell has what it runs in the background ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        threading.Thread(target=stop, daemon=True).start()
        with self.assertRaises(KeyboardInterrupt):
            self.run_all(functools.partial(linger, log=log), batch.Options(2))
        self.assertLess(time.monotonic() - began[0], 30)  # they would take 60
        self.assertEqual(self.kept, [(self.sources[0], "0.wav")])
        left = {path.name for path in self.folder.iterdir()}
        self.assertEqual(left, {path.name for path in self.sources} | {"log"})
        for pid in log.read_text().split():
            with self.assertRaises(ProcessLookupError):
                os.kill(int(pid), 0)

    def test_files_that_fail_are_named_in_both_ways(self):
        for options in (batch.Options(), batch.Options(2)):
            self.kept.clear()
            with self.assertWarnsRegex(InputWarning, "2.wav: is loud"):
                failed, said = self.run_all(fail, options)
            self.assertEqual(sorted(failed), ["0.wav", "1.wav"])
            self.assertIn("0.wav: is odd", said)
            self.assertRegex(said, "1.wav: unexpected _StrangeError: strange")
            self.assertEqual(len(self.kept), self.n_files - 2)
            with self.assertRaisesRegex(NoSpaceError, "full"):
                self.run_all(fill, options)

    def test_what_cannot_be_kept_is_a_file_that_failed(self):
        self.kept = mock.Mock(append=mock.Mock(side_effect=InputError("no")))
        failed, _ = self.run_all(lambda source, advance: 0, batch.Options())
        self.assertEqual(len(failed), self.n_files)

    def test_numbers_of_processes(self):
        with self.assertRaisesRegex(InputError, "--jobs 0; expected 1 or more"):
            batch.Options(0)

    def test_without_dask_a_line_says_what_to_install(self):
        with (
            mock.patch.dict(sys.modules, distributed=None),
            self.assertRaisesRegex(InputError, r"pip install jtm\[cluster\]"),
        ):
            self.run_all(fail, batch.Options(1, "tcp://127.0.0.1:1"))


@unittest.skipUnless(
    importlib.util.find_spec("distributed"), "no Dask here: pip install jtm[cluster]"
)
class Cluster(Folder):
    n_files = 12

    def test_a_worker_that_is_killed_costs_nothing(self):
        import distributed

        log = self.folder / "log"
        work = functools.partial(note, log=log, deaths=1, worst="3.wav")
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=100,
        ) as cluster:
            options = batch.Options(1, cluster.scheduler_address)
            failed, _ = self.run_all(work, options)
            self.assertEqual(failed, [])
            self.assert_all_kept_once()
            self.assertGreater(len({pid for _, (pid, _) in self.kept}), 1)
            self.assertEqual(log.read_text().split().count("3.wav"), 2)

    def test_no_scheduler_is_told_in_a_line(self):
        with (
            mock.patch("distributed.Client", side_effect=OSError),
            self.assertRaisesRegex(InputError, "no Dask scheduler responds; start one"),
        ):
            self.run_all(fail, batch.Options(1, "tcp://127.0.0.1:1"))


if __name__ == "__main__":
    unittest.main()
