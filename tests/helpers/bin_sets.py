"""Verification sets of one file, written for tests."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

from facenet.types import Pairs


def write_bin(file: Path, pairs: Pairs, images: Path, suffix: str = ".jpg", protocol: int = 4) -> Path:
    """Write the images that the pairs name, as they are on disk, and whether each pair shows one person."""
    both = zip(pairs.first, pairs.second, strict=True)
    content = [(images / f"{key}{suffix}").read_bytes() for pair in both for key in pair]
    return write_values(file, content, pairs.same.tolist(), protocol)


def write_values(file: Path, images: Sequence[object], same: Sequence[object], protocol: int = 4) -> Path:
    """Write images and labels, whatever they are."""
    file.write_bytes(pickle.dumps((list(images), list(same)), protocol))
    return file
