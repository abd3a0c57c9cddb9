"""Private names of ipykernel that the widget needs."""

from __future__ import annotations

from typing import Any


def route_as_sent(comm: object) -> bool:
    """Have messages for *comm* handled by the subshell that the front end sent them to.

    ipykernel 7.4 ignores the sender's choice. It uses the subshell in which this comm last published
    something. Our comm publishes from the kernel's loop, so its messages would be handled in the main thread:
    never while a cell blocks, and on some versions not while a cell awaits.

    Private name: `Comm._reply_subshell_for(data, default)`, in ipykernel 7.4.0 but not in 6.29 to 7.3. Where
    that method is missing, messages go where they are sent anyway. We replace it on this one object, and
    other comms keep ipykernel's routing.

    Args:
        comm: The comm of our own widget.

    Returns:
        False if there was nothing to replace.
    """
    if not hasattr(comm, "_reply_subshell_for"):
        return False
    comm._reply_subshell_for = _as_sent
    return True


def _as_sent(_data: Any, default: Any) -> Any:
    return default
