"""The last lines that each task has printed, kept while a view is visible."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.tracking.tracked import has_origin
from loopnb.widgets.printed import MOST_LINES, Printed, kernel_streams

from .conftest import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loops import FastLoop

    from .conftest import Notebook


@pytest.fixture
def stream() -> Stream:
    """Standard output."""
    return Stream()


@pytest.fixture
def printed(loop: FastLoop, stream: Stream) -> Iterator[Printed]:
    """What is printed to the stream from now on."""
    printed = Printed(loop, lambda: [stream])
    printed.begin()
    yield printed
    printed.end()


def number_of(task: asyncio.Task[Any]) -> int:
    assert has_origin(task)
    return task.number


def print_in_task(kernel: Notebook, stream: Stream, *texts: Any) -> int:
    """Write the texts in a task, and return its number."""

    async def write() -> None:
        for text in texts:
            stream.write(text)

    task = kernel.spawn(write())
    kernel.loop.run_until_complete(task)
    return number_of(task)


def test_each_task_has_the_lines_that_it_has_printed(
    kernel: Notebook, stream: Stream, printed: Printed
) -> None:

    async def say(word: str) -> None:
        for count in range(3):
            print(word, count, file=stream)
            await asyncio.sleep(0)

    tasks = kernel.spawn_all([say("a"), say("b")], [None, None])
    kernel.loop.run_until_complete(asyncio.wait(tasks))

    assert [printed.lines(number_of(task)) for task in tasks] == [
        ["a 0", "a 1", "a 2"],
        ["b 0", "b 1", "b 2"],
    ]
    assert "".join(stream.sent).split() == ["a", "0", "b", "0", "a", "1", "b", "1", "a", "2", "b", "2"]


def test_only_the_last_lines_are_kept_and_each_is_cut(
    kernel: Notebook, stream: Stream, printed: Printed
) -> None:
    short = print_in_task(kernel, stream, *(f"line {count}\n" for count in range(1_000)))
    long = print_in_task(kernel, stream, "x" * 1_000_000, "\ntail")

    assert printed.lines(short) == [f"line {count}" for count in range(1_000 - MOST_LINES, 1_000)]
    assert [len(line) for line in printed.lines(long)] == [200, 4]
    assert printed.lines(long)[0].startswith("…x")


def test_the_tasks_that_have_printed_last_are_kept(
    kernel: Notebook, stream: Stream, printed: Printed
) -> None:
    numbers = [print_in_task(kernel, stream, "here") for _ in range(510)]

    assert printed.lines(numbers[0]) == []
    assert printed.lines(numbers[-1]) == ["here"]


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (["10 %", "\r20 %", "\r30 %"], ["30 %"]),
        (["one\r\n", "two\r\n"], ["one", "two"]),
        (["\x1b[31mred\x1b[0m\n"], ["red"]),
        (["\ud800\n"], ["?"]),
        (["a\n\nb"], ["a", "", "b"]),
        ([""], []),
    ],
)
def test_lines_are_shown_as_a_terminal_does(
    kernel: Notebook, stream: Stream, printed: Printed, texts: list[str], lines: list[str]
) -> None:
    assert printed.lines(print_in_task(kernel, stream, *texts)) == lines


def test_a_text_of_the_users_own_class_is_copied_without_calling_it(
    kernel: Notebook, stream: Stream, printed: Printed
) -> None:
    class Text(str):
        """A text that does as it likes."""

        def __getitem__(self, key: Any) -> str:
            raise RuntimeError

        __radd__ = __str__ = __len__ = __getitem__  # type: ignore[assignment]  # nothing may call these

    def write() -> tuple[int, weakref.ref[Text]]:
        text = Text("mine")
        return print_in_task(kernel, stream, text), weakref.ref(text)

    number, seen = write()
    kernel.tasks.clear()
    gc.collect()

    assert printed.lines(number) == ["mine"]
    assert seen() is None


def test_an_error_of_the_stream_is_the_printers(kernel: Notebook, stream: Stream, printed: Printed) -> None:
    async def write() -> None:
        with pytest.raises(TypeError, match="must be str"):
            stream.write(3)  # type: ignore[arg-type]  # the fault

    task = kernel.spawn(write())
    kernel.loop.run_until_complete(task)

    assert printed.lines(number_of(task)) == []


def test_what_no_task_of_the_loop_prints_is_nobodys(
    kernel: Notebook, stream: Stream, printed: Printed
) -> None:

    async def print_elsewhere() -> None:
        await asyncio.sleep(0)
        thread = threading.Thread(target=stream.write, args=("in a thread",))
        thread.start()
        thread.join()
        other = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        other.start()
        other.join()

    async def elsewhere() -> None:
        stream.write("on another loop")

    task = kernel.spawn(print_elsewhere())
    kernel.loop.run_until_complete(task)
    kernel.loop.call_soon(stream.write, "in a callback")
    kernel.loop.run_until_complete(asyncio.sleep(0))

    assert stream.sent == ["in a thread", "on another loop", "in a callback"]
    assert printed.lines(number_of(task)) == []


@pytest.mark.parametrize("echo", [None, Stream()])
def test_nothing_is_kept_and_no_trace_is_left_at_the_end(
    kernel: Notebook, stream: Stream, printed: Printed, echo: Stream | None
) -> None:
    printed.end()
    stream.echo = echo
    printed.begin()
    printed.begin()
    number = print_in_task(kernel, stream, "here")
    assert printed.lines(number) == ["here"]
    printed.end()
    printed.end()

    assert stream.echo is echo
    assert echo is None or echo.sent == ["here"]
    assert printed.lines(number) == []


@pytest.mark.parametrize("last", [0, 1])
def test_two_may_listen_and_end_in_any_order(kernel: Notebook, stream: Stream, last: int) -> None:
    both = [Printed(kernel.loop, lambda: [stream]) for _ in range(2)]
    for printed in both:
        printed.begin()
    number = print_in_task(kernel, stream, "here")
    both[1 - last].end()
    assert [printed.lines(number) for printed in both] == ([["here"], []] if last == 0 else [[], ["here"]])
    both[last].end()

    assert stream.echo is None


def test_somebody_elses_echo_stays(kernel: Notebook, stream: Stream, printed: Printed) -> None:
    above = stream.echo = Stream()
    printed.end()

    assert stream.echo is above


def test_without_a_kernels_streams_nothing_is_known(loop: FastLoop) -> None:
    printed = Printed(loop, kernel_streams)
    printed.begin()
    printed.end()

    assert kernel_streams() == []
    assert printed.lines(1) == []


def test_one_stream_under_two_names_is_heard_once_and_left_as_it_was(
    kernel: Notebook, loop: FastLoop, stream: Stream
) -> None:
    before = stream.echo
    printed = Printed(loop, lambda: [stream, stream])
    printed.begin()
    printed.begin()
    number = print_in_task(kernel, stream, "a\n")
    heard = printed.lines(number)
    printed.end()

    assert heard == ["a"]
    assert stream.echo is before


def test_a_stream_that_comes_later_is_heard_from_the_next_view_on(
    kernel: Notebook, loop: FastLoop, stream: Stream
) -> None:
    streams = [Stream()]
    printed = Printed(loop, lambda: streams)
    printed.begin()
    streams.append(stream)
    printed.begin()
    number = print_in_task(kernel, stream, "a\n")

    assert printed.lines(number) == ["a"]
    printed.end()
