from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.degradations import KINDS, Degraded, plan
from facenet.data.options import LevelOptions
from facenet.data.pair_folds import make_pairs
from facenet.data.pairs import write_pairs
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records, write_images
from facenet.data.sources.folder import scan_folder
from facenet.encoders.bundle import load_bundle, save_bundle
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError, DataError
from facenet.evaluation.degradation import SCORES, degrade, level_name, table_rows, val_shown
from facenet.evaluation.verification import verify_embeddings, verify_pairs
from facenet.types import EmbeddingSet, Pairs
from facenet.vectors import normalise
from tests.helpers.commands import mistaken, succeed
from tests.helpers.encoders import make


class Pixels:
    """An encoder without weights: the picture's own values, centred, as a unit vector."""

    preprocess = Preprocess(size=(24, 24), crop=0.9)
    fingerprint = "0" * 64
    compatible_with: tuple[str, ...] = ()
    dim = 24 * 24 * 3

    def embed_batch(self, images: np.ndarray, *, names: object = ()) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float64)
        return normalise(flat - flat.mean(1, keepdims=True))


def drawn(people: int = 30, each: int = 4, side: int = 60, contrast: float = 0.04) -> Records:
    """Faces that pixels tell apart, though not without fail: a pale pattern for each person under grain."""
    images, names = [], []
    for person in range(people):
        pattern = np.random.default_rng(person).normal(0, 70, (6, 6, 3))
        for image in range(each):
            grain = np.random.default_rng([person, image]).normal(0, 25, (side, side, 3))
            images.append(128 + contrast * np.kron(pattern, np.ones((side // 6, side // 6, 1))) + grain)
            names.append(f"p{person:02d}")
    paths = tuple(f"{name}/{row % each}.png" for row, name in enumerate(names))
    return Records.of(paths, tuple(names), "", np.stack(images).clip(0, 255).astype(np.uint8))


def pairs_of(faces: Records) -> Pairs:
    return make_pairs(faces.keys, faces.identities, pairs_per_fold=60, folds=5)


def run(faces: Records, changes: list[Degraded], **options: Any) -> dict[str, Any]:
    pairs = options.pop("pairs", None) or pairs_of(faces)
    return degrade(Pixels(), faces, pairs, changes, **options)  # type: ignore[arg-type]


def test_a_plan_lists_kinds_and_levels() -> None:
    everything = plan()
    assert [(c.kind, c.level) for c in everything] == [(k, level) for k, row in KINDS.items() for level in row.levels]
    chosen = plan(["pixels", "jpeg", "pixels"], {"jpeg": [5, 5.0, 95], "blur": [3]}, seed=4)
    assert [(c.kind, c.level, c.seed) for c in chosen[-2:]] == [("jpeg", 5, 4), ("jpeg", 95, 4)]
    assert {c.kind for c in chosen} == {"pixels", "jpeg"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kinds": ["jpg"]}, "did you mean 'jpeg'"),
        ({"levels": {"pixel": [100]}}, "did you mean 'pixels'"),
        ({"levels": {"jpeg": [0]}}, "whole number from 1 to 100"),
        ({"levels": {"jpeg": [101]}}, "levels.jpeg"),
        ({"levels": {"jpeg": [50.5]}}, "got 50.5"),
        ({"levels": {"pixels": [0]}}, "levels.pixels"),
        ({"levels": {"occlusion": [100.1]}}, "levels.occlusion"),
        ({"levels": {"noise": [-1]}}, "levels.noise"),
        ({"levels": {"blur": [float("nan")]}}, "levels.blur"),
        ({"levels": {"brightness": [float("inf")]}}, "levels.brightness"),
        ({"levels": {"blur": []}}, "empty list"),
        ({"kinds": []}, "empty list"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_can_not_be_planned_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan(**options)


@pytest.mark.parametrize("kind", ["noise", "occlusion"])
def test_scores_fall_with_the_level(kind: str) -> None:
    metrics = run(drawn(), plan([kind], {"noise": [5, 20, 60], "occlusion": [1, 5, 40]}))
    scores = [metrics["clean"], *metrics["degrade"][kind].values()]
    assert 0.85 < scores[0]["accuracy"] < 1.0, "neither chance nor perfect, or a fall shows nothing"
    auc = [score["auc"] for score in scores]
    assert all(mild > severe for mild, severe in pairwise(auc)), auc
    assert scores[0]["accuracy"] - scores[-1]["accuracy"] > 0.1


def test_a_high_jpeg_quality_hardly_costs_and_a_low_one_does() -> None:
    metrics = run(drawn(), plan(["jpeg"], {"jpeg": [100, 2]}))
    clean, rows = metrics["clean"], metrics["degrade"]["jpeg"]
    assert abs(rows["100"]["auc"] - clean["auc"]) < 0.01
    assert rows["2"]["auc"] < clean["auc"] - 0.02


def test_the_numbers_are_those_of_images_changed_by_hand() -> None:
    faces = drawn(12)
    pairs = make_pairs(faces.keys, faces.identities, pairs_per_fold=24, folds=5)
    encoder, change = Pixels(), Degraded("noise", 30, seed=7)
    assert faces.images is not None
    crops = [image[3:57, 3:57] for image in faces.images]  # crop 0.9 of 60 pixels
    by_hand = [Degraded("noise", 30, seed=7)(crop, key) for crop, key in zip(crops, faces.keys, strict=True)]
    whole = dataclasses.replace(Pixels.preprocess, crop=1.0)
    vectors = encoder.embed_batch(whole(np.stack(by_hand)))
    clean = encoder.embed_batch(whole(np.stack(crops)))
    both = run(faces, [change], pairs=pairs)
    expected = verify_embeddings(EmbeddingSet(vectors, faces.paths, faces.identities, ""), pairs).metrics()
    assert both["degrade"]["noise"]["30"] == {**{name: expected[name] for name in SCORES}, "unchanged": 0}
    row = {key: place for place, key in enumerate(faces.keys)}
    distances = [((vectors[row[a]] - clean[row[b]]) ** 2).sum() for a, b in zip(pairs.first, pairs.second, strict=True)]
    one_sided = verify_pairs(np.asarray(distances), pairs.same, pairs.fold)
    first = run(faces, [change], pairs=pairs, sides="first")
    assert first["degrade"]["noise"]["30"]["accuracy"] == one_sided.accuracy
    assert first["degrade"]["noise"]["30"]["auc"] == pytest.approx(one_sided.auc, abs=1e-9)
    assert first["clean"] == both["clean"]
    assert first["degrade"]["noise"]["30"]["auc"] > both["degrade"]["noise"]["30"]["auc"], "half the damage"


@pytest.mark.slow  # degrades and embeds everything three times
def test_order_and_batch_change_nothing() -> None:
    faces = drawn(12)
    pairs = pairs_of(faces)
    changes = plan(levels={kind: row.levels[::2] for kind, row in KINDS.items()})  # every second, for the sake of time
    metrics = run(faces, changes, pairs=pairs)
    turned = faces.subset(np.random.default_rng(0).permutation(len(faces)))
    for other, size in ((faces, 1), (turned, 700)):
        again = run(other, changes, pairs=pairs, batch_size=size)
        assert again["degrade"].keys() == metrics["degrade"].keys()
        for kind, rows in metrics["degrade"].items():
            for level, scores in rows.items():
                assert again["degrade"][kind][level]["auc"] == pytest.approx(scores["auc"], abs=1e-4), (kind, level)
    other_seed = run(faces, plan(["noise"], seed=1), pairs=pairs)
    assert other_seed["degrade"]["noise"]["40"]["auc"] != metrics["degrade"]["noise"]["40"]["auc"]


def test_faces_with_fewer_pixels_stay_as_they_are_and_are_counted() -> None:
    metrics = run(drawn(12), plan(["pixels"], {"pixels": [65_536, 54 * 54, 54 * 54 - 200, 100]}))
    rows = metrics["degrade"]["pixels"]
    for level in ("65536", "2916"):
        assert rows[level]["unchanged"] == 1.0
        assert {name: rows[level][name] for name in SCORES} == metrics["clean"]
    assert rows["2716"]["unchanged"] == rows["100"]["unchanged"] == 0
    _, lines, notes = table_rows(metrics)
    assert [line[-1] for line in lines] == ["", "100%", "100%", "", ""]
    assert any("not enlarged" in note for note in notes)


def test_every_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(drawn(4), tmp_path)
    faces, decoded = scan_folder(tmp_path), []
    face = Preprocess.face
    monkeypatch.setattr(Preprocess, "face", lambda self, source: decoded.append(source) or face(self, source))
    pairs = make_pairs(faces.keys, faces.identities, pairs_per_fold=4, folds=2)
    seen: list[tuple[int, int]] = []
    run(faces, plan(), pairs=pairs, batch_size=100, progress=lambda done, total: seen.append((done, total)))
    assert sorted(decoded) == sorted(tmp_path / path for path in faces.paths)
    assert seen[-1] == (16, 16)
    assert len(seen) > 4, "progress is shown while the images pass"


def test_unreadable_images_fail_unless_told(tmp_path: Path) -> None:
    write_images(drawn(6), tmp_path)
    faces = scan_folder(tmp_path)
    pairs = make_pairs(faces.keys, faces.identities, pairs_per_fold=8, folds=2)
    (tmp_path / f"{pairs.first[0]}.png").write_bytes(b"no image")
    for sides in ("both", "first"):
        with pytest.raises(DataError, match="allow_missing"):
            run(faces, plan(["jpeg"]), pairs=pairs, sides=sides)
        metrics = run(faces, plan(["jpeg"]), pairs=pairs, sides=sides, allow_missing=True)
        assert metrics["skipped"] >= 1
        assert metrics["pairs"] + metrics["skipped"] == len(pairs)


@pytest.mark.parametrize(("options", "says"), [({"sides": "one"}, "sides"), ({"far": 0.0}, "far"), ({"far": 2}, "far")])
def test_wrong_options_are_refused_before_images_are_read(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        degrade(None, None, None, [], **options)  # type: ignore[arg-type]


def test_val_is_shown_at_the_smallest_rate_that_can_be_resolved() -> None:
    def scores(*resolvable: str) -> dict[str, Any]:
        return {"val_at_far": {far: {"resolvable": far in resolvable} for far in ("1e-1", "1e-2", "1e-3", "1e-4")}}

    assert val_shown(scores("1e-1", "1e-2"))[0] == "1e-2"  # type: ignore[index]
    assert val_shown(scores("1e-1", "1e-2", "1e-3", "1e-4"))[0] == "1e-3"  # type: ignore[index]
    assert val_shown(scores("1e-1", "1e-2", "1e-3"), 0.05)[0] == "1e-1"  # type: ignore[index]
    assert val_shown(scores()) is None


def test_the_table_sets_the_paper_beside_ours_and_says_what_it_is() -> None:
    metrics = run(drawn(), plan(["jpeg", "noise"], {"jpeg": [90, 33], "noise": [0.5]}))
    header, rows, notes = table_rows(metrics)
    assert header[5] == "VAL at FAR 1e-2", "150 different pairs"
    assert {len(row) for row in rows} == {len(header)}
    assert [row[:2] for row in rows] == [["none", ""], ["jpeg", "90"], ["jpeg", "33"], ["noise", "0.5"]]
    assert [row[-2] for row in rows] == ["", "0.865", "", ""]
    said = "\n".join(notes)
    assert "Table 4" in said
    assert "private hold-out set" in said
    assert "at least 1000 different pairs, and there are 150" in said
    assert "Table 4" not in "\n".join(table_rows(run(drawn(), plan(["noise"])))[2])


def test_level_names_are_numbers_without_dots() -> None:
    for level in (10.0, 65_536, -4, 0.5, 12.25, 1e9):
        assert float(level_name(level)) == level
        assert "." not in level_name(level) or level == 12.25


def test_the_configuration_knows_every_kind() -> None:
    assert [field.name for field in dataclasses.fields(LevelOptions)] == list(KINDS)


def test_the_command_writes_a_table_and_metrics(tmp_path: Path) -> None:
    faces = drawn(8)
    write_images(faces, tmp_path / "faces")
    save_bundle(make(), tmp_path / "encoder")
    pairs = make_pairs(faces.keys, faces.identities, pairs_per_fold=8, folds=2)
    write_pairs(tmp_path / "pairs.csv", pairs)
    where = [f"encoder={tmp_path / 'encoder'}", f"data.root={tmp_path / 'faces'}", f"pairs={tmp_path / 'pairs.csv'}"]
    metrics = succeed(
        "degrade", *where, "kinds=[jpeg,brightness]", "levels.jpeg=[5]", "sides=first", out=tmp_path / "run"
    )
    assert list(metrics["degrade"]) == ["jpeg", "brightness"]
    assert list(metrics["degrade"]["jpeg"]) == ["5"]
    assert (metrics["pairs"], metrics["sides"]) == (16, "first")
    encoder = load_bundle(tmp_path / "encoder")
    clean = verify_embeddings(embed_records(encoder, scan_folder(tmp_path / "faces"))[0], pairs)
    assert metrics["clean"]["accuracy"] == pytest.approx(clean.accuracy)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert (tmp_path / "run" / "degrade.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["kinds=[jpg]"], 2, "did you mean 'jpeg'"),
        (["levels.jpg=[5]"], 2, "did you mean 'jpeg'"),
        (["levels.jpeg=[500]"], 2, "levels.jpeg"),
        (["sides=second"], 2, "sides"),
        (["far=0"], 2, "far"),
        (["encoder=/nowhere"], 3, "/nowhere"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    given = [*([] if arguments[0].startswith("encoder") else ["encoder=/nowhere"]), *arguments]
    status, said = mistaken("degrade", *given, out=tmp_path / "run")
    lines = said.strip().splitlines()
    assert (status, len(lines)) == (code, 1), said[-2000:]
    assert says in lines[0]
