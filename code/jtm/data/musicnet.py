"""
Datasets on disk: MusicNet's folder layout, or any folder of audio files.

MusicNet's layout, which the toy set shares::

    train_data/ID.wav        train_labels/ID.csv
    test_data/ID.wav         test_labels/ID.csv
    musicnet_metadata.csv

and, in addition to MusicNet's folders, ``test_timbre_data/`` with
``test_timbre_labels/`` (the test pieces rendered with another SoundFont) and
``unlabelled_data/``. Validation recordings are in ``train_data/`` and are
marked in the metadata's column ``split``. A label file has the columns
``start_time,end_time,instrument,note,start_beat,end_beat,note_value``: times
are integer samples at 44.1 kHz, intervals are half-open, ``instrument`` the General
MIDI program counted from 1, ``note`` a MIDI number, ``end_beat`` (despite its
name) the duration in beats, ``note_value`` a name such as 'Dotted Half'.
"""

import csv
import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.data.store import STORE_FOLDER
from jtm.files import PART, InputError, atomic, warn
from jtm.music.containers import AUDIO_SUFFIXES

WHERE_TO_GET_MUSICNET = """\
MusicNet (Thickstun, Harchaoui and Kakade 2017; 330 recordings, 34 hours, 11 GB)
is on Zenodo, https://doi.org/10.5281/zenodo.5120004, with its licence. Fetch
musicnet.tar.gz and musicnet_metadata.csv there; nothing is downloaded by itself.
Unpack the archive and put the metadata file next to its folders, so that there are

    data/musicnet/musicnet_metadata.csv
    data/musicnet/train_data/1727.wav    data/musicnet/train_labels/1727.csv
    data/musicnet/test_data/1759.wav     data/musicnet/test_labels/1759.csv

and so on. Then check it: jtm check-data data/musicnet"""
"""Instructions for obtaining MusicNet."""

# Columns of the tables, in MusicNet's order.
LABEL_COLUMNS = tuple(
    "start_time end_time instrument note start_beat end_beat note_value".split()
)
METADATA_COLUMNS = tuple(
    "id composer composition movement ensemble source transcriber catalog_name "
    "seconds".split()
)

# Names at the root of the layout; single notes have a table and a folder.
METADATA_FILE = "musicnet_metadata.csv"
CLIPS_FILE = "notes.csv"
CLIPS_FOLDER = "notes"

TIMBRE_SOUNDFONT = "timbre_soundfont"
"""Metadata column of a test recording: SoundFont of its copy in ``test_timbre``."""

SPLITS = ("train", "validation", "test", "test_timbre", "unlabelled")
"""Names of the splits for :meth:`Dataset.split`."""

LABEL_DTYPE = np.dtype(
    [("start", "i8"), ("end", "i8"), ("program", "i2"), ("pitch", "i2")]
    + [("start_beat", "f8"), ("beats", "f8"), ("note_value", "U32")]
)
"""One label: a note from sample ``start`` to ``end`` (exclusive)."""

OPENED = {}
"""Folders in which nothing was skipped, and the summary to print at the end."""

_JUNK = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", ".git", STORE_FOLDER}
_GENERATED = "toy.json", "pairs.json"  # how `toy/` made a set
_SEPARATORS = {";": "semicolons", "\t": "tabs"}  # other than commas
_FOLDERS = ("train", "test", "test_timbre", "unlabelled")


@dataclass(frozen=True)
class Recording:
    """
    One recording of a dataset.

    Parameters
    ----------
    id : str
        Name of the recording, unique in its split.
    audio : Path
        Path to its audio file.
    labels : Path or None
        Path to its label file; None if it has none.
    split : str
        One of :data:`SPLITS`.
    metadata : dict of str to str
        Its row of the metadata file; empty if it has none.
    """

    id: str
    audio: Path
    labels: Path | None
    split: str
    metadata: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """
    The recordings of a folder.

    Parameters
    ----------
    root : Path
        The folder.
    recordings : tuple of Recording
        All its recordings, sorted by split and id.
    skipped : tuple of tuple
        Skipped files and folders: path and reason.
    unmatched_rows : tuple of str
        Ids in the metadata without a recording.
    """

    root: Path
    recordings: tuple
    skipped: tuple = ()
    unmatched_rows: tuple = ()

    def split(self, *names):
        """
        Return the recordings of one or more splits.

        Parameters
        ----------
        *names : str
            Any of :data:`SPLITS`.

        Returns
        -------
        tuple of Recording
            In the order of the dataset; empty if there are none.
        """
        unknown = set(names) - set(SPLITS)
        if unknown:
            raise ValueError(f"no split named {sorted(unknown)}; there are {SPLITS}")
        return tuple(r for r in self.recordings if r.split in names)


def open_dataset(root, layout=True):
    """
    Open a folder in MusicNet's layout, or any folder of audio files.

    Parameters
    ----------
    root : str or Path
        Path to a folder in MusicNet's layout, or to any folder; the latter is searched
        recursively, and all recordings are unlabelled.
    layout : bool
        Whether to look for MusicNet's layout; otherwise any folder is searched.

    Returns
    -------
    Dataset
        Its recordings.

    Raises
    ------
    InputError
        If the folder is missing or contains no audio file, its metadata file is
        malformed, or missing from a toy set, or two files of MusicNet's layout share
        an id.

    Warns
    -----
    InputWarning
        If files are skipped, or recordings and metadata rows do not match.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"{root}: {'is a file' if root.exists() else 'no such folder'}; expected a "
            "folder in MusicNet's layout or of audio files"
        )
    if layout and any((root / f"{folder}_data").is_dir() for folder in _FOLDERS):
        made = any((root / name).exists() for name in _GENERATED)
        if made and not (root / METADATA_FILE).exists():  # written last
            raise InputError(
                f"{root}: not a finished toy set, so its splits are unknown; run the "
                "command that generates it again"
            )
        dataset = _read_layout(root)
    else:
        files, skipped = find_files(root)
        recordings = (
            Recording(path.relative_to(root).as_posix(), path, None, "unlabelled")
            for path in files
        )
        dataset = Dataset(root, tuple(recordings), tuple(skipped))
    summary = _summarise(len(dataset.recordings), dataset.skipped)
    if not dataset.recordings:
        expected = "MusicNet's layout (train_data/ID.wav ...) or " * layout
        raise InputError(
            f"{root}: no audio file found; expected {expected}files ending in "
            f"{', '.join(AUDIO_SUFFIXES)} ({summary})"
        )
    if dataset.skipped:
        warn(f"{root}: {summary}")
    else:
        OPENED[str(root)] = summary
    return dataset


def find_files(root, suffixes=AUDIO_SUFFIXES, deep=True):
    """
    Find the files of a type in a folder, and list skipped files with the reason.

    Links are followed, but no file or folder is listed twice. Files that operating
    systems leave behind, such as ``._song.wav``, are ignored.

    Parameters
    ----------
    root : str or Path
        The folder.
    suffixes : sequence of str
        File extensions, in lower case; by default those of audio files.
    deep : bool
        Whether to search recursively.

    Returns
    -------
    files : list of Path
        The files, sorted.
    skipped : list of tuple
        Skipped paths and the reason for each.
    """
    files, skipped, seen = [], [], {}
    folders, linked = deque([Path(root)]), deque()  # link targets take precedence
    while folders or linked:
        folder = (folders or linked).popleft()
        other = seen.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            skipped.append((folder, "linked folders found already"))
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((folder, f"folders with an error ({error.strerror})"))
            continue
        for entry in entries:
            path = folder / entry.name
            is_junk = entry.name in _JUNK or entry.name.startswith(("._", ".Trash"))
            if is_junk or PART.fullmatch(entry.name):  # or an interrupted write
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # such as a link to itself
                skipped.append((path, f"links with an error ({error.strerror})"))
                continue
            if is_folder:
                if deep:
                    (linked if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in suffixes:
                if deep and not entry.is_file():
                    skipped.append((path, "broken links"))
                else:
                    files.append(path)
    unique = []
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        if seen.setdefault(os.path.realpath(path), path) == path:
            unique.append(path)
        else:
            skipped.append((path, "linked files found already"))
    return sorted(unique), skipped


def _summarise(n_found, skipped):
    """Summarise, as in '3 found, 1 skipped: broken links (1)'."""
    reasons = Counter(reason for _, reason in skipped)
    reasons = "; ".join(f"{reason} ({n})" for reason, n in reasons.items())
    return f"{n_found} found, {len(skipped)} skipped" + (reasons and f": {reasons}")


def _read_layout(root):
    """Match the audio files of MusicNet's folders with labels and metadata."""
    metadata = {}
    if (root / METADATA_FILE).exists():
        metadata = {row["id"]: row for row in read_metadata(root / METADATA_FILE)}
    recordings, skipped, used = [], [], set()
    for folder in _FOLDERS:
        if not (root / f"{folder}_data").is_dir():
            continue
        files, skipped_here = find_files(root / f"{folder}_data", deep=False)
        skipped += skipped_here
        by_id = {}
        for audio in files:
            other = by_id.setdefault(audio.stem, audio)
            if other != audio:
                raise InputError(
                    f"{audio}: the same id as {other.name}; expected one audio file "
                    "for each id, so rename or remove one"
                )
            row = metadata.get(audio.stem, {})
            if row and folder == "test_timbre":  # same row as its copy in test
                soundfont = row.get(TIMBRE_SOUNDFONT, "")
                row = {**row, "split": folder, "soundfont": soundfont}
            held_out = folder == "train" and row.get("split") == "validation"
            split = "validation" if held_out else folder
            labels = root / f"{folder}_labels" / f"{audio.stem}.csv"  # may be a link
            labels = labels if labels.exists() else None
            used.add(labels)
            recordings.append(Recording(audio.stem, audio, labels, split, row))
        tables = find_files(root / f"{folder}_labels", (".csv",), deep=False)[0]
        reason = "label files that no audio file is named like"
        skipped += [(path, reason) for path in tables if path not in used]
    known = {recording.audio for recording in recordings}
    single_notes = root / CLIPS_FOLDER if (root / CLIPS_FILE).exists() else None
    others = [path for path in find_files(root)[0] if path not in known]
    others = [path for path in others if single_notes not in path.parents]
    linked = {os.path.realpath(path) for path in known} if others else ()
    for path in others:
        if os.path.realpath(path) not in linked:
            skipped.append((path, "audio files outside MusicNet's folders"))
    ids = {recording.id for recording in recordings}
    unmatched = tuple(id for id in metadata if id not in ids)
    bare = [r.id for r in recordings if not r.metadata and r.split != "unlabelled"]
    if unmatched and bare:
        warn(
            f"{root / METADATA_FILE}: {len(unmatched)} of {len(metadata)} rows, such "
            f"as id {unmatched[0]!r}, match no recording, and {len(bare)} recordings, "
            f"such as {bare[0]!r}, have no row; expected the stem of a file as its id"
        )
    return Dataset(root, tuple(recordings), tuple(skipped), unmatched)


def read_metadata(path):
    """
    Read ``musicnet_metadata.csv``.

    Parameters
    ----------
    path : str or Path
        Path to the file; columns beyond MusicNet's are kept.

    Returns
    -------
    list of dict
        One dict from column to text for each recording.

    Raises
    ------
    InputError
        If the file cannot be read, lacks the column ``id`` or repeats an id.
    """
    rows = {}
    for where, row in read_table(path, ("id",)):
        row["id"] = row["id"].strip()
        if rows.setdefault(row["id"], row) is not row:
            raise InputError(f"{where}: id {row['id']} is repeated")
    return list(rows.values())


def write_metadata(path, rows):
    """
    Write ``musicnet_metadata.csv`` atomically.

    Parameters
    ----------
    path : str or Path
        The file to write.
    rows : list of dict
        One dict for each recording; MusicNet's columns come first, then all others
        in the order of the first row.
    """
    extra = [name for name in rows[0] if name not in METADATA_COLUMNS]
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*METADATA_COLUMNS, *extra), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_labels(path):
    """
    Read one label file.

    Parameters
    ----------
    path : str or Path
        Path to a CSV file with MusicNet's columns in any order; others are ignored.

    Returns
    -------
    numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`, sorted by start, then pitch;
        times in samples at 44.1 kHz.

    Raises
    ------
    InputError
        If the file cannot be read or lacks a column, or one holds an invalid value.
    """
    labels = []
    for where, row in read_table(path, LABEL_COLUMNS):
        try:
            start, end = int(row["start_time"]), int(row["end_time"])
            program, pitch = int(row["instrument"]), int(row["note"])
            beats = float(row["start_beat"]), float(row["end_beat"])
        except ValueError as error:
            raise InputError(
                f"{where}: {error}; expected whole numbers in start_time, end_time, "
                "instrument and note, numbers in start_beat and end_beat"
            ) from error
        if not 0 <= pitch <= 127:
            raise InputError(f"{where}: note {pitch}; expected a MIDI number in 0..127")
        if not 1 <= program <= 128:
            raise InputError(
                f"{where}: instrument {program}; "
                "expected a General MIDI program in 1..128"
            )
        if not 0 <= start < end < 2**53:  # exact as a float
            raise InputError(
                f"{where}: note from sample {start} to {end}; "
                "expected 0 <= start_time < end_time < 2^53"
            )
        labels.append((start, end, program, pitch, *beats, row["note_value"]))
    return np.sort(
        np.array(labels, dtype=LABEL_DTYPE), order=("start", "pitch", "program", "end")
    )


def write_labels(path, labels):
    """
    Write one label file with MusicNet's columns, atomically.

    Parameters
    ----------
    path : str or Path
        Path to the CSV file to write.
    labels : numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`.
    """
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LABEL_COLUMNS)
        writer.writerows(labels.tolist())


def labels_of(score, note_values=lambda beats: "Unknown"):
    """
    Convert a score to labels.

    Parameters
    ----------
    score : Score
        The notes as performed.
    note_values : callable
        Returns the name of a notated duration in beats.

    Returns
    -------
    numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`.
    """
    rows = []
    for note in score.notes:
        times = round(note.start * LABEL_RATE), round(note.end * LABEL_RATE)
        beats = note.start_beat, note.beats, note_values(note.beats)
        rows.append((*times, note.program, note.pitch, *beats))
    return np.array(rows, dtype=LABEL_DTYPE)


def read_table(path, required):
    """
    Read a CSV file with a header row; empty rows, as of spreadsheets, are skipped.

    Parameters
    ----------
    path : str or Path
        Path to the file, in UTF-8.
    required : sequence of str
        Columns that must be present, in any order.

    Yields
    ------
    where : str
        File and line number, for messages.
    row : dict of str to str
        Values of the line by column.

    Raises
    ------
    InputError
        If the file cannot be read as CSV, lacks a column, or a row has too many cells.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")  # a short row's cells are empty
            names = reader.fieldnames or ()
            missing = [name for name in required if name not in names]
            for mark, plural in _SEPARATORS.items() if missing else ():
                if len(names) == 1 and mark in names[0]:
                    raise InputError(
                        f"{path}, line 1: separated by {plural}; expected commas"
                    )
            if missing:
                raise InputError(
                    f"{path}, line 1: column {', '.join(missing)} is missing; "
                    f"expected {', '.join(required)}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if any(row.pop(None, ())):
                    raise InputError(
                        f"{where}: more cells than columns; quote values with commas"
                    )
                if any(map(str.strip, row.values())):
                    yield where, row
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
