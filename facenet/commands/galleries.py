"""The gallery that a user names: a folder, or the address of a database or service."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from facenet.gallery.gallery import Gallery

GALLERY = "gallery folder, postgresql:// or milvus:// address, or that of a service"


def open_gallery(place: str, *, create: bool = False) -> Gallery:
    """Return the gallery in a folder or database, which `create` makes, or connect to a running ``facenet serve``.

    Raises:
        DataError, ConfigError: as :meth:`facenet.gallery.gallery.Gallery.open` and :func:`facenet.connect`.
    """
    if place.startswith(("http://", "https://")):
        from facenet.service.client import connect

        return cast("Gallery", connect(place))  # it has the same methods
    from facenet.gallery.gallery import Gallery

    return Gallery.open(place, create=create)
