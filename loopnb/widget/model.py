"""The widget's model in the kernel. It takes samples while a view is visible, and answers the views.

Views send custom messages only, and no trait updates, since in ipykernel 7.4 trait updates can stop for good.
A handler may run on any thread, the main one or a subshell's. So it only posts the message to the loop, and
the loop answers.

The one synced trait is never assigned. A front end that asks for it gets the last state, and deltas from then
on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

import anywidget
import traitlets

from loopnb import views
from loopnb.widget import assets, protocol
from loopnb.widget._ipykernel import route_as_sent
from loopnb.widget.protocol import BadMessage, Cancel, Resync, Visible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loopnb.records import Snapshot
    from loopnb.widget.protocol import State

FAST_S = 0.25
"""Pause between two samples while something changes."""
SLOW_S = 0.5
"""Pause between two samples while nothing changes."""
SOON_S = 0.03
"""Pause after a cancel, since a task takes a few passes of the loop to end."""
MAX_SHARE = 0.05
"""Share of the loop's time that sampling may take. The pause grows if a sample takes long."""
BEAT_S = 2.0
"""A visible view hears from the kernel at least this often. After 6 s of silence it says that it is stale."""
LEASE_S = 30.0
"""A view counts as visible for this long after its last message that says so. It sends one every 10 s.

Not more often, because each of these messages makes JupyterLab's kernel status flicker.
"""

log = logging.getLogger("loopnb")


class ShownTasks(Protocol):
    """The tasks that a widget shows. It calls this in the loop's thread."""

    def snapshot(self) -> Snapshot:
        """Take a snapshot."""

    def cancel(self, number: int) -> str:
        """Cancel the task with this number, and return one line that says so.

        Raises:
            LookupError: There is no such task. Its text is one line, too.
        """


class LoopWidget(anywidget.AnyWidget):
    """A live table of the loop's tasks: one model, shown in any number of views.

    Create, display and close it in the loop's thread. It never blocks. Once created, it never raises: an
    error of its own stops it, and `fault` says why.

    Args:
        tasks: The tasks that it shows.
        loop: The loop that is watched.
        clock: Monotonic, in seconds.

    Attributes:
        state: The whole state that the views have, if they have missed nothing.
        fault: Why the widget has stopped; None while it works.
    """

    # The texts, not the paths. Given a path, anywidget watches the file for changes, and for that it keeps
    # every widget alive, closed or not, and with it the session.
    _esm = assets.ESM
    _css = assets.CSS

    snapshot = traitlets.Dict().tag(
        sync=True,
        to_json=lambda _value, widget: widget.state,
        # Views write only into their own copy, and the kernel takes nothing from it.
        from_json=lambda _value, widget: widget.snapshot,
    )

    def __init__(
        self,
        tasks: ShownTasks,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fault: str | None = None
        self._take_snapshot = tasks.snapshot
        self._cancel_task = tasks.cancel
        self._loop = loop
        self._clock = clock
        self._thread = threading.get_ident()
        self._leases: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._spoke_at = self._cost_s = 0.0
        self._last = tasks.snapshot()
        self.state: State = protocol.encode(self._last, seq=0)
        super().__init__()
        route_as_sent(self.comm)
        self.on_msg(self._receive)

    def close(self) -> None:
        """Stop the timer and close the comm, which removes the views. Does nothing the second time."""
        self._is_closed = True
        self._rest()
        if self.comm is not None:
            self.layout.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the live view, and beside it a table that needs neither kernel nor script."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        if threading.get_ident() == self._thread:
            self._guard(self._look)
        text = f"{views.status_text(self._last)}\n\n{views.tasks_text(self._last)}"
        data, metadata = bundle
        return {**data, "text/html": views.snapshot_html(self._last), "text/plain": text}, metadata

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        """Post a view's message to the loop. Any thread; does not block."""
        try:
            # In an empty Context. In the handler's Context, all that follows would go to one cell's output.
            self._loop.call_soon_threadsafe(self._guard, self._answer, content, context=Context())
        except RuntimeError as error:  # the loop is closed
            self._stop(error)

    def _answer(self, content: object) -> None:
        match protocol.parse(content):
            case Cancel(request_id, number):
                self._say(self._cancel(request_id, number))
                self._hurry()
            case Resync():
                self._look()
                self._say(protocol.full(self.state))
            case Visible(view, visible):
                self._lease(view, visible=visible)
            case BadMessage(request_id, reason):
                self._say(protocol.ack(request_id, ok=False, text=reason))

    def _cancel(self, request_id: str, number: int) -> dict[str, Any]:
        try:
            return protocol.ack(request_id, ok=True, text=self._cancel_task(number))
        except LookupError as error:
            return protocol.ack(request_id, ok=False, text=str(error))

    def _lease(self, view: str, *, visible: bool) -> None:
        if not visible:
            self._leases.pop(view, None)
            return
        self._leases[view] = self._loop.time() + LEASE_S
        self._look()
        self._say(protocol.beat(self.state))
        if self._timer is None:
            self._sleep(FAST_S)

    def _tick(self) -> None:
        self._timer = None
        self._expire()
        if not self._leases:
            return
        has_changed = self._look()
        if self._loop.time() - self._spoke_at >= BEAT_S:
            self._say(protocol.beat(self.state))
        self._sleep(FAST_S if has_changed else SLOW_S)

    def _expire(self) -> None:
        now = self._loop.time()
        if self.state["loop"]["cell"] is not None:
            # Without subshells the views' messages wait until the cell has ended, so their silence means
            # nothing.
            self._leases = {view: max(until, now + LEASE_S) for view, until in self._leases.items()}
        self._leases = {view: until for view, until in self._leases.items() if until > now}

    def _sleep(self, pause_s: float) -> None:
        pause_s = max(pause_s, self._cost_s / MAX_SHARE)
        self._timer = self._loop.call_later(pause_s, self._guard, self._tick, context=Context())

    def _hurry(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._sleep(SOON_S)

    def _rest(self) -> None:
        self._leases.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> bool:
        """Take a snapshot and send the views what has changed. Returns True if anything has."""
        began = self._clock()
        self._last = self._take_snapshot()
        after = protocol.encode(self._last, seq=self.state["seq"] + 1)
        delta = protocol.delta(self.state, after)
        if delta is None:
            after["seq"] -= 1
        # Replaced, never changed in place, since another thread may be reading it for a front end.
        self.state = after
        if delta is not None:
            self._say(delta)
        self._cost_s = self._clock() - began
        return delta is not None

    def _say(self, message: dict[str, Any]) -> None:
        self._spoke_at = self._loop.time()
        self.send(message)

    def _guard(self, fn: Callable[..., object], *args: object) -> None:
        """Call *fn*, and stop if it raises. No error of the widget reaches user code."""
        if self._is_closed:
            return
        try:
            if self.fault is None:
                fn(*args)
            else:
                self.send(protocol.fault(self.fault))
        except Exception as error:  # noqa: BLE001  whatever it is, the user's code goes on
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        """Take no more samples, log *error* if it is the first one, and tell the views."""
        self._rest()
        if self.fault is None:
            self.fault = f"{type(error).__name__}: {error}"
            log.error("The loopnb widget has stopped.", exc_info=error)
            # The comm itself may be broken. A view that asks later is told again.
            with contextlib.suppress(Exception):
                self.send(protocol.fault(self.fault))
