"""Linear attention: its forms agree with the quadratic sum and with each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from facenet.errors import ConfigError
from facenet.models.attention.forms import CAUSAL_CHUNK, TOKENS_AT_ONCE
from facenet.models.attention.linear import CROSSOVER, KERNELS, LONGEST, LinearAttention, attention_macs
from tests.reference import kernel_attention

LENGTHS = (1, 2, CAUSAL_CHUNK - 1, CAUSAL_CHUNK, 2 * CAUSAL_CHUNK + 5)


def tokens(
    length: int, *, batch: int = 2, heads: int = 2, dim: int = 8, values: int = 5, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, heads, length, dim), (batch, heads, length, dim), (batch, heads, length, values))
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)


def explicit(layer: LinearAttention, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    (values_q, scale_q), (values_k, scale_k) = (layer.phi(layer._shortened(x)) for x in (q, k))
    weights = (values_q * scale_q.exp()) @ (values_k * scale_k.exp()).mT
    return weights if mask is None else weights * mask[:, None, None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("features", ["sincos", "positive", "elu"])
def test_forms_equal_the_quadratic_sum(features: str, masked: bool, causal: bool) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=32).double()
    for length in LENGTHS:
        q, k, v = tokens(length, seed=length)
        q, k = q * 0.4, k * 0.4  # where the denominators of sincos stay away from 0
        mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.4 if masked else None
        expected = kernel_attention(explicit(layer, q, k, mask), v, causal=causal)
        assert expected.abs().sum() > 0
        torch.testing.assert_close(layer(q, k, v, mask=mask, causal=causal), expected, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("features", ["sincos", "positive", "elu"])
def test_parts_of_a_long_sequence_join(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16).double()
    q, k, v = tokens(TOKENS_AT_ONCE + 70)
    q, k = q * 0.4, k * 0.4
    for growth in (0.3, 2.0):  # the largest key lies in the first part, or in the last
        grown = torch.cat([k[:, :, :TOKENS_AT_ONCE], k[:, :, TOKENS_AT_ONCE:] * growth], 2)
        weights = explicit(layer, q, grown, None)
        torch.testing.assert_close(layer(q, grown, v), weights @ v / weights.sum(-1, keepdim=True))
        weights = weights.tril()
        expected = weights @ v / weights.sum(-1, keepdim=True)
        torch.testing.assert_close(layer(q, grown, v, causal=True), expected)


@pytest.mark.parametrize("features", ["sincos", "positive", "elu"])
def test_streaming_equals_causal_and_skips_what_is_not_valid(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16, normalise=True).double()
    q, k, v = tokens(CAUSAL_CHUNK + 9)
    mask = torch.rand(2, len(q[0, 0]), generator=torch.Generator().manual_seed(3)) > 0.3
    state, outs = layer.start(2, 5, like=v), []
    for i in range(q.shape[2]):
        out, state = layer.step(q[:, :, i], k[:, :, i], v[:, :, i], state, valid=mask[:, i])
        outs.append(out)
    streamed = torch.stack(outs, 2)
    torch.testing.assert_close(streamed, layer(q, k, v, mask=mask, causal=True), atol=1e-9, rtol=1e-7)
    last = layer(q[:, :, -1:], k, v, mask=mask)  # the bidirectional form sees what the last token has seen
    torch.testing.assert_close(streamed[:, :, -1:], last, atol=1e-9, rtol=1e-7)
    assert state.sums.shape == (2, 2, layer.phi.width, 6), "the state does not grow"


@pytest.mark.parametrize("features", ["sincos", "positive", "elu", "softmax"])
def test_a_causal_output_does_not_know_the_future(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16, backend="auto")
    q, k, v = (x.float() for x in tokens(40))
    later_k, later_v = k.clone(), v.clone()
    later_k[:, :, 30:] *= 40  # a giant key: every earlier one underflows beside it
    later_v[:, :, 30:] += 5
    now, then = layer(q, k, v, causal=True), layer(q, later_k, later_v, causal=True)
    torch.testing.assert_close(now[:, :, :30], then[:, :, :30], atol=1e-6, rtol=1e-5)
    assert (now[:, :, 30:] - then[:, :, 30:]).abs().max() > 0.1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", sorted(KERNELS))
def test_gradients(features: str, causal: bool) -> None:
    layer = LinearAttention(4, features=features, num_features=8, normalise=True, temperature=1.0).double()
    q, k, v = (x.requires_grad_() for x in tokens(5, batch=1, heads=1, dim=4, values=3))
    mask = torch.tensor([[True, False, True, True, False]])
    assert torch.autograd.gradcheck(lambda *x: layer(*x, mask=mask, causal=causal), (q, k, v))
    layer(q, k, v, causal=causal).square().sum().backward()
    assert layer.log_temperature is not None
    assert layer.log_temperature.grad is not None
    assert layer.log_temperature.grad.abs().sum() > 0


@pytest.mark.parametrize("features", sorted(KERNELS))
def test_a_sample_does_not_depend_on_its_batch_mates(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16)
    q, k, v = (x.float() for x in tokens(20))
    alone = layer(q[:1], k[:1], v[:1])
    k = torch.cat([k[:1], k[1:] * 50])  # a wild mate
    torch.testing.assert_close(layer(q, k, v)[:1], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("features", ["positive", "elu", "softmax"])
def test_wild_inputs_give_averages_of_the_values(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16)
    q, k, v = (x.float() for x in tokens(90))
    for size in (0.0, 1e-4, 4.0, 30.0, 300.0):
        for causal in (False, True):
            out = layer(q * size, k * size, v, causal=causal)
            assert torch.isfinite(out).all()
            assert out.abs().max() <= v.abs().max() + 1e-4
            ones = layer(q * size, k * size, torch.ones_like(v), causal=causal)
            torch.testing.assert_close(ones, torch.ones_like(ones), atol=1e-3, rtol=0)
    nothing = layer(q, k, v, mask=torch.zeros(2, 90, dtype=torch.bool))
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", ["sincos", "positive"])
def test_long_queries_and_keys_are_shortened_each_by_itself(features: str, causal: bool) -> None:
    layer = LinearAttention(64, features=features, num_features=64)
    q, k, v = (x.float() for x in tokens(90, heads=1, dim=64))
    longest = LONGEST[features] / layer.scale
    short = [x * (longest / 2 / x.norm(dim=-1).amax()) for x in (q, k)]
    plain = LinearAttention(64, features=features, num_features=64, bounded=False)
    assert torch.equal(layer(*short, v, causal=causal), plain(*short, v, causal=causal)), "to the bit"
    cut = [x / x.norm(dim=-1, keepdim=True) * longest for x in (q, k)]
    for size in (15.0, 40.0, 1e4):  # |q| of 120 and above: products of features without a bound underflow to 0
        out = layer(q * size, k * size, v, causal=causal)
        torch.testing.assert_close(out, plain(*cut, v, causal=causal), atol=1e-4, rtol=1e-4)
        assert (out != 0).all()
    assert (plain(q * 40, k * 40, v, causal=causal) - out).abs().max() > 0.1


@pytest.mark.parametrize("features", ["sincos", "positive", "elu"])
def test_a_learned_temperature_has_a_bound(features: str) -> None:
    layer, old = (LinearAttention(8, features=features, normalise=True, bounded=bounded) for bounded in (True, False))
    assert layer.log_temperature is not None
    assert old.log_temperature is not None
    assert math.isclose(layer.log_temperature.exp().item(), 0.5 if features == "sincos" else 2.0)
    assert math.isclose(old.log_temperature.exp().item(), 2.0)
    for each, most in ((layer, LONGEST.get(features, 10.0)), (old, 10.0)):
        with torch.no_grad():
            each.log_temperature += 9  # type: ignore[operator]
        assert math.isclose(each._normed(torch.ones(1, 1, 2, 8)).norm(dim=-1).amax().item(), most, rel_tol=1e-5)


def test_sincos_stays_an_average_at_any_norm_and_its_half_precision_gradients_finite() -> None:
    for normalise in (False, True):
        for seed in range(10):
            layer = LinearAttention(16, features="sincos", num_features=64, normalise=normalise, seed=seed)
            q, k, v = (x.half().requires_grad_() for x in tokens(49, heads=1, dim=16, seed=seed))
            out = layer(q * 6, k * 6, v)
            assert out.abs().max() < 10 * v.abs().max()
            out.float().square().sum().backward()
            assert all(torch.isfinite(x.grad).all() for x in (q, k, v) if x.grad is not None)


def test_sincos_denominators_are_safe() -> None:
    layer = LinearAttention(8, heads=2, features="sincos", num_features=16)
    q, k, v = (x.float() for x in tokens(90))
    out = layer(q * 6, k * 6, v)
    assert out.abs().max() < 1e8, "also: no NaN"


def test_more_features_come_closer_to_softmax() -> None:
    q, k, v = (x * 0.6 for x in tokens(64))
    exact = F.scaled_dot_product_attention(q, k, v)
    spread = float((exact - v.mean(2, keepdim=True)).square().mean())
    for features in ("sincos", "positive"):
        errors = []
        for number in (32, 1024):
            layer = LinearAttention(8, heads=2, features=features, num_features=number).double()
            errors.append(float((layer(q, k, v) - exact).square().mean()) / spread)
        assert errors[1] < 0.5 * errors[0]
        assert errors[1] < 0.2, "better than the plain mean of the values"


def test_auto_backend_takes_the_exact_softmax_below_the_crossover() -> None:
    layer = LinearAttention(8, heads=2, features="softmax", num_features=16)
    q, k, v = tokens(CROSSOVER["bidirectional"])
    torch.testing.assert_close(layer(q, k, v), F.scaled_dot_product_attention(q, k, v))
    more = tokens(CROSSOVER["bidirectional"] + 1)
    exact = F.scaled_dot_product_attention(*more, is_causal=True)
    torch.testing.assert_close(layer(*more, causal=True), exact)
    assert layer.exact(CROSSOVER["causal"], causal=True)
    assert not layer.exact(CROSSOVER["causal"] + 1, causal=True)
    assert not torch.allclose(layer(*more), F.scaled_dot_product_attention(*more), atol=1e-3)
    always = LinearAttention(8, heads=2, features="softmax", backend="exact")
    torch.testing.assert_close(always(*more), F.scaled_dot_product_attention(*more))
    q, k, v = tokens(30)
    mask = torch.rand(2, 30, generator=torch.Generator().manual_seed(1)) > 0.4
    weights = (q @ k.mT / 8**0.5).exp() * mask[:, None, None]
    for causal in (False, True):
        expected = kernel_attention(weights, v, causal=causal)
        torch.testing.assert_close(layer(q, k, v, mask=mask, causal=causal), expected)
    with pytest.raises(ConfigError, match="can not be streamed"):
        layer.start(2, 5)
    assert not LinearAttention(8, features="positive").exact(10), "random features when they are asked for"
    assert not LinearAttention(8, features="softmax", backend="linear").exact(10)


def test_features_stay_float32_under_autocast() -> None:
    layer = LinearAttention(8, heads=2)
    q, k, v = (x.bfloat16() for x in tokens(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(q, k, v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, layer(q.float(), k.float(), v.float()).bfloat16())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", ["sincos", "positive", "elu"])
def test_macs_are_those_of_the_running_code(features: str, causal: bool) -> None:
    for length in (5, 64, 150, 1500, 2049):
        layer = LinearAttention(8, heads=3, features=features, num_features=24)
        q, k, v = (x.float() for x in tokens(length, batch=1, heads=3))
        with FlopCounterMode(display=False) as counter:
            layer(q, k, v, causal=causal)
        cost = attention_macs(length, 8, 5, 24, causal, features=features)
        assert 3 * cost.total == counter.get_total_flops() / 2 == layer.extra_macs
        assert cost.total == sum(cost)
        assert (cost.features > 0) == (features != "elu")
    per_token = [attention_macs(n, 8, 5, 24, causal, features=features).total / n for n in (1024, 8192)]
    assert per_token[0] == per_token[1], "linear in the tokens"


def test_cross_attention_has_its_own_number_of_queries() -> None:
    layer = LinearAttention(8, heads=2).double()
    q, k, v = tokens(50)
    torch.testing.assert_close(layer(q[:, :, :3], k, v), layer(q, k, v)[:, :, :3])
    with FlopCounterMode(display=False) as counter:
        layer(q[:1, :, :3], k[:1], v[:1])
    assert layer.extra_macs == counter.get_total_flops() / 2
    with pytest.raises(ValueError, match="as many queries as keys"):
        layer(q[:, :, :3], k, v, causal=True)


@pytest.mark.parametrize("features", sorted(KERNELS))
def test_nothing_and_nan_behind_the_mask(features: str) -> None:
    layer = LinearAttention(8, heads=2, features=features, num_features=16)
    q, k, v = (x.float() for x in tokens(12))
    mask = torch.arange(12).expand(2, -1) < 7
    k[:, :, 7:], v[:, :, 7:] = float("nan"), float("nan")
    torch.testing.assert_close(layer(q, k, v, mask=mask), layer(q, k[:, :, :7], v[:, :, :7]))
    assert layer(q[:, :, :0], k[:, :, :0], v[:, :, :0], causal=True).shape == (2, 2, 0, 5)
    assert torch.equal(layer(q, k[:, :, :0], v[:, :, :0]), torch.zeros(2, 2, 12, 5))


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        LinearAttention(8, normalise=True, temperature=0.0)
