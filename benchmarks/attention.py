"""Attention benchmark: time, memory and error of linear attention beside exact softmax and performer-pytorch.

All contestants see the same q, k, v (1, h, L, D) in one process, one after the other in every repetition. Ratios are of
medians. Memory is the peak of what torch's allocator hands out during one call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity

from benchmarks.resources import limited_threads, quiet_profile
from benchmarks.tables import Table
from facenet.export.speed import seconds_of, time_in_turns
from facenet.models.attention.linear import CROSSOVER, LinearAttention
from facenet.options import Options as BaseOptions
from facenet.options import option

PATIENCE = 20.0  # seconds of one contestant at one size
WARM = 1.0  # seconds; a call that takes less is made once more before it is timed
FIT_FROM = 784  # tokens; below it fixed costs hide the exponent
FORMS = ("bidirectional", "causal")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the attention benchmark."""

    tokens: tuple[int, ...] = option((196, 784, 3136, 12544), least=1, help="numbers of tokens L")
    repeats: int = option(5, least=1, help="timed calls of each contestant, at most")
    threads: int | None = option(None, least=1, help="torch's threads; null is what it takes by itself")
    heads: int = option(8, least=1, help="attention heads")
    dim: int = option(64, least=1, help="width of a head")
    num_features: int = option(64, least=1, help="random features R of a head")
    peers: bool = option(True, help="measure performer-pytorch too, if it is installed")
    backward: bool = option(True, help="measure the backward pass too")
    errors: bool = option(True, help="measure the error against exact softmax")


def run(options: Options) -> dict[str, Any]:
    """Measure every number of tokens, on a GPU if there is one; returns plain numbers, seconds and bytes.

    ``times.<form>.<pass>.<tokens>.<contestant>``: `seconds` (median), `least`, `most`, `runs`, `peak_bytes`, and
    `ratio`, by how much positive features are faster. ``exponents.<form>.<pass>.<contestant>``: slope of log time over
    log tokens from 784 on. ``crossover``: tokens from which positive features are faster than exact softmax, forward.
    ``errors``: see :func:`measure_errors`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    absent = [] if importlib.util.find_spec("performer_pytorch") else ["performer_pytorch"]
    with limited_threads(options.threads) as threads:
        result: dict[str, Any] = {"device": device, "threads": threads, "absent": absent, "times": {}}
        result |= {name: getattr(options, name) for name in ("heads", "dim", "num_features")} | {"exponents": {}}
        for form in FORMS:
            contestants = _contestants(options, form == "causal", options.peers and not absent, device)
            for step in ("forward", "backward") if options.backward else ("forward",):
                sizes = {
                    str(size): _measure(contestants, options, size, step == "backward", device)
                    for size in sorted(options.tokens)
                }
                result["times"].setdefault(form, {})[step] = sizes
                result["exponents"].setdefault(form, {})[step] = _exponents(sizes)
        crossover = {form: _crossover(result["times"][form]["forward"]) for form in FORMS}
        result["crossover"] = {**crossover, "used_by_auto": dict(CROSSOVER)}
        result["errors"] = measure_errors(dim=options.dim) if options.errors else []
        return result


def _contestants(options: Options, causal: bool, performer: bool, device: str) -> dict[str, Attend]:
    dim, R = options.dim, options.num_features
    ours = {
        name: LinearAttention(dim, heads=options.heads, features=name, num_features=R).to(device)
        for name in ("positive", "sincos")
    }
    contestants: dict[str, Attend] = {
        "sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        "positive": lambda q, k, v: ours["positive"](q, k, v, causal=causal),
        "sincos": lambda q, k, v: ours["sincos"](q, k, v, causal=causal),
    }
    if performer:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # of CUDA kernels and old versions
            warnings.simplefilter("ignore")
            from performer_pytorch.performer_pytorch import FastAttention

            contestants["performer"] = FastAttention(dim, nb_features=R, causal=causal).to(device)
    return contestants


def _measure(
    contestants: dict[str, Attend], options: Options, size: int, backward: bool, device: str
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(size)
    shape = (1, options.heads, size, options.dim)
    q, k, v = (torch.randn(*shape, generator=generator).to(device) for _ in range(3))
    calls = {name: _call(attend, q, k, v, backward) for name, attend in contestants.items()}
    time_of = functools.partial(_seconds, device=device)
    found = time_in_turns(calls, PATIENCE, options.repeats, patience=1.0, time_of=time_of)
    measured: dict[str, Any] = {
        name: {**entry, "peak_bytes": peak_bytes(calls[name], device)} for name, entry in found.items()
    }
    for entry in measured.values():
        entry["ratio"] = entry["seconds"] / measured["positive"]["seconds"]
    return measured


def _call(attend: Attend, q: Tensor, k: Tensor, v: Tensor, backward: bool) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            attend(q, k, v)

    leaves = [x.clone().requires_grad_() for x in (q, k, v)]

    def both() -> None:
        out = attend(*leaves)
        torch.autograd.grad(out, leaves, torch.ones_like(out))

    return both if backward else forward


def _seconds(call: Callable[[], None], device: str) -> float:
    """Time a call, a short one again: the call before it has changed caches and freed memory."""

    def whole() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    first = seconds_of(whole)
    return seconds_of(whole) if first < WARM else first


def peak_bytes(call: Callable[[], None], device: str = "cpu") -> int:
    """Return the most memory that torch has allocated at once during a call, beyond what it had before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with quiet_profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        call()
    held = most = 0
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def _exponents(sizes: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Fit log seconds = a + slope log tokens by least squares."""
    points = [int(size) for size in sizes if int(size) >= FIT_FROM]
    if len(points) < 2:
        return {}
    x = [math.log(size) for size in points]
    slopes = {}
    for name in next(iter(sizes.values())):
        y = [math.log(sizes[str(size)][name]["seconds"]) for size in points]
        slopes[name] = statistics.linear_regression(x, y).slope
    return slopes


def _crossover(sizes: dict[str, dict[str, Any]]) -> float | None:
    """Return the tokens at which exact softmax and positive features take equal time, on log axes; None if never."""
    points = [(math.log(int(size)), math.log(entry["sdpa"]["ratio"])) for size, entry in sizes.items()]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y0 < 0 <= y1:
            return math.exp(x0 - y0 * (x1 - x0) / (y1 - y0))
    return None if points[-1][1] < 0 else math.exp(points[0][0])


def measure_errors(
    *,
    tokens: int = 512,
    dim: int = 64,
    norms: Sequence[float] = (0.5, 1.0, 1.5, 2.0, 3.0),
    widths: Sequence[int] = (64, 128, 256),
    draws: int = 8,
) -> list[dict[str, Any]]:
    """Relative error |out - exact| / |exact| of random features against exact softmax, over `draws` projections.

    Each key is a random direction, each query lies near one key (cosine 0.8), both scaled to `norm` after the division
    by D^(1/4); the values are random. One entry for a norm: `entropy` of the exact weights as a share of log L,
    `plain_mean` (the error of the mean of the values, which no approximation should exceed), and for each kind of
    features, width and orthogonality the `error`.
    """
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(1, draws, tokens, dim, generator=generator), dim=-1)
    other = F.normalize(torch.randn(1, draws, tokens, dim, generator=generator), dim=-1)
    v = torch.randn(1, draws, tokens, dim, generator=generator)
    queries = F.normalize(0.8 * keys.flip(2) + 0.6 * other, dim=-1)
    entries = []
    for norm in norms:
        q, k = (x * norm * dim**0.25 for x in (queries, keys))
        weights = (q @ k.mT / dim**0.5).softmax(-1)
        exact = weights @ v
        entropy = float(-(weights * weights.clamp(min=1e-30).log()).sum(-1).mean()) / math.log(tokens)
        mean = v.mean(2, keepdim=True).expand_as(exact)
        entry: dict[str, Any] = {"norm": norm, "entropy": entropy, "plain_mean": _relative(mean, exact), "features": []}
        for features in ("sincos", "positive"):
            for width in widths:
                for orthogonal in (False, True):
                    layer = LinearAttention(
                        dim, heads=draws, features=features, num_features=width, orthogonal=orthogonal, bounded=False
                    )
                    with torch.no_grad():
                        error = _relative(layer(q, k, v), exact)
                    found = {"features": features, "R": width, "orthogonal": orthogonal, "error": error}
                    entry["features"].append(found)
        entries.append(entry)
    return entries


def _relative(estimate: Tensor, exact: Tensor) -> float:
    return float((estimate - exact).norm() / exact.norm())


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    printed: list[Table] = []
    header = ("tokens", "contestant", "ms (median)", "least", "most", "peak MB", "times positive's")
    for form, steps in result["times"].items():
        for step, sizes in steps.items():
            rows = [
                (size, name, *(f"{1e3 * m[key]:.1f}" for key in ("seconds", "least", "most")),
                 f"{m['peak_bytes'] / 1e6:.0f}", f"{m['ratio']:.2f}x")
                for size, entry in sizes.items()
                for name, m in entry.items()
            ]  # fmt: skip
            passes = "forward" if step == "forward" else "forward and backward"
            printed.append(Table(f"{form}, {passes}, {result['threads']} threads, {result['device']}", header, rows))
    slopes = [
        (form, step, name, f"{slope:.2f}")
        for form, steps in result["exponents"].items()
        for step, found in steps.items()
        for name, slope in found.items()
    ]
    if slopes:
        printed.append(Table(f"time ~ tokens^x from {FIT_FROM} on", ("form", "pass", "contestant", "x"), slopes))
    crossover = result["crossover"]
    verdicts = [(form, "-" if crossover[form] is None else f"{crossover[form]:.0f}", CROSSOVER[form]) for form in FORMS]
    columns = ("form", "exact softmax (SDPA) is the better choice below, tokens", "backend=auto takes it up to")
    printed.append(Table("crossover with positive features, forward", columns, verdicts))
    if result["errors"]:
        printed.append(_error_table(result["errors"]))
    return printed


def _error_table(entries: list[dict[str, Any]]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for found in entries[0]["features"]:
        same = [next(f for f in entry["features"] if {**f, "error": 0} == {**found, "error": 0}) for entry in entries]
        orthogonal = "yes" if found["orthogonal"] else "no"
        rows.append((found["features"], found["R"], orthogonal, *(f"{f['error']:.3f}" for f in same)))
    rows.append(("plain mean of the values", "", "", *(f"{entry['plain_mean']:.3f}" for entry in entries)))
    rows.append(("entropy of exact / log L", "", "", *(f"{entry['entropy']:.3f}" for entry in entries)))
    header = ("features", "R", "orthogonal", *(f"norm {entry['norm']:g}" for entry in entries))
    return Table("relative error against exact softmax, by the norm of the scaled q and k", header, rows)
