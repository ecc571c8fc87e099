"""What a report says in words and tables about one run: the verdict in a line, what to beware of, the facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from facenet.report.page import Table
from facenet.report.runs import Evaluation, Run, dig, number

BASELINES = {  # what no learning reaches on the same pairs, as scripts/verify.py baselines=true names it
    "pixel_baseline": "grey pixels",
    "color_baseline": "colour histogram",
    "pca_baseline": "PCA",
    "untrained": "the same net untrained",
}
LEAKS = {  # key of facenet.evaluation.leakage -> what is counted, and what it means when it is not 0
    "shared_people": ("people trained on", "reported people were trained on: the score is too good."),
    "shared_held_out": ("people who chose the checkpoint", "reported people chose the checkpoint and the thresholds."),
    "train_near_duplicates": (
        "near-duplicates of training faces",
        "pairs of a reported and a training face are one photograph.",
    ),
    "near_duplicates": (
        "near-duplicates under two names",
        "pairs of reported faces of two people are nearly one photograph.",
    ),
}
FEW = 10  # different pairs that a VAL at a FAR should rest on at least
LONGEST = 60  # characters of a name in a table


def percent(value: Any, digits: int = 1) -> str:
    """Write a fraction as per cent; what is none of [0, 1] as it is, and what is no number as a dash.

    >>> percent(0.8904), percent(None), percent(7.5)
    ('89.0 %', '-', '7.5')
    """
    found = number(value)
    if found is None:
        return "-"
    return f"{100 * found:.{digits}f} %" if 0 <= found <= 1 else f"{found:.4g}"


def plain(value: Any) -> str:
    """Write a number with four significant digits, whole ones with thousands apart; a dash for what is no number.

    >>> plain(1234567), plain(0.123456), plain(float("nan")), plain(1e300)
    ('1,234,567', '0.1235', '-', '1e+300')
    """
    found = number(value)
    if found is None:
        return "-"
    return f"{int(found):,}" if found == int(found) and abs(found) < 1e15 else f"{found:.4g}"


def short(text: Any, longest: int = LONGEST) -> str:
    """Cut the middle out of a long text.

    >>> short("abcdefghij", 5)
    'ab…ij'
    """
    text = str(text)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def plus_minus(value: Any, error: Any) -> str:
    """Write a fraction with its standard error in per cent."""
    return percent(value) if number(error) is None else f"{percent(value)} ± {100 * float(error):.1f}"


def floor_of(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the best of the baselines on the same pairs, with its accuracy; None when none was measured."""
    found = {text: number(dig(metrics, key, "accuracy")) for key, text in BASELINES.items()}
    known = {text: value for text, value in found.items() if value is not None}
    best = max(known, key=lambda text: known[text], default=None)
    return None if best is None else (best, known[best])


def verdict(run: Run) -> str:
    """Say in a line how accurate the encoder is, on what, at which threshold, and against which floor."""
    found = run.metrics["verification"]
    accuracy, sem = number(found.get("accuracy")), number(found.get("sem"))
    folds = found.get("folds")
    if accuracy is None:
        return "The accuracy of this run is not a number: it says nothing about the encoder."
    text = f"Right on {percent(accuracy)} of {plain(found.get('pairs'))} pairs of faces"
    if sem is not None:
        count = f" over {len(folds)} folds" if isinstance(folds, list) else ""
        text = f"Right on {plus_minus(accuracy, sem)} (standard error{count}) of {plain(found.get('pairs'))} pairs"
        text += " of faces"
    text += f" ({plain(found.get('same'))} of one person, {plain(found.get('different'))} of two)"
    if number(found.get("threshold")) is not None:
        text += f", taking two faces for one person up to a squared distance of {plain(found.get('threshold'))}"
    floor = floor_of(run.metrics)
    if floor is None:
        return f"{text}."
    gain = 100 * (accuracy - floor[1])
    side = "above" if gain >= 0 else "below"
    text += f". That is {abs(gain):.1f} points {side} the best floor on these pairs, {floor[0]} ({percent(floor[1])})"
    return f"{text}."


def warnings(run: Run, encoder: Mapping[str, Any] | None) -> list[str]:
    """List what a reader must know before believing the numbers."""
    found = run.metrics["verification"]
    said = [*_about_fars(found), *_about_pairs(found), *_about_leakage(run.metrics)]
    floor, accuracy, sem = floor_of(run.metrics), number(found.get("accuracy")), number(found.get("sem"))
    if accuracy is None:
        said.insert(0, "The accuracy is missing or not a number.")
    elif floor is not None and accuracy <= floor[1]:
        said.insert(0, f"The accuracy is not above the floor: {floor[0]} reaches {percent(floor[1])} without learning.")
    elif floor is not None and accuracy - floor[1] < 2 * (sem or 0):
        said.insert(0, f"The accuracy is within two standard errors of the floor ({floor[0]}, {percent(floor[1])}).")
    if not (dig(run.metrics, "thresholds") or dig(encoder, "thresholds")):
        said.append("No threshold is calibrated for a false accept rate; scripts/verify.py calibrate=true does it.")
    skipped = number(dig(run.metrics, "train", "skipped"))
    if skipped:
        said.append(f"{plain(skipped)} training files could not be read (skipped.csv).")
    return said


def _about_fars(found: Mapping[str, Any]) -> list[str]:
    said, too_small = [], []
    for far, row in _rows(found.get("val_at_far")):
        share, negatives = rate(far), number(row.get("negatives"))
        if share is None or negatives is None:
            continue
        if row.get("resolvable") is False or row.get("val") is None:
            too_small.append((share, far, negatives))
        elif share * negatives < FEW:
            said.append(f"VAL at FAR {far} rests on {plain(int(share * negatives + 1e-9))} of the different pairs.")
    if too_small:
        share, far, negatives = max(too_small)
        below = " and below" if len(too_small) > 1 else ""
        said.append(
            f"VAL at FAR {far}{below} can not be resolved by {plain(negatives)} different pairs;"
            f" {far} needs {plain(math.ceil(1 / share - 1e-9))} at least."
        )
    return said


def _about_pairs(found: Mapping[str, Any]) -> list[str]:
    said = []
    for key, text in (
        ("skipped", "pairs were left out because an image was missing: the score is not that of the whole list."),
        ("duplicated", "pairs occur more than once: the intervals are too narrow."),
    ):
        count = number(found.get(key))
        if count:
            said.append(f"{plain(count)} {text}")
    folds = found.get("folds")
    if isinstance(folds, list) and len(folds) < 10:
        said.append(f"Only {len(folds)} folds: the standard error is itself uncertain.")
    return said


def _about_leakage(metrics: Mapping[str, Any]) -> list[str]:
    said = []
    for key, text in LEAKS.items():
        count = number(dig(metrics, "leakage", key))
        if count:
            said.append(f"{plain(count)} {text[1]}")
    return said


def far_table(found: Mapping[str, Any]) -> Table | None:
    """Return VAL at each FAR with its interval, or "not resolvable"."""
    rows = []
    for far, row in _rows(found.get("val_at_far")):
        cells = ("not resolvable", "", "") if row.get("val") is None else _far_cells(row)
        rows.append((far, *cells, plain(row.get("negatives"))))
    header = ("FAR", "VAL", "95 % interval", "threshold", "different pairs")
    caption = (
        "VAL: same pairs accepted when at most the share FAR of the different pairs is. Wilson intervals; not"
        " resolvable: fewer different pairs than 1 / FAR."
    )
    return Table(header, rows, caption) if rows else None


def _far_cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return (
        percent(row.get("val")),
        f"{percent(row.get('low'))} to {percent(row.get('high'))}",
        plain(row.get("threshold")),
    )


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
    rows.append(("mean ± standard error", _exact(found, "sem"), plain(found.get("threshold"))))
    rows.append(("standard deviation", percent(found.get("std"), 2), ""))
    return Table(("fold", "accuracy", "threshold"), rows, "The threshold of a fold is chosen on the other folds.")


def _exact(found: Mapping[str, Any], error: str) -> str:
    sem = number(found.get(error))
    return percent(found.get("accuracy"), 2) + ("" if sem is None else f" ± {100 * sem:.2f}")


def floor_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return the encoder beside the floors on the same pairs."""
    rows = [
        (text, percent(dig(metrics, key, "accuracy")), plain(dig(metrics, key, "auc")))
        for key, text in BASELINES.items()
        if isinstance(metrics.get(key), Mapping)
    ]
    ours = metrics["verification"]
    mine = ("this encoder", percent(ours.get("accuracy")), plain(ours.get("auc")))
    caption = "Floors: what is reached on the same pairs without learning, or before it."
    return Table(("", "accuracy", "AUC"), [mine, *rows], caption) if rows else None


def quantised_table(metrics: Mapping[str, Any]) -> Table | None:
    """Return the scores of 8-bit and product-quantised embeddings beside the float ones."""
    quantised = _rows(metrics.get("quantised"))
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
    found = metrics.get("identification")
    if not isinstance(found, Mapping):
        return None
    shares = found["cmc"] if isinstance(found.get("cmc"), Mapping) else {"1": found.get("rank1")}
    rows = [(f"right person among the {short(k, 10)} nearest", percent(share), "") for k, share in shares.items()]
    rows.append(("mean average precision", percent(found.get("map")), ""))
    for fpir, row in _rows(found.get("tpir_at_fpir")):
        value = "not resolvable" if number(row.get("tpir")) is None else percent(row.get("tpir"))
        interval = (
            f"{percent(row.get('low'))} to {percent(row.get('high'))}" if number(row.get("low")) is not None else ""
        )
        rows.append((f"found, with strangers, at FPIR {short(fpir, 10)}", value, interval))
    counts = {"gallery": "faces", "people": "people enrolled", "probes": "probes", "strangers": "strangers"}
    said = ", ".join(f"{plain(found[key])} {text}" for key, text in counts.items() if key in found)
    return Table(("one against many", "share", "95 % interval"), rows, said)


def fact_table(run: Run, encoder: Mapping[str, Any] | None, evaluation: Evaluation | None) -> Table:
    """Return what the numbers were measured with: encoder, training, data, leakage."""
    model, sizes = dig(encoder, "model", "options"), dig(encoder, "preprocessing", "size")
    rows: list[tuple[str, Any]] = [
        ("run folder", short(run.folder, 120)),
        ("network", dig(encoder, "model", "name")),
        ("input", " x ".join(map(str, sizes)) + " pixels" if isinstance(sizes, list) else None),
        ("central crop", percent(dig(encoder, "preprocessing", "crop"))),
        ("embedding", _with("{} dimensions", dig(encoder, "embedding_dim"))),
        ("norm", dig(model, "norm")),
        ("fingerprint", str(dig(encoder, "fingerprint") or "")[:16]),
        ("loss", dig(encoder, "training", "loss", "name")),
        ("training data", dig(encoder, "training", "data")),
        ("seed", _with("{}", dig(encoder, "training", "seed"))),
        ("training faces, people", _two(run, "images", "identities")),
        ("faces seen, steps", _two(run, "faces_seen", "steps")),
        ("faces per second", _with("{}", dig(run.metrics, "train", "images_per_second"))),
        ("held-out people", _with("{}", dig(run.metrics, "held_out", "identities"))),
        ("held-out accuracy", percent(dig(run.metrics, "held_out", "accuracy"))),
        ("seconds", _with("{}", dig(run.metrics, "seconds"))),
        ("leakage", leakage_line(run.metrics)),
    ]
    if evaluation is not None:
        people = len(set(evaluation.embeddings.identities) - {""})
        rows.insert(-1, ("reported faces, people", f"{len(evaluation.embeddings):,}, {people:,}"))
    return Table((), [(name, str(value)) for name, value in rows if value not in (None, "", "-")], facts=True)


def leakage_line(metrics: Mapping[str, Any]) -> str:
    """Say what training and reported faces share; what could not be told is said too."""
    if not isinstance(metrics.get("leakage"), Mapping):
        return "not checked in this run"
    counts = {text[0]: number(dig(metrics, "leakage", key)) for key, text in LEAKS.items()}
    return "; ".join(f"{text}: {'not known' if count is None else plain(count)}" for text, count in counts.items())


def _with(form: str, value: Any) -> str | None:
    return None if number(value) is None else form.format(plain(value))


def _two(run: Run, first: str, second: str) -> str | None:
    values = [dig(run.metrics, "train", key) for key in (first, second)]
    return None if number(values[0]) is None else ", ".join(map(plain, values))


def rate(far: str) -> float | None:
    """Read a false accept rate in (0, 1] from its name; None for anything else."""
    try:
        found = number(float(far))
    except ValueError:
        return None
    return found if found is not None and 1e-12 <= found <= 1 else None


def _rows(table: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the entries of a mapping that are mappings themselves."""
    if not isinstance(table, Mapping):
        return []
    return [(str(key), row) for key, row in table.items() if isinstance(row, Mapping)]
