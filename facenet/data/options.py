"""Options of the data: which faces, how they are divided, batched, augmented and loaded."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.errors import ConfigError
from facenet.faces.options import AlignOptions
from facenet.options import INSIDE, RATE, SEED, SHARE, Options, option

CLIP = 1_000  # most frames of a drawn clip
KINDS = ("synthetic", "folder", "csv", "lfw", "recordio", "tar", "zip", "parquet")
CHANGES_HELP = "jpeg, pixels, blur, noise, occlusion, brightness; null: all"


def _check_order(name: str, pair: tuple[int, int]) -> None:
    if pair[0] > pair[1]:
        raise ConfigError(f"{name}: expected the least number, then the largest, got {list(pair)}")


@dataclass(frozen=True, kw_only=True)
class DrawnOptions(Options):
    """Drawn faces; the people of the three sets never meet."""

    train_identities: int = option(400, least=1, help="people to train on")
    held_out_identities: int = option(50, least=1, help="people for checkpoints and thresholds")
    evaluation_identities: int = option(120, least=1, help="people to report on")
    train_images: tuple[int, int] = option((1, 32), least=1, help="pictures of a person, at least and at most")
    held_out_images: tuple[int, int] = option((10, 10), least=1, help="as train_images")
    evaluation_images: tuple[int, int] = option((10, 10), least=1, help="as train_images")
    size: int = option(80, least=32, help="pixels of a side")
    difficulty: float = option(0.4, **SHARE, help="reach of pose, light, expression, covers, background, camera")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_images", "held_out_images", "evaluation_images"):
            _check_order(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class PairColumns(Options):
    """Columns of a CSV of labelled pairs, for tables of other tools."""

    first: str = option("first", help="column of the first image")
    second: str = option("second", help="column of the second image")
    same: str = option("same", help="column that says whether both show one person")
    fold: str = option("fold", help="column of the fold; it may be absent")
    yes: str | None = option(None, help="word of `same` for one person; null: 1, true, yes or same")


@dataclass(frozen=True, kw_only=True)
class TrackDataOptions(Options):
    """Tracks of videos on disk, and how their people are divided."""

    root: str | None = option(None, help="<identity>/<track>/<frame>; without it tracks are drawn")
    splits: str | None = option(None, help="table identity,split (train, held_out, evaluation); else people by share")
    pairs: str | None = option(None, help="with train=false: CSV first,second,same[,fold] of <identity>/<track>")
    pair_columns: PairColumns = PairColumns()
    max_frames: int | None = option(
        None, least=1, help="most frames of a track, from its first; the paper compares 100"
    )
    held_out: float = option(0.2, **INSIDE, help="share of the people for checkpoints")
    evaluation: float = option(0.3, **INSIDE, help="share of the people reported")
    seed: int = option(0, **SEED, help="seed of the division of the people")


@dataclass(frozen=True, kw_only=True)
class DrawnTrackOptions(Options):
    """Drawn tracks."""

    train_identities: int = option(160, least=1, help="people to train on")
    held_out_identities: int = option(40, least=1, help="people for checkpoints")
    evaluation_identities: int = option(120, least=1, help="people to report on")
    tracks: int = option(6, least=1, help="tracks of a person")
    frames: tuple[int, int] = option((4, 24), least=1, most=CLIP, help="frames of a track, at least and at most")
    size: int = option(80, least=32, help="pixels of a side")
    difficulty: float = option(0.4, **SHARE, help="as data.synthetic.difficulty of drawn faces")
    damage: float = option(0.5, **SHARE, help="share of frames blurred, covered, or dark and noisy")
    first_identity: int = option(
        100_000, least=0, help="number of the first person, far from those an encoder was trained on"
    )
    seed: int = option(0, **SEED, help="seed of the drawing")
    cache_dir: str | None = option(None, help="where drawn tracks are kept; null: ~/.cache/facenet")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order("frames", self.frames)


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """A data set and how its people are divided."""

    kind: str = option("synthetic", choices=KINDS, help="synthetic: drawn; folder: told from the path")
    root: str | None = option(None, help="folder by person, larger file or table; not needed for drawn faces")
    people: str | None = option(None, help="file of the training people; without one people are divided by share")
    pairs: str | None = option(None, help="file of the reported pairs; without one pairs are drawn")
    pair_columns: PairColumns = PairColumns()
    validation: str | None = option(
        None, help="pairs that choose checkpoint and thresholds (.bin set or file); null: drawn of held-out people"
    )
    validation_root: str | None = option(None, help="folder of the images of validation's pairs; null: data.root")
    held_out: float = option(0.1, **INSIDE, help="share of the training people for checkpoints and thresholds")
    evaluation: float = option(0.1, **SHARE, help="share of all people kept for reporting; 1: all, nobody to train on")
    most_apart: int = option(500, least=4, help="most people that held_out and evaluation take, of each kind")
    fold: int | None = option(None, least=0, help="fold of people and pairs that is reported, from 1 (LFW View 2)")
    train_share: float = option(1.0, **RATE, help="share of the training images kept, by whole people")
    crop: float = option(1.0, **RATE, help="side of the central square that is used, over the shorter side")
    centre: tuple[float, float] = option((0.5, 0.5), **SHARE, help="middle of the crop, (y, x) as shares of the sides")
    align: AlignOptions = AlignOptions()
    max_bad_share: float = option(0.2, **SHARE, resumable=True, help="share of the files that may be left out")
    synthetic: DrawnOptions = DrawnOptions()
    cache_dir: str | None = option(None, resumable=True, help="where drawn faces are kept; null: ~/.cache/facenet")
    seed: int = option(0, **SEED, help="seed of drawn faces and of the division; commands with a seed pass theirs")


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(Options):
    """What the encoder does with every image; size and crop come from the net and the data."""

    mean: tuple[float, float, float] = option((0.5, 0.5, 0.5), **SHARE, help="mean of each channel, values in [0, 1]")
    std: tuple[float, float, float] = option(
        (0.5, 0.5, 0.5), above=0, help="standard deviation of each channel, values in [0, 1]"
    )
    mirror: bool = option(True, help="average the embeddings of an image and its mirror image")
    views: int = option(
        1, least=1, most=7, help="views of a face that the trained encoder averages: crop, sizes, shifts"
    )


@dataclass(frozen=True, kw_only=True)
class LevelOptions(Options):
    """Levels of each kind; null: those of facenet/data/degradations.py, the paper's for jpeg and pixels."""

    jpeg: tuple[float, ...] | None = option(None, help="quality, 1 to 100")
    pixels: tuple[float, ...] | None = option(
        None, help="pixels of the face in all; images that have no more stay as they are"
    )
    blur: tuple[float, ...] | None = option(None, help="standard deviation, % of the shorter side")
    noise: tuple[float, ...] | None = option(None, help="standard deviation, % of the value range")
    occlusion: tuple[float, ...] | None = option(None, help="% of the area")
    brightness: tuple[float, ...] | None = option(None, help="stops: 1 is twice the light")


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(Options):
    """Random changes of training images, symmetric around none."""

    enabled: bool = option(True, help="whether training images are changed")
    rotate: float = option(8.0, least=0, most=180, help="largest rotation, degrees")
    scale: float = option(0.12, least=0, below=1, help="largest relative change of size, log-uniform")
    stretch: float = option(0.0, least=0, below=1, help="largest relative change of the aspect ratio, log-uniform")
    shift: float = option(0.05, least=0, below=1, help="largest shift, share of the side")
    mirror: float = option(0.5, **SHARE, help="chance of a mirror image")
    gain: float = option(0.25, least=0, below=1, help="largest relative change of contrast")
    offset: float = option(0.1, **SHARE, help="largest change of brightness, share of the value range")
    colour: float = option(0.0, least=0, below=1, help="largest relative change of each channel on its own")
    grey: float = option(0.1, **SHARE, help="chance of a grey image")
    blur: float = option(0.0, **SHARE, help="chance of a low-resolution copy")
    cutout: float = option(0.25, **SHARE, help="side of a square of one random colour, share of the side")
    cutout_chance: float = option(0.5, **SHARE, help="chance of the square")
    virtual: float = option(0.0, **SHARE, help="composites of two people's faces added, as a share of the batch")
    degrade: float = option(0.0, **SHARE, help="chance of a change that facenet degrade measures, of kinds and levels")
    kinds: tuple[str, ...] | None = option(None, help=f"of the changes: {CHANGES_HELP}")
    levels: LevelOptions = LevelOptions()


@dataclass(frozen=True, kw_only=True)
class SamplerOptions(Options):
    """What a mini-batch holds (paper: 1,800 faces, 40 of a person)."""

    batch_size: int = option(240, least=3, help="faces of a mini-batch, of all ranks together")
    faces_per_identity: int = option(8, least=2, help="faces of one person in a batch, at most")
    negative_share: float = option(0.1, least=0, most=0.9, help="share of faces of people seen once in the batch")
    coverage: int = option(5, least=1, help="epochs that show every image of each person who has two or more")
    views: int = option(1, least=1, help="rows of a person seen once; with 2, augmented apart, each has a positive")

    def __post_init__(self) -> None:
        super().__post_init__()
        room = self.batch_size - self.negatives
        if room < 2:
            raise ConfigError(
                f"negative_share: {self.negative_share:g} of a batch of {self.batch_size} faces are {self.negatives}"
                f" faces of people seen once, which leaves {room} for a pair of one person; lower it, or raise"
                " sampler.batch_size"
            )
        if not self.negatives and self.faces_per_identity >= self.batch_size:
            raise ConfigError(
                f"faces_per_identity: {self.faces_per_identity} faces of one person fill a batch of {self.batch_size},"
                f" and negative_share={self.negative_share:g} of it are no face of another, so it would hold no"
                f" triplet; use {self.batch_size // 2} or less"
            )

        if self.views > self.faces_per_identity:
            raise ConfigError(
                f"views: {self.views} rows of a person seen once are more than faces_per_identity="
                f"{self.faces_per_identity}; lower it"
            )

    @property
    def negatives(self) -> int:
        """Rows of people seen once in a batch."""
        return round(self.batch_size * self.negative_share)


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(Options):
    """How images reach the network."""

    cache: str = option(
        "auto", choices=("auto", "ram", "disk", "none"), resumable=True, help="where decoded images are kept"
    )
    cache_gb: float = option(4.0, least=0, resumable=True, help="largest cache in RAM, gigabytes")
    cache_dir: str | None = option(None, resumable=True, help="folder of the disk cache; null: ~/.cache/facenet")
    workers: int | None = option(
        None, least=0, resumable=True, help="processes that decode without a cache; null: one for each core"
    )
    prefetch: int = option(2, least=1, resumable=True, help="batches that each worker prepares ahead")
    repeat_batch: bool = option(False, help="one batch again and again (debug=overfit)")
