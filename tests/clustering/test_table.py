"""cluster_table: what is written is read, and files that do not fit say so in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.clustering.table import read_labels, write_table
from facenet.errors import DataError


def test_what_is_written_is_read_for_any_of_the_paths(tmp_path: Path) -> None:
    paths = ["b/1.jpg", "a,2.jpg", "ü/3.jpg", 'd"4.jpg']
    write_table(tmp_path / "clusters.csv", np.array([2, 0, 2, 11]), paths, ["b", "", "u", "d"])
    lines = (tmp_path / "clusters.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["cluster,path,identity", '0,"a,2.jpg",', "2,b/1.jpg,b"]
    assert read_labels(tmp_path / "clusters.csv", paths[::-1]).tolist() == [11, 2, 0, 2]
    assert read_labels(tmp_path / "clusters.csv", ["b/1.jpg"]).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster,image\n0,a\n", "missing: path"),
        ("", "missing: cluster, path"),
        ("cluster,path\nx,a\n", "cluster of a: expected a number of at least 0, got 'x'"),
        ("cluster,path\n-1,a\n", "got '-1'"),
        ("cluster,path\n" + "9" * 5000 + ",a\n", "got '9999"),
        ("cluster,path\n" + "9" * 19 + ",a\n", "got '9999"),
        ("cluster,path\n0,a\n1,a\n", "a is in clusters 0 and 1"),
        ("cluster,path\n0,b\n", "1 of 1 known faces are not in it, the first a"),
        ("\udcff\udcfe", "not readable as CSV"),
    ],
)
def test_files_that_do_not_fit_raise(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "clusters.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message):
        read_labels(file, ["a"])


def test_no_such_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: no such file"):
        read_labels(tmp_path / "nowhere.csv", ["a"])
