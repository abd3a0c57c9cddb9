"""Format who waits for whom, and who spawned whom, as a tree. Everything here is pure.

Tasks of one shape share a line: tasks that stand at the same place and wait for the same kind of thing. The
tasks for which these wait stand together below that line. Each task is followed only once, so a tree has at
most as many lines as there are tasks and edges.

Each function that takes long is a generator that yields often, and returns its value at the end. The caller
may let the loop turn in between.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from loopnb.views import age_text, lines_text, not_shown_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from loopnb.records import AwaitGraph, TaskRecord

MOST_LINES = 300
"""How many lines a tree has. The last one says how many tasks are missing."""
_DEEPEST = 40
"""How deep lines are indented at most."""
_AT_ONCE = 512
"""How many tasks are handled in one step. Each takes 1 us."""

_spawned_at: Callable[[TaskRecord], float] = attrgetter("spawned_at")
#: What tasks of one shape have in common; those below which others stand have that in common, too.
_shape: Callable[[TaskRecord], tuple[str, ...]] = attrgetter("coro", "state", "waits_at", "waits_for")

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]


class Branch(NamedTuple):
    """One line of a tree.

    Attributes:
        depth: How far it is indented.
        numbers: The tasks that the line is about, oldest first.
        is_again: All of them have a line further up.
        has_more: Tasks stand below it: they have lines of their own, here or further up.
    """

    depth: int
    numbers: tuple[int, ...]
    is_again: bool
    has_more: bool


class Tree(NamedTuple):
    """A tree, line by line.

    Attributes:
        branches: Its lines.
        visits: How often a task was looked at to make it.
    """

    branches: list[Branch]
    visits: int


def spawned_by(records: Mapping[int, TaskRecord]) -> Steps[dict[int, tuple[int, ...]]]:
    """Return which live tasks each live task has spawned, by number, the kernel's own tasks left out."""
    found: dict[int, list[int]] = {}
    for count, (number, record) in enumerate(sorted(records.items())):
        if record.parent in records and not record.is_kernel and record.parent is not None:
            found.setdefault(record.parent, []).append(number)
        if not count % _AT_ONCE:
            yield
    return {number: tuple(spawned) for number, spawned in found.items()}


def roots_of(
    records: Mapping[int, TaskRecord],
    below: Mapping[int, Sequence[int]],
    is_wanted: Callable[[TaskRecord], bool],
) -> Steps[list[int]]:
    """Return the tasks where a tree begins, oldest first.

    These are the wanted tasks that stand below no other wanted task. Of tasks that stand below each other in
    a circle, the oldest is returned. A task of the kernel's counts as wanted if a wanted task stands below
    it, since a cell waits in it.

    Args:
        records: The live tasks.
        below: Which tasks stand below each.
        is_wanted: Returns True for the tasks that the tree is about.
    """
    wanted: set[int] = set()
    kernels: set[int] = set()
    for part in _parts(records.items()):
        for number, record in part:
            if record.is_kernel:
                kernels.add(number)
            elif is_wanted(record):
                wanted.add(number)
        yield
    wanted |= {number for number in kernels if not wanted.isdisjoint(below.get(number, ()))}
    yield
    reached: set[int] = set()
    known: set[int] = set()  # by id: those who wait for one lock share what stands below them
    for edges in _parts(below.items()):
        for number, under in edges:
            if id(under) in known or number not in wanted:
                continue
            if number in under:
                reached.update(other for other in under if other != number)
            else:
                reached.update(under)
                known.add(id(under))
        yield
    roots = sorted(wanted - reached)
    missing = sorted(wanted & reached)
    seen: set[int] = set()
    if missing:
        yield from _reach(roots, below, seen)
    for number in missing:
        if number not in seen:  # it is part of a circle, or stands below one
            roots.append(number)
            yield from _reach([number], below, seen)
    return roots


def _reach(roots: Iterable[int], below: Mapping[int, Sequence[int]], seen: set[int]) -> Steps[None]:
    """Add to *seen* all that stands below *roots*, and the roots."""
    work = set(roots)
    while fresh := work - seen:
        seen |= fresh
        work = set()
        for part in _parts(fresh):
            # By id: those who wait for one lock share what stands below them.
            for under in {id(under): under for under in map(below.get, part)}.values():
                work.update(under or ())
            yield


def tree_of(
    records: Mapping[int, TaskRecord], below: Mapping[int, Sequence[int]], roots: Iterable[int]
) -> Steps[Tree]:
    """Return the tree that begins with *roots*.

    Args:
        records: The live tasks.
        below: Which tasks stand below each.
        roots: Where it begins.
    """
    branches: list[Branch] = []
    seen: set[int] = set()
    visits = 0
    groups = yield from _groups(roots, records, below)
    work = [(0, group) for group in reversed(groups)]
    while work:
        depth, group = work.pop()
        visits += len(group)
        fresh = [number for number in group if number not in seen]
        has_more = any(map(below.get, group))
        branches.append(Branch(depth, tuple(fresh or group), not fresh, has_more))
        seen.update(fresh)
        yield
        under: dict[int, None] = {}
        if has_more:
            for first in range(0, len(fresh), _AT_ONCE):
                # By id: those who wait for one lock share what stands below them.
                shared = {id(found): found for found in map(below.get, fresh[first : first + _AT_ONCE])}
                for found in shared.values():
                    under.update(dict.fromkeys(found or ()))
                yield
        visits += len(under)
        groups = yield from _groups((number for number in under if number in records), records, below)
        work.extend((depth + 1, inner) for inner in reversed(groups))
    return Tree(branches, visits)


def _groups(
    numbers: Iterable[int], records: Mapping[int, TaskRecord], below: Mapping[int, Sequence[int]]
) -> Steps[list[list[int]]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    above: dict[tuple[str, ...], tuple[str, ...]] = {}  # the shapes of tasks below which others stand
    for part in _parts(numbers):
        for number, shape in zip(part, map(_shape, map(records.__getitem__, part)), strict=True):
            if number in below:
                if shape not in above:
                    above[shape] = (*shape[:3], _kind_of(shape[3]), "below")
                shape = above[shape]
            group = groups.get(shape)
            if group is None:
                groups[shape] = [number]
            else:
                group.append(number)
        yield
    return list(groups.values())


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield *items*, as many at a time as are handled in one step."""
    iterator = iter(items)
    while part := list(islice(iterator, _AT_ONCE)):
        yield part


def _kind_of(waits_for: str) -> str:
    """Return what a task waits for without the names and numbers of other tasks."""
    first, _space, _rest = waits_for.partition(" ")
    return first if first in {"task", "nested", "gather,"} else waits_for


def explained(tree: Tree) -> list[int]:
    """Return the tasks that have a line for themselves, with room for more about their wait."""
    shown = tree.branches[:MOST_LINES]
    return [branch.numbers[0] for branch in shown if len(branch.numbers) == 1 and not branch.is_again]


def tree_text(tree: Tree, graph: AwaitGraph, now: float, said: Mapping[int, str]) -> Steps[str]:
    """Return *tree* as text.

    Args:
        tree: The tree.
        graph: What is known of the tasks.
        now: Monotonic seconds; ages count until then.
        said: What tasks wait for, by number. Only those of `explained` are shown.
    """
    shown = tree.branches[:MOST_LINES]
    lines, named = [], set[int]()
    for branch in shown:
        lines.append("    " * min(branch.depth, _DEEPEST) + line_text(branch, graph, now, said))
        named.update(branch.numbers)
        yield
    missing: set[int] = set()
    for branch in tree.branches[MOST_LINES:]:
        missing.update(branch.numbers)
        yield
    missing -= named
    if missing:
        lines.append(not_shown_text(len(missing)))
    return lines_text(lines)


def line_text(branch: Branch, graph: AwaitGraph, now: float, said: Mapping[int, str]) -> str:
    """Return one line of a tree as text; see `tree_text`."""
    records = [graph.records[number] for number in branch.numbers]
    first = records[0]
    where = _where(first)
    notes = ["waits for itself in a circle"] if _has_any(graph.cyclic, branch) else []
    if _has_any(graph.any_of, branch):
        notes.append("one of these is enough")
    if branch.is_again:
        notes.append("see above")
    note = f" ({'; '.join(notes)})" if notes else ""
    if len(records) == 1:
        words = said.get(first.number, first.waits_for)
        waits = "" if branch.is_again else f", waits for {words}" if words else f", {first.state}"
        return f"{first.label}  {where}{waits}{note}"
    waits = f", wait for {first.waits_for}" if first.waits_for and not branch.has_more else ""
    oldest = age_text(now - min(map(_spawned_at, records)))
    return f"{len(records):,} x {where}{waits}, oldest {oldest}{note}"


def _has_any(numbers: frozenset[int], branch: Branch) -> bool:
    return bool(numbers) and not numbers.isdisjoint(branch.numbers)


def _where(record: TaskRecord) -> str:
    place = record.waits_at.removeprefix(f"{record.coro} ")
    return f"{record.coro}() at {place}" if place else f"{record.coro}()"
