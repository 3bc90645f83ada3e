"""
Many sound files: what a batch is, where it is worked on, and how it goes on.

Of many files one that cannot be read is named, and the others are done; what is there
of a file that has not changed since is left as it is. Files are worked on one after
the other, in several processes, or by the workers of a Dask cluster.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from jtm.data.musicnet import open_dataset
from jtm.files import KILLED, InputError, InputWarning, NoSpaceError, describe, warn
from jtm.music import audio


def find(inputs):
    """
    List the sound files of files and folders.

    Parameters
    ----------
    inputs : sequence of str or Path
        Sound files and folders of them, searched at any depth.

    Returns
    -------
    sources : list of Path
        The files, each once.
    root : Path
        The deepest folder that holds all inputs.

    Raises
    ------
    InputError
        If a folder holds no sound.
    """
    folders, sources = [], {}
    for given in (Path(os.path.abspath(each)) for each in inputs):
        if given.is_dir():
            found = [recording.audio for recording in open_dataset(given).recordings]
        else:
            found = [given]
        folders.append(given if given.is_dir() else given.parent)
        sources |= dict.fromkeys(found)
    return list(sources), Path(os.path.commonpath(folders))


def state(source):
    """
    Return what tells whether a file has changed.

    Parameters
    ----------
    source : Path
        The file.

    Returns
    -------
    list of int
        Its size and time, or nothing where it cannot be asked.
    """
    with contextlib.suppress(OSError):
        stat = source.stat()
        return [stat.st_size, stat.st_mtime_ns]
    return []


@dataclass(frozen=True)
class Spread:
    """
    Where the files of a batch are worked on.

    Parameters
    ----------
    jobs : int
        Processes on this machine; 1 is this one.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers see the same files by the same
        paths; `jobs` counts for nothing then.

    Raises
    ------
    InputError
        If `jobs` is less than one.
    """

    jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self):
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs}; expected 1 or more processes")


def run(sources, work, keep, what, progress=True, debug=False, spread=None):
    """
    Work on files; name those that fail on standard error, and go on.

    Parameters
    ----------
    sources : sequence of Path
        Sound files.
    work : callable
        Takes a file and a function to call with the seconds of it that are done. It
        can be pickled where another process is to call it, perhaps twice, if that
        process is killed.
    keep : callable
        Takes a file and what `work` returned, once and in this process.
    what : str
        What is done, for the progress bar.
    progress : bool
        Show a progress bar, of seconds of sound.
    debug : bool
        Print the traceback of what fails unexpectedly.
    spread : Spread, optional
        Where `work` is called; here by default.

    Returns
    -------
    list of Path
        What failed.

    Raises
    ------
    InputError
        If processes are killed again and again, or the scheduler cannot be reached.
    NoSpaceError
        If nothing more can be written.
    """
    seconds = {source: duration(source) for source in sources}
    failed, total = [], sum(seconds.values())
    shown = "{n:.0f}/{total:.0f}" if total >= 10 else "{n:.2f}/{total:.2f}"
    with tqdm(
        total=total,
        desc=what,
        bar_format="{l_bar}{bar}| " + shown + " s [{elapsed}<{remaining}]",
        disable=not (progress and total),
    ) as bar:

        def advance(done):  # never beyond the total, of which tqdm cannot write a bar
            bar.update(min(done, bar.total - bar.n))

        outcomes = _outcomes(sources, work, spread or Spread(), advance)
        with contextlib.closing(outcomes):
            before = bar.n
            for source, (result, error, trace, told) in outcomes:
                for message in told:
                    warn(message)
                if not error:
                    _, error, trace, _ = _attempt(keep, source, result)
                if isinstance(error, NoSpaceError):
                    raise error
                if error:
                    failed.append(source)
                    tqdm.write(trace * debug + f"jtm: {error}", file=sys.stderr)
                bar.update(before + seconds[source] - bar.n)  # what no frame covers
                before = bar.n
    return failed


def finish(out, sources, missing, failed, done, found=""):
    """
    Say what a batch has done.

    Parameters
    ----------
    out : Path
        Where it wrote.
    sources, missing, failed : sequence of Path
        All files, those of which nothing was there, and what :func:`run` returned.
    done : str
        What was done, such as "embedded".
    found : str
        What came of it, such as "300 notes".

    Returns
    -------
    int
        Number of files that failed.

    Raises
    ------
    InputError
        If no file at all could be worked on.
    """
    if failed and len(failed) == len(sources):
        raise InputError(f"none of {len(sources)} files could be {done}")
    print(
        f"{out}: {len(missing) - len(failed)} of {len(sources)} {done}"
        f"{found and f' ({found})'}, "
        f"{len(failed)} failed, {len(sources) - len(missing)} are there already"
    )
    return len(failed)


def _outcomes(sources, work, spread, advance):
    """Yield each file with what came of it, as :func:`_attempt` returns it."""
    if spread.scheduler:
        yield from _on_cluster(sources, work, spread.scheduler)
    elif spread.jobs > 1 and len(sources) > 1:
        yield from _in_processes(sources, work, min(spread.jobs, len(sources)))
    else:
        for source in sources:
            yield source, _attempt(work, source, advance)


def _attempt(call, source, argument):
    """
    Call a function of a file; return what can go from process to process.

    That is its result; or an :class:`InputError`, and the traceback if it is
    unexpected; and no warnings, as they are shown where they arise.
    """
    try:
        return call(source, argument), None, "", []
    except NoSpaceError as fault:
        return None, NoSpaceError(str(fault)), "", []
    except Exception as fault:  # whatever a library makes of a file
        trace = "" if isinstance(fault, InputError) else traceback.format_exc()
        return None, InputError(describe(fault, source)), trace, []


def _attempt_elsewhere(work, source):
    """Work on a file in another process; return the warnings, too."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", InputWarning)
        try:
            *outcome, _ = _attempt(work, source, lambda seconds: None)
        except SystemExit:  # what was half done is gone; begin nothing else
            os._exit(1)
    return *outcome, [str(each.message) for each in told]


def _in_processes(sources, work, jobs):
    """Work in processes on this machine; one that is killed costs no file."""
    left, context = list(sources), multiprocessing.get_context("spawn")
    while left:
        n_left = len(left)
        pool = ProcessPoolExecutor(jobs, context, _begin, (jobs,))
        try:
            futures = {pool.submit(_attempt_elsewhere, work, s): s for s in left}
            for future in as_completed(futures):
                outcome = future.result()
                left.remove(futures[future])
                yield futures[future], outcome
        except BrokenProcessPool as error:
            if len(left) == n_left:  # nothing was done: it would happen again
                raise InputError(KILLED) from error
        except BaseException:  # stopped by the user, or by what fails here
            _end([*pool._processes.values()])
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _end(processes):
    """End processes within a second, in which they remove what they have half done."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + 0.8
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()


def _begin(jobs):
    """Prepare a process: it ends with its parent, or when the parent says so."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _on_cluster(sources, work, address):
    """Work on the workers of a Dask scheduler, which gives a dead one's to others."""
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "--scheduler needs Dask; install it by `pip install jtm[cluster]`"
        ) from error
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers; start one by "
            "`dask scheduler`, and workers by `dask worker ADDRESS --nthreads 1`"
        ) from error
    with client:
        attempt = functools.partial(_attempt_elsewhere, work)
        futures = client.map(attempt, sources, pure=False)
        names = dict(zip(futures, sources, strict=True))
        for future in distributed.as_completed(futures):
            if error := future.exception():  # of a file that has killed several workers
                error = InputError(describe(error, names[future]))
            yield names[future], (None, error, "", []) if error else future.result()


def duration(source):
    """
    Return a file's length in seconds, or 0 where it cannot be read.

    Parameters
    ----------
    source : Path
        The file.

    Returns
    -------
    float
        Seconds.
    """
    with contextlib.suppress(Exception):  # which is told in its turn
        return audio.duration(source)
    return 0.0
