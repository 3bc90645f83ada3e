"""
Piece identification: an index of scores, and the search for a recording's piece.

Since the tempo of a performance is unknown, each piece is cut into passages of two
lengths, chosen by its note density; so is its highest part, which is often played
alone. Passages are embedded once. Windows of a recording then vote for their nearest
passages, and a piece is scored by the votes that lie on one line in time, that is, its
passages in order at a constant tempo.
"""

import contextlib
import functools
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from jtm.constants import FRAME_RATE, HOP, SAMPLE_RATE
from jtm.data.batch import ordered_map
from jtm.data.musicnet import find_files
from jtm.files import InputError, InputWarning, stamp, warn
from jtm.models.pitchmap import PitchMapEncoder
from jtm.music import audio, notation
from jtm.retrieval import data, model
from jtm.retrieval.config import FRAMES, POOL
from jtm.training.checkpoints import WEIGHTS_SUFFIX, read_tensors, write_tensors
from jtm.training.spectra import harmonic_front_end

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "retrieval.safetensors"
"""Path to the towers shipped with the package."""

INDEX = WEIGHTS.with_name("pieces.safetensors")
"""Path to the index of music21's corpus shipped with the package."""

# Passages of a score.
SCALES = (0.82, 1.2)  # lengths, relative to a window at a likely tempo
STEP = 0.9  # hop between passages, relative to their length
QUARTERS = 4  # resolution of stored passage centres, in steps per quarter note
SCALE = 40  # steps per unit of stored embeddings; more only make archives larger

# Windows of a query.
HOP_SECONDS = 0.5  # hop between windows
MAX_WINDOWS = 120  # maximum number of windows, evenly spaced in longer queries
SHORTEST = 1.0  # minimum length of a recording in seconds
SILENT = 0.15  # maximum log magnitude of a window that counts as silent
MIN_CHANGE = 0.08  # minimum change of pitch content; see `_change`
NAMING_SECONDS = 30  # seconds of a recording used to name it on its page
CONFIDENT = 0.5  # minimum confidence to show the name there, and without 'perhaps'

# Votes.
BLOCK = 16  # queries compared with all passages at a time
NEAREST = 48  # passages that a window votes for
SPEEDS = 0.5 * 1.12 ** np.arange(21)  # quarter notes per second: 30 to 289 per minute
TOLERANCE = 1.6  # seconds within which votes count as on one line
SHORTLIST = 25  # lines kept per slope
RELIABLE = 17  # windows, 10 s, from which votes are reliable
MAX_MATCHES = 5  # maximum number of pieces returned

# Keys.
KEYS = tuple(sorted(range(-12, 13), key=abs))  # semitones above the score, near first
MIN_WINDOWS = 30  # to try other keys; fewer windows agree by chance
MIN_SECONDS = (MIN_WINDOWS - 1) * HOP_SECONDS + data.SECONDS  # 16.5, their duration
CERTAIN_MARGIN = 2.0  # margin in the score's key, above any wrong one in validation
# Margin in the best key relative to the median over keys, by ``benchmarks/naming.py``.
KEY_THRESHOLD = 2.9  # to count as found
KEY_CONFIDENCE = (-6.1, 2.1)  # of the logistic regression of correctness


class ShortError(InputError):
    """A recording is too short to be identified."""


class OutdatedError(InputError):
    """An index is of another version or of other towers."""


@dataclass(frozen=True)
class Match:
    """
    A candidate for the piece played in a recording.

    Parameters
    ----------
    title : str
        Title of the piece.
    file : str
        Its file, relative to the indexed folder.
    confidence : float
        Probability that it is the right piece, as estimated on held-out works.
    beat, beats : float
        Position in the piece at `start`, and the piece's length, in quarter notes.
    start, end : float
        Seconds of the recording in which the piece was found.
    key : int
        Transposition of the recording above the score in semitones.
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
    An index of pieces and the embeddings of their passages.

    Passages of owners beyond `pieces` are background: they compete for votes, but are
    never returned.

    Parameters
    ----------
    pieces : list of dict
        ``title``, ``file``, ``stamp`` (size and modification time of the file) and
        ``beats`` of each piece.
    vectors : numpy.ndarray
        Embeddings of all passages ``(passages, dim)``, int8, scaled by :data:`SCALE`.
    owners : numpy.ndarray
        Index of the piece of each passage ``(passages,)``.
    middles : numpy.ndarray
        Centre of each passage in quarter notes ``(passages,)``.
    towers : str
        Fingerprint of the towers that computed the embeddings.
    """

    pieces: list
    vectors: np.ndarray
    owners: np.ndarray
    middles: np.ndarray
    towers: str

    @functools.cached_property
    def unit(self):
        """Embeddings as float32 unit vectors, for searching."""
        return self.vectors.astype(np.float32) / SCALE

    def nearest(self, queries, number=NEAREST):
        """Find the nearest passages of each query by exhaustive search."""
        number = min(number, len(self.unit))
        unit = torch.from_numpy(self.unit)
        queries = torch.as_tensor(queries, dtype=unit.dtype)
        blocks = queries.split(BLOCK)  # bounds the memory
        return np.concatenate([(x @ unit.T).topk(number).indices for x in blocks])

    def without(self, number):
        """Return an index without a piece, to evaluate queries not in the index."""
        kept = self.owners != number
        columns = self.vectors[kept], self.owners[kept], self.middles[kept]
        return Index(self.pieces, *columns, self.towers)

    def among(self, other):
        """Return an index with the pieces of another as background."""
        added = other.vectors, other.owners + len(self.pieces), other.middles
        own = self.vectors, self.owners, self.middles
        columns = map(np.concatenate, zip(own, added, strict=True))
        return Index(self.pieces, *columns, self.towers)

    def save(self, path):
        """Write the index as safetensors."""
        counts = np.bincount(self.owners, minlength=len(self.pieces))
        tensors = {
            "vectors": torch.from_numpy(self.vectors),
            "counts": torch.from_numpy(counts.astype(np.int32)),
            "middles": torch.from_numpy(
                np.round(self.middles * QUARTERS).astype(np.int32)
            ),
        }
        about = {"pieces": self.pieces, "version": model.VERSION}
        write_tensors(path, tensors, about | {"towers": self.towers})

    @classmethod
    def load(cls, path, towers=None):
        """Read an index; raise InputError if it does not fit the towers."""
        if not Path(path).is_file():
            raise InputError(f"{path}: no such index; build one by `jtm index`")
        expected = {"pieces": list, "version": int, "towers": str}
        tensors, about = read_tensors(path, "index", "`jtm index`", expected)
        if about["version"] != model.VERSION or towers not in (None, about["towers"]):
            raise OutdatedError(
                f"{path}: an index of another version; rebuild it by `jtm index`"
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
    Cut a score into passages whose lengths depend on its note density.

    Return their ends in quarter notes ``(passages, 2)``, without passages with too few
    onsets.
    """
    onsets = np.unique(notes["beat"])
    end = float((notes["beat"] + notes["beats"]).max())
    density = len(onsets) / max(end - onsets[0], 1.0)
    tempo = np.clip(96 * (1.6 / density) ** 0.5, 50, 180)  # quarter notes per minute
    ends = []
    for scale in SCALES:
        length = scale * data.SECONDS * tempo / 60
        firsts = np.arange(
            onsets[0], max(end - length, onsets[0]) + 0.01, STEP * length
        )
        ends += [(first, first + length) for first in firsts]
    ends = np.array(ends)
    starts = np.sort(notes["beat"])
    counts = np.searchsorted(starts, ends[:, 1]) - np.searchsorted(starts, ends[:, 0])
    return ends[counts >= data.MIN_ONSETS]


def _embed(towers, notes):
    """
    Embed the passages of a piece and of its highest part.

    Return embeddings ``(passages, dim)``, int8, and passage centres in quarter notes.
    """
    parts = [notes[notes["part"] == part] for part in np.unique(notes["part"])]
    highest = max(parts, key=lambda part: part["pitch"].mean())
    rolls, middles = [], []
    for played in (notes, highest)[: len(parts)]:
        for ends in _passages(played):
            rolls.append(notation.roll(played, *ends))
            middles.append(ends.mean())
    if not rolls:
        return np.zeros((0, towers.dim), np.int8), np.zeros(0, np.float32)
    vectors = towers.embed_scores(*map(np.stack, zip(*rolls, strict=True)))
    return np.round(SCALE * vectors).astype(np.int8), np.array(middles, np.float32)


def _entries(towers, path, pieces, about, title):
    """List facts, embeddings and passage centres of the pieces of a score."""
    entries = []
    for own_title, notes in pieces:
        beats = round(float((notes["beat"] + notes["beats"]).max()), 2)
        facts = {"title": title or own_title or path.stem, **about, "beats": beats}
        vectors, middles = _embed(towers, notes)
        if not len(vectors):
            warn(f"{path}: {facts['title']}: too short to be found")
        entries.append((facts, vectors, middles))
    return entries


def _read(path):
    """
    Read the pieces of a score.

    Return them, none if the score is unreadable; the error message, if any; and the
    warnings, since a worker process would not show them in one line.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            pieces, error = notation.read(path), ""
        except InputError as unreadable:
            pieces, error = [], str(unreadable)
    return pieces, error, [str(warning.message) for warning in caught]


def build(folder, out, titles=None, weights=WEIGHTS, progress=True):
    """
    Index the scores of a folder, or update an existing index.

    Parameters
    ----------
    folder : str or Path
        Folder to search recursively for MIDI, MusicXML, ABC or kern files, without
        hidden ones.
    out : str or Path
        Path to the index. Entries of files that have not changed are kept, those of
        files that are no longer in the folder are removed, and an index of another
        version or of other towers is rebuilt.
    titles : dict of str to str, optional
        Titles by file relative to the folder, instead of those in the files; only
        these files are indexed.
    weights : str or Path
        Path to the towers.
    progress : bool
        Whether to show a progress bar and print a summary.

    Returns
    -------
    int
        Number of files that could not be read; each is named on standard error.

    Raises
    ------
    InputError
        If the folder is missing or has no score, no score can be read, or `out`
        does not end in .safetensors, is not an index, or is one of another folder:
        some of its files are missing here, and none has the same size.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix != WEIGHTS_SUFFIX:
        raise InputError(f"{out}: expected a name ending in {WEIGHTS_SUFFIX}")
    towers, _, fingerprint = model.load(weights)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with scores")
    paths, skipped = find_files(folder, notation.SUFFIXES)
    names = [path.relative_to(folder).as_posix() for path in paths]
    files = {
        name: path
        for name, path in zip(names, paths, strict=True)
        if "/." not in f"/{name}" and (titles is None or name in titles)
    }
    if not files:
        raise InputError(
            f"{folder}: no score found; expected files ending in "
            f"{', '.join(notation.SUFFIXES)}"
        )
    for path, reason in skipped:
        warn(f"{path}: skipped: {reason}")
    # Taken before reading, so that a file changed meanwhile is read again next time.
    stamps = {name: stamp(path) for name, path in files.items()}
    n_removed, entries = 0, {}
    with contextlib.suppress(OutdatedError):  # of another version: rebuilt
        if out.exists():
            index = Index.load(out)
            n_removed = _count_removed(index, stamps, out, folder)
            entries = _unchanged(index, fingerprint, stamps)
    missing = [name for name in files if name not in entries]
    n_failed = 0
    with ordered_map(os.cpu_count() if len(missing) > 20 else 1) as spread:
        scores = spread(_read, (files[name] for name in missing))
        bar = tqdm(missing, "Indexing", unit="file", disable=not progress)
        for name, (pieces, error, messages) in zip(bar, scores, strict=True):
            for message in messages:
                warn(message)
            if error:
                n_failed += 1
                tqdm.write(f"jtm: {error}", file=sys.stderr)
                continue
            about = {"file": name, "stamp": stamps[name]}
            title = (titles or {}).get(name)
            entries[name] = _entries(towers, files[name], pieces, about, title)
    pieces = [piece for name in files for piece in entries.get(name, ())]
    if not pieces:
        raise InputError(f"{folder}: none of {len(files)} scores could be read")
    abouts, vectors, middles = zip(*pieces, strict=True)
    owners = np.repeat(np.arange(len(pieces)), [len(each) for each in vectors])
    columns = np.concatenate(vectors), owners, np.concatenate(middles)
    Index(list(abouts), *columns, fingerprint).save(out)
    if progress:
        print(
            f"{out}: {len(pieces)} pieces of {len(files) - n_failed} files; "
            f"{len(missing) - n_failed} files read, {n_failed} failed, "
            f"{n_removed} removed"
        )
    return n_failed


def _count_removed(index, stamps, out, folder):
    """
    Count the files of the index in `out` that are no longer in the folder.

    If there are some, and none of the others has the same size, the index is one of
    another folder, and refused: updating it would keep nothing of it. Times are not
    compared, since a copied folder has new ones.
    """
    indexed = {about["file"]: about["stamp"] for about in index.pieces}
    left = indexed.keys() & stamps.keys()
    n_removed = len(indexed) - len(left)
    if n_removed and all(stamps[name][:1] != indexed[name][:1] for name in left):
        raise InputError(
            f"{out}: an index of another folder: none of its {len(indexed)} files "
            f"(such as {min(indexed)}) is in {folder} with the same size; choose "
            "another --out, or remove this index"
        )
    return n_removed


def _unchanged(index, fingerprint, stamps):
    """Return the entries of an index of the same towers for unchanged files."""
    entries = {}
    if index.towers != fingerprint:
        return entries
    for number, about in enumerate(index.pieces):
        name = about["file"]
        if name in stamps and about["stamp"] == stamps[name]:
            rows = index.owners == number
            piece = about, index.vectors[rows], index.middles[rows]
            entries.setdefault(name, []).append(piece)
    return entries


@functools.cache
def _front_end():
    return harmonic_front_end(PitchMapEncoder())


def cut_windows(wave):
    """
    Cut a recording into windows, without silent ones.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(samples,)`` at 16 kHz, float32.

    Returns
    -------
    starts : numpy.ndarray
        Start times in seconds ``(windows,)``.
    magnitudes : numpy.ndarray
        Averaged log magnitudes ``(windows, FRAMES, bins)``.

    Raises
    ------
    ShortError
        If the recording is shorter than :data:`SHORTEST`.
    """
    if len(wave) < SHORTEST * SAMPLE_RATE:
        raise ShortError(
            f"{len(wave) / SAMPLE_RATE:.2g} s of audio; expected {SHORTEST:g} s or "
            "more to identify the piece"
        )
    size = FRAMES * POOL * HOP
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    last = (len(wave) - size) / SAMPLE_RATE
    whole = len(wave) <= 3 * MAX_WINDOWS * size  # else windows hardly overlap
    starts = np.arange(0, last + 1e-6, HOP_SECONDS)
    starts = starts if whole else np.linspace(0, last, MAX_WINDOWS)
    firsts = np.round(starts * FRAME_RATE / POOL).astype(int) * POOL
    analyse = _front_end().analyse
    if whole:  # analyse all of it once
        magnitudes = data.pool(analyse(wave[: len(wave) // HOP * HOP]))
        windows = [magnitudes[first // POOL :][:FRAMES] for first in firsts]
    else:
        windows = [data.pool(analyse(wave[f * HOP :][:size])) for f in firsts]
    windows = [np.pad(x, ((0, FRAMES - len(x)), (0, 0))) for x in windows]
    windows = np.stack(windows).astype(np.float32)
    loud = np.flatnonzero(windows.max((1, 2)) > SILENT)
    if len(loud) > MAX_WINDOWS:
        loud = loud[np.linspace(0, len(loud) - 1, MAX_WINDOWS).round().astype(int)]
    return starts[loud], windows[loud]


def sounding(wave, rate=SAMPLE_RATE):
    """
    Measure how long a recording sounds.

    Parameters
    ----------
    wave : array
        Samples as :func:`jtm.music.audio.to_wave` takes them, at any level.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    float
        Seconds that are not silent.
    """
    wave = audio.to_wave(wave, rate)
    heard = audio.moments(audio.normalise(wave))[1] > audio.SILENT
    return min(heard.sum() * audio.LEVEL_BLOCK, len(wave)) / SAMPLE_RATE


def _change(magnitudes):
    """
    Measure how much the pitch content of a recording changes.

    Of averages over 0.2 s, it is the standard deviation over time of how far a bin
    stands out from those a semitone away, averaged over the 20 bins where it is
    largest. In validation recordings of 5 s and more it is at least 0.14; in noise of
    any colour, clicks, mains hum, tones with vibrato or tremolo, and chords that are
    held or repeated, at most 0.05.
    """
    level = magnitudes.reshape(-1, 5, magnitudes.shape[-1]).mean(1)
    step = data.BINS_PER_SEMITONE
    neighbours = (level[:, : -2 * step] + level[:, 2 * step :]) / 2
    return float(np.sort((level[:, step:-step] - neighbours).std(0))[-20:].mean())


def vote(times, owners, positions, speeds=SPEEDS, tolerance=TOLERANCE):
    """
    Rank pieces by the votes that lie on one line in time.

    Parameters
    ----------
    times : numpy.ndarray
        Time of each query in seconds ``(queries,)``.
    owners, positions : numpy.ndarray
        Piece and position of the passages that each query votes for, nearest first
        ``(queries, nearest)``.
    speeds : numpy.ndarray
        Candidate slopes in units of `positions` per second.
    tolerance : float
        Seconds within which votes count as on one line.

    Returns
    -------
    list of tuple
        Piece, votes per query, position in the piece at second 0, slope, and the
        queries that voted, by descending votes. A query gives a piece at most one
        vote, weighted ``log((nearest + 1) / rank)``.
    """
    if not owners.size:
        return []
    n_queries, nearest = owners.shape
    rank, query = np.indices((nearest, n_queries)).reshape(2, -1)
    owner, position = owners.T.ravel(), positions.T.ravel()  # nearest first
    weight = np.log((nearest + 1) / (rank + 1))
    best = {}
    for speed in speeds:
        offset = (position - speed * times[query]) / (speed * tolerance)
        for half in (0.0, 0.5):
            line = np.floor(offset + half).astype(np.int64)
            lines = owner.astype(np.int64) * (1 << 24) + (line + (1 << 23))
            keys = lines * n_queries + query
            order = np.argsort(keys, kind="stable")  # nearest stays first
            first = np.append(True, np.diff(keys[order]) != 0)
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
        start = float(np.median(position[hits] - speed * times[query[hits]]))
        ranked.append((piece, total / n_queries, start, float(speed), query[hits]))
    ranked.sort(key=lambda row: -row[1])
    return ranked


def margin(ranked, n_queries):
    """
    Compute how clearly the first piece is ahead; if little, it is not the right one.

    Parameters
    ----------
    ranked : list of tuple
        Pieces as :func:`vote` ranks them.
    n_queries : int
        Number of queries that voted.

    Returns
    -------
    float
        Votes of the first piece plus half its lead over the second, reduced for fewer
        than :data:`RELIABLE` queries.
    """
    first, second = ([row[1] for row in ranked] + [0.0, 0.0])[:2]
    return float(min(1.0, n_queries / RELIABLE) * (first + 0.5 * (first - second)))


def find(wave, rate=SAMPLE_RATE, index=None, weights=WEIGHTS, progress=False):
    """
    Find the pieces most likely played in a recording.

    From :data:`MIN_SECONDS` of sound on, all keys within an octave are tried, unless
    the margin in that of the score is :data:`CERTAIN_MARGIN`. The pieces of the shipped
    index compete with those of an index given by its path, as background, so that few
    pieces do not share all votes: of 20 s of held-out works in neither, at most 1 % are
    named.

    Parameters
    ----------
    wave : array
        Samples as :func:`jtm.music.audio.to_wave` takes them, at any level.
    rate : int
        Sample rate in Hz.
    index : str, Path or Index, optional
        Index to search; the shipped one by default.
    weights : str or Path
        Path to the towers.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    matches : list of Match
        At most :data:`MAX_MATCHES` pieces, most likely first; empty if there are no
        notes that change, see `_change`, or no window votes for a piece.
    found : bool
        Whether the margin of the first piece reaches the threshold.

    Raises
    ------
    ShortError
        If the recording is too short.
    InputError
        If the index or the towers cannot be read.
    """
    towers, facts, fingerprint = _towers(str(weights), tuple(stamp(weights)))
    if not isinstance(index, Index):
        path = str(Path(index or INDEX).resolve())
        index = _index(path, fingerprint, tuple(stamp(path)))
    wave = audio.to_wave(wave, rate)
    starts, magnitudes = cut_windows(audio.normalise(wave))
    if not len(starts) or _change(magnitudes) < MIN_CHANGE:
        return [], False
    enough = len(starts) >= MIN_WINDOWS and sounding(wave) >= MIN_SECONDS
    keys = KEYS if enough else KEYS[:1]
    searched = search_in_keys(towers, index, starts, magnitudes, keys)
    results, margins = [], []
    bar = tqdm(keys, "Keys", leave=False, disable=not progress)
    for key, ranked in zip(bar, searched, strict=True):
        margins.append(margin(ranked, len(starts)))
        known = [row for row in ranked if row[0] < len(index.pieces)]
        results.append((margin(known, len(starts)), key, known[:MAX_MATCHES]))
        if not key and results[0][0] >= CERTAIN_MARGIN:
            break
    value, key, ranked = max(results, key=lambda result: result[0])
    threshold = facts.get("threshold", 0.0)
    coefficients = facts.get("confidence", (-4.0, 4.0))
    if len(results) == len(KEYS):
        # In most keys nothing is right, so their median is what chance reaches: more in
        # recordings with many notes at a time.
        value /= max(np.median(margins), 1e-9)
        threshold, coefficients = KEY_THRESHOLD, KEY_CONFIDENCE
    shares = _confidences(value, coefficients, [votes for _, votes, *_ in ranked])
    matches = []
    for (piece, _, start, speed, voters), share in zip(ranked, shares, strict=True):
        about = index.pieces[piece]
        first, last = starts[voters.min()], starts[voters.max()] + data.SECONDS
        beat = float(np.clip(start + speed * first, 0, about["beats"]))
        place = beat, about["beats"], float(first), float(last), key
        matches.append(Match(about["title"], about["file"], share, *place))
    return matches, bool(matches and value >= threshold)


def search_in_keys(towers, index, starts, magnitudes, keys=KEYS):
    """
    Search an index for windows of a recording, in one key after another.

    Parameters
    ----------
    towers : Towers
        Towers that embed the windows.
    index : Index
        Index to search.
    starts, magnitudes : numpy.ndarray
        Start times and log magnitudes of the windows; see :func:`cut_windows`.
    keys : sequence of int
        Assumed transpositions of the recording above the score in semitones.

    Yields
    ------
    list of tuple
        Pieces as :func:`vote` ranks them, with those of the background.
    """
    times = starts + data.SECONDS / 2
    for queries in towers.embed_in_keys(magnitudes, [-key for key in keys]):
        near = index.nearest(queries)
        yield vote(times, index.owners[near], index.middles[near])


def _confidences(value, coefficients, votes):
    """
    Estimate the probability that each piece is the right one.

    For the first piece it is a logistic regression of its margin, fitted on validation;
    the other pieces share half of the rest in proportion to their squared votes, each
    at most as much as the first.
    """
    intercept, slope = coefficients
    first = 1 / (1 + np.exp(-(intercept + slope * value)))
    others = np.square(votes[1:])
    rest = (1 - first) * others / (others.sum() + 1e-9) * 0.5
    return [float(first), *np.minimum(rest, first).tolist()][: len(votes)]


def identify(wave, rate=SAMPLE_RATE):
    """
    Identify the piece in a recording.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(samples,)``, floats in [-1, 1].
    rate : int
        Sample rate in Hz.

    Returns
    -------
    str or None
        Its title; None if it is not found with at least :data:`CONFIDENT`, or the
        recording has less than :data:`MIN_SECONDS` of sound.
    """
    if sounding(wave, rate) < MIN_SECONDS:
        return None
    matches, found = find(wave, rate)
    return matches[0].title if found and matches[0].confidence >= CONFIDENT else None


@functools.lru_cache(4)
def _towers(path, _):
    """Load towers; the last argument is as in `_index`."""
    return model.load(path)


@functools.lru_cache(4)
def _index(path, fingerprint, _):
    """
    Load an index; the shipped one, if of the same towers, is background.

    The last argument is the file's stamp, so that a rewritten index is loaded again.
    """
    index, shipped = Index.load(path, fingerprint), Index.load(INDEX)
    if path == str(INDEX.resolve()) or shipped.towers != fingerprint:
        return index
    return index.among(shipped)
