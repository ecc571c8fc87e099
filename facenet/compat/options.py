"""Options of an upgrade's gate."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.options import SHARE, Options, option


@dataclass(frozen=True, kw_only=True)
class GateOptions(Options):
    """What an encoder must reach to join the old one's gallery."""

    metric: str = option(
        "accuracy",
        choices=("accuracy", "auc", "val_1e-1", "val_1e-2", "val_1e-3", "rank1", "map"),
        help="what has to gain",
    )
    min_gain: float = option(0.0, help="least update gain")
    max_negative_flips: float = option(0.05, **SHARE, help="largest share right before and wrong after")
    max_fall: float = option(
        0.0, **SHARE, help="how far metric may fall if the new net alone is no better than the old"
    )
