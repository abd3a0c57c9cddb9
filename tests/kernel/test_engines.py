"""`%loopnb nesting` in a real kernel: which engine, why, and from one to another and back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.fingerprint import FINGERPRINT
from tests.peers import PEERS, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver

#: Where anest-asyncio is installed, `nest_asyncio` is that. The original breaks on 3.14.
PACKAGES = sorted(
    {
        name
        for distribution, name in PEERS.items()
        if is_installed(distribution) and (distribution != "nest-asyncio" or sys.version_info < (3, 14))
    }
)
PACKAGE = PACKAGES[0]
AWAITS = dedented(
    """
    %%aloop
    await asyncio.sleep(0.01, 'awaited')
    """
)


@pytest.fixture
def switched(kernel: KernelDriver) -> Iterator[KernelDriver]:
    """Lend the module's kernel to a test that switches its engine."""
    yield kernel
    kernel.run("%loopnb nesting handoff")


@pytest.mark.parametrize("call", ["asyncio.run(f)", "asyncio.Runner().run(f)", "loop.run_until_complete(f)"])
def test_an_error_says_that_nesting_is_off_and_what_switches_it_on(switched: KernelDriver, call: str) -> None:
    switched.run("%loopnb nesting off")
    refused = switched.execute(
        f"""
        import asyncio
        loop, f = asyncio.get_running_loop(), asyncio.sleep(0)
        {call}
        """
    )

    assert refused.ename == "RuntimeError"
    assert refused.traceback.rstrip().endswith("'%loopnb nesting handoff' switches it on.")


SUBMITS = dedented(
    """
    import asyncio
    async def seven(): return await asyncio.sleep(0.01, 7)
    future = asyncio.run_coroutine_threadsafe(seven(), asyncio.get_event_loop())
    future.result()
    """
)


def test_without_nesting_a_result_that_cannot_come_is_refused(switched: KernelDriver) -> None:
    switched.run("%loopnb nesting off")
    refused = switched.execute(SUBMITS)

    assert refused.ename == "NestingError"
    assert "await asyncio.wrap_future(future)" in refused.evalue
    assert "%loopnb nesting handoff" in refused.evalue
    assert switched.run("await asyncio.wrap_future(future)").result == "7"


def test_nest_asyncio_brings_the_result_of_what_was_submitted(switched: KernelDriver) -> None:
    switched.run("%loopnb nesting nest-asyncio")

    assert switched.run(SUBMITS).result == "7"
    assert switched.run(below("%%aloop", SUBMITS)).result == "7"


def test_it_shows_the_engine_and_why(kernel: KernelDriver) -> None:
    kernel.run("%reload_ext loopnb")  # other tests of this kernel switch the engine
    cell = kernel.run("%loopnb nesting")

    assert "handoff: it is the default" in cell.stdout
    assert "parked  0" in cell.stdout


@pytest.mark.parametrize("engine", ["handoff", "nest-asyncio", "off"])
def test_switching_there_and_back_leaves_asyncio_as_it_was(stock_kernel: KernelDriver, engine: str) -> None:
    stock_kernel.run(FINGERPRINT)
    stock_kernel.run(f"import loopnb.extension, {PACKAGE}")
    stock_kernel.run("before = fingerprint()")

    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run(f"%loopnb nesting {engine}")
    result = stock_kernel.execute("asyncio.run(asyncio.sleep(0.01, 'nested'))")
    assert (result.result or result.ename) == ("RuntimeError" if engine == "off" else "'nested'")
    stock_kernel.run("%loopnb nesting handoff")
    assert stock_kernel.run("asyncio.run(asyncio.sleep(0.01, 'again'))").result == "'again'"
    stock_kernel.run("%unload_ext loopnb")

    assert stock_kernel.value("difference(before, fingerprint())") == []


def test_unloading_under_the_second_engine_leaves_no_trace(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(FINGERPRINT)
    stock_kernel.run(f"import loopnb.extension, {PACKAGE}")
    stock_kernel.run("before = fingerprint()")

    stock_kernel.run(
        """
        %load_ext loopnb
        %loopnb nesting nest-asyncio
        """
    )
    stock_kernel.run(
        """
        for _ in range(9): asyncio.get_running_loop().call_soon(int)
        asyncio.run(asyncio.sleep(0))
        """
    )
    assert "had run before" not in stock_kernel.run("%loopnb nesting").stdout
    stock_kernel.run("%unload_ext loopnb")

    assert stock_kernel.value("difference(before, fingerprint())") == []


def test_aloop_works_while_nesting_is_off(switched: KernelDriver) -> None:
    switched.run(
        """
        import asyncio
        %loopnb nesting off
        """
    )

    assert switched.run(AWAITS).result == "'awaited'"
    result = switched.execute("%aloop asyncio.sleep(0)")
    assert result.ename == "NestingError"
    assert "%loopnb nesting handoff" in result.evalue


def test_parked_stacks_end_in_order_after_nesting_is_switched_off(switched: KernelDriver) -> None:
    switched.run(
        """
        import asyncio
        go = asyncio.Event()
        async def nests():
            return asyncio.run(go.wait())
        tasks = [asyncio.create_task(nests()) for _ in range(3)]
        """
    )
    switched.run("await asyncio.sleep(0)")

    cell = switched.run("%loopnb nesting off")

    assert "3 parked stacks still end in order" in cell.stdout
    assert switched.run("go.set(); await asyncio.gather(*tasks)").result == "[True, True, True]"


def test_the_second_engine_is_refused_while_stacks_are_parked(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        async def nests():
            asyncio.run(asyncio.sleep(60))
        task = asyncio.create_task(nests())
        """
    )
    kernel.run("await asyncio.sleep(0)")

    result = kernel.execute("%loopnb nesting nest-asyncio")

    assert result.ename == "UsageError"
    assert "Cannot switch to nest-asyncio: 1 stacks are parked" in result.evalue
    assert kernel.run("asyncio.run(asyncio.sleep(0, 'still there'))").result == "'still there'"
    kernel.run("task.cancel(); await asyncio.wait([task]);")


@pytest.mark.parametrize("package", PACKAGES)
def test_such_a_package_does_nothing_while_the_engine_is_on_and_is_named(
    kernel: KernelDriver, package: str
) -> None:
    kernel.run(
        f"""
        import asyncio, {package}
        def picture():
            policy = type(asyncio.get_event_loop_policy())
            return asyncio.Task, asyncio.Future, asyncio.get_event_loop, policy.get_event_loop
        before = picture()
        """
    )

    kernel.run(
        f"""
        here = (lambda: 0).__code__.co_filename
        {package}.apply()
        """
    )

    assert kernel.value("picture() == before")
    said = kernel.run("%loopnb nesting").stdout
    assert f"{package}.apply(), called in {kernel.value('here')}, line 2, did nothing" in said


@pytest.mark.parametrize("package", PACKAGES)
def test_such_a_package_applied_before_loading_works_and_is_said(
    stock_kernel: KernelDriver, package: str
) -> None:
    stock_kernel.run(
        f"""
        import asyncio, {package}
        {package}.apply()
        """
    )

    stock_kernel.run("%load_ext loopnb")

    assert stock_kernel.run("asyncio.run(asyncio.sleep(0.01, 'nested'))").result == "'nested'"
    assert "had run before loopnb" in stock_kernel.run("%loopnb nesting").stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_loading_inside_a_nested_run_of_such_a_package_is_refused(
    stock_kernel: KernelDriver, package: str
) -> None:
    stock_kernel.run(
        f"""
        import asyncio, {package}
        {package}.apply()
        """
    )

    refused = stock_kernel.execute(
        """
        async def loads():
            get_ipython().run_line_magic('load_ext', 'loopnb')
        asyncio.run(loads())
        """
    )

    assert f"in a nested run of {package}'s" in refused.evalue
    stock_kernel.run("%load_ext loopnb")
    assert stock_kernel.run("asyncio.run(asyncio.sleep(0.01, 'nested'))").result == "'nested'"


def test_without_greenlet_the_second_engine_is_chosen(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio, sys
        sys.modules['greenlet'] = None
        """
    )

    stock_kernel.run("%load_ext loopnb")

    assert "nest-asyncio: greenlet cannot be imported" in stock_kernel.run("%loopnb nesting").stdout
    assert stock_kernel.run("asyncio.run(asyncio.sleep(0.01, 'nested'))").result == "'nested'"
    assert stock_kernel.run(AWAITS).result == "'awaited'"


def test_the_order_of_returns_can_be_set_and_ends_with_the_extension(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio
        ended = []
        async def nests(name, may_end):
            asyncio.run(may_end.wait())
            ended.append(name)
        async def passes():
            for _ in range(50): await asyncio.sleep(0)
        async def all_of():
            ended.clear()
            events = {name: asyncio.Event() for name in ('first', 'second', 'third')}
            tasks = [asyncio.create_task(nests(*item)) for item in events.items()]
            for name in ('first', 'third', 'second'):
                await passes()
                events[name].set()
            await asyncio.wait(tasks)
        """
    )
    fresh_kernel.run("await all_of()")
    assert fresh_kernel.value("ended") == ["first", "third", "second"]

    fresh_kernel.run("%config LoopNB.nesting_order = 'lifo'")
    fresh_kernel.run("await all_of()")
    assert fresh_kernel.value("ended") == ["third", "second", "first"]

    fresh_kernel.run(
        """
        %loopnb nesting off
        %loopnb nesting handoff
        """
    )
    fresh_kernel.run("await all_of()")
    assert fresh_kernel.value("ended") == ["third", "second", "first"]

    fresh_kernel.run(
        """
        %unload_ext loopnb
        import loopnb.nesting
        loopnb.nesting.apply()
        """
    )
    fresh_kernel.run("await all_of()")
    assert fresh_kernel.value("ended") == ["first", "third", "second"]


@pytest.fixture
def reentrant(switched: KernelDriver) -> KernelDriver:
    """A kernel that nests by nest-asyncio."""
    switch_to_second(switched)
    return switched


def switch_to_second(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        %loopnb nesting nest-asyncio
        loop = asyncio.get_running_loop()
        """
    )


STOPS = dedented(
    """
    async def stops():
        loop.call_later(0.02, loop.stop)
        await asyncio.sleep(60)
    """
)


def test_under_the_second_engine_a_stop_ends_the_newest_nested_run(reentrant: KernelDriver) -> None:
    reentrant.run(STOPS)

    stopped = reentrant.execute("loop.run_until_complete(stops())")
    result = reentrant.run(
        """
        async def outer():
            try:
                loop.run_until_complete(stops())
            except RuntimeError as error:
                return await asyncio.sleep(0.05, str(error))
        loop.run_until_complete(outer())
        """
    )

    assert (stopped.ename, stopped.evalue) == ("RuntimeError", "Event loop stopped before Future completed.")
    assert result.result == "'Event loop stopped before Future completed.'"
    assert reentrant.run("await asyncio.sleep(0.01, 'turns')").result == "'turns'"


def test_under_the_second_engine_a_stop_for_the_run_below_waits_for_the_newest(
    reentrant: KernelDriver,
) -> None:
    reentrant.run(
        """
        async def inner():
            return await asyncio.sleep(0.05, 'inner ended')
        async def outer():
            loop.call_soon(said.append, 'same pass')
            loop.stop()
            said.append(loop.run_until_complete(inner()))
            await asyncio.sleep(60)
        said = []
        """
    )

    result = reentrant.execute("loop.run_until_complete(outer())")

    assert result.evalue == "Event loop stopped before Future completed."
    assert reentrant.value("said") == ["same pass", "inner ended"]


def test_under_the_second_engine_run_forever_lasts_until_stop(reentrant: KernelDriver) -> None:
    reentrant.run(
        """
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        print('stopped')
        """
    )
    warned = reentrant.run("loop.stop()")

    assert "loop.stop() was ignored" in warned.stderr
    assert reentrant.run("asyncio.run(asyncio.sleep(0.01, 'turns'))").result == "'turns'"


def test_under_the_second_engine_a_kernel_ends_in_order_while_a_cell_nests(
    fresh_kernel: KernelDriver,
) -> None:
    switch_to_second(fresh_kernel)
    cell = fresh_kernel.start(
        """
        async def waits():
            try:
                print('waits', flush=True)
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                print('ended', flush=True)
        asyncio.run(waits())
        """
    )
    cell.wait_output("waits")

    log = fresh_kernel.shutdown()

    assert "ended" in cell.stdout
    assert "was destroyed" not in log
    assert "Traceback" not in log


def test_nest_asyncio_is_not_left_below_a_run_that_it_has_nested(switched: KernelDriver) -> None:
    switched.run("import asyncio; from IPython import get_ipython")
    switched.run("%loopnb nesting nest-asyncio")
    result = switched.run(
        """
        async def main():
            try:
                get_ipython().run_line_magic('loopnb', 'nesting handoff')
            except Exception as error:
                print(error)
            return await asyncio.sleep(0.1, 'went on')
        asyncio.run(main())
        """
    )

    assert "Cannot switch to handoff: a nested run of nest-asyncio is under way" in result.stdout
    assert result.result == "'went on'"
    assert "engine  handoff" in switched.run("%loopnb nesting handoff").stdout


def test_loopnb_is_not_unloaded_below_a_run_that_nest_asyncio_has_nested(switched: KernelDriver) -> None:
    switched.run("import asyncio; from IPython import get_ipython")
    switched.run("%loopnb nesting nest-asyncio")
    result = switched.run(
        """
        async def main():
            try:
                get_ipython().run_line_magic('unload_ext', 'loopnb')
            except Exception as error:
                print(error)
            return await asyncio.sleep(0, 'went on')
        asyncio.run(main())
        """
    )

    assert "Cannot unload loopnb: a nested run of nest-asyncio is under way" in result.stdout
    assert "run '%unload_ext loopnb' in a cell of its own" in result.stdout
    assert result.result == "'went on'"
    switched.run("%reload_ext loopnb")
    assert "engine  handoff" in switched.run("%loopnb nesting").stdout


def test_a_task_that_nest_asyncio_has_nested_keeps_loopnb_from_being_unloaded(switched: KernelDriver) -> None:
    switched.run(
        """
        import asyncio
        %loopnb nesting nest-asyncio
        go = asyncio.Event()
        async def nests():
            return asyncio.run(go.wait())
        task = asyncio.create_task(nests())
        """
    )
    switched.run("await asyncio.sleep(0)")

    refused = switched.execute("%unload_ext loopnb")

    assert refused.ename == "NestingError"
    assert "Let it end, or cancel its task" in refused.evalue
    switched.run("go.set()")
    assert switched.run("await task").result == "True"
    switched.run("%reload_ext loopnb")
