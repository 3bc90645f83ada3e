"""Actions in processes of their own, which may be killed, starved or refused room."""

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
"""Seconds of processor time after which a process counts as hanging."""


class LostError(Exception):
    """A fault cost something: what, in one line."""


def run(action, log, budget=None, file_size=None, watch=lambda pid: False):
    """Run an action in a forked process, with the modules that are loaded here."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if not pid:
        _be(action, log, file_size)
    seconds, watched = 0.0, False
    limit = HANG if budget is None else budget
    last, moved = 0.0, time.monotonic()
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.002)
        watched = watched or watch(pid)
        seconds = max(seconds, cpu_seconds(pid))
        if seconds - last > 0.05:
            last, moved = seconds, time.monotonic()
        idle = time.monotonic() - moved > 5 * HANG
        if seconds > limit or idle:
            with contextlib.suppress(ProcessLookupError):  # it leads no group yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if budget is None or idle:
                raise LostError(f"hangs after {seconds:.0f} s of processor time")
            return None, Path(log).read_text(errors="replace"), seconds
    said = Path(log).read_text(errors="replace")
    with contextlib.suppress(ProcessLookupError):  # what it left running
        os.killpg(pid, signal.SIGKILL)
    if os.WIFSIGNALED(ended[1]):
        raise LostError(f"died of signal {os.WTERMSIG(ended[1])}; {last_line(said)}")
    return os.waitstatus_to_exitcode(ended[1]), said, seconds


def _be(action, log, file_size):
    """Be the forked process."""
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
    """Let this process have so much more memory than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = int(pages * resource.getpagesize() + more)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def children(pid):
    """List the processes that a process has started."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def cpu_seconds(pid):
    """Measure the processor time of a process and those that it has started."""
    with contextlib.suppress(OSError):
        own = time.clock_gettime(~pid << 3 | 2)  # Linux's clock of another process
        return own + sum(map(cpu_seconds, children(pid)))
    return 0.0


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a disk of so many bytes on a folder, where this user may."""
    options = ["mount", "-t", "tmpfs", "-o", f"size={max(4096, size)}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(options, capture_output=True).returncode:
        yield None
        return
    grow = ["mount", "-o", "remount,size=1g", folder]
    try:
        yield lambda: subprocess.run(grow, check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def last_line(said):
    """Return the last line of what a process printed."""
    return (said.strip().splitlines() or [""])[-1][:300]
