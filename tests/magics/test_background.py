"""Running a `%%aloop -b` cell again: what it replaces, what it keeps, what it refuses.

`tests/kernel/test_reruns.py` has what an interrupt does to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from IPython.core.error import UsageError

import loopnb
from tests.cells import below

if TYPE_CHECKING:
    from tests.shells import Notebook


def background(options: str = "") -> str:
    return below(f"%%aloop -b {options}", "await asyncio.Event().wait()")


def names() -> list[str]:
    return [task.name for task in loopnb.tasks()]


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
    "no ids, same name": ("-n a", None, "-n a", None, ["a"]),
    "no ids, same name, kept": ("-n a", None, "-n a --keep", None, ["a", "a"]),
    "no ids, another name": ("-n a", None, "-n b", None, ["a", "b"]),
    "an id and none": ("-n a", "1", "-n a", None, None),
    "none and an id": ("-n a", None, "-n a", "1", None),
}


@pytest.mark.parametrize(("first", "first_id", "second", "second_id", "left"), RUNS.values(), ids=RUNS)
def test_which_run_replaces_which(
    notebook: Notebook,
    first: str,
    first_id: str | None,
    second: str,
    second_id: str | None,
    left: list[str] | None,
) -> None:
    notebook.run(background(first), cell_id=first_id)

    if left is None:
        error = notebook.error(background(second), cell_id=second_id)
        assert isinstance(error, UsageError)
        assert "the name 'a' is in use by a task of In[" in str(error)
        assert "--replace" in str(error)
    else:
        notebook.run(background(second), cell_id=second_id)

    assert names() == (["a"] if left is None else left)


def test_a_named_and_an_unnamed_cell_without_ids_are_two(notebook: Notebook) -> None:
    notebook.run(background("-n a"))
    notebook.run(background())

    assert len(names()) == 2


def test_a_name_given_twice_in_one_run_of_a_cell_is_refused(notebook: Notebook) -> None:
    error = notebook.error(
        """
        one = %aloop -b -n twice asyncio.Event().wait()
        two = %aloop -b -n twice asyncio.Event().wait()
        """,
        cell_id="one",
    )

    assert isinstance(error, UsageError)
    assert "name 'twice' is in use" in str(error)
    assert names() == ["twice"]
