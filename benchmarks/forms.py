"""One face set as a folder and in each larger form: the same batches, the same weights, and faces per second.

The set is written once in each form, from the same bytes of each image, and scanned. A small net trains on each form,
and on the packed cache of the first one. But for the cache, every image is decoded when a batch asks for it. Speed is
that of loading alone: the same random batches, the forms one after the other in every round.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from benchmarks.resources import cores
from benchmarks.tables import Table, megabytes
from facenet.data.cache import pack
from facenet.data.datamodule import BatchDataset
from facenet.data.drawn import faces as drawn
from facenet.data.face_cache import FaceCache
from facenet.data.index import index_folder
from facenet.data.options import DrawnOptions
from facenet.data.preprocess import Preprocess
from facenet.data.records import Records
from facenet.data.scan import scan_set
from facenet.data.sources.forms import FORMS
from facenet.data.sources.kinds import scan, scan_usable
from facenet.data.splits import share_of_people
from facenet.errors import choose
from facenet.export.speed import interleave
from facenet.options import SEED, build, option
from facenet.options import Options as BaseOptions
from facenet.training.options import TrainOptions
from facenet.training.run import train
from tests.helpers import sets

PACKED = "packed cache"
PASSES = 10  # over the packed faces in a timed round: one takes milliseconds
MARGIN = 1.25  # what the data module keeps around an image that is augmented
WAYS = ("read", "here", "workers")
SHOWN = 12  # hexadecimal digits of a SHA-256 in a table


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the forms."""

    root: str | None = option(None, help="folder of JPEGs by person; null draws faces into a temporary folder")
    images: int | None = option(None, least=1, help="about so many of them, by whole people; null: all")
    forms: tuple[str, ...] = option(("folder", *FORMS), help="forms that are written; the first is compared with")
    steps: int = option(100, least=1, help="steps of each training")
    batch_size: int = option(120, least=6, help="faces of a batch")
    size: int = option(64, least=16, help="pixels of a side that the net reads")
    crop: float = option(0.52, above=0, most=1, help="side of the central square that is used")
    faces: int = option(2000, least=1, help="faces loaded in a timed round")
    repeats: int = option(5, least=1, help="timed rounds")
    workers: int | None = option(None, least=1, help="loader processes; null is one for each core")
    folder: str | None = option(None, help="where to write; null: a temporary folder")
    seed: int = option(0, **SEED, help="of the trainings, and of the batches that are timed")


def run(options: Options) -> dict[str, Any]:
    """Write, scan, train and time; returns plain numbers in nested objects.

    ``sets.<form>``: `images`, `people`, `duplicates`, `bytes` on disk, and `sha256` over the labels and the digest of
    each image. ``trained.<form>``: SHA-256 over `rows` and over `pixels` of all batches, and over the final `weights`.
    `same`: whether all of these are equal in all forms. ``speed.<form>.<way>``: faces per second, `least`, `most`, and
    `packed_ratio`, that of the packed cache over it (median of the rounds). The ways: `read` takes the bytes alone,
    `here` decodes in this process, `workers` in loader processes.

    Raises:
        ConfigError: an unknown form.
        DataError: no images in the folder.
    """
    for form in options.forms:
        choose({"folder": None, **FORMS}, form, "benchmark.forms")
    workers = options.workers or cores()
    with tempfile.TemporaryDirectory(prefix="facenet-forms-", dir=options.folder) as name:
        place = Path(name)
        roots = write_forms(_chosen(options, place), options.forms, place)
        scanned = {form: scan_form(root) for form, root in roots.items()}
        runs = {form: (root, "none") for form, root in roots.items()} | {PACKED: (roots[options.forms[0]], "disk")}
        trained = {name: train_on(*chosen, place / name, workers, options) for name, chosen in runs.items()}
        hashes = [{"set": scanned.get(form, scanned[options.forms[0]])["sha256"]} | trained[form] for form in runs]
        return {
            "steps": options.steps,
            "batch_size": options.batch_size,
            "size": options.size,
            "faces": options.faces,
            "workers": workers,
            "sets": scanned,
            "trained": trained,
            "same": all(one == hashes[0] for one in hashes),
            "speed": measure_speed(roots, workers, options),
        }


def _chosen(options: Options, place: Path) -> Records:
    """Return the images of the folder, or drawn ones, that lie in a person's folder; duplicates stay among them."""
    if options.root is None:
        drawn.write_folder(drawn.draw(range(60), 6, DrawnOptions(size=112, difficulty=0.5)), place / "drawn")
    records = scan(options.root or place / "drawn").in_order()
    records = records.of_people(name for name in records.names if name)
    return share_of_people(records, min(1.0, (options.images or len(records)) / len(records)), options.seed)


def write_forms(records: Records, forms: Sequence[str], place: Path) -> dict[str, Path]:
    """Write the images in each form; returns the path of each set. RecordIO knows people by number alone."""
    sources = [Path(records.root) / path for path in records.paths]
    named = [
        sets.Face(file.stem, name, file.read_bytes()) for file, name in zip(sources, records.identities, strict=True)
    ]
    numbered = [face._replace(identity=str(label)) for face, label in zip(named, records.labels.tolist(), strict=True)]
    write: dict[str, tuple[str, Callable[[Path], None]]] = {
        "folder": ("faces", lambda path: sets.write_folder(path, named)),
        "recordio": ("train.rec", lambda path: sets.write_recordio(path, numbered)),
        "tar": ("faces.tar", lambda path: sets.write_tar(path, named, labelled=False)),
        "zip": ("faces.zip", lambda path: sets.write_zip(path, named)),
        "parquet": ("faces.parquet", lambda path: sets.write_parquet(path, named, text=True, rows=100)),
    }
    roots = {form: place / "sets" / form / write[form][0] for form in forms}
    for form, root in roots.items():
        write[form][1](root)
    return roots


def scan_form(root: Path) -> dict[str, Any]:
    """Scan a set as ``facenet scan`` does, and say what it holds."""
    found = scan_set("folder", str(root), index_folder(root))
    columns = found.index.columns
    assert columns.digest is not None
    files = [root] if root.is_file() else [file for file in root.rglob("*") if file.is_file()]
    return {
        "images": len(columns.labels),
        "people": len(columns.names),
        "duplicates": found.duplicates,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": hashlib.sha256(
            np.ascontiguousarray(columns.labels).tobytes() + columns.digest[:].tobytes()
        ).hexdigest(),
    }


class Digests(pl.Callback):
    """SHA-256 over the rows and the stored pixels of all batches, and over the weights at the end."""

    def __init__(self) -> None:
        self._rows, self._pixels, self._weights = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def on_train_batch_start(self, trainer: Any, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Take what the batch is of, before anything is augmented."""
        self._rows.update(np.asarray(trainer.datamodule.sampler.batch(trainer.global_step), np.int64).tobytes())
        self._pixels.update(batch[0].stored.numpy().tobytes() + batch[1].numpy().tobytes())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take every tensor of the module, by name."""
        for name, value in sorted(pl_module.state_dict().items()):
            self._weights.update(name.encode() + value.cpu().numpy().tobytes())

    def found(self) -> dict[str, str]:
        """Return the three in hexadecimal digits."""
        return {name: getattr(self, f"_{name}").hexdigest() for name in ("rows", "pixels", "weights")}


def train_on(root: Path, cache: str, out: Path, workers: int, options: Options) -> dict[str, str]:
    """Train the small net on a set; returns what :class:`Digests` found."""
    values = {
        "seed": options.seed,
        "data": {"kind": "folder", "root": str(root), "crop": options.crop, "seed": options.seed},
        "model": {"name": "small", "input_size": [options.size] * 2},
        "sampler": {"batch_size": options.batch_size, "faces_per_identity": 4},
        "loader": {"cache": cache, "cache_dir": str(out / "cache"), "workers": workers},
        "logger": {"name": "none"},
        "trainer": {
            "max_steps": options.steps,
            "val_check_interval": options.steps,
            "accelerator": "cpu",
            "progress": False,
        },
    }
    digests = Digests()
    train(build(TrainOptions, values), out, lambda line: None, callbacks=[digests])
    return digests.found()


def measure_speed(roots: Mapping[str, Path], workers: int, options: Options) -> dict[str, Any]:
    """Load the same random faces from each form in turns, and from the packed cache; see :func:`run`."""
    preprocess = Preprocess(size=(options.size, options.size), crop=options.crop)
    found = {form: scan_usable("folder", str(root), max_bad_share=1)[1] for form, root in roots.items()}
    first = next(iter(found.values()))
    rows = np.random.default_rng(options.seed).permutation(len(first))[: options.faces]
    batches = [rows[at : at + options.batch_size].tolist() for at in range(0, len(rows), options.batch_size)]
    packed = BatchDataset(pack(first, preprocess, margin=MARGIN)[0], first.labels)
    steps: dict[str, Callable[[], object]] = {PACKED: partial(_load, packed, batches * PASSES)}
    for form, records in found.items():
        faces = BatchDataset(FaceCache(records, preprocess, MARGIN, keep=False), records.labels)
        loader: Any = DataLoader(faces, None, sampler=batches, num_workers=workers, persistent_workers=True)
        steps |= {
            f"{form} read": partial(_read, records, rows.tolist()),
            f"{form} here": partial(_load, faces, batches),
            f"{form} workers": partial(list, loader),
        }
    times = interleave(
        steps, float("inf"), options.repeats
    )  # the first round, which starts the workers, does not count
    rates = {name: np.array([len(rows) / seconds for seconds in spent]) for name, spent in times.items()}
    rates[PACKED] *= PASSES
    speed: dict[str, Any] = {
        form: {way: _entry(rates[f"{form} {way}"], rates[PACKED]) for way in WAYS} for form in found
    }
    return {**speed, PACKED: {"here": _entry(rates[PACKED], rates[PACKED])}}


def _load(faces: BatchDataset, batches: Sequence[list[int]]) -> None:
    for rows in batches:
        faces[rows]


def _read(records: Records, rows: Sequence[int]) -> None:
    for row in rows:
        source = records.source(row)
        if isinstance(source, Path):
            source.read_bytes()


def _entry(rates: np.ndarray, packed: np.ndarray) -> dict[str, float]:
    return {
        "faces_per_second": statistics.median(rates.tolist()),
        "least": float(rates.min()),
        "most": float(rates.max()),
        "packed_ratio": statistics.median((packed / rates).tolist()),
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    held: list[tuple[Any, ...]] = [
        (
            form,
            f"{one['images']:,}",
            f"{one['people']:,}",
            one["duplicates"],
            megabytes(one["bytes"]),
            one["sha256"][:SHOWN],
        )
        for form, one in result["sets"].items()
    ]
    trained: list[tuple[Any, ...]] = [
        (form, *(one[name][:SHOWN] for name in ("rows", "pixels", "weights")))
        for form, one in result["trained"].items()
    ]
    speed: list[tuple[Any, ...]] = [
        (
            form,
            way,
            *(round(one[name]) for name in ("faces_per_second", "least", "most")),
            f"{one['packed_ratio']:.3g}x",
        )
        for form, ways in result["speed"].items()
        for way, one in ways.items()
    ]
    same = "the same in all forms" if result["same"] else "NOT the same in all forms"
    title = f"{result['steps']} steps of {result['batch_size']} faces: {same}"
    loaded = f"{result['faces']} random faces to {result['size']} px, {result['workers']} workers"
    return [
        Table("one set", ("form", "images", "people", "duplicates", "on disk", "SHA-256"), held),
        Table(title, ("form", "rows", "pixels", "weights"), trained),
        Table(loaded, ("form", "way", "faces/s (median)", "least", "most", "packed / this"), speed),
    ]
