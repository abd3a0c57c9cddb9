"""The orderly end of a terminal's shell."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.terminal.driver import CTRL_D, Terminal

if TYPE_CHECKING:
    from pathlib import Path

COMPLAINTS = ("was destroyed", "never retrieved", "nclosed", "Traceback", "ResourceWarning", "RuntimeWarning")
LIVELY = [
    "from pathlib import Path; say = lambda name: Path(name).touch()",
    dedented(
        """
        async def waits(name):
            try: await asyncio.sleep(60)
            finally: await asyncio.to_thread(say, name)
        """
    ),
    dedented(
        """
        async def generates():
            try:
                yield 1
                yield 2
            finally: await asyncio.sleep(0); say('generator')
        """
    ),
    "half_read = generates(); await half_read.__anext__();",
    dedented(
        """
        def busy():
            time.sleep(0.2); say('thread')
        """
    ),
    "thread = asyncio.get_running_loop().run_in_executor(None, busy)",
    "import aiohttp; holder = [aiohttp.ClientSession()]",
    "plain = asyncio.create_task(waits('plain')); parent = asyncio.create_task(nests())",
    dedented(
        """
        %%aloop -b -n background
        await waits('background')
        """
    ),
]
NESTS = "async def nests(): asyncio.run(waits('nested'))"
EXPECTED = ["background", "generator", "nested", "plain", "thread"]


@pytest.mark.parametrize("way", ["exit", "Ctrl-D", "SIGTERM"])
def test_the_shell_ends_in_order(terminal: Terminal, way: str) -> None:
    terminal.run(NESTS)
    for code in LIVELY:
        terminal.run(code)
    if way == "SIGTERM":
        terminal.run("import signal; loop = asyncio.get_running_loop()")
        terminal.run("loop.add_signal_handler(signal.SIGTERM, loop.stop)")

    terminal.mark = len(terminal.screen)
    if way == "exit":
        terminal.start("exit")
    elif way == "Ctrl-D":
        terminal.keys(CTRL_D)
    else:
        terminal.signal(signal.SIGTERM)
    said = terminal.wait_end()

    assert sorted(name for name in EXPECTED if (terminal.folder / name).exists()) == EXPECTED
    assert not [complaint for complaint in COMPLAINTS if complaint in said], said


def test_a_task_that_will_not_end_is_named(terminal: Terminal) -> None:
    terminal.run(
        """
        async def stays(event=asyncio.Event(), error=asyncio.CancelledError):
            while True:
                try: await event.wait()
                except error: pass
        """
    )
    terminal.run("task = asyncio.create_task(stays(), name='stubborn'); loop = asyncio.get_running_loop()")
    terminal.run("%config LoopNB.shutdown_grace = 0.5")
    terminal.run(
        """
        def busy():
            while not loop.is_closed(): time.sleep(0.05)
        """
    )
    terminal.run("thread = loop.run_in_executor(None, busy)")

    terminal.start("exit")
    said = terminal.wait_end()

    assert "task 'stubborn', spawned by In[4], waiting for Event.wait() at stays In[3], line 3" in said
    assert "did not end within 0.5 s of being cancelled" in said
    assert "is busy with busy() at In[6], line 2, and Python waits for it before it ends" in said
    assert "was destroyed" not in said


def test_the_loop_is_unloaded_and_closed(terminal: Terminal) -> None:
    terminal.run(
        """
        import atexit
        loop = asyncio.get_running_loop()
        stock = asyncio.Runner.run
        @atexit.register
        def tell(loop=loop, asyncio=asyncio, stock=stock):
            print('=' * 3, loop.is_closed(), asyncio.Runner.run is not stock)
        """
    )

    terminal.start("exit")

    assert "=== True True" in terminal.wait_end()


def test_a_shell_that_has_unloaded_ends_as_ever(terminal: Terminal) -> None:
    terminal.run("asyncio.run(asyncio.sleep(0))")
    terminal.run("%unload_ext loopnb")

    terminal.start("exit")

    assert "Traceback" not in terminal.wait_end()


def test_a_command_runs_on_the_loop_and_ends_in_order(tmp_path: Path) -> None:
    code = (
        "import asyncio; t = asyncio.create_task(asyncio.sleep(60)); "
        "print('=' * 3, asyncio.run(asyncio.sleep(0.01, 'nested')))"
    )

    with Terminal(tmp_path, arguments=["--InteractiveShellApp.extensions=loopnb", "-c", code]) as terminal:
        said = terminal.wait_end()

    assert "=== nested" in said
    assert not [complaint for complaint in COMPLAINTS if complaint in said], said


SAYS = "print('=' * 3, 'waits')"


@pytest.mark.parametrize(
    "code",
    [
        f"{SAYS}; await waits('cell')",
        f"{SAYS}; asyncio.run(waits('cell'))",
        dedented(
            f"""
            %%aloop
            {SAYS}; await waits('cell')
            """
        ),
    ],
    ids=["await", "nested run", "aloop"],
)
def test_sigterm_ends_the_cell_that_waits_and_the_shell(terminal: Terminal, code: str) -> None:
    for line in LIVELY[:2]:
        terminal.run(line)
    terminal.run(
        "import signal; loop = asyncio.get_running_loop(); loop.add_signal_handler(signal.SIGTERM, loop.stop)"
    )

    terminal.start(code)
    terminal.wait_for("=== waits")
    terminal.signal(signal.SIGTERM)
    said = terminal.wait_end()

    assert (terminal.folder / "cell").exists()
    assert "was destroyed" not in said
