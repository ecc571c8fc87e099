"""A stand-in for the Hugging Face Hub: repositories of small files in memory, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Serve on a port of its own; `commits` of each repository are (commit, files), the newest last."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.fetched: list[str] = []
        self.sha: str | None = None  # in place of the newest commit's
        self.refuses: int | None = None  # a status to answer every POST with
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit that changes some files; returns its name."""
        commits = self.commits.setdefault(repo, [])
        before = commits[-1][1] if commits else {}
        name = hashlib.sha1(json.dumps([repo, len(commits)]).encode()).hexdigest()
        commits.append((name, {**before, **files}))
        return name

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit of a revision, and its files."""
        commits = self.commits[repo]
        if revision == "main":
            return commits[-1] if commits else ("0" * 40, {})
        return next((one for one in commits if one[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^?]+))?(?:\?.*)?", self.path)
        if not found:
            self._resolve(body=True)
        elif found[1] not in self.hub.commits:
            self._missing("RepoNotFound")
        elif (one := self.hub.files(found[1], found[2] or "main")) is None:
            self._missing("RevisionNotFound")
        else:
            self._answer({"id": found[1], "sha": self.hub.sha or one[0], "private": found[1] in self.hub.private})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.hub.refuses:
            self._answer({"error": "no"}, self.hub.refuses)
            return
        if self.path == "/api/repos/create":
            given = json.loads(text)
            repo = f"{given['organization']}/{given['name']}"
            if repo not in self.hub.commits and "private" in (
                given.get("visibility"),
                given.get("private") and "private",
            ):
                self.hub.private.add(repo)
            code = 409 if repo in self.hub.commits else 200
            self.hub.commits.setdefault(repo, [])  # before the answer, on which the next request follows
            self._answer({"url": f"{self.hub.endpoint}/{repo}"}, code)
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main(?:\?.*)?", self.path)
        if not found:
            self._answer({"errors": [], "warnings": []})  # validate-yaml
        elif found[2] == "preupload":
            names = [one["path"] for one in json.loads(text)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._answer({"files": files})
        else:
            lines = [json.loads(line) for line in text.splitlines()]
            files = {one["value"]["path"]: one["value"]["content"] for one in lines if one["key"] == "file"}
            name = self.hub.commit(found[1], {path: base64.b64decode(content) for path, content in files.items()})
            self._answer({"commitOid": name, "commitUrl": f"{self.hub.endpoint}/{found[1]}/commit/{name}"})

    def _resolve(self, *, body: bool) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if not found or found[1] not in self.hub.commits:
            return self._missing("RepoNotFound")
        one = self.hub.files(found[1], found[2])
        if one is None:
            return self._missing("RevisionNotFound")
        if found[3] not in one[1]:
            return self._missing("EntryNotFound", commit=one[0])
        content = one[1][found[3]]
        self.send_response(200)
        for key, value in (("ETag", f'"{hashlib.sha1(content).hexdigest()}"'), ("X-Repo-Commit", one[0])):
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.hub.fetched.append(found[3])
            self.wfile.write(content)
        return None

    def _missing(self, what: str, commit: str | None = None) -> None:
        self._answer({"error": what}, 404, {"X-Error-Code": what, **({"X-Repo-Commit": commit} if commit else {})})

    def _answer(self, content: dict[str, Any], code: int = 200, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
