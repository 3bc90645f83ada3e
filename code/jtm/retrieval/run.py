"""
The retrieval study: train towers, evaluate them, and write the results.

Each run of :data:`jtm.retrieval.config.RUNS` has a folder of checkpoints and a file of
scores; finished runs are skipped, so the same command resumes a stopped study.
"""

from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from jtm.constants import N_PITCHES
from jtm.files import InputError, digest, locked, read_json, write_json
from jtm.models.augment import augment_magnitudes
from jtm.models.pitchmap import PitchMapEncoder
from jtm.results.records import TESTS
from jtm.retrieval import model, search
from jtm.retrieval.config import DIM, MAIN, RUNS, RetrievalConfig
from jtm.retrieval.data import GRID, SECONDS, Pairs, Recordings
from jtm.retrieval.loss import Matching
from jtm.training.checkpoints import load_model
from jtm.training.loop import Plan, fit

# Training.
VALIDATED = 480  # validation pairs ranked after each epoch
REFITTED, REFIT_BATCHES = 10**6, 90  # epoch number (its seed) and batches of the refit
CCA_PAIRS = 4000  # training pairs of linear CCA

# Evaluation.
CANDIDATES = 2000  # number of candidates that are ranked
APART = 1.84  # hop between candidate windows in seconds
DTW_QUERIES = 40  # per direction for dynamic time warping, which is slow
DRAWS = 1000  # bootstrap draws of works
LENGTHS = (2, 5, 10, 20, 30)  # query lengths for piece identification in seconds
FALSE_ALARMS = 0.05  # false-alarm rate for pieces not in the index
DELAYS = (0.0, 8.0, 16.0)  # seconds into a recording at which calibrated queries start


def _train(config, recordings, progress=True):
    """
    Train towers, or resume their run.

    Return the towers with the best validation score, in evaluation mode, and facts of
    their training: number of works, hours of aligned audio, training steps and seconds,
    and the best mean reciprocal rank on validation.
    """
    torch.manual_seed(config.random_seed)
    encoder = PitchMapEncoder(config.channels)
    if config.load:
        encoder = load_model(config.load)[0].encoder
    towers = model.Towers(config.towers, encoder)
    training = recordings.splits["train"]
    if config.n_works:
        order = np.random.default_rng(config.random_seed).permutation(len(training))
        training = [training[i] for i in order[: config.n_works]]
    chosen = recordings, training, config.batch_size, config.random_seed
    plan = Plan.of(config, gradient_clip=1.0, precision="bf16")
    windows = _evenly(recordings.windows("validation"), VALIDATED)
    held_out = recordings.pairs(windows)

    def score(module):
        """Compute the mean reciprocal rank on validation."""
        return np.mean(1 / _ranks(module.towers.compare(*held_out)))

    module = Matching(towers, config, plan, Pairs(*chosen), score=score)
    module.metadata["config"] = asdict(config)
    fit(module, progress)
    torch.manual_seed(0)
    batches = Pairs(*chosen, REFIT_BATCHES)
    batches.epoch = REFITTED
    towers.refit((augment_magnitudes(audio), *score) for audio, *score in batches)
    seconds = sum(
        recordings.aligned[i].last - recordings.aligned[i].first for i in training
    )
    return towers.eval(), {
        "works": len(training),
        "hours": round(seconds / 3600, 3),
        "steps": module.history[-1]["step"],
        "training_seconds": round(module.seconds, 1),
        "validation_mrr": max(row.get("score", 0) for row in module.history),
    }


def _evenly(items, number):
    """Select evenly spaced items, including the first and the last."""
    n = min(number, len(items))
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def _ranks(scores, queries=slice(None)):
    """
    Return the rank, from 1, of each query's correct candidate.

    `scores` are ``(queries, candidates)``. The correct candidate of query i is
    ``queries[i]``, by default i; among equal scores it ranks last.
    """
    correct = scores[:, queries].diagonal()[:, None]
    return (scores >= correct).sum(1)


def _metrics(ranks):
    """Compute recall at 1, 5 and 25, mean reciprocal rank and median rank."""
    metrics = {f"recall_at_{k}": float(np.mean(ranks <= k)) for k in (1, 5, 25)}
    metrics["mrr"] = float(np.mean(1 / ranks))
    return metrics | {"median_rank": float(np.median(ranks))}


def _summarise(ranks, works):
    """Compute metrics of ranks, each with its 95 % bootstrap interval over works."""
    of_work = [np.flatnonzero(works == work) for work in np.unique(works)]
    rng, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = rng.integers(len(of_work), size=len(of_work))
        draws.append(_metrics(ranks[np.concatenate([of_work[i] for i in drawn])]))
    summary = {}
    for name, value in _metrics(ranks).items():
        ends = np.percentile([draw[name] for draw in draws], (2.5, 97.5))
        summary[name] = [value, *ends.tolist()]
    return summary


def _candidates(recordings, split):
    """Select the evaluated windows of a split, and read their pairs."""
    windows = _evenly(recordings.windows(split, APART), CANDIDATES)
    return windows, recordings.pairs(windows)


def _both_directions(windows, by_audio, by_score, queries=slice(None)):
    """Summarise retrieval of passages by audio, and of windows by score."""
    works = np.array([index for index, _ in windows])[queries]
    return {
        "audio_to_score": _summarise(_ranks(by_audio, queries), works),
        "score_to_audio": _summarise(_ranks(by_score, queries), works),
    }


def _evaluate(compare, recordings, split):
    """Evaluate `compare`, such as :meth:`model.Towers.compare`, in both directions."""
    windows, pairs = _candidates(recordings, split)
    cosines = compare(*pairs)
    return {"candidates": len(windows)} | _both_directions(windows, cosines, cosines.T)


def _query(recordings, recording, index, seconds, delay=0.0):
    """
    Select a query from a recording, `delay` seconds after its first onset.

    Return the index of its piece, the start of each window in seconds, and the start
    and end of the query in quarter notes of the score.
    """
    aligned = recordings.aligned[recording]
    metadata = recordings.store.recordings[recording].metadata
    first = GRID * np.ceil((aligned.first + delay) / GRID)
    last = min(first + seconds, aligned.last) - SECONDS
    starts = np.arange(first, max(last, first) + 1e-6, search.HOP_SECONDS)
    beats = aligned.beats(np.array((first, starts[-1] + SECONDS)))
    numbers = {piece["file"]: k for k, piece in enumerate(index.pieces)}
    number = numbers[metadata["corpus_path"]]
    return number, starts, beats + float(metadata["first_beat"])


def _embed(towers, recordings, recording, starts):
    """Embed the windows of a query."""
    return towers.embed_audio(
        np.stack([recordings.window(recording, start) for start in starts])
    )


def _rank(ranked, number):
    """Return the rank of a piece, from 1; infinite if no window voted for it."""
    order = [piece for piece, *_ in ranked]
    return order.index(number) + 1 if number in order else np.inf


def _identify_all(
    towers, recordings, index, split, lengths=LENGTHS, absent=False, delays=(0.0,)
):
    """
    Identify the piece of each recording of a split, removed from the index if `absent`.

    A query starts at each of the `delays`, in seconds after the first onset. Return, by
    query length in seconds, three rows ``(3, queries)``: the rank of the piece; the
    margin of the first piece, see :func:`jtm.retrieval.search.margin`; and the position
    error in quarter notes.
    """
    results = {seconds: [] for seconds in lengths}
    for recording, delay in product(recordings.splits[split], delays):
        query = recordings, recording, index, max(lengths), delay
        number, starts, beats = _query(*query)
        times = starts + SECONDS / 2
        known = index.without(number) if absent else index
        near = known.nearest(_embed(towers, recordings, recording, starts))
        owners, middles = known.owners[near], known.middles[near]
        for seconds in lengths:
            n = np.count_nonzero(times <= times[0] + max(0, seconds - SECONDS) + 1e-6)
            ranked = search.vote(times[:n], owners[:n], middles[:n])
            rank, error = _rank(ranked, number), np.nan
            if np.isfinite(rank):
                _, _, start, speed, _ = ranked[rank - 1]
                error = start + speed * (times[0] - SECONDS / 2) - beats[0]
            results[seconds].append((rank, search.margin(ranked, n), error))
    return {seconds: np.array(rows).T for seconds, rows in results.items()}


def _retrieve_all(towers, recordings, index, split, seconds):
    """Rank, for the start of each score, its recording among those of a split."""
    indices = recordings.splits[split]
    starts = [_query(recordings, i, index, np.inf)[1] for i in indices]
    embedded = [
        _embed(towers, recordings, i, times)
        for i, times in zip(indices, starts, strict=True)
    ]
    owners = np.repeat(np.arange(len(indices)), [len(times) for times in starts])
    places = np.concatenate(starts) + SECONDS / 2
    windows = search.Index([], np.concatenate(embedded), owners, places, "")
    windows.unit = windows.vectors  # not rounded
    ranks = []
    for k, i in enumerate(indices):
        number, _, beats = _query(recordings, i, index, seconds)
        middles = index.middles[rows := index.owners == number]
        within = (middles >= beats[0]) & (middles < beats[1])
        near = windows.nearest(index.unit[rows][within])
        lines = owners[near], places[near], 1 / search.SPEEDS, 2 * search.TOLERANCE
        ranks.append(_rank(search.vote(middles[within], *lines), k))
    return np.array(ranks)


def _calibrate(towers, recordings, index):
    """
    Choose on validation the margin threshold above which a piece counts as found.

    Return ``threshold``, above which at most :data:`FALSE_ALARMS` of the queries of 10
    and of 20 s come if their piece is not in the index; and ``confidence``, a logistic
    regression of correctness on the margin.
    """
    from sklearn.linear_model import LogisticRegression

    margins, correct = [], []
    for absent in (False, True):
        results = _identify_all(
            towers, recordings, index, "validation", LENGTHS[2:4], absent, DELAYS
        )
        margins += [margin for _, margin, _ in results.values()]
        correct += [(rank == 1) & (not absent) for rank, *_ in results.values()]
    threshold = max(float(np.quantile(m, 1 - FALSE_ALARMS)) for m in margins[2:])
    facts = {"threshold": round(threshold, 4), "false_alarms": FALSE_ALARMS}
    correct = np.concatenate(correct)
    if correct.any() and not correct.all():
        fitted = LogisticRegression().fit(np.concatenate(margins)[:, None], correct)
        coefficients = float(fitted.intercept_[0]), float(fitted.coef_[0, 0])
        facts["confidence"] = [round(each, 4) for each in coefficients]
    return facts


def _segment_means(magnitudes, rolls, cells):
    """Average semitone bins, and rolls, over the segments of a passage."""
    n, n_frames = magnitudes.shape[:2]
    bins = magnitudes[..., 2 : 2 + 2 * N_PITCHES].reshape(n, n_frames, -1, 2).mean(3)
    lengths = np.full(n, n_frames)
    views = []
    for order, rows, length, size in (
        ("bfp", bins, lengths, n_frames),
        ("bpf", rolls[:, 0], cells, rolls.shape[3]),
    ):
        weights = model.segments(torch.as_tensor(length), size).numpy()
        means = np.einsum(f"{order},bfs->bsp", rows, weights)
        views.append(means.reshape(len(rows), -1))
    return views


def _linear_cca(recordings):
    """Fit linear CCA on spectra and rolls averaged over segments; return its scorer."""
    from sklearn.cross_decomposition import CCA

    pairs = recordings.pairs(_evenly(recordings.windows("train", 1.0), CCA_PAIRS))
    fitted = CCA(DIM, max_iter=30, tol=1e-3).fit(*_segment_means(*pairs))

    def compare(*pairs):
        audio, score = fitted.transform(*_segment_means(*pairs))
        return _unit(audio) @ _unit(score).T

    return partial(_evaluate, compare, recordings)


def _unit(rows):
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chroma_dtw(recordings, split):
    """Evaluate dynamic time warping of chroma, on a subset of the queries."""
    from librosa.sequence import dtw

    windows, (magnitudes, rolls, cells) = _candidates(recordings, split)
    linear = np.expm1(18 * magnitudes[:, ::2]) ** 0.5  # every 80 ms
    audio = [_chroma(window) for window in linear[..., 2 : 2 + 2 * N_PITCHES : 2]]
    scores = [
        _chroma(roll[0, :, : max(2, round(n))].T)
        for roll, n in zip(rolls, cells, strict=True)
    ]
    queries = _evenly(range(len(windows)), DTW_QUERIES)

    def similarities(first, second):
        """Compute negative path costs per step ``(queries, candidates)``."""
        costs = [
            dtw(C=1 - first[k] @ other.T, backtrack=False)[-1, -1]
            / (len(first[k]) + len(other))
            for k in queries
            for other in second
        ]
        return -np.reshape(costs, (len(queries), len(second)))

    both = similarities(audio, scores), similarities(scores, audio)
    counts = {"candidates": len(windows), "queries": len(queries)}
    return counts | _both_directions(windows, *both, queries)


def _chroma(rows):
    """Fold 88 pitches to chroma vectors of unit length."""
    folded = np.stack([rows[:, k::12].sum(1) for k in range(12)], 1)
    return _unit(folded + 1e-6)


def study(data, out, load=None, only=None, scores=None):
    """
    Train and evaluate all runs, and write their results; existing ones are kept.

    Parameters
    ----------
    data : str or Path
        Folder of the dataset, such as the output of ``toy/pairs.py``.
    out : str or Path
        Folder for checkpoints, log magnitudes and results.
    load : str or Path, optional
        Path to a pretrained network, for the runs that start from one.
    only : sequence of str, optional
        Names of runs, "baselines" and "pieces"; all by default.
    scores : str or Path, optional
        Folder of the musical scores, at the paths that the metadata name; needed to
        build an index and evaluate identification.

    Returns
    -------
    Path
        Path to the results, ``retrieval.json`` in `out`.

    Raises
    ------
    InputError
        If a name in `only` is unknown, or needs `load` or `scores`; if a score is
        missing; if `out` holds results on other data or from another network; or if
        another process runs the same run.
    """
    out = Path(out)
    _check_names(only or (), load, scores)
    recordings = Recordings(data, out / "work")
    identifies = scores and "pieces" in (only or ["pieces"])
    identifies = identifies and not (out / PIECES).exists()
    if identifies:
        _check_scores(recordings, scores)
    names = [name for name in RUNS if name in (only or RUNS)]
    if not load:
        names = [name for name in names if "start" not in RUNS[name]]
    pretrained = any("start" in RUNS[name] for name in names)
    _check_sources(out, recordings, load if pretrained else None)
    for name in names:
        file, settings = out / f"{name}.json", dict(RUNS[name])
        start = settings.pop("start", None)
        config = RetrievalConfig(
            **settings, load=str(load) if start else "", path_checkpoint=str(out / name)
        )
        with locked(out / name / ".lock", f"{out / name}: another process runs it"):
            if file.exists():
                continue
            towers, facts = _train(config, recordings)
            facts |= {s: _evaluate(towers.compare, recordings, s) for s in TESTS}
            model.save(out / f"{name}.safetensors", towers, {"run": name})
            write_json(file, facts)
    for name, baseline in BASELINES.items():
        file = out / f"{name}.json"
        if not file.exists() and (not only or "baselines" in only):
            evaluate = baseline(recordings)
            write_json(file, {split: evaluate(split) for split in TESTS})
    if identifies:
        write_json(out / PIECES, _identification(recordings, out, scores))
    return _compile(out)


def _check_names(names, load, scores):
    """Raise InputError if a name is unknown, or what it needs is not given."""
    known = [*RUNS, "baselines", "pieces"]
    for name in names:
        if name not in known:
            raise InputError(f"--only {name}; expected one of {', '.join(known)}")
        if RUNS.get(name, {}).get("start") and not load:
            raise InputError(f"--only {name} needs --load, the network it starts from")
    if "pieces" in names and not scores:
        raise InputError("--only pieces needs --scores, the folder of the scores")


def _check_scores(recordings, scores):
    """Raise InputError if the score of a recording is unknown or missing."""
    for recording in recordings.store.recordings:
        name = recording.metadata.get("corpus_path")
        if not name:
            raise InputError(
                f"{recording.audio}: its metadata name no score; generate a set by "
                "`python toy/pairs.py --out DIR`"
            )
        if not (Path(scores) / name).is_file():
            raise InputError(f"{scores}: no {name}; expected the score of every work")


def _check_sources(out, recordings, load):
    """Record the data and the network of a study; raise InputError for others."""
    file = out / "sources.json"
    sources = read_json(file) if file.exists() else {}
    current = {"data": recordings.store.fingerprint}
    if load:
        current["load"] = digest(load)
    if any(sources.get(key, value) != value for key, value in current.items()):
        raise InputError(
            f"{out}: holds results on other data or from another --load; "
            "choose another --out"
        )
    write_json(file, sources | current)


BASELINES = {
    "linear-cca": _linear_cca,
    "chroma-dtw": lambda recordings: partial(_chroma_dtw, recordings),
}
"""Baselines by name: each takes recordings and returns the evaluation of a split."""

PIECES = "identification.json"
"""File name of the results of piece identification."""


def _identification(recordings, out, scores):
    """Index the musical scores, calibrate thresholds, and evaluate identification."""
    weights, file = out / f"{MAIN}.safetensors", out / search.INDEX.name
    search.build(scores, file, _titles(recordings), weights)
    (towers, facts, _), index = model.load(weights), search.Index.load(file)
    facts |= _calibrate(towers, recordings, index)
    model.save(weights, towers, facts)

    def shares(rank):
        return {f"rank_{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}

    results = {"pieces": len(index.pieces), "false_alarms": FALSE_ALARMS}
    results["queries"] = len(recordings.splits["test"])
    for split in TESTS:
        results[split] = {}
        known, unknown = (
            _identify_all(towers, recordings, index, split, absent=absent)
            for absent in (False, True)
        )
        for seconds, (rank, margin, error) in known.items():
            named = margin >= facts["threshold"]
            alarms = unknown[seconds][1] >= facts["threshold"]
            results[split][str(seconds)] = shares(rank) | {
                "named": float(np.mean(named & (rank == 1))),
                "false_alarms": float(np.mean(alarms)),
                "error": float(np.median(np.abs(error[rank == 1]))),
            }
    results["performances"] = {
        split: shares(_retrieve_all(towers, recordings, index, split, 20))
        for split in TESTS
    }
    return results


TITLES = {
    "chopin/mazurka06-2": "Mazurka Op. 6 No. 2",
    "joplin/maple_leaf_rag": "Maple Leaf Rag",
    "schumann_clara/opus17/movement3": "Piano Trio Op. 17, movement 3",
    "schumann_robert/opus41no1/movement1": "String Quartet Op. 41 No. 1, movement 1",
    "schumann_robert/opus41no1/movement2": "String Quartet Op. 41 No. 1, Scherzo",
    "schumann_robert/opus41no1/movement4": "String Quartet Op. 41 No. 1, Adagio",
    "schumann_robert/opus41no1/movement5": "String Quartet Op. 41 No. 1, Presto",
}
TITLES |= {
    f"schumann_clara/polonaise_op1n{n}": f"Polonaise Op. 1 No. {n}" for n in range(1, 5)
}
"""Titles of works that the metadata call by their file names, by path in the corpus."""


def _titles(recordings):
    """Return the title of each played piece, by its path in the corpus."""
    titles = {}
    for recording in recordings.store.recordings:
        about = recording.metadata
        movement = about.get("movement") or ""
        movement = f"movement {movement}" if movement.isdigit() else movement
        title = ", ".join(part for part in (about["composition"], movement) if part)
        title = TITLES.get(about["corpus_path"].rpartition(".")[0], title)
        composer = about.get("composer")
        titles[about["corpus_path"]] = f"{composer}: {title}" if composer else title
    return titles


def _compile(out):
    """Merge the results of finished runs into ``retrieval.json``."""
    names = (*RUNS, *BASELINES)
    runs = {n: read_json(p) for n in names if (p := out / f"{n}.json").exists()}
    summary = {"runs": runs, "left": [name for name in names if name not in runs]}
    if MAIN in runs:
        seen, unseen = (runs[MAIN][s]["audio_to_score"] for s in TESTS)
        summary |= {k: seen[k][0] for k in ("recall_at_1", "mrr")}
        summary["recall_at_1_unseen"] = unseen["recall_at_1"][0]
        summary["candidates"] = runs[MAIN]["test"]["candidates"]
        summary["chance"] = _metrics(np.arange(1, summary["candidates"] + 1))
    if (out / PIECES).exists():
        summary["identification"] = read_json(out / PIECES)
        summary["identified_20s"] = summary["identification"]["test"]["20"]["rank_1"]
    write_json(out / "retrieval.json", summary)
    return out / "retrieval.json"
