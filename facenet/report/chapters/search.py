"""The chapter of a search: its threshold, what it costs, and what other rates of strangers would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facenet.errors import ConfigError
from facenet.report.page import Chapter, Section, Table
from facenet.report.runs import Run
from facenet.report.values import number, percent, plain, short

SHOWN = 20  # answers in a table
KINDS = {
    "fpir": "fpir: share of strangers who get any match",
    "far": "far: share of pairs of different people",
    "threshold": "a given squared distance",
}


def search_chapter(run: Run, fpir: float | None = None) -> Chapter:
    """Show a search's threshold with its expected and measured costs, other rates, and the first answers.

    With `fpir` the verdict is that of this rate, one of those that the run lists.

    Raises:
        ConfigError: the run does not list this rate.
    """
    metrics = run.metrics
    kind = str(metrics.get("rate_kind", "far"))
    results = [one for one in _list(metrics.get("results")) if isinstance(one, Mapping)]
    rates = [row for row in _list(metrics.get("rates")) if isinstance(row, Mapping)]
    at: Mapping[str, Any] = metrics
    if fpir is not None:
        at = _listed(run, rates, fpir)
    named = count_named(metrics, results, number(at.get("threshold")))
    asked, chosen = (metrics.get(kind), kind) if fpir is None else (fpir, "fpir")
    rate = f" at {chosen} {plain(asked)}" if chosen in ("fpir", "far") and number(asked) is not None else ""
    verdict = f"Of {plain(metrics.get('queries'))} queries {named} get a name{rate},"
    verdict += f" up to a squared distance of {plain(at.get('threshold'))}."
    facts = [
        ("kind of rate", KINDS.get(kind, short(kind))),
        ("rate asked for", plain(metrics.get(kind)) if kind in ("fpir", "far") else "-"),
        ("threshold", plain(metrics.get("threshold"))),
        ("faces or means compared with", plain(metrics.get("faces"))),
        ("derived from", short(metrics.get("threshold_from", "-"), 200)),
        ("strangers let in, expected", percent(metrics.get("expected_strangers_accepted"))),
        ("right people kept, expected", percent(metrics.get("expected_right"))),
    ]
    if number(metrics.get("strangers_rejected")) is not None:
        facts.append(("strangers let in, of these queries", percent(1 - float(metrics["strangers_rejected"]))))
    facts += [
        (label, percent(metrics[key]))
        for key, label in (("accepted_right", "right people kept, of these queries"), ("top1", "nearest face is right"))
        if number(metrics.get(key)) is not None
    ]
    sections = [Section("The threshold and what it costs", [Table((), facts, facts=True)])]
    if rates:
        sections.append(Section("Other rates", [_rates(metrics, rates, results)]))
    if results:
        sections.append(Section("Answers", [_answers(results)]))
    foreign = "it is of other faces" in str(metrics.get("threshold_from"))
    warnings = ["The encoder's calibration is of other faces than the gallery's."] if foreign else []
    return Chapter(f"Search: {short(run.name)}", verdict, warnings, sections)


def count_named(metrics: Mapping[str, Any], results: list[Mapping[str, Any]], threshold: float | None) -> str:
    """Return how many queries get a name up to a threshold; a dash if the run does not tell."""
    if threshold == number(metrics.get("threshold")):
        return plain(sum(one.get("answer") is not None for one in results))
    near = [number(one.get("nearest_sq_dist")) for one in results]
    if threshold is None or None in near or metrics.get("thresholds_of_older"):
        return "-"
    return plain(sum(at is not None and at <= threshold for at in near))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _listed(run: Run, rates: list[Mapping[str, Any]], fpir: float) -> Mapping[str, Any]:
    for row in rates:
        if number(row.get("fpir")) == fpir:
            return row
    known = ", ".join(plain(row.get("fpir")) for row in rates) or "none; search again"
    raise ConfigError(f"fpir: {short(run.name)} lists no costs of {fpir:g} (it lists {known})")


def _rates(metrics: Mapping[str, Any], rates: list[Mapping[str, Any]], results: list[Mapping[str, Any]]) -> Table:
    rows = [
        (
            plain(row.get("fpir")),
            plain(row.get("threshold")),
            percent(row.get("expected_strangers_accepted")),
            percent(row.get("expected_right")),
            count_named(metrics, results, number(row.get("threshold"))),
        )
        for row in rates
    ]
    header = ("fpir", "threshold", "strangers let in, expected", "right people kept, expected", "queries with a name")
    return Table(header, rows, "The threshold is the squared distance up to which a face is a match.")


def _answers(results: list[Mapping[str, Any]]) -> Table:
    rows = [
        (short(one.get("query", "-")), short(one.get("answer") or "no match"), plain(one.get("nearest_sq_dist")))
        for one in results[:SHOWN]
    ]
    some = f"The first {SHOWN} of {len(results)} queries." if len(results) > SHOWN else ""
    return Table(("query", "answer", "nearest squared distance"), rows, some, left=2)
