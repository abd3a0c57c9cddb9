"""Private modules of packages whose functions are patched, see `patches.py`.

Checked on anyio 4.16.0 and reloop 0.1.0. What a missing one would hold is not patched.
"""

from __future__ import annotations

#: The module of `anyio.run`.
ANYIO = "anyio._core._eventloop"
#: The module of anyio's `TestRunner` for asyncio.
ANYIO_ASYNCIO = "anyio._backends._asyncio"
#: The module of `reloop.apply`.
RELOOP = "reloop._patch"
