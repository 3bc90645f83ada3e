"""
Fault injection: kills, full disks, damaged, hostile and large files.

``python code/faults/suite.py`` (``make faults``) tries every fault of :func:`faults`
several times, with seeded draws, and counts what survived: a resumed command must
equal an undisturbed one; a damaged file must be read or refused in one line; nothing
may hang, or write outside its folder. Outcomes are saved in ``logs/faults``, so that
it resumes where it stopped, and repeats what was lost; what was tried is written to
its rows of ``report/results/faults.json``, with ``--only`` too. With ``--short`` a few
of each kind take seconds, and no results are written.
"""

import argparse
import functools
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "code"), str(ROOT / "toy"), str(Path(__file__).parent)]

import damaged  # noqa: E402
import large  # noqa: E402
import numpy as np  # noqa: E402
import stopped  # noqa: E402
import torch  # noqa: E402
from isolated import LostError  # noqa: E402
from tqdm import tqdm  # noqa: E402

from jtm.files import atomic, read_json, write_json  # noqa: E402

RESULTS = ROOT / "report" / "results" / "faults.json"
"""Path to the written table."""


@dataclass(frozen=True)
class Fault:
    """A fault, and its numbers of trials in the long and the short form."""

    name: str
    trial: object
    long: int
    short: int = 0
    size: int = 1


def faults():
    """List the faults."""
    found = []
    for job, kills, short in (
        ("store", 12, 1),
        ("pretraining", 12, 1),
        ("embedding", 10, 0),
        ("index", 14, 0),
        ("transcription", 6, 0),
        ("benchmark", 2, 0),
        ("generation", 2, 0),
    ):
        kill = functools.partial(stopped.kill, job)
        found.append(Fault(f"killed at a random moment: {job}", kill, kills, short))
    for job in stopped.JOBS:
        full = functools.partial(stopped.fill, job)
        found.append(Fault(f"disk full: {job}", full, 2, int(job == "store")))
    one = functools.partial(stopped.lose_worker, "generation")
    found.append(Fault("one process of several killed: generation", one, 1))
    for kind in damaged.READERS:
        try_kind = functools.partial(damaged.mutate, kind)
        trials, short = (4, 0) if kind in damaged.SLOW else (12, 1)
        tried = trials, short, damaged.FILES
        found.append(Fault(f"damaged: {kind}", try_kind, *tried))
    for name, trial in damaged.HOSTILE.items():
        call = functools.partial(damaged.attack, trial)
        found.append(Fault(f"hostile: {name}", call, 1, 1))
    for name, trial in large.LARGE.items():
        found.append(Fault(name, trial, 1, 0))
    return found


def run(work, short=False, only="", progress=True):
    """Try the faults that have not survived yet, and summarise the outcomes."""
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    file = work / "outcomes.json"
    outcomes = json.loads(file.read_text()) if file.exists() else {}
    chosen = [fault for fault in faults() if only in fault.name]
    jobs = [(f, i) for f in chosen for i in range(f.short if short else f.long)]
    remaining = [(f, i) for f, i in jobs if outcomes.get(f"{f.name} {i}", "new")]
    for fault, number in tqdm(remaining, "Faults", disable=not progress):
        key = f"{fault.name} {number}"
        rng = np.random.default_rng([number, *key.encode()])
        folder = Path(tempfile.mkdtemp(dir=work))
        try:
            fault.trial(rng, folder)
            outcomes[key] = ""
        except LostError as loss:
            outcomes[key] = str(loss)
            tqdm.write(f"{key}: {loss}", file=sys.stderr)
        finally:
            shutil.rmtree(folder)
        with atomic(file) as part:
            part.write_text(json.dumps(outcomes, indent=1))
    return summarise(chosen, outcomes)


def summarise(chosen, outcomes):
    """Count trials, survivals and losses of each fault."""
    rows = []
    for fault in chosen:
        losses = [outcomes.get(f"{fault.name} {i}") for i in range(fault.long)]
        losses = [loss for loss in losses if loss is not None]
        lost = [loss for loss in losses if loss]
        tried = fault.size * len(losses)
        row = {"fault": fault.name, "tried": tried, "survived": tried - len(lost)}
        rows.append(row | {"lost": len(lost), "reasons": sorted(set(lost))})
    return rows


def record(path, rows):
    """Write the rows of tried faults to the table; retain the others."""
    known = {row["fault"]: row for row in read_json(path)} if path.exists() else {}
    known |= {row["fault"]: row for row in rows if row["tried"]}
    none = {"tried": 0, "survived": 0, "lost": 0, "reasons": []}
    table = [known.get(f.name, {"fault": f.name} | none) for f in faults()]
    write_json(path, table)


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--short", action="store_true", help="try a few of each kind")
    parser.add_argument("--only", default="", help="substring of the names to try")
    parser.add_argument("--work", default="logs/faults", help="folder for results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unmounts small disks
    torch.set_num_threads(1)  # in forked processes, others would be missing
    start = time.monotonic()
    rows = run(options.work, options.short, options.only)
    for row in filter(lambda row: row["tried"], rows):
        print("{fault}: {survived} of {tried} survived".format(**row))
    if not options.short:
        record(RESULTS, rows)
    print(f"{time.monotonic() - start:.0f} s")
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
