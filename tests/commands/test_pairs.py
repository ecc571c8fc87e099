"""The command ``pairs``: pairs drawn among one's own faces, a .bin set unpacked, and both scored by ``verify``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from facenet.data.pairs import read_pairs
from facenet.encoders.bundle import save_bundle
from tests.helpers.bin_sets import write_values
from tests.helpers.commands import mistaken, succeed
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("own") / "faces", 12, 4)


def test_drawn_pairs_are_balanced_and_people_are_in_one_fold(faces: Path, tmp_path: Path) -> None:
    (faces / "p003" / "p003_0002.png").write_bytes(b"broken")
    given = (f"data.root={faces}", f"out={tmp_path / 'p'}", "folds=3", "pairs_per_fold=20")
    metrics = succeed("pairs", *given, out=tmp_path / "run")
    pairs = read_pairs(tmp_path / "p" / "pairs.csv")
    assert (metrics["pairs"], metrics["same"], metrics["folds"]) == (len(pairs), 30, 3) == (60, 30, 3)
    keys = {*pairs.first, *pairs.second}
    assert metrics["images"] == len(keys)
    assert "p003/p003_0002" not in keys, "an image that can not be read is in no pair"
    people = [
        {
            key.split("/")[0]
            for row in range(60)
            if pairs.fold[row] == fold
            for key in (pairs.first[row], pairs.second[row])
        }
        for fold in range(3)
    ]
    assert sum(map(len, people)) == len(set.union(*people)) == metrics["people"]
    text = (tmp_path / "p" / "pairs.csv").read_text()
    succeed("pairs", *given, out=tmp_path / "again")
    assert (tmp_path / "p" / "pairs.csv").read_text() == text
    succeed("pairs", *given, "seed=1", out=tmp_path / "again")
    assert (tmp_path / "p" / "pairs.csv").read_text() != text


def test_pairs_of_listed_people_alone(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("5\n" + "".join(f"p{person:03d}\t4\n" for person in range(5, 10)))
    given = (f"data.root={faces}", f"data.people={tmp_path / 'some.txt'}", "folds=2", "pairs_per_fold=12")
    assert succeed("pairs", *given, f"out={tmp_path / 'p'}", out=tmp_path / "run")["pairs"] == 24
    pairs = read_pairs(tmp_path / "p" / "pairs.csv")
    assert {key[:4] for key in (*pairs.first, *pairs.second)} == {f"p{person:03d}" for person in range(5, 10)}


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["data.root={faces}", "folds=3", "pairs_per_fold=600"], 3, "supply [0-9]+ pairs in each of 3 folds; ask for"),
        (["data.root={faces}", "folds=20"], 3, "20 folds need 40 people.*ask for folds=6 or fewer"),
        ([], 2, "pass data.root=FACES"),
        (["data=synthetic"], 2, "give data.root=FACES"),
        (["bin=a.bin", "data.root={faces}"], 2, "leave data.root out"),
        (["bin=a.bin"], 3, "a.bin: no such file"),
    ],
)
def test_what_can_not_be_drawn_is_said_in_one_line(
    faces: Path, tmp_path: Path, given: list[str], code: int, says: str
) -> None:
    import re

    arguments = [argument.format(faces=faces) for argument in given]
    status, said = mistaken("pairs", *arguments, f"out={tmp_path / 'p'}", out=tmp_path / "run")
    assert status == code
    assert re.search(says, said), said
    assert not (tmp_path / "p").exists()


def test_a_bin_set_is_unpacked_and_scored_with_its_digest(faces: Path, tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted(faces.rglob("*_000[1-4].png")) if path.stat().st_size > 99][:40]
    same = [row % 2 == 0 for row in range(20)]
    file, folder = write_values(tmp_path / "own.bin", images, same), tmp_path / "set"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    metrics = succeed("pairs", f"bin={file}", f"out={folder}", out=tmp_path / "run")
    assert (metrics["pairs"], metrics["images"], metrics["sha256"]) == (20, 40, digest)
    save_bundle(make(), tmp_path / "e")
    ways = {
        "folder": [f"data.root={folder}", f"pairs={folder / 'pairs.csv'}"],
        "file": [f"pairs={file}", f"data.cache_dir={tmp_path / 'cache'}"],
    }
    found = {
        name: succeed("verify", f"encoder={tmp_path / 'e'}", *given, out=tmp_path / name)["verification"]
        for name, given in ways.items()
    }
    assert found["folder"] == found["file"]
    assert found["file"]["source"] == {"file": "own.bin", "sha256": digest}
    status, said = mistaken("pairs", f"data.root={faces}", f"out={folder}", out=tmp_path / "run2")
    assert (status, "holds the pairs of a .bin set" in said) == (2, True)
