"""Measure a part of the library against named peers and the physical floor, interleaved in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.benchmark import mining
    from facenet.errors import choose

    bodies = {"mining": mining.run}
    options = dict(config["benchmark"])
    result = choose(bodies, options.pop("name"), "benchmark.name")(**options)
    rows = []
    for size, entry in result["sizes"].items():
        for name, measured in entry.items():
            if isinstance(measured, dict):
                ratio = measured["seconds"] / entry["floor"]["seconds"]
                rows.append((size, name, measured["seconds"], measured["least"], measured["most"], f"{ratio:.1f}x"))
        extra = entry.get("extra_bytes")
        rows.append((size, "extra memory of ours", f"{extra / 1e6:.0f} MB" if extra else "-", "", "", ""))
    table(
        rows, header=("B", "what", "seconds (median)", "least", "most", "of the floor"), title="mining, loss, backward"
    )
    if result["absent"]:
        print(f"not installed, so not measured: {', '.join(result['absent'])} (pip install -e '.[benchmark]')")
    return result


if __name__ == "__main__":
    launch("benchmark", run)
