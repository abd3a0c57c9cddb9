"""Tornado's loop object, whose `start()` fails inside the notebook's loop as it does without loopnb."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


def test_starting_tornados_loop_fails_as_ever(kernel: KernelDriver) -> None:
    kernel.run("from tornado.ioloop import IOLoop")
    refused = kernel.execute("IOLoop.current().start()")

    assert (refused.ename, refused.evalue) == ("RuntimeError", "This event loop is already running")
    assert kernel.run("await __import__('asyncio').sleep(0, 'goes on')").result == "'goes on'"


def test_so_it_does_in_a_task_and_in_a_nested_run(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        from tornado.ioloop import IOLoop
        async def starts():
            try:
                IOLoop.current().start()
            except RuntimeError as error:
                return str(error)
        """
    )

    for cell in ("await asyncio.create_task(starts())", "asyncio.run(starts())"):
        assert kernel.run(cell).result == "'This event loop is already running'"
