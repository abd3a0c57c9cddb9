"""Even out what differs between versions of IPython for code that follows cells.

Checked on IPython 7.34.0, 8.14.0, 8.30.0, 8.37.0 and 9.18.1.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from loopnb.patching import Patch, PatchSet, looking_like

#: By compiler: the number of the newest cell with each file name, if IPython does not keep it. It outlives a
#: reload of loopnb, since tasks do.
_numbers: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()


def counts_at_start(shell: Any) -> bool:
    """Return True if IPython counts a cell when it begins, and False if it does when the cell has ended.

    From 9.8 on `shell.execution_count` is that of the next cell while a cell executes; before, it is that of
    the cell. `DisplayHook.prompt_count` is that of the cell in all versions, so the difference tells.
    """
    return bool(shell.displayhook.prompt_count == shell.execution_count - 1)


def patch_notes(shell: Any) -> PatchSet:
    """Return the patches that make *shell* show the notes of errors (PEP 678).

    IPython shows them itself from 8.14 on. Before, `VerboseTB.format_exception` returns the last lines for an
    error as a list, whose first entry IPython shows. `ListTB._format_exception_only` does the same for the
    modes Plain and Minimal and for syntax errors. Where there is neither, nothing is patched.
    """
    formatters = [getattr(shell, name, None) for name in ("InteractiveTB", "SyntaxTB")]
    names = ("format_exception", "_format_exception_only")
    found = [(owner, name) for owner in formatters for name in names if hasattr(owner, name)]
    if not found or _shows_notes(*found[0]):
        return PatchSet()
    return PatchSet(*(Patch(owner, name, _with_notes(getattr(owner, name))) for owner, name in found))


def _shows_notes(owner: Any, name: str) -> bool:
    error = ValueError()
    error.add_note("a note")
    return "a note" in "".join(getattr(owner, name)(ValueError, error))


def _with_notes(stock: Any) -> Any:
    def format_exception(etype: Any, error: Any) -> list[str]:
        lines: list[str] = stock(etype, error)
        notes = getattr(error, "__notes__", None)
        if lines and isinstance(notes, list):
            text = lines[-1].removesuffix("\n")
            end = lines[-1][len(text) :]
            lines[-1] = "\n".join([text, *map(str, notes)]) + end
        return lines

    return looking_like(stock, format_exception)


class CellFiles:
    """Knows which file names stand for cells, and the number of the newest cell with such a name.

    From IPython 8.7 on, `CachingCompiler.format_code_name` tells, and from 8.0 on `_filename_map`. Older
    versions tell nothing. So this notes the number when IPython caches the source of a cell, and does not
    know cells that ran before loopnb was first loaded.

    Args:
        shell: The shell.

    Attributes:
        patches: The patches that note the numbers; empty where IPython does so. Install them to follow cells.
    """

    def __init__(self, shell: Any) -> None:
        self._compiler = shell.compile
        is_told = hasattr(self._compiler, "format_code_name") or hasattr(self._compiler, "_filename_map")
        self._numbers = {} if is_told else _numbers.setdefault(self._compiler, {})
        self.patches = PatchSet() if is_told else PatchSet(Patch(self._compiler, "cache", self._noting()))

    def label(self, filename: str) -> str | None:
        """Return `In[4]` for the file name of a cell, and None for any other. Any thread."""
        format_code_name = getattr(self._compiler, "format_code_name", None)
        if format_code_name is not None:
            label = format_code_name(filename)
            return None if label is None else str(label[1])
        number = getattr(self._compiler, "_filename_map", self._numbers).get(filename)
        return None if number is None else f"In[{number}]"

    def _noting(self) -> Any:
        stock = self._compiler.cache

        def cache(transformed_code: str, number: int = 0, raw_code: str | None = None) -> Any:
            name = stock(transformed_code, number, raw_code)
            self._numbers[name] = number
            return name

        return looking_like(stock, cache)
