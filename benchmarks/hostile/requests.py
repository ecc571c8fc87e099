"""Requests that nobody honest sends: broken pictures, bombs, odd names, wrong JSON, wrong HTTP, keys that are none."""

from __future__ import annotations

import base64
import functools
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from PIL import Image

from benchmarks.faults.mutate import VALUES
from benchmarks.gallery import corrupted
from benchmarks.serving import form

SIDE = 50_000  # pixels of a bomb's side
JSON = {"Content-Type": "application/json"}
TEXTS = (
    *("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "a/../../b", "....//", "C:\\x", "\\\\host\\share"),
    *("\u202egpj.exe", "\U0001f600", "e\u0301", "\u0000", "a\x00b", "a\nb", "a\r\nX: y", "\x1b[31m", "\ufeff", "~"),
    *("' OR 1=1 --", '"; DROP TABLE items; --', "%s%n", "{{7*7}}", "${jndi:ldap://x}", "<script>alert(1)</script>"),
    *("", " ", ".", "..", "/", "//", "?", "#", "a" * 513, "\u00e9" * 512, "null", "-1", "1e999", "\u2028"),
    "faces/" + "a" * 32 + ".jpg",
)  # fmt: skip
KINDS = ("image/jpeg", "text/plain", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "a/b")
FILES = (
    *(b"", b"\0", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\nquit", b"%PDF-1.7", b"PK\x03\x04", b"<svg onload='x()'/>"),
    *(b"\x7fELF", b"P6\n99999 99999\n255\n", b"BM" + b"\xff" * 52, b"\x80\x04\x95c__builtin__\nexit\n", b"{}" * 1000),
)


class Asked(NamedTuple):
    """One request."""

    method: str
    target: str
    body: bytes | None
    headers: dict[str, str]


def broken_pictures(photos: list[bytes], rng: random.Random) -> Iterator[Asked]:
    """Yield photos with bits flipped, cut off, bytes put in or overwritten, and what is no picture, on every route."""
    while True:
        data = rng.choice(FILES) if rng.random() < 0.2 else corrupted(rng.choice(photos), rng)
        if rng.random() < 0.2:
            data = data[: rng.randrange(1, 400)]
        target = rng.choice(["/v1/detect", "/v1/embed", "/v1/compare", "/v1/search", "/v1/items"])
        yield Asked("POST", target, *form(data))


@functools.cache
def bombs() -> list[bytes]:
    """Return small files that say, or are, 50,000 x 50,000 pixels, and one that is as large as is allowed."""
    picture = io.BytesIO()
    Image.new("1", (64, 64)).save(picture, "TIFF")
    tiff = bytearray(picture.getvalue())
    for tag in (256, 257):  # width, height
        at = tiff.find(struct.pack("<HH", tag, 4))
        at = at if at >= 0 else tiff.find(struct.pack("<HH", tag, 3))
        tiff[at + 2 : at + 12] = struct.pack("<HII", 4, 1, SIDE)
    gif = b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0xF0, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0) + b"\x02\x02\x44\x01\x00;"
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (SIDE - 1).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 62, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    wide, text = png(SIDE, SIDE), png(64, 64, text=64_000_000)
    return [wide, png(4900, 4900), text, gif, bytes(tiff), webp, bmp + bytes(8), b"P5 50000 50000 255\n" + bytes(100)]


def png(width: int, height: int, *, text: int = 0) -> bytes:
    """Return a black picture of one bit a pixel, with a compressed comment of so many characters."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row * 1000) for _ in range(height // 1000))
    data = rows + packer.compress(row * (height % 1000)) + packer.flush()

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    comment = part(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(text), 9)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + head + comment + part(b"IDAT", data) + part(b"IEND", b"")


def odd_names(photos: list[bytes], rng: random.Random) -> Iterator[Asked]:
    """Yield ids, identities, cursors and filters that hold anything, in fields, paths and queries."""
    while True:
        text, other = rng.choice(TEXTS), rng.choice(TEXTS)
        path, one = quote(text, safe=rng.choice(["", "/", "/."])), rng.choice(["items", "faces"])
        if rng.random() < 0.5:
            yield rng.choice([
                Asked(rng.choice(["GET", "DELETE"]), f"/v1/{one}/{path}", None, {}),
                Asked("GET", f"/v1/items?cursor={path}&limit={path}&identity={path}&number={path}", None, {}),
                Asked("GET", f"/v1/identities?prefix={path}&cursor={path}", None, {}),
                Asked("POST", "/v1/rename", json.dumps({"identity": text, "to": other}).encode(), JSON),
                Asked("POST", "/v1/find", json.dumps({"names": [text, other]}).encode(), JSON),
                Asked(rng.choice(["TRACE", "PATCH", "GET", "X"]), f"/{path}", None, {}),
            ])  # fmt: skip
            continue
        name = f"{rng.getrandbits(64):x}"
        target, fields = rng.choice([
            ("/v1/items", {"id": text, "identity": other}),
            ("/v1/items", {"id": name, "identity": text, "metadata": other}),
            ("/v1/search", {"where": json.dumps({text: other}), "k": other}),
            (f"/v1/items/{path}", {"identity": text}),
        ])  # fmt: skip
        method = "POST" if target in ("/v1/items", "/v1/search") else "PUT"
        yield Asked(method, target, *form(rng.choice(photos), **fields))


def wrong_json(rng: random.Random) -> Iterator[Asked]:
    """Yield bodies of the JSON routes with values of any kind, deep, huge or not finite."""
    fields = {
        "/v1/vectors/search": ("vectors", "fingerprint", "compatible_with", "k", "max_sq_dist", "where", "without"),
        "/v1/vectors/threshold": ("fingerprint", "thresholds", "with_older", "fpir", "far", "threshold", "where"),
        "/v1/vectors/items": ("vectors", "fingerprint", "ids", "identities", "paths", "metadata", "once"),
        "/v1/vectors/backfill": ("vectors", "fingerprint", "identities", "paths", "root", "numbers"),
        "/v1/remove": ("names", "by"),
        "/v1/rename": ("ids", "identity", "names", "to"),
        "/v1/find": ("names", "by", "vector"),
    }
    raw = ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "1e999", "9" * 5000, "nul", "\x00", '{"vectors": [[NaN]]}']
    while True:
        target = rng.choice(list(fields))
        vector = [[rng.choice([0.0, 1.0, 1e300, -1.0]) for _ in range(rng.choice([0, 1, 128]))]]
        body: dict[str, Any] = {"fingerprint": "ab" * 32, "vectors": vector, "paths": ["x"], "identities": ["y"]}
        body = {name: body[name] for name in fields[target] if name in body}
        for name in rng.sample(fields[target], rng.randrange(1, len(fields[target]))):
            body[name] = rng.choice([*VALUES, *TEXTS, [rng.choice(TEXTS)], {rng.choice(TEXTS): rng.choice(TEXTS)}])
        text = rng.choice(raw) if rng.random() < 0.2 else json.dumps(body)
        yield Asked("POST", target, text.encode(), JSON)


def wrong_kinds(photos: list[bytes], rng: random.Random) -> Iterator[Asked]:
    """Yield bodies under content types that they are not of, bodies over the limit, and foreign origins."""
    while True:
        body, headers = form(rng.choice(photos))
        target = rng.choice(["/v1/search", "/v1/items", "/v1/rename", "/v1/vectors/items"])
        kind = rng.randrange(4)
        if kind == 0:
            headers = {"Content-Type": rng.choice(KINDS)}
        elif kind == 1:
            body = bytes(rng.choice([20_000_001, 25_000_000]))
        elif kind == 2:
            headers["Origin"] = rng.choice(["http://evil.example", "null", "file://", "http://127.0.0.1.evil.example"])
        else:
            headers["Host"] = rng.choice(["evil.example", "", "127.0.0.1.evil.example", "[::1", "localhost:99999"])
        yield Asked("POST", target, body, headers)


def keys_that_are_none(key: str, rng: random.Random) -> Iterator[str]:
    """Yield values of the header Authorization that are nearly right, or nothing like it."""
    while True:
        at = rng.randrange(3, len(key))
        yield rng.choice([
            f"Bearer {key[:at]}", f"Bearer {key}{rng.choice('aZ0_-')}", f"Bearer {key[:at]}~{key[at + 1 :]}",
            f"Bearer {key.swapcase()}", f"Bearer {key[::-1]}", f"Basic {base64.b64encode(key.encode()).decode()}", key,
            f"Token {key}", "Bearer", "Bearer ", "", f"Bearer {key[:at]} {key[at:]}", f"Bearer {key},{key}",
            f"Bearer fn_{rng.getrandbits(256):x}", "Bearer " + "a" * 8000, "Bearer \xff\xfe", f"Bearer '{key}'",
        ])  # fmt: skip


def wrong_http(rng: random.Random) -> Iterator[bytes]:
    """Yield bytes that are no request, or half of one, or two in one."""
    line, host = b"POST /v1/search HTTP/1.1\r\n", b"Host: localhost\r\n"
    raw = [
        b"GET / HTTP/0.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\0" * 500,
        b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        line + host + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/info HTTP/1.1\r\n\r\n",
        line + host + b"Content-Length: -1\r\n\r\n", line + host + b"Content-Length: 1e3\r\n\r\n",
        line + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        line + host + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", line + host + b"X: " + b"a" * 100_000,
        line + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        line + b"".join(b"X%d: y\r\n" % n for n in range(3000)) + b"\r\n", b"\r\n" * 5000,
    ]  # fmt: skip
    while True:
        yield rng.choice(raw) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 2000))
