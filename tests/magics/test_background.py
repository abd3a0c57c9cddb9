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


SERVER = below(
    "%%aloop -b -n server",
    """
    server = await asyncio.start_server(answers, "127.0.0.1", port)
    port = server.sockets[0].getsockname()[1]
    worker = asyncio.create_task(asyncio.Event().wait(), name="worker")
    loopnb.spawn(asyncio.Event().wait(), name="stays")
    ready.set()
    await asyncio.Event().wait()
    """,
)
DEFINE_SERVER = """
import socket
port, handled, ready = 0, [], asyncio.Event()
async def answers(reader, writer):
    handled.append(asyncio.current_task())
    writer.write(b"hello")
    await reader.read()
async def connect():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.readexactly(5) == b"hello"
    return reader, writer
async def is_closed(reader, writer):
    left = await reader.read()
    writer.close()
    await writer.wait_closed()
    return left == b""
def is_free():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try: taken.bind(("127.0.0.1", port))
        except OSError: return False
    return True
"""


def start_server(notebook: Notebook, cell: str = SERVER) -> None:
    notebook.run("ready.clear()")
    notebook.run(cell, cell_id="1")
    notebook.run("await ready.wait()")


def test_a_cancelled_run_takes_its_servers_and_tasks_along(notebook: Notebook) -> None:
    notebook.run(DEFINE_SERVER)
    start_server(notebook)
    notebook.run("connection = await connect()")
    notebook.run("assert not is_free()")

    notebook.run("%loopnb cancel server")

    notebook.run("assert await is_closed(*connection)")
    notebook.run("assert is_free()")
    assert names() == ["stays"]
    assert notebook.value("worker").cancelled()
    assert not notebook.value("handled")[0].cancelled()  # it has read the end of its connection


DATAGRAMS = below(
    "%%aloop -b -n datagrams",
    """
    open_endpoint = asyncio.get_running_loop().create_datagram_endpoint
    server, _ = await open_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", port))
    port = server.get_extra_info("sockname")[1]
    client, _ = await open_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port))
    clients.append(client)
    ready.set()
    await asyncio.Event().wait()
    """,
)


def test_running_its_cell_again_replaces_a_server_of_datagrams_and_spares_clients(notebook: Notebook) -> None:
    notebook.run("port, clients, ready = 0, [], asyncio.Event()")
    start_server(notebook, DATAGRAMS)
    first = notebook.value("server"), notebook.value("port")
    start_server(notebook, DATAGRAMS)  # with the same port

    assert first[0].is_closing()
    assert notebook.value("port") == first[1]
    notebook.run("%loopnb cancel datagrams")
    notebook.run("await asyncio.sleep(0)")
    assert notebook.value("server").is_closing()
    assert [client.is_closing() for client in notebook.value("clients")] == [False, False]
    notebook.run("for client in clients: client.close()")
    notebook.run("await asyncio.sleep(0)")


def test_running_its_cell_again_replaces_a_server(notebook: Notebook) -> None:
    notebook.run(DEFINE_SERVER)
    start_server(notebook)
    first = notebook.value("server"), notebook.value("port"), notebook.value("worker")
    notebook.run("connection = await connect()")
    start_server(notebook)  # with the same port

    notebook.run("assert await is_closed(*connection)")
    assert notebook.value("server") is not first[0]
    assert notebook.value("port") == first[1]
    assert first[2].cancelled()
    notebook.run("connection = await connect()")
    notebook.run("%loopnb cancel server")
    notebook.run("assert await is_closed(*connection)")


def test_a_new_run_waits_for_the_tasks_that_the_earlier_one_has_left(notebook: Notebook) -> None:
    notebook.run(
        """
        ended = []
        async def cleans_up():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                ended.append("child")
        """
    )
    cell = below(
        "%%aloop -b -n parent",
        """
        seen = list(ended)
        asyncio.create_task(cleans_up())
        await asyncio.sleep(0)
        await asyncio.Event().wait()
        """,
    )
    notebook.run(cell, cell_id="1")
    notebook.run(cell, cell_id="1")

    assert notebook.value("seen") == ["child"]


def test_a_run_that_returns_says_what_ends_with_it(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(DEFINE_SERVER)
    start_server(notebook, SERVER.rpartition("\n")[0])
    notebook.run("await asyncio.wait([worker])")

    assert names() == ["stays"]
    port = notebook.value("port")
    said = capsys.readouterr().err
    assert "'server' has returned, and its task 'worker' and its server on" in said
    assert f"127.0.0.1:{port} end with it" in said


def test_a_run_that_returns_leaves_what_it_is_told_to_keep(notebook: Notebook) -> None:
    notebook.run(
        """
        %%aloop -b --keep
        task = asyncio.create_task(asyncio.Event().wait(), name="task")
        await asyncio.sleep(0)
        """
    )
    notebook.run("for _ in range(5): await asyncio.sleep(0)")

    assert names() == ["task"]


def test_a_background_run_begun_in_another_one_lives_on(notebook: Notebook) -> None:
    notebook.run(
        below(
            "%%aloop -b -n outer",
            """
            get_ipython().run_cell_magic("aloop", "-b -n inner", "await asyncio.Event().wait()")
            await asyncio.Event().wait()
            """,
        )
    )
    notebook.run("%loopnb cancel outer")
    notebook.run("await asyncio.sleep(0)")

    assert names() == ["inner"]


def test_a_server_that_a_plain_cell_has_started_stays(notebook: Notebook) -> None:
    notebook.run(DEFINE_SERVER)
    notebook.run(background("-n other"))
    notebook.run("server = await asyncio.start_server(answers, '127.0.0.1', 0)")
    notebook.run("%loopnb cancel other")
    notebook.run("await asyncio.sleep(0)")

    assert notebook.value("server").is_serving()
    notebook.run("server.close()")


def test_an_error_of_starting_a_server_shows_no_frame_of_loopnb(notebook: Notebook) -> None:
    notebook.run(DEFINE_SERVER)
    error = notebook.error("await asyncio.start_server(answers, '127.0.0.1', -1)")

    files = []
    traceback = error.__traceback__
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    assert not [name for name in files if "loopnb" in name]
