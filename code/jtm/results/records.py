"""
Records of the benchmark: the only reader and writer of its scores.

A score is a row of a table with the columns :data:`COLUMNS`, saved in
``benchmark.csv.gz``. Next to it are ``benchmark_draws.npz``, bootstrap draws of the
primary metrics, and ``benchmark.json``, the header: the planned cells, the contrasts,
and hashes of the dataset and the checkpoint.

While the benchmark runs, each cell (a task, a method, an amount of labels, a seed) is
saved in a small file in the folder ``cells``, so that any number of processes may write
concurrently and a killed one loses only its cell. :func:`compile_cells` joins them.
"""

import base64
import contextlib
import gzip
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jtm.files import InputError, atomic, inside, locked, read_json, write_json

CELL = ("task", "method", "labelled_recordings", "seed")
"""Columns that identify a cell."""

KEY = (*CELL, "split", "metric")
"""Columns that identify a score."""

COLUMNS = (*KEY, "value", "primary", "seconds")
"""Columns of a table of scores; `value` is between 0 and 1."""

METHODS = {
    "scratch": "from scratch",
    "cpc-finetuned": "CPC, fine-tuned",
    "cpc-joint": "CPC and labels jointly",
    "scratch-distilled": "from scratch, distilled",
    "cpc-frozen": "CPC, frozen",
    "untrained-frozen": "untrained, frozen",
    "scratch-selftrained": "from scratch, self-trained",
    "cpc-selftrained": "CPC, self-trained",
    "logmel": "log-mel",
    "cqt": "constant-Q",
    "largest": "largest class",
}
"""Names of the methods, in display order."""

TESTS = ("test", "test_timbre")
"""Held-out works, through the seen SoundFont and the unseen one."""

SPLITS = {
    "validation": "validation",
    "test": "seen SoundFont",
    "test_timbre": "unseen SoundFont",
    "real": "real recordings",
}
"""Names of the splits; `test` and `test_timbre` are the same held-out works."""

TABLE, DRAWS = "benchmark.csv.gz", "benchmark_draws.npz"
HEADER, LOCK = "benchmark.json", ".benchmark.lock"
"""Names of the files in the folder of a benchmark."""

UNIT = 1e-4
"""Resolution that the draws of a score are rounded to."""

HASHES = ("data", "checkpoint")
"""Fields of a header that all scores of a file share."""


class Contrast(NamedTuple):
    """
    A comparison named before the benchmark runs.

    Parameters
    ----------
    task, method, other : str
        The score of `method` minus that of `other`, in the task's primary metric.
    labelled_recordings : float
        Number of labelled recordings.
    split : str
        One of :data:`SPLITS`.
    """

    task: str
    method: str
    other: str
    labelled_recordings: float
    split: str


def begin(folder, data, checkpoint, plan, contrasts, spread=False):
    """
    Open a folder for the cells of a benchmark, or reopen an existing one.

    Parameters
    ----------
    folder : str or Path
        Path to the folder.
    data, checkpoint : str
        Hashes of the dataset's content and of the pretrained network's weights.
    plan : list of tuple
        Cells to run, as ``(task, method, labelled_recordings, seed)``.
    contrasts : sequence of Contrast
        Comparisons named before the run.
    spread : bool
        Whether labels are spread over windows of all recordings.

    Raises
    ------
    InputError
        If the folder holds cells with another dataset, checkpoint, value of `spread` or
        contrasts.
    """
    path = Path(folder) / HEADER
    header = {"data": data, "checkpoint": checkpoint, "plan": plan}
    header |= {"contrasts": contrasts} | ({"spread": True} if spread else {})
    with locked(path.with_name(LOCK)):
        if path.exists():
            existing = _read_header(path)
            _refuse_other(path, existing, header)
            ran = path.with_name(TABLE).exists()
            ran = ran or any(path.with_name("cells").glob("[!.]*.json"))
            if ran and existing["contrasts"] != list(contrasts):
                raise InputError(
                    f"{path}: cells have run for other contrasts, and contrasts are "
                    "named before the run; choose another folder"
                )
        write_json(path, header)


def _read_header(path):
    """Read a header, with its plan as tuples and contrasts as :class:`Contrast`."""
    header = read_json(path)
    try:
        return header | {
            **{name: str(header[name]) for name in HASHES},
            "plan": [tuple(cell) for cell in header["plan"]],
            "contrasts": [Contrast(*each) for each in header["contrasts"]],
        }
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the header of a benchmark, with {', '.join(HASHES)}, "
            f"plan and contrasts ({error})"
        ) from error


def _refuse_other(path, existing, expected):
    """Refuse scores with another dataset, checkpoint or value of `spread`."""
    for name in HASHES:
        if existing[name] != expected[name]:
            raise InputError(
                f"{path}: holds scores of another {name} ({existing[name][:8]}, not "
                f"{expected[name][:8]}); choose another folder"
            )
    if existing.get("spread", False) != expected.get("spread", False):
        raise InputError(
            f"{path}: holds scores with the other assignment of labels, with or "
            "without --spread; choose another folder"
        )


def cell_path(folder, name):
    """
    Return the path to a cell's file, which exists once the cell has run.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`.
    name : str
        Name of the cell, valid as a file name.

    Returns
    -------
    Path
        The path.
    """
    return inside(Path(folder) / "cells", f"{name}.json")


def _draws_key(row):
    """Return the key of a score's draws, the values of :data:`KEY`."""
    values = (row[name] for name in KEY)
    return "|".join(v if isinstance(v, str) else f"{v:g}" for v in values)


def save_cell(folder, name, rows):
    """
    Write the scores of a cell atomically.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`.
    name : str
        Name of the cell; its existing scores are replaced.
    rows : list of dict
        Scores, with the fields :data:`COLUMNS` and, if there are any, ``draws``: the
        score ``(n_draws,)`` on each bootstrap resample of the test's tune families. All
        rows of a task and split share the resamples, so that differences are paired.

    Raises
    ------
    InputError
        If the folder was not opened by :func:`begin`, or a row is invalid.
    """
    header = _read_header(Path(folder) / HEADER)
    path = cell_path(folder, name)
    table = _check(pd.DataFrame(rows, columns=COLUMNS), path)
    packed = {}
    for row in rows:
        if "draws" in row:
            rounded = np.round(np.clip(row["draws"], 0, 1) / UNIT).astype("<u2")
            packed[_draws_key(row)] = base64.b64encode(rounded.tobytes()).decode()
    content = {name: header[name] for name in (*HASHES, "spread") if name in header}
    content |= {"rows": table.to_dict("records"), "draws": packed}
    write_json(path, content)


def _read_cells(folder, header):
    """Return the table and the draws of all cells of a folder."""
    cells, draws = {}, {}
    for path in sorted((folder / "cells").glob("[!.]*.json")):
        content = read_json(path)
        try:
            _refuse_other(path, content, header)
            cells[path] = list(content["rows"])
            for key, each in content["draws"].items():
                packed = base64.b64decode(each, validate=True)
                draws[key] = np.frombuffer(packed, "<u2")
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"{path}: not a cell of a benchmark ({error}); delete it to run it "
                "again"
            ) from error
    rows = [row for rows in cells.values() for row in rows]
    try:
        return _check(pd.DataFrame(rows, columns=COLUMNS), folder / "cells"), draws
    except InputError:
        for path, rows in cells.items():  # name the cell if a single one is invalid
            _check(pd.DataFrame(rows, columns=COLUMNS), path)
        raise


def compile_cells(folder):
    """
    Merge the cells that have run into the table of scores, in the order of the plan.

    Scores in the table whose cell is no longer a file are kept.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`; the table, ``benchmark.csv.gz``, and the
        draws are written there.

    Raises
    ------
    InputError
        If a cell holds scores of another dataset or checkpoint, or a file cannot be
        read.
    """
    folder = Path(folder)
    with locked(folder / LOCK):
        header = _read_header(folder / HEADER)
        table, draws = _read_cells(folder, header)
        if (folder / TABLE).exists():
            old, new = read(folder / TABLE), set(_cells(table))
            old = old[[cell not in new for cell in _cells(old)]]
            kept = {_draws_key(row) for row in old.to_dict("records")}
            draws |= {k: v for k, v in _read_draws(folder).items() if k in kept}
            table = pd.concat([old, table])
        rank = {cell: i for i, cell in enumerate(header["plan"])}
        ranks = [rank.get(cell, len(rank)) for cell in _cells(table)]
        table = table.iloc[np.argsort(ranks, kind="stable")]
        # Draws first: a score without draws would look as if it had no interval.
        _write_draws(folder / DRAWS, draws)
        _write_table(folder / TABLE, table)


def _cells(table):
    """List the cell of each row."""
    return list(table[[*CELL]].itertuples(index=False, name=None))


def _write_table(path, table):
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with atomic(path) as part:  # no time stamp: equal scores, equal bytes
        part.write_bytes(gzip.compress(text.encode(), mtime=0))


def _write_draws(path, draws):
    lengths = sorted({len(each) for each in draws.values()})
    if len(lengths) > 1:
        raise InputError(f"{path}: draws differ in number ({lengths}); run cells again")
    keys = sorted(draws)
    values = np.stack([draws[key] for key in keys]) if keys else np.zeros((0, 0), "<u2")
    with atomic(path) as part:
        np.savez_compressed(part, keys=np.array(keys, str), draws=values)


def read_all(path):
    """
    Read a table of scores, with the draws and the header next to it.

    Parameters
    ----------
    path : str or Path
        Path to the table, ending in ``.csv.gz``; if it does not exist, there are no
        scores, planned cells or contrasts.

    Returns
    -------
    table : pandas.DataFrame
        The scores; see :func:`read`. The column ``draws`` has the score ``(n_draws,)``
        on each bootstrap resample, or None.
    header : dict
        Has ``data``, ``checkpoint``, ``plan`` and ``contrasts``, the last as
        :class:`Contrast`, and ``spread`` if it is true; see :func:`begin`.

    Raises
    ------
    InputError
        If a file is invalid.
    """
    path = Path(path)
    if not path.exists():
        empty = _check(pd.DataFrame(columns=COLUMNS), path)
        return empty.assign(draws=None), {"plan": [], "contrasts": []}
    table, draws = read(path), _read_draws(path.parent)
    keys = [_draws_key(row) for row in table.to_dict("records")]
    drawn = [draws[key] * UNIT if key in draws else None for key in keys]
    table = table.assign(draws=pd.Series(drawn, dtype=object))
    return table, _read_header(path.with_name(HEADER))


def read(path):
    """
    Read a table of scores.

    Parameters
    ----------
    path : str or Path
        Path to the table, ending in ``.csv.gz``.

    Returns
    -------
    pandas.DataFrame
        One row per score, with the columns :data:`COLUMNS`.

    Raises
    ------
    InputError
        If the file cannot be read, a row is invalid, two rows have the same
        :data:`KEY`, or a task has several primary metrics.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except (ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a table of scores ({reason})") from error
    return _check(table, path)


def _check(table, path):
    """Return a table with typed columns; InputError, naming its file, if invalid."""
    if tuple(table.columns) != COLUMNS:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    numbers = ("labelled_recordings", "seed", "value", "seconds")
    flags = {True: True, False: False, "True": True, "False": False}
    typed = {name: pd.to_numeric(table[name], errors="coerce") for name in numbers}
    table = table.assign(primary=table["primary"].map(flags), **typed)
    valid = {
        f"method, expected one of {', '.join(METHODS)}": table["method"].isin(METHODS),
        f"split, expected one of {', '.join(SPLITS)}": table["split"].isin(SPLITS),
        "value, expected 0 to 1": table["value"].between(0, 1),
        "labelled_recordings, expected a number": table["labelled_recordings"] >= 0,
        "seed, expected a whole number": table["seed"] % 1 == 0,
        "seconds, expected a number": table["seconds"] >= 0,
        "primary, expected True or False": table["primary"].notna(),
        "repeats an earlier score": ~table.duplicated([*KEY]),
    }
    for fault, rows in valid.items():
        if not rows.all():
            line = int(np.argmin(rows.to_numpy())) + 2  # the first line names columns
            raise InputError(f"{path}, line {line}: {fault}")
    kinds = dict.fromkeys(numbers, float) | {"seed": int, "primary": bool}
    table = table.astype(kinds)
    metrics = table[table["primary"]].groupby("task")["metric"].nunique()
    if (metrics > 1).any():
        raise InputError(f"{path}: {metrics.idxmax()} has several primary metrics")
    return table


def _read_draws(folder):
    """Read bootstrap draws by key, in units of :data:`UNIT`; none without a file."""
    path = folder / DRAWS
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, draws = file["keys"], file["draws"]
        if draws.dtype != np.uint16 or draws.ndim != 2:
            raise ValueError(f"draws are {draws.dtype}, {draws.ndim} dimensions")
        return dict(zip(keys.tolist(), draws, strict=True))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not bootstrap draws ({error})") from error


def revision():
    """
    Return the Git revision of the code.

    Returns
    -------
    str
        Git's short name of the commit, with '-dirty' if files differ from it; 'unknown'
        outside a checkout, even within another repository.
    """
    root = Path(__file__).resolve().parents[3]
    command = ["git", "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (root / ".git").exists():
            quiet = {"cwd": root, "stderr": subprocess.DEVNULL, "text": True}
            return subprocess.check_output(command, **quiet).strip()
    return "unknown"
