"""`%loopnb tasks`, `where` and `cancel`."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb import views
from loopnb.errors import TaskNotFoundError
from loopnb.tracking import where

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.ipython.error_notes import ErrorNotes
    from loopnb.records import CellRef, TaskRecord
    from loopnb.session import Session
    from loopnb.tracking.history import Ended


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
        return [*self._head(tracker.record(task)), *where.lines(tracker, task)]

    def _head(self, record: TaskRecord) -> list[str]:
        age = views.age_text(record.age_s)
        lines = [
            f"{record.label}, {record.coro}, {record.state}, spawned {age} ago",
            f"  spawned by {record.cell or 'other code'}"
            + (f" at {record.spawn_site}" if record.spawn_site else ""),
            *(f"    in {parent}" for parent in self._session.tracker.parents_of(record)),
        ]
        return [*lines, *filter(None, (f"  {record.note}" if record.note else "",))]

    def _end_of(self, ended: Ended) -> list[str]:
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
