"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import RATE, SEED, SHARE, Options, option


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions(Options):
    """Who is enrolled for identification."""

    gallery_faces: int = option(1, least=1, help="faces of each person that are enrolled")
    strangers: float = option(0.5, **SHARE, help="share of the people that is not enrolled")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """What is reported of faces and pairs.

    Raises:
        ConfigError: a grid that others do not use, and what :class:`~facenet.options.Options` refuses.
    """

    allow_missing: bool = option(False, help="leave out pairs without an image")
    grid: int | None = option(None, least=1, help="400 or 4000: choose thresholds from the grid that others use")
    identification: bool = option(False, help="enrol some of the reported faces and look up the others")
    protocol: ProtocolOptions = ProtocolOptions()
    quantise: str | None = option(None, choices=("int8", "pq", "all"), help="score embeddings in fewer bytes too")
    backend: str | None = option(
        None,
        choices=("plda", "asnorm"),
        help="score the pairs also by a model of the training faces: for reports alone",
    )
    fars: tuple[float, ...] = option((1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), **RATE, help="false accept rates")
    memory_gb: float = option(2.0, above=0, help="memory for the scores of all pairs; rates that need more are refused")
    seed: int = option(0, **SEED, help="seed of drawn pairs and enrolment; the faces have data.seed")

    def __post_init__(self) -> None:
        """Refuse a wrong grid before an image is read."""
        from facenet.evaluation.verification import common_grid

        super().__post_init__()
        common_grid(self.grid)
