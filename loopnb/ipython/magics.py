"""The magics: `%aloop`, `%%aloop` and `%loopnb`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)
from IPython.core.magic_arguments import argument, magic_arguments

from loopnb import views
from loopnb.errors import NestingError
from loopnb.ipython.display import show_widget, widget_fault
from loopnb.ipython.task_commands import TaskCommands, expect_nothing, say
from loopnb.nesting.choice import ENGINES
from loopnb.session import users_frames

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Mapping

    from loopnb.ipython.aloop import Aloop
    from loopnb.ipython.error_notes import ErrorNotes
    from loopnb.session import Session


@magics_class
class LoopMagics(Magics):
    """The magics of one session.

    Args:
        shell: The shell they are registered in.
        session: Its session.
        error_notes: Explains errors.
    """

    def __init__(self, shell: Any, session: Session, error_notes: ErrorNotes) -> None:
        super().__init__(shell=shell)
        self._session = session
        self._tasks = TaskCommands(shell, session, error_notes)
        self.runner: Aloop | None = None  # set once it has been built around our parser

    @property
    def parser(self) -> ArgumentParser:
        """Parses the options of `%aloop`, as declared below."""
        aloop: Any = LoopMagics.aloop
        parser: ArgumentParser = aloop.parser
        return parser

    @line_cell_magic
    @magic_arguments()
    @argument("-n", "--name", help="Name of the task, for %%loopnb and the widget.")
    @argument("-b", "--background", action="store_true", help="Start it and do not wait for it.")
    @argument("-t", "--timeout", metavar="SECONDS", help="Cancel it after so many seconds.")
    @argument("-o", "--out", metavar="VAR", help="Store the value, or with -b the task, in this variable.")
    @argument("--keep", action="store_true", help="With -b: leave the cell's earlier run running.")
    @argument("--replace", action="store_true", help="With -b: end another cell's task of that name.")
    @argument("--fresh", action="store_true", help="Run on a new loop, closed in order afterwards.")
    @argument("code", nargs="*", help="What %%aloop awaits; everything behind the options, as typed.")
    @no_var_expand
    @needs_local_scope
    def aloop(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run code on the persistent loop, as a named task.

        %aloop EXPRESSION awaits one expression and shows its value. %%aloop runs the cell, with
        `await` at top level; the loop goes on meanwhile. The namespace is shared: a background cell
        sets and reads the same variables as all other cells, at any time. With -b, running the cell
        again ends its earlier run first; its output goes to the cell that started it.

        With --fresh it runs on a loop of its own. The persistent loop stands still meanwhile. At the end
        the tasks left on the fresh loop are cancelled and clean up, then its async generators and its
        executor's threads end.
        """
        assert self.runner is not None
        try:
            return self.runner.run_nested(line, cell, local_ns)
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise

    @line_magic
    @no_var_expand
    def loopnb(self, line: str) -> None:
        """Look at the persistent loop.

        ::

          %loopnb                       status of the loop
          %loopnb tasks                 live tasks: where they come from, what they wait for
              --finished                those that have ended instead
              --all                     both, and the kernel's own
              --cell N                  only those of cell In[N], of all its runs
          %loopnb where NAME|NUMBER     what a task waits for, down to the end; its traceback if it failed
          %loopnb cancel NAME|NUMBER    cancel a task
              --cell N, --all           or all of a cell, or all but the one that runs this
          %loopnb show                  the live widget
          %loopnb nesting               which engine runs nested, and why
          %loopnb nesting ENGINE        another one: handoff, nest-asyncio, or off
        """
        command, _, rest = line.strip().partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "": self._status,
            "status": self._status,
            "tasks": self._tasks.show,
            "where": self._tasks.where,
            "cancel": self._tasks.cancel,
            "show": self._show,
            "nesting": self._nesting,
        }
        if command not in commands:
            known = ", ".join(name for name in commands if name)
            raise UsageError(f"%loopnb: there is no {command!r}. It knows: {known}.")
        commands[command](rest.strip())

    def _status(self, rest: str) -> None:
        expect_nothing("status", rest)
        say(views.status_text(self._session.snapshot(most=0)))
        fault = widget_fault(self._session)
        if fault is not None:
            say(
                f"widget  stopped by an error of its own, {fault}; after '%reload_ext loopnb', loopnb.show() "
                "makes a new one"
            )

    def _nesting(self, rest: str) -> None:
        choice = self._session.nesting
        if rest:
            if rest not in ENGINES:
                raise UsageError(f"%loopnb nesting: there is no {rest!r}. It knows: {', '.join(ENGINES)}.")
            try:
                for sentence in self._session.switch_nesting(rest):
                    say(sentence)
            except NestingError as error:
                raise UsageError(f"%loopnb nesting: {error}") from None
        state = self._session.loop_state()
        say(f"engine  {choice.name}: {choice.reason}")
        say(f"parked  {state.parked} stacks")
        for note in choice.notes():
            say(f"note    {note}")

    def _show(self, rest: str) -> None:
        expect_nothing("show", rest)
        show_widget()
