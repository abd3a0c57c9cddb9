"""Running a `%%aloop -b` cell again: what it replaces, what it keeps, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

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
    assert names(kernel) == []


def names(kernel: KernelDriver) -> list[str]:
    found: list[str] = kernel.value("[t.name for t in loopnb.tasks()]")
    return found


RUNS = {
    # options and cell ids of two runs, and the names that live then; None: the second is refused
    "same cell": ("-n a", "1", "-n a", "1", ["a"]),
    "same cell, another name": ("-n a", "1", "-n b", "1", ["b"]),
    "same cell, kept": ("-n a --keep", "1", "-n a --keep", "1", ["a", "a"]),
    "same cell, kept under another name": ("-n a", "1", "-n b --keep", "1", ["a", "b"]),
    "same cell, replaced": ("-n a", "1", "-n a --replace", "1", ["a"]),
    "another cell": ("-n a", "1", "-n a", "2", None),
    "another cell, kept": ("-n a", "1", "-n a --keep", "2", None),
    "another cell, replaced": ("-n a", "1", "-n a --replace", "2", ["a"]),
    "another cell, another name": ("-n a", "1", "-n b", "2", ["a", "b"]),
    "no ids, same name": ("-n a", "", "-n a", "", ["a"]),
    "no ids, same name, kept": ("-n a", "", "-n a --keep", "", ["a", "a"]),
    "no ids, another name": ("-n a", "", "-n b", "", ["a", "b"]),
    "an id and none": ("-n a", "1", "-n a", "", None),
    "none and an id": ("-n a", "", "-n a", "1", None),
}


@pytest.mark.parametrize(("first", "first_id", "second", "second_id", "left"), RUNS.values(), ids=RUNS)
def test_which_run_replaces_which(
    kernel: KernelDriver, first: str, first_id: str, second: str, second_id: str, left: list[str] | None
) -> None:
    kernel.run(f"%%aloop -b {first}\n{TICK}", cell_id=first_id)

    result = kernel.execute(f"%%aloop -b {second}\n{TICK}", cell_id=second_id)

    assert names(kernel) == (["a"] if left is None else left)
    assert result.ename == ("UsageError" if left is None else "")
    if left is None:
        assert "the name 'a' is in use by a task of In[" in result.evalue
        assert "--replace" in result.evalue


def test_a_named_and_an_unnamed_cell_without_ids_are_two(kernel: KernelDriver) -> None:
    kernel.run(f"%%aloop -b -n a\n{TICK}", cell_id="")
    kernel.run(f"%%aloop -b\n{TICK}", cell_id="")

    assert len(names(kernel)) == 2


def test_a_name_in_use_by_a_plain_task_is_refused_or_taken_over(kernel: KernelDriver) -> None:
    kernel.run("plain = asyncio.create_task(asyncio.sleep(60), name='a')")

    assert kernel.execute(f"%%aloop -b -n a --keep\n{TICK}").ename == "UsageError"
    kernel.run(f"%%aloop -b -n a --replace\n{TICK}")

    assert kernel.value("plain.cancelled()")
    assert names(kernel) == ["a"]


@pytest.mark.parametrize(
    ("options", "says"), [("--keep --replace -n a", "Choose one"), ("--replace", "add -n NAME")]
)
def test_options_that_contradict_are_told(kernel: KernelDriver, options: str, says: str) -> None:
    result = kernel.execute(f"%%aloop -b {options}\n{TICK}")

    assert result.ename == "UsageError"
    assert says in result.evalue
    assert names(kernel) == []


def test_an_earlier_run_that_swallows_its_cancellation_is_named_and_waited_for(kernel: KernelDriver) -> None:
    kernel.run(f"%%aloop -b -n stubborn\n{STUBBORN}", cell_id="stubborn")
    cell = kernel.start("%%aloop -b -n stubborn\nawait asyncio.sleep(60)", cell_id="stubborn")

    said = cell.wait_output("waiting for the earlier run")

    assert "<Task 'stubborn' waiting for" in said
    assert not cell.is_done
    kernel.interrupt()
    assert cell.wait().ename == "KeyboardInterrupt"


@pytest.mark.parametrize("magic", ["", "%%time\n"])
def test_an_interrupt_while_the_replaced_run_ends_starts_nothing(kernel: KernelDriver, magic: str) -> None:
    earlier = kernel.run(f"%%aloop -b -n stubborn\n{STUBBORN}", cell_id="stubborn").cell
    code = dedented(
        """
        %%aloop -b -n stubborn
        print('began')
        while True:
            await asyncio.sleep(0.01)
        """
    )
    cell = kernel.start(magic + code, cell_id="stubborn")
    earlier.wait_output("cancelled")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt"
    assert magic or "the new one was not started" in result.evalue
    assert "loopnb" not in result.traceback
    assert names(kernel) == ["stubborn"]
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
    assert names(kernel) == ["inner"]


def test_a_line_in_a_loop_replaces_nothing_of_the_same_run(kernel: KernelDriver) -> None:
    code = dedented(
        """
        tasks = []
        for n in range(3):
            one = %aloop -b asyncio.sleep(60)
            tasks.append(one)
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
