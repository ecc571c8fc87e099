"""A tiny set in the form of IJB-C: people with photographs and videos, templates, pairs, galleries and probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.pictures import blob

POINTS = np.array([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]])


def write_ijb(root: Path, people: int = 8, *, name: str = "ijbc", seed: int = 0) -> Path:
    """Write ``meta/`` and ``loose_crop/``: three templates of each person, of up to three media and four frames each.

    Template 10 p + 1 is enrolled, in S1 for even people and in S2 for odd ones; 10 p + 2 and 10 p + 3 are probes. All
    pairs of an enrolled template and a probe are verified.
    """
    rng = np.random.default_rng(seed)
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    members, landmarks, rows = [], [], []
    for person in range(people):
        for template in range(1, 4):
            for medium in range(rng.integers(1, 4)):
                for _ in range(rng.integers(1, 5)):
                    image, scale = f"{len(members) + 1}.jpg", rng.uniform(0.8, 1.6)
                    points = (POINTS * scale + rng.uniform(0, 20, 2) + rng.normal(0, 0.5, (5, 2))).ravel()
                    picture = np.asarray(Image.fromarray(blob(person, len(members), 112)).resize((200, 200)))
                    Image.fromarray(picture).save(root / "loose_crop" / image, quality=90)
                    members.append(f"{image} {10 * person + template} {100 * template + medium}")
                    landmarks.append(f"{image} {' '.join(f'{x:.3f}' for x in points)} {rng.uniform(0.1, 1):.3f}")
            rows.append((10 * person + template, person))
    probes = [row for row in rows if row[0] % 10 != 1]
    pairs = [f"{a} {b} {int(a // 10 == b // 10)}" for a, _ in rows if a % 10 == 1 for b, _ in probes]
    meta = root / "meta"
    order = rng.permutation(len(members))
    (meta / f"{name}_face_tid_mid.txt").write_text("".join(f"{members[i]}\n" for i in order))
    (meta / f"{name}_name_5pts_score.txt").write_text("".join(f"{landmarks[i]}\n" for i in order))
    (meta / f"{name}_template_pair_label.txt").write_text("\n".join(pairs) + "\n")
    enrolled = [row for row in rows if row[0] % 10 == 1]
    lists = {"gallery_G1": enrolled[::2], "gallery_G2": enrolled[1::2], "probe_mixed": probes}
    for what, of in lists.items():
        lines = [f"{template},{person},frames/1.png,7" for template, person in of for _ in range(2)]
        (meta / f"{name}_1N_{what}.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME,X", *lines]) + "\n")
    return root
