"""The encoders of a gallery: whose vectors may stand beside those that are there, in every engine alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from facenet.errors import DataError, OtherEncoder


class EncoderRules(ABC):
    """What an engine knows of its encoders, and the rules that follow from it."""

    place: str | Path

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Let everything inside see one state, as far as the engine has them; it may be nested."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Commit everything inside, or nothing if it raises, as far as the engine has transactions."""

    @abstractmethod
    def dim(self) -> int | None:
        """Return the width D of the vectors; None before it is known."""

    @abstractmethod
    def encoders(self) -> dict[str, int]:
        """Return the number of each encoder by its fingerprint, in the order in which they came."""

    @abstractmethod
    def counts(self, admitted: Any = None) -> dict[int, int]:
        """Return how many items each encoder has, by the encoder's number; of all, or of the `admitted`."""

    @abstractmethod
    def admit(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> int:
        """Check and record an encoder and a width inside a write; returns the encoder's number, 0 for None.

        Raises:
            DataError: as :meth:`check`.
        """

    def claim(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None) -> None:
        """Check an encoder and a width; a gallery that has none yet takes them as its own."""
        if fingerprint is None and dim is None:
            return
        with self.reading():
            self.check(fingerprint, compatible_with, dim)
            fresh = (fingerprint and not self.encoders()) or (dim and not self.dim())
        if fresh:
            with self.writing():
                self.admit(fingerprint, compatible_with, dim)

    def first(self) -> str | None:
        """Return the first encoder that has vectors, or the first that came if none has; None before the first."""
        return next(iter(self._with_vectors(self.encoders())), None)

    def check(self, fingerprint: str | None, compatible_with: Sequence[str], dim: int | None = None) -> None:
        """Check that vectors of this encoder and width may stand beside those that are there; None is not checked.

        An encoder may join if it is known, or if `compatible_with` lists every encoder that has vectors.

        Raises:
            DataError: an empty fingerprint, an encoder that is not compatible, or another width.
        """
        if fingerprint is not None:
            self._check_encoder(fingerprint, compatible_with)
        if dim is not None and dim < 1:
            raise DataError(f"dim: expected at least 1, got {dim}")
        if dim and (width := self.dim()) and dim != width:
            raise DataError(f"embeddings: expected width {width}, as the gallery has, got {dim}; embed again")

    def _check_encoder(self, fingerprint: str, compatible_with: Sequence[str]) -> None:
        if not fingerprint:
            raise DataError("embeddings: no encoder fingerprint; embed again with facenet embed")
        known = self.encoders()
        if fingerprint in known or not known:
            return
        others = [name for name in self._with_vectors(known) if name not in compatible_with]
        if others:
            raise OtherEncoder(
                f"{self.place}: belongs to encoder {others[0][:12]}, got vectors of encoder "
                f"{fingerprint[:12]}, whose bundle does not list it in compatible_with; run facenet compat "
                "old=OLD_EMBEDDINGS new=NEW_EMBEDDINGS pairs=FILE encoder=NEW_ENCODER, which lists it if the two go "
                "together, or embed again with the gallery's encoder"
            )

    def _with_vectors(self, known: Mapping[str, int]) -> list[str]:
        """Return the encoders that have vectors, or the first that came if none has."""
        counts = self.counts() if len(known) > 1 else {}
        return [name for name, number in known.items() if counts.get(number)] or list(known)[:1]
