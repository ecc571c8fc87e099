"""A named add is done once, also if it was cut between its faces and its record."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from facenet.errors import DataError, Taken
from facenet.gallery.gallery import Gallery
from tests.helpers.galleries import faces, people


def test_a_named_add_that_was_cut_is_done_by_the_next(
    new_place: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, given = new_place(), faces(people(2))
    with Gallery.open(place, create=True) as gallery:
        gallery.add(faces(["other/0"]))
        store = gallery._engine.put_setting

        def cut(key: str, value: str) -> None:
            if key.startswith("once:") and json.loads(value)["result"]:
                raise DataError("cut")
            store(key, value)

        monkeypatch.setattr(gallery._engine, "put_setting", cut)
        with pytest.raises(DataError, match="cut"):
            gallery.add(given, once="name")
    with Gallery.open(place) as gallery:
        for _ in range(2):
            assert gallery.add(given, once="name") == (8, 0, 0)
        assert len(gallery) == 9
        with pytest.raises(Taken, match="other content"):
            gallery.add(faces(people(1, start=5)), once="name")
        with pytest.raises(Taken, match="in the gallery already"):
            gallery.add(faces(["other/0", "new/0"]), once="another")
        with pytest.raises(Taken, match="in the gallery already"):  # nor is it taken for one that was cut
            gallery.add(faces(["other/0", "new/0"]), once="another")
        assert len(gallery) == 9
        assert gallery.check() == []
