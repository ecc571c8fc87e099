"""What a gallery's own labelled faces tell about strangers and members: the base of its threshold.

Each of some faces asks the gallery as a stranger would: the faces of its own person are left out. It also asks as a
member would: it alone is left out. If people answer by their mean face, the faces ask the means. A folder keeps the
answers in ``strangers.json`` and ``strangers_mean.json``, caches like ``index.faiss``.
Letters: N faces, Q faces that ask, M means, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facenet.errors import DataError, choose
from facenet.evaluation.strangers import OwnPeople, Tail, fit_tail, nearest_of_others, tail_of
from facenet.evaluation.thresholds import SearchThreshold, search_threshold
from facenet.gallery.editing import renamed
from facenet.gallery.engines.engine import Engine
from facenet.gallery.people import MEAN, NEAREST, Means, People, groups, mean_faces, read_people, vectors_of
from facenet.vectors import normalise

if TYPE_CHECKING:
    from facenet.encoders.encoder import Encoder
    from facenet.gallery.items import Where

NAMES = {NEAREST: "strangers", MEAN: "strangers_mean"}  # under which the answers stay
ASKING = 6000  # faces at most
LEAST_PEOPLE = 20  # fewer tell too little
STALE = 0.1  # of the faces: so many may come, go or change their names before the faces ask again
COUNTED = ("items", "labelled", "renamed")


def find_threshold(
    engine: Engine, encoder: Encoder | None, rates: Mapping[str, float | None], where: Where, identity_by: str
) -> SearchThreshold:
    """Return the threshold of a search; see :meth:`facenet.gallery.gallery.Gallery.threshold`.

    Inside a read transaction. What is counted and read for it is kept until the next write.
    """
    fingerprint = encoder.fingerprint if encoder else engine.first() or ""
    engine.check(fingerprint or None, encoder.compatible_with if encoder else ())
    admitted = engine.admitted(where)
    faces = _compared(engine, admitted, by_mean=choose({NEAREST: False, MEAN: True}, identity_by, "identity_by"))
    tails = {} if encoder is None else {name: tail_of(known) for name, known in encoder.with_older.items() if known}
    if encoder is not None and encoder.thresholds:
        tails[fingerprint] = tail_of(encoder.thresholds)
    far = rates.get("far")
    if far is not None and encoder is not None:
        encoder.threshold(far)  # refuses a rate that was not calibrated
    asked = (fingerprint, identity_by)
    own = engine.kept(("own people", *asked), lambda: _own_people(engine, *asked))
    found = search_threshold(faces, fingerprint, tails, own, **rates)
    foreign = identity_by == MEAN and own is None and found.kind != "threshold"
    return replace(found, source=f"{found.source}, of single faces, not of means") if foreign else found


def _compared(engine: Engine, admitted: Any, *, by_mean: bool) -> dict[str, int]:
    """Return how many faces, or means, a query is compared with, by the fingerprint of their encoder."""
    known = engine.encoders()
    if by_mean:
        if admitted is None:
            return engine.kept("means of encoders", lambda: _means_of(known, read_people(engine)))
        return _means_of(known, read_people(engine, admitted))
    counts = engine.counts(admitted)
    return {name: counts.get(number, 0) for name, number in known.items()}


def _means_of(known: Mapping[str, int], who: People) -> dict[str, int]:
    """Return how many means each encoder has, by its fingerprint."""
    encoders = who.encoders[groups(who)[0]]
    return {name: int((encoders == number).sum()) for name, number in known.items()}


def _own_people(engine: Engine, fingerprint: str, identity_by: str) -> OwnPeople | None:
    """Return what the labelled faces of one encoder tell; None for fewer than 20 people.

    People answer by their nearest face or by their mean, as `identity_by` says.
    """
    if engine.dim() is None or engine.count_identities(LEAST_PEOPLE) < LEAST_PEOPLE:
        return None
    last, number = engine.state(), engine.encoders().get(fingerprint, 0)
    items = engine.counts().get(number, 0)  # a backfill leaves the number of all as it is
    now = {"items": items, "labelled": last.items - engine.count_unknown(), "renamed": renamed(engine)}
    kept = _read(engine.remembered(NAMES[identity_by]), fingerprint)
    if kept is not None and (kept["token"] == last.token or not _stale(kept, now)):
        return kept["own"]
    found = _ask(engine, fingerprint, identity_by)
    if found is not None:
        content = {"fingerprint": fingerprint, "token": last.token, **now, **found.plain()}
        engine.remember(NAMES[identity_by], content)
    return found


def _read(content: dict[str, Any] | None, fingerprint: str) -> dict[str, Any] | None:
    """Return the cached content, with its answers as `own`; None if there is none that can be used."""
    if content is None:
        return None
    try:
        content["own"] = OwnPeople.from_plain(content)
        content |= {name: int(content[name]) for name in COUNTED}
    except (DataError, KeyError, TypeError, ValueError):
        return None
    return content if content["fingerprint"] == fingerprint else None


def _stale(kept: Mapping[str, Any], now: Mapping[str, int]) -> bool:
    """Tell whether so many faces came, went or changed their names that the faces must ask again."""
    least = {name: min(kept[name], now[name]) for name in ("items", "labelled")}
    least["renamed"] = least["labelled"]
    return any(abs(now[name] - kept[name]) > STALE * least[name] for name in COUNTED)


def _ask(engine: Engine, fingerprint: str, identity_by: str) -> OwnPeople | None:
    """Compare up to 6,000 faces, drawn at random and the same each time, with all labelled faces of the encoder.

    The vectors of the gallery are read once.
    """
    who = read_people(engine)
    who = who.part(who.named & (who.encoders == engine.encoders().get(fingerprint, -1)))
    if len(np.unique(who.people)) < LEAST_PEOPLE:
        return None
    rows = np.sort(np.random.default_rng(0).permutation(len(who.people))[:ASKING])
    probes, asking = engine.vectors(who.numbers[rows]), who.people[rows]
    if identity_by == MEAN:
        means = mean_faces(engine, who)
        other, _ = nearest_of_others(probes, asking, [(means.vectors, means.people)], np.full(len(rows), -1))
        mate, count = _rest(probes, means, np.searchsorted(means.people, asking)), len(means.rows)
    else:
        blocks = ((vectors, who.people[places]) for places, vectors in vectors_of(engine, who))
        other, mate = nearest_of_others(probes, asking, blocks, rows)
        count = len(who.people)
    weights = 1 / np.bincount(asking)[asking]
    tails = fit_tail(other, weights), fit_tail(other, np.ones(len(rows)))
    return OwnPeople(*tails, _right(other, mate, weights), count, len(np.unique(asking)))


def _rest(probes: np.ndarray, means: Means, own: np.ndarray) -> np.ndarray:
    """Return the sq_dist of each probe (Q, D) to the mean of its person's other faces (Q,); inf without any."""
    sq_dist = np.maximum(2 - 2 * (probes * normalise(means.sums[own] - probes)).sum(1), 0)
    return np.where(means.counts[own] > 1, sq_dist, np.inf)


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
