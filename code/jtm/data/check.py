"""
Verify a dataset on disk: labels against files, against each other, against sound.

Any folder in MusicNet's layout can be checked. A rendered set (its metadata names
a SoundFont) has labels that are exact by construction and is held to that; of
recordings of people playing the same facts are told, but only what makes them
unusable counts as a violation: MusicNet itself has unisons of two violins, clipped
samples and, by its authors' estimate, some 4 % of wrong labels.

Onsets are looked for with the spectral flux: the sum over frequency of the rises
of log-magnitude, in windows of 256 samples every 64. Of a single note the onset is
where the flux first reaches a tenth of its maximum, as slow attacks (a cello's, a
flute's) go on rising for long. Of a piece the flux is averaged over the 100 ms on
either side of all onsets, and it should rise through half of its height at zero.
Pitch is estimated by YIN (de Cheveigne and Kawahara 2002), which knows nothing of
the labels.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jtm.constants import (
    INSTRUMENTS,
    LABEL_RATE,
    N_PITCHES,
    PITCH_MIN,
    PITCH_RANGES,
)
from jtm.data.clips import CLIPS_FILE, read_clips
from jtm.data.musicnet import open_dataset, read_labels
from jtm.files import describe
from jtm.music import audio, midi

ONSET_LIMIT_NOTES = 0.010
"""Seconds by which the median onset of single notes may miss the flux."""

ONSET_LIMIT_PIECES = 0.020
"""Seconds by which the median piece may miss; chance gives about 0.05."""

PITCH_SHARE = 0.99
"""Share of single notes whose pitch the estimator must confirm within 50 cents."""

SILENCE = 10 ** (-60 / 20)
"""Peak amplitude below which a file counts as silent."""

OVERHANG = 0.1
"""Seconds that an offset may lie past the end of a file, as where a tail is cut."""


@dataclass(frozen=True)
class Finding:
    """
    The outcome of one check.

    Parameters
    ----------
    what : str
        What was looked at.
    found : str
        What was found.
    expected : str
        What was expected; empty where there is nothing to expect.
    violated : bool
        Whether that makes the dataset wrong.
    where : tuple of str
        The files concerned, one line each.
    """

    what: str
    found: str
    expected: str = ""
    violated: bool = False
    where: tuple = ()


@dataclass(frozen=True)
class Report:
    """
    All that was found in a dataset; ``str`` gives a table.

    Parameters
    ----------
    root : Path
        The dataset's folder.
    findings : tuple of Finding
        One for each check.
    """

    root: Path
    findings: tuple

    @property
    def failed(self):
        """Whether any check was violated."""
        return any(finding.violated for finding in self.findings)

    def __str__(self):
        rows = [("check", "found", "expected", "")]
        rows += [
            (f.what, f.found, f.expected, "VIOLATED" if f.violated else "ok")
            for f in self.findings
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [str(self.root)]
        for row, finding in zip(rows, (None, *self.findings), strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
            if finding is not None:
                lines += [f"    {line}" for line in finding.where[:10]]
                more = len(finding.where) - 10
                lines += [f"    and {more} more"] if more > 0 else []
        verdict = "violations were found" if self.failed else "no violation"
        return "\n".join((*lines, verdict))


def check(root, progress=True, processes=None):
    """
    Check a dataset on all cores.

    Parameters
    ----------
    root : str or Path
        A folder in MusicNet's layout, or any folder of sound files.
    progress : bool
        Whether to show progress bars.
    processes : int, optional
        Processes to use; one a core by default, and 1 for none but this.

    Returns
    -------
    Report
        What was found; its ``failed`` tells of violations.

    Raises
    ------
    InputError
        If there is nothing to check.
    """
    dataset = open_dataset(root)
    clips = ()
    if (dataset.root / CLIPS_FILE).exists():
        clips = read_clips(dataset.root)
    bare = [replace(r, metadata={}) for r in dataset.recordings]  # can be pickled
    with contextlib.ExitStack() as stack:
        spread = map
        if processes != 1:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(processes or os.cpu_count(), context)
            spread = functools.partial(stack.enter_context(pool).map, chunksize=8)
        facts = _all(spread, _look_at_recording, bare, "pieces", progress)
        note_facts = _all(spread, _look_at_clip, clips, "notes", progress)
    exact = any(r.metadata.get("soundfont") for r in dataset.recordings)
    findings = _judge_recordings(dataset.recordings, facts, exact)
    if clips:
        findings += _judge_clips(clips, note_facts)
    return Report(dataset.root, tuple(findings))


def _all(spread, function, items, what, progress):
    from tqdm import tqdm

    return list(tqdm(spread(function, items), what, len(items), disable=not progress))


@dataclass
class _Facts:
    """What a worker found out about one file."""

    problems: list = field(default_factory=list)
    digest: str = ""
    seconds: float = 0.0
    peak: float = 1.0
    clipped: bool = False
    labels: int = 0
    outside: int = 0
    duplicates: int = 0
    strange: int = 0
    misses: np.ndarray = field(default_factory=lambda: np.zeros(0))  # seconds
    cents: float = 0.0


def _listen(path, facts):
    """Read a file; note its length, level and content."""
    try:
        wave = audio.read(path, LABEL_RATE)
    except Exception as error:  # whatever a library makes of a file
        facts.problems.append(describe(error, path))
        return None
    facts.seconds = len(wave) / LABEL_RATE
    facts.digest = hashlib.sha256(wave.tobytes()).hexdigest()
    facts.peak = float(np.abs(wave).max())
    full = np.abs(wave) >= 32767 / 32768
    facts.clipped = bool((full[2:] & full[1:-1] & full[:-2]).any())
    return wave


def _look_at_recording(recording):
    facts = _Facts()
    wave = _listen(recording.audio, facts)
    if recording.labels is None or wave is None:
        return facts
    played = recording.audio.parents[1] / "midi" / f"{recording.id}.mid"
    try:
        labels = read_labels(recording.labels)
        score = midi.read(played) if played.exists() else None
    except Exception as error:
        facts.problems.append(describe(error, recording.labels))
        return facts
    facts.labels = len(labels)
    ends = labels["end"] / LABEL_RATE
    starts = labels["start"] / LABEL_RATE
    facts.outside = int(
        np.sum((starts >= facts.seconds) | (ends > facts.seconds + OVERHANG))
    )
    facts.duplicates = count_overlaps(labels)
    facts.strange = int(np.sum(~np.isin(labels["program"], list(INSTRUMENTS))))
    facts.misses = _piece_miss(wave, starts)
    if score is not None and not _same_notes(labels, score):
        facts.problems.append(f"{played}: notes differ from {recording.labels}")
    return facts


def coverage(recordings):
    """
    Count how often each instrument plays each pitch.

    Parameters
    ----------
    recordings : sequence of Recording
        Recordings; those without labels count for nothing.

    Returns
    -------
    counts : numpy.ndarray
        Labels ``(11, 88)``, by the order of :data:`jtm.constants.INSTRUMENTS` and
        by pitch from MIDI 21.
    playable : numpy.ndarray
        Booleans ``(11, 88)``: whether the instrument can play the pitch.
    """
    programs = np.array(list(INSTRUMENTS))
    counts = np.zeros((len(programs), N_PITCHES), dtype=np.int64)
    for recording in recordings:
        if recording.labels is not None:
            labels = read_labels(recording.labels)
            row, label = np.nonzero(programs[:, None] == labels["program"])
            column = labels["pitch"][label] - PITCH_MIN
            inside = (column >= 0) & (column < N_PITCHES)
            np.add.at(counts, (row[inside], column[inside]), 1)
    ranges = np.array([PITCH_RANGES[program] for program in programs]) - PITCH_MIN
    pitches = np.arange(N_PITCHES)
    return counts, (ranges[:, :1] <= pitches) & (pitches <= ranges[:, 1:])


def count_overlaps(labels):
    """
    Count labels that begin while the same instrument sounds the same pitch.

    Parameters
    ----------
    labels : numpy.ndarray
        Labels ``(notes,)`` of :data:`jtm.data.musicnet.LABEL_DTYPE`.

    Returns
    -------
    int
        How many begin before the end of an earlier one of their program and
        pitch.
    """
    order = np.lexsort((labels["end"], labels["start"], labels["pitch"]))
    count = 0
    until = {}
    for label in labels[order]:
        key = (label["program"], label["pitch"])
        count += label["start"] < until.get(key, 0)
        until[key] = max(label["end"], until.get(key, 0))
    return int(count)


def _same_notes(labels, score):
    def times(rows):
        return sorted((p, k, round(a), round(b)) for p, k, a, b in rows)

    labelled = labels[["program", "pitch", "start", "end"]].tolist()
    played = (
        (n.program, n.pitch, n.start * LABEL_RATE, n.end * LABEL_RATE)
        for n in score.notes
    )
    return times(labelled) == times(played)


def flux(wave):
    """
    Compute the spectral flux, fine in time.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 44.1 kHz.

    Returns
    -------
    numpy.ndarray
        Rises ``(blocks,)``: entry i is the rise of log-magnitude, summed over
        frequency, from the window centred on sample 64 i to the next.
    """
    import librosa

    spectrum = np.abs(librosa.stft(wave, n_fft=256, hop_length=64))
    level = np.log1p(100 * spectrum / max(float(spectrum.max()), 1e-9))
    return np.maximum(np.diff(level, axis=1), 0).sum(axis=0)


def _piece_miss(wave, starts, seconds=30.0, reach=0.1):
    """Tell by how many seconds the mean flux about the labelled onsets is late."""
    rises = flux(wave[: int(seconds * LABEL_RATE)])
    onsets = np.unique(np.round(starts * LABEL_RATE / 64).astype(int))
    span = int(reach * LABEL_RATE / 64)
    onsets = onsets[(onsets >= span) & (onsets < len(rises) - span)]
    if len(onsets) < 10:
        return np.zeros(0)
    mean = rises[onsets[:, None] + np.arange(-span, span + 1)].mean(axis=0)
    half = (np.median(mean) + mean.max()) / 2
    return np.array([(np.argmax(mean > half) - span) * 64 / LABEL_RATE])


def _look_at_clip(clip):
    facts = _Facts()
    wave = _listen(clip.audio, facts)
    if wave is None:
        return facts
    facts.outside = int(clip.end > len(wave))
    rises = flux(wave)
    first = int(np.argmax(rises > 0.1 * rises.max())) + 1
    facts.misses = np.array([first * 64 - clip.start]) / LABEL_RATE
    facts.cents = _cents_off(wave[clip.start : clip.end], clip.pitch)
    return facts


def _cents_off(wave, pitch):
    """Tell by how many cents YIN's median differs from a pitch."""
    import librosa

    hertz = librosa.yin(
        wave,
        fmin=24,
        fmax=5000,
        sr=LABEL_RATE,
        frame_length=4096,
        hop_length=1024,
        trough_threshold=0.07,  # of 0.1 an oboe's loud octave is already enough
    )
    return float(1200 * np.log2(np.median(hertz) / 440) - 100 * (pitch - 69))


def _audio_findings(paths, facts, exact):
    problems = [line for f in facts for line in f.problems]
    silent = [str(p) for p, f in zip(paths, facts, strict=True) if f.peak < SILENCE]
    clipped = [str(p) for p, f in zip(paths, facts, strict=True) if f.clipped]
    seen, twice = {}, []
    for path, fact in zip(paths, facts, strict=True):
        if fact.digest and seen.setdefault(fact.digest, path) != path:
            twice.append(f"{path} = {seen[fact.digest]}")
    hours = sum(f.seconds for f in facts) / 3600
    peaks = 20 * np.log10(np.maximum([f.peak for f in facts], 1e-9))
    return [
        Finding("files", f"{len(paths)}, {hours:.2f} h"),
        Finding(
            "readable and consistent",
            f"{len(problems)} problems",
            "0",
            bool(problems),
            tuple(problems),
        ),
        Finding(
            "silent files",
            f"{len(silent)}",
            "0",
            bool(silent),
            tuple(silent),
        ),
        Finding(
            "clipped files",
            f"{len(clipped)}",
            "0" if exact else "",
            exact and bool(clipped),
            tuple(clipped),
        ),
        Finding("peak level", f"{peaks.min():.1f} to {peaks.max():.1f} dB"),
        Finding("identical files", f"{len(twice)}", "0", bool(twice), tuple(twice)),
    ]


def _judge_recordings(recordings, facts, exact):
    paths = [r.audio for r in recordings]
    findings = _audio_findings(paths, facts, exact)
    labelled = [(r, f) for r, f in zip(recordings, facts, strict=True) if f.labels]
    bare = [r for r in recordings if r.labels is None and r.split != "unlabelled"]
    if bare:
        names = tuple(str(r.audio) for r in bare)
        findings.append(Finding("files without labels", f"{len(bare)}", where=names))
    if not labelled:
        return findings

    def where(name):
        return tuple(
            f"{r.labels}: {getattr(f, name)}" for r, f in labelled if getattr(f, name)
        )

    total = sum(f.labels for _, f in labelled)
    findings.append(Finding("labels", f"{total}"))
    for what, name, strict in (
        ("labels outside their file", "outside", True),
        ("labels overlapping their own pitch", "duplicates", exact),
        ("labels of other instruments", "strange", False),
    ):
        count = sum(getattr(f, name) for _, f in labelled)
        findings.append(
            Finding(
                what,
                f"{count}",
                "0" if strict else "",
                strict and count > 0,
                where(name) if strict else (),
            )
        )
    misses = np.abs(np.concatenate([f.misses for _, f in labelled]))
    miss = float(np.median(misses)) if misses.size else 0.0
    far = np.mean(misses > 2 * ONSET_LIMIT_PIECES) if misses.size else 0.0
    findings += [
        Finding(
            "onsets against the flux, median",
            f"{1000 * miss:.1f} ms",
            f"< {1000 * ONSET_LIMIT_PIECES:.0f} ms" if exact else "",
            exact and miss >= ONSET_LIMIT_PIECES,
        ),
        Finding("pieces more than 40 ms off", f"{100 * far:.1f} %"),
    ]
    findings += _metadata_findings(recordings, facts)
    counts, playable = coverage([r for r, _ in labelled if r.split == "train"])
    findings.append(
        Finding(
            "playable pitch x instrument in train",
            f"{np.count_nonzero(counts[playable])} of {playable.sum()}",
        )
    )
    return findings


def _metadata_findings(recordings, facts):
    """Compare with the metadata: lengths, and tunes heard on two sides."""
    wrong, homes = [], {}
    for recording, fact in zip(recordings, facts, strict=True):
        row = recording.metadata
        try:
            stated = float(row.get("seconds") or fact.seconds)
        except ValueError:
            stated = np.inf
        if abs(stated - fact.seconds) > 2:
            wrong.append(f"{recording.audio}: {fact.seconds:.1f} s, not {stated} s")
        if row.get("tune_family"):
            side = recording.split.removesuffix("_timbre")
            homes.setdefault(row["tune_family"], set()).add(side)
    torn = tuple(
        f"{family}: {', '.join(sorted(sides))}"
        for family, sides in homes.items()
        if len(sides) > 1
    )
    findings = [
        Finding("lengths unlike the metadata", f"{len(wrong)}", "", False, tuple(wrong))
    ]
    if homes:
        findings.append(
            Finding(
                "tune families in two splits",
                f"{len(torn)} of {len(homes)}",
                "0",
                bool(torn),
                torn,
            )
        )
    return findings


def _judge_clips(clips, facts):
    findings = [
        Finding(f"notes: {f.what}", f.found, f.expected, f.violated, f.where)
        for f in _audio_findings([clip.audio for clip in clips], facts, True)
    ]
    outside = tuple(
        str(c.audio) for c, f in zip(clips, facts, strict=True) if f.outside
    )
    findings.append(
        Finding(
            "notes: labels outside their file",
            f"{len(outside)}",
            "0",
            bool(outside),
            outside,
        )
    )
    misses = np.concatenate([f.misses for f in facts])
    miss = float(np.median(np.abs(misses)))
    findings.append(
        Finding(
            "notes: onsets against the flux, median",
            f"{1000 * miss:.1f} ms",
            f"< {1000 * ONSET_LIMIT_NOTES:.0f} ms",
            miss >= ONSET_LIMIT_NOTES,
        )
    )
    off = tuple(
        f"{c.audio.name}: {f.cents:+.0f} cents"
        for c, f in zip(clips, facts, strict=True)
        if not abs(f.cents) <= 50
    )
    share = 1 - len(off) / len(clips)
    findings.append(
        Finding(
            "notes: pitch confirmed by YIN",
            f"{100 * share:.2f} %",
            f">= {100 * PITCH_SHARE:.0f} %",
            share < PITCH_SHARE,
            off,
        )
    )
    homes = {}
    for clip in clips:
        side = clip.split.removesuffix("_timbre")
        homes.setdefault((clip.program, clip.pitch), set()).add(side)
    torn = tuple(
        f"{INSTRUMENTS[program]} {pitch}: {', '.join(sorted(sides))}"
        for (program, pitch), sides in homes.items()
        if len(sides) > 1
    )
    findings.append(
        Finding(
            "notes: pitches of an instrument in two splits",
            f"{len(torn)}",
            "0",
            bool(torn),
            torn,
        )
    )
    return findings
