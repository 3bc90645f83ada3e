"""
Analysis of a pretrained network: what z and c encode, and for how long.

Three analyses, each compared with the same network untrained and with log-mel
spectra:

- *filters*: the centre of each learned band-pass filter, before and after training;
- *carried*: how well a linear probe of one frame, on held-out works, predicts the
  active pitches and instruments (average precision) and the level in decibels (R2);
- *memory*: how well a linear probe of c at time t predicts the pitches active at
  t - d. Since music repeats itself, the present alone predicts some of the past; a
  probe of the true notes at t measures how much.

Recordings are spaced evenly over each split; all probes use the same frames of the
first :data:`EXCERPT` of each. Intervals are 95 % bootstraps over tune families, or
over recordings where families are unknown.
"""

import copy
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from jtm.constants import HOP, SAMPLE_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW, frame_numbers, frame_roll, instrument_roll
from jtm.data.store import build_store
from jtm.evaluation import metrics
from jtm.evaluation.baselines import FFT, HAND_MADE, MARGIN, fingerprint
from jtm.evaluation.labelled import Labelled, evenly
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.files import InputError, digest, write_json
from jtm.models.network import build_model
from jtm.results.records import revision
from jtm.training.checkpoints import load_model
from jtm.training.processes import best_device
from jtm.training.spectra import FrontEnd, Spectra

REPRESENTATIONS = ("cpc-z", "cpc-c", "random-z", "random-c", "logmel")
"""Representations to compare; 'random' is the untrained network."""

NOTES = "notes"
"""Name of the true notes when compared with representations."""

# Maximum numbers of recordings of each split, and of frames for fitting and selecting
# a probe.
RECORDINGS = {"train": 64, "validation": 16, "test": 32}
FRAMES = {"train": 6_000, "validation": 3_000}

# Frames are the 10 ms frames of the labels; networks may have longer ones.
EXCERPT = 24 * WINDOW  # frames used from the start of a recording: 30.72 s
STEPS = {"train": 8, "validation": 16, "test": 16}  # spacing of the frames used
DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)  # delays d of *memory* in seconds
CONSTANT = 1e-5  # maximum std / mean of a feature that counts as constant
LIMIT = np.finfo(np.float16).max  # features are clipped to half precision
FLOOR = -60.0  # minimum level in decibels relative to full scale
RIDGE_PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)  # L2 penalties of ridge, per frame
# L2 penalties of logistic regression, relative to a mean over frames.
LOGISTIC_PENALTIES = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
IN_TUNE = 0.25  # semitones from equal temperament within which a filter is in tune


def analyse(checkpoint, data, out, work="logs/inside", progress=True):
    """
    Run all analyses of a network, and write the results.

    Parameters
    ----------
    checkpoint : str or Path
        Path to the pretrained network.
    data : str or Path
        Folder of a labelled dataset.
    out : str or Path
        JSON file for the results.
    work : str or Path
        Folder for cached features.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    dict
        The results, as written.

    Raises
    ------
    InputError
        If the checkpoint cannot be read, or the dataset has too few labelled
        recordings.
    """
    features = _Features(checkpoint, data, work, progress)
    results = {
        "data": Path(data).resolve().name,
        "checkpoint": digest(checkpoint),
        "revision": revision(),
        "recordings": {split: len(of) for split, of in features.splits.items()},
        "filters": _filters(features.model, features.config),
        **_probe(features),
    }
    write_json(out, results)
    return results


class _Features:
    """Features of recordings by a network and by its untrained counterpart."""

    def __init__(self, checkpoint, data, work, progress):
        self.progress = progress
        self.model, self.config = load_model(checkpoint)
        # Another random seed, since this one yields the initial weights of training.
        seed = self.config.random_seed + 1
        untrained = build_model(replace(self.config, random_seed=seed))
        models = {"cpc": self.model, "random": untrained}
        device = best_device()
        self.sources = {name: NetworkSource(m.to(device)) for name, m in models.items()}
        self.store = build_store(open_dataset(data), progress=progress)
        self.labelled = Labelled.of(self.store, "multipitch")
        self.splits = {
            split: evenly(np.array(self.labelled.splits[split]), most).tolist()
            for split, most in RECORDINGS.items()
        }
        self.steps = {i: STEPS[split] for split, of in self.splits.items() for i in of}
        front_end = FrontEnd(HAND_MADE["logmel"], MARGIN, fingerprint("logmel"))
        self.spectra = Spectra(self.store, front_end, work)
        self.hops = {"logmel": HOP, NOTES: HOP}  # in samples, by representation
        for name, source in self.sources.items():
            self.hops |= {f"{name}-{layer}": source.hop for layer in source.layers}
        self.cached = {}  # rows by representation and recording
        for index in tqdm(self.steps, "Computing features", disable=not progress):
            self._compute(index)

    def _compute(self, index):
        """Compute and cache the features of a recording that probes use."""
        read = partial(self.store.read, index)
        for name, source in self.sources.items():
            n_frames, numbers = self.excerpt(source.hop, index)
            n_samples = n_frames * source.hop
            recording = Audio(read, self.store.lengths[index], n_samples)
            for layer, frames in source.whole(recording).items():
                rows = np.clip(frames[numbers], -LIMIT, LIMIT)
                self.cached[f"{name}-{layer}", index] = rows.astype(np.float16)
        n_frames, numbers = self.excerpt(HOP, index)
        self.cached["logmel", index] = self.spectra.read(index, 0, n_frames)[numbers]

    def excerpt(self, hop, index):
        """Return the number of frames of an excerpt, and the indices of those used."""
        n_frames = min(int(self.store.lengths[index]), EXCERPT * HOP) // hop
        return n_frames, frame_numbers(n_frames, self.steps[index] * HOP // hop)

    def samples(self, hop, index):
        """
        Return the frames of a recording that probes use, and their targets.

        Frames are rows of :meth:`excerpt` ``(frames,)`` that start no earlier than the
        longest of :data:`DELAYS`; targets ``(frames, ...)`` are by quantity and delay.
        """
        n_frames, numbers = self.excerpt(hop, index)
        lags = {delay: round(delay * SAMPLE_RATE / hop) for delay in DELAYS}
        rows = np.flatnonzero(numbers >= max(lags.values()))
        numbers, notes = numbers[rows], self.labelled.notes(index)
        roll = frame_roll(notes, n_frames, hop=hop)
        level = _loudness(self.store.read(index, 0, n_frames * hop), hop)
        truth = {("pitch", delay): roll[numbers - lag] for delay, lag in lags.items()}
        truth["instrument", 0.0] = instrument_roll(notes, n_frames, hop=hop)[numbers]
        truth["loudness", 0.0] = level[numbers]
        return rows, truth


def _filters(model, config):
    """
    Compute centre and width of learned filters in semitones, before and after training.

    The filters are the first module with a method ``bands``, which returns centres and
    widths in Hz. ``in_tune`` is the fraction within :data:`IN_TUNE` of equal
    temperament (half by chance), ``moved`` the mean distance that centres moved. Return
    None if no filter is learned.
    """
    banks = {}
    for name, network in (("trained", model), ("start", build_model(config))):
        bank = next((m for m in network.modules() if hasattr(m, "bands")), None)
        if bank is None or not [*bank.parameters()]:
            return None
        centre, width = (x.detach().double().cpu().numpy() for x in bank.bands())
        pitch = 69 + 12 * np.log2(centre / 440)
        # Invert the conversion from semitones to Hz in _SincFilters.bands.
        semitones = 24 / np.log(2) * np.arcsinh(width / (2 * centre))
        deviation = np.abs(pitch - np.round(pitch))
        banks[name] = {
            "centre": np.round(pitch, 3).tolist(),
            "width": np.round(semitones, 3).tolist(),
            "in_tune": float((deviation <= IN_TUNE).mean()),
        }
    shift = np.subtract(banks["trained"]["centre"], banks["start"]["centre"])
    return banks | {"moved": float(np.abs(shift).mean())}


def _probe(features):
    """Probe frames for present and past content."""
    results, values, draws = [], {}, {}
    samples = {h: _samples_by_split(features, h) for h in {*features.hops.values()}}
    past = [("pitch", delay) for delay in DELAYS]
    present = [("instrument", 0.0), ("loudness", 0.0)]
    probes = [(name, *target) for name in REPRESENTATIONS for target in past + present]
    probes += [(NOTES, *target) for target in past]
    for name, what, delay in tqdm(probes, "Probing", disable=not features.progress):
        x, y, own = {}, {}, samples[features.hops[name]]
        for split, recordings in own.items():
            y[split] = [truth[what, delay] for _, _, truth in recordings]
            x[split] = [
                truth["pitch", 0.0].astype(np.float32)
                if name == NOTES
                else features.cached[name, index][rows].astype(np.float32)
                for index, rows, truth in recordings
            ]
        result = {"what": what, "delay": delay, "metric": "average precision"}
        result["chance"] = float(np.concatenate(y["test"]).mean())
        probe, metric = _probe_binary, metrics.precision_score
        if what == "loudness":
            probe, metric = _probe_level, _r_squared
            result |= {"metric": "R2", "chance": 0.0}
        counts = probe(x, y)
        families = [features.labelled.groups[index] for index, *_ in own["test"]]
        key = name, what, delay
        values[key] = float(metric(counts.sum(axis=0)))
        draws[key] = metrics.bootstrap(counts, families, metric)
        result |= {"representation": name, "value": values[key]}
        results.append(result | _interval(draws[key]))
    scores = [each for each in results if each["what"] == "pitch"]
    now = [e for e in results if e["delay"] == 0 and e["representation"] != NOTES]
    return {
        "carried": now,
        "memory": {"scores": scores, "leads": _leads(values, draws)},
    }


def _samples_by_split(features, hop):
    """List recordings, frames and targets by split; see :meth:`_Features.samples`."""
    samples = {
        split: [(i, *rows) for i in of if len((rows := features.samples(hop, i))[0])]
        for split, of in features.splits.items()
    }
    if not all(samples.values()):
        raise InputError(
            f"expected labelled recordings longer than {max(DELAYS):g} s, the longest "
            f"delay, in each of {', '.join(samples)}"
        )
    return samples


def _fitting_frames(x, y):
    """Select evenly spaced frames for fitting and selecting a probe."""
    for split, n_frames in FRAMES.items():
        yield [evenly(np.concatenate(of[split]), n_frames) for of in (x, y)]


def _logistic(train, validation):
    """
    Fit logistic regressions by L-BFGS, one per output; return a function for logits.

    Penalties are tried from strong to weak with warm starts, until the average
    precision on validation is 1 or has fallen twice in a row; the best is selected.
    """
    x, truth = map(torch.from_numpy, train)
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    is_varying = variance > (CONSTANT * mean) ** 2  # constant features become zero
    scale = torch.where(is_varying, variance.rsqrt(), 0.0)
    x, truth = (x - mean) * scale, truth.float()
    linear = torch.nn.Linear(x.shape[1], truth.shape[1])
    torch.nn.init.zeros_(linear.weight)
    # Base rates, smoothed by half a count so that logits are finite.
    linear.bias.data = ((truth.sum(dim=0) + 0.5) / (len(truth) + 1)).logit()

    @torch.no_grad()
    def predict(features):
        chunks = torch.from_numpy(features).split(4096)
        return np.concatenate([linear((x - mean) * scale).numpy() for x in chunks])

    best, state, falls = -1.0, None, 0
    for penalty in LOGISTIC_PENALTIES:
        _minimise(linear, x, truth, penalty)
        value = metrics.average_precision(validation[1], predict(validation[0]))
        falls = falls + 1 if value < best else 0
        if falls == 2:
            break
        if value > best:
            best, state = value, copy.deepcopy(linear.state_dict())
        if best == 1.0:
            break
    linear.load_state_dict(state)
    return predict


def _minimise(linear, x, truth, penalty):
    """Minimise cross-entropy in nats, summed over outputs, plus an L2 penalty."""
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=25, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        # Summed, since the gradient of a mean over many outputs would be below the
        # tolerances of L-BFGS.
        loss = truth.shape[1] * binary_cross_entropy_with_logits(linear(x), truth)
        loss = loss + penalty / 2 * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _probe_binary(x, y):
    """
    Probe for binary targets by logistic regression; count for average precision.

    `x` and `y` hold, by split, an array per recording: ``(rows, dim)`` and ``(rows,
    outputs)``. The counts are ``(test recordings, 2, thresholds)``.
    """
    predict = _logistic(*_fitting_frames(x, y))
    return metrics.precision_counts(y["test"], [predict(each) for each in x["test"]])[0]


def _probe_level(x, y):
    """
    Probe for a real target ``(rows,)`` by ridge regression; compute sums for R2.

    The sums ``(test recordings, 4)`` are of ones, values, squares and squared errors.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation = _fitting_frames(x, y)
    train[0] = train[0].astype(np.float64)
    ridges = [Ridge(penalty * len(train[0])) for penalty in RIDGE_PENALTIES]
    models = [make_pipeline(StandardScaler(), ridge).fit(*train) for ridge in ridges]
    best = max(models, key=lambda model: model.score(*validation))
    pairs = zip(y["test"], map(best.predict, x["test"]), strict=True)
    return np.array([(len(t), t.sum(), t @ t, (t - p) @ (t - p)) for t, p in pairs])


def _r_squared(sums):
    """Compute R2 from sums over recordings ``(4,)``; 0 if there is no variance."""
    n, total, squares, errors = sums
    variance = squares - total**2 / n
    return float(1 - errors / variance) if variance > 1e-9 * squares else 0.0


def _loudness(wave, hop=HOP):
    """
    Compute the level of each frame of int16 samples at 16 kHz.

    Return the RMS level ``(frames,)`` in 128 ms around each frame's centre, in decibels
    relative to full scale, clipped below :data:`FLOOR`.
    """
    from librosa.feature import rms

    padded = np.pad(wave / 32768.0, ((FFT - hop) // 2, FFT))
    level = rms(y=padded, frame_length=FFT, hop_length=hop, center=False)[0]
    level = np.maximum(level[: len(wave) // hop], 1e-6)
    return np.maximum(20 * np.log10(level), FLOOR)


def _interval(draws):
    """Return the ends of an interval as fields of a result."""
    return dict(zip(("low", "high"), metrics.interval(draws), strict=True))


def _leads(values, draws):
    """Compare c with others on the same draws, by representation, target and delay."""
    leads = []
    for over, delay in itertools.product(("cpc-z", "random-c", NOTES), DELAYS):
        ours, theirs = ((name, "pitch", delay) for name in ("cpc-c", over))
        lead = {"over": over, "delay": delay, "value": values[ours] - values[theirs]}
        leads.append(lead | _interval(draws[ours] - draws[theirs]))
    return leads
