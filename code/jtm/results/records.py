"""
Records of the benchmark: the only reader and writer of its scores.

A score is a row of a table with the columns :data:`COLUMNS`, kept in
``benchmark.csv.gz``. Beside it lie ``benchmark_draws.npz``, bootstrap draws of the
primary metrics, and ``benchmark.json``, the header: what was run, on which dataset and
from which checkpoint, by their hashes.

While the benchmark runs, each cell (a task, a method, an amount of labels, a seed) is
one small file of its own in the folder ``cells``, so that any number of processes may
write at once and a killed one loses its cell alone. :func:`compile_cells` joins them.
"""

import base64
import gzip
import json
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jtm.files import InputError, atomic, inside, locked, read_json, write_json

COLUMNS = (
    "task",
    "method",
    "labelled_recordings",
    "seed",
    "split",
    "metric",
    "value",
    "primary",
    "seconds",
)
"""Columns of a table of scores; `value` is between 0 and 1."""

KEY = COLUMNS[:6]
"""Columns that tell scores apart."""

CELL = COLUMNS[:4]
"""Columns that tell cells apart."""

METHODS = {
    "scratch": "from scratch",
    "cpc-finetuned": "CPC, fine-tuned",
    "cpc-joint": "CPC beside the labels",
    "cpc-frozen": "CPC, frozen",
    "untrained-frozen": "untrained, frozen",
    "scratch-selftrained": "from scratch, self-trained",
    "cpc-selftrained": "CPC, self-trained",
    "logmel": "log-mel",
    "cqt": "constant-Q",
    "largest": "largest class",
}
"""Names of the methods, in the order in which they are shown."""

TESTS = ("test", "test_timbre")
"""Held-out works, through the seen SoundFont and the unseen one."""

SPLITS = {
    "validation": "validation",
    "test": "seen SoundFont",
    "test_timbre": "unseen SoundFont",
    "real": "real recordings",
}
"""Names of the splits; `test` and `test_timbre` are the same held-out works."""

HEADER, DRAWS = "benchmark.json", "benchmark_draws.npz"
"""Names of the files beside a table of scores."""

UNIT = 1e-4
"""Of a score, what draws are rounded to."""

HASHES = ("data", "checkpoint")
"""Parts of a header that all scores of a file share."""


class Contrast(NamedTuple):
    """
    A comparison that is named before the benchmark runs.

    Parameters
    ----------
    task, method, other : str
        The score of `method` less that of `other`, by the task's primary metric.
    labelled_recordings : float
        Amount of labels.
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
    Open a folder for the cells of a benchmark, or take up one that is there.

    Parameters
    ----------
    folder : str or Path
        The folder.
    data, checkpoint : str
        Hashes of the dataset's content and of the pretrained network's weights.
    plan : iterable of tuple
        Cells that are to run, as ``(task, method, labelled_recordings, seed)``.
    contrasts : iterable of Contrast
        Comparisons that are named before the run.
    spread : bool
        Whether labels are of windows spread over all recordings.

    Raises
    ------
    InputError
        If the folder holds cells of another dataset or checkpoint, of labels given out
        the other way, or cells that ran when other contrasts were named.
    """
    path = Path(folder) / HEADER
    header = {
        "data": data,
        "checkpoint": checkpoint,
        "plan": list(plan),
        "contrasts": list(contrasts),
    } | ({"spread": True} if spread else {})
    with locked(Path(folder) / ".benchmark.lock"):
        if path.exists():
            there = read_header(path)
            _refuse_other(path, there, header)
            ran = any((Path(folder) / "cells").glob("[!.]*.json"))
            if ran and there["contrasts"] != header["contrasts"]:
                raise InputError(
                    f"{path}: cells have run for other contrasts, and contrasts are "
                    "named before the run; choose another folder"
                )
        write_json(path, header)


def read_header(path):
    """
    Read a header.

    Parameters
    ----------
    path : str or Path
        A ``benchmark.json``.

    Returns
    -------
    dict
        Has ``data``, ``checkpoint``, ``plan`` and ``contrasts``, the latter as
        :class:`Contrast`, and maybe ``spread``; see :func:`begin`.

    Raises
    ------
    InputError
        If it cannot be read or is something else.
    """
    header = read_json(path)
    try:
        contrasts = [Contrast(*each) for each in header["contrasts"]]
        plan = [tuple(cell) for cell in header["plan"]]
        hashes = {name: str(header[name]) for name in HASHES}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the header of a benchmark, with {', '.join(HASHES)}, "
            f"plan and contrasts ({error})"
        ) from error
    spread = {"spread": True} if header.get("spread") else {}
    return {**hashes, "plan": plan, "contrasts": contrasts, **spread}


def _refuse_other(path, there, here):
    """Refuse scores of another dataset or checkpoint, or of labels spread or not."""
    for name in HASHES:
        if there[name] != here[name]:
            raise InputError(
                f"{path}: holds scores of another {name} ({there[name][:8]}, not "
                f"{here[name][:8]}); choose another folder"
            )
    if there.get("spread", False) != here.get("spread", False):
        raise InputError(
            f"{path}: holds scores of labels that were given out the other way, with "
            "or without --spread; choose another folder"
        )


def cell_path(folder, name):
    """
    Name the file of a cell, which exists once the cell has run.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`.
    name : str
        Name of the cell, fit for a file.

    Returns
    -------
    Path
        The file.
    """
    return inside(Path(folder) / "cells", f"{name}.json")


def draws_key(row):
    """
    Name the draws of a score.

    Parameters
    ----------
    row : mapping
        Has the fields :data:`KEY`.

    Returns
    -------
    str
        ``task|method|labelled_recordings|seed|split|metric``.
    """
    values = (row[name] for name in KEY)
    return "|".join(v if isinstance(v, str) else f"{v:g}" for v in values)


def save_cell(folder, name, rows, draws):
    """
    Write the scores of a cell, all of them or none.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`.
    name : str
        Name of the cell; what was written under it before is replaced.
    rows : iterable of dict
        Scores, with the fields :data:`COLUMNS`.
    draws : dict of str to numpy.ndarray
        For each score that has them, by :func:`draws_key`, the score ``(n_draws,)``
        of each bootstrap resample of the test's tune families: the same resamples
        for all rows of a task and split, so that differences are paired.

    Raises
    ------
    InputError
        If the folder was not opened by :func:`begin`, or something is no score.
    """
    header = read_header(Path(folder) / HEADER)
    path = cell_path(folder, name)
    table = check(pd.DataFrame(rows, columns=COLUMNS), path)
    keys = {draws_key(row) for row in table.to_dict("records")}
    if not draws.keys() <= keys:
        raise InputError(f"{path}: draws of {min(draws.keys() - keys)}, but no score")
    packed = {}
    for key, each in draws.items():
        rounded = np.round(np.clip(each, 0, 1) / UNIT).astype("<u2")
        packed[key] = base64.b64encode(rounded.tobytes()).decode()
    content = {name: header[name] for name in (*HASHES, "spread") if name in header}
    content |= {"rows": table.to_dict("records"), "draws": packed}
    with atomic(path) as part:
        part.write_text(json.dumps(content), encoding="utf-8")


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
        return check(pd.DataFrame(rows, columns=COLUMNS), folder / "cells"), draws
    except InputError:
        for path, rows in cells.items():  # name the cell, if it is one alone
            check(pd.DataFrame(rows, columns=COLUMNS), path)
        raise


def compile_cells(folder, out):
    """
    Join the cells that have run with the scores that are there.

    Parameters
    ----------
    folder : str or Path
        The folder given to :func:`begin`.
    out : str or Path
        The table, ending in ``.csv.gz``; its cells that are not in `folder` are kept.
        The draws and the header are written beside it.

    Returns
    -------
    pandas.DataFrame
        All scores, in the order of the plan.

    Raises
    ------
    InputError
        If `out` or a cell holds scores of another dataset or checkpoint, or cannot
        be read.
    """
    folder, out = Path(folder), Path(out)
    header = read_header(folder / HEADER)
    with locked(out.with_name(".benchmark.lock")):
        beside, drawn = out.with_name(HEADER), out.with_name(DRAWS)
        if beside.exists():
            _refuse_other(beside, read_header(beside), header)
        table, draws = _read_cells(folder, header)
        if out.exists():
            there, again = read(out), set(_cells(table))
            there = there[[cell not in again for cell in _cells(there)]]
            kept = {draws_key(row) for row in there.to_dict("records")}
            draws |= {k: v for k, v in read_draws(drawn).items() if k in kept}
            table = pd.concat([there, table])
        place = {tuple(cell): i for i, cell in enumerate(header["plan"])}
        places = [place.get(cell, len(place)) for cell in _cells(table)]
        table = table.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
        # Draws first: a score without draws would look as if it had no interval.
        _write_draws(drawn, draws)
        write_json(beside, header)
        _write_table(out, table)
    return table


def _cells(table):
    """List the cell of each row."""
    return list(table[[*CELL]].itertuples(index=False, name=None))


def _write_table(path, table):
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with atomic(path) as part:  # undated, so that equal scores are equal bytes
        part.write_bytes(gzip.compress(text.encode(), mtime=0))


def _write_draws(path, draws):
    lengths = sorted({len(each) for each in draws.values()})
    if len(lengths) > 1:
        raise InputError(f"{path}: draws differ in number ({lengths}); run cells again")
    keys = sorted(draws)
    values = np.stack([draws[key] for key in keys]) if keys else np.zeros((0, 0), "<u2")
    with atomic(path) as part:
        np.savez_compressed(part, keys=np.array(keys, str), draws=values)


def read(path):
    """
    Read a table of scores.

    Parameters
    ----------
    path : str or Path
        The table, ending in ``.csv.gz``.

    Returns
    -------
    pandas.DataFrame
        A row a score, with the columns :data:`COLUMNS`.

    Raises
    ------
    InputError
        If the file cannot be read, or a line is no score.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except (ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a table of scores ({reason})") from error
    return check(table, path)


def check(table, path):
    """
    Refuse what is no table of scores.

    Parameters
    ----------
    table : pandas.DataFrame
        The table.
    path : str or Path
        Its file, for messages.

    Returns
    -------
    pandas.DataFrame
        The same, numbers as numbers.

    Raises
    ------
    InputError
        If columns differ from :data:`COLUMNS`, a line is no score, two lines score
        the same, or a task has several primary metrics.
    """
    if tuple(table.columns) != COLUMNS:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    table = table.copy()
    for name in ("labelled_recordings", "seed", "value", "seconds"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    primary = table["primary"].map(
        {True: True, False: False, "True": True, "False": False}
    )
    right = {
        f"method, expected one of {', '.join(METHODS)}": table["method"].isin(METHODS),
        f"split, expected one of {', '.join(SPLITS)}": table["split"].isin(SPLITS),
        "value, expected 0 to 1": table["value"].between(0, 1),
        "labelled_recordings, expected a number": table["labelled_recordings"] >= 0,
        "seed, expected a whole number": table["seed"] % 1 == 0,
        "seconds, expected a number": table["seconds"] >= 0,
        "primary, expected True or False": primary.notna(),
        "stands there twice": ~table.duplicated([*KEY]),
    }
    for fault, good in right.items():
        if not good.all():
            line = int(np.argmin(good.to_numpy())) + 2  # the first line names columns
            raise InputError(f"{path}, line {line}: {fault}")
    metrics = table[primary.astype(bool)].groupby("task")["metric"].nunique()
    if (metrics > 1).any():
        raise InputError(f"{path}: {metrics.idxmax()} has several primary metrics")
    kinds = {"seed": int, "primary": bool} | dict.fromkeys(
        ("labelled_recordings", "value", "seconds"), float
    )
    return table.assign(primary=primary).astype(kinds)


def read_draws(path):
    """
    Read bootstrap draws.

    Parameters
    ----------
    path : str or Path
        A ``benchmark_draws.npz``; without it there are no draws.

    Returns
    -------
    dict of str to numpy.ndarray
        By :func:`draws_key`, ``(n_draws,)`` scores in units of :data:`UNIT`.

    Raises
    ------
    InputError
        If the file is something else.
    """
    if not Path(path).exists():
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
    Name the state of the code.

    Returns
    -------
    str
        Git's short name of the commit, with '-dirty' where files differ from it;
        'unknown' outside a checkout, even within a repository of something else.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
