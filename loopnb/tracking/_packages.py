"""Private names of aiohttp and httpx that tell what a task waits for.

Checked on aiohttp 3.14.5 and httpx 0.28.1.
"""

from __future__ import annotations

#: Functions that wait, see `waits.Rule`. If one is missing, its waits are called by the function that waits.
PRIVATE_WAITS: dict[tuple[str, str], tuple[str, int]] = {
    ("aiohttp", "ClientSession._request"): ("request", 1),
}

#: The attributes that lead from a response to its URL, which aiohttp's has itself and httpx's request has. If
#: they are missing, the wait is told without the URL.
URL_OF_RESPONSE = "_url"
REQUEST_OF_RESPONSE = "_request"
