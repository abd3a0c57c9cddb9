"""Run code on the persistent loop as a named task, for `%aloop` and `%%aloop`.

A plain `%%aloop` cell is awaited (`run_cell`). Everything else, `%aloop` in a line or `%%aloop` below another
magic, is a nested run (`run_nested`). The two differ only in how they wait.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb.frames import users_frames
from loopnb.magics.await_cells import AwaitCells
from loopnb.magics.background import Background
from loopnb.magics.fresh import FreshRuns
from loopnb.magics.options import Request, parse, split_line
from loopnb.magics.source import compile_body, compile_expression, line_forms
from loopnb.nesting.entry_points import cancel_unwaited
from loopnb.nesting.fatal import CapturedFatal
from loopnb.nesting.greenlets import current_context
from loopnb.nesting.no_loop import NoLoop
from loopnb.shell.rejecting import RejectedSyntax
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    import ast
    from argparse import ArgumentParser
    from collections.abc import Mapping
    from contextvars import Context

    from loopnb.magics.progress import Progress
    from loopnb.magics.source import Source
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.interrupts import Interrupts

_MAGIC = "%%aloop"


class Aloop:
    """Runs cells and expressions for one shell. IPython calls it in the thread of the cell.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cell executes.
        interrupts: Knows whether a cell's task was interrupted.
        parser: Parses the options.
        progress: Shows how far a cell has come.
    """

    def __init__(
        self,
        shell: Any,
        session: Session,
        cells: Cells,
        interrupts: Interrupts,
        parser: ArgumentParser,
        progress: Progress,
    ) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._interrupts = interrupts
        self._parser = parser
        self._progress = progress
        self._background = Background(shell, session)
        self._fresh = FreshRuns(session, cells, interrupts, self._make_coro)
        self._await_cells = AwaitCells(shell)

    def start(self) -> None:
        """Rewrite plain `%%aloop` cells before IPython's magic machinery sees them."""
        with ExitStack() as begun:
            for part in (self._await_cells, self._background):
                # Registered first, since `stop` also undoes a `start` that has failed halfway.
                begun.callback(part.stop)
                part.start()
            begun.pop_all()
        self._shell.input_transformers_cleanup.append(self.transform)

    def stop(self) -> None:
        """Leave `%%aloop` cells to IPython."""
        self._shell.input_transformers_cleanup.remove(self.transform)
        self._await_cells.stop()
        self._background.stop()

    def check(self, tree: ast.AST) -> None:
        """Refuse a cell with an `%aloop` whose expression does not compile.

        Without `%aloop` the cell would not compile, either. If the magic raised the error, half of the cell
        would have run by then, and IPython would show its own frames.

        Raises:
            RejectedSyntax: The expression does not compile.
        """
        for line, at in line_forms(tree):
            expression = split_line(line)[1]
            try:
                if expression:
                    compile_expression(self._shell, expression, count=self._count(), line=at)
            except SyntaxError as error:
                raise RejectedSyntax(*error.args) from None

    def transform(self, lines: list[str]) -> list[str]:
        """Turn a plain `%%aloop` cell into an `await` cell. An input transformer.

        Inside another cell, below `%%time` for instance, the magic runs nested instead.

        Raises:
            SyntaxError: The body does not compile.
        """
        if not lines or not _is_aloop(lines[0]) or self._cells.is_inside_cell():
            return lines
        if not self._shell.autoawait:  # then IPython runs no `await` cells; the magic nests
            return lines
        if not self._session.owner.is_home():  # a subshell awaits on a loop of its own; the magic submits
            return lines
        line, body = lines[0].strip().removeprefix(_MAGIC), "".join(lines[1:])
        self._compile(body, "".join(lines))
        return self._await_cells.rewrite(line, body).splitlines(keepends=True)

    # IPython reads this. It skips such a transformer when it only checks whether a cell is complete.
    transform.has_side_effects = True  # type: ignore[attr-defined]  # a function takes any attribute

    async def run_cell(self, line: str, body: str) -> None:
        """Run a plain `%%aloop` cell for the cell that awaits this, and display its value.

        Raises:
            UsageError: The options make no sense, or a background run cannot begin.
            KeyboardInterrupt: The cell was interrupted.
            TimeoutError: The timeout of the options has passed.
        """
        try:
            request = self._read_cell(line, body)
            self._shell.displayhook(self._finish(request, await self._awaited(request)))
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise  # bare, so that it adds no entry for this frame

    async def _awaited(self, request: Request) -> Any:
        try:
            if request.options.is_fresh:
                return self._fresh.run(request)
            # The cell waits, so the code may have the cell's Context. Then variables that it sets hold in
            # later cells, as with `await`.
            is_shared = not request.options.is_background and self._session.nesting.name != "nest-asyncio"
            task = await self._start(request, current_context() if is_shared else None)
            if request.options.is_background:
                await asyncio.sleep(0)  # for its first step: the handle shows where the task waits
                return task
            with self._cells.attribute_to_cell(task):
                return CapturedFatal.unwrap(await self._outcome_of(task))
        except asyncio.CancelledError as error:
            # The kernel interrupts a cell that awaits by cancelling its task.
            if self._interrupts.was_interrupted(asyncio.current_task()):
                raise KeyboardInterrupt(*error.args).with_traceback(error.__traceback__) from None
            raise

    async def _outcome_of(self, task: asyncio.Task[Any]) -> Any:
        """Await *task*. If a callback's SystemExit ends the cell, it cleans up first, as in a script."""
        try:
            return await task
        except SystemExit:
            if not task.done():
                self._interrupts.cancel(task)
                await asyncio.wait([task])
            raise

    def run_nested(self, line: str, body: str | None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run the magic in a nested run, and return its value. Blocks the caller, not the loop.

        With `--fresh` it runs on a new loop, and blocks this one, too.

        Args:
            line: The text after the magic's name.
            body: The lines below it; None for `%aloop`.
            local_ns: Local variables of the function around a `%aloop`.

        Raises:
            UsageError, KeyboardInterrupt, TimeoutError: As `run_cell`.
            NestingError: Nesting is off, or impossible here.
        """
        request = self._read_line(line, local_ns) if body is None else self._read_cell(line, body)
        value = self._fresh.run(request) if request.options.is_fresh else self._nested(request)
        return self._finish(request, value)

    def run_without_loop(self, line: str, body: str) -> Any:
        """Run *body* where no loop is seen to run, and return its value: `%%noloop`.

        Args:
            line: The text after the magic's name. It must be blank.
            body: The lines below it.

        Raises:
            UsageError: *line* is not blank, or *body* awaits.
            SyntaxError: *body* does not compile.
        """
        if line.strip():
            raise UsageError(f"%%noloop: takes no options, and got {line.strip()!r}. The code goes below it.")
        # The traceback of an error begins with line 1 of the cell, which calls the magic.
        source = self._compile(body, f"%%noloop{line}\n{body}", heading="# %%noloop")
        if source.does_await:
            raise UsageError(
                "%%noloop: the cell awaits, and below %%noloop no loop runs. Call asyncio.run() instead, or "
                "put the `await` into a cell of its own."
            )
        with NoLoop():
            value = source.run_now(self._shell.user_global_ns, self._shell.user_ns)
        return None if source.is_quiet else value

    def _nested(self, request: Request) -> Any:
        if not request.options.is_background and self._session.owner.is_inside():
            return self._nested_here(request)
        can_spawn = self._can_spawn_here(request)
        task = self._spawn(request) if can_spawn else self._session.run(self._start(request))
        if request.options.is_background:
            return task
        with self._cells.attribute_to_cell(task):
            return CapturedFatal.unwrap(self._session.wait(task))

    def _nested_here(self, request: Request) -> Any:
        """Spawn a task and wait for it."""
        coro, task = self._make_coro(request), None
        try:
            task = self._spawn(request, coro=coro)
            with self._cells.attribute_to_cell(task):
                return CapturedFatal.unwrap(self._session.wait(task))
        except BaseException:
            cancel_unwaited(self._session.loop, coro, task)
            raise

    def _finish(self, request: Request, value: Any) -> Any:
        """Store the value in the variable of `-o`, and return the value to display."""
        if not request.options.is_background:
            self._store(request, value)
        return None if request.is_quiet else value

    def _read_cell(self, line: str, body: str) -> Request:
        words, rest = split_line(line)
        options = parse(self._parser, words)
        if rest:
            raise UsageError(
                f"%%aloop: the code goes below the first line, and {rest!r} stands on it. "
                "For one expression, use %aloop."
            )
        source = self._compile(body, f"{_MAGIC}{line}\n{body}", in_background=options.is_background)
        if options.is_background and not source.does_await:
            raise UsageError(_no_await("await" in body or "async" in body))
        return Request(options, source, current_cell.get())

    def _read_line(self, line: str, local_ns: Mapping[str, Any] | None) -> Request:
        words, expression = split_line(line)
        options = parse(self._parser, words)
        if not expression:
            raise UsageError("%aloop: what to await is missing. Give an expression, such as %aloop main().")
        if local_ns is self._shell.user_ns:
            local_ns = None
        source = compile_expression(self._shell, expression, count=self._count(), local_ns=local_ns)
        return Request(options, source, current_cell.get())

    def _compile(self, body: str, raw_cell: str, *, in_background: bool = False, heading: str = "") -> Source:
        interactivity = "last_expr" if in_background else self._shell.ast_node_interactivity
        raw_cell = self._cells.typed(raw_cell)
        return compile_body(
            self._shell,
            body,
            count=self._count(),
            raw_cell=raw_cell,
            interactivity=interactivity,
            heading=heading,
        )

    def _count(self) -> int:
        cell = self._cells.current()
        return cell.execution_count if cell is not None else self._shell.execution_count

    def _can_spawn_here(self, request: Request) -> bool:
        """Return True for a background run that replaces nothing. To begin, it needs no nested run."""
        if not request.options.is_background or not self._session.owner.is_inside():
            return False
        return not self._background.replaced_by(request)

    async def _start(self, request: Request, context: Context | None = None) -> asyncio.Task[Any]:
        if request.options.is_background:
            await self._background.end_replaced_runs(request)
        return self._spawn(request, context)

    def _spawn(self, request: Request, context: Context | None = None, coro: Any = None) -> asyncio.Task[Any]:
        coro = self._make_coro(request) if coro is None else coro
        if request.options.is_background:
            task = self._background.spawn(coro, request)
        else:
            task = self._session.spawn(coro, name=request.options.name, context=context)
        if request.source.codes:
            self._session.tracker.relocate(task, request.source.codes[0])
        if request.options.shows_progress:
            self._progress.begin(task)
        if request.options.is_background:
            self._store(request, task)  # before its first step, which may use the variable
        return task

    def _make_coro(self, request: Request) -> Any:
        coro: Any = request.source.run(
            self._shell.user_global_ns,
            self._shell.user_ns,
            deadline=partial(self._session.own_deadline, request.options.timeout),
            in_background=request.options.is_background,
        )
        # Lists and reprs show this name: the cell, not our function that runs it.
        coro.__name__ = coro.__qualname__ = str(request.cell or "%aloop")
        return coro

    def _store(self, request: Request, value: Any) -> None:
        if request.options.out is not None:
            self._shell.user_ns[request.options.out] = value


def _no_await(has_word: bool) -> str:
    """Return why a cell that does not await cannot run in the background.

    Args:
        has_word: The cell has the word `await` or `async` somewhere: in a function, or below another magic.
    """
    if has_word:
        return (
            "%%aloop -b: the cell itself does not await, and only what it awaits can run in the background. "
            "An `await` in a function or below another magic, such as %%time, does not count. Leave that "
            "magic out, or await the function."
        )
    return (
        "%%aloop -b: the cell never awaits, so it would block the loop instead of running in "
        "the background. Run blocking code in a thread: await asyncio.to_thread(fn)."
    )


def _is_aloop(line: str) -> bool:
    words = line.split(None, 1)
    return bool(words) and words[0] == _MAGIC
