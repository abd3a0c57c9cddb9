"""Tasks of cells: what is listed, explained, cancelled, reported, replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.conftest import task_names
from tests.kernel.requests import without_ansi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver

DEFINITIONS = """
import asyncio, loopnb
async def tick():
    while True:
        await asyncio.sleep(0.01)
async def fail(delay=0):
    await asyncio.sleep(delay)
    raise ValueError('expected')
"""
MAIN = """
async def main():
    asyncio.create_task(tick(), name='ticker')
    await asyncio.sleep(0)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _nothing_left(kernel: KernelDriver) -> Iterator[None]:
    kernel.run(DEFINITIONS)
    yield
    kernel.run(
        """
        %loopnb cancel --all
        %config LoopNB.on_rerun = 'keep'
        """
    )
    kernel.run("await asyncio.sleep(0)")


@pytest.mark.parametrize("held", ["", "held = "])
def test_a_failed_task_is_named_in_its_cell_by_one_line(kernel: KernelDriver, held: str) -> None:
    cell = kernel.start(f"{held}asyncio.create_task(fail(), name='failing');")
    cell.wait().expect_ok()

    line = cell.wait_output("failing")

    assert line.count("\n") == 1
    assert "ValueError: expected" in line
    number = line.partition("%loopnb where ")[2].partition("'")[0]
    shown = kernel.run(f"%loopnb where {number}").stdout
    assert "raise ValueError" in without_ansi(shown)
    kernel.run("held = None; import gc; gc.collect()")
    assert "never retrieved" not in cell.text


def test_a_failure_during_the_cell_is_named_at_its_end(kernel: KernelDriver) -> None:
    result = kernel.run(
        """
        asyncio.create_task(fail(), name='failing')
        await asyncio.sleep(0.1)
        """
    )

    assert "'failing' failed: ValueError: expected" in result.stderr


def test_a_failure_that_a_later_cell_awaits_is_not_named(kernel: KernelDriver) -> None:
    cell = kernel.start("task = asyncio.create_task(fail(0.05), name='awaited')")
    cell.wait().expect_ok()

    kernel.run("await asyncio.gather(task, return_exceptions=True)")
    other = kernel.start("asyncio.create_task(fail(), name='another')")
    other.wait_output("'another' failed")  # what was due before has been said by now

    assert cell.text == ""


def test_what_asyncio_run_leaves_lives_on_and_is_said(kernel: KernelDriver) -> None:
    cell = kernel.run(MAIN)

    assert cell.stderr.count("\n") == 1
    assert "has left a task running: 'ticker'" in cell.stderr
    (note,) = kernel.value("[t.note for t in loopnb.tasks()]")
    assert note.startswith("left by asyncio.run() at In[")


@pytest.mark.parametrize(("setting", "left"), [("keep", 2), ("cancel", 1)])
def test_a_setting_says_what_becomes_of_leftovers(kernel: KernelDriver, setting: str, left: int) -> None:
    kernel.run(f"%config LoopNB.on_rerun = {setting!r}")
    for _ in range(2):
        kernel.run(MAIN, cell_id=f"leaving-{setting}")
    kernel.run("await asyncio.sleep(0)")

    notes = kernel.value("[t.note for t in loopnb.tasks()]")

    assert len(notes) == left
    assert sum("earlier run of its cell" in note for note in notes) == left - 1


CLEANS_UP = """
%config LoopNB.on_rerun = 'cancel'
async def leaves(ending):
    try:
        await asyncio.sleep(60)
    finally:
        asyncio.get_running_loop().call_soon(lambda: print('ending', flush=True))
        await ending()
"""
RERUN = dedented(
    """
    print('began', log)
    left = asyncio.create_task(leaves(clean_up), name='left')
    await asyncio.sleep(0)
    """
)


@pytest.mark.parametrize("code", [RERUN, RERUN.removesuffix("\nawait asyncio.sleep(0)")])
def test_a_rerun_waits_for_the_cleanup_of_what_it_cancels(kernel: KernelDriver, code: str) -> None:
    kernel.run(CLEANS_UP)
    kernel.run(
        """
        log = []
        async def clean_up():
            await asyncio.sleep(0.05); log.append('cleaned up')
        """
    )
    kernel.run(code, cell_id=f"cleans up {len(code)}")
    kernel.run("await asyncio.sleep(0)")

    cell = kernel.run(code, cell_id=f"cleans up {len(code)}")

    kernel.run(
        """
        left.cancel()
        await asyncio.wait([left])
        """
    )
    assert "began ['cleaned up']" in cell.stdout
    assert cell.stderr == ""


def test_a_rerun_waits_no_longer_than_the_setting_says(kernel: KernelDriver) -> None:
    kernel.run(CLEANS_UP)
    kernel.run(
        """
        %config LoopNB.rerun_grace = 0.05
        log = []
        clean_up = asyncio.Event().wait
        """
    )
    kernel.run(RERUN, cell_id="bounded")

    cell = kernel.run(RERUN, cell_id="bounded")

    kernel.run(
        """
        %config LoopNB.rerun_grace = 10.0
        %loopnb cancel --all
        """
    )
    assert "began" in cell.stdout
    assert "'left', left by the cell's earlier run, did not end within 0.05 s" in cell.stderr


def test_a_rerun_that_does_not_compile_cancels_nothing(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %config LoopNB.on_rerun = 'cancel'
        left = None
        """
    )
    kernel.run("left = asyncio.create_task(tick(), name='left')", cell_id="mistyped")

    assert kernel.execute("left = = asyncio", cell_id="mistyped").ename == "SyntaxError"

    assert not kernel.value("left.cancelling()")


def test_with_nesting_off_a_rerun_says_that_it_does_not_wait(kernel: KernelDriver) -> None:
    kernel.run(CLEANS_UP)
    kernel.run(
        """
        log = []
        clean_up = asyncio.Event().wait
        %loopnb nesting off
        """
    )
    kernel.run(RERUN, cell_id="off")

    cell = kernel.run(RERUN, cell_id="off")

    kernel.run(
        """
        %loopnb nesting handoff
        %loopnb cancel --all
        """
    )
    assert "began" in cell.stdout
    assert "'left', left by the cell's earlier run, may still be ending: nesting is off" in cell.stderr


@pytest.mark.parametrize("code", [RERUN, RERUN.removesuffix("\nawait asyncio.sleep(0)")])
def test_an_interrupt_while_a_rerun_waits_ends_it_and_the_cell_is_not_run(
    kernel: KernelDriver, code: str
) -> None:
    kernel.run(CLEANS_UP)
    kernel.run(
        """
        log = []
        end = asyncio.Event()
        async def clean_up():
            await end.wait(); log.append('cleaned up')
        """
    )
    earlier = kernel.run(code, cell_id=f"interrupted {len(code)}").cell
    kernel.run("await asyncio.sleep(0)")
    cell = kernel.start(code, cell_id=f"interrupted {len(code)}")
    earlier.wait_output("ending")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt"
    assert "still ending: 'left'" in result.traceback
    assert "began" not in cell.text
    assert task_names(kernel) == ["left"]
    # It is not cancelled once more, which would cut its cleanup short.
    kernel.run("asyncio.get_running_loop().call_later(0.05, end.set);")
    assert "began ['cleaned up']" in kernel.run(code, cell_id=f"interrupted {len(code)}").stdout


def test_tasks_of_a_cell_are_those_of_all_its_runs(kernel: KernelDriver) -> None:
    for name in ("one", "two"):
        count = kernel.run(f"asyncio.create_task(tick(), name='{name}');", cell_id="same").execution_count
    kernel.run("asyncio.create_task(tick(), name='other');")

    shown = kernel.run(f"%loopnb tasks --cell {count}").stdout
    assert "one" in shown
    assert "two" in shown
    assert "other" not in shown
    kernel.run(f"%loopnb cancel --cell {count}")
    kernel.run("await asyncio.sleep(0)")
    assert task_names(kernel) == ["other"]


def test_finished_tasks_are_listed(kernel: KernelDriver) -> None:
    kernel.run("await asyncio.create_task(asyncio.sleep(0), name='finished-one')")
    kernel.run("asyncio.create_task(tick(), name='live-one');")

    finished = kernel.run("%loopnb tasks --finished").stdout
    assert "finished-one" in finished
    assert "live-one" not in finished
    every = kernel.run("%loopnb tasks --all").stdout
    assert "finished-one" in every
    assert "live-one" in every
    assert "Kernel." in every  # the task that runs this very cell


def test_a_list_of_ten_thousand_tasks_is_stored_as_a_short_table(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio, loopnb
        many = [asyncio.create_task(asyncio.sleep(600), name=f'job-{n}') for n in range(10_000)]
        await asyncio.sleep(0)
        """
    )
    [output] = fresh_kernel.run("listed = loopnb.tasks(); listed").cell.outputs
    html, text = (output.content["data"][name] for name in ("text/html", "text/plain"))

    assert output.msg_type == "execute_result"
    assert fresh_kernel.value("len(listed)") == 10_000
    assert html.partition("<tbody>")[2].count("<tr>") == 200  # `rows_shown`
    assert len(text.splitlines()) == 202  # with the titles, and what is left out
    for stored in (html, text):
        assert "9,800 more tasks are not shown." in stored
        assert "job-199" in stored
        assert "job-200" not in stored
    # Tags and style take 250 bytes of a row.
    assert len(html.encode()) < 60_000
    assert len(text.encode()) < 20_000


def test_where_goes_down_to_what_is_waited_for(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def leaf(): await asyncio.sleep(60)
        async def top():
            async with asyncio.TaskGroup() as group:
                group.create_task(leaf(), name='leaf')
        asyncio.create_task(top(), name='top');
        """
    )

    shown = kernel.run("%loopnb where top").stdout
    assert "spawned by In[" in shown
    assert "'leaf'" in shown
    assert re.search(r"await asyncio\.sleep\(60\)\n.*\n +waits for sleep, \d.* left", shown)
    assert "'top' (waiting)" in kernel.run("%loopnb where leaf").stdout


def test_where_gives_the_kernels_own_tasks_no_number(kernel: KernelDriver) -> None:
    """Theirs have 13 digits, and no command takes them."""
    shown = kernel.run(
        """
        async def follow(cell): await asyncio.wait([cell])
        follower = asyncio.create_task(follow(asyncio.current_task()), name='follower')
        await asyncio.sleep(0)
        %loopnb where follower
        """
    ).stdout

    assert re.search(r"^    task '[^']+'$", shown, re.MULTILINE)


def test_cancelling_all_spares_the_task_that_does_it(kernel: KernelDriver) -> None:
    kernel.run("asyncio.create_task(tick(), name='ticker');")

    result = kernel.run(
        """
        %%aloop -n mine
        %loopnb cancel --all
        await asyncio.sleep(0)
        'went on'
        """
    )

    assert result.result == "'went on'"
    assert task_names(kernel) == []


def test_a_task_spawned_by_hand_is_said_to_come_from_the_users_line(kernel: KernelDriver) -> None:
    cell = kernel.run("task = loopnb.spawn(tick(), name='spawned')")

    site = kernel.value("[t.spawn_site for t in loopnb.tasks() if t.name == 'spawned'][0]")
    assert site == f"In[{cell.execution_count}], line 1"


def test_cancelling_all_spares_those_that_wait_for_it(kernel: KernelDriver) -> None:
    result = kernel.run(
        """
        %%aloop
        async def inner():
            get_ipython().run_line_magic('loopnb', 'cancel --all')
            await asyncio.sleep(0)
            return 'went on'
        await asyncio.sleep(0)
        asyncio.run(inner())
        """
    )

    assert result.result == "'went on'"


def test_the_handle_of_a_background_cell_says_what_it_does(kernel: KernelDriver) -> None:
    shown = kernel.run(
        """
        %%aloop -b -n feed -o handle
        await asyncio.sleep(60)
        """
    )

    assert shown.result.startswith(
        f"<Task 'feed' waiting for sleep() at In[{shown.execution_count}], line 2, "
    )
    assert kernel.value("[t.coro for t in loopnb.tasks()]") == [f"In[{shown.execution_count}]"]
    kernel.run("handle.cancel()")
    kernel.run("await asyncio.sleep(0)")
    assert kernel.run("handle").result == "<Task 'feed' cancelled>"


def test_keep_allows_several_runs_of_a_cell(kernel: KernelDriver) -> None:
    for _ in range(2):
        kernel.run(
            """
            %%aloop -b --keep
            await tick()
            """,
            cell_id="several",
        )

    assert len(task_names(kernel)) == 2


def test_replace_takes_over_a_name(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n taken
        await tick()
        """,
        cell_id="owner",
    )

    kernel.run(
        """
        %%aloop -b -n taken --replace
        await tick()
        """,
        cell_id="taker",
    )

    assert task_names(kernel) == ["taken"]


def test_without_an_id_an_unnamed_cell_is_known_by_its_text(kernel: KernelDriver) -> None:
    for _ in range(2):
        kernel.run(
            """
            %%aloop -b
            await tick()  # the same
            """,
            cell_id="",
        )
    kernel.run(
        """
        %%aloop -b
        await tick()  # another
        """,
        cell_id="",
    )

    assert len(task_names(kernel)) == 2


def test_what_a_background_cell_displays_goes_to_that_cell(kernel: KernelDriver) -> None:
    kernel.run("go = asyncio.Event()")
    cell = kernel.run(
        """
        %%aloop -b -o handle
        from IPython.display import display
        await go.wait()
        display('late display')
        """
    ).cell

    other = kernel.run("go.set(); await handle")

    assert "late display" in cell.wait_late("late display")
    assert other.displays == ()


def test_a_timeout_of_a_background_cell_says_where_it_waited(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        %%aloop -b -n slow -t 0.05
        await asyncio.sleep(60)
        """
    )
    cell.wait().expect_ok()

    shown = cell.wait_output("TimeoutError")
    assert "it was waiting for sleep() at In[" in shown
    assert "loopnb" not in shown


def test_a_background_cell_that_was_late_is_told_of_alike_everywhere(kernel: KernelDriver) -> None:
    cell = kernel.start(below("%%aloop -b -n late -t 0.05 --out=handle", "await asyncio.sleep(60)"))
    cell.wait().expect_ok()
    cell.wait_output("TimeoutError")

    assert kernel.execute("await handle").ename == "TimeoutError"
    assert "raised: TimeoutError" in kernel.run("handle").result
    found = kernel.value("[(t.state, t.error) for t in loopnb.tasks(finished=True) if t.name == 'late']")
    assert [state for state, _error in found] == ["raised"]
    assert found[0][1].startswith("TimeoutError: ")


def test_a_cell_that_was_late_is_listed_as_it_was_shown(kernel: KernelDriver) -> None:
    assert kernel.execute(below("%%aloop -n slow -t 0.05", "await asyncio.sleep(9)")).ename == "TimeoutError"

    (found,) = kernel.value("[t.state for t in loopnb.tasks(finished=True) if t.name == 'slow'][-1:]")
    assert found == "raised"


def test_a_task_that_is_dropped_while_it_waits_is_told_of_in_its_cell(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        import asyncio, gc, loopnb
        gc.disable()  # until the cell has ended
        async def forever():
            await asyncio.get_running_loop().create_future()
        asyncio.create_task(forever(), name="lost"); loopnb.spawn(forever(), name="kept")
        await asyncio.sleep(0)
        """
    )
    number = cell.wait().expect_ok().execution_count
    other = kernel.run("gc.enable(); _ = gc.collect()")
    line = cell.wait_late("loopnb.spawn()")

    assert f"spawned at In[{number}], line 5, was dropped while it waited at In[{number}], line 4:" in line
    assert "destroyed" not in line + other.stderr + kernel.log()
    assert kernel.value("[t.state for t in loopnb.tasks(finished=True) if t.name == 'lost']") == ["dropped"]
    assert kernel.value("[t.state for t in loopnb.tasks() if t.name == 'kept']") == ["waiting"]
    assert f"  waited at In[{number}], line 4\n" in kernel.run("%loopnb where lost").stdout
    kernel.run("%loopnb cancel kept")


def test_a_task_that_is_dropped_in_its_own_cell_tells_where_it_waited(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        import asyncio, gc
        async def forever():
            await asyncio.get_running_loop().create_future()
        asyncio.create_task(forever(), name="lost early")
        await asyncio.sleep(0)
        _ = gc.collect()
        """
    )
    ended = cell.wait().expect_ok()

    place = f"In[{ended.execution_count}]"
    assert f"spawned at {place}, line 4, was dropped while it waited at {place}, line 3:" in ended.stderr


def test_settings_are_taken_back_on_unload(kernel: KernelDriver) -> None:
    assert "LoopNB" in kernel.run("%config").stdout

    kernel.run("%unload_ext loopnb")

    assert "LoopNB" not in kernel.run("%config").stdout
    kernel.run("%load_ext loopnb")


def test_cells_of_the_same_text_are_told_apart(kernel: KernelDriver) -> None:
    code = dedented(
        """
        async def main():
            held.append(asyncio.create_task(tick()))
        asyncio.run(main())
        """
    )
    kernel.run("held = []")
    counts = [kernel.run(code, cell_id=cell).execution_count for cell in ("one", "other", "one")]

    found = kernel.value("[(t.spawn_site, t.note.partition(';')[0]) for t in loopnb.tasks()]")

    assert found == [(f"In[{n}], line 2", f"left by asyncio.run() at In[{n}], line 3") for n in counts]
    shown = kernel.run("%loopnb where " + kernel.value("str(loopnb.tasks()[0].number)")).stdout
    assert f"spawned by In[{counts[0]}] at In[{counts[0]}], line 2" in shown


@pytest.mark.parametrize("options", ["", "-b --keep"])
def test_aloop_cells_of_the_same_text_are_told_apart(kernel: KernelDriver, options: str) -> None:
    kernel.run("held = []")
    code = dedented(
        f"""
        %%aloop {options}
        held.append(asyncio.create_task(tick()))
        await asyncio.sleep(0)
        """
    )
    counts = [kernel.run(code, cell_id=cell).execution_count for cell in ("one", "other", "one")]

    sites = kernel.value("[t.spawn_site for t in loopnb.tasks() if t.coro == 'tick']")

    assert sites == [f"In[{n}], line 2" for n in counts]


def test_what_the_loop_itself_spawns_has_no_place(kernel: KernelDriver) -> None:
    found = kernel.run(
        """
        import functools
        loop = asyncio.get_running_loop()
        seen = []
        async def handler(reader, writer):
            seen.append(asyncio.current_task()); writer.close()
        async with await asyncio.start_server(handler, '127.0.0.1', 0) as server:
            await asyncio.open_connection(*server.sockets[0].getsockname())
            while not seen: await asyncio.sleep(0.01)
        loop.call_later(0.01, functools.partial(asyncio.create_task, tick(), name='later'))
        await asyncio.sleep(0.05)
        [t.spawn_site for t in loopnb.tasks() if t.name == 'later'], len(seen)
        """
    )

    assert found.result == "([''], 1)"


def test_what_a_left_task_spawns_in_turn_is_not_left_by_the_run(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        async def server():
            while True:
                asyncio.create_task(asyncio.sleep(5), name='conn')
                await asyncio.sleep(0.02)
        async def main():
            asyncio.create_task(server(), name='server'); await asyncio.sleep(0)
        asyncio.run(main())
        """
    )
    cell.wait().expect_ok()
    for _ in range(3):
        kernel.run("await asyncio.sleep(0.05)")

    assert cell.text.count("has left") == 1
    notes = kernel.value("{t.name: t.note for t in loopnb.tasks()}")
    assert "left by asyncio.run()" in notes["server"]
    assert "left by asyncio.run()" not in notes["conn"]  # of the newest of that name


def test_a_name_that_the_cells_earlier_run_has_given_is_no_other_cells(kernel: KernelDriver) -> None:
    code = dedented(
        """
        %%aloop -b -n own
        child = asyncio.create_task(tick(), name='own')
        await asyncio.sleep(60)
        """
    )
    kernel.run(code, cell_id="one")
    first = kernel.value("id(child)")

    kernel.run(code, cell_id="one")

    assert kernel.value("id(child)") != first


MINE = dedented(
    """
    def mine(loop, coro, **options): return asyncio.Task(coro, loop=loop, **options)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(mine)
    """
)


def test_tasks_of_the_users_own_factory_have_their_cell_and_place(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, loopnb")
    kernel.run(MINE)
    count = kernel.run(
        """
        async def main():
            asyncio.create_task(asyncio.sleep(60), name='left')
        asyncio.run(main())
        """
    ).execution_count

    status = kernel.run("%loopnb").stdout
    where = kernel.run("%loopnb where left").stdout

    assert "task factory is mine" in status
    assert f"spawned by In[{count}] at In[{count}], line 2" in where
    assert f"left by asyncio.run() at In[{count}], line 3" in where
    assert kernel.value("loop.get_task_factory() is mine") is True
    cell = kernel.start(
        """
        async def says():
            print('waits', flush=True)
            await asyncio.sleep(60)
        own = asyncio.create_task(says())
        await own
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()
    cell.wait()
    assert kernel.value("own.cancelled()") is True
    kernel.run("loop.set_task_factory(None)")


def test_the_users_own_factory_stays_over_loading_and_unloading(unloaded_kernel: KernelDriver) -> None:
    unloaded_kernel.run("import asyncio")
    unloaded_kernel.run(MINE)
    for command in ("%load_ext", "%reload_ext", "%unload_ext"):
        unloaded_kernel.run(f"{command} loopnb")
        assert unloaded_kernel.value("loop.get_task_factory() is mine") is True
    assert unloaded_kernel.value("loop._task_factory is mine") is True

    unloaded_kernel.run("%load_ext loopnb")
    unloaded_kernel.run("loop.set_task_factory(None)")
    assert "task factory" not in unloaded_kernel.run("%loopnb").stdout
    unloaded_kernel.run("%unload_ext loopnb")
    assert unloaded_kernel.value("loop.get_task_factory() is None") is True
