"""
Looking inside a pretrained network: what z and c hold, and for how long.

Five questions, each answered in numbers, beside the same network untrained and
log-mel spectra:

- *filters*: the pitch each learned band-pass sits on, before and after training;
- *carried*: how well a linear probe of one frame, on held-out works, tells the pitches
  and the instruments that sound (average precision) and the level in decibels (R2);
- *memory*: how well a linear probe of c at time t tells the pitches that sounded at
  t - d. Music repeats itself, so that the present tells something of the past by
  itself: the true notes at t, probed alike, say how much;
- *form*: whether moments of a piece that share notes are alike in c. Means over
  windows of 1.28 s, less the mean of the piece, are compared by cosine, all with all,
  and so are the notes; the score is the correlation of the two matrices over moments
  at least :data:`LAG` windows apart, averaged over pieces;
- *maps*: whether neighbours are of one class. A map always shows something, so beside
  it stands the share of the :data:`NEIGHBOURS` nearest, in all dimensions, that are of
  the same class, and the share that chance would give; neighbours of the same
  recording (or note) are excluded, and so are classes found in one only.

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

from jtm.constants import FRAME_RATE, HOP, SAMPLE_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW, frame_numbers, frame_roll, instrument_roll
from jtm.data.splits import labelled_splits
from jtm.data.store import build_store
from jtm.evaluation import labelled, metrics
from jtm.evaluation.baselines import FFT, HAND_MADE, MARGIN, fingerprint
from jtm.evaluation.features import FrameSelection, select
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.evaluation.tasks import CLIP, CLIP_LEAD
from jtm.files import InputError, atomic, digest, write_json
from jtm.models.pooling import CONSTANT
from jtm.results.records import revision
from jtm.training.checkpoints import build_model, load_model
from jtm.training.processes import best_device
from jtm.training.spectra import FrontEnd, Spectra

REPRESENTATIONS = ("cpc-z", "cpc-c", "random-z", "random-c", "logmel")
"""What is compared; 'random' is the network untrained."""

ROLL = "notes"
"""Name of the true notes, where they are compared like a representation."""

PICTURED = {"maps": ("cpc-z", "cpc-c"), "form": (ROLL, "cpc-c", "random-c", "logmel")}
"""What maps are drawn of, and the self-similarity of one piece."""

# Maximum numbers of recordings of each split, of frames that a probe is fitted and
# selected on, and of points of a map.
RECORDINGS = {"train": 64, "validation": 16, "test": 32}
FRAMES = {"train": 6_000, "validation": 3_000}
POINTS = 600

# Frames are those of the labels, of 10 ms; networks may have longer ones.
EXCERPT = 24 * WINDOW  # frames from a recording's start that probes see: 30.72 s
STEPS = {"train": 8, "validation": 16, "test": 16}  # frames from one seen to the next
DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)  # seconds that memory is probed at
FLOOR = -60.0  # decibels below full scale under which all is silence
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)  # of ridge, beside a mean over frames
# The same of logistic regression.
ROLL_PENALTIES = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
LAG = 4  # windows between moments that are compared: 5.12 s
LONG = 16  # minimum number of windows of a piece whose form is compared: 20.48 s
NEIGHBOURS = 10
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
        JSON file of the answers; arrays for figures go to a file of the same
        name ending in ``.npz``.
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
    arrays = {}
    found = {
        "data": Path(data).resolve().name,
        "checkpoint": digest(checkpoint),
        "revision": revision(),
        "recordings": {split: len(each) for split, each in subject.splits.items()},
        "filters": _filters(subject.model, subject.config),
        **_probe(subject),
        "form": _form(subject, arrays),
        "maps": _note_maps(subject, data, arrays) + _composer_map(subject, arrays),
    }
    out = Path(out)
    with atomic(out.with_suffix(".npz")) as part:
        np.savez_compressed(part, **arrays)
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
        self.kept = {}  # rows by representation, recording and selection
        for index in tqdm(self.steps, "Listening", disable=not progress):
            self._hear(index)

    def _hear(self, index):
        """Keep what is asked of a recording: frames that probes see, and windows."""
        pieces = [self.piece] if index in self.splits["test"] else []
        for name, source in self.sources.items():
            wanted = [ask(name, index) for ask in (self.excerpt, *pieces)]
            read, longest = partial(self.store.read, index), wanted[-1].n_frames
            recording = Audio(read, self.store.lengths[index], longest * source.hop)
            for (layer, which), rows in select(source, recording, wanted).items():
                self.kept[f"{name}-{layer}", index, which] = rows
        for which in (ask("logmel", index) for ask in (self.excerpt, *pieces)):
            frames = self.spectra.read(index, 0, which.n_frames)
            self.kept["logmel", index, which] = which.of(frames, 0)[0]

    def hop(self, name):
        """Return the samples from one frame of a representation to the next."""
        source = self.sources.get(name.partition("-")[0])
        return source.hop if source else HOP

    def excerpt(self, name, index):
        """Select the frames of a recording that probes see."""
        hop = self.hop(name)
        n_frames = min(int(self.store.lengths[index]), EXCERPT * HOP) // hop
        return FrameSelection(self.steps[index] * HOP // hop, n_frames)

    def piece(self, name, index):
        """Select all windows of a test piece."""
        hop = self.hop(name)
        n_frames = int(self.store.lengths[index]) // hop
        return FrameSelection(0, n_frames, WINDOW * HOP // hop)

    def windows(self, name, index, rows=slice(None)):
        """Read features ``(rows, dim)`` of a test piece, averaged over windows."""
        piece = self.piece(name, index)
        if name == ROLL:  # the share of a window that each pitch sounds
            roll = frame_roll(self.notes(index), piece.rows * WINDOW)
            return roll.reshape(piece.rows, WINDOW, -1).mean(axis=1)[rows]
        found = self.kept[name, index, piece][rows].astype(np.float32)
        return found[:, : found.shape[1] // 2]  # means, without deviations

    def frames(self, name, index, rows):
        """Read features ``(rows, dim)`` of frames that probes see."""
        kept = self.kept[name, index, self.excerpt(name, index)]
        return kept[rows].astype(np.float32)

    def probed(self, name, index):
        """
        List the frames of a recording that probes see, and what is true of them.

        Returns rows of :meth:`excerpt` ``(frames,)``, those with all of :data:`DELAYS`
        before them, and the truth ``(frames, ...)`` by question and delay.
        """
        hop, (step, n_frames, *_) = self.hop(name), self.excerpt(name, index)
        numbers = frame_numbers(n_frames, step)
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
                else subject.frames(name, index, rows)
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


def _similarity(rows):
    """
    Compare all moments of a piece with all, ``(moments, dim)``.

    Cosines ``(moments, moments)`` of moments less the mean of the piece; 0 for a moment
    that is just the mean.
    """
    rows = rows - rows.mean(axis=0)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, sizes, out=np.zeros(rows.shape), where=sizes > 1e-9)
    return rows @ rows.T


def _agreement(*matrices):
    """
    Correlate two self-similarities over pairs of moments at least :data:`LAG` apart.

    It is 0 where one of them does not vary.
    """
    pairs = np.triu_indices(len(matrices[0]), LAG)
    values = np.stack([matrix[pairs] for matrix in matrices])
    if values.shape[1] < 2 or (values.std(axis=1) < 1e-9).any():
        return 0.0
    return float(np.corrcoef(values)[0, 1])


def _form(subject, arrays):
    """Compare the self-similarity of pieces in features and in notes."""
    long = [i for i in subject.splits["test"] if subject.piece(ROLL, i).rows >= LONG]
    if not long:
        return None
    found = {name: [] for name in REPRESENTATIONS}
    for index in long:
        truth = _similarity(subject.windows(ROLL, index))
        for name, values in found.items():
            values.append(_agreement(truth, _similarity(subject.windows(name, index))))
    # The piece that is shown is the one in the middle, not the best.
    index = long[np.argsort(found["cpc-c"])[len(long) // 2]]
    for name in PICTURED["form"]:
        matrix = _similarity(subject.windows(name, index))
        arrays[f"form-{name}"] = matrix.astype(np.float16)
    row = subject.store.recordings[index].metadata
    title = ", ".join(filter(None, (row.get("composer"), row.get("composition"))))
    return {
        "pieces": len(long),
        "seconds": WINDOW / FRAME_RATE,
        "shown": title or subject.store.recordings[index].id,
        "agreement": [
            _score(name, np.stack((values, np.ones(len(values))), axis=1), metrics.mean)
            for name, values in found.items()
        ],
    }


def _standardise(points):
    """Scale each dimension to unit variance, but for those that hardly vary."""
    return (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-6)


def _purity(points, classes, groups):
    """
    Compute how often neighbours of other groups (recordings, notes) are of one class.

    Returns the mean share of the :data:`NEIGHBOURS` nearest standardised points
    ``(points, dim)`` that are of the point's own class, and that of all points, which
    is chance; None twice where no class is found in two groups.
    """
    from sklearn.metrics import pairwise_distances

    other = groups[:, None] != groups
    alike = (classes[:, None] == classes) & other
    asked = alike.any(axis=1)
    if not asked.any():
        return None, None
    distance = pairwise_distances(_standardise(points))
    distance[~other] = np.inf
    nearest = np.argsort(distance, axis=1)[:, :NEIGHBOURS]
    shares = [
        np.take_along_axis(alike, rows, axis=1).sum(axis=1)[asked]
        / np.take_along_axis(other, rows, axis=1).sum(axis=1)[asked]
        for rows in (nearest, np.arange(len(points))[None])
    ]
    return tuple(float(share.mean()) for share in shares)


def _project(points):
    """Map points ``(points, dim)`` to the plane ``(points, 2)`` by t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.pipeline import make_pipeline

    pca = PCA(min(50, *points.shape), random_state=0)
    perplexity = min(30, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    return make_pipeline(pca, tsne).fit_transform(_standardise(points))


def _map(of, points, colours, groups, arrays):
    """Score neighbours in all representations, and map those of the network."""
    made = []
    for name in PICTURED["maps"]:
        arrays[f"map-{of}-{name}"] = _project(points[name]).astype(np.float16)
    for colour, (values, labels) in colours.items():
        shares = {name: _purity(points[name], values, groups) for name in points}
        chance = shares["cpc-z"][1]  # depends on classes and groups alone
        if chance is None:
            continue
        arrays[f"map-{of}-{colour}"] = np.asarray(values, np.int16)
        about = {"of": of, "colour": colour, "points": len(values), "labels": labels}
        purities = {name: share for name, (share, _) in shares.items()}
        made.append(about | {"chance": chance, "purity": purities})
    return made


def _note_maps(subject, data, arrays):
    """Map single notes, by instrument and by pitch."""
    try:
        store = labelled.clip_store(data, subject.progress)
    except InputError as error:
        print(f"single notes are left out: {error}")
        return []
    test = [i for i, each in enumerate(store.recordings) if each.split == "test"]
    indices = labelled.evenly(np.array(test, int), POINTS).tolist()
    rows = [store.recordings[index].metadata for index in indices]
    if not rows:
        return []
    points = {name: [] for name in REPRESENTATIONS}
    for index in indices:
        for name, mean in _note_means(subject, store, index).items():
            points[name].append(mean)
    points = {name: np.stack(means) for name, means in points.items()}
    names = [row["instrument"] for row in rows]
    labels, instruments = np.unique(names, return_inverse=True)
    pitches = np.array([int(row["pitch"]) for row in rows])
    colours = {"instrument": (instruments, labels.tolist()), "pitch": (pitches, [])}
    # Clips of one note differ in loudness and length alone.
    return _map("notes", points, colours, 128 * instruments + pitches, arrays)


def _note_means(subject, store, index):
    """Average each representation over a single note, which is heard alone."""
    onset = store.recordings[index].metadata["onset"]
    means = {}
    for name in (*subject.sources, "logmel"):
        ratio = subject.hop(name) // HOP
        lead, size = CLIP_LEAD // ratio, CLIP // ratio
        start = max(0, round(onset * FRAME_RATE) // ratio - lead)
        edges = start * ratio * HOP, (start + lead + size) * ratio * HOP
        wave = store.read(index, *np.minimum(edges, store.lengths[index]))
        wave = np.pad(wave, (0, edges[1] - edges[0] - len(wave)))
        if name == "logmel":
            found = {name: HAND_MADE[name](wave.astype(np.float32) / 32768)}
        else:
            layers = subject.sources[name].whole(Audio.of(wave))
            found = {f"{name}-{layer}": x for layer, x in layers.items()}
        means |= {key: x[lead : lead + size].mean(axis=0) for key, x in found.items()}
    return means


def _composer_map(subject, arrays):
    """Map windows of pieces, by composer."""
    composers = {
        index: subject.store.recordings[index].metadata.get("composer")
        for index in subject.splits["test"]
    }
    windows = [
        (index, row)
        for index, composer in composers.items()
        if composer
        for row in range(subject.piece(ROLL, index).rows)
    ]
    windows = np.array(windows, int).reshape(-1, 2)
    owners, rows = labelled.evenly(windows, POINTS).T
    labels, classes = np.unique([composers[i] for i in owners], return_inverse=True)
    if len(labels) < 2:
        return []
    points = {
        name: np.concatenate(
            [
                subject.windows(name, index, rows[owners == index])
                for index in dict.fromkeys(owners.tolist())
            ]
        )
        for name in REPRESENTATIONS
    }
    return _map(
        "windows", points, {"composer": (classes, labels.tolist())}, owners, arrays
    )
