"""Who is this? The nearest gallery faces of each query image, accepted or rejected at the calibrated threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import table

SHOWN = 4  # queries that are printed; all of them are in metrics.json


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet import bundle
    from facenet.data.records import scan
    from facenet.embed import embed_records
    from facenet.index import Gallery

    encoder = bundle.load(config["encoder"], device=config["device"])
    threshold = encoder.threshold(config["far"])
    with Gallery.open(config["gallery"]) as gallery:
        queries, kept = embed_records(encoder, scan(config["query"]))
        found = gallery.hits(
            queries.vectors, config["k"], fingerprint=encoder.fingerprint, compatible_with=encoder.compatible_with
        )
        people = gallery.identities()
    rows, results = [], []
    for query, truth, hits in zip(queries.paths, queries.identities, found, strict=True):
        neighbours = [{**hit._asdict(), "accepted": hit.accepted(threshold)} for hit in hits]
        results.append({"query": query, "identity": truth or None, "neighbours": neighbours})
        rows += [
            (query, hit.rank, hit.identity, hit.sq_dist, "match" if hit.accepted(threshold) else "no match", hit.path)
            for hit in hits
        ]
    metrics = {"queries": len(queries), "skipped": len(kept.skipped), "threshold": threshold, "far": config["far"]}
    metrics |= score(results, people)
    header = ("query", "rank", "identity", "sq_dist", "verdict", "path")
    table(
        rows[: SHOWN * config["k"]], header=header, title=f"search, threshold {threshold:.4f} (far {config['far']:g})"
    )
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more queries in {out / 'metrics.json'}")
    table([*metrics.items()], title="search")
    return {**metrics, "results": results}


def score(results: list[dict[str, Any]], people: set[str]) -> dict[str, float]:
    """Where the queries' identities are known: rank-1 and verdicts, for people in the gallery and for strangers."""
    mates = [r for r in results if r["identity"] in people and r["neighbours"]]
    strangers = [r for r in results if r["identity"] and r["identity"] not in people and r["neighbours"]]
    scores: dict[str, float] = {}
    if mates:
        first = [r["neighbours"][0]["identity"] == r["identity"] for r in mates]
        accepted = [right and r["neighbours"][0]["accepted"] for right, r in zip(first, mates, strict=True)]
        scores |= {"top1": sum(first) / len(mates), "accepted_right": sum(accepted) / len(mates)}
    if strangers:
        rejected = [not r["neighbours"][0]["accepted"] for r in strangers]
        scores["strangers_rejected"] = sum(rejected) / len(strangers)
    return scores


if __name__ == "__main__":
    launch("search", run)
