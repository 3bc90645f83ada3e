"""What `jtm identify` prints."""

from jtm.music import audio
from jtm.retrieval.search import find


def answer(path, index=None):
    """
    Name the piece that a sound file is of, in words.

    Parameters
    ----------
    path : str or Path
        The sound file; of a long one as much as is needed is heard.
    index : str or Path, optional
        Where to look; the index that comes with the package by default.

    Returns
    -------
    str
        A line that says what it is, or that it was not found, and a line for each of
        the likeliest pieces: how likely, its name and file, and where in it the
        recording is.

    Raises
    ------
    InputError
        If the sound is too short, or a file cannot be read.
    """
    matches, found = find(audio.read(path), index=index)
    if not matches:
        return f"{path}: nothing but silence; no piece to name"
    first = matches[0]
    lines = [
        f"{path}: {first.title}" if found else f"{path}: not found; the likeliest are"
    ]
    lines += [
        f"{100 * each.confidence:4.0f} %  {each.title} ({each.file}), from quarter "
        f"{each.beat:.0f} of {each.beats:.0f}, heard {each.start:.0f}-{each.end:.0f} s"
        for each in matches
    ]
    return "\n".join(lines)
