"""
Verify a dataset on disk: labels against files, each other and the audio.

Any folder in MusicNet's layout can be checked. A rendered set (its metadata names
a SoundFont) has labels that are exact by construction, and is checked strictly.
For human performances the same findings are reported, but only those that make
the data unusable count as violations: MusicNet itself has unisons of two violins,
clipped samples and, by its authors' estimate, some 4 % of wrong labels.

Onsets are detected with the spectral flux: the rises of log-magnitude, summed over
frequency, in windows of 256 samples with a hop of 64. For a single note, the onset is
where the flux first reaches a tenth of its maximum, since slow attacks (cello, flute)
keep rising for long. For a piece, the flux is averaged over the 100 ms on either side
of all labelled onsets, and should rise through half of its height at lag zero.
Pitch is estimated by YIN (de Cheveigne and Kawahara 2002), independently of the
labels. For a piece, the labelled pitches are correlated over time with the level of
each semitone; with the labels of another piece, the correlation is about zero.
"""

import hashlib
import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from jtm.constants import INSTRUMENTS, LABEL_RATE, N_PITCHES, PITCH_MIN, PITCH_RANGES
from jtm.data.batch import ordered_map
from jtm.data.clips import CLIPS_FILE, read_clips
from jtm.data.musicnet import METADATA_FILE, labels_of, open_dataset, read_labels
from jtm.data.rolls import played
from jtm.data.splits import SIDES
from jtm.files import InputWarning, describe
from jtm.music import audio, midi

ONSET_LIMIT_NOTES = 0.010  # maximum median onset error of single notes in seconds
ONSET_LIMIT_PIECES = 0.020  # and of pieces; chance level is about 0.05
PITCH_SHARE = 0.99  # minimum share of single notes within 50 cents of YIN
FLUX_HOP = 64  # hop of the spectral flux in samples at 44.1 kHz
EXCERPT = 30.0  # seconds of a piece in which labels are compared with audio
SILENCE = 10 ** (-60 / 20)  # peak amplitude below which a file counts as silent
OVERHANG = 0.1  # seconds by which an offset may exceed a file's end (cut tails)

# Minimum correlation of a piece's labels with its audio. In the toy sets it is 0.22 or
# more, and 0.14 or less with another piece's labels or labels a semitone off, in pieces
# of 8 s. Human performances are long, noisy and labelled less exactly.
CONFIRMED = 0.15
CONFIRMED_LIVE = 0.1


@dataclass(frozen=True)
class _Finding:
    """Result of one check, with a line in `where` for each file concerned."""

    what: str
    found: str
    expected: str = ""
    violated: bool = False
    where: tuple = ()


@dataclass(frozen=True)
class Report:
    """
    Results of all checks of a dataset.

    Parameters
    ----------
    root : Path
        Path to the dataset's folder.
    findings : tuple of Finding
        One for each check.
    """

    root: Path
    findings: tuple

    @property
    def failed(self):
        """Whether any check was violated."""
        return any(finding.violated for finding in self.findings)

    def table(self, limit=10):
        """
        Format all findings as a table.

        Parameters
        ----------
        limit : int or None
            Maximum number of files listed for each check; None lists all.

        Returns
        -------
        str
            A line for each check and file, and the verdict.
        """
        rows = [("check", "found", "expected", "", ())]
        rows += [
            (f.what, f.found, f.expected, "VIOLATED" if f.violated else "ok", f.where)
            for f in self.findings
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [str(self.root)]
        for *cells, where in rows:
            lines.append("  ".join(map(str.ljust, cells, widths)).rstrip())
            lines += [f"    {line}" for line in where[:limit]]
            if more := len(where) - len(where[:limit]):
                lines.append(f"    and {more} more (--all names them)")
        verdict = "violations were found" if self.failed else "no violation"
        return "\n".join((*lines, verdict))


def check(root, progress=True, processes=None):
    """
    Check a dataset on all cores.

    Parameters
    ----------
    root : str or Path
        Path to a folder in MusicNet's layout, or to any folder of audio files.
    progress : bool
        Whether to show progress bars.
    processes : int, optional
        Number of processes; one per core by default, 1 for the current process only.

    Returns
    -------
    Report
        The findings; ``failed`` is true if there are violations.

    Raises
    ------
    InputError
        If there is nothing to check.
    """
    with warnings.catch_warnings(action="ignore", category=InputWarning):
        dataset = open_dataset(root)  # warnings are reported as findings
    clips = read_clips(root) if (dataset.root / CLIPS_FILE).exists() else ()
    with ordered_map(processes or os.cpu_count()) as spread:

        def measure(function, items, what):
            disable = not progress or not items
            return list(
                tqdm(spread(function, items), what, len(items), disable=disable)
            )

        facts = measure(_measure_recording, dataset.recordings, "pieces")
        clip_facts = measure(_measure_clip, clips, "notes")
    exact = any(r.metadata.get("soundfont") for r in dataset.recordings)
    findings = _recording_findings(dataset, facts, exact)
    if clips:
        findings += _clip_findings(clips, clip_facts)
    return Report(dataset.root, tuple(findings))


@dataclass
class _Facts:
    """Measurements of one file by a worker."""

    problems: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    digest: str = ""
    seconds: float = 0.0
    peak: float = 1.0
    clipped: bool = False
    labels: int = 0
    outside: int = 0
    duplicates: int = 0
    unknown: int = 0
    onset_errors: np.ndarray = field(default_factory=lambda: np.zeros(0))  # seconds
    cents: float = 0.0
    match: float = np.nan  # correlation of labels and audio


def _read_beginning(path, facts, seconds=EXCERPT):
    """Read a file in chunks, record measurements, and return its beginning."""
    content, n_samples, beginning, before = hashlib.sha256(), 0, [], np.zeros(0, bool)
    facts.peak = 0.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            for block in audio.blocks(path, LABEL_RATE):
                content.update(block.tobytes())
                if n_samples < seconds * LABEL_RATE:
                    beginning.append(block)
                n_samples += len(block)
                level = np.abs(block)
                facts.peak = max(facts.peak, float(level.max()))
                full = np.concatenate((before, level >= 32767 / 32768))
                facts.clipped |= bool((full[2:] & full[1:-1] & full[:-2]).any())
                before = full[-2:]
        except Exception as error:  # libraries raise anything on a damaged file
            facts.problems.append(describe(error, path))
            facts.peak = 1.0  # unknown
            return None
    facts.warnings += [str(each.message) for each in caught]
    facts.seconds = n_samples / LABEL_RATE
    facts.digest = content.hexdigest()
    return np.concatenate(beginning)[: round(seconds * LABEL_RATE)]


def _measure_recording(recording):
    facts = _Facts()
    wave = _read_beginning(recording.audio, facts)
    if recording.labels is None or wave is None:
        return facts
    performance = recording.audio.parents[1] / "midi" / f"{recording.id}.mid"
    try:
        labels = read_labels(recording.labels)
        score = midi.read(performance) if performance.exists() else None
    except Exception as error:
        facts.problems.append(describe(error, recording.labels))
        return facts
    facts.labels = len(labels)
    ends = labels["end"] / LABEL_RATE
    starts = labels["start"] / LABEL_RATE
    outside = (starts >= facts.seconds) | (ends > facts.seconds + OVERHANG)
    facts.outside = int(outside.sum())
    facts.duplicates = _count_overlaps(labels)
    facts.unknown = int(np.sum(~np.isin(labels["program"], list(INSTRUMENTS))))
    facts.onset_errors = _onset_delay(wave, starts)
    facts.match = _label_match(wave, labels)
    if score is not None and not _same_notes(labels, score):
        facts.problems.append(f"{performance}: notes differ from {recording.labels}")
    return facts


def coverage(recordings):
    """
    Count how often each instrument plays each pitch.

    Parameters
    ----------
    recordings : sequence of Recording
        Recordings; those without labels are ignored.

    Returns
    -------
    counts : numpy.ndarray
        Number of labels ``(11, 88)``, in the order of
        :data:`jtm.constants.INSTRUMENTS`, and by pitch from MIDI 21.
    playable : numpy.ndarray
        Booleans ``(11, 88)``: whether the instrument can play the pitch.
    """
    counts = np.zeros((len(INSTRUMENTS), N_PITCHES), dtype=np.int64)
    for recording in recordings:
        if recording.labels is not None:
            labels, row = played(read_labels(recording.labels))
            column = labels["pitch"] - PITCH_MIN
            inside = (column >= 0) & (column < N_PITCHES)
            np.add.at(counts, (row[inside], column[inside]), 1)
    ranges = np.array([PITCH_RANGES[program] for program in INSTRUMENTS]) - PITCH_MIN
    pitches = np.arange(N_PITCHES)
    return counts, (ranges[:, :1] <= pitches) & (pitches <= ranges[:, 1:])


def _count_overlaps(labels):
    """Count labels that begin while the same instrument and pitch are active."""
    count, until = 0, {}  # by instrument and pitch, end of the activity so far
    rows = labels[["start", "end", "program", "pitch"]].tolist()
    for start, end, *key in sorted(rows):
        before = until.get(tuple(key), 0)
        count += start < before
        until[tuple(key)] = max(end, before)
    return count


def _same_notes(labels, score):
    """Return whether labels and a score have the same notes, to the sample."""
    columns = ["program", "pitch", "start", "end"]
    played_notes = labels_of(score)
    return sorted(labels[columns].tolist()) == sorted(played_notes[columns].tolist())


def _magnitudes(wave, n_fft, hop):
    """Compute a spectrogram ``(bins, frames)``, also of less audio than a window."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        return np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop))


def _flux(wave):
    """Compute the spectral flux from sample FLUX_HOP * i to the next, ``(frames,)``."""
    spectrum = _magnitudes(wave, 256, FLUX_HOP)
    level = np.log1p(100 * spectrum / max(float(spectrum.max()), 1e-9))
    return np.maximum(np.diff(level, axis=1), 0).sum(axis=0)


def _label_match(wave, labels):
    """Correlate labels with the audio over time and pitch; NaN below ten notes."""
    hop, low, high = 4096, 36, 97  # samples, and semitones that these resolve
    spectrum = _magnitudes(wave, 2 * hop, hop)
    hertz = librosa.fft_frequencies(sr=LABEL_RATE, n_fft=2 * hop)[1:]
    first = np.searchsorted(hertz, librosa.midi_to_hz(np.arange(low, high + 1) - 0.5))
    level = np.maximum.reduceat(spectrum[1:], first, axis=0)[:-1]
    level = np.log1p(100 * level / max(float(level.max()), 1e-9))
    # A tone leaks into the adjacent semitones, where it is not a peak.
    level[1:-1] = np.maximum(0, 2 * level[1:-1] - level[:-2] - level[2:])
    inside = (labels["start"] < len(wave)) & (low <= labels["pitch"])
    labels = labels[inside & (labels["pitch"] < high)]
    if len(labels) < 10:
        return np.nan
    roll = np.zeros_like(level)
    for start, end, pitch in labels[["start", "end", "pitch"]].tolist():
        first = -(-start // hop)
        roll[pitch - low, first : max(first + 1, -(-end // hop))] = 1
    level -= level.mean(axis=1, keepdims=True)  # so that a shared key does not count
    roll -= roll.mean(axis=1, keepdims=True)
    size = np.sqrt((level**2).sum() * (roll**2).sum())
    return float((level * roll).sum() / size) if size else np.nan


def _onset_delay(wave, starts):
    """Compute the delay in seconds of the mean flux around the labelled onsets."""
    rises = _flux(wave)
    onsets = np.unique(np.round(starts * LABEL_RATE / FLUX_HOP).astype(int))
    span = int(0.1 * LABEL_RATE / FLUX_HOP)
    onsets = onsets[(onsets >= span) & (onsets < len(rises) - span)]
    if len(onsets) < 10:
        return np.zeros(0)
    mean = rises[onsets[:, None] + np.arange(-span, span + 1)].mean(axis=0)
    half = (np.median(mean) + mean.max()) / 2
    return np.array([(np.argmax(mean > half) - span) * FLUX_HOP / LABEL_RATE])


def _measure_clip(clip):
    facts = _Facts()
    wave = _read_beginning(clip.audio, facts)
    if wave is None:
        return facts
    facts.outside = int(clip.end > facts.seconds * LABEL_RATE)
    rises = _flux(wave)
    if not rises.size:
        facts.problems.append(f"{clip.audio}: {len(wave)} samples; expected a note")
        return facts
    first = int(np.argmax(rises > 0.1 * rises.max())) + 1
    facts.onset_errors = np.array([first * FLUX_HOP - clip.start]) / LABEL_RATE
    hertz = librosa.yin(
        wave[clip.start : clip.end],
        fmin=24,
        fmax=5000,
        sr=LABEL_RATE,
        frame_length=4096,
        hop_length=1024,
        trough_threshold=0.07,  # at 0.1, an oboe's loud octave is taken for the pitch
    )
    facts.cents = 100 * float(librosa.hz_to_midi(np.median(hertz)) - clip.pitch)
    return facts


def _listed(what, where, strict=True, found=None):
    """Create a finding that lists files; none are expected if `strict`."""
    where = tuple(where)
    found = len(where) if found is None else found
    violated = strict and bool(where)
    return _Finding(what, f"{found}", "0" if strict else "", violated, where)


def _onset_finding(errors, limit, strict=True):
    """Create a finding from the differences between onsets and flux in seconds."""
    median = float(np.median(np.abs(errors))) if errors.size else 0.0
    return _Finding(
        "onsets against the flux, median",
        f"{1000 * median:.1f} ms",
        f"< {1000 * limit:.0f} ms" if strict else "",
        strict and median >= limit,
    )


def _audio_findings(paths, facts, exact):
    """Check properties of all audio files, labelled or not."""
    pairs = list(zip(paths, facts, strict=True))
    by_digest, identical = {}, []
    for path, fact in pairs:
        if fact.digest and by_digest.setdefault(fact.digest, path) != path:
            identical.append(f"{path} = {by_digest[fact.digest]}")
    hours = sum(f.seconds for f in facts) / 3600
    warned = [w for f in facts for w in f.warnings]
    peaks = 20 * np.log10(np.maximum([f.peak for f in facts], 1e-9))
    return [
        _Finding("files", f"{len(paths)}, {hours:.2f} h"),
        _listed("readable and consistent", [p for f in facts for p in f.problems]),
        _listed("cut off, or of odd level", warned, exact),
        _listed("silent files", [str(p) for p, f in pairs if f.peak < SILENCE]),
        _listed("clipped files", [str(p) for p, f in pairs if f.clipped], exact),
        _Finding("peak level", f"{peaks.min():.1f} to {peaks.max():.1f} dB"),
        _listed("identical files", identical),
    ]


def _recording_findings(dataset, facts, exact):
    """Evaluate the measurements of the recordings of a dataset."""
    recordings = dataset.recordings
    findings = _audio_findings([r.audio for r in recordings], facts, exact)
    skipped = [f"{path}: {reason}" for path, reason in dataset.skipped]
    findings.append(_listed("files skipped", skipped, False))
    findings += _metadata_findings(dataset, facts)
    labelled = [(r, f) for r, f in zip(recordings, facts, strict=True) if f.labels]
    due = [r for r in recordings if r.split != "unlabelled"]
    if bare := [str(r.audio) for r in due if r.labels is None]:
        findings.append(_listed("files without labels", bare, False))
    pairs = [(r.labels, f) for r, f in zip(recordings, facts, strict=True) if r.labels]
    if empty := [str(p) for p, f in pairs if not (f.labels or f.problems)]:
        none = len(empty) == len(pairs)
        findings.append(_listed("label files without notes", empty, none))
    return findings + (_label_findings(labelled, exact) if labelled else [])


def _label_findings(labelled, exact):
    """Check labels against their files and against the audio."""
    findings = [_Finding("labels", f"{sum(f.labels for _, f in labelled)}")]
    for what, name, strict in (
        ("labels outside their file", "outside", True),
        ("labels overlapping their own pitch", "duplicates", exact),
        ("labels of other instruments", "unknown", False),
    ):
        counts = [(r.labels, getattr(f, name)) for r, f in labelled]
        total = sum(n for _, n in counts)
        where = [f"{path}: {n}" for path, n in counts if n and strict]
        findings.append(_listed(what, where, strict, total))
    errors = np.abs(np.concatenate([f.onset_errors for _, f in labelled]))
    far = np.mean(errors > 2 * ONSET_LIMIT_PIECES) if errors.size else 0.0
    minimum = CONFIRMED if exact else CONFIRMED_LIVE
    mismatched = [
        f"{r.labels}: correlation {f.match:.2f} with {r.audio.name}, expected "
        f"at least {minimum}; likely another recording's labels"
        for r, f in labelled
        if f.match < minimum
    ]
    counts, playable = coverage([r for r, _ in labelled if r.split == "train"])
    return [
        *findings,
        _onset_finding(errors, ONSET_LIMIT_PIECES, exact),
        _Finding("pieces more than 40 ms off", f"{100 * far:.1f} %"),
        _listed("labels unlike the audio", mismatched),
        _Finding(
            "playable pitch x instrument in train",
            f"{np.count_nonzero(counts[playable])} of {playable.sum()}",
        ),
    ]


def _metadata_findings(dataset, facts):
    """Check against the metadata: ids, durations, and tunes in two splits."""
    wrong, bare, homes = [], [], {}
    for recording, fact in zip(dataset.recordings, facts, strict=True):
        row = recording.metadata
        if not row and recording.split != "unlabelled":
            bare.append(str(recording.audio))
        try:
            stated = float(row.get("seconds") or fact.seconds)
        except ValueError:
            stated = np.inf
        if abs(stated - fact.seconds) > 2:
            wrong.append(f"{recording.audio}: {fact.seconds:.1f} s, not {stated} s")
        if row.get("tune_family"):
            side = SIDES.get(recording.split, recording.split)
            homes.setdefault(row["tune_family"], set()).add(side)
    findings = [_listed("lengths unlike the metadata", wrong, False)]
    if (dataset.root / METADATA_FILE).exists():
        none = not any(recording.metadata for recording in dataset.recordings)
        rows = [f"{METADATA_FILE}: id {each!r}" for each in dataset.unmatched_rows]
        findings.append(_listed("recordings without metadata", bare, none))
        findings.append(_listed("metadata without a recording", rows, none))
    if homes:
        findings.append(_split_finding("tune families in two splits", homes))
    return findings


def _split_finding(what, homes):
    """Create a finding that lists what is in more than one split."""
    where = [
        f"{name}: {', '.join(sorted(sides))}"
        for name, sides in homes.items()
        if len(sides) > 1
    ]
    return _listed(what, where, found=f"{len(where)} of {len(homes)}")


def _clip_findings(clips, facts):
    """Evaluate the measurements of the single notes."""
    pairs = list(zip(clips, facts, strict=True))
    errors = np.concatenate([f.onset_errors for f in facts])
    off = tuple(
        f"{c.audio.name}: {f.cents:+.0f} cents"
        for c, f in pairs
        if not abs(f.cents) <= 50
    )
    share = 1 - len(off) / len(clips)
    homes = {}
    for clip in clips:
        name = f"{INSTRUMENTS[clip.program]} {clip.pitch}"
        homes.setdefault(name, set()).add(clip.split.removesuffix("_timbre"))
    findings = [
        *_audio_findings([clip.audio for clip in clips], facts, True),
        _listed(
            "labels outside their file", [str(c.audio) for c, f in pairs if f.outside]
        ),
        _onset_finding(errors, ONSET_LIMIT_NOTES),
        _Finding(
            "pitch confirmed by YIN",
            f"{100 * share:.2f} %",
            f">= {100 * PITCH_SHARE:.0f} %",
            share < PITCH_SHARE,
            off,
        ),
        _split_finding("pitches of an instrument in two splits", homes),
    ]
    return [replace(f, what=f"notes: {f.what}") for f in findings]
