"""Notes are added to all errors that are shown together, once, and never fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loopnb.shell.error_notes import ErrorNotes

NOTE = "Divide by something else."


def explain(error: BaseException) -> str | None:
    return NOTE if isinstance(error, ZeroDivisionError) else None


def fails(error: BaseException) -> str | None:
    raise ValueError(str(error))


@pytest.fixture
def shell() -> SimpleNamespace:
    """Stand in for a shell: it keeps what it is told to show."""
    shell = SimpleNamespace(shown=[])

    def showtraceback(exc_tuple: Any = None, tb_offset: int | None = None) -> None:
        shell.shown.append((exc_tuple, tb_offset))

    shell.showtraceback = showtraceback
    return shell


@pytest.fixture
def notes(shell: SimpleNamespace) -> ErrorNotes:
    return ErrorNotes(shell, [fails, explain])


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def test_causes_contexts_and_members_of_groups_have_their_notes(notes: ErrorNotes) -> None:
    cause, context, member = ZeroDivisionError(), ZeroDivisionError(), ZeroDivisionError()
    first = KeyError()
    first.__cause__, first.__context__ = cause, ZeroDivisionError()
    second = KeyError()
    second.__context__ = context
    group = ExceptionGroup("several", [first, second, ExceptionGroup("inner", [member])])

    assert notes.add_to(group) == [NOTE]
    assert [notes_of(error) for error in (cause, context, member)] == [[NOTE]] * 3
    assert notes_of(group) == notes_of(first) == notes_of(first.__context__) == []


def test_what_is_shown_twice_has_its_note_once(notes: ErrorNotes) -> None:
    error = ZeroDivisionError("by 0")

    assert notes.line(error) == notes.line(error) == "ZeroDivisionError: by 0. Divide by something else"
    assert notes_of(error) == [NOTE]


def test_an_error_that_is_its_own_cause_ends(notes: ErrorNotes) -> None:
    first, second = KeyError(), ZeroDivisionError()
    first.__context__, second.__context__ = second, first

    assert notes.add_to(first) == [NOTE]


@pytest.mark.parametrize("error", [None, KeyError("k")])
def test_without_a_note_a_line_is_the_errors_own(notes: ErrorNotes, error: BaseException | None) -> None:
    assert notes.line(error) == ("" if error is None else "KeyError: 'k'")


def test_the_shell_shows_the_error_being_handled_or_the_one_it_is_given(
    notes: ErrorNotes, shell: SimpleNamespace
) -> None:
    stock = shell.showtraceback
    handled, given = ZeroDivisionError(), ZeroDivisionError()
    notes.start()
    try:
        raise handled
    except ZeroDivisionError:
        shell.showtraceback()
    shell.showtraceback((type(given), given, None), tb_offset=1)
    shell.showtraceback()  # nothing is being handled

    assert notes_of(handled) == notes_of(given) == [NOTE]
    assert shell.shown == [(None, None), ((ZeroDivisionError, given, None), 1), (None, None)]
    notes.stop()
    assert shell.showtraceback is stock


class OldFormatter:
    """Formats the end of a traceback as IPython does before 8.14: without notes."""

    def format_exception(self, etype: type, error: BaseException) -> list[str]:
        return [f"{etype.__name__}: {error}"]

    def _format_exception_only(self, etype: type, error: BaseException) -> list[str]:
        return [f"{etype.__name__}: {error}\n"]


def test_a_shell_that_shows_no_notes_is_made_to_show_them(shell: SimpleNamespace) -> None:
    formatter = shell.InteractiveTB = OldFormatter()
    notes = ErrorNotes(shell, [explain])
    error = ValueError("mine")
    error.add_note("first")
    error.add_note("second")

    notes.start()

    assert formatter.format_exception(ValueError, error) == ["ValueError: mine\nfirst\nsecond"]
    assert formatter._format_exception_only(ValueError, error) == ["ValueError: mine\nfirst\nsecond\n"]
    notes.stop()
    assert vars(formatter) == {}


def test_a_shell_that_shows_notes_itself_formats_errors_as_ever(shell: SimpleNamespace) -> None:
    class Formatter(OldFormatter):
        def format_exception(self, etype: type, error: BaseException) -> list[str]:
            return [*super().format_exception(etype, error), *getattr(error, "__notes__", ())]

    formatter = shell.InteractiveTB = Formatter()

    ErrorNotes(shell, [explain]).start()

    assert vars(formatter) == {}


def test_an_interrupt_while_an_error_is_shown_ends_that_only(shell: SimpleNamespace) -> None:
    def interrupted(exc_tuple: Any = None) -> None:
        raise KeyboardInterrupt

    shell.showtraceback = interrupted
    notes = ErrorNotes(shell, [])
    notes.start()

    shell.showtraceback()
