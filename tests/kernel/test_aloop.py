"""`%%aloop` and `%aloop` in a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.conftest import names_cells, shows_groups

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        value = None
        """
    )


def test_the_last_expression_is_displayed_and_names_are_the_users(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop
        await asyncio.sleep(0.01)
        value = 5
        value + 1
        """
    )

    assert cell.result == "6"
    assert kernel.value("value") == 5


def test_a_trailing_semicolon_hides_the_value(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop
        await asyncio.sleep(0, 6);
        """
    )

    assert cell.result == ""


def test_other_magics_work_inside(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop
        x = %sx echo shell
        await asyncio.sleep(0)
        %who_ls str
        x[0]
        """
    )

    assert cell.result == "'shell'"


def test_it_runs_as_a_tracked_task_of_that_name(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop -n mine
        value = [(t.name, t.state) for t in loopnb.tasks()]
        asyncio.current_task().get_name()
        """
    )

    assert cell.result == "'mine'"
    assert ("mine", "running") in kernel.value("value")


def test_a_background_cell_does_not_wait(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n ticker -o handle
        while True:
            await asyncio.sleep(0.01)
        """
    )

    (record,) = kernel.value("[(t.name, t.state, t.waits_for) for t in loopnb.tasks() if t.name == 'ticker']")
    assert record == ("ticker", "waiting", "sleep()")
    kernel.run("%loopnb cancel ticker")
    assert kernel.execute("await handle").ename == "CancelledError"


def test_the_handle_of_a_background_cell_gives_its_value(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -o handle
        await asyncio.sleep(0.01)
        'value'
        """
    )

    assert kernel.run("await handle").result == "'value'"
    assert kernel.value("handle.result()") == "value"


def test_running_a_background_cell_again_replaces_the_earlier_run(kernel: KernelDriver) -> None:
    code = dedented(
        """
        %%aloop -b -n feed
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append('cleaned up')
        """
    )
    kernel.run("ended = []")
    kernel.run(code, cell_id="feed-cell")
    kernel.run("await asyncio.sleep(0)")

    kernel.run(code, cell_id="feed-cell")

    assert kernel.value("ended") == ["cleaned up"]
    assert kernel.value("[t.name for t in loopnb.tasks()].count('feed')") == 1
    kernel.run("%loopnb cancel feed")


def test_a_name_in_use_by_another_cell_is_an_error(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n taken
        await asyncio.sleep(60)
        """,
        cell_id="one",
    )

    result = kernel.execute(
        """
        %%aloop -b -n taken
        await asyncio.sleep(60)
        """,
        cell_id="two",
    )

    assert result.ename == "UsageError"
    assert "'taken' is in use" in result.evalue
    kernel.run("%loopnb cancel taken")


def test_output_and_failure_of_a_background_cell_go_to_that_cell(kernel: KernelDriver) -> None:
    kernel.run("go = asyncio.Event()")
    cell = kernel.run(
        """
        %%aloop -b -o handle
        await go.wait()
        print('late output')
        await asyncio.sleep(0)
        1 / 0
        """
    ).cell

    other = kernel.run("go.set(); await asyncio.wait([handle]);")

    assert "late output" in cell.wait_late("late output")
    assert "ZeroDivisionError" in cell.wait_late("ZeroDivisionError")
    assert "loopnb" not in cell.late_text
    assert "late output" not in other.stdout


def test_all_errors_of_a_task_group_are_shown_in_its_background_cell_and_by_where(
    kernel: KernelDriver,
) -> None:
    kernel.run(
        """
        import asyncio
        async def fails():
            raise ValueError('one of the group')
        """
    )
    cell = kernel.start(
        """
        %%aloop -b -n grouped
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(60)
        """
    )
    cell.wait().expect_ok()

    shown = cell.wait_output("ValueError: one of the group" if shows_groups else "ExceptionGroup: unhandled")

    assert "ExceptionGroup: unhandled errors in a TaskGroup" in shown
    assert "loopnb/" not in shown
    assert "ValueError: one of the group" in kernel.run("%loopnb where grouped").stdout


def test_a_background_cell_that_never_awaits_is_refused(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        %%aloop -b
        x = 1
        """
    )

    assert result.ename == "UsageError"
    assert "asyncio.to_thread" in result.evalue


def test_a_background_cell_whose_await_is_a_magics_is_refused(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        %%aloop -b
        %%time
        await asyncio.sleep(0)
        """
    )

    assert result.ename == "UsageError"
    assert "never awaits" not in result.evalue
    assert "Leave that magic out" in result.evalue


def test_a_timeout_says_where_the_task_was_waiting(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        %%aloop -t 0.05 -n slow
        async def f():
            await asyncio.sleep(9)
        await f()
        """
    )

    assert result.ename == "TimeoutError"
    assert "'slow'" in result.evalue
    assert "sleep() at f In[" in result.evalue


def test_a_timeout_waits_for_the_cleanup(kernel: KernelDriver) -> None:
    kernel.execute(
        """
        %%aloop -t 0.05
        try:
            await asyncio.sleep(9)
        finally:
            await asyncio.sleep(0.05)
            value = 'clean'
        """
    )

    assert kernel.value("value") == "clean"


def test_exceptions_look_as_in_a_plain_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        def inner():
            1 / 0
        """
    )

    result = kernel.execute(
        """
        %%aloop
        await asyncio.sleep(0)
        inner()
        """
    )

    assert result.ename == "ZeroDivisionError"
    assert "----> 3 inner()" in result.traceback
    assert "loopnb" not in result.traceback
    assert "__import__" not in result.traceback


def test_a_syntax_error_looks_as_in_a_plain_cell(kernel: KernelDriver) -> None:
    plain = kernel.execute(
        """
        pass
        x = = 1
        """
    )
    kernel.run("value = 'kept'")

    result = kernel.execute(
        """
        %%aloop
        x = = 1
        """
    )

    assert result.ename == "SyntaxError"
    assert result.traceback.splitlines()[1:] == plain.traceback.splitlines()[1:]
    assert "line 2" in result.evalue
    assert kernel.value("value") == "kept"


@pytest.mark.parametrize("magic", ["%%time", "%%capture output"])
def test_it_works_under_another_magic_by_a_nested_run(kernel: KernelDriver, magic: str) -> None:
    kernel.run(
        f"""
        {magic}
        %%aloop
        await asyncio.sleep(0.01)
        value = 'nested'
        """
    )

    assert kernel.value("value") == "nested"


def test_the_line_form_awaits_what_stands_behind_the_options(kernel: KernelDriver) -> None:
    line = "-t 5 --name 'two words' asyncio.sleep(0, asyncio.current_task() is None)"

    assert kernel.run(f"%aloop {line}").result == "False"


def test_the_line_form_stores_its_value(kernel: KernelDriver) -> None:
    kernel.run("%aloop -o value asyncio.sleep(0, 'stored')")

    assert kernel.value("value") == "stored"


@pytest.mark.parametrize(
    ("code", "like"),
    [
        (
            """
            value = 1
            %aloop f(x x)
            """,
            """
            pass
            f(x x)
            """,
        ),
        (
            """
            value = 1
            def f():
                %aloop f(x x)
            """,
            """
            pass
            pass
            f(x x)
            """,
        ),
    ],
    ids=["in the cell", "in a function"],
)
def test_a_syntax_error_in_the_line_form_looks_as_in_a_plain_cell(
    kernel: KernelDriver, code: str, like: str
) -> None:
    plain = kernel.execute(like)

    result = kernel.execute(code)

    assert result.ename == "SyntaxError"
    assert result.evalue.startswith("invalid syntax")
    assert result.traceback.splitlines()[1:] == plain.traceback.splitlines()[1:]
    place = f"In[{result.execution_count}]" if names_cells else '.py"'
    assert f"{place}, line {len(dedented(code).splitlines())}" in result.traceback
    assert kernel.value("value") is None


def test_the_line_form_in_a_function_sees_its_variables(kernel: KernelDriver) -> None:
    kernel.run(
        """
        x = 'not this one'
        def f(x):
            async def add(y): return x + y + offset
            value = %aloop asyncio.gather(*(add(y) for y in range(x, x + 1)))
            return value
        offset = 1
        """
    )

    assert kernel.run("f(2)").result == "[5]"


def test_errors_of_the_line_form_in_a_function_look_as_in_a_plain_cell(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        def f(x):
            %aloop asyncio.sleep(x / 0)
        f(2)
        """
    )

    assert result.ename == "ZeroDivisionError"
    assert "----> 1 asyncio.sleep(x / 0)" in result.traceback
    assert "loopnb" not in result.traceback


def test_history_holds_what_it_holds_of_any_magic(kernel: KernelDriver) -> None:
    typed = dedented(
        """
        %%aloop -n mine
        await asyncio.sleep(0)
        """
    )
    cell = kernel.run(typed)

    assert kernel.value("In[-1]") == (
        "get_ipython().run_cell_magic('aloop', '-n mine', 'await asyncio.sleep(0)\\n')"
    )
    assert kernel.value(f"_i{cell.execution_count}") == typed


def test_it_shows_the_values_that_a_plain_cell_shows(kernel: KernelDriver) -> None:
    def values(code: str) -> list[str]:
        outputs = kernel.run(code).cell.outputs
        return [m.content["data"]["text/plain"] for m in outputs if m.msg_type == "execute_result"]

    body = dedented(
        """
        'a'
        if True: 'b'
        await asyncio.sleep(0, 'c')
        """
    )
    kernel.run("get_ipython().ast_node_interactivity = 'all'")
    try:
        shown = values(below("%%aloop", body))
        assert shown == values(body)
        assert shown
    finally:
        kernel.run("get_ipython().ast_node_interactivity = 'last_expr'")


def test_the_task_list_names_cell_and_place(kernel: KernelDriver) -> None:
    started = kernel.run(
        """
        %%aloop -b -n listed
        async def f():
            await asyncio.sleep(60)
        await f()
        """
    )
    kernel.run("await asyncio.sleep(0)")

    cell = kernel.run("%loopnb tasks")

    assert "listed" in cell.stdout
    assert f"In[{started.execution_count}]" in cell.stdout
    assert "sleep()" in cell.stdout
    assert f"f In[{started.execution_count}], line 3" in cell.stdout
    kernel.run("%loopnb cancel listed")


def test_the_status_names_loop_and_engine(kernel: KernelDriver) -> None:
    cell = kernel.run("%loopnb")

    assert "EventLoop" in cell.stdout
    assert "handoff" in cell.stdout


def test_a_task_is_cancelled_by_its_number(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n numbered -o handle
        await asyncio.sleep(60)
        """
    )
    number = kernel.value("[t.number for t in loopnb.tasks() if t.name == 'numbered'][0]")

    kernel.run(f"%loopnb cancel {number}")

    assert kernel.execute("await handle").ename == "CancelledError"
