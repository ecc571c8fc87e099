"""Group faces by identity, or add new faces to known clusters: clusters.csv, scores, contact sheets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import flatten, table


def load(folder: str, fingerprint: str | None = None) -> Any:
    """Read embeddings; those of another encoder than `fingerprint` raise DataError."""
    from facenet.errors import DataError
    from facenet.types import EmbeddingSet

    found = EmbeddingSet.load(folder)
    if fingerprint not in (None, found.fingerprint):
        raise DataError(f"{folder}: embedded by another encoder than the faces to cluster; embed again")
    return found


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    import numpy as np

    from facenet.clustering import sheets as cluster_sheets
    from facenet.clustering import table as cluster_table
    from facenet.clustering.clusters import assign, cluster, method_for, scores
    from facenet.clustering.threshold import find_threshold
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError, DataError

    if bool(config["known"]) != bool(config["clusters"]):
        raise ConfigError("cluster: known=EMBEDDINGS and clusters=FILE go together")
    new = load(config["embeddings"])
    encoder = encoders.load(config["encoder"], device="cpu") if config["encoder"] else None
    if encoder and encoder.fingerprint != new.fingerprint:
        raise DataError(f"{config['embeddings']}: embedded by another encoder than {config['encoder']}; embed again")
    folders = [config["known"]] if isinstance(config["known"], str) else config["known"] or []
    sets = [*(load(folder, new.fingerprint) for folder in folders), new]
    paths = [path for one in sets for path in one.paths]
    if folders and len(set(paths)) < len(paths):
        raise DataError("cluster: some paths are among the new and the known faces, or twice; give each face once")
    method = "chinese_whispers" if folders else method_for(len(new), config["method"])
    options = {key: config[key] for key in ("neighbours", "seed", "threads")}
    threshold, metrics = find_threshold(
        len(paths),
        method,
        encoder.thresholds if encoder else None,
        load(config["sample"], new.fingerprint) if config["sample"] else None,
        **{key: config[key] for key in ("threshold", "far", "links")},
        **options,
    )
    started = time.perf_counter()
    if folders:
        before = cluster_table.read_labels(config["clusters"], paths[: -len(new)])
        added = assign(new.vectors, np.concatenate([one.vectors for one in sets[:-1]]), before, threshold, **options)
        labels = np.concatenate((before, added))
        metrics |= {"known": len(before), "joined": int(np.isin(added, before).sum())}
    else:
        labels = cluster(new.vectors, threshold, method=method, **options)
    seconds = time.perf_counter() - started
    identities = [name for one in sets for name in one.identities]
    if any(identities):
        metrics |= scores(labels, identities)
    metrics = {"faces": len(new), "threshold": threshold, "method": method, "seconds": seconds, **metrics}
    metrics["clusters"] = len(np.unique(labels))
    cluster_table.write_table(out / "clusters.csv", labels, paths, identities)
    table(flatten(metrics), title="cluster")
    print(f"clusters: {out / 'clusters.csv'}")
    if config["sheets"]:
        files = [Path(one.root) / path for one in sets for path in one.paths]
        look = encoder.preprocess if encoder else None
        for page in cluster_sheets.write_sheets(labels, identities, files, out / "sheets", look=look):
            print(f"sheet: {page}")
    return metrics


def main() -> None:
    launch("cluster", run)
