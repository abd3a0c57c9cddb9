"""The browser's side as anywidget takes it: one text for the script, one for the style.

The script is a few ES modules, each a story of its own, that a browser or Node can load as they are, and
anywidget serves a single text. So they are joined here: a module follows those that it imports, and the lines
that import them go. That takes no bundler, because each import is one statement and no name is used twice at
the top of two modules. `tests/widget/test_front_end.py` checks both.
"""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"

_IMPORT = re.compile(r"""^import \{[^}]*\} from "\./(\w+\.js)";\n""", re.MULTILINE)

#: Comments that have lines of their own. Each widget's message would carry them, and a saved notebook, too.
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)


def joined(entry: str) -> str:
    """Return the text of the module *entry* and of all that it imports, as one module without comments."""
    texts: dict[str, str] = {}
    _collect(entry, texts)
    return "\n".join(texts.values())


def _collect(name: str, texts: dict[str, str]) -> None:
    if name in texts:
        return
    text = (STATIC / name).read_text(encoding="utf-8")
    for imported in _IMPORT.findall(text):
        _collect(imported, texts)
    texts[name] = _COMMENT.sub("", _IMPORT.sub("", text))


ESM = joined("widget.js")
CSS = (STATIC / "widget.css").read_text(encoding="utf-8")
