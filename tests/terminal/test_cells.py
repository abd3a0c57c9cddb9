"""Cells, magics and functions in a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented, filled

if TYPE_CHECKING:
    from tests.gates import Gate
    from tests.terminal.driver import Terminal

TICKER = dedented(
    """
    ticks = 0
    while True:
        ticks += 1
        await asyncio.sleep(0.01)
    """
)
#: Prints when the ticker has made another 20 rounds from now on, whoever turns the loop.
WATCH = """
async def watch():
    start = ticks
    while ticks < start + 20: await asyncio.sleep(0.01)
    print('=== moved ===')
watcher = asyncio.create_task(watch())
"""


def test_loading_prints_nothing(stock_terminal: Terminal) -> None:
    shown = stock_terminal.run("%load_ext loopnb")

    assert shown.split("%load_ext loopnb")[-1].strip() == ""


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.run(asyncio.sleep(0.01, 'a value'))",
        "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0.01, 'a value'))",
        "loopnb.run(asyncio.sleep(0.01, 'a value'), timeout=10)",
        "await asyncio.sleep(0.01, 'a value')",
        "await asyncio.sleep(0); asyncio.run(asyncio.sleep(0.01, 'a value'))",
        "await asyncio.create_task(nests())",
        "asyncio.run(nests())",
        "%aloop asyncio.sleep(0.01, 'a value')",
        dedented(
            """
            %%aloop
            await asyncio.sleep(0.01)
            'a value'
            """
        ),
        dedented(
            """
            %%aloop -t 10 -n named
            asyncio.run(asyncio.sleep(0.01))
            'a value'
            """
        ),
        dedented(
            """
            %%time
            %%aloop
            await asyncio.sleep(0.01)
            'a value'
            """
        ),
        dedented(
            """
            %%aloop --fresh
            await asyncio.sleep(0.01)
            'a value'
            """
        ),
        "%aloop --fresh asyncio.sleep(0.01, 'a value')",
        "await loopnb.spawn(asyncio.sleep(0.01, 'a value'))",
        "await asyncio.to_thread(loopnb.run, asyncio.sleep(0.01, 'a value'))",
    ],
)
def test_a_cell_gets_its_value(shared_terminal: Terminal, code: str) -> None:
    shared_terminal.run("async def nests(): return asyncio.run(asyncio.sleep(0.01, 'a value'))")

    number = shared_terminal.count
    assert f"Out[{number}]: 'a value'" in shared_terminal.run(code)


def test_numbers_begin_at_1_and_count_the_users_tasks_alone(terminal: Terminal) -> None:
    terminal.run("async def wait(): await asyncio.sleep(600)")  # the prompt has spawned dozens of its own
    terminal.run("first = asyncio.create_task(wait(), name='first')")
    terminal.run("%aloop -b -n second wait()")
    terminal.run("await asyncio.sleep(0); third = asyncio.create_task(wait(), name='third')")

    listed = "[(task.number, task.name) for task in loopnb.tasks()]"
    assert terminal.value(listed) == "[(1, 'first'), (2, 'second'), (3, 'third')]"
    shown = terminal.run("%loopnb tasks --all")
    assert re.search(r"^1 +first +wait ", shown, re.MULTILINE)
    assert re.search(r"^- +Task-\d+ +TerminalCells", shown, re.MULTILINE)  # that of this very cell


def test_all_cells_run_on_one_loop(shared_terminal: Terminal) -> None:
    shared_terminal.run("async def here(): return asyncio.get_running_loop()")
    shared_terminal.run("plain = asyncio.get_running_loop(); nested = asyncio.run(here())")
    shared_terminal.run("awaited = await here()")
    shared_terminal.run("%aloop -o magic here()")

    same = "plain is nested is awaited is magic is loopnb.session.current().loop"
    assert shared_terminal.value(same) == "True"


def test_tasks_move_while_the_prompt_waits(terminal: Terminal) -> None:
    terminal.run(below("%%aloop -b -n ticker", TICKER))
    terminal.run(WATCH)

    terminal.wait_for("=== moved ===")


def test_a_plain_task_of_an_await_cell_moves_while_the_prompt_waits(terminal: Terminal) -> None:
    code = """
        async def tick():
            global ticks
            {}
        """
    terminal.run(filled(code, TICKER))
    terminal.run("await asyncio.sleep(0); ticker = asyncio.create_task(tick())")
    terminal.run(WATCH)

    terminal.wait_for("=== moved ===")


def test_a_thread_gets_its_work_done_while_the_prompt_waits(shared_terminal: Terminal) -> None:
    shared_terminal.run("import threading")
    shared_terminal.run("go = threading.Event()")
    shared_terminal.run(
        """
        def work():
            go.wait(); print('=' * 3, loopnb.run(asyncio.sleep(0.01, 'done')))
        """
    )
    shared_terminal.run(
        "threading.Thread(target=work).start(); asyncio.get_running_loop().call_later(0.3, go.set)"
    )

    shared_terminal.wait_for("=== done")


def test_a_background_task_is_listed_replaced_and_cancelled(terminal: Terminal) -> None:
    terminal.run(below("%%aloop -b -n ticker", TICKER))
    terminal.run(below("%%aloop -b -n ticker", TICKER))

    assert terminal.value("[task.name for task in loopnb.tasks()]") == "['ticker']"
    assert "ticker" in terminal.run("%loopnb tasks")
    assert "1 live" in terminal.run("%loopnb")
    assert "Cancelled task" in terminal.run("%loopnb cancel ticker")
    assert terminal.value("len(loopnb.tasks())") == "0"


def test_a_timeout_says_where_the_task_was_waiting(shared_terminal: Terminal) -> None:
    shown = shared_terminal.run(
        """
        %%aloop -t 0.05
        await asyncio.sleep(60)
        """
    )

    assert "TimeoutError" in shown
    assert "sleep" in shown


def test_a_failure_of_a_background_task_shows_above_the_prompt(terminal: Terminal, gate: Gate) -> None:
    terminal.run(
        f"""
        %%aloop -b -n fails
        while not {gate}: await asyncio.sleep(0.02)
        1 / 0
        """
    )
    gate.open()

    terminal.wait_for("ZeroDivisionError: division by zero")
    assert terminal.value("1 + 1") == "2"


def test_an_error_that_nobody_saw_does_not_ask_for_a_key(terminal: Terminal, gate: Gate) -> None:
    terminal.run(
        f"""
        async def fails():
            while not {gate}: await asyncio.sleep(0.02)
            raise ValueError('un' + 'seen')
        """
    )
    terminal.run("asyncio.create_task(fails());")
    gate.open()

    terminal.wait_for("ValueError.*unseen")
    assert terminal.value("1 + 1") == "2"
    assert "Press ENTER" not in terminal.screen


def test_context_variables_of_one_cell_hold_in_the_next(terminal: Terminal) -> None:
    terminal.run("import contextvars; var = contextvars.ContextVar('var', default=0)")
    terminal.run("token = var.set(1)")
    assert terminal.value("var.get()") == "1"

    terminal.run("await asyncio.sleep(0); token = var.set(2)")
    assert terminal.value("var.get()") == "2"

    terminal.run("%reload_ext loopnb")
    assert terminal.value("var.get()") == "2"

    terminal.run("%unload_ext loopnb")
    assert terminal.value("var.get()") == "2"


@pytest.mark.parametrize("call", ["close", "stop"])
def test_ending_the_loop_only_warns(terminal: Terminal, call: str) -> None:
    terminal.run("loop = asyncio.get_event_loop(); value = loop.run_until_complete(asyncio.sleep(0, 1))")

    shown = terminal.run(f"loop.{call}()")

    assert f"loop.{call}() was ignored" in shown
    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"
    assert terminal.value("(loop.is_closed(), loopnb.status().generation)") == "(False, 1)"


def test_a_task_that_ends_the_loop_behind_the_prompt_only_warns(terminal: Terminal, gate: Gate) -> None:
    terminal.run(
        f"""
        async def ends():
            while not {gate}: await asyncio.sleep(0.02)
            asyncio.get_running_loop().stop()
        """
    )
    terminal.run("ending = asyncio.create_task(ends());")
    gate.open()

    terminal.wait_for(r"loop.stop\(\) was ignored")
    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"


def test_another_loop_set_for_the_thread_does_not_stay(terminal: Terminal) -> None:
    terminal.run("asyncio.set_event_loop(other := asyncio.new_event_loop())")
    terminal.run("asyncio.set_event_loop(other); other.run_until_complete(asyncio.sleep(0)); other.close()")

    assert terminal.value("asyncio.get_event_loop() is loopnb.session.current().loop") == "True"
    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"


def test_cancelling_all_tasks_leaves_the_shell_alone(terminal: Terminal, gate: Gate) -> None:
    terminal.run("ticker = asyncio.create_task(asyncio.sleep(60))")
    terminal.run(
        """
        async def end_all():
            for t in asyncio.all_tasks() - {asyncio.current_task()}: t.cancel()
        """
    )

    terminal.run("asyncio.run(end_all())")
    assert terminal.value("ticker.cancelled()") == "True"

    terminal.run(
        f"""
        async def end_later():
            while not {gate}: await asyncio.sleep(0.02)
            await end_all(); print('=' * 3, 'ended')
        """
    )
    terminal.run("later = asyncio.create_task(end_later());")
    gate.open()
    terminal.wait_for("=== ended")
    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"
