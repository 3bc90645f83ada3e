"""
Checkpoints: what they hold, and networks made from them.

A checkpoint is a file of tensors and plain values, opened without running any
code in it. Its ``state_dict`` holds the network under ``model.`` and what it
was trained with under ``criterion.`` or ``head.``; its ``config`` holds the
settings.
"""

import pickle
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from jtm.files import InputError
from jtm.models.cpc import make_cpc
from jtm.models.infonce import InfoNCE
from jtm.training.config import PretrainConfig, flag, make_config


def read_checkpoint(path):
    """
    Read a checkpoint, running none of what is in it.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict
        What it holds, on the CPU; ``state_dict`` and ``config`` among it.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.pt"))
        hint = f"; there are {', '.join(near)}" if near else "; train one first"
        raise InputError(f"{path}: no such checkpoint{hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about it is told below
            content = torch.load(path, map_location="cpu", weights_only=True)
        state, config = content["state_dict"], content["config"]
        if not (isinstance(state, dict) and isinstance(config, dict)):
            raise TypeError("its parts are of other types")
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        OSError,
    ) as error:
        raise InputError(
            f"{path}: not a checkpoint of JTM, or damaged; "
            "expected one that `python main.py` wrote"
        ) from error
    return content


def build_model(config):
    """
    Make the network of a run, untrained.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``random_seed`` draws the weights.

    Returns
    -------
    CPC
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed)
        return make_cpc(
            encoder=config.encoder_type,
            hidden_encoder=config.hidden_encoder,
            norm=config.norm_mode,
            quadrature=config.sinc_mode == "quadrature",
            kernel=config.sinc_kernel,
            spacing=config.sinc_spacing,
            context=config.ar_mode,
            hidden_context=config.hidden_gar,
            layers=config.layers_gar,
            dropout=config.dropout,
            absolute=config.abspos,
            reverse=config.cpc_mode == "reverse",
            pitchwise=config.gar_mode == "pitchwise",
        )


def build_criterion(config, model):
    """
    Make the InfoNCE criterion of a run, untrained.

    Parameters
    ----------
    config : PretrainConfig
        The settings; ``random_seed`` draws the weights.
    model : CPC
        The network that it judges.

    Returns
    -------
    InfoNCE
        The criterion.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.random_seed + 1)
        return InfoNCE(
            model.c_dim,
            model.z_dim,
            n_predicts=config.n_predicts,
            step_frames=config.step_frames,
            anchor_stride=config.anchor_frames,
            n_negatives=config.negative_sampling_ext,
            same_share=config.same_share,
            others=config.other_windows,
            score=config.score,
            temperature=config.temperature,
            predictor=config.predictor,
            dropout=config.dropout,
            shared=config.share_negatives == "window",
            groups=getattr(model.context, "groups", 1),
            n_aligned=config.aligned,
        )


def load_model(path):
    """
    Make the network of a checkpoint, with its weights.

    Parameters
    ----------
    path : str or Path
        The checkpoint.

    Returns
    -------
    model : CPC
        The network in evaluation mode.
    config : PretrainConfig
        The settings that it was trained with.

    Raises
    ------
    InputError
        If the file is not a checkpoint of pretraining, or does not fit.
    """
    content = read_checkpoint(path)
    config = config_of(path, content)
    model = build_model(config)
    load_part(path, content, "model", model)
    return model.eval(), config


def config_of(path, content):
    """
    Give the settings in a checkpoint of pretraining.

    Parameters
    ----------
    path : str or Path
        The checkpoint, for messages.
    content : dict
        What it holds.

    Returns
    -------
    PretrainConfig
        The settings.

    Raises
    ------
    InputError
        If they are not settings of pretraining.
    """
    try:
        return make_config(PretrainConfig, "small", content["config"])
    except InputError as error:
        raise InputError(f"{path}: not a checkpoint of pretraining: {error}") from error


def load_part(path, content, part, module, config=None):
    """
    Load the weights of one part of a checkpoint into a module.

    Parameters
    ----------
    path : str or Path
        The checkpoint, for messages.
    content : dict
        What it holds.
    part : {"model", "criterion", "head"}
        Which part.
    module : nn.Module
        Receives the weights.
    config : PretrainConfig, optional
        Settings of the module, to say which of them differs.

    Raises
    ------
    InputError
        If the weights do not fit the module.
    """
    prefix = f"{part}."
    state = {
        name.removeprefix(prefix): value
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = f"its {part} has other weights than expected"
        if config is not None:
            there, here = content["config"], asdict(config)
            shaping = [
                name
                for name in SHAPING
                if name in there and there[name] != here.get(name)
            ]
            if shaping:
                reason = ", ".join(
                    f"--{flag(n)} is {there[n]!r} there and {here[n]!r} here"
                    for n in shaping
                )
        raise InputError(f"{path}: does not fit: {reason}") from error


SHAPING = (
    "encoder_type",
    "hidden_encoder",
    "sinc_mode",
    "norm_mode",
    "ar_mode",
    "hidden_gar",
    "layers_gar",
    "abspos",
    "gar_mode",
    "n_predicts",
    "predictor",
)
"""Settings that decide which weights a network has."""
