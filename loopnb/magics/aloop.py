"""What `%aloop` and `%%aloop` do: run code on the persistent loop as a named task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb.frames import users_frames
from loopnb.magics import await_cells
from loopnb.magics.background import Background
from loopnb.magics.fresh import FreshRuns
from loopnb.magics.options import parse, split_line
from loopnb.magics.source import compile_body, compile_expression
from loopnb.nesting.fatal import Ended
from loopnb.shell.rejecting import RejectedSyntax
from loopnb.tracking import cells

if TYPE_CHECKING:
    import ast
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from loopnb.magics.options import AloopOptions
    from loopnb.magics.source import Source
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.interrupts import Interrupts

_MAGIC = "%%aloop"

_current: list[Aloop] = []


async def run_cell(line: str, body: str) -> None:
    """Run a plain `%%aloop` cell; the cell that `Aloop.transform` makes of it awaits this."""
    try:
        await _current[-1].run_cell(line, body)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


class Aloop:
    """Runs cells and expressions for one shell.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cell executes.
        interrupts: Knows whether a cell's task was interrupted.
        parser: Parses the options.
    """

    def __init__(
        self, shell: Any, session: Session, cells: Cells, interrupts: Interrupts, parser: ArgumentParser
    ) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._interrupts = interrupts
        self._parser = parser
        self._background = Background(shell, session)
        self._fresh = FreshRuns(shell, session, cells)
        self._history = await_cells.patch_history(shell)
        self.transform.__func__.has_side_effects = True  # type: ignore[attr-defined]  # IPython reads it

    def start(self) -> None:
        """Take plain `%%aloop` cells over from IPython's magic machinery."""
        self._shell.input_transformers_cleanup.append(self.transform)
        self._history.install()
        _current.append(self)

    def stop(self) -> None:
        """Give them back."""
        self._shell.input_transformers_cleanup.remove(self.transform)
        self._history.restore()
        _current.remove(self)

    def check(self, tree: ast.AST) -> None:
        """Refuse a cell with an `%aloop` whose expression does not compile.

        As it would be if that stood there without `%aloop`: raised by the magic, the error would come
        when half of the cell has run, and be shown with IPython's own frames.
        """
        for line, at in await_cells.line_forms(tree):
            expression = split_line(line)[1]
            try:
                if expression:
                    compile_expression(self._shell, expression, count=self._count(), line=at)
            except SyntaxError as error:
                raise RejectedSyntax(*error.args) from None

    def transform(self, lines: list[str]) -> list[str]:
        """Turn a plain `%%aloop` cell into an `await` cell. An input transformer.

        As an `await` cell it needs no nesting, and the kernel handles widgets' messages
        meanwhile. Inside another cell, below `%%time` for instance, the magic runs nested.

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
        return await_cells.rewritten(line, body).splitlines(keepends=True)

    async def run_cell(self, line: str, body: str) -> None:
        """Run a plain `%%aloop` cell in the task of the cell that awaits this."""
        try:
            await self._run_cell(*self._read_cell(line, body))
        except asyncio.CancelledError as error:
            if self._interrupts.was_interrupted(asyncio.current_task()):
                raise KeyboardInterrupt(*error.args).with_traceback(error.__traceback__) from None
            raise

    async def _run_cell(self, options: AloopOptions, source: Source) -> None:
        if options.is_fresh:
            self._show(options, source, self._run_fresh(options, source))
            return
        task = await self._start(options, source)
        if options.is_background:
            self._store(options, task)
            await asyncio.sleep(0)  # its first step: the handle shows where it waits
            self._shell.displayhook(task)
            return
        with self._cells.attribute_to_cell(task), self._session.deadline(task, options.timeout):
            value = Ended.unwrap(await task)
        self._show(options, source, value)

    def run_nested(self, line: str, body: str | None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run the magic by a nested run and return its value. *local_ns* are its caller's variables."""
        if body is None:
            options, source = self._read_line(line, local_ns)
        else:
            options, source = self._read_cell(line, body)
        if options.is_fresh:
            value = self._run_fresh(options, source)
        else:
            at_once = options.is_background and self._can_spawn_here(options, source)
            task = (
                self._spawn(options, source) if at_once else self._session.run(self._start(options, source))
            )
            value = task if options.is_background else self._wait(task, options)
        self._store(options, value)
        return None if source.is_quiet else value

    def _wait(self, task: asyncio.Task[Any], options: AloopOptions) -> Any:
        with self._cells.attribute_to_cell(task):
            return Ended.unwrap(self._session.wait(task, options.timeout))

    def _read_cell(self, line: str, body: str) -> tuple[AloopOptions, Source]:
        words, rest = split_line(line)
        options = parse(self._parser, words)
        if rest:
            raise UsageError(
                f"%%aloop: the code goes below the first line, and {rest!r} stands on it. "
                "For one expression, use %aloop."
            )
        source = self._compile(body, f"{_MAGIC}{line}\n{body}", in_background=options.is_background)
        if options.is_background and not source.does_await:
            raise UsageError(
                "%%aloop -b: the cell never awaits, so it would block the loop instead of running in "
                "the background. Run blocking code in a thread: await asyncio.to_thread(fn)."
            )
        return options, source

    def _read_line(self, line: str, local_ns: Mapping[str, Any] | None) -> tuple[AloopOptions, Source]:
        words, expression = split_line(line)
        options = parse(self._parser, words)
        if not expression:
            raise UsageError("%aloop: what to await is missing, such as %aloop main().")
        if local_ns is self._shell.user_ns:
            local_ns = None
        source = compile_expression(self._shell, expression, count=self._count(), local_ns=local_ns)
        return options, source

    def _compile(self, body: str, raw_cell: str, *, in_background: bool = False) -> Source:
        interactivity = "last_expr" if in_background else self._shell.ast_node_interactivity
        raw_cell = self._cells.typed(raw_cell)
        return compile_body(
            self._shell, body, count=self._count(), raw_cell=raw_cell, interactivity=interactivity
        )

    def _count(self) -> int:
        cell = self._cells.current()
        return cell.execution_count if cell is not None else self._shell.execution_count

    def _can_spawn_here(self, options: AloopOptions, source: Source) -> bool:
        """Say whether a background run can begin without waiting for another one's end: without nesting."""
        cell = cells.current_cell.get()
        return self._session.owner.is_inside() and not self._background.to_be_ended(options, cell, source)

    async def _start(self, options: AloopOptions, source: Source) -> asyncio.Task[Any]:
        if options.is_background:
            await self._background.make_room(options, cells.current_cell.get(), source)
        return self._spawn(options, source)

    def _spawn(self, options: AloopOptions, source: Source) -> asyncio.Task[Any]:
        task = self._session.spawn(self._make_coro(options, source), name=options.name)
        if source.codes:
            self._session.tracker.relocate(task, source.codes[0])
        if options.is_background:
            self._background.add(task, options, cells.current_cell.get(), source)
        return task

    def _make_coro(self, options: AloopOptions, source: Source) -> Any:
        coro: Any = source.run(
            self._shell.user_global_ns, self._shell.user_ns, in_background=options.is_background
        )
        # What lists and reprs show: the cell, not the function of ours that runs it.
        coro.__name__ = coro.__qualname__ = str(cells.current_cell.get() or "%aloop")
        return coro

    def _run_fresh(self, options: AloopOptions, source: Source) -> Any:
        return self._fresh.run(lambda: self._make_coro(options, source), options, source)

    def _show(self, options: AloopOptions, source: Source, value: Any) -> None:
        self._store(options, value)
        if not source.is_quiet:
            self._shell.displayhook(value)

    def _store(self, options: AloopOptions, value: Any) -> None:
        if options.out is not None:
            self._shell.user_ns[options.out] = value


def _is_aloop(line: str) -> bool:
    words = line.split(None, 1)
    return bool(words) and words[0] == _MAGIC
