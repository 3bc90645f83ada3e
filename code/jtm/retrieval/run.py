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
from jtm.retrieval import model
from jtm.retrieval.config import CANDIDATES, DIM, MAIN, RUNS, RetrievalConfig
from jtm.retrieval.data import GRID, SECONDS, Pairs, Recordings
from jtm.retrieval.loss import Matching
from jtm.retrieval.search import (
    HOP_SECONDS,
    INDEX,
    SPEEDS,
    TOLERANCE,
    Index,
    build,
    margin_of,
    vote,
)
from jtm.training.checkpoints import load_model
from jtm.training.loop import Plan, fit

VALIDATED = 480
"""Validation pairs that are ranked after each epoch."""

REFITTED, REFIT_BATCHES = 10**6, 90
"""Number and size of the epoch whose pairs the last projection is learned from."""

APART = 1.84
"""Seconds from one candidate to the next, which leaves enough of them."""

DRAWS = 1000
"""Bootstrap resamples of works."""

LENGTHS = (2, 5, 10, 20, 30)
"""Seconds of a recording by which its piece is looked for."""

FALSE_ALARMS = 0.05
"""Share of recordings that may be named though their piece is not in the index."""

DTW_QUERIES = 40
"""Queries of each direction that dynamic time warping compares, which is slow."""

CCA_PAIRS = 4000
"""Training pairs of linear CCA."""


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
    pairs = Pairs(recordings, heard, config.batch_size, config.random_seed)
    plan = Plan.of(config, gradient_clip=1.0, precision="bf16")
    places = _evenly(recordings.places(recordings.splits["validation"]), VALIDATED)
    held_out = recordings.pairs(places)

    def score(module):
        """Compute the mean reciprocal rank on validation."""
        cosines = _cosines(module.towers, held_out)
        return np.mean(1 / ranks(cosines))

    module = Matching(towers, config, plan, pairs, score=score)
    module.facts |= {"config": asdict(config)}
    fit(module, progress)
    _refit(towers, pairs)
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


def _refit(towers, pairs):
    """Learn the last projection of trained towers again, from many pairs at once."""
    torch.manual_seed(0)
    pairs.epoch, pairs.first_batch, n_batches = REFITTED, 0, pairs.n_batches
    pairs.n_batches = REFIT_BATCHES
    towers.refit((vary_magnitudes(heard), *rest) for heard, *rest in pairs)
    pairs.n_batches = n_batches


def _evenly(items, count):
    """Choose items at even distances."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _cosines(towers, pairs):
    """Compare all windows with all passages ``(windows, passages)``."""
    heard, rolls, cells = pairs
    return towers.embed_sound(heard) @ towers.embed_scores(rolls, cells).T


def ranks(scores):
    """
    Rank the right candidate of each query.

    Parameters
    ----------
    scores : numpy.ndarray
        How well each candidate fits ``(queries, candidates)``, the right one on the
        diagonal.

    Returns
    -------
    numpy.ndarray
        Ranks ``(queries,)`` from 1; of equal scores the right one comes last.
    """
    right = scores.diagonal()[:, None]
    return (scores >= right).sum(1)


def summarise(found, works, seed=0):
    """
    Summarise ranks, with intervals of 95 % over works.

    Parameters
    ----------
    found : numpy.ndarray
        Rank of the right candidate of each query.
    works : sequence of int
        Work of each query.
    seed : int
        Random seed of the bootstrap.

    Returns
    -------
    dict
        Of each measure its value, and the low and high end of its interval.
    """
    measures = {f"recall_at_{k}": lambda r, k=k: np.mean(r <= k) for k in (1, 5, 25)}
    measures |= {"mrr": lambda r: np.mean(1 / r), "median_rank": np.median}
    of_work = [np.flatnonzero(np.asarray(works) == work) for work in np.unique(works)]
    rng = np.random.default_rng(seed)
    draws = [
        found[
            np.concatenate(
                [of_work[i] for i in rng.integers(len(of_work), size=len(of_work))]
            )
        ]
        for _ in range(DRAWS)
    ]
    return {
        name: [
            float(measure(found)),
            *np.percentile([measure(draw) for draw in draws], (2.5, 97.5)).tolist(),
        ]
        for name, measure in measures.items()
    }


def judge(towers, recordings, split):
    """
    Judge towers on pairs of a split, in both directions.

    Parameters
    ----------
    towers : model.Towers
        The towers.
    recordings : Recordings
        The dataset.
    split : str
        Which.

    Returns
    -------
    dict
        ``candidates``, and by direction what :func:`summarise` gives.
    """
    places = _evenly(recordings.places(recordings.splits[split], APART), CANDIDATES)
    return _judged(_cosines(towers, recordings.pairs(places)), places)


def _query(recordings, index, seconds):
    """
    Choose the start of a recording as a query.

    Return the score's path, the start of each window in seconds, and the quarter notes
    of the score at which the query begins and ends.
    """
    own, about = recordings.aligned[index], recordings.store.recordings[index]
    first = GRID * np.ceil(own.first / GRID)
    last = min(first + seconds, own.last) - SECONDS
    starts = np.arange(first, max(last, first) + 1e-6, HOP_SECONDS)
    beats = own.beats(np.array((first, starts[-1] + SECONDS)))
    beats += float(about.metadata["first_beat"])
    return about.metadata["corpus_path"], starts, beats


def _embed(towers, recordings, index, starts):
    """Embed the windows of a query."""
    return towers.embed_sound(
        np.stack([recordings.window(index, start) for start in starts])
    )


def identify_all(towers, recordings, index, split, lengths=LENGTHS, absent=False):
    """
    Identify the piece of each recording of a split.

    Parameters
    ----------
    towers : model.Towers
        The towers.
    recordings : Recordings
        The dataset.
    index : jtm.retrieval.search.Index
        Where to look.
    split : str
        Which.
    lengths : sequence of int
        Seconds of each that are heard.
    absent : bool
        Leave the piece that is played out of the index.

    Returns
    -------
    dict of int to numpy.ndarray
        By seconds, three rows ``(3, recordings)``: the rank of the piece, infinite
        where no window voted for it; how far the first is ahead, see
        :func:`jtm.retrieval.search.margin_of`; and the quarter notes by which its
        place in the piece is off.
    """
    numbers = {about["file"]: k for k, about in enumerate(index.pieces)}
    found = {seconds: [] for seconds in lengths}
    for played in recordings.splits[split]:
        path, starts, beats = _query(recordings, played, max(lengths))
        at = starts + SECONDS / 2
        known = index.without([numbers[path]]) if absent else index
        near = known.nearest(_embed(towers, recordings, played, starts))
        owners, middles = known.owners[near], known.middles[near]
        for seconds in lengths:
            n = np.count_nonzero(at <= at[0] + max(0, seconds - SECONDS) + 1e-6)
            ranked = vote(at[:n], owners[:n], middles[:n])
            order = [piece for piece, *_ in ranked]
            rank, error = np.inf, np.nan
            if numbers[path] in order:
                rank = order.index(numbers[path])
                _, _, start, speed, _ = ranked[rank]
                error = start + speed * (at[0] - SECONDS / 2) - beats[0]
            margin = margin_of([votes for _, votes, *_ in ranked], n)
            found[seconds].append((rank + 1, margin, error))
    return {seconds: np.array(rows).T for seconds, rows in found.items()}


def retrieve_all(towers, recordings, index, split, seconds):
    """
    Find the performance of each score among the recordings of a split.

    Parameters
    ----------
    towers, recordings, index, split, seconds : object
        As for :func:`identify_all`; so much of each score is looked for.

    Returns
    -------
    numpy.ndarray
        Rank of the recording ``(recordings,)``.
    """
    numbers = {about["file"]: k for k, about in enumerate(index.pieces)}
    played = recordings.splits[split]
    starts = [_query(recordings, each, np.inf)[1] for each in played]
    embedded = [
        _embed(towers, recordings, each, own)
        for each, own in zip(played, starts, strict=True)
    ]
    owners = np.repeat(np.arange(len(played)), [len(each) for each in starts])
    places = np.concatenate(starts) + SECONDS / 2
    sounds = Index([], np.concatenate(embedded), owners, places, "")
    sounds.unit = sounds.vectors  # not rounded
    found = []
    for k, each in enumerate(played):
        path, _, beats = _query(recordings, each, seconds)
        middles = index.middles[own := index.owners == numbers[path]]
        within = (middles >= beats[0]) & (middles < beats[1])
        near = sounds.nearest(index.unit[own][within])
        ranked = vote(
            middles[within], owners[near], places[near], 1 / SPEEDS, 2 * TOLERANCE
        )
        order = [recording for recording, *_ in ranked]
        found.append(order.index(k) + 1 if k in order else np.inf)
    return np.array(found)


def calibrate(towers, recordings, index):
    """
    Choose on validation from which margin on a piece counts as found.

    Parameters
    ----------
    towers, recordings, index : object
        As for :func:`identify_all`.

    Returns
    -------
    dict
        ``threshold``, of :data:`FALSE_ALARMS` where the piece is not in the index,
        and ``confidence``, a logistic regression of being right on the margin.
    """
    from sklearn.linear_model import LogisticRegression

    margins, right = [], []
    for absent in (False, True):
        told = identify_all(
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


def _linear_cca(recordings, split):
    """Judge linear CCA on spectra and rolls, averaged over the parts of a passage."""
    from sklearn.cross_decomposition import CCA

    def views(pairs):
        heard, rolls, cells = pairs
        shares = [
            model.segments(torch.as_tensor(lengths), size).numpy()
            for lengths, size in (
                (np.full(len(heard), heard.shape[1]), heard.shape[1]),
                (cells, rolls.shape[3]),
            )
        ]
        bins = (
            heard[..., 2 : 2 + 2 * N_PITCHES].reshape(*heard.shape[:2], -1, 2).mean(3)
        )
        sound = np.einsum("bfp,bfs->bsp", bins, shares[0])
        return sound.reshape(len(bins), -1), np.einsum(
            "bpf,bfs->bsp", rolls[:, 0], shares[1]
        ).reshape(len(bins), -1)

    places = _evenly(recordings.places(recordings.splits["train"], 1.0), CCA_PAIRS)
    fitted = CCA(DIM, max_iter=30, tol=1e-3).fit(*views(recordings.pairs(places)))
    places = _evenly(recordings.places(recordings.splits[split], APART), CANDIDATES)
    sound, score = fitted.transform(*views(recordings.pairs(places)))
    return _judged(_unit(sound) @ _unit(score).T, places)


def _unit(rows):
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chroma_dtw(recordings, split):
    """Judge chroma compared by dynamic time warping, on a part of the queries."""
    from librosa.sequence import dtw

    places = _evenly(recordings.places(recordings.splits[split], APART), CANDIDATES)
    heard, rolls, cells = recordings.pairs(places)
    power = np.expm1(18 * heard[:, ::2]) ** 0.5  # magnitudes, every 80 ms
    sounds = [_chroma(each) for each in power[..., 2 : 2 + 2 * N_PITCHES : 2]]
    written = [
        _chroma(roll[0, :, : max(2, round(n))].T)
        for roll, n in zip(rolls, cells, strict=True)
    ]
    chosen = _evenly(range(len(places)), DTW_QUERIES)
    judged = {"candidates": len(places), "queries": len(chosen)}
    for name, first, second in (
        ("audio_to_score", sounds, written),
        ("score_to_audio", written, sounds),
    ):
        found = []
        for k in chosen:
            costs = [
                dtw(C=1 - first[k] @ other.T, backtrack=False)[-1, -1]
                / (len(first[k]) + len(other))
                for other in second
            ]
            found.append(np.sum(np.array(costs) <= costs[k]))
        works = [places[k][0] for k in chosen]
        judged[name] = summarise(np.array(found), works)
    return judged


def _chroma(rows):
    """Fold rows of 88 pitches to pitch classes of unit length."""
    folded = np.stack([rows[:, k::12].sum(1) for k in range(12)], 1)
    return _unit(folded + 1e-6)


def chance(n_candidates):
    """
    Compute what chance scores.

    Parameters
    ----------
    n_candidates : int
        Number of candidates.

    Returns
    -------
    dict
        Measures as those of :func:`summarise`, without intervals.
    """
    every = np.arange(1, n_candidates + 1)
    found = {f"recall_at_{k}": k / n_candidates for k in (1, 5, 25)}
    return found | {"mrr": np.mean(1 / every), "median_rank": np.median(every)}


def _judged(cosines, places):
    """Summarise both directions."""
    works = [index for index, _ in places]
    return {
        "candidates": len(places),
        "audio_to_score": summarise(ranks(cosines), works),
        "score_to_audio": summarise(ranks(cosines.T), works),
    }


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
        facts |= {split: judge(towers, recordings, split) for split in TESTS}
        model.save(out / f"{name}.safetensors", towers, {"run": name})
        write_json(file, facts)
    for name, function in BASELINES.items():
        file = out / f"{name}.json"
        if not file.exists() and (not only or "baselines" in only):
            write_json(file, {s: function(recordings, s) for s in TESTS})
    if scores and not (out / PIECES).exists() and (not only or "pieces" in only):
        write_json(out / PIECES, _identification(recordings, out, scores))
    return compile_scores(out)


BASELINES = {"linear-cca": _linear_cca, "chroma-dtw": _chroma_dtw}
"""What is compared with the runs, by name."""

PIECES = "identification.json"
"""Name of the file with the scores of pieces."""


def _identification(recordings, out, scores):
    """Index the scores that are played, choose thresholds, and name pieces."""
    weights, file = Path(out) / f"{MAIN}.safetensors", Path(out) / INDEX.name
    build(scores, file, _titles(recordings), weights)
    (towers, facts, _), index = model.load(weights), Index.load(file)
    facts |= calibrate(towers, recordings, index)
    model.save(weights, towers, facts)
    found = {"pieces": len(index.pieces), "false_alarms": FALSE_ALARMS}
    found["queries"] = len(recordings.splits["test"])
    for split in TESTS:
        found[split] = {}
        judged = [
            identify_all(towers, recordings, index, split, absent=absent)
            for absent in (False, True)
        ]
        for seconds in LENGTHS:
            (rank, margin, error), (_, alarms, _) = (each[seconds] for each in judged)
            told = {f"rank_{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}
            named = margin >= facts["threshold"]
            told["named"] = float(np.mean(named & (rank == 1)))
            told["false_alarms"] = float(np.mean(alarms >= facts["threshold"]))
            told["error"] = float(np.median(np.abs(error[rank == 1])))
            found[split][str(seconds)] = told
    found["performances"] = {
        split: {f"rank_{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}
        for split in TESTS
        for rank in [retrieve_all(towers, recordings, index, split, 20)]
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


def compile_scores(out):
    """
    Join the scores of the runs that are there.

    Parameters
    ----------
    out : str or Path
        The folder given to :func:`study`.

    Returns
    -------
    Path
        ``retrieval.json`` there.
    """
    out = Path(out)
    names = (*RUNS, *BASELINES)
    runs = {n: read_json(p) for n in names if (p := out / f"{n}.json").exists()}
    whole = {"runs": runs, "left": [name for name in names if name not in runs]}
    if MAIN in runs:
        seen, unseen = (runs[MAIN][s]["audio_to_score"] for s in TESTS)
        whole |= {k: seen[k][0] for k in ("recall_at_1", "mrr")}
        whole["recall_at_1_unseen"] = unseen["recall_at_1"][0]
        whole["candidates"] = runs[MAIN]["test"]["candidates"]
        whole["chance"] = chance(whole["candidates"])
    if (out / PIECES).exists():
        whole["identification"] = read_json(out / PIECES)
        whole["identified_20s"] = whole["identification"]["test"]["20"]["rank_1"]
    write_json(out / "retrieval.json", whole)
    return out / "retrieval.json"
