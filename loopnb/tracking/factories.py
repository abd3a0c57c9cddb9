"""A task factory of the user's own: it goes on making the tasks, and where each comes from is noted.

Asyncio's eager one is such a factory. Its tasks are not of our class, so that their end is not seen:
they are not in the history, and of a failure that nobody looks at asyncio tells, as without us.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from loopnb.internals.frames import is_ours, without_any_frames_of
from loopnb.internals.patching import MethodWrapper, PatchSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Factory = Callable[..., asyncio.Task[Any]]

_log = logging.getLogger("loopnb")


class UsersFactory:
    """Stands before `set_task_factory()` and `get_task_factory()` of one loop. The loop's thread.

    Args:
        loop: The loop.
        own: What makes its tasks while the user has no factory.
        adopt: Called with each task that the user's has made.

    Attributes:
        users: The user's; None while there is none.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, own: Factory, adopt: Callable[[asyncio.Task[Any]], object]
    ) -> None:
        self.users: Any = None
        self._loop = loop
        self._own = own
        self._adopt = adopt
        self._wrapper: Any = None
        self._was_there = False
        self._wrappers = PatchSet(
            MethodWrapper(type(loop), "set_task_factory", self._set, loop),
            MethodWrapper(type(loop), "get_task_factory", self._get, loop),
        )

    def install(self) -> None:
        """Look after the one that is there, and those that are set from now on."""
        present = self._loop.get_task_factory()
        self._was_there = present is not None and present is not self._own
        if self._was_there:
            self._set(self._loop.set_task_factory, present)
        self._wrappers.install()

    def restore(self) -> bool:
        """Leave the loop the user's factory. True."""
        self._wrappers.restore()
        present = self._loop.get_task_factory()
        if self.users is not None and present is self._wrapper:
            self._loop.set_task_factory(self.users)
        elif self._was_there and present is self._own:  # he has taken his off meanwhile
            self._loop.set_task_factory(None)
        self.users = self._wrapper = None
        return True

    def _set(self, set_factory: Callable[[Any], None], factory: Any) -> None:
        if factory is None or factory is self._own:
            self.users = None
            set_factory(self._own)
            return
        set_factory(factory)  # refuses what cannot be called
        self.users, self._wrapper = factory, self._noting(factory)
        set_factory(self._wrapper)

    def _get(self, get_factory: Callable[[], Any]) -> Any:
        present = get_factory()
        return self.users if present is self._wrapper and present is not None else present

    def _noting(self, factory: Factory) -> Factory:
        def make(*args: Any, **options: Any) -> asyncio.Task[Any]:
            try:
                task = factory(*args, **options)
            except BaseException as error:
                error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
                raise
            try:
                self._adopt(task)
            except Exception:  # noqa: BLE001  an observer; the task may be of any kind
                _log.exception("noting where a task comes from failed")
            return task

        return make
