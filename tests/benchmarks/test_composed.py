"""Of composed photographs with several faces the meant one is taken, and no decoy before a better face."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.composed import DECOYS, compose, head_of, judge, worsen
from facenet.data.pictures import read_picture
from facenet.data.sources.folder import scan_lfw
from facenet.faces import alignment
from facenet.faces.alignment import NEARLY_BEST, Alignment
from facenet.faces.detector import overlap


def test_a_composed_photograph_holds_its_boxes_apart(portrait: Image.Image) -> None:
    head = head_of(portrait)
    assert head is not None
    assert head.width == head.height
    assert head_of(Image.new("RGB", (90, 90))) is None
    tints = [Image.blend(head, Image.new("RGB", head.size, colour), 0.2) for colour in ("red", "green", "blue")] * 4
    rng = np.random.default_rng(0)
    for _ in range(5):
        made = compose(tints, rng)
        boxes = [made.meant, *made.people, *made.decoys]
        assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
        assert max(box[2] for box in made.people or [made.meant]) <= made.meant[2]
    assert judge(made, Alignment()).right
    assert judge(made, Alignment(score=1.0)).kind == "nothing"
    assert len({change(head).tobytes() for change in DECOYS} | {head.tobytes()}) == len(DECOYS) + 1
    assert worsen(head, rng).size == head.size


@pytest.mark.slow  # finds the faces of 700 photographs
@pytest.mark.lfw
def test_the_meant_face_of_several_is_taken(lfw_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, rng = scan_lfw(lfw_root), np.random.default_rng(1)
    files = [Path(records.root) / records.paths[row] for row in rng.permutation(len(records))[:300]]
    heads = [head for file in files if (head := head_of(read_picture(file))) is not None]
    photographs = [compose(heads, rng) for _ in range(200)]
    choices = [judge(one, Alignment()) for one in photographs]
    kinds = Counter(choice.kind for choice in choices)
    assert kinds["meant"] >= 0.99 * len(choices)
    assert max(choice.best - choice.score for choice in choices) <= NEARLY_BEST
    assert np.mean([choice.usable for choice in choices]) > 2.5, "others compete"
    monkeypatch.setattr(alignment, "NEARLY_BEST", 1.0)
    without = Counter(judge(one, Alignment()).kind for one in photographs)
    assert without["meant"] < 0.97 * len(choices), "the score matters in these photographs"
