"""What several test files share: one torch thread, a folder of drawn faces, the LFW tree where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    """The LFW tree: FACENET_LFW, or ../shared/data/lfw beside the repository; skips without either."""
    root = Path(os.environ.get("FACENET_LFW") or ROOT.parent / "shared" / "data" / "lfw")
    if not (root / "images").is_dir():
        pytest.skip(f"no LFW tree at {root}; set FACENET_LFW to the folder that holds images/ and protocol/")
    return root


def blob(identity: int, image: int, side: int = 48) -> np.ndarray:
    """A picture (side, side, 3) whose colour pattern belongs to the identity, with noise of its own."""
    pattern = np.random.default_rng(identity).integers(0, 256, (4, 4, 3))
    noise = np.random.default_rng([identity, image]).normal(0, 12, (side, side, 3))
    return (np.kron(pattern, np.ones((side // 4, side // 4, 1))) + noise).clip(0, 255).astype(np.uint8)


def write_tree(root: Path, identities: int, images: int, side: int = 48) -> Path:
    """Write ``<root>/p000/p000_0001.png`` and so on."""
    for i in range(identities):
        folder = root / f"p{i:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        for j in range(images):
            Image.fromarray(blob(i, j, side)).save(folder / f"p{i:03d}_{j + 1:04d}.png")
    return root


@pytest.fixture(scope="session")
def face_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 identities with 4 images each."""
    return write_tree(tmp_path_factory.mktemp("faces"), 30, 4)


def write_view2(root: Path, folds: int = 10, people: int = 6, images: int = 3) -> Path:
    """Write an LFW tree: people p000 onwards dealt to the folds, with View 2's people.txt and pairs.txt."""
    write_tree(root / "images", folds * people, images)
    names, pairs = [str(folds)], [f"{folds}\t{people}"]
    for fold in range(folds):
        group = [f"p{fold * people + i:03d}" for i in range(people)]
        names += [str(people), *(f"{name}\t{images}" for name in group)]
        pairs += [f"{name}\t1\t2" for name in group]
        pairs += [f"{name}\t1\t{other}\t3" for name, other in zip(group, group[1:] + group[:1], strict=True)]
    (root / "protocol").mkdir()
    (root / "protocol" / "people.txt").write_text("\n".join(names) + "\n")
    (root / "protocol" / "pairs.txt").write_text("\n".join(pairs) + "\n")
    return root


@pytest.fixture(scope="session")
def view2_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LFW tree of ten folds of 6 people with 3 images each."""
    return write_view2(tmp_path_factory.mktemp("view2"))


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """A photograph with one face that matplotlib brings: Grace Hopper, 512x600."""
    import matplotlib

    file = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    with Image.open(file) as picture:
        return picture.convert("RGB")
