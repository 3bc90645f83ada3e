"""
From sound files to MIDI files, tables of notes and pages: ``jtm transcribe``.

Each recording gets ``NAME.mid``, ``NAME.csv`` in MusicNet's columns and the page
``NAME.html``, in a folder that mirrors the inputs; of a melody alone, NAME ends in
``.melody``. :data:`REGISTER` there says of each which file it is of, and what was
written: what a user put there, or changed, is never overwritten, and what is there of
an unchanged file is left, unless other thresholds or weights are chosen.
"""

import contextlib
import functools
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from jtm.constants import FRAME_RATE, INSTRUMENTS, SAMPLE_RATE
from jtm.data import batch, musicnet
from jtm.evaluation.streaming import Audio
from jtm.files import (
    InputError,
    atomic,
    digest,
    inside,
    locked,
    read_json,
    scratch,
    sweep,
    warn,
    write_json,
)
from jtm.music import audio, midi
from jtm.music.score import Note, Score
from jtm.transcriber import model, pages
from jtm.transcriber.melody import melody
from jtm.transcriber.notes import Choices, find, finish

SILENCE = SAMPLE_RATE // 2
"""Samples of silence that are heard before and after a recording."""

REGISTER = "transcriptions.json"
"""Name of the file in a folder of transcriptions that says what they are of."""

INDEX = "index.html"
"""Name of the page that lists the pages of a folder."""

SUFFIXES = (".mid", ".csv", ".html")
"""Endings of what is written of a recording."""

NAMING = 100
"""Seconds of a recording that are transcribed in the time it takes to name it."""


@dataclass(frozen=True)
class Transcription:
    """
    The notes of a recording.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.transcriber.notes.NOTE_DTYPE` by start: times
        in seconds, MIDI pitch, General MIDI program counted from 1, velocity.
    seconds : float
        Length of the recording.
    title : str
        Its name.
    sound : Path or numpy.ndarray
        Its file, or the waveform at 16 kHz.
    whole : numpy.ndarray, optional
        All notes, where `notes` are the melody alone.
    tuning : float
        Semitones that it is tuned above A4 at 440 Hz.
    piece : str
        Name of the piece, where it is known, for its page.
    html : str
        Its page, once it is made.
    """

    notes: np.ndarray
    seconds: float
    title: str
    sound: object
    whole: object = None
    tuning: float = 0.0
    piece: str = ""
    html: str = ""

    def melody(self):
        """
        Return the melody alone; see :mod:`jtm.transcriber.melody`.

        Returns
        -------
        Transcription
            With one note at a time; its page has all notes, the melody marked.
        """
        if self.whole is not None:
            return self
        line = melody(self.notes)[1]
        return replace(self, notes=line, whole=self.notes, html="")

    def _score(self):
        """Return the notes as a score, in beats of half a second: no tempo is heard."""
        return Score(
            tuple(
                Note(start, end, program, pitch, velocity, *_beats(start, end))
                for start, end, pitch, program, velocity in self.notes.tolist()
            )
        )

    def midi(self):
        """
        Return the notes as MIDI.

        Returns
        -------
        pretty_midi.PrettyMIDI
            A track for each instrument, at a tempo of 120, which means nothing.
        """
        return midi.build(self._score(), INSTRUMENTS)

    def page(self):
        """
        Make the page that plays and shows the recording and its notes.

        Returns
        -------
        str
            HTML that needs nothing else.
        """
        return self.html or self._page()

    def _page(self, advance=lambda seconds: None):
        """Make the page; call `advance` with the seconds of each block of a file."""
        if isinstance(self.sound, np.ndarray):
            sound, rate = self.sound, SAMPLE_RATE
        else:
            rate = min(pages.MP3_RATE, audio.rate(self.sound))
            sound = audio.blocks(self.sound, rate, clipped=False)
            sound = (advance(len(block) / rate) or block for block in sound)
        notes = self.notes if self.whole is None else self.whole
        more = {"melody": melody(notes)[0], "tuning": self.tuning}
        return pages.page(sound, rate, notes, self.title, self.piece, **more)

    def save(self, folder, page=True, overwrite=False):
        """
        Write MIDI, table and page into a folder, named by the title, and ``.melody``.

        Parameters
        ----------
        folder : str or Path
            The folder, made if it is missing.
        page : bool
            Write the page too.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        InputError
            If a file is there already, or cannot be written.
        """
        stem = inside(folder, self.title + ".melody" * (self.whole is not None))
        paths = [Path(f"{stem}{suffix}") for suffix in SUFFIXES[: 2 + page]]
        for path in paths:
            if path.exists() and not overwrite:
                raise InputError(f"{path}: is there already; save with overwrite=True")
        for path in paths:
            with atomic(path) as part:
                self._write(part)
        return paths

    def _write(self, path):
        """Write MIDI, MusicNet's table or a page, as the ending of the path says."""
        if path.suffix == ".mid":
            self.midi().write(str(path))
        elif path.suffix == ".csv":
            musicnet.write_labels(path, musicnet.labels_of(self._score()))
        else:
            path.write_text(self.page(), encoding="ascii")


def _beats(start, end):
    """Return a note's onset and duration in beats of half a second."""
    return round(2 * start, 6), round(2 * (end - start), 6)


def transcribe(path_or_array, sample_rate=None, weights=None, **choices):
    """
    Transcribe a recording.

    Parameters
    ----------
    path_or_array : str, Path or array
        A WAV, AIFF, AU, FLAC, OGG, Opus or MP3 file of any rate, number of channels
        and length; or samples, as :func:`jtm.embed` takes them.
    sample_rate : int, optional
        Sample rate of an array in Hz; a file has its own.
    weights : str or Path, optional
        A transcriber, as :func:`jtm.transcriber.model.load` takes it; by default the
        one that comes with the package.
    **choices
        How notes are told: the fields of :class:`jtm.transcriber.notes.Choices`.

    Returns
    -------
    Transcription
        The notes, which may be none.

    Raises
    ------
    InputError
        If the file or the array is no sound, or the weights are of another kind.

    Examples
    --------
    >>> import jtm, numpy as np
    >>> len(jtm.transcribe(np.zeros(16000), 16000).notes)
    0
    """
    hearer = model.load(weights) if weights else model.shipped()
    choices = Choices(**choices)
    if isinstance(path_or_array, (str, os.PathLike)):
        if sample_rate is not None:
            raise InputError("sample_rate is for arrays; a sound file knows its own")
        return _transcribe_file(Path(path_or_array), hearer, choices)
    wave = audio.to_wave(path_or_array, sample_rate)
    padded = np.pad(wave, SILENCE)
    heard = _listen(lambda a, b: padded[a:b], len(padded), hearer, choices)
    return Transcription(title="recording", sound=wave, **heard)


def _transcribe_file(path, hearer, choices, advance=lambda seconds: None):
    """Transcribe a sound file, by way of a copy at 16 kHz on disk."""
    silence = np.zeros(SILENCE, np.float32)
    waves = chain([silence], audio.blocks(path, clipped=False), [silence])
    parts = (wave.astype("<f4").tobytes() for wave in waves)
    with scratch(path, parts) as file:
        length = file.tell() // 4

        def read(start, stop):  # no memory map, whose pages would count as memory
            file.seek(4 * start)
            return np.frombuffer(file.read(4 * (stop - start)), "<f4")

        heard = _listen(read, length, hearer, choices, advance)
    return Transcription(title=path.stem, sound=path, **heard)


def _listen(read, length, hearer, choices, advance=lambda seconds: None):
    """Hear samples between silences, once their level and tuning are known."""
    first, last, size = SILENCE, length - SILENCE, 600 * audio.LEVEL_BLOCK
    starts = range(first, last, size)
    powers = [audio.powers(read(a, min(a + size, last))) for a in starts]
    gain = audio.gain(np.concatenate([*powers, np.zeros(0)]))
    tuning = audio.tuning(read(*audio.middle(first, last)))

    def blocks():
        for block in hearer.stream(Audio(read, length, scale=gain), tuning):
            yield block
            advance(len(block["notes"]) / FRAME_RATE)

    thresholds = (
        choices.frame_threshold or hearer.thresholds["frame"],
        choices.onset_threshold or hearer.thresholds["onset"],
    )
    found, seconds = find(blocks(), thresholds), (last - first) / SAMPLE_RATE
    notes = finish(found, seconds, choices, first / SAMPLE_RATE)
    return {"notes": notes, "seconds": seconds, "tuning": tuning}


def transcribe_files(
    inputs, out, choices, weights, page, alone, name, debug=False, spread=None
):
    """
    Transcribe sound files, and those in folders.

    Parameters
    ----------
    inputs : sequence of str or Path
        Sound files and folders of them, searched at any depth.
    out : str or Path
        Folder for what is written, which lies in it as the inputs lie in the deepest
        folder that holds all of them.
    choices : Choices
        How notes are told.
    weights : str, Path or None
        A transcriber; the one that comes with the package where None.
    page : bool
        Write pages, and the ``index.html`` that lists them.
    alone : bool
        Write the melody alone, as ``NAME.melody``; pages have all notes, the melody
        marked.
    name : callable
        Returns the name of the piece that a sound file is of, for its page; empty where
        it is not known.
    debug : bool
        Print the traceback of what fails unexpectedly.
    spread : jtm.data.batch.Spread, optional
        Several processes, or a cluster, to do it on.

    Returns
    -------
    int
        Number of inputs that could not be transcribed; each is named on standard error.

    Raises
    ------
    InputError
        If the weights cannot be loaded, a folder holds no sound, `out` cannot be
        written, or no input at all could be transcribed.
    """
    fingerprint, out = model.load(weights).fingerprint, Path(out)
    sources, root = batch.find(inputs)
    made_from = {"weights": fingerprint, "choices": asdict(choices), "melody": alone}
    with locked(out / ".lock", f"{out}: another run is writing there"):
        sweep(out)
        names = _names(sources, root, alone)
        register = _Register(out, names, made_from, SUFFIXES[: 2 + page])
        missing = [source for source in sources if not register.has(source)]
        named = weights and os.path.abspath(weights), fingerprint
        chosen = {"choices": choices, "alone": alone, "page": page, "name": name}
        try:
            failed = batch.run(
                missing,
                functools.partial(_transcribe_one, named=named, **chosen),
                lambda source, found: register.write(source, *found),
                "Transcribing",
                debug=debug,
                spread=spread,
            )
        finally:  # pages may be there, or gone, when a run is stopped, too
            if register.rows and (page or INDEX in register.rows):
                register.write_index()
        many = register.n_notes
        found = f"{many} note{'s' * (many != 1)}" if missing else ""
        if register.n_replaced:
            found += f"; {register.n_replaced} replaced, made with other options"
        return batch.finish(out, sources, missing, failed, "transcribed", found)


def _transcribe_one(source, advance, named, choices, alone, page, name):
    """Transcribe a file of a batch; return its state and what was made of it."""
    state, seconds = batch.state(source), batch.duration(source)
    share = seconds / (2 * seconds + NAMING) if page else 1

    def step(done):
        advance(share * done)

    made = _transcribe_file(source, _loaded(*named), choices, step)
    made = made.melody() if alone else made
    if page:
        made = replace(made, piece=name(source) if len(made.notes) else "")
        step(NAMING)
        made = replace(made, html=made._page(step))
    return state, made


@functools.lru_cache(1)
def _loaded(weights, fingerprint):
    """Load a transcriber of a known fingerprint, for the files of a batch."""
    hearer = model.load(weights)
    if hearer.fingerprint != fingerprint:
        told = weights or model.WEIGHTS
        raise InputError(f"{told}: is another transcriber than here; copy it")
    return hearer


def _names(sources, root, alone):
    """
    Name what is written of each file, relative to the folder, without an ending.

    Files that differ in their endings alone keep these, and so does one whose page
    would be the index. Of the melody alone, names end in ``.melody``.
    """
    stems = {source: source.relative_to(root).with_suffix("") for source in sources}
    times = Counter(stems.values()) + Counter([Path(INDEX).with_suffix("")])
    return {
        source: (stem if times[stem] == 1 else source.relative_to(root)).as_posix()
        + ".melody" * alone
        for source, stem in stems.items()
    }


class _Register:
    """
    What is in a folder of transcriptions, what of, and that it was written here.

    Parameters
    ----------
    folder : Path
        The folder.
    names : dict of Path to str
        What is written of each file is named by, relative to the folder.
    made_from : dict
        What else it depends on: transcriber and choices.
    suffixes : tuple of str
        Endings of what is to be written of each file.
    """

    def __init__(self, folder, names, made_from, suffixes):
        self.folder, self.names, self.suffixes = folder, names, suffixes
        self.made_from = json.loads(json.dumps(made_from))  # as it is read again
        self.n_notes = self.n_replaced = 0
        self.path = folder / REGISTER
        self.rows = read_json(self.path) if self.path.exists() else {}
        if not isinstance(self.rows, dict):
            raise InputError(f"{self.path}: not a register of transcriptions")

    def _file(self, source, suffix=""):
        """Name a file in the folder, of a source."""
        return inside(self.folder, self.names[source] + suffix)

    def has(self, source):
        """Tell whether all is there of a source as it is now."""
        row = self.rows.get(self.names[source], {})
        here = {"source": str(source), "state": batch.state(source)} | self.made_from
        there = {key: row.get(key) for key in here}
        return there == here and all(
            self._file(source, suffix).exists() for suffix in self.suffixes
        )

    def write(self, source, state, made):
        """Write the files of a transcription, each known before it is there."""
        before = self.rows.get(self.names[source], {})
        self._check(source, before)
        row = {"source": str(source), "state": state, **self.made_from}
        parts = []
        with contextlib.ExitStack() as stack:
            for suffix in self.suffixes:
                part = stack.enter_context(atomic(self._file(source, suffix)))
                made._write(part)
                parts.append(part)
            written = {*before.get("written", ()), *map(digest, parts)}
            self.rows[self.names[source]] = row | {"written": sorted(written)}
            write_json(self.path, self.rows)
        for suffix in {*SUFFIXES} - {*self.suffixes}:  # an earlier page, of other notes
            path = self._file(source, suffix)
            if path.exists() and digest(path) in written:
                path.unlink()
        self.n_notes += len(made.notes)
        self.n_replaced += before.get("state") == state and not (
            self.made_from.items() <= before.items()
        )

    def _check(self, source, before):
        """Refuse to overwrite what is of another source, or was changed."""
        if before.get("source", str(source)) != str(source):
            raise InputError(
                f"{self._file(source)}: is of {before['source']}, not of {source}; "
                "choose another --out"
            )
        for path in (self._file(source, suffix) for suffix in self.suffixes):
            if path.exists() and digest(path) not in before.get("written", ()):
                raise InputError(
                    f"{path}: is there, but not as it was written of {source}; move "
                    "it, or choose another --out"
                )

    def write_index(self):
        """Write the page that lists the pages, unless another is there."""
        path, known = self.folder / INDEX, self.rows.get(INDEX, {}).get("written", ())
        if path.exists() and digest(path) not in known:
            warn(f"{path}: is there, but not as it was written; left as it is")
            return
        with atomic(path) as part:
            part.write_text(pages.index(self.folder), encoding="ascii")
            self.rows[INDEX] = {"written": sorted({*known, digest(part)})}
            write_json(self.path, self.rows)
