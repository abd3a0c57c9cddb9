"""Close the servers that a background run has started, when the run has ended.

The wish. In a script, a server ends with the program. A server that a `%%aloop -b` cell has started would
keep its port, since many servers (uvicorn's) stay open when their task is cancelled. Then the cell could not
be run again, and nothing could free the port.

The solution. Note each server that `loop.create_server()` makes in the Context of a background run. When the
run has ended, stop listening, and close the connections that were accepted: a client that keeps its
connection would still be answered by the old server. A datagram endpoint with a local address counts as a
server, too.

What it cannot do. It does not see servers that listen by themselves, such as tornado's and those of grpc.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.frames import is_ours, without_any_frames_of
from loopnb.magics._cpython import accepted_by
from loopnb.patching import MethodWrapper, PatchSet
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.records import CellRef


class Servers:
    """Notes the servers of background runs. The loop's thread.

    Args:
        loop: The persistent loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Server -> number of its run. A server that listens is kept alive by the loop.
        self._runs: WeakKeyDictionary[asyncio.AbstractServer | asyncio.BaseTransport, int] = (
            WeakKeyDictionary()
        )
        self._patches = PatchSet(
            MethodWrapper(type(loop), "create_server", self._noting, loop),
            MethodWrapper(type(loop), "create_unix_server", self._noting, loop),
            MethodWrapper(type(loop), "create_datagram_endpoint", self._noting_endpoint, loop),
        )

    def start(self) -> None:
        """Note servers from now on."""
        self._patches.install()

    def stop(self) -> None:
        """Note no more servers. Those that are noted are still closed with their run."""
        self._patches.restore()

    def close_of(self, run: int) -> list[str]:
        """Close the servers of the background run with that number, and the connections they have accepted.

        Returns:
            Where each was still listening.
        """
        closed = []
        for server in [server for server, number in self._runs.items() if number == run]:
            del self._runs[server]
            if isinstance(server, asyncio.BaseTransport):
                closed += [] if server.is_closing() else [address_text(server.get_extra_info("sockname"))]
                server.close()
                continue
            closed += [address_text(sock.getsockname()) for sock in getattr(server, "sockets", ())]
            server.close()
            for transport in accepted_by(self._loop, server):
                transport.close()
        return closed

    async def _noting(self, create: Callable[..., Any], *args: Any, **options: Any) -> asyncio.AbstractServer:
        cell = current_cell.get()
        try:
            server: asyncio.AbstractServer = await create(*args, **options)
        except BaseException as error:
            error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
            raise  # bare, so that it adds no entry for this frame
        self._note(server, cell)
        return server

    async def _noting_endpoint(
        self, create: Callable[..., Any], *args: Any, **options: Any
    ) -> tuple[asyncio.BaseTransport, Any]:
        cell = current_cell.get()
        try:
            transport, protocol = await create(*args, **options)
        except BaseException as error:
            error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
            raise
        if transport.get_extra_info("peername") is None:  # else it is a client
            self._note(transport, cell)
        return transport, protocol

    def _note(self, server: asyncio.AbstractServer | asyncio.BaseTransport, cell: CellRef | None) -> None:
        if cell is not None and cell.background is not None:
            self._runs[server] = cell.background


def address_text(name: Any) -> str:
    """Return the name of a socket as people write it."""
    if not isinstance(name, tuple):
        return str(name)
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
