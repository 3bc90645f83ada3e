"""
An index of scores, and the pieces in it that a recording is likely of.

Each piece is cut into passages of two lengths, which suit how dense it is, since nobody
knows how fast it will be played. Passages are embedded once. Windows of a recording
then vote for the passages nearest to them, and a piece gets the votes that lie on one
line in time: its passages in order, at one tempo.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import FRAME_RATE, HOP, SAMPLE_RATE
from jtm.data.musicnet import find_files
from jtm.files import InputError, warn
from jtm.models.pitchmap import PitchMapEncoder
from jtm.music import audio, notation
from jtm.retrieval import model
from jtm.retrieval.config import FRAMES, POOL
from jtm.retrieval.data import BINS_PER_SEMITONE, FEWEST, SECONDS, draw, move, pool
from jtm.training.checkpoints import read_tensors, write_tensors
from jtm.training.spectra import harmonic_front_end

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "retrieval.safetensors"
"""The towers that come with the package."""

INDEX = WEIGHTS.with_name("pieces.safetensors")
"""The index that comes with the package, of music21's corpus."""

# Passages of a score.
SCALES = (0.82, 1.2)  # lengths, relative to what lasts a window at a likely tempo
STEP = 0.9  # from one to the next, in lengths
QUARTERS = 4  # steps to a quarter note in which their middles are kept

# Windows of a query.
HOP_SECONDS = 0.5  # from one to the next
MOST_WINDOWS = 120  # of a longer query as many are spread evenly
SHORTEST = 1.0  # seconds of a recording below which it tells too little
SILENT = 0.15  # largest log magnitude of a window that counts as silent
GLANCE = 30  # seconds of a recording that are heard where a name is an ornament

# Votes.
BLOCK = 16  # queries that are compared with all passages at a time
NEAREST = 48  # passages that a window votes for
SPEEDS = 0.5 * 1.12 ** np.arange(21)  # quarter notes a second: 30 to 289 a minute
TOLERANCE = 1.6  # seconds within which votes count as on one line
SHORTLIST = 25  # lines of each slope that are looked at closer
ENOUGH = 17  # windows, 10 s, from which votes are reliable
SHOWN = 5  # pieces that are named

# Keys.
KEYS = tuple(range(-6, 7))  # semitones between a recording and its score
LONG = 30  # windows, 16.5 s, from which keys are tried; fewer agree by chance
FOUND_MOVED = 1.2  # margin that counts in another key, from ``benchmarks/naming.py``


@dataclass(frozen=True)
class Match:
    """
    A piece that a recording may be of.

    Parameters
    ----------
    title : str
        Its name.
    file : str
        Its file, in the folder that was indexed.
    confidence : float
        Probability that it is the piece, as estimated on held-out works.
    beat, beats : float
        Where in the piece the recording begins, and the piece's length, in quarter
        notes.
    start, end : float
        Seconds of the recording between which it is heard.
    key : int
        Semitones that the recording is above the score.
    """

    title: str
    file: str
    confidence: float
    beat: float
    beats: float
    start: float
    end: float
    key: int = 0


@dataclass
class Index:
    """
    Pieces and their passages.

    Parameters
    ----------
    pieces : list of dict
        Of each its ``title``, ``file``, ``stamp`` (size and time of the file) and
        ``beats``.
    vectors : numpy.ndarray
        Embeddings of all passages ``(passages, dim)``, int8, 127 to one.
    owners : numpy.ndarray
        Piece of each passage ``(passages,)``.
    middles : numpy.ndarray
        Middle of each, in quarter notes ``(passages,)``.
    towers : str
        Fingerprint of the towers that embedded them.
    """

    pieces: list
    vectors: np.ndarray
    owners: np.ndarray
    middles: np.ndarray
    towers: str

    @functools.cached_property
    def unit(self):
        """Embeddings as float32, for a search."""
        return self.vectors.astype(np.float32) / 127

    def nearest(self, queries, number=NEAREST):
        """Find the passages nearest to each query, by a linear search."""
        number = min(number, len(self.unit))
        found = np.empty((len(queries), number), np.int64)
        for first in range(0, len(queries), BLOCK):  # bounds the memory
            away = -(queries[first:][:BLOCK] @ self.unit.T)
            near = np.argpartition(away, number - 1, axis=1)[:, :number]
            order = np.argsort(np.take_along_axis(away, near, 1), axis=1)
            found[first:][:BLOCK] = np.take_along_axis(near, order, 1)
        return found

    def without(self, numbers):
        """Leave pieces out, to try what is found where they are not known."""
        kept = ~np.isin(self.owners, numbers)
        columns = self.vectors[kept], self.owners[kept], self.middles[kept]
        return Index(self.pieces, *columns, self.towers)

    def save(self, path):
        """Write the index."""
        counts = np.bincount(self.owners, minlength=len(self.pieces))
        tensors = {
            "vectors": torch.from_numpy(self.vectors),
            "counts": torch.from_numpy(counts.astype(np.int32)),
            "middles": torch.from_numpy(
                np.round(self.middles * QUARTERS).astype(np.int16)
            ),
        }
        about = {"pieces": self.pieces, "version": model.VERSION}
        write_tensors(path, tensors, about | {"towers": self.towers})

    @classmethod
    def load(cls, path, towers=None):
        """Read an index."""
        if not Path(path).is_file():
            raise InputError(f"{path}: no such index; make one by `jtm index`")
        expected = {"pieces": list, "version": int, "towers": str}
        tensors, about = read_tensors(path, "index", expected)
        if about["version"] != model.VERSION or towers not in (None, about["towers"]):
            raise InputError(
                f"{path}: an index of another version; make it again by `jtm index`"
            )
        counts = tensors["counts"].numpy()
        return cls(
            about["pieces"],
            tensors["vectors"].numpy(),
            np.repeat(np.arange(len(counts)), counts),
            tensors["middles"].numpy().astype(np.float32) / QUARTERS,
            about["towers"],
        )


def _passages(notes):
    """
    Cut a score into passages of lengths that suit how dense it is.

    Return their ends in quarter notes ``(passages, 2)``, without those in which hardly
    a note starts.
    """
    onsets = np.unique(notes["beat"])
    end = float((notes["beat"] + notes["beats"]).max())
    density = len(onsets) / max(end - onsets[0], 1.0)
    tempo = np.clip(96 * (1.6 / density) ** 0.5, 50, 180)  # a quarter note a minute
    found = []
    for scale in SCALES:
        length = scale * SECONDS * tempo / 60
        firsts = np.arange(
            onsets[0], max(end - length, onsets[0]) + 0.01, STEP * length
        )
        found += [(first, first + length) for first in firsts]
    found = np.array(found)
    starts = np.sort(notes["beat"])
    counts = np.searchsorted(starts, found[:, 1]) - np.searchsorted(starts, found[:, 0])
    return found[counts >= FEWEST]


def _embed(towers, notes):
    """
    Embed the passages of a piece.

    Return embeddings ``(passages, dim)``, int8, and their middles in quarter notes.
    """
    ends = _passages(notes)
    if not len(ends):
        return np.zeros((0, towers.dim), np.int8), np.zeros(0, np.float32)
    drawn = zip(*(draw(notes, *pair) for pair in ends), strict=True)
    vectors = towers.embed_scores(*map(np.stack, drawn))
    return np.round(127 * vectors).astype(np.int8), ends.mean(1).astype(np.float32)


def _read(path):
    """Read a score for another process: its pieces, or what is wrong with it."""
    try:
        return notation.read(path)
    except InputError as error:
        return str(error)


def _stamp(path):
    """Return size and time of a file, by which a change is told."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def build(folder, out, titles=None, weights=WEIGHTS, progress=True):
    """
    Index the scores of a folder, or bring an index of it up to date.

    Parameters
    ----------
    folder : str or Path
        Folder with MIDI, MusicXML, ABC or kern files at any depth.
    out : str or Path
        The index; what it holds of files that have not changed is kept.
    titles : dict of str to str, optional
        Names of pieces by file relative to the folder, in place of those that the
        files have; only these files are indexed.
    weights : str or Path
        The towers.
    progress : bool
        Show a progress bar, and what was done.

    Returns
    -------
    int
        Number of files that could not be read; each is named on standard error.

    Raises
    ------
    InputError
        If the folder is missing or has no score, none of them can be read, or `out`
        is something else.
    """
    folder, out = Path(folder), Path(out)
    towers, _, fingerprint = model.load(weights)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with scores")
    found, passed_over = find_files(folder, notation.SUFFIXES)
    files = {path.relative_to(folder).as_posix(): path for path in found}
    if titles is not None:
        files = {name: path for name, path in files.items() if name in titles}
    if not files:
        raise InputError(
            f"{folder}: no score found; expected files ending in "
            f"{', '.join(notation.SUFFIXES)}"
        )
    for path, why in passed_over:
        warn(f"{path}: passed over: {why}")
    kept = _kept(out, fingerprint, files)
    missing = [name for name in files if name not in kept]
    failed = []
    with _reader(len(missing)) as read:
        found = read(files[name] for name in missing)
        bar = tqdm(missing, "Indexing", unit="file", disable=not progress)
        for name, pieces in zip(bar, found, strict=True):
            if isinstance(pieces, str):
                failed.append(name)
                tqdm.write(f"jtm: {pieces}", file=sys.stderr)
                continue
            kept[name] = []
            for title, notes in pieces:
                about = {"title": (titles or {}).get(name) or title or Path(name).stem}
                about |= {"file": name, "stamp": _stamp(files[name])}
                about["beats"] = round(float((notes["beat"] + notes["beats"]).max()), 2)
                kept[name].append((about, *_embed(towers, notes)))
    parts = [part for name in files for part in kept.get(name, ())]
    if not parts:
        raise InputError(f"{folder}: none of {len(files)} scores could be read")
    abouts, vectors, middles = zip(*parts, strict=True)
    owners = np.repeat(np.arange(len(parts)), [len(each) for each in vectors])
    columns = np.concatenate(vectors), owners, np.concatenate(middles)
    Index(list(abouts), *columns, fingerprint).save(out)
    if progress:
        print(
            f"{out}: {len(parts)} pieces of {len(files) - len(failed)} files; "
            f"{len(missing) - len(failed)} files read, {len(failed)} failed"
        )
    return len(failed)


def _kept(out, fingerprint, files):
    """Return what an index that is there holds of files that have not changed."""
    if not out.exists():
        return {}
    index, kept = Index.load(out, fingerprint), {}
    for number, about in enumerate(index.pieces):
        name = about["file"]
        if name in files and about["stamp"] == _stamp(files[name]):
            own = index.owners == number
            part = about, index.vectors[own], index.middles[own]
            kept.setdefault(name, []).append(part)
    return kept


@contextlib.contextmanager
def _reader(n_files):
    """Yield what reads scores in order, in processes where there are many."""
    if n_files <= 20 or (os.cpu_count() or 1) == 1:
        yield functools.partial(map, _read)
        return
    processes = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))
    try:
        yield functools.partial(processes.map, _read, chunksize=4)
    finally:
        processes.shutdown(cancel_futures=True)


@functools.cache
def _front_end():
    return harmonic_front_end(PitchMapEncoder())


def listen(wave):
    """
    Cut a recording into windows that are not silent.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(samples,)`` at 16 kHz, float32.

    Returns
    -------
    starts : numpy.ndarray
        Seconds ``(windows,)``.
    magnitudes : numpy.ndarray
        Averaged log magnitudes ``(windows, FRAMES, bins)``.

    Raises
    ------
    InputError
        If the recording is shorter than :data:`SHORTEST`.
    """
    if len(wave) < SHORTEST * SAMPLE_RATE:
        raise InputError(
            f"{len(wave) / SAMPLE_RATE:.2g} s of sound; expected {SHORTEST:g} s or "
            "more to tell the piece"
        )
    size = FRAMES * POOL * HOP
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    last = (len(wave) - size) / SAMPLE_RATE
    starts = np.arange(0, last + 1e-6, HOP_SECONDS)
    if len(starts) > MOST_WINDOWS:
        starts = np.linspace(0, last, MOST_WINDOWS)
    firsts = np.round(starts * FRAME_RATE / POOL).astype(int) * POOL
    if len(wave) <= 2 * len(starts) * size:  # windows overlap: hear all of it once
        heard = pool(_front_end().analyse(wave[: len(wave) // HOP * HOP]))
        parts = [heard[first // POOL :][:FRAMES] for first in firsts]
    else:
        parts = [pool(_front_end().analyse(wave[f * HOP :][:size])) for f in firsts]
    parts = [np.pad(part, ((0, FRAMES - len(part)), (0, 0))) for part in parts]
    found = np.stack(parts).astype(np.float32)
    loud = found.max((1, 2)) > SILENT
    return starts[loud], found[loud]


def vote(at, owners, places, speeds=SPEEDS, tolerance=TOLERANCE):
    """
    Add up votes that lie on one line in time.

    Parameters
    ----------
    at : numpy.ndarray
        Where each query is, in seconds ``(queries,)``.
    owners, places : numpy.ndarray
        Of the passages that each votes for, nearest first ``(queries, nearest)``, the
        piece and where in it they are.
    speeds : numpy.ndarray
        Slopes that are tried, in units of `places` a second.
    tolerance : float
        Seconds within which votes count as on one line.

    Returns
    -------
    margin : float
        How far the first piece is ahead, by which 'not found' is decided: its votes
        and half of its lead over the second; less of fewer than :data:`ENOUGH` queries.
    ranked : list of tuple
        The piece, its votes a query, where in it second 0 is, the slope, and the
        queries that voted, the most votes first. A query gives a piece at most one
        vote, of ``log((nearest + 1) / rank)``.
    """
    n_queries, nearest = owners.shape
    if not n_queries:
        return 0.0, []
    rank, query = (each.ravel() for each in np.indices(owners.T.shape))
    owner, place = owners.T.ravel(), places.T.ravel()  # the nearest first
    weight = np.log((nearest + 1) / (rank + 1))
    best = {}
    for speed in speeds:
        offset = (place - speed * at[query]) / (speed * tolerance)
        for half in (0.0, 0.5):
            line = np.floor(offset + half).astype(np.int64)
            lines = owner.astype(np.int64) * (1 << 24) + (line + (1 << 23))
            told = lines * n_queries + query
            order = np.argsort(told, kind="stable")  # the nearest stays first
            first = np.append(True, np.diff(told[order]) != 0)
            hits = order[first]
            group = np.flatnonzero(np.append(True, np.diff(lines[hits]) != 0))
            sums = np.add.reduceat(weight[hits], group)
            ends = np.append(group[1:], len(hits))
            for k in np.argsort(-sums)[:SHORTLIST]:
                piece = int(owner[hits[group[k]]])
                if sums[k] > best.get(piece, (0.0,))[0]:
                    best[piece] = sums[k], speed, hits[group[k] : ends[k]]
    ranked = []
    for piece, (total, speed, hits) in best.items():
        start = float(np.median(place[hits] - speed * at[query[hits]]))
        ranked.append((piece, total / n_queries, start, float(speed), query[hits]))
    ranked.sort(key=lambda each: -each[1])
    first, second = ([each[1] for each in ranked] + [0.0])[:2]
    margin = min(1.0, n_queries / ENOUGH) * (first + 0.5 * (first - second))
    return float(margin), ranked


def find(wave, rate=SAMPLE_RATE, index=None, weights=WEIGHTS):
    """
    Find the pieces that a recording is likely of.

    If none is found as it is written, other keys are tried.

    Parameters
    ----------
    wave : array
        Samples as :func:`jtm.music.audio.to_wave` takes them, at any level.
    rate : int
        Sample rate in Hz.
    index : str, Path or Index, optional
        Where to look; the index that comes with the package by default.
    weights : str or Path
        The towers.

    Returns
    -------
    matches : list of Match
        At most :data:`SHOWN` pieces, the likeliest first; none where all is silent.
    found : bool
        Whether the first is likely enough to be named.

    Raises
    ------
    InputError
        If the recording is too short, or the index or the towers cannot be read.
    """
    towers, facts, fingerprint = _towers(str(weights))
    if not isinstance(index, Index):
        index = _index(str(index or INDEX), fingerprint)
    wave = audio.to_wave(wave, rate)
    starts, heard = listen(wave * audio.gain(audio.powers(wave)))
    key, (margin, ranked) = 0, look(towers, index, starts, heard, 0)
    found = margin >= facts.get("threshold", 0.0)
    if not found and len(starts) >= LONG:
        moved = {k: look(towers, index, starts, heard, k) for k in KEYS if k}
        best = max(moved, key=lambda k: moved[k][0])
        if moved[best][0] >= FOUND_MOVED:
            found, key, (margin, ranked) = True, best, moved[best]
    likely = _confidences(margin, [votes for _, votes, *_ in ranked], facts)
    matches = []
    for (piece, _, start, speed, voters), share in zip(ranked, likely, strict=True):
        about = index.pieces[piece]
        first, last = starts[voters.min()], starts[voters.max()] + SECONDS
        beat = float(np.clip(start + speed * first, 0, about["beats"]))
        where = beat, about["beats"], float(first), float(last), key
        matches.append(Match(about["title"], about["file"], share, *where))
    return matches, bool(matches) and found


def look(towers, index, starts, heard, key):
    """
    Look for windows among the passages of an index, in one key.

    Parameters
    ----------
    towers : Towers
        What embeds them.
    index : Index
        Where to look.
    starts, heard : numpy.ndarray
        The windows; see :func:`listen`.
    key : int
        Semitones that the recording may be above the score.

    Returns
    -------
    margin : float
        How far the first piece is ahead; see :func:`vote`.
    ranked : list of tuple
        The likeliest pieces.
    """
    lowered = move(heard, -key * BINS_PER_SEMITONE, axis=2)
    near = index.nearest(towers.embed_sound(lowered))
    places = index.owners[near], index.middles[near]
    margin, ranked = vote(starts + SECONDS / 2, *places)
    return margin, ranked[:SHOWN]


def _confidences(margin, votes, facts):
    """
    Estimate how likely each piece is the right one.

    That of the first follows from its margin, by a logistic regression that was fitted
    on validation; the others share the rest by their votes.
    """
    intercept, slope = facts.get("confidence", (-4.0, 4.0))
    first = 1 / (1 + np.exp(-(intercept + slope * margin)))
    others = np.square(votes[1:])
    rest = (1 - first) * others / (others.sum() + 1e-9) * 0.5
    return [float(first), *np.minimum(rest, first).tolist()][: len(votes)]


def identify(wave, rate=SAMPLE_RATE):
    """
    Name the piece that a recording is of, for pages that show it.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(samples,)``, floats in [-1, 1].
    rate : int
        Sample rate in Hz.

    Returns
    -------
    str or None
        Its title; None where it is not found, or too short to tell.
    """
    try:
        matches, found = find(wave, rate)
    except InputError:
        return None
    return matches[0].title if found else None


def name(path):
    """
    Name the piece that a sound file is of, for its page.

    Parameters
    ----------
    path : str or Path
        The sound file, of which the first :data:`GLANCE` seconds are heard.

    Returns
    -------
    str
        Its title in the index that comes with the package; empty where it is not found
        or is too short to tell.
    """
    return identify(audio.read(path, seconds=GLANCE, clipped=False)) or ""


_towers = functools.lru_cache(4)(model.load)
_index = functools.lru_cache(4)(Index.load)
