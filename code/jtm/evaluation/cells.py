"""
Scores of the grid and of single runs as they are kept, until the benchmark replaces it.

A results file holds one JSON object a line, one for each score; the file of a
single run, ending in ``.json``, holds a list of them. Every number in the
notebook and the report, and every figure of scores, is read from such a file. A
later record about the same thing replaces an earlier one.
"""

import base64
import json
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from jtm.files import InputError, atomic, locked, read_json, write_json


@dataclass(frozen=True)
class Record:
    """
    One score.

    Parameters
    ----------
    task : str
        What was asked, such as 'multipitch'.
    representation : str
        What the answer was read from, such as 'cpc-z'.
    probe : str
        What read it, such as 'linear'.
    fraction : float
        Share of the labelled training windows whose labels were seen.
    labelled : float
        Length of those windows in seconds.
    seed : int
        Seed of the labelled subset and of training.
    split : str
        Where it was scored: 'validation', 'test' or 'test_timbre'.
    metric : str
        Name of the score, such as 'average_precision'.
    value : float
        The score.
    low, high : float or None
        Ends of its 95 % interval over recordings; None where there is none.
    seconds : float
        Time that the cell took, with training and without extraction.
    revision : str
        State of the code that made it.
    config : dict
        Settings that made it; anything that JSON can hold.
    primary : bool
        Whether this is the main metric of its task.

    Raises
    ------
    ValueError
        If the value is not a finite number, which JSON cannot hold.
    """

    task: str
    representation: str
    probe: str
    fraction: float
    labelled: float
    seed: int
    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    seconds: float
    revision: str
    config: dict
    primary: bool

    def __post_init__(self):
        if not float("-inf") < self.value < float("inf"):
            raise ValueError(f"{self.task}, {self.metric}: the score is {self.value}")

    @property
    def key(self):
        """What the score is about: all that tells it from another, as a tuple."""
        return (
            self.task,
            self.representation,
            self.probe,
            self.fraction,
            self.seed,
            self.split,
            self.metric,
        )


def append(path, records):
    """
    Add records to a results file, all of them or none.

    Parameters
    ----------
    path : str or Path
        The file; made where it is missing.
    records : iterable of Record
        What to add.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    _add_lines(path, map(asdict, records))


DRAWS = 500
"""Bootstrap draws that are kept of a main score."""


def beside(path):
    """
    Name the file for what stands beside the scores of a results file.

    Parameters
    ----------
    path : str or Path
        The results file, such as ``grid.jsonl``.

    Returns
    -------
    Path
        The file in the same folder, such as ``grid_draws.jsonl``.
    """
    path = Path(path)
    return path.with_name(f"{path.stem}_draws{path.suffix}")


def append_beside(path, lines):
    """
    Add what stands beside scores, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        The results file; see :func:`beside`.
    lines : iterable of dict
        One for each cell and split: the fields ``task, representation, probe,
        fraction, seed, split`` of its records, and any of ``draws``, the main
        score of :data:`DRAWS` bootstrap draws in units of 1e-4, the same draws
        for all who are scored on the same recordings; ``confusion``, counts
        whose rows are the truth, with the names of the ``classes``; and
        ``curve``, the ``step``, ``seconds`` and ``score`` on validation while a
        network was trained, a list each. In the file, draws are 16-bit integers
        in base64, a third as long as in digits.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    packed = []
    for line in lines:
        if "draws" in line:
            draws = struct.pack(f"<{len(line['draws'])}H", *line["draws"])
            line = line | {"draws": base64.b64encode(draws).decode()}
        packed.append(line)
    _add_lines(beside(path), packed)


def read_beside(path):
    """
    Read what stands beside the scores of a results file.

    Parameters
    ----------
    path : str or Path
        The results file; see :func:`beside`.

    Returns
    -------
    dict of tuple to dict
        The latest of each cell and split, by ``(task, representation, probe,
        fraction, seed, split)``; lines as in :func:`append_beside`.

    Raises
    ------
    InputError
        If the file cannot be read, or a line of it is not such a line.
    """
    path = beside(path)
    found = {}
    for number, text in enumerate(_lines(path), 1):
        try:
            line = json.loads(text)
            if "draws" in line:
                draws = base64.b64decode(line["draws"], validate=True)
                line["draws"] = [n for (n,) in struct.iter_unpack("<H", draws)]
            found[tuple(line[name] for name in CELL_FIELDS)] = line
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object with the keys "
                f"{', '.join(CELL_FIELDS)} ({error})"
            ) from error
    return found


CELL_FIELDS = ("task", "representation", "probe", "fraction", "seed", "split")
"""What tells the lines beside the scores apart."""


def _add_lines(path, items):
    """Add JSON objects to a file, one a line."""
    path = Path(path)
    lines = "".join(json.dumps(item) + "\n" for item in items)
    with locked(path.with_name(f".{path.name}.lock")):  # or another's would be lost
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        with atomic(path) as part:
            part.write_text(before + lines, encoding="utf-8")


def _lines(path):
    """Read the lines of a file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def write(path, records):
    """
    Write the records of a single run.

    Parameters
    ----------
    path : str or Path
        The file, ending in ``.json``; replaced where it exists.
    records : iterable of Record
        What to write.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_json(path, [asdict(record) for record in records])


def read(path):
    """
    Read a results file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    list of Record
        Its records, in the order of the file.

    Raises
    ------
    InputError
        If the file cannot be read, or something in it is not a record.
    """
    path = Path(path)
    if path.suffix == ".json":
        items, kind = read_json(path), "entry"
        if not isinstance(items, list):
            raise InputError(f"{path}: not a list of records")
    else:
        items, kind = _lines(path), "line"
    names = [field.name for field in fields(Record)]
    records = []
    for number, item in enumerate(items, 1):
        try:
            item = json.loads(item) if kind == "line" else item
            records.append(Record(**item))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, {kind} {number}: not a record ({error}); "
                f"expected a JSON object with the keys {', '.join(names)}"
            ) from error
    return records


def latest(records):
    """
    Keep the last record about each thing.

    Parameters
    ----------
    records : iterable of Record
        In the order they were written.

    Returns
    -------
    list of Record
        One for each key, in the order the keys first came.
    """
    return list({record.key: record for record in records}.values())
