"""Tab completes commands, options and names of tasks after `%loopnb`, `%aloop` and `%%aloop`."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from loopnb._cpython import name_of
from loopnb.magics.command_table import beginning_with, completions, last_word
from loopnb.magics.options import split_line, takes_the_next_word

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from loopnb.magics.command_table import Command
    from loopnb.session import Session

_log = logging.getLogger("loopnb")

#: A magic and the text after it up to the cursor. A line magic may follow `=`.
_LINE_MAGIC = re.compile(r"(?:^|=)\s*%(loopnb|aloop)\s+(.*)\Z")
_CELL_MAGIC = re.compile(r"^%%(aloop)\s+(.*)\Z")
#: An option in the help of the parser.
_OPTION = re.compile(r"(?<![\w-])--?[a-z]+\b")
#: An option that takes the name of a task ends with one of these: `-bn NAME` is `-b -n NAME`.
_TAKES_A_NAME = ("n", "--name")


class Completion:
    """Completes the magics of one shell. IPython calls it in the thread that asks for a completion.

    Args:
        shell: The shell.
        session: Its session.
        commands: The commands of `%loopnb`.
        parser: Parses the options of `%aloop`.
    """

    def __init__(
        self, shell: Any, session: Session, commands: Sequence[Command], parser: ArgumentParser
    ) -> None:
        self._matchers: list[Any] = getattr(shell.Completer, "custom_matchers", [])
        self._session = session
        self._commands = commands
        self._options = sorted(set(_OPTION.findall(parser.format_help())))

    def start(self) -> None:
        """Complete from now on.

        Before IPython 8.6 this has no effect: the completer takes no matchers there.
        """
        self._matchers.append(self.match)

    def stop(self) -> None:
        """Leave completion to IPython."""
        self._matchers.remove(self.match)

    def match(self, context: Any) -> dict[str, Any]:
        """Return what may stand at the cursor. A matcher of IPython's API version 2.

        Any thread. In another than the loop's it may block until the loop turns. Where completing fails, it
        offers nothing: IPython would print the traceback while the user types.
        """
        try:
            return self._found(context)
        except Exception:  # noqa: BLE001  the loop has ended, or a task is of a class of the user's
            _log.debug("completing a magic failed", exc_info=True)
            return {"completions": []}

    # IPython reads this, which its decorator `context_matcher` would set.
    match.matcher_api_version = 2  # type: ignore[attr-defined]  # a function takes any attribute

    def _found(self, context: Any) -> dict[str, Any]:
        before = context.text_until_cursor
        is_first = context.cursor_line == 0
        found = _LINE_MAGIC.search(before) or (_CELL_MAGIC.match(before) if is_first else None)
        if found is None:
            return {"completions": []}
        magic, typed = found.groups()
        if magic == "loopnb":
            return _result(completions(self._commands, typed, self._names), typed, hides_others=True)
        # After the options of `%aloop` comes code, which IPython completes.
        is_alone = before.startswith("%%") or last_word(typed).startswith("-")
        return _result(self._aloop(typed), typed, hides_others=is_alone)

    def _aloop(self, typed: str) -> list[str]:
        word = last_word(typed)
        options, code = split_line(typed.removesuffix(word))
        if code:
            return []
        if options and takes_the_next_word(options[-1]):
            return beginning_with(word, self._names()) if options[-1].endswith(_TAKES_A_NAME) else []
        return beginning_with(word, self._options) if word.startswith("-") or not word else []

    def _names(self) -> list[str]:
        """Return the names of the live tasks, the newest first."""
        session = self._session
        if session.cell is not None and not session.owner.is_home():
            return []  # the loop may not turn before that cell has ended
        return session.owner.call(lambda: [name_of(task) for task in reversed(session.tracker.live())])


def _result(found: list[str], typed: str, *, hides_others: bool) -> dict[str, Any]:
    """Return what IPython expects of a matcher.

    The completion replaces the last word of *typed*, quotes included. IPython would divide words elsewhere.
    """
    from IPython.core.completer import SimpleCompletion

    return {
        "completions": [SimpleCompletion(text=text, type="magic") for text in found],
        "matched_fragment": last_word(typed),
        "ordered": True,
        "suppress": hides_others and bool(found),
    }
