"""
Many sound files, one after the other: what a batch is, and how it goes on.

Of many files one that cannot be read is named, and the others are done; what is there
of a file that has not changed since is left as it is.
"""

import contextlib
import functools
import os
import sys
import traceback
from pathlib import Path

from tqdm import tqdm

from jtm.data.musicnet import open_dataset
from jtm.files import InputError, NoSpaceError, describe
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


def run(sources, work, what, progress=True, debug=False):
    """
    Work on files one by one; name those that fail on standard error, and go on.

    Parameters
    ----------
    sources : sequence of Path
        Sound files.
    work : callable
        Takes a file and a function to call with the seconds of it that are done.
    what : str
        What is done, for the progress bar.
    progress : bool
        Show a progress bar, of seconds of sound.
    debug : bool
        Print the traceback of what fails unexpectedly.

    Returns
    -------
    list of Path
        What failed.

    Raises
    ------
    NoSpaceError
        If nothing more can be written.
    """
    seconds = {source: _duration(source) for source in sources}
    failed = []
    tell = functools.partial(tqdm.write, file=sys.stderr)
    with tqdm(
        total=sum(seconds.values()),
        desc=what,
        bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]",
        disable=not (progress and sources),
    ) as bar:
        for source in sources:
            end = bar.n + seconds[source]

            def advance(done, end=end):  # never beyond, as tqdm then forgets the total
                bar.update(min(done, end - bar.n))

            try:
                work(source, advance)
            except NoSpaceError:
                raise
            except Exception as error:  # whatever a library makes of a file
                failed.append(source)
                if debug and not isinstance(error, InputError):
                    tell(traceback.format_exc())
                tell(f"jtm: {describe(error, source)}")
            bar.update(end - bar.n)  # what no frame covers
    return failed


def _duration(source):
    """Return a file's length in seconds, or 0 where it cannot be read."""
    with contextlib.suppress(Exception):  # which is told in its turn
        return audio.duration(source)
    return 0.0
