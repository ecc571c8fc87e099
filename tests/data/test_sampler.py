from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facenet.data import dealing
from facenet.data import sampler as sampler_module
from facenet.data.options import SamplerOptions
from facenet.data.permutation import draw_distinct, permute
from facenet.data.sampler import DRAWS, IdentitySampler
from facenet.errors import ConfigError, DataError
from facenet.options import build

LONG_TAIL = np.repeat(np.arange(200), [1] * 90 + [2] * 60 + [5] * 30 + [20] * 18 + [150, 300])
BALANCED = np.repeat(np.arange(40), 10)
FIFTH = [148, 141, 143, 145, 147, 149, 82, 83, 84, 85, 131, 108]  # batch of BALANCED, of 12


def sampler(labels: np.ndarray = LONG_TAIL, **options: object) -> IdentitySampler:
    place = {"seed": 1, **{name: options.pop(name) for name in ("seed", "rank", "world_size") if name in options}}
    defaults = {"batch_size": 60, "faces_per_identity": 6, "negative_share": 0.2, "coverage": 3}
    return IdentitySampler(labels, build(SamplerOptions, {**defaults, **options}), **place)  # type: ignore[arg-type]


def epoch_of(made: IdentitySampler, epoch: int) -> np.ndarray:
    """Rows of all batches of an epoch (steps, B)."""
    return np.array([made.whole(number) for number in range(epoch * len(made), (epoch + 1) * len(made))])


SETTINGS = [(60, 6, 0.2, 3), (48, 5, 0.1, 5), (30, 6, 0.3, 5), (90, 8, 0.1, 1), (45, 3, 0.4, 3), (200, 9, 0.0, 2)]


@pytest.mark.parametrize("labels", [LONG_TAIL, BALANCED], ids=["long_tail", "balanced"])
@pytest.mark.parametrize(("size", "faces", "share", "coverage"), SETTINGS)
def test_every_batch_keeps_its_promises(labels: np.ndarray, size: int, faces: int, share: float, coverage: int) -> None:
    made = sampler(labels, batch_size=size, faces_per_identity=faces, negative_share=share, coverage=coverage)
    asked, seen = round(size * share), set[int]()
    for epoch in range(7, 7 + coverage):
        batches = epoch_of(made, epoch)
        assert batches.shape == (len(made), size)
        seen.update(batches.ravel().tolist())
        for batch in batches:
            assert len(set(batch.tolist())) == size, "no row twice"
            counts = np.bincount(labels[batch])
            assert counts.max() <= faces
            assert asked <= (counts == 1).sum() <= asked + 1, "as many as asked, and what no group can fill"
    assert seen >= set(np.flatnonzero(np.bincount(labels)[labels] > 1).tolist()), "all images of people with pairs"


@pytest.mark.parametrize(("size", "faces"), [(24, 4), (12, 4), (48, 8)])
def test_a_few_people_with_many_images_are_seen_too(size: int, faces: int) -> None:
    made = sampler(np.repeat(np.arange(6), 100), batch_size=size, faces_per_identity=faces, coverage=5)
    assert len(np.unique([epoch_of(made, epoch) for epoch in range(5)])) == 600


def test_faces_of_people_with_one_image_follow_by_turns() -> None:
    made = sampler()
    epochs = -(-90 // (len(made) * 12))
    seen = np.unique([epoch_of(made, epoch) for epoch in range(epochs)])
    assert (seen < 90).sum() == 90


def test_a_lone_face_in_the_room_for_groups_takes_its_turn_too() -> None:
    """Five rows are two pairs and one face of the 20 people with one image, without any negative being asked for."""
    made = sampler(np.repeat(np.arange(40), [1] * 20 + [2] * 20), batch_size=5, faces_per_identity=2, negative_share=0)
    for start in (0, 20, 60):
        seen = np.unique([made.whole(number) for number in range(start, start + 20)])
        assert (seen < 20).sum() == 20


@pytest.mark.parametrize("views", [2, 3])
def test_with_views_a_single_face_has_a_positive(views: int) -> None:
    """90 people have one image; of the 13 rows for single faces the last person may get fewer than the views."""
    made = sampler(batch_size=65, views=views)
    plain = sampler(batch_size=65)
    shown = np.zeros(90, int)
    for number in range(2 * len(made)):
        batch = np.array(made.whole(number))
        assert len(batch) == 65
        rows, times = np.unique(batch, return_counts=True)
        assert (rows[times > 1] < 90).all(), "other people show several faces"
        shown[rows[rows < 90]] += 1
        held = np.bincount(LONG_TAIL[batch])
        lone = sum(min(views, 13 - place) for place in range(0, 13, views))
        assert held[:90].sum() in (lone, lone + 1), "and what no group can fill"
        assert sorted(held[held > 0])[1] > 1, "all but one have a positive"
        assert set(batch[batch >= 90]) == {row for row in plain.whole(number) if row >= 90}, "the same groups"
    assert shown.max() - shown.min() <= 1, "by turns"


def test_large_identities_do_not_crowd_out_the_others() -> None:
    shown = np.bincount(LONG_TAIL[np.concatenate([epoch_of(sampler(), e).ravel() for e in range(5)])])
    assert shown[90:180].min() >= 5, "every identity with a pair is shown about once an epoch"
    assert shown[-1] / shown.sum() < 300 / len(LONG_TAIL), "the largest is shown less than its share of images"


@pytest.mark.parametrize("members", [12, 300])
def test_people_with_most_images_meet(members: int) -> None:
    """Their groups have places of their own in the line of an epoch, at other distances in each epoch."""
    labels, largest = np.repeat(np.arange(members + 3), [8] * members + [40, 48, 56]), np.arange(3) + members
    made = sampler(labels, batch_size=48, faces_per_identity=4, negative_share=0.0, coverage=1)
    met = np.zeros((3, 3))
    for number in range(20 * len(made)):
        dealt = made._dealing.deal(number, 5, 6).identities
        there = np.isin(largest, dealt)
        met += np.outer(there, there)
    groups = np.array([10, 12, 14])
    np.testing.assert_array_equal(np.diag(met), 20 * groups)
    expected = 20 * np.outer(groups, groups) / len(made)
    assert (np.abs(met / expected - 1) < 0.5)[~np.eye(3, dtype=bool)].all()


def test_a_pure_function_of_seed_and_epoch() -> None:
    one, two = sampler(), sampler()
    epoch_of(two, 5)
    np.testing.assert_array_equal(epoch_of(one, 3), epoch_of(two, 3))
    assert (epoch_of(one, 3) != epoch_of(one, 4)).any()
    assert (epoch_of(one, 0) != epoch_of(sampler(seed=2), 0)).any()
    first = 3 * len(one)
    batches = [one.batch(number) for number in range(first, first + len(one))]
    np.testing.assert_array_equal(np.array(batches), epoch_of(two, 3))
    far = 10**9 * len(one) + 1
    assert sampler().whole(far) == one.whole(far) != one.whole(far + 1)


def test_ranks_share_one_global_batch() -> None:
    whole = epoch_of(sampler(), 2)
    parts = []
    for rank in range(3):
        part = sampler(rank=rank, world_size=3)
        first = 2 * len(part)
        parts.append(np.array([part.batch(number) for number in range(first, first + len(part))]))
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


def test_no_negatives_and_few_identities() -> None:
    batches = epoch_of(sampler(BALANCED, negative_share=0.0, batch_size=240), 0)
    assert np.bincount(BALANCED[batches[0]]).max() <= 6
    tight = np.repeat(np.arange(3), 4)
    batches = epoch_of(sampler(tight, batch_size=12, faces_per_identity=4, negative_share=0.25), 0)
    assert sorted(batches[0].tolist()) == list(range(12)), "the whole set is one batch"


@pytest.mark.parametrize(
    ("size", "faces", "share"), [(3, 2, 0.0), (3, 2, 0.33), (10, 9, 0.0), (16, 40, 0.1), (20, 5, 0.9)]
)
def test_every_batch_holds_a_triplet_under_the_tightest_settings(size: int, faces: int, share: float) -> None:
    made = sampler(batch_size=size, faces_per_identity=faces, negative_share=share)
    for batch in epoch_of(made, 0):
        counts = np.bincount(LONG_TAIL[batch])
        assert counts.max() > 1
        assert (counts > 0).sum() > 1


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, SamplerOptions]:
    """Numbers of images of up to 40 people, and options that they suffice for."""
    few, many = st.integers(1, 6), st.integers(1, 60)
    counts = np.array(draw(st.lists(draw(st.sampled_from([few, many])), min_size=2, max_size=40)))
    size, faces = draw(st.integers(3, 40)), draw(st.integers(2, 9))
    views = draw(st.integers(1, min(3, faces)))
    share, coverage = draw(st.sampled_from([0.0, 0.1, 0.3, 0.6])), draw(st.integers(1, 4))
    assume(counts.max() > 1 and np.minimum(counts, faces).sum() >= size)
    try:
        options = SamplerOptions(
            batch_size=size, faces_per_identity=faces, negative_share=share, coverage=coverage, views=views
        )
    except ConfigError:
        assume(False)
        raise
    return counts, options


@given(cases(), st.integers(0, 3))
@settings(max_examples=60)
def test_promises_for_any_people(case: tuple[np.ndarray, SamplerOptions], start: int) -> None:
    counts, options = case
    size, faces, coverage = options.batch_size, options.faces_per_identity, options.coverage
    labels = np.random.default_rng(start).permutation(np.repeat(np.arange(len(counts)), counts))
    made = IdentitySampler(labels, options, seed=start)
    room = size - options.negatives
    groups = -(-counts // (min(faces, room) * coverage))
    group_sizes = np.minimum(min(faces, room), -(-counts // groups))
    several = counts > 1
    assert len(made) == steps_by_dealing(group_sizes[several], groups[several], room)
    enough = group_sizes[several].sum() >= room and len(counts) > room // 2 + options.negatives
    seen = np.zeros(len(labels), bool)
    for epoch in range(start, start + coverage):
        rows = epoch_of(made, epoch)
        held = np.array([np.bincount(labels[batch], minlength=len(counts)) for batch in rows])  # (steps, P)
        for batch, shown in zip(rows.tolist(), held, strict=True):
            twice = np.flatnonzero(np.bincount(batch) > 1)
            assert (shown[labels[twice]] <= options.views).all(), "no row twice but of people seen once"
            assert (counts[labels[twice]] < options.views).all(), "and of these only for want of images"
        assert held.max() <= faces
        assert (((held > 1).any(1)) & ((held > 0).sum(1) > 1)).all(), "a triplet"
        assert ((held >= group_sizes).sum(0) >= groups)[several].all(), "all groups, in different batches"
        if enough and options.views == 1:
            lone = (held == 1).sum(1)
            assert lone.min() >= options.negatives
            assert lone.max() <= options.negatives + 1
        seen[rows] = True
    assert seen[several[labels]].all(), "all images of people with pairs"


def steps_by_dealing(sizes: np.ndarray, groups: np.ndarray, room: int) -> int:
    """The least number of batches, by dealing all groups in descending order of their sizes."""
    line = np.sort(np.repeat(sizes, groups))[::-1]
    steps = max(-(-int(line.sum()) // room), int(groups.max()))
    while max(line[batch::steps].sum() for batch in range(steps)) > room:
        steps += 1
    return steps


def test_the_order_of_labels_and_their_numbers_do_not_matter() -> None:
    """Rows of labels in any order are those of sorted ones, each by its place among the rows of its label."""
    mixed = np.random.default_rng(3).permutation(LONG_TAIL)
    order = np.argsort(mixed, kind="stable")
    batches = epoch_of(sampler(), 1)
    np.testing.assert_array_equal(epoch_of(sampler(mixed), 1), order[batches])
    np.testing.assert_array_equal(epoch_of(sampler((LONG_TAIL * 7 + 3).astype(np.int32)), 1), batches)


def test_a_million_images_cost_a_batch_no_more_than_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """No permutation computes more places than the batch has rows, and nothing but the borders of people is kept."""
    counts = np.random.default_rng(0).integers(1, 40, 50_000)
    made = sampler(np.repeat(np.arange(50_000), counts), batch_size=240, faces_per_identity=8)
    kept = [value for held in (made, made._dealing) for value in vars(held).values() if isinstance(value, np.ndarray)]
    assert sum(value.nbytes for value in kept) < 16 * 50_000
    asked: list[int] = []

    def counted(places: np.ndarray, *others: np.ndarray) -> np.ndarray:
        asked.append(len(places))
        return permute(places, *others)

    def drawn(count: int, *others: int) -> np.ndarray:
        asked.append(count)
        return draw_distinct(count, *others)

    monkeypatch.setattr(dealing, "permute", counted)
    monkeypatch.setattr(sampler_module, "permute", counted)
    monkeypatch.setattr(sampler_module, "draw_distinct", drawn)
    for number in range(0, 20 * len(made), len(made) - 1):
        made.whole(number)
    assert len(asked) >= 20 * 4
    assert max(asked) <= 240


def test_draws_are_numbered() -> None:
    """Another batch for a seed needs another number: older checkpoints are refused by it."""
    assert DRAWS == 3
    assert sampler(BALANCED, batch_size=12).whole(5) == FIFTH


def test_bad_data_and_options() -> None:
    with pytest.raises(DataError, match="has two images"):
        sampler(np.arange(100))
    with pytest.raises(DataError, match="only one identity"):
        sampler(np.zeros(100, int))
    with pytest.raises(DataError, match="has two images"):
        sampler(np.zeros(0, int))
    with pytest.raises(DataError, match=r"set sampler\.batch_size=\d+ or less"):
        sampler(np.repeat(np.arange(5), 5), batch_size=60)
    for size, share, text in ((10, 0.9, "are 9 .* leaves 1 for a pair"), (7, 0.8, "are 6 .* leaves 1")):
        with pytest.raises(ConfigError, match=f"negative_share: {share} of a batch of {size} faces {text}"):
            sampler(batch_size=size, negative_share=share)
    with pytest.raises(ConfigError, match=r"40 faces of one person fill a batch of 16, .* use 8 or less"):
        sampler(batch_size=16, faces_per_identity=40, negative_share=0.0)
    for options in ({"faces_per_identity": 1}, {"negative_share": 1.0}, {"batch_size": 61, "world_size": 2}):
        with pytest.raises(ConfigError):
            sampler(**options)
