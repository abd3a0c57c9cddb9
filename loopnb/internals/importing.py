"""Hearing of a module's import, in a way that can be taken back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class ImportWatch:
    """Calls a function with each of some modules, now or as soon as it has been imported.

    A finder that finds nothing itself: it asks those after it, and has the loader they come up with
    report. Neither `builtins.__import__` nor any module's `__spec__` is changed, and nothing at
    all happens at the import of other modules. A finder that somebody puts before this one, as
    pytest does for the plugins it rewrites, may be asked alone: hence `catch_up`.

    Args:
        wanted: What to call, by the module's full name.
    """

    def __init__(self, wanted: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._wanted = wanted
        self._unreported = set(wanted)
        self.installed = False

    def install(self) -> None:
        """Report what is imported already, and watch for the rest."""
        if self.installed:
            return
        self.installed = True
        self._unreported = set(self._wanted)
        sys.meta_path.insert(0, self)
        self.catch_up()

    def catch_up(self) -> None:
        """Report what has been imported without being seen."""
        for name in sorted(self._unreported) if self.installed else ():
            module = sys.modules.get(name)
            # While a module's own import is under way its loader reports it.
            if module is not None and not getattr(module.__spec__, "_initializing", False):
                self._report(module)

    def _report(self, module: ModuleType) -> None:
        self._unreported.discard(module.__name__)
        self._wanted[module.__name__](module)

    def restore(self) -> None:
        """Watch no more."""
        self.installed = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a wanted module by the finders that come after this one. Part of the import protocol."""
        if name not in self._wanted:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else ():
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._have_reported(spec.loader, name)
                return spec
        return None

    def _have_reported(self, loader: Any, name: str) -> None:
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if loader.__dict__.get("exec_module") is exec_module:
                del loader.exec_module
            load(module)
            if self.installed and module.__name__ == name:
                self._report(module)

        loader.exec_module = exec_module
