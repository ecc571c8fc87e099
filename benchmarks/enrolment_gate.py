"""Does the enrolment gate pay? Errors of a gallery by the share of enrolments refused, on degraded faces of LFW.

People of the list with two photos or more are enrolled: one photo as it is, the same photo degraded, and the photo in
which they look away most. Another photo of each person searches, and so do photos of strangers, as they are and
degraded. The threshold stays the same while the worst faces are refused, by each measure alone and by all limits of
the gate, scaled by one factor. Refusing at random changes neither error on average.
Source: Grother and Tabassi 2007 (error versus reject). YuNet and SFace were trained on other photographs.
Letters: E enrolments, S searches of strangers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.tables import Table
from facenet.data.degradations import Degraded
from facenet.data.pictures import read_picture
from facenet.encoders import lookup as encoders
from facenet.encoders.encoder import Encoder
from facenet.encoders.photos import CutFace, embed_faces, see_photo
from facenet.errors import ConfigError
from facenet.evaluation.degradation_plot import STYLE
from facenet.faces.detector import find_faces
from facenet.faces.options import Gate
from facenet.faces.quality import Quality, measure_frontality, shortcomings
from facenet.options import RATE, SEED, option
from facenet.options import Options as BaseOptions
from facenet.vectors import sq_dist_matrix

CLEAR, TURNED, ENLARGED = "as it is", "turned", "enlarged"
DAMAGE: dict[str, tuple[float, ...]] = {  # kinds and levels of facenet/data/degradations.py, applied to the whole photo
    "blur": (0.8, 1.2, 1.6, 2.4),
    "pixels": (10_000, 5_000, 3_600),
    ENLARGED: (5_000, 2_500, 1_600),  # fewer pixels, and enlarged again
    "jpeg": (20, 10, 5),
    "noise": (4, 8, 12),
    "brightness": (-4, 2, 3),
    "occlusion": (10, 20, 30),
}
MEASURES = (*Quality._fields, "gate")
SEARCHES, ERRORS = ("clear", "degraded"), ("false", "missed")
LABELS = {"false": "false matches of a stranger's search", "missed": "missed searches of its person"}
HEADER = tuple(f"{error}, {search} search" for search in SEARCHES for error in ERRORS)
REFUSED = tuple(np.linspace(0, 0.6, 13).round(2).tolist())
SHOWN = (0.1, 0.2, 0.3, 0.4)
BATCH, DRAWS, LOOKED_AT = 128, 300, 5  # faces embedded together; bootstrap; photos among which the most turned is


@dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """Options of the benchmark of the enrolment gate."""

    root: str | None = option(None, help="an LFW tree with images/ and protocol/")
    people: str = option("peopleDevTest.txt", help="list of people below protocol/")
    encoder: str = option("sface", help="a pretrained net or an encoder's folder")
    enrolled: int = option(0, least=0, help="people enrolled; 0: all that have two photos")
    strangers: int = option(500, least=1, help="people with one photo, who search in vain")
    versions: int = option(2, least=1, help="degraded versions of each enrolled photo")
    far: float = option(1e-4, **RATE, help="the encoder's calibrated rate, whose threshold is used")
    seed: int = option(0, **SEED, help="of people, kinds and levels")
    gate: Gate = Gate()


class Shot(NamedTuple):
    """A photo of a person, as it is or degraded."""

    person: int
    path: Path
    kind: str = CLEAR
    level: float = 0.0

    def picture(self, seed: int) -> Image.Image:
        """Decode and degrade it."""
        picture = read_picture(self.path)
        if self.kind in (CLEAR, TURNED):
            return picture
        kind = "pixels" if self.kind == ENLARGED else self.kind
        changed = Image.fromarray(Degraded(kind, self.level, seed)(np.asarray(picture), self.path.stem))
        return changed.resize(picture.size, Image.Resampling.BICUBIC) if self.kind == ENLARGED else changed


class Seen(NamedTuple):
    """The shots in which a face was found, N of them."""

    people: np.ndarray  # (N,)
    kinds: np.ndarray  # (N,) str
    qualities: list[Quality]
    vectors: np.ndarray  # (N, D)

    def only(self, clear: bool) -> Seen:
        """Those that are as they are, or those that are degraded."""
        rows = np.flatnonzero((self.kinds == CLEAR) == clear)
        qualities = [self.qualities[row] for row in rows]
        return Seen(self.people[rows], self.kinds[rows], qualities, self.vectors[rows])


@dataclass(frozen=True)
class Errors:
    """Errors of E enrolments, and in how many draws of a bootstrap over people and strangers each counts."""

    false: np.ndarray  # (E,) share of strangers' searches that match it
    missed: np.ndarray  # (E,) whether the search of its own person does not match it; nan: no face was found there
    drawn: np.ndarray  # (E, DRAWS) how often it is drawn
    drawn_false: np.ndarray  # (E, DRAWS) share of the drawn searches that match it
    strangers: int

    @classmethod
    def of(cls, enrolled: Seen, own: Seen, strangers: Seen, threshold: float) -> Errors:
        """Search for the enrolled; `own` holds at most one photo of each person."""
        false = sq_dist_matrix(enrolled.vectors, strangers.vectors) <= threshold  # (E, S)
        place = {person: row for row, person in enumerate(own.people.tolist())}
        missed = np.full(len(false), np.nan)
        for row, person in enumerate(enrolled.people.tolist()):
            if person in place:
                difference = enrolled.vectors[row] - own.vectors[place[person]]
                missed[row] = difference @ difference > threshold
        rng = np.random.default_rng(0)
        searches = rng.multinomial(false.shape[1], np.full(false.shape[1], 1 / false.shape[1]), DRAWS)  # (DRAWS, S)
        count = int(enrolled.people.max()) + 1
        drawn = rng.multinomial(count, np.full(count, 1 / count), DRAWS)[:, enrolled.people].T  # (E, DRAWS)
        return cls(false.mean(1), missed, drawn, false @ searches.T / false.shape[1], false.shape[1])

    def left(self, kept: np.ndarray | None = None) -> dict[str, Any]:
        """Return the mean errors of the enrolments that a mask (E,) keeps, and their ratio to those of all.

        Each is a triple: the value, and the ends of its 95 % interval. Refusing at random leaves a ratio of 1.
        """
        found: dict[str, Any] = {}
        for name, values, drawn in (("false", self.false, self.drawn_false), ("missed", self.missed, None)):
            known = ~np.isnan(values)
            rows = known if kept is None else known & kept
            all_draws, draws = (
                self._means(mask, values[:, None] if drawn is None else drawn) for mask in (known, rows)
            )
            value, whole = float(values[rows].mean()), float(values[known].mean())
            found[name] = (value, *np.nanquantile(draws, (0.025, 0.975)).tolist())
            if whole:
                ratios = np.divide(draws, all_draws, out=np.full(DRAWS, np.nan), where=all_draws > 0)
                ends = np.nanquantile(ratios, (0.025, 0.975)).tolist()
            found[f"{name}_ratio"] = (value / whole, *ends) if whole else (1.0, 1.0, 1.0)
        return found

    def _means(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the mean of the rows (a mask) in each draw (DRAWS,); nan if it draws none of them."""
        total = self.drawn[rows].sum(0)
        return np.where(total > 0, (self.drawn[rows] * values[rows]).sum(0) / np.maximum(total, 1), np.nan)


def run(options: Options) -> dict[str, Any]:
    """Enrol, search, and count errors among the enrolments that are left.

    Raises:
        ConfigError: no root.
        DataError: an unusable tree, or a missing extra.
    """
    if not options.root:
        raise ConfigError("enrolment_gate: pass benchmark.root=DIR (or set FACENET_LFW), with images/ and protocol/")
    encoder = encoders.load(options.encoder, device="cpu")
    threshold = encoder.threshold(options.far)
    shots = plan(Path(options.root), options)
    enrolled, own, strangers = (_see(encoder, part, options.seed) for part in shots)
    searches = {
        name: Errors.of(enrolled, own.only(clear), strangers.only(clear), threshold)
        for name, clear in (("clear", True), ("degraded", False))
    }
    passed = np.array([not shortcomings(one, options.gate) for one in enrolled.qualities])
    return {
        "encoder": options.encoder,
        "far": options.far,
        "threshold": threshold,
        "enrolments": len(passed),
        "searches": {name: {"strangers": one.strangers} for name, one in searches.items()},
        "kinds": _kinds(shots[0], enrolled, passed, searches),
        "gate": {name: {"all": one.left(), "passed": one.left(passed)} for name, one in searches.items()},
        "refused_by_gate": float(1 - passed.mean()),
        "curves": _curves(enrolled, searches, options.gate),
    }


def plan(root: Path, options: Options) -> tuple[list[Shot], list[Shot], list[Shot]]:
    """Return the shots that are enrolled, those of the same people that search, and those of strangers."""
    rng = np.random.default_rng(options.seed)
    lines = (root / "protocol" / options.people).read_text().splitlines()[1:]
    names = [line.split("\t")[0] for line in lines if "\t" in line]
    photos = {name: sorted((root / "images" / name).glob("*.*")) for name in rng.permutation(names).tolist()}
    several = [rng.permutation(np.array(files, object)).tolist() for files in photos.values() if len(files) > 1]
    single = [files[0] for files in photos.values() if len(files) == 1][: options.strangers]
    enrolled, own, strangers = [], [], []
    for person, (search, first, *more) in enumerate(several[: options.enrolled or None]):
        enrolled.append(Shot(person, first))
        enrolled += [Shot(person, first, *damage) for damage in _damages(rng, options.versions)]
        if len(more) > 1:
            enrolled.append(Shot(person, min(more[:LOOKED_AT], key=_frontality), TURNED))
        own += [Shot(person, search), Shot(person, search, *next(_damages(rng, 1)))]
    for person, photo in enumerate(single):
        strangers += [Shot(person, photo), Shot(person, photo, *next(_damages(rng, 1)))]
    return enrolled, own, strangers


def _damages(rng: np.random.Generator, count: int) -> Iterator[tuple[str, float]]:
    """Draw different kinds, each at one of its levels."""
    for kind in rng.permutation(list(DAMAGE))[:count].tolist():
        yield kind, float(rng.choice(DAMAGE[kind]))


def _frontality(photo: Path) -> float:
    found = find_faces(np.asarray(read_picture(photo)))
    return measure_frontality(found[0].landmarks) if found else 1.0


def _see(encoder: Encoder, shots: list[Shot], seed: int) -> Seen:
    """Find, measure and embed the meant face of each shot."""
    kept: list[Shot] = []
    qualities: list[Quality] = []
    vectors: list[np.ndarray] = []
    for start in range(0, len(shots), BATCH):
        faces: list[CutFace] = []
        for shot in shots[start : start + BATCH]:
            seen = see_photo(encoder, shot.picture(seed), most=1)
            if seen.meant is not None:
                kept.append(shot)
                faces.append(seen.faces[seen.meant])
        vectors.append(embed_faces(encoder, faces))
        qualities += [face.quality for face in faces]
    people, kinds = np.array([shot.person for shot in kept]), np.array([shot.kind for shot in kept])
    return Seen(people, kinds, qualities, np.concatenate(vectors))


def _kinds(shots: list[Shot], enrolled: Seen, passed: np.ndarray, searches: dict[str, Errors]) -> dict[str, Any]:
    """What became of the enrolments of each kind."""
    found: dict[str, Any] = {}
    for kind in (CLEAR, TURNED, *DAMAGE):
        mine, tried = enrolled.kinds == kind, sum(shot.kind == kind for shot in shots)
        if mine.any():
            errors = {name: {key: one.left(mine)[key][0] for key in ERRORS} for name, one in searches.items()}
            refused = float(1 - passed[mine].mean())
            found[kind] = {"photos": tried, "no_face": 1 - float(mine.sum()) / tried, "refused": refused, **errors}
    return found


def _curves(enrolled: Seen, searches: dict[str, Errors], gate: Gate) -> dict[str, Any]:
    """The errors left after refusing the worst enrolments by each measure, and by the gate's limits scaled together."""
    values = np.array(enrolled.qualities, np.float64)  # (E, 4)
    limits = np.array([getattr(gate, f"min_{name}") for name in Quality._fields])
    values = np.column_stack([values, (values[:, limits > 0] / limits[limits > 0]).min(1)])
    luck = np.random.default_rng(0).permutation(len(values))  # among equal values
    curves: dict[str, Any] = {}
    for name, column in zip(MEASURES, values.T, strict=True):
        order = luck[np.argsort(column[luck], kind="stable")]  # the worst first
        for refused in REFUSED:
            kept = np.zeros(len(order), bool)
            kept[order[round(refused * len(order)) :]] = True
            for search, errors in searches.items():
                curves.setdefault(search, {}).setdefault(name, []).append({"refused": refused, **errors.left(kept)})
    return curves


def tables(result: dict[str, Any]) -> list[Table]:
    """Lay out what :func:`run` returned."""
    kinds = [
        (kind, row["photos"], *(f"{row[key]:.1%}" for key in ("no_face", "refused")), *_pairs(row))
        for kind, row in result["kinds"].items()
    ]
    whole = [
        (name, share, *(_cell(result["gate"][search][name], error) for search in SEARCHES for error in ERRORS))
        for name, share in (("all", "0"), ("passed", f"{result['refused_by_gate']:.1%}"))
    ]
    curves = [
        (measure, f"{refused:.0%}", *(_cell(points[measure][place], error) for points in parts for error in ERRORS))
        for parts in [[result["curves"][search] for search in SEARCHES]]
        for measure in MEASURES
        for place, refused in enumerate(REFUSED)
        if refused in SHOWN
    ]
    return [
        Table(f"{result['enrolments']} enrolments by kind", ("photo", "photos", "no face", "refused", *HEADER), kinds),
        Table(f"{result['encoder']} at far {result['far']:g}: the gate", ("enrolments", "refused", *HEADER), whole),
        Table("the worst refused by one measure", ("measure", "refused", *HEADER), curves),
    ]


def _pairs(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{row[search][error]:.3g}" for search in SEARCHES for error in ERRORS)


def _cell(errors: dict[str, Any], name: str) -> str:
    ratio, low, high = errors[f"{name}_ratio"]
    return f"{errors[name][0]:.3g}, {ratio:.2f}x ({low:.2f} to {high:.2f})"


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Write the curves as SVG: a panel for each error and search; refusing at random is the dashed line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 6.2), layout="constrained")
        for panel, (search, error) in zip(
            figure.subplots(2, 2, sharex=True).ravel(), [(s, e) for e in ERRORS for s in SEARCHES], strict=True
        ):
            for measure, points in result["curves"][search].items():
                rows = [(point["refused"], point[error][0]) for point in points]
                panel.plot(*zip(*rows, strict=True), lw=2.4 if measure == "gate" else 1.2, label=measure)
            panel.axhline(result["gate"][search]["all"][error][0], color="#777777", lw=1, ls="--", label="at random")
            panel.set(title=f"{search} searches", ylabel=LABELS[error], xlabel="share of enrolments refused")
            panel.set_ylim(bottom=0)
            panel.grid(lw=0.4, alpha=0.5)
        handles, labels = panel.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
