"""Timing garbage collections."""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING

import pytest

from loopnb.frames import is_ours
from loopnb.watch.garbage import GarbageWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@pytest.fixture
def watch() -> Iterator[GarbageWatch]:
    found = GarbageWatch()
    found.start()
    yield found
    found.stop()


def make_garbage() -> None:
    """Make so much that a collection takes a tenth of a second, on any machine."""
    kept = [[] for _ in range(500_000)]  # type: list[list[object]]
    kept.append(kept)  # type: ignore[arg-type]  # a circle


def test_a_long_collection_is_timed(watch: GarbageWatch) -> None:
    gc.disable()
    try:
        make_garbage()
        began = time.monotonic()
        gc.collect()
        ended = time.monotonic()
    finally:
        gc.enable()

    assert 0 < watch.seconds_between(began, ended) <= ended - began
    assert watch.seconds_between(ended, ended + 1) == 0
    assert watch.seconds_between(began - 1, began) == 0


def test_a_collection_runs_no_python_code_in_which_an_interrupt_would_be_swallowed(
    watch: GarbageWatch,
) -> None:
    called = []

    def note(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_filename)

    gc.collect()  # garbage of earlier tests may have finalizers of ours
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        gc.collect()
    finally:
        sys.setprofile(before)

    assert [filename for filename in called if is_ours(filename)] == []


def test_what_is_added_to_the_callbacks_is_shown_in_short(watch: GarbageWatch) -> None:
    gc.collect()

    assert len(repr(gc.callbacks[-2:])) < 200


def test_nothing_stays_in_the_callbacks() -> None:
    before = list(gc.callbacks)
    watch = GarbageWatch()
    watch.start()

    watch.stop()

    assert gc.callbacks == before
