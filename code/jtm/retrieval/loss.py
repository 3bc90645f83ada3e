"""Losses of the two towers, and the module that trains them."""

import torch
from torch.nn import functional

from jtm.models.augment import augment_magnitudes
from jtm.retrieval.config import MARGIN
from jtm.training.loop import Module, schedule

WARMUP = 20  # steps of learning-rate warm-up
WEIGHT_DECAY = 0.01  # of AdamW
FINE_TUNING = 0.5  # learning rate of a pretrained encoder, relative to that of the rest


def _infonce(cosines, scale):
    """
    Compute InfoNCE in both directions (van den Oord et al. 2018, equation 4).

    Positives are on the diagonal of `cosines`; `scale` is the inverse temperature.
    """
    targets = torch.arange(len(cosines), device=cosines.device)
    logits = scale * cosines
    directions = (logits, logits.T)
    return sum(functional.cross_entropy(each, targets) for each in directions) / 2


def _ranking(cosines):
    """
    Compute the pairwise ranking loss in both directions (Dorfer et al. 2018).

    It sums ``max(0, MARGIN - positive + negative)`` over negatives, and averages over
    pairs; positives are on the diagonal of `cosines`.
    """
    positive = cosines.diagonal()
    negative = ~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    directions = (cosines - positive[:, None], cosines - positive[None])
    return sum((functional.relu(MARGIN + x) * negative).sum() for x in directions) / (
        2 * len(cosines)
    )


class Matching(Module):
    """
    Train two towers on pairs.

    Parameters
    ----------
    towers : jtm.retrieval.model.Towers
        The towers.
    config : jtm.retrieval.config.RetrievalConfig
        Settings.
    plan : jtm.training.loop.Plan
        Training plan.
    pairs : jtm.retrieval.data.Pairs
        Training batches.
    **chosen
        Passed on to :class:`jtm.training.loop.Module`.
    """

    title = "Matching"

    def __init__(self, towers, config, plan, pairs, **chosen):
        super().__init__(plan, pairs, **chosen)
        self.towers = towers
        self.config = config
        towers.train()
        if config.frozen:
            towers.audio.encoder.requires_grad_(False).eval()
        self.lr_factor = schedule(plan.n_epoch * len(pairs), WARMUP, "cosine")

    def loss(self, batch, split, step):
        """Compute the loss of a batch, and the accuracy of audio-to-score retrieval."""
        magnitudes, rolls, cells = batch
        audio, score = self.towers(augment_magnitudes(magnitudes), rolls, cells)
        with torch.autocast(audio.device.type, enabled=False):
            cosines = audio @ score.T
        if self.config.objective == "infonce":
            loss = _infonce(cosines, self.towers.log_scale.exp().clamp(max=100))
        else:
            loss = _ranking(cosines)
        first = cosines.argmax(1) == torch.arange(len(cosines), device=cosines.device)
        return {"loss": loss, "accuracy_1": first.float().mean()}

    def parameter_groups(self):
        """Return the parameter groups, with a lower rate for a loaded encoder."""
        rate = self.config.learning_rate
        encoder, others = [], []
        for name, parameter in self.towers.named_parameters():
            (encoder if name.startswith("audio.encoder.") else others).append(parameter)
        groups = [{"params": others, "lr": rate, "weight_decay": WEIGHT_DECAY}]
        if encoder and not self.config.frozen:
            slow = rate * (FINE_TUNING if self.config.load else 1)
            groups.append({"params": encoder, "lr": slow, "weight_decay": WEIGHT_DECAY})
        return groups
