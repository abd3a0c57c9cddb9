"""Async tests run in cells with ipytest, by pytest-asyncio and by anyio's plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.kernel.requests import without_ansi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver

ASYNCIO_TESTS = """
%%ipytest {options}
@pytest_asyncio.fixture
async def queue():
    queue = asyncio.Queue()
    getter = asyncio.create_task(queue.get())  # bound to the loop from here on
    yield queue
    assert await getter == "put by the test"
    torn_down.append(queue)

{mark}
async def test_passes(queue):
    await queue.put("put by the test")

{mark}
async def test_fails():
    await asyncio.sleep(0.001)
    assert "expected" == "found"

{mark}
async def test_nests():
    assert asyncio.run(asyncio.sleep(0.001, "nested")) == "nested"

{mark}
async def test_leaves_things():
    asyncio.get_running_loop().set_exception_handler(print)
    left.append(asyncio.create_task(asyncio.sleep(60)))

def test_sees_what_was_left_ended():
    assert left.pop().cancelled()
"""

ANYIO_TESTS = """
%%ipytest -p no:asyncio
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def scope(anyio_backend):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 60)
        yield group.cancel_scope
        group.cancel_scope.cancel()
    torn_down.append(group)

@pytest.mark.anyio
async def test_passes(scope):
    await anyio.sleep(0.001)

@pytest.mark.anyio
async def test_fails(scope):
    assert "expected" == "found"
"""


@pytest.fixture(autouse=True)
def notebook(kernel: KernelDriver) -> Iterator[None]:
    """Prepare ipytest, with a task of the notebook's own that must outlive all tests."""
    kernel.run(
        """
        import asyncio, anyio, pytest, pytest_asyncio, ipytest
        torn_down, left = [], []
        ipytest.autoconfig(raise_on_error=False, addopts=['-p', 'no:cacheprovider', '-q', '-W', 'ignore'])
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        mine = asyncio.create_task(asyncio.sleep(60))
        """
    )
    yield
    if kernel.is_alive():
        kernel.run("mine.cancel()")


def run_tests(kernel: KernelDriver, code: str) -> str:
    """Run a cell of tests and return what pytest has printed."""
    cell = kernel.run(code.lstrip())
    assert cell.stderr == ""
    return without_ansi(cell.stdout)


def assert_untouched(kernel: KernelDriver) -> None:
    """Check that the notebook's loop is where it was, with what ran on it before and nothing else."""
    assert kernel.run("await asyncio.sleep(0.001, 'awaited')").result == "'awaited'"
    assert kernel.run("asyncio.run(asyncio.sleep(0.001, 'ran'))").result == "'ran'"
    assert kernel.value("asyncio.get_event_loop() is asyncio.get_running_loop() is loop")
    assert kernel.value("loop.get_exception_handler() is handler")
    assert kernel.value("asyncio.all_tasks() == {mine}")
    assert "set aside" not in kernel.run("%loopnb").stdout


@pytest.mark.parametrize("options", ["--asyncio-mode=auto", "--asyncio-mode=strict"])
def test_pytest_asyncio_runs_and_leaves_nothing_behind(kernel: KernelDriver, options: str) -> None:
    code = ASYNCIO_TESTS.format(
        options=options, mark="@pytest.mark.asyncio" if options.endswith("strict") else ""
    )
    for run in (1, 2):
        said = run_tests(kernel, code)

        assert "1 failed, 4 passed" in said
        assert "assert 'expected' == 'found'" in said
        assert kernel.value("len(torn_down)") == run
        assert_untouched(kernel)


def test_fixtures_and_tests_of_a_module_share_their_loop(kernel: KernelDriver) -> None:
    said = run_tests(
        kernel,
        """
        %%ipytest
        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def queue():
            yield asyncio.Queue()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_puts(queue):
            asyncio.get_running_loop().call_soon(queue.put_nowait, "put")

        @pytest.mark.asyncio(loop_scope="module")
        async def test_gets(queue):
            assert await queue.get() == "put"
        """,
    )

    assert "2 passed" in said
    assert_untouched(kernel)


def test_anyios_plugin_runs_and_leaves_nothing_behind(kernel: KernelDriver) -> None:
    for run in (1, 2):
        said = run_tests(kernel, ANYIO_TESTS)

        assert "1 failed, 1 passed" in said
        assert kernel.value("len(torn_down)") == 2 * run
        assert_untouched(kernel)


def test_an_interrupt_ends_the_test_run_and_leaves_the_notebooks_tasks(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        %%ipytest -s
        @pytest.mark.asyncio
        async def test_waits():
            print('waits', flush=True)
            await asyncio.sleep(60)
        @pytest.mark.asyncio
        async def test_is_not_reached():
            print('reached')
        """
    )
    cell.wait_output("waits")

    kernel.interrupt()

    cell.wait()
    assert "KeyboardInterrupt" in cell.text
    assert "reached" not in cell.stdout
    assert_untouched(kernel)


IPYTEST = dedented(
    """
    import asyncio, pytest, ipytest
    ipytest.autoconfig(addopts=['-p', 'no:cacheprovider'])
    """
)


def test_anyio_nests_where_pytest_has_imported_it(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(IPYTEST)
    run_tests(
        fresh_kernel,
        dedented(
            """
            %%ipytest -W ignore
            def test_nothing(): pass
            """
        ),
    )

    result = fresh_kernel.run(
        """
        import anyio
        anyio.run(anyio.sleep, 0.001)
        'nested'
        """
    )
    assert result.result == "'nested'"


def test_anyios_fixtures_run_where_pytest_imports_it(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(IPYTEST)

    said = run_tests(
        fresh_kernel,
        """
        %%ipytest -p no:asyncio -W ignore
        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def five(anyio_backend):
            return 5

        @pytest.mark.anyio
        async def test_anyio(five):
            assert five == 5
        """,
    )

    assert "1 passed" in said
