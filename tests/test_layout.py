"""Who may import whom, who owns which package, and that each room has its test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted(p for p in (ROOT / "facenet").rglob("*.py") if p.name != "__init__.py")
NAMES = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in ROOMS}

# room -> what it may import from facenet; errors, files and reading are free to all
MAY = {
    "errors": [],
    "files": [],
    "reading": [],
    "types": [],
    "distance": [],
    "console": [],
    "package_models": [],
    "onnx_graph": ["package_models"],
    "onnx_session": ["package_models"],
    "onnx_net": ["onnx_session"],
    "align": ["onnx_graph", "onnx_session", "package_models"],
    "align_folder": ["align", "data.records", "data.transforms"],
    "pretrained": ["align", "bundle", "data.transforms", "onnx_graph", "onnx_net", "package_models"],
    "encoders": ["align", "bundle", "export", "model_card", "onnx_record", "pretrained"],
    "model_card": ["bundle"],
    "onnx_record": [],
    "export": ["bundle", "data.transforms", "models", "onnx_net", "onnx_record", "package_models"],
    "export_faces": ["data", "evaluate", "export", "types"],
    "export_int8": ["bundle", "export", "onnx_record"],
    "compare": ["align", "bundle", "data.transforms", "distance", "sheets"],
    "data.walk": [],
    "data.records": ["align", "data.walk", "types"],
    "data.duplicates": ["data.records", "data.transforms"],
    "data.transforms": ["align"],
    "data.augment": ["data.transforms"],
    "data.cache": ["data", "interrupts"],
    "data.degradations": [],
    "data.sampler": [],
    "data.pairs": ["types"],
    "data.synthetic": ["data.synthetic_people", "data.synthetic_render", "interrupts"],
    "data.synthetic_people": [],
    "data.synthetic_masks": [],
    "data.synthetic_face": ["data.synthetic_masks"],
    "data.synthetic_covers": ["data.synthetic_masks"],
    "data.synthetic_render": ["data.synthetic_covers", "data.synthetic_face", "data.synthetic_masks"],
    "data.splits": ["types", "data"],
    "data.tracks": ["types", "data.records"],
    "data.synthetic_damage": [],
    "data.synthetic_tracks": [
        "data.records",
        "data.synthetic",
        "data.synthetic_damage",
        "data.synthetic_people",
        "data.synthetic_render",
        "data.tracks",
    ],
    "data.datamodule": ["data", "interrupts"],
    "models.layers": [],
    "models.random_features": [],
    "models.linear_attention_forms": ["models.random_features"],
    "models.linear_attention": ["models.linear_attention_forms", "models.random_features"],
    "models.net": ["models.layers", "models.linear_attention"],
    "models.inception": ["models.net"],
    "models.zeiler_fergus": ["models.net"],
    "models.summary": ["models.layers", "models.net"],
    "sorting": [],
    "mining": ["types", "distance", "sorting"],
    "losses": ["types", "distance", "sorting"],
    "large_batch": [],
    "memory": [],
    "harmonic": ["types", "sorting"],
    "old_embeddings": ["bundle", "data.records", "embed", "encoders", "types"],
    "objective": ["harmonic", "large_batch", "losses", "mining", "types"],
    "optim": [],
    "bundle": ["models", "data.transforms"],
    "embed": ["bundle", "data", "types"],
    "roc": [],
    "verify": ["types", "distance", "data.pairs", "roc"],
    "all_pairs": ["roc"],
    "identify": ["distance", "roc"],
    "quantise": ["types", "distance", "verify"],
    "leakage": ["types", "distance", "all_pairs"],
    "degrade": ["bundle", "data", "embed", "types", "verify"],
    "degrade_plot": ["data.degradations", "degrade"],
    "baselines": ["types", "distance"],
    "compat": [
        "compat_bootstrap",
        "compat_cells",
        "compat_gallery",
        "compat_maps",
        "compat_match",
        "compat_table",
        "compat_yardsticks",
        "roc",
        "types",
    ],
    "compat_bootstrap": ["compat_cells", "compat_match", "roc"],
    "compat_cells": ["compat_match", "distance", "identify", "roc", "verify"],
    "compat_gallery": ["compat_cells", "compat_match", "distance"],
    "compat_maps": ["distance", "types"],
    "compat_match": ["data.pairs", "identify", "index_checks", "types"],
    "compat_plot": [],
    "compat_table": [],
    "compat_yardsticks": ["compat_cells", "compat_match"],
    "index": [
        "types",
        "index_backfill",
        "index_cache",
        "index_checks",
        "index_file",
        "index_kinds",
        "index_rows",
        "index_search",
        "index_store",
        "index_truth",
    ],
    "query": ["bundle", "data.records", "embed", "index", "types"],
    "query_sheet": ["data.transforms", "query", "sheets"],
    "sheets": ["align", "data.transforms"],
    "index_backfill": ["types", "index_checks", "index_rows", "index_search", "index_truth"],
    "index_checks": [],
    "index_kinds": [],
    "index_build": ["index_kinds"],
    "index_file": ["index_kinds"],
    "index_truth": ["index_checks", "index_kinds"],
    "index_layers": ["types", "index_kinds"],
    "index_cache": ["index_build", "index_file", "index_kinds", "index_layers", "index_truth"],
    "index_rows": ["types", "index_truth"],
    "index_store": ["index_rows", "index_truth"],
    "index_exchange": ["types", "index", "index_search"],
    "index_search": [
        "types",
        "index_cache",
        "index_checks",
        "index_rows",
        "index_store",
        "index_truth",
        "knn",
    ],
    "knn": ["types"],
    "whispers": ["types"],
    "cluster": ["types", "knn", "whispers"],
    "cluster_sheets": ["data.transforms", "sheets"],
    "cluster_table": [],
    "cluster_threshold": ["all_pairs", "cluster", "types"],
    "evaluation_folder": ["data.records", "types", "verify"],
    "evaluate": [
        "all_pairs",
        "baselines",
        "bundle",
        "data",
        "embed",
        "evaluation_folder",
        "identify",
        "leakage",
        "models",
        "quantise",
        "types",
        "verify",
    ],
    "module": [
        "bundle",
        "harmonic",
        "large_batch",
        "losses",
        "mining",
        "models",
        "not_finite",
        "objective",
        "optim",
        "types",
    ],
    "callbacks": ["types", "distance", "verify"],
    "interrupts": [],
    "preemption": ["interrupts", "large_batch"],
    "not_finite": [],
    "logs": [],
    "checkpoint_states": ["callbacks", "optim"],
    "resume": ["callbacks", "interrupts"],
    "training": [
        "align",
        "bundle",
        "callbacks",
        "checkpoint_states",
        "data",
        "embed",
        "evaluate",
        "harmonic",
        "interrupts",
        "large_batch",
        "leakage",
        "logs",
        "memory",
        "mining",
        "model_card",
        "models",
        "module",
        "not_finite",
        "old_embeddings",
        "optim",
        "preemption",
        "resume",
        "types",
    ],
    "report": [
        "onnx_record",
        "report_compat",
        "report_facts",
        "report_page",
        "report_plots",
        "report_runs",
        "report_sheets",
        "report_sweep_chapters",
        "report_sweeps",
    ],
    "report_compat": [
        "compat_plot",
        "report_compat_tables",
        "report_facts",
        "report_page",
        "report_plots",
        "report_runs",
    ],
    "report_compat_tables": ["compat_plot", "report_facts", "report_page", "report_runs"],
    "report_facts": ["report_page", "report_runs"],
    "report_page": [],
    "report_plots": ["report_page", "roc"],
    "report_runs": ["types"],
    "report_sheets": [
        "align",
        "cluster",
        "cluster_sheets",
        "data.transforms",
        "distance",
        "report_page",
        "report_runs",
        "types",
    ],
    "report_sweep_chapters": [
        "data.degradations",
        "report_facts",
        "report_page",
        "report_plots",
        "report_runs",
        "report_sweeps",
    ],
    "report_sweeps": ["data.degradations", "report_runs"],
    "track_evaluation": ["bundle", "data", "embed", "models", "types", "verify"],
    "track_training": ["bundle", "data", "losses", "mining", "models", "optim", "track_evaluation", "types"],
    "benchmark.attention": ["benchmark.mining", "models"],
    "benchmark.loader": ["benchmark.training", "data", "models"],
    "benchmark.training": ["bundle", "losses", "mining", "models", "optim"],
    "benchmark.large_batch": [
        "benchmark",
        "bundle",
        "large_batch",
        "losses",
        "memory",
        "mining",
        "models",
        "objective",
    ],
    "benchmark.ddp": [
        "benchmark",
        "bundle",
        "large_batch",
        "losses",
        "memory",
        "mining",
        "models",
        "objective",
        "optim",
    ],
    "benchmark.export": ["benchmark", "bundle", "data.transforms", "export", "models", "onnx_record"],
    "benchmark.cluster": ["benchmark", "cluster", "cluster_threshold", "knn"],
    "benchmark.search": ["benchmark", "index", "index_layers", "types"],
    "benchmark.faults": [],
    "benchmark.faults_files": ["benchmark"],
    "benchmark.faults_hostile": [
        "align_folder",
        "benchmark",
        "bundle",
        "callbacks",
        "data",
        "encoders",
        "index",
        "old_embeddings",
        "onnx_record",
        "types",
    ],
    "benchmark.faults_kinds": [
        "align",
        "align_folder",
        "benchmark",
        "bundle",
        "data",
        "encoders",
        "evaluation_folder",
        "export",
        "index",
        "index_truth",
        "models",
        "onnx_record",
        "query",
        "report_runs",
        "types",
    ],
    "benchmark.faults_mutate": ["benchmark"],
    "benchmark.faults_restored": ["benchmark", "callbacks", "checkpoint_states", "module"],
    "benchmark.faults_data": ["data", "training"],
    "benchmark.faults_inputs": ["benchmark", "bundle", "data", "embed", "evaluate", "index", "models", "types"],
    "benchmark.gallery": ["distance", "index", "types"],
    "benchmark.faults_checkpoints": ["benchmark.gallery", "callbacks"],
    "benchmark.faults_resume": ["benchmark.faults_checkpoints", "callbacks", "console", "training"],
    "benchmark.photos": ["align", "bundle", "data", "embed", "encoders", "types", "verify"],
    "benchmark.verify": ["all_pairs", "benchmark", "roc", "verify"],
    "benchmark.mining": ["bundle", "mining", "losses", "types", "distance"],
}
OWNERS = {
    "torchvision": {"data.transforms"},
    "pytorch_lightning": {
        "data.datamodule",
        "module",
        "callbacks",
        "checkpoint_states",
        "logs",
        "not_finite",
        "preemption",
        "training",
    },
    "safetensors": {"bundle"},
    "torch.distributed": {"large_batch"},
    "sklearn": {"verify", "cluster", "baselines", "report_plots"},
    "matplotlib": {"report_plots", "degrade_plot", "compat_plot"},
    "jinja2": {"report_page"},
    "faiss": {"index_build", "index_file", "index_kinds", "index_layers", "knn", "quantise"},
    "sqlite3": {"index", "index_rows", "index_store"},
    "rich": {"console"},
    "onnx": {"onnx_graph", "export_int8"},
    "onnxscript": set(),
    "onnxruntime": {"onnx_session", "export_int8"},
    "pyarrow": {"index_exchange"},
    "qdrant_client": {"index_exchange"},
    "hydra": set(),
    "omegaconf": set(),
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.update(
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in NAMES else node.module
                for alias in node.names
            )
    return found


def room(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "facenet").with_suffix("").parts)


@pytest.mark.parametrize("path", ROOMS, ids=room)
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    name = room(path)
    assert name in MAY, f"{name}: a new room; give it a line in the table"
    allowed = {"errors", "files", "reading", *MAY[name]}
    ours = {module.removeprefix("facenet.") for module in imports(path) if module.startswith("facenet.")}
    wrong = {m for m in ours if m not in allowed and not any(m.startswith(f"{a}.") for a in allowed)}
    assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", ROOMS, ids=room)
def test_a_package_is_imported_by_its_owner_alone(path: Path) -> None:
    packages = {".".join(module.split(".")[:n]) for module in imports(path) for n in (1, 2)}
    foreign = {p for p in packages if p in OWNERS and room(path) not in OWNERS[p]}
    assert not foreign or room(path).startswith("benchmark."), f"{room(path)} imports {sorted(foreign)}"


@pytest.mark.parametrize("path", ROOMS, ids=room)
def test_a_room_has_a_test_file(path: Path) -> None:
    name = path.stem
    if room(path).startswith("benchmark."):
        name = f"benchmark_{name}"
    stems = {name, name.rsplit("_", 1)[0]} if name.startswith(("synthetic_", "index_", "linear_attention_")) else {name}
    assert any((ROOT / "tests" / f"test_{stem}.py").is_file() for stem in stems), f"no tests/test_{name}.py"


@pytest.mark.parametrize(
    "module",
    [
        "facenet",
        "facenet.index",
        "facenet.types",
        "facenet.verify",
        "facenet.cluster_threshold",
        "facenet.quantise",
        "facenet.data.synthetic",
        "facenet.align",
        "facenet.data.records",
    ],
)
def test_light_rooms_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scripts_are_short_and_documented() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "scripts").glob("*.py"):
        if path.stem in ("launch", "schema"):
            continue
        assert len(path.read_text().splitlines()) <= 90, f"{path.name} does more than parse, call and print"
        assert re.search(rf"\b{path.stem}\b", readme), f"README does not mention scripts/{path.name}"


def test_the_readme_maps_every_room() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [p.relative_to(ROOT).as_posix() for p in ROOMS if f"`{p.relative_to(ROOT).as_posix()}`" not in readme]
    missing = [
        m for m in missing if not re.search(r"(synthetic|index|report|compat|faults)_\w+|linear_attention_forms", m)
    ]
    assert not missing, f"README's file map lacks {missing}"
