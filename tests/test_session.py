"""What a session refuses before it looks at anything."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from loopnb.session import Session

NOTHING = cast("Any", None)


@pytest.mark.parametrize("method", [Session.run, Session.spawn])
@pytest.mark.parametrize(
    ("argument", "says"), [(42, "not 42 (int)"), (asyncio.sleep, "Call it: loopnb.{}(sleep())")]
)
def test_to_run_no_coroutine_is_a_type_error(method: Any, argument: object, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        method(NOTHING, argument)

    assert "takes a coroutine" in str(caught.value)
    assert says.format(method.__name__) in str(caught.value)
