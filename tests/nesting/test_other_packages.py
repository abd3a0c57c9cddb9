"""Packages that make asyncio re-entrant are told apart, noted and spared, or lived with."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from loopnb.nesting import other_packages
from tests.peers import PEERS, is_installed, isolate
from tests.processes import run_script

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

STAND_IN = """
import asyncio

def apply(loop=None, *, run_close_loop=False):
    asyncio.Task = asyncio.tasks._PyTask
    asyncio._nest_patched = True
"""


@pytest.fixture(
    params=[peer for peer in PEERS if peer in ("nest-asyncio", "nest-asyncio2") or is_installed(peer)]
)
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have that package, or something that does the same harm under its name, ready to be imported."""
    name = PEERS[request.param]
    monkeypatch.syspath_prepend(str(tmp_path))
    if is_installed(request.param):
        isolate(request.param, tmp_path)
    else:
        (tmp_path / f"{name}.py").write_text(STAND_IN)
    forget(name)
    yield name
    forget(name)


def forget(name: str) -> None:
    """Have the next import of *name* import it again."""
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


async def nests() -> int:
    asyncio.run(asyncio.sleep(0.001))
    return 7


def check_that_nothing_is_swapped(module: Any, apply: Any) -> None:
    before = (asyncio.Task, asyncio.Future, asyncio.run, asyncio.run.__code__)

    async def main() -> int:
        apply()
        return await nests()

    assert asyncio.run(main()) == 7
    apply()
    assert (asyncio.Task, asyncio.Future, asyncio.run, asyncio.run.__code__) == before
    assert not hasattr(asyncio, "_nest_patched")
    places = other_packages.applied_by()
    assert {place.package for place in places} == {module.__name__}
    assert {place.filename for place in places} == {__file__}
    assert len({place.line for place in places}) == 2


def test_apply_does_nothing_where_the_package_is_imported_later(package: str) -> None:
    module = importlib.import_module(package)
    assert "exec_module" not in vars(sys.modules[module.apply.__module__].__loader__)
    check_that_nothing_is_swapped(module, module.apply)


def test_apply_does_nothing_where_it_was_imported_by_name_before(package: str) -> None:
    nesting.remove()
    module = importlib.import_module(package)
    apply = module.apply
    code = apply.__code__
    nesting.apply()
    check_that_nothing_is_swapped(module, apply)

    nesting.remove()
    assert apply.__code__ is code


def test_apply_for_another_loop_is_forwarded(package: str) -> None:
    nesting.remove()
    here, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    nesting.apply(here)
    module = importlib.import_module(package)
    module.apply(*([other] if package != "reloop" else []))  # reloop's is for every loop

    assert other.run_until_complete(nests()) == 7
    nesting.remove()
    with pytest.raises(RuntimeError):
        other.run_until_complete(_refused())
    here.close()
    other.close()


async def _refused() -> None:
    coro = asyncio.sleep(0)
    try:
        asyncio.run(coro)
    finally:
        coro.close()


BEFORE = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import {package}
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
{package}.apply(*([loop] if "{package}" != "reloop" else []))
def methods():
    return [getattr(type(loop), name) for name in ("run_forever", "run_until_complete", "_run_once")]
theirs_before = methods()
theirs = asyncio.run
from loopnb import nesting
from loopnb.nesting import other_packages as foreign

order = []
async def nests(delay):
    asyncio.run(asyncio.sleep(delay))
    order.append(delay)
async def main():
    await asyncio.gather(nests(0.01), nests(0.1), nests(0.03))

nesting.apply(loop)
nesting.apply()
print(foreign.applied_before())
loop.run_until_complete(main())
print(order)
nesting.remove()
print([m.__module__ for m in methods()] == [m.__module__ for m in theirs_before])
print(asyncio.run.__module__ == theirs.__module__)
loop.run_until_complete(nests(0.01))
loop.close()
"""


INSIDE = """
import asyncio, {package}
from loopnb import nesting
from loopnb.errors import NestingError

async def inner():
    try:
        nesting.apply()
    except NestingError as error:
        print(error.reason)
    await asyncio.sleep(0.01)

async def main():
    {package}.apply()
    asyncio.run(inner())
    nesting.apply()
    return asyncio.run(asyncio.sleep(0.01, "ours"))

print(asyncio.run(main()))
"""


AFTER = """
import asyncio, warnings
warnings.simplefilter("ignore")
from loopnb import nesting
from loopnb.errors import NestingError
from tests.loops import turns

async def nests():
    return asyncio.run(event.wait())

async def main():
    global event
    event = asyncio.Event()
    nesting.apply()
    task = asyncio.create_task(nests())
    await turns()
    nesting.remove()
    import {package}
    {package}.apply()
    try:
        asyncio.run(asyncio.sleep(0))
    except NestingError as error:
        print(error.reason)
    event.set()
    print(await task)
    return asyncio.run(asyncio.sleep(0.01, "theirs"))

print(asyncio.run(main()))
"""


@dataclass(frozen=True)
class Peer:
    """An installed package, to be imported in a Python of its own.

    Attributes:
        name: What it is imported by.
        folder: The folder where it is found first.
    """

    name: str
    folder: Path

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run *script*, in which the name stands for `{package}`, and return what it printed."""
        found_first = f"import sys; sys.path.insert(0, {str(self.folder)!r})\n"
        return run_script(found_first + script.format(package=self.name))


INSTALLED = [distribution for distribution in PEERS if is_installed(distribution)]

if INSTALLED:  # a stand-in could not show what the real ones do to a loop

    @pytest.fixture(params=INSTALLED)
    def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Peer:
        """Return an installed package."""
        isolate(request.param, tmp_path)
        return Peer(PEERS[request.param], tmp_path)

    def test_applied_before_waits_still_end_in_any_order_and_it_is_said(peer: Peer) -> None:
        ran = peer.run(BEFORE)
        assert ran.stderr == ""
        assert ran.stdout.splitlines() == [peer.name, "[0.01, 0.03, 0.1]", "True", "True"]

    def test_inside_their_own_nested_run_apply_says_that_it_cannot_be(peer: Peer) -> None:
        ran = peer.run(INSIDE)
        assert ran.stderr == ""
        said = f"{peer.name} runs nested on this loop, below this call"
        assert ran.stdout.splitlines() == [said, "ours"]

    def test_applied_while_ours_leaves_it_nests_when_the_last_stack_has_ended(peer: Peer) -> None:
        ran = peer.run(AFTER)
        said, *rest = ran.stdout.splitlines()
        assert said.endswith("nothing can run on top of it; stacks still parked: 1")
        assert rest == ["True", "theirs"]
        assert ran.stderr == ""


def test_anyios_test_runner_is_busy_inside_itself_only() -> None:
    kind = importlib.import_module("anyio._backends._asyncio").TestRunner
    patched = kind.is_running

    async def main() -> tuple[bool, bool]:
        with kind() as runner:

            async def asks() -> bool:
                return bool(runner.is_running())

            return runner.is_running(), runner.run_fixture(asks, {})

    assert asyncio.run(main()) == (False, True)
    nesting.remove()
    assert kind.is_running is not patched
