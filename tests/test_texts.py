"""Lines for the user are one line, whatever the user's objects do."""

from __future__ import annotations

import pytest

from loopnb.texts import error_text, repr_text, say, unquoted


class Unspeakable(Exception):
    """An error whose texts fail."""

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


def test_what_loopnb_says_bears_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    say("the loop goes on.")

    assert capsys.readouterr() == ("", "loopnb: the loop goes on.\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, ""),
        (ValueError(), "ValueError"),
        (ValueError("too\n  long"), "ValueError: too long"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError("x" * 1_000), f"ValueError: {'x' * 200}"),
        (Unspeakable(), "Unspeakable: (its text cannot be made)"),
    ],
)
def test_an_error_is_told_in_one_line(error: BaseException | None, text: str) -> None:
    assert error_text(error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("a" * 100, "'aaa"), (12, "12"), (Unspeakable(), "<Unspeakable, whose repr fails>")],
)
def test_a_repr_is_short_and_never_fails(value: object, text: str) -> None:
    assert repr_text(value, 4) == text


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("", ""),
        ("name", "name"),
        ("'a  b'", "a  b"),
        ('"it\'s"', "it's"),
        ("''", ""),
        ("'", "'"),
        ("'a", "'a"),
        ("'a\"", "'a\""),
        ("it's", "it's"),
    ],
)
def test_one_pair_of_quotes_around_all_of_it_is_taken_off(text: str, bare: str) -> None:
    assert unquoted(text) == bare
