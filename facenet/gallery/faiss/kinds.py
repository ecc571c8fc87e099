"""The kinds of index that a gallery can have, and what FAISS offers for each.

A kind is a FAISS factory string for the number of faces. "auto" is exact up to 100,000 faces, and IVF with 8-bit codes
above. Every kind is exact below 10,000 faces.

Letters: N items, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from facenet.errors import ConfigError, choose
from facenet.gallery.faiss.trial import PROVEN, reason, shown, try_factory
from facenet.gallery.items import Recipe

SLACK = 1e-5  # distances off by more are those of codes, not of rounding


class Limits(NamedTuple):
    """The sizes at which a gallery changes how it searches; they are not stored."""

    exact: int = 100_000  # items up to which "auto" compares all of them
    trained: int = 10_000  # items from which kinds are approximate; below it they compare all of them
    filtered: int = 20_000  # items left by a filter up to which the stored vectors are compared


LIMITS = Limits()


def check(recipe: Recipe, dim: int | None = None) -> Recipe:
    """Return the recipe itself. A factory string is tried, in a process of its own, if the width `dim` is known.

    Raises:
        ConfigError: an unknown kind or factory string, or a target outside (0, 1].
    """
    choose({"auto": None, **KINDS}, recipe.kind, "kind")
    if recipe.factory and dim:
        try_factory(dim, recipe.factory)
        if PROVEN.fullmatch(recipe.factory):
            new_index(dim, recipe.factory)
    if not 0 < recipe.recall_target <= 1:
        raise ConfigError(f"recall_target: expected a share above 0, at most 1, got {recipe.recall_target}")
    return recipe


def factory_of(recipe: Recipe, count: int, dim: int, limits: Limits = LIMITS) -> str:
    """Return the FAISS factory string for `count` vectors of width `dim`."""
    if recipe.factory:
        return recipe.factory
    kind = recipe.kind if recipe.kind != "auto" else "flat" if count <= limits.exact else "ivf_sq8"
    if count < limits.trained:
        kind = "flat"
    return choose(KINDS, kind, "kind")(count, dim)


@dataclass
class Built:
    """A FAISS index over item numbers, how it is searched, and what was measured of it."""

    faiss: Any
    factory: str
    trained_on: int  # items when its centroids were fitted
    parameter: str = ""  # as in "nprobe=16"; "" if there is none
    fetch: int = 1  # candidates for each answer; if more than 1, they are scored again on the stored vectors
    error: float = 0.0  # the largest difference to an exact sq_dist on the sample; 0 for exact distances
    recall: dict[str, float] = field(default_factory=dict)  # of queries that it does not hold; empty for flat
    changed: int = 0  # items added and removed since the recall was measured
    beside: list[int] = field(default_factory=list)  # items that lie beside it for good, as the queries of its recall
    instead_of: str = ""  # the factory string in whose place it is exact
    mapped: np.ndarray | None = None  # the bytes of the file that holds the index, which can then not be changed

    @property
    def lossy(self) -> bool:
        """Whether its distances are those of codes, so that a verdict needs the stored vector."""
        return self.error > SLACK

    def facts(self) -> dict[str, Any]:
        """Return everything but the index, as plain values."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("faiss", "mapped")}


def lists(count: int) -> int:
    """Return how many inverted lists N items get: the power of two nearest to 4 sqrt(N), at least 39 items a list."""
    usual = 2 ** round(math.log2(4 * math.sqrt(max(count, 1))))
    return max(1, min(usual, 2 ** int(math.log2(max(count / 39, 1)))))


def parts(dim: int) -> int:
    """Return the bytes of a product-quantised vector: one for every 4 dimensions, or the most below that divides D."""
    return next(m for m in range(max(dim // 4, 1), 0, -1) if dim % m == 0)


KINDS: dict[str, Callable[[int, int], str]] = {
    "flat": lambda count, dim: "Flat",
    "hnsw": lambda count, dim: "HNSW32",
    "ivf_sq8": lambda count, dim: f"IVF{lists(count)},SQ8",
    "ivf_pq": lambda count, dim: f"IVF{lists(count)},PQ{parts(dim)}",
}


def new_index(dim: int, factory: str = "Flat") -> Any:
    """Return an empty L2 index of width `dim` whose rows carry item numbers.

    Raises:
        ConfigError: a factory string that FAISS does not know, or one without squared L2 or with a refinement.
    """
    import faiss

    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except RuntimeError as error:
        raise ConfigError(f"factory: FAISS does not know {shown(factory)} for width {dim} ({reason(error)})") from error
    if index.metric_type != faiss.METRIC_L2 or isinstance(index, faiss.IndexLSH):
        raise ConfigError(f"factory: {shown(factory)} does not measure squared L2")
    if isinstance(index, faiss.IndexRefine):
        raise ConfigError(
            f"factory: leave out the refinement of {shown(factory)}; answers are scored on the stored vectors"
        )
    codes = downcast(inverted(index) or index)
    if hasattr(codes, "do_polysemous_training"):
        codes.do_polysemous_training = False  # 20 s for an order of the codes that only Hamming distances would use
    last = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    return index if isinstance(last, faiss.IndexIDMap | faiss.IndexIVF) else faiss.IndexIDMap(index)


def inverted(index: Any) -> Any:
    """Return the IVF part of an index, or None."""
    import faiss

    return faiss.try_extract_index_ivf(index)


def downcast(index: Any) -> Any:
    """Return an index as its own class, without the item numbers around it."""
    import faiss

    return faiss.downcast_index(index.index if isinstance(index, faiss.IndexIDMap) else index)


def parameters(index: Any) -> list[str]:
    """Return the search parameters to try, from little work to much; [""] if there is nothing to set."""
    ivf = inverted(index)
    if ivf:
        steps = [step for power in range(32) for step in (2**power, 3 * 2**power // 2) if power or step == 1]
        return [f"nprobe={step}" for step in steps if step < ivf.nlist] + [f"nprobe={ivf.nlist}"]
    if is_graph(index):
        return [f"efSearch={step}" for step in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)]
    return [""]


def is_graph(index: Any) -> bool:
    """Tell whether an index of :func:`new_index` is a graph whose search has a parameter (HNSW)."""
    import faiss

    return isinstance(faiss.downcast_index(getattr(index, "index", index)), faiss.IndexHNSW)


def use_parameter(index: Any, parameter: str) -> None:
    """Set nprobe or efSearch of an index, by name as FAISS does."""
    import faiss

    if parameter:
        faiss.ParameterSpace().set_index_parameters(index, parameter)


def selecting(index: Any, parameter: str, numbers: np.ndarray) -> Any:
    """Return FAISS search parameters that answer only items of the given numbers (n,).

    The neighbours among n of N items are farther away than those among all. So N / n times the lists or nodes are
    visited.

    Raises:
        ConfigError: a factory that can not do that.
    """
    import faiss

    chosen = faiss.IDSelectorBatch(numbers)
    share = min(1.0, len(numbers) / max(int(index.ntotal), 1))
    value = math.ceil(int(parameter.partition("=")[2] or 0) / share) if share else 1
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=chosen, nprobe=min(value, index.nlist))
    if is_graph(index):
        return faiss.SearchParametersHNSW(sel=chosen, efSearch=value)
    if isinstance(faiss.downcast_index(getattr(index, "index", index)), faiss.IndexFlat | faiss.IndexScalarQuantizer):
        return faiss.SearchParameters(sel=chosen)
    raise ConfigError(f"where: an index of type {type(index).__name__} can not be filtered; choose another factory")


def held(index: Any) -> np.ndarray:
    """Return the item numbers (N,) that an index of :func:`new_index` holds, in its own order."""
    import faiss

    if isinstance(index, faiss.IndexIDMap):
        return faiss.vector_to_array(index.id_map)
    ivf = inverted(index)
    sizes = [int(ivf.invlists.list_size(i)) for i in range(ivf.nlist)]
    ids = [faiss.rev_swig_ptr(ivf.invlists.get_ids(i), size) for i, size in enumerate(sizes) if size]
    return np.concatenate(ids) if ids else np.empty(0, np.int64)


def drop(index: Any, numbers: np.ndarray) -> bool:
    """Remove item numbers from an index that is not mapped; False if its kind can not (HNSW)."""
    if len(numbers):
        try:
            index.remove_ids(np.ascontiguousarray(numbers, np.int64))
        except RuntimeError:
            return False
    return True
