"""Hold the code that runs inside other packages' functions (`CodePatch`).

Such code runs with the globals of the function it stands in for. So each function here imports what it needs
when it is called, and uses nothing else of this module.

`except ...: raise` does not put its own frame back into the traceback. So once we have cut our frames off, an
error looks as if it had come straight out of the user's coroutine. `frames` is imported twice, since an
interrupt may have ended the first import.
"""

from __future__ import annotations

from typing import Any


def asyncio_run(main: Any, *, debug: Any = None, loop_factory: Any = None) -> Any:
    """Stand in for `asyncio.run`, from 3.12 on."""
    try:
        from loopnb import frames
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {"loop_factory": loop_factory})
    except BaseException as error:
        from loopnb import frames

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def asyncio_run_311(main: Any, *, debug: Any = None) -> Any:
    """Stand in for `asyncio.run` on 3.11, which has no `loop_factory`."""
    try:
        from loopnb import frames
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {})
    except BaseException as error:
        from loopnb import frames

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def run_coroutine_threadsafe(coro: Any, loop: Any) -> Any:
    """Stand in for `asyncio.run_coroutine_threadsafe`."""
    try:
        from loopnb import frames
        from loopnb.nesting import entry_points

        return entry_points.submit(coro, loop)
    except BaseException as error:
        from loopnb import frames

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def anyio_run(func: Any, *args: Any, backend: Any = "asyncio", backend_options: Any = None) -> Any:
    """Stand in for `anyio.run`."""
    try:
        from loopnb import frames
        from loopnb.nesting import other_packages

        return other_packages.run_with_anyio(func, args, backend, backend_options)
    except BaseException as error:
        from loopnb import frames

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def uvloop_run(main: Any, **options: Any) -> Any:
    """Stand in for `uvloop.run`."""
    try:
        from loopnb import frames
        from loopnb.nesting import other_packages

        return other_packages.run_with_uvloop(main, options)
    except BaseException as error:
        from loopnb import frames

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def apply(loop: Any = None, **_options: Any) -> None:
    """Stand in for `apply` of nest_asyncio, anest-asyncio and nest_asyncio2."""
    from loopnb.nesting import other_packages

    other_packages.note_apply(__name__, loop)  # the package's own name: we run with its globals


def apply_everywhere() -> None:
    """Stand in for `apply` of reloop, which patches every loop. reloop's `applied` calls it, too."""
    from loopnb.nesting import other_packages

    other_packages.note_apply_everywhere("reloop")
