"""Context variables that a cell sets hold in the next cell, also if the cell awaits.

The wish. `token = user.set(await ask())` in one cell; `user.get()` and `user.reset(token)` in a later one.

What ipykernel does. Cells that await nothing run in one Context. A cell that awaits is made a task, which
runs in a copy of that Context, and what it sets is lost (ipykernel #749).

What is done. The task is made here, and runs in that very Context. The kernel hands it to
`asyncio.ensure_future`, which takes a task as it is. To copy the variables back afterwards would do for
their values, but not for tokens: those are good in one Context only.

The kernel sets its own variables (whose request is it?) before each cell, and we ours, so nothing old is
seen. Messages that are handled while a cell waits have Contexts of their own (`messages.py`). Tasks that a
cell spawns run in copies, as ever.

Not with the nest-asyncio engine: below its nested runs no handle of a Context that is in use can run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.kernel._ipykernel import is_called_by_kernel
from loopnb.nesting.greenlets import current_context
from loopnb.patching import Patch, looking_like

if TYPE_CHECKING:
    from loopnb.nesting.second_engine import NestingChoice


def share_context(shell: Any, nesting: NestingChoice) -> Patch:
    """Return the patch that has cells that await run in the Context of all others.

    It stands in for `shell.run_cell_async`, which the kernel asks for the coroutine of each such cell.
    """
    stock = shell.run_cell_async

    def run_cell_async(*args: Any, **options: Any) -> Any:
        coro = stock(*args, **options)
        if not is_called_by_kernel(shell.kernel) or nesting.name == "nest-asyncio":
            return coro
        context = current_context()
        return coro if context is None else asyncio.get_running_loop().create_task(coro, context=context)

    return Patch(shell, "run_cell_async", looking_like(stock, run_cell_async))
