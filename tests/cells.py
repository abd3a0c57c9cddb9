"""The text of cells, as tests write it."""

from __future__ import annotations

import re
import textwrap


def dedented(code: str) -> str:
    """Return *code* without its common indentation and without blank lines around it.

    The drivers do this to every cell, so a test indents a cell as the code around it. Call it yourself where
    the exact text matters: for a part of a cell, or for the id of a parametrized test.
    """
    return textwrap.dedent(code).strip("\n")


def filled(template: str, body: str) -> str:
    """Return *template*, dedented, with *body* in place of its line `{}`, indented as that line is.

    Use it for a body of several lines: an f-string indents only the first of them.
    """
    before, indent, after = re.split(r"^( *)\{\}$", dedented(template), maxsplit=1, flags=re.MULTILINE)
    return before + textwrap.indent(dedented(body), indent) + after


def below(first: str, body: str) -> str:
    """Return a cell whose first line is *first*, such as a magic, with *body* below it, dedented.

    Use it for a body that has a name. Others stand below that line in the text of the cell.
    """
    return f"{first}\n{dedented(body)}"


NESTED = dedented(
    """
    async def main():
        await asyncio.sleep(0)
        z = 5
        {}
    asyncio.run(main())
    """
)
"""A cell with a nested run, whose last lines are for `filled()`."""
