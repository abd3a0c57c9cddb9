"""Interrupts at places that chance hits once in a thousand times; here the kernel is held at each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stress import forced, shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a busy machine more time. What is lost here lasts a minute."""
    for name in ("LOST_AFTER_S", "_BEHIND_IDLE_S"):
        monkeypatch.setattr(f"tests.stress.kernels.{name}", 20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hold")


@pytest.fixture(scope="module")
def kernels(folder: Path) -> Iterator[Callable[[], KernelDriver]]:
    """Keep a kernel that can be held; there is a new one when a test has ended it."""
    try:
        supply = forced.held_kernels(folder)
    except shim.NoShimError as error:
        pytest.skip(str(error))
    with supply:
        yield supply.get


@pytest.mark.parametrize("scenario", [*forced.BEFORE_WAITS, *forced.SWALLOWED, *forced.BEGINNINGS], ids=str)
def test_an_interrupt_ends_a_cell_that_is_held(
    kernels: Callable[[], KernelDriver], folder: Path, scenario: forced.Forced
) -> None:
    fault, was_held = forced.interrupt_held(kernels(), folder, scenario)

    assert was_held or scenario.change  # some cells change what SIGINT does less often than others
    assert fault is None


@pytest.mark.parametrize(
    ("code", "printed"),
    [*zip(forced.EXITS.values(), (["finally"], ["finally", "after"]), strict=True)],
    ids=forced.EXITS,
)
def test_a_callback_that_exits_lets_the_main_task_clean_up_first(
    kernels: Callable[[], KernelDriver], code: str, printed: list[str]
) -> None:
    kernel = kernels()

    cell = kernel.execute(code)

    assert [word for word in cell.stdout.split() if word in ("finally", "after")] == printed
    assert kernel.value("[task.name for task in loopnb.tasks()]") == []
