"""Parts of IPython that magics need and not every version has. Checked on IPython 7.34.0 to 9.18.1."""

from __future__ import annotations

import io
import tokenize
from typing import Any

#: What may follow the last token of a cell's code.
_ENDS = (tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.DEDENT)


def ends_with_semicolon(shell: Any, code: str) -> bool:
    """Return True if *code*, which compiles, ends with a semicolon, so that its value is not displayed.

    `DisplayHook.semicolon_at_end_of_expression` from 8.11 on. Before, `DisplayHook.quiet` asks the same of
    the newest cell of the history only.
    """
    ask = getattr(shell.displayhook, "semicolon_at_end_of_expression", None)
    if ask is not None:
        return bool(ask(code))
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):  # `!ls` and its like are no Python before they are transformed
        return code.rstrip().endswith(";")
    last = next((token for token in reversed(tokens) if token.type not in _ENDS), None)
    return last is not None and last.type == tokenize.OP and last.string == ";"
