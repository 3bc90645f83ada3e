"""
``main.py --supervised``: train one task with all labels and score it on test.

It is one run of the benchmark with all labels, from the command line. With ``--load``
the network of a checkpoint is fine-tuned, or frozen with ``--frozen``. Without
``--load``, the network is trained from scratch. The best epoch on validation is scored.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from jtm.constants import FRAME_RATE, HOP
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.evaluation.families import Family
from jtm.evaluation.labelled import Labelled as Recordings
from jtm.evaluation.labelled import clip_store, labelled_recordings
from jtm.evaluation.tasks import TASKS
from jtm.files import InputError, digest, read_json, write_json
from jtm.models.encoder import HarmonicStack
from jtm.models.heads import add_heads
from jtm.results.records import TESTS
from jtm.results.tables import in_words
from jtm.training.checkpoints import initial_model
from jtm.training.folder import RECORD, check, claim
from jtm.training.loop import Plan, fit
from jtm.training.spectra import Spectra, harmonic_front_end


def run(config, progress=True, n_recordings=0):
    """
    Train and score one task, or resume a stopped run.

    Parameters
    ----------
    config : SupervisedConfig
        The settings; ``data`` and ``path_checkpoint`` are set.
    progress : bool
        Whether to show progress bars.
    n_recordings : int
        Number of labelled recordings to train on, drawn by the random seed; 0 takes
        all. An epoch has as many steps as with all.

    Returns
    -------
    list of dict
        The scores on test, which are also saved in ``record.json`` of the folder.

    Raises
    ------
    InputError
        If the data or a checkpoint is unsuitable.
    StoppedError
        If the user stopped the run; everything is saved.
    """
    folder, task = Path(config.path_checkpoint), config.task
    model, config = initial_model(config)
    check(config)  # fast checks first, and all of them before anything is written
    origin = digest(config.load) if config.load else ""
    if TASKS[task].unit == "clips":
        store = clip_store(config.data, progress)
    else:
        store = build_store(open_dataset(config.data), progress=progress)
    labelled = Recordings.of(store, task)
    family = Family({task: labelled}, model.encoder.hop // HOP)
    size = _window(config, family)
    spans = family.spans("train")
    if n_recordings:
        drawn = labelled_recordings(labelled, n_recordings, config.random_seed)
        spans = list(map(tuple, drawn.tolist()))
    indices = [sorted({i for i, *_ in s}) for s in (spans, family.spans("validation"))]
    tests = {i for split in TESTS for i in labelled.splits.get(split, ())}
    family.read_labels({*indices[0], *indices[1], *tests})
    data = store.summary(*indices, sorted(tests))
    with claim(config, data, origin):
        file = folder / RECORD
        if file.exists():
            print(f"{folder}: finished at epoch {config.n_epoch}; nothing left to do")
            scores = read_json(file)["scores"]
        else:
            cache = folder / "magnitudes"  # 145 MB per hour of audio, deleted later
            family.read = _reader(family, spans, model, cache, progress)
            module = _module(config, model, family, spans, size)
            module.metadata.update(config=asdict(config), data=data, origin=origin)
            fit(module, progress)
            scores, thresholds = _score(module.network.eval(), family)
            settings = asdict(config) | {"checkpoint": origin}
            record = {"config": settings, "scores": scores, "thresholds": thresholds}
            record |= {"data": data, "origin": origin}
            write_json(file, record)
            shutil.rmtree(cache, ignore_errors=True)
    for score in scores:
        name = in_words(score["metric"])
        line = f"{score['task']}, {score['split']}: {name} {score['value']:.3f}"
        if score["low"] is not None:  # of a single recording there is no interval
            line += f" (95 % interval {score['low']:.3f} to {score['high']:.3f})"
        print(line)
    return scores


def _window(config, family):
    """Return the frames of a training window; refuse recordings that are too short."""
    size = family.window
    if config.task == "transcription":
        size = round(config.transcription_window / 1000 * FRAME_RATE)
        size -= size % family.stride
    for split in ("train", "validation"):
        longest = max(last - first for _, first, last in family.spans(split))
        if longest < size:
            raise InputError(
                f"{config.data}: the longest {split} recording has "
                f"{longest / FRAME_RATE:g} s, less than a window of "
                f"{size / FRAME_RATE:g} s; use a smaller --transcriptionWindow"
            )
    return size


def _reader(family, spans, model, folder, progress):
    """Return the reader of inputs; cache log magnitudes if the filter bank is fixed."""
    encoder = model.encoder
    if not isinstance(encoder, HarmonicStack) or [*encoder.filters.parameters()]:
        return family.reader()
    front_end = harmonic_front_end(encoder)
    if family.name == "clips":
        return family.reader(front_end)
    spectra = Spectra(family.store, front_end, folder)
    spectra.prepare([i for i, *_ in spans], progress)
    return spectra.read


def _module(config, model, family, spans, size):
    """Build the module of a run."""
    spans = [s for s in spans if s[2] - s[1] >= size]
    lengths = [last - first for _, first, last in family.spans("train")]
    n_frames = sum(length for length in lengths if length >= size)
    heads = {task: labelled.head for task, labelled in family.labelled.items()}
    return family.module(
        add_heads(model, heads, config.random_seed, config.on_encoder),
        Plan.of(config, gradient_clip=1.0, precision="bf16"),
        spans,
        -(-n_frames // (size * config.batch_size)),
        (0.0 if config.frozen else config.learning_rate, config.learning_rate),
        {"batch_size": config.batch_size, "size": size},
    )


def _score(network, family):
    """Score a trained network on test, with thresholds chosen on validation."""
    tests = dict.fromkeys(TESTS, family)
    evaluated = list(family.evaluate(network, family.labelled, tests))
    shown = ("metric", "value", "low", "high", "primary")
    scores = [
        {"task": task, "split": split} | {name: score[name] for name in shown}
        for task, split, _, found in evaluated
        for score in found
    ]
    return scores, evaluated[0][2]
