"""What a service does for a search, called bare: decode, find, cut, embed, FAISS; and a server that does nothing."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.resources import environment
from facenet.data.pictures import read_picture
from facenet.encoders import lookup as encoders
from facenet.encoders.photos import embed_faces, see_photo
from facenet.gallery.gallery import Gallery

K = 5  # faces that a search returns


def bare_search(encoder_name: str, folder: str | Path, threads: int) -> Callable[[bytes], None]:
    """Return a function that searches the faces of a photo among the vectors of the gallery in `folder`, by FAISS."""
    import faiss

    encoder = encoders.load(encoder_name, device="cpu")
    with Gallery.open(folder) as gallery:
        vectors = np.concatenate([vectors for _, vectors in gallery.blocks()])
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    faiss.omp_set_num_threads(threads)

    def call(photo: bytes) -> None:
        faces = see_photo(encoder, read_picture(photo)).faces
        if faces:
            index.search(embed_faces(encoder, faces), K)

    return call


def call_bare(encoder_name: str, folder: str, photos: str, count: int, threads: int) -> dict[str, float]:
    """Search `count` photos, *.jpg in a folder, in threads; returns calls a second and the median seconds of a call."""
    call = bare_search(encoder_name, folder, threads)
    pictures = [path.read_bytes() for path in sorted(Path(photos).glob("*.jpg"))]
    for picture in pictures[:4]:
        call(picture)
    waiting, lock = iter(range(count)), threading.Lock()
    seconds: list[float] = []

    def worker() -> None:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            begun = time.perf_counter()
            call(pictures[number % len(pictures)])
            seconds.append(time.perf_counter() - begun)

    started = time.perf_counter()
    workers = [threading.Thread(target=worker) for _ in range(threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return {"calls_a_second": count / (time.perf_counter() - started), "seconds": median(seconds)}


class Silent(BaseHTTPRequestHandler):
    """Answers each request with an empty object, once it has read it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_POST(self) -> None:
        """Read the body and answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


class Threads(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads, request_queue_size = True, 64


def answer_nothing() -> None:
    """Print a port and answer there; the body of the process of :func:`silent_server`."""
    with Threads(("127.0.0.1", 0), Silent) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that does nothing, in a process of its own."""
    command = [sys.executable, "-c", "from benchmarks.bare import answer_nothing; answer_nothing()"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
