"""What `jtm identify` prints."""

from jtm.music import audio

LONGEST = 600
"""Seconds from the start of a recording that are heard to name it."""


def answer(path, index=None):
    """
    Name the piece that a sound file is of, in words.

    Parameters
    ----------
    path : str or Path
        The sound file; of a long one the first :data:`LONGEST` seconds are heard.
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
    from jtm.retrieval.search import find

    matches, found = find(audio.read(path, seconds=LONGEST), index=index)
    if not matches:
        return f"{path}: nothing but silence; no piece to name"
    first = matches[0]
    lines = [
        f"{path}: {first.title}" if found else f"{path}: not found; the likeliest are"
    ]
    for each in matches:
        line = (
            f"{100 * each.confidence:4.0f} %  {each.title} ({each.file}), from quarter "
            f"{each.beat:.0f} of {each.beats:.0f}, "
            f"heard {each.start:.0f}-{each.end:.0f} s"
        )
        if each.key:
            many, side = abs(each.key), "above" if each.key > 0 else "below"
            line += f", {many} semitone{'s' * (many > 1)} {side} the score"
        lines.append(line)
    return "\n".join(lines)
