"""Choose scenarios at random, the same ones for the same seed. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING

from tests.stress.cells import KINDS, SHORT

if TYPE_CHECKING:
    from tests.stress.cells import Kind

#: Scenarios in a row beside the same load.
BATCH = 20


class Since(StrEnum):
    """The moment from which the delay of an interrupt counts."""

    SENT = "sent"
    """The cell was sent. The kernel ignores an interrupt that comes before the cell has begun."""
    BEGUN = "begun"
    """The kernel has said that it is busy."""
    WAITS = "waits"
    """The cell has printed that it waits."""


@dataclass(frozen=True)
class Load:
    """What keeps the machine busy meanwhile.

    Attributes:
        threads: Threads of the kernel that compute.
        process: Another process that computes.
        chatter: Requests on the control channel, up to a hundred a second.
    """

    threads: bool
    process: bool
    chatter: bool

    def __str__(self) -> str:
        return " + ".join(name for name, is_on in vars(self).items() if is_on) or "no load"


@dataclass(frozen=True)
class Interrupt:
    """One interrupt of one cell.

    Attributes:
        kind: The kind of cell.
        since: From when the delay counts.
        delay_ms: The delay, in milliseconds.
        load: What keeps the machine busy.
        number: The number of the scenario.
    """

    kind: Kind
    since: Since
    delay_ms: float
    load: Load
    number: int

    def __str__(self) -> str:
        return f"{self.kind.name}, {self.since} +{self.delay_ms:.2f} ms, {self.load}, #{self.number}"


#: Moments of interrupts: how often each is chosen, and within how many milliseconds. Faults live in the first
#: moments.
MOMENTS = ((50, Since.BEGUN, 2.0), (15, Since.SENT, 6.0), (20, Since.WAITS, 5.0), (15, Since.WAITS, 400.0))


def interrupts(seed: int, count: int) -> list[Interrupt]:
    """Return *count* interrupts. Each kind of cell comes as often as the others."""
    random = Random(f"interrupts {seed}")
    kinds = itertools.chain.from_iterable(random.sample(KINDS, len(KINDS)) for _ in itertools.count())
    weights = [weight for weight, _since, _most in MOMENTS]
    chosen, load = [], Load(threads=False, process=False, chatter=False)
    for number in range(count):
        if number % BATCH == 0:
            load = Load(*(random.random() < 0.5 for _ in range(3)))
        [(_weight, since, most)] = random.choices(MOMENTS, weights)
        chosen.append(Interrupt(next(kinds), since, random.uniform(0, most), load, number))
    return chosen


@dataclass(frozen=True)
class Burst:
    """Several interrupts of one cell in quick succession.

    Attributes:
        kind: The kind of cell.
        delay_ms: Milliseconds from the message that the kernel is busy to the first interrupt.
        number: The number of the scenario.
    """

    kind: Kind
    delay_ms: float
    number: int

    def __str__(self) -> str:
        return f"{self.kind.name}, begun +{self.delay_ms:.2f} ms, #{self.number}"


#: Kinds that get no bursts: their processes get the interrupts, too, or IPython cannot end them twice.
_NOT_IN_BURSTS = ("subprocess", "shell escape", "await a process")
_IN_BURSTS = [kind for kind in KINDS if not kind.name.startswith(_NOT_IN_BURSTS)]


def bursts(seed: int, count: int) -> list[Burst]:
    """Return *count* bursts: every second one into a cell that ends by itself."""
    random = Random(f"bursts {seed}")
    return [
        Burst(random.choice(SHORT if number % 2 else _IN_BURSTS), random.uniform(0, 8), number)
        for number in range(count)
    ]


APIS = ("signal.signal", "add_signal_handler")
PLACES = ("plain", "await", "asyncio.run", "Runner", "%%aloop", "-b")
SIGNALS = ("SIGINT", "SIGTERM", "SIGALRM")
REACTIONS = ("returns", "ValueError", "KeyboardInterrupt", "SystemExit")


@dataclass(frozen=True)
class Handler:
    """A handler of a signal that a cell sets.

    Attributes:
        api: How it is set.
        place: The kind of cell that sets it.
        signal: The name of the signal.
        reaction: What it does: return, or raise an error of that name.
    """

    api: str
    place: str
    signal: str
    reaction: str

    def __str__(self) -> str:
        return f"{self.api} {self.place} {self.signal}, {self.reaction}"

    @property
    def stays(self) -> bool | None:
        """True if it outlives its cell, False if not. None where both would do.

        A handler that a run or a task sets ends with it. One that a cell's own code sets stays. But a kernel
        removes a handler of SIGINT when the cell has ended.
        """
        if self.signal == "SIGINT":
            return False
        if self.place == "%%aloop" and self.api == "add_signal_handler":
            return None
        return self.place in ("plain", "await")

    @property
    def may_end(self) -> bool:
        """True if its call may end the idle kernel, in order: it asks for that."""
        return self.signal == "SIGTERM" and self.reaction in ("KeyboardInterrupt", "SystemExit")


def handlers(seed: int, count: int) -> list[Handler]:
    """Return *count* combinations, or all of them, in random order."""
    every = [Handler(*combination) for combination in itertools.product(APIS, PLACES, SIGNALS, REACTIONS)]
    Random(f"handlers {seed}").shuffle(every)
    return every[:count]


LEFTOVERS = ("tasks", "parked stacks", "TaskGroup", "client", "generator", "thread", "-b task", "widget")
FOREGROUNDS = ("nothing", "await", "asyncio.run", "%%aloop", "short sleeps")
#: The first ends. In these, few things end, so some are sure to end in the same moment.
FIRST = (
    (("parked stacks",), "asyncio.run"),
    (("TaskGroup",), "%%aloop"),
    (("parked stacks", "TaskGroup"), "short sleeps"),
)


@dataclass(frozen=True)
class Shutdown:
    """One end of a kernel.

    Attributes:
        leftovers: What is open.
        foreground: What the cell does that runs.
        restart: The kernel is asked to start again.
        number: The number of the scenario.
    """

    leftovers: tuple[str, ...]
    foreground: str
    restart: bool
    number: int

    def __str__(self) -> str:
        word = "restart" if self.restart else "shutdown"
        return f"{self.foreground}, {word} with {' + '.join(self.leftovers) or 'nothing'}, #{self.number}"


def shutdowns(seed: int, count: int) -> list[Shutdown]:
    """Return *count* ends: after the first ones, every second one has everything open."""
    random = Random(f"shutdowns {seed}")
    chosen = [Shutdown(*first, restart=False, number=number) for number, first in enumerate(FIRST)]
    for number in range(len(chosen), count):
        some = tuple(leftover for leftover in LEFTOVERS if random.random() < 0.5)
        leftovers = LEFTOVERS if number % 2 == 0 else some
        chosen.append(Shutdown(leftovers, random.choice(FOREGROUNDS), random.random() < 0.3, number))
    return chosen[:count]


def soak(seed: int, kinds: list[str], count: int) -> list[str]:
    """Return *count* of the *kinds* of cells. Each comes as often as the others."""
    random = Random(f"soak {seed}")
    every = itertools.chain.from_iterable(random.sample(kinds, len(kinds)) for _ in itertools.count())
    return list(itertools.islice(every, count))
