"""
What every module that touches the disk shares.

One exception for a user's mistake, one way to write a file whole or not at all, one
lock, and one way to join a name from a file to a folder without leaving that folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing here starts several processes at once
    fcntl = None


ROOT = Path(__file__).resolve().parents[2]
"""The checkout, where there is one: the folder of README.md, toy/ and report/."""


KILLED = (
    "one of several processes was killed, as systems do that are short of memory; "
    "run the same command again"
)
"""What is told where a process ends without a word."""


class InputError(ValueError):
    """A user's mistake: one line that names the file and says what to do."""


class NoSpaceError(InputError):
    """Nothing more can be written there, so that a batch of files ends too."""


class BusyError(InputError):
    """Another process is at it."""


class StoppedError(Exception):
    """The user stopped a run, which has saved what it did and can go on."""


class InputWarning(UserWarning):
    """Something odd in what the user gave that is worked around."""


def warn(message):
    """
    Warn of something odd in what the user gave.

    Parameters
    ----------
    message : str
        One line that names the file; each is shown once.
    """
    # Of one place for all, by which Python knows what it has shown.
    warnings.warn(message, InputWarning, stacklevel=1)


def show_warnings_in_one_line():
    """Print each :class:`InputWarning` as one line, as the commands do."""
    plain = warnings.formatwarning

    def one_line(message, category, *place, **more):
        if issubclass(category, InputWarning):
            return f"jtm: warning: {message}\n"
        return plain(message, category, *place, **more)

    warnings.formatwarning = one_line


def describe(error, name=None):
    """
    Describe an exception in one line.

    Parameters
    ----------
    error : Exception
        The exception.
    name : str or Path, optional
        The file that it arose with, told of what is no :class:`InputError`.

    Returns
    -------
    str
        The line.
    """
    if isinstance(error, InputError):
        return str(error)
    if name is None:
        refused = isinstance(error, OSError)
        name = "refused by the system" if refused else "a fault of the program"
    text = " ".join(str(error).split())
    return f"{name}: unexpected {type(error).__name__}: {text} (--debug shows where)"


@contextlib.contextmanager
def atomic(path):
    """
    Yield a temporary path that takes the final name when the block succeeds.

    Parameters
    ----------
    path : str or Path
        The final path; missing parent folders are made.

    Yields
    ------
    Path
        A path in the same folder, with the same ending, to write to.

    Raises
    ------
    InputError
        If the name is too long.
    NoSpaceError
        If the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    # Of a length of its own, since the name may be as long as names can be.
    key = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    part = path.with_name(f".{key}.{os.getpid()}.part{path.suffix[:16]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{path}: its name is too long; shorten it") from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        raise NoSpaceError(
            f"{path}: cannot be written ({error.strerror or error}); "
            f"{'free some space or ' * full}choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone, or never there
            part.unlink()


def sweep(folder):
    """
    Remove what killed processes left half-written in a folder and below it.

    Parameters
    ----------
    folder : str or Path
        The folder, which is locked, so that none of it is being written.
    """
    for part in Path(folder).rglob(".*.part*"):
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def locked(path, busy=""):
    """
    Let one process at a time do something; others wait for their turn.

    Parameters
    ----------
    path : str or Path
        A file to lock, made if it is missing; the lock ends with the block, or
        with the process.
    busy : str
        What to raise, instead of waiting, where another process has the lock.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        If the file cannot be made.
    BusyError
        If another process has the lock, and `busy` is given.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        # Where there are no locks, work may be done twice, but not wrongly.
        with contextlib.suppress(OSError):
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError:
                    raise BusyError(busy) from None
        yield


def inside(folder, name):
    """
    Join a name read from a file to a folder, refusing to leave the folder.

    Parameters
    ----------
    folder : str or Path
        The folder.
    name : str
        A relative path, such as an id from a metadata file.

    Returns
    -------
    Path
        The joined path, which lies in the folder.
    """
    folder = Path(folder)
    joined = folder / name
    if "\0" in name:
        raise InputError(f"{name!r}: no name of a file in {folder}")
    if not joined.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name!r} leads outside {folder}; expected a name in it")
    return joined


@contextlib.contextmanager
def scratch(path, parts):
    """
    Copy a sound file at 16 kHz into a file without a name, gone after the block.

    Parameters
    ----------
    path : str or Path
        The sound file, for messages.
    parts : iterable of bytes
        What is written.

    Yields
    ------
    file
        The copy, open for reading bytes, at its end.

    Raises
    ------
    NoSpaceError
        If there is no folder for temporary files.
    InputError
        If the copy does not fit there.
    """
    try:
        file = tempfile.TemporaryFile()
    except OSError as error:
        raise NoSpaceError(
            "no folder for temporary files can be written; name one by TMPDIR"
        ) from error
    with file:
        try:
            file.writelines(parts)
            file.flush()
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {path} at 16 kHz "
                f"({error.strerror}); free some, or set TMPDIR"
            ) from error
        yield file


def read_json(path):
    """
    Read a JSON file.

    Parameters
    ----------
    path : str or Path
        The file to read.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    InputError
        If it is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def write_json(path, content):
    """
    Write a JSON file, indented, at once or not at all.

    Parameters
    ----------
    path : str or Path
        The file to write.
    content : object
        Anything that JSON can hold.
    """
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def digest(path):
    """
    Hash a file's bytes.

    Parameters
    ----------
    path : str or Path
        The file to hash.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
