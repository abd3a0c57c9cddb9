"""Changes to other people's objects: what follows them, what they leave behind, what they leave alone."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import subprocess
import sys
import textwrap
import traceback
import weakref
from itertools import permutations
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.patching import (
    CodePatch,
    Difference,
    ImportWatch,
    ListEntry,
    MethodWrapper,
    Patch,
    PatchSet,
    TaskFactoryPatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Base:
    """Has the method."""

    def greet(self, name: str = "you", *, loud: bool = False) -> str:
        """Greet."""
        if not name:
            raise ValueError("nobody")
        return f"hello {name}{'!' if loud else ''}"

    def leave(self) -> str:
        """Take nothing but the instance."""
        return "bye"


class Derived(Base):
    """Inherits it."""


STOCK = vars(Base)["greet"]


def adding(text: str) -> Callable[..., str]:
    def around(greet: Callable[..., str], _instance: Base, *args: Any, **options: Any) -> str:
        return f"{text}({greet(*args, **options)})"

    return around


# -- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [Derived, Derived()], ids=["class", "instance"])
def test_an_inherited_attribute_is_inherited_again(owner: Any) -> None:
    before = dict(vars(owner))
    patch = Patch(owner, "greet", lambda *_args: "patched")
    patch.install()
    patch.install()

    assert owner.greet("us") == "patched"
    assert patch.restore()
    assert patch.restore()
    assert dict(vars(owner)) == before


def test_an_attribute_that_was_not_there_goes() -> None:
    module = ModuleType("module")
    patch = Patch(module, "added", None)
    patch.install()

    assert module.added is None
    assert patch.restore()
    assert not hasattr(module, "added")


def test_what_somebody_else_has_set_since_stays() -> None:
    module = ModuleType("module")
    module.name = "stock"  # type: ignore[attr-defined]  # a module of ours
    patch = Patch(module, "name", "ours")
    patch.install()
    module.name = "theirs"  # type: ignore[attr-defined]  # the same

    assert not patch.is_in_place()
    assert not patch.restore()
    assert module.name == "theirs"
    assert patch.restore()  # it is not installed any more


def test_names_bound_before_follow_the_code_of_a_function() -> None:
    def stock(number: int, factor: int = 2, *, added: int = 1) -> Any:
        return number * factor + added

    def replacement(number: int, factor: int = 2, *, added: int = 1) -> tuple[int, int, int]:
        return number, factor, added

    bound, code = stock, stock.__code__
    patch = CodePatch(stock, replacement)
    patch.install()

    assert bound(1) == (1, 2, 1)
    assert patch.original_function(1) == 3
    assert patch.restore()
    assert bound(1) == 3
    assert stock.__code__ is code


def test_a_factory_that_somebody_has_set_is_left_alone() -> None:
    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    def make_tracked(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    loop = asyncio.new_event_loop()
    try:
        nesting, tracking = TaskFactoryPatch(loop, make), TaskFactoryPatch(loop, make_tracked, over=make)
        nesting.install()
        tracking.install()
        assert loop.get_task_factory() is make_tracked
        third = TaskFactoryPatch(loop, make)
        third.install()
        assert not third.installed
        assert tracking.restore()
        assert loop.get_task_factory() is make
        assert nesting.restore()
        assert loop.get_task_factory() is None
    finally:
        loop.close()


def test_a_set_is_installed_as_a_whole_or_not_at_all() -> None:
    owner, before = Derived(), dict(vars(Derived))
    patches = PatchSet(Patch(Derived, "greet", 1), Patch(owner, "greet", 2), Patch(1, "real", 3))

    with pytest.raises(AttributeError):
        patches.install()

    assert dict(vars(Derived)) == before
    assert not vars(owner)


def test_a_set_puts_everything_back_but_what_somebody_else_has_changed() -> None:
    first, second = Derived(), Derived()
    patches = PatchSet(Patch(first, "name", 1), Patch(second, "name", 2), Patch(second, "name", 3))
    patches.install()
    first.name = "theirs"  # type: ignore[attr-defined]  # a class of ours

    assert not patches.restore()
    assert vars(first) == {"name": "theirs"}
    assert not vars(second)


# -- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_wrappers_come_off_in_any_order(order: tuple[int, ...]) -> None:
    wrappers = [MethodWrapper(Base, "greet", adding(text)) for text in "abc"]
    for wrapper in wrappers:
        wrapper.install()
        wrapper.install()
    assert Derived().greet("us", loud=True) == "c(b(a(hello us!)))"

    left = [0, 1, 2]
    for index in order:
        assert wrappers[index].restore()
        assert wrappers[index].restore()
        left.remove(index)
        expected = "hello us"
        for other in left:
            expected = f"{'abc'[other]}({expected})"
        assert Base().greet("us") == expected
    assert vars(Base)["greet"] is STOCK
    assert "greet" not in vars(Derived)


def test_a_wrapper_for_one_instance_leaves_the_others_alone() -> None:
    first, other = Derived(), Derived()
    wrapper = MethodWrapper(Derived, "greet", lambda greet, name: greet(name).upper(), first)
    wrapper.install()
    try:
        assert (first.greet("us"), other.greet("us")) == ("HELLO US", "hello us")
        assert not vars(first)
    finally:
        wrapper.restore()
    assert first.greet("us") == "hello us"


def test_the_method_looks_as_it_did() -> None:
    wrapper = MethodWrapper(Base, "greet", adding("a"))
    wrapper.install()
    try:
        assert inspect.signature(Base.greet) == inspect.signature(STOCK)
        assert (Base.greet.__doc__, Base.greet.__name__) == ("Greet.", "greet")
    finally:
        wrapper.restore()


def test_a_method_bound_before_follows_if_it_takes_nothing_but_the_instance() -> None:
    stock, code, signature = Base.leave, Base.leave.__code__, inspect.signature(Base.leave)
    first, other = Derived(), Derived()
    bound, bound_to_other = first.leave, other.leave
    wrappers = [
        MethodWrapper(Base, "leave", lambda leave, _instance: f"a({leave()})"),
        MethodWrapper(Derived, "leave", lambda leave: f"b({leave()})", first),
    ]
    for wrapper in wrappers:
        wrapper.install()
    assert (bound(), bound_to_other()) == ("b(a(bye))", "a(bye)")
    assert (inspect.signature(Base.leave), Base.leave.__doc__) == (signature, stock.__doc__)

    assert wrappers[0].restore()
    assert (bound(), bound_to_other()) == ("b(bye)", "bye")
    assert wrappers[1].restore()
    assert (bound(), Base.leave, Base.leave.__code__) == ("bye", stock, code)


def test_somebody_elses_method_around_such_a_one_stays() -> None:
    wrapper = MethodWrapper(Base, "leave", lambda leave, _instance: f"a({leave()})")
    wrapper.install()
    stock = Base.leave
    theirs = Base.leave = lambda self: f"theirs({stock(self)})"  # type: ignore[method-assign]  # their patch
    try:
        assert Base().leave() == "theirs(a(bye))"
        assert wrapper.restore()
        assert Base().leave() == "theirs(bye)"
        assert vars(Base)["leave"] is theirs
    finally:
        Base.leave = stock  # type: ignore[method-assign]  # what it was


def test_an_error_has_no_frame_of_the_wrappers() -> None:
    wrappers = [MethodWrapper(Base, "greet", adding(text)) for text in "ab"]
    for wrapper in wrappers:
        wrapper.install()
    try:
        with pytest.raises(ValueError, match="nobody") as caught:
            Base().greet("")
    finally:
        for wrapper in wrappers:
            wrapper.restore()
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files == [__file__] * len(files)


def theirs_around(below: Callable[..., str]) -> Callable[..., str]:
    """Return somebody else's patch around a method."""
    return lambda self, *args, **options: f"theirs({below(self, *args, **options)})"


def test_somebody_elses_patch_on_top_stays_and_later_wrappers_work() -> None:
    wrapper = MethodWrapper(Base, "greet", adding("a"))
    wrapper.install()
    below = vars(Base)["greet"]
    Base.greet = theirs_around(below)  # type: ignore[method-assign]  # their patch
    try:
        assert not wrapper.restore()
        assert Base().greet("us") == "theirs(hello us)"
        again = MethodWrapper(Base, "greet", adding("b"))
        again.install()
        assert Base().greet("us") == "b(theirs(hello us))"
        assert again.restore()
        assert Base().greet("us") == "theirs(hello us)"
    finally:
        Base.greet = STOCK  # type: ignore[method-assign]  # what it was


def test_wrappers_above_and_below_somebody_elses_patch_come_off_apart() -> None:
    lower, upper = MethodWrapper(Base, "greet", adding("a")), MethodWrapper(Base, "greet", adding("b"))
    lower.install()
    below = vars(Base)["greet"]
    theirs = Base.greet = theirs_around(below)  # type: ignore[method-assign]  # their patch
    try:
        upper.install()
        assert Base().greet("us") == "b(theirs(a(hello us)))"
        assert not lower.restore()
        assert Base().greet("us") == "b(theirs(hello us))"
        assert upper.restore()
        assert vars(Base)["greet"] is theirs
    finally:
        Base.greet = STOCK  # type: ignore[method-assign]  # what it was


def test_a_method_of_a_class_in_c_is_reached_by_way_of_the_subclass() -> None:
    class Numbers(list[int]):
        pass

    def append_twice(append: Callable[..., None], _numbers: Numbers, number: int) -> None:
        append(number)
        append(number)

    wrapper = MethodWrapper(Numbers, "append", append_twice)
    wrapper.install()
    numbers = Numbers()
    numbers.append(3)
    assert wrapper.restore()
    numbers.append(4)
    assert numbers == [3, 3, 4]
    assert "append" not in vars(Numbers)


def test_a_wrapper_keeps_its_instance_neither_alive_nor_changed() -> None:
    loop = asyncio.new_event_loop()
    wrapper = MethodWrapper(type(loop), "stop", lambda stop: stop(), loop)
    wrapper.install()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert "stop" not in vars(loop)
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None
    finally:
        wrapper.restore()


LATE = """
import asyncio, builtins
from loopnb.patching import MethodWrapper

wrapper = MethodWrapper(asyncio.BaseEventLoop, "close", lambda close, loop: close())
wrapper.install()
builtins.kept = asyncio.new_event_loop()  # its finalizer closes it, when nothing can be imported any more
"""


def test_a_wrapped_method_works_when_python_ends() -> None:
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", LATE]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert ran.stderr == ""


# -- modules that are not imported yet -----------------------------------------------------------


@pytest.fixture
def module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Offer a module that can be imported."""
    (tmp_path / "loopnb_tests_late.py").write_text(
        textwrap.dedent("""
        import sys
        for call in getattr(sys, "while_late_is_imported", ()):
            call()
        complete = True
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "loopnb_tests_late"
    sys.modules.pop("loopnb_tests_late", None)


class Seen(list[ModuleType]):
    """The modules that were reported; each is complete."""

    def watch(self, name: str) -> ImportWatch:
        """Return a watch that reports here."""
        return ImportWatch({name: self.note})

    def note(self, module: ModuleType) -> None:
        """Note *module*."""
        assert module.complete
        self.append(module)


def test_a_module_is_reported_once_it_has_been_imported(module_name: str) -> None:
    seen, seen_by_other, finders = Seen(), Seen(), list(sys.meta_path)
    watches = [seen.watch(module_name), seen_by_other.watch(module_name)]
    for watch in watches:
        watch.install()
        watch.install()
    assert not seen

    module = importlib.import_module(module_name)
    watches[0].catch_up()

    assert seen == seen_by_other == [module]
    assert module.__spec__ is not None
    assert "exec_module" not in vars(module.__spec__.loader)
    assert all(watch.restore() for watch in watches)
    assert sys.meta_path == finders


def test_a_module_that_is_there_already_is_reported_at_once(module_name: str) -> None:
    module, seen = importlib.import_module(module_name), Seen()
    watch = seen.watch(module_name)

    watch.install()
    watch.restore()
    assert seen == [module]

    watch.install()
    watch.restore()
    assert seen == [module, module]


def test_a_module_that_another_finder_has_found_is_caught_up_with(
    module_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    watch = seen.watch(module_name)
    watch.install()
    try:
        sys.meta_path.remove(watch)  # as if another one had been asked alone
        # Not while it is being imported: `note` would find it incomplete.
        monkeypatch.setattr(sys, "while_late_is_imported", [watch.catch_up], raising=False)
        module = importlib.import_module(module_name)
        assert not seen
        watch.catch_up()
        assert seen == [module]
    finally:
        watch.restore()


def test_a_watch_that_is_off_reports_nothing(module_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    watch = seen.watch(module_name)
    watch.install()
    monkeypatch.setattr(sys, "while_late_is_imported", [watch.restore], raising=False)

    importlib.import_module(module_name)
    watch.catch_up()

    assert not seen


# -- what somebody else's code changes -----------------------------------------------------------


class Package:
    """Changes a class, as `nest_asyncio.apply()` does."""

    def __init__(self) -> None:
        self.target = type("Target", (), {"stays": 0, "method": "stock", "other": "stock", "gone": "stock"})
        self.instance = self.target()
        self.before = dict(vars(self.target))

    def apply(self) -> None:
        """Replace two attributes, delete one and add one."""
        self.target.method = self.target.other = "patched"  # type: ignore[attr-defined]  # made above
        del self.target.gone  # type: ignore[attr-defined]  # made above
        self.target.count = 0  # type: ignore[attr-defined]  # made above

    def apply_and_fail(self) -> None:
        """Change the same, and raise."""
        self.apply()
        raise ValueError("this loop cannot be patched")


def test_what_somebody_elses_code_has_changed_goes_back() -> None:
    package = Package()
    changes = Difference(package.apply, [package.target, package.instance])
    changes.install()
    package.instance.count = 1

    assert changes.restore()
    assert changes.kept == []
    assert dict(vars(package.target)) == package.before
    assert not vars(package.instance)


def test_what_has_been_changed_again_is_kept_and_named() -> None:
    package = Package()
    changes = Difference(package.apply, [package.target, package.instance])
    changes.install()
    package.target.other = "theirs"  # type: ignore[attr-defined]  # made above

    assert not changes.restore()
    assert changes.kept == ["Target.other"]
    assert dict(vars(package.target)) == package.before | {"other": "theirs"}


def test_a_change_that_fails_leaves_nothing() -> None:
    package = Package()
    changes = Difference(package.apply_and_fail, [package.target])

    with pytest.raises(ValueError, match="cannot be patched"):
        changes.install()

    assert dict(vars(package.target)) == package.before
    assert changes.restore()


def test_an_entry_of_a_list_comes_off_and_the_entries_of_others_stay() -> None:
    first, second = object(), object()
    owner = [first]
    entry = ListEntry(owner, second)

    entry.install()
    entry.install()
    assert owner == [first, second]
    owner.append(first)
    assert entry.restore()
    assert entry.restore()
    assert owner == [first, first]
