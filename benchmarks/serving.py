"""What the benchmarks of the service share: a gallery, photos, a real ``facenet serve`` process, requests, and load.

The load comes from a process of its own with a thread for each client, so that what is measured does not share Python's
lock with it. Letters: G faces of the gallery, D embedding width.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.resources import environment
from facenet.errors import ConfigError, DataError
from facenet.gallery.gallery import Gallery
from facenet.types import EmbeddingSet
from facenet.vectors import normalise

WIDTH, HEIGHT = 640, 480
EACH = 5  # faces of a person
SERVE = "import sys; sys.argv[0] = 'facenet'; from facenet.commands.main import main; main()"
PATIENCE = 60.0  # seconds for a start or an answer


def fill(folder: Path, count: int, dim: int, fingerprint: str, *, more: EmbeddingSet | None = None) -> None:
    """Make a gallery of `count` random unit vectors of named people, five each, and perhaps of `more` faces."""
    rng = np.random.default_rng(0)
    with Gallery.open(folder, create=True) as gallery:
        for start in range(0, count, 10_000):
            rows = range(start, min(start + 10_000, count))
            names = [f"person {row // EACH}" for row in rows]
            vectors = normalise(rng.normal(size=(len(rows), dim)))
            given = EmbeddingSet(vectors, [f"random/{row}" for row in rows], names, fingerprint)
            gallery.add(given, metadata=[{"camera": row % 3} for row in rows])
        if more is not None:
            gallery.add(more)
        gallery.threshold()  # what the people tell is kept beside the items


def make_photos(root: str | None, count: int) -> list[bytes]:
    """Return JPEGs of 640x480: pictures below `root` on backgrounds, each at another place and size.

    Raises:
        ConfigError: no root, or too few pictures there.
    """
    files = sorted(Path(root).rglob("*.jpg")) if root else []
    if len(files) < count:
        raise ConfigError(f"photos: pass benchmark.root=DIR (or set FACENET_LFW) with {count} pictures, *.jpg")
    rng, photos = np.random.default_rng(0), []
    for file in (files[row] for row in rng.permutation(len(files))[:count]):
        with Image.open(file) as picture:
            face = picture.convert("RGB")
        ground = face.resize((WIDTH, HEIGHT)).filter(ImageFilter.GaussianBlur(40))
        side = int(rng.integers(200, 360))
        ground.paste(face.resize((side, side)), (int(rng.integers(WIDTH - side)), int(rng.integers(HEIGHT - side))))
        buffer = io.BytesIO()
        ground.save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    return photos


class Server:
    """A ``facenet serve`` process for the gallery in `folder`."""

    def __init__(self, folder: Path, encoder: str, *options: str, out: Path, temporary: Path | None = None) -> None:
        """Start the process; :meth:`wait` waits until it answers."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        out.mkdir(parents=True, exist_ok=True)
        self.log = out / "log.txt"
        given = [f"gallery={folder}", f"encoder={encoder}", f"port={self.port}", f"hydra.run.dir={out}/run", *options]
        if temporary:
            temporary.mkdir()
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", *given],
                env=environment(str(temporary or "")),
                cwd=out,
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> float:
        """Return the seconds from the start of the process to the first answer of ``/v1/ready``.

        Raises:
            DataError: it ended, or does not answer.
        """
        while time.monotonic() - self.started < PATIENCE and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(self.port, "GET", "/v1/ready")[0] == 200:
                    return time.monotonic() - self.started
            time.sleep(0.005)
        self.kill()
        raise DataError(f"serve: it did not start: {self.log.read_text()[-300:]!r}")

    def resident(self) -> int:
        """Return the resident memory in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()


@contextlib.contextmanager
def served(folder: Path, encoder: str, *options: str, out: Path) -> Iterator[Server]:
    """Yield a server that answers, without a bound on the rate of requests."""
    server = Server(folder, encoder, "rate.per_second=null", *options, out=out)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    connection: http.client.HTTPConnection | None = None,
) -> tuple[int, Any]:
    """Return status and JSON (None for anything else) of one request, over a new connection if none is given."""
    used = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        used.request(method, target, body, dict(headers or {}))
        answer = used.getresponse()
        data = answer.read()
    finally:
        if connection is None:
            used.close()
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, None


def form(image: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body with a picture and fields, and its headers."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
    body = b"".join([*parts, head, image, f"\r\n--{mark}--\r\n".encode()])
    return body, {"Content-Type": f"multipart/form-data; boundary={mark}"}


# Load


class Done(NamedTuple):
    """One request of a load: which, when on time.monotonic, and what came back."""

    number: int
    begun: float
    ended: float
    status: int  # 0: no answer
    answer: Any


def load(
    port: int, photos: Sequence[bytes], asked: Sequence[Mapping[str, Any]], folder: Path, *, clients: int,
    rate: float = 0.0, keep: bool = True,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process of `clients` threads that send requests, `rate` a second or as fast as they are answered.

    A request names the place of its `photo` and its `fields`; with an `id` it enrols, else it searches.
    """
    folder.mkdir(parents=True)
    for number, photo in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(photo)
    plan = {"port": port, "asked": list(asked), "clients": clients, "rate": rate, "keep": keep, "photos": len(photos)}
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-c", "import sys; from benchmarks.serving import send; send(sys.argv[1])", str(folder)]
    return subprocess.Popen(command, env=environment())


def results(folder: Path) -> list[Done]:
    """Return what a load got, once its process has ended."""
    return [Done(*row) for row in json.loads((folder / "results.json").read_text())]


def lasted(done: Sequence[Done]) -> float:
    """Return the seconds from the begin of the first request of a load to the end of the last."""
    return max(one.ended for one in done) - min(one.begun for one in done)


def send(folder: str) -> None:
    """Send what ``plan.json`` says, and write ``results.json``; the body of the load's process."""
    place = Path(folder)
    plan = json.loads((place / "plan.json").read_text())
    photos = [(place / f"{number}.jpg").read_bytes() for number in range(plan["photos"])]
    waiting, done, started = iter(enumerate(plan["asked"])), [], time.monotonic()
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", plan["port"], timeout=PATIENCE)
        while True:
            with lock:
                number, asked = next(waiting, (0, None))
            if asked is None:
                return connection.close()
            body, headers = form(photos[asked["photo"]], **asked["fields"])
            if plan["rate"]:
                time.sleep(max(0.0, started + number / plan["rate"] - time.monotonic()))
            begun = time.monotonic()
            target = "/v1/items" if "id" in asked["fields"] else "/v1/search"
            try:
                status, answer = ask(plan["port"], "POST", target, body, headers, connection=connection)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, answer = 0, type(error).__name__
            done.append(Done(number, begun, time.monotonic(), status, answer if plan["keep"] else None))

    threads = [threading.Thread(target=client) for _ in range(plan["clients"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (place / "results.json").write_text(json.dumps(done))
