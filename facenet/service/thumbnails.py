"""Small pictures of the faces of a gallery: kept when a face is enrolled, or cut from the photo it was indexed from.

Nothing is kept or shown unless the service is told to. A path of a request is never opened: an item's own is.
"""

from __future__ import annotations

import contextlib
import io
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from facenet.data.pictures import read_picture
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import see_photo
from facenet.errors import DataError, NotThere
from facenet.files import atomic_write, read_bytes
from facenet.gallery.gallery import Gallery, Item

NONE, KEPT, PHOTOS = "none", "kept", "photos"
FOLDER = "faces"
KEPT_NAME = re.compile(rf"{FOLDER}/[0-9a-f]{{32}}\.jpg")
SIDE = 160  # pixels
GRACE = 60.0  # seconds that a new picture may wait for its item; another service may be enrolling into the gallery


class Thumbnails:
    """The thumbnails of a gallery; those that are kept lie in its `folder`, which one in a database has not."""

    def __init__(self, folder: Path | None, mode: str, encoder: Encoder) -> None:
        self.folder, self.mode, self.encoder = folder, mode, encoder

    @property
    def keeps(self) -> bool:
        """Whether the faces of enrolments are kept."""
        return self.mode != NONE and self.folder is not None

    def has(self, item: Item) -> bool:
        """Whether there is probably a thumbnail of an item; a photo may be gone."""
        return self._is_kept(item.path) or self._is_photo(item)

    def keep(self, crop: np.ndarray) -> str:
        """Write the crop (H, W, 3) of a face, before its item; returns its path, which no other picture has."""
        path = f"{FOLDER}/{secrets.token_hex(16)}.jpg"
        assert self.folder is not None  # see keeps
        with atomic_write(self.folder / path) as file:
            file.write(encode_jpeg(crop))
        return path

    def read(self, item: Item) -> bytes:
        """Return the JPEG of an item's face.

        Raises:
            NotThere: the item has none.
        """
        with contextlib.suppress(DataError):  # the file is gone, or is no picture any more
            if self.folder is not None and self._is_kept(item.path):
                return read_bytes(self.folder / item.path)
            if self._is_photo(item):
                seen = see_photo(self.encoder, read_picture(Path(item.root) / item.path), most=1)
                if seen.meant is not None:
                    return encode_jpeg(seen.faces[seen.meant].pixels)
        raise NotThere("this face has no picture; start the service with thumbnails=kept and enrol a photo")

    @contextlib.contextmanager
    def following(
        self, gallery: Gallery, names: Sequence[str], by: str = "id", new: Iterable[str] = ()
    ) -> Iterator[None]:
        """Delete the kept pictures, `new` ones and those of the items of `names`, that no item names after a change.

        This holds in every mode: pictures may be there from a time when they were kept.
        """
        if self.folder is None or not (self.folder / FOLDER).exists():  # never was a picture kept
            yield
            return
        before = {item.path for item in gallery.find(names, by=by)}
        try:
            yield
        finally:
            self.forget({*before, *new} - {item.path for item in gallery.find(names, by=by)})

    def forget(self, paths: Iterable[str]) -> None:
        """Delete kept pictures whose items are gone; other paths stay."""
        for path in paths:
            if self.folder is not None and KEPT_NAME.fullmatch(path):
                (self.folder / path).unlink(missing_ok=True)

    def sweep(self, gallery: Gallery, started: float) -> None:
        """Delete kept pictures that no item names: of a service that was killed, or of items removed by a command.

        Pictures that are younger than a minute at the time `started` stay. They may belong to an enrolment that is not
        written yet. A path is given to one picture only, so an older one can not get an item any more.
        """
        if self.folder is None:
            return
        old = [path for path in (self.folder / FOLDER).glob("*.jpg") if path.stat().st_mtime < started - GRACE]
        known = {item.path for items, _ in gallery.blocks() for item in items} if old else set()
        self.forget({f"{FOLDER}/{path.name}" for path in old} - known)

    def _is_photo(self, item: Item) -> bool:
        """Whether an item was indexed from a file here; vectors that a client added have no root."""
        return self.mode == PHOTOS and bool(item.path) and Path(item.root).is_absolute()

    def _is_kept(self, path: str) -> bool:
        return self.keeps and KEPT_NAME.fullmatch(path) is not None


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Return a crop (H, W, 3) uint8 as a JPEG of at most 160 pixels a side."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
