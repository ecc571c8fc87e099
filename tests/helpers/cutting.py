"""Proxies: one whose cable can be cut, and one that encrypts for a server which can not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path


class Proxy:
    """Forward connections to a local port; :meth:`cut` drops what is under way, and refuses until :meth:`mend`."""

    def __init__(self, port: int) -> None:
        """Listen on a port of its own, in front of `port`."""
        self._target, self._whole = port, True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection; new ones are closed at once."""
        self._whole = False
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._whole:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((near, far), (far, near)):
                    self._open.add(one)
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        self._open.discard(one)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()


class TLSProxy:
    """Encrypt in front of a server that was started without it."""

    REQUEST = 8  # bytes by which a client of PostgreSQL asks for encryption

    def __init__(self, port: int, certificate: Path, key: Path, *, asked: bool) -> None:
        """Listen on a port of its own, in front of `port`, and show a certificate: at once, or when `asked` to."""
        self._target, self._asked = port, asked
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["postgresql" if asked else "h2"])
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, sock=listener, ssl=None if asked else self._context)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    def close(self) -> None:
        """End it."""

        async def end() -> None:
            self._server.close()
            ways = asyncio.all_tasks() - {asyncio.current_task()}
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            if self._asked:
                await reader.readexactly(self.REQUEST)
                writer.write(b"S")
                await writer.start_tls(self._context)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(far_writer)
            await asyncio.gather(self._forward(reader, far_writer), self._forward(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client does not like the certificate, or is gone
        finally:
            for one in writers:
                one.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that vouches for itself, and its key."""
    shown, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(shown)]
    subprocess.run(command, check=True, capture_output=True)
    return shown, key
