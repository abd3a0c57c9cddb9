"""A parked stack leaves its contexts, so that others may enter them."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

Run = Any
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_a_task_that_shares_the_context_runs_during_the_wait() -> None:
    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(variable.set, "shared")

        async def shares() -> str:
            return variable.get()

        async def nests() -> tuple[str, str]:
            sharer = loop.create_task(shares(), context=context)
            return asyncio.run(asyncio.wait_for(sharer, 5)), variable.get()

        return await loop.create_task(nests(), context=context)

    assert asyncio.run(main()) == ("shared", "shared")


def test_contexts_entered_in_each_other_are_all_left_and_entered_again(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        contexts = [contextvars.copy_context() for _ in range(3)]
        for number, context in enumerate(contexts):
            context.run(variable.set, str(number))
        seen: list[str] = []

        def innermost() -> None:
            for context in contexts:
                loop.call_soon(lambda: seen.append(variable.get()), context=context)
            asyncio.run(asyncio.sleep(0.005))
            seen.append(variable.get())

        contexts[0].run(lambda: contexts[1].run(lambda: contexts[2].run(innermost)))
        seen.append(variable.get())
        return seen

    assert run(main()) == ["0", "1", "2", "2", "unset"]


def test_a_nested_run_has_a_copy_as_a_stock_one_has(run: Run) -> None:
    async def sets() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    async def main() -> tuple[str, str]:
        variable.set("outside")
        return asyncio.run(sets()), variable.get()

    assert run(main()) == ("outside", "outside")


def test_a_runner_keeps_one_context_over_its_runs(run: Run) -> None:
    async def sets(value: str) -> str:
        before = variable.get()
        variable.set(value)
        return before

    async def main() -> tuple[str, str, str]:
        with asyncio.Runner() as runner:
            return runner.run(sets("first")), runner.run(sets("second")), variable.get()

    assert run(main()) == ("unset", "first", "unset")
