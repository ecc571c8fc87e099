"""The shape of every configuration, as dataclasses: a wrong key or type fails at composition, with its full name.

`RANGES` says what the numbers among them may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import inf, isfinite
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING

from facenet.errors import ConfigError


@dataclass
class Synthetic:
    train_identities: int = MISSING
    held_out_identities: int = MISSING
    evaluation_identities: int = MISSING
    train_images: list[int] = MISSING
    held_out_images: list[int] = MISSING
    evaluation_images: list[int] = MISSING
    size: int = MISSING
    difficulty: float = MISSING


@dataclass
class Align:
    detector: str = "none"
    template: str = "arcface"
    margin: float = 2.0
    size: int = 224
    pick: str = "prominent"
    score: float = 0.6
    min_face: int = 20


@dataclass
class Data:
    kind: str = MISSING
    root: str | None = None
    people: str | None = None
    pairs: str | None = None
    held_out: float = 0.1
    evaluation: float = 0.1
    fold: int | None = None
    train_share: float = 1.0
    crop: float = 1.0
    align: Align = field(default_factory=Align)
    max_bad_share: float = 0.2
    synthetic: Synthetic | None = None
    cache_dir: str | None = None
    seed: int = II("seed")  # whose faces; the run's, unless another net is trained on the same


@dataclass
class Preprocess:
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    mirror: bool = True


@dataclass
class Augment:
    enabled: bool = True
    rotate: float = MISSING
    scale: float = MISSING
    stretch: float = MISSING
    shift: float = MISSING
    mirror: float = MISSING
    gain: float = MISSING
    offset: float = MISSING
    colour: float = MISSING
    grey: float = MISSING
    blur: float = MISSING
    cutout: float = MISSING
    cutout_chance: float = MISSING


@dataclass
class Sampler:
    batch_size: int = MISSING
    faces_per_identity: int = MISSING
    negative_share: float = MISSING
    coverage: int = MISSING


@dataclass
class Loader:
    cache: str = "auto"
    cache_gb: float = 4.0
    cache_dir: str | None = None
    workers: int = 0
    repeat_batch: bool = False


@dataclass
class Attention:
    after: str | None = None  # a stage of the net; null is no attention
    heads: int = 4
    features: str = "positive"
    num_features: int = 64
    orthogonal: bool = True
    normalise: bool = True
    position: bool = True
    backend: str = "auto"
    seed: int = 0


@dataclass
class Model:
    name: str = MISSING
    embedding_dim: int = 128
    norm: str = "batch"
    input_size: list[int] | None = None
    dropout: float = 0.0
    attention: Attention | None = field(default_factory=Attention)
    pool: str | None = None


@dataclass
class Mining:
    miner: str = MISSING
    select: str = "nearest"
    fallback: str = "none"
    max_triplets: int = 2_000_000


@dataclass
class Head:
    name: str = MISSING
    scale: float | None = None
    margin: float | None = None
    label_smoothing: float = 0.0


@dataclass
class Loss:
    name: str = MISSING
    margin: float = 0.2
    reduction: str = "mean"
    head: Head | None = None
    head_share: float = 0.5
    head_weight: float = 0.0


@dataclass
class Optim:
    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup_steps: int = 0
    clip_norm: float | None = None
    accumulate: int = 1
    not_finite: str = "fatal"
    not_finite_limit: int = 10


@dataclass
class LargeBatch:
    chunk_size: Any = None  # a number of images, auto, or null
    memory_gb: float | None = None


@dataclass
class Trainer:
    max_steps: int = MISSING
    val_check_interval: int = MISSING
    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    channels_last: Any = "auto"
    compile: bool = False
    log_every_n_steps: int = 10
    refresh_rate: int = 10
    progress: bool = True


@dataclass
class Harmonic:
    old: str | None = None
    method: str = "harmonic"
    slots: list[str] = field(default_factory=lambda: ["nnn", "nno", "non", "noo", "onn", "ono", "oon"])
    own_positive: bool = True
    embedding_share: float = 0.0
    weight: float = 1.0


@dataclass
class Scale:
    """How large the tables of the paper are run: what differs from net to net, for conf/scale/*.yaml to refer to."""

    name: str | None = None
    steps: dict[str, int] = field(default_factory=dict)
    check_every: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    input_size: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Train:
    table: str | None = None
    scale: Scale = field(default_factory=Scale)
    fold: int | None = None
    seed: int = 0
    init: str | None = None
    resume: str | None = None
    data: Data = field(default_factory=Data)
    preprocess: Preprocess = field(default_factory=Preprocess)
    augment: Augment = field(default_factory=Augment)
    sampler: Sampler = field(default_factory=Sampler)
    loader: Loader = field(default_factory=Loader)
    model: Model = field(default_factory=Model)
    mining: Mining = field(default_factory=Mining)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    large_batch: LargeBatch = field(default_factory=LargeBatch)
    trainer: Trainer = field(default_factory=Trainer)
    harmonic: Harmonic = field(default_factory=Harmonic)


@dataclass
class Summary:
    model: Model = field(default_factory=Model)


@dataclass
class Identification:
    gallery_faces: int = 1
    strangers: float = 0.5


@dataclass
class Verify:
    encoder: str | None = None
    embeddings: str | None = None
    pairs: str | None = None
    allow_missing: bool = False
    grid: int | None = None
    calibrate: bool = False
    baselines: bool = False
    identification: bool = False
    protocol: Identification = field(default_factory=Identification)
    quantise: str | None = None
    train_embeddings: str | None = None
    fars: list[float] = MISSING
    memory_gb: float = 2.0
    detector: str | None = None
    device: str = "auto"
    seed: int = 0
    data: Data = field(default_factory=Data)


@dataclass
class Gate:
    metric: str = "accuracy"
    min_gain: float = 0.0
    max_negative_flips: float = 0.05
    max_fall: float = 0.0


@dataclass
class Compat:
    old: str = MISSING
    new: str = MISSING
    encoder: str | None = None
    pairs: str | None = None
    reference: str | None = None
    fit_old: str | None = None
    fit_new: str | None = None
    allow_missing: bool = False
    gallery_faces: int = 1
    steps: int = 11
    draws: int = 1000
    gate: Gate = field(default_factory=Gate)
    seed: int = 0


@dataclass
class DegradeLevels:
    jpeg: list[float] | None = None
    pixels: list[float] | None = None
    blur: list[float] | None = None
    noise: list[float] | None = None
    occlusion: list[float] | None = None
    brightness: list[float] | None = None


@dataclass
class Degrade:
    encoder: str = MISSING
    pairs: str | None = None
    kinds: list[str] | None = None
    levels: DegradeLevels = field(default_factory=DegradeLevels)
    sides: str = "both"
    far: float = 0.001
    allow_missing: bool = False
    batch_size: int = 256
    device: str = "auto"
    seed: int = 0
    data: Data = field(default_factory=Data)


@dataclass
class Embed:
    encoder: str = MISSING
    images: str = MISSING
    out: str = MISSING
    batch_size: int = 256
    detector: str | None = None
    device: str = "auto"


@dataclass
class Export:
    encoder: str = MISSING
    out: str = MISSING
    int8: str | None = None
    images: str | None = None
    calibration_images: int = 256
    pairs: str | None = None
    allow_missing: bool = False
    speed: bool = False
    batch_size: int = 32
    threads: int | None = None
    seed: int = 0


@dataclass
class AlignFolder(Align):
    detector: str = "yunet"
    images: str = MISSING
    out: str = MISSING
    format: str = "jpg"


@dataclass
class Index:
    gallery: str = MISSING
    add: str | None = None
    encoder: str | None = None
    metadata: str | None = None
    on_duplicate: str = "error"
    remove: str | None = None
    backfill: str | None = None
    by: str = "any"
    kind: str | None = None
    factory: str | None = None
    recall_target: float | None = None
    compact: bool = False
    export: str | None = None
    out: str | None = None
    collection: str = "faces"
    info: bool = False
    check: bool = False


@dataclass
class Search:
    gallery: str = MISSING
    encoder: str | None = None
    query: str | None = None
    k: int = 5
    far: float = 0.001
    threshold: float | None = None
    within: bool = False
    by_identity: bool = False
    where: Any = None  # a mapping
    sheet: bool = False
    interactive: bool = False
    json: bool = False
    detector: str | None = None
    device: str = "auto"


@dataclass
class Compare:
    encoder: str = MISSING
    a: str = MISSING
    b: str = MISSING
    far: float = 0.001
    threshold: float | None = None
    detector: str | None = None
    device: str = "auto"


@dataclass
class Cluster:
    embeddings: str = MISSING
    encoder: str | None = None
    links: float | None = None
    sample: str | None = None
    far: float | None = None
    threshold: float | None = None
    method: str = "auto"
    neighbours: int = 32
    known: Any = None  # a folder or a list of them
    clusters: str | None = None
    sheets: bool = False
    threads: int | None = None
    seed: int = 0


@dataclass
class Room:
    """What every benchmark has: the name of its file in benchmarks."""

    name: str = MISSING


@dataclass
class MiningBenchmark(Room):
    sizes: list[int] = MISSING
    repeats: int = 5
    threads: int = 1
    peers: bool = True
    device: str = "cpu"


@dataclass
class AttentionBenchmark(Room):
    tokens: list[int] = MISSING
    repeats: int = 5
    threads: int | None = None
    heads: int = 8
    dim: int = 64
    num_features: int = 64
    peers: bool = True
    backward: bool = True
    errors: bool = True


@dataclass
class LoaderBenchmark(Room):
    root: str | None = None
    faces: int = MISSING
    size: int = 160
    crops: list[float] = MISSING
    repeats: int = 3
    workers: int | None = None
    nets: list[str] = MISSING
    batch_size: int = 60
    peers: bool = True


@dataclass
class TrainingBenchmark(Room):
    nets: list[str] | None = None
    batch_size: int | None = None
    compile_nets: list[str] = MISSING
    seconds: float = MISSING
    repeats: int = 5
    threads: int | None = None
    device: str = "auto"


@dataclass
class LargeBatchBenchmark(Room):
    net: str = MISSING
    batch_size: int = MISSING
    chunk_size: int = MISSING
    repeats: int = 1
    threads: int | None = None
    fits: list[str] = MISSING
    first: int = 2
    bf16: bool = False
    device: str = "auto"


@dataclass
class DdpBenchmark(Room):
    net: str = MISSING
    batch_size: int = MISSING
    chunk_size: int = MISSING
    mined: int = MISSING
    ranks: int = 2
    repeats: int = 3


@dataclass
class VerifyBenchmark(Room):
    pairs: int = MISSING
    repeats: int = 9
    faces: list[int] = MISSING
    rounds: int = 3
    sorted_faces: int = MISSING
    far: float = MISSING
    threads: int = 1
    peers: bool = True


@dataclass
class SearchBenchmark(Room):
    sizes: list[int] = MISSING
    kinds: list[str] = MISSING
    hnsw_to: int = MISSING
    queries: int = MISSING
    singles: int = 200
    edits: int = 20
    repeats: int = 5
    per_identity: int = 20
    decay: float = 0.6
    recall_target: float = MISSING
    D: int = 128
    threads: int = 1
    folder: str = ""
    seed: int = 0


@dataclass
class GalleryBenchmark(Room):
    kills: int = MISSING
    full_disks: int = MISSING
    read_only: int = MISSING
    corruptions: int = MISSING
    factory: str = ""
    folder: str = ""
    temporary: str = ""
    seed: int = 0


@dataclass
class CheckpointFaults:
    kills: int = MISSING
    full_disks: int = MISSING
    read_only: int = MISSING


@dataclass
class ResumeFaults:
    cuts: int = MISSING
    terms: int = MISSING


@dataclass
class FileFaults:
    encoders: int = MISSING
    checkpoints: int = MISSING
    embeddings: int = MISSING
    others: int = MISSING
    pickles: int = MISSING
    traversals: int = MISSING


@dataclass
class DataFaults:
    images: int = MISSING
    steps: int = MISSING
    lost: int = MISSING


@dataclass
class FaultsBenchmark(Room):
    parts: list[str] | None = None
    checkpoints: CheckpointFaults = field(default_factory=CheckpointFaults)
    resume: ResumeFaults = field(default_factory=ResumeFaults)
    files: FileFaults = field(default_factory=FileFaults)
    data: DataFaults = field(default_factory=DataFaults)
    folder: str = ""
    temporary: str = ""
    seed: int = 0


@dataclass
class ExportBenchmark(Room):
    models: list[str] | None = None
    batch_size: int = 32
    seconds: float = MISSING
    repeats: int = 5
    threads: int | None = None


@dataclass
class PhotosBenchmark(Room):
    root: str | None = None
    pairs: str = MISSING
    encoder: str = MISSING
    images: int = 0
    crops: list[float] = MISSING
    threads: int = 2


@dataclass
class ClusterBenchmark(Room):
    sizes: list[int] = MISSING
    sample: int = MISSING
    repeats: int = 5
    linkage_to: int = MISSING
    search_to: int = MISSING
    memory: bool = True
    per_identity: int = MISSING
    decay: float = MISSING
    noise_decay: float = MISSING
    spread: float = MISSING
    threads: int | None = None


@dataclass
class Benchmark:
    benchmark: Room = MISSING


ROOMS = {
    "mining": MiningBenchmark,
    "search": SearchBenchmark,
    "gallery": GalleryBenchmark,
    "attention": AttentionBenchmark,
    "cluster": ClusterBenchmark,
    "ddp": DdpBenchmark,
    "export": ExportBenchmark,
    "faults": FaultsBenchmark,
    "large_batch": LargeBatchBenchmark,
    "loader": LoaderBenchmark,
    "photos": PhotosBenchmark,
    "training": TrainingBenchmark,
    "verify": VerifyBenchmark,
}


@dataclass
class Quickstart:
    train: list[str] = field(default_factory=list)
    gallery_people: int = MISSING
    gallery_faces: int = MISSING
    far: float = 0.001
    seed: int = 0
    data: Data = field(default_factory=Data)


@dataclass
class TrackData:
    root: str | None = None
    splits: str | None = None
    pairs: str | None = None
    max_frames: int | None = None
    held_out: float = 0.2
    evaluation: float = 0.3
    seed: int = 0


@dataclass
class DrawnTracks:
    train_identities: int = MISSING
    held_out_identities: int = MISSING
    evaluation_identities: int = MISSING
    tracks: int = MISSING
    frames: list[int] = MISSING
    size: int = MISSING
    difficulty: float = MISSING
    damage: float = MISSING
    first_identity: int = MISSING
    seed: int = 0
    cache_dir: str | None = None


@dataclass
class TrackPool:
    key_dim: int = MISSING
    features: str = MISSING
    num_features: int = MISSING


@dataclass
class TrackTraining:
    steps: int = MISSING
    identities: int = MISSING
    tracks_each: int = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    margin: float = MISSING
    miner: str = MISSING
    select: str = MISSING
    least_frames: float = MISSING
    check_every: int = MISSING


@dataclass
class Tracks:
    encoder: str = MISSING
    train: bool = True
    track_pool: str | None = None
    device: str = "auto"
    seeds: list[int] = field(default_factory=list)
    data: TrackData = field(default_factory=TrackData)
    drawn: DrawnTracks = field(default_factory=DrawnTracks)
    pool: TrackPool = field(default_factory=TrackPool)
    training: TrackTraining = field(default_factory=TrackTraining)


@dataclass
class Report:
    runs: Any = MISSING  # a folder or a list of them
    encoder: str | None = None
    title: str | None = None


SCHEMAS = {
    "benchmark": Benchmark,
    "quickstart": Quickstart,
    "train": Train,
    "summary": Summary,
    "verify": Verify,
    "degrade": Degrade,
    "export": Export,
    "compat": Compat,
    "align": AlignFolder,
    "embed": Embed,
    "index": Index,
    "search": Search,
    "compare": Compare,
    "cluster": Cluster,
    "tracks": Tracks,
    "report": Report,
}


class Range(NamedTuple):
    """What a number may be: from `low`, or above it, to `high`, or below that."""

    low: float
    high: float = inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        start = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        end = "" if self.high == inf else f" and {'below' if self.below else 'at most'} {self.high:.10g}"
        return f"a number {start}{end}"


ONE, NONE_OR_MORE, POSITIVE, SHARE, RATE = (
    Range(1),
    Range(0),
    Range(0, above=True),
    Range(0, 1),
    Range(0, 1, above=True),
)
INSIDE = Range(0, 1, above=True, below=True)
# The end of an option's full name -> what it, or each number of it, may be. Rooms check what depends on more than one.
RANGES = {
    "seed": Range(0, 2**32 - 1),
    "seeds": Range(0, 2**32 - 1),
    "far": RATE,
    "fars": RATE,
    **dict.fromkeys(("batch_size", "threads", "k", "neighbours", "draws", "gallery_faces", "gallery_people"), ONE),
    **dict.fromkeys(("calibration_images", "max_frames", "accumulate", "sizes", "tokens", "repeats", "ranks"), ONE),
    **dict.fromkeys(("workers", "cache_gb", "weight_decay", "warmup_steps", "links"), NONE_OR_MORE),
    **dict.fromkeys(("lr", "memory_gb", "clip_norm", "seconds"), POSITIVE),
    **dict.fromkeys(("strangers", "max_negative_flips", "max_fall", "max_bad_share"), SHARE),
    "recall_target": RATE,
    "dropout": Range(0, 1, below=True),
    "threshold": Range(0, 4),
    "momentum": Range(0, 1, below=True),
    "data.held_out": INSIDE,
    "data.evaluation": Range(0, 1, below=True),
    "mining.max_triplets": ONE,
    "model.embedding_dim": ONE,
    "preprocess.mean": SHARE,
    "preprocess.std": POSITIVE,
    **{f"trainer.{name}": ONE for name in ("max_steps", "val_check_interval", "log_every_n_steps", "refresh_rate")},
    "trainer.num_nodes": ONE,
    "harmonic.weight": NONE_OR_MORE,
    "harmonic.embedding_share": SHARE,
    "augment.rotate": Range(0, 180),
    **{f"augment.{name}": Range(0, 1, below=True) for name in ("scale", "stretch", "shift", "gain", "colour")},
    **{f"augment.{name}": SHARE for name in ("mirror", "offset", "grey", "cutout", "cutout_chance")},
    "augment.blur": NONE_OR_MORE,
    **{f"pool.{name}": ONE for name in ("key_dim", "num_features")},
    "training.margin": Range(0, 4, above=True),
    **{f"training.{name}": ONE for name in ("steps", "check_every")},
    **{f"benchmark.{name}": NONE_OR_MORE for name in ("kills", "full_disks", "read_only", "corruptions")},
}


def required(command: str) -> list[str]:
    """Return the options that a command has no default for."""
    return [item.name for item in fields(SCHEMAS[command]) if item.default is MISSING]


def check_ranges(config: dict[str, Any], prefix: str = "") -> None:
    """Check each number of a configuration against `RANGES`; what is not finite is in no range.

    Raises:
        ConfigError: with the option's full name.
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            check_ranges(value, f"{name}.")
            continue
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        allowed = next((RANGES[end] for end in ends if end in RANGES), Range(-inf))
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not isfinite(number) or not allowed.holds(number):
                expected = "a finite number" if allowed.low == -inf else str(allowed)
                raise ConfigError(f"{name}: expected {expected}, got {number}")


def register() -> None:
    """Make every schema known to Hydra as ``schema/<command>``."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema, package="_global_")
    for name, room in ROOMS.items():
        store.store(group="schema/benchmark", name=name, node=room, package="benchmark")
