"""Who may import whom: packages in layers, and third-party packages that one place owns."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted(p for p in (ROOT / "facenet").rglob("*.py"))

# In import order: a row imports from rows above and, without cycles, from its own.
LAYERS = (
    ("errors", "interrupts", "options", "registry"),
    ("files", "types", "vectors", "console", "texts"),
    ("foreign",),
    ("faces",),
    ("models", "data"),
    ("mining",),
    ("losses", "large_batch"),
    ("encoders",),
    ("evaluation", "neighbours"),
    ("gallery", "clustering", "compat", "export"),
    ("training", "tracks"),
    ("report",),
    ("service",),
    ("commands",),
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
VIOLATIONS: set[str] = set()  # may only shrink

# third-party package -> the places that may import it
OWNERS = {
    "hydra": {"commands"},
    "omegaconf": {"commands"},
    "sqlite3": {"gallery.sql"},
    "psycopg": {"gallery.engines.postgres"},
    "pgvector": {"gallery.engines.postgres"},
    "pymilvus": {"gallery.engines.milvus"},
    "openvino": {"export.edge"},
    "litert_torch": {"export.edge"},
    "coremltools": {"export.edge"},
    "faiss": {"gallery.faiss", "neighbours", "evaluation.quantisation"},
}
SQL = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE .* SET|DELETE FROM|CREATE TABLE|PRAGMA|VACUUM|ROLLBACK)\b")


def place(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "facenet").with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_layers_import_upwards_only() -> None:
    found, same = set(), set()
    for path in ROOMS:
        own = place(path).partition(".")[0]
        for name in imports(path):
            other = name.split(".")[1] if name.startswith("facenet.") else ""
            if own in ROW and other in ROW and other != own and ROW[other] >= ROW[own]:
                (same if ROW[other] == ROW[own] else found).add(f"{own} -> {other}")
    found |= {edge for edge in same if " -> ".join(edge.split(" -> ")[::-1]) in same}
    assert found == VIOLATIONS


@pytest.mark.parametrize("path", ROOMS, ids=place)
def test_a_package_is_imported_by_its_owner_alone(path: Path) -> None:
    packages = {".".join(module.split(".")[:n]) for module in imports(path) for n in (1, 2)}
    own = {".".join(place(path).split(".")[:n]) for n in (1, 2, 3)}
    foreign = {p for p in packages if p in OWNERS and not OWNERS[p] & own}
    assert not foreign, f"{place(path)} imports {sorted(foreign)}"


def test_no_test_file_imports_another() -> None:
    """What test files share lies in tests/helpers, so that a test file can be moved, split or deleted on its own."""
    for path in (ROOT / "tests").rglob("*.py"):
        others = re.findall(r"^\s*(?:from|import) (tests\.(?:\w+\.)*test_\w+)", path.read_text(), re.MULTILINE)
        assert not others, f"{path.relative_to(ROOT)} imports {others}; move what they share into tests/helpers"


def test_sql_stands_in_a_package_of_each_database() -> None:
    found = {
        place(path).rpartition(".")[0]
        for path in ROOMS
        for node in nodes(path)
        if (isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value))
        or (isinstance(node, ast.Attribute) and node.attr in ("execute", "executemany", "executescript"))
    }
    assert found == {"gallery.sql", "gallery.engines.postgres"}


# what imports none of HEAVY; interrupts and errors come first, so that the one that breaks the rule is named
LIGHT = (
    *("facenet", "facenet.errors", "facenet.interrupts", "facenet.options", "facenet.registry", "facenet.files"),
    *("facenet.types", "facenet.vectors", "facenet.console", "facenet.foreign", "facenet.neighbours"),
    *("facenet.faces.alignment", "facenet.data.records", "facenet.data.pictures", "facenet.data.cache"),
    *("facenet.encoders.lookup", "facenet.encoders.embedding", "facenet.evaluation.evaluate"),
    *("facenet.evaluation.photos", "facenet.evaluation.degradation", "facenet.evaluation.degradation_plot"),
    *("facenet.gallery.gallery", "facenet.gallery.queries", "facenet.gallery.answers", "facenet.gallery.exchange"),
    *("facenet.models.registry", "facenet.mining.rules", "facenet.losses.registry"),
    *("facenet.evaluation.thresholds", "facenet.clustering.clusters", "facenet.clustering.threshold"),
)
HEAVY = ("torch", "torchvision", "faiss", "scipy", "sklearn", "matplotlib", "onnx", "onnxruntime", "rich")


def test_light_modules_import_nothing_heavy() -> None:
    code = """if True:
        import importlib, sys
        for name in sys.argv[1].split():
            importlib.import_module(name)
            found = [heavy for heavy in sys.argv[2].split() if heavy in sys.modules]
            if found:
                sys.exit(f"{name} imports {found}")"""
    line = [sys.executable, "-c", code, " ".join(LIGHT), " ".join(HEAVY)]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def test_files_and_functions_stay_small() -> None:
    assert len(list((ROOT / "facenet").glob("*.py"))) <= 12
    for path in ROOMS:
        assert len(path.read_text().splitlines()) <= 350, f"{place(path)}: does it hold one concept?"
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert code_lines(node) <= 60, f"{place(path)}.{node.name}: could a reader hold it in one look?"


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "scripts").glob("*.py"):
        assert re.search(rf"\b{path.stem}\b", readme), f"README does not mention scripts/{path.name}"
        assert len(path.read_text().splitlines()) <= 8, f"scripts/{path.name} does more than call facenet.commands"
