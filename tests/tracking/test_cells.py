"""Which executions are of one cell."""

from __future__ import annotations

from loopnb.records import CellRef
from loopnb.tracking.cells import CellRuns


def test_all_runs_of_a_cell_are_meant_by_the_number_of_one() -> None:
    from contextvars import Context

    runs = CellRuns()
    first, other, again = CellRef("a", 1), CellRef("b", 2), CellRef("a", 3)
    for cell in (first, other, again):
        runs.begin(cell, Context())

    assert [runs.every_run_of(1)(cell) for cell in (first, other, again, None)] == [True, False, True, False]
    assert [runs.is_outdated(cell) for cell in (first, other, again)] == [True, False, False]
