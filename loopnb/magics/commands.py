"""The magics as IPython knows them, and what the commands of `%loopnb` do. `COMMANDS` lists these."""

from __future__ import annotations

import textwrap
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)
from IPython.core.magic_arguments import argument, magic_arguments

from loopnb import trees, views
from loopnb._cpython import name_of
from loopnb.errors import NestingError, TaskNotFoundError
from loopnb.frames import users_frames
from loopnb.magics import command_table
from loopnb.magics.command_table import Command, meant, write
from loopnb.magics.display import display_widget
from loopnb.magics.waiting import take_timeout
from loopnb.magics.watching import WatchCommands, findings_line, status_line
from loopnb.nesting.second_engine import ENGINES
from loopnb.texts import unquoted
from loopnb.tracking.where import where_lines

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Collection, Mapping, Sequence

    from loopnb.magics.aloop import Aloop
    from loopnb.magics.failing import Failing
    from loopnb.magics.waiting import Waiting
    from loopnb.records import CellRef, TaskRecord
    from loopnb.session import Session
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.tracking.history import EndedTask


@magics_class
class LoopMagics(Magics):
    """The magics of one session.

    Args:
        shell: The shell in which they are registered.
        session: Its session.
        aloop: Runs code for `%aloop` and `%%aloop`.
        error_notes: Explains errors.
        waiting: Waits for tasks.
        failing: Fails cells with the errors of tasks.

    Attributes:
        runner: *aloop*; `await_cells` finds it here.
        failing: As given; the cells that it fails find it here.
    """

    def __init__(
        self,
        shell: Any,
        session: Session,
        aloop: Aloop,
        error_notes: ErrorNotes,
        waiting: Waiting,
        failing: Failing,
    ) -> None:
        super().__init__(shell=shell)
        self.runner = aloop
        self.failing = failing
        groups: tuple[object, ...] = (
            LoopCommands(session),
            TaskCommands(shell, session, error_notes, waiting),
            WatchCommands(session),
        )
        self._groups = {type(group): group for group in groups}

    @line_cell_magic
    @magic_arguments()
    @argument("-n", "--name", help="Name of the task, for %%loopnb and the widget.")
    @argument("-b", "--background", action="store_true", help="Start it and do not wait for it.")
    @argument("-t", "--timeout", metavar="SECONDS", help="Cancel it after SECONDS, and wait for its cleanup.")
    @argument("-o", "--out", metavar="VAR", help="Store the value, or with -b the task, in this variable.")
    @argument(
        "--keep",
        action="store_true",
        help="With -b: leave the cell's earlier run running, and the tasks and servers that this one leaves.",
    )
    @argument("--replace", action="store_true", help="With -b: end another cell's task of that name.")
    @argument("--progress", action="store_true", help="Show how far the cell has come, while it waits.")
    @argument("--fresh", action="store_true", help="Run on a new loop, closed in order afterwards.")
    @argument("code", nargs="*", help="What %%aloop awaits: all that follows the options, as typed.")
    @no_var_expand
    @needs_local_scope
    def aloop(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run code on the persistent loop, as a named task.

        %aloop EXPRESSION awaits one expression and shows its value. %%aloop runs the cell below it, with
        `await` at top level. Other tasks go on meanwhile.

        With -b the cell runs in the background, and the next cell can run at once. Its output goes to the
        cell that started it. It shares its variables with all other cells, at any time. Running the cell
        again ends its earlier run first.

        With --fresh the cell runs on a loop of its own, and the persistent loop stands still meanwhile. At
        the end the tasks left on the fresh loop are cancelled and clean up. Then its async generators and
        the threads of its executor end.
        """
        try:
            return self.runner.run_nested(line, cell, local_ns)
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise

    @cell_magic
    @no_var_expand
    def noloop(self, line: str, cell: str) -> Any:
        """Run the cell where no loop is seen to run, as in a script.

        For libraries that ask whether a loop runs, and refuse if one does. `asyncio.run()` and its kin nest
        on the persistent loop as usual, and other tasks go on meanwhile. As in a script, there is no `await`
        and no `asyncio.create_task()`. `with loopnb.noloop():` does the same for a block.
        """
        try:
            return self.runner.run_without_loop(line, cell)
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise

    @line_magic
    @no_var_expand
    def loopnb(self, line: str) -> None:
        """Look at the persistent loop."""
        name, _, rest = line.strip().partition(" ")
        command = command_table.find(COMMANDS, name or "status")
        try:
            command.method(self._groups[command.group], rest.strip())
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise


class LoopCommands:
    """Shows the loop, and switches its nesting.

    `show` needs the loop's thread. The others run in any thread, and outside the loop's they block until the
    loop has answered.

    Args:
        session: The session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def help(self, rest: str) -> None:
        """List the commands."""
        _expect_nothing("help", rest)
        write(command_table.help_text(COMMANDS))

    def status(self, rest: str) -> None:
        """Show the state of the loop."""
        _expect_nothing("status", rest)
        snapshot = self._session.snapshot(most=0)
        write(views.status_text(snapshot))
        if snapshot.loop.block is not None:
            write(status_line(snapshot.loop.block))
        write(findings_line(self._session.findings()))
        fault = self._session.widget_fault
        if fault is not None:
            write(f"widget  stopped by an error of its own, {fault}; loopnb.show() makes a new one")

    def nesting(self, rest: str) -> None:
        """Show or choose the engine that runs nested calls."""
        if rest and rest not in ENGINES:
            raise UsageError(
                f"%loopnb nesting: there is no engine {rest!r}.{meant(rest, ENGINES)} "
                f"The engines are {', '.join(ENGINES)}."
            )
        choice = self._session.nesting
        if rest in ENGINES:
            try:
                for sentence in self._session.switch_nesting(rest):
                    write(sentence)
            except NestingError as error:
                raise UsageError(f"%loopnb nesting: {error}") from None
        parked = self._session.loop_state().parked
        write(f"engine  {choice.name}: {choice.reason}")
        write(f"parked  {parked} {'stack' if parked == 1 else 'stacks'}")
        for note in choice.notes():
            write(f"note    {note}")

    def show(self, rest: str) -> None:
        """Display the live widget."""
        _expect_nothing("show", rest)
        display_widget(self._session.widget())


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks a command is about.

    Attributes:
        flags: The flags that were given, such as `--all`.
        cell: The N of In[N] after `--cell`; None if that was not given.
        words: The words after the flags.
    """

    flags: Collection[str]
    cell: int | None
    words: list[str]


def select(command: str, rest: str, *known: str) -> Selection:
    """Parse the arguments of a command that is about tasks.

    Args:
        command: The command, for errors.
        rest: The text after the command.
        known: The flags that the command knows. All commands know `--cell N`.

    Raises:
        UsageError: A flag is unknown, or `--cell` has no number.
    """
    words = rest.split()
    flags: set[str] = set()
    cell: int | None = None
    while words and words[0].startswith("--"):
        word, _, value = words.pop(0).partition("=")
        if word == "--cell":
            value = value or (words.pop(0) if words else "")
            if not value.isdecimal():
                raise UsageError(f"%loopnb {command}: --cell takes the N of In[N], a number, not {value!r}.")
            cell = int(value)
        elif word in known:
            flags.add(word)
        else:
            raise UsageError(
                f"%loopnb {command}: there is no option {word!r}.{meant(word, (*known, '--cell'))} "
                f"The options are {', '.join((*known, '--cell N'))}."
            )
    return Selection(flags, cell, words)


_LISTED = "'%loopnb tasks' lists them."


class TaskCommands:
    """Lists, explains and cancels tasks, and waits for them. Outside the loop's thread, all of it blocks.

    Args:
        shell: The shell; it formats tracebacks.
        session: Its session.
        error_notes: Explains errors.
        waiting: Waits for tasks.
    """

    def __init__(self, shell: Any, session: Session, error_notes: ErrorNotes, waiting: Waiting) -> None:
        self._shell = shell
        self._session = session
        self._error_notes = error_notes
        self._waiting = waiting

    def show(self, rest: str) -> None:
        """List tasks, as many as the settings say."""
        selection = select("tasks", rest, "--all", "--finished")
        _expect_nothing("tasks", " ".join(selection.words))
        is_wanted = self._is_wanted(selection.cell)
        every, finished = "--all" in selection.flags, "--finished" in selection.flags
        tracker = self._session.tracker

        def look() -> tuple[list[TaskRecord], int]:
            live = tracker.live(kernels=every) if every or not finished else []
            ended = tracker.ended() if every or finished else []
            live = [task for task in live if is_wanted(tracker.origin_of(task).cell)]
            ended = [task for task in ended if is_wanted(task.origin.cell)]
            count = len(live) + len(ended)
            limit = self._session.settings.rows_shown or count
            # The newest ended tasks and the oldest live tasks. Make no records of the others.
            ended = ended[-limit:]
            records = [tracker.record_ended(task) for task in ended]
            records += tracker.records_of(live[: limit - len(ended)])
            return sorted(records, key=lambda record: record.number), count - len(records)

        records, more = self._session.owner.call(look)
        if finished and not records:
            of_cell = "" if selection.cell is None else f" of In[{selection.cell}]"
            write(f"No finished task{of_cell} is remembered.")
        else:
            write(views.table_text(records, tracker.clock(), more=more))

    def where(self, rest: str) -> None:
        """Say what a task waits for, or what it failed with. List the tasks if several share the name."""
        if not rest:
            raise UsageError(f"%loopnb where: which task? Give its name or number. {_LISTED}")
        write("\n".join(self._session.owner.call(self._explain, unquoted(rest))))

    def tree(self, rest: str) -> None:
        """Show who waits for whom, or who has spawned whom."""
        selection = select("tree", rest, "--spawned")
        session, is_of_cell = self._session, self._is_wanted(selection.cell)
        number = self._number_of("tree", unquoted(" ".join(selection.words))) if selection.words else None
        graph = session.await_graph()
        below: Mapping[int, tuple[int, ...]] = graph.awaits
        if "--spawned" in selection.flags:
            below = session.in_slices(trees.spawned_by(graph.records))
        roots = [] if number is None else [number]
        if number is None:
            steps = trees.roots_of(graph.records, below, lambda task: is_of_cell(task.cell))
            roots = session.in_slices(steps)
        tree = session.in_slices(trees.tree_of(graph.records, below, roots))
        details = session.wait_details(trees.explained(tree), graph)
        now = session.tracker.clock()
        said = {number: views.wait_text(detail, now) for number, detail in details.items()}
        of_cell = "" if selection.cell is None else f" of In[{selection.cell}]"
        write(session.in_slices(trees.tree_text(tree, graph, now, said)) or f"No live tasks{of_cell}.")

    def _number_of(self, command: str, wanted: str) -> int:
        tracker = self._session.tracker
        try:
            return self._session.owner.call(lambda: tracker.number_of(tracker.find(wanted)))
        except TaskNotFoundError as error:
            raise _not_found(command, error) from None

    def cancel(self, rest: str) -> None:
        """Cancel one task, all tasks of a cell or of a name, or all tasks."""
        selection = select("cancel", rest, "--all")
        if selection.words and selection.flags and selection.cell is None:
            self._cancel_named(unquoted(rest.partition("--all")[2].strip()))
        elif selection.words and not selection.flags and selection.cell is None:
            self._cancel_one(unquoted(rest))
        elif selection.words or not (selection.flags or selection.cell is not None):
            raise UsageError(
                "%loopnb cancel: which task? Give its name or number, or --cell N, or --all, "
                f"or --all NAME. {_LISTED}"
            )
        else:
            self._cancel_many(self._session.cancel_all(self._is_wanted(selection.cell)))

    def wait(self, rest: str) -> None:
        """Wait for one task, for all tasks of a cell, or for all tasks, and raise what failed."""
        rest, timeout = take_timeout(rest)
        selection = select("wait", rest, "--all")
        is_about_many = bool(selection.flags) or selection.cell is not None
        if is_about_many and selection.words:
            raise UsageError(
                "%loopnb wait: give a name or number, or --cell N, or --all. You may add -t SECONDS."
            )
        try:
            if selection.words:
                self._waiting.wait_for_task(unquoted(rest), timeout)
            else:
                self._waiting.wait_for_cells(self._is_wanted(selection.cell), timeout)
        except TaskNotFoundError as error:
            raise UsageError(f"%loopnb wait: {error}") from None

    def _cancel_many(self, records: Sequence[TaskRecord]) -> None:
        names = views.names_text(record.name for record in records)
        count = "1 task" if len(records) == 1 else f"{len(records)} tasks"
        write(f"Cancelled {count}: {names}." if records else "No task was cancelled: no live task matches.")

    def _cancel_named(self, name: str) -> None:
        tracker = self._session.tracker
        if not self._session.owner.call(tracker.named, name):
            names = self._session.owner.call(lambda: [name_of(task) for task in tracker.live()])
            raise _not_found("cancel", TaskNotFoundError(name, names))
        self._cancel_many(self._session.cancel_all(name=name))

    def _cancel_one(self, wanted: str) -> None:
        shared = self._session.owner.call(self._shared, wanted)
        if shared:
            write(shared)
            raise UsageError(
                f"%loopnb cancel: several tasks are called {wanted!r:.60}, and none was cancelled. Give the "
                f"number of one, or cancel them all: '%loopnb cancel --all {wanted:.60}'."
            )
        try:
            record = self._session.cancel(wanted)
        except TaskNotFoundError as error:
            raise _not_found("cancel", error) from None
        name = views.names_text([record.name])
        write(f"Cancelled task {record.number}, {name}, spawned by {record.cell or 'other code'}.")

    def _shared(self, name: str) -> str:
        """Return a table of the live tasks of that name, or "" if there is at most one."""
        tracker = self._session.tracker
        tasks = tracker.named(name)
        if len(tasks) < 2:
            return ""
        shown = tasks[: self._session.settings.rows_shown or len(tasks)]
        more = len(tasks) - len(shown)
        return views.table_text(tracker.records_of(shown), tracker.clock(), more=more)

    def _is_wanted(self, cell: int | None) -> Callable[[CellRef | None], bool]:
        """Return a predicate that matches every run of the cell In[*cell*]; for None, all cells."""
        return (lambda _cell: True) if cell is None else self._session.tracker.runs.every_run_of(cell)

    def _explain(self, wanted: str) -> list[str]:
        tracker = self._session.tracker
        shared = self._shared(wanted)
        if shared:
            number = tracker.number_of(tracker.named(wanted)[0])
            return [
                f"Several tasks are called {wanted!r:.60}. Give the number of one: '%loopnb where {number}'.",
                shared,
            ]
        try:
            task = tracker.find(wanted)
        except TaskNotFoundError as error:
            ended = tracker.find_ended(wanted)
            if ended is None:
                raise _not_found("where", error) from None
            return [*self._head(tracker.record_ended(ended)), *self._end_of(ended)]
        now = tracker.clock()
        lines = where_lines(tracker, task, lambda detail: views.wait_text(detail, now))
        return [*self._head(tracker.record(task)), *lines]

    def _head(self, record: TaskRecord) -> list[str]:
        age = views.age_text(record.age_s)
        lines = [
            f"{record.label}, {record.coro}, {record.state}, spawned {age} ago",
            f"  spawned by {record.cell or 'other code'}"
            + (f" at {record.spawn_site}" if record.spawn_site else ""),
            *(f"    in {parent}" for parent in self._session.tracker.parents_of(record)),
        ]
        blocked = views.blocked_text(record.blocked_s)
        waited = f"waited at {record.waits_at}" if record.state == "dropped" and record.waits_at else ""
        return [*lines, *(f"  {note}" for note in (waited, blocked, record.note) if note)]

    def _end_of(self, ended: EndedTask) -> list[str]:
        if ended.error is None:
            return []
        self._session.failures.seen(ended.origin.number)
        self._error_notes.add_to(ended.error)
        return [_traceback_text(self._shell, ended.error)]


def _traceback_text(shell: Any, error: BaseException) -> str:
    """Return the traceback as IPython shows it, or as Python does if an exception group is part of it."""
    part: BaseException | None = error
    while part is not None:
        if isinstance(part, BaseExceptionGroup):
            return "".join(traceback.format_exception(error))
        part = part.__context__
    formatter = shell.InteractiveTB
    # By default IPython 8 leaves out the first frame, which in an error of a cell is IPython's own.
    lines = formatter.structured_traceback(type(error), error, error.__traceback__, tb_offset=0)
    text: str = formatter.stb2text(lines)
    return text


def _not_found(command: str, error: TaskNotFoundError) -> UsageError:
    return UsageError(f"%loopnb {command}: {error}{meant(error.wanted, error.names)}")


def _expect_nothing(command: str, rest: str) -> None:
    if rest:
        raise UsageError(f"%loopnb {command}: does not take {rest!r}. See '%loopnb help'.")


#: The commands of `%loopnb`, in the order of the help.
COMMANDS = (
    Command("status", LoopCommands, LoopCommands.status, (("", "the loop's status; also as %loopnb alone"),)),
    Command(
        "tasks",
        TaskCommands,
        TaskCommands.show,
        (
            ("", "live tasks: where they come from, what they wait for"),
            ("--finished", "tasks that have ended, instead"),
            ("--all", "live and ended tasks, and the kernel's own"),
            ("--cell N", "only tasks of cell In[N], from all of its runs"),
        ),
    ),
    Command(
        "where",
        TaskCommands,
        TaskCommands.where,
        (("NAME|NUMBER", "the whole chain of what a task waits for; its traceback if it failed"),),
    ),
    Command(
        "tree",
        TaskCommands,
        TaskCommands.tree,
        (
            ("", "who waits for whom; tasks that do the same share a line"),
            ("NAME|NUMBER", "what one task waits for"),
            ("--cell N", "only tasks of cell In[N], and what they wait for"),
            ("--spawned", "who has spawned whom, instead"),
        ),
    ),
    Command(
        "cancel",
        TaskCommands,
        TaskCommands.cancel,
        (
            ("NAME|NUMBER", "cancel a task"),
            ("--all NAME", "cancel all tasks of that name"),
            ("--cell N", "cancel all tasks of a cell"),
            ("--all", "cancel all tasks but the one that runs this"),
        ),
    ),
    Command(
        "doctor",
        WatchCommands,
        WatchCommands.doctor,
        (("", "what is wrong, worst first, and what to do about it"),),
    ),
    Command(
        "wait",
        TaskCommands,
        TaskCommands.wait,
        (
            ("", "wait for all tasks, show here what they print, and raise what fails; also as --all"),
            ("NAME|NUMBER", "wait for a task"),
            ("--cell N", "wait for all tasks of a cell"),
            ("-t SECONDS", "wait at most that long; goes with any of the others"),
        ),
    ),
    Command(
        "blocks",
        WatchCommands,
        WatchCommands.blocks,
        (("", "who has blocked the loop, for how long, and where"),),
    ),
    Command(
        "lag",
        WatchCommands,
        WatchCommands.lag,
        (("", "how late the loop is, and where its time goes"),),
    ),
    Command(
        "watch",
        WatchCommands,
        WatchCommands.watch,
        (
            ("", "who keeps the loop busy, as far as that was sampled"),
            ("on|off", "start or stop sampling that"),
        ),
    ),
    Command("show", LoopCommands, LoopCommands.show, (("", "the live widget"),)),
    Command(
        "nesting",
        LoopCommands,
        LoopCommands.nesting,
        (
            ("", "which engine runs nested calls, and why"),
            ("|".join(ENGINES), "choose another engine"),
        ),
    ),
    Command("help", LoopCommands, LoopCommands.help, (("", "this list"),)),
)
# For `%loopnb?`.
LoopMagics.loopnb.__doc__ = f"""Look at the persistent loop.

::

{textwrap.indent(command_table.help_text(COMMANDS), "  ")}
"""
#: Parses the options of `%aloop`, as declared above.
PARSER: ArgumentParser = cast("Any", LoopMagics.aloop).parser
