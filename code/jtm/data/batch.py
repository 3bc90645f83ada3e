"""
Batch processing of audio files, in parallel and resumable.

Files that cannot be read are reported and the others processed; existing results of
unchanged files are kept. Files are processed one after the other, in several
processes, or by the workers of a Dask cluster.
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


@contextlib.contextmanager
def ordered_map(processes):
    """
    Yield a function like `map` that uses several processes.

    Parameters
    ----------
    processes : int
        Number of processes; 1 for the current process only.

    Yields
    ------
    callable
        Applies a function to items, and iterates over the results in their order.

    Raises
    ------
    InputError
        If a process is killed.
    """
    if processes == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _end_with_parent)
    try:
        yield functools.partial(pool.map, chunksize=4)
    except BrokenProcessPool as error:
        raise InputError(KILLED) from error
    finally:
        pool.shutdown(cancel_futures=True)


def find(inputs):
    """
    List the audio files among files and in folders.

    Parameters
    ----------
    inputs : sequence of str or Path
        Paths to audio files, and to folders, which are searched recursively.

    Returns
    -------
    sources : list of Path
        The files, without duplicates.
    root : Path
        The deepest common folder of all inputs.

    Raises
    ------
    InputError
        If a path does not exist, or there are only folders, and none of them contains
        an audio file.

    Warns
    -----
    InputWarning
        If one of several inputs is a folder that contains no audio file.
    """
    folders, sources, errors = [], {}, []
    for path in (Path(os.path.abspath(name)) for name in inputs):
        if not os.path.lexists(path):  # before it moves the deepest common folder
            raise InputError(f"{path}: no such file or folder")
        folders.append(path if path.is_dir() else path.parent)
        if not path.is_dir():
            sources[path] = None
            continue
        try:
            dataset = open_dataset(path, layout=False)
        except InputError as error:
            errors.append(error)
        else:
            sources |= dict.fromkeys(each.audio for each in dataset.recordings)
    if errors and not sources:
        raise errors[0]
    for error in errors:
        warn(str(error))
    return list(sources), Path(os.path.commonpath(folders))


@dataclass(frozen=True)
class Options:
    """
    How the files of a batch are processed.

    Parameters
    ----------
    jobs : int
        Number of processes on this machine; 1 uses the current one.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers must access the same files by the
        same paths; `jobs` is then ignored.
    debug : bool
        Whether to print the traceback of unexpected errors.

    Raises
    ------
    InputError
        If `jobs` is less than one.
    """

    jobs: int = 1
    scheduler: str | None = None
    debug: bool = False

    def __post_init__(self):
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs}; expected 1 or more processes")


def run(
    out,
    sources,
    missing,
    work,
    words,
    options=None,
    keep=lambda source, result: None,
    summary=lambda: "",
):
    """
    Process the files of a batch, and print a summary.

    Failures are reported on standard error, and the other files processed.

    Parameters
    ----------
    out : Path
        Path to the output folder.
    sources, missing : sequence of Path
        All audio files, and those of them without existing results.
    work : callable
        Takes a file and a progress callback, to be called with the seconds done. Must
        be picklable to run in another process, and may run twice on a file if
        that process is killed.
    words : tuple of str
        Present and past participle of the action, such as "Embedding" and "embedded".
    options : Options, optional
        Where to run `work`; in this process by default.
    keep : callable
        Takes a file and the result of `work`; called once, in this process.
    summary : callable
        Returns a summary of the results, such as "300 notes", if there are any.

    Returns
    -------
    int
        Number of files that failed.

    Raises
    ------
    InputError
        If every file failed, processes are killed repeatedly, or no scheduler responds.
    NoSpaceError
        If no space is left to write to.
    """
    present, past = words
    failed = _process(missing, work, keep, present, options or Options())
    if failed and len(failed) == len(sources):
        raise InputError(f"none of {len(sources)} files could be {past}")
    results = summary() if missing else ""
    print(
        f"{out}: {len(missing) - len(failed)} of {len(sources)} {past}"
        f"{results and f' ({results})'}, "
        f"{len(failed)} failed, {len(sources) - len(missing)} already done"
    )
    return len(failed)


def _process(sources, work, keep, what, options):
    """Process files under a progress bar of seconds; list those that failed."""
    seconds = {source: _duration(source) for source in sources}
    failed, total = [], sum(seconds.values())
    shown = "{n:.0f}/{total:.0f}" if total >= 10 else "{n:.2f}/{total:.2f}"
    with tqdm(
        total=total,
        desc=what,
        bar_format="{l_bar}{bar}| " + shown + " s [{elapsed}<{remaining}]",
        disable=not total,
    ) as bar:

        def advance(done):  # capped at the total, beyond which tqdm shows no bar
            bar.update(min(done, bar.total - bar.n))

        outcomes = _outcomes(sources, work, options, advance)
        with contextlib.closing(outcomes):
            before = bar.n
            for source, (result, error, trace, messages) in outcomes:
                for message in messages:
                    warn(message)
                if not error:
                    _, error, trace, _ = _attempt(keep, source, result)
                if isinstance(error, NoSpaceError):
                    raise error
                if error:
                    failed.append(source)
                    tqdm.write(trace * options.debug + f"jtm: {error}", file=sys.stderr)
                bar.update(before + seconds[source] - bar.n)  # beyond the last frame
                before = bar.n
    return failed


def _outcomes(sources, work, options, advance):
    """Yield each file with its outcome from :func:`_attempt`."""
    if options.scheduler:
        yield from _on_cluster(sources, work, options.scheduler)
    elif options.jobs > 1 and len(sources) > 1:
        yield from _in_processes(sources, work, min(options.jobs, len(sources)))
    else:
        for source in sources:
            yield source, _attempt(work, source, advance)


def _attempt(call, source, argument):
    """Return the result of a call or an InputError, its traceback, and no warnings."""
    try:
        return call(source, argument), None, "", []
    except NoSpaceError as error:
        return None, NoSpaceError(str(error)), "", []
    except Exception as error:  # libraries raise anything on a damaged file
        trace = "" if isinstance(error, InputError) else traceback.format_exc()
        return None, InputError(describe(error, source)), trace, []


def _attempt_in_worker(work, source):
    """Process a file in a worker process; return the warnings, too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            *outcome, _ = _attempt(work, source, lambda seconds: None)
        except SystemExit:  # partial output was removed; start nothing else
            os._exit(1)
    return *outcome, [str(warning.message) for warning in caught]


def _in_processes(sources, work, jobs):
    """Process files in local processes; retry the files of a killed one."""
    left, context = list(sources), multiprocessing.get_context("spawn")
    while left:
        n_left = len(left)
        pool = ProcessPoolExecutor(jobs, context, _init_worker, (jobs,))
        try:
            futures = {pool.submit(_attempt_in_worker, work, s): s for s in left}
            for future in as_completed(futures):
                outcome = future.result()
                left.remove(futures[future])
                yield futures[future], outcome
        except BrokenProcessPool as error:
            if len(left) == n_left:  # no progress: it would happen again
                raise InputError(KILLED) from error
        except BaseException:  # stopped by the user or by an error in this process
            _terminate([*pool._processes.values()])
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _terminate(processes):
    """Terminate processes within a second, so that they can remove partial output."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + 0.8
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()


def _init_worker(jobs):
    """Initialise a worker process, which ends with its parent or on its SIGTERM."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _end_with_parent()


def _end_with_parent():
    """End this worker process with its parent, which it would wait for forever."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _on_cluster(sources, work, address):
    """Process files on Dask workers; the scheduler reassigns those of dead workers."""
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
            f"--scheduler {address}: no Dask scheduler responds; start one by "
            "`dask scheduler`, and workers by `dask worker ADDRESS --nthreads 1`"
        ) from error
    with client:
        attempt = functools.partial(_attempt_in_worker, work)
        futures = client.map(attempt, sources, pure=False)
        names = dict(zip(futures, sources, strict=True))
        for future in distributed.as_completed(futures):
            if error := future.exception():  # the file has killed several workers
                error = InputError(describe(error, names[future]))
            yield names[future], (None, error, "", []) if error else future.result()


def _duration(source):
    """Return a file's duration in seconds, or 0 if it cannot be read."""
    with contextlib.suppress(Exception):  # reported when the file is processed
        return audio.duration(source)
    return 0.0
