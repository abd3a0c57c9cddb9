"""loopnb in JupyterLite's kernel: Pyodide in Node, with and without stack switching.

`make test-all PARTS=jupyterlite` installs what it needs (Pyodide and Node by npm, packages by pip), and names
the folder in JUPYTERLITE_FOLDER.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reach.lite import LiteKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

# Pyodide starts in ten seconds, and in a minute on a busy machine.
pytestmark = [pytest.mark.jupyterlite, pytest.mark.timeout(180)]

SLOW = """
    import asyncio, loopnb

    async def slow(seconds=0.01):
        await asyncio.sleep(seconds)
        return "slept"

    async def failing():
        await asyncio.sleep(0.01)
        raise ValueError("oops")
"""


def start(*options: str) -> Iterator[LiteKernel]:
    lite = LiteKernel(Path(os.environ["JUPYTERLITE_FOLDER"]), *options)
    lite.ok("%load_ext loopnb")
    lite.ok(SLOW)
    yield lite
    lite.close()


# Shared by all tests, since Pyodide takes long to start.
@pytest.fixture(scope="module")
def lite() -> Iterator[LiteKernel]:
    yield from start()


@pytest.fixture(scope="module")
def unswitched() -> Iterator[LiteKernel]:
    yield from start("--no-stack-switching")


def test_nested_runs_switch_stacks(lite: LiteKernel) -> None:
    assert lite.ok("asyncio.run(slow())").text == "'slept'"
    assert lite.ok("loopnb.run(slow())").text == "'slept'"
    assert lite.ok("%aloop slow()").text == "'slept'"
    assert lite.ok("asyncio.get_running_loop().run_until_complete(slow())").text == "'slept'"
    assert "engine  stack-switching" in lite.ok("%loopnb").text


def test_a_nested_run_ends_with_the_error_of_its_task(lite: LiteKernel) -> None:
    cell = lite.run("loopnb.run(failing())")

    assert cell.error == "ValueError: oops"
    assert "loopnb/" not in cell.traceback


def test_a_nested_run_has_a_timeout(lite: LiteKernel) -> None:
    cell = lite.run("loopnb.run(slow(60), timeout=0.05)")

    assert cell.error.startswith("TimeoutError: task 'Task-")
    assert "it was waiting for sleep() at slow In[" in cell.error


def test_tasks_nest_at_the_same_time_and_end_in_any_order(lite: LiteKernel) -> None:
    cell = lite.ok("""
        async def nesting(seconds):
            me = asyncio.current_task()
            asyncio.run(slow(seconds))
            assert asyncio.current_task() is me
            print(seconds)

        _ = await asyncio.gather(nesting(0.3), nesting(0.2), nesting(0.1))
    """)

    assert cell.text == "0.1\n0.2\n0.3\n"


def test_a_task_in_a_nested_run_is_listed_as_parked(lite: LiteKernel) -> None:
    lite.ok("""
        async def parking():
            asyncio.run(stay.wait())

        stay = asyncio.Event()
        task = asyncio.create_task(parking(), name="parking")
        await asyncio.sleep(0.01)
    """)
    listed = lite.ok("%loopnb tasks").text
    lite.ok("stay.set(); await task")

    assert [line.split()[1:4] for line in listed.splitlines() if " parking " in line] == [
        ["parking", "parking", "parked"]
    ]


def test_cells_that_await_have_their_number_and_end(lite: LiteKernel) -> None:
    first = lite.ok("spawned = asyncio.create_task(slow(0.05), name='numbered'); await asyncio.sleep(0)")
    listed = lite.ok("%loopnb tasks")

    assert f"In[{first.number}]" in next(line for line in listed.text.splitlines() if "numbered" in line)
    assert f"In[{listed.number + 1}] is executing" in lite.ok("%loopnb").text


def test_an_aloop_cell_shows_its_value(lite: LiteKernel) -> None:
    cell = lite.ok("""
        %%aloop
        value = await slow()
        value + "!"
    """)

    assert cell.text == "'slept!'"


def test_an_aloop_cell_has_a_timeout(lite: LiteKernel) -> None:
    cell = lite.run("""
        %%aloop -t 0.05
        await slow(60)
    """)

    assert cell.error.startswith("TimeoutError: ")


def test_output_of_a_background_cell_goes_to_that_cell(lite: LiteKernel) -> None:
    cell = lite.ok("""
        %%aloop -b
        go = asyncio.Event()
        await go.wait()
        print("gone")
    """)
    later = lite.ok("go.set(); await asyncio.sleep(0.05)")

    lite.wait_for(cell, "gone\n")
    assert cell.text.startswith("<Task 'Task-")
    assert "gone" not in later.text


def test_tasks_keep_their_name_and_their_context(lite: LiteKernel) -> None:
    cell = lite.ok("""
        import contextvars
        var = contextvars.ContextVar("var")
        context = contextvars.Context()
        context.run(var.set, "own")

        async def look():
            return asyncio.current_task().get_name(), var.get()

        await asyncio.get_running_loop().create_task(look(), name="named", context=context)
    """)

    assert cell.text == "('named', 'own')"


def test_pyodides_own_tasks_and_promises_still_work(lite: LiteKernel) -> None:
    cell = lite.ok("""
        from pyodide.webloop import PyodideTask
        task = asyncio.create_task(slow())
        print(isinstance(task, PyodideTask), await task.then(lambda value: value + "!"))
    """)

    assert cell.text == "True slept!\n"


def test_a_failure_is_one_line_in_the_cell_that_spawned_the_task(lite: LiteKernel) -> None:
    cell = lite.ok("task = asyncio.create_task(failing())")
    lite.wait_for(cell, "shows the traceback.\n")

    assert "failed: ValueError: oops. Nobody has awaited it" in cell.text
    assert "Traceback" not in cell.text
    number = cell.text.partition("%loopnb where ")[2].partition("'")[0]
    assert 'raise ValueError("oops")' in lite.ok(f"%loopnb where {number}").text


def test_tasks_are_cancelled_by_name(lite: LiteKernel) -> None:
    lite.ok("waiting = asyncio.create_task(slow(60), name='endless'); await asyncio.sleep(0)")

    assert "'endless'" in lite.ok("%loopnb cancel endless").text
    assert lite.ok("await asyncio.sleep(0.01); waiting.cancelled()").text == "True"


def test_a_cell_waits_for_the_tasks_of_earlier_cells(lite: LiteKernel) -> None:
    printing = lite.ok("""
        async def printing():
            await slow(0.1)
            print("printed")

        task = asyncio.create_task(printing())
    """)
    lite.ok(f"%loopnb wait --cell {printing.number} -t 30")

    assert lite.ok("task.done()").text == "True"
    lite.wait_for(printing, "printed\n")


def test_waiting_raises_what_failed_and_names_what_is_late(lite: LiteKernel) -> None:
    spawned = lite.ok("task = asyncio.create_task(failing(), name='fails')")
    failed = lite.run(f"%loopnb wait --cell {spawned.number}")
    lite.ok("late = asyncio.create_task(slow(60), name='late')")
    timed_out = lite.run("%loopnb wait late -t 0.05")
    lite.ok("%loopnb cancel late")

    assert failed.error == "ValueError: oops"
    assert timed_out.error.startswith("TimeoutError: not ended within 0.05 s: ")
    assert "'late'" in timed_out.error


def test_a_context_manager_is_held_across_cells(lite: LiteKernel) -> None:
    held = lite.ok("""
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def manager():
            yield "inside"
            print("left")

        await loopnb.hold(manager(), name="held")
    """)
    lite.ok("await loopnb.release('held')")

    assert held.text == "'inside'left\n"


def test_the_widget_is_shown(lite: LiteKernel) -> None:
    cell = lite.ok("loopnb.show()")
    views = [message["data"] for message in cell.messages if message["kind"] == "display"]

    assert ["application/vnd.jupyter.widget-view+json" in view for view in views] == [False, True]
    assert set(views[0]) == {"text/html", "text/plain"}  # the table of a saved notebook
    assert "comm_open" in {message["kind"] for message in cell.messages}


@pytest.mark.parametrize(
    "code",
    ["%%aloop --fresh\nawait slow()", "%%noloop\n1", "%loopnb nesting handoff", "loopnb.nesting.apply()"],
)
def test_what_needs_a_loop_of_pythons_says_so(lite: LiteKernel, code: str) -> None:
    lite.ok("import loopnb.nesting")
    cell = lite.run(code)

    assert "JavaScript turns this loop, and Python can turn none here." in cell.error + cell.text


def test_without_stack_switching_a_nested_run_says_so(unswitched: LiteKernel) -> None:
    stock = unswitched.run("asyncio.run(slow())")

    assert stock.error.startswith("RuntimeError: WebAssembly stack switching not supported")
    assert "A nested run needs WebAssembly to switch stacks (JSPI). Use `await` here" in stock.traceback
    for code in ("loopnb.run(slow())", "%aloop slow()", "%loopnb wait"):
        cell = unswitched.run(code)
        assert cell.error.startswith("loopnb.errors.NestingError: Cannot wait here: nesting is off: ")


def test_without_stack_switching_everything_else_works(unswitched: LiteKernel) -> None:
    cell = unswitched.ok("""
        %%aloop
        await slow()
    """)
    spawned = unswitched.ok("""
        %%aloop -b
        await slow(60)
    """)

    assert cell.text == "'slept'"
    assert spawned.text.startswith("<Task 'Task-")
    assert "engine  off" in unswitched.ok("%loopnb").text


LOOK = """
    def look():
        import pyodide_kernel
        shell, loop = get_ipython(), asyncio.get_running_loop()
        kernel = pyodide_kernel.kernel_instance
        found = {f"{owner!r}.{name}": value for owner in (shell, loop) for name, value in vars(owner).items()
                 if callable(value) and not name.startswith("_")}
        for owner in (type(shell), type(loop), type(kernel), asyncio, asyncio.tasks, asyncio.Runner):
            found |= {f"{owner!r}.{name}": (value, getattr(value, "__code__", None))
                      for name, value in vars(owner).items()}
        found |= {name: list(value) for name, value in shell.events.callbacks.items()}
        found |= {kind: dict(table) for kind, table in shell.magics_manager.magics.items()}
        found["configurables"] = list(shell.configurables)
        found["transformers"] = list(shell.input_transformers_cleanup)
        return found
"""


def changes(lite: LiteKernel) -> str:
    return lite.ok("""
        now = look()
        sorted({name for name in now | before if now.get(name) != before.get(name)})
    """).text


def test_unloading_leaves_no_trace(unswitched: LiteKernel) -> None:
    unswitched.ok("%unload_ext loopnb")
    unswitched.ok(LOOK)
    unswitched.ok("before = look()")
    unswitched.ok("%load_ext loopnb")
    loaded = changes(unswitched)
    unswitched.ok("%unload_ext loopnb")
    unloaded = changes(unswitched)
    unswitched.ok("%load_ext loopnb")

    assert "create_task" in loaded
    assert unloaded == "[]"


def test_a_load_that_fails_leaves_no_trace(unswitched: LiteKernel) -> None:
    unswitched.ok("%unload_ext loopnb")
    unswitched.ok(LOOK)
    unswitched.ok("before = look()")
    failed = unswitched.run("""
        from unittest.mock import patch
        with patch("loopnb.shell.cells.Cells.begin_loading_cell", side_effect=ZeroDivisionError):
            get_ipython().extension_manager.load_extension("loopnb")
    """)
    left = changes(unswitched)
    unswitched.ok("%load_ext loopnb")

    assert failed.error.startswith("ZeroDivisionError")
    assert left == "[]"
