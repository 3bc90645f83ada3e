"""
Datasets on disk: MusicNet's folder layout, and any folder of sound files.

MusicNet's layout, which the toy set shares::

    train_data/ID.wav        train_labels/ID.csv
    test_data/ID.wav         test_labels/ID.csv
    musicnet_metadata.csv

and, beside what the real set has, ``test_timbre_data/`` with
``test_timbre_labels/`` (the test pieces through another SoundFont) and
``unlabelled_data/``. Validation recordings lie in ``train_data/`` and are
marked in the metadata's column ``split``. A label file has the columns
``start_time,end_time,instrument,note,start_beat,end_beat,note_value``: times
are integer samples at 44.1 kHz, intervals half-open, ``instrument`` the General
MIDI program counted from 1, ``note`` a MIDI number, ``end_beat`` (despite its
name) the duration in beats, ``note_value`` a name such as 'Dotted Half'.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.files import InputError, atomic, inside
from jtm.music.audio import AUDIO_SUFFIXES

WHERE_TO_GET_MUSICNET = """\
MusicNet (Thickstun, Harchaoui and Kakade 2017; 330 recordings, 34 hours, 11 GB)
is on Zenodo, https://doi.org/10.5281/zenodo.5120004, with its licence. Fetch
musicnet.tar.gz and musicnet_metadata.csv there; nothing is downloaded by itself.
Unpack the archive and put the metadata file beside its folders, so that there are

    data/musicnet/musicnet_metadata.csv
    data/musicnet/train_data/1727.wav    data/musicnet/train_labels/1727.csv
    data/musicnet/test_data/1759.wav     data/musicnet/test_labels/1759.csv

and so on. Then check it: jtm check-data data/musicnet"""
"""What a user is told who asks for the real set."""

LABEL_COLUMNS = (
    "start_time",
    "end_time",
    "instrument",
    "note",
    "start_beat",
    "end_beat",
    "note_value",
)
"""Columns of a label file, in MusicNet's order."""

METADATA_COLUMNS = (
    "id",
    "composer",
    "composition",
    "movement",
    "ensemble",
    "source",
    "transcriber",
    "catalog_name",
    "seconds",
)
"""Columns of ``musicnet_metadata.csv``, in MusicNet's order."""

METADATA_FILE = "musicnet_metadata.csv"
"""Name of the metadata file at the root of the layout."""

SPLITS = ("train", "validation", "test", "test_timbre", "unlabelled")
"""Names of the splits, as :meth:`Dataset.split` takes them."""

LABEL_DTYPE = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("program", np.int16),
        ("pitch", np.int16),
        ("start_beat", np.float64),
        ("beats", np.float64),
        ("note_value", "U32"),
    ]
)
"""One label: a note from sample ``start`` up to, not including, sample ``end``."""

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
        Its sound file.
    labels : Path or None
        Its label file; None when it has no labels.
    split : str
        One of :data:`SPLITS`.
    metadata : mapping of str to str
        Its row of the metadata file; empty when there is none.
    """

    id: str
    audio: Path
    labels: Path | None
    split: str
    metadata: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Dataset:
    """
    The recordings of a folder.

    Parameters
    ----------
    root : Path
        The folder.
    recordings : tuple of Recording
        All its recordings, by split and id.
    """

    root: Path
    recordings: tuple

    def split(self, *names):
        """
        Give the recordings of one or more splits.

        Parameters
        ----------
        *names : str
            Any of :data:`SPLITS`.

        Returns
        -------
        tuple of Recording
            In the order of the dataset; empty where a split has none.
        """
        unknown = set(names) - set(SPLITS)
        if unknown:
            raise ValueError(f"no split named {sorted(unknown)}; there are {SPLITS}")
        return tuple(r for r in self.recordings if r.split in names)


def open_dataset(root):
    """
    Open a folder, in MusicNet's layout or with any sound files in it.

    Parameters
    ----------
    root : str or Path
        A folder in MusicNet's layout, or any folder with WAV, FLAC, OGG or MP3
        files at any depth, all of which are then unlabelled.

    Returns
    -------
    Dataset
        Its recordings.

    Raises
    ------
    InputError
        If the folder is missing or holds no sound file, its metadata file is
        malformed, or two files of MusicNet's layout have one id.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; expected MusicNet's layout or sound files"
        )
    layout = any((root / f"{folder}_data").is_dir() for folder in _FOLDERS)
    recordings = _read_layout(root) if layout else _read_folder(root)
    if not recordings:
        raise InputError(
            f"{root}: no sound file found; expected MusicNet's layout "
            f"(train_data/ID.wav ...) or files ending in {', '.join(AUDIO_SUFFIXES)}"
        )
    return Dataset(root, tuple(recordings))


def _read_folder(root):
    """Find sound files at any depth; hidden files and folders are passed over."""
    recordings = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not hidden:
            recordings.append(Recording(name.as_posix(), path, None, "unlabelled"))
    return recordings


def _read_layout(root):
    """Pair the sound files of MusicNet's folders with labels and metadata."""
    metadata = {}
    if (root / METADATA_FILE).exists():
        metadata = {row["id"]: row for row in read_metadata(root / METADATA_FILE)}
    recordings = []
    for folder in _FOLDERS:
        files = (root / f"{folder}_data").glob("*")
        seen = {}
        for audio in sorted(p for p in files if p.suffix.lower() in AUDIO_SUFFIXES):
            if audio.name.startswith("."):
                continue
            other = seen.setdefault(audio.stem, audio)
            if other != audio:
                raise InputError(
                    f"{audio}: the same id as {other.name}; expected one sound file "
                    "for each id, so rename or remove one"
                )
            row = metadata.get(audio.stem, {})
            split = folder
            if folder == "train" and row.get("split") == "validation":
                split = "validation"
            labels = inside(root / f"{folder}_labels", f"{audio.stem}.csv")
            recordings.append(
                Recording(
                    audio.stem,
                    audio,
                    labels if labels.exists() else None,
                    split,
                    MappingProxyType(row),
                )
            )
    return recordings


def read_metadata(path):
    """
    Read ``musicnet_metadata.csv``.

    Parameters
    ----------
    path : str or Path
        The file; columns beyond MusicNet's are kept.

    Returns
    -------
    list of dict
        One mapping of column to text for each recording.

    Raises
    ------
    InputError
        If the file cannot be read, lacks the column ``id`` or repeats an id.
    """
    rows = []
    seen = set()
    for line, row in read_table(path, ("id",)):
        if row["id"] in seen:
            raise InputError(f"{path}, line {line}: id {row['id']} stands twice")
        seen.add(row["id"])
        rows.append(row)
    return rows


def write_metadata(path, rows):
    """
    Write ``musicnet_metadata.csv``, at once or not at all.

    Parameters
    ----------
    path : str or Path
        The file to write.
    rows : list of dict
        One mapping for each recording; MusicNet's columns come first, all
        others after them in the order of the first row.
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
        A CSV file in MusicNet's columns, in any order; others are passed over.

    Returns
    -------
    numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`, by start, then pitch; times
        in samples at 44.1 kHz.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, or a line holds a value
        that is not what its column expects.
    """
    labels = []
    for line, row in read_table(path, LABEL_COLUMNS):
        try:
            label = (
                int(row["start_time"]),
                int(row["end_time"]),
                int(row["instrument"]),
                int(row["note"]),
                float(row["start_beat"]),
                float(row["end_beat"]),
                row["note_value"],
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, line {line}: {error}; expected whole numbers in start_time, "
                "end_time, instrument and note, numbers in start_beat and end_beat"
            ) from error
        start, end, program, pitch = label[:4]
        if not 0 <= pitch <= 127:
            raise InputError(
                f"{path}, line {line}: note {pitch}; expected a MIDI number in 0..127"
            )
        if not 1 <= program <= 128:
            raise InputError(
                f"{path}, line {line}: instrument {program}; "
                "expected a General MIDI program in 1..128"
            )
        if not 0 <= start < end:
            raise InputError(
                f"{path}, line {line}: note from sample {start} to {end}; "
                "expected 0 <= start_time < end_time"
            )
        labels.append(label)
    return np.sort(
        np.array(labels, dtype=LABEL_DTYPE), order=("start", "pitch", "program", "end")
    )


def write_labels(path, labels):
    """
    Write one label file in MusicNet's columns, at once or not at all.

    Parameters
    ----------
    path : str or Path
        The CSV file to write.
    labels : numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`.
    """
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LABEL_COLUMNS)
        writer.writerows(labels.tolist())


def labels_of(score, note_values):
    """
    Turn a score into labels.

    Parameters
    ----------
    score : Score
        The notes as they are played.
    note_values : callable
        Gives the name of a notated duration in beats.

    Returns
    -------
    numpy.ndarray
        Labels ``(notes,)`` of :data:`LABEL_DTYPE`.
    """
    rows = [
        (
            round(note.start * LABEL_RATE),
            round(note.end * LABEL_RATE),
            note.program,
            note.pitch,
            note.start_beat,
            note.beats,
            note_values(note.beats),
        )
        for note in score.notes
    ]
    return np.array(rows, dtype=LABEL_DTYPE)


def read_table(path, required):
    """
    Read a CSV file with a heading.

    Parameters
    ----------
    path : str or Path
        The file, in UTF-8.
    required : sequence of str
        Columns that must be there, in any order among others.

    Yields
    ------
    line : int
        Number of the line in the file.
    row : dict of str to str
        Its values by column.

    Raises
    ------
    InputError
        If the file cannot be read as such or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")  # a short row's cells are empty
            missing = [c for c in required if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}, line 1: column {', '.join(missing)} is missing; "
                    f"expected {', '.join(required)}"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
