"""Let a GUI's windows live on the kernel's loop, instead of beside it.

The problem. After `%gui qt` or `%gui tk`, ipykernel runs the toolkit's loop, and leaves it only when a
message has come. Meanwhile no task moves. When a cell awaits, the toolkit's loop begins, too, and the cell
waits until the next message.

The solution. The kernel's loop goes on. A hundred times a second it lets the toolkit handle the events that
have come. Callbacks of windows then run in the kernel's loop, also while a cell waits.

What it cannot do. Toolkits other than Qt and Tk run as ipykernel runs them, and we warn of that. A window's
callback that nests freezes the windows, but nothing else, until its nested run has ended.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

#: Seconds between two looks at a toolkit's events, and the most seconds of one look if Tk's events keep
#: coming.
_EVERY_S = 0.01
_AT_MOST_S = 0.02
#: Seconds within which the kernel's own run of the toolkit's loop sees that it is no longer wanted.
_ENDS_WITHIN_S = 0.05


class GuiEvents:
    """Handles the events of the toolkit that `%gui` has chosen. The loop's thread.

    Args:
        kernel: The kernel.
        loop: Its loop.
        warn: Shows a warning to the user.
    """

    def __init__(self, kernel: Any, loop: asyncio.AbstractEventLoop, warn: Callable[[str], None]) -> None:
        self._kernel = kernel
        self._loop = loop
        self._warn = warn
        self._stock_enter = kernel.enter_eventloop
        self._patch = Patch(kernel, "enter_eventloop", self._enter)
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take over from ipykernel, including a toolkit that was chosen before."""
        self._patch.install()
        chosen = self._kernel.eventloop
        if chosen is not None:
            self._kernel.eventloop = None  # which ends ipykernel's run of it
            self._loop.call_later(_ENDS_WITHIN_S, self._choose_again, chosen)

    def stop(self) -> None:
        """Leave the toolkit to ipykernel."""
        self._patch.restore()
        if self._next is not None:
            self._next.cancel()
            self._kernel.enter_eventloop()

    def _choose_again(self, chosen: Any) -> None:
        if self._kernel.eventloop is None:
            self._kernel.eventloop = chosen

    def _enter(self) -> None:
        """Stand in for `Kernel.enter_eventloop`, which is called once a toolkit has been chosen."""
        from ipykernel import eventloops

        chosen = self._kernel.eventloop
        if chosen is None or chosen is eventloops.loop_asyncio:
            return  # the kernel's loop is asyncio's
        # ipykernel 6.17.1 has no `loop_qt`. Qt counts as another toolkit there.
        if chosen is getattr(eventloops, "loop_qt", None):
            self._handle_events(chosen, _qt_events(self._kernel.app))
        elif chosen is eventloops.loop_tk:
            self._handle_events(chosen, _tk_events())
        else:
            self._warn(
                f"{chosen.__name__}() of ipykernel keeps the notebook's loop from turning between messages. "
                "Cells that await hang, and tasks stand still. Run '%gui' to switch the toolkit off."
            )
            self._stock_enter()

    def _handle_events(self, chosen: Any, handle: Callable[[], object]) -> None:
        self._next = None
        if self._kernel.eventloop is not chosen or self._kernel.shell.exit_now:
            return
        try:
            handle()
        except KeyboardInterrupt:
            self._kernel.log.error("KeyboardInterrupt caught in a callback of a window")
        if self._patch.is_in_place():
            # The timer inherits this Context, so what callbacks print goes to the cell with `%gui`.
            self._next = self._loop.call_later(_EVERY_S, self._handle_events, chosen, handle)
        else:
            self._kernel.enter_eventloop()  # a callback has unloaded loopnb: ipykernel's own takes over


def _qt_events(app: Any) -> Callable[[], object]:
    """Return a function that handles the events of Qt that have come.

    `processEvents()` alone would never delete the objects of `deleteLater()`: that takes a loop.
    """
    from IPython.external.qt_for_kernel import QtCore

    loop = app.qt_event_loop
    run = getattr(loop, "exec", None) or loop.exec_  # older versions have no `exec`

    def handle() -> None:
        QtCore.QTimer.singleShot(0, loop.quit)
        run()

    return handle


def _tk_events() -> Callable[[], object]:
    """Return a function that handles the events of all windows of Tk that have come."""
    import _tkinter
    import tkinter

    tcl = tkinter.Tcl()  # not `Tk()`, which would be the parent of widgets that are made without one

    def handle() -> None:
        end = monotonic() + _AT_MOST_S
        while tcl.dooneevent(_tkinter.DONT_WAIT) and monotonic() < end:
            pass

    return handle
