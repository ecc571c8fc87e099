"""Who is this? The nearest gallery faces of each query, accepted or rejected at a threshold."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.galleries import GALLERY, open_gallery
from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse, refuse_unread, warn_of_drawn_faces
from facenet.console import table
from facenet.options import INSIDE, RATE, option

SHOWN = 4  # queries that are printed; all of them are in metrics.json and neighbours.csv


@dataclass(frozen=True, kw_only=True)
class SearchOptions(EncoderUse, CommandOptions):
    """Options of ``search``."""

    gallery: str = option(help=GALLERY)
    encoder: str | None = option(None, help="encoder of the queries; not needed for ids")
    query: str | None = option(None, help="image, folder, embeddings folder, .npy file or id of a gallery face")
    k: int = option(5, least=1, help="nearest faces of each query")
    fpir: float | None = option(None, **INSIDE, help="share of strangers who may get any match; null: 0.05")
    far: float | None = option(None, **RATE, help="instead of fpir: share of pairs of different people that match")
    threshold: float | None = option(None, least=0, most=4, help="instead of fpir: match up to this sq_dist")
    within: bool = option(False, help="every face up to the threshold instead of the k nearest")
    by_identity: bool = option(False, help="list each person once")
    identity_by: str = option(
        "nearest",
        choices=("nearest", "mean"),
        help="with by_identity: the nearest face of a person, or the mean of the faces",
    )
    where: dict[str, Any] | None = option(None, help="only faces with these values, as in where={camera: 2}")
    sheet: bool = option(False, help="sheet.png: the first 20 queries beside their neighbours")
    interactive: bool = option(False, help="answer one query a line from standard input")
    json: bool = option(False, help="with interactive: one JSON object a line")


def run(options: SearchOptions, out: Path) -> dict[str, Any]:
    from facenet.data.records import write_skipped
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError
    from facenet.gallery.answers import ask, converse, draw_answers, score, write_answers
    from facenet.gallery.queries import read_queries

    if bool(options.query) == options.interactive:
        raise ConfigError("search: pass query=IMAGE, FOLDER, .npy or ID, or interactive=true and one a line on stdin")
    refuse_unread(
        ("json", options.json, options.interactive, "interactive=true"),
        ("sheet", options.sheet, options.query, "query=IMAGE or FOLDER"),
    )
    encoder = (
        encoders.load(options.encoder, device=options.device, detector=options.detector) if options.encoder else None
    )
    asked: dict[str, Any] = {"k": options.k, "within": options.within, "by_identity": options.by_identity}
    asked |= {"where": options.where, "identity_by": options.identity_by}
    rates = {"fpir": options.fpir, "far": options.far, "threshold": options.threshold}
    with open_gallery(options.gallery) as gallery:
        threshold = gallery.threshold(encoder, where=options.where, identity_by=options.identity_by, **rates)
        asked["threshold"] = threshold
        if options.interactive:

            def answer(line: str) -> Any:
                return ask(gallery, read_queries(line, gallery, encoder), **asked)

            talk = converse(sys.stdin, answer, show_json if options.json else show_line)
            return {**threshold.plain(), **talk}
        queries = read_queries(options.query or "", gallery, encoder)
        answers = ask(gallery, queries, **asked)
        people = gallery.identities()
    if encoder is not None:
        warn_of_drawn_faces(encoder, queries.images)
    metrics = {"queries": len(queries), "skipped": len(queries.skipped), **threshold.plain(), **score(answers, people)}
    metrics["with_a_match"] = sum(answer.match is not None for answer in answers)
    if options.by_identity:
        metrics["identity_by"] = options.identity_by
    show(answers[:SHOWN], threshold.sq_dist)
    if len(answers) > SHOWN:
        print(f"... and {len(answers) - SHOWN} more queries in {out / 'metrics.json'}")
    table([*metrics.items()], title="search")
    if queries.skipped:
        write_skipped(out / "skipped.csv", queries.skipped)
        print(f"skipped, with reasons: {out / 'skipped.csv'}")
    if queries.note:
        print(f"{options.query}: {queries.note}")
    write_answers(out / "neighbours.csv", answers)
    print(f"neighbours: {out / 'neighbours.csv'}")
    if options.sheet:
        draw_answers(out / "sheet.png", answers, look=encoder.preprocess if encoder else None)
        print(f"sheet: {out / 'sheet.png'}")
    rates_beside = threshold.plain_others()
    others: dict[str, Any] = {"rates": rates_beside} if rates_beside else {}
    return {**metrics, **others, "results": [answer.plain() for answer in answers]}


def show(answers: Any, threshold: float) -> None:
    rows: list[tuple[Any, ...]] = []
    for answer in answers:
        hits = [(hit.rank, hit.identity, hit.sq_dist, answer.verdict(hit), hit.path) for hit in answer.hits]
        shown = hits or [("", "", "", answer.name, "")]
        rows += [("" if place else answer.query, *row) for place, row in enumerate(shown)]
    header = ("query", "rank", "identity", "sq_dist", "verdict", "path")
    table(rows, header=header, title=f"search, matches up to a sq_dist of {threshold:.4f}")


def show_line(found: Any, line: str) -> None:
    if isinstance(found, Exception):
        print(f"error: {found}", flush=True)
    else:
        show(found, found[0].threshold.sq_dist)
        sys.stdout.flush()


def show_json(found: Any, line: str) -> None:
    plain = [{"query": line, "error": str(found)}] if isinstance(found, Exception) else [one.plain() for one in found]
    for answer in plain:
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def main() -> None:
    launch("search", run)
