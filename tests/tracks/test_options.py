"""Options of tracks: what is out of range is refused when an object is made."""

from __future__ import annotations

from typing import Any

import pytest

from facenet.errors import ConfigError
from facenet.tracks.options import TrackTrainingOptions


@pytest.mark.parametrize(
    "wrong", [{"least_frames": 0.0}, {"steps": -1}, {"check_every": 0}, {"tracks_each": 1}, {"identities": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrackTrainingOptions(**wrong)
