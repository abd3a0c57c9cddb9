"""Functions before a method: put in and taken out in any order, for one instance or for all."""

from __future__ import annotations

import asyncio
import gc
import inspect
import traceback
import weakref
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.internals.layers import MethodLayer

if TYPE_CHECKING:
    from collections.abc import Callable


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


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_layers_come_off_in_any_order(order: tuple[int, ...]) -> None:
    layers = [MethodLayer(Base, "greet", adding(text)) for text in "abc"]
    for layer in layers:
        layer.install()
        layer.install()
    assert Derived().greet("us", loud=True) == "c(b(a(hello us!)))"

    left = [0, 1, 2]
    for index in order:
        assert layers[index].restore()
        assert layers[index].restore()
        left.remove(index)
        expected = "hello us"
        for other in left:
            expected = f"{'abc'[other]}({expected})"
        assert Base().greet("us") == expected
    assert vars(Base)["greet"] is STOCK
    assert "greet" not in vars(Derived)


def test_a_layer_for_one_instance_leaves_the_others_alone() -> None:
    one, other = Derived(), Derived()
    layer = MethodLayer(Derived, "greet", lambda greet, name: greet(name).upper(), one)
    layer.install()
    try:
        assert (one.greet("us"), other.greet("us")) == ("HELLO US", "hello us")
        assert not vars(one)
    finally:
        layer.restore()
    assert one.greet("us") == "hello us"


def test_the_method_looks_as_it_did() -> None:
    layer = MethodLayer(Base, "greet", adding("a"))
    layer.install()
    try:
        assert inspect.signature(Base.greet) == inspect.signature(STOCK)
        assert (Base.greet.__doc__, Base.greet.__name__) == ("Greet.", "greet")
    finally:
        layer.restore()


def test_a_method_bound_before_follows_if_it_takes_nothing_but_the_instance() -> None:
    stock, code, signature = Base.leave, Base.leave.__code__, inspect.signature(Base.leave)
    one, other = Derived(), Derived()
    bound, bound_to_other = one.leave, other.leave
    layers = [
        MethodLayer(Base, "leave", lambda leave, _instance: f"a({leave()})"),
        MethodLayer(Derived, "leave", lambda leave: f"b({leave()})", one),
    ]
    for layer in layers:
        layer.install()
    assert (bound(), bound_to_other()) == ("b(a(bye))", "a(bye)")
    assert (inspect.signature(Base.leave), Base.leave.__doc__) == (signature, stock.__doc__)

    assert layers[0].restore()
    assert (bound(), bound_to_other()) == ("b(bye)", "bye")
    assert layers[1].restore()
    assert (bound(), Base.leave, Base.leave.__code__) == ("bye", stock, code)


def test_somebody_elses_method_around_such_a_one_stays() -> None:
    layer = MethodLayer(Base, "leave", lambda leave, _instance: f"a({leave()})")
    layer.install()
    stock = Base.leave
    theirs = Base.leave = lambda self: f"theirs({stock(self)})"  # type: ignore[method-assign]
    try:
        assert Base().leave() == "theirs(a(bye))"
        assert layer.restore()
        assert Base().leave() == "theirs(bye)"
        assert vars(Base)["leave"] is theirs
    finally:
        Base.leave = stock  # type: ignore[method-assign]


def test_an_error_has_no_frame_of_the_layers() -> None:
    layers = [MethodLayer(Base, "greet", adding(text)) for text in "ab"]
    for layer in layers:
        layer.install()
    try:
        with pytest.raises(ValueError, match="nobody") as caught:
            Base().greet("")
    finally:
        for layer in layers:
            layer.restore()
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files == [__file__] * len(files)


def test_somebody_elses_patch_on_top_stays_and_later_layers_work() -> None:
    layer = MethodLayer(Base, "greet", adding("a"))
    layer.install()
    below = vars(Base)["greet"]
    Base.greet = lambda self, *args, **options: f"theirs({below(self, *args, **options)})"  # type: ignore[method-assign]
    try:
        assert not layer.restore()
        assert Base().greet("us") == "theirs(hello us)"
        again = MethodLayer(Base, "greet", adding("b"))
        again.install()
        assert Base().greet("us") == "b(theirs(hello us))"
        assert again.restore()
        assert Base().greet("us") == "theirs(hello us)"
    finally:
        Base.greet = STOCK  # type: ignore[method-assign]


def test_layers_above_and_below_somebody_elses_patch_come_off_apart() -> None:
    lower, upper = MethodLayer(Base, "greet", adding("a")), MethodLayer(Base, "greet", adding("b"))
    lower.install()
    below = vars(Base)["greet"]
    theirs = Base.greet = lambda self, *args, **options: f"theirs({below(self, *args, **options)})"  # type: ignore[method-assign]
    try:
        upper.install()
        assert Base().greet("us") == "b(theirs(a(hello us)))"
        assert not lower.restore()
        assert Base().greet("us") == "b(theirs(hello us))"
        assert upper.restore()
        assert vars(Base)["greet"] is theirs
    finally:
        Base.greet = STOCK  # type: ignore[method-assign]


def test_a_method_of_a_class_in_c_is_reached_by_way_of_the_subclass() -> None:
    class Numbers(list[int]):
        pass

    def append_twice(append: Callable[..., None], _numbers: Numbers, number: int) -> None:
        append(number)
        append(number)

    layer = MethodLayer(Numbers, "append", append_twice)
    layer.install()
    numbers = Numbers()
    numbers.append(3)
    assert layer.restore()
    numbers.append(4)
    assert numbers == [3, 3, 4]
    assert "append" not in vars(Numbers)


def test_a_layer_keeps_its_instance_neither_alive_nor_changed() -> None:
    loop = asyncio.new_event_loop()
    layer = MethodLayer(type(loop), "stop", lambda stop: stop(), loop)
    layer.install()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert "stop" not in vars(loop)
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None
    finally:
        layer.restore()
