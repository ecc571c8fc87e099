"""What a service allows: sizes, numbers, times, and how often a key may ask."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.errors import ConfigError
from facenet.options import Options, option


@dataclass(frozen=True, kw_only=True)
class LimitOptions(Options):
    """Limits of one request, and of all that are in work."""

    bytes: int = option(20_000_000, least=1000, help="bytes of a request")
    bytes_in_work: int = option(400_000_000, least=1000, help="bytes of all requests in work; the next is answered 503")
    pixels: int = option(50_000_000, least=64, most=89_478_485, help="pixels of a picture, told before it is decoded")
    faces: int = option(20, least=1, help="faces of a picture that are looked up")
    pictures: int = option(64, least=1, help="pictures of a batch")
    vectors: int = option(1000, least=1, most=10_000, help="vectors of a request")
    hits: int = option(10_000, least=1, help="faces within the threshold or radius of a request")
    k: int = option(100, least=1, most=10_000, help="nearest faces of a search")
    seconds: float = option(30.0, above=0, help="time of a request, its upload included")
    waiting: int = option(
        64, least=1, help="pictures in work, and requests that wait for the gallery; the next is answered 503"
    )
    connections: int | None = option(None, least=1, help="open connections; null: half of the files that may be open")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytes > self.bytes_in_work:
            raise ConfigError(
                f"bytes: {self.bytes} of a request are more than bytes_in_work={self.bytes_in_work}; raise that too"
            )


@dataclass(frozen=True, kw_only=True)
class RateOptions(Options):
    """A token bucket for each key or, without keys, for each address."""

    per_second: float | None = option(50.0, above=0, help="requests of a key in a second; null: no bound")
    burst: int = option(200, least=1, help="requests of a key at once")
