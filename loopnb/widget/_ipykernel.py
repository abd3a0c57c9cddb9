"""Where ipykernel hands a front end's comm message: to the thread its sender asked for, or to another."""

from __future__ import annotations

from typing import Any


def route_as_sent(comm: object) -> bool:
    """Let messages for *comm* go to the subshell the front end sent them to.

    ipykernel 7.4 ignores the sender's choice and takes the subshell under whose message this comm
    published last. A comm that publishes from the kernel's loop would so be handled on the main
    thread: never while a cell blocks, and on some versions not while a cell awaits.

    Private name: ``Comm._reply_subshell_for(data, default)``, found in ipykernel 7.4.0; not in
    6.29 to 7.3. Where it is missing nothing is done, and messages go where they are sent anyway.
    It is shadowed on this one object; other comms keep ipykernel's routing.

    Args:
        comm: The comm of our own widget.

    Returns:
        Whether there was anything to replace.
    """
    if not hasattr(comm, "_reply_subshell_for"):
        return False
    comm._reply_subshell_for = _as_sent
    return True


def _as_sent(_data: Any, default: Any) -> Any:
    return default
