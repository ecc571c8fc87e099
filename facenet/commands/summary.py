"""Layers of a network with shapes, weights and multiply-adds, beside the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.console import table


def run(config: dict[str, Any], out: Path) -> dict[str, Any]:
    from facenet.models.build import build_model
    from facenet.models.registry import TABLES
    from facenet.models.summary import RESNET50, amount, beside, summarise, total

    options = dict(config["model"])
    model = build_model(**options)
    net = TABLES.get(options["name"])  # None: a net from outside, of which the paper prints nothing
    if net and (tuple(model.input_size) != net.input_size or model.after or options["pool"] is not None):
        net = None
    layers = beside(summarise(model), net.printed if net else {})
    ours, paper = total(layers), net.paper if net else None
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            *(amount(number) for number in layer[3:]),
        )
        for layer in layers
    ]
    rows.append(("total", "", "", amount(ours.params), amount(ours.macs), *map(amount, paper or (None, None))))
    rows.append(("ResNet-50", "for scale", "", *map(amount, RESNET50), "-", "-"))
    height, width = model.input_size
    header = ("layer", "kind", "output", "params", "MACs", "paper params", "paper MACs")
    table(rows, header=header, title=f"{options['name']} at {height}x{width}, norm={options['norm']}")
    return {
        "model": options["name"],
        "input_size": model.input_size,
        "params": ours.params,
        "macs": ours.macs,
        "paper_params": paper.params if paper else None,
        "paper_macs": paper.macs if paper else None,
        "resnet50": RESNET50,
        "layers": [{key: value for key, value in layer._asdict().items() if value is not None} for layer in layers],
    }


def main() -> None:
    launch("summary", run)
