"""What is said of servers that runs of cells have left."""

from __future__ import annotations

import pytest

from loopnb.magics.servers import address_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 8000), "127.0.0.1:8000"),
        (("::1", 8000, 0, 0), "[::1]:8000"),
        ("/tmp/a.sock", "/tmp/a.sock"),
        ("", ""),
    ],
)
def test_a_server_is_named_as_people_write_it(name: object, text: str) -> None:
    assert address_text(name) == text
