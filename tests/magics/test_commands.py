"""`%loopnb`: what it does not understand is told before anything is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from IPython.core.error import UsageError

from loopnb.magics.commands import LoopMagics, _unquoted

if TYPE_CHECKING:
    from tests.magics.conftest import Shell

NO_SESSION = cast("Any", None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "nonsense"),
        ("status more", "takes nothing more"),
        ("show more", "takes nothing more"),
        ("tasks more", "takes nothing more"),
        ("tasks --nonsense", "--nonsense"),
        ("tasks --cell x", "takes the N of In[N]"),
        ("tasks --cell", "takes the N of In[N]"),
        ("cancel", "which task"),
        ("cancel --all ticker", "which task"),
        ("cancel --cell=x", "takes the N of In[N]"),
        ("where", "which task"),
    ],
)
def test_bad_input_is_told(shell: Shell, line: str, says: str) -> None:
    magics: Any = LoopMagics(shell, NO_SESSION)

    with pytest.raises(UsageError) as caught:
        magics.loopnb(line)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("two  words", "two  words"),
        ("'two  words'", "two  words"),
        ('"two  words"', "two  words"),
        ("'open", "'open"),
        ("''", "''"),
    ],
)
def test_a_name_may_stand_in_quotes(typed: str, name: str) -> None:
    assert _unquoted(typed) == name
