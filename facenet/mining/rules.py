"""Which negatives of an anchor and its positive are valid, which of them are taken, and what a pair without any gets.

A rule is an interval of distances. From d(a,p), a float32 tensor (P,) with one entry for each anchor-positive pair, and
the margin it computes bounds (low, high). A negative n of the pair is valid if

    low <= d(a,n) < high.

A bound is a tensor (P,), or a number that holds for all pairs. Distances are squared L2, in [0, 4].

Letters: P anchor-positive pairs.
Source: Schroff et al. 2015, section 3.2 (semi-hard, hard). Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, Union

from facenet.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Bound: TypeAlias = Union["Tensor", float]
Rule: TypeAlias = Callable[["Tensor", float], tuple[Bound, Bound]]


def just_above(sq_dist: Tensor) -> Tensor:
    """Return the next larger float32: low = just_above(d) means d < d(a,n), high = just_above(d) means d(a,n) <= d."""
    return sq_dist.nextafter(sq_dist.new_full((), math.inf))


MINERS: Registry[Rule] = Registry(
    "miner",
    {
        "semi_hard": lambda sq_pos, margin: (just_above(sq_pos), sq_pos + margin),  # d(a,p) < d(a,n) < d(a,p) + margin
        "hard": lambda sq_pos, margin: (0.0, just_above(sq_pos)),  # d(a,n) <= d(a,p)
        "all_valid": lambda sq_pos, margin: (0.0, sq_pos + margin),  # d(a,n) < d(a,p) + margin
        "random": lambda sq_pos, margin: (0.0, math.inf),  # every negative
    },
)

# From the number of valid negatives (P,) and a source of draws (P,) in [0, 2^32): how many to take, how many to skip.
SELECTS: dict[str, Callable[[Tensor, Callable[[], Tensor]], tuple[Tensor, Tensor | int]]] = {
    "nearest": lambda valid, draw: (valid.clamp(max=1), 0),
    "random": lambda valid, draw: (valid.clamp(max=1), (draw() * valid) >> 32),
    "all": lambda valid, draw: (valid, 0),
}

# A pair without a valid negative gets the nearest one with d(a,n) >= the bound, if there is one.
FALLBACKS: dict[str, Callable[[Tensor, float], Bound] | None] = {
    "none": None,
    "nearest_beyond": lambda sq_pos, margin: sq_pos + margin,
    "hardest": lambda sq_pos, margin: 0.0,
}


def register_miner(name: str, rule: Rule) -> None:
    """Add a rule that ``mining.miner`` and :func:`facenet.mining.online.mine` then know by name.

    Args:
        name: A name that is free.
        rule: ``rule(sq_pos, margin) -> (low, high)``: the valid negatives of a pair are those with
            low <= d(a,n) < high. `sq_pos` (P,) float32 holds d(a,p) of each pair. A bound is a tensor (P,) or a number;
            :func:`just_above` makes a bound exclusive or inclusive. The rule computes each entry from its own entry of
            `sq_pos` alone: pairs come in blocks. What is not one interval of d(a,n) is no rule.

    Raises:
        ConfigError: a name that is taken.
    """
    MINERS.register(name, rule)
