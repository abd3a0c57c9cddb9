"""Tell where a suspended coroutine waits, without making a frame object for it where that can be avoided.

The wish: a listing says at which line each of ten thousand tasks waits.

What does not work: reading `cr_frame`. It makes a frame object, which takes about 500 bytes and lives for as
long as the coroutine does. asyncio's own `Task.get_stack()` does the same.

Instead we follow `cr_await` from coroutine to coroutine, and read `cr_code` of each. Most code can wait at
only one line, and then the code alone tells the line. Where it has several, we read the frame, but only of
the one coroutine whose line is asked for.

Everything here runs in the loop's thread. It runs no code of the user's but properties of awaitables that are
not Python's own, such as Cython's.
"""

from __future__ import annotations

import asyncio
import gc
from opcode import opmap
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from loopnb.frames import is_users, package_of
from loopnb.tracking.cells import line_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from loopnb.records import CellRef, Describe

#: Delegates to an awaitable. A coroutine that awaits stands at such an instruction or right after it, on the
#: same line.
_SEND = opmap["SEND"]
#: Each `with` statement has one. It calls `__exit__`.
_WITH_EXCEPT_START = opmap["WITH_EXCEPT_START"]


class _Debugs:
    """Stands for a loop. A future asks it nothing else while nobody waits for the future."""

    def get_debug(self) -> bool:
        """Return False."""
        return False


#: What `await future` delegates to: the end of nearly every chain.
FutureIterator: type = type(asyncio.Future(loop=_Debugs()).__await__())  # type: ignore[arg-type]  # enough of a loop
#: A chain is cut at this length. Cycles are impossible, but generators may delegate deeply.
_LONGEST = 1_000


def links_of(awaitable: Any) -> list[Any]:
    """Return *awaitable*, what that awaits, and so on inwards, as far as there is Python code."""
    links: list[Any] = []
    while awaitable is not None and len(links) < _LONGEST:
        kind = type(awaitable)
        if kind is CoroutineType:
            links.append(awaitable)
            awaitable = awaitable.cr_await
        elif kind is GeneratorType:
            links.append(awaitable)
            awaitable = awaitable.gi_yieldfrom
        elif kind is FutureIterator:
            break
        elif frame_of(awaitable) is None:
            awaitable = _driven_by(awaitable)
        else:
            links.append(awaitable)
            inner = getattr(awaitable, "cr_await", None)
            awaitable = getattr(awaitable, "ag_await", None) if inner is None else inner
    return links


#: The types of what `async for` and `anext()` await, and of what `coroutine.__await__()` returns. Such an
#: object has no frame, and no attribute for what it drives. The garbage collector shows it.
_DRIVERS = {"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
_DRIVEN = (AsyncGeneratorType, CoroutineType)


def _driven_by(awaitable: Any) -> Any:
    """Return the coroutine or async generator that *awaitable* drives; None if it is none of `_DRIVERS`."""
    kind = type(awaitable)
    if kind.__module__ != "builtins" or kind.__name__ not in _DRIVERS:
        return None
    for referent in gc.get_referents(awaitable):
        if type(referent) in _DRIVEN:
            return referent
        if type(referent).__name__ in _DRIVERS:
            return _driven_by(referent)
    return None


def code_of(link: Any) -> CodeType:
    """Return the code that runs in *link*: a frame, or one of what `links_of` returns."""
    kind = type(link)
    if kind is CoroutineType:
        return link.cr_code  # type: ignore[no-any-return]  # `kind` says that it is a coroutine
    if kind is GeneratorType:
        return link.gi_code  # type: ignore[no-any-return]  # as above
    frame = frame_of(link)
    assert frame is not None
    return frame.f_code


def instruction_within(coro: Any, depth: int) -> int:
    """Return the offset of the instruction that the link *depth* links inwards from *coro* has reached.

    All links up to there must be coroutines. This makes a lasting frame object.
    """
    for _ in range(depth):
        coro = coro.cr_await
    return coro.cr_frame.f_lasti  # type: ignore[no-any-return]  # a coroutine's


def frame_of(link: Any) -> FrameType | None:
    """Return the frame of *link*; None if it has none. For a coroutine this makes a lasting frame object."""
    if type(link) is FrameType:
        return link
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame: FrameType | None = getattr(link, name, None)
        if frame is not None:
            return frame
    return None


def frames_of(awaitable: Any) -> list[FrameType]:
    """Return the frames of a suspended coroutine, outermost first. This makes lasting frame objects."""
    return [frame for link in links_of(awaitable) if (frame := frame_of(link)) is not None]


#: What `only_wait` has found, by the id of the code, and a reference to the code. Process-wide, as code is.
_only_waits: dict[int, tuple[int | None, ref[CodeType]]] = {}


def only_wait(code: CodeType) -> int | None:
    """Return the offset of an instruction at which *code* waits; None unless all are on one line."""
    key = id(code)
    known = _only_waits.get(key)
    if known is None:
        # In `co_code` each instruction has its opcode at an even offset, and inline caches are zeros.
        waits = [index * 2 for index, opcode in enumerate(code.co_code[::2]) if opcode == _SEND]
        only = waits[0] if len({line_of(code, offset) for offset in waits}) == 1 else None
        known = _only_waits[key] = (only, ref(code, lambda _ref: _only_waits.pop(key, None)))
    return known[0]


#: What `withs_in` has found, by the id of the code, and a reference to the code. Process-wide, as code is.
_withs: dict[int, tuple[int, ref[CodeType]]] = {}


def withs_in(code: CodeType) -> int:
    """Return how many context managers the `with` and `async with` statements of *code* enter."""
    key = id(code)
    known = _withs.get(key)
    if known is None:
        found = code.co_code[::2].count(_WITH_EXCEPT_START)
        known = _withs[key] = (found, ref(code, lambda _ref: _withs.pop(key, None)))
    return known[0]


def instruction_of(link: Any) -> int:
    """Return the instruction at which *link* stands, or another one of that line."""
    if type(link) is CoroutineType:
        if link.cr_suspended:
            only = only_wait(link.cr_code)
            if only is not None and link.cr_await is not None:
                return only
        elif not link.cr_running:
            return 0  # it has not begun
    frame = frame_of(link)
    return 0 if frame is None else frame.f_lasti


def line_where_suspended(coro: Any) -> tuple[str, int] | None:
    """Return file and line of the user's innermost code in which *coro* waits.

    Return None if there is none, or if the coroutine is not suspended: it runs, has not begun, or was closed.
    """
    if type(coro) is CoroutineType and not coro.cr_suspended:
        return None
    for link in reversed(links_of(coro)):
        code = code_of(link)
        if is_users(code):
            return code.co_filename, line_of(code, instruction_of(link))
    return None


def only_line_of(coro: Any) -> tuple[str, int] | None:
    """Return file and line at which the user's coroutine *coro* waits, if its code waits on one line only.

    Return None otherwise. This also works for a coroutine that was closed while it waited.
    """
    code: CodeType | None = getattr(coro, "cr_code", None)
    only = None if code is None or not is_users(code) else only_wait(code)
    return None if code is None or only is None else (code.co_filename, line_of(code, only))


class Words(NamedTuple):
    """What a task waits for, in words, and how long that text stays true.

    It is true at least until the task moves on, unless one of these says otherwise.

    Attributes:
        text: The text; "" if nothing is known.
        is_shared: It is the same for all tasks that wait for a plain future in the same code, so it is made
            only once.
        has_names: It holds the name of a task, which anybody may change.
        changes: It may change at any time.
    """

    text: str
    is_shared: bool = False
    has_names: bool = False
    changes: bool = False


class Shape(NamedTuple):
    """The texts shared by all tasks that wait in the same code and were spawned at the same place.

    Attributes:
        spawn_site: Where they were spawned.
        waits_at: Where they wait.
        waits_for: What they wait for.
        is_kernel: They are the kernel's own.
        note: Notes about their cell.
        cell: Their cell, kept so that its id stays its own.
    """

    spawn_site: str
    waits_at: str
    waits_for: str
    is_kernel: bool
    note: str
    cell: CellRef | None


class Path:
    """What all chains through the same code objects have in common.

    Attributes:
        inner: The paths that go on from here: id of the code that is awaited -> its path.
        several: The depth of the link that a list shows, if its frame has to be read since its code has no
            `only_wait`; else None.
        shapes: (instruction, id of the cell, id of the code that spawned it, instruction there) -> its texts.
        kind: The kind of wait in which such a chain ends, by `waits.Rule`; "" if there is no rule, None if
            nobody has asked.
        subject: The depth of the link that waits, and which of its arguments is what it waits for.
        may_hold: Such a chain may be inside an `async with` block. Known if `kind` is.
    """

    __slots__ = ("inner", "kind", "may_hold", "several", "shapes", "subject")

    def __init__(self, several: int | None) -> None:
        self.kind: str | None = None
        self.may_hold = True
        self.subject = (0, 0)
        self.inner: dict[int, Path] = {}
        self.several = several
        self.shapes: dict[tuple[int, int, int, int], Shape] = {}

    def learn_wait(self, kind: str, depth: int, argument: int, *, may_hold: bool) -> None:
        """Remember the kind of wait in which these chains end, and where they hold what they wait for."""
        self.kind = kind
        self.subject = (depth, argument)
        self.may_hold = may_hold


class KnownCode:
    """What is known of one code object, and texts about it. It does not keep the code alive.

    Args:
        code: The code.
        is_kernels: Given a code object, returns True if a task that runs it is the kernel's own.

    Attributes:
        name: Its qualified name.
        is_users: The user wrote or installed it.
        is_own: The user wrote it.
        is_kernels: A task that runs it is the kernel's own.
        only_wait: What the function `only_wait` returns for it.
        called: What a task that waits in it is said to wait for: `sleep()`, `DataQueue.read() of aiohttp`.
        places: Places in it, in words: (instruction, id of the cell) -> (text, cell). The cell is kept so
            that its id stays its own.
    """

    __slots__ = ("called", "is_kernels", "is_own", "is_users", "name", "only_wait", "places")

    def __init__(self, code: CodeType, is_kernels: Callable[[CodeType], bool]) -> None:
        self.name = code.co_qualname
        package = package_of(code.co_filename)
        of = "" if package in {"", "asyncio"} else f" of {package}"
        self.called = Words(f"{self.name}(){of}", is_shared=True)
        self.is_users = is_users(code)
        self.is_own = not package
        self.is_kernels = is_kernels(code)
        self.only_wait = only_wait(code)
        self.places: dict[tuple[int, int], tuple[str, CellRef | None]] = {}


#: How many shapes are remembered. A notebook has some dozens.
_MOST_SHAPES = 4_096


class KnownCodes:
    """Remembers what is known of code objects, for as long as they live.

    Args:
        describe: Formats file and line for people.
        is_kernels: Given a code object, returns True if a task that runs it is the kernel's own.

    Attributes:
        known: What is known of a code object, by its id. By its id, since Python computes the hash of a code
            object anew each time, from all its names and constants.
        paths: The path of each outermost code object, by its id. Every code object whose id is in a path must
            be in `known`: when one goes, so do all paths.
    """

    def __init__(self, describe: Describe, is_kernels: Callable[[CodeType], bool]) -> None:
        self._describe = describe
        self._is_kernels = is_kernels
        self.known: dict[int, KnownCode] = {}
        self.paths: dict[int, Path] = {}
        self._shapes = 0
        self._refs: dict[int, ref[CodeType]] = {}

    def of(self, code: CodeType) -> KnownCode:
        """Return what is known of *code*."""
        known = self.known.get(id(code))
        return self._learn(code) if known is None else known

    def _learn(self, code: CodeType) -> KnownCode:
        key, known, refs, paths = id(code), self.known, self._refs, self.paths

        def forget(_ref: object) -> None:
            known.pop(key, None)
            refs.pop(key, None)
            paths.clear()

        refs[key] = ref(code, forget)
        learnt = known[key] = KnownCode(code, self._is_kernels)
        return learnt

    def is_kernels_coro(self, coro: object) -> bool:
        """Return True if a task with that coroutine belongs to the kernel itself."""
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        return code is not None and self.of(code).is_kernels

    def place(self, code: CodeType, instruction: int, cell: CellRef | None) -> str:
        """Format file and line of an instruction of *code* for people. The code runs for *cell*."""
        places = (self.known.get(id(code)) or self._learn(code)).places
        known = places.get((instruction, id(cell)))
        if known is None:
            text = self._describe(code.co_filename, line_of(code, instruction), cell)
            known = places[instruction, id(cell)] = (text, cell)
        return known[0]

    def forget_places(self) -> None:
        """Forget all texts: what they are made of has changed."""
        for known in list(self.known.values()):
            known.places.clear()
        self.paths.clear()

    def find_path(self, coro: Any) -> tuple[Path, tuple[CodeType, ...]]:
        """Return the path of the chain that begins with *coro*, and its code, outermost first.

        Raises:
            KeyError: The path is not known, or the chain does not end in a plain future.
        """
        link, paths, codes = coro, self.paths, []
        while type(link) is CoroutineType:
            codes.append(code := link.cr_code)
            path = paths[id(code)]
            paths = path.inner
            link = link.cr_await
        if not codes or type(link) is not FutureIterator:
            raise KeyError("no path")
        return path, tuple(codes)

    def add_path(self, links: list[Any]) -> Path:
        """Return the path of a chain, which is remembered from now on."""
        paths, path = self.paths, Path(None)
        several: int | None = None
        has_own = False
        for depth, link in enumerate(links):
            code = code_of(link)
            known = self.of(code)
            if known.is_own or (known.is_users and not has_own):  # as `index_shown` does
                has_own = has_own or known.is_own
                several = depth if known.only_wait is None else None
            path = paths.setdefault(id(code), Path(several))
            paths = path.inner
        return path

    def index_shown(self, links: list[Any]) -> int:
        """Return the index of the link that a list shows; -1 if there is none.

        That is the innermost one that the user wrote; failing that, the innermost that the user installed.
        """
        installed = -1
        for index in range(len(links) - 1, -1, -1):
            known = self.of(code_of(links[index]))
            if known.is_own:
                return index
            if known.is_users and installed < 0:
                installed = index
        return installed

    def add_shape(self, path: Path, key: tuple[int, int, int, int], shape: Shape) -> None:
        """Remember the texts of a task with that path."""
        self._shapes += 1
        if self._shapes > _MOST_SHAPES:
            self._shapes = 0
            self.paths.clear()
        path.shapes[key] = shape
