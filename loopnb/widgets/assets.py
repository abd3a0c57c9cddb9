"""Join the browser's side as anywidget takes it: one text for the script, one for the style.

The script is a few ES modules, each a story of its own, that a browser or Node can load as they are, and
anywidget serves a single text. So they are joined here: each module follows those that it imports, and the
import lines are dropped. That takes no bundler, because each import is one statement, and no two modules use
the same name at their top. `tests/widget/test_front_end.py` checks both.
"""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"

_IMPORT = re.compile(r"""^import \{[^}]*\} from "\./(\w+\.js)";\n""", re.MULTILINE)

#: Comments on lines of their own. Without this, each widget's message and each saved notebook would carry
#: them.
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
