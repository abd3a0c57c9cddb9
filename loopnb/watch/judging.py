"""Tell from the looks at one step who blocks the loop, and how: looks in, words and facts out.

This module touches neither the loop nor its tasks. It reads the lines of code that it names from source
files.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from loopnb.frames import Owner, is_ours, owner_of
from loopnb.records import Block, Kept
from loopnb.watch._cpython import FUTURES_FILE
from loopnb.watch.looking import is_users_frame, runs_cell
from loopnb.watch.sources import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loopnb.records import BlockedBy, BlockedHow, CellRef, Describe
    from loopnb.watch.looking import Look
    from loopnb.watch.sources import Frame

#: A thread that uses less than this share of a CPU waits; one that uses more computes. Even on a busy
#: machine, a thread that computes gets more.
_WAITS_BELOW = 0.05
#: If no other thread gets the GIL for this many seconds, C code holds it. Python code gives it up after 5 ms.
GIL_HELD_S = 0.1
#: Python code gives the GIL up when the switch interval is over. If looks wait for less than this share of
#: the interval, on average, the GIL was free.
_FREE_BELOW = 0.5
#: The most groups that the looks at one step form. Looks at further places count in the first group.
_GROUPS = 200

#: What a call waits for, by the last part of the name as it is written at the call.
_CALLS: dict[BlockedHow, str] = {
    "sleep": "sleep",
    "socket": "recv recv_into recvfrom recvfrom_into recvmsg send sendall sendto accept connect connect_ex "
    "do_handshake getaddrinfo gethostbyname create_connection urlopen",
    "process": "waitpid wait4 waitid system WaitForSingleObject",
    "lock": "acquire result",
    "file": "open read readline readlines readinto readall write flush fsync read_text read_bytes write_text "
    "write_bytes copyfile rmtree listdir scandir",
}
_BY_CALL: dict[str, BlockedHow] = {name: how for how, names in _CALLS.items() for name in names.split()}
#: The same, by the file of the standard library that the user's line has called.
_BY_FILE: tuple[tuple[str, BlockedHow], ...] = (
    ("/subprocess.py", "process"),
    ("/http/client.py", "socket"),
    ("/socket.py", "socket"),
    ("/ssl.py", "socket"),
    ("/threading.py", "lock"),
    ("/queue.py", "lock"),
    (FUTURES_FILE, "lock"),
)
_LOOP_SOCKETS = "/asyncio/selector_events.py"


@dataclass(slots=True)
class Group:
    """The looks at one step that found it at the same place.

    Attributes:
        look: The first of them.
        seconds: The time that they stand for.
        cpu_s: CPU seconds that the thread used in that time; None if unknown.
        gil_s: Seconds of it for which C code held the GIL.
        waited_s: Seconds that the looks had to wait for the GIL, all together.
        count: Number of looks.
    """

    look: Look
    seconds: float = 0.0
    cpu_s: float | None = 0.0
    gil_s: float = 0.0
    waited_s: float = 0.0
    count: int = 0

    def add(self, seconds: float, cpu_s: float | None, waited_s: float) -> None:
        """Add a look; see `Step.add`."""
        self.seconds += seconds
        self.count += 1
        self.waited_s += waited_s
        if waited_s >= GIL_HELD_S:
            self.gil_s += waited_s
        self.cpu_s = None if cpu_s is None or self.cpu_s is None else self.cpu_s + cpu_s


@dataclass(slots=True)
class Step:
    """What has been seen of one step.

    Attributes:
        key: Identifies the step.
        began: Monotonic time when it began, as far as known.
        until: Monotonic time up to which it was seen.
        groups: Its looks, by place.
        kept: What it kept waiting, when last looked at.
    """

    key: tuple[object, ...]
    began: float
    until: float
    groups: dict[tuple[object, ...], Group] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)

    @property
    def lasted_s(self) -> float:
        """Seconds that it has lasted."""
        return self.until - self.began

    def so_far(self, now: float) -> Step:
        """Return a copy that lasts until *now*. Any thread."""
        return Step(self.key, self.began, now, dict(self.groups.copy()), self.kept)

    def extend(self, until: float) -> None:
        """Note that it lasted until then at least."""
        self.until = max(self.until, until)

    def note_kept(self, kept: Kept) -> None:
        """Note what it keeps waiting."""
        self.kept = kept

    def add(self, look: Look, seconds: float, cpu_s: float | None, waited_s: float) -> None:
        """Add a look.

        Args:
            look: The look.
            seconds: The time that it stands for.
            cpu_s: CPU seconds that the thread used in that time; None if unknown.
            waited_s: Seconds of it for which the look had to wait for the GIL.
        """
        frames = look.frames
        users = users_frame(frames)
        key: tuple[object, ...] = (users and users[:3], frames and frames[-1][:4])
        if key not in self.groups and len(self.groups) >= _GROUPS:
            key = next(iter(self.groups))
        self.groups.setdefault(key, Group(look)).add(seconds, cpu_s, waited_s)


class Who(NamedTuple):
    """Who runs a step.

    Attributes:
        by: What kind of code it is.
        name: Its name, in words.
        cell: The cell that executes, or that spawned the task.
        task: The task's number.
    """

    by: BlockedBy
    name: str
    cell: CellRef | None
    task: int | None


def who_runs(look: Look) -> Who:
    """Return who runs the step of *look*."""
    task = look.task
    cell = task.cell_in_it if task is not None else None
    if cell is None and runs_cell(look.frames):
        cell = look.executing
    if cell is not None:
        return Who("cell", str(cell), cell, None)
    if task is not None and not task.is_kernel:
        label = f"task {task.number} {task.name!r}" if task.number is not None else f"task {task.name!r}"
        return Who("task", label, task.cell, task.number)
    outermost = next(filter(is_users_frame, look.frames), None) or next(
        filter(_is_foreign, look.frames), None
    )
    if outermost is not None:
        return Who("callback", f"callback {_function(outermost) or outermost.function}()", None, None)
    return Who("kernel", "the kernel", None, None)


def users_frame(frames: Sequence[Frame]) -> Frame | None:
    """Return the user's innermost frame; if there is none, that of a library."""
    users = next((frame for frame in reversed(frames) if is_users_frame(frame)), None)
    return users or next((frame for frame in reversed(frames) if _is_foreign(frame)), None)


def _is_foreign(frame: Frame) -> bool:
    return owner_of(frame.filename) in {Owner.USER, Owner.LIBRARY}


def how_blocked(group: Group, garbage_s: float, call: str) -> BlockedHow:
    """Return what a step does while it blocks the loop.

    Args:
        group: Its looks at the place where it spent most of its time.
        garbage_s: Seconds that the garbage collector took meanwhile.
        call: The innermost call, as written.
    """
    if garbage_s > group.seconds / 2:
        return "garbage"
    if group.gil_s > group.seconds / 2:
        return "gil"
    if group.cpu_s is not None and group.cpu_s > _WAITS_BELOW * group.seconds:
        is_gil_free = group.waited_s < _FREE_BELOW * sys.getswitchinterval() * group.count
        return "c call" if is_gil_free else "computes"
    how = waits_in(group.look.frames, call)
    # Where there is no clock of a thread's CPU time, a call that waits is known by its name only.
    return "computes" if how == "call" and group.cpu_s is None else how


def waits_in(frames: Sequence[Frame], call: str) -> BlockedHow:
    """Return what a blocking call waits for, by the names of functions and files.

    Args:
        frames: The stack, outermost first.
        call: The innermost call, as written.
    """
    files = [frame.filename.replace("\\", "/") for frame in frames]
    if files and files[-1].endswith(_LOOP_SOCKETS):
        return "loop socket"
    users = users_frame(frames)
    below = files[frames.index(users) + 1 :] if users is not None else files
    name = call.partition("(")[0].rpartition(".")[2]
    for end, how in _BY_FILE:
        if any(file.endswith(end) for file in below):
            return how
    if call.startswith("with "):
        return "lock"
    return (
        _BY_CALL.get(name)
        or (_BY_CALL.get(frames[-1].function.rpartition(".")[2]) if frames else None)
        or "call"
    )


class Judge:
    """Makes a `Block`, the record for users, of what was seen of a step.

    Args:
        describe: Formats file and line for people. Any thread.
        wall_clock: Seconds since the Unix epoch.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        describe: Describe,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._describe = describe
        self._wall_clock = wall_clock
        self._clock = clock

    def block(self, number: int, step: Step, *, is_over: bool, garbage_s: float, messages: bool) -> Block:
        """Return the block that *step* is.

        Args:
            number: The block's number.
            step: The step.
            is_over: It has ended.
            garbage_s: Seconds that the garbage collector took meanwhile.
            messages: Messages of the front end wait, too.
        """
        groups = step.groups.values()
        group = _longest(list(groups))
        frames = group.look.frames
        who = who_runs(group.look)
        users = users_frame(frames)
        call = source_of(users) if users is not None else ""
        innermost = source_of(frames[-1]) if frames and frames[-1] is not users else call
        gil_s = sum(part.gil_s for part in groups)
        # A list first. `tuple()` of a generator raises SystemError if another thread calls `gc.get_objects()`
        # meanwhile, and so holds the tuple that grows. `_place` may read a file, which releases the GIL.
        stack = [self._named(frame, who.cell) for frame in frames if not is_ours(frame.filename)]
        return Block(
            number=number,
            began_at=self._wall_clock() - (self._clock() - step.began),
            lasted_s=step.lasted_s,
            is_over=is_over,
            by=who.by,
            name=who.name,
            cell=who.cell,
            task=who.task,
            how=how_blocked(group, garbage_s, innermost),
            place=self._place(users, who.cell),
            function=_function(users),
            coroutine=_coroutine(frames),
            call=call,
            below="" if not frames or frames[-1] is users else self._named(frames[-1], None),
            stack=tuple(stack),
            garbage_s=garbage_s,
            is_late=gil_s > step.lasted_s / 2,
            kept=Kept(step.kept.ready, step.kept.timers, step.kept.tasks, messages),
        )

    def unseen(
        self, number: int, began: float, lasted_s: float, garbage_s: float, cell: CellRef | None
    ) -> Block:
        """Return a block that no look has seen, since C code held the GIL all the time.

        Args:
            number: The block's number.
            began: Monotonic time when it began.
            lasted_s: Seconds that it lasted.
            garbage_s: Seconds of them that the garbage collector took.
            cell: The cell that executes.
        """
        return Block(
            number=number,
            began_at=self._wall_clock() - (self._clock() - began),
            lasted_s=lasted_s,
            is_over=True,
            by="unknown" if cell is None else "cell",
            name="unknown code" if cell is None else str(cell),
            cell=cell,
            task=None,
            how="garbage" if garbage_s > lasted_s / 2 else "gil",
            place="",
            garbage_s=garbage_s,
            is_late=True,
        )

    def _place(self, frame: Frame | None, cell: CellRef | None) -> str:
        return "" if frame is None else self._describe(frame.filename, frame.line, cell)

    def _named(self, frame: Frame, cell: CellRef | None) -> str:
        place = self._describe(frame.filename, frame.line, cell)
        return place if frame.function.startswith("<") else f"{frame.function}() {place}"


def _longest(groups: list[Group]) -> Group:
    """Return the sum of the groups at that line of the user's where the step spent most of its time.

    The groups differ in what that line has called. The sum has the look of the longest group.
    """
    by_line: dict[object, list[Group]] = {}
    for group in groups:
        users = users_frame(group.look.frames)
        by_line.setdefault(users and users[:3], []).append(group)
    at_line = max(by_line.values(), key=lambda found: sum(group.seconds for group in found))
    longest = max(at_line, key=lambda group: group.seconds)
    cpus = [group.cpu_s for group in at_line]
    return Group(
        longest.look,
        seconds=sum(group.seconds for group in at_line),
        cpu_s=None if None in cpus else sum(cpu or 0.0 for cpu in cpus),
        gil_s=sum(group.gil_s for group in at_line),
        waited_s=sum(group.waited_s for group in at_line),
        count=sum(group.count for group in at_line),
    )


def _function(frame: Frame | None) -> str:
    if frame is None or frame.function.startswith("<"):
        return ""
    return frame.function.replace(".<locals>", "")


def _coroutine(frames: Sequence[Frame]) -> str:
    """Return the innermost coroutine function on the stack; "" if there is none but the cell itself."""
    for frame in reversed(frames):
        if runs_cell((frame,)):
            return ""
        if frame.is_coroutine and _is_foreign(frame):
            return _function(frame)
    return ""
