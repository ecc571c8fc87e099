from __future__ import annotations

import pytest

from facenet.errors import ConfigError, DataError, choose, nearest


def test_choose_names_the_nearest_and_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"mining.miner: unknown name 'semihard' \(did you mean 'semi_hard'\?\)"):
        choose({"semi_hard": 1, "hard": 2}, "semihard", "mining.miner")
    assert choose({"a": 1}, "a", "x") == 1


def test_nearest_is_silent_when_nothing_is_near() -> None:
    assert nearest("zzz", ["semi_hard"]) == ""


def test_exit_codes() -> None:
    assert (ConfigError.exit_code, DataError.exit_code) == (2, 3)
