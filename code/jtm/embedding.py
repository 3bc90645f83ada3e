"""
The pretrained network that comes with the package, and embeddings from it.

An embedding has a frame every 10 ms: latents z, which describe about 0.2 s of
sound, or contexts c, which summarise all that was heard up to there. Recordings
are heard as in training, as one channel of 16 bits at 16 kHz, and read piece by
piece, so that no more than the result has to fit into memory. Slow features
(:mod:`jtm.evaluation.slow`) have a row for each whole window of 1.28 s instead.
"""

import contextlib
import functools
import numbers
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from jtm.constants import FRAME_RATE, HOP, SAMPLE_RATE
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import WINDOW
from jtm.data.splits import split_recordings
from jtm.data.store import build_store
from jtm.evaluation.features import Audio, NetworkSource, Take, pitch_parts
from jtm.evaluation.slow import Slow
from jtm.files import InputError, atomic, digest, inside, read_json, write_json
from jtm.music import audio
from jtm.training import checkpoints

WEIGHTS = Path(__file__).parent / "weights" / "jtm.safetensors"
"""The weights that come with the package."""

LAYERS = ("c", "z", "zc", "s")
"""What may be taken: contexts, latents, z and c side by side, or slow features."""

MAX_CHANNELS = 64
"""Most channels that an array may have; more are samples on the wrong axis."""

CLAIM_FILE = "embeddings.json"
"""Name of the file that says what a folder of embeddings was made from."""


def load_model(path=None):
    """
    Give a pretrained network.

    Parameters
    ----------
    path : str or Path, optional
        A ``.safetensors`` file from ``jtm export`` or a ``.pt`` checkpoint of
        pretraining; by default the weights that come with the package. Nothing
        in the file is run and nothing is downloaded.

    Returns
    -------
    Network
        The network, an ``nn.Module`` in evaluation mode, on the CPU. It gives
        latents z ``(batch, frames, z_dim)`` and contexts c ``(batch, frames,
        c_dim)`` from waveforms ``(batch, 1, samples)`` at 16 kHz. Its attribute
        ``slow`` has the slow features that :func:`learn_slow` wrote beside it;
        None where there are none.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind.

    Examples
    --------
    >>> import jtm, torch
    >>> model = jtm.load_model()
    >>> z, c = model(torch.zeros(1, 1, 16000))
    >>> z.shape[1]
    100
    """
    path = Path(path or WEIGHTS)
    model, slow = checkpoints.load_model(path)[0], slow_file(path)
    model.slow = None
    if slow.exists():
        model.slow = Slow.load(slow, checkpoints.fingerprint(model.state_dict()))
    return model


def slow_file(path):
    """
    Name the file of the slow features that go with a network.

    Parameters
    ----------
    path : str or Path
        File of the network.

    Returns
    -------
    Path
        The file beside it.
    """
    path = Path(path)
    return path.with_name(f"{path.stem}-slow{checkpoints.WEIGHTS_SUFFIX}")


def learn_slow(path, data, progress=True):
    """
    Learn slow features of a network from recordings, and write them beside it.

    Parameters
    ----------
    path : str or Path
        File of the network, as in :func:`load_model`.
    data : str or Path
        A dataset, of which the training recordings are heard; or a folder of
        recordings.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    InputError
        If the network or a recording cannot be read, fewer than two recordings
        last a window, or the file cannot be written.
    """
    model = checkpoints.load_model(path)[0]
    parts = pitch_parts(model) * 2  # means, then deviations
    store = build_store(open_dataset(data), progress=progress)
    splits = split_recordings(store.recordings, store.lengths)
    heard = [
        Audio(functools.partial(store.read, index), store.lengths[index])
        for index in splits["train"] or splits["unlabelled"]
        if store.lengths[index] >= WINDOW * HOP
    ]
    if len(heard) < 2:
        raise InputError(
            f"{data}: {len(heard)} recordings of {WINDOW / FRAME_RATE} s or more to "
            "learn from; slow features tell recordings apart and need several"
        )
    bar = tqdm(heard, desc="Learning slow features", unit="rec", disable=not progress)
    made = Slow(parts).fit(
        np.concatenate([rows for rows, _ in _windows(recording, model)])
        for recording in bar
    )
    made.save(slow_file(path), checkpoints.fingerprint(model.state_dict()))
    return slow_file(path)


def _windows(recording, model):
    """Give z and c pooled over windows, piece by piece, and the first one's number."""
    take = Take(0, recording.n_frames)
    for first, z, c in NetworkSource(model).stream(recording):
        yield take.of(np.concatenate((z, c), axis=1), first)


@functools.cache
def _shipped():
    """Load the shipped network once, for all that name no other."""
    return load_model()


def embed(path_or_array, sample_rate=None, model=None, layer="c"):
    """
    Embed a recording.

    Parameters
    ----------
    path_or_array : str, Path or array
        A WAV, FLAC, OGG or MP3 file of any rate, number of channels and
        length; or samples ``(samples,)`` or ``(channels, samples)``, floats
        within [-1, 1] or signed integers of full scale. Channels are averaged.
    sample_rate : int, optional
        Rate of an array in Hz; a file knows its own.
    model : Network, optional
        The network, from :func:`load_model`; it is put into evaluation mode.
        The shipped one by default.
    layer : {"c", "z", "zc", "s"}
        What to take: contexts, latents, or z and c side by side, every 10 ms; or
        slow features of every 1.28 s, where the network comes with them.

    Returns
    -------
    embedding : numpy.ndarray
        One row for each whole frame, or window, ``(rows, dim)``, float32.
    times : numpy.ndarray
        Seconds from the start to the centre of each ``(rows,)``.

    Raises
    ------
    InputError
        If the file or the array is no sound or is shorter than a row, or the
        network has no such layer.

    Examples
    --------
    >>> import jtm, numpy as np
    >>> embedding, times = jtm.embed(np.zeros(44100), 44100)
    >>> len(embedding), float(times[0])
    (100, 0.005)
    """
    model = model or _shipped()
    _check_layer(model, layer)
    if isinstance(path_or_array, (str, os.PathLike)):
        if sample_rate is not None:
            raise InputError("sample_rate is for arrays; a sound file knows its own")
        return _embed_file(path_or_array, model, layer)
    wave = _to_wave(path_or_array, sample_rate)
    return _embed(Audio.of(audio.to_pcm(wave)), model, layer, "the array")


def _check_layer(model, layer):
    """Refuse a layer that a network does not have."""
    if layer not in LAYERS:
        raise InputError(f"layer {layer!r}; expected one of {', '.join(LAYERS)}")
    if layer == "s" and not getattr(model, "slow", None):
        raise InputError(
            "layer 's': this network has no slow features; make a file with them by "
            "`jtm export --data` and load that"
        )


def _to_wave(array, sample_rate):
    """Make one channel at 16 kHz of an array; refuse what is no sound."""
    wave = np.asarray(array)
    if not (isinstance(sample_rate, numbers.Real) and sample_rate > 0):
        raise InputError("an array needs its sample_rate in Hz, such as 44100")
    if wave.ndim not in (1, 2) or (wave.ndim == 2 and len(wave) > MAX_CHANNELS):
        raise InputError(
            f"an array of shape {wave.shape}; expected (samples,) or "
            f"(channels, samples) with at most {MAX_CHANNELS} channels"
        )
    if np.issubdtype(wave.dtype, np.signedinteger):
        wave = wave / -float(np.iinfo(wave.dtype).min)
    elif not np.issubdtype(wave.dtype, np.floating):
        raise InputError(
            f"an array of {wave.dtype}; expected floats within [-1, 1] or signed "
            "integers"
        )
    wave = np.atleast_2d(wave).mean(axis=0, dtype=np.float32)
    if not np.isfinite(wave).all():
        raise InputError("the array holds samples that are not numbers")
    return soxr.resample(wave, sample_rate, SAMPLE_RATE) if wave.size else wave


def _embed_file(path, model, layer, advance=lambda seconds: None):
    """Embed a sound file, by way of a copy at 16 kHz on disk."""
    with tempfile.TemporaryFile() as file:
        try:
            for block in audio.blocks(path):
                file.write(audio.to_pcm(block).tobytes())
            file.flush()
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {path} at 16 kHz "
                f"({error.strerror}); free some, or set TMPDIR"
            ) from error
        samples = np.memmap(file, "<i2", "r")
        return _embed(Audio.of(samples), model, layer, path, advance)


def _embed(recording, model, layer, name, advance=lambda seconds: None):
    """Give the embedding of a recording and its times; refuse one without frames."""
    step, row = (WINDOW, "window of 1.28 s") if layer == "s" else (1, "frame of 10 ms")
    if recording.n_frames < step:
        raise InputError(f"{name}: shorter than a {row}; nothing to embed")
    embedding = fill(recording, model, layer, advance)
    return embedding, (np.arange(len(embedding)) + 0.5) * step / FRAME_RATE


def fill(recording, model, layer, advance=lambda seconds: None):
    """
    Embed a recording piece by piece.

    Parameters
    ----------
    recording : Audio
        The recording.
    model : Network
        The network.
    layer : {"c", "z", "zc", "s"}
        What to take.
    advance : callable, optional
        Told after each piece how many seconds it was long.

    Returns
    -------
    numpy.ndarray
        Embedding ``(rows, dim)``, float32; a row for each frame, or window.
    """
    if layer == "s":
        shape = recording.n_frames // WINDOW, model.slow.size
        embedding = np.empty(shape, np.float32)
        for rows, first in _windows(recording, model):
            embedding[first : first + len(rows)] = model.slow(rows)
            advance(len(rows) * WINDOW / FRAME_RATE)
        return embedding
    dims = {"z": model.z_dim, "c": model.c_dim}
    shape = recording.length // HOP, sum(dims[part] for part in layer)
    embedding = np.empty(shape, np.float32)
    for first, z, c in NetworkSource(model).stream(recording):
        parts = [{"z": z, "c": c}[part] for part in layer]
        np.concatenate(parts, axis=1, out=embedding[first : first + len(z)])
        advance(len(z) / FRAME_RATE)
    return embedding


def embed_files(inputs, out, load=None, layer="c", progress=True):
    """
    Embed sound files, and those in folders, into a file each.

    Each lies in `out` as the input lies in the deepest folder that holds all
    inputs, named by the input's full name and ``.npz``, with the arrays
    ``embedding`` and ``times`` of :func:`embed`. What is there and newer than its
    input is left as it is, so that a run that was stopped goes on.

    Parameters
    ----------
    inputs : sequence of str or Path
        Sound files and folders of them, searched at any depth.
    out : str or Path
        Folder for the embeddings.
    load : str or Path, optional
        A network as in :func:`load_model`; the shipped one by default.
    layer : {"c", "z", "zc", "s"}
        What to take, as in :func:`embed`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    int
        Number of inputs that could not be embedded; each is told on standard
        error.

    Raises
    ------
    InputError
        If the network cannot be loaded or has no such layer, a folder holds no
        sound, or `out` cannot be written or holds embeddings of another kind.
    """
    model, out = load_model(load), Path(out)
    _check_layer(model, layer)
    folders, sources = [], {}
    for given in map(Path, inputs):
        given = Path(os.path.abspath(given))
        if given.is_dir():
            found = [recording.audio for recording in open_dataset(given).recordings]
        else:
            found = [given]
        folders.append(given if given.is_dir() else given.parent)
        sources |= dict.fromkeys(found)
    root = Path(os.path.commonpath(folders))
    file = load or WEIGHTS
    file = slow_file(file) if layer == "s" else file
    _claim(out, {"inputs": str(root), "network": digest(file), "of": layer})
    missing = {}
    for source in sources:
        target = inside(out, f"{source.relative_to(root)}.npz")
        if not _is_newer(target, source):
            missing[source] = target
    done = len(sources) - len(missing)
    if progress and done:
        print(f"{out}: {done} of {len(sources)} are there already")
    seconds = {source: _duration(source) for source in missing}
    failed = 0
    with tqdm(
        total=sum(seconds.values()),
        desc="Embedding",
        bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]",
        disable=not (progress and missing),
    ) as bar:
        for source, target in missing.items():
            before = bar.n
            try:
                embedding, times = _embed_file(source, model, layer, bar.update)
            except InputError as error:
                bar.write(f"jtm: {error}", file=sys.stderr)
                failed += 1
            else:
                with atomic(target) as part:
                    np.savez(part, embedding=embedding, times=times)
            bar.update(before + seconds[source] - bar.n)  # what no frame covers
    return failed


def _claim(out, made_from):
    """Make a folder that of one kind of embeddings; refuse one of another kind."""
    file = out / CLAIM_FILE
    if not file.exists():
        write_json(file, made_from)
    there = read_json(file)
    if there != made_from:
        raise InputError(
            f"{out} holds other embeddings ({file.name} there says of what); choose "
            "another --out, or remove the folder"
        )


def _is_newer(target, source):
    """Tell whether a file was written after the one it is made from."""
    with contextlib.suppress(OSError):  # of a source that is not there
        return target.stat().st_mtime >= source.stat().st_mtime
    return False


def _duration(source):
    """Give a file's length in seconds, or 0 where it cannot be read."""
    with contextlib.suppress(InputError):
        return audio.duration(source)
    return 0.0
