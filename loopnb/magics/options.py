"""Parse the line of `%aloop` and `%%aloop`: leading options, and the raw rest."""

from __future__ import annotations

import keyword
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb.texts import unquoted

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from loopnb.magics.source import Source
    from loopnb.records import CellRef

_TAKING_A_VALUE = frozenset({"-n", "--name", "-t", "--timeout", "-o", "--out"})
_TOKEN = re.compile(r"""\s*( (?: "[^"]*" | '[^']*' | [^\s"'] )+ )""", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class AloopOptions:
    """The options of one use of the magic.

    Attributes:
        name: Name of the task; None for the default.
        is_background: Do not wait for the task.
        timeout: Seconds until it is cancelled; None waits for ever.
        out: Variable that receives the value, or the task of a background run.
        keeps: Leave the cell's earlier background run running, and what this one leaves when it returns.
        replaces: End another cell's task of that name.
        is_fresh: Run on a new loop, which is closed afterwards.
        shows_progress: Show how far it has come, while the cell waits for it.
    """

    name: str | None
    is_background: bool
    timeout: float | None
    out: str | None
    keeps: bool = False
    replaces: bool = False
    is_fresh: bool = False
    shows_progress: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One use of the magic.

    Attributes:
        options: Its options.
        source: The code to run, compiled.
        cell: The cell execution that it is part of; None if that is unknown.
    """

    options: AloopOptions
    source: Source
    cell: CellRef | None

    @property
    def is_quiet(self) -> bool:
        """True if a semicolon at the end hides what there is to display.

        In a background cell the semicolon is about the value of the cell, and the handle is displayed.
        """
        is_background_cell = self.options.is_background and not self.source.is_expression
        return self.source.is_quiet and not is_background_cell


def split_line(line: str) -> tuple[list[str], str]:
    """Split *line* into leading options with their values, and the rest as it was typed.

    From the first word that is no option, the line is code, and no option parser may touch it:
    in `f(lambda n: n -1)` the -1 is part of an expression, and so is the -n in `g("a  b", x) -n`.
    """
    options: list[str] = []
    rest = line
    while (match := _TOKEN.match(rest)) and match[1].startswith("-") and match[1] != "-":
        option, equals, attached = match[1].partition("=")
        options.append(option + equals + unquoted(attached))
        rest = rest[match.end() :]
        if not equals and takes_the_next_word(option) and (value := _TOKEN.match(rest)):
            options.append(unquoted(value[1]))
            rest = rest[value.end() :]
    return options, rest.strip()


def takes_the_next_word(option: str) -> bool:
    """Return True if the value of *option* is the word after it."""
    # `-bn NAME` is `-b -n NAME`; in `-nNAME` the value is attached.
    return option in _TAKING_A_VALUE or re.fullmatch("-b+[nto]", option) is not None


def parse(parser: ArgumentParser, words: list[str]) -> AloopOptions:
    """Parse the options that `split_line` found.

    Raises:
        UsageError: An option is unknown, lacks a proper value, or does not go with another one.
    """
    try:
        args: Any = parser.parse_args(words)
    except UsageError as error:
        raise UsageError(f"%aloop: {error}. '%aloop?' lists the options.") from None
    if args.code:
        raise UsageError(
            f"%aloop: {' '.join(args.code)!r} is not an option. Put an expression that begins with '-' into "
            "parentheses: %aloop (-x)."
        )
    if args.name == "":
        raise UsageError("%aloop: -n takes a name, and yours is empty. Leave -n out for a default name.")
    if args.out is not None and (not args.out.isidentifier() or keyword.iskeyword(args.out)):
        raise UsageError(f"%aloop: -o takes the name of a variable, and {args.out!r} cannot be one.")
    _check_background(args)
    return AloopOptions(
        args.name,
        args.background,
        _seconds(args.timeout),
        args.out,
        keeps=args.keep,
        replaces=args.replace,
        is_fresh=args.fresh,
        shows_progress=args.progress,
    )


def _check_background(args: Any) -> None:
    if args.background and args.fresh:
        raise UsageError(
            "%%aloop: a fresh loop is closed at the end of its cell, so nothing on it can go on in the "
            "background. Leave out -b, or --fresh; or give the loop a thread, from a cell with -b: "
            "await asyncio.to_thread(asyncio.run, main())."
        )
    if args.progress and (args.background or args.fresh):
        raise UsageError("%%aloop: --progress is about a cell that waits; leave out -b and --fresh.")
    if (args.keep or args.replace) and not args.background:
        raise UsageError("%%aloop: --keep and --replace are about background runs; add -b.")
    if args.keep and args.replace:
        raise UsageError("%%aloop: --keep leaves the earlier run running, --replace ends it. Choose one.")
    if args.replace and args.name is None:
        raise UsageError("%%aloop: --replace takes a name over from another cell; add -n NAME.")


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(
            f"%aloop: -t takes seconds above 0, such as -t 2.5, not {text!r}. Leave -t out to wait for ever."
        )
    return seconds
