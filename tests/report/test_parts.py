"""The files of a run beside its metrics, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.report.parts import read_curves, read_encoder, read_evaluation
from facenet.report.runs import find_runs
from facenet.types import EmbeddingSet, image_key
from facenet.vectors import sq_dist
from tests.helpers.reports import FINGERPRINT, faces, sign, write_metrics, write_run


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    embeddings = faces()
    write_run(tmp_path / "run", embeddings)
    found = read_evaluation(find_runs([tmp_path / "run"]).runs[0])
    assert found is not None
    np.testing.assert_allclose(
        found.sq_dist, sq_dist(embeddings.vectors[found.first], embeddings.vectors[found.second]), rtol=1e-6
    )
    names = np.asarray(embeddings.identities)
    assert (found.same == (names[found.first] == names[found.second])).all()
    assert found.same.any()
    assert len(set(found.fold.tolist())) == 5
    assert found.thumbnails is not None
    assert found.thumbnails.shape == (len(embeddings), 48, 48, 3)


def test_pairs_of_keys_with_dots_find_their_faces(tmp_path: Path) -> None:
    embeddings = EmbeddingSet(faces(1, 2).vectors, ["a/x.1.jpg", "a/x.2.jpg"], ["a", "a"], FINGERPRINT)
    embeddings.save(tmp_path / "run" / "evaluation")
    assert embeddings.keys == [image_key("a/x.1.jpg"), "a/x.2"]
    (tmp_path / "run" / "evaluation" / "pairs.csv").write_text(
        "first,second,same,fold,sq_dist\na/x.1,a/x.2,1,0,0.5\na/x.1.jpg,a/x.2.jpg,True,0,0.5\n"
    )
    write_metrics(tmp_path / "run", {"verification": {}})
    with pytest.raises(DataError, match=r"meta\.json does not know its SHA-256"):
        read_evaluation(find_runs([tmp_path / "run"]).runs[0])
    sign(tmp_path / "run" / "evaluation")
    found = read_evaluation(find_runs([tmp_path / "run"]).runs[0])
    assert found is not None
    assert found.first.tolist() == [0, 0]
    assert found.second.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pairs.csv", "first,second,same\n", "missing: fold, sq_dist"),
        ("pairs.csv", "first,second,same,fold,sq_dist\nwho,who,1,0,0.1\n", "line 2"),
        ("pairs.csv", "first,second,same,fold,sq_dist\np00/p00_0000,p00/p00_0001,maybe,0,0.1\n", "'p00/p00_0000,"),
        ("pairs.csv", "first,second,same,fold,sq_dist\np00/p00_0000,p00/p00_0001,1,0,nan\n", "a distance"),
        ("pairs.csv", "first,second,same,fold,sq_dist\np00/p00_0000,p00/p00_0001\n", "line 2"),
        ("thumbnails.npy", "no array", "not readable"),
        ("items.csv", "row,path,identity\n", "SHA-256"),
    ],
)
def test_a_broken_part_is_one_clear_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "run" / "evaluation" / name).write_text(content)
    with pytest.raises(DataError, match="SHA-256"):
        read_evaluation(find_runs([tmp_path / "run"]).runs[0])
    if says != "SHA-256":
        sign(tmp_path / "run" / "evaluation")
    with pytest.raises(DataError) as raised:
        read_evaluation(find_runs([tmp_path / "run"]).runs[0])
    assert says in str(raised.value)
    assert name in str(raised.value)


def test_thumbnails_must_be_one_for_each_face(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    np.save(tmp_path / "run" / "evaluation" / "thumbnails.npy", np.zeros((3, 8, 8, 3), np.uint8))
    sign(tmp_path / "run" / "evaluation")
    with pytest.raises(DataError, match=r"expected uint8 \(84, S, S, 3\), got uint8 \(3, 8, 8, 3\)"):
        read_evaluation(find_runs([tmp_path / "run"]).runs[0])


def test_curves_leave_out_empty_cells_and_what_is_no_number(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", {"verification": {}})
    (tmp_path / "run" / "logs").mkdir()
    (tmp_path / "run" / "logs" / "metrics.csv").write_text("step,loss,lr\n20,0.5,\n10,0.7,nan\n30,inf,0.1\n,1,1\n")
    curves = read_curves(find_runs([tmp_path / "run"]).runs[0])
    assert {name: (x.tolist(), y.tolist()) for name, (x, y) in curves.items()} == {
        "loss": ([10, 20], [0.7, 0.5]),
        "lr": ([30], [0.1]),
    }


def test_missing_parts_are_none(tmp_path: Path) -> None:
    run = find_runs([write_metrics(tmp_path / "run", {"verification": {}})]).runs[0]
    assert read_evaluation(run) is None
    assert read_encoder(run) is None
    assert read_curves(run) == {}


def test_the_quick_start_keeps_its_parts_in_the_runs_inside(tmp_path: Path) -> None:
    write_run(tmp_path / "quick" / "train")
    run = find_runs([write_metrics(tmp_path / "quick", {"verification": {}})]).runs[0]
    assert read_evaluation(run) is not None
    assert (read_encoder(run) or {})["embedding_dim"] == 16
