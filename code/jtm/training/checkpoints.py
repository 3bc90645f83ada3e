"""
Reading, writing and exporting checkpoints, and building networks from them.

A checkpoint is a file of tensors and plain values, opened without running any code in
it. In pretraining, its ``state_dict`` has the network under ``model.`` and the loss's
weights under ``criterion.``; in training with labels, the network with its heads under
``network.``. Its ``config`` has the settings. For distribution, the weights alone are
written as safetensors, with the settings in the file's metadata; such a file can be
used wherever a checkpoint can.
"""

import contextlib
import hashlib
import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch

from jtm.files import InputError, alternatives, atomic, digest, read_json, write_json
from jtm.models.network import build_model
from jtm.training.config import NetworkConfig, flag, make_config

WEIGHTS_SUFFIX = ".safetensors"  # of exported weights
PRETRAINING, LABELS = "pretraining", "training with labels"  # kinds of checkpoint
_METADATA_KEY = "jtm"  # of the settings and the hash in a file's metadata

# Settings that determine the names and shapes of a network's weights.
_ARCHITECTURE = """encoder_type hidden_encoder sinc_mode norm_mode ar_mode hidden_gar
layers_gar abspos gar_mode n_predicts predictor""".split()


def read_checkpoint(path):
    """
    Read a checkpoint without running any code in it.

    Parameters
    ----------
    path : str or Path
        Path to the file.

    Returns
    -------
    dict
        Its content, on the CPU, including ``state_dict`` and ``config``, and the
        ``thresholds`` of an exported transcriber. ``kind`` is :data:`PRETRAINING`,
        :data:`LABELS` or "something else".

    Raises
    ------
    InputError
        If the file is missing, damaged, or not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        hint = alternatives(path, "*.pt") or "; train one first"
        raise InputError(f"{path}: no such checkpoint{hint}")
    if path.suffix == WEIGHTS_SUFFIX:
        content = _read_weights(path)
    else:
        content = _read_run(path)
    parts = {name.partition(".")[0] for name in content["state_dict"]}
    kind = PRETRAINING if "model" in parts else "something else"
    return content | {"kind": LABELS if "network" in parts else kind}


def _read_run(path):
    """Read a checkpoint that a run wrote."""
    try:
        with warnings.catch_warnings(action="ignore"):  # errors are reported below
            content = torch.load(path, map_location="cpu", weights_only=True)
        for part in (content["state_dict"], content["config"]):
            if not (isinstance(part, dict) and all(isinstance(n, str) for n in part)):
                raise TypeError("expected dicts with names as keys")
    except Exception as error:  # unpickling arbitrary bytes may raise any
        raise InputError(
            f"{path}: not a checkpoint of JTM, or damaged; "
            "expected one that `python main.py` wrote"
        ) from error
    return content


def _read_weights(path):
    """Read exported weights into the form of a checkpoint."""
    commands = "`jtm export` or `jtm train --preset transcriber`"
    weights, metadata = read_tensors(path, "network", commands, {"network": dict})
    content, part = {"config": metadata["network"]}, "model"
    if isinstance(metadata.get("thresholds"), dict):  # a transcriber
        part, content["thresholds"] = "network", metadata["thresholds"]
        content["config"] |= {"on_encoder": metadata.get("on_encoder")}
    state = {f"{part}.{name}": tensor for name, tensor in weights.items()}
    return content | {"state_dict": state}


def read_tensors(path, kind, command, expected):
    """
    Read a file written by :func:`write_tensors`, without running any code in it.

    Parameters
    ----------
    path : str or Path
        Path to the file.
    kind, command : str
        Expected content, and the command that writes it, for messages.
    expected : dict of str to type
        Types of the required metadata entries, by name.

    Returns
    -------
    tensors : dict of str to torch.Tensor
        Tensors on the CPU by name.
    metadata : dict
        The metadata.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()[_METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        checksum = metadata["sha256"]
        if not all(isinstance(metadata[name], of) for name, of in expected.items()):
            raise TypeError(f"expected {expected}")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: no {kind} of JTM, or damaged; expected one that {command} wrote"
        ) from error
    if fingerprint(tensors) != checksum:
        raise InputError(
            f"{path}: damaged (its checksum differs); restore or rebuild it"
        )
    return tensors, metadata


def write_tensors(path, tensors, metadata):
    """
    Write tensors, with metadata and a checksum.

    Parameters
    ----------
    path : str or Path
        The file to write.
    tensors : dict of str to torch.Tensor
        Tensors by name, such as a module's weights.
    metadata : dict
        The metadata; must be serialisable as JSON.
    """
    from safetensors.torch import save

    tensors = {n: x.detach().cpu().contiguous() for n, x in tensors.items()}
    # One entry, since the order of several may differ from file to file.
    metadata = json.dumps(metadata | {"sha256": fingerprint(tensors)})
    with atomic(path) as part:
        part.write_bytes(save(tensors, {_METADATA_KEY: metadata}))


def fingerprint(weights):
    """
    Hash weights.

    Parameters
    ----------
    weights : dict of str to torch.Tensor
        Tensors on the CPU by name.

    Returns
    -------
    str
        SHA-256, in hexadecimal, of names, dtypes, shapes and bytes.
    """
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()


def export(checkpoint, path):
    """
    Export the network of a checkpoint, with a record of its training.

    Parameters
    ----------
    checkpoint : str or Path
        A checkpoint of pretraining, or an exported file.
    path : str or Path
        The file to write, ending in ``.safetensors``: the weights, with the network's
        settings. A file of the same name ending in ``.json`` gets the hash, the size,
        the settings of the run and its losses by epoch.

    Returns
    -------
    dict
        Content of the JSON file.

    Raises
    ------
    InputError
        If the checkpoint is unsuitable, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != WEIGHTS_SUFFIX:
        raise InputError(f"{path}: expected a name ending in {WEIGHTS_SUFFIX}")
    content = read_checkpoint(checkpoint)
    model, config = load_model(checkpoint, content)
    source = digest(checkpoint)  # which the output may replace
    write_tensors(path, model.state_dict(), {"network": config.network})
    settings = asdict(config) | content["config"] | {"data": Path(config.data).name}
    del settings["path_checkpoint"], settings["load"]  # local paths
    record = {
        "sha256": digest(path),
        "checkpoint": source,
        "bytes": path.stat().st_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "z_dim": model.z_dim,
        "c_dim": model.c_dim,
        "config": settings,
        "history": content.get("history", []),
    }
    earlier = Path(checkpoint).with_suffix(".json")
    if Path(checkpoint).suffix == WEIGHTS_SUFFIX and earlier.exists():
        about = None
        with contextlib.suppress(InputError):
            about = read_json(earlier)
        if isinstance(about, dict) and about.get("sha256") == source:
            record |= about | {"sha256": record["sha256"]}
    write_json(path.with_suffix(".json"), record)
    return record


def load_model(path, content=None):
    """
    Load the network of a checkpoint of pretraining.

    Parameters
    ----------
    path : str or Path
        Path to the checkpoint.
    content : dict, optional
        Content of the checkpoint, if it has already been read.

    Returns
    -------
    model : Network
        The network in evaluation mode.
    config : NetworkConfig
        The network's settings in training.

    Raises
    ------
    InputError
        If the file is not a checkpoint of pretraining, or its weights do not fit.
    """
    content = content or read_checkpoint(path)
    if content["kind"] != PRETRAINING:
        raise InputError(f"{path}: a checkpoint of {content['kind']}, not pretraining")
    config = network_config(path, content)
    model = build_model(config)
    load_part(path, content, "model", model)
    return model.eval(), config


def initial_model(config):
    """
    Build the network that a run starts from, and adopt its settings.

    Parameters
    ----------
    config : NetworkConfig
        The run's settings.

    Returns
    -------
    model : Network
        The network of ``config.load``, with its weights; untrained if that is empty.
    config : NetworkConfig
        The run's settings, with those of the network that was loaded.

    Raises
    ------
    InputError
        If ``config.load`` cannot be read.
    """
    if not config.load:
        return build_model(config), config
    model, loaded = load_model(config.load)
    return model, replace(config, **loaded.network)


def network_config(path, content):
    """
    Return the settings of a checkpoint's network.

    Parameters
    ----------
    path : str or Path
        Path to the checkpoint, for messages.
    content : dict
        Content of the checkpoint.

    Returns
    -------
    NetworkConfig
        The settings.

    Raises
    ------
    InputError
        If this version does not support the settings.
    """
    known = NetworkConfig.__pydantic_fields__
    settings = {n: value for n, value in content["config"].items() if n in known}
    if settings.get("ar_mode") != "transformer":  # dropout only before the criterion
        settings.pop("dropout", None)
    try:
        return make_config(NetworkConfig, "small", settings)
    except InputError as error:
        raise InputError(f"{path}: from another version of JTM: {error}") from error


def load_part(path, content, part, module, config=None):
    """
    Load the weights of one part of a checkpoint into a module.

    Parameters
    ----------
    path : str or Path
        Path to the checkpoint, for messages.
    content : dict
        Content of the checkpoint.
    part : {"model", "criterion", "network"}
        The part to load.
    module : nn.Module
        Module that receives the weights.
    config : NetworkConfig, optional
        Settings of the module, to report which of them differ.

    Raises
    ------
    InputError
        If the weights do not fit the module.
    """
    state, prefix = content["state_dict"], f"{part}."
    names = [name for name in state if name.startswith(prefix)]
    if not names:
        raise InputError(f"{path}: has no {part}; expected a .pt checkpoint of a run")
    try:
        module.load_state_dict({n.removeprefix(prefix): state[n] for n in names})
    except RuntimeError as error:
        saved, expected = content["config"], asdict(config) if config else {}
        differing = ", ".join(
            f"--{flag(name)} is {saved[name]!r}, not {expected[name]!r}"
            for name in _ARCHITECTURE
            if name in saved.keys() & expected.keys() and saved[name] != expected[name]
        )
        reason = differing or f"its {part} has other weights than expected"
        raise InputError(f"{path}: does not fit: {reason}") from error
