"""Linear attention as sums over tokens: bidirectional and causal forms, and their cost.

Sources: Peng et al., Random Feature Attention (ICLR 2021); Katharopoulos et al., Transformers are RNNs (ICML 2020).
Letters: B batch, h heads, L tokens, D width of a head, M width of a value, R random features, F width of phi.

out_i = phi(q_i)^T (sum_j phi(k_j) v_j^T) / phi(q_i)^T (sum_j phi(k_j)). The sums do not depend on i, so attention costs
O(L F (D + M)) instead of O(L^2 (D + M)). The causal form stops the sums at j = i. Sums are divided by exp(peak), the
largest scale of a key of the same sample and head. The ratio cancels it, so no sample depends on its batch mates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from facenet.models.attention.random_features import FeatureMap

TOKENS_AT_ONCE = 1024  # temporaries of so many stay in the processor's cache
CAUSAL_CHUNK = 64  # tokens of a block that the causal form computes with a quadratic mask
NOTHING, MASKED = -1e30, -2e30  # log scales of an empty sum, and of a masked token


class State(NamedTuple):
    """The sums over the tokens seen so far, in units of exp(peak)."""

    sums: Tensor  # (B, h, F, M + 1), sum of phi(k) [v, 1]^T
    peak: Tensor  # (B, h, 1, 1), largest log scale of a key


def bidirectional_attention(phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Every query sees every key: q (B, h, L, D), k (B, h, L', D), v (B, h, L', M) to (B, h, L, M)."""
    sums: Tensor | float = 0.0
    norm: Tensor | float = 0.0
    peak = v.new_full((*v.shape[:2], 1, 1), NOTHING)
    for keys, contents, there in zip(_parts(k), _parts(v), _mask_parts(mask, k.shape[2]), strict=True):
        values, log_scale = phi(keys)
        log_scale = _hide(log_scale, there)
        higher = torch.maximum(peak, log_scale.detach().amax(2, keepdim=True))
        weighted = values * (log_scale - higher).exp()  # (B, h, l, F)
        shrink, peak = (peak - higher).exp(), higher
        sums = sums * shrink + weighted.mT @ contents  # (B, h, F, M)
        norm = norm * shrink + weighted.sum(2)[..., None]  # (B, h, F, 1)
    outs = []
    for queries in _parts(q):
        values = phi.values(queries)
        outs.append((values @ sums) / _safe(values @ norm, phi))
    return _join(outs)


def causal_attention(
    phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    """Query i sees keys up to i and those in `state`: q, k (B, h, L, D), v (B, h, L, M) to (B, h, L, M), new state.

    Each query is scaled by the largest key it has seen. So a later token does not change earlier outputs, not even by
    underflow.
    """
    if state is None:
        sums = v.new_zeros(*v.shape[:2], phi.width, v.shape[3] + 1)
        state = State(sums, sums.new_full((*v.shape[:2], 1, 1), NOTHING))
    outs = []
    for queries, keys, contents, there in zip(
        _parts(q), _parts(k), _parts(v), _mask_parts(mask, k.shape[2]), strict=True
    ):
        out, state = _causal_part(phi, queries, keys, contents, there, state)
        outs.append(out)
    return _join(outs), state


def _causal_part(
    phi: FeatureMap, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, state: State
) -> tuple[Tensor, State]:
    """Compute n chunks of c tokens: masked products within a chunk, running sums from chunk to chunk."""
    tokens, c = v.shape[2], min(CAUSAL_CHUNK, v.shape[2])
    seen, (values, log_scale), v = phi.values(q), phi(k), F.pad(v, (0, 1), value=1.0)
    log_scale = _hide(log_scale, mask)
    if short := -tokens % c:  # masked tokens fill the last chunk
        seen, values, v = (F.pad(x, (0, 0, 0, short)) for x in (seen, values, v))
        log_scale = F.pad(log_scale, (0, 0, 0, short), value=MASKED)
    scale = torch.maximum(state.peak, log_scale.detach().cummax(2).values)  # the scale of each query
    seen, values, v, log_scale, scale = (x.unflatten(2, (-1, c)) for x in (seen, values, v, log_scale, scale))
    above = torch.ones(c, c, dtype=torch.bool, device=v.device).triu(1)
    decay = (log_scale.mT - scale).masked_fill(above, MASKED).exp()  # (B, h, n, query, key)
    peak = scale[..., -1:, :]  # (B, h, n, 1, 1), at the end of each chunk
    before = torch.cat([state.peak[:, :, None], peak[:, :, :-1]], 2)
    gains = (values * (log_scale - peak).exp()).mT @ v  # (B, h, n, F, M + 1)
    sums = [state.sums]
    for shrink, gain in zip((before - peak).exp().unbind(2), gains.unbind(2), strict=True):
        sums.append(torch.addcmul(gain, sums[-1], shrink))
    far = seen @ torch.stack(sums[:-1], 2)
    total = ((seen @ values.mT) * decay) @ v + (before - scale).exp() * far  # (B, h, n, c, M + 1)
    total = total.flatten(2, 3)[:, :, :tokens]
    return total[..., :-1] / _safe(total[..., -1:], phi), State(sums[-1], peak[:, :, -1])


class AttentionMacs(NamedTuple):
    """Multiply-adds of one head, term by term."""

    features: int  # making phi(q) and phi(k): (L + L') R D, nothing for "elu"
    state: int  # sums of phi(k) v^T: L' F M
    readout: int  # phi(q) times the sums: L F M
    norm: int  # the denominators: L F, causal (L + L') F + c^2 in each chunk
    chunks: int  # causal: c^2 (F + M) in each chunk of c tokens

    @property
    def total(self) -> int:
        """Return the sum: O(L R (D + M)), features included."""
        return sum(self)


def attention_macs(
    tokens: int,
    dim: int,
    value_dim: int,
    num_features: int,
    causal: bool,
    *,
    features: str = "positive",
    queries: int | None = None,
) -> AttentionMacs:
    """Count the multiply-adds of one head of one sample for `tokens` keys and as many queries (or `queries`).

    Elementwise work (exponentials, scaling, sums over tokens) is not counted, as in the counts of the networks.
    """
    width = {"sincos": 2 * num_features, "positive": num_features, "elu": dim}[features]
    queries = tokens if queries is None else queries
    making = 0 if features == "elu" else (tokens + queries) * num_features * dim
    if not causal:
        return AttentionMacs(making, tokens * width * value_dim, queries * width * value_dim, queries * width, 0)
    filled, pairs = 0, 0  # tokens with those that fill the last chunk of a part, and pairs of tokens within chunks
    for start in range(0, tokens, TOKENS_AT_ONCE):
        part = min(TOKENS_AT_ONCE, tokens - start)
        c = min(CAUSAL_CHUNK, part)
        filled += part + -part % c
        pairs += (part + -part % c) * c
    sums = filled * width * value_dim
    return AttentionMacs(making, sums, sums, 2 * filled * width + pairs, pairs * (width + value_dim))


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return (x,) if x.shape[2] <= TOKENS_AT_ONCE else x.split(TOKENS_AT_ONCE, 2)  # converters do not know a split in one


def _mask_parts(mask: Tensor | None, tokens: int) -> tuple[Tensor | None, ...]:
    return (None,) * math.ceil(tokens / TOKENS_AT_ONCE) if mask is None else mask.split(TOKENS_AT_ONCE, 1)


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _hide(log_scale: Tensor, mask: Tensor | None) -> Tensor:
    return log_scale if mask is None else log_scale.masked_fill(~mask[:, None, :, None], MASKED)


def _safe(weight: Tensor, phi: FeatureMap) -> Tensor:
    """Clamp a denominator away from 0; that of "sincos" may be negative and keeps its sign."""
    if phi.kind != "sincos":
        return weight.clamp(min=1e-30)
    least = 1e-6 * phi.num_features  # share of R, the largest value of one key
    return torch.where(weight < 0, weight.clamp(max=-least), weight.clamp(min=least))
