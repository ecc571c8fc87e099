"""Are these two photos one person?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.encoders import lookup as encoders
    from facenet.evaluation.photos import compare

    encoder = encoders.load(config["encoder"], device=config["device"], detector=config["detector"])
    far = config["far"]
    threshold = encoder.threshold(far) if config["threshold"] is None else config["threshold"]
    found = compare(encoder, config["a"], config["b"], threshold=threshold)
    found.draw(out / "compare.png")
    table(
        [
            ("a", found.a.told()),
            ("b", found.b.told()),
            ("sq_dist", found.sq_dist),
            ("threshold" if config["threshold"] is not None else f"threshold at far={far:g}", threshold),
            ("verdict", found.verdict),
            ("picture", out / "compare.png"),
        ],
        title=f"{config['a']}  against  {config['b']}",
    )
    photos = {"a": found.a.plain(), "b": found.b.plain()}
    return {"sq_dist": found.sq_dist, "threshold": threshold, "far": far, "same": found.same, **photos}


def main() -> None:
    launch("compare", run)
