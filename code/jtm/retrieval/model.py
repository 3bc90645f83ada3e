"""
Two towers that embed windows of audio and passages of scores in a joint space.

Embeddings are unit vectors, compared by cosine similarity. Audio towers take log
magnitudes of :data:`jtm.retrieval.config.FRAMES` averaged frames; score towers take
piano rolls in score time, of which the first ``cells`` cells are the passage.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jtm.constants import N_PITCHES
from jtm.files import InputError
from jtm.models.encoder import normed
from jtm.models.heads import PitchTrunk
from jtm.models.pitchmap import PitchBlock, PitchMapEncoder
from jtm.retrieval.config import CHANNELS, DIM, REFIT_DIM, TEMPERATURE
from jtm.retrieval.data import transpose
from jtm.training.checkpoints import read_tensors, write_tensors

VERSION = 1  # of the towers and their inputs; indices of other versions are refused
SEGMENTS = 4  # consecutive segments of a passage that are pooled separately
FEATURES = 8  # features per pitch, averaged over each segment
WIDTHS = (12, 24, 48, 48)  # channels of the published towers, two convolutions each
RIDGE = 1.0  # regularises the last projection, relative to the mean variance
MARGIN_CELLS = 6  # receptive field of an embedding past the passage, in silent cells
BATCH = 64  # windows or passages embedded at a time


def segments(lengths, size):
    """
    Compute frame weights for pooling the segments of a passage.

    Parameters
    ----------
    lengths : torch.Tensor
        Number of frames of each passage ``(batch,)``, above 0, maybe fractional.
    size : int
        Number of frames of the longest passage.

    Returns
    -------
    torch.Tensor
        Weights ``(batch, size, SEGMENTS)``: overlapping triangles that sum to one over
        frames; frames beyond the passage have weight 0.
    """
    position = (torch.arange(size, device=lengths.device) + 0.5) / lengths[:, None]
    centres = (torch.arange(SEGMENTS, device=lengths.device) + 0.5) / SEGMENTS
    position = position[..., None]  # (batch, size, 1)
    near = position.clamp(centres[0], centres[-1])
    weights = (1 - SEGMENTS * (near - centres).abs()).clamp(min=1e-4)
    weights = weights * (position < 1 + 0.5 / lengths[:, None, None])
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)


class _Summary(nn.Module):
    """Pool a pitch map by segments and embed it: the only part with absolute pitch."""

    def __init__(self, channels):
        super().__init__()
        size = SEGMENTS * N_PITCHES * FEATURES
        self.features = nn.Linear(channels, FEATURES)
        self.norm = nn.LayerNorm(size)
        self.last = nn.Linear(size, DIM)
        self.embeds = True

    def forward(self, maps, weights):
        """Embed maps ``(batch, frames, 88, channels)`` with weights of frames."""
        return self.embed(self.pool(maps, weights))

    def pool(self, maps, weights):
        """Average features over segments to ``(batch, SEGMENTS, 88, FEATURES)``."""
        features = functional.relu(self.features(maps))
        return torch.einsum("bfpc,bfs->bspc", features, weights.to(features.dtype))

    def embed(self, pooled):
        """Embed pooled features to ``(batch, DIM)``."""
        features = self.norm(pooled.flatten(1).float())
        return self.last(features) if self.embeds else features


class _PitchAudioTower(nn.Module):
    """Embed audio by a pitch-map encoder and a trunk."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        channels = encoder.dim // N_PITCHES - encoder.passed
        self.trunk = PitchTrunk((encoder.dim,), channels)
        self.summary = _Summary(self.trunk.channels)

    def pool(self, magnitudes):
        """Compute pooled features of log magnitudes ``(batch, frames, bins)``."""
        maps = self.trunk(self.encoder.encode(magnitudes))
        lengths = torch.full((len(maps),), maps.shape[1], device=maps.device)
        return self.summary.pool(maps, segments(lengths, maps.shape[1]))

    def forward(self, magnitudes):
        """Embed log magnitudes ``(batch, frames, bins)`` to ``(batch, DIM)``."""
        return self.summary.embed(self.pool(magnitudes))


class _PitchScoreTower(nn.Module):
    """Embed scores, equivariantly to transposition up to the last layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, CHANNELS, 3, padding=1)
        dilations = (1, 1), (12, 1), (1, 2)
        self.blocks = nn.Sequential(*(PitchBlock(CHANNELS, d) for d in dilations))
        self.norm = nn.LayerNorm(CHANNELS)
        self.summary = _Summary(CHANNELS)

    def _maps(self, rolls):
        """Compute features ``(batch, cells, 88, channels)`` of rolls."""
        maps = functional.relu(
            self.stem(rolls.contiguous(memory_format=torch.channels_last))
        )
        return normed(self.norm, self.blocks(maps)).permute(0, 3, 2, 1)

    def forward(self, rolls, cells):
        """Embed rolls ``(batch, 2, 88, cells)`` to ``(batch, DIM)``."""
        return self.summary(self._maps(rolls), segments(cells, rolls.shape[3]))


class _PublishedTower(nn.Module):
    """
    Embed audio or scores as published (Dorfer et al. 2018, table 2).

    Audio has one channel, its bins averaged in pairs to one per semitone; scores are
    rolls of two channels instead of images of sheet music.
    """

    def __init__(self, channels):
        super().__init__()
        layers = []
        for width in WIDTHS:
            for _ in range(2):
                conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ELU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(channels, DIM, 1, bias=False), nn.BatchNorm2d(DIM)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs, cells=None):
        """Embed magnitudes ``(batch, frames, bins)`` or rolls to ``(batch, DIM)``."""
        if inputs.ndim == 3:
            inputs = functional.avg_pool1d(inputs, 2).transpose(1, 2)[:, None]
        return self.layers(inputs.contiguous(memory_format=torch.channels_last))


class _CCALayer(nn.Module):
    """
    Project two views onto their canonical directions (Dorfer et al. 2018).

    In training, the directions are computed from an exponential moving average of the
    batches' covariances, in which the current batch has weight `momentum`, and
    gradients flow through them. `ridge` is added to the variances.
    """

    def __init__(self, momentum=0.3, ridge=1e-2):
        super().__init__()
        self.momentum, self.ridge = momentum, ridge
        self.register_buffer("mean", torch.zeros(2, DIM))
        self.register_buffer("covariance", torch.eye(2 * DIM))
        self.register_buffer("directions", torch.eye(DIM).repeat(2, 1, 1))

    def forward(self, audio, score):
        """Project both views ``(batch, DIM)``; in training, update the directions."""
        if not self.training:
            return self.projected(0, audio), self.projected(1, score)
        joint = torch.cat((audio, score), 1)
        mean = joint.mean(0)
        centred = joint - mean
        covariance = centred.T @ centred / (len(joint) - 1)
        mean = self.mean.lerp(mean.unflatten(0, (2, DIM)), self.momentum)
        covariance = self.covariance.lerp(covariance, self.momentum)
        directions = self._solve(covariance)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.covariance.copy_(covariance)
            self.directions.copy_(directions)
        return (audio - mean[0]) @ directions[0], (score - mean[1]) @ directions[1]

    def _solve(self, covariance):
        """Compute directions ``(2, DIM, DIM)`` from the joint covariance."""
        ridge = self.ridge * torch.eye(DIM, device=covariance.device)
        first, second = (
            _inverse_root(covariance[part, part] + ridge)
            for part in (slice(DIM), slice(DIM, None))
        )
        # Of the singular vectors U and V only the polar factor V U' matters, since
        # rotating both views changes no cosine.
        cross = first @ covariance[:DIM, DIM:] @ second
        gram = cross @ cross.T + 1e-4 * torch.eye(DIM, device=cross.device)
        return torch.stack((first, second @ cross.T @ _inverse_root(gram)))

    def projected(self, view, features):
        """Project one view with the learned mean and directions."""
        return (features - self.mean[view]) @ self.directions[view]


def _inverse_root(matrix):
    """
    Compute the inverse square root of a symmetric, positive definite matrix, float32.

    This uses the Newton-Schulz iteration, whose gradient, unlike that of eigenvectors,
    is finite for equal eigenvalues; it is valid for condition numbers up to 1e6.
    """
    matrix = matrix.double()
    size = matrix.norm()
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    root, inverse = matrix / size, eye
    for _ in range(24):
        step = (3 * eye - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return (inverse / size.sqrt()).float()


def _canonical(audio, score, dim, ridge):
    """
    Compute regularised linear canonical correlation analysis (Hotelling 1936).

    From features ``(pairs, features)`` of each view, return the mean ``(features,)``
    and directions ``(features, dim)``, scaled by the canonical correlations so that
    weakly correlated directions count little. `ridge`, relative to the mean variance,
    is added to the variances.
    """
    views = [view - view.mean(0) for view in (audio, score)]
    roots = []
    for view in views:
        covariance = view.T @ view / (len(view) - 1)
        variances = covariance.diagonal()
        variances.add_(ridge * variances.mean())
        roots.append(torch.linalg.cholesky(covariance))
    cross = views[0].T @ views[1] / (len(audio) - 1)
    for root in roots:  # whitened from the left, then from the right
        cross = torch.linalg.solve_triangular(root, cross, upper=False).T
    left, correlations, right = torch.svd_lowrank(cross, dim + 32, niter=4)
    scale = correlations[:dim]
    return [
        (mean, torch.linalg.solve_triangular(root.T, x[:, :dim], upper=True) * scale)
        for mean, root, x in zip(
            (audio.mean(0), score.mean(0)), roots, (left, right), strict=True
        )
    ]


class Towers(nn.Module):
    """
    Combine both towers with a joint projection and the softmax temperature.

    Parameters
    ----------
    kind : {"pitchmap", "published"}
        Architecture of the towers.
    encoder : PitchMapEncoder, optional
        Encoder of the pitch-map audio tower; untrained by default.
    dim : int
        Dimension of the embeddings; :data:`REFIT_DIM` for refitted pitch-map towers.
    """

    def __init__(self, kind="pitchmap", encoder=None, dim=DIM):
        super().__init__()
        self.kind, self.dim = kind, DIM
        self.channels = CHANNELS  # of the encoder
        self.log_scale = nn.Parameter(torch.tensor(1 / TEMPERATURE).log())
        if kind == "pitchmap":
            self.audio = _PitchAudioTower(encoder or PitchMapEncoder(CHANNELS))
            self.channels = self.audio.trunk.channels
            self.score = _PitchScoreTower()
        else:
            self.audio, self.score = _PublishedTower(1), _PublishedTower(2)
        self.join = _CCALayer()
        if dim != DIM:
            self._widen(dim)

    def _widen(self, dim):
        """Replace the last layers by wider ones that need no joint projection."""
        self.join, self.dim = None, dim
        for tower in (self.audio, self.score):
            last = tower.summary.last
            tower.summary.last = nn.Linear(last.in_features, dim)

    def forward(self, magnitudes, rolls, cells):
        """Embed pairs of log magnitudes and rolls as unit vectors."""
        audio, score = self.audio(magnitudes), self.score(rolls, cells)
        with torch.autocast(audio.device.type, enabled=False):
            audio, score = audio.float(), score.float()
            if self.join:
                audio, score = self.join(audio, score)
            return functional.normalize(audio), functional.normalize(score)

    @torch.no_grad()
    def refit(self, batches):
        """Refit the final linear projections from many pairs in closed form."""
        if self.kind == "pitchmap":
            self._widen(REFIT_DIM)
            self.audio.summary.embeds = self.score.summary.embeds = False
        features = [(self.audio(x), self.score(*y)) for x, *y in batches]
        pairs = (torch.cat(view) for view in zip(*features, strict=True))
        # With few features, there are enough pairs for a small ridge.
        views = _canonical(*pairs, self.dim, RIDGE if self.join is None else 0.01)
        if self.join:
            self.join.mean.copy_(torch.stack([mean for mean, _ in views]))
            self.join.directions.copy_(torch.stack([basis for _, basis in views]))
            return
        towers = self.audio, self.score
        for tower, (mean, directions) in zip(towers, views, strict=True):
            tower.summary.embeds = True
            tower.summary.last.weight.copy_(directions.T)
            tower.summary.last.bias.copy_(-mean @ directions)

    @torch.no_grad()
    def embed_audio(self, magnitudes):
        """Embed windows of audio."""
        batches = torch.from_numpy(magnitudes).split(BATCH)
        return np.concatenate([self._finish(0, self.audio(each)) for each in batches])

    @torch.no_grad()
    def embed_in_keys(self, magnitudes, keys):
        """
        Embed windows of audio, by pitch-map towers, transposed to several keys.

        Features before the last layer are equivariant to transposition, so audio is
        encoded once and its features are shifted.

        Parameters
        ----------
        magnitudes : numpy.ndarray
            Log magnitudes ``(windows, frames, bins)``.
        keys : sequence of int
            Transpositions in semitones, within an octave or two.

        Yields
        ------
        numpy.ndarray
            Embeddings ``(windows, dim)`` in each key.
        """
        batches = torch.from_numpy(magnitudes).split(BATCH)
        pooled = torch.cat([self.audio.pool(each) for each in batches]).numpy()
        silence = self.audio.pool(torch.zeros_like(batches[0][:1])).numpy()
        for key in keys:
            shifted = torch.from_numpy(transpose(pooled, key, 2, silence))
            yield self._finish(0, self.audio.summary.embed(shifted))

    @torch.no_grad()
    def embed_scores(self, rolls, cells):
        """Embed passages of scores."""
        order = np.argsort(cells, kind="stable")
        vectors = np.zeros((len(rolls), self.dim), np.float32)
        for first in range(0, len(rolls), BATCH):
            chosen, width = order[first:][:BATCH], None
            if self.kind == "pitchmap":
                # Cells after the longest passage would cost time and change nothing.
                width = int(np.ceil(cells[chosen].max())) + MARGIN_CELLS
            batch = torch.from_numpy(rolls[chosen][..., :width])
            embedded = self.score(batch, torch.from_numpy(cells[chosen]))
            vectors[chosen] = self._finish(1, embedded)
        return vectors

    def compare(self, magnitudes, rolls, cells):
        """Compute cosine similarities of all pairs ``(windows, passages)``."""
        return self.embed_audio(magnitudes) @ self.embed_scores(rolls, cells).T

    def _finish(self, view, embedded):
        """Project features of one view and normalise them to unit length."""
        embedded = embedded.float()
        if self.join:
            embedded = self.join.projected(view, embedded)
        return functional.normalize(embedded).numpy()


def save(path, towers, facts):
    """
    Write towers as safetensors.

    Parameters
    ----------
    path : str or Path
        The file.
    towers : Towers
        The towers, on the CPU.
    facts : dict
        Further metadata, such as thresholds.
    """
    facts = facts | {"channels": towers.channels, "dim": towers.dim}
    about = {"towers": towers.kind, "version": VERSION, "facts": facts}
    write_tensors(path, towers.state_dict(), about)


def load(path):
    """
    Read towers that :func:`save` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    towers : Towers
        The towers, in evaluation mode.
    facts : dict
        Further metadata.
    fingerprint : str
        Hash of the weights.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another version.
    """
    expected = {"towers": str, "version": int, "facts": dict}
    tensors, about = read_tensors(path, "towers", "`jtm retrieval`", expected)
    if about["version"] != VERSION:
        raise InputError(f"{path}: towers of another version of JTM; train them again")
    facts = about["facts"]
    try:
        encoder = PitchMapEncoder(facts.get("channels", 1))
        towers = Towers(about["towers"], encoder, facts.get("dim", DIM))
        towers.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{path}: does not fit the towers; train them again"
        ) from error
    return towers.eval(), facts, about["sha256"]
