"""Who and what a block is: looks in, facts out. No loop, no thread."""

from __future__ import annotations

import gc
import linecache
import sys
from typing import TYPE_CHECKING

import pytest

from loopnb.records import CellRef
from loopnb.watch.judging import (
    GIL_HELD_S,
    Group,
    Judge,
    Step,
    how_blocked,
    waits_in,
    who_runs,
)
from loopnb.watch.looking import Look, TaskFacts, asks_user
from loopnb.watch.sources import Frame, callee, source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loopnb.records import BlockedHow

LIB = linecache.__file__.rpartition("/")[0]
SITE = f"{LIB}/site-packages"
CELL = CellRef("cell-a", 7)

RUN_CODE = Frame(f"{SITE}/IPython/core/interactiveshell.py", "InteractiveShell.run_code", 1, 0)
KERNEL = Frame(f"{SITE}/ipykernel/kernelbase.py", "Kernel.dispatch_shell", 1, 0)
IN_CELL = Frame("/tmp/ipykernel_1/1.py", "<module>", 3, 0)
CLICK = Frame("/tmp/ipykernel_1/1.py", "on_click", 5, 0)


def task(*, is_kernel: bool = False, cell_in_it: CellRef | None = None) -> TaskFacts:
    """Return facts of a task of In[7]."""
    return TaskFacts(5, "hog", "hog", CELL, is_kernel, cell_in_it)


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (Look("step", task=task(), frames=(IN_CELL,)), ("task", "task 5 'hog'", CELL, 5)),
        (Look("step", task=task(cell_in_it=CELL), frames=(IN_CELL,)), ("cell", "In[7]", CELL, None)),
        (
            Look("step", task=task(is_kernel=True), frames=(KERNEL, RUN_CODE, IN_CELL), executing=CELL),
            ("cell", "In[7]", CELL, None),
        ),
        (
            Look("step", task=task(is_kernel=True), frames=(KERNEL, CLICK), executing=None),
            ("callback", "callback on_click()", None, None),
        ),
        (Look("kernel", task=task(is_kernel=True), frames=(KERNEL,)), ("kernel", "the kernel", None, None)),
        (Look("step", frames=(CLICK,)), ("callback", "callback on_click()", None, None)),
    ],
)
def test_who_runs(look: Look, expected: tuple[object, ...]) -> None:
    assert who_runs(look) == expected


def stdlib(file: str, function: str) -> Frame:
    """Return a frame of the standard library."""
    return Frame(f"{LIB}/{file}", function, 1, 0)


@pytest.mark.parametrize(
    ("frames", "call", "expected"),
    [
        ([IN_CELL], "time.sleep(5)", "sleep"),
        ([IN_CELL], "sleep(5)", "sleep"),
        ([IN_CELL], "sock.recv(100)", "socket"),
        ([IN_CELL, stdlib("socket.py", "SocketIO.readinto")], "self._sock.recv_into(b)", "socket"),
        ([IN_CELL, stdlib("ssl.py", "SSLSocket.read")], "self._sslobj.read(len, buffer)", "socket"),
        ([IN_CELL, stdlib("subprocess.py", "run"), stdlib("selectors.py", "select")], "poll()", "process"),
        ([IN_CELL, stdlib("threading.py", "Condition.wait")], "waiter.acquire()", "lock"),
        ([IN_CELL, stdlib("asyncio/selector_events.py", "sock_recv")], "sock.recv(n)", "loop socket"),
        ([IN_CELL], "with lock", "lock"),
        ([IN_CELL], "open('pipe')", "file"),
        ([IN_CELL], "path.read_text()", "file"),
        ([IN_CELL], "driver.run_query('...')", "call"),
        ([], "", "call"),
    ],
)
def test_what_a_call_waits_for(frames: Sequence[Frame], call: str, expected: BlockedHow) -> None:
    assert waits_in(frames, call) == expected


@pytest.mark.parametrize(
    ("group", "garbage_s", "expected"),
    [
        (Group(Look("step"), 1.0, cpu_s=0.9, waited_s=0.3, count=50), 0.0, "computes"),
        (Group(Look("step"), 1.0, cpu_s=0.9, waited_s=0.005, count=50), 0.0, "c call"),
        (Group(Look("step"), 1.0, cpu_s=0.9, gil_s=0.9, waited_s=0.9, count=1), 0.0, "gil"),
        (Group(Look("step"), 1.0, cpu_s=0.9, gil_s=0.9, waited_s=0.9, count=1), 0.8, "garbage"),
        (Group(Look("step", frames=(IN_CELL,)), 1.0, cpu_s=0.01, waited_s=0.3, count=50), 0.0, "sleep"),
        (Group(Look("step", frames=(IN_CELL,)), 1.0, cpu_s=None, waited_s=0.3, count=50), 0.0, "sleep"),
    ],
)
def test_how_a_step_is_blocked(group: Group, garbage_s: float, expected: BlockedHow) -> None:
    assert sys.getswitchinterval() == pytest.approx(0.005)

    assert how_blocked(group, garbage_s, "time.sleep(1)") == expected


def test_the_place_where_most_time_was_spent_is_named() -> None:
    step = Step((1,), began=0.0, until=1.0)
    for line, seconds in ((3, 0.1), (4, 0.3), (5, 0.25), (4, 0.3)):
        step.add(Look("step", frames=(CLICK._replace(line=line),)), seconds, 0.0, 0.0)

    judge = Judge(lambda filename, line, cell=None: f"line {line}", lambda: 1_000.0, lambda: 10.0)
    block = judge.block(1, step, is_over=True, garbage_s=0.0, messages=True)

    assert block.place == "line 4"
    assert (block.began_at, block.lasted_s, block.function) == (990.0, 1.0, "on_click")
    assert block.kept.messages


def test_somebody_who_looks_at_all_objects_does_not_keep_a_block_from_being_made() -> None:
    looked_at = []

    def describe(filename: str, line: int, cell: CellRef | None = None) -> str:
        looked_at.append(gc.get_objects())  # what another thread may do meanwhile
        return f"line {line}"

    step = Step((1,), began=0.0, until=1.0)
    step.add(Look("step", frames=(IN_CELL, CLICK)), 1.0, 0.0, 0.0)
    block = Judge(describe).block(1, step, is_over=True, garbage_s=0.0, messages=False)

    assert block.stack == ("line 3", "on_click() line 5")
    assert looked_at


def test_a_step_keeps_a_bounded_number_of_places() -> None:
    step = Step((1,), began=0.0, until=1.0)
    for line in range(10_000):
        step.add(Look("step", frames=(CLICK._replace(line=line),)), 0.01, 0.0, 0.0)

    assert len(step.groups) <= 200
    assert sum(group.count for group in step.groups.values()) == 10_000


def test_waiting_for_the_gil_counts_from_the_time_that_python_never_keeps_it() -> None:
    step = Step((1,), began=0.0, until=1.0)
    look = Look("step", frames=(CLICK,))
    step.add(look, 0.02, 0.0, GIL_HELD_S / 2)
    step.add(look, 2.0, 0.0, 2 * GIL_HELD_S)
    (group,) = step.groups.values()

    assert group.gil_s == 2 * GIL_HELD_S


@pytest.mark.parametrize(
    ("filename", "function", "expected"),
    [
        (f"{SITE}/ipykernel/kernelbase.py", "Kernel._input_request", True),
        (f"{LIB}/pdb.py", "Pdb.interaction", True),
        (f"{SITE}/debugpy/_vendored/pydevd/pydevd.py", "PyDB._do_wait_suspend", True),
        (f"{SITE}/ipykernel/kernelbase.py", "Kernel.dispatch_shell", False),
        ("/home/me/pdb.py", "solve", False),
    ],
)
def test_who_asks_the_user(filename: str, function: str, expected: bool) -> None:
    assert asks_user(Frame(filename, function, 1, 0)) is expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("time.sleep(5)", "time.sleep()"),
        ("await loop.sock_recv(sock, 1)", "loop.sock_recv()"),
        ("make()(1, 2)", "make()()"),
        ("with lock", "with lock"),
        ("x ** y", "x ** y"),
        ("", ""),
    ],
)
def test_what_a_call_calls(call: str, expected: str) -> None:
    assert callee(call) == expected


def test_the_source_of_a_call_is_found_over_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["x = größe(\n", "    time.sleep(\n", "        5\n", "    )\n", ")\n"]
    monkeypatch.setitem(linecache.cache, "<a cell>", (1, None, lines, "<a cell>"))

    assert source_of(Frame("<a cell>", "f", 2, 0, span=(2, 4, 4, 5))) == "time.sleep( 5 )"
    assert source_of(Frame("<a cell>", "f", 1, 0, span=(1, 1, 4, 11))) == "größe"
    assert source_of(Frame("<a cell>", "f", 9, 0, span=(9, 9, 0, 1))) == ""
    assert source_of(Frame("<a cell>", "f", 1, 0)) == "x = größe("
