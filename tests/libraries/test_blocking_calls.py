"""A coroutine that blocks in a library is named by the watchdog."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.watch.conftest import watched
from tests.watch.test_blocks import block_in_task

if TYPE_CHECKING:
    from tests.watch.conftest import Watched

__all__ = ["watched"]

requests = pytest.importorskip("requests", reason="requests is not installed")


def test_a_library_that_waits_for_a_socket_is_named_by_the_users_call(watched: Watched) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def serve() -> None:
        connection, _address = server.accept()
        with connection:
            connection.recv(4096)
            watched.wait_seen("socket")
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    with server:
        block = block_in_task(watched, lambda: requests.get(url, timeout=20))
        thread.join()

    assert block.how == "socket"
    assert block.call == "requests.get(url, timeout=20)"
    assert "socket.py" in block.below
