"""One event loop per notebook: nest it, watch it, keep it alive.

    %load_ext loopnb

The names in `__all__`, `loopnb.errors` and `loopnb.nesting` are promised. All others may change.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from loopnb.nesting.no_loop import NoLoop
    from loopnb.records import Finding, LoopState
    from loopnb.views import TaskList

__all__ = ["diagnose", "hold", "noloop", "release", "run", "show", "spawn", "status", "tasks", "widget"]
__version__ = "0.1.0"

#: Submodules that are promised, too. They are there once something has imported them.
_PUBLIC_MODULES = {"errors", "nesting"}
_P = ParamSpec("_P")
_T = TypeVar("_T")


def __dir__() -> list[str]:
    """Return the public names, and those that every module has. `loopnb.<Tab>` shows them."""
    names = globals()
    return sorted({*__all__, *(_PUBLIC_MODULES & names.keys()), *filter(_is_dunder, names)})


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _errors_end_at_the_caller(fn: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wrap *fn* so that its tracebacks show the user's frames and none of ours."""

    @functools.wraps(fn)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        from loopnb import frames

        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = frames.users_frames(error.__traceback__)
            raise

    return call


@_errors_end_at_the_caller
def run(coro: Coroutine[Any, Any, _T], *, timeout: float | None = None) -> _T:
    """Run *coro* on the persistent loop, wait for it and return its result.

    Other tasks go on meanwhile. Inside the loop (a cell, a task, a callback) this is a nested run. In
    a thread without a running loop, and in the kernel's own threads, it submits *coro* and blocks.

    Args:
        coro: A coroutine object, not a coroutine function.
        timeout: Cancel *coro* after this many seconds and wait for its cleanup. None waits for ever.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
        NestingError: Waiting is impossible here; `.reason` says why.
        TimeoutError: *timeout* passed. The message says where *coro* was waiting.
    """
    from loopnb import session

    return session.current("run").run(coro, timeout=timeout)


@_errors_end_at_the_caller
def spawn(coro: Coroutine[Any, Any, _T], *, name: str | None = None) -> asyncio.Task[_T]:
    """Start *coro* as a task on the persistent loop and return the task.

    Any thread may call this. Outside the loop's thread it blocks until the loop turns.

    Args:
        coro: A coroutine object, not a coroutine function.
        name: The name of the task in `%loopnb tasks`.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
    """
    from loopnb import session

    return session.current("spawn").spawn(coro, name=name)


def noloop() -> NoLoop:
    """Return a context manager in which the calling code sees no running loop and no current task.

    For libraries that ask whether a loop runs, and refuse if one does: Django's ORM, asgiref's
    `async_to_sync`, `Runner.run_sync` of openai-agents. `asyncio.run()`, `asyncio.Runner` and
    `run_until_complete()` nest inside as usual, and the loop goes on meanwhile::

      with loopnb.noloop():
          result = Runner.run_sync(agent, "hello")

    It holds for the block alone, and not for the tasks that run while something in it waits. As in a
    script, `await` and `asyncio.create_task()` fail inside: a RuntimeError ends the block if it awaits.
    `%%noloop` does the same for a whole cell. Any thread; without a running loop it does nothing. Needs
    no `%load_ext`; in a script, call `loopnb.nesting.apply()` first.
    """
    from loopnb.nesting.no_loop import NoLoop

    return NoLoop()


async def hold(cm: AbstractAsyncContextManager[_T], name: str | None = None) -> _T:
    """Enter *cm*, an async context manager, and keep it open across cells; return what entering returned.

    Await this on the notebook's loop. A task of its own enters *cm*, stays inside and leaves it, as task
    groups and cancel scopes insist on. It is listed as "held by In[3]". It ends with `loopnb.release()`, with
    `%loopnb cancel NAME`, or when its cell runs again and holds something new. At the kernel's end all of
    them end, the newest first. An error inside meanwhile is reported in the cell. In synchronous code, use
    `loopnb.run(loopnb.hold(cm))`.

    Args:
        cm: What you would give to `async with`.
        name: The name of the task. Anything held under that name is released first.

    Raises:
        TypeError: *cm* is no async context manager.
        NotLoadedError: `%load_ext loopnb` has not been run.
        NestingError: The caller runs on another loop than the notebook's.
        BaseException: What entering *cm* raised.
    """
    from loopnb import frames, session

    try:
        value: _T = await session.current("hold").hold(cm, name)
    except BaseException as error:
        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise
    return value


async def release(held: object) -> None:
    """Leave what `loopnb.hold()` holds, as at the end of its `async with`, and wait until that is done.

    Await this on the notebook's loop. Other tasks go on meanwhile.

    Args:
        held: What `hold` has returned or was given, or the name. If several have that name, the newest is
            left.

    Raises:
        NotHeldError: Nothing of that name or value is held, or not any more.
        NotLoadedError: `%load_ext loopnb` has not been run.
        NestingError: The caller runs on another loop than the notebook's.
        BaseException: What leaving it raised.
    """
    from loopnb import frames, session

    try:
        await session.current("release").release(held)
    except BaseException as error:
        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


@_errors_end_at_the_caller
def tasks(*, finished: bool = False) -> TaskList:
    """Return a record of each live task on the persistent loop, oldest first.

    The list displays as a table, and has `.filter(name=, state=, cell=)` and `.to_pandas()`.
    Any thread may call this. Outside the loop's thread it blocks until the loop turns.

    Args:
        finished: Return ended tasks instead, as many as `%config LoopNB` keeps.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
    """
    from loopnb import session

    return session.current("tasks").task_list(live=not finished, finished=finished)


@_errors_end_at_the_caller
def status() -> LoopState:
    """Return the state of the persistent loop. Any thread may call this; it does not block.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
    """
    from loopnb import session

    return session.current("status").loop_state()


@_errors_end_at_the_caller
def diagnose(*, long_wait: float = 300.0) -> list[Finding]:
    """Return what is wrong with the loop and its tasks, worst first; an empty list if nothing was found.

    Each finding has `code`, `severity`, `summary`, `remedy` and `place`. Inside the loop, the loop turns
    three times meanwhile, or 300 times if a task seems to spin. Any thread may call this. Outside the
    loop's thread it blocks until the loop turns.

    Args:
        long_wait: A wait without a timer that lasts longer, in seconds, is a finding.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
    """
    from loopnb import session

    return session.current("diagnose").diagnose(long_wait)


@_errors_end_at_the_caller
def show(*, height: int | None = None, group: bool = True) -> None:
    """Display the live widget: what the loop does, who blocks it, and its tasks, with buttons to cancel them.

    Call this in a cell, as often as you like. It does not block.

    Args:
        height: Height of the table in CSS pixels, 1,408 at most. None lets it grow with its rows, up to a
            limit.
        group: Tasks of one coroutine and cell that wait at one place are one row, which can be opened.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
        ValueError: *height* is below 100.
    """
    from loopnb import session

    session.current("show")
    from loopnb.magics import display

    display.display_widget(display.current_widget("show", height=height, group=group))


@_errors_end_at_the_caller
def widget(*, height: int | None = None, group: bool = True) -> Any:
    """Return the live widget without displaying it, so that it can go into layouts of ipywidgets.

    Call this in a cell. For the same arguments it returns the same widget. If anywidget or ipywidgets cannot
    be imported, it returns a table that is not live.

    Args:
        height: As for `show`.
        group: As for `show`.

    Raises:
        NotLoadedError: `%load_ext loopnb` has not been run.
        ValueError: *height* is below 100.
    """
    from loopnb import session

    session.current("widget")
    from loopnb.magics import display

    return display.current_widget("widget", height=height, group=group)


@_errors_end_at_the_caller
def load_ipython_extension(shell: Any) -> None:
    """Load loopnb into *shell*. `%load_ext loopnb` calls this, in the loop's thread. It prints nothing.

    Raises:
        UnsupportedKernelError: There is no IPython shell, or loopnb cannot work in it.
    """
    from loopnb import extension

    extension.load(shell)


@_errors_end_at_the_caller
def unload_ipython_extension(shell: Any) -> None:
    """Unload loopnb from *shell*. `%unload_ext loopnb` calls this, in the loop's thread. Tasks go on.

    Raises:
        UnsupportedKernelError: The caller runs on a loop of its own, where you could not load it again.
        NestingError: A nested run of nest-asyncio is under way.
    """
    from loopnb import extension

    extension.check_can_unload(shell)
    extension.unload(shell)
