"""A shell in this process, and one with loopnb."""

from __future__ import annotations

from tests.shells import notebook, one_shell, shell

__all__ = ["notebook", "one_shell", "shell"]
