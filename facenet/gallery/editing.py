"""Items come into a gallery, get other names and go: what is checked, and what happens to an id that is there already.

Letters: N items, D embedding width.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.errors import ConfigError, DataError, NotThere, Taken, choose
from facenet.files import is_inside
from facenet.gallery.engines.engine import Engine
from facenet.gallery.items import AddResult, Texts, listed
from facenet.types import EmbeddingSet
from facenet.vectors import unit_rows

ONCE = "once:"  # begins the keys of settings that hold what named adds did
FORGOTTEN = 24 * 3600.0  # seconds after which the name of an add is free again
SAME = 1e-2  # by which the projections of the same vectors may differ
DEEPEST = 32  # levels of lists and objects in an item's metadata
RENAMED = "renamed"  # the setting that counts renamed items


def add_items(
    engine: Engine,
    embeddings: EmbeddingSet,
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
    on_duplicate: str,
    once: str,
) -> AddResult:
    """Add N items in one transaction; see :meth:`facenet.gallery.gallery.Gallery.add`."""
    choose(dict.fromkeys(("error", "skip", "replace")), on_duplicate, "on_duplicate")
    vectors = unit_rows(embeddings.vectors, "embeddings", names=embeddings.paths)
    ids, extra = paired(embeddings, ids, metadata)
    texts = checked_texts(embeddings, ids, extra)
    keep = distinct(ids, on_duplicate)
    with engine.writing():
        content = _content(embeddings.fingerprint, texts, vectors) if once else {}
        known = _known(engine, once, content) if once else None
        if known and known["result"]:
            return AddResult(*known["result"])
        encoder = engine.admit(embeddings.fingerprint, embeddings.compatible_with, embeddings.dim)
        rows = [(texts[i], vectors[i]) for i in keep]
        if once and not known and not engine.transactions:
            if on_duplicate == "error" and (taken := engine.numbers_of_ids([ids[i] for i in keep])):
                raise engine.taken(list(taken))
            _remember(engine, once, content, None)
        # What was begun and cut has left faces of its own, which are no duplicates.
        how = "skip" if known and on_duplicate == "error" else on_duplicate
        result = engine.add(rows, encoder, embeddings.fingerprint, how)
        result = result._replace(skipped=result.skipped + len(ids) - len(keep))
        if known:
            result = AddResult(len(rows) if on_duplicate == "error" else result.added, result.replaced, 0)
        if once:
            _remember(engine, once, content, result)
    return result


def _remember(engine: Engine, once: str, content: Mapping[str, Any], result: AddResult | None) -> None:
    """Store what the add of that name did; without transactions None before it is begun."""
    engine.put_setting(_key(once), json.dumps({**content, "result": result, "time": time.time()}))


def _key(once: str) -> str:
    """Return the key of the setting that holds what the add of that name did."""
    return ONCE + hashlib.sha256(once.encode()).hexdigest()


def _content(fingerprint: str, texts: Sequence[Texts], vectors: np.ndarray) -> dict[str, Any]:
    """Return what tells whether two adds have the same content: a digest of the texts, and marks of vectors (N, D).

    Paths and roots are no content: they say where a picture lies now. Vectors that were computed twice differ in their
    last bits. So the marks are 8 projections that are compared with a tolerance.
    """
    rng = np.random.default_rng(0)
    names = [(name, identity, metadata) for name, identity, _, _, metadata in texts]
    marks = rng.normal(size=len(vectors)) @ vectors @ rng.normal(size=(vectors.shape[1], 8))
    digest = hashlib.sha256(json.dumps([fingerprint, names]).encode()).hexdigest()
    return {"digest": digest, "marks": marks.tolist()}


def _known(engine: Engine, once: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the add of that name did in the last 24 hours, or None. Older ones are forgotten.

    Its "result" is None if it was begun and cut.

    Raises:
        Taken: it had other content.
    """
    engine.hold(_key(once))
    engine.forget_settings(ONCE, time.time() - FORGOTTEN)
    stored = engine.setting(_key(once))
    if stored is None:
        return None
    try:
        known = json.loads(stored)
        same = known["digest"] == content["digest"] and np.allclose(known["marks"], content["marks"], atol=SAME)
        known["result"] = known["result"] and AddResult(*map(int, known["result"]))
    except (KeyError, TypeError, ValueError) as error:
        raise engine.damaged("what an add did once") from error
    if not same:
        raise Taken(f"{engine.place}: once= is the name of an earlier add of other content; take another name")
    return dict(known)


def remove_items(engine: Engine, names: str | Iterable[str], by: str) -> int:
    """Remove items in one transaction; see :meth:`facenet.gallery.gallery.Gallery.remove`."""
    with engine.writing():
        return engine.remove(_named(engine, names, by, "removed"))


def rename_items(engine: Engine, names: str | Iterable[str], identity: str, by: str) -> int:
    """Give items an identity in one transaction; see :meth:`facenet.gallery.gallery.Gallery.rename`.

    The setting `RENAMED` counts all items that were ever renamed.
    """
    try:
        identity.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise DataError(f"{engine.place}: {identity!r} is no storable identity ({error})") from error
    with engine.writing():
        count = engine.rename(_named(engine, names, by, "renamed"), identity)
        if count:
            engine.hold(RENAMED)
            engine.put_setting(RENAMED, str(renamed(engine) + count))
    return count


def find_numbers(engine: Engine, names: Iterable[str], by: str) -> list[int]:
    """Return the numbers of the items whose id or identity is among the names; see ``Gallery.find``."""
    _check_by(by)
    found = set(engine.numbers_of_ids(list(names)).values()) if by != "identity" else set()
    if by != "id":
        found.update(number for name in names if name for number in engine.numbers_of_identity(name))
    return sorted(found)


def renamed(engine: Engine) -> int:
    """Return how many items were ever renamed."""
    found = engine.setting(RENAMED) or "0"
    if not str(found).isdecimal():
        raise engine.damaged("how many items were renamed")
    return int(found)


def _named(engine: Engine, names: str | Iterable[str], by: str, done: str) -> list[int]:
    """Return the numbers of the items of ids or identities.

    Raises:
        DataError: a name that is neither, or with by="any" both. The message says that nothing was `done`.
        ConfigError: unknown `by`.
    """
    _check_by(by)
    numbers: set[int] = set()
    for name in [names] if isinstance(names, str) else names:
        items = list(engine.numbers_of_ids([name]).values()) if by != "identity" else []
        people = engine.numbers_of_identity(name) if by != "id" else []
        if items and people and items != people:
            raise DataError(f"{engine.place}: {name!r} is an id and an identity; say which (by=id or identity)")
        if not items and not people:
            what = "id or identity" if by == "any" else by
            raise NotThere(f"{engine.place}: no {what} {name!r} in the gallery; nothing was {done}")
        numbers.update(items, people)
    return sorted(numbers)


def _check_by(by: str) -> None:
    if by not in ("any", "id", "identity"):
        raise ConfigError(f"by: expected any, id or identity, got {by!r}")


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON text that anybody can read again.

    Raises:
        ValueError, TypeError: no JSON, characters that UTF-8 does not have, or more than 32 levels.
    """
    text = json.dumps(dict(metadata), sort_keys=True, allow_nan=False, ensure_ascii=False)
    text.encode()
    if depth(metadata) > DEEPEST:
        raise ValueError(f"metadata of more than {DEEPEST} levels")
    return text if text.isascii() else json.dumps(dict(metadata), sort_keys=True)


def depth(value: Any) -> int:
    """Return how many levels of lists and objects a value of JSON has.

    >>> depth({"doors": [1, 2]}), depth("door")
    (2, 0)
    """
    count, level = 0, [value]
    while level := [one for one in level if isinstance(one, Mapping | list | tuple)]:
        count += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, Mapping) else one)]
    return count


def paired(
    embeddings: EmbeddingSet, ids: Sequence[str] | None, metadata: Sequence[Mapping[str, Any]] | None
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return an id and metadata for each of N items; the ids default to the paths.

    Raises:
        DataError: more or fewer of them than vectors.
    """
    count = len(embeddings)
    names = list(embeddings.paths if ids is None else ids)
    extra: list[Mapping[str, Any]] = [{}] * count if metadata is None else list(metadata)
    if len(names) != count or len(extra) != count:
        raise DataError(f"embeddings: {len(names)} ids and {len(extra)} metadata for {count} vectors")
    return names, extra


def checked_texts(embeddings: EmbeddingSet, ids: Sequence[str], extra: Sequence[Mapping[str, Any]]) -> list[Texts]:
    """Return the checked text columns of N items."""
    rows = []
    for name, identity, path, more in zip(ids, embeddings.identities, embeddings.paths, extra, strict=True):
        try:
            row = (name, identity, path, embeddings.root, metadata_text(more))
            "".join(row).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"embeddings: {name!r} has no storable id, identity, path or metadata ({error})") from error
        if path and not is_inside(path):
            raise DataError(f"embeddings: the path {path[:80]!r} leads outside its root; use paths below it")
        if not name:
            raise DataError(f"embeddings: an empty id (path {path!r}); every item needs one")
        rows.append(row)
    return rows


def distinct(ids: Sequence[str], on_duplicate: str) -> list[int]:
    """Return the places that stay if an id comes twice: the first or, with "replace", the last; "error" raises."""
    place: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for i, name in enumerate(ids):
        if name in place:
            repeated[name] = None
        if name not in place or on_duplicate == "replace":
            place[name] = i
    if repeated and on_duplicate == "error":
        raise Taken(
            f"embeddings: {listed(list(repeated))} given twice; nothing was added (on_duplicate=skip or replace)"
        )
    return sorted(place.values())
