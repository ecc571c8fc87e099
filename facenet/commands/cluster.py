"""Group faces by identity, or add new faces to known clusters: clusters.csv, scores, contact sheets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import flatten, table
from facenet.options import RATE, SEED, option


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(CommandOptions):
    """Options of ``cluster``."""

    embeddings: str = option(help="embeddings folder of the faces to group")
    encoder: str | None = option(None, help="encoder that made them, for its calibrated thresholds")
    links: float | None = option(
        None,
        least=0,
        help="strangers that a face meets within the threshold; null: 5, fewer if there are under 500 faces",
    )
    sample: str | None = option(None, help="embeddings of labelled other people: calibrate on them")
    far: float | None = option(None, **RATE, help="instead of links: false accept rate of the threshold")
    threshold: float | None = option(None, least=0, most=4, help="instead of links: join up to this sq_dist")
    method: str = option("auto", help="auto, chinese_whispers, average_linkage")
    neighbours: int = option(32, least=1, help="nearest faces k that the graph holds")
    known: str | tuple[str, ...] | None = option(None, help="embeddings of clustered faces, to add new ones to")
    clusters: str | None = option(None, help="their clusters.csv")
    sheets: bool = option(False, help="contact sheets of the clusters")
    threads: int | None = option(None, least=1, help="processor threads; null: all")
    seed: int = option(0, **SEED, help="seed of the order in which whispers visit faces")


def load(folder: str, fingerprint: str | None = None) -> Any:
    """Read embeddings; those of another encoder than `fingerprint` raise DataError."""
    from facenet.errors import DataError
    from facenet.types import EmbeddingSet

    found = EmbeddingSet.load(folder, mmap=True)
    if fingerprint not in (None, found.fingerprint):
        raise DataError(f"{folder}: embedded by another encoder than the faces to cluster; embed again")
    return found


def run(options: ClusterOptions, out: Path) -> dict[str, Any]:
    import numpy as np

    from facenet.clustering.clusters import assign, cluster, method_for, read_clusters, scores, write_clusters
    from facenet.clustering.sheets import write_sheets
    from facenet.clustering.threshold import find_threshold
    from facenet.encoders import lookup as encoders
    from facenet.errors import ConfigError, DataError
    from facenet.texts import Texts

    if bool(options.known) != bool(options.clusters):
        raise ConfigError("cluster: known=EMBEDDINGS and clusters=FILE go together")
    if options.known and options.method not in ("auto", "chinese_whispers"):
        raise ConfigError(f"method={options.method}: new faces join known clusters by chinese_whispers; leave it out")
    if options.sample and options.threshold is not None:
        raise ConfigError("cluster: sample and threshold each choose the threshold; pass one of them")
    new = load(options.embeddings)
    encoder = encoders.load(options.encoder, device="cpu") if options.encoder else None
    if encoder and encoder.fingerprint != new.fingerprint:
        raise DataError(f"{options.embeddings}: embedded by another encoder than {options.encoder}; embed again")
    folders = [options.known] if isinstance(options.known, str) else options.known or []
    sets = [*(load(folder, new.fingerprint) for folder in folders), new]
    paths = Texts.of(path for one in sets for path in one.paths) if folders else new.paths
    if folders and len(set(paths)) < len(paths):
        raise DataError("cluster: some paths are among the new and the known faces, or twice; give each face once")
    method = "chinese_whispers" if folders else method_for(len(new), options.method)
    search: dict[str, Any] = {"neighbours": options.neighbours, "seed": options.seed, "threads": options.threads}
    threshold, metrics = find_threshold(
        len(paths),
        method,
        encoder.thresholds if encoder else None,
        load(options.sample, new.fingerprint) if options.sample else None,
        threshold=options.threshold,
        far=options.far,
        links=options.links,
        **search,
    )
    started = time.perf_counter()
    if folders and options.clusters:
        before = read_clusters(options.clusters, paths[: -len(new)])
        added = assign(new.vectors, np.concatenate([one.vectors for one in sets[:-1]]), before, threshold, **search)
        labels = np.concatenate((before, added))
        metrics |= {"known": len(before), "joined": int(np.isin(added, before).sum())}
    else:
        labels = cluster(new.vectors, threshold, method=method, **search)
    seconds = time.perf_counter() - started
    identities = Texts.repeated(name for one in sets for name in one.identities)
    if any(identities):
        metrics |= scores(labels, identities)
    metrics = {"faces": len(new), "threshold": threshold, "method": method, "seconds": seconds, **metrics}
    metrics["clusters"] = len(np.unique(labels))
    write_clusters(out / "clusters.csv", labels, paths, identities)
    table(flatten(metrics), title="cluster")
    print(f"clusters: {out / 'clusters.csv'}")
    if options.sheets:
        files = [Path(one.root) / path for one in sets for path in one.paths]
        look = encoder.preprocess if encoder else None
        for page in write_sheets(labels, identities, files, out / "sheets", look=look):
            print(f"sheet: {page}")
    return metrics


def main() -> None:
    launch("cluster", run)
