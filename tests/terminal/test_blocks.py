"""Blocks in a terminal, whose prompt and cells share one loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.terminal.driver import Terminal


@pytest.fixture(scope="module", autouse=True)
def settings(shared_terminal: Terminal) -> None:
    shared_terminal.run(
        """
        import time
        from loopnb.session import current
        def block():
            watch, end = current().watch, time.monotonic() + 20
            while (seen := watch.current()) is None or (seen.function, seen.how) != ('block', 'sleep'):
                assert time.monotonic() < end
                time.sleep(0.01)
        async def found():
            # On a busy machine any other step may last long enough, too.
            while not (blocks := [b for b in current().watch.blocks() if b.function == 'block']):
                await asyncio.sleep(0.01)
            block = blocks[-1]
            return block.by, block.how, block.is_alarm
        """
    )


def test_a_cell_that_blocks_is_named(shared_terminal: Terminal) -> None:
    shared_terminal.run("block()")

    assert "('cell', 'sleep', False)" in shared_terminal.run("await found()")


def test_input_is_no_block(shared_terminal: Terminal) -> None:
    shared_terminal.run("%config LoopNB.blocked_after = 0")
    shared_terminal.run("%config LoopNB.blocked_after = 0.5")
    shared_terminal.start(
        """
        import threading
        def say():
            time.sleep(1)
            print('this', 'long')
        threading.Thread(target=say).start()
        answer = input('na' + 'me? ')
        """
    )
    shared_terminal.wait_for("this long")
    shared_terminal.keys("x\r")
    shared_terminal.wait_prompt()

    # On a busy machine any other step may last long enough, too.
    ours = "[b for b in current().watch.blocks() if b.call.startswith('input(')]"
    assert shared_terminal.value(ours) == "[]"
