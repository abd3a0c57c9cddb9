"""Finding the event loops that an error is about, in what its traceback knows.

Private names, checked on CPython 3.11.7 to 3.14.10 and uvloop 0.23.0: the attribute `_loop`, by which
asyncio's transports, locks, events and queues know their loop, as do aiohttp's and asyncpg's clients.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from contextlib import suppress
from types import BuiltinMethodType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: Items of a container that are looked at.
_ITEMS = 20


def objects_in(frame: FrameType) -> Iterator[object]:
    """Yield what the code of *frame* works with: its variables, some attributes and items of theirs.

    Variables of a cell, or of a module, only if the code names them: the others may be thousands. The
    attributes are those that the code names, and only where reading one runs no code of the user's.
    """
    code, variables = frame.f_code, frame.f_locals
    named = [frame.f_globals[name] for name in code.co_names if name in frame.f_globals]
    own = [] if variables is frame.f_globals else list(variables.values())
    for value in (*own, *named):
        yield value
        if isinstance(value, list | tuple | set | frozenset):
            yield from itertools.islice(value, _ITEMS)
        elif isinstance(value, dict):
            yield from itertools.islice(value.values(), _ITEMS)
        else:
            for name in code.co_names:
                yield _stored(value, name)


def loop_of(value: object) -> asyncio.AbstractEventLoop | None:
    """Return the loop that *value* belongs to, or that it is itself; None if it knows of none."""
    with suppress(Exception):  # the user's object may be in any state
        if isinstance(value, MethodType | BuiltinMethodType):
            value = value.__self__
        if isinstance(value, asyncio.AbstractEventLoop):
            return value
        loop = value.get_loop() if asyncio.isfuture(value) else _stored(value, "_loop")
        if isinstance(loop, asyncio.AbstractEventLoop):
            return loop
    return None


def _stored(value: object, name: str) -> Any:
    """Return an attribute that is stored in *value*, also in a slot; None if there is none.

    `getattr` would call properties and the `__getattr__` of proxies.
    """
    with suppress(Exception):
        found = inspect.getattr_static(value, name, None)
        if isinstance(found, MemberDescriptorType | GetSetDescriptorType):
            found = found.__get__(value, type(value))
        return found
    return None
