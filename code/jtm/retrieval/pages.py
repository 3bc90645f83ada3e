"""The output of `jtm identify`."""

import math

from jtm.files import InputError
from jtm.music import audio

LONGEST = 600
"""Seconds from the start of a recording used to identify it."""


def describe(path, index=None):
    """
    Identify the piece in an audio file, and describe the result.

    Parameters
    ----------
    path : str or Path
        Path to the file; only the first :data:`LONGEST` seconds are used.
    index : str or Path, optional
        Path to an index; the shipped one by default.

    Returns
    -------
    str
        A line with the title, after 'perhaps' below
        :data:`jtm.retrieval.search.CONFIDENT`, or that it was not found, and a line for
        each of the most likely pieces: confidence, title and file, the seconds of the
        recording that match, and the position in the piece at which they begin. A last
        line says if the recording is too short to try other keys.

    Raises
    ------
    InputError
        If the recording is too short, or a file cannot be read.
    """
    from jtm.retrieval.search import CONFIDENT, MIN_SECONDS, ShortError, find, sounding

    wave = audio.read(path, seconds=LONGEST, clipped=False)
    try:
        matches, found = find(wave, index=index, progress=True)
    except ShortError as error:
        raise InputError(f"{path}: {error}") from error
    if not matches:
        return f"{path}: not found; silent, steady, or unlike every indexed piece"
    name = matches[0].title
    if not found:
        name = "not found; the most likely are"
    elif matches[0].confidence < CONFIDENT:
        name = f"perhaps {name} ({100 * matches[0].confidence:.0f} %)"
    lines = [f"{path}: {name}"]
    for match in matches:
        line = (
            f"{100 * match.confidence:4.0f} %  {match.title} ({match.file}), "
            f"matched at {match.start:.0f}-{match.end:.0f} s, "
            f"from quarter {match.beat:.0f} of {match.beats:.0f}"
        )
        if match.key:
            n, side = abs(match.key), "above" if match.key > 0 else "below"
            line += f", {n} semitone{'s' * (n > 1)} {side} the score"
        lines.append(line)
    if sounding(wave) < MIN_SECONDS:
        least = math.ceil(MIN_SECONDS)
        lines.append(f"other keys not tried: less than {least} s of sound")
    return "\n".join(lines)
