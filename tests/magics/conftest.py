"""An IPython shell in this process, for the magics."""

from __future__ import annotations

from tests.shells import Shell, notebook, one_shell, shell

__all__ = ["Shell", "notebook", "one_shell", "shell"]
