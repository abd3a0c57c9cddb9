"""Let cells and prompt of IPython in a terminal take turns on the persistent loop.

The wish. What works in a notebook works here: a plain cell can call `create_task`, a client made in one
`asyncio.run` works in the next, and tasks move while the prompt waits.

What IPython does. The prompt has a loop of its own. `await` cells share another loop, which stands still
otherwise. In a plain cell no loop runs, so `asyncio.run` makes a third loop and closes it.

What we do. A task of the persistent loop calls the shell's own `run_cell`, and the prompt is a task of that
loop, too. A plain cell is one step of its task. An `await` cell is given to IPython's `loop_runner`, which is
ours and waits for the cell's coroutine in a nested run.

What it cannot do. A prompt that is read with `input()` (`--simple-prompt`, no tty) blocks the loop. After
`%gui qt` and the like, the prompt has a loop of its own again. In both cases, tasks move only while cells
run. The cell that loads the extension goes on outside the loop. While nesting is off, every plain cell runs
outside the loop, since its `asyncio.run` would fail inside.
"""

from __future__ import annotations

import asyncio
import functools
import types
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol
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

#: Shell -> the Context that all its cells share, as they do without us. A ContextVar that one cell sets, or
#: `numpy.seterr()`, holds in the next. The dictionary outlives a session: the variables have to hold after a
#: reload, too.
_contexts: WeakKeyDictionary[Any, Context] = WeakKeyDictionary()


class LoopEnds(Protocol):
    """Ends or replaces the loop of a terminal. The loop's thread, outside the loop."""

    def end(self) -> None:
        """End the loop in order when the shell ends, while the user's names are still there."""

    def replace(self) -> None:
        """Put the shell on a new loop, since this one has been closed."""


class TerminalCells:
    """Puts the cells and the prompt of a shell without a kernel on the persistent loop. The main thread.

    Args:
        shell: The shell.
        session: Its session.
        interrupts: Handles SIGINT while a cell awaits.
        ends: Ends or replaces the loop.
    """

    def __init__(self, shell: Any, session: Session, interrupts: Interrupts, ends: LoopEnds) -> None:
        self._shell = shell
        self._session = session
        self._interrupts = interrupts
        self._ends = ends
        self._stock_run_cell: Callable[..., Any] = shell.run_cell
        self._patch = Patch(shell, "run_cell", self._make_run_cell())
        self._patches = PatchSet(self._patch, *prompt_patches(shell), patch_exit(shell, ends.end))
        self._runner = AwaitRunner(shell, session, interrupts)
        self._stock_runner: Any = None

    def start(self) -> None:
        """Put cells and prompt on the loop, from the next cell and the next prompt on."""
        self._patches.install()
        # No Patch: `loop_runner` is a trait, which is not kept in the shell's `__dict__`. Another runner than
        # asyncio's, such as trio's, is the user's choice and stays.
        if str(self._shell.loop_runner) == str(self._runner):
            self._stock_runner = self._shell.loop_runner
            self._shell.loop_runner = self._runner

    def stop(self) -> None:
        """Give cells and prompt back to IPython."""
        self._patches.restore()
        if self._shell.loop_runner is self._runner:
            self._shell.loop_runner = self._stock_runner

    def _make_run_cell(self) -> Callable[..., Any]:
        @functools.wraps(self._stock_run_cell)
        def run_cell(*args: Any, **options: Any) -> Any:
            if self._session.loop.is_closed():
                self._ends.replace()
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
            # The interrupt was raised in a step of another task, or before the cell began. The cell must end
            # now, or it would go on behind the next prompt.
            if not task.done():
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            raise

    def _leave_context(self) -> None:
        """Copy the variables that cells have set into the calling Context, in which later cells run."""
        for variable, value in _contexts.pop(self._shell).items():
            if variable.get(_MISSING) is not value:
                variable.set(value)


_MISSING: Any = object()


class AwaitRunner:
    """Runs `await` cells on the persistent loop. IPython calls such an object a `loop_runner`.

    Args:
        shell: The shell.
        session: Its session.
        interrupts: Handles SIGINT meanwhile.
    """

    def __init__(self, shell: Any, session: Session, interrupts: Interrupts) -> None:
        self._shell = shell
        self._session = session
        self._interrupts = interrupts

    def __str__(self) -> str:
        return "asyncio"  # `%autoawait` shows it

    def __call__(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run *coro*, a cell, to its end. Blocks; inside the loop, by a nested run."""
        loop = self._session.loop
        context = _contexts.get(self._shell) if running_loop() is loop else None
        task = loop.create_task(_run_interruptible(coro, self._interrupts), context=context)
        with self._interrupts.cancel_on_sigint(task):
            return loop.run_until_complete(task)


async def _run_interruptible(coro: Coroutine[Any, Any, Any], interrupts: Interrupts) -> Any:
    return await _interruptible(coro, asyncio.current_task(), interrupts)


@types.coroutine
def _interruptible(
    coro: Coroutine[Any, Any, Any], task: asyncio.Task[Any] | None, interrupts: Interrupts
) -> Generator[Any, Any, Any]:
    """Await *coro* in *task*, and turn the cancellation by an interrupt into KeyboardInterrupt.

    KeyboardInterrupt is raised where the cell waits. So IPython shows it with the user's line, and the
    cell does not catch it by `except CancelledError`.
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
            if task is not None and interrupts.was_interrupted(task):
                # Keep the frames of the task that the cell awaits: they show where `%%aloop` was waiting.
                argument = KeyboardInterrupt().with_traceback(users_frames(error.__traceback__))
                task.uncancel()
        except BaseException as error:  # noqa: BLE001  it is passed on, not swallowed
            step, argument = coro.throw, error
