"""What a gallery's own labelled faces tell about strangers and members: the base of its threshold.

Each of some faces asks the gallery as a stranger would: the faces of its own person are left out. It also asks as a
member would: it alone is left out. The answers stay in ``strangers.json``, a cache like ``index.faiss``.
Letters: N faces, Q faces that ask, D embedding width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.errors import DataError
from facenet.evaluation.strangers import Tail, fit_tail, nearest_of_others, tail_of
from facenet.evaluation.thresholds import OwnPeople, SearchThreshold, search_threshold
from facenet.files import read_sealed, write_sealed
from facenet.gallery.sql.truth import Truth

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder
    from facenet.gallery.search import Where

FILE = "strangers.json"
ASKING = 6000  # faces at most
LEAST_PEOPLE = 20  # fewer tell too little
STALE = 0.1  # of the faces: so many may come or go before the faces ask again


def find_threshold(
    truth: Truth, encoder: Encoder | None, fpir: float | None, far: float | None, threshold: float | None, where: Where
) -> SearchThreshold:
    """Return the threshold of a search; see :meth:`facenet.gallery.gallery.Gallery.threshold`."""
    fingerprint = encoder.fingerprint if encoder else truth.encoders.first() or ""
    truth.encoders.check(fingerprint or None, encoder.compatible_with if encoder else ())
    numbers = truth.items.matching(where)
    faces = {name: truth.items.count_of_encoder(number, numbers) for name, number in truth.encoders.numbers().items()}
    tails = {} if encoder is None else {name: tail_of(known) for name, known in encoder.with_older.items() if known}
    if encoder is not None and encoder.thresholds:
        tails[fingerprint] = tail_of(encoder.thresholds)
    if far is not None and encoder is not None:
        encoder.threshold(far)  # refuses a rate that was not calibrated
    own = own_people(truth, fingerprint)
    return search_threshold(faces, fingerprint, tails, own, fpir=fpir, far=far, threshold=threshold)


def own_people(truth: Truth, fingerprint: str) -> OwnPeople | None:
    """Return what the labelled faces of one encoder tell; None for fewer than 20 people. Inside a read transaction."""
    dim = truth.encoders.dim()
    if dim is None or truth.items.count_identities() < LEAST_PEOPLE:
        return None
    last = truth.writes.last()
    kept = _read(truth, fingerprint)
    if kept is not None and (
        kept["token"] == last.token or abs(last.items - kept["items"]) <= STALE * min(last.items, kept["items"])
    ):
        return kept["own"]
    found = _ask(truth, fingerprint, dim)
    if found is not None:
        content = {
            "fingerprint": fingerprint,
            "token": last.token,
            "items": last.items,
            "faces": found.faces,
            "people": found.people,
            "by_person": found.by_person.plain(),
            "by_face": found.by_face.plain(),
            "right": None if found.right is None else found.right.plain(),
        }
        with contextlib.suppress(DataError, OSError):  # a gallery that may only be read
            write_sealed(truth.folder / FILE, content)
    return found


def _read(truth: Truth, fingerprint: str) -> dict[str, Any] | None:
    """Return the cached content, with its answers as `own`; None if there is none that can be used."""
    path = truth.folder / FILE
    if not path.is_file():
        return None
    try:
        content = read_sealed(path)
        content["own"] = _from_plain(content)
    except (DataError, KeyError, TypeError, ValueError):
        return None
    return content if content["fingerprint"] == fingerprint else None


def _from_plain(content: dict[str, Any]) -> OwnPeople:
    right = None if content["right"] is None else Tail.from_plain(content["right"])
    by_person, by_face = (Tail.from_plain(content[name]) for name in ("by_person", "by_face"))
    return OwnPeople(by_person, by_face, right, int(content["faces"]), int(content["people"]))


def _ask(truth: Truth, fingerprint: str, dim: int) -> OwnPeople | None:
    """Compare up to 6,000 faces, drawn at random and the same each time, with all labelled faces of the encoder."""
    codes: dict[str, int] = {}
    parts = [[codes.setdefault(name, len(codes)) for name in names] for _, names in _labelled(truth, fingerprint, dim)]
    if len(codes) < LEAST_PEOPLE:
        return None
    people = np.concatenate([np.array(part, np.int64) for part in parts])
    rows = np.sort(np.random.default_rng(0).permutation(len(people))[:ASKING])
    probes = np.concatenate(
        [vectors[_within(rows, start, vectors)] for start, vectors in _placed(truth, fingerprint, dim)]
    )
    blocks = ((vectors, people[start : start + len(vectors)]) for start, vectors in _placed(truth, fingerprint, dim))
    asking = people[rows]
    other, mate = nearest_of_others(probes, asking, blocks, rows)
    weights = 1 / np.bincount(asking)[asking]
    tails = fit_tail(other, weights), fit_tail(other, np.ones(len(rows)))
    return OwnPeople(*tails, _right(other, mate, weights), len(people), len(np.unique(asking)))


def _placed(truth: Truth, fingerprint: str, dim: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the place of a block among the labelled faces, and its vectors (n, D)."""
    start = 0
    for vectors, _ in _labelled(truth, fingerprint, dim):
        yield start, vectors
        start += len(vectors)


def _within(rows: np.ndarray, start: int, vectors: np.ndarray) -> np.ndarray:
    """Return the places in a block of those of the sorted rows that lie in it."""
    return rows[(rows >= start) & (rows < start + len(vectors))] - start


def _labelled(truth: Truth, fingerprint: str, dim: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield vectors (n, D) and identities of the labelled faces of an encoder, block by block."""
    for items, vectors in truth.items.blocks(dim):
        mine = [row for row, item in enumerate(items) if item.identity and item.fingerprint == fingerprint]
        yield vectors[mine], [items[row].identity for row in mine]


def _right(other: np.ndarray, mate: np.ndarray, weights: np.ndarray) -> Tail | None:
    """Return the shares of people, of those with two faces, whose nearest face is their own and within a distance."""
    able = np.isfinite(mate)
    right = able & (mate < other)
    if not right.any():
        return None
    order = np.argsort(mate[right], kind="stable")
    shares = np.cumsum(weights[right][order]) / weights[able].sum()
    places = np.unique(np.linspace(0, len(order) - 1, 100).astype(int))
    sq_dists = mate[right][order][places]
    return Tail(tuple(shares[places].tolist()), tuple(map(float, sq_dists)), 0.0, 0.0, float(shares[0]))
