"""The chapter of a clustering: its scores, and its clusters in the order of their size."""

from __future__ import annotations

from pathlib import Path

from facenet.report.chapters.clusters import cluster_chapter
from facenet.report.runs import Run
from tests.helpers.reports import tables


def test_clusters_are_listed_largest_first(tmp_path: Path) -> None:
    (tmp_path / "clusters.csv").write_text("cluster,path,identity\n0,a,x\n1,b,y\n1,c,y\n1,d,z\n2,e,\n")
    metrics = {"faces": 5, "clusters": 3, "threshold": 0.5, "bcubed_f1": 0.8}
    chapter = cluster_chapter(Run(tmp_path, "c", "cluster", metrics))
    scores, largest = tables(chapter)
    assert scores.rows == [("BCubed F1", "0.8")]
    assert largest.rows == [("1", "3", "2", "y"), ("0", "1", "1", "x"), ("2", "1", "1", "unknown")]
    assert "5 faces fell into 3 clusters" in chapter.verdict
