"""What loopnb uses of Python under private names, for `patching`. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def is_being_imported(module: ModuleType) -> bool:
    """Return True while the module's own code runs, in whichever thread. Any thread; does not block.

    `ModuleSpec._initializing`. False if there is no such attribute. `importlib` has no public way to ask. To
    import the module again would wait for its lock, or, in the importing thread, return a half-made module.
    """
    return bool(getattr(module.__spec__, "_initializing", False))
