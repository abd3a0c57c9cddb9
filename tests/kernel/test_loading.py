"""Loading and unloading in a real kernel: quiet, repeatable, without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.fingerprint import FINGERPRINT
from tests.kernel.conftest import needs_subshells

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


def test_loading_prints_nothing(stock_kernel: KernelDriver) -> None:
    cell = stock_kernel.start("%load_ext loopnb")

    cell.wait().expect_ok()

    assert cell.text == ""


def test_loading_twice_is_harmless(unloaded_kernel: KernelDriver) -> None:
    unloaded_kernel.run("%load_ext loopnb")

    again = unloaded_kernel.run("%load_ext loopnb")
    unloaded_kernel.run("import loopnb; loopnb.load_ipython_extension(get_ipython())")

    assert "already loaded" in again.stdout + again.stderr
    assert unloaded_kernel.value("__import__('asyncio').run(__import__('asyncio').sleep(0, 7))") == 7


def test_unloading_leaves_every_attribute_the_very_object_it_was(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(FINGERPRINT)
    stock_kernel.run("import loopnb.extension, loopnb.widgets.model")  # a module imported is no trace
    stock_kernel.run("before = fingerprint()")

    stock_kernel.run("%load_ext loopnb")
    assert stock_kernel.value("difference(before, fingerprint())") != []
    stock_kernel.run("asyncio.run(asyncio.sleep(0.01))")
    stock_kernel.run("await asyncio.sleep(0.01)")
    stock_kernel.run(
        """
        %%aloop
        await asyncio.sleep(0.01)
        """
    )
    comm = stock_kernel.comm(stock_kernel.run("import loopnb; loopnb.show()").widget_id)
    comm.send_custom({"op": "visible", "view": "v", "visible": True, "query": {}})
    comm.wait_message(lambda data: data.get("content", {}).get("op") == "window")
    stock_kernel.run("%unload_ext loopnb")

    assert stock_kernel.value("difference(before, fingerprint())") == []


def test_the_loop_gets_no_more_attributes_than_cpython_has_room_for(stock_kernel: KernelDriver) -> None:
    # See `MethodWrapper`: with one more each step of a task would take 1.08x.
    stock_kernel.run("import asyncio; loop = asyncio.get_running_loop(); before = set(vars(loop))")
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run("asyncio.run(asyncio.sleep(0))")

    assert stock_kernel.value("sorted(set(vars(loop)) - before)") == ["_run_once", "create_task"]


def test_unloading_in_the_cell_that_loads_leaves_no_trace(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(FINGERPRINT)
    stock_kernel.run("import loopnb.extension")
    stock_kernel.run("before = fingerprint()")

    stock_kernel.run(
        """
        %load_ext loopnb
        asyncio.run(asyncio.sleep(0.01))
        %unload_ext loopnb
        """
    )

    assert stock_kernel.value("difference(before, fingerprint())") == []
    assert stock_kernel.execute("asyncio.run(asyncio.sleep(0))").ename == "RuntimeError"


def test_unloading_lets_the_users_tasks_go_on(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio
        async def slow(): await asyncio.sleep(0.2); return 'done'
        """
    )
    fresh_kernel.run(
        """
        %%aloop -b -o handle
        return_value = await slow()
        """
    )

    fresh_kernel.run("%unload_ext loopnb")

    fresh_kernel.run("await handle")
    assert fresh_kernel.value("return_value") == "done"
    # Nor does anything wait for Python's end: `atexit` would keep it alive.
    fresh_kernel.run("import gc; left = [type(item).__name__ for item in gc.get_objects()]")
    assert not fresh_kernel.value("'FinalCheck' in left")


def test_what_failed_between_unloading_and_loading_is_told_once(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run("import asyncio; go = asyncio.Event()")
    fresh_kernel.run(
        """
        %%aloop -b -n fails
        await go.wait()
        1 / 0
        """
    )
    fresh_kernel.run("%unload_ext loopnb")
    fresh_kernel.run("go.set()")
    # In whichever cell: ipykernel 6 by itself does not know better.
    wire = fresh_kernel.wire
    wire.wait_for(lambda: any(message.msg_type == "error" for message in wire.messages) or None, 20, "error")
    fresh_kernel.run(
        """
        %load_ext loopnb
        %config LoopNB.report_after = 0
        """
    )
    other = fresh_kernel.start("other = asyncio.create_task(asyncio.to_thread(int, 'no number'))")
    other.wait_late("invalid literal")  # so what there was to tell has been told

    streams = [
        message.content["text"] for message in fresh_kernel.wire.messages if message.msg_type == "stream"
    ]
    assert [text for text in streams if "'fails'" in text] == []


FAILS_LATER = dedented(
    """
    async def fails():
        await go.wait()
        1 / 0
    task = asyncio.create_task(fails(), name='fails')
    """
)


def test_what_fails_after_a_reload_is_told_once_in_the_cell_that_spawned_it(
    fresh_kernel: KernelDriver,
) -> None:
    fresh_kernel.run(
        """
        import asyncio
        %config LoopNB.report_after = 0.01
        go = asyncio.Event()
        """
    )
    cell = fresh_kernel.start(FAILS_LATER)
    cell.wait()
    fresh_kernel.run("%reload_ext loopnb")

    later = fresh_kernel.run("go.set(); await asyncio.sleep(0.05)")
    cell.wait_late("Task 'fails' failed: ZeroDivisionError")
    last = fresh_kernel.run(
        """
        await asyncio.sleep(0.05)
        del task; import gc; gc.collect()
        """
    )

    assert later.stderr + last.stderr == ""
    assert cell.late_text.count("failed") == 1


def test_what_fails_after_unloading_is_asyncios_to_tell(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio
        %config LoopNB.report_after = 0.01
        go = asyncio.Event()
        """
    )
    cell = fresh_kernel.start(FAILS_LATER)
    cell.wait()
    fresh_kernel.run("%unload_ext loopnb")

    fresh_kernel.run("go.set(); await asyncio.sleep(0.05)")
    last = fresh_kernel.run(
        """
        await asyncio.sleep(0.05)
        del task; import gc; gc.collect()
        """
    )

    assert "Task exception was never retrieved" in last.stderr
    assert "failed" not in cell.late_text


def test_loading_again_after_unloading_works(kernel: KernelDriver) -> None:
    kernel.run("%unload_ext loopnb")
    kernel.run("%load_ext loopnb")
    kernel.run("%reload_ext loopnb")

    assert kernel.value("__import__('asyncio').run(__import__('asyncio').sleep(0, 7))") == 7


#: What a user leaves, or sees, in each session.
KEPT = {
    "a live task": "import asyncio; task = asyncio.create_task(asyncio.sleep(600), name='alive')",
    "a background task": dedented(
        """
        %%aloop -b -n alive -o handle
        import asyncio
        await asyncio.sleep(600)
        """
    ),
    "a parked task": dedented(
        """
        import asyncio
        async def nests():
            asyncio.run(asyncio.sleep(600))
        task = asyncio.create_task(nests())
        await asyncio.sleep(0.01)
        """
    ),
    "an ended task in Out": "import asyncio; asyncio.create_task(asyncio.sleep(0))",
    "a failed task in Out": "import asyncio; asyncio.create_task(asyncio.to_thread(int, 'no number'))",
    "a list of tasks in Out": "import loopnb; loopnb.tasks()",
    "a widget": "import loopnb; loopnb.show()",
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_a_session_is_freed_when_it_is_unloaded_whatever_lives_on(
    fresh_kernel: KernelDriver, kept: str
) -> None:
    fresh_kernel.run(kept)
    # Code of the session that has spawned these two runs in them.
    expected = 2 if kept in (KEPT["a background task"], KEPT["a parked task"]) else 1
    is_seen_by_each = "show()" in kept or "tasks()" in kept
    for _ in range(20):
        fresh_kernel.run("%reload_ext loopnb")
        if is_seen_by_each:
            fresh_kernel.run(kept)

    fresh_kernel.run(
        """
        import gc
        from loopnb.session import Session
        gc.collect()
        """
    )
    assert fresh_kernel.value("sum(type(item) is Session for item in gc.get_objects())") == expected


def test_a_nested_run_works_in_the_very_cell_that_loads(unloaded_kernel: KernelDriver) -> None:
    cell = unloaded_kernel.run(
        """
        %load_ext loopnb
        import asyncio
        print(asyncio.run(asyncio.sleep(0.05, 'in the same cell')))
        """
    )

    assert cell.stdout == "in the same cell\n"
    assert unloaded_kernel.value("1 + 1") == 2


def test_the_functions_say_that_nothing_is_loaded(unloaded_kernel: KernelDriver) -> None:
    result = unloaded_kernel.execute(
        """
        import loopnb
        loopnb.tasks()
        """
    )

    assert result.ename == "NotLoadedError"
    assert "%load_ext loopnb" in result.evalue


def test_loading_where_there_is_no_shell_says_what_to_do() -> None:
    import loopnb
    from loopnb.errors import UnsupportedKernelError

    with pytest.raises(UnsupportedKernelError) as caught:
        loopnb.load_ipython_extension(None)

    assert "no IPython shell" in caught.value.reason


def test_loading_on_another_loop_than_the_notebooks_is_refused(kernel: KernelDriver) -> None:
    kernel.run("import asyncio")
    refused = kernel.execute(
        """
        %%aloop --fresh
        %reload_ext loopnb
        """
    )

    assert refused.ename == "UnsupportedKernelError"
    assert "in a plain cell" in refused.evalue
    assert "loopnb/" not in refused.traceback
    kernel.run("%load_ext loopnb")
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'works'))").result == "'works'"


def test_loading_in_a_thread_is_refused(unloaded_kernel: KernelDriver) -> None:
    refused = unloaded_kernel.execute(
        """
        import asyncio
        from loopnb import load_ipython_extension
        await asyncio.to_thread(load_ipython_extension, get_ipython())
        """
    )

    assert refused.ename == "UnsupportedKernelError"
    assert "in another thread" in refused.evalue


def test_of_threads_that_load_at_once_one_does(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio, sys, threading
        import loopnb.extension
        sys.setswitchinterval(1e-6)
        refused, shell, together = [], get_ipython(), threading.Barrier(5)
        def load():
            together.wait()
            try:
                loopnb.load_ipython_extension(shell)
            except loopnb.errors.UnsupportedKernelError as error:
                refused.append(error.reason)
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        load()
        for thread in threads:
            thread.join()
        """
    )

    assert [reason for reason in stock_kernel.value("refused") if "in another thread" not in reason] == []
    assert stock_kernel.value("len(asyncio.all_tasks()) < 100")
    assert stock_kernel.run("asyncio.run(asyncio.sleep(0.01, 'works'))").result == "'works'"
    stock_kernel.run("loopnb.unload_ipython_extension(shell)")
    assert stock_kernel.execute("asyncio.run(asyncio.sleep(0))").ename == "RuntimeError"


@needs_subshells
def test_loading_in_a_subshell_is_refused(unloaded_kernel: KernelDriver) -> None:
    refused = unloaded_kernel.execute("%load_ext loopnb", subshell_id=unloaded_kernel.create_subshell())

    assert refused.ename == "UnsupportedKernelError"
    assert "in a plain cell" in refused.evalue


BAD_CALLS = ["run(42)", "spawn(42)", "spawn(len)", "tasks()", "status()", "show()"]


def test_errors_of_the_functions_end_at_the_users_line(unloaded_kernel: KernelDriver) -> None:
    unloaded_kernel.run("import loopnb")
    for call in BAD_CALLS:
        result = unloaded_kernel.execute(f"loopnb.{call}")
        assert result.ename == "NotLoadedError"
        assert "File " not in result.traceback

    unloaded_kernel.run("%load_ext loopnb")
    for call in BAD_CALLS[:3]:
        result = unloaded_kernel.execute(f"loopnb.{call}")
        assert result.ename == "TypeError"
        assert f"----> 1 loopnb.{call}" in result.traceback
        assert "File " not in result.traceback
