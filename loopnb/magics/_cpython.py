"""Private names of asyncio that the magics use. Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def accepted_by(loop: Any, server: asyncio.AbstractServer) -> list[asyncio.Transport]:
    """Return the connections that *server* has accepted and that are open.

    `BaseSelectorEventLoop._transports` maps file descriptors to transports. `_SelectorTransport._server` is
    the server that accepted the connection. Where these names are missing, on uvloop and with Windows'
    proactor, the list is empty. `Server.close_clients()` would do, but Python has it only from 3.13 on.
    """
    transports = list(getattr(loop, "_transports", {}).values())
    return [transport for transport in transports if getattr(transport, "_server", None) is server]
