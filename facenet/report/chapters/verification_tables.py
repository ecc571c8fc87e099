"""The tables of a verification; a table is None if its metrics are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facenet.report.chapters.verdict import BASELINES, LEAKS
from facenet.report.page import Table
from facenet.report.parts import Evaluation
from facenet.report.runs import Run
from facenet.report.values import get_mapping, get_rows, get_value, number, percent, plain, plus_minus, short


def far_table(found: Mapping[str, Any]) -> Table | None:
    """Return VAL at each FAR with its interval, or "not resolvable"."""
    rows = []
    for far, row in get_rows(found, "val_at_far"):
        cells = (percent(row.get("val")), _interval(row), plain(row.get("threshold")))
        if row.get("val") is None:
            cells = ("not resolvable", "", "")
        rows.append((far, *cells, plain(row.get("negatives"))))
    header = ("FAR", "VAL", "95 % interval", "threshold", "different pairs")
    caption = (
        "VAL: same pairs accepted when at most the share FAR of the different pairs is. Wilson intervals; not"
        " resolvable: fewer different pairs than 1 / FAR."
    )
    return Table(header, rows, caption) if rows else None


def _interval(row: Mapping[str, Any]) -> str:
    return f"{percent(row.get('low'))} to {percent(row.get('high'))}"


def fold_table(found: Mapping[str, Any]) -> Table | None:
    """Return accuracy and threshold of each fold, with mean and standard deviation."""
    folds, thresholds = found.get("folds"), found.get("thresholds")
    if not isinstance(folds, list) or not folds:
        return None
    marks = thresholds if isinstance(thresholds, list) and len(thresholds) == len(folds) else [None] * len(folds)
    rows = [
        (str(place), percent(accuracy, 2), plain(mark))
        for place, (accuracy, mark) in enumerate(zip(folds, marks, strict=True), 1)
    ]
    mean = plus_minus(found.get("accuracy"), found.get("sem"), 2)
    rows.append(("mean ± standard error", mean, plain(found.get("threshold"))))
    rows.append(("standard deviation", percent(found.get("std"), 2), ""))
    return Table(("fold", "accuracy", "threshold"), rows, "The threshold of a fold is chosen on the other folds.")


def baseline_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return the encoder beside the baselines on the same pairs."""
    rows = [
        (text, percent(get_value(metrics, key, "accuracy")), plain(get_value(metrics, key, "auc")))
        for key, text in BASELINES.items()
        if isinstance(metrics.get(key), Mapping)
    ]
    ours = metrics["verification"]
    mine = ("this encoder", percent(ours.get("accuracy")), plain(ours.get("auc")))
    caption = "Baselines: what is reached on the same pairs without learning, or before it."
    return Table(("", "accuracy", "AUC"), [mine, *rows], caption) if rows else None


def quantised_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return the scores of 8-bit and product-quantised embeddings beside the float ones."""
    quantised = get_rows(metrics, "quantised")
    if not quantised:
        return None
    size = next((row["float_bytes_per_face"] for _, row in quantised if "float_bytes_per_face" in row), None)
    mine = {**metrics["verification"], "bytes_per_face": size}
    rows = [
        (
            short(name),
            plain(row.get("bytes_per_face")),
            plus_minus(row.get("accuracy"), row.get("sem")),
            plain(row.get("auc")),
            percent(row.get("eer"), 2),
        )
        for name, row in [("float", mine), *quantised]
    ]
    return Table(("embedding", "bytes a face", "accuracy", "AUC", "EER"), rows)


def identification_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return one-to-many identification: the right person among the k nearest, mAP, and TPIR at FPIR."""
    if not isinstance(metrics.get("identification"), Mapping):
        return None
    found = metrics["identification"]
    shares = get_mapping(found, "cmc") or {"1": found.get("rank1")}
    rows = [(f"right person among the {short(k, 10)} nearest", percent(share), "") for k, share in shares.items()]
    rows.append(("mean average precision", percent(found.get("map")), ""))
    for fpir, row in get_rows(found, "tpir_at_fpir"):
        value = "not resolvable" if number(row.get("tpir")) is None else percent(row.get("tpir"))
        interval = _interval(row) if number(row.get("low")) is not None else ""
        rows.append((f"found, with strangers, at FPIR {short(fpir, 10)}", value, interval))
    counts = {"gallery": "faces", "people": "people enrolled", "probes": "probes", "strangers": "strangers"}
    caption = ", ".join(f"{plain(found[key])} {text}" for key, text in counts.items() if key in found)
    return Table(("one against many", "share", "95 % interval"), rows, caption)


def fact_table(run: Run, encoder: Mapping[str, Any] | None, evaluation: Evaluation | None) -> Table:
    """Return the table of facts: encoder, training, data, leakage."""
    dim, sizes = get_value(encoder, "embedding_dim"), get_value(encoder, "preprocessing", "size")
    rows: list[tuple[str, Any]] = [
        ("run folder", short(run.folder, 120)),
        ("network", get_value(encoder, "model", "name")),
        ("input", " x ".join(map(str, sizes)) + " pixels" if isinstance(sizes, list) else None),
        ("central crop", percent(get_value(encoder, "preprocessing", "crop"))),
        ("embedding", None if number(dim) is None else f"{plain(dim)} dimensions"),
        ("norm", get_value(encoder, "model", "options", "norm")),
        ("fingerprint", str(get_value(encoder, "fingerprint") or "")[:16]),
        ("loss", get_value(encoder, "training", "loss", "name")),
        ("training data", get_value(encoder, "training", "data")),
        ("seed", plain(get_value(encoder, "training", "seed"))),
        ("training faces, people", _two(run, "images", "identities")),
        ("faces seen, steps", _two(run, "faces_seen", "steps")),
        ("faces per second", plain(get_value(run.metrics, "train", "images_per_second"))),
        ("held-out people", plain(get_value(run.metrics, "held_out", "identities"))),
        ("held-out accuracy", percent(get_value(run.metrics, "held_out", "accuracy"))),
        ("seconds", plain(get_value(run.metrics, "seconds"))),
        ("leakage", leakage_line(run.metrics)),
    ]
    if evaluation is not None:
        people = len(set(evaluation.embeddings.identities) - {""})
        rows.insert(-1, ("reported faces, people", f"{len(evaluation.embeddings):,}, {people:,}"))
    return Table((), [(name, str(value)) for name, value in rows if value not in (None, "", "-")], facts=True)


def leakage_line(metrics: Mapping[str, Any]) -> str:
    """Return a line on what training and reported faces share, and on what is not known."""
    if not isinstance(metrics.get("leakage"), Mapping):
        return "not checked in this run"
    counts = {text[0]: number(get_value(metrics, "leakage", key)) for key, text in LEAKS.items()}
    return "; ".join(f"{text}: {'not known' if count is None else plain(count)}" for text, count in counts.items())


def _two(run: Run, first: str, second: str) -> str | None:
    values = [get_value(run.metrics, "train", key) for key in (first, second)]
    return None if number(values[0]) is None else ", ".join(map(plain, values))
