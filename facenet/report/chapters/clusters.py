"""The chapter of a clustering: its scores, and its largest clusters."""

from __future__ import annotations

from collections import Counter

from facenet.report.page import Chapter, Section, Table
from facenet.report.parts import read_clusters
from facenet.report.runs import Run
from facenet.report.values import number, plain, short

LARGEST = 10  # clusters in a table
SCORES = {
    "identities": "people",
    "pairwise_f1": "pairwise F1",
    "pairwise_precision": "pairwise precision",
    "pairwise_recall": "pairwise recall",
    "bcubed_f1": "BCubed F1",
    "bcubed_precision": "BCubed precision",
    "bcubed_recall": "BCubed recall",
    "nmi": "normalised mutual information",
}


def cluster_chapter(run: Run) -> Chapter:
    """Show the scores of a clustering and its largest clusters."""
    metrics = run.metrics
    verdict = f"{plain(metrics.get('faces'))} faces fell into {plain(metrics.get('clusters'))} clusters"
    verdict += f" at a squared distance of {plain(metrics.get('threshold'))}."
    rows = [(text, plain(metrics[key])) for key, text in SCORES.items() if number(metrics.get(key)) is not None]
    sections = [Section("Scores", [Table((), rows, facts=True)])] if rows else []
    found = read_clusters(run)
    if found:
        sizes: dict[str, Counter[str]] = {}
        for label, identity in found:
            sizes.setdefault(label, Counter())[identity] += 1
        largest = sorted(sizes.items(), key=lambda item: -item[1].total())[:LARGEST]
        table = [
            (short(label), str(people.total()), str(len(people)), short(people.most_common(1)[0][0] or "unknown"))
            for label, people in largest
        ]
        sections.append(Section("The largest clusters", [Table(("cluster", "faces", "people", "mostly"), table)]))
    return Chapter(f"Clusters: {short(run.name)}", verdict, [], sections)
