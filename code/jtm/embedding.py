"""
The pretrained network shipped with the package, and embeddings computed by it.

An embedding has one frame per hop of the encoder, 20 ms in the shipped network:
latents z, each computed from about 0.3 s of sound, or contexts c, which summarise the
recording up to that frame. Recordings are converted as in training, to 16-bit mono at
16 kHz, and processed in chunks, so that only the result has to fit into memory.
"""

import functools
import os
import zipfile
from pathlib import Path

import numpy as np

from jtm.constants import SAMPLE_RATE
from jtm.data import batch
from jtm.evaluation.streaming import Audio, NetworkSource
from jtm.files import (
    InputError,
    atomic,
    check_output,
    inside,
    read_json,
    scratch,
    stamp,
    write_json,
)
from jtm.music import audio
from jtm.training import checkpoints
from jtm.training.processes import best_device

WEIGHTS = Path(__file__).parent / "weights" / "jtm.safetensors"
"""Path to the weights shipped with the package."""

LAYERS = ("c", "z", "zc")
"""Contexts, latents, or z and c concatenated."""

PROVENANCE_FILE = "embeddings.json"
"""File in a folder of embeddings that records their network and layer."""


def load_model(path=None):
    """
    Load a pretrained network.

    Parameters
    ----------
    path : str or Path, optional
        Path to a ``.safetensors`` file from ``jtm export`` or a ``.pt`` checkpoint of
        pretraining; the shipped weights by default. No code in the file is executed
        and nothing is downloaded.

    Returns
    -------
    Network
        The network, an ``nn.Module`` in evaluation mode, on the CPU. It maps
        waveforms ``(batch, 1, samples)`` at 16 kHz to latents z ``(batch, frames,
        z_dim)`` and contexts c ``(batch, frames, c_dim)``.

    Raises
    ------
    InputError
        If the file is missing, damaged or not a network.

    Examples
    --------
    >>> import jtm, torch
    >>> model = jtm.load_model()
    >>> z, c = model(torch.zeros(1, 1, 16000))
    >>> z.shape[1]
    50
    """
    return checkpoints.load_model(path or WEIGHTS)[0]


def embed(path_or_array, sample_rate=None, model=None, layer="c"):
    """
    Compute the embedding of a recording.

    Parameters
    ----------
    path_or_array : str, Path or array
        Path to an audio file of any format, sample rate, number of channels and length;
        or samples ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``
        with at most 64 channels, as floats within [-1, 1] or full-scale signed integers
        (int8 to int32). Channels are averaged.
    sample_rate : int, optional
        Sample rate in Hz, for arrays only; a file states its own.
    model : Network, str or Path, optional
        A network from :func:`load_model`, which is put into evaluation mode and runs on
        its current device; or what that takes. By default the shipped network, on a GPU
        if available.
    layer : {"c", "z", "zc"}
        Whether to return contexts, latents, or z and c concatenated.

    Returns
    -------
    embedding : numpy.ndarray
        One row per complete frame ``(frames, dim)``, float32.
    times : numpy.ndarray
        Time of the centre of each frame in seconds ``(frames,)``.

    Raises
    ------
    InputError
        If the file or array is not valid audio or is shorter than one frame, or if
        `layer` is unknown.

    Examples
    --------
    >>> import jtm, numpy as np
    >>> embedding, times = jtm.embed(np.zeros(44100), 44100)
    >>> len(embedding), float(times[0])
    (50, 0.01)
    """
    if model is None or isinstance(model, (str, os.PathLike)):
        model = _current(model)[0].to(best_device())
    elif not hasattr(model, "encoder"):
        kind = type(model).__name__
        raise InputError(f"a model of type {kind}; expected one from jtm.load_model")
    _check_layer(layer)
    if isinstance(path_or_array, (str, os.PathLike)):
        if sample_rate is not None:
            raise InputError("sample_rate is for arrays; an audio file states its own")
        return _embed_file(path_or_array, model, layer)
    wave = audio.to_wave(path_or_array, sample_rate)
    audio.check_level("the array", np.abs(wave).max(initial=0), clipped=True)
    return _embed(Audio.of(audio.to_pcm(wave)), model, layer, "the array")


def _check_layer(layer):
    """Raise InputError if a layer is unknown."""
    if layer not in LAYERS:
        raise InputError(f"layer {layer!r}; expected one of {', '.join(LAYERS)}")


def _embed_file(path, model, layer, advance=lambda seconds: None):
    """Embed an audio file through a temporary copy at 16 kHz on disk."""
    blocks = (audio.to_pcm(wave).tobytes() for wave in audio.blocks(path))
    with scratch(path, blocks) as file:
        samples = np.memmap(file, "<i2", "r")
        return _embed(Audio.of(samples), model, layer, path, advance)


def _embed(recording, model, layer, name, advance=lambda seconds: None):
    """Compute the embedding of a recording in chunks, and its frame times."""
    hop = model.encoder.hop
    n_frames = recording.n_frames(hop)
    if not n_frames:
        raise InputError(
            f"{name}: shorter than a frame of {hop / SAMPLE_RATE:g} s; nothing to embed"
        )
    dim = sum({"z": model.z_dim, "c": model.c_dim}[name] for name in layer)
    embedding = np.empty((n_frames, dim), np.float32)
    for first, z, c in NetworkSource(model).stream(recording):
        rows = np.concatenate([{"z": z, "c": c}[name] for name in layer], axis=1)
        embedding[first : first + len(rows)] = rows
        advance(len(rows) * hop / SAMPLE_RATE)
    return embedding, (np.arange(n_frames) + 0.5) * hop / SAMPLE_RATE


def embed_files(inputs, out, load=None, layer="c", options=None):
    """
    Embed audio files and folders of audio files, writing one ``.npz`` file for each.

    `out` mirrors the deepest folder that contains all inputs, and ``.npz`` is appended
    to each file name. A file holds the arrays ``embedding`` and ``times`` of
    :func:`embed`, the fingerprint of the ``network``, the ``layer``, the ``path`` of
    the source, and the size and modification time of the ``source``. Sources that have
    not changed since they were embedded are skipped, so an interrupted run can be
    resumed. Embeddings of other sources are never overwritten.

    Parameters
    ----------
    inputs : sequence of str or Path
        Audio files, and folders to search recursively.
    out : str or Path
        Output folder.
    load : str or Path, optional
        Path to a network as in :func:`load_model`; the shipped one by default. It runs
        on a GPU if available.
    layer : {"c", "z", "zc"}
        As in :func:`embed`.
    options : jtm.data.batch.Options, optional
        Processes or cluster to distribute the files over; one process by default.

    Returns
    -------
    int
        Number of inputs that failed; each is named on standard error.

    Raises
    ------
    InputError
        If the network cannot be loaded, `layer` is unknown, a folder contains no
        audio file, `out` cannot be written or holds embeddings by another network, from
        another layer, or in the place of an output, of another source, or every input
        failed.
    """
    out, load = Path(out), load and os.path.abspath(load)
    _, network = _current(load)
    _check_layer(layer)
    sources, root = batch.find(inputs)
    provenance = {"network": network, "layer": layer}
    if (out / PROVENANCE_FILE).exists():
        _record(out, provenance)
    targets = {each: inside(out, f"{each.relative_to(root)}.npz") for each in sources}
    missing = []
    for source, target in targets.items():
        if not _is_current(target, source, provenance):
            check_output(target)
            missing.append(source)
    folders = Path(os.path.abspath(out)), root
    work = functools.partial(
        _embed_into, folders=folders, load=load, provenance=provenance
    )
    words = "Embedding", "embedded"
    return batch.run(out, sources, missing, work, words, options)


def _embed_into(source, advance, folders, load, provenance):
    """Embed one audio file, unless an earlier process has already written it."""
    out, root = folders
    target = inside(out, f"{source.relative_to(root)}.npz")
    if _is_current(target, source, provenance):
        return
    model, network = _current(load)
    if network != provenance["network"]:
        raise InputError(
            f"{load or WEIGHTS}: other weights than this run's; copy its network here"
        )
    model, state = model.to(best_device()), stamp(source)
    embedding, times = _embed_file(source, model, provenance["layer"], advance)
    _record(out, provenance)  # only with an embedding to write
    with atomic(target) as part:
        facts = provenance | {"path": str(source), "source": state}
        np.savez(part, embedding=embedding, times=times, **facts)
        _is_current(target, source, provenance)  # another run may have written it


def _current(path):
    """Return a network, loaded once per process, and its fingerprint."""
    return _load(path, tuple(stamp(path or WEIGHTS)))


@functools.lru_cache(1)
def _load(path, _):
    """Load a network; the last argument is its file's stamp, so that changes count."""
    model = load_model(path)
    return model, checkpoints.fingerprint(model.state_dict())


def _record(out, provenance):
    """Record the provenance of a folder's embeddings; refuse a different record."""
    file = out / PROVENANCE_FILE
    if not file.exists():
        write_json(file, provenance)
    if read_json(file) != provenance:
        raise InputError(
            f"{out} holds embeddings by another network, layer or version (see its "
            f"{file.name}); choose another --out"
        )


def _is_current(target, source, provenance):
    """Check whether a file holds the embedding of a source in its present state."""
    try:
        with np.load(target, allow_pickle=False) as file:
            saved = {key: str(file[key]) for key in provenance}
            path, state = str(file["path"]), file["source"].tolist()
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return False  # missing, damaged, of another kind or from an earlier version
    if saved != provenance:
        raise InputError(
            f"{target}: an embedding by another network or from another layer; choose "
            "another --out"
        )
    if path != str(source):
        raise InputError(f"{target}: embeds {path}, not {source}; choose another --out")
    return state == stamp(source)
