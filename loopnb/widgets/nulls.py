"""Send JSON's null in messages, and read it, where None is not null.

In Pyodide, None becomes `undefined`, and JupyterLite's kernel leaves out what is undefined. So the view would
never hear that no cell runs any more. A null of the view's comes as a value of its own.
"""

from __future__ import annotations

import sys
from typing import Any

#: The value that becomes null in JavaScript, and that null becomes. None everywhere but in Pyodide.
_null: Any = getattr(sys.modules.get("pyodide.ffi"), "jsnull", None)


def to_view(content: Any) -> Any:
    """Return a message of the kernel's in the form in which it is sent. Any thread."""
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
