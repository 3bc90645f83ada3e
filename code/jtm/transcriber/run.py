"""
Supervised training of the transcriber: two heads on one network.

One head predicts notes, the other the instruments that play them. The inputs are log
magnitudes of recordings normalised in level and tuning, as when transcribing, cached on
disk, and augmented in level, spectrum and noise. Some windows begin before their
recording, in silence, and some are of noise alone, without notes. With a teacher, half
of the windows are of recordings without labels, and its predictions are their targets
(self-training, Xie et al. 2020). An epoch is a fixed number of steps, whatever the size
of the datasets.
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from jtm.constants import FRAME_RATE, HOP, SAMPLE_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import PLAYED_DTYPE
from jtm.data.store import Store, build_store
from jtm.evaluation.families import EDGE, Family, unlabelled_spans
from jtm.evaluation.labelled import Labelled as Recordings
from jtm.evaluation.labelled import note_cache
from jtm.files import InputError, digest, read_json, write_json
from jtm.models.encoder import HarmonicStack
from jtm.models.heads import add_heads
from jtm.models.network import build_model
from jtm.music.audio import normalise
from jtm.training.checkpoints import LABELS, load_model, read_checkpoint
from jtm.training.folder import PATHS, check, claim
from jtm.training.loop import Plan, fit
from jtm.training.processes import best_device
from jtm.training.spectra import Spectra, harmonic_front_end
from jtm.transcriber import model as transcribers
from jtm.transcriber.config import TranscriberConfig

STEPS = 1000
"""Number of steps in an epoch."""

WINDOW = 448
"""Number of 10-ms frames in a training window: 4.48 s, to recognise instruments."""

LEAD = 64
"""Number of frames of silence before a recording in which a window may begin."""

NOISE = -1
"""Index of the recording of noise, which is not in the store."""

NOISE_SHARE = 0.05
"""Share of noise in all training windows."""

WIDTH = 64
"""Channels of the trunk under the heads: twice the benchmark's, for its many labels."""

WEIGHTS_FILE = "transcriber.safetensors"
"""Name of the file in a run's folder with the trained transcriber."""

RECORD_FILE = TranscriberConfig.record
"""Name of the file in a run's folder with its settings, curves and scores."""


def train(config, progress=True):
    """
    Train a transcriber, or resume a run that was stopped.

    Parameters
    ----------
    config : TranscriberConfig
        The settings; ``data`` and ``path_checkpoint`` must be set.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    list of dict
        Validation scores; they are also saved, with settings and curves, in
        ``transcriber.json``, next to ``transcriber.safetensors``.

    Raises
    ------
    InputError
        If the data or a checkpoint is unsuitable.
    StoppedError
        If the user stopped the run; everything is saved.
    """
    config, network, teacher, before = start(config)
    check(config)
    folder = Path(config.path_checkpoint)
    origin = "".join(digest(f) for f in (config.load, config.teacher) if f)
    store = _open(config, progress)
    notes = _notes(store)
    labelled = {t: Recordings.of(store, t, notes) for t in transcribers.HEADS}
    family = Family(labelled, network.body.model.encoder.hop // HOP)
    if not _windowed(family):
        raise InputError(
            f"{config.data}: no training recording has {(WINDOW - LEAD) / FRAME_RATE:g}"
            " s, the least for a training window; add longer recordings"
        )
    used = [sorted({i for i, *_ in family.spans(s)}) for s in ("train", "validation")]
    family.read_labels({*used[0], *used[1]})
    unlabelled = _unlabelled(config, store)
    used[0] += [i for i, *_ in unlabelled]
    data = store.summary(*used, ())  # scored on validation alone
    with claim(config, data, origin):
        file = folder / RECORD_FILE
        if file.exists():
            print(f"{folder}: finished at epoch {config.n_epoch}; nothing left to do")
            return read_json(file)["scores"]
        front_end = harmonic_front_end(network.body.model.encoder)
        spectra = Spectra(store, front_end, folder / "magnitudes", tuned=True)
        spectra.prepare([*used[0], *used[1]], progress)
        noise = _noise(front_end)
        family.read = lambda index, first, n_frames: (
            noise[first : first + n_frames]
            if index == NOISE
            else spectra.read(index, first, n_frames)
        )
        module = _module(config, network, family, len(noise), teacher, unlabelled)
        module.metadata |= {"config": asdict(config), "data": data, "origin": origin}
        module.metadata["before"] = before
        fit(module, progress)
        scores = _finish(config, module, family, data)
        shutil.rmtree(spectra.folder.parent, ignore_errors=True)  # 145 MB an hour
    return scores


def _open(config, progress):
    """Open all datasets as one store."""
    folders = [config.data, *filter(None, config.also.split(","))]
    stores = [build_store(open_dataset(f), progress=progress) for f in folders]
    columns = ("recordings", "files", "lengths", "checksums")
    return Store(*([x for s in stores for x in getattr(s, name)] for name in columns))


def start(config):
    """
    Build a network with heads, from a checkpoint if ``config.load`` names one.

    Parameters
    ----------
    config : TranscriberConfig
        The run's settings.

    Returns
    -------
    config : TranscriberConfig
        The run's settings, with those of the network.
    network : nn.Module
        The network with heads.
    teacher : nn.Module or None
        The one that ``config.teacher`` names.
    before : dict or None
        How the checkpoint was trained, with the same for the one that it started from.

    Raises
    ------
    InputError
        If the checkpoint or the settings are unsuitable.
    """
    before, state = None, {}
    if not config.load:
        model = build_model(config)
    else:
        content = read_checkpoint(config.load)
        before = _history(config.load, content)
        if content["kind"] == LABELS:
            loaded = transcribers.load(config.load, content)
            network, settings = loaded.network.cpu(), loaded.config
            model, state = network.body.model, network.state_dict()
        else:
            model, settings = load_model(config.load, content)
        config = replace(config, **settings.network)
    if config.encoder_type != "pitchmap" or config.use_sinc_net:
        raise InputError("a transcriber needs --encoderType pitchmap, filters as made")
    chosen = {"width": WIDTH, "around": True}
    network = add_heads(model, transcribers.HEADS, config.random_seed, **chosen)
    if state:  # weights that the checkpoint lacks start untrained
        try:
            surplus = network.load_state_dict(state, strict=False).unexpected_keys
        except RuntimeError:
            surplus = True
        if surplus:
            raise InputError(f"{config.load}: has other heads than a transcriber's")
    transcribers.check(config.load or "transcriber", network, config)
    return config, network, _teacher(config, network), before


def _teacher(config, network):
    """Load the teacher, if any; refuse one with another front end or other heads."""
    if not config.teacher:
        return None
    if config.batch_size < 2:
        raise InputError("--teacher needs --batchSize 2 or more, half of it unlabelled")
    teacher = transcribers.load(config.teacher).network
    encoders = [each.body.model.encoder for each in (network, teacher)]
    if not (
        teacher.heads.readers.keys() == transcribers.HEADS.keys()
        and isinstance(encoders[1], HarmonicStack)
        and len({harmonic_front_end(encoder).key for encoder in encoders}) == 1
    ):
        raise InputError(
            f"{config.teacher}: has another front end or other heads; expected a "
            "transcriber of the same kind, as `--preset transcriber` trains it"
        )
    return teacher


def _history(file, content):
    """Return how a checkpoint was trained, exported weights by the log beside them."""
    log = Path(file).with_suffix(".json")
    if "history" not in content and log.is_file():
        record = read_json(log)
        if isinstance(record, dict) and record.get("sha256") == digest(file):
            content = record | {"global_step": record["history"][-1]["step"]}
    names = ("history", "data", "seconds", "before")
    before = {name: content.get(name) for name in names}
    return before | {"steps": content.get("global_step")}


def _windowed(family):
    """List the training spans, with silence before each, that a window fits in."""
    return _long(family.spans("train"))


def _unlabelled(config, store):
    """List the spans of recordings without labels; none unless there is a teacher."""
    if not config.teacher:
        return []
    spans = _long(unlabelled_spans(store))
    if not spans:
        raise InputError(
            "--teacher: there is no recording without labels of at least "
            f"{(WINDOW - LEAD) / FRAME_RATE:g} s; add a folder of audio by --also"
        )
    return spans


def _long(spans):
    """Extend spans by silence before each; keep those that a window fits in."""
    return [(i, -LEAD, last) for i, _, last in spans if last + LEAD >= WINDOW]


def _notes(store):
    """Return a function that reads the notes of a recording, none for the noise."""
    read = note_cache(store)
    return lambda index: np.zeros(0, PLAYED_DTYPE) if index == NOISE else read(index)


def _noise(front_end):
    """
    Compute log magnitudes of five minutes of noise, at the level of recordings.

    Each ten seconds have another colour, from white to brown: the power is proportional
    to ``1 / frequency ** slope``. Untrained on noise alone, a network hears low notes.
    """
    rng, blocks = np.random.default_rng(0), []
    size = 10 * SAMPLE_RATE
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20)
    for slope in rng.permutation(np.linspace(0, 2, 30)):
        spectrum = np.fft.rfft(rng.standard_normal(size)) * hertz ** (-slope / 2)
        wave = normalise(np.fft.irfft(spectrum))
        blocks.append(front_end.analyse(wave.astype(np.float32)))
    return np.concatenate(blocks)


def _module(config, network, family, n_noise, teacher, unlabelled):
    """
    Build the module that trains the network.

    There are `n_noise` frames of noise, and spans of recordings for the teacher.
    """
    spans = _windowed(family)
    share = round(NOISE_SHARE * sum(last - first for _, first, last in spans))
    whole, rest = divmod(share, n_noise - 2 * EDGE)
    spans += [(NOISE, EDGE, n_noise - EDGE)] * whole
    spans += [(NOISE, EDGE, EDGE + rest)] * (rest >= WINDOW)
    batches = {"batch_size": config.batch_size, "size": WINDOW}
    if teacher:
        batches |= {"unlabelled": unlabelled, "n_unlabelled": config.batch_size // 2}
    return family.module(
        network,
        Plan.of(config, gradient_clip=1.0, precision="bf16"),
        spans,
        STEPS,
        (config.learning_rate, config.learning_rate),
        batches,
        teacher=teacher,
        augmented=not config.plain,
    )


def _finish(config, module, family, data):
    """Choose thresholds on validation data; write the transcriber and its record."""
    folder, network = Path(config.path_checkpoint), module.network.eval()
    scores, thresholds = [], {}
    saved = ("metric", "value", "low", "high")
    evaluated = family.evaluate(network, family.labelled, {"validation": family})
    for task, _, chosen, found in evaluated:
        if task == "transcription":
            thresholds = {n.removesuffix("_threshold"): v for n, v in chosen.items()}
        scores += [{"task": task} | {n: score[n] for n in saved} for score in found]
    transcribers.save(folder / WEIGHTS_FILE, network, config, thresholds)
    settings = {n: v for n, v in asdict(config).items() if n not in PATHS}
    record = {"sha256": digest(folder / WEIGHTS_FILE), "config": settings, "data": data}
    record |= {"parameters": sum(p.numel() for p in network.parameters())}
    record |= {"thresholds": thresholds, "scores": scores}
    record |= {"teacher": config.teacher and digest(config.teacher)}
    record |= {"origin": module.metadata["origin"]}
    record |= {"before": module.metadata["before"]}
    record |= {"seconds": module.seconds, "history": module.history}
    device = best_device().type  # that Lightning chose
    record |= {"device": torch.cuda.get_device_name() if device == "cuda" else device}
    write_json(folder / RECORD_FILE, record)
    return scores
