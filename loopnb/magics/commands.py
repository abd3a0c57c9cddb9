"""The magics: `%aloop`, `%%aloop` and `%loopnb`."""

from __future__ import annotations

import sys
import traceback
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
from loopnb.errors import NestingError, TaskNotFoundError
from loopnb.frames import users_frames
from loopnb.magics.display import show_widget, widget_fault
from loopnb.nesting.second_engine import ENGINES
from loopnb.tracking import chains

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Mapping

    from loopnb.magics.aloop import Aloop
    from loopnb.records import CellRef, TaskRecord
    from loopnb.session import Session
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.tracking.history import EndedTask


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


# -- task_commands ------------------------------------------------------------
#
# `%loopnb tasks`, `where` and `cancel`.


class TaskCommands:
    """Lists, explains and cancels tasks.

    Args:
        shell: The shell; it formats tracebacks.
        session: Its session.
        error_notes: Explains errors.
    """

    def __init__(self, shell: Any, session: Session, error_notes: ErrorNotes) -> None:
        self._shell = shell
        self._session = session
        self._error_notes = error_notes

    def show(self, rest: str) -> None:
        """List tasks, as many as the settings say."""
        flags, is_wanted, words = self._options("tasks", rest, "--all", "--finished")
        expect_nothing("tasks", " ".join(words))
        every, finished = "--all" in flags, "--finished" in flags
        tracker = self._session.tracker

        def look() -> tuple[list[TaskRecord], int]:
            live = tracker.live(kernels=every) if every or not finished else []
            ended = tracker.ended() if every or finished else []
            live = [task for task in live if is_wanted(tracker.origin_of(task).cell)]
            ended = [one for one in ended if is_wanted(one.origin.cell)]
            count = len(live) + len(ended)
            limit = self._session.settings.rows_shown or count
            # The last of those that ended, the first of those that live. No record is made for the rest.
            ended = ended[-limit:]
            records = [tracker.record_ended(one) for one in ended]
            records += tracker.records_of(live[: limit - len(ended)])
            return sorted(records, key=lambda record: record.number), count - len(records)

        records, more = self._session.owner.call(look)
        if finished and not records:
            say("No finished tasks are kept, or none of that cell.")
        else:
            say(views.table_text(records, more=more))

    def where(self, rest: str) -> None:
        """Say what a task waits for, or what it failed with."""
        if not rest:
            raise UsageError("%loopnb where: which task? Give its name or number; %loopnb tasks lists them.")
        say("\n".join(self._session.owner.call(self._explain, _unquoted(rest))))

    def cancel(self, rest: str) -> None:
        """Cancel one task, those of a cell, or all."""
        flags, is_wanted, words = self._options("cancel", rest, "--all")
        if flags and not words:
            records = self._session.cancel_all(is_wanted)
            say(
                f"Cancelled {len(records)} task(s): {views.names_text(record.name for record in records)}."
                if records
                else "There is no such task to cancel."
            )
            return
        if flags or not words:
            raise UsageError(
                "%loopnb cancel: which task? Give its name or number, --cell N or --all; "
                "%loopnb tasks lists them."
            )
        try:
            record = self._session.cancel(_unquoted(rest))
        except TaskNotFoundError as error:
            raise UsageError(f"%loopnb cancel: {error}") from None
        name = views.names_text([record.name])
        say(f"Cancelled task {record.number}, {name}, spawned by {record.cell or 'other code'}.")

    def _options(
        self, command: str, rest: str, *known: str
    ) -> tuple[set[str], Callable[[CellRef | None], bool], list[str]]:
        """Split *rest* into flags, a condition on the cell, and further words."""
        words = rest.split()
        flags: set[str] = set()
        is_wanted: Callable[[CellRef | None], bool] = lambda _cell: True  # noqa: E731  it needs its type
        while words and words[0].startswith("--"):
            word, _, value = words.pop(0).partition("=")
            if word == "--cell":
                value = value or (words.pop(0) if words else "")
                if not value.isdecimal():
                    raise UsageError(f"%loopnb {command}: --cell takes the N of In[N], and got {value!r}.")
                is_wanted = self._session.tracker.runs.every_run_of(int(value))
            elif word not in known:
                raise UsageError(
                    f"%loopnb {command}: there is no {word!r}. It knows: {', '.join((*known, '--cell N'))}."
                )
            flags.add(word)
        return flags, is_wanted, words

    def _explain(self, wanted: str) -> list[str]:
        tracker = self._session.tracker
        try:
            task = tracker.find(wanted)
        except TaskNotFoundError as error:
            ended = tracker.find_ended(wanted)
            if ended is None:
                raise UsageError(f"%loopnb where: {error}") from None
            return [*self._head(tracker.record_ended(ended)), *self._end_of(ended)]
        return [*self._head(tracker.record(task)), *chains.where_lines(tracker, task)]

    def _head(self, record: TaskRecord) -> list[str]:
        age = views.age_text(record.age_s)
        lines = [
            f"{record.label}, {record.coro}, {record.state}, spawned {age} ago",
            f"  spawned by {record.cell or 'other code'}"
            + (f" at {record.spawn_site}" if record.spawn_site else ""),
            *(f"    in {parent}" for parent in self._session.tracker.parents_of(record)),
        ]
        return [*lines, *filter(None, (f"  {record.note}" if record.note else "",))]

    def _end_of(self, ended: EndedTask) -> list[str]:
        if ended.error is None:
            return []
        self._session.failures.seen(ended.origin.number)
        self._error_notes.add_to(ended.error)
        return [_traceback_text(self._shell, ended.error)]


def _traceback_text(shell: Any, error: BaseException) -> str:
    """Return what IPython shows of *error*: of a group, and what came of one, Python's own text."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, BaseExceptionGroup):
            return "".join(traceback.format_exception(error))
        one = one.__context__
    formatter = shell.InteractiveTB
    shown: str = formatter.stb2text(formatter.structured_traceback(type(error), error, error.__traceback__))
    return shown


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name


def expect_nothing(command: str, rest: str) -> None:
    """Refuse what stands behind a command that takes no more.

    Raises:
        UsageError: There is something.
    """
    if rest:
        raise UsageError(f"%loopnb {command}: takes nothing more, and got {rest!r}.")


def say(text: str) -> None:
    """Print *text*, with one newline at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")
