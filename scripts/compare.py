"""Are these two photos one person?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import launch

from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet import encoders
    from facenet.distance import sq_dist

    encoder = encoders.load(config["encoder"], device=config["device"])
    a, b = encoder.embed([config["a"], config["b"]])
    distance, threshold = float(sq_dist(a, b)), encoder.threshold(config["far"])
    same = distance <= threshold
    verdict = "one person" if same else "two people"
    table(
        [("sq_dist", distance), (f"threshold at far={config['far']:g}", threshold), ("verdict", verdict)],
        title=f"{config['a']}  against  {config['b']}",
    )
    return {"sq_dist": distance, "threshold": threshold, "far": config["far"], "same": same}


if __name__ == "__main__":
    launch("compare", run)
