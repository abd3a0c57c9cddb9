"""What nesting finds in asyncio's private parts: creators of eager tasks, the ready queue."""

from __future__ import annotations

import asyncio
from typing import Any

from loopnb._cpython import live_tasks
from loopnb.nesting import _cpython
from loopnb.nesting.engine import creators_of

if _cpython.MAY_BE_EAGER:

    def test_a_task_in_its_first_step_has_creators_and_is_live() -> None:
        seen: list[Any] = []

        async def eager() -> None:
            this = asyncio.current_task()
            assert this is not None
            seen.append(creators_of(this))
            seen.append(this in live_tasks(asyncio.get_running_loop()))
            await asyncio.sleep(0)
            seen.append(creators_of(this))

        async def main() -> asyncio.Task[Any] | None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # from 3.12 on
            await asyncio.create_task(eager())
            return asyncio.current_task()

        creator = asyncio.run(main())

        assert seen == [[creator], True, []]


def test_padding_adds_only_what_is_missing() -> None:
    loop = asyncio.new_event_loop()
    loop.call_soon(int)
    for length in (3, 2):
        _cpython.pad_queue(loop, length)
    queue = _cpython.ready_queue(loop)

    assert [handle.cancelled() for handle in queue] == [False, True, True]
    loop.close()
