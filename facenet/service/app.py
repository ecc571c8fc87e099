"""The application: routes, errors in one form, and the guard in front."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp

from facenet import __version__
from facenet.errors import Busy, FacenetError, StorageError
from facenet.service.guard import Guard
from facenet.service.problems import Problem, problem_of
from facenet.service.routes import about, items, people, pictures, vectors
from facenet.service.schemas.base import ErrorAnswer
from facenet.service.service import Service

ABOUT = """Who is this? Faces of photos, looked up in a gallery, with a verdict that says why.

A picture comes as the multipart field `image`. Every error has one form. Send `Authorization: Bearer KEY`."""
ERRORS = {
    400: "the request can not be read", 401: "no key, or an unknown one", 403: "the key may read only",
    404: "nothing of that name", 408: "the request came too slowly", 409: "another encoder, or an id that is taken",
    413: "too many bytes", 422: "an option or a picture that can not be used", 429: "too many requests",
    503: "too much in work; see Retry-After",
}  # fmt: skip


def make_app(service: Service) -> ASGIApp:
    """Return the ASGI application of a service."""
    app = describe(service)
    allowed = service.allowed
    return Guard(app, keys=allowed.keys, limits=allowed.limits, rate=allowed.rate, metrics=service.metrics)


def describe(service: Service | None) -> FastAPI:
    """Return the routes with their description (OpenAPI), which needs no service."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": text} for status, text in ERRORS.items()
    }
    app = FastAPI(
        title="facenet",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        responses=responses,
        dependencies=[Depends(refuse_unknown)],
        redirect_slashes=False,
    )
    app.state.service = service
    for part in (about, pictures, items, people, vectors):
        app.include_router(part.router)
    for kind in (HTTPException, RequestValidationError, FacenetError, Exception):
        app.add_exception_handler(kind, answer_error)
    if service is not None:
        MultiPartParser.spool_max_size = service.allowed.limits.bytes  # no picture is written to a temporary file
    _add_security(app)
    return app


async def refuse_unknown(request: Request) -> None:
    """Refuse a field that the route does not take: an option misspelt or misplaced would be passed over in silence.

    A body of JSON is checked by its schema, and a body that no route expects is not read.
    """
    route = request.scope["route"].dependant
    asked: list[tuple[str, Iterable[str], list[Any]]] = [("address", request.query_params, route.query_params)]
    if any(isinstance(field.field_info, Form) for field in route.body_params):
        asked.append(("form", await request.form(), route.body_params))
    for where, given, fields in asked:
        takes = [field.alias for field in fields]
        unknown = next((name for name in given if name not in takes), None)
        if unknown is not None:
            what = f"takes {', '.join(takes)}" if takes else "takes none"
            raise Problem(422, "invalid", f"{unknown[:100]}: no field of the {where} here; it {what}")


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer any error in the one form, without the gallery's place on this machine."""
    problem, gallery = problem_of(error), request.app.state.service.gallery
    for place in gallery.names:
        problem.detail = problem.detail.replace(place, "the gallery")
    if gallery.folder is None and isinstance(error, StorageError | Busy):  # a driver's text may name hosts and roles
        problem.detail = "the gallery's database is busy or can not be reached; try again later"
    return JSONResponse(problem.body(request.state.request_id), problem.status_code, problem.headers)


def _add_security(app: FastAPI) -> None:
    """Say in the description that a key is sent as a bearer token; the guard asks for it."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]


def main() -> None:
    """Print the description of the API, which ``docs/openapi.json`` holds."""
    print(json.dumps(describe(None).openapi(), indent=1, sort_keys=True, ensure_ascii=False))


if __name__ == "__main__":
    main()
