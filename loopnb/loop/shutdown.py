"""Ending everything on the loop in order, before the kernel goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import silence_destroyed_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


async def wind_down(
    tasks: Iterable[asyncio.Task[Any]],
    *,
    grace: float,
    describe: Callable[[asyncio.Task[Any]], str],
    log: Callable[[str], None],
) -> None:
    """End *tasks*, then async generators, then the default executor: in this order, in time.

    What could not end is named in the log. Runs in the loop's thread; raises nothing.

    Args:
        tasks: The user's live tasks.
        grace: Seconds that each of the three has. 0 does not wait for any.
        describe: Names a task, with its cell, for the log.
        log: Writes a line to the kernel's log.
    """
    loop = asyncio.get_running_loop()
    ended, left = await _end_tasks(set(tasks), grace)
    for task in left:
        silence_destroyed_warning(task)  # it is named here
        log(f"{describe(task)} did not end within {grace:g} s of being cancelled")
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            log(f"{describe(task)} failed at the end: {error!r}")
    for what, ending in (
        ("async generators", loop.shutdown_asyncgens()),
        ("the default executor's threads", loop.shutdown_default_executor()),
    ):
        try:
            await asyncio.wait_for(ending, grace)
        except TimeoutError:
            log(f"{what} did not end within {grace:g} s")
        except Exception as error:  # noqa: BLE001  it is told, and the rest has to end, too
            log(f"{what} did not end in order: {error!r}")


async def _end_tasks(
    tasks: set[asyncio.Task[Any]], grace: float
) -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
    tasks.discard(asyncio.current_task())
    for task in tasks:
        task.cancel()
    if not tasks:
        return set(), set()
    return await asyncio.wait(tasks, timeout=grace)
