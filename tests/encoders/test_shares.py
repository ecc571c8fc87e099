"""Ranks and jobs that share a set out make what one process makes, whoever is killed and whenever."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet import types
from facenet.data.records import Records
from facenet.data.sources.folder import scan_folder
from facenet.encoders import shares
from facenet.encoders.blocks import PARTS
from facenet.encoders.embedding import embed_records
from facenet.encoders.encoder import Encoder
from facenet.encoders.shares import Embedded, Share, embed_share
from facenet.errors import DataError
from facenet.types import EmbeddingSet
from tests.helpers.encoders import make
from tests.helpers.pictures import write_tree

SIZES = {"batch_size": 3, "block": 5}  # blocks of 6 rows


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """23 images, one of which can not be read: four blocks, the last with 5 rows."""
    write_tree(tmp_path / "faces", 6, 4)
    (tmp_path / "faces/p005/p005_0004.png").unlink()
    found = scan_folder(tmp_path / "faces")
    (tmp_path / "faces" / found.paths[7]).write_bytes(b"broken")
    return found


@pytest.fixture
def whole(encoder: Encoder, records: Records) -> EmbeddingSet:
    """The set of one process that holds everything in memory."""
    return embed_records(encoder, records, batch_size=3)[0]


def embed(encoder: Encoder, records: Records, out: Path, share: Share, **more: Any) -> Embedded:
    return embed_share(encoder, records, out, share=share, **{**SIZES, **more})


def assert_sealed(out: Path, whole: EmbeddingSet, lost: str) -> None:
    found = EmbeddingSet.load(out)
    assert found.vectors.tobytes() == whole.vectors.tobytes()
    assert (found.paths, found.identities) == (whole.paths, whole.identities)
    assert (found.fingerprint, found.root, found.extra) == (whole.fingerprint, whole.root, {})
    assert {path.name for path in out.iterdir()} == {"vectors.npy", "items.csv", "meta.json", "skipped.csv"}
    assert (out / "skipped.csv").read_text().splitlines()[1].startswith(f"{lost},")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_jobs_make_the_set_of_one_process(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path, order: Sequence[int]
) -> None:
    out = tmp_path / "e"
    for shard in order[:-1]:
        done = embed(encoder, records, out, Share(shard=shard, shards=3))
        assert done.embeddings is None
        with pytest.raises(DataError, match="no such file"):
            EmbeddingSet.load(out)
    done = embed(encoder, records, out, Share(shard=order[-1], shards=3))
    assert done.embeddings is not None
    assert [one.path for one in done.skipped] == [records.paths[7]]
    assert isinstance(done.embeddings.vectors, np.memmap)
    assert_sealed(out, whole, records.paths[7])


def test_ranks_wait_for_each_other_and_one_of_them_seals(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "POLL", 0.01)
    out, calls, found = tmp_path / "e", [], {}

    def work(rank: int) -> None:
        show = (lambda *done: calls.append(done)) if rank == 0 else None
        found[rank] = embed(encoder, records, out, Share(rank, 3), progress=show)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1, 2)]
    threads[0].start()
    deadline = time.monotonic() + 60
    while len([*(out / PARTS).glob("block-*.json")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].embeddings is not None
    assert sum(done.rows for done in found.values()) == 23
    assert calls[-1] == (23, 23)
    assert_sealed(out, whole, records.paths[7])


def counted(monkeypatch: pytest.MonkeyPatch, *, most: int = 10**9) -> list[int]:
    """List the blocks that are embedded by their first row; what comes after `most` of them is a kill."""
    begun: list[int] = []
    kept = shares.embed_rows

    def embed_rows(encoder: Encoder, records: Records, rows: range, **more: Any) -> Any:
        if len(begun) >= most:
            raise KeyboardInterrupt
        begun.append(rows.start)
        return kept(encoder, records, rows, **more)

    monkeypatch.setattr(shares, "embed_rows", embed_rows)
    return begun


def test_a_killed_process_goes_on_also_among_other_ranks(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, most=2)
        with pytest.raises(KeyboardInterrupt):
            embed(encoder, records, out, Share())
    with pytest.MonkeyPatch.context() as patch:
        begun = counted(patch)
        embed(encoder, records, out, Share(shard=1, shards=2))
        assert begun == [18], "blocks 0 and 1 are there, block 2 is the other job's"
        embed(encoder, records, out, Share())
        assert begun == [18, 12]
        assert_sealed(out, whole, records.paths[7])
        assert embed(encoder, records, out, Share(1, 2)).rows == 0
        assert begun == [18, 12], "a sealed set is not embedded again"
        data = bytearray((out / "vectors.npy").read_bytes())
        data[-3] ^= 1
        (out / "vectors.npy").write_bytes(bytes(data))
        embed(encoder, records, out, Share())
        assert begun[2:] == [0, 6, 12, 18], "a damaged one is"
    assert_sealed(out, whole, records.paths[7])


@pytest.mark.parametrize("stage", ["write_csv", "write_sealed"])
def test_a_process_killed_while_it_seals(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "e"

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(types, stage, kill)
        with pytest.raises(KeyboardInterrupt):
            embed(encoder, records, out, Share())
    assert (out / "vectors.npy").is_file()
    (out / ".vectors.npy.abcdefgh.tmp").write_bytes(b"of a killed process")
    with pytest.raises(DataError, match=r"meta\.json: no such file"):
        EmbeddingSet.load(out)
    with pytest.MonkeyPatch.context() as patch:
        begun = counted(patch)
        embed(encoder, records, out, Share(shard=2, shards=3))
        assert begun == []
    assert_sealed(out, whole, records.paths[7])


def test_a_damaged_block_is_embedded_again(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    embed(encoder, records, out, Share(shard=0, shards=2))
    file = out / PARTS / "block-000002.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    (out / PARTS / ".block-000003.npy.abcdefgh.tmp").write_bytes(b"of a killed process")
    embed(encoder, records, out, Share(shard=1, shards=2))
    assert_sealed(out, whole, records.paths[7])


def test_an_unfinished_set_of_other_content_is_refused(encoder: Encoder, records: Records, tmp_path: Path) -> None:
    out, share = tmp_path / "e", Share(shard=1, shards=2)
    embed(encoder, records, out, share)
    before = sorted((out / PARTS).iterdir())
    other = [
        ((make(1), records, share), {}, "encoder"),
        ((replace(encoder, preprocess=replace(encoder.preprocess, crop=0.5)), records, share), {}, "preprocessing"),
        ((encoder, records.subset(range(22)), share), {}, r"images \(was 23, is 22\).*list of images"),
        ((encoder, records.subset([1, 0, *range(2, 23)]), share), {}, "list of images"),
        ((encoder, records, share), {"batch_size": 2}, r"batch_size \(was 3, is 2\)"),
        ((encoder, records, share), {"block": 9}, r"block \(was 6, is 9\)"),
    ]
    for (net, faces, part), more, said in other:
        with pytest.raises(DataError, match=f"changed: .*{said}.*delete .*{PARTS} to begin anew"):
            embed(net, faces, out, part, **more)
    (tmp_path / "faces" / records.paths[0]).write_bytes(b"changed")
    with pytest.raises(DataError, match="sizes or times"):
        embed(encoder, records, out, share)
    assert sorted((out / PARTS).iterdir()) == before


def test_an_older_set_stays_until_the_new_one_is_complete(
    encoder: Encoder, records: Records, whole: EmbeddingSet, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    old = embed_records(make(1), records)[0]
    old.save(out)
    embed(encoder, records, out, Share(shard=0, shards=2))
    assert EmbeddingSet.load(out).fingerprint == old.fingerprint
    embed(encoder, records, out, Share(shard=1, shards=2))
    assert_sealed(out, whole, records.paths[7])


def test_nothing_readable_is_an_error_and_leaves_nothing(encoder: Encoder, records: Records, tmp_path: Path) -> None:
    for path in records.paths:
        (tmp_path / "faces" / path).write_bytes(b"broken")
    with pytest.raises(DataError, match="no image could be read"):
        embed(encoder, records, tmp_path / "e", Share())
    assert not (tmp_path / "e").exists()


def test_a_broken_encoder_leaves_nothing(encoder: Encoder, records: Records, tmp_path: Path) -> None:
    broken = make()
    broken.model.load_state_dict({name: value * 0 for name, value in broken.model.state_dict().items()})
    with pytest.raises(DataError, match="not of unit length"):
        embed(broken, records, tmp_path / "e", Share())
    assert not (tmp_path / "e").exists()


def test_every_block_has_one_owner() -> None:
    for world, number in ((1, 1), (2, 1), (1, 3), (3, 2)):
        all_of_them = [Share(rank, world, shard, number) for rank in range(world) for shard in range(number)]
        for block in range(40):
            assert sum(share.owns(block) for share in all_of_them) == 1
            assert all(share.awaits(block) for share in all_of_them if share.owns(block))


def test_the_block_files_tell_what_they_are(encoder: Encoder, records: Records, tmp_path: Path) -> None:
    embed(encoder, records, tmp_path / "e", Share(shard=1, shards=2))
    parts = tmp_path / "e" / PARTS
    record = json.loads((parts / "block-000001.json").read_text())
    assert record["count"] == 5
    assert [row for row, _ in record["unreadable"]] == [7]
    assert np.load(parts / "block-000001.npy").shape == (5, 16)
