"""
Looking inside a pretrained network: what z and c hold, and for how long.

Three questions, each answered in numbers, beside the same network untrained and
log-mel spectra:

- *filters*: the pitch each learned band-pass sits on, before and after training;
- *carried*: how well a linear probe of one frame, on held-out works, tells the pitches
  and the instruments that sound (average precision) and the level in decibels (R2);
- *memory*: how well a linear probe of c at time t tells the pitches that sounded at
  t - d. Music repeats itself, so that the present tells something of the past by
  itself: the true notes at t, probed alike, say how much.

Recordings are spread evenly over each split; all probes see the same frames of the
first :data:`EXCERPT` of each. Intervals are 95 % bootstraps over recordings.
"""

import copy
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
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation import labelled, metrics
from jtm.evaluation.baselines import FFT, HAND_MADE, MARGIN, fingerprint
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.files import InputError, digest, write_json
from jtm.models.network import build_model
from jtm.results.records import revision
from jtm.training.checkpoints import load_model
from jtm.training.processes import best_device
from jtm.training.spectra import FrontEnd, Spectra

REPRESENTATIONS = ("cpc-z", "cpc-c", "random-z", "random-c", "logmel")
"""What is compared; 'random' is the network untrained."""

ROLL = "notes"
"""Name of the true notes, where they are compared like a representation."""

# Maximum numbers of recordings of each split, and of frames that a probe is fitted and
# selected on.
RECORDINGS = {"train": 64, "validation": 16, "test": 32}
FRAMES = {"train": 6_000, "validation": 3_000}

# Frames are those of the labels, of 10 ms; networks may have longer ones.
EXCERPT = 24 * WINDOW  # frames from a recording's start that probes see: 30.72 s
STEPS = {"train": 8, "validation": 16, "test": 16}  # frames from one seen to the next
DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)  # seconds that memory is probed at
CONSTANT = 1e-5  # deviation by mean up to which a feature does not vary
LIMIT = np.finfo(np.float16).max  # up to which half precision holds features
FLOOR = -60.0  # decibels below full scale under which all is silence
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)  # of ridge, beside a mean over frames
# The same of logistic regression.
ROLL_PENALTIES = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
IN_TUNE = 0.25  # semitones from the tempered scale within which a filter is in tune


def look(checkpoint, data, out, work="logs/inside", progress=True):
    """
    Answer all questions about a network, and write the answers down.

    Parameters
    ----------
    checkpoint : str or Path
        The pretrained network.
    data : str or Path
        A dataset with labels.
    out : str or Path
        JSON file of the answers.
    work : str or Path
        Where features are kept.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        The answers, as written.

    Raises
    ------
    InputError
        If the checkpoint cannot be read, or the dataset has too few labelled
        recordings.
    """
    subject = _Subject(checkpoint, data, work, progress)
    found = {
        "data": Path(data).resolve().name,
        "checkpoint": digest(checkpoint),
        "revision": revision(),
        "recordings": {split: len(each) for split, each in subject.splits.items()},
        "filters": _filters(subject.model, subject.config),
        **_probe(subject),
    }
    write_json(out, found)
    return found


class _Subject:
    """A network and its untrained twin, recordings, and features of what is asked."""

    def __init__(self, checkpoint, data, work, progress):
        self.progress = progress
        self.model, self.config = load_model(checkpoint)
        # Another random seed, lest it be the very start that training left from.
        seed = self.config.random_seed + 1
        untrained = build_model(replace(self.config, random_seed=seed))
        models = {"cpc": self.model, "random": untrained}
        device = best_device()
        self.sources = {name: NetworkSource(m.to(device)) for name, m in models.items()}
        self.store = build_store(open_dataset(data), progress=progress)
        self.notes = labelled.reader(self.store)
        splits = labelled_splits(self.store.recordings, self.store.lengths)
        self.splits = {
            split: labelled.evenly(np.array(splits[split]), most).tolist()
            for split, most in RECORDINGS.items()
        }
        self.steps = {i: STEPS[split] for split, of in self.splits.items() for i in of}
        front_end = FrontEnd(HAND_MADE["logmel"], MARGIN, fingerprint("logmel"))
        self.spectra = Spectra(self.store, front_end, work)
        self.kept = {}  # rows by representation and recording
        for index in tqdm(self.steps, "Listening", disable=not progress):
            self._hear(index)

    def _hear(self, index):
        """Keep the frames of a recording that probes see."""
        read = partial(self.store.read, index)
        for name, source in self.sources.items():
            n_frames, numbers = self.excerpt(name, index)
            wanted = n_frames * source.hop
            recording = Audio(read, self.store.lengths[index], wanted)
            for layer, frames in source.whole(recording).items():
                rows = np.clip(frames[numbers], -LIMIT, LIMIT)
                self.kept[f"{name}-{layer}", index] = rows.astype(np.float16)
        n_frames, numbers = self.excerpt("logmel", index)
        self.kept["logmel", index] = self.spectra.read(index, 0, n_frames)[numbers]

    def hop(self, name):
        """Return the samples from one frame of a representation to the next."""
        source = self.sources.get(name.partition("-")[0])
        return source.hop if source else HOP

    def excerpt(self, name, index):
        """Count the frames of an excerpt, and number those that probes see."""
        hop = self.hop(name)
        n_frames = min(int(self.store.lengths[index]), EXCERPT * HOP) // hop
        return n_frames, frame_numbers(n_frames, self.steps[index] * HOP // hop)

    def probed(self, name, index):
        """
        List the frames of a recording that probes see, and what is true of them.

        Returns rows of :meth:`excerpt` ``(frames,)``, those with all of :data:`DELAYS`
        before them, and the truth ``(frames, ...)`` by question and delay.
        """
        hop, (n_frames, numbers) = self.hop(name), self.excerpt(name, index)
        ago = {delay: round(delay * SAMPLE_RATE / hop) for delay in DELAYS}
        rows = np.flatnonzero(numbers >= max(ago.values()))
        numbers, notes = numbers[rows], self.notes(index)
        roll = frame_roll(notes, n_frames, hop=hop)
        level = _loudness(self.store.read(index, 0, n_frames * hop), hop)
        truth = {("pitch", delay): roll[numbers - n] for delay, n in ago.items()}
        truth["instrument", 0.0] = instrument_roll(notes, n_frames, hop=hop)[numbers]
        truth["loudness", 0.0] = level[numbers]
        return rows, truth


def _filters(model, config):
    """
    Compute pitch and width, in semitones, of each learned filter, before and after.

    They are the first module with a method ``bands``, which gives centres and widths in
    Hz. ``in_tune`` is the share of them within :data:`IN_TUNE` of the tempered scale
    (half by chance), ``moved`` how far centres went on average. None if none learns.
    """
    found = {}
    for name, each in (("trained", model), ("start", build_model(config))):
        bank = next((m for m in each.modules() if hasattr(m, "bands")), None)
        if bank is None or not [*bank.parameters()]:
            return None
        centre, width = (x.detach().double().cpu().numpy() for x in bank.bands())
        pitch = 69 + 12 * np.log2(centre / 440)
        # The inverse of what SincFilters.bands makes of its semitones.
        semitones = 24 / np.log(2) * np.arcsinh(width / (2 * centre))
        off = np.abs(pitch - np.round(pitch))
        found[name] = {
            "centre": np.round(pitch, 3).tolist(),
            "width": np.round(semitones, 3).tolist(),
            "in_tune": float((off <= IN_TUNE).mean()),
        }
    path = np.subtract(found["trained"]["centre"], found["start"]["centre"])
    return found | {"moved": float(np.abs(path).mean())}


def _probe(subject):
    """Probe frames for what sounds in them and what sounded before."""
    samples, found, parts = {}, [], {}
    past = [("pitch", delay) for delay in DELAYS]
    present = [("instrument", 0.0), ("loudness", 0.0)]
    asked = [(name, *each) for name in REPRESENTATIONS for each in past + present]
    asked += [(ROLL, *each) for each in past]
    for name, what, delay in tqdm(asked, "Probing", disable=not subject.progress):
        if subject.hop(name) not in samples:
            samples[subject.hop(name)] = _sample(subject, name)
        x, y = {}, {}
        for split, each in samples[subject.hop(name)].items():
            y[split] = [truth[what, delay] for _, _, truth in each]
            x[split] = [
                truth["pitch", 0.0].astype(np.float32)
                if name == ROLL
                else subject.kept[name, index][rows].astype(np.float32)
                for index, rows, truth in each
            ]
        about = {"what": what, "delay": delay, "metric": "average precision"}
        about["chance"] = float(np.concatenate(y["test"]).mean())
        fit, of_sum = _roll_parts, metrics.precision_score
        if what == "loudness":
            fit, of_sum = _level_parts, _r_squared
            about |= {"metric": "R2", "chance": 0.0}
        parts[name, what, delay] = fit(x, y)
        found.append(about | _score(name, parts[name, what, delay], of_sum))
    leads = [
        {"over": name, "delay": delay}
        | _lead(parts["cpc-c", "pitch", delay], parts[name, "pitch", delay])
        for name in ("cpc-z", "random-c", ROLL)
        for delay in DELAYS
    ]
    scores = [each for each in found if each["what"] == "pitch"]
    now = [e for e in found if e["delay"] == 0 and e["representation"] != ROLL]
    return {"carried": now, "memory": {"scores": scores, "leads": leads}}


def _sample(subject, name):
    """List each recording's frames and their truth, by split; see probed."""
    sample = {
        split: [(i, *each) for i in of if len((each := subject.probed(name, i))[0])]
        for split, of in subject.splits.items()
    }
    if not all(sample.values()):
        raise InputError(
            f"expected labelled recordings longer than {max(DELAYS):g} s, the longest "
            f"delay, in each of {', '.join(sample)}"
        )
    return sample


def _score(representation, parts, of_sum):
    """Score a representation, with its interval over recordings."""
    low, high = metrics.interval(metrics.bootstrap(parts, None, of_sum))
    value = float(of_sum(parts.sum(axis=0)))
    return {"representation": representation, "value": value, "low": low, "high": high}


def _samples(x, y):
    """Choose evenly the frames that a probe is fitted and selected on."""
    for split, most in FRAMES.items():
        yield [labelled.evenly(np.concatenate(of[split]), most) for of in (x, y)]


def _logistic(train, validation):
    """
    Fit logistic regressions by L-BFGS, one for each output; return what gives logits.

    Penalties are tried from strong to weak, each from the stronger one's end, until the
    average precision on validation is 1 or fell twice; the best is taken.
    """
    x, truth = map(torch.from_numpy, train)
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    varies = variance > (CONSTANT * mean) ** 2  # what never varies is left at zero
    scale = torch.where(varies, variance.rsqrt(), 0.0)
    x, truth = (x - mean) * scale, truth.float()
    linear = torch.nn.Linear(x.shape[1], truth.shape[1])
    torch.nn.init.zeros_(linear.weight)
    # Base rates, half a count away from never and always.
    linear.bias.data = ((truth.sum(dim=0) + 0.5) / (len(truth) + 1)).logit()

    @torch.no_grad()
    def predict(features):
        parts = torch.from_numpy(features).split(4096)
        return np.concatenate([linear((x - mean) * scale).numpy() for x in parts])

    best, state, falls = -1.0, None, 0
    for penalty in ROLL_PENALTIES:
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
    """Minimise the cross-entropies in nats, summed over outputs, and a penalty."""
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=25, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        # Their sum, since the mean of many moves too little for L-BFGS to see that it
        # is not at its end.
        loss = truth.shape[1] * binary_cross_entropy_with_logits(linear(x), truth)
        loss = loss + penalty / 2 * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _roll_parts(x, y):
    """
    Probe for booleans by logistic regression; count what average precision is made of.

    Both hold for each recording of each split an array, ``(rows, dim)`` and ``(rows,
    outputs)``; the counts are ``(test recordings, 2, thresholds)``.
    """
    train, validation = _samples(x, y)
    predict = _logistic(train, validation)
    return metrics.precision_counts(y["test"], [predict(each) for each in x["test"]])[0]


def _level_parts(x, y):
    """
    Probe for a number ``(rows,)`` by ridge regression; sum what R2 is made of.

    The sums, ``(test recordings, 4)``, are of ones, values, squares and squared errors.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation = _samples(x, y)
    train[0] = train[0].astype(np.float64)
    ridges = [Ridge(penalty * len(train[0])) for penalty in PENALTIES]
    fitted = [make_pipeline(StandardScaler(), ridge).fit(*train) for ridge in ridges]
    best = max(fitted, key=lambda each: each.score(*validation))
    pairs = zip(y["test"], map(best.predict, x["test"]), strict=True)
    return np.array([(len(t), t.sum(), t @ t, (t - p) @ (t - p)) for t, p in pairs])


def _r_squared(sums):
    """Compute R2, 0 where there is no variance, from sums over recordings ``(4,)``."""
    n, total, squares, errors = sums
    variance = squares - total**2 / n
    return float(1 - errors / variance) if variance > 1e-9 * squares else 0.0


def _loudness(wave, hop=HOP):
    """
    Compute the level of each frame of samples in int16 at 16 kHz.

    Decibels ``(frames,)`` of the root mean square in 128 ms around the frame's middle,
    0 at full scale and no less than :data:`FLOOR`.
    """
    from librosa.feature import rms

    padded = np.pad(wave / 32768.0, ((FFT - hop) // 2, FFT))
    level = rms(y=padded, frame_length=FFT, hop_length=hop, center=False)[0]
    level = np.maximum(level[: len(wave) // hop], 1e-6)
    return np.maximum(20 * np.log10(level), FLOOR)


def _lead(*counts):
    """Subtract average precisions, with the interval of paired draws of recordings."""
    draws = [metrics.bootstrap(x, None, metrics.precision_score) for x in counts]
    low, high = metrics.interval(draws[0] - draws[1])
    values = [metrics.precision_score(each.sum(axis=0)) for each in counts]
    return {"value": values[0] - values[1], "low": low, "high": high}
