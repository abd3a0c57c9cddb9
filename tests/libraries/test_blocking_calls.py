"""A coroutine that blocks in a library, or on a library's loop, is named by the watchdog."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.watch.conftest import Watched, watched
from tests.watch.test_blocks import block_in_task

__all__ = ["watched"]

requests = pytest.importorskip("requests", reason="requests is not installed")


def test_a_library_that_waits_for_a_socket_is_named_by_the_users_call(watched: Watched) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def serve() -> None:
        connection, _address = server.accept()
        with connection:
            connection.recv(4096)
            watched.block_until_seen()
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


def test_on_uvloop_it_works_too() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    watched = Watched(uvloop.new_event_loop)
    with watched.runner:
        block = block_in_task(watched, watched.block_until_seen)

    assert block.how == "sleep"
