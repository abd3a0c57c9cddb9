"""Private names of aiohttp, asyncpg and httpx that tell what a task waits for.

Checked on aiohttp 3.14.5, asyncpg 0.32.0 and httpx 0.28.1.
"""

from __future__ import annotations

from typing import Any

#: Functions that wait, see `waits.Rule`. If one is missing, its waits get the name of the function that
#: waits.
PRIVATE_WAITS: dict[tuple[str, str], tuple[str, int]] = {
    ("aiohttp", "ClientSession._request"): ("request", 1),
}

#: The attributes that lead from a response to its URL. In aiohttp the response has it, in httpx the request.
#: If they are missing, the wait is described without the URL.
URL_OF_RESPONSE = "_url"
REQUEST_OF_RESPONSE = "_request"


def address_of_database(connection: Any) -> Any:
    """Return the address that a connection of asyncpg's is to: a host and port, or the path of a socket.

    Private name: `Connection._addr`, a slot. None if it is missing, or for any other object.
    """
    if type(connection).__module__ != "asyncpg.connection":
        return None
    try:
        return object.__getattribute__(connection, "_addr")
    except AttributeError:
        return None
