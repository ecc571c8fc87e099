"""How long training takes to its first batch from the index of a made set as large as WebFace42M, and in what memory.

The pictures are a few hundred drawn ones in a tar file: the rows of the index point to these again and again, with
names and people of their own. So everything but the size of the file on disk is as in a set of so many pictures.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.resources import STATUS, in_fresh_process, status_bytes
from benchmarks.sampler import IMAGES, draw_labels
from benchmarks.tables import Table, megabytes
from facenet.data.drawn.faces import draw
from facenet.data.index import Columns, Index, columns_of, digest_of_image, index_folder, padded
from facenet.data.options import DrawnOptions
from facenet.data.sources.forms import FORMS
from facenet.options import Options as BaseOptions
from facenet.options import option

STAGES = ("imports", "index and division", "held-out and reported faces", "sampler", "first batch", "a later batch")


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the time to the first batch."""

    images: tuple[int, ...] = option((100_000, 1_000_000, 10_000_000, IMAGES), least=1000, help="numbers of images N")
    batch_size: int = option(1800, least=5, help="faces of a batch")
    size: int = option(96, least=16, help="pixels of a side that the net reads")
    folder: str | None = option(None, help="where to write; null: a temporary folder")


def run(options: Options) -> dict[str, Any]:
    """Make an index of each size and begin a training on it; returns seconds of each stage, and the peak of memory."""
    found: dict[str, Any] = {}
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="facenet-ready-", dir=options.folder) as name:
            root = Path(name) / "faces.tar"
            size = make_set(root, images)
            found[str(images)] = {"index_bytes": size} | in_fresh_process(
                begin, str(root), options.batch_size, options.size
            )
    return {"batch_size": options.batch_size, "images": found}


def make_set(root: Path, images: int) -> int:
    """Write a tar of 240 pictures of 112x112 and an index of so many rows; returns the bytes of the index."""
    drawn = draw(range(24), 10, DrawnOptions(size=112, difficulty=0.5))
    digests = []
    with tarfile.open(root, "w") as tar:
        for number, image in enumerate(drawn.images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95)
            member = tarfile.TarInfo(f"{drawn.identities[number]}/{number:03d}.jpg")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
            digests.append(digest_of_image(buffer.getvalue()))
    few = columns_of(FORMS["tar"].list_images(root, None))
    shard = FORMS["tar"].open_shard(root)
    read = [shard.read(*place) for place in zip(few.offset[:], few.length[:], strict=True)]
    shard.close()
    labels = draw_labels(images)
    which = np.arange(images) % len(read)
    digest = np.array([digest_of_image(data) for data in read], np.uint64)[which]
    names, paths = (padded(np.arange(count)) for count in (int(labels[-1]) + 1, images))
    where = np.zeros(images, np.uint16), few.offset[which], few.length[which]
    place = index_folder(root)
    Index("tar", root.parent, Columns(paths, names, labels, few.shards, *where, digest)).save(place)
    return sum(file.stat().st_size for file in place.iterdir())


def begin(root: str, batch_size: int, size: int) -> dict[str, Any]:
    """Do what a training does before its first step, and take two batches; for a fresh process."""
    times = [time.perf_counter()]
    from facenet.data.cache import decode_faces
    from facenet.data.datamodule import FaceDataModule
    from facenet.data.options import DataOptions, LoaderOptions, SamplerOptions
    from facenet.data.preprocess import Preprocess
    from facenet.data.splits import split_faces

    times.append(time.perf_counter())
    preprocess, loader = Preprocess(size=(size, size)), LoaderOptions(cache="none", workers=0)
    splits = split_faces(DataOptions(kind="folder", root=root))
    times.append(time.perf_counter())
    faces = decode_faces(splits.train, splits.held_out, preprocess, loader, margin=1.25)
    times.append(time.perf_counter())
    sampler = SamplerOptions(batch_size=batch_size, faces_per_identity=8)
    data = FaceDataModule(faces, sampler=sampler, loader=loader)
    times.append(time.perf_counter())
    first, _ = data.dataset[data.sampler.batch(0)]
    times.append(time.perf_counter())
    data.dataset[data.sampler.batch(len(data.sampler) // 2)]
    times.append(time.perf_counter())
    stages = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
    return {
        "train": len(splits.train),
        "held_out": len(splits.held_out),
        "reported": len(splits.evaluation),
        "faces": len(first),
        "stages": stages,
        "ready": times[-2] - times[0],
        "peak_bytes": status_bytes("VmHWM") if STATUS.exists() else None,
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for images, entry in result["images"].items():
        stages = [f"{entry['stages'][stage]:.2f}" for stage in STAGES]
        rows.append((f"{int(images):,}", *stages, f"{entry['ready']:.1f}", megabytes(entry["peak_bytes"])))
    header = ("images", *(f"{stage}, s" for stage in STAGES), "ready, s", "peak of memory")
    return [Table(f"to the first batch of {result['batch_size']} faces", header, rows)]
