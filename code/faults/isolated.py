"""Actions in separate processes, with limits of time, memory and file size."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

HANG = 60.0
"""Processor time in seconds after which a process counts as hanging."""


class LostError(Exception):
    """A fault caused a loss, described in one line."""


def run(action, log, budget=None, file_size=None, watch=lambda pid: False):
    """Run an action in a forked process, which has all loaded modules."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if not pid:
        _run_child(action, log, file_size)
    seconds, watched = 0.0, False
    limit = HANG if budget is None else budget
    last, active_at = 0.0, time.monotonic()
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.002)
        watched = watched or watch(pid)
        seconds = max(seconds, cpu_seconds(pid))
        if seconds - last > 0.05:
            last, active_at = seconds, time.monotonic()
        idle = time.monotonic() - active_at > 5 * HANG
        if seconds > limit or idle:
            with contextlib.suppress(ProcessLookupError):  # not a group leader yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if budget is None or idle:
                raise LostError(f"hangs after {seconds:.0f} s of processor time")
            return None, Path(log).read_text(errors="replace"), seconds
    output = Path(log).read_text(errors="replace")
    with contextlib.suppress(ProcessLookupError):  # its remaining processes
        os.killpg(pid, signal.SIGKILL)
    if os.WIFSIGNALED(ended[1]):
        raise LostError(f"died of signal {os.WTERMSIG(ended[1])}; {last_line(output)}")
    return os.waitstatus_to_exitcode(ended[1]), output, seconds


def _run_child(action, log, file_size):
    """Run the action in the forked process, and exit."""
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 70
    try:
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        code = action() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def limit_memory(more):
    """Limit the memory of this process to `more` bytes above what it uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = int(pages * resource.getpagesize() + more)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def children(pid):
    """List the child processes of a process."""
    pids = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids += map(int, file.read_text().split())
    return pids


def cpu_seconds(pid):
    """Measure the processor time of a process and its children."""
    with contextlib.suppress(OSError):
        own = time.clock_gettime(~pid << 3 | 2)  # Linux's clock of another process
        return own + sum(map(cpu_seconds, children(pid)))
    return 0.0


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a disk of `size` bytes on a folder, if the user has permission."""
    options = ["mount", "-t", "tmpfs", "-o", f"size={max(4096, size)}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(options, capture_output=True).returncode:
        yield None
        return
    grow = ["mount", "-o", "remount,size=1g", folder]
    try:
        yield lambda: subprocess.run(grow, check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def last_line(output):
    """Return the last line of what a process printed."""
    return (output.strip().splitlines() or [""])[-1][:300]
