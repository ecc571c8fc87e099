"""Layers of a network with shapes, weights and multiply-adds, beside the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions
from facenet.console import table
from facenet.models.options import ModelOptions
from facenet.options import to_dict


@dataclass(frozen=True, kw_only=True)
class SummaryOptions(CommandOptions):
    """Options of ``summary``."""

    model: ModelOptions = ModelOptions()


def run(options: SummaryOptions, out: Path) -> dict[str, Any]:
    from facenet.models.build import build_model
    from facenet.models.registry import KNOWN, TABLES, known_table
    from facenet.models.summary import RESNET50, amount, beside, summarise, total

    asked = options.model
    model = build_model(**to_dict(asked))
    net = known_table(asked.name) if asked.name in KNOWN else TABLES.get(asked.name)  # None: nothing is published
    given = (tuple(model.input_size), asked.embedding_dim)
    if net and (given != (net.input_size, net.dim) or model.after or asked.pool is not None):
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
    table(rows, header=header, title=f"{asked.name} at {height}x{width}, norm={asked.norm}")
    return {
        "model": asked.name,
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
