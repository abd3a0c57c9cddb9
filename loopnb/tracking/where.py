"""Say where a task waits: its frames, what it waits for, and the same for each task that it waits for.

Everything here runs in the loop's thread. The only code of the user's that it runs is what `details` names.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb._cpython import name_of
from loopnb.frames import is_ours
from loopnb.tracking import waits
from loopnb.tracking.cells import line_of
from loopnb.tracking.chains import LOCKS, chain_of, reason_of
from loopnb.tracking.details import detail_of
from loopnb.tracking.graph import chains_of
from loopnb.tracking.holders import holders_of
from loopnb.tracking.suspended import code_of, instruction_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loopnb.records import WaitDetail
    from loopnb.tracking.chains import Chain
    from loopnb.tracking.tracker import Tracker

#: How many tasks are followed for which one task waits. A line says if there are more.
_WIDEST = 20
#: How many tasks deep a chain of waits is followed.
_DEEPEST = 50


def where_lines(tracker: Tracker, task: asyncio.Task[Any], say: Callable[[WaitDetail], str]) -> Iterator[str]:
    """Say where *task* waits, a line for each of its frames and for each task that it waits for.

    Args:
        tracker: Knows the tasks.
        task: The task.
        say: Formats what a task waits for.
    """
    yield from _Explainer(tracker, say).lines(task, "", 0)


class _Explainer:
    """Follows one chain of tasks. Each is explained once."""

    def __init__(self, tracker: Tracker, say: Callable[[WaitDetail], str]) -> None:
        self._tracker = tracker
        self._say = say
        self._seen: set[int] = set()

    def lines(self, task: asyncio.Task[Any], indent: str, depth: int) -> Iterator[str]:
        """Yield the lines about *task*."""
        tracker = self._tracker
        self._seen.add(tracker.number_of(task))
        chain = chain_of(task)
        yield from self._links(task, chain, indent)
        detail = detail_of(tracker, task)
        if detail.text:
            yield f"{indent}  waits for {self._say(detail)}"
        for count, awaited in enumerate(self._behind(task, chain)):
            if count == _WIDEST or depth == _DEEPEST:
                yield f"{indent}    and more tasks"
                return
            number = tracker.number_of(awaited)
            is_known = number in self._seen
            label = repr(name_of(awaited))
            if not tracker.is_kernels_own(awaited):  # whose numbers nobody can use
                label = f"{number} {label}"
            yield f"{indent}    task {label}{' (see above)' if is_known else ''}"
            if not is_known:
                yield from self.lines(awaited, indent + "    ", depth + 1)

    def _links(self, task: asyncio.Task[Any], chain: Chain, indent: str) -> Iterator[str]:
        """Yield a line for each link, with the text of the user's own innermost line."""
        shown = self._tracker.codes.index_shown(chain.links)
        cell = self._tracker.origin_of(task).cell
        for index, link in enumerate(chain.links):
            code, instruction = code_of(link), instruction_of(link)
            if is_ours(code.co_filename):
                continue
            place = self._tracker.place(code, instruction, cell)
            if index == shown:
                source = waits.source_of_line(code.co_filename, line_of(code, instruction))
                place += f": {source}" if source else ""
            name = code.co_qualname
            yield f"{indent}  {place}" if name.startswith("<") else f"{indent}  {name}()  {place}"

    def _behind(self, task: asyncio.Task[Any], chain: Chain) -> list[asyncio.Task[Any]]:
        """Return the tasks that can end this wait."""
        reason = reason_of(chain)
        if reason.kind not in LOCKS:
            return sorted(set(reason.tasks), key=asyncio.Task.get_name)
        every = chains_of(self._tracker.live(kernels=True))
        found = holders_of({id(reason.subject): reason.subject}, every)
        return list(dict.fromkeys(holder.task for _lock, holder in found))
