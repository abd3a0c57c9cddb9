"""The settings: each says its unit, its default and what 0 means."""

from __future__ import annotations

import pytest
from traitlets import TraitError

from loopnb.settings import LoopNB

NUMBERS = [name for name, trait in LoopNB.class_traits(config=True).items() if trait.default_value != "keep"]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_says_its_unit_its_default_and_what_0_means(name: str) -> None:
    trait = LoopNB.class_traits(config=True)[name]
    text = " ".join(trait.help.split())

    assert text.startswith(("Seconds", "Number"))
    assert f"Default {trait.default_value}. 0 " in text


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_below_0_is_refused(name: str) -> None:
    with pytest.raises((TraitError, ValueError)):
        setattr(LoopNB(), name, -1)


def test_on_rerun_is_one_of_two() -> None:
    with pytest.raises(TraitError):
        LoopNB().on_rerun = "close"
