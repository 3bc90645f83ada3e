"""
Streaming decoding of the network's logits into notes.

Pitch activations and onsets become notes as in
:func:`jtm.evaluation.transcription.decode`, block by block; a note that is active
across a boundary of blocks remains one note. Slow attacks are found too: a pitch that
becomes active at a weak onset and remains so. Each note then gets the instrument with
the most evidence, among those detected in the recording, and a velocity from its power.
"""

import numbers
import re
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.special import logit

from jtm.constants import (
    FRAME_RATE,
    INSTRUMENTS,
    N_PITCHES,
    PITCH_MAX,
    PITCH_MIN,
    PITCH_RANGES,
)
from jtm.data.rolls import PLAYED_DTYPE, rolls_to_notes
from jtm.evaluation.transcription import REACH, peaks
from jtm.files import InputError

NOTE_DTYPE = np.dtype([*PLAYED_DTYPE.descr, ("velocity", np.int16)])
"""A transcribed note: :data:`PLAYED_DTYPE` and the MIDI velocity 1..127."""

ATTACK = 10
"""Number of 10-ms frames from a note's onset over which its maximum power is taken."""

WEAK = 0.25
"""Share of the onset threshold that a pitch needs that becomes and remains active."""

SUSTAINED, SUSTAIN = 0.7, 15
"""Activation probability of such a pitch, and 10-ms frames over which it is taken."""

NEAR = 5
"""Number of 10-ms frames between the weak onset and the first active frame."""

MIN_SHARE = 0.08
"""Minimum share of all evidence for an instrument to count as present."""

SHORTEST = 50.0
"""Default minimum note length in milliseconds."""

MEDIUM = 64
"""Velocity of the note of median power; absolute power depends on the recording."""

_DECODED_DTYPE = np.dtype(
    [
        *(("first", int), ("last", int), ("pitch", int), ("power", float)),
        *(("continued", bool), ("evidence", float, (len(INSTRUMENTS),))),
    ]
)


@dataclass(frozen=True)
class Choices:
    """
    Decoding options.

    Parameters
    ----------
    onset_threshold, frame_threshold : float, optional
        Probability thresholds of onsets and of pitch activations; by default those of
        the transcriber.
    min_note_ms : float
        Minimum note length in milliseconds; 0 keeps all notes.
    pitch_range : tuple of int or str
        Lowest and highest MIDI pitch; or a text such as "G3-E7" or "55-100".
    instruments : tuple of int or str, or str
        The ensemble, as programs or names of :data:`jtm.constants.INSTRUMENTS`, or a
        text of these with commas between; by default all are considered.

    Raises
    ------
    InputError
        If an option is outside its range.
    """

    onset_threshold: float | None = None
    frame_threshold: float | None = None
    min_note_ms: float = SHORTEST
    pitch_range: tuple = (PITCH_MIN, PITCH_MAX)
    instruments: tuple = ()

    def __post_init__(self):
        for name in ("onset_threshold", "frame_threshold"):
            value = getattr(self, name)
            if value is not None and not (_is_real(value) and 0 < value < 1):
                flag = name.replace("_", "-")
                raise InputError(
                    f"--{flag} {value}; expected a probability above 0 and below 1"
                )
        if not (_is_real(self.min_note_ms) and 0 <= self.min_note_ms < np.inf):
            raise InputError(
                f"--min-note-ms {self.min_note_ms}; expected 0 or more milliseconds"
            )
        object.__setattr__(self, "pitch_range", _pitches(self.pitch_range))
        object.__setattr__(self, "instruments", _ensemble(self.instruments))


def _is_real(value):
    """Return whether a value is a real number."""
    return isinstance(value, numbers.Real)


def _pitches(ends):
    """Return the lowest and highest MIDI pitch, given as such or as text."""
    text = ends if isinstance(ends, str) else "-".join(map(str, np.atleast_1d(ends)))
    pitch = r"(\d+|[A-Ga-g][#b]?\d)"
    match = re.fullmatch(f"{pitch}-{pitch}", text)
    low, high = map(_pitch, match.groups()) if match else (1, 0)
    if not low <= high <= 127:
        raise InputError(
            f"--pitch-range {text}; expected the lowest and highest note, such as "
            "G3-E7, or MIDI numbers of 0..127, such as 55-100"
        )
    return low, high


def _pitch(text):
    """Return the MIDI pitch of a note name or number."""
    import pretty_midi

    return int(text) if text.isdigit() else pretty_midi.note_name_to_number(text)


def _ensemble(given):
    """Return the programs of instruments, given as such, by name or as one text."""
    given = given.split(",") if isinstance(given, str) else np.atleast_1d(given)
    names = [str(name).strip().lower() for name in given]
    programs = {str(program): program for program in INSTRUMENTS}
    programs |= {name: program for program, name in INSTRUMENTS.items()}
    if unknown := [name for name in names if name not in programs]:
        raise InputError(
            f"--instruments {unknown[0]}; expected some of "
            f"{', '.join(INSTRUMENTS.values())}, with commas between"
        )
    return tuple(programs[name] for name in names)


def find(blocks, thresholds):
    """
    Find notes in a stream of blocks of logits.

    Parameters
    ----------
    blocks : iterable of dict
        Blocks from :meth:`jtm.transcriber.model.Transcriber.stream`.
    thresholds : tuple of float
        Probability thresholds of pitch activations and of onsets.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` sorted by onset and pitch: ``first`` and ``last`` 10-ms
        frame (the last excluded), ``pitch``, ``power``, and ``evidence`` of each
        instrument, its probability summed over the note's frames.
    """
    ended, active = [], {}  # active: notes that reach the region's end, by pitch
    for start, context, region in _regions(blocks):
        notes = _find_in(context, region, thresholds, active)
        notes["first"] += start
        notes["last"] += start
        for i in np.flatnonzero(notes["continued"]):
            before = active.pop(notes[i]["pitch"])
            for name in ("first", "power"):
                notes[name][i] = before[name]
            notes["evidence"][i] += before["evidence"]
        end = start + region.stop - region.start
        ended += [*active.values(), *notes[notes["last"] < end]]
        active = {note["pitch"]: note for note in notes[notes["last"] == end]}
    notes = np.array([*ended, *active.values()], _DECODED_DTYPE)
    return np.sort(notes, order=("first", "pitch"))


def _regions(blocks):
    """
    Yield regions of frames to decode, with context on either side.

    Each is the index of its first frame in the recording, the blocks around it, joined,
    and its slice of these. Peak picking needs frames on both sides, a weak onset those
    of what follows, and a note's power those of its attack.
    """
    ahead = max(ATTACK, SUSTAIN + REACH)
    start, lead, context = 0, 0, None
    for block in chain(blocks, [None]):
        if context is None:
            context = block
        elif block is not None:
            context = {k: np.concatenate((x, block[k])) for k, x in context.items()}
        if context is None:
            return
        stop = len(context["notes"]) - (0 if block is None else ahead)
        if stop <= lead:
            continue
        yield start, context, slice(lead, stop)
        start += stop - lead
        dropped = max(0, stop - max(REACH + 1, NEAR))
        context, lead = {k: x[dropped:] for k, x in context.items()}, stop - dropped


def _find_in(context, region, thresholds, active):
    """Find the notes of a region; `active` notes, by pitch, may continue into it."""
    frame_threshold, onset_threshold = thresholds
    logits = context["notes"]
    frames = logits[:, 0] > logit(frame_threshold)
    onsets = peaks(logits[:, 1], onset_threshold)
    onsets |= _slow_attacks(logits, frames, onsets, WEAK * onset_threshold)
    frames, onsets = frames[region], onsets[region]
    continued = np.zeros(N_PITCHES, bool)
    continued[[pitch - PITCH_MIN for pitch in active]] = True
    continued &= frames[0] & ~onsets[0]
    onsets[0] |= continued
    decoded = rolls_to_notes(frames, onsets)
    notes = np.zeros(len(decoded), _DECODED_DTYPE)
    notes["pitch"] = decoded["pitch"]
    for name, edge in (("first", "start"), ("last", "end")):
        notes[name] = np.rint(decoded[edge] * FRAME_RATE)
    column = notes["pitch"] - PITCH_MIN
    notes["continued"] = (notes["first"] == 0) & continued[column]
    if "power" in context:
        attack = region.start + notes["first"][:, None] + np.arange(ATTACK)
        attack = np.minimum(attack, len(logits) - 1)
        power = context["power"][attack, column[:, None]]
        notes["power"] = power.max(axis=1, initial=0)
    if "parts" in context:
        total = 1 / (1 + np.exp(-context["parts"][region]))  # (frames, 11, 88)
        total = np.pad(total.cumsum(axis=0), ((1, 0), (0, 0), (0, 0)))
        notes["evidence"] = total[notes["last"], :, column]
        notes["evidence"] -= total[notes["first"], :, column]
    return notes


def _slow_attacks(logits, frames, onsets, threshold):
    """
    Find where a pitch becomes active and remains so, with a weak onset alone.

    Legato and slow attacks often have no clear onset, though the pitch is clearly
    active. Returns booleans ``(frames, 88)``, from logits ``(frames, 2, 88)``, active
    `frames`, clear `onsets`, and the probability `threshold` of weak ones.
    """
    first, column = np.nonzero(frames & ~np.pad(frames, ((1, 0), (0, 0)))[:-1])
    around = ((NEAR, SUSTAIN), (0, 0), (0, 0))
    padded = np.pad(logits, around, constant_values=-np.inf)
    near = first[:, None] + np.arange(2 * NEAR + 1)
    ahead = first[:, None] + np.arange(SUSTAIN)
    weak = padded[near, 1, column[:, None]].max(axis=1, initial=-np.inf)
    active = padded[ahead + NEAR, 0, column[:, None]].mean(axis=1)
    clear = first[:, None] + np.arange(SUSTAIN + 1)  # from the frame before on
    strong = np.pad(onsets, ((1, SUSTAIN), (0, 0)))[clear, column[:, None]].any(axis=1)
    found = (weak > logit(threshold)) & (active > logit(SUSTAINED)) & ~strong
    slow = np.zeros_like(frames)
    slow[first[found], column[found]] = True
    return slow


def finish(decoded, seconds, choices, lead=0.0):
    """
    Turn decoded notes into those of the transcription, with program and velocity.

    Parameters
    ----------
    decoded : numpy.ndarray
        Notes from :func:`find`.
    seconds : float
        Length of the recording.
    choices : Choices
        Decoding options.
    lead : float
        Seconds of silence added before the recording.

    Returns
    -------
    numpy.ndarray
        Notes ``(notes,)`` of :data:`NOTE_DTYPE`, sorted by onset.
    """
    notes = np.zeros(len(decoded), NOTE_DTYPE)
    notes["start"] = np.maximum(decoded["first"] / FRAME_RATE - lead, 0)
    notes["end"] = np.minimum(decoded["last"] / FRAME_RATE - lead, seconds)
    notes["pitch"] = decoded["pitch"]
    notes["velocity"] = _velocities(decoded["power"])
    least = max(choices.min_note_ms / 1000 - 1e-9, 0.002)  # a tick of MIDI
    kept = notes["end"] - notes["start"] > least
    notes, decoded = notes[kept], decoded[kept]
    notes["program"] = _programs(
        decoded["evidence"], decoded["pitch"], choices.instruments
    )
    low, high = choices.pitch_range  # last, since the other steps depend on all notes
    notes = notes[(notes["pitch"] >= low) & (notes["pitch"] <= high)]
    return np.sort(notes, order=("start", "pitch", "program"))


def _velocities(power):
    """
    Compute velocities ``(notes,)`` in 1..127 from power, all 0 where it is unknown.

    General MIDI synthesisers play velocity ``v`` at ``40 log10(v / 127)`` dB (DLS level
    1, section 1.14), which is inverted here. The absolute level of a recording is
    arbitrary, so its note of median power gets :data:`MEDIUM`.
    """
    positive = power[power > 0]
    if not len(positive):
        return np.full(len(power), MEDIUM)
    ratio = np.maximum(power, 1e-12) / np.median(positive)
    return np.clip(np.rint(MEDIUM * ratio**0.25), 1, 127).astype(int)


def _programs(evidence, pitch, chosen=()):
    """
    Choose the program of each note ``(notes,)``, among `chosen` unless it is empty.

    Evidence is ``(notes, 11)``. A note outside an instrument's range goes to it only if
    it is in no other's range. Instruments with a small share of all evidence are taken
    for confusions with others: the weakest is removed, and its notes reassigned, until
    none has less than :data:`MIN_SHARE`.
    """
    programs = np.array([*INSTRUMENTS])
    low, high = np.array([PITCH_RANGES[program] for program in programs]).T
    in_range = (pitch[:, None] >= low) & (pitch[:, None] <= high)
    allowed = np.isin(programs, chosen) if len(chosen) else np.ones(len(programs), bool)
    while len(pitch):
        eligible = allowed & in_range
        eligible = np.where(eligible.any(axis=1, keepdims=True), eligible, allowed)
        best = np.where(eligible, evidence + 1e-9, 0).argmax(axis=1)
        share = np.bincount(best, evidence.sum(axis=1) + 1e-9, len(programs))
        share /= share.sum()
        weak = np.flatnonzero(allowed & (share < MIN_SHARE))
        if len(chosen) or not len(weak):
            return programs[best]
        allowed[weak[share[weak].argmin()]] = False
    return np.zeros(0, int)
