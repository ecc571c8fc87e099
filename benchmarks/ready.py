"""How long training takes to its first batch from the index of a made set as large as WebFace42M, and in what memory.

The pictures are a few hundred drawn ones in a tar file: the rows of the index point to these again and again, with
names and people of their own. So everything but the size of the file on disk is as in a set of so many pictures.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from benchmarks.resources import STATUS, in_fresh_process, status_bytes, watched_peak
from benchmarks.sampler import IMAGES, draw_labels
from benchmarks.tables import Table, megabytes
from facenet.data.drawn.faces import draw
from facenet.data.index import Columns, Index, columns_of, digest_of_image, index_folder, padded
from facenet.data.options import DrawnOptions
from facenet.data.sources.forms import FORMS
from facenet.options import Options as BaseOptions
from facenet.options import option

if TYPE_CHECKING:
    from torch import Tensor

    from facenet.data.datamodule import FaceDataModule
    from facenet.data.splits import Splits

STAGES = (
    *("imports", "index and division", "held-out and reported faces", "sampler"),
    *("first batch", "rows of all batches until the later one", "the later batch"),
)


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the time to the first batch."""

    images: tuple[int, ...] = option((100_000, 1_000_000, 10_000_000, IMAGES), least=1000, help="numbers of images N")
    batch_size: int = option(1800, least=5, help="faces of a batch")
    later: int = option(1000, least=1, help="batch that a training resumes at")
    size: int = option(96, least=16, help="pixels of a side that the net reads")
    folder: str | None = option(None, help="where to write; null: a temporary folder")


def run(options: Options) -> dict[str, Any]:
    """Make an index of each size, begin a training on it, and resume one; returns plain numbers in nested objects.

    ``images.<N>``: seconds of the `stages` and until `ready`, `peak_bytes` of resident memory, which mapped files are
    part of, `anonymous_bytes`, the peak without these, and `resumed`, the seconds until the first batch of a resumed
    training. `same`: rows, pixels and labels of that batch are those of the training that came from the beginning.
    """
    found: dict[str, Any] = {}
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="facenet-ready-", dir=options.folder) as name:
            root = Path(name) / "faces.tar"
            size = make_set(root, images)
            call = str(root), options.batch_size, options.size, options.later
            entry, again = in_fresh_process(begin, *call), in_fresh_process(resume, *call)
            resumed = {"resumed": again["ready"], "same": entry.pop("sha256") == again["sha256"]}
            found[str(images)] = {"index_bytes": size, **entry, **resumed}
    return {"batch_size": options.batch_size, "later": options.later, "images": found}


def make_set(root: Path, images: int) -> int:
    """Write a tar of 240 pictures of 112x112 and an index of so many rows; returns the bytes of the index."""
    with tarfile.open(root, "w") as tar:
        for number, picture in enumerate(drawn_pictures()):
            member = tarfile.TarInfo(f"{number // 10}/{number:03d}.jpg")
            member.size = len(picture)
            tar.addfile(member, io.BytesIO(picture))
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


def drawn_pictures() -> list[bytes]:
    """Return 240 faces of 24 people as JPEG."""
    pictures = []
    for image in draw(range(24), 10, DrawnOptions(size=112, difficulty=0.5)).images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        pictures.append(buffer.getvalue())
    return pictures


def begin(root: str, batch_size: int, size: int, later: int) -> dict[str, Any]:
    """Do what a training does before its first step, and take batches 0 and `later`; for a fresh process.

    The rows of the batches between the two are drawn as well, one batch after the other.
    """
    with watched_peak("RssAnon") if STATUS.exists() else nullcontext([None]) as anonymous:
        times = [time.perf_counter()]
        from facenet.data.sampler import Schedule

        data, splits = _ready(root, batch_size, size, times)
        first, _ = data.dataset[data.sampler.batch(0)]
        times.append(time.perf_counter())
        (*_, rows) = Schedule(data.sampler.batch, later + 1)
        times.append(time.perf_counter())
        batch = data.dataset[rows]
        times.append(time.perf_counter())
    return {
        "train": len(splits.train),
        "held_out": len(splits.held_out),
        "reported": len(splits.evaluation),
        "faces": len(first),
        "stages": dict(zip(STAGES, np.diff(times).tolist(), strict=True)),
        "ready": times[STAGES.index("first batch") + 1] - times[0],
        "peak_bytes": status_bytes("VmHWM") if STATUS.exists() else None,
        "anonymous_bytes": anonymous[0],
        "sha256": _sha256(rows, batch),
    }


def resume(root: str, batch_size: int, size: int, later: int) -> dict[str, Any]:
    """Do what a resumed training does before its first step, and take batch `later` alone; for a fresh process."""
    start = time.perf_counter()
    data, _ = _ready(root, batch_size, size, [])
    data.trainer = cast("Any", SimpleNamespace(global_step=later, max_steps=later + 1, world_size=1))
    loader = data.train_dataloader()
    (rows,), (batch,) = loader.sampler, loader
    return {"ready": time.perf_counter() - start, "sha256": _sha256(rows, batch)}


def _ready(root: str, batch_size: int, size: int, times: list[float]) -> tuple[FaceDataModule, Splits]:
    """Return what gives the batches, and the divided set; adds the time after each stage."""
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
    return data, splits


def _sha256(rows: Sequence[int], batch: Sequence[Tensor]) -> str:
    """Hash the rows, pixels and labels of a batch."""
    digest = hashlib.sha256(np.asarray(rows, np.int64).tobytes())
    for part in batch:
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    rows: list[tuple[Any, ...]] = []
    for images, entry in result["images"].items():
        stages = [f"{entry['stages'][stage]:.2f}" for stage in STAGES]
        memory = megabytes(entry["peak_bytes"]), megabytes(entry["anonymous_bytes"])
        resumed = f"{entry['resumed']:.1f}", "yes" if entry["same"] else "no"
        rows.append((f"{int(images):,}", *stages, f"{entry['ready']:.1f}", *memory, *resumed))
    header = ("images", *(f"{stage}, s" for stage in STAGES), "ready, s", "peak of memory", "without mapped files")
    title = (
        f"to the first batch of {result['batch_size']} faces, and to batch {result['later']:,} of a resumed training"
    )
    return [Table(title, (*header, "resumed, s", "the same batch"), rows)]
