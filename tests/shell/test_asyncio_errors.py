"""Each of asyncio's classic errors gets a note: what happened in this notebook, where, and what to type."""

from __future__ import annotations

import inspect
import re
import traceback
from typing import TYPE_CHECKING, NamedTuple

import pytest

from loopnb.shell.asyncio_errors import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shells import Notebook


class Example(NamedTuple):
    """Some cells, the last of which fails, what its error says, and what the note has to say."""

    cells: tuple[str, ...]
    text: str
    note: tuple[str, ...]


FETCH = """
async def fetch():
    return {"a": 1}
"""
#: Makes `queue` and `task` of a loop that runs in a thread, which `ending` ends.
OTHER_THREAD = """
import threading
other = asyncio.new_event_loop()
thread = threading.Thread(target=other.run_forever)
thread.start()
async def make():
    queue = asyncio.Queue()
    task = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    return queue, task
queue, task = asyncio.run_coroutine_threadsafe(make(), other).result()
"""
#: Makes them on the notebook's loop.
HERE = """
queue = asyncio.Queue()
task = asyncio.create_task(queue.get())
await asyncio.sleep(0)
"""
IN_THREAD = """
def work():
    {}
await asyncio.to_thread(work)
"""
EXAMPLES = {
    "closed loop": Example(
        ("old = asyncio.new_event_loop(); old.close()", "old.call_soon(print)"),
        "Event loop is closed",
        ("closed at In[{1}], line 1", "create the object again"),
    ),
    "fresh loop that has ended": Example(
        (
            """
            %%aloop --fresh -o queue
            queue = asyncio.Queue()
            task = asyncio.create_task(queue.get())
            await asyncio.sleep(0)
            queue
            """,
            "await queue.get()",
        ),
        "is bound to a different event loop",
        ("closed at the end of In[{1}], a %%aloop --fresh cell", "create the object again"),
    ),
    "loop of a thread that has ended": Example(
        (
            """
            async def make():
                queue = asyncio.Queue()
                task = asyncio.create_task(queue.get())
                await asyncio.sleep(0)
                return queue
            queue = await asyncio.to_thread(asyncio.run, make())
            """,
            "await queue.get()",
        ),
        "is bound to a different event loop",
        ("closed at In[{1}]. ",),
    ),
    "queue of a running loop": Example(
        (OTHER_THREAD, "await queue.get()"),
        "is bound to a different event loop",
        ("In[{2}], line 1", "runs in another thread", "run_coroutine_threadsafe(coro, loop)"),
    ),
    "task of a running loop": Example(
        (OTHER_THREAD, "await task"),
        "attached to a different loop",
        ("In[{2}], line 1", "runs in another thread", "run_coroutine_threadsafe(coro, loop)"),
    ),
    "future of an open loop": Example(
        ("other = asyncio.new_event_loop(); future = other.create_future()", "await future"),
        "attached to a different loop",
        ("In[{2}], line 1", "not to the notebook's", "Create it again"),
    ),
    "notebook's queue on a fresh loop": Example(
        (
            HERE,
            """
            %%aloop --fresh
            await queue.get()
            """,
        ),
        "is bound to a different event loop",
        ("belongs to the notebook's loop", "In[{2}], line 2", "as below %%aloop --fresh"),
    ),
    "notebook's queue in a thread": Example(
        (HERE, IN_THREAD.format("asyncio.run(queue.get())")),
        "is bound to a different event loop",
        ("belongs to the notebook's loop", "worker thread", "loopnb.run(coro)"),
    ),
    "a future awaited again": Example(
        (
            """
            old = asyncio.new_event_loop()
            future = old.create_future()
            old.close()
            try:
                await future
            except RuntimeError:
                pass
            """,
            "await future",
        ),
        "await wasn't used with future",
        ("closed at In[{1}], line 3",),
    ),
    "nesting is off": Example(
        (FETCH, "%loopnb nesting off", "coro = fetch(); asyncio.run(coro)"),
        "cannot be called from a running event loop",
        ("Nesting is off", "'%loopnb nesting handoff'"),
    ),
    "nesting is off, and a method": Example(
        (FETCH, "%loopnb nesting off", "coro = fetch(); asyncio.get_running_loop().run_until_complete(coro)"),
        "This event loop is already running",
        ("Nesting is off", "'%loopnb nesting handoff'"),
    ),
    "nesting is off, and another loop": Example(
        (
            FETCH,
            "%loopnb nesting off",
            "coro = fetch(); other = asyncio.new_event_loop(); other.run_until_complete(coro)",
        ),
        "while another loop is running",
        ("Nesting is off", "'%loopnb nesting handoff'"),
    ),
    "a copy of asyncio.run": Example(
        (
            """
            def own_run(coro):
                raise RuntimeError("asyncio.run() cannot be called from a running event loop")
            """,
            FETCH,
            "coro = fetch(); own_run(coro)",
        ),
        "cannot be called from a running event loop",
        ("own_run() refuses", "%%noloop"),
    ),
    "a loop of another thread": Example(
        (OTHER_THREAD, FETCH, "coro = fetch(); other.run_until_complete(coro)"),
        "already running",
        ("In[{3}], line 1", "runs in another thread", "run_coroutine_threadsafe(coro, loop).result()"),
    ),
    "the notebook's loop in a thread": Example(
        (
            FETCH,
            "loop = asyncio.get_running_loop(); coro = fetch()",
            IN_THREAD.format("loop.run_until_complete(coro)"),
        ),
        "already running",
        ("In[{3}], line 2", "worker thread", "loopnb.run(coro)"),
    ),
    "the notebook's loop below --fresh": Example(
        (
            FETCH,
            "loop = asyncio.get_running_loop(); coro = fetch()",
            """
            %%aloop --fresh
            loop.run_until_complete(coro)
            """,
        ),
        "already running",
        ("set aside", "In[{3}], line 2", "asyncio.run()"),
    ),
    "no loop in a thread": Example(
        (FETCH, "coro = fetch()", IN_THREAD.format("asyncio.create_task(coro)")),
        "no running event loop",
        ("In[{3}], line 2", "worker thread", "loopnb.spawn(coro)"),
    ),
    "no current loop in a thread": Example(
        (IN_THREAD.format("asyncio.get_event_loop()"),),
        "There is no current event loop in thread",
        ("In[{1}], line 2", "worker thread", "loopnb.run(coro)"),
    ),
    "no loop below %%noloop": Example(
        (
            """
            %%noloop
            asyncio.get_running_loop()
            """,
        ),
        "no running event loop",
        ("%%noloop hide the loop", "asyncio.run(coro)"),
    ),
    "no loop in a block": Example(
        (
            """
            with loopnb.noloop():
                await asyncio.sleep(1)
            """,
        ),
        "no running event loop",
        ("`with loopnb.noloop():`", "Outside of them, `await`"),
    ),
    "an executor that was shut down": Example(
        (
            """
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor() as pool:
                pass
            """,
            "await asyncio.get_running_loop().run_in_executor(pool, print)",
        ),
        "cannot schedule new futures after shutdown",
        ("ThreadPoolExecutor `pool` that In[{2}], line 1", "asyncio.to_thread(fn)"),
    ),
    "the default executor, shut down": Example(
        ("await asyncio.get_running_loop().shutdown_default_executor(); await asyncio.to_thread(print)",),
        "Executor shutdown has been called",
        ("default executor of the notebook's loop", "run this cell again"),
    ),
    "a coroutine in a variable": Example(
        (FETCH, "result = fetch()", "result['a']"),
        "'coroutine' object is not subscriptable",
        ("In[{3}], line 1 uses `result`", "`result = await fetch(...)`"),
    ),
    "the attribute of a coroutine": Example(
        (FETCH, "result = fetch()", "result.keys()"),
        "'coroutine' object has no attribute 'keys'",
        ("In[{3}], line 1 uses `result`", "`result = await fetch(...)`"),
    ),
    "a coroutine in an async function": Example(
        (
            FETCH,
            """
            async def main():
                result = fetch()
                return result["a"]
            """,
            "await main()",
        ),
        "'coroutine' object is not subscriptable",
        ("In[{2}], line 3 uses `result`", "`result = await fetch(...)`"),
    ),
    "a coroutine in a plain function": Example(
        (
            FETCH,
            """
            def main():
                result = fetch()
                return result["a"]
            """,
            "main()",
        ),
        "'coroutine' object is not subscriptable",
        ("In[{2}], line 3 uses `result`", "asyncio.run(result)"),
    ),
    "a function for a coroutine": Example(
        (FETCH, "asyncio.create_task(fetch)"),
        "a coroutine was expected, got <function",
        ("fetch()", "Add the parentheses"),
    ),
    "a coroutine awaited twice": Example(
        (FETCH, "coro = fetch(); await coro", "await coro"),
        "cannot reuse already awaited coroutine",
        ("In[{3}], line 1", "asyncio.create_task(coro)"),
    ),
    "a coroutine awaited by two": Example(
        (
            """
            event = asyncio.Event()
            coro = event.wait()
            task = asyncio.create_task(coro)
            await asyncio.sleep(0)
            """,
            "await coro",
        ),
        "coroutine is being awaited already",
        ("In[{2}], line 1", "asyncio.create_task(coro)"),
    ),
    "an async generator for two tasks": Example(
        (
            """
            async def numbers():
                await asyncio.sleep(60)
                yield 1
            generator = numbers()
            task = asyncio.create_task(anext(generator))
            await asyncio.sleep(0)
            """,
            "await anext(generator)",
        ),
        "asynchronous generator is already running",
        ("In[{2}], line 1", "once for each task"),
    ),
}


@pytest.fixture
def tidied(notebook: Notebook) -> Iterator[Notebook]:
    """End what an example has left."""
    yield notebook
    notebook.run(
        """
        %loopnb nesting handoff
        if "event" in globals():
            event.set()
            await asyncio.wait([task])
        if "thread" in globals():
            async def end():
                task.cancel()
                await asyncio.wait([task])
                other.stop()
            asyncio.run_coroutine_threadsafe(end(), other)
            thread.join()
        """
    )
    if (other := notebook.shell.user_ns.get("other")) is not None:
        other.close()


def close_coroutines(error: BaseException) -> None:
    """Close the coroutines in the frames of *error* that nobody has awaited, or Python warns of them."""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values()):
            if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
                value.close()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_note_says_what_happened_where_and_what_to_type(tidied: Notebook, example: Example) -> None:
    counts = ["", *(str(tidied.shell.execution_count + n) for n in range(len(example.cells)))]
    for cell in example.cells[:-1]:
        tidied.run(cell)

    error = tidied.error(example.cells[-1])
    close_coroutines(error)

    assert example.text in str(error)
    (note,) = error.__notes__
    assert len(note) < 330  # three lines
    assert [part for part in example.note if part.format(*counts) not in note] == [], note


def test_every_row_has_an_example() -> None:
    texts = [example.text for example in EXAMPLES.values()]

    assert [row.pattern for row in ROWS if not any(re.search(row.pattern, text) for text in texts)] == []


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a coroutine was expected, got 5"),
        TypeError("An asyncio.Future, a coroutine or an awaitable is required"),
        TypeError("A coroutine object is required"),
        TypeError("'Task' object is not subscriptable"),
        TypeError("f() got an unexpected keyword argument 'coroutine'"),
        TypeError("f() missing 1 required positional argument: 'coroutine'"),
        AttributeError("module 'asyncio' has no attribute 'coroutine'"),
        ValueError("Event loop is closed"),
        RuntimeError("cannot schedule new futures after interpreter shutdown"),
        RuntimeError("Set changed size during iteration"),
        KeyError("coroutine"),
    ],
    ids=str,
)
def test_other_errors_get_none(notebook: Notebook, error: BaseException) -> None:
    notebook.shell.user_ns["error"] = error

    assert notebook.error("raise error") is error

    assert not hasattr(error, "__notes__")


def test_an_error_keeps_its_note_when_the_loops_have_changed(notebook: Notebook) -> None:
    notebook.run("other = asyncio.new_event_loop(); future = other.create_future()")
    error = notebook.error("await future")
    before = list(error.__notes__)
    notebook.shell.user_ns["error"] = error
    notebook.run("other.close()")

    assert notebook.error("raise error") is error
    assert error.__notes__ == before


def test_the_failure_of_a_task_is_reported_and_shown_with_the_note(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%config LoopNB.report_after = 0")
    notebook.run(
        """
        coro = asyncio.sleep(0)
        await coro
        async def again():
            await coro
        task = asyncio.create_task(again(), name="again")
        await asyncio.wait([task])
        """
    )
    notebook.run("await asyncio.sleep(0)")

    assert "each runs only once" in capsys.readouterr().err
    notebook.run("%loopnb where again")
    assert "each runs only once" in capsys.readouterr().out
    notebook.run("%config LoopNB.report_after = 0.5")


def test_the_failure_of_a_background_cell_has_the_note(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(
        """
        %%aloop -b -o task
        await asyncio.sleep(0)
        asyncio.create_task(asyncio.sleep)
        """
    )
    notebook.run("await asyncio.wait([task])")

    assert "Add the parentheses" in capsys.readouterr().out


def test_the_warning_of_a_coroutine_that_was_never_awaited_names_cell_and_remedy(
    notebook: Notebook,
) -> None:
    notebook.run(FETCH)
    count = notebook.shell.execution_count

    with pytest.warns(RuntimeWarning, match="was never awaited") as caught:
        notebook.run("fetch() and None")

    (warning,) = caught
    assert f"In[{count}], line 1: calling fetch() only makes a coroutine" in str(warning.message)
    assert "put `await` in front" in str(warning.message)


def test_other_warnings_are_shown_as_they_are(notebook: Notebook) -> None:
    with pytest.warns(RuntimeWarning) as caught:
        notebook.run("import warnings; warnings.warn('coroutine', RuntimeWarning)")

    assert [str(warning.message) for warning in caught] == ["coroutine"]
