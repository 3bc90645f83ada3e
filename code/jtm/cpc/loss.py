"""
InfoNCE: classify the true future latent among negatives.

For an anchor frame t and a step k, the score of a candidate latent z is
``f_k(c_t) . z`` and the loss is the cross-entropy of picking ``z_{t+k}`` among
itself and N negatives (van den Oord et al. 2018, equations 3 and 4). If all
scores are equal, the loss is ``log(1 + N)``.
"""

import torch
from torch import nn
from torch.nn import functional

from jtm.constants import HOP
from jtm.models.context import TransformerBlock

PITCHES = 24
"""Pitches sampled per batch when each pitch is contrasted separately."""


def draw_negatives(
    recordings, frames, anchors, steps, n_negatives, same_share, others, generator
):
    """
    Draw the negatives of every anchor, excluding its positives.

    Parameters
    ----------
    recordings : torch.Tensor
        Recording of each window, integers ``(batch,)``.
    frames : int
        Number of latents per window.
    anchors : torch.Tensor
        Anchor frames ``(anchors,)``, the same in every window.
    steps : torch.Tensor
        Predicted steps in frames ``(steps,)``, ascending; if empty, there are no
        positives to exclude.
    n_negatives : int
        Number of negatives per anchor, drawn with replacement.
    same_share : float
        Fraction of the negatives drawn from windows of the anchor's own recording,
        its own window included; the rest is drawn from all windows. With `others`,
        a window without another window of its recording draws from all.
    others : bool
        Whether to draw from other windows only, if there are any.
    generator : torch.Generator
        Random number generator on the CPU.

    Returns
    -------
    torch.Tensor
        Indices ``(batch, anchors, negatives)`` into the latents of the batch
        flattened to ``(batch * frames, dim)``.
    """
    batch, drawn = len(recordings), []
    n_same = round(same_share * n_negatives)
    own, other = torch.arange(batch), ~torch.eye(batch, dtype=torch.bool)
    same = recordings[:, None] == recordings  # (batch, batch)
    for allowed, count in ((same & other, n_same), (other, n_negatives - n_same)):
        if not count:
            continue
        # Candidates of a window: its own frames without the positives, then the
        # frames of the windows it may draw from, in order.
        if others:  # fall back to any other window if the recording has only one
            allowed = torch.where(allowed.any(1, keepdim=True), allowed, other)
        n_windows = allowed.sum(1)
        order = torch.argsort(~allowed * batch + own)  # allowed windows first
        n_own = 0 if others and batch > 1 else frames - len(steps)
        total = n_own + n_windows * frames  # (batch,)
        uniform = torch.rand(batch, len(anchors), count, generator=generator)
        index = (uniform.double() * total[:, None, None]).long()
        index = frame = torch.minimum(index, total[:, None, None] - 1)
        for step in steps:  # skip the positives, in ascending order
            frame = frame + (frame >= (anchors + step)[:, None])
        far = (index - n_own).clamp(min=0)
        window = order.gather(1, (far // frames).flatten(1)).view_as(far)
        far = window * frames + far % frames
        near = own[:, None, None] * frames + frame
        drawn.append(torch.where(index < n_own, near, far))
    return torch.cat(drawn, dim=2)


class InfoNCE(nn.Module):
    """
    Predict K future latents from the context and contrast them with negatives.

    On a pitch axis, each pitch's latent is predicted from its own features of c with
    shared weights, except for the log magnitudes at the end of that latent, which the
    encoder passes through unchanged.

    Parameters
    ----------
    config : jtm.cpc.config.PretrainConfig
        Settings.
    model : jtm.models.network.Network
        The network to train.
    """

    def __init__(self, config, model):
        super().__init__()
        self.config = config
        both = config.contrast == "both"
        self.contrasts = ("frame", "pitch") if both else (config.contrast,)
        self.step_frames = config.step_frames * HOP // model.encoder.hop
        self.anchor_stride = config.anchor_frames * HOP // model.encoder.hop
        self.groups = getattr(model.context, "groups", 1)
        self.passed = model.encoder.passed if self.groups > 1 else 0
        self.dropout = nn.Dropout(config.dropout)
        self.layer = nn.Identity()
        if config.predictor == "transformer":
            self.layer = TransformerBlock(model.c_dim, config.dropout)
        outputs = config.n_predicts * (model.z_dim // self.groups - self.passed)
        self.predict = nn.Linear(model.c_dim // self.groups, outputs, bias=False)

    def forward(self, z, c, recordings, generator):
        """
        Compute loss and accuracy of every step.

        Parameters
        ----------
        z : torch.Tensor
            Latents ``(batch, frames, z_dim)``.
        c : torch.Tensor
            Contexts ``(batch, frames, c_dim)``.
        recordings : torch.Tensor
            Recording of each window, integers ``(batch,)``.
        generator : torch.Generator
            Random number generator of the negatives, on the CPU.

        Returns
        -------
        dict of str to torch.Tensor
            ``loss``, the mean over steps in nats, and ``loss_K`` and
            ``accuracy_K`` of each step K from 1; see :func:`info_nce`.

        Raises
        ------
        ValueError
            If the window is too short for the furthest step.
        """
        results = [
            info_nce(self.scores(z, c, recordings, generator, contrast))
            for contrast in self.contrasts
        ]
        losses, accuracies = (
            torch.stack(values).mean(0) for values in zip(*results, strict=True)
        )
        metrics = {"loss": losses.mean()}
        for k, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1):
            metrics |= {f"loss_{k}": loss.detach(), f"accuracy_{k}": accuracy}
        return metrics

    def scores(self, z, c, recordings, generator, contrast="frame"):
        """
        Score the positive and the negatives of every anchor and step.

        Parameters
        ----------
        z, c, recordings, generator : torch.Tensor, torch.Generator
            As for :meth:`forward`.
        contrast : {"frame", "pitch"}
            Whether an anchor is a frame, or one pitch of a frame.

        Returns
        -------
        torch.Tensor
            Scores ``(batch, anchors, steps, 1 + negatives)``, the positive at
            index 0.
        """
        frames = z.shape[1]
        steps = self.step_frames * torch.arange(1, self.config.n_predicts + 1)
        reach = int(steps[-1])
        if frames <= reach:
            raise ValueError(
                f"a window of {frames} frames is too short to predict {reach} ahead"
            )
        anchors = torch.arange(0, frames - reach, self.anchor_stride)
        c = self.layer(self.dropout(c)).unflatten(-1, (self.groups, -1))
        z = z.unflatten(-1, (self.groups, -1))
        score = self._score_pitches if contrast == "pitch" else self._score_frames
        predicted, positives, negative = score(
            z, c, anchors, steps, recordings.cpu(), generator
        )
        positive = (predicted * positives).sum(-1, keepdim=True)
        return torch.cat((positive, negative), dim=-1)

    def _compare(self, predicted, z):
        """Scale predictions and latents so that their product is the score."""
        if self.config.score == "cosine":
            length = 1 / self.config.temperature
            return _to_length(predicted, length), _to_length(z, 1.0)
        return predicted / z.shape[-1], z

    def _score_frames(self, z, c, anchors, steps, recordings, generator):
        """
        Score whole latents.

        Return predictions and positives ``(batch, anchors, steps, dim)``, and scores of
        negatives ``(batch, anchors, steps, negatives)``.
        """
        (batch, frames), config = z.shape[:2], self.config
        z = z[..., : z.shape[-1] - self.passed].flatten(2)
        predicted = self.predict(c[:, : anchors[-1] + 1 : self.anchor_stride])
        predicted = predicted.unflatten(-1, (config.n_predicts, -1))
        predicted = predicted.transpose(2, 3).flatten(3)
        predicted, z = self._compare(predicted, z)
        shared = config.share_negatives == "window"
        positions = (anchors[:1], steps[:0]) if shared else (anchors, steps)
        n_negatives = config.negative_sampling_ext
        options = n_negatives, config.same_share, config.other_windows, generator
        drawn = draw_negatives(recordings, frames, *positions, *options)
        # (batch, anchors or 1, negatives)
        own = torch.arange(batch)[:, None, None] * frames + anchors[:, None] + steps
        # Looked up by embedding(), whose backward, unlike that of indexing, adds in a
        # fixed order.
        latents = z.flatten(0, 1)
        positives = functional.embedding(own.to(z.device), latents)
        if shared:  # drawn once per window; an anchor's positives are masked
            negatives = functional.embedding(drawn[:, 0].to(z.device), latents)
            is_positive = (own[..., None] == drawn[:, :, None]).any(2)  # of any step
            scores = predicted.flatten(1, 2) @ negatives.transpose(-1, -2)
            scores = scores.unflatten(1, predicted.shape[1:3])
            negative = _mask(scores, is_positive[:, :, None])
        elif 2 * config.n_predicts * len(latents) <= n_negatives * z.shape[-1]:
            # One product with all latents of the batch takes less time and
            # memory than copying the negatives.
            scores = predicted.flatten(0, 2) @ latents.T
            scores = scores.view(*predicted.shape[:3], -1)
            drawn = drawn[:, :, None].expand(-1, -1, config.n_predicts, -1)
            negative = scores.gather(-1, drawn.to(z.device))
        else:  # negatives are copied once for all steps
            negatives = functional.embedding(drawn.to(z.device), latents)
            negative = predicted @ negatives.transpose(-1, -2)
        return predicted, positives, negative

    def _score_pitches(self, z, c, anchors, steps, recordings, generator):
        """
        Score each pitch separately: an anchor is one pitch of a frame.

        Return as `_score_frames`. Pitches are sampled in proportion to magnitude, and
        for each pitch frames of the batch, whose futures are each other's negatives:
        the same pitch at other times. Thus neither the pitch itself nor a loud note
        that decays identifies the positive.
        """
        frames, groups = z.shape[1:3]
        magnitude = z[:, anchors, :, -self.passed :].mean(-1).detach().float().cpu()
        magnitude = magnitude.permute(2, 0, 1).flatten(1) + 1e-4  # (groups, moments)
        group = torch.multinomial(
            magnitude.sum(1), min(PITCHES, groups), generator=generator
        )
        n_moments = 1 + self.config.negative_sampling_ext
        moment = torch.multinomial(
            magnitude[group], n_moments, True, generator=generator
        )
        frame = moment // len(anchors) * frames + anchors[moment % len(anchors)]
        anchor = frame * groups + group[:, None]  # (groups, moments)
        own = anchor[..., None] + steps * groups
        # Positives of any step are excluded, the anchor's own among them.
        others = own.transpose(1, 2)[:, None, :, None]
        is_positive = (own[:, :, None, :, None] == others).any(3)
        contexts = functional.embedding(anchor.to(z.device), c.flatten(0, 2))
        predicted = self.predict(contexts).unflatten(-1, (len(steps), -1))
        # Scaled after the lookup.
        positives = functional.embedding(own.to(z.device), z.flatten(0, 2))
        predicted, positives = self._compare(predicted, positives[..., : -self.passed])
        candidates = positives.permute(0, 2, 3, 1)
        scores = (predicted.transpose(1, 2) @ candidates).transpose(1, 2)
        return predicted, positives, _mask(scores, is_positive)


def _to_length(x, length):
    """Scale vectors to a given norm, in fewer passes than normalise and multiply."""
    return x * (length / x.norm(dim=-1, keepdim=True).clamp(min=1e-12))


def _mask(scores, is_positive):
    """Mask negatives that are an anchor's positives with the lowest finite score."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill_(is_positive.to(scores.device), lowest)


def info_nce(scores):
    """
    Compute loss and accuracy of each step from scores.

    Parameters
    ----------
    scores : torch.Tensor
        Scores ``(batch, anchors, steps, 1 + negatives)``, the positive at
        index 0.

    Returns
    -------
    losses : torch.Tensor
        Mean cross-entropy of each step ``(steps,)`` in nats (van den Oord et
        al. 2018, equation 4).
    accuracies : torch.Tensor
        Fraction of anchors whose positive outscores every negative ``(steps,)``.

    Examples
    --------
    >>> losses, accuracies = info_nce(torch.zeros(1, 1, 1, 1 + 7))
    >>> torch.allclose(losses, torch.tensor(8.0).log())
    True
    >>> float(accuracies)
    0.0
    """
    scores = scores.float()
    # Faster than logsumexp minus the positive, forward and backward.
    losses = -scores.log_softmax(-1)[..., 0]
    hits = scores[..., 0] > scores[..., 1:].amax(-1)
    return losses.mean((0, 1)), hits.float().mean((0, 1))
