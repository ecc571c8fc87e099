"""What an evaluation scored, kept in a folder: ``evaluation/`` of a run folder, from which reports are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from facenet.data.records import Records
from facenet.evaluation.verification import score_pairs
from facenet.files import atomic_write, write_csv
from facenet.types import EmbeddingSet, Pairs

THUMBNAIL = 64  # pixels a side, at most


def save_evaluation(folder: str | Path, embeddings: EmbeddingSet, faces: Records, pairs: Pairs) -> None:
    """Keep what was scored: an EmbeddingSet folder, ``pairs.csv`` and, for faces without files, ``thumbnails.npy``.

    ``pairs.csv`` has the columns first, second, same, fold, sq_dist and a row for each scored pair, in their order;
    ``thumbnails.npy`` (N, S, S, 3) uint8 with S <= 64 has the rows of ``items.csv``. `root` in ``meta.json`` is the
    absolute folder of the images, "" for faces without files.
    """
    folder = Path(folder)
    (folder / "meta.json").unlink(missing_ok=True)  # written last, so that half a folder does not load
    scored = score_pairs(embeddings, pairs, allow_missing=True)
    kept = scored.pairs
    columns = (kept.same.astype(int).tolist(), kept.fold.tolist(), map(float, scored.sq_dist))
    header = ("first", "second", "same", "fold", "sq_dist")
    write_csv(folder / "pairs.csv", header, zip(kept.first, kept.second, *columns, strict=True))
    (folder / "thumbnails.npy").unlink(missing_ok=True)
    if faces.images is not None:
        with atomic_write(folder / "thumbnails.npy") as file:
            np.save(file, thumbnails(faces.images))
    root = "" if faces.images is not None or not faces.root else str(Path(faces.root).resolve())
    beside = [name for name in ("pairs.csv", "thumbnails.npy") if (folder / name).is_file()]
    replace(embeddings, root=root).save(folder, beside=beside)


def thumbnails(images: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """Return images (N, H, W, 3) uint8 as squares (N, S, S, 3) uint8, S the least of `side`, H and W."""
    side = min(side, *images.shape[1:3])
    small = np.empty((len(images), side, side, 3), np.uint8)
    for row, image in enumerate(images):
        small[row] = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BOX))
    return small
