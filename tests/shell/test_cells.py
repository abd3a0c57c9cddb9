"""Which cell executes, in which task, and how a place in it is called."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.records import CellRef
from loopnb.shell.cells import Cells
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeShell:
    """A shell that only tells of cells.

    Args:
        counts_at_start: It counts a cell when the cell begins, as IPython 9.8 and later do.
    """

    def __init__(self, *, counts_at_start: bool = True) -> None:
        self.execution_count = 1
        self.counts_at_start = counts_at_start
        self.told: dict[str, Callable[[Any], None]] = {}
        self.events = SimpleNamespace(
            register=self.told.__setitem__, unregister=lambda name, _fn: self.told.pop(name)
        )
        self.compile = SimpleNamespace(
            get_code_name=lambda raw, _text, _count: f"<{raw}>",
            format_code_name=lambda name: ("Cell", f"In[{name}]") if name.startswith("<") else None,
        )

    def begin(self, raw_cell: str = "code", cell_id: str | None = "a") -> Any:
        """Begin a cell, and return what IPython says of it."""
        self.execution_count += self.counts_at_start
        info = SimpleNamespace(store_history=True, raw_cell=raw_cell, cell_id=cell_id)
        self.told["pre_run_cell"](info)
        return info

    def end(self, info: Any) -> None:
        """End a cell. ipykernel knows nothing of one that was cancelled: None."""
        self.execution_count += not self.counts_at_start
        self.told["post_run_cell"](None if info is None else SimpleNamespace(info=info))

    @property
    def displayhook(self) -> Any:
        """What shows values, and knows the number of the cell that executes."""
        return SimpleNamespace(prompt_count=self.execution_count - self.counts_at_start)


class OldCompiler:
    """Names cells as IPython 7 does, and does not tell which names are theirs."""

    def cache(self, _text: str, _number: int = 0, _raw: str | None = None) -> str:
        return "<code>"


@pytest.fixture
def shell() -> FakeShell:
    return FakeShell()


@pytest.fixture
def cells(shell: FakeShell) -> Cells:
    cells = Cells(shell)
    cells.start()
    return cells


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_cell_executes_from_its_beginning_to_its_end(
    shell: FakeShell, cells: Cells, is_cancelled: bool
) -> None:
    info = shell.begin()

    assert cells.executing == cells.current() == current_cell.get() == CellRef("a", 1)
    assert cells.is_executing(CellRef("a", 1))
    assert cells.is_executing(None)
    assert not cells.is_executing(CellRef("a", 2))
    shell.end(None if is_cancelled else info)
    assert cells.executing is cells.current() is None
    assert not cells.is_executing(None)
    assert current_cell.get() == CellRef("a", 1)  # what it has spawned is still its own


@pytest.mark.parametrize("counts_at_start", [False, True])
def test_a_cell_has_the_number_of_its_prompt(counts_at_start: bool) -> None:
    shell = FakeShell(counts_at_start=counts_at_start)
    cells = Cells(shell)
    cells.start()

    shell.end(shell.begin(cell_id="a"))
    shell.begin(cell_id="b")

    assert cells.executing == CellRef("b", 2)


@pytest.mark.parametrize("version", ["7.34", "8.0", "8.7"])
def test_a_place_in_a_cell_is_named_by_its_number_whatever_the_version(version: str) -> None:
    shell = FakeShell()
    compiler: Any = OldCompiler()
    if version == "8.0":
        compiler = SimpleNamespace(_filename_map={"<code>": 3})
    elif version == "8.7":
        compiler = SimpleNamespace(
            format_code_name=lambda name: ("Cell", "In[3]") if name == "<code>" else None
        )
    before = vars(compiler).copy()
    shell.compile = compiler
    cells = Cells(shell)
    cells.start()
    if version == "7.34":
        compiler.cache("code", 3)

    assert cells.places("<code>", 2) == "In[3], line 2"
    assert cells.places("/src/app.py", 2) == "app.py:2"
    assert cells.places.is_cell_file("<code>")
    assert not cells.places.is_cell_file("/src/app.py")
    cells.stop()
    assert vars(compiler) == before


def test_a_cell_that_a_magic_runs_is_part_of_the_magics(shell: FakeShell, cells: Cells) -> None:
    outer = shell.begin()
    inner = shell.begin(cell_id=None)

    assert cells.current() == current_cell.get() == CellRef("a", 1)
    shell.end(inner)
    assert cells.current() == CellRef("a", 1)
    shell.end(outer)
    assert cells.current() is None


def test_the_end_of_a_blank_cell_ends_no_other(shell: FakeShell, cells: Cells) -> None:
    shell.begin()

    shell.end(SimpleNamespace(raw_cell="  \n"))

    assert cells.current() == CellRef("a", 1)


def test_the_end_of_a_cell_ends_those_inside_it(shell: FakeShell, cells: Cells) -> None:
    outer = shell.begin()
    shell.begin()

    shell.end(outer)

    assert cells.current() is None


def test_each_thread_has_cells_of_its_own(shell: FakeShell, cells: Cells) -> None:
    seen: list[CellRef | None] = []

    def subshell() -> None:
        shell.begin(cell_id="b")
        seen.extend([cells.current(), cells.executing])

    thread = threading.Thread(target=subshell)
    thread.start()
    thread.join()

    assert seen == [CellRef("b", 1), None]
    assert cells.current() is None
    assert cells.is_executing(CellRef("b", 1))


def test_what_looks_after_cells_is_called_once_the_outermost_has_ended(
    shell: FakeShell, cells: Cells, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []

    def fails() -> None:
        raise ZeroDivisionError

    cells.call_after(fails)
    cells.call_after(lambda: called.append(1))
    outer = shell.begin()
    shell.end(shell.begin())
    assert called == []

    shell.end(outer)

    assert called == [1]
    assert "looking after a cell failed" in caplog.text


def test_a_cells_own_tasks_are_the_one_it_executes_in_and_those_attributed_to_it(
    shell: FakeShell, cells: Cells
) -> None:
    async def main() -> None:
        here, other = asyncio.current_task(), asyncio.create_task(asyncio.sleep(0))
        assert not cells.is_inside_cell()
        with cells.attribute_to_cell(other):
            assert not cells.is_foreground(other)
        info = shell.begin()
        assert cells.is_inside_cell()
        assert (cells.is_foreground(here), cells.is_top_level(here)) == (True, True)
        assert (cells.is_foreground(other), cells.is_foreground(None)) == (False, False)
        with cells.attribute_to_cell(other):
            assert (cells.is_foreground(other), cells.is_top_level(other)) == (True, False)
        assert not cells.is_foreground(other)
        shell.end(info)
        await other

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "transformed", "typed"),
    [
        ("%%aloop  -b \n1", "%%aloop -b\n1\n", "%%aloop -b\n1\n"),
        (" %%aloop \n1", "%%aloop\n1\n", " %%aloop \n1"),
        ("%%time\n%%aloop\n1", "%%aloop\n1\n", "%%aloop\n1\n"),
    ],
)
def test_a_cells_text_is_as_it_was_sent_if_only_blanks_differ(
    shell: FakeShell, cells: Cells, sent: str, transformed: str, typed: str
) -> None:
    shell.begin(sent)

    assert cells.typed(transformed) == typed


def test_a_place_is_named_by_its_own_run_of_a_text(shell: FakeShell, cells: Cells) -> None:
    for _ in range(2):
        shell.end(shell.begin("x"))
    places = cells.places

    assert places("<x>", 3, CellRef("a", 1)) == "In[1], line 3"
    assert places("<x>", 3, CellRef("a", 2)) == "In[2], line 3"
    assert places("<x>", 3, CellRef("a", 7)) == places("<x>", 3) == "In[<x>], line 3"
    assert places("/there/app.py", 12, CellRef("a", 1)) == "app.py:12"
    assert places.is_cell_file("<x>")
    assert not places.is_cell_file("/there/app.py")


def test_a_compiler_that_fails_keeps_no_cell_from_beginning(shell: FakeShell, cells: Cells) -> None:
    shell.compile.get_code_name = lambda *_: 1 / 0

    shell.begin()

    assert cells.current() == CellRef("a", 1)


def test_nothing_is_followed_after_a_stop(shell: FakeShell, cells: Cells) -> None:
    shell.begin()

    cells.stop()

    assert shell.told == {}
    assert cells.executing is None


def test_outside_of_a_cell_none_is_counted_as_loading(cells: Cells) -> None:
    async def task() -> None:
        cells.begin_loading_cell()

    asyncio.run(task())
    cells.begin_loading_cell()

    assert cells.current() is None
