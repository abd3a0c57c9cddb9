"""Make tracked tasks: a task factory whose tasks know where they came from.

The user's own task factory goes on making tasks. `UsersFactory` notes the origin of each.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.frames import is_ours, loops_namespaces, without_any_frames_of
from loopnb.nesting.loop_task import make_task
from loopnb.patching import MethodWrapper, Patch, PatchSet, TaskFactoryPatch
from loopnb.tracking._cpython import Spawns, make_factory, stock_create_task
from loopnb.tracking.tracked import FIRST_OF_KERNELS, Run, TrackedTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    Factory = Callable[..., asyncio.Task[Any]]

_log = logging.getLogger("loopnb")

#: Namespaces of asyncio's modules and of ours, by identity: their frames are no spawn sites. Process-wide, as
#: modules are.
_hidden: set[int] = set()
#: Calls of asyncio functions that spawn: (id of the code, instruction). From there the user's frame is two
#: frames further out than the loop's own method. Looking at the frame between them costs 10 % of a spawn,
#: since Python has to make an object for it. Process-wide, as code is.
_sites: set[tuple[int, int]] = set()
_MOST_SITES = 4096


def tracking_factory(
    spawns: Spawns, factory: Factory | None = None, task_class: type[TrackedTask] = TrackedTask
) -> Factory:
    """Return a task factory whose tasks know their origin; see `make_factory`.

    Args:
        spawns: Numbers the tasks.
        factory: If None, this returns a task factory. If it is the task factory of a loop, this returns a
            stand-in for `BaseEventLoop.create_task`, which saves a call for each spawn. If the loop has
            another factory, the stand-in does what the stock method does.
        task_class: The class of the tasks.
    """
    _hidden.update(loops_namespaces())
    make_tracked = make_factory(
        task_class, spawns, hidden=_hidden, sites=_sites, locate=_locate, factory=factory
    )
    return make_tracked if factory is None else functools.update_wrapper(make_tracked, stock_create_task)


def can_stand_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if *loop* makes its tasks by the stock `create_task`, so that ours can stand in."""
    return getattr(type(loop), "create_task", None) is stock_create_task


def site_of(frame: FrameType) -> tuple[CodeType | None, int, bool, int]:
    """Return the innermost place, from *frame* outwards, that is neither asyncio's nor ours.

    Returns:
        Its code, or None if only the loop and our code are on the stack; the instruction there; whether it
        calls `asyncio.run()`; and how many frames further out it is.
    """
    hidden, run = _hidden, asyncio.run.__code__
    is_run, depth = False, 0
    while id(frame.f_globals) in hidden:
        outer = frame.f_back
        if outer is None:
            return None, 0, False, depth
        is_run = frame.f_code is run
        frame = outer
        depth += 1
    return frame.f_code, frame.f_lasti, is_run, depth


def _locate(task: TrackedTask, frame: FrameType, run: Run | None) -> None:
    """Store the spawn site of *task*, outside asyncio's code and ours, and the run it belongs to.

    Args:
        task: The task.
        frame: The frame that called the loop's `create_task`.
        run: The nested `asyncio.run()` that is under way there. If the site calls `asyncio.run()` itself,
            *task* is the main task of a new run.
    """
    code, instruction, is_run, depth = site_of(frame)
    task.code, task.instruction = code, instruction
    task.run = run if code is None or not is_run else Run(task.number, task, code, instruction)
    if code is None or task.number >= FIRST_OF_KERNELS:
        return  # the next one that is spawned there is to be told from the user's, too
    if depth == 1:
        if len(_sites) >= _MOST_SITES:
            _sites.clear()
        _sites.add((id(code), instruction))
    else:
        # This call sometimes goes through asyncio and sometimes straight to the loop.
        _sites.discard((id(code), instruction))


class TracksSpawns(Spawns, Protocol):
    """What a hook needs from the tracker. Called in the loop's thread."""

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Record the origin of a task that the user's task factory has just made."""


class SpawnHook:
    """Has a loop of asyncio's kind make tracked tasks. The loop's thread.

    Args:
        loop: The loop.
        tracker: Numbers the tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tracker: TracksSpawns) -> None:
        factory = tracking_factory(tracker)
        self._factory = TaskFactoryPatch(loop, factory, over=make_task)
        self._users_factory = UsersFactory(loop, factory, tracker.adopt)
        self._create_task: Patch | None = None
        if can_stand_in(loop):
            self._create_task = Patch(
                loop, "create_task", MethodType(tracking_factory(tracker, factory), loop)
            )

    @property
    def users_factory(self) -> Any:
        """The user's own task factory; None while there is none. Any thread."""
        return self._users_factory.users

    def install(self) -> None:
        """Track tasks from now on."""
        self._factory.install()
        if self._factory.installed and self._create_task is not None:
            self._create_task.install()
        self._users_factory.install()

    def restore(self) -> None:
        """Put the task factory back as it was."""
        self._users_factory.restore()
        if self._create_task is not None:
            self._create_task.restore()
        self._factory.restore()


class UsersFactory:
    """Lets the user's own task factory go on making tasks, and notes the origin of each.

    It wraps `set_task_factory()` and `get_task_factory()` of one loop. The loop's thread.

    Tasks from such a factory are not of our class. So we do not see their end: they are not in the history,
    and asyncio itself reports failures that nobody looks at. asyncio's eager factory counts as the user's,
    too.

    Args:
        loop: The loop.
        own: The factory that makes the loop's tasks while the user has none.
        adopt: Called with each task that the user's factory has made.

    Attributes:
        users: The user's factory; None while there is none.
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
        """Wrap the user's present factory, and any that is set from now on."""
        present = self._loop.get_task_factory()
        self._was_there = present is not None and present is not self._own
        if self._was_there:
            self._set(self._loop.set_task_factory, present)
        self._wrappers.install()

    def restore(self) -> bool:
        """Reinstall the user's factory. Always returns True."""
        self._wrappers.restore()
        present = self._loop.get_task_factory()
        if self.users is not None and present is self._wrapper:
            self._loop.set_task_factory(self.users)
        elif self._was_there and present is self._own:  # the user has taken their factory off meanwhile
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
