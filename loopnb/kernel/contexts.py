"""Keep the context variables that a cell sets for the next cell, even if the cell awaits.

The wish. `token = user.set(await ask())` in one cell; `user.get()` and `user.reset(token)` in a later one.

What ipykernel does. Cells that await nothing run in one Context. A cell that awaits becomes a task, which
runs in a copy of that Context. So what it sets is lost (ipykernel #749).

The solution. We create the task ourselves, in the shared Context. The kernel passes it to
`asyncio.ensure_future`, which returns a task unchanged. Copying the variables back afterwards would keep
their values, but not the tokens: a token is valid only in the Context in which it was made.

Before each cell the kernel sets its own variables (the parent request), and we set ours, so no cell sees
stale ones. Messages that are handled while a cell waits have Contexts of their own (`messages.py`). Tasks
that a cell spawns run in copies, as always.

This is off with the nest-asyncio engine. During its nested runs the calling Context stays entered, so no
other handle can run in it.

The task also has to end as the cell did, in two cases. A task may be cancelled after its last await, by its
own code or by a late interrupt. It then ends cancelled although the cell has a result, and the kernel sends
no reply. And an interrupt may hit IPython itself when the cell has ended, for instance where it stores the
cell's error. The interrupt would leave the task and end the kernel.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.kernel._ipykernel import is_called_by_kernel
from loopnb.kernel._ipython import result_of_interrupted
from loopnb.nesting._cpython import clear_cancel_flag
from loopnb.nesting.greenlets import current_context
from loopnb.nesting.no_loop import end_view
from loopnb.patching import Patch, looking_like

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from loopnb.nesting.second_engine import NestingChoice


def share_context(shell: Any, nesting: NestingChoice) -> Patch:
    """Return the patch that runs `await` cells in the Context that all other cells share.

    It replaces `shell.run_cell_async`, from which the kernel gets the coroutine of each such cell.
    """
    stock = shell.run_cell_async

    def run_cell_async(raw_cell: str, *args: Any, **options: Any) -> Any:
        coro = stock(raw_cell, *args, **options)
        if not is_called_by_kernel(shell.kernel):
            return coro
        coro = _with_its_own_end(shell, raw_cell, coro)
        if nesting.name == "nest-asyncio":
            return coro
        context = current_context()
        return coro if context is None else asyncio.get_running_loop().create_task(coro, context=context)

    return Patch(shell, "run_cell_async", looking_like(stock, run_cell_async))


async def _with_its_own_end(shell: Any, raw_cell: str, cell: Coroutine[Any, Any, Any]) -> Any:
    """Await *cell* and return its result, even if its task was cancelled after its last await.

    An interrupt of IPython's own code becomes part of the result.
    """
    earlier = shell.last_execution_result
    try:
        result = await cell
    except KeyboardInterrupt as error:
        result = result_of_interrupted(shell, raw_cell, earlier, error)
    end_view()  # the cell may have left its block of `loopnb.noloop()` open
    task = asyncio.current_task()
    if task is not None:
        clear_cancel_flag(task)
    return result
