"""What scripts do to their loop, done in cells: the notebook's loop stays open and turns."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.kernel.driver import END_WITHIN_S

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, os, signal
        async def f():
            return 'ran'
        """
    )


CLOSING = dedented(
    """
    loop = asyncio.get_event_loop()
    print(loop.run_until_complete(f()))
    loop.close()
    """
)


def test_closing_the_loop_only_warns_and_the_cell_runs_again(kernel: KernelDriver) -> None:
    first = kernel.run(CLOSING)
    second = kernel.run(CLOSING)

    assert first.stdout == second.stdout == "ran\n"
    assert f"In[{first.execution_count}], line 3: loop.close() was ignored" in first.stderr
    assert first.stderr.count("LoopWarning") == 1


def test_the_warning_comes_once_for_each_line(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        for _ in range(3):
            asyncio.get_event_loop().close()
        """
    )

    assert cell.stderr.count("LoopWarning") == 1


def test_the_warning_can_be_filtered(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        import warnings, loopnb.errors
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', loopnb.errors.LoopWarning)
            asyncio.get_event_loop().close()
        """
    )

    assert cell.stderr == ""


def test_another_loop_set_and_closed_leaves_later_cells_the_notebooks(kernel: KernelDriver) -> None:
    code = dedented(
        """
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        print(loop.run_until_complete(f()))
        loop.close()
        """
    )

    assert kernel.run(code).stdout == "ran\n"
    assert kernel.run(code).stdout == "ran\n"
    assert kernel.run("asyncio.get_event_loop().run_until_complete(f())").result == "'ran'"


def test_the_same_line_in_another_cell_is_warned_of_as_well(kernel: KernelDriver) -> None:
    close = "asyncio.get_event_loop().close()  # in two cells"

    said = [kernel.run(close, cell_id=cell).stderr for cell in ("one", "other", "one", "other")]

    assert ["was ignored" in line for line in said] == [True, True, False, False]


def test_a_shut_down_executor_works_in_the_next_cell_and_is_told_once(kernel: KernelDriver) -> None:
    cell = kernel.run("await asyncio.get_running_loop().shutdown_default_executor()")

    assert cell.stderr.count("executor had been shut down") == 1
    assert kernel.run("await asyncio.to_thread(lambda: 5)").result == "5"


def test_a_policy_that_is_set_is_noted_in_the_status_and_the_loop_stays(fresh_kernel: KernelDriver) -> None:
    assert "policy" not in fresh_kernel.run("%loopnb").stdout
    fresh_kernel.run(
        """
        import asyncio
        here = asyncio.get_running_loop()
        class Mine(asyncio.DefaultEventLoopPolicy): pass
        asyncio.set_event_loop_policy(Mine())
        """
    )

    assert "policy has been set to __main__.Mine" in fresh_kernel.run("%loopnb").stdout
    assert fresh_kernel.run("asyncio.run(asyncio.sleep(0.01)), asyncio.get_event_loop() is here").result == (
        "(None, True)"
    )


def test_a_stop_where_nothing_is_nested_only_warns(kernel: KernelDriver) -> None:
    cell = kernel.run("asyncio.get_running_loop().stop()")

    assert "loop.stop() was ignored" in cell.stderr
    assert kernel.value("1 + 1") == 2


def test_a_stop_bound_before_loading_only_warns_too(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio
        loop = asyncio.get_running_loop()
        stop, forever = loop.stop, loop.run_forever
        """
    )
    stock_kernel.run("%load_ext loopnb")

    assert "loop.stop() was ignored" in stock_kernel.run("stop()").stderr
    result = stock_kernel.run(
        """
        loop.call_later(0.05, stop); forever()
        'stopped'
        """
    )
    assert result.result == "'stopped'"


def test_a_stop_ends_the_nested_run(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        loop = asyncio.get_running_loop(); loop.call_later(0.05, loop.stop)
        loop.run_until_complete(asyncio.sleep(60))
        """
    )

    assert result.ename == "RuntimeError"
    assert result.evalue == "Event loop stopped before Future completed."


def test_run_forever_in_a_cell_lasts_until_stop(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        loop = asyncio.get_running_loop(); loop.call_later(0.05, loop.stop)
        loop.run_forever()
        'stopped'
        """
    )

    assert cell.result == "'stopped'"


def test_the_status_says_that_a_cell_waits_in_run_forever_and_what_ends_it(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        import asyncio, loopnb
        loop, seen = asyncio.get_running_loop(), []
        loop.call_later(0.01, lambda: (seen.append(loopnb.status()), loop.stop()))
        loop.run_forever()
        """
    )
    detail = kernel.value("seen[0].detail")

    assert f"In[{cell.execution_count}], line 4 waits in run_forever()" in detail
    assert "loop.stop()" in detail


def test_an_interrupt_of_run_forever_ends_at_the_users_line(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        asyncio.get_running_loop().call_soon(print, 'waits')
        asyncio.get_running_loop().run_forever()
        """
    )
    cell.wait_output("waits")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt"
    assert "File " not in result.traceback


def test_a_stop_that_the_loop_itself_calls_is_told_without_a_line(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        await asyncio.sleep(0.01)
        """
    )

    assert "loop.stop() was ignored" in cell.stderr
    assert "?" not in cell.stderr


def test_cancelling_all_tasks_spares_the_kernel(kernel: KernelDriver) -> None:
    kernel.run("mine = asyncio.create_task(asyncio.sleep(60))")

    kernel.run(
        """
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others: task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        """
    )

    assert kernel.value("mine.cancelled()")
    assert kernel.value("len(others)") == 1


def test_cancelling_all_tasks_in_a_plain_cell_spares_the_kernel(kernel: KernelDriver) -> None:
    kernel.run(
        """
        from asyncio import all_tasks
        for task in all_tasks(): task.cancel()
        """
    )

    assert kernel.run("await asyncio.sleep(0, 'goes on')").result == "'goes on'"


def test_a_sigint_handler_added_by_a_run_is_taken_off_when_it_ends(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def serve():
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print, 'eaten')
            await asyncio.sleep(0.01)
        """
    )
    kernel.run(
        """
        before = signal.getsignal(signal.SIGINT)
        asyncio.run(serve())
        after = signal.getsignal(signal.SIGINT)
        """
    )
    cell = kernel.start("print('waits', flush=True); await asyncio.sleep(60)")
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("after is before")
    assert "eaten" not in cell.text


def test_an_exception_handler_goes_with_the_run_that_has_set_it(kernel: KernelDriver) -> None:
    kernel.run(
        """
        loop = asyncio.get_running_loop()
        async def handles(name, may_end):
            loop.set_exception_handler(lambda _loop, context: said.append(name))
            await may_end.wait()
            loop.call_exception_handler({'message': name})
        async def runs(name, may_end): asyncio.run(handles(name, may_end))
        async def both(*order):
            events = {name: asyncio.Event() for name in ('first', 'second')}
            running = {name: asyncio.create_task(runs(name, event)) for name, event in events.items()}
            for _ in range(50): await asyncio.sleep(0)  # both wait
            for name in order:
                events[name].set()
                await running[name]
        before, said = loop.get_exception_handler(), []
        """
    )

    for order, said in (
        (["first", "second"], ["second", "second"]),
        (["second", "first"], ["second", "first"]),
    ):
        kernel.run(
            f"""
            said.clear()
            await both(*{order})
            """
        )
        assert kernel.value("said") == said
        assert kernel.value("loop.get_exception_handler() is before")


AWAITS = {
    "wait_for": "await asyncio.wait_for(install(), 5)",
    "gather": "await asyncio.gather(install(), asyncio.sleep(0))",
    "group": "async with asyncio.TaskGroup() as group: group.create_task(install())",
    "callback": "asyncio.get_running_loop().call_soon(install_here); await asyncio.sleep(0.01)",
}
INSTALLS = dedented(
    """
    def install_here():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, print); loop.set_exception_handler(print)
    async def install(): install_here()
    def are_installed():
        loop = asyncio.get_running_loop()
        return signal.getsignal(signal.SIGUSR2) is not before, loop.get_exception_handler() is print
    before = signal.getsignal(signal.SIGUSR2)
    """
)


RUNS = [
    "asyncio.run(main())",
    "loopnb.run(main())",
    dedented(
        """
        %%aloop
        await main()
        """
    ),
]


@pytest.mark.parametrize(
    ("awaits", "run"),
    # A callback of a cell that awaits is part of no run.
    [(how, run) for how in AWAITS for run in RUNS if how != "callback" or "await" not in run],
)
def test_handlers_last_as_long_as_the_run_whatever_task_adds_them(
    kernel: KernelDriver, awaits: str, run: str
) -> None:
    awaits = AWAITS[awaits]
    kernel.run(INSTALLS)
    kernel.run(
        f"""
        import loopnb
        async def main():
            {awaits}
            return are_installed()
        """
    )

    assert kernel.run(run).result == "(True, True)"
    assert kernel.value("are_installed()") == (False, False)


def test_handlers_that_a_cell_awaits_the_addition_of_stay(kernel: KernelDriver) -> None:
    kernel.run(INSTALLS)
    kernel.run("await asyncio.wait_for(install(), 5)")

    assert kernel.value("are_installed()") == (True, True)
    kernel.run(
        """
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
        asyncio.get_running_loop().set_exception_handler(None)
        """
    )


def test_an_exception_handler_that_a_cell_sets_stays(kernel: KernelDriver) -> None:
    kernel.run(
        """
        loop, said = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _loop, context: said.append(context['message']))
        """
    )
    kernel.run(
        """
        async def replaces(): loop.set_exception_handler(None)
        asyncio.run(replaces())
        """
    )

    kernel.run(
        """
        loop.call_exception_handler({'message': 'mine'})
        loop.set_exception_handler(None)
        """
    )

    assert kernel.value("said") == ["mine"]


SERVE = dedented(
    """
    async def serve(seconds, sig=signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, print, 'handled')
        await asyncio.sleep(seconds)
    """
)


@pytest.mark.parametrize("waits", ["await asyncio.sleep(60)", "asyncio.run(asyncio.sleep(60))"])
@pytest.mark.parametrize(
    "ends", ["before the cell waits", "while the cell waits", "later", "added while the cell waits"]
)
def test_a_background_task_that_handles_sigint_takes_no_interrupt_from_a_cell(
    kernel: KernelDriver, waits: str, ends: str
) -> None:
    kernel.run("import loopnb")
    kernel.run(SERVE)
    seconds = {"before the cell waits": 0.01, "while the cell waits": 0.3}.get(ends, 30)
    delay = "await asyncio.sleep(0.2); " if ends == "added while the cell waits" else ""
    kernel.run(
        f"""
        %%aloop -b -n serves -o serving
        {delay}await serve({seconds})
        """
    )
    if ends == "before the cell waits":
        kernel.run("await serving")
    cell = kernel.start(
        f"print('waits', flush=True); asyncio.get_running_loop().call_later(0.5, print, 'now'); {waits}"
    )
    cell.wait_output("now")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    kernel.run("%loopnb cancel --all")
    again = kernel.start(f"print('waits'); {waits}")
    again.wait_output("waits")
    kernel.interrupt()
    assert again.wait().ename in {"CancelledError", "KeyboardInterrupt"}


def test_taking_a_runs_signal_handler_off_leaves_the_ones_from_before(kernel: KernelDriver) -> None:
    kernel.run(SERVE)
    kernel.run(
        """
        async def outer():
            loop = asyncio.get_running_loop()
            handled = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, handled.set)
            asyncio.run(serve(0.01, signal.SIGUSR1))
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(handled.wait(), 20)
            return 'outer'
        before = signal.getsignal(signal.SIGUSR1)
        """
    )

    assert kernel.run("asyncio.run(outer())").result == "'outer'"
    assert kernel.value("signal.getsignal(signal.SIGUSR1) is before")


def test_using_a_closed_loop_says_where_it_was_closed(kernel: KernelDriver) -> None:
    closing = kernel.run(
        """
        other = asyncio.new_event_loop()
        other.close()
        """
    )

    result = kernel.execute("other.call_soon(print)")

    assert result.ename == "RuntimeError"
    assert result.evalue.startswith("Event loop is closed")
    assert f"closed at In[{closing.execution_count}], line 2" in result.traceback
    assert "loopnb" not in result.traceback


@pytest.mark.parametrize(
    "awaits",
    [
        "await future",
        dedented(
            """
            async def f(): await future
            asyncio.run(f())
            """
        ),
    ],
)
def test_awaiting_a_bare_future_of_a_closed_loop_says_where_it_was_closed(
    kernel: KernelDriver, awaits: str
) -> None:
    closing = kernel.run(
        """
        other = asyncio.new_event_loop()
        future = other.create_future()
        other.close()
        """
    )

    result = kernel.execute(awaits)

    assert "attached to a different loop" in result.evalue
    assert f"closed at In[{closing.execution_count}], line 3" in result.traceback


def test_clients_on_real_sockets_outlive_their_run(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import aiohttp, aiohttp.web
        async def hello(request): return aiohttp.web.Response(text='hello')
        app = aiohttp.web.Application(); app.router.add_get('/', hello)
        runner = aiohttp.web.AppRunner(app)
        async def start():
            await runner.setup()
            site = aiohttp.web.TCPSite(runner, '127.0.0.1', 0)
            await site.start()
            return runner.addresses[0][1]
        async def connect(): return aiohttp.ClientSession()
        async def get(): return await (await session.get(f'http://127.0.0.1:{port}/')).text()
        port = asyncio.run(start())
        session = asyncio.run(connect())
        """
    )

    assert kernel.run("asyncio.run(get())").result == "'hello'"
    assert kernel.run("await get()").result == "'hello'"
    kernel.run("asyncio.run(session.close()); asyncio.run(runner.cleanup())")


def test_a_stop_that_somebody_has_kept_is_guarded_after_a_reload(stock_kernel: KernelDriver) -> None:
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run(
        """
        import asyncio
        stop = asyncio.get_running_loop().stop
        """
    )
    stock_kernel.run("%reload_ext loopnb")

    assert "loop.stop() was ignored" in stock_kernel.run("stop()").stderr
    assert stock_kernel.run("1 + 1").result == "2"


@pytest.mark.parametrize("call", ["loop.run_forever()", "loop.run_until_complete(loop.create_future())"])
def test_a_timeout_ends_what_waits_for_a_stop(kernel: KernelDriver, call: str) -> None:
    aloop = kernel.execute(
        f"""
        %%aloop -t 0.05
        loop = asyncio.get_running_loop()
        {call}
        print('went on')
        """
    )
    outer = kernel.execute(
        f"""
        async def m():
            {call}
            return 'went on'
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(m(), 0.05)
        """
    )

    assert (aloop.ename, outer.ename) == ("TimeoutError", "TimeoutError")
    assert "went on" not in aloop.stdout


def test_a_stop_ends_the_innermost_of_nested_runs(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        order = []
        loop = asyncio.get_running_loop()
        def nests():
            loop.call_later(0.02, loop.stop)
            try: loop.run_until_complete(asyncio.sleep(60))
            except RuntimeError: order.append('inner')
            loop.call_later(0.02, loop.stop)
        loop.call_soon(nests)
        loop.run_forever()
        order.append('outer')
        order
        """
    )

    assert cell.result == "['inner', 'outer']"


SERVER = """
loop = asyncio.get_running_loop()
async def server():
    await asyncio.sleep(0)
    loop.run_forever()
    return 'stopped'
serving = asyncio.create_task(server())
"""


def test_a_stop_in_a_cell_spares_another_cells_run_forever(kernel: KernelDriver) -> None:
    kernel.run(SERVER)
    nested = kernel.execute(
        """
        loop.call_later(0.05, loop.stop)
        loop.run_until_complete(asyncio.sleep(60))
        """
    )
    bare = kernel.run("loop.stop()")

    assert nested.evalue == "Event loop stopped before Future completed."
    assert "this cell has no nested run" in bare.stderr
    assert kernel.value("serving.done()") is False
    kernel.run("serving.cancel()")


def test_a_run_forever_after_a_stop_lasts_for_one_pass(kernel: KernelDriver) -> None:
    """How scripts let what is scheduled happen before they close their loop."""
    cell = kernel.run(
        """
        loop = asyncio.get_running_loop()
        happened = []
        loop.call_soon(happened.append, 'it')
        loop.stop()
        loop.run_forever()
        loop.close()
        happened
        """
    )

    assert cell.result == "['it']"


def test_a_stop_is_forgotten_with_its_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        loop = asyncio.get_running_loop()
        loop.stop()
        """
    )
    cell = kernel.run(
        """
        done = []
        loop.call_later(0.05, lambda: (done.append(1), loop.stop()))
        loop.run_forever()
        done
        """
    )

    assert cell.result == "[1]"


def test_a_run_forever_outlives_a_reload(kernel: KernelDriver) -> None:
    kernel.run(SERVER)
    kernel.run("%reload_ext loopnb")
    kernel.run(
        """
        loop.call_soon(loop.stop)
        await asyncio.sleep(0.01)
        """
    )

    assert kernel.run("await asyncio.wait_for(serving, 20)").result == "'stopped'"


USR1 = "signal.SIGUSR1"


def test_a_handler_that_was_removed_does_not_come_back(kernel: KernelDriver) -> None:
    kernel.run(
        f"""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler({USR1}, print, 'first')
        async def serve():
            loop.add_signal_handler({USR1}, print, 'second')
            await asyncio.sleep(0.01)
        """
    )
    kernel.run(
        f"""
        removed = loop.remove_signal_handler({USR1})
        asyncio.run(serve())
        """
    )

    assert kernel.value("removed") is True
    assert kernel.value(f"signal.getsignal({USR1}) == signal.SIG_DFL") is True
    assert kernel.value(f"loop.remove_signal_handler({USR1})") is False


def test_another_loop_that_is_closed_takes_no_signals_away(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        f"""
        import asyncio, os, signal
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler({USR1}, came.set)
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
        """
    )
    fresh_kernel.run(
        """
        other = asyncio.new_event_loop()
        other.add_signal_handler(signal.SIGTERM, print)
        other.run_until_complete(asyncio.sleep(0))
        other.close()
        """
    )
    fresh_kernel.run(
        f"""
        os.kill(os.getpid(), {USR1})
        await asyncio.wait_for(came.wait(), 20)
        """
    )
    os.kill(fresh_kernel.process.pid, signal.SIGTERM)

    assert fresh_kernel.process.wait(END_WITHIN_S) == 0


def test_unloading_leaves_the_loop_the_users_handlers(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio, signal
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print, 'theirs')
        %unload_ext loopnb
        """
    )

    fresh_kernel.run("handle = loop._signal_handlers[signal.SIGTERM]")

    assert fresh_kernel.value("handle._callback is print and handle._args == ('theirs',)")


def test_a_cell_can_be_interrupted_after_another_tried_to_close_the_loop(kernel: KernelDriver) -> None:
    # The loop stayed open, but lost its engine where nesting had been switched on after the guard. The next
    # engine knew nothing of cells: an interrupt of a nested run raised in the loop, and ended the kernel.
    kernel.run(
        """
        %loopnb nesting off
        %loopnb nesting handoff
        """
    )
    kernel.run(
        """
        import asyncio, warnings
        with warnings.catch_warnings(action='ignore'):
            asyncio.get_running_loop().close()
        """
    )
    kernel.run("asyncio.run(asyncio.sleep(0))")
    cell = kernel.start(
        """
        async def waits():
            print("waits", flush=True)
            await asyncio.sleep(60)
        asyncio.run(waits())
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("asyncio.run(asyncio.sleep(0, 'goes on'))").result == "'goes on'"
