"""The widget's model in the kernel: the comm, the threads and the timers around a `Monitor`.

Views send custom messages only, and no trait updates, since in ipykernel 7.4 trait updates can stop for good.
A handler may run on any thread, the main one or a subshell's. So it only posts the message to the loop, and
the loop answers. If the loop is blocked, the handler itself acknowledges the click, and the watchdog's thread
says who blocks the loop.

While no view is visible, nothing is looked at and nothing is sent.

The synced traits are never assigned. A front end that asks for `snapshot` gets the last state, and from then
on what changes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from IPython.display import display

from loopnb._cpython import thread_time
from loopnb.records import Block, Standstill
from loopnb.widgets import assets, nulls, protocol, stored
from loopnb.widgets._ipykernel import route_as_sent
from loopnb.widgets.monitor import BEAT_S, Monitor, Viewer
from loopnb.widgets.protocol import (
    Ask,
    AskDetail,
    AskTimeline,
    AskTrace,
    AskTree,
    BadMessage,
    Cancel,
    Query,
    Visible,
)
from loopnb.widgets.storing import StoredTable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from loopnb.widgets.monitor import Source

FAST_S = 0.25
"""Pause between two looks while something changes."""
SLOW_S = 0.5
"""Pause between two looks while nothing changes."""
SOON_S = 0.03
"""Pause after a cancel, since a task takes a few passes of the loop to end."""
MAX_SHARE = 0.02
"""Share of the loop's time that looking may take. The pause grows if a look takes long, to two seconds."""
BYTES_PER_S = 48_000
"""How much is sent in the long run. The pause grows if a look has much to say."""
LEASE_S = 30.0
"""A view counts as visible for this long after its last message that says so. It sends one every 10 s.

More of these messages would make JupyterLab's kernel status flicker more often.
"""
BLOCKED_AFTER_S = 0.1
"""If the loop has not taken up a click after so many seconds, the handler says that it was noted."""

_ENDS = {
    "unloaded": "loopnb was unloaded",
    "restarted": "the kernel was restarted; run the cell again",
    "shut down": "the kernel was shut down",
}

log = logging.getLogger("loopnb")


class LoopWidget(anywidget.AnyWidget):
    """A live view of the loop's tasks: one model, shown in any number of views.

    Create and display it in the loop's thread. It never blocks the loop. Once created, it never raises: an
    error of its own stops it, and `fault` says why.

    Args:
        source: The session that it shows.
        loop: The loop that is watched.
        clock: Monotonic, in seconds.
        cpu_clock: Measures what looks cost. By default it counts CPU seconds of the thread, which a busy
            machine does not increase.
        height: Height of a view in CSS pixels; None lets it grow with its rows, up to a limit.
        group: Tasks that wait at one place are one row at first. A view can change that.

    Attributes:
        fault: Why the widget has stopped by itself; None while it works.
    """

    # Texts, not paths. Given a path, anywidget watches the file for changes. For that it keeps every widget
    # alive, closed or not, and the session with it.
    _esm = assets.ESM
    _css = assets.CSS

    snapshot = traitlets.Dict().tag(
        sync=True,
        to_json=lambda _value, widget: nulls.to_view(widget.state),
        # Views write only into their own copy, and the kernel takes nothing from it.
        from_json=lambda _value, widget: widget.snapshot,
    )
    options = traitlets.Dict().tag(
        sync=True,
        to_json=lambda _value, widget: widget.shown_with,
        from_json=lambda _value, widget: widget.options,
    )

    def __init__(
        self,
        source: Source,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = thread_time,
        height: int | None = None,
        group: bool = True,
    ) -> None:
        self.fault: str | None = None
        self.shown_with = {"height": height, "group": group}
        self._loop = loop
        self._cpu_clock = cpu_clock
        self._epoch = source.epoch
        self._thread = threading.get_ident()
        self._leases: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._steps: Iterator[None] | None = None
        self._cost_s = 0.0
        self._blocked_by: str | None = None
        self._ended: dict[str, Any] | None = None
        self._source: Source | None = source
        self._monitor: Monitor | None = Monitor(source, self.send, clock)
        self._table = StoredTable(source.epoch)
        self._cells_ended = 0  # before the look that is under way
        self._last: dict[str, Any] = {}
        self._look_once(self._monitor)
        self._is_fresh = True
        super().__init__()
        self._is_fresh = False
        route_as_sent(self.comm)
        self.on_msg(self._receive)
        source.watch.watch_blocks(self._note_block)

    # -- coming and going -------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Look no more, and have the views say why: `unloaded`, `restarted` or `shut down`. Any thread.

        The comm stays open, so that a reloaded page says so, too. This keeps nothing of the session. Does
        nothing the second time.
        """
        if self._ended is not None:
            return
        self._ended = protocol.end(self._epoch, why, _ENDS.get(why, why))
        self._leave_source()
        self._tell(self._ended)
        if threading.get_ident() == self._thread:
            self._stop_timer()

    def close(self) -> None:
        """Close the comm, which removes the views. Does nothing the second time."""
        self._stop_timer()
        self._leases.clear()
        self._leave_source()
        if self.comm is not None:
            self.layout.close()
        super().close()

    def _leave_source(self) -> None:
        source, self._source = self._source, None
        monitor, self._monitor = self._monitor, None
        self._steps = None  # a look that is under way refers to both
        if source is not None:
            source.watch.unwatch_blocks(self._note_block)
        if monitor is not None:
            monitor.stop_listening()

    # -- what is stored, and what a page gets that is loaded again -------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """The state, for a front end that asks for all of it. Any thread; up to date in the loop's own."""
        monitor = self._monitor
        if monitor is not None and threading.get_ident() == self._thread and not self._is_fresh:
            self._guard(self._look_once, monitor)
        return {**self._last, "end": self._ended}

    def _look_once(self, monitor: Monitor) -> None:
        is_watched = bool(monitor.viewers)
        monitor.look_at_once()
        self._last = {"shared": monitor.shared, "window": monitor.window_of(self._query)}
        if not is_watched:
            monitor.rest()

    @property
    def _query(self) -> Query:
        return Query(group=self.shown_with["group"] is not False)

    def show(self) -> None:
        """Display the live view in the current cell, below the table that a saved notebook keeps.

        The loop's thread.
        """
        bundle = super()._repr_mimebundle_()
        if bundle is None:
            return
        data, metadata = bundle
        if self._source is not None:
            now = self.state
            self._table.show(now["shared"], now["window"], self._source.cells_ended)
        # Front ends without widgets would show the text. They have the table, so the text is empty.
        display({**data, "text/plain": ""}, metadata=metadata, raw=True)

    def show_table(self) -> None:
        """Display in the current cell a table alone, which needs no kernel. The loop's thread."""
        display(self._static(), raw=True)

    def _static(self) -> dict[str, str]:
        now = self.state
        html, text = (make(now["shared"], now["window"]) for make in (stored.html_of, stored.text_of))
        return {"text/html": html, "text/plain": text}

    def _store_again(self, monitor: Monitor) -> None:
        shared, query = monitor.shared, self._query
        if self._table.is_due(shared, self._cells_ended) and monitor.is_cheap(query):
            self._table.store_again(shared, monitor.window_of(query), self._cells_ended)

    # In ipywidgets 7 this is a method that displays only the view, and IPython calls it first.
    _ipython_display_ = None

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the live view, and beside it a table that needs neither kernel nor script.

        Where you can, use `show`: then a reader of the saved notebook sees the table everywhere.
        """
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, **self._static()}, metadata

    # -- any thread -------------------------------------------------------------------------------

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        """Post a view's message to the loop. Any thread; blocks a tenth of a second at most, and no loop."""
        if self._ended is not None:
            self._tell(self._ended)
            return
        request = protocol.parse(nulls.from_view(content))
        taken_up = threading.Event()
        try:
            # Use an empty Context. In the handler's Context, all that follows would go to one cell's output.
            self._loop.call_soon_threadsafe(self._take_up, request, taken_up, context=Context())
        except RuntimeError as error:  # the loop is closed
            self._stop(error)
            return
        # In a subshell, only other widgets wait for this thread.
        is_elsewhere = threading.get_ident() != self._thread
        if isinstance(request, Cancel) and is_elsewhere and not taken_up.wait(BLOCKED_AFTER_S):
            self._tell(protocol.ack(request.id, ok=True, text=self._when_text(), final=False))

    def send(self, content: Any, buffers: Any = None) -> None:
        """Send a message to the views. Any thread."""
        super().send(nulls.to_view(content), buffers)

    def _when_text(self) -> str:
        who, source = self._blocked_by, self._source
        if who is None and source is not None:
            cell = source.loop_state().cell
            who = None if cell is None else str(cell)
        return f"will be cancelled when {who or 'the loop'} yields"

    def _note_block(self, block: Block | Standstill | None) -> None:
        """Tell the views who blocks the loop, or that it stands still. The watchdog's thread."""
        if isinstance(block, Block):
            self._blocked_by = str(block.cell) if block.by == "cell" else block.name
        else:
            self._blocked_by = None
        monitor = self._monitor
        if monitor is None:
            return
        message = monitor.block(block)
        says_nothing = isinstance(block, Standstill) and message["block"] is None
        if self._leases and not says_nothing:
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        """Send *message*. A broken comm is no error, since nobody listens then."""
        with contextlib.suppress(Exception):
            self.send(message)

    # -- the loop's thread: requests ------------------------------------------------------------------

    def _take_up(self, request: protocol.Request, taken_up: threading.Event) -> None:
        taken_up.set()
        self._guard(self._answer, request)

    def _answer(self, request: protocol.Request) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        match request:
            case Visible(view, visible, query):
                self._lease(monitor, view, query if visible else None)
            case Ask(view, query, is_resync):
                self._show(monitor, view, query, anew=is_resync)
            case Cancel():
                self.send(self._cancel(monitor, request))
                self._hurry(SOON_S)
            case AskDetail() | AskTree() | AskTimeline() | AskTrace():
                self._ask(monitor, request)
            case BadMessage(request_id, reason):
                self.send(protocol.ack(request_id, ok=False, text=reason))

    def _lease(self, monitor: Monitor, view: str, query: Query | None) -> None:
        if query is None:
            self._leases.pop(view, None)
            monitor.viewers.pop(view, None)
            return
        is_new = view not in monitor.viewers
        self._leases[view] = self._loop.time() + LEASE_S
        if is_new:
            monitor.show_all(Viewer(view, query))
            self._hurry(0.0)

    def _show(self, monitor: Monitor, view: str, query: Query, *, anew: bool) -> None:
        self._leases[view] = self._loop.time() + LEASE_S
        viewer = monitor.viewers.get(view, Viewer(view, query))
        viewer.ask_rows(query)
        if anew or view not in monitor.viewers:
            monitor.show_all(viewer)
        if not monitor.show_rows(viewer):
            self._hurry(0.0)

    def _ask(self, monitor: Monitor, request: AskDetail | AskTree | AskTimeline | AskTrace) -> None:
        viewer = monitor.viewers.get(request.view)
        if viewer is None:
            return
        match request:
            case AskDetail(_view, number):
                viewer.ask_detail(number)
            case AskTree(_view, kind):
                viewer.ask_tree(kind)
            case AskTimeline(_view, shown):
                viewer.ask_timeline(shown)
            case AskTrace(_view, request_id):
                viewer.ask_trace(request_id)
        self._hurry(0.0)

    def _cancel(self, monitor: Monitor, request: Cancel) -> dict[str, Any]:
        if request.leftovers:
            return monitor.cancel(request.id, monitor.leftovers(), "nothing is left over")
        if request.group is not None:
            numbers = monitor.numbers_in(request.view, request.group)
            return monitor.cancel(request.id, numbers, "these tasks have ended")
        number = request.number or 0
        return monitor.cancel(request.id, [number], f"there is no live task {number}")

    # -- the loop's thread: looks ---------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        monitor = self._monitor
        if monitor is None:
            return
        steps = self._steps  # the widget may be ended in another thread
        if steps is None:
            self._expire(monitor)
            if not monitor.viewers:
                monitor.rest()
                return
            self._cost_s = 0.0
            self._cells_ended = self._source.cells_ended if self._source else 0
            self._steps = steps = monitor.look()
        began = self._cpu_clock()
        is_over = next(steps, _OVER) is _OVER
        self._cost_s += self._cpu_clock() - began
        if not is_over:
            self._sleep(0.0)
            return
        self._steps = None
        self._store_again(monitor)
        pause_s = FAST_S if monitor.has_changed else SLOW_S
        cost_s = self._cost_s - monitor.rare_s
        pause_s = max(pause_s, cost_s / MAX_SHARE, monitor.sent_bytes / BYTES_PER_S)
        self._sleep(min(pause_s, BEAT_S))

    def _expire(self, monitor: Monitor) -> None:
        now = self._loop.time()
        if monitor.shared["head"]["cell"] is not None:
            # Views say nothing of their own while a cell runs, so their silence means nothing.
            self._leases = {view: max(until, now + LEASE_S) for view, until in self._leases.items()}
        self._leases = {view: until for view, until in self._leases.items() if until > now}
        for view in monitor.viewers.keys() - self._leases.keys():
            del monitor.viewers[view]

    def _sleep(self, pause_s: float) -> None:
        self._timer = self._loop.call_later(pause_s, self._guard, self._tick, context=Context())

    def _hurry(self, pause_s: float) -> None:
        """Look soon, if anybody looks on. A look that is under way goes on first."""
        monitor = self._monitor
        if monitor is not None and monitor.viewers:
            self._stop_timer()
            self._sleep(0.0 if self._steps is not None else pause_s)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- faults -----------------------------------------------------------------------------------

    def _guard(self, fn: Callable[..., object], *args: object) -> None:
        """Call *fn*, and stop if it raises. No error of the widget reaches user code."""
        if self._ended is not None or self._monitor is None:
            return
        try:
            fn(*args)
        except Exception as error:  # noqa: BLE001  whatever it is, the user's code goes on
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        """Look no more, log *error*, and tell the views. A view that asks later is told again."""
        if self.fault is None:
            self.fault = f"{type(error).__name__}: {error}"
            log.error("The loopnb widget has stopped.", exc_info=error)
        self._leases.clear()
        self.end("fault")
        self._ended = protocol.end(self._epoch, "fault", f"stopped, because of {self.fault}")
        self._tell(self._ended)


#: What a look yields when it is over.
_OVER = object()
