"""`%config LoopNB`, in a shell with loopnb."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.shells import Notebook


def test_a_value_that_is_refused_leaves_all_as_it_was(
    notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    before = notebook.run("%config LoopNB.on_rerun").result
    assert not caplog.records

    notebook.run("%config LoopNB.on_rerun = 'x'")

    assert ["on_rerun" in record.getMessage() for record in caplog.records] == [True]
    assert notebook.run("%config LoopNB.on_rerun").result == before
    notebook.run("%reload_ext loopnb")
    notebook.run("%config LoopNB.finished_kept = 7")
    assert len(caplog.records) == 1
    assert notebook.run("%config LoopNB.on_rerun").result == before
