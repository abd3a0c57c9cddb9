"""Random graphs of tasks give the same results nested as they give awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nesting.conftest import FACTORIES

# A tree of what a task does. Times are far apart, so that who is first does not depend on the machine.
LEAVES = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.001])),
    st.tuples(st.just("raise"), st.sampled_from(["LookupError", "OSError"])),
    st.tuples(st.just("value"), st.integers(0, 9)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("wait"), inner),
        st.tuples(st.just("gather"), st.lists(inner, min_size=1, max_size=4)),
        st.tuples(st.just("group"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("timeout"), inner),
        st.tuples(st.just("cancel"), inner),
        st.tuples(st.just("spawn"), inner),
    ),
    max_leaves=12,
)
ERRORS = {"LookupError": LookupError, "OSError": OSError}


class World:
    """Carries trees out. Where the tree says wait, it nests or it awaits."""

    def __init__(self, nested: bool) -> None:
        self.nested = nested

    async def do(self, tree: Any) -> Any:
        kind, argument = tree
        return await getattr(self, kind)(argument)

    async def sleep(self, delay: float) -> str:
        await asyncio.sleep(delay)
        return "slept"

    async def raise_(self, name: str) -> None:
        raise ERRORS[name](name)

    async def value(self, number: int) -> int:
        return number

    async def wait(self, tree: Any) -> Any:
        await asyncio.sleep(0)  # an eager task's first step is its creator's
        if self.nested:
            return asyncio.run(self.do(tree))
        return await asyncio.get_running_loop().create_task(self.do(tree))

    async def gather(self, trees: list[Any]) -> list[str]:
        return list(map(repr, await asyncio.gather(*map(self.do, trees), return_exceptions=True)))

    async def group(self, trees: list[Any]) -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.later(tree)) for tree in trees]
        except BaseExceptionGroup:
            return ["failed"]  # which of them were in time depends on the machine
        return [repr(task.result()) for task in tasks]

    async def later(self, tree: Any) -> Any:
        # 3.12.1 drops coroutines and leaks a cancellation where an eager child fails at once.
        await asyncio.sleep(0)
        return await self.do(tree)

    async def timeout(self, tree: Any) -> Any:
        try:
            async with asyncio.timeout(0.02):
                await self.wait(("gather", [tree]))
                return await self.wait(("forever", None))
        except TimeoutError:
            this = asyncio.current_task()
            assert this is not None
            return f"timed out, {this.cancelling()}"

    async def forever(self, _argument: None) -> None:
        await asyncio.sleep(30)

    async def cancel(self, tree: Any) -> str:
        async def victim() -> None:
            await self.wait(("gather", [tree, ("forever", None)]))

        task = asyncio.ensure_future(victim())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return f"{task.cancelled()}, {task.cancelling()}"

    async def spawn(self, tree: Any) -> Any:
        return await asyncio.ensure_future(self.wait(tree))


setattr(World, "raise", World.raise_)


def outcome(tree: Any, nested: bool, factory: Any) -> str:
    async def main() -> str:
        try:
            return repr(await World(nested).do(tree))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  it is compared
            return f"raised {error!r}"

    with asyncio.Runner() as runner:
        if factory is not None:
            runner.get_loop().set_task_factory(factory)
        return runner.run(main())


@pytest.mark.parametrize("factory", list(FACTORIES))
@settings(deadline=None)
@given(tree=TREES)
def test_nested_and_awaited_graphs_give_the_same(factory: str, tree: Any) -> None:
    assert outcome(tree, True, FACTORIES[factory]) == outcome(tree, False, FACTORIES[factory])
