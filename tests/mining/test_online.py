"""Mining equals a triple loop; ties are exact because lattice points have exact dot products."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.errors import ConfigError
from facenet.mining.online import merge, mine
from facenet.mining.rules import FALLBACKS, MINERS, SELECTS
from facenet.types import Triplets
from tests.reference import mine_loops, sq_dist_float32

HALVES = [torch.tensor(signs) / 2 for signs in itertools.product([-1.0, 1.0], repeat=4)]
AXES = [sign * row for sign in (-1, 1) for row in torch.eye(4)]
LATTICE = torch.stack(HALVES + AXES)  # (24, 4): the 24-cell, squared distances 0, 1, 2, 3, 4 exactly
MARGINS = [0.0, 0.2, 1.0, 2.0]


def signs(count: int, generator: torch.Generator) -> torch.Tensor:
    """Unit vectors (count, 16) of entries +-1/4: squared distances are exact multiples of 1/4."""
    return torch.randint(0, 2, (count, 16), generator=generator).float() / 2 - 0.25


def as_rows(mined: Triplets) -> list[tuple[int, int, int]]:
    return list(zip(mined.anchor.tolist(), mined.positive.tolist(), mined.negative.tolist(), strict=True))


def check(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: float,
    miner: str,
    select: str,
    fallback: str,
    anchors: list[int] | None = None,
    **options: int | None,
) -> int:
    """Hold `mine` against the loops; returns the number of triplets."""
    mined = mine(
        embeddings, labels, margin=margin, miner=miner, select=select, fallback=fallback, anchors=anchors, **options
    )
    pairs, stats = mine_loops(embeddings, labels, margin=margin, miner=miner, fallback=fallback, anchors=anchors)
    rows = as_rows(mined)
    if miner == "random" and select == "nearest":
        select = "random"
    if select == "random":
        by_pair = {(a, p): n for a, p, n in rows}
        expected = {(q.anchor, q.positive): q.candidates or q.spare for q in pairs if q.candidates or q.spare}
        assert len(rows) == len(expected)
        assert by_pair.keys() == expected.keys()
        assert all(by_pair[pair] in candidates for pair, candidates in expected.items())
    else:
        most = 1 if select == "nearest" else None
        expected_rows = [(a, p, n) for a, p, found, spare in pairs for n in (found or spare)[:most]]
        assert sorted(rows) == sorted(expected_rows)
        if select == "nearest":
            assert rows == sorted(rows)
    counted = mined.stats._asdict()
    assert counted.pop("triplets") == len(rows)
    assert counted == pytest.approx(stats, abs=1e-5)
    return len(rows)


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, int | None]]:
    generator, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    B = chance.randint(0, 14)
    if chance.random() < 0.5:
        embeddings = LATTICE[torch.randint(0, chance.choice([3, 24]), (B,), generator=generator)]
    else:
        embeddings = signs(B, generator)
    labels = torch.randint(0, chance.choice([1, 2, 3, 6, 20]), (B,), generator=generator) - 1
    return embeddings, labels, {"block_rows": chance.choice([None, 1, 3, 1000]), "seed": chance.randint(-5, 5)}


@pytest.mark.parametrize("fallback", FALLBACKS)
@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("miner", MINERS)
def test_equals_triple_loop(miner: str, select: str, fallback: str) -> None:
    found = 0
    for seed in range(8, 24):
        embeddings, labels, options = random_case(seed)
        margin = MARGINS[seed % len(MARGINS)]
        found += check(embeddings, labels, margin=margin, miner=miner, select=select, fallback=fallback, **options)
    assert found > 30


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(0, 23), st.integers(-1, 4)), max_size=10),
    margin=st.sampled_from(MARGINS),
    miner=st.sampled_from(sorted(MINERS)),
    select=st.sampled_from(sorted(SELECTS)),
    fallback=st.sampled_from(sorted(FALLBACKS)),
    block_rows=st.sampled_from([None, 1, 3, 1000]),
    data=st.data(),
)
def test_equals_triple_loop_for_any_lattice_batch(
    rows: list[tuple[int, int]],
    margin: float,
    miner: str,
    select: str,
    fallback: str,
    block_rows: int | None,
    data: st.DataObject,
) -> None:
    embeddings = LATTICE[[point for point, _ in rows]]
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    anchors = data.draw(st.none() | st.lists(st.integers(0, max(0, len(rows) - 1)), unique=True, max_size=len(rows)))
    check(
        embeddings,
        labels,
        margin=margin,
        miner=miner,
        select=select,
        fallback=fallback,
        anchors=anchors,
        block_rows=block_rows,
    )


def faces(B: int, per_identity: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows (B, 32) around identity centroids, shuffled: some pairs semi-hard, some hard, some easy."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(B) // per_identity
    centroids = torch.randn(int(labels.max()) + 1, 32, generator=generator)
    embeddings = F.normalize(centroids[labels] + torch.randn(B, 32, generator=generator), dim=1)
    order = torch.randperm(B, generator=generator)
    return embeddings[order], labels[order]


@pytest.mark.parametrize("miner", ["semi_hard", "hard", "all_valid"])
def test_equals_triple_loop_on_drawn_faces(miner: str) -> None:
    """Real numbers round differently in another product, so pairs within 1e-5 of a bound are left out."""
    compared = 0
    for seed in range(3):
        embeddings, labels = faces(48, 4, seed)
        sq_dist, names = sq_dist_float32(embeddings).tolist(), labels.tolist()
        pairs, _ = mine_loops(embeddings, labels, margin=0.2, miner=miner)
        mined: dict[tuple[int, int], list[int]] = {}
        for a, p, n in as_rows(mine(embeddings, labels, margin=0.2, miner=miner, select="all", block_rows=7)):
            mined.setdefault((a, p), []).append(n)
        for a, p, candidates, _ in pairs:
            bounds = (sq_dist[a][p], sq_dist[a][p] + 0.2)
            gaps = [abs(sq_dist[a][n] - bound) for n in range(48) for bound in bounds if names[n] != names[a]]
            if min(gaps) > 1e-5:
                assert sorted(mined.get((a, p), [])) == sorted(candidates)
                compared += len(candidates)
    assert compared > 100


def test_statistics_of_drawn_faces() -> None:
    embeddings, labels = faces(90, 6, 0)
    _, stats = mine_loops(embeddings, labels, margin=0.2)
    counted = mine(embeddings, labels, margin=0.2).stats._asdict()
    assert 0 < stats["hard_pairs"] < stats["pairs"]
    assert 0 < stats["semi_hard_pairs"] < stats["pairs"]
    assert {name: counted[name] for name in stats} == pytest.approx(stats, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype(dtype: torch.dtype) -> None:
    labels = torch.arange(24) % 3
    expected, mined = mine(LATTICE, labels, margin=0.2), mine(LATTICE.to(dtype), labels, margin=0.2)
    assert len(mine(LATTICE, labels, margin=1.5).anchor) > 0
    assert as_rows(mined) == as_rows(expected)
    assert mined.stats == expected.stats


def test_autocast_does_not_lower_the_precision() -> None:
    embeddings, labels = faces(80, 8, 1)
    expected = as_rows(mine(embeddings, labels, margin=0.2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert as_rows(mine(embeddings, labels, margin=0.2)) == expected
    assert expected


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("fallback", FALLBACKS)
@pytest.mark.parametrize(
    "labels",
    [[], [0], [0, 1, 2, 3], [4, 4, 4, 4], [0, 0, 0, 0, 1]],
    ids=["empty", "one_row", "no_positives", "one_identity", "one_negative"],
)
def test_degenerate_batches(labels: list[int], fallback: str, miner: str) -> None:
    for select in SELECTS:
        count = check(
            LATTICE[: len(labels)],
            torch.tensor(labels, dtype=torch.int64),
            margin=0.2,
            miner=miner,
            select=select,
            fallback=fallback,
        )
        assert count <= 12


@pytest.mark.parametrize("select", SELECTS)
def test_collapsed_batch(select: str) -> None:
    """All rows equal: every distance is 0, nothing is semi-hard, everything is hard."""
    embeddings, labels = LATTICE[:1].expand(8, 4), torch.arange(8) % 2
    semi_hard = mine(embeddings, labels, margin=0.2, select=select)
    assert len(semi_hard.anchor) == semi_hard.stats.semi_hard_pairs == 0
    assert semi_hard.stats.hard_pairs == semi_hard.stats.pairs == 24
    check(embeddings, labels, margin=0.2, miner="hard", select=select, fallback="none")


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("select", SELECTS)
def test_row_order_of_the_batch_does_not_matter(miner: str, select: str) -> None:
    if miner == "random" or select == "random":
        pytest.skip("a draw depends on row numbers")
    embeddings, labels = faces(60, 6, 2)  # no ties
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    options = {"margin": 0.2, "miner": miner, "select": select}
    expected = sorted(as_rows(mine(embeddings, labels, **options)))
    moved = as_rows(mine(embeddings[order], labels[order], **options))
    assert expected
    assert sorted(tuple(order[list(row)].tolist()) for row in moved) == expected


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("fallback", FALLBACKS)
def test_blocks_and_anchor_shares_change_nothing(miner: str, select: str, fallback: str) -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings, labels = signs(30, generator), torch.randint(0, 8, (30,), generator=generator)
    options = {"margin": 0.3, "miner": miner, "select": select, "fallback": fallback, "seed": 11}
    whole = mine(embeddings, labels, **options)
    assert as_rows(whole)
    for block_rows in (1, 3, 1000):
        again = mine(embeddings, labels, block_rows=block_rows, **options)
        assert as_rows(again) == as_rows(whole)
        assert again.stats == pytest.approx(whole.stats)
    rows = torch.randperm(30, generator=generator)
    parts = [mine(embeddings, labels, anchors=share, **options) for share in (rows[:4], rows[4:18], rows[18:])]
    assert sorted(row for part in parts for row in as_rows(part)) == sorted(as_rows(whole))
    for name in ("pairs", "semi_hard_pairs", "hard_pairs", "triplets"):
        assert sum(getattr(part.stats, name) for part in parts) == getattr(whole.stats, name)


def test_merged_statistics_of_a_partition_are_those_of_the_whole() -> None:
    embeddings, labels = faces(120, 7, 3)
    whole = mine(embeddings, labels, margin=0.2)
    parts = [mine(embeddings, labels, margin=0.2, anchors=torch.arange(i, 120, 3)).stats for i in range(3)]
    assert len({part.negatives for part in parts}) > 1
    merged = merge(parts)
    assert merged._replace(mean_positive=0.0, mean_negative=0.0) == whole.stats._replace(
        mean_positive=0.0, mean_negative=0.0
    )
    assert merged.mean_positive == pytest.approx(whole.stats.mean_positive, rel=1e-9)
    assert merged.mean_negative == pytest.approx(whole.stats.mean_negative, rel=1e-6)


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("max_triplets", [2_000_000, 50])
def test_two_threads_find_the_same_to_the_bit(miner: str, max_triplets: int) -> None:
    embeddings, labels = faces(110, 7, 5)
    options = {"margin": 0.2, "miner": miner, "select": "all", "block_rows": 9, "max_triplets": max_triplets}
    one = mine(embeddings, labels, **options)  # type: ignore[arg-type]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = mine(embeddings, labels, **options)  # type: ignore[arg-type]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(one.anchor) >= 50
    assert all(torch.equal(x, y) for x, y in zip(one[:3], two[:3], strict=True))
    assert one.stats == two.stats


def test_random_selection_is_uniform_and_follows_the_seed() -> None:
    embeddings = LATTICE[[0, 0, 1, 1, 2, 4, 8]]  # d(a,p) = 0 and five negatives at distance 1
    labels = torch.tensor([7, 7, 0, 1, 2, 3, 4])
    options = {"margin": 1.5, "select": "random"}
    draws = [tuple(mine(embeddings, labels, seed=seed, **options).negative.tolist()) for seed in range(300)]
    assert draws[:20] == [tuple(mine(embeddings, labels, seed=s, **options).negative.tolist()) for s in range(20)]
    for place in (0, 1):
        counts = torch.tensor([draw[place] for draw in draws]).bincount(minlength=7)[2:]
        assert counts.sum() == 300
        assert ((counts - 60) ** 2 / 60).sum() < 18.5  # chi-squared, 4 degrees of freedom, p = 0.001
    assert len(set(draws)) == 25  # the two pairs draw independently of each other


def test_random_miner_draws_with_the_default_select_too() -> None:
    embeddings, labels = faces(60, 6, 0)
    drawn = as_rows(mine(embeddings, labels, margin=0.2, miner="random"))
    assert drawn == as_rows(mine(embeddings, labels, margin=0.2, miner="random", select="random"))
    hardest = as_rows(mine(embeddings, labels, margin=9.0, miner="all_valid"))
    assert sum(a == b for a, b in zip(drawn, hardest, strict=True)) < 0.2 * len(drawn)


@pytest.mark.parametrize("miner", ["all_valid", "semi_hard", "random"])
def test_cap_keeps_a_uniform_sample_and_the_exact_count(miner: str) -> None:
    embeddings, labels = LATTICE[torch.arange(30) % 24], torch.arange(30) % 10
    options = {"margin": 1.5, "miner": miner, "select": "all"}
    everything = mine(embeddings, labels, **options)
    total, size = len(everything.anchor), 100
    assert total > 300
    kept: dict[tuple[int, int, int], int] = dict.fromkeys(as_rows(everything), 0)
    for seed in range(40):
        capped = mine(embeddings, labels, max_triplets=size, seed=seed, block_rows=8 + seed % 7, **options)
        assert len(set(as_rows(capped))) == size
        assert capped.stats == pytest.approx(everything.stats)
        for row in as_rows(capped):
            kept[row] += 1
    mean = 40 * size / total
    counts = torch.tensor(list(kept.values()), dtype=torch.float64)
    spread = ((counts - mean) ** 2).mean() / (mean * (1 - size / total))
    assert 0.8 < spread < 1.2  # binomial
    first = mine(embeddings, labels, max_triplets=size, seed=1, block_rows=2, **options)
    again = mine(embeddings, labels, max_triplets=size, seed=1, **options)
    assert as_rows(first) == as_rows(again)
    nearly = mine(embeddings, labels, max_triplets=total - 1, **options)
    assert len(set(as_rows(nearly))) == total - 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("fallback", FALLBACKS)
def test_gpu_finds_the_same_triplets(miner: str, select: str, fallback: str) -> None:
    generator = torch.Generator().manual_seed(5)
    embeddings, labels = signs(60, generator), torch.randint(0, 12, (60,), generator=generator)
    options = {"margin": 0.3, "miner": miner, "select": select, "fallback": fallback, "max_triplets": 500}
    expected, mined = mine(embeddings, labels, **options), mine(embeddings.cuda(), labels.cuda(), **options)
    assert mined.anchor.is_cuda
    assert as_rows(mined) == as_rows(expected)
    assert mined.stats == pytest.approx(expected.stats, rel=1e-5)


def test_mining_passes_no_gradient_and_keeps_its_input() -> None:
    embeddings, labels = faces(40, 4, 0)
    before = embeddings.clone()
    mined = mine(embeddings.requires_grad_(), labels, margin=0.2)
    assert torch.equal(embeddings.detach(), before)
    assert not mined.anchor.requires_grad
    assert {tensor.dtype for tensor in mined[:3]} == {torch.int64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"miner": "semi-hard"}, "did you mean 'semi_hard'"),
        ({"select": "nearst"}, "did you mean 'nearest'"),
        ({"fallback": "harder"}, "did you mean 'hardest'"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"block_rows": 0}, "block_rows"),
        ({"max_triplets": 0}, "max_triplets"),
        ({"anchors": [0, 0]}, "anchors"),
        ({"anchors": [24]}, "anchors"),
        ({"anchors": [-1]}, "anchors"),
        ({"anchors": [0.5]}, "anchors"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        ({"labels": torch.zeros(24)}, "labels"),
        ({"embeddings": torch.zeros(24)}, "embeddings"),
        ({"embeddings": torch.zeros(24, 4, dtype=torch.int64)}, "embeddings"),
        ({"embeddings": torch.full((24, 4), float("nan"))}, "learning rate"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_wrong_arguments_fail_with_a_remedy(change: dict[str, object], message: str) -> None:
    arguments = {"embeddings": LATTICE, "labels": torch.arange(24) % 3, "margin": 0.2, **change}
    with pytest.raises(ConfigError, match=message):
        mine(**arguments)


def test_equals_pytorch_metric_learning() -> None:
    from pytorch_metric_learning import distances, miners

    embeddings, labels = faces(300, 30, 0)
    distance = distances.LpDistance(power=2, normalize_embeddings=False)
    peer = miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard", distance=distance)
    sq_dist = 2 - 2 * embeddings.double() @ embeddings.double().T
    different = labels[:, None] != labels
    theirs: dict[tuple[int, int], float] = {}
    for a, p, n in zip(*(rows.tolist() for rows in peer(embeddings.double(), labels)), strict=True):
        theirs[a, p] = min(theirs.get((a, p), 9.0), float(sq_dist[a, n]))
    ours = {(a, p): float(sq_dist[a, n]) for a, p, n in as_rows(mine(embeddings, labels, margin=0.2))}

    near_a_bound = torch.zeros(300, 300, dtype=torch.bool)  # of (a, p): ours are float32 distances, theirs float64
    for a in range(300):
        gaps = sq_dist[a, different[a]] - sq_dist[a, :, None]  # (300, negatives)
        near_a_bound[a] = torch.minimum(gaps.abs(), (gaps - 0.2).abs()).amin(1) < 2e-6
    assert 0.1 < len(ours) / (300 * 29) < 0.9
    assert all(near_a_bound[a, p] for a, p in theirs.keys() ^ ours.keys())
    compared = [pair for pair in theirs.keys() & ours.keys() if not near_a_bound[pair]]
    assert len(compared) > 0.95 * len(theirs)
    for pair in compared:
        assert ours[pair] == pytest.approx(theirs[pair], abs=1e-12)  # the same row, or its duplicate
