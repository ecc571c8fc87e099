"""leakage: names by their hashes, near-duplicates against a loop over all pairs, and no name in what is published."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.evaluation.leakage import SHOWN, leakage, people_record, shared_people, world_of
from facenet.types import EmbeddingSet
from tests.helpers.verification import unit

TRAIN = {"train": ["Ada_Byron", "Alan_Turing"], "held_out": ["Grace_Hopper"]}


def faces(count: int = 300) -> EmbeddingSet:
    labels = np.arange(count) // 3
    names = [f"p{n}" if 0 < n < 99 else "" for n in labels]
    return EmbeddingSet(unit(count, 16, labels, 1), [f"{i}.jpg" for i in range(count)], names, "f")


def test_names_are_found_whatever_their_writing_and_not_published() -> None:
    records = people_record(TRAIN, "salt")
    found = shared_people(["ada byron", "Grace-Hopper", "Emmy_Noether", ""], records)
    assert found == {"train": ["ada byron"], "held_out": ["Grace-Hopper"]}
    assert [(record["role"], record["count"]) for record in records] == [("train", 2), ("held_out", 1)]
    text = json.dumps(records).casefold()
    assert not any(part in text for names in TRAIN.values() for name in names for part in name.casefold().split("_"))
    assert people_record(TRAIN, "other")[0]["hashes"] != records[0]["hashes"], "each encoder has hashes of its own"
    assert shared_people(["Ada_Byron"], None) is None


def test_an_encoder_keeps_whom_the_one_it_started_from_was_trained_on() -> None:
    records = [*people_record({"train": ["Emmy_Noether"]}, "new"), *people_record(TRAIN, "old")]
    assert shared_people(["Emmy_Noether", "Ada_Byron"], records) == {
        "train": ["Ada_Byron", "Emmy_Noether"],
        "held_out": [],
    }


def test_people_drawn_with_another_seed_are_others() -> None:
    records = people_record({"train": ["person_0001"]}, "s", world=world_of("synthetic", 0))
    for world, count in ((world_of("synthetic", 0), 1), (world_of("synthetic", 1), 0), (world_of("lfw", 0), 0)):
        found = shared_people(["person_0001"], records, world=world)
        assert found is not None
        assert len(found["train"]) == count


def test_near_duplicates_against_a_loop() -> None:
    embeddings = faces()
    vectors = embeddings.vectors.copy()
    vectors[[7, 120, 299, 50, 5]] = vectors[[200, 121, 0, 298, 4]]  # other person, same one, unknown, unknown, same
    embeddings = replace(embeddings, vectors=vectors)
    near = 0.5
    want = []
    for i in range(300):
        for j in range(i + 1, 300):
            a, b = embeddings.identities[i], embeddings.identities[j]
            if a and b and a != b and np.sum((vectors[i] - vectors[j]) ** 2) <= near:
                want.append((i, j))
    shown: list[tuple[int, int]] = []
    records = people_record({"train": ["p1", "x"]}, "s")
    found = leakage(embeddings, records, near_sq_dist=near, tile=(200, 70), progress=lambda *done: shown.append(done))
    assert shown == [(0, 44_850), (44_850 - 100 * 99 // 2, 44_850)], "pairs of the blocks above"
    assert found["near_duplicates"] == len(want) > 3
    assert (found["people"], found["shared_people"], found["shared_held_out"]) == (98, 1, 0)
    assert found["examples"][0] == ["7.jpg", "200.jpg", pytest.approx(0, abs=1e-6)]
    distances = [row[2] for row in found["examples"]]
    assert distances == sorted(distances)
    assert found["train_near_duplicates"] is None
    assert leakage(embeddings, None)["shared_people"] is None


def test_near_duplicates_of_training_faces_under_any_name() -> None:
    embeddings = faces()
    other = unit(500, 16, np.arange(500) // 2, 9)
    other[[3, 450]] = embeddings.vectors[[77, 250]]
    train = EmbeddingSet(other, [f"t{i}.jpg" for i in range(500)], ["q"] * 500, "f")
    found = leakage(embeddings, None, train=train, near_sq_dist=0.001, tile=(40, 160))
    assert found["train_near_duplicates"] == 2
    assert sorted(row[:2] for row in found["examples"]) == [["250.jpg", "t450.jpg"], ["77.jpg", "t3.jpg"]]
    with pytest.raises(DataError, match="another encoder"):
        leakage(embeddings, None, train=replace(train, fingerprint="g"))


def test_a_collapsed_encoder_lists_only_some() -> None:
    embeddings = replace(faces(), vectors=np.tile(np.float32([[1] + [0] * 15]), (300, 1)))
    found = leakage(embeddings, None)
    assert found["near_duplicates"] == 294 * 293 // 2 - 98 * 3
    assert len(found["examples"]) == SHOWN


@pytest.mark.parametrize("records", [[3], [{"role": "train"}], ["x"]])
def test_a_damaged_record_of_people_is_one_line(records: list[object]) -> None:
    with pytest.raises(DataError, match="copy the encoder again"):
        shared_people(["Ada"], records)  # type: ignore[arg-type]
