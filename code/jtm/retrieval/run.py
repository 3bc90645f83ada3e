"""
The study: train towers, judge them, and write what came of it.

Each run of :data:`jtm.retrieval.config.RUNS` has a folder of checkpoints and a file of
scores; what is there is not done again, so that the same command goes on where it
stopped.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from jtm.constants import N_PITCHES
from jtm.files import read_json, write_json
from jtm.models.augment import vary_magnitudes
from jtm.models.pitchmap import PitchMapEncoder
from jtm.results.records import TESTS
from jtm.retrieval import model, search
from jtm.retrieval.config import DIM, MAIN, RUNS, RetrievalConfig
from jtm.retrieval.data import GRID, SECONDS, Pairs, Recordings
from jtm.retrieval.loss import Matching
from jtm.training.checkpoints import load_model
from jtm.training.loop import Plan, fit

# Learning.
VALIDATED = 480  # validation pairs that are ranked after each epoch
REFITTED, REFIT_BATCHES = 10**6, 90  # epoch, and size, that refits the last projection
CCA_PAIRS = 4000  # training pairs of linear CCA

# Judging.
CANDIDATES = 2000  # among which a passage is looked for
APART = 1.84  # seconds from one to the next, which leaves enough of them
DTW_QUERIES = 40  # of each direction by dynamic time warping, which is slow
DRAWS = 1000  # bootstrap resamples of works
LENGTHS = (2, 5, 10, 20, 30)  # seconds of a recording by which its piece is looked for
FALSE_ALARMS = 0.05  # share that may be named though their piece is not in the index


def train(config, recordings, progress=True):
    """
    Train towers, or go on where their run stopped.

    Parameters
    ----------
    config : RetrievalConfig
        The settings; ``load`` names the pretrained network, if any.
    recordings : Recordings
        The dataset.
    progress : bool
        Show a progress bar.

    Returns
    -------
    towers : model.Towers
        The towers that were best on validation, in evaluation mode.
    facts : dict
        Works, hours of aligned audio, steps and seconds of training.
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

    facts = {"config": asdict(config)}
    module = Matching(towers, config, plan, Pairs(*chosen), facts=facts, score=score)
    fit(module, progress)
    torch.manual_seed(0)
    many = Pairs(*chosen, REFIT_BATCHES)
    many.epoch = REFITTED
    towers.refit((vary_magnitudes(sound), *rest) for sound, *rest in many)
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
    """Choose items at even distances, the first and the last among them."""
    n = min(most, len(items))
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def _ranks(scores, queries=slice(None)):
    """
    Rank the right candidate of each query, from 1, by scores ``(queries, candidates)``.

    The right candidate of query i is ``queries[i]``, by default i; of equal scores it
    comes last.
    """
    right = scores[:, queries].diagonal()[:, None]
    return (scores >= right).sum(1)


def _measures(found):
    """Compute recall at 1, 5 and 25, mean reciprocal and median rank, from ranks."""
    told = {f"recall_at_{k}": float(np.mean(found <= k)) for k in (1, 5, 25)}
    told["mrr"] = float(np.mean(1 / found))
    return told | {"median_rank": float(np.median(found))}


def _summarise(found, works):
    """Compute measures of ranks, each with the ends of its 95 % interval over works."""
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
    """Choose the windows of a split that are judged, and read their pairs."""
    places = _evenly(recordings.places(split, APART), CANDIDATES)
    return places, recordings.pairs(places)


def _both_ways(places, sounds, scores, queries=slice(None)):
    """Summarise how passages are ranked by sounds, and windows by scores."""
    works = np.array([index for index, _ in places])[queries]
    return {
        "audio_to_score": _summarise(_ranks(sounds, queries), works),
        "score_to_audio": _summarise(_ranks(scores, queries), works),
    }


def _judge(compare, recordings, split):
    """Judge in both directions what :meth:`model.Towers.compare` does, or another."""
    places, pairs = _candidates(recordings, split)
    cosines = compare(*pairs)
    return {"candidates": len(places)} | _both_ways(places, cosines, cosines.T)


def _query(recordings, played, index, seconds):
    """
    Choose the start of a recording as a query.

    Return the number of its piece, the start of each window in seconds, and the quarter
    notes of the score at which the query begins and ends.
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
    """Return the rank of a piece, from 1; infinite where no window voted for it."""
    order = [piece for piece, *_ in ranked]
    return order.index(number) + 1 if number in order else np.inf


def _identify_all(towers, recordings, index, split, lengths=LENGTHS, absent=False):
    """
    Identify the piece of each recording of a split, maybe absent from the index.

    Return by seconds that are heard three rows ``(3, recordings)``: the rank of the
    piece; how far the first is ahead, see :func:`jtm.retrieval.search.vote`; and the
    quarter notes by which its place in the piece is off.
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
    """Rank the performance of each score's start among the recordings of a split."""
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
    Choose on validation from which margin on a piece counts as found.

    Return ``threshold``, of :data:`FALSE_ALARMS` where the piece is not in the index,
    and ``confidence``, a logistic regression of being right on the margin.
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
    """Average bins of semitones, and rolls, over the parts of a passage."""
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
    """Judge linear CCA on spectra and rolls, averaged over the parts of a passage."""
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
    """Judge chroma compared by dynamic time warping, on a part of the queries."""
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
        """Compute the negative cost a step of each path ``(queries, candidates)``."""
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
    """Fold rows of 88 pitches to pitch classes of unit length."""
    folded = np.stack([rows[:, k::12].sum(1) for k in range(12)], 1)
    return _unit(folded + 1e-6)


def study(data, out, load=None, only=None, scores=None):
    """
    Train and judge all runs, and write what came of them; what is there is kept.

    Parameters
    ----------
    data : str or Path
        The dataset, such as ``toy/pairs.py`` makes.
    out : str or Path
        Folder for checkpoints, log magnitudes and scores.
    load : str or Path, optional
        Pretrained network, for the runs that start from one.
    only : sequence of str, optional
        Names of runs, "baselines" and "pieces"; all by default.
    scores : str or Path, optional
        Folder of the scores that are played, as the metadata name them, to identify
        pieces in an index of them.

    Returns
    -------
    Path
        File of the scores, ``retrieval.json`` in `out`.
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
"""What is compared with the runs, by name."""

PIECES = "identification.json"
"""Name of the file with the scores of pieces."""


def _identification(recordings, out, scores):
    """Index the scores that are played, choose thresholds, and name pieces."""
    weights, file = out / f"{MAIN}.safetensors", out / search.INDEX.name
    search.build(scores, file, _titles(recordings), weights)
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


def _titles(recordings):
    """Name the pieces that are played."""
    found = {}
    for recording in recordings.store.recordings:
        about = recording.metadata
        parts = about["composition"], about.get("movement")
        title = ", ".join(part for part in parts if part)
        composer = about.get("composer")
        found[about["corpus_path"]] = f"{composer}: {title}" if composer else title
    return found


def _compile(out):
    """Join the scores of the runs that are there in the file ``retrieval.json``."""
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
