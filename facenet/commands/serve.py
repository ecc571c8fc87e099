"""Who is this, over HTTP: a service for one gallery, with a page. keys= lets other machines ask."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.commands.launch import launch
from facenet.commands.options import CommandOptions, EncoderUse, refuse_unread, warn_of_drawn_faces
from facenet.console import table
from facenet.faces.options import Gate
from facenet.options import option
from facenet.service.options import LimitOptions, RateOptions

M_MMAP_THRESHOLD = -3  # of malloc.h
THUMBNAILS = {
    "none": "no picture is kept or shown",
    "kept": "the cut face of each enrolment is kept in the gallery's folder and shown",
    "photos": "as kept, and faces are cut from the photos that items were indexed from",
}


@dataclass(frozen=True, kw_only=True)
class ServeOptions(EncoderUse, CommandOptions):
    """Options of ``serve``."""

    gallery: str | None = option(
        None, help="gallery folder, postgresql:// or milvus:// address; it is made if there is none"
    )
    encoder: str | None = option(None, help="encoder folder, ONNX file or pretrained name")
    host: str = option("127.0.0.1", help="address to listen at; others than this machine need keys=")
    port: int = option(8000, least=0, most=65535, help="0: any free one, which is printed")
    keys: str | None = option(None, help="file of keys; without it only this machine may ask, and may do everything")
    new_key: str | None = option(None, help="with keys: make a key of this name, print it, and end")
    role: str | None = option(None, choices=("read", "write"), help="with new_key: what the key may do; null: read")
    thumbnails: str = option("none", choices=THUMBNAILS, help="pictures of faces that are kept and shown")
    threads: int | None = option(None, least=1, help="threads that find faces, and of a search; null: one a core")
    gate: Gate = Gate()
    limits: LimitOptions = LimitOptions()
    rate: RateOptions = RateOptions()


def run(options: ServeOptions, out: Path) -> dict[str, Any]:
    from facenet.errors import ConfigError
    from facenet.service.keys import Keys, add_key

    if options.new_key:
        if not options.keys:
            raise ConfigError("new_key: pass keys=FILE, which will hold the hash of the key")
        role = options.role or "read"
        key = add_key(options.keys, options.new_key, role)
        table([("name", options.new_key), ("role", role), ("key", key)], title="keep the key; it is shown once")
        return {"name": options.new_key, "role": role}
    refuse_unread(("role", options.role, options.new_key, "new_key=NAME"))
    if not options.gallery or not options.encoder:
        raise ConfigError("serve: pass gallery=FOLDER encoder=ENCODER, or keys=FILE new_key=NAME")
    started, keys = time.perf_counter(), Keys(options.keys) if options.keys else None
    return_large_blocks()
    with contextlib.ExitStack() as opened:
        with ThreadPoolExecutor(1) as beside:
            loading = beside.submit(load_encoder, options)  # the imports of the server take as long
            server = import_server()
            listening = opened.enter_context(server.open_socket(options.host, options.port, keys=keys is not None))
            service = open_service(options, keys, loading.result())
        return answer_requests(options, service, listening, started)


def load_encoder(options: ServeOptions) -> Any:
    from facenet.encoders import lookup as encoders
    from facenet.service.inference import open_networks

    encoder = encoders.load(options.encoder or "", device=options.device, detector=options.detector)
    open_networks(encoder)
    return encoder


def import_server() -> Any:
    """Import the server and the routes, which need the extra."""
    try:
        import facenet.service.app
        import facenet.service.server
    except ImportError as error:
        from facenet.errors import DataError
        from facenet.foreign import install_command

        raise DataError(f"{error.name} is not installed; run: {install_command('server')}") from None
    return facenet.service.server


def open_service(options: ServeOptions, keys: Any, encoder: Any) -> Any:
    """Open the gallery, and say what searches will lack."""
    from facenet.service.service import Allowed, Service

    allowed = Allowed(options.limits, options.rate, options.gate, options.thumbnails, keys)
    service = Service(options.gallery or "", encoder, allowed, threads=options.threads)
    warn_of_drawn_faces(encoder, ["photo.jpg"])
    if service.warning:
        print(f"warning: searches need threshold=SQ_DIST: {service.warning}", file=sys.stderr)
    return service


def answer_requests(options: ServeOptions, service: Any, listening: Any, started: float) -> dict[str, Any]:
    """Serve until a signal ends it; returns how many requests were answered and failed."""
    from facenet.interrupts import Interrupted
    from facenet.service.app import make_app
    from facenet.service.server import make_server

    log_to_stderr()
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def tell() -> None:
        gc.enable()
        rows = [("encoder", service.encoder.name), ("gallery", options.gallery), ("faces", service.size)]
        rows += [("keys", options.keys or "none: this machine only"), ("thumbnails", options.thumbnails)]
        table([*rows, ("ready after", f"{time.perf_counter() - started:.1f} s")], title=f"serving at {address}")
        sys.stdout.flush()

    try:
        make_server(make_app(service), options.limits, ready=tell).run(sockets=[listening])
    except Interrupted:
        pass  # the server has answered what it had taken
    finally:
        service.close()
    metrics = {**service.metrics.total(), "seconds": time.perf_counter() - started}
    table([*metrics.items()], title="served")
    return metrics


def return_large_blocks() -> None:
    """Let glibc give blocks of 256 kB and more back when they are freed, so that memory of pictures does not pile up.

    It raises that limit by itself otherwise, and each thread keeps what it has freed. Other C libraries lack the call.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 18)


def log_to_stderr() -> None:
    """Send the service's log, a line of JSON for each request, to standard error alone."""
    logger = logging.getLogger("facenet.service")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def main() -> None:
    gc.disable()  # until the service is ready: a tenth of the start went into collections that found nothing
    try:
        launch("serve", run)
    finally:
        gc.enable()
