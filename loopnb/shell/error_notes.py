"""Add notes to errors when they are shown. Until then an error costs nothing.

We patch `shell.showtraceback()`, which shows the errors of all cells, in a kernel and in a terminal.
IPython's events come too late, after the error was shown. `set_custom_exc()` belongs to the user.

An interrupt while an error is shown ends the showing and nothing else, since the cell has ended already.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch, PatchSet, looking_like
from loopnb.shell._ipython import patch_notes
from loopnb.texts import error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    #: Given one error, returns a note on it, or None. It is called for each cause of an error separately.
    Explainer = Callable[[BaseException], str | None]

#: How many errors are looked at: the error that is shown, its causes, and so on.
_MOST = 50


class ErrorNotes:
    """Adds notes to errors when they are shown, in whichever thread that is.

    Args:
        shell: The shell, which shows the errors of cells.
        explainers: Asked, in order, for a note on each error that is shown.
    """

    def __init__(self, shell: Any, explainers: Sequence[Explainer]) -> None:
        self._explainers = explainers
        self._patches = PatchSet(
            Patch(shell, "showtraceback", self._adding_notes(shell.showtraceback)), patch_notes(shell)
        )

    def start(self) -> None:
        """Add notes to the errors that cells show."""
        self._patches.install()

    def stop(self) -> None:
        """Stop adding notes."""
        self._explainers = ()  # somebody may have kept our `showtraceback`
        self._patches.restore()

    def add_to(self, error: BaseException | None) -> list[str]:
        """Add notes to *error* and to all errors that are shown with it, and return those notes.

        A note that an error already has is returned, and not added again. Any thread. Does not block, and
        raises nothing.
        """
        notes: list[str] = []
        # An interrupt must not keep the error itself from being shown.
        with suppress(Exception, KeyboardInterrupt):
            for shown in _shown_with(error):
                for explain in self._explainers:
                    with suppress(Exception):  # the user's code: an error's `__str__`, for instance
                        note = explain(shown)
                        if note is not None:
                            notes.append(note)
                            if note not in getattr(shown, "__notes__", ()):
                                shown.add_note(note)
        return list(dict.fromkeys(notes))

    def line(self, error: BaseException | None) -> str:
        """Add notes as `add_to` does, and return the error and its notes in one line, without a full stop."""
        return ". ".join([error_text(error), *(note.removesuffix(".") for note in self.add_to(error))])

    def _adding_notes(self, stock: Any) -> Any:
        def showtraceback(exc_tuple: Any = None, *args: Any, **options: Any) -> Any:
            self.add_to(sys.exception() if exc_tuple is None else exc_tuple[1])
            try:
                return stock(exc_tuple, *args, **options)
            except KeyboardInterrupt:
                # IPython stops at the first interrupt, and calls the error's `__str__` to say so. A second
                # interrupt comes out here. In the task of an `await` cell it would go on into the loop, and
                # end the kernel.
                return None

        return looking_like(stock, showtraceback)


def _shown_with(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and the errors that a traceback shows with it: causes, contexts, members of groups."""
    waiting = deque([error])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        shown = waiting.popleft()
        if shown is None or id(shown) in seen:
            continue
        seen.add(id(shown))
        yield shown
        if isinstance(shown, BaseExceptionGroup):
            waiting.extend(shown.exceptions)
        if shown.__cause__ is not None:
            waiting.append(shown.__cause__)
        elif not shown.__suppress_context__:
            waiting.append(shown.__context__)
