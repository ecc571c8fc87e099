"""The files that are read back, each kind as it is written, used and sealed again: what a fault campaign works on.

Everything is small: the net has one convolution and an attention over its positions, the gallery thirty faces.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_tensors

from benchmarks.faults import bin_sets
from benchmarks.faults.outcomes import Kind
from benchmarks.faults.tiny import NAME, PEOPLE, PICTURES, POOL, SIDE, D, tiny_encoder
from benchmarks.gallery import faces, ids, vector_of
from facenet.data.align_folder import COLUMNS, TABLE, Line, read_table
from facenet.data.cache import pack
from facenet.data.pair_folds import make_pairs
from facenet.data.pairs import read_pairs, write_pairs
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.sources.folder import read_alignment, scan_folder, write_alignment
from facenet.data.sources.table import scan_csv
from facenet.encoders import lookup as encoders
from facenet.encoders.bundle import save_bundle
from facenet.encoders.encoder import Encoder, fingerprint
from facenet.encoders.onnx_file import seal
from facenet.evaluation.evaluate import save_evaluation
from facenet.export.onnx import OPSET, record
from facenet.faces.alignment import Alignment
from facenet.files import digest_of, read_json, sha256_file, write_json
from facenet.gallery.gallery import Gallery
from facenet.gallery.items import digest
from facenet.gallery.queries import read_queries
from facenet.models.track_pool import TrackPool
from facenet.report.parts import read_evaluation
from facenet.report.runs import Run
from facenet.tracks.pool import read_track_pool, write_track_pool
from facenet.types import EmbeddingSet


def _seal(path: Path, **changes: Any) -> None:
    """Give a JSON file that still is an object a digest that fits."""
    with contextlib.suppress(ValueError, RecursionError, OSError):
        content = read_json(path) | changes
        content.pop("digest", None)
        path.write_text(json.dumps({**content, "digest": digest_of(content)}), encoding="utf-8", errors="surrogatepass")


def _encoder_again(folder: Path, changed: str) -> None:
    print_ = {}
    with contextlib.suppress(Exception):  # what can not be read has no fingerprint
        content = read_json(folder / "encoder.json")
        model, tensors = content["model"], load_tensors((folder / "encoder.safetensors").read_bytes())
        preprocess = Preprocess.from_dict(content["preprocessing"])
        print_ = {"fingerprint": fingerprint(tensors, model["name"], model["options"], preprocess)}
    _seal(folder / "encoder.json", **print_)


def _use_encoder(folder: Path) -> Any:
    return _effect(encoders.load(folder))


def _effect(encoder: Encoder) -> Any:
    known = [encoder.name, encoder.fingerprint, encoder.thresholds, encoder.compatible_with, encoder.training]
    return known, encoder.preprocess, encoder.embed(PICTURES)


def _make_pool(folder: Path) -> None:
    encoder = tiny_encoder()
    write_track_pool(TrackPool(D, **POOL), folder, encoder, options=POOL, training={})  # type: ignore[arg-type]


def _use_pool(folder: Path) -> Any:
    pool = read_track_pool(folder, tiny_encoder())
    return pool(torch.from_numpy(np.stack([vector_of(name) for name in PEOPLE[:3]]))[None])


def _pool_again(folder: Path, changed: str) -> None:
    sum_ = {"sha256": sha256_file(folder / "track_pool.safetensors")} if "safetensors" in changed else {}
    _seal(folder / "track_pool.json", **sum_)


def _make_embeddings(folder: Path) -> None:
    faces(PEOPLE).save(folder)


def _use_embeddings(folder: Path) -> Any:
    found = EmbeddingSet.load(folder)
    return found.vectors, found.keys, found.paths, found.identities, found.fingerprint, found.root, found.extra


def _embeddings_again(folder: Path, changed: str) -> None:
    try:
        sums = read_json(folder / "meta.json")["sha256"]
        sums = {name: sha256_file(folder / name) for name in sums} if changed != "meta.json" else sums
    except (ValueError, KeyError, TypeError, OSError):
        return
    _seal(folder / "meta.json", sha256=sums)


def _make_evaluation(folder: Path) -> None:
    found = faces([f"{name}.png" for name in PEOPLE])
    rng = np.random.default_rng(0)
    records = _records(found, rng.integers(0, 256, (len(found), 8, 8, 3), np.uint8))
    save_evaluation(folder / "evaluation", found, records, make_pairs(found.keys, found.identities, folds=2))


def _records(found: EmbeddingSet, images: np.ndarray) -> Records:
    return Records.of(tuple(found.paths), tuple(found.identities), images=images)


def _use_evaluation(folder: Path) -> Any:
    found = read_evaluation(Run(folder, "run", "verification", {}))
    assert found is not None
    return found.embeddings.vectors, found.first, found.second, found.same, found.fold, found.sq_dist, found.thumbnails


def _evaluation_again(folder: Path, changed: str) -> None:
    _embeddings_again(folder / "evaluation", Path(changed).name)


def _graph() -> bytes:
    """A net of one matrix that reads and gives what the tiny encoder does; the exporter would take seconds."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, D)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["embeddings"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *shape])
        for name, shape in (("images", (3, SIDE, SIDE)), ("embeddings", (D,)))
    ]
    inner = helper.make_graph(nodes, NAME, ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def _make_onnx(folder: Path) -> None:
    (folder / "model.part").write_bytes(_graph())
    write_json(folder / "part.json", record(tiny_encoder()))
    _onnx_again(folder, "")


def _use_onnx(folder: Path) -> Any:
    return _effect(encoders.load(folder / "tiny.onnx"))


def _onnx_again(folder: Path, changed: str) -> None:
    with contextlib.suppress(ValueError, RecursionError):  # no JSON: nothing to seal
        (folder / "tiny.onnx").write_bytes(seal((folder / "model.part").read_bytes(), read_json(folder / "part.json")))


def _make_gallery(folder: Path) -> None:
    with Gallery.open(folder, create=True) as gallery:
        gallery.add(faces(PEOPLE[:20]))
        gallery.save_cache(force=True)
        gallery.add(faces(PEOPLE[20:]))
        gallery.remove(PEOPLE[3])


def _use_gallery(folder: Path) -> Any:
    with Gallery.open(folder) as gallery:
        queries = replace(faces(PEOPLE), fingerprint=gallery.fingerprint or "")
        return sorted(ids(gallery)), gallery.hits(queries, 2), gallery.identities()


def _gallery_again(folder: Path, changed: str) -> None:
    if changed == "index.faiss":
        content = (folder / "index.faiss").read_bytes()
        _seal(folder / "index.json", bytes=len(content), sha256=[hashlib.sha256(content).hexdigest()])
    elif changed == "index.json":
        _seal(folder / "index.json")
    else:
        with contextlib.suppress(sqlite3.Error, ValueError), contextlib.closing(opened(folder / changed)) as db:
            reseal_rows(db)


def opened(path: Path) -> sqlite3.Connection:
    """An SQLite file that commits each statement."""
    return sqlite3.connect(path, isolation_level=None)


def reseal_rows(db: sqlite3.Connection) -> None:
    """Give every item of a gallery the digest that fits it."""
    rows = db.execute(
        "SELECT items.number, id, identity, path, root, metadata, fingerprint, vector FROM items"
        " JOIN encoders ON encoders.number = encoder"
    ).fetchall()
    for number, *row, vector in rows:
        vector = vector if isinstance(vector, bytes) else b""
        db.execute("UPDATE items SET digest = ? WHERE number = ?", (digest(row, vector), number))


def _make_alignment(folder: Path) -> None:
    write_alignment(folder, Alignment(size=64, margin=1.2))


def _make_faces(folder: Path) -> None:
    box, points = (1.0, 2.0, 30.0, 40.0), tuple(map(float, range(10)))
    lines = [Line(f"{name}.jpg", 100, 80, "used", f"{name}.jpg", box, 0.9, points) for name in PEOPLE]
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(line.cells() for line in lines)])


def _make_pairs(folder: Path) -> None:
    drawn = make_pairs([f"{name.replace('/', '/q_')}" for name in PEOPLE], [n.split("/")[0] for n in PEOPLE], folds=2)
    write_pairs(folder / "pairs.csv", drawn)
    names = [f"n{number}" for number in range(6)]
    lines = ["2\t3", *(2 * [*(f"{n}\t1\t2" for n in names[:3]), *(f"{n}\t1\tother\t2" for n in names[:3])])]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")


def _use_pairs(folder: Path) -> Any:
    both = [read_pairs(folder / name) for name in ("pairs.csv", "pairs.txt")]
    return [(pairs.first, pairs.second, pairs.same, pairs.fold) for pairs in both]


def _write_pictures(folder: Path) -> None:
    for place, picture in enumerate(PICTURES):
        (folder / "images" / f"p{place}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "images" / f"p{place}" / "a.png")


def _make_table(folder: Path) -> None:
    _write_pictures(folder)
    (folder / "faces.csv").write_text("path,identity\np0/a.png,Ada\np1/a.png,Bo\n")


def _use_table(folder: Path) -> Any:
    found = scan_csv(folder / "faces.csv", folder / "images")
    return found.paths, found.identities, found.skipped


def _packed(folder: Path) -> Any:
    return pack(scan_folder(folder / "images"), Preprocess(size=(SIDE, SIDE)), folder=folder / "cache")[0]


def _make_cache(folder: Path) -> None:
    _write_pictures(folder)
    _packed(folder)


def _cache_again(folder: Path, changed: str) -> None:
    if changed.endswith(".npy"):
        write_json((folder / changed).with_suffix(".json"), {"sha256": sha256_file(folder / changed)})


def _make_query(folder: Path) -> None:
    np.save(folder / "query.npy", np.array([vector_of(name) for name in PEOPLE], np.float32))
    _make_gallery(folder / "gallery")


def _use_query(folder: Path) -> Any:
    with Gallery.open(folder / "gallery") as gallery:
        return gallery.hits(read_queries(str(folder / "query.npy"), gallery, None).embeddings, 2)


def _reseal_json(name: str) -> Callable[[Path, str], None]:
    return lambda folder, changed: _seal(folder / name)


KINDS: dict[str, Kind] = {
    "encoders": Kind(lambda folder: save_bundle(tiny_encoder(), folder), _use_encoder, _encoder_again),
    "embeddings": Kind(_make_embeddings, _use_embeddings, _embeddings_again),
    "track_pools": Kind(_make_pool, _use_pool, _pool_again),
    "onnx": Kind(_make_onnx, _use_onnx, _onnx_again, "tiny.onnx", "*part*"),
    "galleries": Kind(_make_gallery, _use_gallery, _gallery_again),
    "evaluations": Kind(_make_evaluation, _use_evaluation, _evaluation_again, "evaluation/*", "evaluation/*"),
    "align_json": Kind(_make_alignment, read_alignment, _reseal_json("align.json")),
    "caches": Kind(_make_cache, _packed, _cache_again, "cache/*", "cache/*.npy"),
    "faces_csv": Kind(_make_faces, lambda folder: read_table(folder / TABLE)),
    "pairs": Kind(_make_pairs, _use_pairs),
    "bin_sets": bin_sets.KIND,
    "tables": Kind(_make_table, _use_table, None, "faces.csv"),
    "vectors": Kind(_make_query, _use_query, None, "query.npy"),
}
