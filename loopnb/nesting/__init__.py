"""Nested runs: `asyncio.run()` and its kin inside a running loop, without Jupyter.

    import loopnb.nesting
    loopnb.nesting.apply()

or, for a scope, `with loopnb.nesting.applied():`. `apply`, `applied` and `remove` are promised; the rest of
this folder may change. Importing it is cheap: only when you call the functions do they import modules that
need greenlet.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

__all__ = ["applied", "apply", "remove"]

#: Gives each scope of `applied` a name of its own. Process-wide, as the names are.
_scopes = itertools.count(1)


def apply(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    order: Literal["any", "lifo"] = "any",
    who: str = "user",
) -> None:
    """Let blocking calls run inside a running loop.

    `asyncio.run()`, `asyncio.Runner().run()` and `loop.run_until_complete()` then work in a task
    or a callback of that loop: the caller waits, everything else in the loop goes on. Outside a
    running loop they are the stock functions. Applying twice is the same as once.

    Args:
        loop: Nest on this loop only. None: on every loop of the process, also those to come.
        order: "any": waits end as soon as what they wait for is done. "lifo": the newest ends
            first. Use it only if C++ code below the waits insists on that order (pybind11). With it, an older
            wait takes as long as the newer ones, and hangs if a newer wait depends on it.
        who: A name for whoever wants this. `remove` takes back one name and leaves the others.

    Raises:
        NestingError: *loop*, or the running loop, cannot be nested on; `.reason` says why.

    Any thread may call it, for its own loop. It does not block.
    """
    from loopnb.nesting import scope
    from loopnb.nesting._cpython import running_loop

    target = running_loop() if loop is None else loop
    if target is not None:
        scope.attach_and_pin(target)
    apply_lazily(loop, order=order, who=who)


def apply_lazily(
    loop: asyncio.AbstractEventLoop | None, *, order: Literal["any", "lifo"] = "any", who: str
) -> None:
    """Do what `apply` does, but raise nothing: if the loop cannot be nested on, each blocking call says why.

    Any thread. It does not block.
    """
    from loopnb.nesting import patches, refusals, scope

    with scope.changing:
        scope.want(who, loop, lifo=order == "lifo")
        refusals.watch()
        patches.install()


def remove(loop: asyncio.AbstractEventLoop | None = None, *, who: str = "user") -> None:
    """Take `apply` back. New nested runs stop at once; parked ones still end in order.

    Args:
        loop: The loop that you gave to `apply`. None takes back everything in that name.
        who: The name that you gave to `apply`.

    Any thread may call it; a loop that runs in another thread is given back a moment later. It does not
    block.
    """
    from loopnb.nesting import other_packages, patches, refusals, scope

    with scope.changing:
        scope.unwant(who, loop)
        if scope.is_wanted_only_by(other_packages.WHO):
            scope.unwant(other_packages.WHO, None)
        scope.detach_unwanted()
        if not scope.is_wanted():
            patches.restore()
            refusals.unwatch()


@contextmanager
def applied(
    loop: asyncio.AbstractEventLoop | None = None, *, order: Literal["any", "lifo"] = "any"
) -> Iterator[None]:
    """Let blocking calls run inside a running loop while the block runs, and take that back at its end.

    Scopes may be nested, overlap, and be in several threads: nesting is on until the last of them is left,
    and as long as an `apply` holds. With *loop* None it is on for all threads. A scope may begin and end
    while the loop runs, and end by an exception. Nested runs that other tasks have begun in it end in order
    after it.

    Args:
        loop: As for `apply`.
        order: As for `apply`.

    Raises:
        NestingError: As `apply`. Nothing is on then.

    Any thread may enter and leave it. It does not block.
    """
    who = f"scope {next(_scopes)}"
    try:
        apply(loop, order=order, who=who)
        yield
    finally:
        remove(who=who)
