"""Playwright's sync API runs a loop of its own in a greenlet; nested runs are possible between its calls."""

from __future__ import annotations

import shutil

from tests.processes import run_script

from .conftest import BROWSERS, OPTIONS

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
