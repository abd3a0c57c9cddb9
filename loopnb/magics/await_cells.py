"""The texts of `%aloop` and `%%aloop`: what IPython makes of them, and what we make of a plain cell."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A plain `%%aloop` cell becomes an `await` cell. Its own frame is none of the user's, so it takes
#: itself out of the traceback: a bare `raise` does not put it back.
_HEAD = """\
try:
    await __import__("loopnb.magics.aloop").magics.aloop.run_cell("""
_TAIL = """)
except BaseException:
    __import__("sys").exception().__traceback__ = __import__("sys").exception().__traceback__.tb_next
    raise
"""


def rewritten(line: str, body: str) -> str:
    """Return the `await` cell for a plain `%%aloop` cell with that first line and body."""
    return f"{_HEAD}{line!r}, {body!r}{_TAIL}"


def patch_history(shell: Any) -> Patch:
    """Return the patch that has history hold a plain `%%aloop` cell like one of any other magic.

    `In[n]`, `%save` and `%macro` hold what IPython executes, for a magic its call. `%history` and
    `_i` hold what the user typed.
    """
    stock = shell.history_manager.store_inputs

    def store_inputs(line_num: int, source: str, source_raw: str | None = None) -> None:
        stock(line_num, _magics_call(source), source_raw)

    return Patch(shell.history_manager, "store_inputs", store_inputs)


def _magics_call(source: str) -> str:
    if not source.startswith(_HEAD):
        return source
    arguments, _, _rest = source.removeprefix(_HEAD).partition(_TAIL.rstrip())
    line, body = ast.literal_eval(f"({arguments})")
    return f"get_ipython().run_cell_magic('aloop', {line.strip()!r}, {body!r})\n"


def line_forms(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what stands behind each `%aloop` of a cell, and in which line."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr="run_line_magic"),
                args=[ast.Constant(value="aloop"), ast.Constant(value=str(line))],
            ):
                yield line, node.lineno
