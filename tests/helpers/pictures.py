"""Pictures drawn for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth ramp: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8)


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
