"""Other people's greenlets, in which a library runs synchronous code that awaits (SQLAlchemy).

Such a greenlet awaits by a switch to its parent: the stack that was the loop's when it was made. Here
that is a driver, which is idle by then and passes on what it is given to whoever turns the loop.

But while one of them is parked in a nested run, its driver stands in the library's own code and waits
for it there. A second one with the same parent would be taken for the first. So as long as any is
parked, each that is switched to gets for its parent the driver that turns the loop then. It takes a
trace function, which makes every switch slower: hence only then.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import running_loop
from loopnb.internals.greenlets import settrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

    from loopnb.nesting.handoff import Handoff
    from loopnb.nesting.waits import Wait


class ForeignGreenlets:
    """Keeps them attached to the loop while some are parked. The loop's thread.

    Args:
        engine: The engine of the loop.
        driver: The class of its own greenlets.
    """

    def __init__(self, engine: Handoff, driver: type[greenlet]) -> None:
        self._engine = engine
        self._driver = driver
        self._parked: set[Wait] = set()
        self._before: Callable[[str, tuple[Any, Any]], object] | None = None

    def begin(self, wait: Wait) -> None:
        """Note that the stack of *wait*, which is one of them, is about to park."""
        if not self._parked:
            self._before = settrace(self._attach)
        self._parked.add(wait)
        # It was perhaps stepped before there was a trace function.
        stack: Any = wait.stack
        while stack is not None and not isinstance(stack.parent, self._driver):
            stack = stack.parent
        if stack is not None:
            self._attach_to_turning(stack)

    def end(self, wait: Wait) -> None:
        """Note that it goes on. Does nothing a second time."""
        self._parked.discard(wait)
        if not self._parked:
            self._stop()

    def _stop(self) -> None:
        if (present := settrace(self._before)) != self._attach:
            settrace(present)  # somebody else's, put in since or put back by us

    def _attach(self, event: str, stacks: tuple[Any, Any]) -> None:
        _origin, target = stacks
        if (
            target is not self._engine.handed_to  # the engine's own switch: it goes on where it parked
            and isinstance(target.parent, self._driver)
            and not isinstance(target, self._driver)
            and running_loop() is self._engine.loop  # not those of another loop, which this one is aside for
        ):
            self._attach_to_turning(target)
        if not self._parked:
            self._stop()  # somebody has put it back in, who found it there
        if self._before is not None:
            self._before(event, stacks)

    def _attach_to_turning(self, stack: greenlet) -> None:
        turning = self._engine.turning
        if turning is not None:
            with contextlib.suppress(ValueError):  # the driver stands on it
                stack.parent = turning
