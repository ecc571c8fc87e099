"""Which form a path is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.data.sources.forms import FORMS, form_of
from tests.helpers.sets import faces, pictures_of, write_recordio, write_tar, write_zip


def test_forms_are_told_by_the_path(tmp_path: Path) -> None:
    assert form_of(tmp_path) is None
    assert form_of(tmp_path / "missing.rec") in ("recordio", None)
    for form, suffix in (
        ("recordio", "rec"),
        ("tar", "tar"),
        ("tar", "tar.gz"),
        ("zip", "zip"),
        ("parquet", "parquet"),
    ):
        folder = tmp_path / suffix / "data"
        folder.mkdir(parents=True)
        (folder / f"x.{suffix}").write_bytes(b"x")
        assert form_of(folder / f"x.{suffix}") == form_of(folder) == form_of(folder.parent) == form
    (tmp_path / "zip" / "Ada").mkdir()
    assert form_of(tmp_path / "zip") is None
    (tmp_path / "tar" / "photo.jpg").write_bytes(b"x")
    assert form_of(tmp_path / "tar") is None, "pictures with an archive beside them are read as pictures"
    (tmp_path / "notes.txt").write_text("x")
    assert form_of(tmp_path / "notes.txt") is None


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_names_and_identities_are_those_of_a_folder(tmp_path: Path, form: str) -> None:
    people = faces()
    if form == "tar":
        write_tar(tmp_path / "a.tar", people, labelled=False, top="lfw/")
    else:
        write_zip(tmp_path / "a.zip", people, top="lfw/")
    write_recordio(tmp_path / "a.rec", people)
    packed, _ = pictures_of(FORMS[form], tmp_path / f"a.{form}")
    records, _ = pictures_of(FORMS["recordio"], tmp_path / "a.rec")
    assert [int(name) for name in packed.identities] == list(records.identities)
    assert list(packed.names) == sorted(f"{face.identity}/{face.name}.jpg" for face in people)
