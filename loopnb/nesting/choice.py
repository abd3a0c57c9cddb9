"""Which engine runs nested on a loop, why, and the change from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.internals.greenlets import why_missing
from loopnb.nesting import foreign
from loopnb.nesting.reentrant import Reentrant
from loopnb.nesting.scope import engine_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loopnb.nesting.handoff import Handoff
    from loopnb.nesting.reentrant import ReentrantRun

EngineName = Literal["handoff", "nest-asyncio", "off"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class NestingChoice:
    """The engine of one loop. The loop's thread.

    Args:
        loop: The loop.
        who: In whose name nested runs are wanted.

    Attributes:
        name: The engine that is on.
        reason: Why it was chosen, as a clause.
        cannot: This loop cannot be nested on, or this interpreter cannot.
        prepare: Called with each new `Handoff`, to tell it of cells and interrupts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, who: str) -> None:
        self.name: EngineName = "off"
        self.reason = "nothing was chosen yet"
        self.cannot = False
        self.prepare: Callable[[Handoff], None] = lambda _engine: None
        self._loop = loop
        self._who = who
        self._order: Literal["any", "lifo"] = "any"
        self._reentrant: Reentrant | None = None

    def start(self) -> None:
        """Choose the best engine that this loop and this interpreter allow; raises nothing."""
        try:
            self._use_handoff()
            self.reason = "it is the default"
        except NestingError as error:
            self.reason, self.cannot = error.reason, True
        if self.name == "off" and why_missing is not None:
            self._fall_back()
        elif self.name == "off":
            nesting.offer(None, who=self._who)

    def stop(self) -> list[str]:
        """Switch nesting off and leave asyncio as it was.

        Returns:
            What could not be taken back, as sentences.
        """
        kept: list[str] = []
        if self._reentrant is not None:
            names = self._reentrant.remove()
            package, self._reentrant = self._reentrant.package, None
            if names:
                kept = [
                    f"{package} had changed {', '.join(names)}; somebody has changed it since, so it stays."
                ]
        nesting.remove(who=self._who)
        self.name = "off"
        return kept

    def switch(self, name: EngineName) -> list[str]:
        """Use engine *name* from now on.

        Returns:
            What there is to say of the engine before, as sentences.

        Raises:
            NestingError: It cannot be used here, or stacks are parked that only the present engine
                can resume. The engine is what it was.
        """
        if name == self.name:
            return []
        engine = engine_of(self._loop)
        parked = len(engine.waits) if engine is not None else 0
        if name == "nest-asyncio" and parked:
            raise NestingError(
                f"{parked} stacks are parked, and nest-asyncio would stand on top of them",
                "Let them end, or cancel them ('%loopnb tasks' lists them as parked), and try again.",
                doing="switch to nest-asyncio",
            )
        said = self.stop()
        if name == "handoff":
            self._use_handoff()
        elif name == "nest-asyncio":
            self._use_reentrant()
        elif parked:
            said.append(f"{parked} parked stacks still end in order; new nested runs are refused.")
        self.reason = "it was asked for"
        return said

    def newest_reentrant(self) -> ReentrantRun | None:
        """Return the newest nested run of the engine nest-asyncio, if there is one. The loop's thread."""
        runs = self._reentrant.runs if self._reentrant is not None else []
        return runs[-1] if runs else None

    def set_order(self, *, lifo: bool) -> None:
        """Let the newest wait end first from now on, or any; see `loopnb.nesting.apply`."""
        self._order = "lifo" if lifo else "any"
        if self.name == "handoff":
            nesting.apply(who=self._who, order=self._order)

    def notes(self) -> list[str]:
        """Return what else there is to know, as sentences. Any thread."""
        said = [
            f"{call.package}.apply(), called in {call.filename}, line {call.line}, did nothing: nesting "
            "was on."
            for call in foreign.applied_by()
        ]
        before = foreign.applied_before()
        if before is not None and self._reentrant is None:
            said.append(f"{before}.apply() had run before loopnb: tasks are the slower Python ones.")
        return said

    def _use_handoff(self) -> None:
        nesting.apply(self._loop, who=self._who, order=self._order)
        nesting.apply(who=self._who, order=self._order)
        engine = engine_of(self._loop)
        if engine is not None:
            self.prepare(engine)
        self.name = "handoff"

    def _use_reentrant(self) -> None:
        reentrant = Reentrant(self._loop)
        try:
            reentrant.install()
        except (ImportError, ValueError) as error:
            raise NestingError(
                f"{reentrant.package} cannot be used: {error}",
                "'%loopnb nesting handoff' goes back.",
                doing="switch to nest-asyncio",
            ) from error
        self._reentrant = reentrant
        self.name = "nest-asyncio"

    def _fall_back(self) -> None:
        try:
            self._use_reentrant()
            self.reason = f"greenlet cannot be imported: {why_missing}"
        except NestingError as error:
            self.reason = f"greenlet cannot be imported ({why_missing}), and {error.reason}"
