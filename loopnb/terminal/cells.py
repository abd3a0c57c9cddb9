"""IPython in a terminal: cells and the prompt take turns on the persistent loop.

The wish. What works in a notebook works here: a plain cell can `create_task`, a client made in one
`asyncio.run` serves in the next, and tasks move while the prompt waits.

What IPython does. The prompt has a loop of its own, `await` cells share another, which stands still
otherwise, and in a plain cell no loop runs: there `asyncio.run` makes a third one and closes it.

The solution. The shell's own `run_cell` is called in a task of the persistent loop, and the prompt
is a task of that loop, too. A plain cell is one step of its task. For an `await` cell IPython calls
its `loop_runner`, which is ours and waits for the cell's coroutine in a nested run.

What it cannot do. A prompt that is read with `input()` (`--simple-prompt`, no tty) blocks the loop,
and a GUI's event loop (`%gui qt`) takes the prompt back: tasks move then only while cells run. The
cell that loads the extension goes on outside the loop. So does every plain cell while nesting is
off, or its `asyncio.run` would fail.
"""

from __future__ import annotations

import asyncio
import functools
import types
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.frames import users_frames
from loopnb.nesting._cpython import running_loop
from loopnb.patching import Patch, PatchSet
from loopnb.terminal._ipython import patch_exit, prompt_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from loopnb.session import Session
    from loopnb.shell.interrupts import Interrupts

# All cells of a shell share one Context, as they do without us: a variable or `numpy.seterr` that
# one cell sets holds in the next. It outlives a reload.
_contexts: WeakKeyDictionary[Any, Context] = WeakKeyDictionary()


class TerminalCells:
    """Puts the cells and the prompt of a shell without a kernel on the persistent loop.

    Args:
        shell: The shell.
        session: Its session.
        interrupts: Handles SIGINT while a cell awaits.
        end: Called once when the shell ends, while the user's names are still there.
        ensure_open: Replaces all of this, by another on an open loop, if the loop has been closed.
    """

    def __init__(
        self,
        shell: Any,
        session: Session,
        interrupts: Interrupts,
        *,
        end: Callable[[], None],
        ensure_open: Callable[[], None],
    ) -> None:
        self._ensure_open = ensure_open
        self._shell = shell
        self._session = session
        self._interrupts = interrupts
        self._stock_run_cell: Callable[..., Any] = shell.run_cell
        self._patch = Patch(shell, "run_cell", self._make_run_cell())
        self._patches = PatchSet(self._patch, *prompt_patches(shell), patch_exit(shell, end))
        self._runner = AwaitRunner(session, interrupts, lambda: _contexts.get(shell))
        self._stock_runner: Any = None

    def start(self) -> None:
        """Put them there, from the next cell and the next prompt on."""
        self._patches.install()
        # A trait: it can be set and read, and a Patch would not see it. Another one, such as
        # trio's, is the user's choice.
        if str(self._shell.loop_runner) == str(self._runner):
            self._stock_runner = self._shell.loop_runner
            self._shell.loop_runner = self._runner

    def stop(self) -> None:
        """Give them back."""
        self._patches.restore()
        if self._shell.loop_runner is self._runner:
            self._shell.loop_runner = self._stock_runner

    def _make_run_cell(self) -> Callable[..., Any]:
        @functools.wraps(self._stock_run_cell)
        def run_cell(*args: Any, **options: Any) -> Any:
            if self._session.loop.is_closed():
                self._ensure_open()
                return self._shell.run_cell(*args, **options)
            engine = self._session.engine
            if running_loop() is not None or engine is None or engine.is_removed:
                return self._stock_run_cell(*args, **options)
            try:
                return self._run_on_loop(*args, **options)
            finally:
                if not self._patch.installed and "run_cell" not in vars(self._shell):
                    self._leave_context()

        return run_cell

    def _run_on_loop(self, *args: Any, **options: Any) -> Any:
        async def cell() -> Any:
            return self._stock_run_cell(*args, **options)

        loop = self._session.loop
        context = _contexts.setdefault(self._shell, copy_context())
        task = loop.create_task(cell(), context=context)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            # It was raised in a step of some other task, or before the cell began. The cell must
            # end now: it would go on behind the next prompt.
            if not task.done():
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            raise

    def _leave_context(self) -> None:
        """Set in the calling Context what cells have set: they run there from now on."""
        for variable, value in _contexts.pop(self._shell).items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


_MISSING: Any = object()


class AwaitRunner:
    """Runs `await` cells on the persistent loop; what IPython calls a `loop_runner`.

    Args:
        session: The session.
        interrupts: Handles SIGINT meanwhile.
        context: Returns the Context of the cells.
    """

    def __init__(
        self, session: Session, interrupts: Interrupts, context: Callable[[], Context | None]
    ) -> None:
        self._session = session
        self._interrupts = interrupts
        self._context = context

    def __str__(self) -> str:
        return "asyncio"  # `%autoawait` shows it

    def __call__(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run *coro*, a cell, to its end."""
        loop = self._session.loop

        async def cell() -> Any:
            return await _interruptible(coro, lambda: self._interrupts.was_interrupted(task))

        inside = running_loop() is loop
        task: asyncio.Task[Any] = loop.create_task(cell(), context=self._context() if inside else None)
        with self._interrupts.cancel_on_sigint(task):
            return loop.run_until_complete(task)


@types.coroutine
def _interruptible(
    coro: Coroutine[Any, Any, Any], was_interrupted: Callable[[], bool]
) -> Generator[Any, Any, Any]:
    """Await *coro*, and turn the cancellation by an interrupt into KeyboardInterrupt.

    It is raised where the cell waits, so that IPython shows it with the user's line, and an
    `except CancelledError` in the cell does not take it for something else.
    """
    step: Callable[[Any], Any] = coro.send
    argument: Any = None
    while True:
        try:
            future = step(argument)
        except StopIteration as end:
            return end.value
        step, argument = coro.send, None
        try:
            yield future
        except asyncio.CancelledError as error:
            step, argument = coro.throw, error
            if was_interrupted():
                # What the awaited task has raised it from: where `%%aloop` was waiting.
                argument = KeyboardInterrupt().with_traceback(users_frames(error.__traceback__))
                _uncancel()
        except BaseException as error:  # noqa: BLE001  it is handed on, not swallowed
            step, argument = coro.throw, error


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
