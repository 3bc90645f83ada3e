"""Interrupted commands: killed at a random moment, or stopped by a full disk."""

import atexit
import csv
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import generate
import numpy as np
import torch
import works
from isolated import LostError, children, last_line, run, small_disk

from jtm import cli
from jtm.cpc import benchmark
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.files import digest
from jtm.music import audio
from jtm.retrieval import model as towers
from jtm.retrieval import search
from jtm.tests.evaluation.little import write_checkpoint, write_dataset
from jtm.tests.retrieval.little import tune, write_abc
from jtm.tests.transcriber import toys
from jtm.training.checkpoints import fingerprint

VOLATILE = {generate.COST_FILE, "embeddings.json", "config.json", ".lock"}
"""Names of files that contain times or paths."""

TIMES = ("audio_seconds_per_second", "seconds")
"""Columns that contain durations."""

works.PRESETS["least"] = works.Preset(3, 1, 1, 2, (2.0, 3.0), 1, 1, 0, 36, 9e3)


@functools.cache
def inputs():
    """Write the inputs of the commands, once."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    rng = np.random.default_rng(0)
    for i in range(16):
        wave = 0.1 * rng.standard_normal(16_000 + 2_000 * i)
        audio.write(folder / "sounds" / "abcd"[i % 4] / f"{i}.wav", wave, 16_000)
    write_dataset(folder / "data")
    write_checkpoint(folder / "a.pt")
    small = {"encoder_type": "pitchmap", "hidden_encoder": 2, "hidden_gar": 2}
    write_checkpoint(folder / "b.pt", chosen=small)
    toys.write_tiny(folder / "t.safetensors")
    torch.manual_seed(0)
    towers.save(folder / "w.safetensors", towers.Towers("published").eval(), {})
    for seed in range(6):
        write_abc(folder / "scores" / f"{seed}.abc", tune(seed), f"Tune {seed}")
    return folder


def _store(out):
    return build_store(open_dataset(inputs() / "sounds"), out, progress=False) and 0


def _pretrain(out):
    options = ["--preset", "tiny", "--nEpoch", "3", "--data", f"{inputs() / 'sounds'}"]
    options += ["--pathCheckpoint", f"{out / 'run'}", "--store", f"{out / 'store'}"]
    return cli.train_main([*options, "--samplingType", "samesequence"])


def _embed(out):
    options = [f"{inputs() / 'sounds'}", "--out", f"{out}", "--load"]
    return cli.main(["embed", *options, f"{inputs() / 'a.pt'}"])


def _export(out):
    options = ["--load", f"{inputs() / 'a.pt'}", "--out", f"{out / 'm.safetensors'}"]
    return cli.main(["export", *options])


def _generate(out):
    options = ["--preset", "least", "--out", f"{out}"]
    return generate.main(options)


def _benchmark(out):
    benchmark.STEPS |= dict.fromkeys(benchmark.STEPS, 4)
    benchmark.RATES = {name: rates[:1] for name, rates in benchmark.RATES.items()}
    benchmark.HEAD_RATES = benchmark.HEAD_RATES[:1]
    options = ["--data", f"{inputs() / 'data'}", "--load", f"{inputs() / 'b.pt'}"]
    options += ["--out", f"{out / 'scores'}", "--work", f"{out / 'work'}"]
    for part in ("family=frames", "amount=3", "seed=0", "method=scratch"):
        options += ["--only", part]
    options += ["--only", "method=scratch-selftrained", "--only", "method=logmel"]
    return cli.main(["benchmark", *options])


def _transcribe(out):
    options = [f"{inputs() / 'sounds'}", "--out", f"{out}", "--weights"]
    return cli.main(["transcribe", *options, f"{inputs() / 't.safetensors'}"])


def _index(out):
    weights = inputs() / "w.safetensors"
    return search.build(inputs() / "scores", out / "i.safetensors", None, weights)


JOBS = {
    "store": _store,
    "pretraining": _pretrain,
    "embedding": _embed,
    "export": _export,
    "transcription": _transcribe,
    "index": _index,
    "benchmark": _benchmark,
    "generation": _generate,
}
"""Commands by name; each takes its output folder."""


def snapshot(folder):
    """Hash the files of a folder, without what differs between runs."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        omit = path.name in VOLATILE or path.suffix == ".lock" or ".part" in path.name
        if path.is_file() and not (omit or "tensorboard" in name):
            hashes[name] = _hash(path)
    return hashes


def _hash(path):
    if path.suffix == ".pt":
        content = torch.load(path, map_location="cpu", weights_only=True)
        return f"{content.get('global_step')} {fingerprint(content['state_dict'])}"
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = [(name, file[name].tobytes()) for name in sorted(file)]
        return hashlib.sha256(repr(arrays).encode()).hexdigest()
    if path.name.endswith((".csv", ".csv.gz")):
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        rows = csv.DictReader(io.StringIO(text.decode()))
        return repr([[v for k, v in row.items() if k not in TIMES] for row in rows])
    if path.suffix == ".json":
        return json.dumps(json.loads(path.read_text(), object_hook=_timeless))
    return digest(path)


def _timeless(row):
    """Drop the durations of a row."""
    return {name: value for name, value in row.items() if name not in TIMES}


@dataclass(frozen=True)
class Reference:
    """Output files of an undisturbed command, its processor time and size."""

    files: dict
    seconds: float
    size: int


@functools.cache
def reference(job):
    """Run a command undisturbed, once."""
    inputs()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        out.mkdir()
        code, output, seconds = run(lambda: _into(job, out), Path(folder, "log"))
        if code:
            raise RuntimeError(f"{job} fails undisturbed: {output}")
        blocks = [-(-p.stat().st_size // 4096) for p in out.rglob("*") if p.is_file()]
        return Reference(snapshot(out), seconds, 4096 * sum(blocks))


def _finish(job, out, log, after):
    """Run a command to its end, and compare its files with the reference."""
    code, output, _ = run(lambda: _into(job, out), log)
    if code:
        raise LostError(f"{after}, cannot resume: {last_line(output)}")
    found, expected = snapshot(out), reference(job).files
    if found != expected:
        names = {n for n in found.keys() | expected if found.get(n) != expected.get(n)}
        raise LostError(f"{after}, these differ: {', '.join(sorted(names))}")


def kill(job, rng, folder):
    """Kill a command once or twice at a random moment, with all its processes."""
    out, log = folder / "out", folder / "log"
    out.mkdir()
    for _ in range(rng.integers(1, 3)):
        moment = rng.uniform(0, reference(job).seconds)
        code, output, _ = run(lambda: _into(job, out), log, budget=moment)
        if code:
            raise LostError(f"resumed after a kill: {last_line(output)}")
    _finish(job, out, log, f"after a kill at {moment:.2f} s")


def lose_worker(job, rng, folder):
    """Kill one of a command's worker processes, as the system may."""
    out, log = folder / "out", folder / "log"
    out.mkdir()
    patience = int(rng.integers(1, 300))  # polls while two or more workers run

    def watch(pid):
        nonlocal patience
        workers = children(pid)
        patience -= len(workers) > 2  # one is multiprocessing's own
        if patience < 0 and len(workers) > 2:
            os.kill(workers[-1], signal.SIGKILL)
        return patience < 0

    code, output, _ = run(lambda: _into(job, out), log, watch=watch)
    if "Traceback" in output or code not in (0, 1, 2):
        raise LostError(f"code {code}, {last_line(output)}")
    _finish(job, out, log, "after a worker's end")


def fill(job, rng, folder):
    """Let a command fill a disk, then enlarge the disk and resume."""
    disk, log = folder / "disk", folder / "log"
    disk.mkdir()
    room = int(rng.uniform(0.02, 0.95) * reference(job).size)
    with small_disk(disk, room) as grow:
        out = disk / "out"
        size = None if grow else room // 8
        code, output, _ = run(lambda: _into(job, out), log, file_size=size)
        if "Traceback" in output or code not in (0, 1, 2):
            raise LostError(f"room for {room} bytes: code {code}, {last_line(output)}")
        if code and not last_line(output):
            raise LostError(f"room for {room} bytes: code {code} without a message")
        if grow:
            grow()
        out.mkdir(exist_ok=True)
        _finish(job, out, log, f"after a disk with room for {room} bytes")


def _into(job, out):
    """Run a command as the command line does."""
    return cli.run(lambda: JOBS[job](out))
