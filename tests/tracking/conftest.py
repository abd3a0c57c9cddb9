"""A tracked loop. Nothing here needs IPython: these tests run on every Python, without it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from loopnb._cpython import is_done, loop_of_task
from loopnb.tracking import _cpython, failures, tracker
from loopnb.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["asyncio's set", "every object"])
def _known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find held tasks in both ways: asyncio's weak set is there up to Python 3.13 only."""
    if request.param == "every object":
        monkeypatch.setattr(_cpython, "FINISHED_ARE_SCANNED_FOR", True)
        for module in (tracker, failures):
            monkeypatch.setattr(module, "held_finished_tasks", finished_among_all_objects)


def finished_among_all_objects(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the ended tasks of *loop* that somebody holds."""
    tasks = [item for item in gc.get_objects() if issubclass(type(item), asyncio.Task)]
    return [task for task in tasks if is_done(task) and loop_of_task(task) is loop]


@pytest.fixture
def track(_known: None) -> Iterator[Callable[..., Any]]:
    """Run an async function on a tracked loop; it gets the tracker."""
    gc.collect()  # tasks that earlier tests have left in cycles would end up in this one's history
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        tracker = Tracker(
            loop,
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line}",
            is_kernels=lambda _code: False,
        )
        tracker.install()
        yield lambda main: runner.run(main(tracker))
        tracker.remove()
        assert loop.get_task_factory() is None
