"""Group faces by identity at the calibrated threshold: clusters.csv, and scores where identities are known."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import flatten, table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet import bundle
    from facenet.cluster import cluster, scores
    from facenet.errors import ConfigError, DataError
    from facenet.types import EmbeddingSet

    embeddings = EmbeddingSet.load(config["embeddings"])
    threshold = config["threshold"]
    if threshold is None:
        if not config["encoder"]:
            raise ConfigError("cluster: pass encoder=DIR for its calibrated threshold, or threshold=SQ_DIST")
        encoder = bundle.load(config["encoder"])
        if encoder.fingerprint != embeddings.fingerprint:
            raise DataError(
                f"{config['embeddings']}: embedded by another encoder than {config['encoder']}; embed again"
            )
        threshold = encoder.threshold(config["far"])
    started = time.perf_counter()
    labels = cluster(embeddings.vectors, threshold, method=config["method"], seed=config["seed"])
    metrics = {"faces": len(labels), "threshold": threshold, "seconds": time.perf_counter() - started}
    metrics["clusters"] = int(labels.max()) + 1
    if any(embeddings.identities):
        metrics |= {**scores(labels, list(embeddings.identities)), "clusters": metrics["clusters"]}
    with (out / "clusters.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cluster", "path", "identity"])
        writer.writerows(sorted(zip(labels.tolist(), embeddings.paths, embeddings.identities, strict=True)))
    table(flatten(metrics), title="cluster")
    print(f"clusters: {out / 'clusters.csv'}")
    return metrics


if __name__ == "__main__":
    launch("cluster", run)
