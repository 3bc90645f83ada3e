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
import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.data.store import STORE_FOLDER
from jtm.files import InputError, atomic, inside, warn
from jtm.music.audio import AUDIO_SUFFIXES, FOREIGN_SUFFIXES, NOT_READ

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

LABEL_COLUMNS = tuple(
    "start_time end_time instrument note start_beat end_beat note_value".split()
)
"""Columns of a label file, in MusicNet's order."""

METADATA_COLUMNS = tuple(
    "id composer composition movement ensemble source transcriber catalog_name "
    "seconds".split()
)
"""Columns of ``musicnet_metadata.csv``, in MusicNet's order."""

METADATA_FILE = "musicnet_metadata.csv"
"""Name of the metadata file at the root of the layout."""

CLIPS_FILE = "notes.csv"
"""Name of the table of single notes at the root of the layout."""

TIMBRE_SOUNDFONT = "timbre_soundfont"
"""Column of a test recording's row: SoundFont of its copy in ``test_timbre``."""

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

OPENED = {}
"""Folders of which all was taken, and how much, for a command's last words."""

_JUNK = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", STORE_FOLDER}
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
    metadata : dict of str to str
        Its row of the metadata file; empty when there is none.
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
        All its recordings, by split and id.
    passed_over : tuple of tuple
        What was not taken: its path, and why.
    rows_alone : tuple of str
        Ids in the metadata of which there is no recording.
    """

    root: Path
    recordings: tuple
    passed_over: tuple = ()
    rows_alone: tuple = ()

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
        A folder in MusicNet's layout, or any folder with sound files at any depth,
        all of which are then unlabelled.

    Returns
    -------
    Dataset
        Its recordings.

    Raises
    ------
    InputError
        If the folder is missing or holds no sound file, its metadata file is
        malformed, or two files of MusicNet's layout have one id.

    Warns
    -----
    InputWarning
        If sound is passed over, or recordings and rows of the metadata do not
        match.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; expected MusicNet's layout or sound files"
        )
    if any((root / f"{folder}_data").is_dir() for folder in _FOLDERS):
        dataset = _read_layout(root)
    else:
        files, passed_over = find_files(root)
        recordings = (
            Recording(path.relative_to(root).as_posix(), path, None, "unlabelled")
            for path in files
        )
        dataset = Dataset(root, tuple(recordings), tuple(passed_over))
    told = _summarise(len(dataset.recordings), dataset.passed_over)
    if not dataset.recordings:
        raise InputError(
            f"{root}: no sound file found; expected MusicNet's layout (train_data/"
            f"ID.wav ...) or files ending in {', '.join(AUDIO_SUFFIXES)} ({told})"
        )
    if dataset.passed_over:
        warn(f"{root}: {told}")
    else:
        OPENED[str(root)] = told
    return dataset


def find_files(root, suffixes=AUDIO_SUFFIXES, deep=True):
    """
    Find the files of a kind in a folder, or tree, and what was passed over, and why.

    Links are followed, but no file or folder is taken twice. Names that systems leave
    behind, such as ``._song.wav``, are ignored.

    Parameters
    ----------
    root : str or Path
        The folder.
    suffixes : sequence of str
        Endings of the kind, in lower case; of sound files by default, of which those
        that are not read are named.
    deep : bool
        Search folders in it too.

    Returns
    -------
    files : list of Path
        The files, sorted.
    passed_over : list of tuple
        Paths, and why.
    """
    foreign = FOREIGN_SUFFIXES if suffixes is AUDIO_SUFFIXES else ()
    files, passed_over, seen = [], [], {}
    folders, linked = deque([Path(root)]), deque()  # a link's target goes first
    while folders or linked:
        folder = (folders or linked).popleft()
        other = seen.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            passed_over.append((folder, "linked folders that are taken already"))
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            passed_over.append((folder, f"folders with an error ({error.strerror})"))
            continue
        for entry in entries:
            path = folder / entry.name
            suffix = path.suffix.lower()
            if _is_junk(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # such as a link to itself
                passed_over.append((path, f"links with an error ({error.strerror})"))
                continue
            if is_folder:
                if deep:
                    (linked if entry.is_symlink() else folders).append(path)
            elif suffix in foreign:
                passed_over.append((path, NOT_READ.format(suffix)))
            elif suffix in suffixes:
                if deep and not entry.is_file():
                    passed_over.append((path, "links to what is gone"))
                else:
                    files.append(path)
    kept = []
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        if seen.setdefault(os.path.realpath(path), path) == path:
            kept.append(path)
        else:
            passed_over.append((path, "linked files that are taken already"))
    return sorted(kept), passed_over


def _summarise(n_taken, passed_over):
    """Sum up, such as '3 taken, 1 passed over: 1 links to what is gone'."""
    reasons = Counter(why for _, why in passed_over)
    why = "; ".join(f"{n} {reason}" for reason, n in reasons.items())
    return f"{n_taken} taken, {len(passed_over)} passed over" + (why and f": {why}")


def _is_junk(name):
    """Return whether a name is one that systems, or an interruption, leave behind."""
    part = name.startswith(".") and ".part" in name
    return part or name.startswith(("._", ".Trash")) or name in _JUNK


def _read_layout(root):
    """Pair the sound files of MusicNet's folders with labels and metadata."""
    metadata = {}
    if (root / METADATA_FILE).exists():
        metadata = {row["id"]: row for row in read_metadata(root / METADATA_FILE)}
    recordings, passed_over = [], []
    for folder in _FOLDERS:
        if not (root / f"{folder}_data").is_dir():
            continue
        files, passed = find_files(root / f"{folder}_data", deep=False)
        passed_over += passed
        unseen = _unseen_soundfont(root) if folder == "test_timbre" else ""
        seen = {}
        for audio in files:
            other = seen.setdefault(audio.stem, audio)
            if other != audio:
                raise InputError(
                    f"{audio}: the same id as {other.name}; expected one sound file "
                    "for each id, so rename or remove one"
                )
            row = metadata.get(audio.stem, {})
            if row and folder == "test_timbre":  # shares it with its copy in test
                soundfont = row.get(TIMBRE_SOUNDFONT) or unseen
                row = {**row, "split": folder, "soundfont": soundfont}
            held_out = folder == "train" and row.get("split") == "validation"
            split = "validation" if held_out else folder
            labels = inside(root / f"{folder}_labels", f"{audio.stem}.csv")
            labels = labels if labels.exists() else None
            recordings.append(Recording(audio.stem, audio, labels, split, row))
    ids = {recording.id for recording in recordings}
    alone = tuple(id for id in metadata if id not in ids)
    bare = [r.id for r in recordings if not r.metadata and r.split != "unlabelled"]
    if alone and bare:
        warn(
            f"{root / METADATA_FILE}: {len(alone)} of {len(metadata)} rows, such as id "
            f"{alone[0]!r}, are of no recording, and {len(bare)} recordings, such as "
            f"{bare[0]!r}, have no row; expected a file's name without ending as its id"
        )
    return Dataset(root, tuple(recordings), tuple(passed_over), alone)


def _unseen_soundfont(root):
    """Find the SoundFont that older metadata don't name: the single notes do."""
    if (root / CLIPS_FILE).exists():
        for _, row in read_table(root / CLIPS_FILE, ("split", "soundfont")):
            if row["split"] == "test_timbre":
                return row["soundfont"]
    return ""


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
    rows = {}
    for where, row in read_table(path, ("id",)):
        row["id"] = row["id"].strip()
        if rows.setdefault(row["id"], row) is not row:
            raise InputError(f"{where}: id {row['id']} stands twice")
    return list(rows.values())


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
        if not 0 <= start < end:
            raise InputError(
                f"{where}: note from sample {start} to {end}; "
                "expected 0 <= start_time < end_time"
            )
        labels.append((start, end, program, pitch, *beats, row["note_value"]))
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


def labels_of(score, note_values=lambda beats: "Unknown"):
    """
    Turn a score into labels.

    Parameters
    ----------
    score : Score
        The notes as they are played.
    note_values : callable
        Returns the name of a notated duration in beats; unknown by default.

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
    where : str
        The file and the number of the line, for messages.
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
                yield f"{path}, line {reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
