"""Playwright's sync API runs a loop of its own in a greenlet; nested runs are possible between its calls.

In a notebook it works below `%%noloop`.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.kernel.driver import KernelDriver
from tests.processes import run_script

from .conftest import BROWSERS, OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import asyncio, sys
import loopnb.nesting
loopnb.nesting.apply()
from playwright.sync_api import sync_playwright

async def later(value):
    await asyncio.sleep(0.01)
    return value

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[1] or None, args=sys.argv[2:])
    page = browser.new_page()
    for number in range(3):
        page.goto(f"data:text/html,<title>page {number}</title>")
        print(asyncio.run(later(page.title())))
    page.on("console", lambda message: print(asyncio.run(later(message.text))))
    with page.expect_console_message():
        page.evaluate("console.log('in a callback')")
    browser.close()
print(asyncio.run(later("after")))
"""


def test_nested_runs_between_calls_and_in_callbacks_of_the_sync_api() -> None:
    found = next(filter(None, map(shutil.which, BROWSERS)), "")
    ran = run_script(SCRIPT, found, *OPTIONS)

    assert ran.stdout == "page 0\npage 1\npage 2\nin a callback\nafter\n", ran.stderr


def test_its_objects_live_from_one_noloop_cell_to_the_next(tmp_path: Path) -> None:
    found = next(filter(None, map(shutil.which, BROWSERS)), "")
    with KernelDriver(tmp_path) as kernel:
        kernel.run("%load_ext loopnb")
        kernel.run(
            f"""
            %%noloop
            import asyncio
            from playwright.sync_api import sync_playwright
            playwright = sync_playwright().start()
            browser = playwright.chromium.launch(executable_path={found!r} or None, args={list(OPTIONS)!r})
            page = browser.new_page()
            """,
            timeout=60,
        )
        nested = kernel.run("asyncio.run(asyncio.sleep(0.01, 5))").result
        status = kernel.run("%loopnb").stdout
        title = kernel.run(
            """
            %%noloop
            page.goto("data:text/html,<title>two</title>")
            page.title()
            """
        ).result
        kernel.run(
            """
            %%noloop
            browser.close()
            playwright.stop()
            """
        )
        after = kernel.run(
            """
            %%noloop
            asyncio.run(asyncio.sleep(0.01, 6))
            """
        ).result

        assert (nested, title, after) == ("5", "'two'", "6")
        assert "set aside" not in status
