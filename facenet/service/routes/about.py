"""Routes about the service itself: is it there, what is it, its figures, its page."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from facenet.service.schemas.about import Info, Status
from facenet.service.service import Caller, Served

router = APIRouter(tags=["about"])


@router.get("/v1/health", response_model=Status)
async def health() -> dict[str, str]:
    """Tell that the process lives."""
    return {"status": "ok"}


@router.get("/v1/ready", response_model=Status)
async def ready(service: Served) -> dict[str, str]:
    """Tell that the gallery answers."""
    await service.gallery.ping()
    return {"status": "ready"}


@router.get("/v1/info", response_model=Info)
async def info(service: Served, who: Caller) -> Any:
    """Tell what encoder and gallery the service has, and what it allows."""
    return await service.gallery(lambda gallery: service.info(gallery, who))


@router.get("/metrics", response_class=Response)
async def metrics(service: Served) -> Response:
    """Return the figures of the service, for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> HTMLResponse:
    """Return the page."""
    text, policy = read_page()
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


@cache
def read_page() -> tuple[str, str]:
    """Return the page and a policy that lets its own script and style run, and nothing else."""
    text = resources.files("facenet.service").joinpath("page.html").read_text("utf-8")
    script, style = (" ".join(hashes(text, tag)) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def hashes(page: str, tag: str) -> list[str]:
    """Return the source expression of each inline script or style of a page."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts]
