"""Real servers for clients in cells: PostgreSQL, Redis and HTTP, each for as long as a `with` block.

PostgreSQL and Redis listen on sockets in a folder of their own, never on a port.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S = 30.0


def postgres_command(name: str) -> str | None:
    """Return where *name*, such as `initdb`, is; Debian keeps PostgreSQL's commands off PATH."""
    debians = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return shutil.which(name) or (debians[-1] if debians else None)


def redis_command() -> str | None:
    """Return where Redis's server is."""
    return shutil.which("redis-server")


def missing() -> list[str]:
    """Return the Debian packages whose servers are not on this machine."""
    found = {"postgresql": postgres_command("pg_ctl"), "redis-server": redis_command()}
    return [package for package, command in found.items() if command is None]


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder for a time: the path of a socket may have 107 characters, and pytest's is longer."""
    with tempfile.TemporaryDirectory(prefix="loopnb-", dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL, and yield the folder of its socket; user and database are `postgres`."""
    owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    with short_folder() as folder:
        if owner is not None:
            shutil.chown(folder, owner)
        data, log = folder / "data", folder / "log"
        _run(owner, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale")
        options = f"-k {folder} -F -c listen_addresses="
        _run(owner, "pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)
        try:
            yield str(folder)
        finally:
            _run(owner, "pg_ctl", "stop", "-w", "-D", data, "-m", "immediate")


def _run(owner: str | None, name: str, *arguments: str | Path) -> None:
    command = postgres_command(name)
    assert command is not None, f"{name} is not there"
    # To a file: the server inherits what it writes to, and a pipe would be read until the server's end.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [command, *arguments],
            user=owner,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
        said.seek(0)
        assert done.returncode == 0, said.read()


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis, and yield the path of its socket."""
    command = redis_command()
    assert command is not None, "redis-server is not there"
    with short_folder() as folder:
        path = folder / "socket"
        settings = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
        with subprocess.Popen([command, *settings], stdout=subprocess.PIPE, text=True) as process:
            try:
                _wait_ready(process)
                yield str(path)
            finally:
                process.send_signal(signal.SIGTERM)


def _wait_ready(process: subprocess.Popen[str]) -> None:
    # It says so, or ends: then the pipe does, too.
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "eady to accept connections" in line:
            return
    raise AssertionError("".join(said))


class _Handler(BaseHTTPRequestHandler):
    """Answers with the number of the connection that the request came through."""

    protocol_version = "HTTP/1.1"  # which keeps connections

    def do_GET(self) -> None:
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that drop their connection."""


@contextmanager
def http() -> Iterator[str]:
    """Run an HTTP server, and yield its URL; it answers with the client's port, so with its connection."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
