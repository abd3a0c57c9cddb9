"""The second engine: nest-asyncio, kept on a leash.

It runs the loop *on top of* the waiting stack (see `handoff` for what that costs). It is used where
greenlet cannot be imported, or when the user asks for it, and unlike the package's own `apply()` it
can be taken back: what the package changes is noted, attribute by attribute.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import is_stopping, ready_queue, running_loop, set_stopping
from loopnb.internals.loop_health import current_policy
from loopnb.internals.patching import Difference, Patch, PatchSet

if TYPE_CHECKING:
    from types import ModuleType


def package_name() -> str:
    """Return the distribution that fits the running Python.

    `nest_asyncio` is no longer maintained: it has no `loop_factory`, which `asyncio.run` takes from
    3.12 on, and breaks `current_task()` on 3.14. ipykernel 7 made the same choice.
    """
    return "nest_asyncio" if sys.version_info < (3, 12) else "nest_asyncio2"


class ReentrantRun:
    """A nested run. Only the newest can be stopped: those before it stand below its stack.

    Args:
        loop: The loop.
        future: What it waits for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, future: Any) -> None:
        self.future = future
        self._loop = loop
        self._was_ended = False
        # A stop that is meant for a run below has to wait until this one has ended.
        self._was_stopping = is_stopping(loop)
        set_stopping(loop, False)

    def end(self, _error: BaseException) -> None:
        """Stop it after this pass; the package raises the error that a stop is for whoever waits."""
        self._was_ended = True
        set_stopping(self._loop, True)

    def leave(self) -> None:
        """Leave a stop that was not meant for this run to those below. The package takes none back."""
        set_stopping(self._loop, self._was_stopping or (is_stopping(self._loop) and not self._was_ended))


class Reentrant:
    """nest-asyncio on one loop, for as long as it is wanted. The loop's thread.

    Args:
        loop: An asyncio loop; uvloop's cannot be patched.

    Attributes:
        package: Name of the package that does the work.
        runs: The nested runs that go on, the newest last.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.package = package_name()
        self.runs: list[ReentrantRun] = []
        self._loop = loop
        self._changes: Difference | None = None
        self._guard = PatchSet(
            Patch(loop, "run_until_complete", self._run_until_complete),
            # The package's own knows nothing of who guards the loop, and no `stop()` would end it.
            Patch(loop, "run_forever", partial(_run_forever, loop)),
        )

    def install(self) -> None:
        """Apply the package, and note what it changes.

        Raises:
            ImportError: It is not installed.
            ValueError: It cannot patch this loop.
        """
        package = importlib.import_module(self.package)
        self._changes = Difference(partial(package.apply, self._loop), _owners(package, self._loop))
        self._changes.install()
        self._guard.install()

    def remove(self) -> list[str]:
        """Take back what the package changed.

        Returns:
            The attributes that somebody has changed since, and so keep what they have. Tasks that
            were made meanwhile are Python tasks until they end.
        """
        self._guard.restore()
        changes, self._changes = self._changes, None
        if changes is None or changes.restore():
            return []
        return changes.kept

    def _run_until_complete(self, future: Any) -> Any:
        """Run nested, and leave a pass of the stock method as many handles as it has counted.

        The pass that was under way when the package was applied pops without asking, and an empty
        queue would end the kernel with "pop from an empty deque".
        """
        loop: Any = self._loop
        queue = ready_queue(loop)
        owed = len(queue) if running_loop() is loop else 0
        run = ReentrantRun(loop, future)
        self.runs.append(run)
        try:
            return type(loop).run_until_complete(loop, future)
        finally:
            self.runs.remove(run)
            run.leave()
            while len(queue) < owed:
                filler = asyncio.Handle(_nothing, (), loop)
                filler.cancel()
                queue.append(filler)


def _owners(package: ModuleType, loop: asyncio.AbstractEventLoop) -> list[Any]:
    """Return everything whose attributes the package changes.

    Read in the source of nest_asyncio 1.6.0 and nest_asyncio2 1.7.4.
    """
    owners: list[Any] = [asyncio, asyncio.tasks, asyncio.futures, asyncio.events, package]
    owners += [kind for kind in type(loop).__mro__ if issubclass(kind, asyncio.base_events.BaseEventLoop)]
    owners.append(loop)
    policy = current_policy()
    if policy is not None:
        owners += [kind for kind in type(policy).__mro__ if kind is not object]
    tornado = sys.modules.get("tornado.concurrent")
    if tornado is not None:
        owners.append(tornado)
    return owners


def _run_forever(loop: Any) -> None:
    asyncio.base_events.BaseEventLoop.run_forever(loop)


def _nothing() -> None: ...
