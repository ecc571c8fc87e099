"""Requests that follow from the description of the API."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from benchmarks.hostile.requests import Asked
from benchmarks.serving import ask


def described(port: int, count: int) -> list[Asked]:
    """Return requests that schemathesis makes of the API's description, half of them against it."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from requests import Request
    from schemathesis.core.result import Ok

    schema = schemathesis.openapi.from_dict(ask(port, "GET", "/openapi.json")[1])
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    each, made = max(1, round(count / len(operations) / len(modes))), []
    for operation, mode in itertools.product(operations, modes):

        @settings(
            max_examples=each, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            told = case.as_transport_kwargs(base_url="http://localhost")
            with contextlib.suppress(ValueError, TypeError, AttributeError, UnicodeError):  # what no client can send
                sent = Request(**{k: v for k, v in told.items() if k != "cookies"}).prepare()
                body = sent.body.encode() if isinstance(sent.body, str) else sent.body
                headers = {str(k): v if isinstance(v, str) else v.decode("latin-1") for k, v in sent.headers.items()}
                target = str(sent.url).removeprefix("http://localhost") or "/"
                kept = {
                    k: v for k, v in headers.items() if k.lower() not in ("authorization", "content-length", "host")
                }
                made.append(Asked(str(sent.method), target, body if isinstance(body, bytes) else None, kept))

        with contextlib.suppress(Exception):  # an operation of which no such request can be made
            collect()
    return made
