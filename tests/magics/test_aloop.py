"""What `%aloop` and `%%aloop` display; the rest is in `tests/kernel/test_aloop.py`."""

from __future__ import annotations

import pytest

from loopnb.magics.options import AloopOptions, Request
from loopnb.magics.source import Source


@pytest.mark.parametrize("ends_with_semicolon", [False, True])
@pytest.mark.parametrize(
    ("is_background", "is_expression", "hides"),
    [
        (False, False, True),
        (False, True, True),
        (True, True, True),
        (True, False, False),  # the semicolon is about the value of the cell, and the handle is displayed
    ],
)
def test_a_semicolon_hides_what_it_stands_behind(
    is_background: bool, is_expression: bool, hides: bool, ends_with_semicolon: bool
) -> None:
    options = AloopOptions(None, is_background, None, None)
    source = Source([], "", "", has_value=True, is_quiet=ends_with_semicolon, is_expression=is_expression)

    assert Request(options, source, None).is_quiet == (hides and ends_with_semicolon)
