"""
Time and memory of a CPC training step, compared with the published criterion.

``python code/benchmarks/cpc_step.py`` prints a table and writes
``report/results/speed.json``. The reference is the criterion as published code
computes it, on the same encoder and context network at the sizes of Riviere et
al. (2020): for each step the positive and copies of all negatives are put into
one tensor, multiplied by the prediction and averaged over the channels. Both
are timed in turns in one process, and the fastest turn of each counts, since other load
on the machine can only slow it down. The unit tests also compare ours with the
reference, which is written to be read, not to be fast. Both wait for threads as PyTorch
does by default. Training the preset `small` and embedding are timed in a process that
waits for threads as the package does in use.
"""

import argparse
import gc
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from jtm.constants import SAMPLE_RATE
from jtm.cpc.config import PretrainConfig
from jtm.cpc.loss import draw_negatives
from jtm.cpc.run import build_criterion, loaders
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.files import read_json, write_json
from jtm.models.network import build_model
from jtm.music import audio
from jtm.training.config import make_config
from jtm.training.processes import return_memory

RESULTS = Path(__file__).resolve().parents[2] / "report" / "results"
"""Path to the committed results."""

TURNS = 5
"""Number of times that each step is timed; the fastest counts."""


def published_criterion(z, c, weights, drawn):
    """
    Compute InfoNCE as published code does (van den Oord et al. 2018, eq. 4).

    Parameters
    ----------
    z : torch.Tensor
        Latents ``(batch, frames, z_dim)``.
    c : torch.Tensor
        Contexts ``(batch, frames, c_dim)``.
    weights : torch.Tensor
        Predictor of each step ``(steps, z_dim, c_dim)``; step k predicts k + 1
        frames ahead.
    drawn : torch.Tensor
        Negatives ``(batch, anchors, negatives)``, indices into the latents of
        the batch flattened to ``(batch * frames, z_dim)``.

    Returns
    -------
    list of torch.Tensor
        Loss of each step in nats.
    """
    batch, anchors, _ = drawn.shape
    negatives = z.flatten(0, 1)[drawn.flatten()].view(*drawn.shape, -1)
    losses = []
    for k, weight in enumerate(weights):
        positive = z[:, k + 1 : k + 1 + anchors, None]  # (batch, anchors, 1, z_dim)
        candidates = torch.cat((positive, negatives), dim=2)
        predicted = c[:, :anchors] @ weight.T  # (batch, anchors, z_dim)
        scores = (candidates * predicted[:, :, None]).mean(dim=3)
        first = torch.zeros(batch * anchors, dtype=torch.long, device=z.device)
        losses.append(functional.cross_entropy(scores.flatten(0, 1).float(), first))
    return losses


class Step:
    """
    One training step of a preset on noise, ours or the reference's.

    Parameters
    ----------
    preset : str
        Sizes of the network, the windows and the criterion.
    device : str
        Device that it runs on.
    precision : {"float32", "bf16"}
        Arithmetic of the network and the criterion.
    published : bool
        Whether to use :func:`published_criterion`.
    """

    def __init__(self, preset, device, precision, published=False):
        config = make_config(PretrainConfig, preset, {})
        self.model = build_model(config).to(device)
        self.criterion = build_criterion(config, self.model).to(device)
        self.precision = precision
        self.published = published
        parameters = [*self.model.parameters(), *self.criterion.parameters()]
        self.optimizer = torch.optim.Adam(parameters, config.learning_rate)
        shape = (config.batch_size, 1, config.size_window)
        self.wave = 0.1 * torch.randn(shape, device=device)
        self.recordings = torch.arange(config.batch_size) // 2
        self.generator = torch.Generator()

    @property
    def audio_seconds(self):
        """Seconds of audio in the batch of a step."""
        return self.wave.numel() / SAMPLE_RATE

    def __call__(self, wave=None, recordings=None):
        """
        Perform the step.

        Parameters
        ----------
        wave : torch.Tensor, optional
            Waveform ``(batch, 1, samples)`` to train on instead of noise.
        recordings : torch.Tensor, optional
            Recording of each window ``(batch,)``.
        """
        wave = self.wave if wave is None else wave
        recordings = self.recordings if recordings is None else recordings
        half = self.precision == "bf16"
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=half):
            z, c = self.model(wave)
            loss = self._loss(z, c, recordings)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if wave.is_cuda:
            torch.cuda.synchronize()

    def _loss(self, z, c, recordings):
        self.generator.manual_seed(0)
        ours = self.criterion
        if not self.published:
            return ours(z, c, recordings, self.generator)["loss"]
        n_predicts, n = ours.config.n_predicts, ours.config.negative_sampling_ext
        steps = torch.arange(1, n_predicts + 1)
        anchors = torch.arange(z.shape[1] - n_predicts)
        drawn = draw_negatives(
            recordings, z.shape[1], anchors, steps, n, 0.0, False, self.generator
        )
        weights = ours.predict.weight.unflatten(0, (n_predicts, -1))
        losses = published_criterion(z, c, weights, drawn.to(z.device))
        return torch.stack(losses).mean()


@contextmanager
def peak_memory(device, usage):
    """
    Measure the peak memory of a block of code, over the memory in use before.

    Parameters
    ----------
    device : str
        Device of the memory: that of the process on the CPU (on Linux), or that
        of the GPU.
    usage : dict
        Receives ``bytes``; None if the system does not report it.

    Yields
    ------
    None
    """
    gc.collect()
    return_memory()  # which could be used again unnoticed
    status = Path("/proc/self/status")
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield
        usage["bytes"] = torch.cuda.max_memory_allocated() - before
    elif status.exists():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status(status, "VmRSS")
        yield
        usage["bytes"] = _status(status, "VmHWM") - before
    else:
        yield
        usage["bytes"] = None


def _status(status, name):
    """Read a number of bytes from Linux's status of the process."""
    line = next(x for x in status.read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def fastest(calls, turns=TURNS):
    """
    Time calls in turns.

    Parameters
    ----------
    calls : dict of str to callable
        What to time, by name.
    turns : int
        Number of times that each is called.

    Returns
    -------
    dict of str to float
        Seconds of the fastest call of each.
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak_rate(device, precision):
    """
    Measure the rate of a large matrix product, an upper bound for any step.

    Parameters
    ----------
    device : str
        Device that it runs on.
    precision : {"float32", "bf16"}
        Its arithmetic.

    Returns
    -------
    float
        Floating-point operations per second.
    """
    size = 8192 if device == "cuda" else 2048
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    x = torch.ones(size, size, dtype=dtype, device=device)

    def product():
        x @ x
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / fastest({"": product})[""]


def steps_table(device):
    """
    Time the steps at the reference's sizes, with our criterion and the published one.

    Parameters
    ----------
    device : str
        Device that they run on.

    Returns
    -------
    list of dict
        A row for each: name, precision, seconds, bytes, and the fraction of the
        peak rate that its floating-point operations reach.
    """
    rows, calls = [], {}
    for published, precision in (
        (True, "float32"),
        (False, "float32"),
        (False, "bf16"),
    ):
        step = Step("reference", device, precision, published)
        step()  # the optimiser's state is made in the first step
        memory = {}
        with peak_memory(device, memory):
            step()
        counter = FlopCounterMode(display=False)
        with counter:
            step()
        name = f"{'published' if published else 'ours'}, {precision}"
        calls[name] = step
        rows.append(
            {
                "name": name,
                "device": device,
                "bytes": memory["bytes"],
                "operations": counter.get_total_flops(),
                "precision": precision,
            }
        )
    seconds = fastest(calls)
    for row in rows:
        row["seconds"] = seconds[row["name"]]
        rate = row["operations"] / row["seconds"]
        row["share_of_peak"] = rate / peak_rate(device, row["precision"])
    return rows


def profile(preset, device):
    """
    Time the forward and backward pass of each part of a step.

    Parameters
    ----------
    preset : str
        Sizes of the network, the windows and the criterion.
    device : str
        Device that it runs on.

    Returns
    -------
    dict of str to dict
        Seconds ``forward`` and ``backward`` of each part.
    """
    step = Step(preset, device, "float32")
    step()
    with torch.no_grad():
        z = step.model.encoder(step.wave)
        c = step.model.context(z)[0]
    z, c = z.requires_grad_(), c.requires_grad_()
    parts = {
        "encoder": lambda: step.model.encoder(step.wave),
        "context network": lambda: step.model.context(z)[0],
        "criterion": lambda: step._loss(z, c, step.recordings),
    }
    seconds = {}
    for name, forward in parts.items():
        made = []

        def backward(made=made):
            out = made.pop()
            out.backward(torch.ones_like(out))

        calls = {
            "forward": lambda forward=forward, made=made: made.append(forward()),
            "backward": backward,
        }
        seconds[name] = fastest(calls)
    seconds["optimiser"] = fastest({"forward": step.optimizer.step}) | {"backward": 0.0}
    return seconds


def make_corpus(folder, recordings, seconds):
    """
    Write recordings of noise as audio files and copy them to a store.

    Parameters
    ----------
    folder : str or Path
        Path to the folder of the files.
    recordings, seconds : int
        Number of recordings, and duration of each.

    Returns
    -------
    Store
        The store.
    """
    rng = np.random.default_rng(0)
    for number in range(recordings):
        wave = 0.1 * rng.standard_normal(seconds * SAMPLE_RATE, np.float32)
        audio.write(Path(folder) / f"{number}.wav", wave, SAMPLE_RATE)
    return build_store(open_dataset(folder), progress=False)


def small_preset(device):
    """
    Time the training of the preset `small`, read from a store, and its loader.

    Parameters
    ----------
    device : str
        Device that it runs on.

    Returns
    -------
    dict
        Seconds of audio per second, and the loader's fraction of the time of a step.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = make_corpus(folder, recordings=20, seconds=60)
        config = make_config(PretrainConfig, "small", {"data": folder})
        windows, _ = loaders(config, store)
        windows.device = torch.device(device)
        step = Step("small", device, "float32")
        seconds, waits = [], []
        start = time.perf_counter()
        for batch in windows:
            read = time.perf_counter()
            step(batch.waves[:, None].float() / 32768, batch.recordings)
            end = time.perf_counter()
            seconds.append(end - start)
            waits.append(read - start)
            start = end
    # The first step warms up; the others are divided into turns; the fastest counts.
    turns = np.array_split(np.array(seconds[1:]), TURNS)
    per_step = min(turn.mean() for turn in turns)
    return {
        "small_audio_seconds_per_second": step.audio_seconds / per_step,
        "loader_share": float(np.sum(waits[1:]) / np.sum(seconds[1:])),
    }


def embedding():
    """
    Time the extraction of z and c by the preset `small`, in one process.

    Returns
    -------
    float
        Seconds of audio embedded per second.
    """
    rng = np.random.default_rng(0)
    wave = (3000 * rng.standard_normal(120 * SAMPLE_RATE)).astype(np.int16)
    source = NetworkSource(build_model(make_config(PretrainConfig, "small", {})))

    def embed():
        for _ in source.stream(Audio.of(wave)):
            pass

    return len(wave) / SAMPLE_RATE / fastest({"": embed})[""]


def resources(child):
    """
    Wait for a child process to end.

    Parameters
    ----------
    child : subprocess.Popen
        The process.

    Returns
    -------
    tuple
        Its status, the peak of its resident memory in bytes (on Linux at least what
        this process had when it started it), and its processor time in seconds.
    """
    _, status, usage = os.wait4(child.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return status, usage.ru_maxrss * unit, usage.ru_utime + usage.ru_stime


def machine():
    """
    Describe the machine of the measurements.

    Returns
    -------
    dict
        Processor, GPU, cores, whether there are bf16 instructions, and versions.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name") or platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "bf16_instructions": "avx512_bf16" in flags or "amx_bf16" in flags,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main():
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    text = "only the preset small, whose network changes, not the published sizes"
    parser.add_argument("--small", action="store_true", help=text)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options, result = parser.parse_args(), read_json(RESULTS / "speed.json")
    if not options.small:
        base, ours, half = steps_table(device)
        result |= {
            "speedup_float32": base["seconds"] / ours["seconds"],
            "speedup_bf16": base["seconds"] / half["seconds"],
            "memory_ratio": base["bytes"] and ours["bytes"] / base["bytes"],
            "steps": [base, ours, half],
            "profile": {"reference": profile("reference", device)},
            "machine": machine(),
        }
    # A new process waits for threads as the package sets it on import.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        result["embed_times_real_time"] = pool.submit(embedding).result()
        result |= pool.submit(small_preset, device).result()
        result["profile"]["small"] = pool.submit(profile, "small", device).result()
    result["small_machine"] = machine()
    for row in result["steps"]:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e9:6.2f} GB"
        print(
            f"{row['name']:20}{row['seconds']:8.3f} s {size}"
            f"{100 * row['share_of_peak']:6.0f} % of a matrix product's rate"
        )
    for name, value in result.items():
        if isinstance(value, float):
            print(f"{name:32}{value:8.3f}")
    write_json(RESULTS / "speed.json", result)


if __name__ == "__main__":
    main()
