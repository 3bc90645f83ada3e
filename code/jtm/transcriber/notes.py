"""
Streaming decoding of the network's logits into notes.

Pitch activations and onsets become notes as in
:func:`jtm.evaluation.transcription.decode`, block by block; a note that is active
across a boundary of blocks remains one note. Each note then gets the instrument with
the most evidence, among those detected in the recording, and a velocity from its power.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

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

HEARD = 0.08
"""Minimum share of all evidence for an instrument to count as present."""

SHORTEST = 80.0
"""
Default minimum note length in milliseconds. On validation recordings of the toy set,
80 ms raised note F1 by 1.5 points over 0, and 100 ms by another 0.3; but music may
have shorter notes than 100 ms.
"""

MEDIUM = 64
"""Velocity of the note of median power; absolute power depends on the recording."""

_FOUND = np.dtype(
    [
        *(("first", int), ("last", int), ("pitch", int), ("power", float)),
        *(("held", bool), ("evidence", float, (len(INSTRUMENTS),))),
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
    pitch_range : tuple of int
        Lowest and highest MIDI pitch.
    instruments : tuple of int or str
        The ensemble, as programs or names of :data:`jtm.constants.INSTRUMENTS`; by
        default all are considered.

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
            if value is not None and not 0 < value < 1:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {value}; expected a probability in 0..1")
        if not 0 <= self.min_note_ms < np.inf:
            raise InputError(
                f"--min-note-ms {self.min_note_ms}; expected 0 or more milliseconds"
            )
        low, high = self.pitch_range
        if not 0 <= low <= high <= 127:
            raise InputError(
                f"--pitch-range {low}-{high}; expected the lower pitch first, of 0..127"
            )
        words = [str(word).strip().lower() for word in self.instruments]
        programs = {str(program): program for program in INSTRUMENTS}
        programs |= {name: program for program, name in INSTRUMENTS.items()}
        if unknown := [word for word in words if word not in programs]:
            raise InputError(
                f"--instruments {unknown[0]}; expected some of "
                f"{', '.join(INSTRUMENTS.values())}, with commas between"
            )
        object.__setattr__(self, "instruments", tuple(programs[w] for w in words))


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
    found, held = [], {}
    for at, heard, here in _regions(blocks):
        rows = _find_in(heard, here, thresholds, held)
        rows["first"] += at
        rows["last"] += at
        for i in np.flatnonzero(rows["held"]):
            before = held.pop(rows[i]["pitch"])
            for name in ("first", "power"):
                rows[name][i] = before[name]
            rows["evidence"][i] += before["evidence"]
        end = at + here.stop - here.start
        found += [*held.values(), *rows[rows["last"] < end]]
        held = {row["pitch"]: row for row in rows[rows["last"] == end]}
    found = np.array([*found, *held.values()], _FOUND)
    return np.sort(found, order=("first", "pitch"))


def _regions(blocks):
    """
    Yield regions of frames to decode, with context on either side.

    Each is the index of its first frame in the recording, the blocks around it, joined,
    and its slice of these. Peak picking needs frames on both sides, and a note's power
    those of its attack.
    """
    at, lead, heard = 0, 0, None
    for block in chain(blocks, [None]):
        if heard is None:
            heard = block
        elif block is not None:
            heard = {k: np.concatenate((x, block[k])) for k, x in heard.items()}
        if heard is None:
            return
        stop = len(heard["notes"]) - (0 if block is None else ATTACK)
        if stop <= lead:
            continue
        yield at, heard, slice(lead, stop)
        at += stop - lead
        rest = max(0, stop - REACH)
        heard, lead = {k: x[rest:] for k, x in heard.items()}, stop - rest


def _find_in(heard, here, thresholds, held):
    """Find the notes of a region; `held` notes, by pitch, may continue into it."""
    frame, onset = thresholds
    logits = heard["notes"]
    sounding = logits[here, 0] > np.log(frame / (1 - frame))
    starts = peaks(logits[:, 1], onset)[here]
    on = np.zeros(N_PITCHES, bool)
    on[[pitch - PITCH_MIN for pitch in held]] = True
    on &= sounding[0] & ~starts[0]
    starts[0] |= on
    notes = rolls_to_notes(sounding, starts)
    rows = np.zeros(len(notes), _FOUND)
    rows["pitch"] = notes["pitch"]
    for name, edge in (("first", "start"), ("last", "end")):
        rows[name] = np.rint(notes[edge] * FRAME_RATE)
    column = rows["pitch"] - PITCH_MIN
    rows["held"] = (rows["first"] == 0) & on[column]
    if "power" in heard:
        steps = here.start + rows["first"][:, None] + np.arange(ATTACK)
        steps = np.minimum(steps, len(logits) - 1)
        rows["power"] = heard["power"][steps, column[:, None]].max(axis=1, initial=0)
    if "parts" in heard:
        told = 1 / (1 + np.exp(-heard["parts"][here]))  # (frames, 11, 88)
        told = np.pad(told.cumsum(axis=0), ((1, 0), (0, 0), (0, 0)))
        rows["evidence"] = told[rows["last"], :, column]
        rows["evidence"] -= told[rows["first"], :, column]
    return rows


def finish(found, seconds, choices, lead=0.0):
    """
    Turn found notes into those of the transcription, with program and velocity.

    Parameters
    ----------
    found : numpy.ndarray
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
    notes = np.zeros(len(found), NOTE_DTYPE)
    notes["start"] = np.maximum(found["first"] / FRAME_RATE - lead, 0)
    notes["end"] = np.minimum(found["last"] / FRAME_RATE - lead, seconds)
    notes["pitch"] = found["pitch"]
    notes["velocity"] = _velocities(found["power"])
    long_enough = notes["end"] - notes["start"] > choices.min_note_ms / 1000 - 1e-9
    kept = long_enough & (notes["end"] > notes["start"])
    notes, found = notes[kept], found[kept]
    notes["program"] = _players(found["evidence"], found["pitch"], choices.instruments)
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
    heard = power[power > 0]
    if not len(heard):
        return np.full(len(power), MEDIUM)
    ratio = np.maximum(power, 1e-12) / np.median(heard)
    return np.clip(np.rint(MEDIUM * ratio**0.25), 1, 127).astype(int)


def _players(evidence, pitch, chosen=()):
    """
    Choose the program of each note ``(notes,)``, among `chosen` unless it is empty.

    Evidence is ``(notes, 11)``. A note outside an instrument's range goes to it only if
    it is in no other's range. Instruments with a small share of all evidence are taken
    for confusions with others: the weakest is removed, and its notes reassigned, until
    none has less than :data:`HEARD`.
    """
    programs = np.array([*INSTRUMENTS])
    low, high = np.array([PITCH_RANGES[each] for each in programs]).T
    able = (pitch[:, None] >= low) & (pitch[:, None] <= high)
    left = np.isin(programs, chosen) if len(chosen) else np.ones(len(programs), bool)
    while len(pitch):
        fit = left & able
        fit = np.where(fit.any(axis=1, keepdims=True), fit, left)
        best = np.where(fit, evidence + 1e-9, 0).argmax(axis=1)
        share = np.bincount(best, evidence.sum(axis=1) + 1e-9, len(programs))
        share /= share.sum()
        weak = np.flatnonzero(left & (share < HEARD))
        if len(chosen) or not len(weak):
            return programs[best]
        left[weak[share[weak].argmin()]] = False
    return np.zeros(0, int)
