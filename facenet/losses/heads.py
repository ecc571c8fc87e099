"""Classification heads: losses on (embeddings, labels) with weights of their own.

Letters: B batch, D width, C classes, K centres of a class.
Sources: CosFace: Wang et al., arXiv 1801.09414, equation 4. ArcFace: Deng et al., arXiv 1801.07698, equation 3.
AdaFace: Kim et al., arXiv 2204.00964, equations 13 to 15. Sub-centres: Deng et al., ECCV 2020. Sampled classes: An et
al., Partial FC, arXiv 2203.15565.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facenet.errors import ConfigError, choose
from facenet.large_batch.ranks import gather
from facenet.registry import named_by


class Softmax(nn.Module):
    """Cross entropy of a linear layer: mean of -log softmax(W x + b)[label], x (B, D), W (C, D).

    `label_smoothing` in [0, 1) spreads that share of the target evenly over all classes. Rows with label -1 are
    ignored; when all are, the loss is 0 with a graph. Raises ConfigError for options out of range.
    """

    def __init__(self, num_classes: int, embedding_dim: int, *, label_smoothing: float = 0.0) -> None:
        """Make the layer with torch's default initialisation and a zero bias."""
        super().__init__()
        _check_head(num_classes, embedding_dim, label_smoothing)
        self.label_smoothing = label_smoothing
        self.linear = nn.Linear(embedding_dim, num_classes)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of `embeddings` (B, D) with class numbers `labels` (B,)."""
        return _cross_entropy(self.linear(embeddings), labels, self.label_smoothing)


class MarginHead(nn.Module):
    """Cross entropy of scale * cosines to class directions, of which the own class's is lowered by a margin.

    A class has K = `centres` directions, and the nearest counts, so that a label may cover some strangers.

    While training, `sampled` classes stand for all C: those of the rows, and others that each rank draws anew. Classes
    that were not drawn have a gradient of 0, so an optimiser's momentum and decay still move them.

    Rows with label -1 are ignored; when all are, the loss is 0 with a graph. A scale or margin of None is that of the
    head's paper.
    """

    SCALE = 64.0
    MARGIN: float
    MOST: float  # bound of the margin

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        scale: float | None = None,
        margin: float | None = None,
        label_smoothing: float = 0.0,
        centres: int = 1,
        sampled: int | None = None,
    ) -> None:
        """Make the directions (C K, D), drawn evenly on the sphere; raises ConfigError for options out of range."""
        super().__init__()
        scale, margin = (own if given is None else given for given, own in ((scale, self.SCALE), (margin, self.MARGIN)))
        _check_head(num_classes, embedding_dim, label_smoothing)
        if centres < 1 or (sampled is not None and sampled < 2):
            raise ConfigError(
                f"head: expected centres of at least 1 and sampled of at least 2, got {centres}, {sampled}"
            )
        if not (scale > 0 and math.isfinite(scale) and 0 <= margin < self.MOST):
            name = type(self).__name__.lower()
            raise ConfigError(f"{name}: expected scale > 0 and 0 <= margin < {self.MOST:g}, got {scale} and {margin}")
        self.scale, self.margin, self.label_smoothing = scale, margin, label_smoothing
        self.num_classes, self.centres, self.sampled = num_classes, centres, sampled
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes * centres, embedding_dim), dim=1))

    def lower(self, cosines: Tensor) -> Tensor:
        """Return what stands for the cosines of the own classes."""
        raise NotImplementedError

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of `embeddings` (B, D) with class numbers `labels` (B,)."""
        eps = 1e-6  # bounds the gradient near the zero vector
        directions, labels = self._sample(labels)
        kind = embeddings.dtype if embeddings.dtype == torch.float64 else torch.float32
        with torch.autocast(embeddings.device.type, enabled=False):  # half of the numbers knows no angle near 0
            cosines = F.linear(*(F.normalize(one.to(kind), dim=1, eps=eps) for one in (embeddings, directions)))
        if self.centres > 1:
            cosines = cosines.unflatten(1, (-1, self.centres)).amax(-1)
        own = F.one_hot(labels.clamp(min=0), cosines.shape[1]).bool()  # (B, C)
        return _cross_entropy(self.scale * torch.where(own, self.lower(cosines), cosines), labels, self.label_smoothing)

    def _sample(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the directions of the classes that stand for all, and the labels (B,) among these."""
        if self.sampled is None or self.sampled >= self.num_classes or not self.training:
            return self.weight, labels
        there = labels >= 0
        own = labels[there].unique()
        order = torch.rand(self.num_classes, device=labels.device)
        order[own] = 2.0  # before all others
        chosen = order.topk(max(self.sampled, len(own))).indices
        place = labels.new_empty(self.num_classes)
        place[chosen] = torch.arange(len(chosen), device=labels.device)
        directions = self.weight.unflatten(0, (-1, self.centres))[chosen].flatten(0, 1)
        return directions, torch.where(there, place[labels.clamp(min=0)], labels)


class CosFace(MarginHead):
    """Large margin cosine loss: cross entropy of scale * (cos(x, w_c) - margin [c = label]), x (B, D), w (C, D).

    `scale` multiplies cosines into logits (the paper's 64), `margin` is in cosine (the paper's 0.35). Raises
    ConfigError for options out of range. Source: Wang et al. 2018, equation 4.
    """

    MARGIN, MOST = 0.35, 2.0

    def lower(self, cosines: Tensor) -> Tensor:
        """Return cos - margin."""
        return cosines - self.margin


class ArcFace(MarginHead):
    """Additive angular margin loss: the own class has scale * cos(angle + margin), x (B, D), w (C, D).

    `scale` multiplies cosines into logits (the paper's 64), `margin` is an angle in radians (the paper's 0.5). Beyond
    pi - margin, where the cosine of the sum would grow again, cos - margin sin(margin) takes its place, as in the
    authors' code. Raises ConfigError for options out of range. Source: Deng et al. 2019, equation 3.
    """

    MARGIN, MOST = 0.5, math.pi / 2

    def lower(self, cosines: Tensor) -> Tensor:
        """Return cos(angle + margin)."""
        sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()  # the bound keeps the gradient finite at angle 0
        turned = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        beyond = cosines - self.margin * math.sin(self.margin)
        return torch.where(cosines > -math.cos(self.margin), turned, beyond)


class AdaFace(MarginHead):
    """Quality adaptive margin: the own class has scale * (cos(angle - margin z) - margin z - margin), x (B, D).

    z in [-1, 1] is how far the length of the embedding before it is scaled lies from the mean of lengths, in units of 3
    standard deviations: short ones are of poor pictures. Mean and deviation move by a hundredth of each batch's, over
    all ranks. Source: Kim et al. 2022, equations 13 to 15, and the authors' code (margin 0.4, h 0.333).
    """

    MARGIN, MOST = 0.4, math.pi / 2
    CONCENTRATION, SHARE, EPS = 0.333, 0.01, 1e-3

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_classes: int, embedding_dim: int, **options: Any) -> None:
        super().__init__(num_classes, embedding_dim, **options)
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))
        self._lengths: Tensor | None = None

    def take_lengths(self, lengths: Tensor) -> None:
        """Remember how long the embeddings (B,) of the next batch were before they were scaled."""
        self._lengths = lengths.detach().clamp(1e-3, 100.0)
        every = gather(self._lengths)
        if self.training and len(every) > 1:
            self.mean.lerp_(every.mean().to(self.mean), self.SHARE)
            self.deviation.lerp_(every.std().to(self.deviation), self.SHARE)

    def lower(self, cosines: Tensor) -> Tensor:
        """Return the cosine of the changed angle, less the margin that is added."""
        if self._lengths is None:
            raise RuntimeError("AdaFace: take_lengths comes before the loss of a batch")
        z = (self._lengths - self.mean) / (self.deviation + self.EPS)
        turn = (self.CONCENTRATION * z).clamp(-1, 1)[:, None] * self.margin  # (B, 1)
        angles = cosines.clamp(-1 + self.EPS, 1 - self.EPS).acos() - turn
        return angles.clamp(self.EPS, math.pi - self.EPS).cos() - turn - self.margin


def _check_head(num_classes: int, embedding_dim: int, label_smoothing: float) -> None:
    if num_classes < 1 or embedding_dim < 1:
        raise ConfigError(f"head: expected sizes of at least 1, got {num_classes} and {embedding_dim}")
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing: expected 0 <= x < 1, got {label_smoothing}")


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the rows with a label other than -1; 0 with a graph when there are none."""
    total = F.cross_entropy(
        logits.float() if logits.dtype != torch.float64 else logits,
        labels,
        ignore_index=-1,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / (labels != -1).sum().clamp(min=1)


HEADS: dict[str, Callable[..., nn.Module]] = {
    "softmax": Softmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "adaface": AdaFace,
}


def build_head(options: Mapping[str, Any] | None, num_classes: int, embedding_dim: int) -> nn.Module:
    """Build the head that `options` name, with its other options; those that are None are the head's own.

    Raises:
        ConfigError: no head, an unknown one, an option that it does not have, or a number out of range.
    """
    if not options:
        raise ConfigError(f"loss.head: expected a head, got none; set loss.head.name to one of {', '.join(HEADS)}")
    build = choose(HEADS, options["name"], "loss.head.name")
    given = {key: value for key, value in options.items() if key != "name" and value is not None}
    for key in given.keys() - named_by(build, given).keys():
        raise ConfigError(f"loss.head.{key}: the head {options['name']!r} has no such option; leave it out")
    return build(num_classes, embedding_dim, **given)
