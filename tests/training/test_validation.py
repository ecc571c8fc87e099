"""Pairs of a file in place of held-out people: they choose the checkpoint and the thresholds of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.data.drawn.faces import draw, write_folder
from facenet.data.options import DataOptions, DrawnOptions, PairColumns
from facenet.data.pair_files import read_validation
from facenet.data.pair_folds import held_out_pairs
from facenet.data.pairs import write_pairs
from facenet.data.sources.folder import scan_folder
from facenet.data.splits import split_faces
from facenet.encoders.bundle import load_bundle
from facenet.encoders.embedding import embed_records
from facenet.errors import ConfigError, DataError
from facenet.evaluation.verification import score_pairs, verify_pairs
from facenet.files import sha256_file
from facenet.training.run import train
from facenet.types import Pairs
from tests.helpers.bin_sets import write_bin
from tests.helpers.training import small_options


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen people of six faces, and pairs of eight of them."""
    place = tmp_path_factory.mktemp("faces")
    write_folder(draw(range(500, 518), 6, DrawnOptions(size=40)), place)
    faces = scan_folder(place)
    write_pairs(place / "pairs.csv", held_out_pairs(faces.of_people(faces.names[:8])))
    return place


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Pairs:
    found = read_validation(DataOptions(kind="folder", root=str(folder), validation="pairs.csv"))
    assert found is not None
    return found.pairs


def test_a_bin_set_chooses_the_checkpoint_and_the_thresholds(folder: Path, pairs: Pairs, tmp_path: Path) -> None:
    file = write_bin(tmp_path / "some.bin", pairs, folder)
    lines: list[str] = []
    asked: dict[str, Any] = {"data": {"validation": str(file)}, "trainer": {"max_steps": 2, "val_check_interval": 1}}
    options = small_options(tmp_path / "cache", **asked, resume="auto")
    metrics = train(options, tmp_path / "run", lines.append)

    source = {"file": "some.bin", "sha256": sha256_file(file)}
    encoder = load_bundle(tmp_path / "run" / "encoder")
    assert encoder.training["validation"] == source
    assert metrics["held_out"].items() >= {"pairs": len(pairs), **source}.items()
    assert any(f"validated on {len(pairs)} pairs of some.bin" in line for line in lines)
    counts = {entry["role"]: entry["count"] for entry in encoder.training["people"]}
    assert counts == {"train": metrics["train"]["identities"], "held_out": 0}, "a .bin set names nobody"
    given = read_validation(options.data)
    assert given is not None
    scored = score_pairs(embed_records(encoder, given.faces)[0], given.pairs)
    found = verify_pairs(scored.sq_dist, given.pairs.same, given.pairs.fold)
    assert metrics["held_out"]["accuracy"] == pytest.approx(found.accuracy, abs=1e-6)
    different = np.sort(scored.sq_dist[~given.pairs.same])
    assert sorted(encoder.thresholds) == [far for far in (1e-3, 1e-2, 1e-1) if far * len(different) >= 1]
    for far, threshold in encoder.thresholds.items():
        accepted = np.count_nonzero(different <= threshold) / len(different)
        assert accepted <= far < accepted + 1.01 / len(different)
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert "pairs of `some.bin`" in card
    assert source["sha256"] in card

    write_bin(file, pairs.subset(np.arange(len(pairs) - 2)), folder)
    (tmp_path / "run" / "metrics.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"SHA-256 of data.validation: \w+ then, \w+ now"):
        train(options, tmp_path / "run", lines.append)


def test_people_of_the_pairs_neither_train_nor_are_reported(folder: Path) -> None:
    plain: dict[str, Any] = {"kind": "folder", "root": str(folder), "evaluation": 0.5, "held_out": 0.5}
    splits = split_faces(DataOptions(**plain, validation="pairs.csv"))
    assert splits.validation is not None
    people = set(scan_folder(folder).names[:8])
    assert splits.validation.people == people == set(splits.held_out.names)
    assert not people & {*splits.train.names, *splits.evaluation.names}
    assert len(splits.train.names) + len(splits.evaluation.names) == 10, "nobody else is held out"


def test_pairs_of_another_folder(folder: Path) -> None:
    elsewhere: dict[str, Any] = {"validation": str(folder / "pairs.csv"), "validation_root": str(folder)}
    splits = split_faces(small_options(folder / "cache", data=elsewhere).data)
    assert splits.validation is not None
    assert splits.validation.source == ("pairs.csv", sha256_file(folder / "pairs.csv"))
    assert splits.train.images is not None, "drawn faces train"


def test_wrong_pairs_are_one_line(folder: Path, pairs: Pairs, tmp_path: Path) -> None:
    file = write_bin(tmp_path / "some.bin", pairs, folder)
    here: dict[str, Any] = {"kind": "folder", "root": str(folder)}
    other = PairColumns(first="a", second="b")
    assert read_validation(DataOptions(**here, validation=str(file), pair_columns=other)) is not None, "of the reported"
    with pytest.raises(ConfigError, match=r"data.validation=.*some.bin: a .bin set .* leave data.validation_root out"):
        split_faces(DataOptions(**here, validation=str(file), validation_root="faces"))
    with pytest.raises(ConfigError, match=r"drawn faces have no files; add data.validation_root=FOLDER"):
        split_faces(DataOptions(validation=str(folder / "pairs.csv")))
    with pytest.raises(DataError, match=r"data.validation=gone.csv: no such file"):
        split_faces(DataOptions(**here, validation="gone.csv"))
    write_pairs(tmp_path / "reported.csv", pairs)
    with pytest.raises(DataError, match=r"pairs.csv: 8 people of the reported pairs are named by it"):
        split_faces(DataOptions(**here, validation="pairs.csv", pairs=str(tmp_path / "reported.csv")))
    write_pairs(tmp_path / "lost.csv", Pairs(("a/1", *pairs.first[1:]), pairs.second, pairs.same, pairs.fold))
    with pytest.raises(DataError, match=r"lost.csv: 1 images that the pairs name are not there .*a/1"):
        split_faces(DataOptions(**here, validation=str(tmp_path / "lost.csv")))
