"""
Scores as they are kept: the only reader and writer of results.

A results file holds one JSON object a line, one for each score; the file of a
single run, ending in ``.json``, holds a list of them. Every number in the
notebook and the report, and every figure of scores, is read from such a file. A
later record about the same thing replaces an earlier one.
"""

import base64
import json
import struct
import subprocess
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from jtm.files import InputError, atomic, read_json, write_json


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
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = "".join(json.dumps(item) + "\n" for item in items)
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


def table(records, split="test"):
    """
    Lay out the main scores as a Markdown table.

    Parameters
    ----------
    records : iterable of Record
        Scores; the latest main score of each representation and task counts.
    split : str
        Where the scores were taken.

    Returns
    -------
    str
        One row for each representation and probe, one column for each task;
        value and 95 % interval in percent, the best of each column in bold.
        Where a file holds several label fractions or seeds, each is a row.
    """
    records = [r for r in latest(records) if r.primary and r.split == split]
    columns = list(dict.fromkeys((r.task, r.metric) for r in records))
    cells = {}
    for r in records:
        row = cells.setdefault((r.representation, r.probe, r.fraction, r.seed), {})
        row[r.task, r.metric] = r
    best = {c: max(row[c].value for row in cells.values() if c in row) for c in columns}
    # What is the same in every row goes without saying.
    keys = list(zip(*cells, strict=True)) or [()] * 4
    heads = ["representation", "probe", "labels", "seed"]
    shown = [0] + [i for i in (1, 2, 3) if len(set(keys[i])) > 1]
    rows = [
        [heads[i] for i in shown]
        + [f"{task}, {metric.replace('_', ' ')} (%)" for task, metric in columns]
    ]
    for key, row in cells.items():
        names = (key[0], key[1], f"{100 * key[2]:g} %", str(key[3]))
        scores = [_cell(row.get(c), best[c]) for c in columns]
        rows.append([names[i] for i in shown] + scores)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True))
        + " |"
        for row in rows
    )


def _cell(record, best):
    if record is None:
        return ""
    value = f"{100 * record.value:.1f}"
    if record.value == best:
        value = f"**{value}**"
    if record.low is None:
        return value
    return f"{value} [{100 * record.low:.1f}, {100 * record.high:.1f}]"


def revision():
    """
    Name the state of the code.

    Returns
    -------
    str
        Git's short name of the commit, with '-dirty' where files differ from
        it; 'unknown' outside a checkout.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():  # a repository around it is another project's
        return "unknown"
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
