"""Running a `%%aloop -b` cell again: what it replaces, what it keeps, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.conftest import assert_ended_in, task_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver

TICK = dedented(
    """
    while True:
        await asyncio.sleep(0.01)
    """
)
#: Says that it has been cancelled, and ends once `end` is set.
STUBBORN = dedented(
    """
    end = asyncio.Event()
    while not end.is_set():
        try:
            await end.wait()
        except asyncio.CancelledError:
            print('cancelled', flush=True)
    """
)


@pytest.fixture(autouse=True)
def _nothing_left(kernel: KernelDriver) -> Iterator[None]:
    kernel.run(
        """
        import asyncio, loopnb
        end = None
        """
    )
    yield
    kernel.run("if end is not None: end.set()")
    kernel.run(
        """
        %loopnb cancel --all
        await asyncio.sleep(0)
        """
    )
    assert task_names(kernel) == []


def test_a_name_in_use_by_a_plain_task_is_refused_or_taken_over(kernel: KernelDriver) -> None:
    kernel.run("plain = asyncio.create_task(asyncio.sleep(60), name='a')")

    assert kernel.execute(below("%%aloop -b -n a --keep", TICK)).ename == "UsageError"
    kernel.run(below("%%aloop -b -n a --replace", TICK))

    assert kernel.value("plain.cancelled()")
    assert task_names(kernel) == ["a"]


def test_an_earlier_run_that_swallows_its_cancellation_is_named_and_waited_for(kernel: KernelDriver) -> None:
    kernel.run(below("%%aloop -b -n stubborn", STUBBORN), cell_id="stubborn")
    cell = kernel.start(
        """
        %%aloop -b -n stubborn
        await asyncio.sleep(60)
        """,
        cell_id="stubborn",
    )

    said = cell.wait_output("waiting for the earlier run")

    assert "<Task 'stubborn' waiting for" in said
    assert not cell.is_done
    kernel.interrupt()
    assert cell.wait().ename == "KeyboardInterrupt"


@pytest.mark.parametrize("is_timed", [False, True])
def test_an_interrupt_while_the_replaced_run_ends_starts_nothing(
    kernel: KernelDriver, is_timed: bool
) -> None:
    earlier = kernel.run(below("%%aloop -b -n stubborn", STUBBORN), cell_id="stubborn").cell
    code = dedented(
        """
        %%aloop -b -n stubborn
        print('began')
        while True:
            await asyncio.sleep(0.01)
        """
    )
    cell = kernel.start(below("%%time", code) if is_timed else code, cell_id="stubborn")
    earlier.wait_output("cancelled")

    kernel.interrupt()

    result = cell.wait()
    assert_ended_in(result, "KeyboardInterrupt")
    assert is_timed or "the new one was not started" in result.evalue
    assert "loopnb" not in result.traceback
    assert task_names(kernel) == ["stubborn"]
    # The one that ends is not cancelled once more, which would cut its cleanup short.
    kernel.run("asyncio.get_running_loop().call_later(0.05, end.set);")
    kernel.run(code, cell_id="stubborn")
    assert earlier.text.count("cancelled") == 1


def test_a_background_cell_may_start_another_and_does_not_end_itself(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop -b -n outer -o outer
        await asyncio.sleep(0)
        get_ipython().run_cell_magic('aloop', '-b -n inner', 'await asyncio.sleep(60)')
        'went on'
        """
    )

    assert cell.result
    assert kernel.run("await outer").result == "'went on'"
    assert task_names(kernel) == ["inner"]


def test_a_line_in_a_loop_replaces_nothing_of_the_same_run(kernel: KernelDriver) -> None:
    code = dedented(
        """
        tasks = []
        for n in range(3):
            task = %aloop -b asyncio.sleep(60)
            tasks.append(task)
        """
    )
    kernel.run(code, cell_id="loop")
    kernel.run("earlier = tasks; await asyncio.sleep(0)")
    assert kernel.value("[task.done() for task in earlier]") == [False] * 3

    kernel.run(code, cell_id="loop")

    kernel.run("await asyncio.sleep(0)")
    assert kernel.value("[task.done() for task in earlier + tasks]") == [True] * 3 + [False] * 3
    kernel.run("%loopnb cancel --all")


def test_a_failure_that_cannot_be_shown_is_told(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        %%aloop -b
        class Unspeakable(Exception):
            def __str__(self): raise ValueError
        await asyncio.sleep(0)
        raise Unspeakable
        """
    )

    assert "loopnb/" not in cell.wait_output("loopnb: Unspeakable: (its text cannot be made); showing")
