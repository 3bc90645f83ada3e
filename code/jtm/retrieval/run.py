"""
The retrieval study: train towers, evaluate them, and write the results.

Each run of :data:`jtm.retrieval.config.RUNS` has a folder of checkpoints and a file of
scores; finished runs are skipped, so the same command resumes a stopped study.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from jtm.constants import N_PITCHES
from jtm.files import InputError, read_json, write_json
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


def train(config, recordings, progress=True):
    """
    Train towers, or resume their run.

    Parameters
    ----------
    config : RetrievalConfig
        Settings; ``load`` is the path to a pretrained network, if any.
    recordings : Recordings
        The dataset.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    towers : model.Towers
        The towers with the best validation score, in evaluation mode.
    facts : dict
        Number of works, hours of aligned audio, training steps and seconds, and the
        best mean reciprocal rank on validation.
    """
    torch.manual_seed(config.random_seed)
    encoder = PitchMapEncoder(config.channels)
    if config.load:
        encoder = load_model(config.load)[0].encoder
    towers = model.Towers(config.towers, encoder)
    heard = recordings.splits["train"]
    if config.n_works:
        order = np.random.default_rng(config.random_seed).permutation(len(heard))
        heard = [heard[i] for i in order[: config.n_works]]
    chosen = recordings, heard, config.batch_size, config.random_seed
    plan = Plan.of(config, gradient_clip=1.0, precision="bf16")
    places = _evenly(recordings.places("validation"), VALIDATED)
    held_out = recordings.pairs(places)

    def score(module):
        """Compute the mean reciprocal rank on validation."""
        return np.mean(1 / _ranks(module.towers.compare(*held_out)))

    module = Matching(towers, config, plan, Pairs(*chosen), score=score)
    module.metadata["config"] = asdict(config)
    fit(module, progress)
    torch.manual_seed(0)
    many = Pairs(*chosen, REFIT_BATCHES)
    many.epoch = REFITTED
    towers.refit((augment_magnitudes(sound), *rest) for sound, *rest in many)
    seconds = sum(
        recordings.aligned[i].last - recordings.aligned[i].first for i in heard
    )
    return towers.eval(), {
        "works": len(heard),
        "hours": round(seconds / 3600, 3),
        "steps": module.history[-1]["step"],
        "training_seconds": round(module.seconds, 1),
        "validation_mrr": max(row.get("score", 0) for row in module.history),
    }


def _evenly(items, most):
    """Select evenly spaced items, including the first and the last."""
    n = min(most, len(items))
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def _ranks(scores, queries=slice(None)):
    """
    Return the rank, from 1, of each query's correct candidate.

    `scores` are ``(queries, candidates)``. The correct candidate of query i is
    ``queries[i]``, by default i; among equal scores it ranks last.
    """
    right = scores[:, queries].diagonal()[:, None]
    return (scores >= right).sum(1)


def _measures(found):
    """Compute recall at 1, 5 and 25, mean reciprocal rank and median rank."""
    told = {f"recall_at_{k}": float(np.mean(found <= k)) for k in (1, 5, 25)}
    told["mrr"] = float(np.mean(1 / found))
    return told | {"median_rank": float(np.median(found))}


def _summarise(found, works):
    """Compute measures of ranks, each with its 95 % bootstrap interval over works."""
    of_work = [np.flatnonzero(works == work) for work in np.unique(works)]
    rng, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = rng.integers(len(of_work), size=len(of_work))
        draws.append(_measures(found[np.concatenate([of_work[i] for i in drawn])]))
    summary = {}
    for name, value in _measures(found).items():
        ends = np.percentile([each[name] for each in draws], (2.5, 97.5))
        summary[name] = [value, *ends.tolist()]
    return summary


def _candidates(recordings, split):
    """Select the evaluated windows of a split, and read their pairs."""
    places = _evenly(recordings.places(split, APART), CANDIDATES)
    return places, recordings.pairs(places)


def _both_ways(places, sounds, scores, queries=slice(None)):
    """Summarise retrieval of passages by audio, and of windows by score."""
    works = np.array([index for index, _ in places])[queries]
    return {
        "audio_to_score": _summarise(_ranks(sounds, queries), works),
        "score_to_audio": _summarise(_ranks(scores, queries), works),
    }


def _judge(compare, recordings, split):
    """Evaluate `compare`, such as :meth:`model.Towers.compare`, in both directions."""
    places, pairs = _candidates(recordings, split)
    cosines = compare(*pairs)
    return {"candidates": len(places)} | _both_ways(places, cosines, cosines.T)


def _query(recordings, played, index, seconds):
    """
    Select the start of a recording as a query.

    Return the index of its piece, the start of each window in seconds, and the start
    and end of the query in quarter notes of the score.
    """
    own, about = recordings.aligned[played], recordings.store.recordings[played]
    first = GRID * np.ceil(own.first / GRID)
    last = min(first + seconds, own.last) - SECONDS
    starts = np.arange(first, max(last, first) + 1e-6, search.HOP_SECONDS)
    beats = own.beats(np.array((first, starts[-1] + SECONDS)))
    numbers = {piece["file"]: k for k, piece in enumerate(index.pieces)}
    number = numbers[about.metadata["corpus_path"]]
    return number, starts, beats + float(about.metadata["first_beat"])


def _embed(towers, recordings, played, starts):
    """Embed the windows of a query."""
    return towers.embed_sound(
        np.stack([recordings.window(played, start) for start in starts])
    )


def _rank(ranked, number):
    """Return the rank of a piece, from 1; infinite if no window voted for it."""
    order = [piece for piece, *_ in ranked]
    return order.index(number) + 1 if number in order else np.inf


def _identify_all(towers, recordings, index, split, lengths=LENGTHS, absent=False):
    """
    Identify the piece of each recording of a split, removed from the index if `absent`.

    Return, by query length in seconds, three rows ``(3, recordings)``: the rank of the
    piece; the margin of the first piece, see :func:`jtm.retrieval.search.vote`; and the
    position error in quarter notes.
    """
    found = {seconds: [] for seconds in lengths}
    for played in recordings.splits[split]:
        number, starts, beats = _query(recordings, played, index, max(lengths))
        at = starts + SECONDS / 2
        known = index.without([number]) if absent else index
        near = known.nearest(_embed(towers, recordings, played, starts))
        owners, middles = known.owners[near], known.middles[near]
        for seconds in lengths:
            n = np.count_nonzero(at <= at[0] + max(0, seconds - SECONDS) + 1e-6)
            margin, ranked = search.vote(at[:n], owners[:n], middles[:n])
            rank, error = _rank(ranked, number), np.nan
            if np.isfinite(rank):
                _, _, start, speed, _ = ranked[rank - 1]
                error = start + speed * (at[0] - SECONDS / 2) - beats[0]
            found[seconds].append((rank, margin, error))
    return {seconds: np.array(rows).T for seconds, rows in found.items()}


def _retrieve_all(towers, recordings, index, split, seconds):
    """Rank, for the start of each score, its recording among those of a split."""
    played = recordings.splits[split]
    starts = [_query(recordings, each, index, np.inf)[1] for each in played]
    embedded = [
        _embed(towers, recordings, each, own)
        for each, own in zip(played, starts, strict=True)
    ]
    owners = np.repeat(np.arange(len(played)), [len(each) for each in starts])
    places = np.concatenate(starts) + SECONDS / 2
    sounds = search.Index([], np.concatenate(embedded), owners, places, "")
    sounds.unit = sounds.vectors  # not rounded
    found = []
    for k, each in enumerate(played):
        number, _, beats = _query(recordings, each, index, seconds)
        middles = index.middles[own := index.owners == number]
        within = (middles >= beats[0]) & (middles < beats[1])
        near = sounds.nearest(index.unit[own][within])
        lines = owners[near], places[near], 1 / search.SPEEDS, 2 * search.TOLERANCE
        found.append(_rank(search.vote(middles[within], *lines)[1], k))
    return np.array(found)


def _calibrate(towers, recordings, index):
    """
    Choose on validation the margin threshold above which a piece counts as found.

    Return ``threshold``, which has a rate of :data:`FALSE_ALARMS` for pieces not in the
    index, and ``confidence``, a logistic regression of correctness on the margin.
    """
    from sklearn.linear_model import LogisticRegression

    margins, right = [], []
    for absent in (False, True):
        told = _identify_all(
            towers, recordings, index, "validation", LENGTHS[2:4], absent
        )
        margins += [margin for _, margin, _ in told.values()]
        right += [(rank == 1) & (not absent) for rank, *_ in told.values()]
    threshold = float(np.quantile(np.concatenate(margins[2:]), 1 - FALSE_ALARMS))
    facts = {"threshold": round(threshold, 4), "false_alarms": FALSE_ALARMS}
    right = np.concatenate(right)
    if right.any() and not right.all():
        fitted = LogisticRegression().fit(np.concatenate(margins)[:, None], right)
        told = float(fitted.intercept_[0]), float(fitted.coef_[0, 0])
        facts["confidence"] = [round(each, 4) for each in told]
    return facts


def _by_parts(heard, rolls, cells):
    """Average semitone bins, and rolls, over the segments of a passage."""
    bins = heard[..., 2 : 2 + 2 * N_PITCHES].reshape(*heard.shape[:2], -1, 2).mean(3)
    lengths = np.full(len(heard), heard.shape[1])
    views = []
    for order, rows, own, size in (
        ("bfp", bins, lengths, heard.shape[1]),
        ("bpf", rolls[:, 0], cells, rolls.shape[3]),
    ):
        shares = model.segments(torch.as_tensor(own), size).numpy()
        parts = np.einsum(f"{order},bfs->bsp", rows, shares)
        views.append(parts.reshape(len(rows), -1))
    return views


def _linear_cca(recordings, split):
    """Evaluate linear CCA on spectra and rolls averaged over segments."""
    from sklearn.cross_decomposition import CCA

    pairs = recordings.pairs(_evenly(recordings.places("train", 1.0), CCA_PAIRS))
    fitted = CCA(DIM, max_iter=30, tol=1e-3).fit(*_by_parts(*pairs))

    def compare(*pairs):
        sound, score = fitted.transform(*_by_parts(*pairs))
        return _unit(sound) @ _unit(score).T

    return _judge(compare, recordings, split)


def _unit(rows):
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chroma_dtw(recordings, split):
    """Evaluate dynamic time warping of chroma, on a subset of the queries."""
    from librosa.sequence import dtw

    places, (heard, rolls, cells) = _candidates(recordings, split)
    power = np.expm1(18 * heard[:, ::2]) ** 0.5  # magnitudes, every 80 ms
    sounds = [_chroma(each) for each in power[..., 2 : 2 + 2 * N_PITCHES : 2]]
    written = [
        _chroma(roll[0, :, : max(2, round(n))].T)
        for roll, n in zip(rolls, cells, strict=True)
    ]
    queries = _evenly(range(len(places)), DTW_QUERIES)

    def fits(first, second):
        """Compute negative path costs per step ``(queries, candidates)``."""
        costs = [
            dtw(C=1 - first[k] @ other.T, backtrack=False)[-1, -1]
            / (len(first[k]) + len(other))
            for k in queries
            for other in second
        ]
        return -np.reshape(costs, (len(queries), len(second)))

    both = fits(sounds, written), fits(written, sounds)
    judged = {"candidates": len(places), "queries": len(queries)}
    return judged | _both_ways(places, *both, queries)


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
    """
    out = Path(out)
    recordings = Recordings(data, out / "work")
    for name, how in RUNS.items():
        file, how = out / f"{name}.json", dict(how)
        start = how.pop("start", None)
        if file.exists() or name not in (only or RUNS) or (start and not load):
            continue
        config = RetrievalConfig(
            **how, load=str(load) if start else "", path_checkpoint=str(out / name)
        )
        towers, facts = train(config, recordings)
        facts |= {s: _judge(towers.compare, recordings, s) for s in TESTS}
        model.save(out / f"{name}.safetensors", towers, {"run": name})
        write_json(file, facts)
    for name, function in BASELINES.items():
        file = out / f"{name}.json"
        if not file.exists() and (not only or "baselines" in only):
            write_json(file, {s: function(recordings, s) for s in TESTS})
    if scores and not (out / PIECES).exists() and (not only or "pieces" in only):
        write_json(out / PIECES, _identification(recordings, out, scores))
    return _compile(out)


BASELINES = {"linear-cca": _linear_cca, "chroma-dtw": _chroma_dtw}
"""Baselines by name."""

PIECES = "identification.json"
"""File name of the results of piece identification."""


def _identification(recordings, out, scores):
    """Index the musical scores, calibrate thresholds, and evaluate identification."""
    weights, file = out / f"{MAIN}.safetensors", out / search.INDEX.name
    titles = _titles(recordings)
    if lost := [name for name in titles if not (Path(scores) / name).is_file()]:
        raise InputError(f"{scores}: no {lost[0]}, which the recordings are of")
    search.build(scores, file, titles, weights)
    (towers, facts, _), index = model.load(weights), search.Index.load(file)
    facts |= _calibrate(towers, recordings, index)
    model.save(weights, towers, facts)

    def shares(rank):
        return {f"rank_{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}

    found = {"pieces": len(index.pieces), "false_alarms": FALSE_ALARMS}
    found["queries"] = len(recordings.splits["test"])
    for split in TESTS:
        found[split] = {}
        known, unknown = (
            _identify_all(towers, recordings, index, split, absent=absent)
            for absent in (False, True)
        )
        for seconds, (rank, margin, error) in known.items():
            named = margin >= facts["threshold"]
            alarms = unknown[seconds][1] >= facts["threshold"]
            found[split][str(seconds)] = shares(rank) | {
                "named": float(np.mean(named & (rank == 1))),
                "false_alarms": float(np.mean(alarms)),
                "error": float(np.median(np.abs(error[rank == 1]))),
            }
    found["performances"] = {
        split: shares(_retrieve_all(towers, recordings, index, split, 20))
        for split in TESTS
    }
    return found


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
    found = {}
    for recording in recordings.store.recordings:
        about = recording.metadata
        movement = about.get("movement") or ""
        movement = f"movement {movement}" if movement.isdigit() else movement
        title = ", ".join(part for part in (about["composition"], movement) if part)
        title = TITLES.get(about["corpus_path"].rpartition(".")[0], title)
        composer = about.get("composer")
        found[about["corpus_path"]] = f"{composer}: {title}" if composer else title
    return found


def _compile(out):
    """Merge the results of finished runs into ``retrieval.json``."""
    names = (*RUNS, *BASELINES)
    runs = {n: read_json(p) for n in names if (p := out / f"{n}.json").exists()}
    whole = {"runs": runs, "left": [name for name in names if name not in runs]}
    if MAIN in runs:
        seen, unseen = (runs[MAIN][s]["audio_to_score"] for s in TESTS)
        whole |= {k: seen[k][0] for k in ("recall_at_1", "mrr")}
        whole["recall_at_1_unseen"] = unseen["recall_at_1"][0]
        whole["candidates"] = runs[MAIN]["test"]["candidates"]
        whole["chance"] = _measures(np.arange(1, whole["candidates"] + 1))
    if (out / PIECES).exists():
        whole["identification"] = read_json(out / PIECES)
        whole["identified_20s"] = whole["identification"]["test"]["20"]["rank_1"]
    write_json(out / "retrieval.json", whole)
    return out / "retrieval.json"
