"""The commands of `%loopnb` that show blocks, lag, and who keeps the loop busy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from loopnb.magics.command_table import write
from loopnb.watch import texts
from loopnb.watch.checks import examine, looked_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loopnb.records import Block, Finding
    from loopnb.session import Session

_OFF = "Nothing is measured: LoopNB.blocked_after is 0. '%config LoopNB.blocked_after = 0.5' starts it."


class WatchCommands:
    """Shows what watching has found.

    Args:
        session: The session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def blocks(self, rest: str) -> None:
        """List the last blocks, and where they come from."""
        _expect("blocks", rest, "")
        watch = self._session.watch
        if not watch.is_on and watch.fault is None:
            write(_OFF)
        write(texts.blocks_text(watch.blocks(), watch.totals()))

    def lag(self, rest: str) -> None:
        """Say how late the loop is, and where its time goes."""
        _expect("lag", rest, "")
        watch = self._session.watch
        if not watch.is_on and watch.fault is None:
            write(_OFF)
        write(texts.pace_text(watch.pace()))

    def doctor(self, rest: str) -> None:
        """Say what is wrong, worst first, and what to do about it."""
        _expect("doctor", rest, "")
        facts = self._session.facts()
        write(texts.findings_text(examine(facts), looked_at(facts)))

    def watch(self, rest: str) -> None:
        """Begin or end sampling who keeps the loop busy. Without `on`, say who it was."""
        _expect("watch", rest, "on", "off", "")
        session = self._session
        if rest == "on":
            if not session.watch.is_on:
                raise UsageError(f"%loopnb watch: {_OFF}")
            session.owner.call(session.watch.watch_busy, self)
            write(
                "Looks 50 times a second at what the loop does, which takes up to 1 % of its time, and more "
                "on a busy machine. '%loopnb watch' shows who is busy, '%loopnb watch off' ends it."
            )
            return
        busy = session.watch.busy()
        if busy is None:
            write("Nothing has been sampled yet. '%loopnb watch on' starts it.")
        else:
            write(texts.busy_text(busy))
        if rest == "off":
            session.owner.call(session.watch.unwatch_busy, self)


def status_line(block: Block) -> str:
    """Return the line of the status about the newest block."""
    return f"{'block':<8}{texts.status_line(block, time.time())}"


def findings_line(findings: Sequence[Finding]) -> str:
    """Return the line of the status about what the doctor has found."""
    return f"{'doctor':<8}{texts.findings_count(findings)}"


def _expect(command: str, rest: str, *known: str) -> None:
    if rest not in known:
        takes = ", ".join(word for word in known if word) or "nothing more"
        raise UsageError(f"%loopnb {command}: takes {takes}, and got {rest!r}. See '%loopnb?'.")
