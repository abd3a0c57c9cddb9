"""The commands of `%loopnb` as entries of a table, from which help, completion and suggestions are made.

To add a command, add one `Command` to `COMMANDS` in `commands.py`.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

#: The argument of a form that is the name of a live task.
NAME = "NAME"
_OPTION = re.compile(r"--[a-z-]+")
#: The word before the cursor. A quoted word may hold blanks, and its quote may not be closed yet.
_LAST_WORD = re.compile(r"""(?: "[^"]*"? | '[^']*'? | [^\s"'] )* \Z""", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `%loopnb`.

    Attributes:
        name: Its name, as typed.
        group: The class of the object that does it.
        method: Called with that object, and the text after the command.
        forms: Its arguments and a line of help, for each way to use it. In the arguments, a word in capitals
            stands for something (`NAME` is the name of a live task), and other words are typed as they are.
            `|` separates alternatives.
    """

    name: str
    group: type
    method: Callable[[Any, str], None]
    forms: tuple[tuple[str, str], ...]

    @property
    def options(self) -> list[str]:
        """Its options, such as `--all`."""
        found = (option for arguments, _help in self.forms for option in _OPTION.findall(arguments))
        return list(dict.fromkeys(found))

    def next_words(self, words: Sequence[str]) -> list[str]:
        """Return what may follow *words*, the arguments so far. `NAME` stands for each task's name."""
        found = [option for option in self.options if option not in words]
        for arguments, _help in self.forms:
            expected = [argument.split("|") for argument in arguments.split()]
            if len(expected) > len(words) and all(map(_fits, expected, words)):
                found += [word for word in expected[len(words)] if word == NAME or word.islower()]
        return list(dict.fromkeys(found))


def _fits(alternatives: list[str], word: str) -> bool:
    return word in alternatives or any(alternative.isupper() for alternative in alternatives)


def help_text(commands: Iterable[Command]) -> str:
    """Return a line for each form of each command."""
    rows = [
        (f"%loopnb {command.name} {arguments}", line)
        for command in commands
        for arguments, line in command.forms
    ]
    width = max((len(typed) for typed, _line in rows), default=0)
    return "\n".join(f"{typed:<{width}}  {line}" for typed, line in rows)


def find(commands: Iterable[Command], name: str) -> Command:
    """Return the command of that name.

    Raises:
        UsageError: There is none. The text suggests a command with a similar name.
    """
    known = {command.name: command for command in commands}
    if name not in known:
        raise UsageError(
            f"%loopnb: there is no command {name!r}.{meant(name, known)} '%loopnb help' lists them all."
        )
    return known[name]


def meant(word: str, known: Collection[str]) -> str:
    """Return ` Did you mean 'x'?` if *word* looks like one of *known*, or ""."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def last_word(text: str) -> str:
    """Return the word that *text* ends with, with its quotes. Empty after a blank."""
    match = _LAST_WORD.search(text)
    return "" if match is None else match[0]


def completions(commands: Iterable[Command], before: str, names: Callable[[], list[str]]) -> list[str]:
    """Return what the last word of *before*, the text after `%loopnb`, may become.

    Args:
        commands: The commands.
        before: The text up to the cursor.
        names: Returns the names of the live tasks.
    """
    word = last_word(before)
    words = before.removesuffix(word).split()
    known = {command.name: command for command in commands}
    if not words:
        return beginning_with(word, known)
    if words[0] not in known:
        return []
    found: list[str] = []
    for candidate in known[words[0]].next_words(words[1:]):
        found += names() if candidate == NAME else [candidate]
    return beginning_with(word, found)


def beginning_with(word: str, candidates: Iterable[str]) -> list[str]:
    """Return those of *candidates* that begin with *word*, in quotes where they hold blanks or quotes."""
    bare = word.lstrip("\"'")
    return [
        _quoted(candidate, word)
        for candidate in dict.fromkeys(candidates)
        if candidate.startswith(bare) and candidate.isprintable() and candidate
    ]


def _quoted(candidate: str, word: str) -> str:
    if word[:1] not in {'"', "'"} and not set(candidate) & set(" \"'"):
        return candidate
    quote = word[0] if word[:1] in {'"', "'"} else ("'" if '"' in candidate else '"')
    return f"{quote}{candidate}{quote}"


def write(text: str) -> None:
    """Print what a command says, with one line break at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")
