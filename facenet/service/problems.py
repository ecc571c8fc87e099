"""Errors of the service in one form: a status, a code for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from facenet.data.pictures import TooLarge, Unreadable
from facenet.errors import Busy, ConfigError, FacenetError, NotThere, OtherEncoder, StorageError, Taken
from facenet.faces.alignment import NoFace

MOST_DETAILS = 20
CODES = {
    400: "bad_request", 401: "unknown_key", 403: "forbidden", 404: "not_found", 405: "not_allowed", 408: "too_slow",
    413: "too_large", 415: "unsupported", 422: "invalid", 429: "rate_limited", 503: "busy",
}  # fmt: skip
# The most special errors stand first.
STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (OtherEncoder, 409, "other_encoder"),
    (Taken, 409, "duplicate_id"),
    (NotThere, 404, "not_found"),
    (Busy, 503, "busy"),
    (StorageError, 503, "storage"),
    (NoFace, 422, "no_face"),
    (TooLarge, 422, "too_many_pixels"),
    (Unreadable, 422, "unreadable"),
    (ConfigError, 422, "invalid"),
    (FacenetError, 422, "unusable"),
)


class Problem(HTTPException):
    """An error that the client is told: `code` for programs, `message` for people, `details` on parts of the request.

    `retry_after` is the number of seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[dict[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code, self.details = code, list(details)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON of the answer."""
        told: dict[str, Any] = {"code": self.code, "message": self.detail, "request_id": request_id}
        return {"error": {**told, "details": self.details}}


def too_busy(what: str) -> Problem:
    """Return the answer to a request for which there is no room."""
    return Problem(503, "busy", f"{what}; try again in a second", retry_after=1)


def too_late(seconds: float) -> Problem:
    """Return the answer to a request whose time is up."""
    return Problem(503, "too_late", f"no answer within {seconds:g} seconds; try again", retry_after=1)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error of the library, of validation or of the framework is."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        details = [{"field": _field(one["loc"]), "message": str(one["msg"])} for one in error.errors()[:MOST_DETAILS]]
        first = details[0]
        return Problem(422, "invalid", f"{first['field']}: {first['message']}", details=details)
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return Problem(404, "not_found", "no such route; /openapi.json describes all of them")
        problem = Problem(error.status_code, CODES.get(error.status_code, "error"), str(error.detail))
        problem.headers = {**(error.headers or {}), **(problem.headers or {})}
        return problem
    for kind, status, code in STATUS:
        if isinstance(error, kind):
            return Problem(status, code, " ".join(str(error).split()), retry_after=1 if status == 503 else None)
    return Problem(500, "failed", "the service failed; its log names this request")


def _field(place: Sequence[Any]) -> str:
    """Name a field of a request without the part of the request that it is in; broken JSON has none."""
    named = any(isinstance(part, str) for part in place[1:])
    return ".".join(str(part) for part in place[1:]) if named else str(place[0])
