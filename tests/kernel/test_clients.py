"""Clients of real servers, as cells make and use them; and what is said when their loop has been closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cells import dedented, filled
from tests.kernel import servers
from tests.kernel.conftest import needs_subshells, shows_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import CellResult, KernelDriver


class Kind(NamedTuple):
    """A client: its server's fixture, and the expressions that make, use and close one.

    What `use` returns names the connection that was used.
    """

    server: str
    imports: str
    make: str
    use: str
    close: str
    is_shareable: bool = True


KINDS = {
    "aiohttp": Kind(
        "http", "aiohttp", "aiohttp.ClientSession()", "await (await c.get(server)).text()", "c.close()"
    ),
    "httpx": Kind("http", "httpx", "httpx.AsyncClient()", "(await c.get(server)).text", "c.aclose()"),
    "asyncpg connection": Kind(
        "postgres",
        "asyncpg",
        "await asyncpg.connect(host=server, user='postgres')",
        "await c.fetchval('select pg_backend_pid()')",
        "c.close()",
        is_shareable=False,
    ),
    "asyncpg pool": Kind(
        "postgres",
        "asyncpg",
        "await asyncpg.create_pool(host=server, user='postgres', min_size=1, max_size=3)",
        "await c.fetchval('select pg_backend_pid()')",
        "c.close()",
    ),
    "redis": Kind(
        "redis",
        "redis.asyncio",
        "redis.asyncio.Redis(unix_socket_path=server)",
        "await c.client_id()",
        "c.aclose()",
    ),
}


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    with servers.http() as url:
        yield url


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if "postgresql" in servers.missing():
        pytest.skip("PostgreSQL was not found, and could not be installed")
    with servers.postgres() as folder:
        yield folder


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    if "redis-server" in servers.missing():
        pytest.skip("redis-server was not found, and could not be installed")
    with servers.redis() as path:
        yield path


@pytest.fixture(params=list(KINDS))
def kind(kernel: KernelDriver, request: pytest.FixtureRequest) -> Kind:
    """Give the kernel a server, and the functions `make`, `use` and `close` for one kind of its clients."""
    kind = KINDS[request.param]
    kernel.run(
        f"""
        import asyncio, {kind.imports}
        server = {request.getfixturevalue(kind.server)!r}
        async def make(): return {kind.make}
        async def use(c): return {kind.use}
        async def close(c): await {kind.close}
        """
    )
    return kind


@pytest.mark.usefixtures("kind")
def test_a_client_of_one_run_works_in_every_later_cell_through_the_same_connection(
    kernel: KernelDriver,
) -> None:
    kernel.run(
        """
        c = asyncio.run(make())
        used = [asyncio.run(use(c))]
        used.append(asyncio.run(use(c)))
        """
    )
    kernel.run("used.append(asyncio.run(use(c)))")
    kernel.run("used.append(await use(c))")
    kernel.run(
        """
        %%aloop
        used.append(await use(c))
        """
    )
    kernel.run("%aloop -o answer use(c)")
    kernel.run("used.append(asyncio.get_event_loop().run_until_complete(use(c)))")
    kernel.run(
        """
        used.append(answer)
        asyncio.run(close(c))
        """
    )

    assert kernel.value("len(used)") == 7
    assert kernel.value("len(set(used))") == 1


def test_two_nested_runs_use_clients_at_the_same_time(kernel: KernelDriver, kind: Kind) -> None:
    kernel.run("first = asyncio.run(make())")
    kernel.run("second = first" if kind.is_shareable else "second = asyncio.run(make())")
    kernel.run(
        """
        both = asyncio.Barrier(2)
        async def twice(c):
            before = await use(c)
            await both.wait()
            return before, await use(c)
        async def nests(c): return asyncio.run(twice(c))
        answers = await asyncio.wait_for(asyncio.gather(nests(first), nests(second)), 20)
        """
    )

    assert kernel.value("all(answer for pair in answers for answer in pair)")
    assert kernel.value("answers[0][1] != answers[1][1]"), "each has a connection of its own meanwhile"
    kernel.run("asyncio.run(close(first)); asyncio.run(close(second))")


def test_synchronous_code_of_sqlalchemys_nests_beside_other_queries(
    kernel: KernelDriver, postgres: str
) -> None:
    kernel.run(
        f"""
        import asyncio
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        engine = create_async_engine('postgresql+asyncpg://postgres@/postgres?host={postgres}')
        def in_session(connection):
            found = connection.execute(text('select 1')).scalar()
            return found, asyncio.run(asyncio.sleep(0.02, 'nested'))
        async def nests():
            async with engine.connect() as c:
                return await c.run_sync(in_session)
        async def counts():
            async with engine.connect() as c:
                return [(await c.execute(text(f'select {{n}}'))).scalar() for n in range(20)]
        """
    )

    cell = kernel.run(
        "answers = await asyncio.wait_for(asyncio.gather(nests(), counts(), nests(), counts()), 20)"
    )
    kernel.run("await engine.dispose()")

    assert kernel.value("answers") == [(1, "nested"), list(range(20))] * 2
    assert cell.stderr == ""


@needs_subshells
@pytest.mark.usefixtures("kind")
def test_a_subshell_uses_the_clients_of_the_main_shell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        c = asyncio.run(make())
        used = {await use(c)}
        """
    )
    subshell = kernel.create_subshell()

    for code in (
        "used.add(asyncio.run(use(c)))",
        "%aloop -o line use(c)",
        dedented(
            """
            %%aloop -t 10
            used.add(await use(c))
            """
        ),
    ):
        kernel.execute(code, subshell_id=subshell).expect_ok()

    assert kernel.value("len(used | {line})") == 1
    kernel.run("await close(c)")


# -- what is bound to a closed loop --------------------------------------------------------------

CLOSES = dedented(
    """
    loop = asyncio.new_event_loop()
    {}
    loop.close()
    """
)


def assert_explained(result: CellResult, closing: CellResult, line: int) -> None:
    """Check that the traceback of *result* says where the loop was closed, and shows no frame of ours."""
    assert result.status == "error"
    assert "This object belongs to another event loop" in result.traceback
    assert f"closed at In[{closing.execution_count}], line {line}." in result.traceback
    assert "closed_loops" not in result.traceback


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    "how", ["await use(c)", "asyncio.run(use(c))", "asyncio.new_event_loop().run_until_complete(use(c))"]
)
def test_a_client_whose_loop_was_closed_says_so(kernel: KernelDriver, how: str) -> None:
    closing = kernel.run(
        filled(
            CLOSES,
            """
            c = loop.run_until_complete(make())
            loop.run_until_complete(use(c))
            """,
        )
    )

    result = kernel.execute(how)

    assert_explained(result, closing, 4)
    kernel.run(
        """
        del c
        import gc; gc.collect()
        """
    )


BOUND = {
    "lock": ("asyncio.Lock()", "acquire()"),
    "event": ("asyncio.Event()", "wait()"),
    "queue": ("asyncio.Queue()", "get()"),
    "semaphore": ("asyncio.Semaphore(1)", "acquire()"),
}


@pytest.mark.parametrize(("make", "wait"), BOUND.values(), ids=BOUND)
def test_a_lock_or_queue_whose_loop_was_closed_says_so(kernel: KernelDriver, make: str, wait: str) -> None:
    kernel.run(
        f"""
        import asyncio
        bound = {make}
        async def waits():
            await bound.{wait}
            await bound.{wait}
        async def is_bound():
            await asyncio.wait([asyncio.create_task(waits())], timeout=0.01)
        """
    )
    closing = kernel.run(filled(CLOSES, "loop.run_until_complete(is_bound())"))

    result = kernel.execute(f"await bound.{wait}")

    assert "is bound to a different event loop" in result.evalue
    assert_explained(result, closing, 3)


@pytest.mark.parametrize(
    "use",
    [
        "await left",
        dedented(
            """
            async def main(): await left
            asyncio.run(main())
            """
        ),
    ],
)
def test_a_task_that_a_closed_loop_has_left_unfinished_says_so(kernel: KernelDriver, use: str) -> None:
    kernel.run("import asyncio")
    closing = kernel.run(filled(CLOSES, "left = loop.create_task(asyncio.sleep(60))"))

    result = kernel.execute(use)

    assert result.evalue.endswith("attached to a different loop")
    assert_explained(result, closing, 3)


LEFT = {
    "task": "left = [loop.create_task(asyncio.sleep(60))]",
    "future": "left = [loop.create_future()]",
    "begun": "left = [loop.create_task(asyncio.sleep(60))]; loop.run_until_complete(asyncio.sleep(0))",
}
SHOWS = {
    "cell": "await left[0]",
    "nested run": """
        async def main(): await left[0]
        asyncio.run(main())
        """,
    "task": """
        async def waits(): await left[0]
        task = asyncio.create_task(waits())
        await asyncio.wait([task])
        task.result()
        """,
    "shown twice": """
        try:
            await left[0]
        except RuntimeError:
            get_ipython().showtraceback()
            raise
        """,
    "group": """
        async def waits(): await left[0]
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
        """,
    "%aloop": """
        async def waits(): await left[0]
        %aloop waits()
        """,
    "%%aloop": dedented(
        """
        %%aloop
        await left[0]
        """
    ),
    "%%aloop -t": dedented(
        """
        %%aloop -t 5
        await left[0]
        """
    ),
    "%%aloop --fresh": dedented(
        """
        %%aloop --fresh
        await left[0]
        """
    ),
}


@pytest.mark.parametrize("make_loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("how", [how for how in SHOWS if how != "group" or shows_groups])
def test_the_note_is_wherever_the_error_is_shown(
    kernel: KernelDriver, how: str, left: str, make_loop: str
) -> None:
    kernel.run("import asyncio, uvloop")
    closing = kernel.run(
        f"""
        loop = {make_loop}()
        {left}
        loop.close()
        """
    )

    result = kernel.execute(SHOWS[how])
    shown = result.traceback + result.stderr

    assert "attached to a different loop" in shown
    assert shown.count(f"closed at In[{closing.execution_count}], line 3.") == 1
    assert "error_notes" not in shown


def test_a_background_cells_traceback_has_the_note(kernel: KernelDriver) -> None:
    kernel.run("import asyncio")
    closing = kernel.run(filled(CLOSES, "left = loop.create_future()"))

    cell = kernel.start(
        """
        %%aloop -b
        await asyncio.sleep(0.01)
        await left
        """
    )

    assert cell.wait_output(f"closed at In[{closing.execution_count}], line 3.")


def test_a_failed_task_has_the_note_in_its_line_and_in_where(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        %config LoopNB.report_after = 0.1
        """
    )
    closing = kernel.run(filled(CLOSES, "left = loop.create_future()"))
    note = f"closed at In[{closing.execution_count}], line 3."

    result = kernel.run(
        """
        async def waits(): await left
        asyncio.create_task(waits(), name='lost')
        await asyncio.sleep(0.05)
        None
        """
    )

    (line,) = [line for line in result.stderr.splitlines() if "'lost' failed" in line]
    assert note in line
    assert "asyncio.run(). Nobody has awaited it" in line
    assert kernel.run("%loopnb where lost").stdout.count(note) == 1


def test_code_that_catches_the_error_gets_it_as_asyncio_made_it(kernel: KernelDriver) -> None:
    kernel.run("import asyncio")
    kernel.run(filled(CLOSES, "left = loop.create_future()"))

    kernel.run(
        """
        try:
            await left
        except RuntimeError as error:
            caught = error
        """
    )

    assert kernel.value("hasattr(caught, '__notes__')") is False


@pytest.mark.parametrize("use", ["call_soon(print)", "create_task(noop())", "run_until_complete(noop())"])
@pytest.mark.parametrize("make_loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
def test_a_closed_loop_itself_says_so(kernel: KernelDriver, make_loop: str, use: str) -> None:
    kernel.run(
        """
        import asyncio, uvloop
        async def noop(): ...
        """
    )
    closing = kernel.run(
        f"""
        loop = {make_loop}()
        made = loop.create_future()
        loop.close()
        """
    )

    result = kernel.execute(f"loop.{use}")

    assert result.evalue == "Event loop is closed"
    assert_explained(result, closing, 3)


def test_a_repr_of_what_a_closed_loop_has_left_changes_nothing(kernel: KernelDriver) -> None:
    kernel.run("import asyncio")
    kernel.run(filled(CLOSES, "left = loop.create_future()"))

    shown = kernel.run(
        """
        async def main():
            asyncio.get_running_loop().call_soon(repr, left)
            repr(left)
            await asyncio.sleep(0.01)
            return repr(left)
        asyncio.run(main())
        """
    )

    assert shown.result == "'<Future pending>'"
    filename = kernel.value("type(asyncio.get_running_loop()).call_soon.__code__.co_filename")
    assert filename == kernel.value("asyncio.base_events.__file__")


def test_an_open_loop_is_not_taken_for_a_closed_one(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        other = asyncio.new_event_loop()
        waits = other.create_future()
        """
    )
    kernel.run(filled(CLOSES, "pass"))

    result = kernel.execute("await waits")

    assert result.evalue.endswith("attached to a different loop")
    assert "closed at" not in result.traceback
    assert f"The object that In[{result.execution_count}], line 1 uses belongs to" in result.traceback
    kernel.run("other.close()")


def test_closed_loops_and_asyncios_errors_are_left_as_they_were(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio
        base = asyncio.BaseEventLoop
        def kept():
            return (asyncio.mixins._LoopBoundMixin._get_loop, asyncio.base_futures._future_repr_info,
                    base.call_soon, base._check_closed)
        def changed():
            return base.close.__code__, get_ipython().showtraceback
        stock = kept(), changed()
        """
    )
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run(filled(CLOSES, "pass"))
    assert "belongs to" in stock_kernel.execute("loop.call_soon(print)").traceback
    assert stock_kernel.value("kept() == stock[0]")
    assert not stock_kernel.value("any(now == then for now, then in zip(changed(), stock[1]))")

    stock_kernel.run("%unload_ext loopnb")

    assert stock_kernel.value("(kept(), changed()) == stock")
    assert "belongs to" not in stock_kernel.execute("loop.call_soon(print)").traceback
    assert stock_kernel.value("'_check_closed' in vars(loop)") is False


def test_what_somebody_has_put_over_showtraceback_stays(stock_kernel: KernelDriver) -> None:
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run(
        """
        shell = get_ipython(); ours = shell.showtraceback
        def theirs(*args, **options): print('theirs'); return ours(*args, **options)
        shell.showtraceback = theirs
        """
    )
    stock_kernel.run("import asyncio")
    stock_kernel.run(filled(CLOSES, "pass"))
    assert "belongs to" in stock_kernel.execute("loop.call_soon(print)").traceback

    stock_kernel.run("%unload_ext loopnb")

    result = stock_kernel.execute("loop.call_soon(print)")
    assert result.stdout == "theirs\n"
    assert "belongs to" not in result.traceback
