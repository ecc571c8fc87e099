"""An ONNX graph of unknown origin, run in a process of its own with limited time and memory.

A seal tells that a file is whole, not who made it. A small graph can ask for hours, for more memory than there is, or
for an end of its process. So its session lives in a child process, which is ended by its own alarm, and whose memory
may grow by :data:`MEMORY`. Image and vector bytes go through pipes, which costs milliseconds for a batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from facenet.errors import DataError, one_line
from facenet.foreign import default_threads, open_session

SECONDS = 7.0  # that reading a graph and its first answer may take together
SLOWER = 4  # later answers may take SECONDS, and so many times what the first one took for as many images
MEMORY = 1_500_000_000  # bytes that a child may take beyond the imported libraries ...
OF_MODEL, OF_IMAGES = 5, 100  # ... and so many times the bytes of the model and of the images of a call
STACK = 10_000_000  # bytes of a thread
REMEDY = "use a file that facenet export wrote"
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from facenet.encoders.onnx_apart import serve; serve()"
)


class SessionApart:
    """The session of a graph in a child process; threads take turns.

    Attributes:
        inputs: (type, shape) of each input; a shape holds sizes and names of free axes.
        outputs: (type, shape) of each output.

    Raises:
        DataError: onnxruntime can not read the graph, or it takes more time or memory than is allowed.
    """

    def __init__(self, data: bytes, *, threads: int | None = None) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self._end = weakref.finalize(self, _end, self._process)
        found = self._ask({"bytes": len(data), "threads": threads, "seconds": SECONDS}, data)
        self.inputs, self.outputs = (
            [(str(kind), list(shape)) for kind, shape in found[side]] for side in ("inputs", "outputs")
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the first output (B, D) float32 for images (B, 3, H, W) float32.

        Raises:
            DataError: the graph fails, or takes more time or memory than is allowed.
        """
        images = np.ascontiguousarray(images, np.float32)
        found = self._ask({"shape": images.shape}, images.tobytes(), answer=True)
        return np.frombuffer(found["content"], np.float32).reshape(found["shape"])

    def _ask(self, head: dict[str, Any], content: bytes, *, answer: bool = False) -> dict[str, Any]:
        """Send a line of JSON and bytes; return the line that comes back, with the bytes behind it as `content`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(head).encode() + b"\n")
                self._process.stdin.write(content)
                self._process.stdin.flush()
                found: dict[str, Any] = json.loads(_read_line(self._process.stdout))
                if "error" not in found and answer:
                    found["content"] = _read(self._process.stdout, found["bytes"])
            except (OSError, EOFError):  # the child is gone
                self._gone()
            except BaseException:  # half of an answer may be on its way
                self._end()
                raise
        if "error" in found:
            raise DataError(found["error"])
        return found

    def _gone(self) -> NoReturn:
        code = self._process.wait()
        self._end()
        if code == -getattr(signal, "SIGALRM", 0):
            raise DataError(f"its graph is stopped: it takes longer than a face may ({SECONDS:g} s at first); {REMEDY}")
        raise DataError(f"its graph ended the process that ran it (exit {code}; memory is limited); {REMEDY}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not sent is lost
            if pipe is not None:
                pipe.close()


def serve() -> None:
    """Be the child: read the model and open it, then read images and answer, until the parent closes the pipe."""
    read, write = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library may print
    with contextlib.suppress(ImportError):  # open_session says so
        import onnxruntime  # noqa: F401  # so that its own memory does not count
    with contextlib.suppress(EOFError, BrokenPipeError):
        head = json.loads(_read_line(read))
        _alarm(head["seconds"])
        data, first = _read(read, head["bytes"]), time.perf_counter()
        memory = _used() + MEMORY + OF_MODEL * len(data) + STACK * (head["threads"] or default_threads())
        try:
            _limit(memory)
            session = open_session(data, threads=head["threads"])
            del data
            sides = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
            found: dict[str, Any] = {}
            for name, side in sides.items():
                found[name] = [(item.type, item.shape) for item in side]
        except Exception as error:  # onnxruntime raises many kinds
            return _answer(write, {"error": str(error) if isinstance(error, DataError) else one_line(error)})
        _answer(write, found)
        each = 0.0  # seconds for an image
        while True:
            shape = json.loads(_read_line(read))["shape"]
            images = np.frombuffer(_read(read, 4 * int(np.prod(shape))), np.float32).reshape(shape)
            if each:
                _alarm(head["seconds"] + SLOWER * each * len(images))
            start = time.perf_counter() if each else first
            try:
                _limit(memory + OF_IMAGES * images.nbytes)
                vectors = session.run([sides["outputs"][0].name], {sides["inputs"][0].name: images})[0]
                width = sides["outputs"][0].shape[-1]  # by its word; a graph may give gigabytes
                if vectors.ndim != 2 or len(vectors) != len(images) or vectors.shape[1] != width:
                    shape, said = list(vectors.shape), f"({len(images)}, {width})"
                    raise ValueError(f"{len(images)} images give an output of shape {shape}, not {said}")
                vectors = np.ascontiguousarray(vectors, np.float32)
                found = {"shape": vectors.shape, "bytes": vectors.nbytes}
            except Exception as error:  # onnxruntime raises many kinds
                found, vectors = {"error": f"onnxruntime can not run the model ({one_line(error)}); {REMEDY}"}, None
            _alarm(0)
            each = each or (time.perf_counter() - start) / max(1, len(images))
            _answer(write, found, b"" if vectors is None else vectors.tobytes())
    return None


def _alarm(seconds: float) -> None:
    """End this process after so many seconds, whatever it does then; 0 is never. Windows has no alarm."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _used() -> int:
    """Return the bytes of data that this process has taken."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)


def _limit(most: int) -> None:
    """Limit the bytes of data of this process, where the system knows such a limit."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _answer(write: IO[bytes], head: dict[str, Any], content: bytes = b"") -> None:
    write.write(json.dumps(head).encode() + b"\n" + content)
    write.flush()


def _read_line(file: IO[bytes]) -> bytes:
    line = file.readline(1 << 20)
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError
    return content
