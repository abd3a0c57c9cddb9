"""JSON's null in messages, where None is something else.

Pyodide makes `undefined` of None, and JupyterLite's kernel leaves out what is undefined: the view would never
hear that there is no cell any more. What the view sends as null comes as a value of its own.
"""

from __future__ import annotations

import sys
from typing import Any

#: What becomes null in JavaScript, and what null becomes. Everywhere but in Pyodide that is None.
_null: Any = getattr(sys.modules.get("pyodide.ffi"), "jsnull", None)


def to_view(content: Any) -> Any:
    """Return a message of the kernel's as it is to be sent. Any thread."""
    return content if _null is None else _exchanged(content, None, _null)


def from_view(content: Any) -> Any:
    """Return a view's message as it was meant. Any thread."""
    return content if _null is None else _exchanged(content, _null, None)


def _exchanged(value: Any, old: Any, new: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exchanged(member, old, new) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exchanged(member, old, new) for member in value]
    return new if value is old else value
