"""End a terminal's loop in order when its shell ends, or replace a loop that somebody has closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from loopnb.nesting._cpython import running_loop, silence_destroyed_warning
from loopnb.texts import say

if TYPE_CHECKING:
    from loopnb.loop.closed import ClosedLoops
    from loopnb.session import Session
    from loopnb.shell.ending import ShellsEnd
    from loopnb.shell.guarding import Warnings


class Extension(Protocol):
    """Loads and unloads loopnb. The loop's thread."""

    def load(self, shell: Any, generation: int) -> None:
        """Load loopnb into *shell*, on a loop of that generation."""

    def unload(self, shell: Any) -> None:
        """Take back everything that loading did."""


class TerminalLoop:
    """Ends the loop of a shell in order, or replaces it. The loop's thread, outside the loop.

    Args:
        shell: The shell.
        session: The session of that loop.
        ends: Ends the tasks of the session.
        closed: Knows where a loop was closed.
        warnings: Shows warnings.
        extension: Loads and unloads loopnb.
    """

    def __init__(
        self,
        shell: Any,
        session: Session,
        ends: ShellsEnd,
        closed: ClosedLoops,
        warnings: Warnings,
        extension: Extension,
    ) -> None:
        self._shell = shell
        self._session = session
        self._ends = ends
        self._closed = closed
        self._warnings = warnings
        self._extension = extension

    def end(self) -> None:
        """End tasks, async generators and executor, unload loopnb, and close the loop.

        If something on the loop fails to end, this says so and raises nothing.
        """
        loop = self._session.loop
        # A shell embedded into somebody's running loop does not own that loop, so it leaves the loop alone.
        is_ours = running_loop() is None and not loop.is_running() and not loop.is_closed()
        try:
            if is_ours:
                loop.run_until_complete(self._ends.wind_down())
                self._ends.check()
        except KeyboardInterrupt:
            say("interrupted; tasks that have not ended are left as they are")
        except Exception as error:  # noqa: BLE001  IPython would take it for a crash of its own
            say(f"the loop did not end in order: {error!r}")
        finally:
            self._ends.lower_shield()
            self._extension.unload(self._shell)
        if is_ours:
            loop.close()

    def replace(self) -> None:
        """Load loopnb again, on a new loop: somebody got past the guard and closed this one."""
        tracker, generation = self._session.tracker, self._session.owner.generation
        tasks = tracker.live()
        lost = [f"{task.name!r} of {task.cell or 'other code'}" for task in tracker.records_of(tasks)]
        for task in tasks:
            silence_destroyed_warning(task)  # the warning below names the task
        where = self._closed.where(self._session.loop)
        self._extension.unload(self._shell)
        self._extension.load(self._shell, generation + 1)
        self._warnings.warn_once(
            f"Event loop #{generation} was closed{f' at {where}' if where else ''}; cells and "
            f"prompt now run on loop #{generation + 1}. Tasks lost with it: {', '.join(lost) or 'none'}."
        )
