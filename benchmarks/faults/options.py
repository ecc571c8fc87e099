"""How often each part of the campaign plays its faults."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class CheckpointFaults(Options):
    """Counts of :mod:`benchmarks.faults.checkpoints`."""

    kills: int = option(100, least=0, help="writers to kill")
    full_disks: int = option(10, least=0, help="saves on a full disk")
    read_only: int = option(5, least=0, help="saves into a read-only folder")


@dataclass(frozen=True, kw_only=True)
class ResumeFaults(Options):
    """Counts of :mod:`benchmarks.faults.resume`."""

    cuts: int | None = option(None, least=0, help="boundaries of each variant to cut at, at most; null is all")
    signals: int = option(100, least=0, help="signals at random moments")
    terms: int = option(10, least=0, help="commands to stop by SIGTERM")


@dataclass(frozen=True, kw_only=True)
class FileFaults(Options):
    """Counts of :mod:`benchmarks.faults.files`."""

    encoders: int = option(2000, least=0, help="damaged encoders")
    checkpoints: int = option(1000, least=0, help="damaged checkpoints")
    embeddings: int = option(1000, least=0, help="damaged folders of embeddings")
    others: int = option(100, least=0, help="damaged files of each other kind")
    pickles: int = option(50, least=0, help="files with a payload")
    traversals: int = option(20, least=0, help="files whose paths lead outside")
    onnx_graphs: int = option(200, least=0, help="ONNX files that burn time or memory, hide loops, or give no vectors")


@dataclass(frozen=True, kw_only=True)
class DataFaults(Options):
    """Counts of :mod:`benchmarks.faults.data`."""

    images: int = option(1000, least=1, help="files of the dirty folder")
    steps: int = option(24, least=1, help="training steps")
    lost: int = option(10, least=0, help="files that break while training runs")


@dataclass(frozen=True, kw_only=True)
class SetFaults(Options):
    """Counts of :mod:`benchmarks.faults.sets`."""

    each: int = option(500, least=0, help="damaged files of each of ten face sets")
    pickles: int = option(50, least=0, help="files with a payload")
