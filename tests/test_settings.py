"""The settings: each says its unit, its default and what 0 means."""

from __future__ import annotations

import pytest
from traitlets import TraitError

from loopnb.settings import LoopNB

CHOICES = ["on_rerun", "on_deadlock", "nesting_order", "on_failure"]
SWITCHES = ["progress"]
NUMBERS = [name for name in LoopNB.class_traits(config=True) if name not in [*CHOICES, *SWITCHES]]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_says_its_unit_its_default_and_what_0_means(name: str) -> None:
    trait = LoopNB.class_traits(config=True)[name]
    text = " ".join(trait.help.split())

    assert text.startswith(("Seconds", "Number"))
    assert f"Default {trait.default_value}. 0 " in text


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_below_0_is_refused(name: str) -> None:
    with pytest.raises(TraitError, match=f"LoopNB.{name} takes 0 or more"):
        setattr(LoopNB(), name, -1)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_takes_nothing_else(name: str) -> None:
    with pytest.raises(TraitError):
        setattr(LoopNB(), name, "close")


@pytest.mark.parametrize(
    ("name", "value"),
    [("shutdown_grace", -1), ("on_rerun", "x"), ("rows_shown", "many"), ("finished_kept", -1)],
)
def test_a_value_that_is_refused_leaves_the_one_before(name: str, value: object) -> None:
    settings = LoopNB()
    before = getattr(settings, name)

    with pytest.raises(TraitError):
        setattr(settings, name, value)
    assert getattr(settings, name) == before
    settings.finished_kept = 7
    assert settings.finished_kept == 7
