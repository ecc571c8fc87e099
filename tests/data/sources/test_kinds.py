from __future__ import annotations

from pathlib import Path

from facenet.data.sources.kinds import scan


def test_scan_takes_what_it_is_given(face_tree: Path) -> None:
    assert len(scan(face_tree)) == 120
    one = scan(face_tree / "p000" / "p000_0001.png")
    assert (one.paths, one.identities) == (("p000_0001.png",), ("",))
