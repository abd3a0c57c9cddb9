"""The choice of scenarios: the same for the same seed, and none is forgotten."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.stress import choice, handlers, shutdowns
from tests.stress.cells import KINDS, SHORT
from tests.stress.choice import Handler, Since

if TYPE_CHECKING:
    from collections.abc import Callable


CHOICES: dict[str, Callable[[int], list[Any]]] = {
    "interrupts": lambda seed: choice.interrupts(seed, 200),
    "bursts": lambda seed: choice.bursts(seed, 200),
    "handlers": lambda seed: choice.handlers(seed, 144),
    "shutdowns": lambda seed: choice.shutdowns(seed, 20),
    "soak": lambda seed: choice.soak(seed, list("abcdefgh"), 50),
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_a_seed_makes_the_same_choices_again(choose: Callable[[int], list[Any]]) -> None:
    assert choose(7) == choose(7)
    assert choose(7) != choose(8)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert choice.interrupts(7, 300)[:100] == choice.interrupts(7, 100)
    assert choice.bursts(7, 300)[:100] == choice.bursts(7, 100)
    assert choice.shutdowns(7, 50)[:4] == choice.shutdowns(7, 4)


def test_each_kind_of_cell_is_interrupted_as_often_as_the_others() -> None:
    counts = Counter(interrupt.kind.name for interrupt in choice.interrupts(7, 3 * len(KINDS)))

    assert set(counts.values()) == {3}
    assert len(counts) == len(KINDS)


def test_half_of_the_interrupts_come_within_two_milliseconds_of_the_beginning() -> None:
    chosen = choice.interrupts(7, 1000)
    early = [interrupt for interrupt in chosen if interrupt.since is Since.BEGUN]

    assert 400 < len(early) < 600
    assert max(interrupt.delay_ms for interrupt in early) <= 2


def test_every_second_burst_hits_a_cell_that_ends_by_itself() -> None:
    chosen = choice.bursts(7, 200)

    assert sum(burst.kind in SHORT for burst in chosen) == 100
    assert {burst.kind for burst in chosen} >= set(SHORT)


def test_every_load_comes_up() -> None:
    assert len({interrupt.load for interrupt in choice.interrupts(7, 2000)}) == 8


def test_every_handler_is_set_in_every_place_for_every_signal() -> None:
    assert len(set(choice.handlers(7, 144))) == 2 * 6 * 3 * 4


@pytest.mark.parametrize(
    ("handler", "stays"),
    [
        (Handler("signal.signal", "plain", "SIGTERM", "returns"), True),
        (Handler("add_signal_handler", "await", "SIGALRM", "returns"), True),
        (Handler("add_signal_handler", "plain", "SIGINT", "returns"), False),
        (Handler("signal.signal", "asyncio.run", "SIGTERM", "returns"), False),
        (Handler("signal.signal", "-b", "SIGALRM", "returns"), False),
    ],
    ids=str,
)
def test_a_handler_stays_if_a_cells_own_code_has_set_it_and_not_for_sigint(
    handler: Handler, stays: bool
) -> None:
    assert handler.stays is stays


def test_the_cells_that_set_handlers_are_python() -> None:
    for handler in choice.handlers(7, 144):
        body = handlers.code(handler).removeprefix("%%aloop -b -n setter").removeprefix("%%aloop")
        compile(body, str(handler), "exec", flags=handlers.TOP_LEVEL_AWAIT)


def test_every_second_kernel_ends_with_everything_open() -> None:
    everything = [shutdown for shutdown in choice.shutdowns(7, 20) if shutdown.leftovers == choice.LEFTOVERS]

    assert len(everything) >= (20 - len(choice.FIRST)) // 2
    assert set(shutdowns.LEFTOVERS) == set(choice.LEFTOVERS)
    assert {"nothing", *shutdowns.FOREGROUNDS} == set(choice.FOREGROUNDS)
