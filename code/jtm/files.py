"""File utilities, and exceptions that users see."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows, where no command starts several processes
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout, if any: the folder with README.md, toy/ and report/."""

PART = re.compile(r"\.[0-9a-f]{8}\.\d+\.part(\..{0,15})?", re.DOTALL)
"""Names of temporary files of :func:`atomic`."""

KILLED = (
    "one of several processes was killed, as happens when memory runs out; "
    "run the same command again"
)
NO_FOLDER = "{}: is a file, or lies in one; expected a folder"
STOPPED = "jtm: stopped; run the same command to resume"


class InputError(ValueError):
    """A user error: one line that names the file and says what to do."""


class NoSpaceError(InputError):
    """A folder cannot be written, which also ends a batch of files."""


class BusyError(InputError):
    """Another process holds the lock."""


class StoppedError(Exception):
    """The user stopped a run, which has saved its progress and can be resumed."""


class InputWarning(UserWarning):
    """An anomaly in the user's input that does not stop a command."""


def warn(message):
    """
    Warn of an anomaly in the user's input.

    Parameters
    ----------
    message : str
        One line that names the file; each message is shown once.
    """
    # Python shows a message once per location, which is the same for all.
    warnings.warn(message, InputWarning, stacklevel=1)


def show_warnings_in_one_line():
    """Show each :class:`InputWarning` as one line above progress bars, for commands."""
    default = warnings.showwarning

    def one_line(message, category, *args, **kwargs):
        if issubclass(category, InputWarning):
            tqdm.write(f"jtm: warning: {message}", file=sys.stderr)
        else:
            default(message, category, *args, **kwargs)

    warnings.showwarning = one_line


def stop_in_one_line():
    """Make a script that Ctrl-C stops end with one line and exit code 130."""
    default = sys.excepthook

    def one_line(kind, error, traceback):
        if not issubclass(kind, (KeyboardInterrupt, StoppedError)):
            return default(kind, error, traceback)
        print(STOPPED, file=sys.stderr)
        sys.exit(130)

    sys.excepthook = one_line


def describe(error, name=None):
    """
    Describe an exception in one line.

    Parameters
    ----------
    error : Exception
        The exception.
    name : str or Path, optional
        File in which it arose, named unless the exception is an :class:`InputError`.

    Returns
    -------
    str
        The description.
    """
    if isinstance(error, InputError):
        return str(error)
    if name is None:
        by_system = isinstance(error, OSError)
        name = "refused by the system" if by_system else "a fault of the program"
    text = " ".join(str(error).split())
    return f"{name}: unexpected {type(error).__name__}: {text} (--debug shows where)"


@contextlib.contextmanager
def atomic(path):
    """
    Yield a temporary path that is renamed to the final path if the block succeeds.

    Parameters
    ----------
    path : str or Path
        The final path; missing parent folders are created.

    Yields
    ------
    Path
        Temporary path in the same folder, with the same suffix.

    Raises
    ------
    InputError
        If the name is too long, or that of a folder.
    NoSpaceError
        If the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    # A hash, since the final name may already have the maximum length.
    key = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    part = path.with_name(f".{key}.{os.getpid()}.part{path.suffix[:16]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{path}: its name is too long; shorten it") from error
        _refuse_folder(path)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
        _refuse_file(error)
        raise NoSpaceError(
            f"{path}: cannot be written ({error.strerror or error}); "
            f"{'free some space or ' * full}choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never created
            part.unlink()


def _refuse_file(error):
    """Raise NoSpaceError if a folder could not be made because of a file."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        raise NoSpaceError(NO_FOLDER.format(error.filename)) from error


def _refuse_folder(path):
    """Raise InputError if a folder has the name of an output file."""
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; expected a file or a new name")


def check_output(path, is_folder=False):
    """
    Refuse an output that cannot be written, before any work.

    Parameters
    ----------
    path : str or Path
        Path to the output, which need not exist; nothing is created.
    is_folder : bool
        Whether it is a folder, not a file.

    Raises
    ------
    InputError
        If a folder has the name of the file.
    NoSpaceError
        If the folder cannot be created or written.
    """
    path = Path(path)
    if not is_folder:
        _refuse_folder(path)
    folder = path if is_folder else path.parent
    existing = (each for each in (folder, *folder.parents) if os.path.exists(each))
    nearest = next(existing, folder)
    if os.path.isfile(nearest):
        raise NoSpaceError(NO_FOLDER.format(folder))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NoSpaceError(f"{folder}: cannot be written; choose another folder")


def sweep(folder, deep=True):
    """
    Remove temporary files that killed processes left in a folder.

    Only files named as by :func:`atomic` are removed. Subfolders in use by another
    process, which holds a lock in them, are left as they are.

    Parameters
    ----------
    folder : str or Path
        The folder, locked by the caller, so that nothing in it is being written.
    deep : bool
        Whether to sweep its subfolders, too.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if deep and entry.is_dir(follow_symlinks=False):
                with contextlib.ExitStack() as stack, contextlib.suppress(InputError):
                    for lock in sorted(Path(entry).glob("*.lock")):
                        stack.enter_context(locked(lock, f"{lock}: held"))
                    sweep(entry)
            elif PART.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    os.unlink(entry)


@contextlib.contextmanager
def locked(path, busy=""):
    """
    Hold an exclusive lock on a file, waiting for it if necessary.

    Parameters
    ----------
    path : str or Path
        File to lock, created if missing; the lock ends with the block or with the
        process. If the block fails, a new folder that is otherwise empty is removed.
    busy : str
        If given, message of the error to raise instead of waiting.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InputError
        If the file cannot be created.
    BusyError
        If another process holds the lock, and `busy` is given.
    """
    folder = Path(path).parent
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")
    except OSError as error:
        _refuse_file(error)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        # On file systems without locks, work may be repeated; results stay correct.
        with contextlib.suppress(OSError):
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError:
                    raise BusyError(busy) from None
        try:
            yield
        except BaseException:
            if new and os.listdir(folder) == [Path(path).name]:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def inside(folder, name):
    """
    Join an untrusted name to a folder; raise InputError if it leads outside.

    Parameters
    ----------
    folder : str or Path
        The folder.
    name : str
        Relative path, such as an id from a metadata file.

    Returns
    -------
    Path
        The joined path.
    """
    folder = Path(folder)
    joined = folder / name
    if "\0" in name:
        raise InputError(f"{name!r}: not a file name in {folder}")
    if not joined.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name!r} leads outside {folder}; expected a name in it")
    return joined


@contextlib.contextmanager
def scratch(path, parts):
    """
    Copy audio at 16 kHz to an anonymous temporary file, deleted after the block.

    Parameters
    ----------
    path : str or Path
        The audio file, for messages.
    parts : iterable of bytes
        Content to write.

    Yields
    ------
    file
        The copy, a binary file positioned at its end.

    Raises
    ------
    NoSpaceError
        If no folder for temporary files can be written.
    InputError
        If the copy does not fit.
    """
    try:
        file = tempfile.TemporaryFile()
    except OSError as error:
        raise NoSpaceError(
            "no folder for temporary files can be written; set TMPDIR to one"
        ) from error
    with file:
        try:
            file.writelines(parts)
            file.flush()
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {path} at 16 kHz "
                f"({error.strerror}); free some space, or set TMPDIR"
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
        The content.

    Raises
    ------
    InputError
        If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def write_json(path, content):
    """
    Write an indented JSON file atomically.

    Parameters
    ----------
    path : str or Path
        The file to write.
    content : object
        Any content that JSON can represent.
    """
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def alternatives(path, pattern):
    """
    List matching files in the folder of a missing file.

    Parameters
    ----------
    path : Path
        Path to the missing file.
    pattern : str
        Glob pattern of the names to list.

    Returns
    -------
    str
        Text to append to a message; empty if no name matches.
    """
    names = sorted(file.name for file in path.parent.glob(pattern))
    return f"; there are {', '.join(names)}" if names else ""


def stamp(path):
    """
    Return size and modification time of a file, to detect changes.

    Parameters
    ----------
    path : str or Path
        Path to the file.

    Returns
    -------
    list of int
        Size in bytes and time in nanoseconds; empty if they cannot be read.
    """
    with contextlib.suppress(OSError):
        stat = Path(path).stat()
        return [stat.st_size, stat.st_mtime_ns]
    return []


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
