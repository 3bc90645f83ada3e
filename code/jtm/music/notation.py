"""
Scores as notes in score time, and passages of scores as piano rolls.

Score time is measured in quarter notes. No tempo is used here, so that audio and score
share no time axis.
"""

import functools
import itertools
import re
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

from jtm.constants import N_PITCHES, PITCH_MAX, PITCH_MIN
from jtm.files import InputError, warn

CELLS = 6  # of a roll per quarter note
LONGEST = 8  # quarter notes of a roll; longer passages are cropped to their middle
WIDTH = CELLS * LONGEST  # cells of a roll; those beyond the passage are empty

NOTE = np.dtype([("beat", "f4"), ("beats", "f4"), ("pitch", "i2"), ("part", "i2")])
"""A notated note: onset and duration in quarter notes, MIDI pitch, part number."""

MAX_BEATS = 100_000  # maximum for a MIDI file; a damaged one may have millions
SUFFIXES = ".mid .midi .mxl .xml .musicxml .abc .krn".split()


def read(path):
    """
    Read a score file; repeats are read once, as written.

    Parameters
    ----------
    path : str or Path
        Path to a MIDI, MusicXML, ABC or kern file. An ABC file may have several tunes;
        if some cannot be read, a warning counts them.

    Returns
    -------
    list of tuple
        For each piece, its title, empty if unknown, and its notes ``(notes,)`` of
        type :data:`NOTE`, sorted by onset.

    Raises
    ------
    InputError
        If the file cannot be read as a score, or has no pitched note.
    """
    path = Path(path)
    pieces, errors = [], []
    try:
        sources = _tunes(path) if path.suffix.lower() == ".abc" else [path]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    for source in sources:
        try:
            pieces += _parse(source)
        except Exception as error:  # music21 raises anything on a damaged file
            errors.append(error)
    if errors:
        reason = " ".join(str(errors[0]).split())[:100] or type(errors[0]).__name__
        if not pieces:
            raise InputError(f"{path}: not a readable score ({reason})") from errors[0]
        counts = f"{len(errors)} of {len(sources)} tunes"
        warn(f"{path}: {counts} cannot be read (the first: {reason})")
    return pieces


def _tunes(path):
    """
    List the tunes of an ABC file as texts with the defaults of the file's header.

    As in the ABC standard 2.1, a tune begins with ``X:`` and ends with a blank line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text("latin-1")
    blank = re.compile(r"\n[ \t]*\n")
    preamble, *tunes = re.split("^X:.*", text, flags=re.MULTILINE)
    tunes = [blank.split(tune)[0] for tune in tunes] or [text]
    # In free metre, or metres from 3/4 on, the unit note length is 1/8 by default.
    # Accidentals hold to the end of the bar, which music21 leaves to the version.
    defaults = {"%abc": "%abc-2.1", "M": "M:none"}
    for line in blank.split(preamble.strip())[0].splitlines():
        if re.match("%abc|[CLM]:", line):
            defaults[re.match("%abc|.", line)[0]] = line
    texts = []
    for tune in tunes:
        fields = (line.partition(":")[0] for line in tune.splitlines())
        header = set(itertools.takewhile(lambda field: field != "K", fields))
        added = [line for field, line in defaults.items() if field not in header]
        lines = (*sorted(added), *_by_voice(tune))  # the version first
        texts.append("\n".join(_without_clefs_and_bar_rests(lines)))
    return texts


_COMMENT = re.compile(r"(?<![\\%])%(?!%propagate).*")
_INLINE = re.compile(r"(?m)^([A-Za-z]:.*)|\[([A-Za-z]:[^]\n]*)\]")
"""A line that is a field, with any text in it, or a field in brackets."""


def _by_voice(tune):
    """
    List the lines of an ABC tune voice by voice, and inline fields on their own lines.

    music21 reads each ``V:`` as another part from the beginning, and ignores voices
    with names, and fields within a line, such as ``[V:1]`` and ``[K:D]``.
    """
    lines = [line for line in _COMMENT.sub("", tune).splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if line[:2] == "K:"), -1) + 1
    header, body = lines[:first], "\n".join(lines[first:])
    body = _INLINE.sub(lambda m: m[1] or f"\n{m[2]}\n", body).splitlines()
    body = [line for line in body if line.strip()]
    if not any(line.startswith("V:") for line in body):
        return header + body
    voices, voice = {}, None
    for line in body:
        if line.startswith("V:"):
            voice = (line[2:].split() or [""])[0]
        elif voice is None and re.match("[A-Za-z]:", line):
            header.append(line)  # applies to all voices
        else:
            voices.setdefault(voice or "1", []).append(line)
    lines = [line for line in header if not line.startswith("V:")]
    for number, own in enumerate(voices.values(), 1):
        lines += [f"V:{number}", *own]
    return lines


_CLEF = re.compile(r"(?<=[:\s])([a-z]+=|(treble|alto|tenor|baritone|bass)\b)\S*")
_REST = re.compile(r'("[^"]*"|![^!]*!)|x|[ZX](\d*)')
"""An invisible rest or one of whole bars, or text and decorations, which have none."""


def _without_clefs_and_bar_rests(lines):
    """
    List the lines of an ABC tune without clefs, and all rests as those of notes.

    In music21 a clef after the key lowers the notes; ``x``, ``X`` and ``Z`` take no
    time.
    """
    meter = unit = header = None
    for line in lines:
        if line.startswith("M:"):
            meter = _fraction(line[2:].replace("C|", "1").replace("C", "1"))
        elif line.startswith("L:"):
            unit = _fraction(line[2:])
        elif line.startswith("K:"):
            line = _CLEF.sub("", line)
            header = header or (meter, unit)
        elif line.startswith("V:"):
            meter, unit = header or (meter, unit)
        elif not re.match("[A-Za-z]:", line):
            short = meter and meter < Fraction(3, 4)
            bar = meter and meter / (unit or Fraction(1, 16 if short else 8))
            line = _REST.sub(functools.partial(_rest, bar), line)
        yield line


def _rest(bar, match):
    """Write a rest as one of notes; `bar` is a bar's length, None if unknown."""
    if match[0] == "x":
        return "z"
    return match[1] or (f"z{bar * int(match[2] or 1)}" if bar else match[0])


def _fraction(text):
    """Return a meter or note length as a fraction of a whole note; None if unknown."""
    try:
        return Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        return None


def _parse(source):
    """Read the pieces of a score file, or of the text of an ABC tune."""
    from music21 import converter, stream

    with warnings.catch_warnings(action="ignore"):  # such as of overfull measures
        if isinstance(source, str):
            parsed = converter.parseData(source, format="abc")
        else:
            if source.suffix.lower() in (".mid", ".midi"):
                _check_length(source)
            parsed = converter.parse(source, forceSource=True, storePickle=False)
        scores = parsed.scores if isinstance(parsed, stream.Opus) else [parsed]
        pieces = [(_title(score), _notes_of(score)) for score in scores]
    pieces = [piece for piece in pieces if len(piece[1])]
    if not pieces:
        raise ValueError("no notes")
    return pieces


def _check_length(path):
    """Raise an error if a MIDI file is so long that music21 would not finish."""
    from music21 import midi

    file = midi.MidiFile()
    file.readstr(path.read_bytes())
    ticks = [sum(e.time for e in t.events if e.isDeltaTime()) for t in file.tracks]
    beats = max(ticks, default=0) / max(1, file.ticksPerQuarterNote)
    if beats > MAX_BEATS:
        raise ValueError(f"{beats:.0f} beats long, of up to {MAX_BEATS}")


def _title(score):
    """Return composer and title of a piece, as far as known."""
    metadata = score.metadata
    if metadata is None:
        return ""
    parts = (metadata.composer, metadata.bestTitle)
    return ": ".join(" ".join(part.split()) for part in parts if part)


def _notes_of(score):
    """
    List the notes of a music21 score at sounding pitch, sorted by onset.

    Ties and unisons are merged; grace notes, drums and chord symbols are left out.
    kern is encoded at sounding pitch, also where it names a transposing instrument.
    """
    merged = {}  # (onset, pitch) -> duration and part
    for number, part in enumerate(getattr(score, "parts", None) or [score]):
        tied = {}  # pitch -> onset of the note that a tie may extend
        flat = part.flatten()
        shifts = _transpositions(flat) if part.atSoundingPitch is False else []
        for element in flat.notes:
            beats = float(element.duration.quarterLength)
            if beats <= 0 or "ChordSymbol" in element.classes:
                continue
            beat = float(element.offset)
            shift = next((n for start, n in shifts if start <= beat), 0)
            for note in getattr(element, "notes", (element,)):
                if not hasattr(note, "pitch"):
                    continue
                pitch, tie = int(note.pitch.midi) + shift, note.tie or element.tie
                start = tied.pop(pitch, None)
                if start is None or tie is None or tie.type == "start":
                    start = beat
                key = start, pitch
                longest, first = merged.get(key, (0.0, number))
                merged[key] = max(longest, beat + beats - start), first
                if tie is not None and tie.type in ("start", "continue"):
                    tied[pitch] = start
    rows = [
        (beat, beats, pitch, part)
        for (beat, pitch), (beats, part) in sorted(merged.items())
    ]
    return np.array(rows, NOTE)


def _transpositions(flat):
    """List onsets and semitones of a part's transposing instruments, last first."""
    instruments = flat.getElementsByClass("Instrument")
    return [
        (float(each.offset), int(each.transposition.semitones))
        for each in reversed(instruments)
        if each.transposition
    ]


def roll(notes, first, last):
    """
    Compute the piano roll of a passage of a score, in score time.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes of type :data:`NOTE`.
    first, last : float
        Start and end of the passage in quarter notes.

    Returns
    -------
    rolls : numpy.ndarray
        Piano roll ``(2, 88, WIDTH)``, float32: in row 0 the fraction of each cell in
        which the pitch is active, in row 1 whether a note has its onset there. The
        passage begins at cell 0.
    length : numpy.float32
        Length of the passage in cells, clipped to 1..WIDTH.
    """
    length = np.float32(np.clip(CELLS * (last - first), 1, WIDTH))
    surplus = max(0.0, last - first - LONGEST) / 2
    first, last = first + surplus, last - surplus
    rolls = np.zeros((2, N_PITCHES, WIDTH), np.float32)
    ends = notes["beat"] + notes["beats"]
    within = (notes["beat"] < last) & (ends > first)
    within &= (notes["pitch"] >= PITCH_MIN) & (notes["pitch"] <= PITCH_MAX)
    starts = CELLS * (notes["beat"][within] - first)
    stops = CELLS * (np.minimum(ends[within], last) - first)
    rows = notes["pitch"][within] - PITCH_MIN
    edges = np.arange(WIDTH)
    active = np.minimum(edges + 1, stops[:, None]) - np.maximum(edges, starts[:, None])
    np.maximum.at(rolls[0], rows, np.clip(active, 0, 1))
    inside = starts > -0.01
    cells = np.clip(starts[inside] + 0.01, 0, WIDTH - 1).astype(int)
    rolls[1, rows[inside], cells] = 1
    return rolls, length
