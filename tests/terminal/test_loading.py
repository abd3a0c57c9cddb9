"""Loading from the configuration, unloading without a trace, reloading, and prompts of other kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.fingerprint import FINGERPRINT
from tests.terminal.driver import Terminal
from tests.terminal.test_cells import TICKER

if TYPE_CHECKING:
    from pathlib import Path

ORIGINS = "[(t.number, t.name, str(t.cell), t.spawn_site) for t in loopnb.tasks()]"


def test_unloading_leaves_every_attribute_the_very_object_it_was(stock_terminal: Terminal) -> None:
    stock_terminal.run(FINGERPRINT)
    stock_terminal.run("import loopnb.extension")  # a module imported is no trace
    stock_terminal.run("await asyncio.sleep(0); before = None")
    stock_terminal.run("before = fingerprint()")
    assert stock_terminal.value("difference(before, fingerprint())") == "[]"

    stock_terminal.run("%load_ext loopnb")
    assert stock_terminal.value("len(difference(before, fingerprint())) > 5") == "True"
    stock_terminal.run("asyncio.run(asyncio.sleep(0.01))")
    stock_terminal.run("await asyncio.sleep(0.01)")
    stock_terminal.run(
        """
        %%aloop
        await asyncio.sleep(0.01)
        """
    )
    stock_terminal.run("%unload_ext loopnb")

    assert stock_terminal.value("difference(before, fingerprint())") == "[]"
    assert "no running event loop" in stock_terminal.run("asyncio.get_running_loop()")


@pytest.mark.parametrize(
    "code",
    [
        "%unload_ext loopnb",
        dedented(
            """
            await asyncio.sleep(0)
            %unload_ext loopnb
            """
        ),
    ],
)
def test_unloading_lets_the_users_tasks_go_on(terminal: Terminal, code: str) -> None:
    terminal.run(
        """
        %%aloop -b -o handle
        await asyncio.sleep(0.3)
        value = 'done'
        """
    )

    terminal.run(code)

    terminal.run("await handle")
    assert terminal.value("value") == "'done'"
    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"  # the stock one


@pytest.mark.parametrize(
    "use",
    [
        "await left",
        dedented(
            """
            %%aloop
            await left
            """
        ),
        "asyncio.run(waits())",
    ],
)
def test_an_error_says_where_its_closed_loop_was_closed(terminal: Terminal, use: str) -> None:
    terminal.run(
        """
        other = asyncio.new_event_loop()
        left = other.create_future()
        other.close()
        """
    )
    terminal.run("async def waits(): await left")

    shown = " ".join(terminal.run(use).split())

    assert "attached to a different loop" in shown
    assert "This object belongs to another event loop" in shown
    assert ", line 3." in shown


def test_loading_again_works(terminal: Terminal) -> None:
    terminal.run("%unload_ext loopnb")
    terminal.run("%load_ext loopnb")

    assert terminal.value("asyncio.get_running_loop() is loopnb.session.current().loop") == "True"


@pytest.mark.parametrize(
    "code",
    [
        "%reload_ext loopnb",
        dedented(
            """
            await asyncio.sleep(0)
            %reload_ext loopnb
            """
        ),
    ],
)
def test_reloading_keeps_the_loop_and_the_tasks(terminal: Terminal, code: str) -> None:
    terminal.run(below("%%aloop -b -n ticker", TICKER))
    terminal.run("plain = asyncio.create_task(asyncio.sleep(60), name='plain')")
    terminal.run(f"loop = asyncio.get_running_loop(); before = {ORIGINS}")

    terminal.run(code)

    assert terminal.value("asyncio.get_running_loop() is loop") == "True"
    assert terminal.value(f"{ORIGINS} == before") == "True"
    assert "1 live" not in terminal.run("%loopnb")
    assert terminal.value("asyncio.run(asyncio.sleep(0.1)) or len(loopnb.tasks())") == "2"
    seen = terminal.value("ticks")
    assert terminal.value(f"asyncio.run(asyncio.sleep(0.1)) or ticks > {seen}") == "True"


def test_it_loads_from_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text('c.InteractiveShellApp.extensions = ["loopnb"]\n')

    with Terminal(tmp_path, arguments=[f"--config={config}"]) as terminal:
        terminal.wait_prompt()
        shown = terminal.run("import asyncio, loopnb; asyncio.run(asyncio.sleep(0.01, 'first cell'))")
        assert "Out[1]: 'first cell'" in shown
        assert terminal.value("asyncio.get_running_loop() is loopnb.session.current().loop") == "True"
        terminal.start("exit")
        assert "Traceback" not in terminal.wait_end()


def test_a_simple_prompt_works_and_tasks_move_while_cells_run(tmp_path: Path) -> None:
    with Terminal(tmp_path, arguments=["--simple-prompt"]) as terminal:
        terminal.wait_prompt()

        def run(line: str) -> str:
            terminal.count += 1
            terminal.keys(f"{line}\n")
            return terminal.wait_prompt()

        run("%load_ext loopnb")
        run("import asyncio; ticks = []")
        run("task = asyncio.get_running_loop().call_later(0.01, ticks.append, 1)")
        assert "Out[4]: [1]" in run("asyncio.run(asyncio.sleep(0.1)) or ticks")
        terminal.mark = len(terminal.screen)
        terminal.keys("exit\n")
        assert "Traceback" not in terminal.wait_end()


def test_without_a_terminal_it_works(tmp_path: Path) -> None:
    code = dedented(
        """
        %load_ext loopnb
        import asyncio
        asyncio.run(asyncio.sleep(0.01, 'piped'))
        """
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--HistoryManager.enabled=False"],
        cwd=tmp_path, input=f"{code}\nawait asyncio.sleep(0, 'too')\n", env={**os.environ, "IPYTHONDIR": "."},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert "'piped'" in done.stdout
    assert "'too'" in done.stdout
    assert "Error" not in done.stdout + done.stderr


def test_where_nesting_is_off_cells_run_as_ipython_runs_them(terminal: Terminal) -> None:
    terminal.run("%loopnb nesting off")

    assert terminal.value("asyncio.run(asyncio.sleep(0, 7))") == "7"
    assert "no running event loop" in terminal.run("asyncio.get_running_loop()")
    assert f"Out[{terminal.count}]: 8" in terminal.run("await asyncio.sleep(0, 8)")


def test_a_loop_that_was_closed_all_the_same_is_replaced(terminal: Terminal) -> None:
    terminal.run("loop = asyncio.get_running_loop(); lost = loop.create_task(asyncio.sleep(60), name='lost')")
    spawned, closed = terminal.count - 1, terminal.count + 1
    terminal.run("%loopnb nesting off")
    terminal.run("asyncio.base_events.BaseEventLoop.close(loop)")

    shown = terminal.run("asyncio.run(asyncio.sleep(0.01, 'goes on'))")

    assert f"Out[{terminal.count}]" not in shown
    assert "'goes on'" in shown
    assert f"loop #1 was closed at In[{closed}], line 1;" in shown
    assert f"lost with it: 'lost' of In[{spawned}]." in shown
    assert "was destroyed" not in terminal.run("import gc; del lost; gc.collect()")
    assert terminal.value("loopnb.status().generation") == "2"
    assert terminal.value("asyncio.get_running_loop() is loop") == "False"
