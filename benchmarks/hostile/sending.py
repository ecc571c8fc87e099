"""Sending as no client does: byte by byte, half, over as many connections as there can be; wrong keys by the clock."""

from __future__ import annotations

import contextlib
import http.client
import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.hostile.requests import Asked
from benchmarks.serving import ask, form

SECONDS = 5  # that a request may take; a slow one is cut off then
HANG = 30.0  # seconds after which there is no answer
SPARE = 200  # file descriptors that this process keeps for itself


def send_one(port: int, asked: Asked) -> str:
    """Return the status of a request, "closed" or "hang"; "unsent" for what Python's client refuses to send."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            connection.request(asked.method, asked.target, asked.body, asked.headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except TimeoutError:
        return "hang"
    except (OSError, http.client.HTTPException) as error:
        return "unsent" if isinstance(error, http.client.InvalidURL) else "closed"
    except ValueError:
        return "unsent"
    finally:
        connection.close()


def send_raw(port: int, data: bytes, pause: float = 0.0) -> str:
    """Send bytes, each after a pause if one is given; returns the status, "closed" or "hang"."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG) as connection:
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for start in range(0, len(data), 1 if pause else len(data)):
                    connection.sendall(data[start : start + 1] if pause else data)
                    time.sleep(pause)
                    if pause and start > 2 * SECONDS / pause:
                        break
            first = connection.recv(4096)
        except TimeoutError:
            return "hang"
        except OSError:
            return "closed"
    parts = first.split(b" ", 2)
    return parts[1].decode() if len(parts) > 2 and parts[0].startswith(b"HTTP/") else "closed"


def slow(port: int, key: str, photo: bytes, tell: Callable[[str, str, object], None]) -> None:
    """Send heads and bodies byte by byte, and tell what came of each."""
    body, headers = form(photo)
    kind = headers["Content-Type"]
    head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
    with ThreadPoolExecutor(8) as pool:
        bodies = [pool.submit(slow_body, port, whole, body) for _ in range(4)]
        heads = [pool.submit(send_raw, port, head.encode(), 0.25) for _ in range(4)]
        for part, futures in (("slow bodies", bodies), ("slow heads", heads)):
            for one in futures:
                tell(part, one.result(), part)


def slow_body(port: int, head: bytes, body: bytes) -> str:
    """Send a head at once and a body byte by byte."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG) as connection:
        connection.sendall(head)
        connection.settimeout(0.25)
        for start in range(len(body)):
            try:
                first = connection.recv(100)
            except TimeoutError:
                with contextlib.suppress(OSError):
                    connection.sendall(body[start : start + 1])
                if start > HANG / 0.25:
                    return "hang"
                continue
            except OSError:
                return "closed"
            return first.split(b" ", 2)[1].decode() if first else "closed"
    return "hang"


def half_open(port: int, key: str, photo: bytes, count: int) -> dict[str, Any]:
    """Hold connections with half a head each, while an honest client searches; returns how that fared."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, held = count or hard - SPARE, []
    seconds, failed, ended = [], Counter[str](), threading.Event()

    def honest() -> None:
        body, headers = form(photo)
        while not ended.is_set():
            begun = time.monotonic()
            status = send_one(port, Asked("POST", "/v1/search", body, {**headers, "Authorization": f"Bearer {key}"}))
            seconds.append(time.monotonic() - begun)
            failed.update([] if status == "200" else [status])

    thread = threading.Thread(target=honest)
    thread.start()
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", port), timeout=1))
                held[-1].sendall(b"GET /v1/info HTTP/1.1\r\nHost: local")
        time.sleep(3)
    finally:
        ended.set()
        thread.join()
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    slowest, asked = max(seconds), len(seconds)
    return {"opened": len(held), "limit": hard, "honest": asked, "failed": dict(failed), "slowest": slowest}


def time_keys(port: int, key: str, count: int, rng: random.Random) -> dict[str, float]:
    """Time keys that share all but the last letters with a right one, and random ones of the same length, in turns."""
    from scipy.stats import mannwhitneyu

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    seconds: dict[str, list[float]] = {"near": [], "random": []}
    for turn in range(2 * count + 20):
        kind = ("near", "random")[turn % 2]
        end = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=4 if kind == "near" else len(key) - 3))
        wrong = key[: len(key) - len(end)] + end
        begun = time.perf_counter()
        status, _ = ask(port, "GET", "/v1/info", None, {"Authorization": f"Bearer {wrong}"}, connection=connection)
        seconds[kind].append(time.perf_counter() - begun)
        if status != 401:
            raise RuntimeError(f"a wrong key was answered {status}")
    connection.close()
    near, other = (np.array(seconds[kind][10:]) for kind in ("near", "random"))
    p = float(mannwhitneyu(near, other).pvalue)
    return {"near": float(np.median(near)), "random": float(np.median(other)), "p": p}
