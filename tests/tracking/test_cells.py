"""Which executions are of one cell."""

from __future__ import annotations

from contextvars import Context

from loopnb.records import CellRef
from loopnb.tracking.cells import CellRuns


def test_all_runs_of_a_cell_are_meant_by_the_number_of_one() -> None:
    runs = CellRuns()
    first, other, again = CellRef("a", 1), CellRef("b", 2), CellRef("a", 3)
    for cell in (first, other, again):
        runs.begin(cell, Context())

    assert [runs.every_run_of(1)(cell) for cell in (first, other, again, None)] == [True, False, True, False]
    assert [runs.is_outdated(cell) for cell in (first, other, again)] == [True, False, False]


def test_without_ids_executions_of_one_text_are_of_one_cell() -> None:
    runs = CellRuns()
    first, again, other = CellRef(None, 1), CellRef(None, 2), CellRef(None, 3)
    for cell, text in ((first, "x"), (again, "x"), (other, "y")):
        runs.begin(cell, Context(), text)

    assert runs.are_of_one_cell(first, again)
    assert not runs.are_of_one_cell(first, first)
    assert not runs.are_of_one_cell(first, other)
    assert not runs.are_of_one_cell(first, CellRef("a", 4))
    assert not runs.are_of_one_cell(CellRef(None, 5), CellRef(None, 6))
