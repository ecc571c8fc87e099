"""Robustness: an encoder on verification pairs whose images were made worse by known amounts.

A change acts on the decoded and cropped face before it is resized for the network, as a worse camera, a smaller file or
a covered face would. Each level is scored like any verification, with thresholds of its own.
Letters: N images, h w sides of a cropped face in pixels, V changes (kinds and levels together).
Source: Schroff et al. 2015, Table 4. The paper leaves open which images of a pair were changed and how they were
shrunk: here both of a pair (`sides`), by antialiased bilinear resizing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from facenet.data.degradations import KINDS, Degraded
from facenet.data.records import Records
from facenet.encoders.embedding import embed_changed
from facenet.encoders.encoder import Encoder
from facenet.errors import ConfigError, choose
from facenet.evaluation.verification import FARS, far_name, verify_embeddings
from facenet.types import EmbeddingSet, Pairs

FAR = 1e-3
SCORES = ("accuracy", "sem", "auc", "eer", "val_at_far")
SIDES = {"both": "both images of a pair are changed", "first": "the first image of a pair is changed"}


def degrade(
    encoder: Encoder,
    faces: Records,
    pairs: Pairs,
    changes: Sequence[Degraded],
    *,
    sides: str = "both",
    far: float = FAR,
    allow_missing: bool = False,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Verify `pairs` on the faces as they are and after each change; every image is decoded once.

    Returns ``clean`` and ``degrade`` {kind: {level: scores}} with the scores accuracy, sem, auc, eer and val_at_far of
    :func:`verify_pairs`, and ``unchanged``, the share of the images that the change left as they are.

    Args:
        encoder: Any.
        faces: The images that the pairs name.
        pairs: What is scored.
        changes: See :func:`facenet.data.degradations.plan`.
        sides: "both", or "first": the second image of a pair stays as it is, like the pictures of a gallery.
        far: False accept rate to give VAL at, beside the usual ones.
        allow_missing: Leave pairs with an unreadable image out instead of failing.
        batch_size: Images that pass through the network together.
        progress: Called with (done, total) images.

    Raises:
        ConfigError: an unknown `sides`, or a `far` outside (0, 1].
        DataError: as :func:`facenet.evaluation.verification.verify_embeddings`.
    """
    choose(SIDES, sides, "sides")
    if not 0 < far <= 1:
        raise ConfigError(f"far: expected a false accept rate in (0, 1], got {far:g}")
    fars = sorted({*FARS, far}, reverse=True)
    (clean, *sets), kept = embed_changed(encoder, faces, (None, *changes), batch_size=batch_size, progress=progress)
    untouched = verify_embeddings(clean, pairs, allow_missing=allow_missing, fars=fars).metrics()
    rows: dict[str, dict[str, Any]] = {}
    for change, changed in zip(changes, sets, strict=True):
        shown = _one_sided(changed, clean, pairs) if sides == "first" else (changed, pairs)
        found = verify_embeddings(*shown, allow_missing=allow_missing, fars=fars).metrics()
        scores = {name: found[name] for name in SCORES} | {"unchanged": len(change.unchanged) / len(kept)}
        rows.setdefault(change.kind, {})[level_name(change.level)] = scores
    counts = {name: untouched[name] for name in ("pairs", "same", "different", "skipped")}
    seen = {"sides": sides, "images": len(kept), **counts}
    return {"clean": {name: untouched[name] for name in SCORES}, "degrade": rows, **seen}


def _one_sided(changed: EmbeddingSet, clean: EmbeddingSet, pairs: Pairs) -> tuple[EmbeddingSet, Pairs]:
    """Join both sets into one, and let the second image of each pair be the one that was not changed."""
    vectors = np.concatenate([changed.vectors, clean.vectors])
    paths = [*(f"changed/{path}" for path in changed.paths), *(f"clean/{path}" for path in clean.paths)]
    both = EmbeddingSet(vectors, paths, [*changed.identities, *clean.identities], clean.fingerprint)
    first, second = (tuple(f"changed/{key}" for key in pairs.first), tuple(f"clean/{key}" for key in pairs.second))
    return both, Pairs(first, second, pairs.same, pairs.fold)


def level_name(level: float) -> str:
    """Name a level in ``metrics.json``, without a dot (see :func:`facenet.evaluation.roc.far_name`); float() reads it.

    >>> level_name(65536), level_name(-4), level_name(0.5)
    ('65536', '-4', '5e-1')
    """
    return str(int(level)) if level == int(level) else far_name(level)


def val_shown(scores: Mapping[str, Any], far: float = FAR) -> tuple[str, Mapping[str, Any]] | None:
    """Return the name and the entry of the smallest FAR, `far` or above, at which VAL is resolvable; None without."""
    rates = {float(name): (name, entry) for name, entry in scores["val_at_far"].items() if entry["resolvable"]}
    return rates[min(kept)] if (kept := [rate for rate in rates if rate >= far]) else None


def table_rows(metrics: Mapping[str, Any], far: float = FAR) -> tuple[list[str], list[list[str]], list[str]]:
    """Lay out what :func:`degrade` returned: column names, a row for each level, and lines on how to read them."""
    clean = val_shown(metrics["clean"], far)
    name = clean[0] if clean else far_name(far)
    header = ["change", "level", "accuracy +- SEM", "AUC", "EER", f"VAL at FAR {name}", "95 %", "paper", "as it was"]
    rows = [["none", "", *_cells(metrics["clean"], far), "", ""]]
    for kind, levels in metrics["degrade"].items():
        paper = {level_name(level): f"{value:.3f}" for level, value in KINDS[kind].paper.items()}
        for level, scores in levels.items():
            share = f"{scores['unchanged']:.0%}" if scores["unchanged"] else ""
            rows.append([kind, f"{float(level):.10g}", *_cells(scores, far), paper.get(level, ""), share])
    notes = [
        f"{SIDES[metrics['sides']]}; thresholds are chosen anew at each level",
        f"levels: {'; '.join(f'{kind}: {KINDS[kind].unit}' for kind in metrics['degrade'])}",
    ]
    if not clean or float(name) != far:
        least = f"at least {math.ceil(1 / far)} different pairs, and there are {metrics['different']}"
        notes.append(f"VAL at FAR {far_name(far)} can not be resolved: it takes {least}")
    if any(KINDS[kind].paper for kind in metrics["degrade"]):
        notes.append(
            "paper: VAL at FAR 1e-3 in Table 4 of Schroff et al. 2015: NN1 on a private hold-out set, other data"
        )
    if any(row[-1] for row in rows):
        notes.append("as it was: share of the images with no more pixels than the level; they are not enlarged")
    return header, rows, notes


def _cells(scores: Mapping[str, Any], far: float) -> list[str]:
    found = val_shown(scores, far)
    val = [f"{found[1]['val']:.4f}", f"{found[1]['low']:.4f} to {found[1]['high']:.4f}"] if found else ["-", ""]
    return [f"{scores['accuracy']:.4f} +- {scores['sem']:.4f}", f"{scores['auc']:.4f}", f"{scores['eer']:.4f}", *val]
