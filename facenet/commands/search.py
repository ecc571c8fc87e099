"""Who is this? The nearest gallery faces of each query, accepted or rejected at a threshold."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import table

SHOWN = 4  # queries that are printed; all of them are in metrics.json and neighbours.csv


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError
    from facenet.gallery import query
    from facenet.gallery.gallery import Gallery
    from facenet.gallery.query_sheet import draw_answers

    if bool(config["query"]) == config["interactive"]:
        raise ConfigError("search: pass query=IMAGE, FOLDER, .npy or ID, or interactive=true and one a line on stdin")
    encoder = (
        encoders.load(config["encoder"], device=config["device"], detector=config["detector"])
        if config["encoder"]
        else None
    )
    threshold = config["threshold"]
    if threshold is None:
        if encoder is None:
            raise ConfigError("search: pass encoder=DIR for its calibrated threshold, or threshold=SQ_DIST")
        threshold = encoder.threshold(config["far"])
    options = {name: config[name] for name in ("k", "within", "by_identity", "where")}
    options |= {"threshold": threshold, "compatible_with": encoder.compatible_with if encoder else ()}
    with Gallery.open(config["gallery"]) as gallery:
        if config["interactive"]:

            def answer(line: str) -> Any:
                return query.ask(gallery, query.read(line, gallery, encoder), **options)

            talk = query.converse(sys.stdin, answer, show_json if config["json"] else show_line)
            return {"threshold": threshold, **talk}
        queries = query.read(config["query"], gallery, encoder)
        answers = query.ask(gallery, queries, **options)
        people, faces = gallery.identities(), len(gallery)
    metrics = {"queries": len(queries), "skipped": queries.skipped, "threshold": threshold}
    if config["threshold"] is None:  # each stranger is compared with every face
        metrics |= {"far": config["far"], "expected_false_matches": config["far"] * faces}
    metrics |= query.score(answers, people)
    show(answers[:SHOWN], threshold)
    if len(answers) > SHOWN:
        print(f"... and {len(answers) - SHOWN} more queries in {out / 'metrics.json'}")
    table([*metrics.items()], title="search")
    query.write_answers(out / "neighbours.csv", answers)
    print(f"neighbours: {out / 'neighbours.csv'}")
    if config["sheet"]:
        draw_answers(out / "sheet.png", answers, look=encoder.preprocess if encoder else None)
        print(f"sheet: {out / 'sheet.png'}")
    return {**metrics, "results": [answer.plain() for answer in answers]}


def show(answers: Any, threshold: float) -> None:
    rows: list[tuple[Any, ...]] = []
    for answer in answers:
        hits = [("", *row[1:2], *row[3:5], *row[6:]) for row in answer.rows()] or [("", "", "", "", answer.name, "")]
        rows += [(answer.query, *hits[0][1:]), *hits[1:]]
    header = ("query", "rank", "identity", "sq_dist", "verdict", "path")
    table(rows, header=header, title=f"search, matches up to a sq_dist of {threshold:.4f}")


def show_line(found: Any, line: str) -> None:
    if isinstance(found, Exception):
        print(f"error: {found}", flush=True)
    else:
        show(found, found[0].threshold)
        sys.stdout.flush()


def show_json(found: Any, line: str) -> None:
    plain = [{"query": line, "error": str(found)}] if isinstance(found, Exception) else [one.plain() for one in found]
    for answer in plain:
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def main() -> None:
    launch("search", run)
