"""
The transcriber: a network with heads, its thresholds, and streaming over recordings.

A recording is processed in chunks, in memory that does not grow with its length; the
output is that of the network on the whole recording at once.
"""

from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch

from jtm.constants import INSTRUMENTS, N_PITCHES
from jtm.evaluation.streaming import NetworkSource
from jtm.files import InputError, read_json
from jtm.models.encoder import HarmonicStack
from jtm.models.heads import WIDTH, add_heads
from jtm.models.network import build_model
from jtm.training import checkpoints
from jtm.training.folder import RECORD
from jtm.training.processes import best_device, computes_bf16

WEIGHTS = Path(__file__).parents[1] / "weights" / "transcriber.safetensors"
"""Path to the weights shipped with the package."""

HEADS = {"transcription": ("map", 2), "who_plays_what": ("map", len(INSTRUMENTS) + 1)}
"""Kind of the head, and logits per pitch and frame; see `jtm.evaluation.tasks`."""

THRESHOLDS = {"frame": 0.4, "onset": 0.3}
"""Default probability thresholds of pitch activations (frame) and onsets."""

CHUNK = 256
"""Number of frames of the network in a chunk; at least the reach of the heads."""

MAX_BYTES = 5_000_000
"""Maximum size in bytes of the weights of a transcriber."""


@dataclass
class Transcriber:
    """
    A network with heads, and the thresholds of its predictions.

    Parameters
    ----------
    network : jtm.models.heads.NetworkWithHeads
        Body and heads.
    thresholds : dict of str to float
        Probability thresholds of pitch activations (``frame``) and of onsets
        (``onset``).
    fingerprint : str
        Hash of the weights.
    config : jtm.training.config.NetworkConfig, optional
        Settings of the network under the heads.
    normalised : bool
        Whether recordings are normalised in level and tuning, as in its training;
        ``main.py --supervised`` trains on them as they are.
    """

    network: object
    thresholds: dict
    fingerprint: str = ""
    config: object = None
    normalised: bool = True

    def __post_init__(self):
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def stream(self, recording, tuning=0.0):
        """
        Compute the logits of a recording in chunks.

        Parameters
        ----------
        recording : jtm.evaluation.streaming.Audio
            The recording, at the level that the network expects.
        tuning : float
            Tuning in semitones relative to A4 at 440 Hz; a front end with a pitch axis
            is shifted to match.

        Yields
        ------
        dict of str to numpy.ndarray
            For consecutive 10-ms frames, in float32: ``notes`` ``(frames, 2, 88)``,
            logits of pitch activations and of onsets; ``parts`` ``(frames, 11, 88)``,
            logits of each instrument's pitch activations, if there is a head for
            these; and ``power`` ``(frames, 88)`` of each pitch and its harmonics, if
            the network has a pitch axis.
        """
        heads = self.network.heads
        chunks = _extended(self._begin(recording, tuning), -1, heads.trunk.reaches[1:])
        for (*_, power, n_frames), parts, leads in chunks:
            with _autocast(parts[0].device):
                # The second part, if there is one, begins earlier than the first.
                maps = heads.trunk.finish(*parts, *(x - leads[0] for x in leads[1:]))
                logits = heads.read(maps[:, leads[0] : leads[0] + n_frames])
            logits = {t: x[0].float().cpu().numpy() for t, x in logits.items()}
            yield _named(logits) | power

    def _begin(self, recording, tuning):
        """Yield of each chunk what the trunk begins with, power, number of frames."""
        body, trunk = self.network.body, self.network.heads.trunk
        chunks = _Source(body.model, tuning).chunks(recording)
        reach = trunk.reaches[0]
        for (z, _), inputs, (lead, _) in _extended(chunks, 1, (reach, reach)):
            n_frames = z.shape[1]
            with _autocast(z.device):
                begun = trunk.begin(*inputs[: 1 if body.on_encoder else 2])
            parts = [part[..., lead : lead + n_frames] for part in begun]
            yield *parts, self._power(z, self.network.heads.stride), n_frames

    def _power(self, z, stride):
        """Sum the power of each pitch and its harmonics, from magnitudes within z."""
        encoder = self.network.body.model.encoder
        if not isinstance(encoder, HarmonicStack):
            return {}
        levels = z[0].unflatten(1, (N_PITCHES, -1))[..., -encoder.passed :].float()
        bands = torch.expm1(18 * levels.amax(2)).cpu().numpy()  # undoes log_magnitude
        power = bands.copy()
        for semitones in (12, 19, 24, 28, 31):
            power[:, :-semitones] += bands[:, semitones:]
        return {"power": np.repeat(power, stride, axis=0)}


def _named(logits):
    """Return the logits of the tasks as `notes` and, if available, `parts`."""
    parts = logits.get("who_plays_what")
    if parts is None:
        return {"notes": logits["transcription"]}
    onsets, parts = parts[:, -1], parts[:, :-1]
    notes = np.stack((parts.max(axis=1), onsets), axis=1)
    return {"notes": logits.get("transcription", notes), "parts": parts}


def _autocast(device):
    """Return a context of autocast to bfloat16 if the CPU supports it in hardware."""
    enabled = device.type == "cpu" and computes_bf16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _extended(chunks, axis, reaches):
    """
    Extend the tensors of each chunk by frames of the chunks before and after it.

    `reaches` has, for each tensor of a chunk, by how many frames to extend it along
    `axis` on either side, if there are as many. Yield the chunk, the extended tensors,
    and how many frames each was given at the start.
    """
    tails = [None] * len(reaches)  # the last frames of the chunk before
    for current, after in pairwise(chain(chunks, [None])):
        extended, leads = [], []
        for i, reach in enumerate(reaches):
            parts = [current[i]] if tails[i] is None else [tails[i], current[i]]
            leads.append(sum(x.shape[axis] for x in parts[:-1]))
            if after is not None:
                parts.append(after[i].narrow(axis, 0, min(reach, after[i].shape[axis])))
            extended.append(torch.cat(parts, axis))
            n = min(reach, current[i].shape[axis])
            tails[i] = current[i].narrow(axis, -n, n).clone()
        yield current, extended, leads


class _Source(NetworkSource):
    """Features of a network; its front end is tuned and runs in float32."""

    def __init__(self, model, tuning):
        super().__init__(model)
        self.tuning = tuning

    def encode(self, waves):
        encoder = self.model.encoder
        if not isinstance(encoder, HarmonicStack):
            return encoder(waves)
        waves = waves[..., : waves.shape[-1] // self.hop * self.hop]
        with torch.autocast(waves.device.type, enabled=False):
            magnitudes = encoder.filters(waves, self.tuning)
        return encoder.encode(magnitudes)

    def chunks(self, recording):
        """Yield z and c ``(1, frames, dim)`` of consecutive chunks."""
        device = next(self.model.parameters()).device
        chunks = self.tensors(recording, CHUNK)
        while True:
            with _autocast(device):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk[1:]


def check(name, network, config):
    """
    Refuse a network that cannot be a transcriber.

    Parameters
    ----------
    name : str or Path
        What messages begin with, such as its file.
    network : jtm.models.heads.NetworkWithHeads
        Body and heads.
    config : jtm.training.config.NetworkConfig
        Settings of the network under the heads.

    Raises
    ------
    InputError
        If the network is for reversed time, or larger than :data:`MAX_BYTES`.
    """
    _refuse_reversed(name, config)
    size = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    if size > MAX_BYTES:
        raise InputError(f"{name}: {size} bytes of weights; expected up to {MAX_BYTES}")


def _refuse_reversed(name, config):
    if config.cpc_mode == "reverse":
        raise InputError(
            f"{name}: a network for reversed time (--cpcMode reverse), which a "
            "transcriber cannot use"
        )


def save(path, network, config, thresholds):
    """
    Write a transcriber for distribution.

    Parameters
    ----------
    path : str or Path
        Path to the file to write, ending in ``.safetensors``.
    network : jtm.models.heads.NetworkWithHeads
        Body and heads, with a head for ``transcription``, ``who_plays_what`` or both.
    config : jtm.training.config.NetworkConfig
        Settings of the network under the heads.
    thresholds : dict of str to float
        Probability thresholds of pitch activations (``frame``) and of onsets
        (``onset``).

    Raises
    ------
    InputError
        If :func:`check` refuses the network, or the file cannot be written.
    """
    check(path, network, config)
    weights = network.state_dict()
    facts = {"thresholds": dict(thresholds), "network": config.network}
    facts |= {"on_encoder": network.body.on_encoder}
    checkpoints.write_tensors(path, weights, facts)


def load(path=None, content=None):
    """
    Load a transcriber.

    Parameters
    ----------
    path : str or Path, optional
        Path to a file written by :func:`save`, or to a checkpoint of ``main.py
        --supervised`` with ``--task transcription`` or ``who_plays_what``; by default
        the shipped weights. No code in the file is run.
    content : dict, optional
        Content of the file, if it has already been read.

    Returns
    -------
    Transcriber
        The transcriber, on a GPU if there is one.

    Raises
    ------
    InputError
        If the file is missing or damaged, or is not a transcriber.
    """
    path = Path(path or WEIGHTS)
    content = content or checkpoints.read_checkpoint(path)
    if content["kind"] != checkpoints.LABELS:
        raise InputError(
            f"{path}: pretrained without labels, and has no heads for notes; train "
            f"them: python main.py --supervised --load {path}"
        )
    state, readers = content["state_dict"], "network.heads.readers."
    tasks = {name.split(".")[3]: None for name in state if name.startswith(readers)}
    if not (tasks and tasks.keys() <= HEADS.keys()):
        raise InputError(
            f"{path}: trained on {', '.join(tasks)}; expected {' or '.join(HEADS)}"
        )
    config = checkpoints.network_config(path, content)
    _refuse_reversed(path, config)
    network = add_heads(
        build_model(config),
        {task: HEADS[task] for task in tasks},
        on_encoder=bool(content["config"].get("on_encoder")),
        width=len(state.get("network.heads.trunk.join.weight", ())) or WIDTH,
        around="network.heads.trunk.around.tell.weight" in state,
    )
    checkpoints.load_part(path, content, "network", network)
    fingerprint = checkpoints.fingerprint(network.state_dict())
    thresholds = content.get("thresholds")
    # Exported, or a checkpoint of `--preset transcriber`, which alone has that setting.
    normalised = thresholds is not None or "also" in content["config"]
    if thresholds is None:  # a run's are in its record, if it has finished
        record = path.with_name(RECORD)
        chosen = _thresholds(record) if record.exists() else {}
        thresholds = {n: chosen[f"{n}_threshold"] for n in THRESHOLDS if chosen}
    network.to(best_device())
    thresholds = THRESHOLDS | thresholds
    return Transcriber(network, thresholds, fingerprint, config, normalised)


def _thresholds(record):
    """Read the thresholds in a run's record; none if its task has other ones."""
    content = read_json(record)
    chosen = content.get("thresholds", {}) if isinstance(content, dict) else None
    if not isinstance(chosen, dict):
        raise InputError(f"{record}: not the record of a run; restore or remove it")
    return chosen
