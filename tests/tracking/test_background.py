"""Which runs of `%%aloop -b` are runs of one cell."""

from __future__ import annotations

import pytest

from loopnb.records import CellRef
from loopnb.tracking.background import BackgroundRun

UNNAMED = BackgroundRun(CellRef(None, 1), None, "text")
NAMED = BackgroundRun(CellRef(None, 1), "a", "text")
WITH_ID = BackgroundRun(CellRef("one", 1), "a", "text")

PAIRS = {
    "an id, whatever else": (WITH_ID, BackgroundRun(CellRef("one", 2), "b", "other"), True),
    "another id": (WITH_ID, BackgroundRun(CellRef("two", 2), "a", "text"), False),
    "an id and none": (WITH_ID, BackgroundRun(CellRef(None, 2), "a", "text"), False),
    "an id and no cell": (WITH_ID, BackgroundRun(None, "a", "text"), False),
    "the same execution": (WITH_ID, BackgroundRun(CellRef("one", 1), "a", "other"), False),
    "a name": (NAMED, BackgroundRun(CellRef(None, 2), "a", "other"), True),
    "another name": (NAMED, BackgroundRun(CellRef(None, 2), "b", "text"), False),
    "a name and none": (NAMED, BackgroundRun(CellRef(None, 2), None, "text"), False),
    "the same text": (UNNAMED, BackgroundRun(CellRef(None, 2), None, "text"), True),
    "another text": (UNNAMED, BackgroundRun(CellRef(None, 2), None, "other"), False),
    "no cells": (BackgroundRun(None, "a", "text"), BackgroundRun(None, "a", "text"), True),
}


@pytest.mark.parametrize(("run", "other", "are_of_one_cell"), PAIRS.values(), ids=PAIRS)
def test_a_cell_is_known_by_its_id_else_its_name_else_its_text(
    run: BackgroundRun, other: BackgroundRun, are_of_one_cell: bool
) -> None:
    assert run.is_earlier_run_of(other) == are_of_one_cell
    assert other.is_earlier_run_of(run) == are_of_one_cell
