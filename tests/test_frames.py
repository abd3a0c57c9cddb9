"""Whose code is whose."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path

import pytest

from loopnb import frames
from loopnb.frames import Owner, is_kernels, owner_of, runs_users_code

STDLIB = Path(os.__file__).parent
SITE = STDLIB / "site-packages"


@pytest.mark.parametrize(
    ("filename", "owner"),
    [
        (frames.__file__, Owner.OURS),
        (asyncio.__file__, Owner.STDLIB),
        ("<frozen importlib._bootstrap>", Owner.STDLIB),
        (str(SITE / "ipykernel" / "kernelbase.py"), Owner.KERNEL),
        (str(SITE / "IPython" / "core" / "interactiveshell.py"), Owner.SHELL),
        (str(Path("/usr/lib/python3/dist-packages/tornado/ioloop.py")), Owner.KERNEL),
        (str(SITE / "aiohttp" / "client.py"), Owner.LIBRARY),
        (str(SITE / "ipykernel_extras.py"), Owner.LIBRARY),
        ("/tmp/ipykernel_123/456.py", Owner.USER),
        ("<ipython-input-1-abc>", Owner.USER),
        ("<string>", Owner.USER),
    ],
)
def test_the_file_says_whose_code_it_is(filename: str, owner: Owner) -> None:
    assert owner_of(filename) is owner


def test_a_coroutine_of_ours_that_is_marked_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ours() -> None: ...

    monkeypatch.setattr(frames, "_runs_users_code", set())
    monkeypatch.setattr(frames, "owner_of", lambda _filename: Owner.OURS)
    before = is_kernels(ours.__code__)
    runs_users_code(ours)

    assert (before, is_kernels(ours.__code__)) == (True, False)


def test_code_compiled_from_a_text_counts_as_its_callers() -> None:
    found: list[bool] = []
    look = "found.append(is_all_by(currentframe(), owners, until=until))"
    names = {"found": found, "is_all_by": frames.is_all_by, "currentframe": inspect.currentframe}

    def by_user() -> None:
        for owners in (frozenset({Owner.USER}), frozenset({Owner.KERNEL})):
            exec(
                look,
                names
                | {"owners": owners, "until": test_code_compiled_from_a_text_counts_as_its_callers.__code__},
            )

    by_user()

    assert found == [True, False]


def test_namespaces_of_asyncio_and_ours_are_the_loops() -> None:
    found = frames.loops_namespaces()

    assert {id(vars(asyncio.tasks)), id(vars(asyncio.subprocess)), id(vars(frames))} <= found
    assert id(globals()) not in found
