"""
Looking inside a network: what it holds, where, and for how long.

Five questions, each with a number, beside the same network untrained and log-mel:

- *filters*: on which pitch each learned band-pass sits, before and after training;
- *carried*: how well a linear probe reads the pitches that sound, the instruments
  that sound (average precision) and the loudness (R2 of decibels) off one frame of z
  or c, on held-out works;
- *memory*: how well a linear probe reads off c at time t what sounded at t - d. Music
  repeats itself, so that what sounds now tells something of the past by itself: the
  true notes at t, probed alike, say how much;
- *form*: whether two moments of a piece that share notes are alike in c. Means over
  windows of 1.28 s, less the mean of the piece, are compared by cosine, all with all,
  and so are the notes; the number is the correlation of both matrices over moments
  at least :data:`LAG` windows apart, averaged over pieces;
- *maps*: whether neighbours are of a kind. A map always shows something, so beside
  it stands the share of the :data:`NEIGHBOURS` nearest, in all dimensions, that are
  of the same class, neighbours of the same recording (or note) not counted, beside
  what chance would give. Classes that only one recording (or note) is of do not
  take part.

Recordings are spread evenly over each split (:data:`RECORDINGS`); probes learn from
the first :data:`EXCERPT` frames of each. Intervals are 95 % bootstraps over
recordings.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jtm.constants import FRAME_RATE, HOP
from jtm.data.rolls import WINDOW, frame_numbers
from jtm.evaluation import metrics, probes
from jtm.evaluation.baselines import FFT
from jtm.evaluation.features import FrameSelection
from jtm.evaluation.probes import TRAIN_FRAMES, VALIDATION_SAMPLES
from jtm.evaluation.protocol import Cell, Judge
from jtm.files import InputError, atomic, write_json
from jtm.results.records import revision
from jtm.training.checkpoints import build_model

REPRESENTATIONS = ("cpc-z", "cpc-c", "random-z", "random-c", "logmel")
"""What is looked into."""

ROLL = "notes"
"""Name of the true notes, where they are probed like a representation."""

RECORDINGS = {"train": 64, "validation": 16, "test": 32}
"""Most recordings of each split."""

EXCERPT = 24 * WINDOW
"""Frames from a recording's start that probes see: 30.72 s."""

DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds that memory is asked about."""

FLOOR = -60.0
"""Decibels below full scale under which all is silence."""

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Strengths of the ridge for loudness, beside a loss averaged over frames."""

LAG = 4
"""Windows between moments of a piece that are compared: 5.12 s."""

LONG = 16
"""Windows that a piece has at least, for its form to be looked at: 20.48 s."""

NEIGHBOURS = 10
"""Nearest neighbours that are looked at."""

POINTS = 600
"""Most points of a map."""

IN_TUNE = 0.25
"""Semitones from the tempered scale within which a filter counts as in tune."""


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
        If the checkpoint or the dataset is not fit for it.
    """
    wanted = ("multipitch", "instrument_activity", "note_instrument")
    bench = Judge(data, checkpoint, work, wanted, (), ("test",), progress)
    if "multipitch" not in bench.labelled:
        raise InputError(f"{data}: has no labelled recordings to look at")
    # The clips have an instrument and a pitch each; both are asked about here.
    notes = bench.labelled.pop("note_instrument", None)
    for task, labelled in bench.labelled.items():
        bench.labelled[task] = excerpt(labelled)
    pieces = _extract(bench, progress)
    arrays = {}
    # Of each representation what it carries; of each but one, and of the notes, the
    # past.
    total = len(REPRESENTATIONS) * (len(bench.labelled) + 1 + len(DELAYS))
    with tqdm(desc="Looking", total=total, unit="probe", disable=not progress) as bar:
        found = {
            "data": bench.data,
            "checkpoint": bench.origin,
            "revision": revision(),
            "recordings": {
                split: len(indices)
                for split, indices in bench.labelled["multipitch"].splits.items()
            },
            "filters": filters(bench.model, bench.config),
            "carried": _carried(bench, bar),
            "memory": _memory(bench, bar),
            "form": _form(bench, pieces, arrays),
            "maps": [
                *_note_maps(bench, notes, arrays, progress),
                *_composer_map(bench, pieces, arrays),
            ],
        }
    out = Path(out)
    with atomic(out.with_suffix(".npz")) as part:
        np.savez_compressed(part, **arrays)
    write_json(out, found)
    return found


def excerpt(labelled):
    """
    Keep the beginnings of some recordings, spread evenly over each split.

    Parameters
    ----------
    labelled : Labelled
        The recordings of a task.

    Returns
    -------
    Labelled
        At most :data:`RECORDINGS` of each split, :data:`EXCERPT` frames each.
    """
    splits = {
        split: spread(labelled.splits[split], most)
        for split, most in RECORDINGS.items()
    }
    return replace(labelled, splits=splits, lengths=dict.fromkeys(splits, EXCERPT))


def spread(items, most):
    """
    Take items evenly.

    Parameters
    ----------
    items : sequence
        To take from.
    most : int
        Most of them.

    Returns
    -------
    list
        All, or `most` of them in their order.
    """
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _extract(bench, progress):
    """Compute all features of recordings in one pass; give takes of whole pieces."""
    wanted, pieces = {}, {}
    for labelled in bench.labelled.values():
        for split, indices in labelled.splits.items():
            for index in indices:
                wanted.setdefault(index, []).extend(labelled.selections(split, index))
    for index in bench.labelled["multipitch"].splits["test"]:
        pieces[index] = FrameSelection(0, int(bench.store.lengths[index]) // HOP)
        wanted[index].append(pieces[index])
    bench.features.compute(bench.store, REPRESENTATIONS, wanted, progress)
    return pieces


def filters(model, config):
    """
    Tell which pitch each learned filter sits on, before and after training.

    Parameters
    ----------
    model : Network
        The trained network.
    config : NetworkConfig
        Its settings.

    Returns
    -------
    dict or None
        For 'start' and 'trained': ``centre`` in MIDI pitch and ``width`` in
        semitones of each filter, ``in_tune``, the share within
        :data:`IN_TUNE` semitones of the tempered scale (half of them by
        chance), and ``moved``, how far centres went on average, in semitones.
        None where the network has no filters that learn.
    """
    bank = getattr(model.encoder, "filters", None)
    if bank is None or not any(True for _ in bank.parameters()):
        return None
    found = {}
    for name, each in (("start", build_model(config)), ("trained", model)):
        centre, width = (
            edge.detach().double().cpu().numpy()
            for edge in each.encoder.filters.bands()
        )
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


def _answer(representation, parts, of_sum, **about):
    """Write down a score with its interval over recordings."""
    low, high = metrics.interval(metrics.bootstrap(parts, None, of_sum))
    value = float(of_sum(parts.sum(axis=0)))
    answer = {"representation": representation, "value": value, "low": low}
    return about | answer | {"high": high}


def _carried(bench, bar):
    """Probe frames for pitch, instrument and loudness."""
    found = []
    named = {"multipitch": "pitch", "instrument_activity": "instrument"}
    for task, labelled in bench.labelled.items():
        truths = [
            labelled.frames(index, labelled.selections("test", index)[-1])
            for index in labelled.splits["test"]
        ]
        chance = float(np.concatenate(truths).mean())
        for name in REPRESENTATIONS:
            made, _ = bench.probe(Cell(task, name, "linear", 1.0, 0))
            bar.update()
            record = next(r for r in made if r.primary and r.split == "test")
            found.append(
                {
                    "what": named[task],
                    "metric": "average precision",
                    "chance": chance,
                    "representation": name,
                    "value": record.value,
                    "low": record.low,
                    "high": record.high,
                }
            )
    labelled = bench.labelled["multipitch"]
    levels = {
        index: loudness(bench.store.read(index, 0, length * HOP))
        for split, indices in labelled.splits.items()
        for index in indices
        for length in [labelled.length(split, index)]
    }
    for name in REPRESENTATIONS:
        x, y = {}, {}
        for split, indices in labelled.splits.items():
            for index in indices:
                take = labelled.selections(split, index)[-1]
                x.setdefault(split, []).append(_rows(bench, name, index, take))
                numbers = frame_numbers(take.n_frames, take.step)
                y.setdefault(split, []).append(levels[index][numbers])
        train, validation = (
            (
                _thin(np.concatenate(x[split]), most),
                _thin(np.concatenate(y[split]), most),
            )
            for split, most in (
                ("train", TRAIN_FRAMES),
                ("validation", VALIDATION_SAMPLES),
            )
        )
        predict = ridge(train, validation)
        parts = np.array(
            [
                explained(truth, predict(features))
                for features, truth in zip(x["test"], y["test"], strict=True)
            ]
        )
        bar.update()
        found.append(
            _answer(name, parts, r_squared, what="loudness", metric="R2", chance=0.0)
        )
    return found


def _rows(bench, representation, index, take, rows=slice(None)):
    """Read features of one recording."""
    return bench.features.rows(representation, bench.store, index, take, rows)


def _thin(rows, most):
    """Take rows evenly."""
    return rows[:: -(-len(rows) // most)]


def loudness(wave):
    """
    Measure the level of each frame.

    Parameters
    ----------
    wave : numpy.ndarray
        Samples ``(samples,)`` in int16 at 16 kHz.

    Returns
    -------
    numpy.ndarray
        Decibels ``(frames,)`` of the root mean square in 128 ms around the
        middle of each frame, 0 at full scale; no less than :data:`FLOOR`.
    """
    n_frames = len(wave) // HOP
    before = (FFT - HOP) // 2
    padded = np.pad((wave / 32768.0) ** 2, (before, FFT))
    sums = np.concatenate(([0.0], np.cumsum(padded)))
    starts = np.arange(n_frames) * HOP
    power = (sums[starts + FFT] - sums[starts]) / FFT
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR)


def ridge(train, validation):
    """
    Fit a linear probe of a number.

    Parameters
    ----------
    train, validation : tuple of numpy.ndarray
        Features ``(samples, dim)`` and the number ``(samples,)``.

    Returns
    -------
    callable
        Gives the number ``(samples,)`` from features, by least squares on
        standardised features with the penalty that validation chose.
    """
    x, y = train[0].astype(np.float64), train[1]
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - centre) / scale
    gram, toward, middle = x.T @ x / len(x), x.T @ (y - y.mean()) / len(x), y.mean()
    best = None
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), toward)

        def predict(features, weights=weights):
            return (features - centre) / scale @ weights + middle

        fit = r_squared(explained(validation[1], predict(validation[0])))
        if best is None or fit > best[0]:
            best = fit, predict
    return best[1]


def explained(truth, estimate):
    """
    Sum what R2 is made of.

    Parameters
    ----------
    truth, estimate : numpy.ndarray
        Numbers ``(samples,)``.

    Returns
    -------
    numpy.ndarray
        Count, sum, sum of squares, and sum of squared errors ``(4,)``.
    """
    errors = np.square(truth - estimate).sum()
    return np.array([len(truth), truth.sum(), np.square(truth).sum(), errors])


def r_squared(sums):
    """
    Give the share of variance explained.

    Parameters
    ----------
    sums : numpy.ndarray
        Sums of :func:`explained` over recordings ``(4,)``.

    Returns
    -------
    float
        R2: 1 for every number right, 0 for guessing their mean, 0 too where
        there is no variance.
    """
    n, total, squares, errors = sums
    variance = squares - total**2 / n
    return float(1 - errors / variance) if variance > 1e-9 * squares else 0.0


def _memory(bench, bar):
    """Probe frames for what sounded some time ago."""
    labelled = bench.labelled["multipitch"]
    found, counts = [], {}
    for name in (*REPRESENTATIONS[:-1], ROLL):
        data = {split: past(bench, split, name) for split in labelled.splits}
        if not all(data.values()):
            return None
        x = {split: [one[0] for one in parts] for split, parts in data.items()}
        for number, delay in enumerate(DELAYS):
            y = {s: [one[1][number] for one in parts] for s, parts in data.items()}
            sets = [
                (
                    _thin(np.concatenate(x[split]), most),
                    _thin(np.concatenate(y[split]), most),
                )
                for split, most in (
                    ("train", TRAIN_FRAMES),
                    ("validation", VALIDATION_SAMPLES),
                )
            ]
            predict, _ = probes.fit("linear", *sets, sets[0][1].shape[1:])
            scores = [predict(features) for features in x["test"]]
            parts, _ = metrics.precision_counts(y["test"], scores)
            counts[name, delay] = parts
            bar.update()
            found.append(_answer(name, parts, metrics.precision_score, delay=delay))
    leads = [
        lead(counts["cpc-c", delay], counts[name, delay])
        | {"over": name, "delay": delay}
        for name in ("cpc-z", "random-c", ROLL)
        for delay in DELAYS
    ]
    return {"scores": found, "leads": leads}


def lead(ours, other):
    """
    Compare two average precisions on the same recordings.

    Parameters
    ----------
    ours, other : numpy.ndarray
        Counts ``(recordings, 2, thresholds)`` of
        :func:`jtm.evaluation.metrics.precision_counts`.

    Returns
    -------
    dict
        ``value``, the difference, and the ends of its interval, ``low`` and
        ``high``, from the same draws of recordings for both.
    """
    draws = [
        metrics.bootstrap(each, None, metrics.precision_score) for each in (ours, other)
    ]
    low, high = metrics.interval(draws[0] - draws[1])
    values = [metrics.precision_score(each.sum(axis=0)) for each in (ours, other)]
    return {"value": values[0] - values[1], "low": low, "high": high}


def past(bench, split, representation):
    """
    Pair frames with what sounds in them and sounded before.

    Parameters
    ----------
    bench : Judge
        The recordings, with features computed.
    split : str
        Which of them; those that are no longer than the longest of
        :data:`DELAYS` are left out.
    representation : str
        One of :data:`REPRESENTATIONS`, or :data:`ROLL`.

    Returns
    -------
    list of tuple
        Of each recording the features ``(frames, dim)``, float32, and the notes
        some time before, ``(delays, frames, 88)``, booleans. The frames are the
        same for all delays: those with all of them before.
    """
    labelled = bench.labelled["multipitch"]
    delays = np.round(np.array(DELAYS) * FRAME_RATE).astype(int)
    made = []
    for index in labelled.splits[split]:
        take = labelled.selections(split, index)[-1]
        numbers = frame_numbers(take.n_frames, take.step)
        rows = np.flatnonzero(numbers >= delays.max())
        if not len(rows):
            continue
        roll = labelled.rolls(index, take.n_frames)
        if representation == ROLL:
            features = roll[numbers[rows]].astype(np.float32)
        else:
            features = _rows(bench, representation, index, take, rows)
        made.append((features, roll[numbers[rows] - delays[:, None]]))
    return made


def similarity(rows):
    """
    Compare all moments of a piece with all.

    Parameters
    ----------
    rows : numpy.ndarray
        Features ``(moments, dim)``.

    Returns
    -------
    numpy.ndarray
        Cosines ``(moments, moments)`` of what sets each moment apart from the
        mean of the piece; 0 for a moment that is just the mean.
    """
    rows = rows - rows.mean(axis=0)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, sizes, out=np.zeros(rows.shape), where=sizes > 1e-9)
    return rows @ rows.T


def agreement(one, other):
    """
    Correlate two matrices of similarity away from their diagonals.

    Parameters
    ----------
    one, other : numpy.ndarray
        Matrices ``(moments, moments)``.

    Returns
    -------
    float
        Pearson's correlation over pairs of moments at least :data:`LAG` apart; 0
        where one of them does not vary.
    """
    pairs = np.triu_indices(len(one), LAG)
    values = np.stack((one[pairs], other[pairs]))
    if values.shape[1] < 2 or (values.std(axis=1) < 1e-9).any():
        return 0.0
    return float(np.corrcoef(values)[0, 1])


def _form(bench, pieces, arrays):
    """Compare how pieces are alike to themselves, in features and in notes."""
    labelled = bench.labelled["multipitch"]
    long = {i: take for i, take in pieces.items() if take.rows >= LONG}
    if not long:
        return None
    found = {name: [] for name in REPRESENTATIONS}
    for index, take in long.items():
        truth = similarity(_window_roll(labelled, index, take))
        for name in REPRESENTATIONS:
            rows = _means(_rows(bench, name, index, take))
            found[name].append(agreement(truth, similarity(rows)))
    answers = [
        _answer(name, np.stack((values, np.ones(len(values))), axis=1), metrics.mean)
        for name, values in found.items()
    ]
    # The piece that is shown is the one in the middle, not the best.
    order = np.argsort(found["cpc-c"])
    index = [*long][order[len(order) // 2]]
    take = long[index]
    arrays[f"form-{ROLL}"] = similarity(_window_roll(labelled, index, take))
    for name in REPRESENTATIONS:
        arrays[f"form-{name}"] = similarity(_means(_rows(bench, name, index, take)))
    for name in (ROLL, *REPRESENTATIONS):
        arrays[f"form-{name}"] = arrays[f"form-{name}"].astype(np.float16)
    row = bench.store.recordings[index].metadata
    title = ", ".join(filter(None, (row.get("composer"), row.get("composition"))))
    return {
        "pieces": len(long),
        "seconds": WINDOW / FRAME_RATE,
        "shown": title or bench.store.recordings[index].id,
        "agreement": answers,
    }


def _window_roll(labelled, index, take):
    """Give the share of each window that each pitch sounds."""
    roll = labelled.rolls(index, take.rows * WINDOW)
    return roll.reshape(take.rows, WINDOW, -1).mean(axis=1)


def _means(rows):
    """Keep the means of windows, not their deviations."""
    return rows[:, : rows.shape[1] // 2]


def purity(points, classes, groups):
    """
    Tell how much alike neighbours are.

    Parameters
    ----------
    points : numpy.ndarray
        Features ``(points, dim)``; they are standardised.
    classes, groups : numpy.ndarray
        Class of each point, and the recording or note it comes from,
        ``(points,)``.

    Returns
    -------
    purity : float or None
        Mean share of the :data:`NEIGHBOURS` nearest points of other groups that
        are of the point's own class; of points whose class is found in other
        groups at all. None where there is no such point.
    chance : float or None
        Mean share of all points of other groups that are.
    """
    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-6)
    squares = np.square(points).sum(axis=1)
    distance = squares[:, None] + squares - 2 * points @ points.T
    other = groups[:, None] != groups
    alike = (classes[:, None] == classes) & other
    distance[~other] = np.inf
    asked = alike.any(axis=1)
    if not asked.any():
        return None, None
    nearest = np.argsort(distance[asked], axis=1)[:, :NEIGHBOURS]
    reached = np.take_along_axis(other[asked], nearest, axis=1)
    hits = np.take_along_axis(alike[asked], nearest, axis=1)
    share = hits.sum(axis=1) / reached.sum(axis=1)
    chance = alike[asked].sum(axis=1) / other[asked].sum(axis=1)
    return float(share.mean()), float(chance.mean())


def project(points):
    """
    Draw two maps of points.

    Parameters
    ----------
    points : numpy.ndarray
        Features ``(points, dim)``; they are standardised.

    Returns
    -------
    pca : numpy.ndarray
        Places ``(points, 2)``: the first two principal components.
    tsne : numpy.ndarray
        Places ``(points, 2)``: t-SNE (van der Maaten and Hinton 2008) of the
        first 50 components.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-6)
    most = min(50, *points.shape)
    components = PCA(most, random_state=0).fit_transform(points)
    perplexity = min(30, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    return components[:, :2], tsne.fit_transform(components)


def _map(of, points, colours, groups, arrays):
    """Judge neighbours in all representations, and draw maps of ours."""
    made = []
    for name in ("cpc-z", "cpc-c"):
        places = zip(("pca", "tsne"), project(points[name]), strict=True)
        for kind, place in places:
            arrays[f"map-{of}-{name}-{kind}"] = place.astype(np.float16)
    for colour, (values, labels) in colours.items():
        shares = {name: purity(points[name], values, groups) for name in points}
        chance = shares["cpc-z"][1]  # depends on classes and groups alone
        if chance is None:
            continue
        arrays[f"map-{of}-{colour}"] = np.asarray(values, np.int16)
        made.append(
            {
                "of": of,
                "colour": colour,
                "points": len(values),
                "labels": labels,
                "chance": chance,
                "purity": {name: share for name, (share, _) in shares.items()},
            }
        )
    return made


def _note_maps(bench, labelled, arrays, progress):
    """Map single notes, by instrument and by pitch."""
    if labelled is None:  # the dataset has none
        return []
    indices = spread(labelled.splits["test"], POINTS)
    wanted = {index: labelled.selections("test", index) for index in indices}
    bench.features.compute(labelled.store, REPRESENTATIONS, wanted, progress)
    points = {
        name: _means(
            np.concatenate(
                [
                    bench.features.rows(name, labelled.store, index, selection)
                    for index, (selection,) in wanted.items()
                ]
            )
        )
        for name in REPRESENTATIONS
    }
    rows = [labelled.store.recordings[index].metadata for index in indices]
    labels, instruments = np.unique(
        [row["instrument"] for row in rows], return_inverse=True
    )
    colours = {
        "instrument": (instruments, labels.tolist()),
        "pitch": (np.array([int(row["pitch"]) for row in rows]), []),
    }
    _, groups = np.unique([labelled.groups[i] for i in indices], return_inverse=True)
    return _map("notes", points, colours, groups, arrays)


def _composer_map(bench, pieces, arrays):
    """Map windows of pieces, by composer."""
    owners = {
        index: bench.store.recordings[index].metadata.get("composer")
        for index in pieces
    }
    windows = [
        (index, row)
        for index, take in pieces.items()
        if owners[index]
        for row in range(take.rows)
    ]
    windows = np.array(spread(windows, POINTS)).reshape(-1, 2)
    labels, composers = np.unique(
        [owners[index] for index in windows[:, 0]], return_inverse=True
    )
    if len(labels) < 2:
        return []
    points = {}
    for name in REPRESENTATIONS:
        parts = [
            _means(_rows(bench, name, index, pieces[index], windows[mask, 1]))
            for index in dict.fromkeys(windows[:, 0].tolist())
            for mask in [windows[:, 0] == index]
        ]
        points[name] = np.concatenate(parts)
    colours = {"composer": (composers, labels.tolist())}
    return _map("windows", points, colours, windows[:, 0], arrays)
