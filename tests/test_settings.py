"""The settings: each says its unit, its default and what 0 means."""

from __future__ import annotations

import pytest
from traitlets import TraitError

from loopnb.settings import LoopNB

CHOICES = ["on_rerun", "nesting_order"]
NUMBERS = [name for name in LoopNB.class_traits(config=True) if name not in CHOICES]


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
