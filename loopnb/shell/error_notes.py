"""Notes on errors: added when an error is shown, so that no error costs anything before.

An error in a cell is shown by `shell.showtraceback()`, whatever kind of cell it is, in a kernel and in a
terminal. IPython's events come too late: it shows the error first. `set_custom_exc()` is the user's.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch, looking_like
from loopnb.texts import error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    #: Returns a note on one error, or None. It need not look at causes.
    Explainer = Callable[[BaseException], str | None]

#: Errors that are looked at behind the one that is shown.
_MOST = 50


class ErrorNotes:
    """Adds notes to errors when they are shown.

    Args:
        shell: The shell, which shows the errors of cells.
        explainers: Asked, in order, for a note on each error that is shown.
    """

    def __init__(self, shell: Any, explainers: Sequence[Explainer]) -> None:
        self._explainers = explainers
        self._patch = Patch(shell, "showtraceback", self._annotating(shell.showtraceback))

    def start(self) -> None:
        """Add notes to what cells show."""
        self._patch.install()

    def stop(self) -> None:
        """Add none any more."""
        self._explainers = ()  # somebody may have kept our function
        self._patch.restore()

    def add_to(self, error: BaseException | None) -> list[str]:
        """Add to *error*, and to those shown with it, the notes they lack, and return all notes of ours.

        Any thread; does not block, and raises nothing.
        """
        notes: list[str] = []
        # An interrupt, too: what it would end is showing an error, and that goes on.
        with suppress(Exception, KeyboardInterrupt):
            for one in _shown_with(error):
                for explain in self._explainers:
                    with suppress(Exception):  # the user's code: an error's `__str__`, for instance
                        note = explain(one)
                        if note is not None:
                            notes.append(note)
                            if note not in getattr(one, "__notes__", ()):
                                one.add_note(note)
        return list(dict.fromkeys(notes))

    def line(self, error: BaseException | None) -> str:
        """Return one line on *error*: its text, then all notes of ours, without a full stop. As `add_to`."""
        return ". ".join([error_text(error), *(note.removesuffix(".") for note in self.add_to(error))])

    def _annotating(self, stock: Any) -> Any:
        def showtraceback(exc_tuple: Any = None, *args: Any, **options: Any) -> Any:
            self.add_to(sys.exception() if exc_tuple is None else exc_tuple[1])
            return stock(exc_tuple, *args, **options)

        return looking_like(stock, showtraceback)


def _shown_with(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and the errors that a traceback shows with it: causes, contexts, members of groups."""
    waiting = deque([error])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        one = waiting.popleft()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        if one.__cause__ is not None:
            waiting.append(one.__cause__)
        elif not one.__suppress_context__:
            waiting.append(one.__context__)
