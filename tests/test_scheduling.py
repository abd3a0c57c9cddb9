"""`call_soon` in one call: it does what asyncio's own does, and goes as it came."""

from __future__ import annotations

import asyncio
import threading
import traceback
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.internals.frames import PACKAGE
from loopnb.internals.scheduling import LeanScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator

STOCK = asyncio.BaseEventLoop.call_soon


@pytest.fixture(autouse=True)
def lean() -> Iterator[LeanScheduling]:
    """Have it in place."""
    scheduling = LeanScheduling()
    scheduling.install()
    yield scheduling
    assert scheduling.restore()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop of asyncio's own."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def run_soon(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_callbacks_are_called_in_order_with_their_arguments_and_context(
    loop: asyncio.AbstractEventLoop,
) -> None:
    var: ContextVar[str] = ContextVar("var", default="outside")
    context = copy_context()
    context.run(var.set, "inside")
    called: list[Any] = []

    loop.call_soon(lambda *args: called.append((args, var.get())), 1, 2, context=context)
    loop.call_soon(lambda: called.append(var.get()))
    loop.call_soon(called.append, "cancelled").cancel()
    run_soon(loop)

    assert called == [((1, 2), "inside"), "outside"]


def test_a_closed_loop_refuses_as_ever(loop: asyncio.AbstractEventLoop) -> None:
    loop.close()

    with pytest.raises(RuntimeError, match="Event loop is closed") as caught:
        loop.call_soon(print)

    assert not any(file.startswith(PACKAGE) for file, *_ in traceback.extract_tb(caught.tb)[1:])


def test_debug_mode_checks_as_ever(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_debug(True)

    with pytest.raises(TypeError, match="callable"):
        loop.call_soon("no function")  # type: ignore[arg-type]  # what is tested

    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            loop.call_soon(print)
        except RuntimeError as error:
            errors.append(error)

    def start() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    loop.call_soon(start)
    run_soon(loop)

    assert "Non-thread-safe operation" in str(errors[0])


def test_debug_mode_names_the_users_line(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_debug(True)

    handle: Any = loop.call_soon(print, "x")

    assert handle._source_traceback[-1].name == "test_debug_mode_names_the_users_line"
    handle.cancel()


def test_a_loop_with_a_way_of_its_own_is_asked(loop: asyncio.AbstractEventLoop) -> None:
    """GUI toolkits are told of each callback that way."""
    told: list[Any] = []

    class Told(asyncio.SelectorEventLoop):
        def _call_soon(self, callback: Any, args: Any, context: Any) -> Any:
            told.append(callback)
            return super()._call_soon(callback, args, context)  # type: ignore[misc]  # private

    other = Told()
    other.call_soon(print)
    other.close()

    assert told == [print]


def test_it_goes_with_the_last_who_has_asked_for_it(lean: LeanScheduling) -> None:
    second = LeanScheduling()
    second.install()
    second.install()
    assert lean.restore()
    assert asyncio.BaseEventLoop.call_soon is not STOCK

    assert second.restore()
    assert asyncio.BaseEventLoop.call_soon is STOCK


def test_what_somebody_has_put_over_it_stays(lean: LeanScheduling) -> None:
    owner: Any = asyncio.BaseEventLoop
    ours = owner.call_soon

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    owner.call_soon = theirs
    try:
        assert not lean.restore()
        assert owner.call_soon is theirs
    finally:
        owner.call_soon = STOCK


def test_a_call_soon_that_is_not_asyncios_is_left_alone(
    lean: LeanScheduling, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lean.restore()

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return STOCK(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.BaseEventLoop, "call_soon", theirs)
        lean.install()
        assert asyncio.BaseEventLoop.call_soon is theirs
        assert lean.restore()
