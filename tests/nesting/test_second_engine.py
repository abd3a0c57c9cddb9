"""The second engine: which package it takes, and that it takes back all that the package changes."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from loopnb.nesting import second_engine
from tests.peers import PEERS, is_installed, isolate
from tests.processes import run_script

if TYPE_CHECKING:
    from pathlib import Path

IS_OLD = sys.version_info < (3, 12)


class Spec:
    """What `find_spec` returns for a module, or with *folders* for a package."""

    def __init__(self, folders: list[str] | None) -> None:
        self.submodule_search_locations = folders


FOUND = {"nest-asyncio": ("nest_asyncio", None), "anest-asyncio": ("nest_asyncio", ["folder"])}


@pytest.mark.parametrize(
    ("installed", "taken"),
    [
        ([], "nest_asyncio" if IS_OLD else "nest_asyncio2"),
        (["nest-asyncio"], "nest_asyncio" if IS_OLD else "nest_asyncio2"),
        (["anest-asyncio"], "nest_asyncio"),
        (["nest-asyncio2"], "nest_asyncio2"),
        (["nest-asyncio", "nest-asyncio2"], "nest_asyncio" if IS_OLD else "nest_asyncio2"),
        (["reloop"], "nest_asyncio" if IS_OLD else "nest_asyncio2"),
    ],
)
def test_it_takes_what_is_there_and_works_on_this_python(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], taken: str
) -> None:
    found = {name: Spec(folders) for name, folders in (FOUND.get(d, (PEERS[d], None)) for d in installed)}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)

    assert second_engine.package_name() == taken


SCRIPT = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from loopnb.nesting import second_engine
second_engine.package_name = lambda: sys.argv[2]

def picture():
    owners = asyncio, asyncio.tasks, asyncio.futures, asyncio.events, *asyncio.SelectorEventLoop.__mro__
    moves = "_current_tasks", "_event_loop_policy"
    names = [(owner, name) for owner in owners for name in vars(owner) if name not in moves]
    return {(owner, name): vars(owner)[name] for owner, name in names}

async def ticks():
    while True:
        await asyncio.sleep(0.001)
        seen.append(1)

async def inner():
    before = len(seen)
    while len(seen) < before + 3:
        await asyncio.sleep(0.001)
    return "nested"

async def nests():
    return asyncio.run(inner())

async def main():
    ticker = asyncio.create_task(ticks())  # a task of C: the package comes later
    await inner()
    task = asyncio.current_task()
    engine = second_engine.Reentrant(asyncio.get_running_loop())
    engine.install()
    print(asyncio.run(inner()), await asyncio.create_task(nests()))
    print(engine.remove(), asyncio.current_task() is task)
    await inner()
    ticker.cancel()

seen = []
before = picture()
asyncio.run(main())
after = picture()
print(sorted(name for owner, name in before.keys() | after.keys()
             if before.get((owner, name)) is not after.get((owner, name))))
"""

WORKING = [
    distribution
    for distribution in PEERS
    if is_installed(distribution) and distribution != "reloop" and (distribution != "nest-asyncio" or IS_OLD)
]

if WORKING:  # the tests of a bare CPython have none

    @pytest.mark.parametrize("distribution", WORKING)
    def test_each_runs_nested_beside_earlier_tasks_and_is_taken_back(
        tmp_path: Path, distribution: str
    ) -> None:
        isolate(distribution, tmp_path)

        ran = run_script(SCRIPT, str(tmp_path), PEERS[distribution])

        assert ran.stderr == ""
        assert ran.stdout.splitlines() == ["nested nested", "[] True", "[]"]
