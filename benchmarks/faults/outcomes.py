"""What the use of a changed file comes to: refused in one line, the same, another value, a crash or a hang."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from facenet.errors import FacenetError

LIMIT = 20  # seconds that a file may take


class TooLong(BaseException):
    """A file took longer than `LIMIT`."""


class Kind(NamedTuple):
    """How files of a kind are made in a folder, used, and given sums that fit once one of them was changed.

    `use` returns whatever the files have an effect on. `reseal` takes the folder and the changed file's name; None:
    there is no sum, since people write such files themselves. Patterns say which files are changed, `sealed` those
    that are sealed again.
    """

    make: Callable[[Path], None]
    use: Callable[[Path], Any]
    reseal: Callable[[Path, str], None] | None = None
    files: str = "*"
    sealed: str = "*"


def outcome_of(kind: Kind, folder: Path, expected: str, sealed: bool, *, limit: int = LIMIT) -> tuple[str, str]:
    """Use the files of a folder; return the outcome, and the message of an error."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        found = value_digest(kind.use(folder))
    except FacenetError as error:
        return ("crashes" if "\n" in str(error) or error.exit_code not in (2, 3) else "refused"), str(error)
    except TooLong:
        return "hangs", f"longer than {limit} s"
    except Exception as error:  # whatever it is, it is what this campaign looks for
        return "crashes", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    changed = "resealed" if sealed else "silently_accepted" if kind.reseal else "as_written"
    return ("same" if found == expected else changed), ""


def fresh_copy(sound: Path, place: Path) -> Path:
    """Return a fresh copy of a folder of sound files."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place)
    return place


def value_digest(value: Any) -> str:
    """A digest of nested plain values, arrays and tensors."""
    return hashlib.sha256(repr(_plain(value)).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(str(key), _plain(value[key])) for key in sorted(value, key=str)]
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
