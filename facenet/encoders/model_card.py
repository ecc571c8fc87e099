"""The model card beside a bundle: ``README.md`` says what the encoder is, what it was scored on and what it is not for.

Built from the encoder and the numbers of its run alone; what they do not say is called unknown. No name of a person
and no path is in it, and the same run gives the same text. Its head is what Hugging Face reads of a model card; the
words stand in ``model_card.md`` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from facenet.data.preprocess import Preprocess
from facenet.data.views import MIDDLE
from facenet.encoders.encoder import Encoder
from facenet.files import atomic_write

NAME = "README.md"
UNKNOWN = "unknown"
BEGIN, END = "<!-- thresholds -->", "<!-- end of thresholds -->"
TAGS = ("face-recognition", "face-verification", "metric-learning", "triplet-loss", "facenet")
DATA = {
    "synthetic": "faces drawn by this project's generator; none of these people exists",
    "folder": "photographs in a folder for each person",
    "csv": "photographs listed in a table of files and people",
    "lfw": "Labeled Faces in the Wild, news photographs (Huang et al., 2007)",
}
LFW_TERMS = (
    " Labeled Faces in the Wild is a benchmark for research: no score on it shows fitness for a commercial purpose."
)
Rows = Sequence[tuple[Any, ...]]


def write(folder: str | Path, encoder: Encoder, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write the card of an encoder that a training run of `config` made; `metrics` is what the run returns."""
    _replace(Path(folder) / NAME, card(encoder, metrics, config))


def recalibrate(folder: str | Path, encoder: Encoder) -> None:
    """Put newly calibrated thresholds into the card of a bundle, if it has one with a place for them."""
    path = Path(folder) / NAME
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END):
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        _replace(
            path, before + _thresholds(encoder, "all pairs of the faces last given to `facenet calibrate`") + after
        )


def card(encoder: Encoder, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the card as Markdown behind a head of YAML."""
    kind, people = _kind(config), _count(metrics, "train", "identities")
    more = ""
    if (metrics.get("leakage") or {}).get("shared_people") is not None:
        more += f" Of the reported people, {metrics['leakage']['shared_people']} bear a name that was trained on."
    if config.get("init"):
        more += " It started from the weights of another encoder, whose data count too and are not described here."
    weights = "The weights follow the terms of the data they were trained on; look these up before passing them on."
    if _drawn(config):
        weights = "So are the weights: they were made of drawn faces, without data of others."
    given = encoder.training.get("validation") or {}
    count = encoder.calibration.get("people") or _count(metrics, "held_out", "identities")
    held = f"all pairs of faces of {count} held-out people, who did not train"
    if given:
        held = f"the pairs of different people of `{given['file']}`, SHA-256 `{given['sha256']}`"
    far = min(encoder.thresholds, default=None)
    blind = (
        "\n- It has seen drawn faces alone. What it does with photographs is unknown: take it for a test of the tools."
    )
    template = Template((Path(__file__).parent / "model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        head=_head(encoder, metrics, config),
        title=_title(encoder),
        facts=_table(("", ""), _facts(encoder, metrics)),
        kind=DATA.get(kind, UNKNOWN),
        people=_table(("people", ""), _people(metrics)),
        split=_split(config.get("data") or {}) + (" Nobody is in two of the three sets." if config.get("data") else ""),
        more=more,
        scores=_scores(metrics, kind),
        thresholds=_thresholds(encoder, held),
        dim=encoder.dim,
        same="same = sq_dist <= ..." if far is None else f"same = sq_dist <= encoder.threshold({far:g})",
        who="a number of people that is unknown" if people == UNKNOWN else f"{people} people",
        drawn=blind if _drawn(config) else "",
        weights=weights + (LFW_TERMS if kind == "lfw" else ""),
    )


def _title(encoder: Encoder) -> str:
    return f"Face encoder {encoder.name}, {encoder.dim} numbers a face"


def _head(encoder: Encoder, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    lines = ["---", "library_name: facenet", "pipeline_tag: image-feature-extraction", "tags:"]
    lines += [f"- {tag}" for tag in TAGS]
    lines += ["license: mit"] if _drawn(config) else ["license: other", "license_name: terms-of-the-training-data"]
    lines += ["metrics:", "- accuracy", "- roc_auc"]
    found, kind = metrics.get("verification"), _kind(config)
    if found:
        lines += ["model-index:", f"- name: {json.dumps(_title(encoder))}", "  results:", "  - task:"]
        lines += ["      type: face-verification", "    dataset:", f"      name: {json.dumps(_pairs(found, kind))}"]
        lines += [f"      type: {json.dumps(kind)}", "    metrics:", "    - type: accuracy"]
        lines += [f"      value: {found['accuracy']:.4f}", "    - type: roc_auc", f"      value: {found['auc']:.4f}"]
    return "\n".join([*lines, "---"])


def _facts(encoder: Encoder, metrics: Mapping[str, Any]) -> Rows:
    done, (height, width) = encoder.preprocess, encoder.preprocess.size
    shown = {key: value for key, value in encoder.options.items() if key not in ("embedding_dim", "input_size")}
    if not (shown.get("attention") or {}).get("after") and shown.get("pool") != "attention":
        shown["attention"] = None  # its options without a place are no attention
    options = ", ".join(f"{key} {_plain(value)}" for key, value in shown.items() if value is not None)
    mirror, members = done.mirror, encoder.options.get("members")
    if members:
        options = "of " + ", ".join(str(member["name"]) for member in members)
        options += f", reduced to {encoder.dim} numbers" if encoder.options.get("reduced") else ""
        mirror = all(member["mirror"] for member in members)
    align = "none: a picture shows one face"
    if done.align is not None:
        align = f"{done.align.detector}, template {done.align.template}, margin {done.align.margin:g}"
    loss, best, given = (encoder.training.get(key) or {} for key in ("loss", "best", "validation"))
    chosen = f"pairs of `{given['file']}`" if given else "held-out people"
    source = [("source", encoder.training["source"])] if "source" in encoder.training else []
    return [
        *source,
        ("network", f"{encoder.name} ({options})"),
        ("output", f"{encoder.dim} numbers, a vector of length 1"),
        ("input", f"RGB, {height}x{width} pixels; {_part(done)}"),
        ("alignment", align),
        ("scaling", f"(value / 255 - mean) / std; mean {_plain(done.mean)}, std {_plain(done.std)}"),
        ("mirror image", "averaged in" if mirror else "not used"),
        ("fingerprint", f"`{encoder.fingerprint}`"),
        ("loss", f"{loss.get('name', UNKNOWN)}, margin {loss.get('margin', UNKNOWN)}"),
        ("steps, images a step", f"{_count(metrics, 'train', 'steps')}, {_count(metrics, 'run', 'batch_size')}"),
        ("checkpoint", f"best on {chosen}, step {best['step']}" if "step" in best else UNKNOWN),
        ("seed", encoder.training.get("seed", UNKNOWN)),
    ]


def _part(done: Preprocess) -> str:
    """Return which part of a picture the network reads."""
    if done.views:
        return f"{len(done.views)} views of the picture, one below the other"
    if done.centre == MIDDLE:
        return f"the central {done.crop:.0%} of the picture"
    y, x = done.centre
    return f"{done.crop:.0%} of the picture around ({y:.0%} down, {x:.0%} across)"


def _people(metrics: Mapping[str, Any]) -> Rows:
    train = f"{_count(metrics, 'train', 'identities')} people, {_count(metrics, 'train', 'images')} images"
    held = f"{_count(metrics, 'held_out', 'identities')} people"
    if file := (metrics.get("held_out") or {}).get("file"):
        held = f"{_count(metrics, 'held_out', 'pairs')} pairs of `{file}`"
    return [
        ("trained on", train),
        ("held out: chose checkpoint and thresholds", held),
        ("reported", f"{_count(metrics, 'leakage', 'people')} people"),
    ]


def _split(data: Mapping[str, Any]) -> str:
    held, reported = (f"{data[key]:.0%}" if key in data else UNKNOWN for key in ("held_out", "evaluation"))
    if data.get("validation"):
        held = "nobody, since pairs of a file choose the checkpoint"
    if data.get("fold"):
        return f"The people of fold {data['fold']} of the protocol are reported; those of the other folds train."
    if data.get("kind") == "synthetic":
        return "The three sets are consecutive people of the generator."
    if data.get("people"):
        return f"A list of the protocol names the training people; held out of them: {held}."
    if data.get("pairs"):
        return f"People of the reported pairs do not train; held out of the others: {held}."
    if not data.get("kind"):
        return "How people were divided is unknown."
    return f"People were drawn; reported: {reported}, held out of the others: {held}."


def _scores(metrics: Mapping[str, Any], kind: str) -> str:
    found, held = metrics.get("verification"), (metrics.get("held_out") or {}).get("accuracy")
    shown = UNKNOWN if held is None else f"{held:.4f}"
    text = f"Accuracy on pairs of held-out people, which chose the checkpoint: {shown}.\n"
    if not found:
        return text + "Nothing was reported: how it does on other people is unknown."
    if "sem" in found:
        text += "Reported pairs, scored once: ten folds, each at the threshold that is best on the other nine.\n"
        accuracy = f"{found['accuracy']:.4f} +- {found['sem']:.4f} (standard error of the mean over folds)"
    else:
        text += "Reported pairs, scored once, at the one threshold that is best on held-out people.\n"
        accuracy = f"{found['accuracy']:.4f} ({found['correct']} of {found['pairs']} pairs)"
    rows = [("accuracy", accuracy), ("AUC", f"{found['auc']:.4f}"), ("EER", f"{found['eer']:.4f}")]
    for far, entry in (found.get("val_at_far") or {}).items():
        value = "too few pairs of different people to say"
        if entry["resolvable"]:
            value = f"{entry['val']:.4f} (95 %: {entry['low']:.4f} to {entry['high']:.4f})"
        rows.append((f"VAL at FAR {far}", value))
    return f"{text}\n{_table((_pairs(found, kind), ''), rows)}"


def _thresholds(encoder: Encoder, of: str) -> str:
    rows = [(f"{far:g}", f"{sq_dist:.4f}") for far, sq_dist in sorted(encoder.thresholds.items())]
    table = _table(("false accept rate", "one person up to a squared distance of"), rows)
    return "\n".join([BEGIN, f"Calibrated on {of}.\n\n{table}" if rows else "None was calibrated.", END])


def _kind(config: Mapping[str, Any]) -> str:
    return str((config.get("data") or {}).get("kind") or UNKNOWN)


def _drawn(config: Mapping[str, Any]) -> bool:
    return _kind(config) == "synthetic" and not config.get("init")


def _pairs(found: Mapping[str, Any], kind: str) -> str:
    return f"{found['pairs']:,} pairs of faces ({kind})"


def _count(metrics: Mapping[str, Any], part: str, key: str) -> str:
    number = (metrics.get(part) or {}).get(key)
    return UNKNOWN if number is None else f"{number:,}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) + ")"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Rows) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _replace(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
