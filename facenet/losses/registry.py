"""The objectives by name. Nothing here imports torch: an objective's builder does when it is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from facenet.errors import choose
from facenet.registry import Registry, named_by

if TYPE_CHECKING:
    from torch import Tensor


class Objective(Protocol):
    """What a mini-batch is asked; see :func:`register_objective`."""

    def __call__(
        self, embeddings: Tensor, labels: Tensor, step: int, old: Tensor | None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return this rank's part of the loss, a scalar with a graph, and numbers to log beside it."""
        ...


def _mined(name: str, **options: Any) -> Objective:
    from facenet.losses.objective import MinedObjective

    return MinedObjective(name, **options)


OBJECTIVES: Registry[Callable[..., Objective]] = Registry(
    "objective",
    {
        name: functools.partial(_mined, name)
        for name in ("triplet", "softmax", "softmax_then_triplet", "arcface_then_triplet", "joint")
    },
)


def register_objective(name: str, build: Callable[..., Objective]) -> None:
    """Add an objective that ``loss.name`` then selects.

    Args:
        name: A name that is free.
        build: ``build(**options) -> objective``. It is called with those of these keywords that it names: num_classes,
            embedding_dim, total_steps, seed, the options of the group ``loss`` (margin, reduction, head, head_share,
            head_weight), and the groups ``mining`` and ``harmonic`` as mappings (harmonic is None without an old
            encoder).

    The objective is called as ``objective(embeddings, labels, step, old) -> (loss, stats)``:

    - embeddings (b, D), unit rows with a graph, and class numbers labels (b,) are those of this rank;
      :func:`facenet.large_batch.ranks.gather` returns the rows of all ranks. The ranks' losses are added up.
    - step counts the optimiser's steps from 0.
    - old (b, D) are an old encoder's embeddings of the same images, NaN if there is none; None without an old encoder.
    - stats are numbers to log. Training refuses an embedding that collapses if they hold "dist/negative".

    Weights of its own are trained beside the net and stored in checkpoints as ``head.*``: those of an objective that is
    an ``nn.Module``, or else of its attribute ``head``.

    Raises:
        ConfigError: a name that is taken.
    """
    OBJECTIVES.register(name, build)


def build_objective(name: str, **options: Any) -> Objective:
    """Build an objective from those of the `options` that its builder names; raises ConfigError."""
    build = choose(OBJECTIVES, name, "loss.name")
    return build(**named_by(build, options))
