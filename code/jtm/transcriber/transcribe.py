"""
Transcription of audio files to MIDI, note tables and web pages: ``jtm transcribe``.

Each recording gets ``NAME.mid``, ``NAME.csv`` in MusicNet's columns and the page
``NAME.html``, in a folder that mirrors the inputs; for the melody alone, NAME ends in
``.melody``. :data:`REGISTER` in that folder records each output's source file and
hashes. Files that a user added or changed are never overwritten. Outputs of an
unchanged source are kept, unless other thresholds or weights are chosen.
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
    stamp,
    sweep,
    warn,
    write_json,
)
from jtm.music import audio, midi
from jtm.music.score import Note, Score
from jtm.training.folder import RECORD
from jtm.training.processes import return_memory
from jtm.transcriber import model, pages
from jtm.transcriber.melody import melody
from jtm.transcriber.notes import Choices, find, finish

SILENCE = SAMPLE_RATE // 2
"""Number of samples of silence added before and after a recording."""

REGISTER = "transcriptions.json"
"""Name of the file in a folder of transcriptions that records their sources."""

INDEX = "index.html"
"""Name of the page that lists the other pages of a folder."""

SUFFIXES = (".mid", ".csv", ".html")
"""File extensions of the outputs for a recording."""

NAMING = 100
"""Seconds of audio transcribed in the time that naming a piece takes (progress bar)."""


@dataclass(frozen=True)
class Transcription:
    """
    The notes of a recording.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes ``(notes,)`` of :data:`jtm.transcriber.notes.NOTE_DTYPE`, sorted by onset:
        times in seconds, MIDI pitch, General MIDI program counted from 1, velocity.
    seconds : float
        Length of the recording.
    title : str
        Name of the recording.
    sound : Path or numpy.ndarray
        Path to its audio file, or the waveform at 16 kHz.
    whole : numpy.ndarray, optional
        All notes, where `notes` is the melody alone.
    tuning : float
        Tuning in semitones relative to A4 at 440 Hz.
    piece : str
        Name of the piece, where known, shown on the page.
    """

    notes: np.ndarray
    seconds: float
    title: str
    sound: object
    whole: object = None
    tuning: float = 0.0
    piece: str = ""

    def melody(self):
        """
        Return the melody alone; see :mod:`jtm.transcriber.melody`.

        Returns
        -------
        Transcription
            The melody, one note at a time; its page shows all notes, the melody marked.
        """
        if self.whole is not None:
            return self
        return replace(self, notes=melody(self.notes)[1], whole=self.notes)

    def _score(self):
        """Return a score in beats of half a second, since no tempo is estimated."""
        notes = []
        for start, end, pitch, program, velocity in self.notes.tolist():
            beats = round(2 * start, 6), round(2 * (end - start), 6)
            notes.append(Note(start, end, program, pitch, velocity, *beats))
        return Score(tuple(notes))

    def midi(self):
        """
        Return the notes as MIDI.

        Returns
        -------
        pretty_midi.PrettyMIDI
            One track per instrument, at an arbitrary tempo of 120 bpm.
        """
        return midi.build(self._score(), INSTRUMENTS)

    def page(self, advance=lambda seconds: None):
        """
        Render the page that plays and shows the recording and its notes.

        Parameters
        ----------
        advance : callable
            Progress callback, called with the seconds of each block of a file.

        Returns
        -------
        str
            Self-contained HTML.
        """
        if isinstance(self.sound, np.ndarray):
            # The MP3 file of a page has one sample or more.
            sound = self.sound if self.sound.size else np.zeros(1, np.float32)
            rate = SAMPLE_RATE
        else:
            rate = min(pages.MP3_RATE, audio.rate(self.sound))
            sound = audio.blocks(self.sound, rate, clipped=False)
            sound = (advance(len(block) / rate) or block for block in sound)
        notes = self.notes if self.whole is None else self.whole
        shown = {"melody": melody(notes)[0], "tuning": self.tuning}
        return pages.page(sound, rate, notes, self.title, self.piece, **shown)

    def save(self, folder, page=True, overwrite=False):
        """
        Write MIDI, table and page to a folder.

        Files are named after the title; names for a melody add ``.melody``.

        Parameters
        ----------
        folder : str or Path
            Path to the folder, created if missing.
        page : bool
            Whether to write the page too.
        overwrite : bool
            Whether to replace existing files.

        Returns
        -------
        list of Path
            Paths to the files written.

        Raises
        ------
        InputError
            If a file already exists, or cannot be written.
        """
        stem = inside(folder, self.title + ".melody" * (self.whole is not None))
        paths = [Path(f"{stem}{suffix}") for suffix in SUFFIXES[: 2 + page]]
        for path in paths:
            if os.path.exists(path) and not overwrite:
                raise InputError(f"{path}: exists already; save with overwrite=True")
        for path in paths:
            with atomic(path) as part:
                self._write(part)
        return paths

    def _write(self, path, html=""):
        """Write MIDI, MusicNet's table or a page, depending on the path's extension."""
        if path.suffix == ".mid":
            self.midi().write(str(path))
        elif path.suffix == ".csv":
            musicnet.write_labels(path, musicnet.labels_of(self._score()))
        else:
            path.write_text(html or self.page(), encoding="ascii")


def transcribe(path_or_array, sample_rate=None, weights=None, **choices):
    """
    Transcribe a recording.

    Parameters
    ----------
    path_or_array : str, Path or array
        Path to an audio file of any format, sample rate, number of channels and length;
        or samples, in the same form as for :func:`jtm.embed`.
    sample_rate : int, optional
        Sample rate of an array in Hz; not allowed for files.
    weights : str or Path, optional
        Path to a transcriber, as for :func:`jtm.transcriber.model.load`; by default
        the one shipped with the package.
    **choices
        Decoding options: the fields of :class:`jtm.transcriber.notes.Choices`.

    Returns
    -------
    Transcription
        The notes; there may be none.

    Raises
    ------
    InputError
        If the input is not valid audio, or the weights are not a transcriber's.

    Examples
    --------
    >>> import jtm, numpy as np
    >>> len(jtm.transcribe(np.zeros(16000), 16000).notes)
    0
    """
    transcriber, choices = _current(weights), Choices(**choices)
    if isinstance(path_or_array, (str, os.PathLike)):
        if sample_rate is not None:
            raise InputError("sample_rate is for arrays; an audio file states its own")
        return _transcribe_file(Path(path_or_array), transcriber, choices)
    wave = audio.to_wave(path_or_array, sample_rate)
    padded = np.pad(wave, SILENCE)
    result = _transcribe(lambda a, b: padded[a:b], len(padded), transcriber, choices)
    return Transcription(title="recording", sound=wave, **result)


def _transcribe_file(path, transcriber, choices, advance=lambda done, seconds: None):
    """Transcribe an audio file, through a temporary copy at 16 kHz on disk."""
    silence = np.zeros(SILENCE, np.float32)
    waves = chain([silence], audio.blocks(path, clipped=False), [silence])
    chunks = (wave.astype("<f4").tobytes() for wave in waves)
    with scratch(path, chunks) as file:
        length = file.tell() // 4

        def read(start, stop):  # no memory map, whose pages would count as memory
            file.seek(4 * start)
            return np.frombuffer(file.read(4 * (stop - start)), "<f4")

        result = _transcribe(read, length, transcriber, choices, advance)
    return Transcription(title=path.stem, sound=path, **result)


def _transcribe(read, length, transcriber, choices, advance=lambda done, seconds: None):
    """
    Transcribe padded samples, after measuring their level and tuning.

    Call `advance` with the seconds of each chunk and of the whole recording.
    """
    first, last, size = SILENCE, length - SILENCE, 600 * audio.LEVEL_BLOCK
    seconds = (last - first) / SAMPLE_RATE
    gain, tuning, offset = 1.0, 0.0, np.float32(0)

    def centred(start, stop):  # the silence around the recording stays silent
        wave = np.array(read(start, stop))
        wave[max(0, first - start) : max(0, last - start)] -= offset
        return wave

    if transcriber.normalised:
        starts = range(first, last, size)
        parts = [audio.moments(read(a, min(a + size, last))) for a in starts]
        means, power = np.concatenate([*parts, np.zeros((2, 0))], axis=1)
        gain, offset = audio.gain(power), np.float32(audio.offset(means, power))
        start, stop = audio.middle(power, last - first)
        tuning = audio.tuning(centred(first + start, first + stop))

    def blocks():
        for block in transcriber.stream(Audio(centred, length, scale=gain), tuning):
            yield block
            advance(len(block["notes"]) / FRAME_RATE, seconds)

    choices = _completed(choices, transcriber)
    thresholds = choices.frame_threshold, choices.onset_threshold
    notes = finish(find(blocks(), thresholds), seconds, choices, first / SAMPLE_RATE)
    return {"notes": notes, "seconds": seconds, "tuning": tuning}


def _completed(choices, transcriber):
    """Return the options with the transcriber's thresholds where none is chosen."""
    defaults = {f"{n}_threshold": x for n, x in transcriber.thresholds.items()}
    chosen = {n: getattr(choices, n) or x for n, x in defaults.items()}
    return replace(choices, **chosen)


def transcribe_files(inputs, out, choices, weights, page, alone, name, options=None):
    """
    Transcribe audio files and folders of them.

    Parameters
    ----------
    inputs : sequence of str or Path
        Paths to audio files and to folders, which are searched recursively.
    out : str or Path
        Path to the output folder, which mirrors the layout of the inputs below their
        deepest common folder.
    choices : Choices
        Decoding options.
    weights : str, Path or None
        Path to a transcriber; None for the one shipped with the package.
    page : bool
        Whether to write pages, and the ``index.html`` that lists them.
    alone : bool
        Whether to write the melody alone, as ``NAME.melody``; pages show all notes, the
        melody marked.
    name : callable
        Returns the name of the piece recorded in an audio file, for its page; empty
        where unknown.
    options : jtm.data.batch.Options, optional
        Processes or cluster to distribute the files over; one process by default.

    Returns
    -------
    int
        Number of inputs that could not be transcribed; each is named on standard error.

    Raises
    ------
    InputError
        If the weights cannot be loaded, a folder contains no audio, `out` cannot be
        written, or no input at all could be transcribed.
    """
    out, weights = Path(out), weights and os.path.abspath(weights)
    transcriber = _current(weights)
    fingerprint = transcriber.fingerprint
    # The thresholds of a run's checkpoint change when the run ends.
    choices = _completed(choices, transcriber)
    sources, root = batch.find(inputs)
    made_from = {"weights": fingerprint, "choices": asdict(choices), "melody": alone}
    with locked(out / ".lock", f"{out}: another run is writing to it"):
        sweep(out)
        register = _Register(out, made_from, SUFFIXES[: 2 + page])
        register.names = _names(sources, root, alone, register.rows)
        missing = [source for source in sources if not register.has(source)]
        chosen = {"choices": choices, "alone": alone, "page": page, "name": name}
        named = weights, fingerprint
        work = functools.partial(_transcribe_one, named=named, **chosen)
        words = "Transcribing", "transcribed"
        try:
            return batch.run(
                out,
                sources,
                missing,
                work,
                words,
                options,
                keep=register.write,
                summary=register.summary,
            )
        finally:  # a run that is stopped may have added or removed pages, too
            if register.rows and (page or INDEX in register.rows):
                register.write_index()


def _transcribe_one(source, advance, named, choices, alone, page, name):
    """Transcribe a file of a batch; return its state, transcription and page."""
    weights, fingerprint = named
    transcriber, state, html = _current(weights), stamp(source), ""
    if transcriber.fingerprint != fingerprint:
        path = weights or model.WEIGHTS
        raise InputError(f"{path}: other weights than the batch uses; copy its file")

    def step(done, seconds):  # a page takes as long as the notes, naming a fixed time
        advance(done * seconds / (2 * seconds + NAMING) if page else done)

    result = _transcribe_file(source, transcriber, choices, step)
    result = result.melody() if alone else result
    if page:
        return_memory()  # of transcribing, 100 MB or more, before the page takes it
        result = replace(result, piece=name(source) if len(result.notes) else "")
        step(NAMING, result.seconds)
        html = result.page(lambda done: step(done, result.seconds))
    return state, result, html


def _current(weights):
    """Return a transcriber, loaded once per process unless its files change."""
    path = Path(weights or model.WEIGHTS)
    files = path, path.with_name(RECORD)
    return _load(path, tuple(tuple(stamp(file)) for file in files))


@functools.lru_cache(1)
def _load(path, _):
    """Load a transcriber; the last argument is the stamps of its files."""
    return model.load(path)


def _names(sources, root, alone, rows):
    """
    Name the outputs of each file, relative to the folder, without an extension.

    Names of files that differ only in extension include it, and so does that of a file
    whose page would replace the index, or whose name without it is that of another
    file; but a file keeps its name in the register, of which `rows` are the content.
    For the melody alone, names end in ``.melody``.
    """
    paths = [source.relative_to(root) for source in sources]
    stems = [path.with_suffix("") for path in paths]
    counts = Counter([*stems, *paths, Path(INDEX), Path(INDEX).with_suffix("")])
    names = {}
    for source, path, stem in zip(sources, paths, stems, strict=True):
        short, long = (x.as_posix() + ".melody" * alone for x in (stem, path))
        owned = rows.get(short, {}).get("source") == str(source)
        names[source] = short if owned or counts[stem] == 1 else long
    return names


def _is_unchanged(path, written):
    """Return whether a file is missing, or as it was written, by its hash."""
    return not os.path.exists(path) or (path.is_file() and digest(path) in written)


class _Register:
    """
    Record the source, options and hashes of each output in a folder of transcriptions.

    `made_from` is what outputs depend on besides their source: transcriber, decoding
    options, melody or not. The attribute `names` has the name of each source's outputs,
    relative to the folder.
    """

    def __init__(self, folder, made_from, suffixes):
        self.folder, self.names, self.suffixes = folder, {}, suffixes
        self.made_from = json.loads(json.dumps(made_from))  # comparable to stored rows
        self.n_notes = self.n_replaced = 0
        self.path = folder / REGISTER
        self.rows = read_json(self.path) if self.path.exists() else {}
        rows = self.rows.values() if isinstance(self.rows, dict) else [None]
        if not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{self.path}: not a register of transcriptions; move it")

    def _file(self, source, suffix=""):
        """Return the path to an output of a source."""
        return inside(self.folder, self.names[source] + suffix)

    def has(self, source):
        """Return whether all outputs of a source in its current state exist."""
        row = self.rows.get(self.names[source], {})
        expected = {"source": str(source), "state": stamp(source)} | self.made_from
        return expected.items() <= row.items() and all(
            self._file(source, suffix).exists() for suffix in self.suffixes
        )

    def write(self, source, result):
        """
        Write the files of a transcription.

        Their hashes are registered before they appear, so that they can be replaced
        later; that they are done, after it.
        """
        state, transcription, html = result
        before = self.rows.get(self.names[source], {})
        self._check(source, before)
        row = {"source": str(source), "state": state, **self.made_from}
        written = [*before.get("written", ())]
        with contextlib.ExitStack() as stack:
            for suffix in self.suffixes:
                part = stack.enter_context(atomic(self._file(source, suffix)))
                transcription._write(part, html)
                written.append(digest(part))
            known = {"source": str(source), "written": sorted({*written})}
            self.rows[self.names[source]] = known
            write_json(self.path, self.rows)
        self.rows[self.names[source]] = known | row
        write_json(self.path, self.rows)
        for suffix in {*SUFFIXES} - {*self.suffixes}:  # an outdated page
            path = self._file(source, suffix)
            if os.path.isfile(path) and digest(path) in written:
                path.unlink()
        self.n_notes += len(transcription.notes)
        self.n_replaced += before.get("state") == state and not (
            self.made_from.items() <= before.items()
        )

    def summary(self):
        """Summarise what was written, such as "300 notes"."""
        n, n_replaced = self.n_notes, self.n_replaced
        replaced = f"; {n_replaced} replaced, made with other options"
        return f"{n} note{'s' * (n != 1)}{replaced * (n_replaced > 0)}"

    def _check(self, source, before):
        """Refuse to overwrite outputs of another source, or changed ones."""
        if before.get("source", str(source)) != str(source):
            raise InputError(
                f"{self._file(source)}: transcribes {before['source']}, not {source}; "
                "choose another --out"
            )
        for path in (self._file(source, suffix) for suffix in self.suffixes):
            if not _is_unchanged(path, before.get("written", ())):
                raise InputError(
                    f"{path}: not the file written for {source}, or changed since; "
                    "move it, or choose another --out"
                )

    def write_index(self):
        """Write the index page, unless a file of other origin is in its place."""
        path, known = self.folder / INDEX, self.rows.get(INDEX, {}).get("written", ())
        if not _is_unchanged(path, known):
            warn(f"{path}: not a generated index, or changed since; left as it is")
            return
        with atomic(path) as part:
            part.write_text(pages.index(self.folder), encoding="ascii")
            self.rows[INDEX] = {"written": sorted({*known, digest(part)})}
            write_json(self.path, self.rows)
